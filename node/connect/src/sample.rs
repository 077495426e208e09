//! Schemas read from data.

/// Samples files for their schemas.
#[derive(Debug)]
pub struct Sampler;
