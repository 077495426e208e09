//! Owns what all pods of ours have in common: labels, restricted security, probes, the user's settings. Must not know
//! what runs in them.
//!
//! Invariant: every pod passes the `restricted` Pod Security Standard, and the selector labels cannot be changed.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pharos_crds::{ImageSpec, PodSettings, PullPolicy, names};

/// User and group of every process of ours.
const UNPRIVILEGED: i64 = 65_532;

/// An image and when to pull it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Reference, as a container runtime takes it.
    pub reference: String,
    /// When the kubelet pulls it.
    pub pull_policy: String,
}

impl Image {
    /// The image that a spec names, else the one that is kept, else the operator's default.
    #[must_use]
    pub fn choose(
        spec: Option<&ImageSpec>,
        kept: Option<&str>,
        running: Option<&PodSpec>,
        default: &Self,
    ) -> Self {
        if let Some(spec) = spec {
            return Self { reference: spec.reference(), pull_policy: spec.pull_policy.as_str().to_owned() };
        }
        let Some(kept) = kept else { return default.clone() };
        // Another pull policy would be another template, and restart the pods.
        let running = node_container(running).filter(|container| container.image.as_deref() == Some(kept));
        let pull_policy = running.and_then(|container| container.image_pull_policy.clone());
        Self {
            reference: kept.to_owned(),
            pull_policy: pull_policy.unwrap_or_else(|| default.pull_policy.clone()),
        }
    }

    /// The image to keep while a spec names none: the one that all pods ran when they were last seen whole, so that an
    /// image that never worked goes when the spec no longer names it. A resource never `visited` before whose status
    /// was lost keeps what its template says.
    #[must_use]
    pub fn kept(recorded: Option<&str>, visited: bool, running: Option<&PodSpec>) -> Option<String> {
        let template = || node_container(running)?.image.clone();
        recorded.map(str::to_owned).or_else(|| if visited { None } else { template() })
    }

    /// A default image, as flags of the operator name it.
    #[must_use]
    pub fn default_of(reference: &str, pull_policy: PullPolicy) -> Self {
        Self { reference: reference.to_owned(), pull_policy: pull_policy.as_str().to_owned() }
    }
}

/// Name of the main container.
pub const CONTAINER: &str = "node";

fn node_container(pod: Option<&PodSpec>) -> Option<&Container> {
    pod?.containers.iter().find(|one| one.name == CONTAINER)
}

/// The labels that select the pods of a resource. They can never change.
#[must_use]
pub fn selector(instance: &str, component: &str) -> BTreeMap<String, String> {
    [(names::LABEL_NAME, names::APP), (names::LABEL_INSTANCE, instance), (names::LABEL_COMPONENT, component)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The same as the API takes it in a query.
#[must_use]
pub fn selector_text(instance: &str, component: &str) -> String {
    let labels = selector(instance, component);
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The labels of every object of a resource.
#[must_use]
pub fn labels(instance: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = selector(instance, component);
    labels.insert(names::LABEL_PART_OF.into(), names::APP.into());
    labels.insert(names::LABEL_MANAGED_BY.into(), names::FIELD_MANAGER.into());
    labels
}

/// Metadata of an object of a resource.
#[must_use]
pub fn metadata(
    name: String,
    namespace: &str,
    labels: BTreeMap<String, String>,
    owner: OwnerReference,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

/// What is particular about a pod.
pub struct Workload<'a> {
    /// Name of the resource.
    pub instance: &'a str,
    /// `ensemble` or `pipeline`.
    pub component: &'a str,
    /// Image of the main container.
    pub image: &'a Image,
    /// Command of the main container.
    pub command: Vec<String>,
    /// Environment that the operator sets.
    pub env: Vec<EnvVar>,
    /// Ports of the main container, by name.
    pub ports: &'a [(&'static str, u16)],
    /// Volumes that the operator sets.
    pub volumes: Vec<Volume>,
    /// Mounts that the operator sets.
    pub mounts: Vec<VolumeMount>,
    /// Annotations that the operator sets.
    pub annotations: BTreeMap<String, String>,
    /// ServiceAccount, unless the user names one.
    pub service_account: String,
    /// Seconds between the request to stop and the kill.
    pub grace_seconds: i64,
    /// The user's settings.
    pub settings: &'a PodSettings,
}

/// The template of a pod.
#[must_use]
pub fn template(workload: Workload<'_>) -> PodTemplateSpec {
    let settings = workload.settings;
    let selector = selector(workload.instance, workload.component);
    let mut labels = settings.labels.clone();
    labels.extend(self::labels(workload.instance, workload.component));
    let mut annotations = settings.annotations.clone();
    annotations.extend(workload.annotations.clone());
    let container = container(&workload);
    let mut volumes = workload.volumes;
    volumes.push(Volume {
        name: "tmp".into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    });
    volumes.extend(settings.volumes.clone());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some_map(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(volumes),
            security_context: Some(pod_security()),
            service_account_name: Some(
                settings.service_account_name.clone().unwrap_or(workload.service_account),
            ),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(workload.grace_seconds),
            node_selector: some_map(settings.node_selector.clone()),
            tolerations: some_list(settings.tolerations.clone()),
            affinity: settings.affinity.clone(),
            topology_spread_constraints: some_list(
                settings.topology_spread_constraints.clone().unwrap_or_else(|| default_spread(&selector)),
            ),
            image_pull_secrets: some_list(settings.image_pull_secrets.clone()),
            priority_class_name: settings.priority_class_name.clone(),
            ..PodSpec::default()
        }),
    }
}

