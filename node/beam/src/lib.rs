//! Beam YAML to a checked, typed, versioned plan.
//!
//! Owns the language: YAML with positions, transforms, windowing, expressions, and errors that
//! point. Must not know files, clocks, engines or Kubernetes: what must be read from data comes
//! through `SchemaSource`. Invariant: a [`plan::Plan`] exists only for a pipeline without errors.

pub mod diagnostic;
pub mod expr;
pub mod plan;
pub mod schema;
mod yaml;
