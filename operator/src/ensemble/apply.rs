//! Owns the order in which the objects of an Ensemble are written, and the carrying out of a step. Must not know why.
//!
//! Invariant: a new kind of object does not compile until someone decides its place here; nothing is taken down by a
//! process that no longer leads; and never a pod other than the one that was looked at (UID precondition), nor a volume
//! other than the one that this pod has.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use pharos_crds::names;
use serde_json::json;

use super::build::{self, Desired};
use super::dereference::PermitFound;
use super::permit::Permit;
use super::plan::{Predicate, RestoreNote, RestoreOrder, RollNote, Step, Switch, Wait};
use super::validate::Validated;
use crate::admin::{AdminClient, AdminError, Joiner};
use crate::apply::{Applier, ApplyError};
use crate::election::Leadership;

/// Field manager of notes, so that writing the StatefulSet does not take it away.
const NOTE_MANAGER: &str = "pharos-operator-roll";

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
pub async fn grow_volumes(client: &Client, ensemble: &Validated, pods: u32) -> Result<(), ApplyError> {
    let size = &ensemble.spec.storage.size;
    if *size == ensemble.template_size {
        return Ok(());
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &ensemble.namespace);
    for ordinal in 0..pods {
        let name = names::ensemble::claim(&names::ensemble::pod(&ensemble.name, ordinal));
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
    /// The leader did not do as asked.
    #[error("the leader did not do as asked: {0}")]
    Leader(#[from] AdminError),
    /// A volume was not made or not deleted.
    #[error("PersistentVolumeClaim {claim}: {source}")]
    Claim {
        /// The claim.
        claim: String,
        /// Why.
        source: Box<kube::Error>,
    },
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
    /// Its permit, as it was read.
    pub permit: Option<&'a PermitFound>,
}

/// Carries a step out. What the budget or the leader does not allow now becomes a wait.
///
/// # Errors
/// When it cannot be carried out; the next visit plans again.
pub async fn carry_out(hands: &Hands<'_>, step: Step) -> Result<Step, StepError> {
    if !matches!(step, Step::Done | Step::Wait(_) | Step::Stall { .. }) {
        leads(hands)?;
    }
    match &step {
        Step::Done | Step::Wait(_) | Step::Stall { .. } => {}
        Step::WritePermit(permit) => {
            hands.applier.create_once(&build::permit(hands.ensemble, permit)).await?;
        }
        Step::AmendPermit(permit) | Step::PermitRestored(permit) => amend(hands, permit).await?,
        Step::Delete { pod, uid, .. } => delete(hands, pod, uid).await?,
        Step::Discard { pod, uid, .. } | Step::GiveUp { pod, uid, .. } => discard(hands, pod, uid).await?,
        Step::NoteRecovery(note) => {
            // What was committed before may be lost: nobody waits for it any more.
            write_note(hands, names::ANNOTATION_ROLL, None).await?;
            write_note(hands, names::ANNOTATION_RECOVERY, Some(json!(note))).await?;
        }
        Step::NoteRestore(note) => note_restore(hands, note.as_ref()).await?,
        Step::Restore { order, place } => fill(hands, order, *place).await?,
        Step::ClearRestore { pod, claim } => clear_restore(hands, pod.as_deref(), claim.as_ref()).await?,
        Step::Transfer { leader, to, .. } => {
            let (ip, token) = leader_of(hands, leader)?;
            hands.nodes.transfer(&ip, *to, token).await?;
        }
        Step::Scale { pods, .. } => {
            let pods = u32::try_from(*pods).expect("a StatefulSet has few pods");
            hands.applier.apply(&build::stateful_set(hands.ensemble, pods)).await?;
        }
        Step::Register { leader, joiners } => {
            if let Some(refused) = register(hands, leader, joiners).await? {
                return Ok(wait(Predicate::MembersRegistered, refused));
            }
        }
        Step::Deregister { leader, id } => {
            let (ip, token) = leader_of(hands, leader)?;
            if let Some(refused) = unless_refused(hands.nodes.deregister(&ip, *id, token).await)? {
                return Ok(wait(Predicate::MembersRegistered, refused));
            }
        }
        Step::Switch(switch) => {
            if let Some(refused) = ask_for_voters(hands, switch).await? {
                return Ok(wait(Predicate::SwitchCommitted, refused));
            }
        }
        Step::Evict(note) => {
            // Noted first: if this process ends in between, the note asks for less than what is committed.
            write_note(hands, names::ANNOTATION_ROLL, Some(json!(note))).await?;
            if !evict(hands, note).await? {
                let detail = format!("eviction of {} was refused", note.pod);
                return Ok(wait(Predicate::BudgetAllows, detail));
            }
        }
    }
    Ok(step)
}

fn wait(predicate: Predicate, detail: String) -> Step {
    Step::Wait(Wait { predicate, detail })
}

/// Address of the leader, and the token for it.
fn leader_of<'a>(hands: &Hands<'a>, leader: &str) -> Result<(String, &'a str), StepError> {
    Ok((ip_of(hands, leader).unwrap_or_default(), hands.token.ok_or(StepError::NoToken)?))
}

fn ip_of(hands: &Hands<'_>, pod: &str) -> Option<String> {
    hands.pods.iter().find(|seen| seen.name_any() == pod)?.status.as_ref()?.pod_ip.clone()
}

/// What the leader said if it cannot do as asked now.
fn unless_refused(answer: Result<(), AdminError>) -> Result<Option<String>, StepError> {
    match answer {
        Ok(()) => Ok(None),
        Err(error) => match error.conflict() {
            Some(why) => Ok(Some(format!("the leader refuses: {why}"))),
            None => Err(error.into()),
        },
    }
}

async fn register(
    hands: &Hands<'_>,
    leader: &str,
    joiners: &[(usize, String)],
) -> Result<Option<String>, StepError> {
    let (ip, token) = leader_of(hands, leader)?;
    // One whose version knows of no levels takes no field of that name.
    let knows_levels = hands.nodes.status(&ip).await?.feature_level.is_some();
    for (ordinal, volume) in joiners {
        let ordinal = u32::try_from(*ordinal).expect("a StatefulSet has few pods");
        let host = names::ensemble::host(&hands.ensemble.name, &hands.ensemble.namespace, ordinal);
        let (peer_port, client_port) = (names::PORT_PEER, names::PORT_CLIENT);
        let feature_levels = match ip_of(hands, &names::ensemble::pod(&hands.ensemble.name, ordinal)) {
            Some(ip) if knows_levels => hands.nodes.identity(&ip).await?.feature_levels,
            _ => None,
        };
        let joiner = Joiner { volume, host: &host, peer_port, client_port, feature_levels };
        if let Some(refused) = unless_refused(hands.nodes.register(&ip, &joiner, token).await)? {
            return Ok(Some(refused));
        }
    }
    Ok(None)
}

/// Noted first: whatever becomes of this process or of the answer, the next visit knows that it may have been asked. A
/// refusal of what was not asked before means that nothing is under way.
async fn ask_for_voters(hands: &Hands<'_>, switch: &Switch) -> Result<Option<String>, StepError> {
    let (ip, token) = leader_of(hands, &switch.leader)?;
    if !switch.asked_before {
        write_note(hands, names::ANNOTATION_SWITCH, Some(json!(switch.note))).await?;
    }
    let answer = hands.nodes.switch(&ip, switch.note.config, &switch.voters, token).await;
    let refused = unless_refused(answer)?;
    if refused.is_some() && !switch.asked_before {
        write_note(hands, names::ANNOTATION_SWITCH, None).await?;
    }
    Ok(refused)
}

/// Nobody else may have written it since it was read: what it says of the founders must not get lost.
async fn amend(hands: &Hands<'_>, permit: &Permit) -> Result<(), StepError> {
    let map = build::permit(hands.ensemble, permit);
    let Some(found) = hands.permit else { return Ok(hands.applier.create_once(&map).await?) };
    let name = map.name_any();
    let api: Api<ConfigMap> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let patch = json!({"metadata": {"resourceVersion": found.version}, "data": map.data});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let patched = api.patch(&name, &params, &Patch::Merge(patch)).await;
    let refused = |source| ApplyError::Api { kind: "ConfigMap".into(), name, source: Box::new(source) };
    patched.map(drop).map_err(|source| refused(source).into())
}

/// While the pod is there, its claim is not replaced: so the claim of that name is the one that this pod has.
async fn discard(hands: &Hands<'_>, pod: &str, uid: &str) -> Result<(), StepError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let pods: Api<Pod> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let claim = names::ensemble::claim(pod);
    let failed = |source| StepError::Claim { claim: claim.clone(), source: Box::new(source) };
    let found = claims.get_metadata_opt(&claim).await.map_err(failed)?;
    let there = pods.get_metadata_opt(pod).await;
    let there = there.map_err(|source| StepError::Pod { pod: pod.to_owned(), source: Box::new(source) })?;
    if there.is_none_or(|there| there.metadata.uid.as_deref() != Some(uid)) {
        return Ok(());
    }
    if let Some(claim_uid) = found.and_then(|found| found.metadata.uid) {
        delete_claim(hands, &claim, &claim_uid).await?;
    }
    // It goes once its pod has.
    delete(hands, pod, uid).await
}

/// What was asked of the cluster before says nothing of the one that goes on from a backup.
async fn note_restore(hands: &Hands<'_>, note: Option<&RestoreNote>) -> Result<(), StepError> {
    if note.is_some_and(|note| note.restored.is_some()) {
        write_note(hands, names::ANNOTATION_ROLL, None).await?;
        write_note(hands, names::ANNOTATION_SWITCH, None).await?;
    }
    write_note(hands, names::ANNOTATION_RESTORE, note.map(|note| json!(note))).await
}

/// The claim first: the pod waits for it. Whatever of the two is there already stays.
async fn fill(hands: &Hands<'_>, order: &RestoreOrder, place: usize) -> Result<(), StepError> {
    let place = u32::try_from(place).expect("a StatefulSet has few pods");
    let claim = build::restore_claim(hands.ensemble, order, place);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
    match claims.create(&params, &claim).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(source) => {
            return Err(StepError::Claim { claim: claim.name_any(), source: Box::new(source) });
        }
    }
    Ok(hands.applier.create_once(&build::restore_pod(hands.ensemble, order, place)).await?)
}

