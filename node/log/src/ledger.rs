//! What the log holds, and which segment holds it. The writer and recovery share this one account.
//!
//! Invariant: entries are contiguous from the first segment's base to the end; segments are contiguous too.

use crate::disk::FileName;
use crate::sector::SegmentNo;
use pharos_paxos::{HardState, LogOp, MAX_ENTRY_BYTES, Slot};
use std::collections::VecDeque;

/// A segment that belongs to the log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) no: SegmentNo,
    pub(crate) file: FileName,
    pub(crate) size: u64,
    /// How far it is written.
    pub(crate) used: u64,
    /// Slots up to here are older than the segment.
    pub(crate) base: Slot,
    /// The last slot that is in it, or the base.
    pub(crate) last: Slot,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) hard: HardState,
    pub(crate) end: Slot,
    pub(crate) segments: VecDeque<Segment>,
}

impl Ledger {
    /// The slots up to here are no longer in the log.
    pub(crate) fn trimmed(&self) -> Slot {
        self.segments.front().expect("a log has a segment").base
    }

    pub(crate) fn newest(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }

    pub(crate) fn newest_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has a segment")
    }

    /// Accounts for an operation in the newest segment, or says which rule it breaks.
    pub(crate) fn apply(&mut self, op: &LogOp) -> Result<(), &'static str> {
        match op {
            LogOp::Truncate { from } => return self.truncate(*from),
            LogOp::Reset { after } => return self.reset(*after),
            LogOp::Append(entry) => {
                if entry.slot != self.end.next() {
                    return Err("an entry does not follow the one before it");
                }
                if entry.payload.len() > MAX_ENTRY_BYTES {
                    return Err("an entry is too large");
                }
                self.end = entry.slot;
                self.newest_mut().last = entry.slot;
            }
            LogOp::Accepted(ballot) => self.hard.accepted = *ballot,
            LogOp::Promised(ballot) => self.hard.promised = *ballot,
            LogOp::Committed(slot) => self.hard.committed = self.hard.committed.max(*slot),
        }
        Ok(())
    }

    fn reset(&mut self, after: Slot) -> Result<(), &'static str> {
        if after < self.hard.committed {
            return Err("a reset goes back behind a committed slot");
        }
        self.hard.committed = after;
        self.end = after;
        for segment in &mut self.segments {
            segment.base = after;
            segment.last = after;
        }
        Ok(())
    }

    fn truncate(&mut self, from: Slot) -> Result<(), &'static str> {
        if from <= self.hard.committed {
            return Err("a committed slot is truncated");
        }
        let Some(end) = from.0.checked_sub(1).map(Slot).filter(|end| *end <= self.end) else {
            return Err("a truncation lies outside the log");
        };
        self.end = end;
        for segment in &mut self.segments {
            segment.base = segment.base.min(end);
            segment.last = segment.last.min(end);
        }
        Ok(())
    }
}
