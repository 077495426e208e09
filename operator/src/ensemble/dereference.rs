//! Owns the reading: what exists of an Ensemble in the API server, and what its members say. Must not know what any of
//! it means for the next step.
//!
//! Invariant: nothing is written here, and a member that does not answer delays a visit by one timeout at most.

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pharos_crds::{Ensemble, names};
use serde::de::DeserializeOwned;

use super::permit::Permit;
use super::plan::{Claim, Declared, Health, Member, Observed, RestoreNote, RestoreOrder, RestorePod};
use crate::admin::AdminClient;
use crate::apply::is_controlled_by;
use crate::pods;

pub mod restoring;

/// The most members an Ensemble can have.
const MOST_PODS: u32 = 7;

/// What exists of an Ensemble in the API server.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// Its StatefulSet, if it is ours.
    pub stateful_set: Option<StatefulSet>,
    /// Its pods, by name.
    pub pods: Vec<Pod>,
    /// Its permit, if it is ours.
    pub permit: Option<PermitFound>,
    /// Its token, if it is ours.
    pub token: Option<String>,
    /// Claims of its pods and of a place more, by ordinal: read only where a recovery or a restore may have to do with them.
    pub claims: Vec<Option<Claim>>,
    /// The pod that fills a volume from a backup, if it is ours: read likewise.
    pub restore_pod: Option<RestorePod>,
}

/// A permit that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitFound {
    /// What it says.
    pub permit: Permit,
    /// Version of its ConfigMap.
    pub version: Option<String>,
}

/// Why what exists could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DereferenceError {
    /// The API server did not give it.
    #[error("{what}: {source}")]
    Read {
        /// What was read.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A permit that nobody can read must not be taken for none.
    #[error("ConfigMap {name}: its permit cannot be read: {source}")]
    Permit {
        /// Name of the ConfigMap.
        name: String,
        /// Why not.
        source: serde_json::Error,
    },
}

/// Reads what exists of an Ensemble.
///
/// # Errors
/// When the API server does not answer.
pub async fn dereference(client: &Client, ensemble: &Ensemble) -> Result<Existing, DereferenceError> {
    let (name, namespace) = (ensemble.name_any(), ensemble.namespace().unwrap_or_default());
    let uid = ensemble.uid().unwrap_or_default();
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let selector = pods::selector_text(&name, names::COMPONENT_ENSEMBLE);
    let set_name = names::ensemble::object(&name);
    let stateful_set = sets.get_opt(&set_name).await.map_err(read("StatefulSet", &set_name))?;
    let permit_name = names::ensemble::permit(&name);
    let permit = maps.get_opt(&permit_name).await.map_err(read("ConfigMap", &permit_name))?;
    let token_name = names::ensemble::token(&name);
    let token = secrets.get_opt(&token_name).await.map_err(read("Secret", &token_name))?;
    let found = pods.list(&ListParams::default().labels(&selector)).await.map_err(read("pods of", &name))?;
    let stateful_set = stateful_set.filter(|one| is_controlled_by(&one.metadata, &uid));
    // Before the members are asked: a pod that answers has the claim that was read.
    let claims = match recovers(ensemble) || restores(ensemble, stateful_set.as_ref()) {
        true => claims_of(client, ensemble, stateful_set.as_ref()).await?,
        false => Vec::new(),
    };
    let restore_pod = match restores(ensemble, stateful_set.as_ref()) {
        true => {
            let name = names::ensemble::restore(&name);
            let found = pods.get_opt(&name).await.map_err(read("Pod", &name))?;
            found.filter(|one| is_controlled_by(&one.metadata, &uid)).map(|one| restoring::pod(&one, &uid))
        }
        false => None,
    };
    Ok(Existing {
        claims,
        restore_pod,
        stateful_set,
        pods: found.items,
        permit: permit
            .filter(|one| is_controlled_by(&one.metadata, &uid))
            .map(|one| read_permit(&one))
            .transpose()?,
        token: token.filter(|one| is_controlled_by(&one.metadata, &uid)).and_then(|one| read_token(&one)),
    })
}

