//! The operator: it turns Ensembles and Pipelines into pods and tells users how they are.
//!
//! Owns the two controllers and what they share. Must not know what is inside a pipeline document (`pharos-beam` does)
//! nor how a node works beyond its admin port.
//!
//! Invariant: a spec is never written; an object that is not ours is never written; every visit begins from what is
//! observed, so that a restart of the operator at any point changes nothing.

pub mod admin;
pub mod apply;
pub mod conditions;
pub mod context;
pub mod controller;
pub mod election;
pub mod ensemble;
pub mod health;
pub mod metrics;
pub mod pipeline;
pub mod pods;
pub mod random;
pub mod rbac;
pub mod status_writer;
