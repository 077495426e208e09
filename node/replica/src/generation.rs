//! A new generation: an ensemble goes on from one volume, after its majority was lost or from a backup.
//!
//! Owns the entry that begins it, a seal whose only voter is that volume's member, and what is different after it. Must
//! not know who asked for it. Invariants: all that the volume holds counts as chosen from then on, and it is one entry
//! of the log as any other, so that who reads the log sees it; members of the generation before are turned away (their
//! hello says which they are of); no id, configuration number or ballot that the volume knows of is given again, and no
//! zxid that a client can have seen.

use crate::founding::Founding;
use crate::levels::check_boot;
use crate::registry::{Change, Member, Registry};
use crate::replica::{Boot, Replica, StartError, find_founding, find_registry};
use crate::snapshot;
use crate::wire::{Reader, WireError};
use bytes::Bytes;
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, LogOp, MemberId, Slot};
use pharos_znode::Levels;
use std::collections::BTreeMap;
use thiserror::Error;

const VERSION: u8 = 1;
/// So many epochs are left to those of the generation before, who may have gone on after a backup, or may go on
/// somewhere, unseen.
const EPOCHS: i64 = 1 << 16;

/// What begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGeneration {
    /// Its number, above that of the one that ends.
    pub generation: u32,
    /// The member whose volume the ensemble goes on from.
    pub survivor: Member,
}

/// What a volume holds, for the one who has to choose which to go on from: of two, the one with the higher ballot knows
/// more, and of equal ballots the one whose log reaches further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// The ensemble and its generation.
    pub founding: Founding,
    /// The ballot whose leader's log the volume holds a beginning of.
    pub accepted: Ballot,
    /// The last slot in its log.
    pub end: Slot,
    /// The last slot that it knows to be chosen; what follows may have been acknowledged, or may never have been.
    pub committed: Slot,
    /// Who belongs to the ensemble by all that its log holds.
    pub registry: Registry,
    /// Who ever did, as far as the volume tells: the last voters may have been replaced in its last slot.
    members: BTreeMap<MemberId, Member>,
}

/// Why a volume cannot begin a generation.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// What a start would say.
    #[error(transparent)]
    Unreadable(#[from] StartError),
    /// It has joined and was sent no state.
    #[error("the volume holds no state of the ensemble: it joined and was never sent one")]
    Empty,
    /// Its state is older than its removal.
    #[error("member {0}, whose volume this is, was removed from the ensemble, which went on without it")]
    Removed(MemberId),
    /// It has begun, or another has.
    #[error("the volume is of generation {0} already; the next is {next}", next = .0.saturating_add(1))]
    Over(u32),
}

impl Holdings {
    /// Of what was found on the disk.
    ///
    /// # Errors
    /// When it does not make a member.
    pub fn of(boot: &Boot) -> Result<Self, GenerationError> {
        check_boot(boot, Levels::KNOWN).map_err(StartError::Level)?;
        boot.check()?;
        let flushed = find_founding(boot)?;
        let mut registry = find_registry(boot, &flushed)?;
        let installed = snapshot::installed(&boot.own).map_err(StartError::Founding)?;
        let end = boot.log_end().max(installed);
        if end == Slot::ZERO {
            return Err(GenerationError::Empty);
        }
        let mut members = BTreeMap::new();
        let mut note = |registry: &Registry| {
            members.extend(registry.members().iter().map(|member| (member.id, member.clone())));
        };
        note(&registry);
        for entry in boot.log.entries.iter().filter(|entry| entry.slot > boot.applied) {
            if entry.kind == EntryKind::Members {
                registry.apply(Change::decode(entry.payload.clone()).map_err(StartError::Registry)?);
                note(&registry);
            }
            if let Some((next, _)) = entry.seals() {
                registry.enter(next);
            }
        }
        let (hard, founding) = (boot.log.hard, newest(flushed, boot).map_err(StartError::Founding)?);
        let accepted = hard.accepted.max(registry.membership().by);
        Ok(Self { founding, accepted, end, committed: hard.committed.max(boot.applied), registry, members })
    }

