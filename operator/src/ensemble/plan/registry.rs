//! Owns who belongs to the cluster, as its members say it: whom to believe, who votes, how many must serve. Must not
//! know what is done about it.
//!
//! Invariant: a leader is believed only while a quorum of the voters it names follows it and nobody knows of a later
//! configuration; what it says of its members was then true when it was asked.

use super::{Founding, Member, Observed, founding};
use crate::admin::{Membership, NodeStatus, Registered, Role};
use crate::ensemble::build::Sizes;

/// The leader whose word is taken, and what it says.
#[derive(Clone, Copy)]
pub(super) struct Settled<'a> {
    /// The leader.
    pub(super) leader: &'a Member,
    /// Who belongs to the cluster.
    pub(super) membership: &'a Membership,
}

impl Observed {
    /// Voters that serve.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.present().filter(|member| member.serves() && self.votes(member)).count()
    }

    /// The least number that must serve.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters() / 2 + 1
    }

    /// How many vote: as the members say or, where none says, as many as there are pods.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.membership().map_or(self.members.len(), |membership| membership.voters().count())
    }

    /// How many members there are, or are to be if that is more.
    #[must_use]
    pub fn expected(&self) -> usize {
        self.membership().map_or(self.wanted, |membership| self.wanted.max(membership.voters().count()))
    }

    /// The latest word on who belongs to the cluster, whoever says it.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        let said = self.present().filter_map(|member| {
            let status = member.status.as_ref()?;
            status.membership.as_ref().map(|membership| (membership, status.applied))
        });
        let latest = said.max_by_key(|(membership, applied)| (freshness(membership), *applied));
        latest.map(|(membership, _)| membership)
    }

    /// What the cluster has on record about a pod.
    #[must_use]
    pub fn registered(&self, member: &Member) -> Option<&Registered> {
        self.membership()?.members.iter().find(|registered| member.is(registered))
    }

    /// Whether a pod is a voter. Where no member says who votes, all do.
    fn votes(&self, member: &Member) -> bool {
        self.membership().is_none() || self.registered(member).is_some_and(|registered| registered.voter)
    }

    /// The member that leads, if one says so: of several the one of the latest configuration.
    #[must_use]
    pub fn leader(&self) -> Option<&Member> {
        let leaders = self.present().filter(|member| member.serves() && member.role() == Some(Role::Leader));
        leaders.max_by_key(|member| member.membership().map(freshness))
    }

    /// The leader whose word is taken.
    pub(super) fn settled(&self) -> Option<Settled<'_>> {
        let leader = self.leader()?;
        let membership = leader.membership()?;
        let (status, id) = (leader.status.as_ref()?, leader.id()?);
        let follows = |registered: &&Registered| {
            self.present().any(|member| {
                member.is(registered)
                    && member.status.as_ref().is_some_and(|status| status.leader == Some(id))
            })
        };
        let quorum = membership.voters().filter(follows).count() >= membership.quorum();
        // It leads a configuration whose beginning it has not applied yet.
        let lags = status.ballot_config().is_some_and(|config| config > membership.config);
        let latest = self.membership().map(freshness) == Some(freshness(membership));
        (quorum && latest && !lags).then_some(Settled { leader, membership })
    }

    /// Whether a change of voters that was asked for may still come to pass.
    pub(super) fn switch_may_be_under_way(&self) -> bool {
        let Some(note) = &self.switch else { return false };
        match self.settled() {
            Some(settled) => note.may_come_to_pass(&settled.note()),
            None => self.membership().is_none_or(|membership| membership.config <= note.config),
        }
    }

    /// How large the objects must be: as many pods as there are, and a budget that holds for those who vote now and for
    /// those who are to vote, if they are fewer.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let unfounded = matches!(founding(self), Founding::Reporting(_) | Founding::Ready);
        let voters = match (self.membership(), &self.permit) {
            (Some(membership), _) => Some(membership.voters().count()),
            (None, Some(permit)) if permit.members.is_empty() => Some(permit.founders.len()),
            (None, None) if unfounded => Some(self.members.len()),
            _ => None,
        };
        let count = |number: usize| u32::try_from(number).expect("a StatefulSet has few pods");
        Sizes {
            pods: count(self.members.len()),
            places: count(self.members.len().max(self.wanted)),
            voters: voters.map(|voters| count(voters.min(self.wanted))),
        }
    }
}

impl Settled<'_> {
    /// What is noted when this leader is asked for other voters.
    pub(super) fn note(&self) -> super::SwitchNote {
        super::SwitchNote {
            config: self.membership.config,
            epoch: self.leader.status.as_ref().map_or(0, NodeStatus::epoch),
            applied: self.leader.applied(),
            registered: self.membership.members.iter().map(|member| member.member_id).collect(),
        }
    }
}

impl Member {
    /// Whether this pod is that member: it has its volume or, if it does not say which it has, its identity.
    pub(super) fn is(&self, registered: &Registered) -> bool {
        match &self.identity {
            Some(disk) => disk.volume == registered.volume,
            None => self.id() == Some(registered.member_id),
        }
    }

    pub(super) fn membership(&self) -> Option<&Membership> {
        self.status.as_ref()?.membership.as_ref()
    }
}

/// Both only ever rise.
fn freshness(membership: &Membership) -> (u64, i64) {
    (membership.config, membership.next_member_id)
}
