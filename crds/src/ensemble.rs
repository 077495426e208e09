//! Owns the `Ensemble` kind: a cluster that speaks the ZooKeeper protocol. Must not know its rules (`rules`) nor how
//! it is run (`operator`).
//!
//! Invariant: the spec belongs to the user, the status to the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{ImageSpec, PodSettings, Retention};

/// What the user wants of an Ensemble.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pharos.dev",
    version = "v1alpha1",
    kind = "Ensemble",
    plural = "ensembles",
    shortname = "ens",
    category = "pharos",
    namespaced,
    status = "EnsembleStatus",
    derive = "PartialEq",
    doc = "A replicated keeper of small data that speaks the ZooKeeper protocol.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.ready",
        description = "Voters that serve, of those there are or are to be."
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready or not."
    ),
    printcolumn(
        name = "Leader",
        type_ = "string",
        json_path = ".status.leader",
        description = "Pod of the leader."
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        description = "Version of the leader's software."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".status.endpoint",
        priority = 1,
        description = "What clients connect to."
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".status.clusterId",
        priority = 1,
        description = "Identity of the cluster, as on its disks."
    ),
    printcolumn(
        name = "Generation",
        type_ = "integer",
        json_path = ".status.generation",
        priority = 1,
        description = "Generation of the cluster: it rises when it is recovered by force or restored."
    ),
    printcolumn(
        name = "Waiting",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Reconciling\")].message",
        priority = 1,
        description = "What the operator waits for."
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnsembleSpec {
    /// Number of voters: 1, 3, 5 or 7. Default: 3. When it is changed, members join with empty volumes and vote once
    /// they have caught up, all at once; those on the highest ordinals stop voting before their pods go. Clients are
    /// served meanwhile.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 7))]
    pub replicas: i32,
    /// Volume of each member.
    #[serde(default)]
    pub storage: StorageSpec,
    /// Container image of the members. Default: what they ran when last seen whole, or the operator's
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// Settings of the pods. Default: none.
    #[serde(default)]
    pub pods: PodSettings,
    /// Highest feature level to go to, 1 to 65535. Default: the highest that all members can do. A level is raised by the
    /// Ensemble itself, for good: an earlier image that does not know the level in force can then not be run any more. To
    /// try a new image and keep the way back, set this to `status.featureLevel` first, and take it away later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub max_feature_level: Option<i32>,
    /// Recovery by force, after a majority of the volumes was lost for good. Default: none, and it never happens by
    /// itself. Once it is done it says nothing any more and may stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoverySpec>,
    /// Restore: the Ensemble goes on from a backup. Default: none. Once it is done it says nothing any more and may stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
}

fn default_replicas() -> i32 {
    3
}

/// Volume of each member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageSpec {
    /// Size of each volume, a whole number with one of the units `Mi`, `Gi`, `Ti`; at least 64Mi. Default: 10Gi.
    /// It may grow, where the storage class allows it, and never shrinks.
    #[serde(default = "default_size")]
    #[schemars(length(min = 3, max = 16))]
    pub size: String,
    /// Storage class of the volumes. Default: the cluster's own default class. Immutable. 1 to 253 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volumes. Default: they stay when the Ensemble is deleted, and go with their members when it
    /// is made smaller.
    #[serde(default)]
    pub retention: RetentionSpec,
}

fn default_size() -> String {
    "10Gi".into()
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { size: default_size(), storage_class_name: None, retention: RetentionSpec::default() }
    }
}

/// What becomes of the volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionSpec {
    /// When the Ensemble is deleted: `Retain` or `Delete`. Default: `Retain`.
    #[serde(default)]
    pub when_deleted: Retention,
    /// When the Ensemble is made smaller: `Retain` or `Delete`. Default: `Delete`, for the members that go can never
    /// come back. With `Retain` their volumes stay to be looked at until the Ensemble is made as large again: new
    /// members then need volumes of these names, and the old ones are deleted.
    #[serde(default = "deleted")]
    pub when_scaled: Retention,
}

fn deleted() -> Retention {
    Retention::Delete
}

