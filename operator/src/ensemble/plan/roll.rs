//! Owns the roll-out: pods of an older template are replaced one by one, followers first, the leader last. Must not know
//! how members come and go.
//!
//! Invariant: no voter is asked to go while another is down, while one has not caught up, or while a change of voters
//! may be under way.

use super::{Member, Observed, Predicate, RollNote, Step, not_serving, wait};
use pharos_crds::names::reason;

/// The next step of a roll-out, or of what is left when nobody comes or goes.
pub(super) fn roll(observed: &Observed) -> Step {
    if let Some(step) = unsettled(observed) {
        return step;
    }
    if observed.present().all(|member| member.up_to_date) {
        return observed.present().find(|member| !member.serves()).map_or(Step::Done, not_serving);
    }
    if let Some(down) = observed.present().find(|member| !member.serves()) {
        return replace_or_await(observed, down);
    }
    let Some(leader) = trusted_leader(observed) else {
        return wait(Predicate::LeaderKnown, "no member leads whom a quorum follows".into());
    };
    if let Some(note) = &observed.note
        && let Some(behind) = observed.present().find(|member| member.applied() < note.commit)
    {
        let detail =
            format!("{} has applied {}, {} was committed", behind.pod, behind.applied(), note.commit);
        return wait(Predicate::MemberCaughtUp, detail);
    }
    if observed.switch_may_be_under_way() {
        return end_of_switch(observed, leader);
    }
    let commit = leader.status.as_ref().map_or(0, |status| status.committed);
    let follower = observed.present().find(|member| !member.up_to_date && member.uid != leader.uid);
    match follower {
        Some(follower) => evict(follower, commit),
        None => roll_leader(observed, leader, commit),
    }
}

/// The leader; one of an older version does not say who votes, and is taken at its word.
fn trusted_leader(observed: &Observed) -> Option<&Member> {
    if observed.membership().is_some() {
        observed.settled().map(|settled| settled.leader)
    } else {
        observed.leader()
    }
}

/// What must settle before anything is judged.
fn unsettled(observed: &Observed) -> Option<Step> {
    if !observed.revision_known {
        return Some(wait(
            Predicate::StatefulSetObserved,
            "its controller has not seen the latest template".into(),
        ));
    }
    if let Some(ordinal) = observed.members.iter().position(Option::is_none) {
        return Some(wait(Predicate::PodExists, format!("ordinal {ordinal}")));
    }
    let leaving = observed.present().find(|member| member.terminating)?;
    Some(wait(Predicate::PodGone, leaving.pod.clone()))
}

/// A member that served and does not now: if its template is outdated and the others are a quorum without it, the
/// newer template may be what it needs; else it waits, for it may merely lack a leader.
fn replace_or_await(observed: &Observed, down: &Member) -> Step {
    // One answer that did not come in time proves nothing: the kubelet, which asks more than once, must find it
    // unready too.
    let stuck = observed.present().find(|member| !member.serves() && !member.ready && !member.up_to_date);
    let Some(stuck) = stuck.filter(|_| observed.serving() >= observed.quorum()) else {
        return not_serving(down);
    };
    if observed.switch_may_be_under_way() {
        let leader = trusted_leader(observed);
        return leader.map_or_else(|| not_serving(down), |leader| end_of_switch(observed, leader));
    }
    Step::Delete {
        pod: stuck.pod.clone(),
        uid: stuck.uid.clone(),
        why: "it does not serve, the others are a quorum, and its template is outdated".into(),
    }
}

fn evict(member: &Member, commit: u64) -> Step {
    Step::Evict(RollNote { pod: member.pod.clone(), uid: member.uid.clone(), commit })
}

fn roll_leader(observed: &Observed, leader: &Member, commit: u64) -> Step {
    match heir(observed, leader).and_then(Member::id) {
        Some(to) => Step::Transfer { leader: leader.pod.clone(), to, during: reason::ROLLING_UPDATE },
        None if observed.members.len() == 1 => evict(leader, commit),
        None => wait(Predicate::LeaderKnown, "no follower says who it is, so none can take over".into()),
    }
}

/// The member that has applied most, beside the leader.
fn heir<'a>(observed: &'a Observed, leader: &Member) -> Option<&'a Member> {
    let others = observed.present().filter(|member| member.uid != leader.uid && member.serves());
    others.max_by_key(|member| member.applied())
}

/// Voters were asked for that are not wanted any more, and nobody knows whether the leader has begun. What another
/// leader has applied tells: it takes over what this one began, or puts its own entry there.
fn end_of_switch(observed: &Observed, leader: &Member) -> Step {
    match heir(observed, leader).and_then(Member::id) {
        Some(to) => Step::Transfer { leader: leader.pod.clone(), to, during: reason::ROLLING_UPDATE },
        None => wait(Predicate::SwitchCommitted, "other voters were asked for before".into()),
    }
}
