//! Owns the order in which the objects of an Ensemble are written, and the carrying out of a step. Must not know why.
//!
//! Invariant: a new kind of object does not compile until someone decides its place here; nothing is taken down by a
//! process that no longer leads; and never a pod other than the one that was looked at (UID precondition).

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use pharos_crds::names;
use serde_json::json;

use super::build::{self, Desired};
use super::plan::{Predicate, RollNote, Step, Wait};
use super::validate::Validated;
use crate::admin::{AdminClient, AdminError};
use crate::apply::{Applier, ApplyError};
use crate::election::Leadership;

/// Field manager of the note of a roll-out, so that writing the StatefulSet does not take it away.
const ROLL_MANAGER: &str = "pharos-operator-roll";

/// Fails if a name is taken, before anything is written.
///
/// # Errors
/// `NameConflict`, or what the API server says.
pub async fn claim(applier: &Applier, desired: &Desired) -> Result<(), ApplyError> {
    let Desired {
        service_account,
        peers,
        peers_service,
        client_service,
        network_policy,
        budget,
        stateful_set,
    } = desired;
    applier.claim(service_account).await?;
    applier.claim(peers).await?;
    applier.claim(peers_service).await?;
    applier.claim(client_service).await?;
    applier.claim(network_policy).await?;
    if let Some(budget) = budget {
        applier.claim(budget).await?;
    }
    applier.claim(stateful_set).await?;
    Ok(())
}

/// Writes everything an Ensemble is made of.
///
/// # Errors
/// `NameConflict`, or what the API server says.
pub async fn apply(applier: &Applier, desired: &Desired) -> Result<StatefulSet, ApplyError> {
    // No `..`: a new field must find its place.
    let Desired {
        service_account,
        peers,
        peers_service,
        client_service,
        network_policy,
        budget,
        stateful_set,
    } = desired;
    applier.apply(service_account).await?;
    applier.apply(peers).await?;
    applier.apply(peers_service).await?;
    applier.apply(client_service).await?;
    applier.apply(network_policy).await?;
    if let Some(budget) = budget {
        applier.apply(budget).await?;
    }
    applier.apply(stateful_set).await
}

/// Makes the volumes as large as wanted. A StatefulSet's template cannot change, its claims can.
///
/// # Errors
/// What the API server says: most often, that the storage class does not allow it.
pub async fn grow_volumes(client: &Client, ensemble: &Validated) -> Result<(), ApplyError> {
    let size = &ensemble.spec.storage.size;
    if *size == ensemble.template_size {
        return Ok(());
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &ensemble.namespace);
    for ordinal in 0..ensemble.replicas {
        let name = format!("data-{}", names::ensemble::pod(&ensemble.name, ordinal));
        let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        match api.patch(&name, &params, &Patch::Merge(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => {
                let kind = "PersistentVolumeClaim".to_owned();
                return Err(ApplyError::Api { kind, name, source: Box::new(source) });
            }
        }
    }
    Ok(())
}

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Another process may lead.
    #[error("this process no longer leads: nothing is taken down")]
    NotLeading,
    /// An object was not written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The API server refused.
    #[error("pod {pod}: {source}")]
    Pod {
        /// The pod.
        pod: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The leader did not hand over.
    #[error("the leader did not hand over: {0}")]
    Transfer(#[from] AdminError),
    /// There is no token for the call.
    #[error("there is no token for admin calls yet")]
    NoToken,
}

/// What a step needs.
pub struct Hands<'a> {
    /// Client of the API server.
    pub client: &'a Client,
    /// Client of the nodes.
    pub nodes: &'a AdminClient,
    /// Writer of objects.
    pub applier: &'a Applier,
    /// Whether this process leads.
    pub leadership: &'a Leadership,
    /// The Ensemble.
    pub ensemble: &'a Validated,
    /// Its pods.
    pub pods: &'a [Pod],
    /// Its token.
    pub token: Option<&'a str>,
}

/// Carries a step out. An eviction that the budget does not allow becomes a wait.
///
/// # Errors
/// When it cannot be carried out; the next visit plans again.
pub async fn carry_out(hands: &Hands<'_>, step: Step) -> Result<Step, StepError> {
    match &step {
        Step::Done | Step::Wait(_) | Step::Stall { .. } => Ok(step),
        Step::WritePermit(permit) => {
            leads(hands)?;
            hands.applier.create_once(&build::permit(hands.ensemble, permit)).await?;
            Ok(step)
        }
        Step::Delete { pod, uid, .. } => {
            leads(hands)?;
            delete(hands, pod, uid).await?;
            Ok(step)
        }
        Step::Transfer { leader, to } => {
            leads(hands)?;
            let ip = hands
                .pods
                .iter()
                .find(|pod| pod.name_any() == *leader)
                .and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
            let token = hands.token.ok_or(StepError::NoToken)?;
            hands.nodes.transfer(&ip.unwrap_or_default(), *to, token).await?;
            Ok(step)
        }
        Step::Evict(note) => {
            leads(hands)?;
            // Noted first: if this process ends in between, the note asks for less than what is committed.
            write_note(hands, note).await?;
            if evict(hands, note).await? {
                return Ok(step);
            }
            let predicate = Predicate::BudgetAllows;
            Ok(Step::Wait(Wait { predicate, detail: format!("eviction of {} was refused", note.pod) }))
        }
    }
}

/// Asks the kubelet to look at the permit again: it syncs a pod at once when an annotation changes, and a mounted
/// ConfigMap only once a minute else.
///
/// # Errors
/// What the API server says.
pub async fn nudge(client: &Client, namespace: &str, pods: &[String], mark: &str) -> Result<(), StepError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods {
        let patch = json!({"metadata": {"annotations": {names::ANNOTATION_PERMIT: mark}}});
        let params = PatchParams { field_manager: Some(ROLL_MANAGER.into()), ..PatchParams::default() };
        let patched = api.patch(pod, &params, &Patch::Merge(patch)).await;
        patched.map_err(|source| StepError::Pod { pod: pod.clone(), source: Box::new(source) })?;
    }
    Ok(())
}

fn leads(hands: &Hands<'_>) -> Result<(), StepError> {
    if hands.leadership.holds() { Ok(()) } else { Err(StepError::NotLeading) }
}

fn exactly(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

async fn delete(hands: &Hands<'_>, pod: &str, uid: &str) -> Result<(), StepError> {
    let api: Api<Pod> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    match api.delete(pod, &exactly(uid)).await {
        Ok(_) => Ok(()),
        // Gone, or another pod has its name already: either is what was wanted.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(StepError::Pod { pod: pod.to_owned(), source: Box::new(source) }),
    }
}

async fn evict(hands: &Hands<'_>, note: &RollNote) -> Result<bool, StepError> {
    let api: Api<Pod> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let params = EvictParams { delete_options: Some(exactly(&note.uid)), ..EvictParams::default() };
    match api.evict(&note.pod, &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(true),
        Err(source) => Err(StepError::Pod { pod: note.pod.clone(), source: Box::new(source) }),
    }
}

async fn write_note(hands: &Hands<'_>, note: &RollNote) -> Result<(), StepError> {
    let name = names::ensemble::object(&hands.ensemble.name);
    let api: Api<StatefulSet> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let text = serde_json::to_string(note).expect("a note is plain data");
    let patch = json!({"metadata": {"annotations": {names::ANNOTATION_ROLL: text}}});
    let params = PatchParams { field_manager: Some(ROLL_MANAGER.into()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(source) => {
            Err(ApplyError::Api { kind: "StatefulSet".into(), name, source: Box::new(source) }.into())
        }
    }
}
