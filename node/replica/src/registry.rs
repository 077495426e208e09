//! Who belongs to the ensemble.
//!
//! Owns ids, volumes, addresses and who votes, as of the last slot applied: replicated like the tree. Must not know
//! connections, nor how a configuration ends. Invariants: an id is given once, to one volume, and never again; whoever
//! votes is registered.

use crate::founding::Founding;
use crate::levels::LevelError;
use crate::wire::{Reader, WireError, put_bytes};
use bytes::Bytes;
use pharos_paxos::{Ballot, ConfigNo, MemberId, Membership, Slot};
use thiserror::Error;

const VERSION: u8 = 1;
const ADD: u8 = 1;
const REMOVE: u8 = 2;
/// Members, learners included, that an ensemble can have.
const MAX_MEMBERS: usize = 64;
/// The fewest bytes of a member.
const MEMBER_BYTES: usize = 28;

/// A member, as its peers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, never used again for another disk.
    pub id: MemberId,
    /// The id its volume was given when it was formatted.
    pub volume: [u8; 16],
    /// The name or address its peers dial.
    pub host: String,
    /// The port its peers dial.
    pub peer_port: u16,
    /// The port its clients dial.
    pub client_port: u16,
}

impl Member {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.volume);
        put_bytes(out, self.host.as_bytes());
        out.extend_from_slice(&self.peer_port.to_le_bytes());
        out.extend_from_slice(&self.client_port.to_le_bytes());
    }

    pub(crate) fn get(r: &mut Reader) -> Result<Self, WireError> {
        Ok(Self {
            id: MemberId(r.u32("member id")?),
            volume: r.array("volume")?,
            host: r.string("host")?,
            peer_port: r.u16("peer port")?,
            client_port: r.u16("client port")?,
        })
    }

    pub(crate) fn get_all(r: &mut Reader) -> Result<Vec<Self>, WireError> {
        let count = r.count("members", MEMBER_BYTES)?;
        let members = (0..count).map(|_| Self::get(r)).collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() || !members.is_sorted_by(|a, b| a.id < b.id) {
            return Err(WireError::Invalid { field: "members", value: count as u64 });
        }
        Ok(members)
    }
}

/// A change of the list that leaves the voters as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A learner for this volume, with the next id; the member's own id is not read. A volume that is registered keeps
    /// its id and gets the address.
    Add(Member),
    /// This learner goes.
    Remove(MemberId),
}

