//! Owns how members come and go: a volume is registered, joins by the permit, catches up, votes; who is to go stops
//! voting first. Must not know what was done before, nor how pods are replaced one by one (`roll`).
//!
//! Invariant: voters change only to a set of which a quorum serves or has caught up; pods and volumes go only when the
//! leader has no member on them.

use pharos_crds::names::reason;

use super::recovery;
use super::registry::Settled;
use super::seats::{Seat, place, seats};
use super::{Member, Observed, Predicate, Step, Switch, not_serving, wait};
use crate::admin::{DiskState, Identity, Membership, Registered};
use crate::ensemble::permit::Permit;

/// The next step until those vote that are wanted and no pod is left over; `None` once it is so.
pub(super) fn settle(observed: &Observed) -> Option<Step> {
    let Some(settled) = observed.settled() else { return without_leader(observed) };
    let seats = seats(observed, settled.membership, observed.wanted);
    if observed.members.len() < observed.wanted {
        return Some(Step::Scale { pods: observed.wanted, reason: reason::SCALING_UP });
    }
    seats
        .iter()
        .find_map(|seat| clear(&settled, seat))
        .or_else(|| deregister(observed, &settled))
        .or_else(|| register(&settled, &seats))
        .or_else(|| amend_permit(observed, &settled))
        .or_else(|| replace_lost(observed, &settled, &seats))
        .or_else(|| switch_to_wanted(observed, &settled, &seats))
        .or_else(|| drop_pods(observed, settled.membership))
}

/// Without a leader nothing changes. What can be told apart is whether there can be one again.
fn without_leader(observed: &Observed) -> Option<Step> {
    let Some(membership) = observed.membership() else {
        // Members of an older version do not say who votes; they can still be replaced one by one.
        let blank = observed.present().find(|member| {
            let disk = member.identity.as_ref();
            let named = |volume: &str| observed.permit.as_ref().is_some_and(|one| one.names_volume(volume));
            disk.is_some_and(|disk| disk.state == DiskState::Blank && !named(&disk.volume))
        });
        let detail = match blank {
            Some(blank) => format!("{} has an empty volume, and no member says who votes", blank.pod),
            None if observed.members.len() == observed.wanted => return None,
            None => "no member says who votes, so nobody comes or goes".into(),
        };
        return Some(wait(Predicate::LeaderKnown, detail));
    };
    let mut statuses = observed.present().filter_map(|member| member.status.as_ref());
    if statuses.any(|status| status.ballot_config().is_some_and(|config| config > membership.config)) {
        return Some(wait(Predicate::LeaderKnown, "nobody who answers knows the latest voters".into()));
    }
    let seats = seats(observed, membership, observed.wanted.max(observed.members.len()));
    let lost = seats.iter().filter(|seat| seat.lost().is_some()).filter_map(|seat| seat.pod);
    let lost: Vec<&str> = lost.map(|pod| pod.pod.as_str()).collect();
    let voters = membership.voters().count();
    if voters - lost.len() < membership.quorum() {
        let message = format!(
            "{} of {voters} voters have lost their volumes ({}): those left are no quorum and can replace nobody; \
             bring a volume back, or declare spec.restore to go on from a backup, or, without what only those had, {}",
            lost.len(),
            lost.join(", "),
            recovery::advice(observed)
        );
        return Some(Step::Stall { reason: reason::LOST_VOLUME, message });
    }
    let last = membership.voters().filter_map(|voter| place(observed, voter)).max();
    let all_answer = observed.present().all(|member| member.status.is_some());
    if let Some(last) = last.filter(|last| all_answer && *last >= observed.members.len()) {
        return Some(Step::Scale { pods: last + 1, reason: reason::SCALING_UP });
    }
    let as_wanted = voters == observed.wanted
        && observed.members.len() == observed.wanted
        && membership.members.len() == voters
        && lost.is_empty();
    // What stands in the way of a leader is told by who does not serve.
    let down = observed.present().find(|member| !member.serves() && observed.registered(member).is_some());
    (!as_wanted).then(|| {
        down.map_or_else(|| wait(Predicate::LeaderKnown, "a quorum follows no leader".into()), not_serving)
    })
}