impl Default for RetentionSpec {
    fn default() -> Self {
        Self { when_deleted: Retention::default(), when_scaled: deleted() }
    }
}

/// Recovery by force: the Ensemble goes on from the volume of one member, in a new generation. All other volumes of the
/// generation before are given up: they are deleted with their pods, and new members join in their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoverySpec {
    /// The generation that begins: the one in `status.generation` and one. Of no effect when that has been reached, or
    /// when it is declared while a quorum serves.
    #[schemars(range(min = 2, max = 4_294_967_295_i64))]
    pub generation: i64,
    /// Pod of the member to go on from, as in `status.members`. Of several, the one with the highest `accepted`, and of
    /// those the one with the highest `durable`, has lost least. 1 to 63 characters.
    #[schemars(length(min = 1, max = 63))]
    pub survivor: String,
    /// `AcceptLostWrites`: what was written and the survivor does not have is lost, though clients were told otherwise.
    pub acknowledge: Acknowledgement,
}

/// What a person takes upon themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Acknowledgement {
    /// Writes that the survivor does not have are lost.
    AcceptLostWrites,
}

/// Restore: a new volume is filled from a backup and, once that is whole and durable on it, the Ensemble goes on from it in
/// a new generation. All volumes of the generation before are given up then: they are deleted with their pods, and new
/// members join in their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreSpec {
    /// URL of the backup, as `pharos-node backup` printed it: `s3://bucket/prefix/NAME`, or `file:///path/NAME` on a volume
    /// of `spec.pods`. At most 1024 characters.
    #[schemars(length(min = 1, max = 1024))]
    pub from: String,
    /// The generation that begins, for an Ensemble that exists: above the one in `status.generation` and that of the
    /// backup. Of no effect when it has been reached. Default: none, which restores an Ensemble whose volumes are all
    /// empty, when it is founded, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 4_294_967_295_i64))]
    pub generation: Option<i64>,
    /// What a person takes upon themselves who names a `generation`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<RestoreAcknowledgement>,
    /// Secret whose keys are environment variables of the pod that reads the backup, such as `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, beside those in `spec.pods.env`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretRef>,
}

/// `AcceptLostData`, together with `generation`: all that the Ensemble holds and the backup does not is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RestoreAcknowledgement {
    /// What the Ensemble holds and the backup does not is lost.
    AcceptLostData,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the Secret. 1 to 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the operator has seen of an Ensemble.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnsembleStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Founded`, `QuorumHealthy`, `UpToDate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What clients connect to, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Identity of the cluster, as on its disks: 32 hexadecimal digits, made once when it was founded. A restore brings
    /// that of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Generation of the cluster, from 1: it rises when the cluster is recovered by force or restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// A recovery that was declared while a quorum served: it stays without effect, even if the quorum is lost later,
    /// until it is taken away or another is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined_recovery: Option<RecoverySpec>,
    /// Voters that serve, of those there are or are to be, for people: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Voters that serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Pods at the latest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Pod of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Version of the leader's software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Feature level in force: by its rules all members carry out what is written. It never falls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_level: Option<i32>,
    /// Image that all members ran when they were last seen whole: what they keep while `spec.image` is unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Number of the configuration, from 1: it rises each time when other members become the voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<i64>,
    /// Members, by pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"]))]
    pub members: Vec<MemberStatus>,
}

/// What the operator has seen of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Pod of the member.
    pub pod: String,
    /// Identity of the member, never reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// `leader`, `follower`, `candidate`, `founding`, `blank`, `joining`, `learner`, `removed`, or `unreachable`.
    pub role: String,
    /// Whether it votes. Unset if no member says who does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voter: Option<bool>,
    /// Whether it serves clients.
    pub serving: bool,
    /// While a quorum is missing: the ballot whose leader's log it holds a beginning of, as
    /// `configuration.round.member`. Of two, the member with the higher one knows more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// While a quorum is missing: the last slot durable in its log. Of two with the same `accepted`, the member with
    /// the higher one knows more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<i64>,
    /// Version of its software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}
