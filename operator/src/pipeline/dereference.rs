//! Owns the reading: what exists of a Pipeline and of what it refers to, and what its workers say. Must not know what
//! any of it means for the next step.
//!
//! Invariant: nothing is written here; a Secret is never read; a worker that does not answer delays a visit by one timeout
//! at most.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pharos_crds::names::{self, COMPONENT_PIPELINE, condition};
use pharos_crds::{Ensemble, Pipeline};

use super::plan::{EnsembleState, Observed, Worker};
use crate::admin::AdminClient;
use crate::apply::is_controlled_by;
use crate::conditions::is_true;
use crate::ensemble::dereference::{DereferenceError, crash, is_ready};
use crate::pods;

/// What exists.
#[derive(Clone, Debug)]
pub struct Existing {
    /// The Ensemble it refers to.
    pub ensemble: EnsembleState,
    /// What its `pipelineFrom` holds.
    pub document: Option<String>,
    /// Its StatefulSet, if it is ours.
    pub stateful_set: Option<StatefulSet>,
    /// Its workers' pods.
    pub pods: Vec<Pod>,
}

/// Reads what exists of a Pipeline.
///
/// # Errors
/// When the API server does not answer.
pub async fn dereference(client: &Client, pipeline: &Pipeline) -> Result<Existing, DereferenceError> {
    let (name, namespace) = (pipeline.name_any(), pipeline.namespace().unwrap_or_default());
    let ensembles: Api<Ensemble> = Api::namespaced(client.clone(), &namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let of_workers: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let ensemble_name = &pipeline.spec.ensemble_ref.name;
    let ensemble = ensembles.get_opt(ensemble_name).await.map_err(read("Ensemble", ensemble_name))?;
    let set_name = names::pipeline::object(&name);
    let set = sets.get_opt(&set_name).await.map_err(read("StatefulSet", &set_name))?;
    let set = set.filter(|one| is_controlled_by(&one.metadata, &pipeline.uid().unwrap_or_default()));
    let set_uid = set.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
    let selector = ListParams::default().labels(&pods::selector_text(&name, COMPONENT_PIPELINE));
    let found = of_workers.list(&selector).await.map_err(read("pods of", &name))?;
    Ok(Existing {
        ensemble: ensemble_state(ensemble.as_ref()),
        document: document(client, pipeline, &namespace).await?,
        stateful_set: set,
        pods: found.items.into_iter().filter(|one| is_controlled_by(&one.metadata, &set_uid)).collect(),
    })
}

fn ensemble_state(ensemble: Option<&Ensemble>) -> EnsembleState {
    let Some(ensemble) = ensemble else { return EnsembleState::Missing };
    let ready = ensemble.status.as_ref().is_some_and(|status| is_true(&status.conditions, condition::READY));
    if ready { EnsembleState::Ready } else { EnsembleState::NotReady }
}

async fn document(
    client: &Client,
    pipeline: &Pipeline,
    namespace: &str,
) -> Result<Option<String>, DereferenceError> {
    let Some(from) = &pipeline.spec.pipeline_from else { return Ok(None) };
    let reference = &from.config_map_key_ref;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = maps.get_opt(&reference.name).await.map_err(read("ConfigMap", &reference.name))?;
    Ok(map.and_then(|map| map.data?.get(&reference.key).cloned()))
}

/// The document that the template of the workers names, if it is still there.
///
/// # Errors
/// When the API server does not answer.
pub async fn document_before(
    client: &Client,
    pipeline: &Pipeline,
    hash: &str,
) -> Result<Option<String>, DereferenceError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &pipeline.namespace().unwrap_or_default());
    let name = names::pipeline::document(&pipeline.name_any(), hash);
    let map = maps.get_opt(&name).await.map_err(read("ConfigMap", &name))?;
    Ok(map.and_then(|map| map.data?.get(names::KEY_PIPELINE).cloned()))
}

fn read(kind: &str, name: &str) -> impl FnOnce(kube::Error) -> DereferenceError {
    let what = format!("{kind} {name}");
    move |source| DereferenceError::Read { what, source: Box::new(source) }
}

/// Asks the workers, and puts together what was seen.
pub async fn observe(nodes: &AdminClient, pipeline: &Pipeline, existing: &Existing) -> Observed {
    let set = existing.stateful_set.as_ref();
    let revision = set.and_then(|set| {
        let status = set.status.as_ref()?;
        let seen = status.observed_generation >= set.metadata.generation;
        status.update_revision.clone().filter(|_| seen)
    });
    let container = set.and_then(|set| container(set.spec.as_ref()?.template.spec.as_ref()?));
    let latest = Latest { revision: revision.as_deref(), container };
    let asked = join_all(existing.pods.iter().map(|pod| ask(nodes, pod, &latest))).await;
    let mut workers: Vec<Worker> = asked.into_iter().flatten().collect();
    workers.sort_by_key(|worker| worker.ordinal);
    Observed {
        ensemble: existing.ensemble,
        exists: set.is_some(),
        revision_known: revision.is_some(),
        workers,
        completed: pipeline.status.as_ref().and_then(|status| status.completed.clone()),
    }
}

/// What new pods are made from.
struct Latest<'a> {
    revision: Option<&'a str>,
    container: Option<&'a Container>,
}

fn container(pod: &PodSpec) -> Option<&Container> {
    pod.containers.iter().find(|one| one.name == pods::CONTAINER)
}

/// Asks the worker in a pod; none if the pod has not the name of one.
async fn ask(nodes: &AdminClient, pod: &Pod, latest: &Latest<'_>) -> Option<Worker> {
    let ordinal = names::pipeline::ordinal(&pod.name_any())?;
    let crash = crash(pod);
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty());
    let status = match address.filter(|_| crash.is_none()) {
        Some(ip) => nodes.pipeline(&ip).await.ok(),
        None => None,
    };
    let runs = pod.spec.as_ref().and_then(container);
    Some(Worker {
        pod: pod.name_any(),
        ordinal,
        uid: pod.uid().unwrap_or_default(),
        up_to_date: latest.revision.is_some()
            && pod.labels().get(names::LABEL_REVISION).map(String::as_str) == latest.revision,
        same_command: runs.and_then(|of| of.command.as_ref())
            == latest.container.and_then(|of| of.command.as_ref()),
        same_image: runs.and_then(|of| of.image.as_ref())
            == latest.container.and_then(|of| of.image.as_ref()),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        ready: is_ready(pod),
        restarted: has_restarted(pod),
        crash: crash.map(|crash| last_words(pod).map_or(crash.clone(), |words| format!("{crash}: {words}"))),
        status,
    })
}

fn has_restarted(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().any(|container| container.restart_count > 0)
}

/// What the worker said before it ended.
fn last_words(pod: &Pod) -> Option<String> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let ended = [container.state.as_ref(), container.last_state.as_ref()];
    let message = ended.into_iter().flatten().find_map(|state| state.terminated.as_ref()?.message.clone())?;
    // The last lines are the ones that say why.
    let lines: Vec<&str> = message.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..)?.join(" | ");
    (!last.is_empty()).then_some(last)
}
