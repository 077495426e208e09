//! Owns the status of an Ensemble: what was seen and decided, in the words of the API. Pure. Must not know how it is
//! written.
//!
//! Invariant: every condition is there after the first visit; `Ready` stays while a quorum serves; `Reconciling` names
//! what is waited for.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use pharos_crds::names::{self, condition, reason};
use pharos_crds::{EnsembleStatus, MemberStatus};

use super::plan::{Founding, Member, Observed, Predicate, Step, founding};
use super::validate::Validated;
use crate::admin::Role;
use crate::conditions::{Truth, Verdict, is_true, merge};

/// Why a visit ended before anything could be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// Whether a person must act.
    pub stalled: bool,
}

/// The status when a visit ended before anything could be planned: what was known stays, the conditions say why. Whether
/// the members serve on is told from what was `seen` of them, if anything.
#[must_use]
pub fn blocked(
    old: &EnsembleStatus,
    blocked: &Blocked,
    seen: Option<&Observed>,
    generation: Option<i64>,
    now: Timestamp,
) -> EnsembleStatus {
    let about = |condition, truth| Verdict::new(condition, truth, blocked.reason, blocked.message.clone());
    let unknown = |condition| about(condition, Truth::Unknown);
    let had = |wanted| old.conditions.iter().any(|one| one.type_ == wanted && one.status != "False");
    let (ready, quorum_healthy) = match seen {
        Some(seen) if seen.present().next().is_some() => (ready(old, seen), quorum(seen)),
        // What once served may serve on.
        _ if had(condition::READY) => (unknown(condition::READY), unknown(condition::QUORUM_HEALTHY)),
        _ => (about(condition::READY, Truth::False), unknown(condition::QUORUM_HEALTHY)),
    };
    let (reconciling, stalled) = if blocked.stalled {
        (
            Verdict::new(
                condition::RECONCILING,
                false,
                blocked.reason,
                "nothing is done until this is repaired",
            ),
            Verdict::new(condition::STALLED, true, blocked.reason, blocked.message.clone()),
        )
    } else {
        (
            Verdict::new(condition::RECONCILING, true, blocked.reason, blocked.message.clone()),
            Verdict::new(condition::STALLED, false, reason::NOT_STALLED, ""),
        )
    };
    let founded = if is_true(&old.conditions, condition::FOUNDED) {
        Verdict::new(condition::FOUNDED, true, reason::FOUNDED, "as seen before")
    } else {
        unknown(condition::FOUNDED)
    };
    let verdicts = vec![ready, reconciling, stalled, founded, quorum_healthy, unknown(condition::UP_TO_DATE)];
    EnsembleStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, verdicts, generation, now),
        ..old.clone()
    }
}

/// The status after a step.
#[must_use]
pub fn status(
    old: &EnsembleStatus,
    ensemble: &Validated,
    observed: &Observed,
    step: &Step,
    set: &StatefulSet,
    now: Timestamp,
) -> EnsembleStatus {
    let serving = observed.serving();
    let cluster_id = match (&observed.permit, founding(observed), step) {
        (Some(permit), _, _) | (None, _, Step::WritePermit(permit)) => Some(permit.cluster_id.clone()),
        (None, Founding::Founded(cluster), _) => Some(cluster),
        _ => old.cluster_id.clone(),
    };
    let present = observed.present().count();
    let updated = observed.present().filter(|member| member.up_to_date).count();
    let leader = observed.leader();
    let verdicts = verdicts(old, observed, step, present, updated);
    EnsembleStatus {
        observed_generation: ensemble.generation,
        conditions: merge(&old.conditions, verdicts, ensemble.generation, now),
        endpoint: Some(names::ensemble::endpoint(&ensemble.name, &ensemble.namespace)),
        cluster_id,
        generation: generation(observed).or(old.generation),
        declined_recovery: ensemble.spec.recovery.clone().filter(|_| observed.declines_recovery()),
        ready: Some(format!("{serving}/{}", observed.expected())),
        replicas: count(present),
        ready_replicas: count(serving),
        updated_replicas: count(updated),
        leader: leader.map(|member| member.pod.clone()),
        version: leader
            .and_then(|member| member.status.as_ref()?.version.clone())
            .or_else(|| old.version.clone()),
        feature_level: feature_level(observed).or(old.feature_level),
        image: if *step == Step::Done { image(set) } else { ensemble.kept_image.clone() },
        configuration: observed
            .membership()
            .map_or(old.configuration, |membership| i64::try_from(membership.config).ok()),
        members: observed.present().map(|one| member(observed, one)).collect(),
    }
}

