//! Owns every name that crosses a process: API group, labels, annotations, ports, znode roots, conditions, reasons
//! and the suffixes of derived objects. Must not know how any of them is used.
//!
//! Invariant: a name is written here once; the operator, the node and the tests read it from here.

/// API group of both kinds.
pub const GROUP: &str = "pharos.dev";
/// API version of both kinds.
pub const VERSION: &str = "v1alpha1";
/// Field manager of the operator's server-side apply.
pub const FIELD_MANAGER: &str = "pharos-operator";
/// Field manager of the operator's status writes.
pub const STATUS_FIELD_MANAGER: &str = "pharos-operator-status";

/// Longest name of an `Ensemble` or a `Pipeline`: names of other objects derive from it.
pub const MAX_NAME_LENGTH: usize = 40;
/// Longest inline pipeline document, in bytes.
pub const MAX_INLINE_PIPELINE: usize = 128 * 1024;

/// Label with the name of the application; always [`APP`].
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label with the name of the owning custom resource.
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
/// Label with [`COMPONENT_ENSEMBLE`] or [`COMPONENT_PIPELINE`].
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Label that names the tool that manages the object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label that names the whole this is a part of.
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Value of [`LABEL_NAME`] and [`LABEL_PART_OF`].
pub const APP: &str = "pharos";
/// Value of [`LABEL_COMPONENT`] on everything of an Ensemble.
pub const COMPONENT_ENSEMBLE: &str = "ensemble";
/// Value of [`LABEL_COMPONENT`] on everything of a Pipeline.
pub const COMPONENT_PIPELINE: &str = "pipeline";
/// Value of [`LABEL_COMPONENT`] on the pod that fills a volume from a backup.
pub const COMPONENT_RESTORE: &str = "restore";
/// Label the StatefulSet controller sets on a pod: the revision it was made from.
pub const LABEL_REVISION: &str = "controller-revision-hash";

/// Pod annotation: changed to make the kubelet look at the permit at once.
pub const ANNOTATION_PERMIT: &str = "pharos.dev/permit";
/// StatefulSet annotation: which member was replaced last and the commit index noted then, as JSON.
pub const ANNOTATION_ROLL: &str = "pharos.dev/roll";
/// StatefulSet annotation: the change of voters that was asked for last, as JSON.
pub const ANNOTATION_SWITCH: &str = "pharos.dev/switch";
/// StatefulSet annotation: the recovery by force that was begun last, as JSON.
pub const ANNOTATION_RECOVERY: &str = "pharos.dev/recovery";
/// StatefulSet annotation: the restore that was begun last, as JSON. On a claim and a pod: for which one they were made.
pub const ANNOTATION_RESTORE: &str = "pharos.dev/restore";
/// Pod template annotation: hash of the pipeline document the pod runs.
pub const ANNOTATION_DOCUMENT_HASH: &str = "pharos.dev/document-hash";

/// Client port of an ensemble member (ZooKeeper protocol).
pub const PORT_CLIENT: u16 = 2181;
/// Client port of an ensemble member over TLS.
pub const PORT_CLIENT_TLS: u16 = 2281;
/// Port on which members talk to each other.
pub const PORT_PEER: u16 = 2888;
/// Admin port of every pod: `/livez`, `/readyz`, `/v1/…`.
pub const PORT_ADMIN: u16 = 8080;
/// Prometheus port of every pod.
pub const PORT_METRICS: u16 = 7000;
/// Port on which the workers of a Pipeline send rows to each other.
pub const PORT_EXCHANGE: u16 = 7100;

/// Root of all znodes of ours.
pub const ZNODE_ROOT: &str = "/pharos";
/// Root under which each pipeline has its znode, keyed by UID.
pub const ZNODE_PIPELINES: &str = "/pharos/pipelines";

/// Name of a member's volume claim in its pod.
pub const CLAIM: &str = "data";
/// Where a member keeps its data.
pub const DATA_DIR: &str = "/data";
/// Directory of the peers file.
pub const PEERS_DIR: &str = "/etc/pharos/ensemble";
/// Peers file inside an ensemble pod.
pub const PEERS_FILE: &str = "/etc/pharos/ensemble/ensemble.json";
/// Directory of the founding permit; empty until the operator has written it.
pub const PERMIT_DIR: &str = "/etc/pharos/permit";
/// Founding permit inside an ensemble pod.
pub const PERMIT_FILE: &str = "/etc/pharos/permit/permit.json";
/// Directory of the admin token.
pub const TOKEN_DIR: &str = "/etc/pharos/token";
/// Admin token inside an ensemble pod.
pub const TOKEN_FILE: &str = "/etc/pharos/token/token";
/// Directory of the pipeline document.
pub const PIPELINE_DIR: &str = "/etc/pharos/pipeline";
/// Pipeline document inside a worker pod.
pub const PIPELINE_FILE: &str = "/etc/pharos/pipeline/pipeline.yaml";
/// Where `checkpoint.volumeClaim` is mounted inside a worker pod.
pub const CHECKPOINT_DIR: &str = "/var/lib/pharos/checkpoints";
/// Environment variable with the pod's own name.
pub const ENV_POD_NAME: &str = "POD_NAME";
/// Environment variable with the pod's own address.
pub const ENV_POD_IP: &str = "POD_IP";
/// Environment variable with `Stateless` or `LastState`.
pub const ENV_UPGRADE_MODE: &str = "PHAROS_UPGRADE_MODE";
/// Prefix of the environment variable that carries a pipeline variable into the worker.
pub const ENV_VARIABLE_PREFIX: &str = "PHAROS_VAR_";