/// Why the members stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// Only the leader can.
    #[error("this member does not lead")]
    NotLeader,
    /// The leader takes no proposals at this moment.
    #[error("{0}; try again soon")]
    Busy(&'static str),
    /// Another configuration than the one that was meant.
    #[error("configuration {0} is over, this is {1}")]
    OtherConfig(u32, u32),
    /// Not in the list.
    #[error("member {0} is not registered")]
    Unknown(MemberId),
    /// A voter goes by a change of the voters.
    #[error("member {0} votes: change the voters first")]
    Votes(MemberId),
    /// There is a limit.
    #[error("an ensemble has at most {MAX_MEMBERS} members")]
    TooMany,
    /// It could not take the state.
    #[error("the member cannot join: {0}")]
    Level(LevelError),
    /// What the core says.
    #[error(transparent)]
    Refused(#[from] pharos_paxos::ReconfigError),
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    membership: Membership,
    next_id: u32,
    members: Vec<Member>,
}

impl Registry {
    pub(crate) fn founding(founding: &Founding) -> Self {
        let next_id = founding.members.iter().map(|member| member.id.0).max().unwrap_or(0) + 1;
        Self { membership: founding.membership(), next_id, members: founding.members.clone() }
    }

    /// Who votes, and since when.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// All members, learners included, by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The id that the next volume gets.
    #[must_use]
    pub fn next_id(&self) -> MemberId {
        MemberId(self.next_id)
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether the id was given and its member is gone.
    #[must_use]
    pub fn was_removed(&self, id: MemberId) -> bool {
        id.0 < self.next_id && self.member(id).is_none()
    }

    pub(crate) fn learners(&self) -> impl Iterator<Item = MemberId> {
        self.members.iter().map(|member| member.id).filter(|id| !self.membership.has(*id))
    }

    /// Why a change would not be carried out.
    pub(crate) fn check(&self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::Remove(id) if self.member(*id).is_none() => Err(ChangeError::Unknown(*id)),
            Change::Remove(id) if self.membership.has(*id) => Err(ChangeError::Votes(*id)),
            Change::Add(new) if self.of_volume(new).is_none() && self.members.len() >= MAX_MEMBERS => {
                Err(ChangeError::TooMany)
            }
            Change::Add(_) | Change::Remove(_) => Ok(()),
        }
    }

    /// Carries a change out, unless what came before it in the log is against it.
    pub(crate) fn apply(&mut self, change: Change) {
        if self.check(&change).is_err() {
            return;
        }
        match change {
            Change::Remove(id) => self.members.retain(|member| member.id != id),
            Change::Add(new) => match self.of_volume(&new) {
                Some(at) => self.members[at] = Member { id: self.members[at].id, ..new },
                None => {
                    self.members.push(Member { id: self.next_id(), ..new });
                    self.next_id += 1;
                }
            },
        }
    }

    /// For [`crate::Plant`] alone: an id that is the last one given can be given again.
    pub(crate) fn forget_who_left(&mut self) {
        self.next_id = self.members.iter().map(|member| member.id.0).max().unwrap_or(0) + 1;
    }

    fn of_volume(&self, new: &Member) -> Option<usize> {
        self.members.iter().position(|member| member.volume == new.volume)
    }

    /// The next configuration begins: voters that it does not name are gone.
    pub(crate) fn enter(&mut self, next: Membership) {
        let before = std::mem::replace(&mut self.membership, next);
        self.members.retain(|member| self.membership.has(member.id) || !before.has(member.id));
    }

    /// Of all members only this one is left.
    pub(crate) fn begin_generation(&mut self, survivor: &Member) {
        self.next_id = self.next_id.max(survivor.id.0 + 1);
        self.members = vec![survivor.clone()];
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Membership { config, voters, since, by } = &self.membership;
        let mut out = vec![VERSION];
        out.extend_from_slice(&config.0.to_le_bytes());
        out.extend_from_slice(&since.0.to_le_bytes());
        out.extend_from_slice(&by.config.0.to_le_bytes());
        out.extend_from_slice(&by.round.to_le_bytes());
        out.extend_from_slice(&by.member.0.to_le_bytes());
        out.extend_from_slice(&(voters.len() as u32).to_le_bytes());
        voters.iter().for_each(|voter| out.extend_from_slice(&voter.0.to_le_bytes()));
        out.extend_from_slice(&self.next_id.to_le_bytes());
        out.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        self.members.iter().for_each(|member| member.put(&mut out));
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        check_version(&mut r, "registry version")?;
        let (config, since) = (ConfigNo(r.u32("configuration")?), Slot(r.u64("seal slot")?));
        let by = Ballot {
            config: ConfigNo(r.u32("seal ballot")?),
            round: r.u64("seal ballot")?,
            member: MemberId(r.u32("seal ballot")?),
        };
        let count = r.count("voters", 4)?;
        let voters = (0..count).map(|_| r.u32("voter").map(MemberId)).collect::<Result<Vec<_>, _>>()?;
        let next_id = r.u32("next member id")?;
        let members = Member::get_all(&mut r)?;
        r.end()?;
        let registered = |voter: &MemberId| members.iter().any(|member| member.id == *voter);
        if voters.is_empty() || !voters.is_sorted_by(|a, b| a < b) || !voters.iter().all(registered) {
            return Err(WireError::Invalid { field: "voters", value: count as u64 });
        }
        if members.last().is_some_and(|last| last.id.0 >= next_id) {
            return Err(WireError::Invalid { field: "next member id", value: u64::from(next_id) });
        }
        Ok(Self { membership: Membership { config, voters, since, by }, next_id, members })
    }
}

impl Change {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Self::Add(member) => {
                out.push(ADD);
                member.put(&mut out);
            }
            Self::Remove(id) => {
                out.push(REMOVE);
                out.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        out.into()
    }

    /// Reads back what a log entry holds.
    ///
    /// # Errors
    /// When the bytes are not a change of a version this program knows.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        check_version(&mut r, "change version")?;
        let change = match r.u8("change")? {
            ADD => Self::Add(Member::get(&mut r)?),
            REMOVE => Self::Remove(MemberId(r.u32("member id")?)),
            other => return Err(WireError::Invalid { field: "change", value: u64::from(other) }),
        };
        r.end()?;
        Ok(change)
    }
}