    /// The member, if the volume tells of it.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }
}

impl NewGeneration {
    /// The group that the volume's log is given before the member starts.
    ///
    /// # Errors
    /// When the volume holds nothing to go on from.
    pub fn first_group(&self, boot: &Boot) -> Result<Vec<LogOp>, GenerationError> {
        let Holdings { founding, end, accepted, registry, .. } = Holdings::of(boot)?;
        if self.generation <= founding.generation {
            return Err(GenerationError::Over(founding.generation));
        }
        let promised = boot.log.hard.promised;
        let config = registry.membership().config.max(promised.config).max(accepted.config);
        let round = promised.round.max(accepted.round) + 1;
        // As if this member had led and had all others' votes.
        let ballot = Ballot { config, round, member: self.survivor.id };
        let slot = end.next();
        let seal = Entry::seal(slot, ballot, ConfigNo(config.0 + 1), &[self.survivor.id], &self.encode());
        let unlogged = end > boot.log_end();
        let reset = unlogged.then_some(LogOp::Reset { after: end });
        let begun =
            [LogOp::Append(seal), LogOp::Accepted(ballot), LogOp::Promised(ballot), LogOp::Committed(slot)];
        Ok(reset.into_iter().chain(begun).collect())
    }

    /// What an entry begins, if it does.
    ///
    /// # Errors
    /// When the entry says that it does, in a way that this program cannot read.
    pub fn of(entry: &Entry) -> Result<Option<Self>, WireError> {
        match entry.seals() {
            Some((_, rest)) if !rest.is_empty() => Self::decode(rest).map(Some),
            _ => Ok(None),
        }
    }

    /// The ensemble's identity in this generation: the secret stays, or no session could be resumed.
    pub(crate) fn founding(&self, before: &Founding) -> Founding {
        Founding { generation: self.generation, members: vec![self.survivor.clone()], ..before.clone() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.generation.to_le_bytes());
        self.survivor.put(&mut out);
        out
    }

    fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let version = r.u8("generation version")?;
        if version != VERSION {
            return Err(WireError::Invalid { field: "generation version", value: u64::from(version) });
        }
        let begun = Self { generation: r.u32("generation")?, survivor: Member::get(&mut r)? };
        r.end()?;
        Ok(begun)
    }
}

impl Replica {
    /// The seal that is applied begins a generation.
    pub(crate) fn begin_generation(&mut self, begun: &NewGeneration) {
        self.founding = begun.founding(&self.founding);
        self.registry.begin_generation(&begun.survivor);
        self.state.jump_epoch(self.state.zxid().epoch() + EPOCHS);
    }
}