/// Key of the peers file in its ConfigMap.
pub const KEY_PEERS: &str = "ensemble.json";
/// Key of the permit in its ConfigMap.
pub const KEY_PERMIT: &str = "permit.json";
/// Key of the admin token in its Secret.
pub const KEY_TOKEN: &str = "token";
/// Key of the document in its ConfigMap.
pub const KEY_PIPELINE: &str = "pipeline.yaml";

/// Names of the objects derived from an Ensemble.
pub mod ensemble {
    /// Client Service, StatefulSet, ServiceAccount, budget and network policy.
    #[must_use]
    pub fn object(name: &str) -> String {
        format!("{name}-ensemble")
    }
    /// Headless Service of the members, and ConfigMap of the peers file.
    #[must_use]
    pub fn peers(name: &str) -> String {
        format!("{name}-ensemble-peers")
    }
    /// ConfigMap of the founding permit.
    #[must_use]
    pub fn permit(name: &str) -> String {
        format!("{name}-ensemble-permit")
    }
    /// Secret with the token for mutating admin calls.
    #[must_use]
    pub fn token(name: &str) -> String {
        format!("{name}-ensemble-token")
    }
    /// Pod that fills a volume from a backup.
    #[must_use]
    pub fn restore(name: &str) -> String {
        format!("{name}-ensemble-restore")
    }
    /// Pod of one ordinal.
    #[must_use]
    pub fn pod(name: &str, ordinal: u32) -> String {
        format!("{name}-ensemble-{ordinal}")
    }
    /// Stable DNS name of one ordinal.
    #[must_use]
    pub fn host(name: &str, namespace: &str, ordinal: u32) -> String {
        format!("{}.{}.{namespace}.svc", pod(name, ordinal), peers(name))
    }
    /// Ordinal of a pod, from its name or its stable DNS name.
    #[must_use]
    pub fn ordinal(host: &str) -> Option<usize> {
        host.split('.').next()?.rsplit_once('-')?.1.parse().ok()
    }
    /// Volume claim of a pod.
    #[must_use]
    pub fn claim(pod: &str) -> String {
        format!("{}-{pod}", super::CLAIM)
    }
    /// What clients connect to.
    #[must_use]
    pub fn endpoint(name: &str, namespace: &str) -> String {
        format!("{}.{namespace}.svc:{}", object(name), super::PORT_CLIENT)
    }
    /// What peers call the cluster.
    #[must_use]
    pub fn cluster(name: &str, namespace: &str) -> String {
        format!("{namespace}/{name}")
    }
}

/// Names of the objects derived from a Pipeline.
pub mod pipeline {
    /// StatefulSet, headless Service, ServiceAccount and network policy.
    #[must_use]
    pub fn object(name: &str) -> String {
        format!("{name}-pipeline")
    }
    /// Immutable ConfigMap of the document with this hash.
    #[must_use]
    pub fn document(name: &str, hash: &str) -> String {
        format!("{name}-pipeline-{}", hash.get(..10).unwrap_or(hash))
    }
    /// Pod of one worker.
    #[must_use]
    pub fn pod(name: &str, ordinal: u32) -> String {
        format!("{name}-pipeline-{ordinal}")
    }
    /// Ordinal of a pod, from its name.
    #[must_use]
    pub fn ordinal(pod: &str) -> Option<u32> {
        pod.rsplit_once('-')?.1.parse().ok()
    }
}

/// Condition types.
pub mod condition {
    /// The resource does what it is for. `Completed` and `Suspended` are reasons of `True`.
    pub const READY: &str = "Ready";
    /// Work is under way that ends by itself.
    pub const RECONCILING: &str = "Reconciling";
    /// A person must repair something.
    pub const STALLED: &str = "Stalled";
    /// Ensemble: every founder has its permit and the cluster exists.
    pub const FOUNDED: &str = "Founded";
    /// Ensemble: a quorum serves.
    pub const QUORUM_HEALTHY: &str = "QuorumHealthy";
    /// Ensemble: every pod runs the latest revision.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Pipeline: the document was read and checked.
    pub const VALID: &str = "PipelineValid";
    /// Pipeline: its Ensemble is there and ready.
    pub const ENSEMBLE_READY: &str = "EnsembleReady";
    /// Pipeline: a transform keeps those before it waiting.
    pub const BACK_PRESSURE: &str = "BackPressure";
    /// Pipeline: bounded input was read to its end.
    pub const COMPLETED: &str = "Completed";