/// The highest that a member names: who is behind names an earlier one.
fn feature_level(observed: &Observed) -> Option<i32> {
    observed.present().filter_map(|member| member.status.as_ref()?.feature_level).max()
}

fn generation(observed: &Observed) -> Option<i64> {
    was_founded(observed).then(|| observed.generation())?.and_then(|generation| generation.try_into().ok())
}

fn count(number: usize) -> Option<i32> {
    i32::try_from(number).ok()
}

fn image(set: &StatefulSet) -> Option<String> {
    set.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone()
}

fn member(observed: &Observed, member: &Member) -> MemberStatus {
    let status = member.status.as_ref();
    // It changes with every write while there is a quorum, and then nobody has to choose.
    let knows = status.filter(|_| observed.serving() < observed.quorum() && member.id().is_some());
    MemberStatus {
        pod: member.pod.clone(),
        id: member.id(),
        role: status.map_or("unreachable", |status| status.role.as_str()).to_owned(),
        voter: observed
            .membership()
            .map(|_| observed.registered(member).is_some_and(|registered| registered.voter)),
        serving: member.serving,
        accepted: knows.and_then(|status| status.accepted.clone()),
        durable: knows.and_then(|status| status.durable?.try_into().ok()),
        version: status.and_then(|status| status.version.clone()),
    }
}

fn verdicts(
    old: &EnsembleStatus,
    observed: &Observed,
    step: &Step,
    present: usize,
    updated: usize,
) -> Vec<Verdict> {
    let (reconciling, stalled) = progress(step);
    vec![
        ready(old, observed),
        reconciling,
        stalled,
        founded(observed, step),
        quorum(observed),
        up_to_date(observed, present, updated),
    ]
}

/// At first all members must serve; from then on it is ready while a quorum serves.
fn ready(old: &EnsembleStatus, observed: &Observed) -> Verdict {
    let (serving, wanted) = (observed.serving(), observed.expected());
    let was_ready = is_true(&old.conditions, condition::READY);
    let has_quorum = serving >= observed.quorum();
    if serving == wanted || (was_ready && has_quorum) {
        let detail = format!("{serving} of {wanted} members serve");
        return Verdict::new(condition::READY, true, reason::SERVING, detail);
    }
    if has_quorum || !was_founded(observed) {
        let detail = format!("{serving} of {wanted} members serve");
        return Verdict::new(condition::READY, false, reason::MEMBERS_STARTING, detail);
    }
    let detail = format!(
        "{serving} of {wanted} members serve, a quorum is {}; where a quorum is lost for good, spec.recovery goes on \
         from a survivor",
        observed.quorum()
    );
    Verdict::new(condition::READY, false, reason::NO_QUORUM, detail)
}

fn was_founded(observed: &Observed) -> bool {
    matches!(founding(observed), Founding::Founded(_))
}

fn progress(step: &Step) -> (Verdict, Verdict) {
    let under_way = |reason, message: String| {
        (
            Verdict::new(condition::RECONCILING, true, reason, message),
            Verdict::new(condition::STALLED, false, reason::NOT_STALLED, ""),
        )
    };
    match step {
        Step::Done => (
            Verdict::new(condition::RECONCILING, false, reason::AS_DESIRED, "nothing is left to do"),
            Verdict::new(condition::STALLED, false, reason::NOT_STALLED, ""),
        ),
        Step::Stall { reason, message } => (
            Verdict::new(condition::RECONCILING, false, reason, "nothing is done until this is repaired"),
            Verdict::new(condition::STALLED, true, reason, message.clone()),
        ),
        Step::Wait(wait) => under_way(wait.predicate.reason(), wait.to_string()),
        Step::WritePermit(_) => under_way(reason::FOUNDING, "the founding permit is written".into()),
        Step::Delete { pod, why, .. } => {
            under_way(reason::ROLLING_UPDATE, format!("pod {pod} is replaced: {why}"))
        }
        Step::Transfer { to, during, .. } => {
            under_way(during, format!("the leader hands over to member {to}"))
        }
        Step::Scale { pods, reason } => under_way(reason, format!("there are to be {pods} pods")),
        Step::Register { joiners, .. } => {
            let ordinals: Vec<String> = joiners.iter().map(|(ordinal, _)| ordinal.to_string()).collect();
            let what = format!("the leader registers learners on ordinals {}", ordinals.join(", "));
            under_way(reason::SCALING_UP, what)
        }
        Step::Deregister { id, .. } => {
            under_way(reason::SCALING_DOWN, format!("the leader strikes learner {id} off its list"))
        }
        Step::NoteRecovery(note) => under_way(reason::RECOVERING, note.to_string()),
        Step::GiveUp { pod, during, .. } => {
            under_way(during, format!("the volume of {pod} is given up: it is deleted with the pod"))
        }
        Step::NoteRestore(_) | Step::Restore { .. } | Step::ClearRestore { .. } | Step::PermitRestored(_) => {
            under_way(reason::RESTORING, restores(step))
        }
        Step::AmendPermit(permit) if permit.recovers => {
            let what = format!("member {} is permitted to go on alone", permit.founders[0].member_id);
            under_way(reason::RECOVERING, what)
        }
        Step::AmendPermit(permit) => {
            let what = match permit.joiners.len() {
                0 => "the permit is good for nobody any more".into(),
                joiners => format!("the permit is written for {joiners} learners"),
            };
            under_way(reason::SCALING_UP, what)
        }
        Step::Switch(switch) => {
            let voters: Vec<String> = switch.voters.iter().map(i64::to_string).collect();
            under_way(switch.reason, format!("members {} become the voters", voters.join(", ")))
        }
        Step::Discard { pod, id, .. } => {
            let what = format!("the volume of {pod} is of member {id}, which was removed: it is deleted");
            under_way(reason::REPLACING_MEMBER, what)
        }
        Step::Evict(note) => under_way(reason::ROLLING_UPDATE, format!("pod {} is restarted", note.pod)),
    }
}

