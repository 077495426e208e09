//! The API of Pharos: the kinds `Ensemble` and `Pipeline`, their rules, and every name that crosses a process.
//!
//! Owns Rust types, the JSON Schema made from them, the committed YAML, and one table of rules for each kind. Must not
//! know how a controller or a node works; links no Kubernetes client.
//!
//! Invariant: what the API server refuses, [`admit`] refuses, for `pharos-node local` has no API server.

#![expect(clippy::duplicated_attributes, reason = "printer columns share values, not attributes")]

mod common;
mod ensemble;
pub mod names;
mod pipeline;
pub mod rules;
pub mod schema;

pub use common::{ImageSpec, PodSettings, PullPolicy, Retention};
pub use ensemble::{
    Acknowledgement, Ensemble, EnsembleSpec, EnsembleStatus, MemberStatus, RecoverySpec,
    RestoreAcknowledgement, RestoreSpec, RetentionSpec, SecretRef, StorageSpec,
};
pub use pipeline::{
    Bottleneck, CheckpointSpec, CompletedRun, EnsembleRef, KeyRef, Pipeline, PipelineSource, PipelineSpec,
    PipelineStatus, SplitLag, UpgradeMode, Variable, VariableSource, VolumeClaimRef,
};
pub use rules::{Ruled, Violation, admit, validate, validate_update};