/// Whether a recovery is declared that is not known to be over.
fn recovers(ensemble: &Ensemble) -> bool {
    let recovery = ensemble.spec.recovery.as_ref();
    recovery.is_some_and(|recovery| is_ahead(ensemble, Some(recovery.generation)))
}

/// Whether a restore is declared, or was begun, that is not known to be over.
fn restores(ensemble: &Ensemble, set: Option<&StatefulSet>) -> bool {
    let status = ensemble.status.as_ref();
    let is_over = |note: &RestoreNote| {
        note.restored.as_ref().is_some_and(|restored| {
            let ours = status.and_then(|status| status.cluster_id.as_ref()) == Some(&restored.cluster_id);
            ours && !is_ahead(ensemble, i64::try_from(restored.generation).ok())
        })
    };
    let begun = set.and_then(|set| note(set, names::ANNOTATION_RESTORE));
    ensemble.spec.restore.as_ref().is_some_and(|restore| is_ahead(ensemble, restore.generation))
        || begun.is_some_and(|note| !is_over(&note))
}

/// Whether a generation has not been reached; without one, the first.
fn is_ahead(ensemble: &Ensemble, generation: Option<i64>) -> bool {
    let known = ensemble.status.as_ref().and_then(|status| status.generation);
    known.is_none_or(|known| generation.is_some_and(|generation| generation > known))
}

async fn claims_of(
    client: &Client,
    ensemble: &Ensemble,
    set: Option<&StatefulSet>,
) -> Result<Vec<Option<Claim>>, DereferenceError> {
    let api: Api<PersistentVolumeClaim> =
        Api::namespaced(client.clone(), &ensemble.namespace().unwrap_or_default());
    let pods = set.and_then(|set| set.spec.as_ref()?.replicas).and_then(|pods| u32::try_from(pods).ok());
    let names = (0..=MOST_PODS.max(pods.unwrap_or_default()))
        .map(|ordinal| names::ensemble::claim(&names::ensemble::pod(&ensemble.name_any(), ordinal)));
    let uid = ensemble.uid().unwrap_or_default();
    let read = names.map(|name| {
        let (api, uid) = (&api, &uid);
        async move {
            let found = api.get_metadata_opt(&name).await.map_err(read("PersistentVolumeClaim", &name))?;
            Ok(found.map(|found| Claim {
                restores: restoring::order(&found.metadata, uid),
                uid: found.metadata.uid.unwrap_or_default(),
                leaving: found.metadata.deletion_timestamp.is_some(),
            }))
        }
    });
    try_join_all(read).await
}

fn read(kind: &str, name: &str) -> impl FnOnce(kube::Error) -> DereferenceError {
    let what = format!("{kind} {name}");
    move |source| DereferenceError::Read { what, source: Box::new(source) }
}

fn read_permit(map: &ConfigMap) -> Result<PermitFound, DereferenceError> {
    let text = map.data.as_ref().and_then(|data| data.get(names::KEY_PERMIT)).map_or("", String::as_str);
    let permit = serde_json::from_str(text)
        .map_err(|source| DereferenceError::Permit { name: map.name_any(), source })?;
    Ok(PermitFound { permit, version: map.resource_version() })
}

fn read_token(secret: &Secret) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(names::KEY_TOKEN)?.0;
    String::from_utf8(bytes.clone()).ok()
}

