//! Owns the claim and the pod that fill a new volume from a backup. Pure. Must not know when they are made.
//!
//! Invariant: keys that open the backup's place reach the pod from their Secret alone; what was made says for which restore.

use k8s_openapi::api::core::v1::{
    EnvFromSource, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, SecretEnvSource, Volume,
};
use pharos_crds::names::{self, COMPONENT_RESTORE, ensemble as named};

use super::{COMPONENT_ENSEMBLE, Validated, claim, metadata};
use crate::ensemble::dereference::restoring;
use crate::ensemble::plan::RestoreOrder;
use crate::pods::{self, Access, Workload, mount};

/// Where the kubelet takes the last words of a container from.
const LAST_WORDS: &str = "/dev/termination-log";

/// The claim of the new volume, as the StatefulSet would make it. It outlives the Ensemble as the others do.
#[must_use]
pub fn restore_claim(ensemble: &Validated, order: &RestoreOrder, place: u32) -> PersistentVolumeClaim {
    let mut claim = claim(ensemble);
    claim.metadata.name = Some(named::claim(&named::pod(&ensemble.name, place)));
    claim.metadata.namespace = Some(ensemble.namespace.clone());
    claim.metadata.labels = Some(pods::labels(&ensemble.name, COMPONENT_ENSEMBLE));
    let mark = restoring::mark(&ensemble.uid, order);
    claim.metadata.annotations = Some([(names::ANNOTATION_RESTORE.to_owned(), mark)].into());
    claim
}

/// The pod that fills it. It has what a member has, but for the probes.
#[must_use]
pub fn restore_pod(ensemble: &Validated, order: &RestoreOrder, place: u32) -> Pod {
    let mark = restoring::mark(&ensemble.uid, order);
    let source = PersistentVolumeClaimVolumeSource {
        claim_name: named::claim(&named::pod(&ensemble.name, place)),
        ..PersistentVolumeClaimVolumeSource::default()
    };
    let mut template = pods::template(Workload {
        instance: &ensemble.name,
        component: COMPONENT_RESTORE,
        image: &ensemble.image,
        command: command(ensemble, order, place),
        env: Vec::new(),
        ports: &[],
        volumes: vec![Volume {
            name: names::CLAIM.into(),
            persistent_volume_claim: Some(source),
            ..Volume::default()
        }],
        mounts: vec![mount(names::CLAIM, names::DATA_DIR, Access::Write)],
        annotations: [(names::ANNOTATION_RESTORE.to_owned(), mark)].into(),
        service_account: named::object(&ensemble.name),
        grace_seconds: 5,
        settings: &ensemble.spec.pods,
    });
    if let Some(spec) = &mut template.spec {
        spec.restart_policy = Some("OnFailure".into());
        for container in &mut spec.containers {
            (container.startup_probe, container.liveness_probe, container.readiness_probe) =
                (None, None, None);
            container.termination_message_policy = Some("FallbackToLogsOnError".into());
            container.env_from = order.credentials.clone().map(|name| vec![keys(name)]);
        }
    }
    let made = template.metadata.unwrap_or_default();
    let mut metadata = metadata(ensemble, named::restore(&ensemble.name));
    (metadata.labels, metadata.annotations) = (made.labels, made.annotations);
    Pod { metadata, spec: template.spec, status: None }
}

fn keys(name: String) -> EnvFromSource {
    let secret_ref = Some(SecretEnvSource { name, optional: None });
    EnvFromSource { secret_ref, ..EnvFromSource::default() }
}

fn command(ensemble: &Validated, order: &RestoreOrder, place: u32) -> Vec<String> {
    let host = named::host(&ensemble.name, &ensemble.namespace, place);
    let (peer, client) = (names::PORT_PEER.to_string(), names::PORT_CLIENT.to_string());
    let mut words: Vec<String> = [
        ["pharos-node", "restore"],
        ["--from", &order.from],
        ["--data-dir", names::DATA_DIR],
        ["--host", &host],
        ["--peer-port", &peer],
        ["--client-port", &client],
        ["--report-file", LAST_WORDS],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    words.push("--unless-restored".into());
    if let Some(generation) = order.generation {
        words.extend(["--generation".to_owned(), generation.to_string()]);
    }
    words
}
