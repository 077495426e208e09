//! Beam YAML to a checked, typed, versioned plan.
//!
//! Owns the language: YAML with positions, transforms, windowing, expressions, and errors that
//! point. Must not know files, clocks, engines or Kubernetes: what must be read from data comes
//! through [`SchemaSource`]. Invariant: a [`plan::Plan`] exists only for a pipeline without errors.

mod compile;
mod config;
pub mod diagnostic;
pub mod expr;
mod graph;
pub mod plan;
pub mod schema;
pub mod state;
mod syntax;
mod transforms;
mod windowing;
mod yaml;

pub use compile::{CheckedPipeline, NoSchemas, SchemaSource, check, compile};
pub use diagnostic::{Diagnostic, Diagnostics, SourceName};
pub use plan::Plan;
pub use state::StateSchema;