fn check_version(r: &mut Reader, field: &'static str) -> Result<(), WireError> {
    match r.u8(field)? {
        VERSION => Ok(()),
        other => Err(WireError::Invalid { field, value: u64::from(other) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32) -> Member {
        let host = format!("main-{id}");
        Member { id: MemberId(id), volume: [id as u8; 16], host, peer_port: 2888, client_port: 2181 }
    }

    fn registry() -> Registry {
        let members = (1..=3).map(member).collect();
        Registry::founding(&Founding { cluster: [7; 16], generation: 1, secret: [9; 16], members })
    }

    fn next(registry: &Registry, voters: &[u32]) -> Membership {
        let voters = voters.iter().copied().map(MemberId).collect();
        let config = ConfigNo(registry.membership.config.0 + 1);
        Membership { config, voters, since: Slot(50), by: Ballot { round: 3, ..Ballot::FOUNDING } }
    }

    fn ids(registry: &Registry) -> Vec<u32> {
        registry.members.iter().map(|member| member.id.0).collect()
    }

    #[test]
    fn an_id_is_never_given_again() {
        let mut registry = registry();
        registry.apply(Change::Add(member(40)));
        assert_eq!((ids(&registry), registry.learners().collect()), (vec![1, 2, 3, 4], vec![MemberId(4)]));
        registry.apply(Change::Remove(MemberId(4)));
        registry.apply(Change::Add(member(50)));
        assert_eq!(ids(&registry), [1, 2, 3, 5]);
        assert!(registry.was_removed(MemberId(4)) && !registry.was_removed(MemberId(6)));
    }

    #[test]
    fn a_volume_that_is_registered_keeps_its_id_and_gets_the_address() {
        let mut registry = registry();
        registry.apply(Change::Add(Member { host: "elsewhere".to_owned(), ..member(2) }));
        assert_eq!(ids(&registry), [1, 2, 3]);
        assert_eq!(registry.member(MemberId(2)).unwrap().host, "elsewhere");
    }

    #[test]
    fn a_voter_that_the_next_configuration_does_not_name_is_gone_and_a_learner_stays() {
        let mut registry = registry();
        registry.apply(Change::Add(member(4)));
        registry.apply(Change::Add(member(5)));
        registry.enter(next(&registry, &[1, 2, 4]));
        assert_eq!((ids(&registry), registry.learners().collect()), (vec![1, 2, 4, 5], vec![MemberId(5)]));
        assert!(registry.was_removed(MemberId(3)));
    }

    #[test]
    fn a_voter_or_a_stranger_is_not_removed_and_there_is_a_limit() {
        let mut registry = registry();
        let refused = |change| registry.check(&change).unwrap_err().to_string();
        assert_eq!(refused(Change::Remove(MemberId(2))), "member 2 votes: change the voters first");
        assert_eq!(refused(Change::Remove(MemberId(9))), "member 9 is not registered");
        (4..=64).for_each(|id| registry.apply(Change::Add(member(id))));
        let refused = registry.check(&Change::Add(member(65))).unwrap_err();
        assert_eq!(refused.to_string(), "an ensemble has at most 64 members");
        assert_eq!(registry.check(&Change::Add(member(64))), Ok(()));
    }

    #[test]
    fn what_is_written_reads_back_and_what_is_cut_short_is_refused() {
        let mut registry = registry();
        registry.apply(Change::Add(member(4)));
        registry.enter(next(&registry, &[2, 4]));
        let bytes = registry.encode();
        assert_eq!(Registry::decode(bytes.clone().into()), Ok(registry));
        for len in 0..bytes.len() {
            assert!(Registry::decode(Bytes::copy_from_slice(&bytes[..len])).is_err(), "length {len}");
        }
        for change in [Change::Add(member(7)), Change::Remove(MemberId(7))] {
            let bytes = change.encode();
            assert_eq!(Change::decode(bytes.clone()), Ok(change));
            for len in 0..bytes.len() {
                assert!(Change::decode(bytes.slice(..len)).is_err(), "length {len}");
            }
        }
    }
}
