//! Owns what a Pipeline is made of. Pure. Must not know what exists already.
//!
//! Invariant: the same validated spec gives the same objects; a secret's value is in none of them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, EnvVar, EnvVarSource, PersistentVolumeClaimVolumeSource,
    SecretKeySelector, Service, ServiceAccount, ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pharos_crds::names::{self, COMPONENT_PIPELINE, pipeline as named};
use pharos_crds::{Pipeline, UpgradeMode, Variable};

use super::validate::Validated;
use crate::apply::owner_reference;
use crate::pods::{self, Access, Workload, mount};

const PORTS: [(&str, u16); 3] =
    [("admin", names::PORT_ADMIN), ("metrics", names::PORT_METRICS), ("exchange", names::PORT_EXCHANGE)];

/// Everything a Pipeline is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The document: immutable, named by its hash, made once.
    pub document: ConfigMap,
    /// ServiceAccount of the workers; its token is mounted nowhere.
    pub service_account: ServiceAccount,
    /// Headless Service of the workers.
    pub service: Service,
    /// Who may talk to the workers.
    pub network_policy: NetworkPolicy,
    /// The workers.
    pub stateful_set: StatefulSet,
}

/// Builds everything a Pipeline is made of.
#[must_use]
pub fn build(pipeline: &Validated, workers: u32) -> Desired {
    Desired {
        document: ConfigMap {
            metadata: metadata(pipeline, named::document(&pipeline.name, &pipeline.hash)),
            data: Some([(names::KEY_PIPELINE.to_owned(), pipeline.document.clone())].into()),
            immutable: Some(true),
            ..ConfigMap::default()
        },
        service_account: ServiceAccount {
            metadata: metadata(pipeline, named::object(&pipeline.name)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        service: service(pipeline),
        network_policy: network_policy(pipeline),
        stateful_set: stateful_set(pipeline, workers),
    }
}

fn metadata(pipeline: &Validated, name: String) -> ObjectMeta {
    pods::metadata(
        name,
        &pipeline.namespace,
        pods::labels(&pipeline.name, COMPONENT_PIPELINE),
        owner_reference::<Pipeline>(&pipeline.name, &pipeline.uid),
    )
}

fn label_selector(pipeline: &Validated) -> LabelSelector {
    let labels = pods::selector(&pipeline.name, COMPONENT_PIPELINE);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn service(pipeline: &Validated) -> Service {
    let port = |(name, port): &(&str, u16)| ServicePort {
        name: Some((*name).into()),
        port: i32::from(*port),
        target_port: Some(IntOrString::String((*name).into())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(pipeline, named::object(&pipeline.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(pods::selector(&pipeline.name, COMPONENT_PIPELINE)),
            ports: Some(PORTS.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn network_policy(pipeline: &Validated) -> NetworkPolicy {
    let port = |port: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(port))),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicy {
        metadata: metadata(pipeline, named::object(&pipeline.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(pipeline)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    from: None,
                    ports: Some(vec![port(names::PORT_ADMIN), port(names::PORT_METRICS)]),
                },
                // Rows are for the other workers alone.
                NetworkPolicyIngressRule {
                    from: Some(vec![NetworkPolicyPeer {
                        pod_selector: Some(label_selector(pipeline)),
                        ..NetworkPolicyPeer::default()
                    }]),
                    ports: Some(vec![port(names::PORT_EXCHANGE)]),
                },
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn stateful_set(pipeline: &Validated, workers: u32) -> StatefulSet {
    let mut template = pods::template(workload(pipeline));
    if let Some(container) = template.spec.as_mut().and_then(|pod| pod.containers.first_mut()) {
        // What a worker says last reaches the conditions.
        container.termination_message_policy = Some("FallbackToLogsOnError".into());
    }
    StatefulSet {
        metadata: metadata(pipeline, named::object(&pipeline.name)),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::try_from(workers).expect("the API has at most 256")),
            service_name: Some(named::object(&pipeline.name)),
            selector: label_selector(pipeline),
            pod_management_policy: Some("Parallel".into()),
            // The operator replaces workers itself, after it has heard whether they have completed.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                rolling_update: None,
            }),
            template,
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn workload(pipeline: &Validated) -> Workload<'_> {
    let mut volumes = vec![Volume {
        name: "pipeline".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: named::document(&pipeline.name, &pipeline.hash),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }];
    let mut mounts = vec![mount("pipeline", names::PIPELINE_DIR, Access::Read)];
    if let Some((volume, mounted)) = checkpoint_volume(pipeline) {
        volumes.push(volume);
        mounts.push(mounted);
    }
    let hash = (names::ANNOTATION_DOCUMENT_HASH.to_owned(), pipeline.hash.clone());
    Workload {
        instance: &pipeline.name,
        component: COMPONENT_PIPELINE,
        image: &pipeline.image,
        command: command(pipeline),
        env: env(pipeline),
        ports: &PORTS,
        volumes,
        mounts,
        annotations: BTreeMap::from([hash]),
        service_account: named::object(&pipeline.name),
        grace_seconds: 60,
        settings: &pipeline.spec.pods,
    }
}

fn checkpoint_volume(pipeline: &Validated) -> Option<(Volume, VolumeMount)> {
    let claim = pipeline.spec.checkpoint.as_ref()?.volume_claim.as_ref()?;
    let volume = Volume {
        name: "checkpoints".into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.claim_name.clone(),
            read_only: None,
        }),
        ..Volume::default()
    };
    let mut mounted = mount("checkpoints", names::CHECKPOINT_DIR, Access::Write);
    mounted.sub_path.clone_from(&claim.sub_path);
    Some((volume, mounted))
}

fn command(pipeline: &Validated) -> Vec<String> {
    let endpoint = names::ensemble::endpoint(&pipeline.spec.ensemble_ref.name, &pipeline.namespace);
    let run_id = pipeline.spec.run_id.to_string();
    let exchange = format!("0.0.0.0:{}", names::PORT_EXCHANGE);
    // The kubelet puts the pod's own in their places.
    let [own_name, own_ip] = [names::ENV_POD_NAME, names::ENV_POD_IP].map(|name| format!("$({name})"));
    let mut words: Vec<String> = [
        "pharos-node",
        "worker",
        "--pipeline-file",
        names::PIPELINE_FILE,
        "--pipeline-uid",
        &pipeline.uid,
        "--namespace",
        &pipeline.namespace,
        "--name",
        &pipeline.name,
        "--document-hash",
        &pipeline.hash,
        "--run-id",
        &run_id,
        "--ensemble",
        &endpoint,
        "--worker-name",
        &own_name,
        "--exchange-addr",
        &exchange,
        "--advertise",
        &own_ip,
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(checkpoint) = &pipeline.checkpoint {
        words.extend(["--checkpoint".into(), checkpoint.url.clone()]);
        words.extend(["--checkpoint-interval".into(), checkpoint.seconds.to_string()]);
    }
    words
}

fn env(pipeline: &Validated) -> Vec<EnvVar> {
    let mode = match pipeline.spec.upgrade_mode {
        UpgradeMode::Stateless => "Stateless",
        UpgradeMode::LastState => "LastState",
    };
    let mode = EnvVar { name: names::ENV_UPGRADE_MODE.into(), value: Some(mode.into()), value_from: None };
    let ip = EnvVar {
        name: names::ENV_POD_IP.into(),
        value_from: Some(pods::own_field("status.podIP")),
        ..EnvVar::default()
    };
    [ip, mode].into_iter().chain(pipeline.spec.variables.iter().map(variable)).collect()
}

fn variable(variable: &Variable) -> EnvVar {
    let source = variable.value_from.as_ref().map(|from| EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: from.secret_key_ref.name.clone(),
            key: from.secret_key_ref.key.clone(),
            optional: None,
        }),
        ..EnvVarSource::default()
    });
    EnvVar {
        name: format!("{}{}", names::ENV_VARIABLE_PREFIX, variable.name),
        value: variable.value.clone(),
        value_from: source,
    }
}