fn container(workload: &Workload<'_>) -> Container {
    let mut mounts = workload.mounts.clone();
    mounts.push(mount("tmp", "/tmp", Access::Write));
    mounts.extend(workload.settings.volume_mounts.clone());
    let mut env = vec![EnvVar {
        name: names::ENV_POD_NAME.into(),
        value_from: Some(own_field("metadata.name")),
        ..EnvVar::default()
    }];
    env.extend(workload.env.clone());
    env.extend(workload.settings.env.clone());
    Container {
        name: CONTAINER.into(),
        image: Some(workload.image.reference.clone()),
        image_pull_policy: Some(workload.image.pull_policy.clone()),
        command: Some(workload.command.clone()),
        env: Some(env),
        ports: some_list(workload.ports.iter().map(|(name, port)| container_port(name, *port)).collect()),
        resources: workload.settings.resources.clone(),
        volume_mounts: Some(mounts),
        security_context: Some(container_security()),
        // Ten minutes: a long log is replayed before the first answer.
        startup_probe: Some(probe("/livez", 2, 300)),
        // Liveness never asks for a quorum: else the loss of one becomes a storm of restarts.
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        ..Container::default()
    }
}

/// A field of the pod itself, as the source of a variable.
#[must_use]
pub fn own_field(path: &str) -> EnvVarSource {
    EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            field_path: path.into(),
            // Stated, since the API server would default it and a later apply would see a difference.
            api_version: Some("v1".into()),
        }),
        ..EnvVarSource::default()
    }
}

/// Whether a mount may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// A mount of the main container.
#[must_use]
pub fn mount(name: &str, path: &str, access: Access) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: (access == Access::Read).then_some(true),
        ..VolumeMount::default()
    }
}

fn container_port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(port),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(i32::from(names::PORT_ADMIN)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(UNPRIVILEGED),
        run_as_group: Some(UNPRIVILEGED),
        fs_group: Some(UNPRIVILEGED),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

fn default_spread(selector: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        .into_iter()
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector.clone()),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        })
        .collect()
}

/// Empty lists and maps are left out of what is applied, or the operator would own them.
fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_map(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// Name of the resource that a pod belongs to, if it is of this component.
#[must_use]
pub fn instance_of(pod: &k8s_openapi::api::core::v1::Pod, component: &str) -> Option<String> {
    let labels = pod.metadata.labels.as_ref()?;
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    let ours = is(names::LABEL_NAME, names::APP) && is(names::LABEL_COMPONENT, component);
    labels.get(names::LABEL_INSTANCE).filter(|_| ours).cloned()
}
