//! A new generation: an ensemble goes on from one volume, after its majority was lost or from a backup.
//!
//! Owns the entry that begins it, a seal whose only voter is that volume's member, and what is different after it. Must
//! not know who asked for it. Invariants: all that the volume holds counts as chosen from then on, and it is one entry
//! of the log as any other, so that who reads the log sees it; members of the generation before are turned away (their
//! hello says which they are of); no id, configuration number, ballot or zxid of theirs is given again.

use crate::founding::Founding;
use crate::registry::{Change, Member, Registry};
use crate::replica::{Boot, Replica, StartError, find_founding, find_registry};
use crate::snapshot;
use crate::wire::{Reader, WireError};
use bytes::Bytes;
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, LogOp, MemberId, Slot};
use pharos_znode::Zxid;
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
    #[error("the volume is of generation {0} already; the next is {next}", next = .0 + 1)]
    Over(u32),
}

impl Holdings {
    /// Of what was found on the disk.
    ///
    /// # Errors
    /// When it does not make a member.
    pub fn of(boot: &Boot) -> Result<Self, GenerationError> {
        let flushed = find_founding(boot)?;
        let mut registry = find_registry(boot, &flushed)?;
        if boot.log.trimmed > boot.applied {
            return Err(StartError::Gap { trimmed: boot.log.trimmed, applied: boot.applied }.into());
        }
        let installed = snapshot::installed(&boot.own).map_err(StartError::Founding)?;
        let end = boot.log_end().max(installed);
        if end == Slot::ZERO {
            return Err(GenerationError::Empty);
        }
        for entry in boot.log.entries.iter().filter(|entry| entry.slot > boot.applied) {
            if entry.kind == EntryKind::Members {
                registry.apply(Change::decode(entry.payload.clone()).map_err(StartError::Registry)?);
            }
            if let Some((next, _)) = entry.seals() {
                registry.enter(next);
            }
        }
        let (hard, founding) = (boot.log.hard, newest(flushed, boot).map_err(StartError::Founding)?);
        let accepted = hard.accepted.max(registry.membership().by);
        Ok(Self { founding, accepted, end, committed: hard.committed.max(boot.applied), registry })
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
    pub(crate) fn of(entry: &Entry) -> Result<Option<Self>, WireError> {
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
        let Zxid(zxid) = self.state.zxid();
        self.state.jump_epoch((zxid >> 32) + EPOCHS);
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

    #[test]
    fn what_begins_reads_back_as_written_and_is_refused_when_cut_short() {
        let survivor =
            Member { id: MemberId(7), volume: [7; 16], host: "x".into(), peer_port: 1, client_port: 2 };
        let begun = NewGeneration { generation: 3, survivor };
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
