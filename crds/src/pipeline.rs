//! Owns the `Pipeline` kind: a Beam YAML document and how it runs. Must not know its rules (`rules`), nor what is
//! inside the document (`pharos-beam`).
//!
//! Invariant: the document is text from end to end; nothing here parses it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{ImageSpec, PodSettings};

/// What the user wants of a Pipeline.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pharos.dev",
    version = "v1alpha1",
    kind = "Pipeline",
    plural = "pipelines",
    shortname = "ppl",
    category = "pharos",
    namespaced,
    status = "PipelineStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    doc = "A Beam YAML pipeline that runs over streams or files.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether it runs, is suspended as asked, or has completed."
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready or not."
    ),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Workers that are ready."
    ),
    printcolumn(
        name = "Watermark",
        type_ = "string",
        json_path = ".status.watermark",
        description = "Event time up to which results are complete."
    ),
    printcolumn(
        name = "Lag",
        type_ = "string",
        json_path = ".status.watermarkLag",
        description = "How far the watermark is behind the clock."
    ),
    printcolumn(
        name = "Checkpoint",
        type_ = "date",
        json_path = ".status.checkpointAt",
        description = "Time since the last checkpoint."
    ),
    printcolumn(
        name = "Late",
        type_ = "integer",
        json_path = ".status.lateDropped",
        description = "Rows dropped as late."
    ),
    printcolumn(
        name = "Ensemble",
        type_ = "string",
        json_path = ".spec.ensembleRef.name",
        description = "Ensemble it coordinates through."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Bottleneck",
        type_ = "string",
        json_path = ".status.bottleneck.transform",
        priority = 1,
        description = "Transform that the others wait for."
    ),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        json_path = ".status.epoch",
        priority = 1,
        description = "Last committed checkpoint."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1,
        description = "Why it is ready or not, in a sentence."
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineSpec {
    /// The Ensemble it coordinates through, in the same namespace. Immutable.
    pub ensemble_ref: EnsembleRef,
    /// Number of workers, from 1 to 256. It may be changed at any time, by `kubectl scale` too: workers come and go while
    /// the others go on. Default: 1.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 256))]
    pub replicas: i32,
    /// A Beam YAML document, verbatim. Exactly one of `pipeline` and `pipelineFrom`. At most 128 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 131072))]
    pub pipeline: Option<String>,
    /// Where the Beam YAML document is. Exactly one of `pipeline` and `pipelineFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_from: Option<PipelineSource>,
    /// Checkpoints: how often and where to. Required unless `upgradeMode` is `Stateless`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointSpec>,
    /// What a change of the document or the image keeps: with `LastState` transforms go on from what those of the same
    /// names had in the last checkpoint, and a document that cannot is refused before a worker is stopped; `Stateless`
    /// starts anew. Default: `LastState`.
    #[serde(default)]
    pub upgrade_mode: UpgradeMode,
    /// Whether the workers are taken away while state and progress are kept. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Number of the run. A greater number runs a completed pipeline again; of what else can be changed only another
    /// document does. Default: 1. From 1 to 2147483647.
    #[serde(default = "default_run_id")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_id: i64,
    /// Values that the document refers to by name. Default: none. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variables: Vec<Variable>,
    /// Container image of the workers. Default: what they ran when last seen to run, or the operator's
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// Settings of the pods. Default: none.
    #[serde(default)]
    pub pods: PodSettings,
}

fn default_replicas() -> i32 {
    1
}

fn default_run_id() -> i64 {
    1
}

/// An Ensemble in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnsembleRef {
    /// Name of the Ensemble. 1 to 40 characters.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

/// Where the document is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineSource {
    /// A key of a ConfigMap in the same namespace.
    pub config_map_key_ref: KeyRef,
}