/// A disk that is no member's: the volume of one that was removed is of no use to anybody and goes, if all it says is
/// what the leader knows. Anything else is for a person to look at.
fn clear(settled: &Settled<'_>, seat: &Seat<'_>) -> Option<Step> {
    let (pod, disk, membership) = (seat.pod?, seat.disk()?, settled.membership);
    let id = disk.member_id.filter(|_| matches!(disk.state, DiskState::Member | DiskState::Joining))?;
    if membership.with_volume(&disk.volume).is_some() || pod.terminating {
        return None;
    }
    let ours = settled.leader.identity.as_ref()?;
    let stale = |what: String| {
        let message = format!("the volume of {} {what}", pod.pod);
        Some(Step::Stall { reason: reason::STALE_DISK, message })
    };
    let belongs = (&disk.cluster_id, disk.generation) == (&ours.cluster_id, ours.generation);
    // One that joins has only what our own permit says, and may not repeat it.
    let joins = disk.state == DiskState::Joining && disk.cluster_id.is_none();
    // Of a generation before that was given up: what it says of itself is of no matter.
    if disk.cluster_id == ours.cluster_id && disk.generation < ours.generation && disk.generation.is_some() {
        return Some(Step::Discard { pod: pod.pod.clone(), uid: pod.uid.clone(), id });
    }
    if !belongs && !joins {
        return stale("belongs to another cluster or generation".into());
    }
    if membership.members.iter().any(|member| member.member_id == id) {
        return stale(format!("says that it is member {id}, which has another volume"));
    }
    if id >= membership.next_member_id {
        return Some(wait(Predicate::MembersRegistered, format!("{} is member {id}", pod.pod)));
    }
    Some(Step::Discard { pod: pod.pod.clone(), uid: pod.uid.clone(), id })
}

/// A learner that is not wanted, or whose volume was lost too.
fn deregister(observed: &Observed, settled: &Settled<'_>) -> Option<Step> {
    let stale = |learner: &&Registered| {
        // One that was registered for no place of ours is somebody else's.
        let Some(place) = place(observed, learner) else { return false };
        let disk = observed.members.get(place).and_then(Option::as_ref).and_then(|pod| pod.identity.as_ref());
        place >= observed.wanted || disk.is_some_and(|disk| disk.volume != learner.volume)
    };
    let id = settled.membership.learners().find(stale)?.member_id;
    Some(Step::Deregister { leader: settled.leader.pod.clone(), id })
}

/// Empty volumes on places that are wanted.
fn register(settled: &Settled<'_>, seats: &[Seat<'_>]) -> Option<Step> {
    let volume = |seat: &Seat<'_>| {
        let disk: &Identity = seat.newcomer(settled.membership)?;
        Some((seat.ordinal, disk.volume.clone()))
    };
    let joiners: Vec<(usize, String)> = seats.iter().filter_map(volume).collect();
    let leader = settled.leader.pod.clone();
    (!joiners.is_empty()).then_some(Step::Register { leader, joiners })
}

/// The permit that those who join need, and that names them no more once they have.
fn amend_permit(observed: &Observed, settled: &Settled<'_>) -> Option<Step> {
    let membership = settled.membership;
    let permit = match &observed.permit {
        Some(permit) => permit.amended(membership),
        None if membership.learners().next().is_none() => return None,
        None => {
            let disk = settled.leader.identity.as_ref()?;
            let cluster = disk.cluster_id.as_deref()?;
            Permit::of_a_known_cluster(cluster, disk.generation, membership).amended(membership)
        }
    };
    (observed.permit.as_ref() != Some(&permit)).then_some(Step::AmendPermit(permit))
}

