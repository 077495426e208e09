//! Group commit: what arrives while a write is on its way is the next group.
//!
//! Owns the order of the core's writes on their way into the log. Must not know files. Invariant: at
//! most one group is in flight, and a completion is passed on only for writes that it contains.

use pharos_log::{DiskOp, Wal};
use pharos_paxos::{IoId, LogOp, Millis, Slot};

pub(crate) struct GroupCommit {
    wal: Wal,
    waiting: Vec<LogOp>,
    waiting_upto: Option<IoId>,
    in_flight: Option<IoId>,
    trim: Option<Slot>,
    spare: Spare,
    last_done: IoId,
}

/// What became of the last spare segment that was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spare {
    /// It is there, or none was asked for.
    There,
    /// It is being made.
    Asked,
    /// It is being made, after a try that found no room.
    AskedAgain,
    /// There was no room for it.
    NoRoom { again: Millis },
}

/// Between two tries to make a segment on a full disk.
const AGAIN_MS: u64 = 1_000;

impl GroupCommit {
    pub(crate) fn new(wal: Wal) -> Self {
        Self {
            wal,
            waiting: Vec::new(),
            waiting_upto: None,
            in_flight: None,
            trim: None,
            spare: Spare::There,
            last_done: IoId(0),
        }
    }

    pub(crate) fn push(&mut self, io: IoId, ops: Vec<LogOp>) {
        assert!(self.waiting_upto.is_none_or(|last| last < io), "writes come in order");
        self.waiting.extend(ops);
        self.waiting_upto = Some(io);
    }

    /// Asks for segments at or below the slot to go with a later group.
    pub(crate) fn trim(&mut self, upto: Slot) {
        self.trim = self.trim.max(Some(upto));
    }

    /// The next group, if none is in flight and something waits.
    pub(crate) fn next(&mut self) -> Option<(IoId, Vec<DiskOp>)> {
        if self.in_flight.is_some() {
            return None;
        }
        let io = match self.waiting_upto.take() {
            Some(io) => io,
            // Nothing may be waiting for long, and to forget is what makes room: the last completion is told again.
            None if self.is_short() && self.trim.is_some_and(|upto| self.wal.can_trim(upto)) => {
                self.last_done
            }
            None => return None,
        };
        let mut ops = Vec::new();
        self.wal.append(&self.waiting, &mut ops);
        self.waiting.clear();
        if let Some(upto) = self.trim.take() {
            self.wal.trim(upto, &mut ops);
        }
        self.in_flight = Some(io);
        Some((io, ops))
    }

    /// A group is durable.
    pub(crate) fn done(&mut self, io: IoId) {
        assert_eq!(self.in_flight.take(), Some(io), "the completion is of the group in flight");
        self.last_done = io;
    }

    /// A spare segment to prepare beside the writes; one at a time.
    pub(crate) fn wanted_spare(&mut self, now: Millis) -> Option<DiskOp> {
        let asked = match self.spare {
            Spare::Asked | Spare::AskedAgain => return None,
            Spare::NoRoom { again } if now < again => return None,
            Spare::NoRoom { .. } => Spare::AskedAgain,
            Spare::There => Spare::Asked,
        };
        let op = self.wal.wanted_spare();
        // Segments that were forgotten may have filled the place meanwhile.
        self.spare = if op.is_some() { asked } else { Spare::There };
        op
    }

    pub(crate) fn spare_created(&mut self, op: &DiskOp) {
        self.spare = Spare::There;
        self.wal.add_spare(op);
    }

    /// There is no room for the spare segment.
    pub(crate) fn spare_failed(&mut self, now: Millis) {
        self.spare = Spare::NoRoom { again: Millis(now.0 + AGAIN_MS) };
    }

    /// Whether the log is about to end in a full disk: what is ready has to last for promises.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.spare, Spare::NoRoom { .. } | Spare::AskedAgain) && self.wal.is_short()
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }
}
