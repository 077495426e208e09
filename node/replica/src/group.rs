//! Group commit: what arrives while a write is on its way is the next group.
//!
//! Owns the order of the core's writes on their way into the log. Must not know files. Invariant: at
//! most one group is in flight, and a completion is passed on only for writes that it contains.

use pharos_log::{DiskOp, Wal};
use pharos_paxos::{IoId, LogOp, Slot};

pub(crate) struct GroupCommit {
    wal: Wal,
    waiting: Vec<LogOp>,
    waiting_upto: Option<IoId>,
    in_flight: Option<IoId>,
    trim: Option<Slot>,
    spare_asked: bool,
}

impl GroupCommit {
    pub(crate) fn new(wal: Wal) -> Self {
        Self { wal, waiting: Vec::new(), waiting_upto: None, in_flight: None, trim: None, spare_asked: false }
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
        let io = self.waiting_upto.take()?;
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
    }

    /// A spare segment to prepare beside the writes; one at a time.
    pub(crate) fn wanted_spare(&mut self) -> Option<DiskOp> {
        if self.spare_asked {
            return None;
        }
        let op = self.wal.wanted_spare();
        self.spare_asked = op.is_some();
        op
    }

    pub(crate) fn spare_created(&mut self, op: &DiskOp) {
        self.spare_asked = false;
        self.wal.add_spare(op);
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }
}