/// The identity that the log leads to from that of what the store has flushed.
pub(crate) fn newest(flushed: Founding, boot: &Boot) -> Result<Founding, WireError> {
    let mut founding = flushed;
    for entry in boot.log.entries.iter().filter(|entry| entry.slot > boot.applied) {
        if let Some(begun) = NewGeneration::of(entry)? {
            founding = begun.founding(&founding);
        }
    }
    Ok(founding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_log::mem::MemDisk;
    use pharos_log::{Wal, WalConfig};
    use pharos_znode::State;

    const VOLUME: [u8; 16] = [9; 16];

    fn config() -> WalConfig {
        WalConfig { segment_bytes: 64 << 10, spare_segments: 1, identity: VOLUME }
    }

    fn member(id: u32) -> Member {
        let host = format!("m{id}");
        Member { id: MemberId(id), volume: [id as u8; 16], host, peer_port: 1, client_port: 2 }
    }

    fn founding() -> Founding {
        let members = (1..=3).map(member).collect();
        Founding { cluster: [7; 16], generation: 1, secret: [5; 16], members }
    }

    /// What a start finds when the log was given these groups.
    fn boot(groups: &[Vec<LogOp>]) -> Boot {
        let mut disk = MemDisk::new();
        let (mut wal, mut ops) = Wal::format(config());
        groups.iter().for_each(|group| wal.append(group, &mut ops));
        disk.execute(&ops).unwrap();
        let log = Wal::recover(config(), &disk).unwrap();
        Boot { log, state: State::new(), own: Vec::new(), applied: Slot::ZERO, joins: None }
    }

    fn begun(id: u32) -> NewGeneration {
        NewGeneration { generation: 2, survivor: member(id) }
    }

    #[test]
    fn a_volume_goes_on_alone_with_all_that_its_log_holds_once() {
        let ballot = Ballot { config: ConfigNo(1), round: 4, member: MemberId(2) };
        let entry = Entry { slot: Slot(2), ballot, kind: EntryKind::EpochStart, payload: Bytes::new() };
        let mut groups = vec![founding().first_group(), vec![LogOp::Append(entry), LogOp::Accepted(ballot)]];
        groups.push(begun(3).first_group(&boot(&groups)).unwrap());
        let after = boot(&groups);
        let held = Holdings::of(&after).unwrap();
        assert_eq!((held.end, held.committed, held.founding.generation), (Slot(3), Slot(3), 2));
        assert_eq!((held.founding.members, held.founding.secret), (vec![member(3)], [5; 16]));
        assert_eq!(held.registry.membership().voters, [MemberId(3)]);
        assert!(held.accepted > ballot);
        let error = begun(3).first_group(&after).unwrap_err();
        assert_eq!(error.to_string(), "the volume is of generation 2 already; the next is 3");
    }

    /// What is chosen of the last slot nobody is left to tell.
    #[test]
    fn a_volume_whose_last_slot_replaces_its_member_may_be_the_one_that_is_left() {
        let ballot = Ballot { config: ConfigNo(1), round: 4, member: MemberId(2) };
        let seal = Entry::seal(Slot(2), ballot, ConfigNo(2), &[MemberId(2)], b"");
        let mut groups = vec![founding().first_group(), vec![LogOp::Append(seal), LogOp::Accepted(ballot)]];
        let held = Holdings::of(&boot(&groups)).unwrap();
        assert_eq!((held.registry.member(MemberId(3)), held.member(MemberId(3))), (None, Some(&member(3))));
        groups.push(begun(3).first_group(&boot(&groups)).unwrap());
        let held = Holdings::of(&boot(&groups)).unwrap();
        assert_eq!(held.registry.membership().config, ConfigNo(3));
    }

    #[test]
    fn a_volume_that_was_never_sent_a_state_has_nothing_to_go_on_from() {
        let joins = Boot { joins: Some(founding()), ..boot(&[]) };
        let error = begun(3).first_group(&joins).unwrap_err();
        assert!(matches!(error, GenerationError::Empty), "{error}");
        // One that was, but has not stamped its log, goes on from there.
        let own = vec![
            (Bytes::from_static(crate::replica::FOUNDING_KEY), Bytes::from(founding().encode())),
            crate::rows::installed_row(Slot(50)),
        ];
        let ops = begun(3).first_group(&Boot { own, applied: Slot(50), ..boot(&[]) }).unwrap();
        let slot = |op: &LogOp| if let LogOp::Append(entry) = op { Some(entry.slot) } else { None };
        assert!(matches!(ops[0], LogOp::Reset { after: Slot(50) }));
        assert_eq!(ops.iter().find_map(slot), Some(Slot(51)));
    }

    #[test]
    fn what_begins_reads_back_as_written_and_is_refused_when_cut_short() {
        let begun = NewGeneration { generation: 3, survivor: member(7) };
        let bytes = Bytes::from(begun.encode());
        assert_eq!(NewGeneration::decode(bytes.clone()), Ok(begun));
        for len in 0..bytes.len() {
            assert!(NewGeneration::decode(bytes.slice(..len)).is_err(), "length {len}");
        }
        let later = [&[2], &bytes[1..]].concat();
        let error = NewGeneration::decode(later.into()).unwrap_err();
        assert_eq!(error.to_string(), "invalid generation version: 2");
    }
}