/// What a step of a restore does.
fn restores(step: &Step) -> String {
    match step {
        Step::NoteRestore(Some(note)) => note.to_string(),
        Step::NoteRestore(None) => "what was to be restored is declared no more: nothing was given up".into(),
        Step::Restore { order, place } => {
            format!("a new volume is made on ordinal {place} and filled from {}", order.from)
        }
        Step::ClearRestore { claim: Some((place, _)), .. } => {
            format!("the claim of ordinal {place}, where a backup is to be restored, is deleted")
        }
        Step::PermitRestored(permit) => {
            let (id, generation) = (permit.founders[0].member_id, permit.generation.unwrap_or_default());
            format!("member {id} is permitted to go on alone in generation {generation}")
        }
        _ => "the pod that read the backup is deleted".into(),
    }
}

fn founded(observed: &Observed, step: &Step) -> Verdict {
    let is = |truth: bool, reason, message: String| Verdict::new(condition::FOUNDED, truth, reason, message);
    match (founding(observed), step) {
        (_, Step::WritePermit(_)) => is(false, reason::FOUNDING, "the founding permit is written".into()),
        (Founding::Founded(cluster), _) => is(true, reason::FOUNDED, format!("cluster {cluster}")),
        (Founding::UnderWay(detail), _) => is(false, reason::FOUNDING, detail),
        (Founding::Reporting(detail), _) => is(false, reason::WAITING_FOR_FOUNDERS, detail),
        (Founding::Ready, _) => is(false, reason::WAITING_FOR_FOUNDERS, "all founders have reported".into()),
        (Founding::Broken { reason, message }, _) => {
            Verdict::new(condition::FOUNDED, observed.cluster_id.is_some(), reason, message)
        }
    }
}

fn quorum(observed: &Observed) -> Verdict {
    let (serving, quorum) = (observed.serving(), observed.quorum());
    let detail = format!("{serving} members serve, a quorum is {quorum}");
    let holds = serving >= quorum;
    let leads = observed.present().any(|member| {
        member.status.as_ref().is_some_and(|status| status.role == Role::Leader) && member.serving
    });
    let reason = match (holds, leads) {
        (true, true) => reason::SERVING,
        (true, false) => Predicate::LeaderKnown.reason(),
        (false, _) => reason::NO_QUORUM,
    };
    Verdict::new(condition::QUORUM_HEALTHY, holds, reason, detail)
}

fn up_to_date(observed: &Observed, present: usize, updated: usize) -> Verdict {
    if !observed.revision_known {
        let reason = Predicate::StatefulSetObserved.reason();
        return Verdict::new(
            condition::UP_TO_DATE,
            Truth::Unknown,
            reason,
            "the latest revision is not known yet",
        );
    }
    let pods = observed.members.len().max(observed.wanted);
    let whole = present == pods && updated == present;
    let reason = if whole { reason::AS_DESIRED } else { reason::ROLLING_UPDATE };
    let detail = format!("{updated} of {pods} pods are of the latest revision");
    Verdict::new(condition::UP_TO_DATE, whole, reason, detail)
}