/// Asks the members, and puts together what was seen. Before there is a StatefulSet, none of those wanted is there.
pub async fn observe(nodes: &AdminClient, ensemble: &Ensemble, existing: &Existing) -> Observed {
    let name = ensemble.name_any();
    let wanted = usize::try_from(ensemble.spec.replicas).unwrap_or_default();
    let set_uid = existing.stateful_set.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
    let replicas = existing.stateful_set.as_ref().and_then(|set| set.spec.as_ref()?.replicas);
    let replicas = u32::try_from(replicas.unwrap_or(ensemble.spec.replicas)).unwrap_or_default();
    let members = (0..replicas).map(async |ordinal| {
        let pod_name = names::ensemble::pod(&name, ordinal);
        let ours = |pod: &&Pod| pod.name_any() == pod_name && is_controlled_by(&pod.metadata, &set_uid);
        let pod = existing.pods.iter().find(ours)?;
        Some(ask(nodes, pod).await)
    });
    let observed = Observed {
        revision_known: false,
        members: join_all(members).await,
        wanted,
        permit: existing.permit.as_ref().map(|found| found.permit.clone()),
        cluster_id: ensemble.status.as_ref().and_then(|status| status.cluster_id.clone()),
        known_generation: ensemble.status.as_ref().and_then(|status| status.generation?.try_into().ok()),
        recovery: declared(ensemble),
        recovery_note: None,
        restore: ensemble.spec.restore.as_ref().map(|restore| RestoreOrder {
            from: restore.from.clone(),
            generation: restore.generation.and_then(|generation| generation.try_into().ok()),
            credentials: restore.credentials.as_ref().map(|secret| secret.name.clone()),
        }),
        restore_note: None,
        restore_pod: existing.restore_pod.clone(),
        claims: existing.claims.clone(),
        note: None,
        switch: None,
    };
    match &existing.stateful_set {
        Some(set) => compare(observed, set, &existing.pods),
        None => observed,
    }
}

fn declared(ensemble: &Ensemble) -> Option<Declared> {
    let recovery = ensemble.spec.recovery.as_ref()?;
    let declined = ensemble.status.as_ref().and_then(|status| status.declined_recovery.as_ref());
    Some(Declared {
        generation: u64::try_from(recovery.generation).unwrap_or_default(),
        survivor: recovery.survivor.clone(),
        declined: declined == Some(recovery),
    })
}

/// The same, compared with this StatefulSet: what was applied is newer than what was read.
#[must_use]
pub fn compare(observed: Observed, set: &StatefulSet, pods: &[Pod]) -> Observed {
    let revision = latest_revision(set);
    let is_of = |member: &Member| {
        let pod = pods.iter().find(|pod| pod.uid().as_ref() == Some(&member.uid));
        let label = pod.and_then(|pod| pod.labels().get(names::LABEL_REVISION));
        revision.is_some() && label == revision.as_ref()
    };
    let members = observed
        .members
        .into_iter()
        .map(|member| member.map(|member| Member { up_to_date: is_of(&member), ..member }));
    Observed {
        revision_known: revision.is_some(),
        members: members.collect(),
        note: note(set, names::ANNOTATION_ROLL),
        switch: note(set, names::ANNOTATION_SWITCH),
        recovery_note: note(set, names::ANNOTATION_RECOVERY),
        restore_note: note(set, names::ANNOTATION_RESTORE),
        ..observed
    }
}

/// The revision that new pods are made from, once the StatefulSet controller has seen the latest template.
fn latest_revision(set: &StatefulSet) -> Option<String> {
    let status = set.status.as_ref()?;
    let seen = status.observed_generation >= set.metadata.generation;
    status.update_revision.clone().filter(|_| seen)
}

fn note<T: DeserializeOwned>(set: &StatefulSet, key: &str) -> Option<T> {
    serde_json::from_str(set.annotations().get(key)?).ok()
}

async fn ask(nodes: &AdminClient, pod: &Pod) -> Member {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty());
    let (identity, status) = match address.filter(|_| runs(pod)) {
        Some(ip) => {
            let (identity, status) = futures::join!(nodes.identity(&ip), nodes.status(&ip));
            (identity.ok(), status.ok())
        }
        None => (None, None),
    };
    Member {
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        up_to_date: false,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        running: runs(pod),
        ready: is_ready(pod),
        serving: is_ready(pod) && status.as_ref().is_some_and(|status| status.serving),
        health: health(pod),
        trouble: crash(pod).or_else(|| unscheduled(pod)),
        identity,
        status,
    }
}

