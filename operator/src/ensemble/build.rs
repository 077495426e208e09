//! Owns what an Ensemble is made of. Pure. Must not know what exists already.
//!
//! Invariant: the same validated spec gives the same objects, so that a new operator restarts nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret,
    SecretVolumeSource, Service, ServiceAccount, ServicePort, ServiceSpec, Volume,
    VolumeResourceRequirements,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pharos_crds::Ensemble;
use pharos_crds::names::{self, COMPONENT_ENSEMBLE, ensemble as named};

use super::permit::{Peers, Permit};
use super::validate::Validated;
use crate::apply::owner_reference;
use crate::pods::{self, Access, Workload, mount};

mod restore;

pub use restore::{restore_claim, restore_pod};

const PORTS: [(&str, u16); 4] = [
    ("client", names::PORT_CLIENT),
    ("peer", names::PORT_PEER),
    ("admin", names::PORT_ADMIN),
    ("metrics", names::PORT_METRICS),
];

/// Everything an Ensemble is made of, except what is written once.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// ServiceAccount of the members; its token is mounted nowhere.
    pub service_account: ServiceAccount,
    /// ConfigMap of the peers file.
    pub peers: ConfigMap,
    /// Headless Service of the members.
    pub peers_service: Service,
    /// Service of the clients.
    pub client_service: Service,
    /// Who may talk to the members.
    pub network_policy: NetworkPolicy,
    /// How many may go at once; none for a single member, or its node could never be drained.
    pub budget: Option<PodDisruptionBudget>,
    /// The members.
    pub stateful_set: StatefulSet,
}

/// How large the objects are: it follows who votes, and only in the end what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pods.
    pub pods: u32,
    /// Ordinals that the peers file names.
    pub places: u32,
    /// The voters that the budget protects; `None` leaves it as it is, for nobody says who votes.
    pub voters: Option<u32>,
}

