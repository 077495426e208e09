//! Owns the places of an Ensemble, one for each ordinal that is wanted: who votes from there, who learns there, what disk
//! is there. Must not know what is done about it.
//!
//! Invariant: a member's place is where its volume is; where nobody reports it, the place it was registered for.

use pharos_crds::names;

use super::registry::Settled;
use super::{Member, Observed, Predicate, Step, not_serving, wait};
use crate::admin::{DiskState, Identity, Membership, Registered, Role};

/// A place.
pub(super) struct Seat<'a> {
    pub(super) ordinal: usize,
    pub(super) pod: Option<&'a Member>,
    /// The voter of this place.
    pub(super) voter: Option<&'a Registered>,
    /// The learner on the disk of this place.
    pub(super) learner: Option<&'a Registered>,
}

/// The first places.
pub(super) fn seats<'a>(observed: &'a Observed, membership: &'a Membership, count: usize) -> Vec<Seat<'a>> {
    let seat = |ordinal: usize| {
        let pod = observed.members.get(ordinal).and_then(Option::as_ref);
        let disk = pod.and_then(|pod| pod.identity.as_ref());
        let here = |registered: &&Registered| place(observed, registered) == Some(ordinal);
        let on_disk = |registered: &&Registered| disk.is_none_or(|disk| disk.volume == registered.volume);
        let mut voters: Vec<&Registered> = membership.voters().filter(here).collect();
        voters.sort_by_key(|voter| !on_disk(voter));
        Seat {
            ordinal,
            pod,
            voter: voters.first().copied(),
            learner: membership.learners().find(|learner| here(learner) && on_disk(learner)),
        }
    };
    (0..count).map(seat).collect()
}

/// The ordinal where a member is.
pub(super) fn place(observed: &Observed, registered: &Registered) -> Option<usize> {
    let has_it = |member: &Option<Member>| {
        let disk = member.as_ref().and_then(|one| one.identity.as_ref());
        disk.is_some_and(|disk| disk.volume == registered.volume)
    };
    observed.members.iter().position(has_it).or_else(|| names::ensemble::ordinal(&registered.host))
}

impl<'a> Seat<'a> {
    /// The disk that is there.
    pub(super) fn disk(&self) -> Option<&'a Identity> {
        self.pod?.identity.as_ref()
    }

    /// The voter whose volume is not there any more.
    pub(super) fn lost(&self) -> Option<&'a Registered> {
        let disk = self.disk()?;
        self.voter.filter(|voter| voter.volume != disk.volume)
    }

    /// Who would vote from here, if the voters changed now: the voter or, where there is none with a volume, the learner
    /// that has caught up.
    pub(super) fn holder(&self, settled: &Settled<'_>) -> Option<&'a Registered> {
        if self.lost().is_none() && self.voter.is_some() { self.voter } else { self.ready_learner(settled) }
    }

    /// The learner of this place that has caught up.
    pub(super) fn ready_learner(&self, settled: &Settled<'_>) -> Option<&'a Registered> {
        let (learner, pod) = (self.learner?, self.pod?);
        let peers = &settled.leader.status.as_ref()?.peers;
        let caught_up = peers.iter().any(|peer| peer.member_id == learner.member_id && peer.caught_up);
        // What the leader saw of it last may be of before it went.
        let learns = pod.is(learner) && !pod.terminating && pod.role() == Some(Role::Learner);
        (caught_up && learns).then_some(learner)
    }

    /// The volume of this place that nobody has registered, if it may become a member: it holds nothing.
    pub(super) fn newcomer(&self, membership: &Membership) -> Option<&'a Identity> {
        let disk = self.disk().filter(|_| self.pod.is_some_and(|pod| !pod.terminating))?;
        let empty = match disk.state {
            DiskState::Blank => true,
            DiskState::Joining => disk.member_id.is_none(),
            DiskState::Founding | DiskState::Member => false,
        };
        (empty && membership.with_volume(&disk.volume).is_none()).then_some(disk)
    }

    /// What is waited for until someone votes from here.
    pub(super) fn awaits(&self) -> Step {
        let Some(pod) = self.pod else {
            return wait(Predicate::PodExists, format!("ordinal {}", self.ordinal));
        };
        if pod.terminating {
            return wait(Predicate::PodGone, pod.pod.clone());
        }
        match (self.disk().map(|disk| disk.state), self.learner) {
            (None, _) => not_serving(pod),
            (Some(_), None) => wait(Predicate::MembersRegistered, pod.pod.clone()),
            (Some(DiskState::Blank), Some(_)) => wait(Predicate::PermitSeen, pod.pod.clone()),
            (Some(_), Some(learner)) => {
                let role = pod.role().map_or("unreachable", Role::as_str);
                let detail = format!("{}, member {}: {role}", pod.pod, learner.member_id);
                wait(Predicate::LearnersCaughtUp, detail)
            }
        }
    }
}
