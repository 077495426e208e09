//! Carrying out what is chosen.
//!
//! Owns the applied slot and, per command, the order: state, then watch events, then the answer, then
//! what follows for connections. Must not know how a slot came to be chosen. Invariant: slots are
//! applied in order, once; an event reaches a client before any answer that shows the new state.

use crate::answers::put_answer;
use crate::clients::{Pending, Phase};
use crate::generation::NewGeneration;
use crate::io::{CloseReason, ConnId, Output};
use crate::replica::Replica;
use crate::requests::split_key;
use crate::watches::Happening;
use bytes::Bytes;
use pharos_jute::{EventType, WatcherEvent};
use pharos_paxos::{Entry, EntryKind, Slot};
use pharos_znode::{Applied, Batch, BatchError, Command, Reply, SessionEvent, allowed, perms};

/// Bytes of entries that one turn applies, so that a heartbeat never waits for a long backlog.
const TURN_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Applier {
    applied: Slot,
    committed: Slot,
    /// What the store held when this process started, and where the log ended then.
    started: (Slot, Slot),
    /// This member cannot go on: nothing more is carried out until the driver has ended it.
    halted: bool,
    out: Applied,
    watchers: Vec<ConnId>,
}

impl Applier {
    pub(crate) fn new(applied: Slot, log_end: Slot) -> Self {
        Self {
            applied,
            committed: applied,
            started: (applied, log_end.max(applied)),
            halted: false,
            out: Applied::new(),
            watchers: Vec::new(),
        }
    }

    pub(crate) fn committed(&mut self, upto: Slot) {
        self.committed = self.committed.max(upto);
    }

    /// A state that came from the leader has taken the place of what was applied.
    pub(crate) fn jump(&mut self, upto: Slot) {
        assert!(upto >= self.applied, "a state is installed when it is not older");
        self.applied = upto;
        self.committed = self.committed.max(upto);
        self.started = (upto, upto);
    }

    pub(crate) fn applied(&self) -> Slot {
        self.applied
    }

    /// Slots that were applied again although an earlier process had them in its log.
    pub(crate) fn replayed(&self) -> u64 {
        self.applied.min(self.started.1).0 - self.started.0.0
    }

    /// The last slot known to be chosen.
    pub(crate) fn chosen(&self) -> Slot {
        self.committed
    }
}

impl Replica {
    /// Applies chosen slots, at most about [`TURN_BYTES`]; true when some are left.
    pub(crate) fn apply_some(&mut self) -> bool {
        if self.snapshots.waits() || self.digests.is_wrong() || self.applier.halted {
            return false;
        }
        let mut budget = TURN_BYTES;
        while self.applier.applied < self.applier.committed {
            if budget == 0 {
                return true;
            }
            let slot = self.applier.applied.next();
            let entry = self.paxos.entry(slot).cloned().expect("the core holds what it says is chosen");
            budget = budget.saturating_sub(entry.payload.len().max(64));
            self.persist.applied(slot, entry.payload.len());
            self.apply_entry(entry);
            if self.applier.halted {
                return false;
            }
            self.applier.applied = slot;
            self.snapshots.reached(slot);
            self.tell_digest(slot);
            for conn in self.reads.take_reached(slot) {
                self.drive(conn);
            }
        }
        false
    }

    fn apply_entry(&mut self, entry: Entry) {
        match entry.kind {
            EntryKind::Founding => self.write_config(entry.slot),
            EntryKind::Seal => {
                match NewGeneration::of(&entry) {
                    Ok(Some(begun)) => self.begin_generation(&begun),
                    Ok(None) => {}
                    Err(error) => self.unreadable(entry.slot, &error),
                }
                let (next, _) = entry.seals().expect("the core takes no seal that it cannot read");
                self.enter_configuration(next);
                self.write_config(entry.slot);
            }
            EntryKind::Members => {
                if let Err(error) = self.apply_change(entry.payload) {
                    self.unreadable(entry.slot, &error);
                }
                self.write_config(entry.slot);
            }
            EntryKind::EpochStart => self.state.epoch_start(),
            EntryKind::Commands => {
                if let Err(error) = self.apply_batch(entry.slot, &entry.payload) {
                    self.unreadable(entry.slot, &error);
                }
            }
        }
    }

    fn unreadable(&mut self, slot: Slot, error: &dyn std::fmt::Display) {
        let reason = format!("slot {slot} holds what no member wrote: {error}");
        self.outputs.push_back(Output::Fatal { reason });
    }

    /// Nothing more is carried out.
    pub(crate) fn halt(&mut self, reason: String) {
        self.applier.halted = true;
        self.outputs.push_back(Output::Fatal { reason });
    }

