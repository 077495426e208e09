//! Beam YAML documents through the public entry points.

mod errors;
mod plans;
mod robustness;
mod support;