    /// All conditions of an Ensemble, in the order in which they are written.
    pub const OF_ENSEMBLE: [&str; 6] = [READY, RECONCILING, STALLED, FOUNDED, QUORUM_HEALTHY, UP_TO_DATE];
    /// All conditions of a Pipeline, in the order in which they are written.
    pub const OF_PIPELINE: [&str; 7] =
        [READY, RECONCILING, STALLED, VALID, ENSEMBLE_READY, COMPLETED, BACK_PRESSURE];
}

/// Condition reasons; those of waits are also reasons of Events.
pub mod reason {
    /// Nothing is known yet.
    pub const UNKNOWN: &str = "Unknown";
    /// All is as it should be.
    pub const AS_DESIRED: &str = "AsDesired";
    /// Nothing stands in the way.
    pub const NOT_STALLED: &str = "NotStalled";
    /// A quorum serves.
    pub const SERVING: &str = "Serving";
    /// Fewer members serve than a quorum.
    pub const NO_QUORUM: &str = "NoQuorum";
    /// Members start.
    pub const MEMBERS_STARTING: &str = "MembersStarting";
    /// Founders have not all reported their empty volumes yet.
    pub const WAITING_FOR_FOUNDERS: &str = "WaitingForFounders";
    /// The permit is written; members read it.
    pub const FOUNDING: &str = "Founding";
    /// The cluster exists.
    pub const FOUNDED: &str = "Founded";
    /// Members come.
    pub const SCALING_UP: &str = "ScalingUp";
    /// Members go.
    pub const SCALING_DOWN: &str = "ScalingDown";
    /// A new member takes the place of one whose volume is lost.
    pub const REPLACING_MEMBER: &str = "ReplacingMember";
    /// The Ensemble goes on from one survivor, as was declared.
    pub const RECOVERING: &str = "Recovering";
    /// The recovery that is declared cannot or must not be done.
    pub const RECOVERY_REFUSED: &str = "RecoveryRefused";
    /// The Ensemble goes on from a backup, as was declared.
    pub const RESTORING: &str = "Restoring";
    /// The restore that is declared cannot or must not be done.
    pub const RESTORE_REFUSED: &str = "RestoreRefused";
    /// The backup cannot be read, or not be put on a volume.
    pub const RESTORE_FAILED: &str = "RestoreFailed";
    /// A roll-out is under way.
    pub const ROLLING_UPDATE: &str = "RollingUpdate";
    /// An object of our name belongs to someone else.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// An object of our name, of a deleted resource of the same name, is still there.
    pub const WAITING_FOR_DELETION: &str = "WaitingForDeletion";
    /// The spec cannot be read or breaks a rule.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The volumes of more members are gone than the others can replace.
    pub const LOST_VOLUME: &str = "LostVolume";
    /// A volume that belongs to another cluster or member is mounted.
    pub const STALE_DISK: &str = "StaleDisk";
    /// Volumes hold a cluster, but the permit ConfigMap is gone and cannot be rebuilt.
    pub const UNSUPPORTED_CHANGE: &str = "UnsupportedChange";
    /// The API server refused an object of ours.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// The pipeline document has errors.
    pub const INVALID_PIPELINE: &str = "InvalidPipeline";
    /// The pipeline document cannot take over the state of the one before it, which stays.
    pub const INCOMPATIBLE_CHANGE: &str = "IncompatibleChange";
    /// The pipeline document is valid.
    pub const VALID: &str = "Valid";
    /// The referred Ensemble does not exist.
    pub const ENSEMBLE_NOT_FOUND: &str = "EnsembleNotFound";
    /// The referred Ensemble is not ready.
    pub const ENSEMBLE_NOT_READY: &str = "EnsembleNotReady";
    /// The ConfigMap or key named by `pipelineFrom` does not exist.
    pub const DOCUMENT_NOT_FOUND: &str = "DocumentNotFound";
    /// Workers start.
    pub const WORKER_STARTING: &str = "WorkerStarting";
    /// Workers leave, or move to a new document, image or run.
    pub const RESTARTING: &str = "Restarting";
    /// The pipeline runs.
    pub const RUNNING: &str = "Running";
    /// Bounded input was read to its end.
    pub const COMPLETED: &str = "Completed";
    /// The pipeline has not read its input to the end.
    pub const NOT_COMPLETED: &str = "NotCompleted";
    /// A transform cannot keep up with those before it.
    pub const SLOW_TRANSFORM: &str = "SlowTransform";
    /// No transform is kept waiting for another one's sake.
    pub const FLOWING: &str = "Flowing";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// Workers leave after `spec.suspend` was set.
    pub const SUSPENDING: &str = "Suspending";
    /// A worker says that the pipeline failed.
    pub const PIPELINE_FAILED: &str = "PipelineFailed";
    /// A worker does not run, or restarts again and again.
    pub const WORKER_CRASHING: &str = "WorkerCrashing";
    /// The step before this one has not been reached.
    pub const NOT_REACHED: &str = "NotReached";
}