    fn apply_batch(&mut self, slot: Slot, payload: &Bytes) -> Result<(), BatchError> {
        let batch = Batch::decode(payload)?;
        if !self.can_apply(slot, &batch) {
            return Ok(());
        }
        let before = self.level();
        for command in &batch.commands {
            self.apply_command(command, batch.time_ms);
        }
        self.level_may_have_risen(before);
        Ok(())
    }

    pub(crate) fn apply_command(&mut self, command: &Command, time_ms: i64) {
        let mut out = std::mem::take(&mut self.applier.out);
        if self.cfg.plant.ignores_attach()
            && let Some(attach) = self.state.session(command.session).map(|session| session.attach)
        {
            self.state.apply(&Command { attach, ..command.clone() }, time_ms, &mut out);
        } else if self.cfg.plant.level_from_local_flag() {
            self.state.apply_at(self.cfg.levels.max, command, time_ms, &mut out);
        } else {
            self.state.apply(command, time_ms, &mut out);
        }
        for event in &out.session_events {
            self.session_bound(*event);
        }
        if self.cfg.plant.event_after_answer() {
            self.answer_command(command, &out);
            self.fire(&out);
        } else {
            self.fire(&out);
            self.answer_command(command, &out);
        }
        for event in &out.session_events {
            self.session_ended(*event);
        }
        self.applier.out = out;
    }

    /// Tells the watchers who may read the node.
    fn fire(&mut self, out: &Applied) {
        for event in out.tree_events() {
            let mut watchers = std::mem::take(&mut self.applier.watchers);
            watchers.clear();
            self.watches.fire(happening(event.kind), event.path, &mut watchers);
            for &conn in &watchers {
                self.tell(conn, out.zxid.0, &WatcherEvent::new(event.kind, event.path), event.acl);
            }
            self.applier.watchers = watchers;
        }
    }

    fn tell(&mut self, conn: ConnId, zxid: i64, event: &WatcherEvent<'_>, acl: &[pharos_znode::Acl]) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        if allowed(acl, perms::READ, &own.auth) {
            crate::answers::framed(&mut own.out, |out| event.encode_message(zxid, out));
            self.clients.mark_dirty(conn);
        }
    }

    /// Answers the client that waits for the command here, if there is one.
    fn answer_command(&mut self, command: &Command, out: &Applied) {
        let here = (self.cfg.me.0, self.cfg.boot);
        if (command.origin, command.boot) != here || command.request == 0 {
            return;
        }
        let (conn, serial) = split_key(command.request);
        let Some(own) = self.clients.get_mut(conn) else { return };
        if let Phase::Joining(joining) = own.phase {
            assert_eq!(joining.serial, serial, "a joining connection has one command in flight");
            self.clients.answered(conn);
            let attach = match &out.result {
                Ok(Reply::Session { attach, .. }) => Ok(*attach),
                Ok(_) => unreachable!("a handshake's command answers with its session"),
                Err(code) => Err(*code),
            };
            return self.connected(conn, joining, attach);
        }
        let Some(Pending::Write { serial: first, xid }) = own.pending.pop_front() else {
            unreachable!("commands of a connection are answered in their order");
        };
        assert_eq!(first, serial, "commands of a connection are answered in their order");
        let response = out.response();
        put_answer(&mut own.out, xid, out.zxid.0, response.as_ref().map_err(|code| *code));
        self.clients.mark_dirty(conn);
        self.clients.answered(conn);
        self.drive(conn);
    }

    /// A session was opened or has moved: before the answer, which binds it to its new connection.
    fn session_bound(&mut self, event: SessionEvent) {
        let (session, attach) = match event {
            SessionEvent::Opened { session, .. } => (session, 0),
            SessionEvent::Attached { session, attach, .. } => (session, attach),
            SessionEvent::Closed { .. } => return,
        };
        self.track(session);
        if let Some(conn) = self.clients.of_session(session)
            && let Some(Phase::Live(live)) = self.clients.get(conn).map(|own| own.phase)
            && live.attach < attach
        {
            self.close(conn, CloseReason::SessionMoved);
        }
    }

    /// A session has ended: after the answer to the client that ended it.
    fn session_ended(&mut self, event: SessionEvent) {
        if let SessionEvent::Closed { session, .. } = event {
            self.expiry.forget(session);
            if let Some(conn) = self.clients.of_session(session) {
                self.close(conn, CloseReason::SessionEnded);
            }
        }
    }

    fn track(&mut self, session: pharos_znode::SessionId) {
        if self.leads()
            && let Some(timeout_ms) = self.state.session(session).map(|s| s.timeout_ms)
        {
            self.expiry.track(session, timeout_ms.max(0) as u64, self.session_clock());
        }
    }
}

fn happening(kind: EventType) -> Happening {
    match kind {
        EventType::NodeCreated => Happening::Created,
        EventType::NodeDeleted => Happening::Deleted,
        EventType::NodeDataChanged => Happening::DataChanged,
        EventType::NodeChildrenChanged => Happening::ChildrenChanged,
    }
}