/// Members that have caught up take the places of those whose volumes are lost. It waits for nobody else: as long as one
/// is lost, the next failure is nearer.
fn replace_lost(observed: &Observed, settled: &Settled<'_>, seats: &[Seat<'_>]) -> Option<Step> {
    let successor = |voter: &Registered| {
        let seat =
            seats.iter().find(|seat| seat.lost().is_some_and(|lost| lost.member_id == voter.member_id))?;
        seat.ready_learner(settled)
    };
    let voters: Vec<&Registered> =
        settled.membership.voters().map(|voter| successor(voter).unwrap_or(voter)).collect();
    if voters.iter().all(|member| member.voter) {
        return None;
    }
    Some(switch(observed, settled, &voters, reason::REPLACING_MEMBER))
}

/// Once someone can vote from every place that is wanted, those do and nobody else does.
fn switch_to_wanted(observed: &Observed, settled: &Settled<'_>, seats: &[Seat<'_>]) -> Option<Step> {
    let mut voters = Vec::new();
    for seat in seats {
        let Some(holder) = seat.holder(settled) else { return Some(seat.awaits()) };
        voters.push(holder);
    }
    let now = settled.membership.voters().count();
    if voters.len() == now && voters.iter().all(|member| member.voter) {
        return None;
    }
    let shrinks = voters.iter().all(|member| member.voter);
    if let Some(down) = voters.iter().find(|member| shrinks && !is_up(observed, member)) {
        return Some(down_member(observed, down));
    }
    let reason = if shrinks { reason::SCALING_DOWN } else { reason::SCALING_UP };
    Some(switch(observed, settled, &voters, reason))
}

fn switch(observed: &Observed, settled: &Settled<'_>, voters: &[&Registered], reason: &'static str) -> Step {
    let up = voters.iter().filter(|member| !member.voter || is_up(observed, member)).count();
    if let Some(down) = voters.iter().find(|member| member.voter && !is_up(observed, member))
        && up < voters.len() / 2 + 1
    {
        return down_member(observed, down);
    }
    let stays = voters.iter().any(|member| settled.leader.is(member));
    if let Some(to) = heir(observed, voters).filter(|_| !stays) {
        return Step::Transfer { leader: settled.leader.pod.clone(), to, during: reason };
    }
    let mut voters: Vec<i64> = voters.iter().map(|member| member.member_id).collect();
    voters.sort_unstable();
    Step::Switch(Switch {
        leader: settled.leader.pod.clone(),
        voters,
        note: settled.note(),
        asked_before: observed.switch_may_be_under_way(),
        reason,
    })
}

/// Of the voters that stay, the one that has applied most.
fn heir(observed: &Observed, voters: &[&Registered]) -> Option<i64> {
    let stays = |member: &&Member| {
        member.serves() && voters.iter().any(|registered| registered.voter && member.is(registered))
    };
    observed.present().filter(stays).max_by_key(|member| member.applied()).and_then(Member::id)
}

fn is_up(observed: &Observed, registered: &Registered) -> bool {
    observed.present().any(|member| member.serves() && member.is(registered))
}

fn down_member(observed: &Observed, registered: &Registered) -> Step {
    let pod = place(observed, registered).and_then(|ordinal| observed.members.get(ordinal)?.as_ref());
    pod.map_or_else(|| wait(Predicate::MemberServes, format!("member {}", registered.member_id)), not_serving)
}

/// Pods on which no member is.
fn drop_pods(observed: &Observed, membership: &Membership) -> Option<Step> {
    let empty = |ordinal| membership.members.iter().all(|member| place(observed, member) != Some(ordinal));
    let spare = observed.members.len() > observed.wanted;
    (spare && (observed.wanted..observed.members.len()).all(empty))
        .then_some(Step::Scale { pods: observed.wanted, reason: reason::SCALING_DOWN })
}