/// A key of a ConfigMap or Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRef {
    /// Name of the object. 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the object. 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Checkpoints: how often and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckpointSpec {
    /// Time between checkpoints, a whole number with one of the units `s`, `m`, `h`; from 1s to 24h. Default: 10s.
    #[serde(default = "default_interval")]
    #[schemars(length(min = 2, max = 8))]
    pub interval: String,
    /// URL of a directory in an object store (`s3://bucket/prefix`) or on a file system that every worker mounts
    /// (`file:///path`), for this Pipeline alone: another one is refused there by name. Exactly one of `location` and
    /// `volumeClaim`. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub location: Option<String>,
    /// A PersistentVolumeClaim that the workers mount, `ReadWriteMany` where they are on several nodes. Exactly one of
    /// `location` and `volumeClaim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaimRef>,
}

fn default_interval() -> String {
    "10s".into()
}

impl CheckpointSpec {
    /// The interval in seconds, if it is written as the API says.
    #[must_use]
    pub fn interval_seconds(&self) -> Option<u64> {
        crate::rules::seconds(&self.interval)
    }
}

/// A PersistentVolumeClaim in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeClaimRef {
    /// Name of the PersistentVolumeClaim. 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Directory in the volume. Default: its root. At most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub sub_path: Option<String>,
}

/// What a change of the document or the image keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum UpgradeMode {
    /// Start anew.
    Stateless,
    /// Go on from the last checkpoint.
    #[default]
    LastState,
}

/// A value that the document refers to by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Name of the variable: a letter or `_`, then letters, digits and `_`. 1 to 64 characters.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// The value itself. Exactly one of `value` and `valueFrom`. At most 4096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Where the value is. Exactly one of `value` and `valueFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<VariableSource>,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VariableSource {
    /// A key of a Secret in the same namespace; only the workers read it.
    pub secret_key_ref: KeyRef,
}

/// What the operator has seen of a Pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `PipelineValid`, `EnsembleReady`, `Completed`, `BackPressure`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the workers say they do: `starting`, `running` if any of them does, `completed`, `failed` or `suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// SHA-256 of the document the workers run, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_hash: Option<String>,
    /// Run the rest of this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// Last committed checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// When the last checkpoint was committed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_at: Option<String>,
    /// Event time up to which results are complete: RFC 3339, `-inf` or `+inf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// How far the watermark is behind the clock, in the two largest units, as in `3m20s`. Not there while no worker says a
    /// watermark, nor before the first row and after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_lag: Option<String>,
    /// The transform that the others wait for, if any was in the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<Bottleneck>,
    /// The splits that are farthest behind the others of their read, the worst first. At most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub splits: Vec<SplitLag>,
    /// Rows dropped as late, in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_dropped: Option<i64>,
    /// Windows closed, in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows_closed: Option<i64>,
    /// Workers whose pods exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Workers that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the workers' pods, for whoever scales by what they use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Image that the workers ran when they were last seen to run: what they keep while `spec.image` is unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The last completed run. While it is the run that the spec asks for, no worker starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<CompletedRun>,
}

/// The transform that the others wait for. It stands for the steps that follow it up to the next grouping or output, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bottleneck {
    /// Name of the transform.
    pub transform: String,
    /// Pod of the worker.
    pub worker: String,
    /// Share of time in which one thread of it worked, in percent.
    pub busy_percent: i64,
    /// Share of time in which the output of those before it, or beside it on another thread, was full, in percent.
    pub blocked_percent: i64,
}

/// A file or object, or a part of one, that is being read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitLag {
    /// Transform that reads it.
    pub transform: String,
    /// Its place among the splits of the transform.
    pub index: i64,
    /// File or object.
    pub file: String,
    /// How many of its bytes are read.
    pub offset: i64,
    /// How many bytes are left, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_left: Option<i64>,
    /// Highest event time that was read. Not there before the first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
    /// How far that is behind the farthest split of the transform, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
}

/// A completed run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletedRun {
    /// UID of the Pipeline that completed.
    pub uid: String,
    /// SHA-256 of the document that completed, in hexadecimal digits.
    pub document_hash: String,
    /// Run that completed.
    pub run_id: i64,
    /// When the operator saw it, RFC 3339.
    pub at: String,
}