fn main_container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|one| one.name == pods::CONTAINER)
}

fn runs(pod: &Pod) -> bool {
    main_container(pod).and_then(|one| one.state.as_ref()).is_some_and(|state| state.running.is_some())
}

/// Whether the kubelet finds a pod ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Why a container does not run, if it was tried and failed.
#[must_use]
pub fn crash(pod: &Pod) -> Option<String> {
    let status = main_container(pod)?;
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        // These two come before the first try.
        let tried = !matches!(reason, "ContainerCreating" | "PodInitializing" | "");
        let message = waiting.message.as_deref().unwrap_or_default();
        return tried.then(|| format!("{reason}: {message}"));
    }
    let ended = state.terminated.as_ref()?;
    Some(format!("{}, exit code {}", ended.reason.as_deref().unwrap_or("ended"), ended.exit_code))
}

/// Why a pod finds no node.
fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    let (reason, message) = (scheduled.reason.as_deref(), scheduled.message.as_deref());
    Some(format!("{}: {}", reason.unwrap_or("not scheduled"), message.unwrap_or_default()))
}

/// Whether and how a pod fails to run.
#[must_use]
pub fn health(pod: &Pod) -> Health {
    if crash(pod).is_some() {
        return Health::Crashed;
    }
    if was_ready(pod) { Health::WasReady } else { Health::NeverReady }
}

/// The kubelet stamps the condition `Ready` when it accepts the pod, with status False, and again only when the status
/// changes. So a pod whose stamp is not from its beginning was ready at some time.
fn was_ready(pod: &Pod) -> bool {
    if is_ready(pod) {
        return true;
    }
    let Some(status) = &pod.status else { return false };
    let ready = status.conditions.iter().flatten().find(|one| one.type_ == "Ready");
    let changed = ready.and_then(|one| one.last_transition_time.as_ref()).map(|time| time.0);
    let accepted = status.start_time.as_ref().map(|time| time.0);
    match (changed, accepted) {
        // The first stamp may be a little later than the start.
        (Some(changed), Some(accepted)) => changed.duration_since(accepted).as_secs() > 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: (&str, &str), state: &serde_json::Value) -> Pod {
        let status = json!({
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": ready.0, "lastTransitionTime": ready.1}],
            "containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                                   "state": state}],
        });
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).expect("a pod")
    }

    fn running() -> serde_json::Value {
        json!({"running": {"startedAt": "2026-01-01T00:05:00Z"}})
    }

    #[test]
    fn a_pod_that_was_ready_once_is_told_from_one_that_never_was() {
        assert_eq!(health(&pod(("False", "2026-01-01T00:00:01Z"), &running())), Health::NeverReady);
        assert_eq!(health(&pod(("False", "2026-01-01T00:07:00Z"), &running())), Health::WasReady);
        assert_eq!(health(&pod(("True", "2026-01-01T00:06:00Z"), &running())), Health::WasReady);
        assert_eq!(health(&Pod::default()), Health::NeverReady);
    }

    #[test]
    fn a_container_that_does_not_run_is_a_crash_only_after_it_was_tried() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "m"}});
        let of = |state| crash(&pod(("False", "2026-01-01T00:00:01Z"), &state));
        assert_eq!(of(waiting("ErrImageNeverPull")).as_deref(), Some("ErrImageNeverPull: m"));
        assert_eq!(of(waiting("ContainerCreating")), None);
        assert_eq!(of(json!({"terminated": {"exitCode": 2}})).as_deref(), Some("ended, exit code 2"));
        assert_eq!(of(running()), None);
    }
}