async fn clear_restore(
    hands: &Hands<'_>,
    pod: Option<&str>,
    claim: Option<&(usize, String)>,
) -> Result<(), StepError> {
    if let Some((place, uid)) = claim {
        let place = u32::try_from(*place).expect("a StatefulSet has few pods");
        let name = names::ensemble::claim(&names::ensemble::pod(&hands.ensemble.name, place));
        delete_claim(hands, &name, uid).await?;
    }
    if let Some(uid) = pod {
        delete(hands, &names::ensemble::restore(&hands.ensemble.name), uid).await?;
    }
    Ok(())
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
        let params = PatchParams { field_manager: Some(NOTE_MANAGER.into()), ..PatchParams::default() };
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

async fn delete_claim(hands: &Hands<'_>, claim: &str, uid: &str) -> Result<(), StepError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    match api.delete(claim, &exactly(uid)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(StepError::Claim { claim: claim.to_owned(), source: Box::new(source) }),
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

async fn write_note(hands: &Hands<'_>, key: &str, note: Option<serde_json::Value>) -> Result<(), StepError> {
    let name = names::ensemble::object(&hands.ensemble.name);
    let api: Api<StatefulSet> = Api::namespaced(hands.client.clone(), &hands.ensemble.namespace);
    let patch = json!({"metadata": {"annotations": {key: note.map(|note| note.to_string())}}});
    let params = PatchParams { field_manager: Some(NOTE_MANAGER.into()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(source) => {
            Err(ApplyError::Api { kind: "StatefulSet".into(), name, source: Box::new(source) }.into())
        }
    }
}

#[cfg(test)]
mod tests;