/// Builds everything an Ensemble is made of.
#[must_use]
pub fn build(ensemble: &Validated, sizes: Sizes) -> Desired {
    Desired {
        service_account: ServiceAccount {
            metadata: metadata(ensemble, named::object(&ensemble.name)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        peers: peers(ensemble, sizes.places),
        peers_service: peers_service(ensemble),
        client_service: client_service(ensemble),
        network_policy: network_policy(ensemble),
        budget: budget(ensemble, sizes),
        stateful_set: stateful_set(ensemble, sizes.pods),
    }
}

/// The permit. The kubelet watches what can change, so that joiners find it amended.
#[must_use]
pub fn permit(ensemble: &Validated, permit: &Permit) -> ConfigMap {
    let text = serde_json::to_string_pretty(permit).expect("a permit is plain data");
    ConfigMap {
        metadata: metadata(ensemble, named::permit(&ensemble.name)),
        data: Some([(names::KEY_PERMIT.to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

/// The token for mutating admin calls, written once.
#[must_use]
pub fn token(ensemble: &Validated, token: String) -> Secret {
    Secret {
        metadata: metadata(ensemble, named::token(&ensemble.name)),
        string_data: Some([(names::KEY_TOKEN.to_owned(), token)].into()),
        type_: Some("Opaque".into()),
        immutable: Some(true),
        ..Secret::default()
    }
}

fn metadata(ensemble: &Validated, name: String) -> ObjectMeta {
    pods::metadata(
        name,
        &ensemble.namespace,
        pods::labels(&ensemble.name, COMPONENT_ENSEMBLE),
        owner_reference::<Ensemble>(&ensemble.name, &ensemble.uid),
    )
}

fn selector(ensemble: &Validated) -> BTreeMap<String, String> {
    pods::selector(&ensemble.name, COMPONENT_ENSEMBLE)
}

fn label_selector(ensemble: &Validated) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(ensemble)), ..LabelSelector::default() }
}

fn peers(ensemble: &Validated, places: u32) -> ConfigMap {
    let peers = Peers::new(&ensemble.name, &ensemble.namespace, places);
    let text = serde_json::to_string_pretty(&peers).expect("the peers file is plain data");
    ConfigMap {
        metadata: metadata(ensemble, named::peers(&ensemble.name)),
        data: Some([(names::KEY_PEERS.to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

fn peers_service(ensemble: &Validated) -> Service {
    Service {
        metadata: metadata(ensemble, named::peers(&ensemble.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            // Members find each other before any of them is ready.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(ensemble)),
            ports: Some(PORTS.iter().map(|(name, port)| service_port(name, *port)).collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn client_service(ensemble: &Validated) -> Service {
    Service {
        metadata: metadata(ensemble, named::object(&ensemble.name)),
        spec: Some(ServiceSpec {
            selector: Some(selector(ensemble)),
            ports: Some(vec![service_port("client", names::PORT_CLIENT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn service_port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: i32::from(port),
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}

fn network_policy(ensemble: &Validated) -> NetworkPolicy {
    let port = |port: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(port))),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    };
    let members =
        NetworkPolicyPeer { pod_selector: Some(label_selector(ensemble)), ..NetworkPolicyPeer::default() };
    NetworkPolicy {
        metadata: metadata(ensemble, named::object(&ensemble.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(ensemble)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    from: Some(vec![members]),
                    ports: Some(vec![port(names::PORT_PEER)]),
                },
                NetworkPolicyIngressRule {
                    from: None,
                    ports: Some(vec![
                        port(names::PORT_CLIENT),
                        port(names::PORT_ADMIN),
                        port(names::PORT_METRICS),
                    ]),
                },
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}

/// As many may be away as leave a quorum. A single member may always be asked to go, or its node could never be drained.
fn budget(ensemble: &Validated, sizes: Sizes) -> Option<PodDisruptionBudget> {
    let voters = sizes.voters?;
    let spare = voters - (voters / 2 + 1);
    (spare > 0 || sizes.pods > 1).then(|| PodDisruptionBudget {
        metadata: metadata(ensemble, named::object(&ensemble.name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(i32::try_from(spare.max(1)).expect("at most three"))),
            selector: Some(label_selector(ensemble)),
            // A pod that serves nobody must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}

/// The members, as this many pods.
#[must_use]
pub fn stateful_set(ensemble: &Validated, pods: u32) -> StatefulSet {
    let retention = ensemble.spec.storage.retention;
    StatefulSet {
        metadata: metadata(ensemble, named::object(&ensemble.name)),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::try_from(pods).expect("a StatefulSet has few pods")),
            service_name: Some(named::peers(&ensemble.name)),
            selector: label_selector(ensemble),
            // Ordered start deadlocks a quorum.
            pod_management_policy: Some("Parallel".into()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(retention.when_deleted.as_str().into()),
                when_scaled: Some(retention.when_scaled.as_str().into()),
            }),
            template: pods::template(workload(ensemble)),
            volume_claim_templates: Some(vec![claim(ensemble)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn workload(ensemble: &Validated) -> Workload<'_> {
    Workload {
        instance: &ensemble.name,
        component: COMPONENT_ENSEMBLE,
        image: &ensemble.image,
        command: command(ensemble.spec.max_feature_level),
        env: Vec::new(),
        ports: &PORTS,
        volumes: vec![
            config_volume("peers", named::peers(&ensemble.name), Presence::Required),
            // It is written when all founders have reported, so the first start is without it.
            config_volume("permit", named::permit(&ensemble.name), Presence::Optional),
            Volume {
                name: "token".into(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(named::token(&ensemble.name)),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
        ],
        mounts: vec![
            mount(names::CLAIM, names::DATA_DIR, Access::Write),
            mount("peers", names::PEERS_DIR, Access::Read),
            mount("permit", names::PERMIT_DIR, Access::Read),
            mount("token", names::TOKEN_DIR, Access::Read),
        ],
        annotations: BTreeMap::new(),
        service_account: named::object(&ensemble.name),
        grace_seconds: 30,
        settings: &ensemble.spec.pods,
    }
}

fn command(max_feature_level: Option<i32>) -> Vec<String> {
    let words = [
        "pharos-node",
        "ensemble",
        "--data-dir",
        names::DATA_DIR,
        "--peers-file",
        names::PEERS_FILE,
        "--permit-file",
        names::PERMIT_FILE,
        "--admin-token-file",
        names::TOKEN_FILE,
    ];
    let level = max_feature_level.map(|level| ["--max-feature-level".to_owned(), level.to_string()]);
    words.map(str::to_owned).into_iter().chain(level.into_iter().flatten()).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

fn config_volume(name: &str, config_map: String, presence: Presence) -> Volume {
    Volume {
        name: name.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map,
            optional: (presence == Presence::Optional).then_some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn claim(ensemble: &Validated) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::CLAIM.into()),
            labels: Some(pods::labels(&ensemble.name, COMPONENT_ENSEMBLE)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: ensemble.spec.storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(ensemble.template_size.clone()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
