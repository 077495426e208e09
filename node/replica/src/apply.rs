//! Carrying out what is chosen.
//!
//! Owns the applied slot and, per command, the order: state, then watch events, then the answer, then
//! what follows for connections. Must not know how a slot came to be chosen. Invariants: slots are
//! applied in order, once; an event reaches a client before any answer that shows the new state; while a
//! command is half-way no client is answered from the state, and nothing of it goes to the store.

use crate::answers::framed;
use crate::clients::{Pending, Phase};
use crate::generation::NewGeneration;
use crate::io::{CloseReason, ConnId, Output};
use crate::replica::Replica;
use crate::requests::split_key;
use crate::watches::Happening;
use pharos_jute::{EventType, WatcherEvent};
use pharos_paxos::{Entry, EntryKind, Slot};
use pharos_znode::{Applied, Batch, BatchDecoder, Command, Progress, Reply, SessionEvent, allowed, perms};

/// What a step of a command that is carried out in slices counts against [`crate::ReplicaConfig::apply_bytes`].
const STEP_BYTES: usize = 256;
/// The same for an operation that is decoded.
const DECODE_BYTES: usize = 64;

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
    /// The slot whose commands are being carried out.
    under_way: Option<UnderWay>,
    /// Connections with requests that wait until no command is half-way.
    fenced: Vec<ConnId>,
}

/// A slot of which some commands are carried out.
#[derive(Debug)]
struct UnderWay {
    slot: Slot,
    bytes: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Nothing is carried out before all can be read.
    Decode(BatchDecoder),
    /// Commands before `next` are done.
    Apply { batch: Batch, next: usize },
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
            under_way: None,
            fenced: Vec::new(),
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
        self.under_way = None;
        self.fenced.clear();
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
    /// Whether no slot is carried out half-way.
    #[must_use]
    pub fn is_between_slots(&self) -> bool {
        self.applier.under_way.is_none()
    }

    /// Whether clients' requests have to wait, since they would see a command half-way.
    pub(crate) fn is_fenced(&self) -> bool {
        !self.state.is_whole() && !self.cfg.plant.reads_half_way()
    }

    /// Connections whose requests wait for a command that is half-way.
    #[must_use]
    pub fn fenced(&self) -> usize {
        self.applier.fenced.len()
    }

    /// The connection's requests are carried out once no command is half-way.
    pub(crate) fn fence(&mut self, conn: ConnId) {
        self.applier.fenced.push(conn);
    }

    /// Applies chosen slots, at most about [`crate::ReplicaConfig::apply_bytes`]; true when some are left.
    pub(crate) fn apply_some(&mut self) -> bool {
        if self.snapshots.waits() || self.digests.is_wrong() || self.applier.halted {
            return false;
        }
        let mut budget = self.cfg.apply_bytes;
        if self.applier.under_way.is_some() {
            // Such a slot ends its turn: a cut can be taken only between two slots.
            return !self.go_on(&mut budget) || self.applier.applied < self.applier.committed;
        }
        while self.applier.applied < self.applier.committed {
            if budget == 0 {
                return true;
            }
            let slot = self.applier.applied.next();
            let entry = self.paxos.entry(slot).cloned().expect("the core holds what it says is chosen");
            budget = budget.saturating_sub(entry.payload.len().max(64));
            if !self.apply_entry(entry, &mut budget) {
                return !self.applier.halted;
            }
        }
        false
    }

    /// True when it is done.
    fn apply_entry(&mut self, entry: Entry, budget: &mut usize) -> bool {
        let (slot, bytes) = (entry.slot, entry.payload.len());
        match entry.kind {
            EntryKind::Founding => self.write_config(slot),
            EntryKind::Seal => {
                match NewGeneration::of(&entry) {
                    Ok(Some(begun)) => self.begin_generation(&begun),
                    Ok(None) => {}
                    Err(error) => self.unreadable(slot, &error),
                }
                let (next, _) = entry.seals().expect("the core takes no seal that it cannot read");
                self.enter_configuration(next);
                self.write_config(slot);
            }
            EntryKind::Members => {
                if let Err(error) = self.apply_change(entry.payload) {
                    self.unreadable(slot, &error);
                }
                self.write_config(slot);
            }
            EntryKind::EpochStart => self.state.epoch_start(),
            EntryKind::Commands => match BatchDecoder::new(entry.payload) {
                Ok(decoder) => {
                    let work = Work::Decode(decoder);
                    self.applier.under_way = Some(UnderWay { slot, bytes, work });
                    return self.go_on(budget);
                }
                Err(error) => self.unreadable(slot, &error),
            },
        }
        self.finish_slot(slot, bytes);
        true
    }

    /// Goes on with the slot under way; true when it is done.
    fn go_on(&mut self, budget: &mut usize) -> bool {
        let Some(UnderWay { slot, bytes, mut work }) = self.applier.under_way.take() else { return true };
        if let Work::Decode(mut decoder) = work {
            match decoder.go_on(&mut (self.cfg.apply_bytes / DECODE_BYTES).max(1)) {
                Ok(true) => {
                    let batch = decoder.finish();
                    if !self.can_apply(slot, &batch) {
                        return false;
                    }
                    self.compare_clocks(slot, batch.time_ms);
                    work = Work::Apply { batch, next: 0 };
                }
                Ok(false) => {
                    let work = Work::Decode(decoder);
                    self.applier.under_way = Some(UnderWay { slot, bytes, work });
                    return false;
                }
                Err(error) => {
                    self.unreadable(slot, &error);
                    work = Work::Apply { batch: Batch::default(), next: 0 };
                }
            }
        }
        if let Work::Apply { batch, next } = &mut work {
            while let Some(command) = batch.commands.get(*next) {
                let level = self.level();
                if !self.apply_command(command, batch.time_ms, budget) {
                    self.applier.under_way = Some(UnderWay { slot, bytes, work });
                    return false;
                }
                self.level_may_have_risen(level);
                *next += 1;
            }
        }
        self.finish_slot(slot, bytes);
        true
    }

    fn finish_slot(&mut self, slot: Slot, bytes: usize) {
        self.persist.applied(slot, bytes);
        self.applier.applied = slot;
        let abandoned = self.snapshots.reached(slot);
        self.outputs.extend(abandoned);
        self.tell_digest(slot);
        for conn in self.reads.take_reached(slot) {
            self.drive(conn);
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

    /// Carries out a command, or goes on with it; true when it is done.
    pub(crate) fn apply_command(&mut self, command: &Command, time_ms: i64, budget: &mut usize) -> bool {
        let mut out = std::mem::take(&mut self.applier.out);
        let granted = (*budget / STEP_BYTES).max(1);
        let mut left = granted;
        let progress = if self.cfg.plant.ignores_attach()
            && let Some(attach) = self.state.session(command.session).map(|session| session.attach)
        {
            let command = Command { attach, ..command.clone() };
            self.state.apply_some(&command, time_ms, &mut left, &mut out)
        } else if self.cfg.plant.level_from_local_flag() {
            self.state.apply_some_at(self.cfg.levels.max, command, time_ms, &mut left, &mut out)
        } else {
            self.state.apply_some(command, time_ms, &mut left, &mut out)
        };
        *budget = budget.saturating_sub((granted - left) * STEP_BYTES);
        match progress {
            Progress::Done => self.tell_of(command, &out),
            Progress::Half => self.fire(&out),
            Progress::Undecided => {}
        }
        self.applier.out = out;
        progress == Progress::Done
    }

    /// A command is done: what there is to say of it, in order.
    fn tell_of(&mut self, command: &Command, out: &Applied) {
        for event in &out.session_events {
            self.session_bound(*event);
        }
        if self.cfg.plant.event_after_answer() {
            self.answer_command(command, out);
            self.fire(out);
        } else {
            self.fire(out);
            self.answer_command(command, out);
        }
        for event in &out.session_events {
            self.session_ended(*event);
        }
        for conn in std::mem::take(&mut self.applier.fenced) {
            self.drive(conn);
        }
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
            framed(own.out.tail(), |out| event.encode_message(zxid, out));
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
        framed(own.out.tail(), |tail| out.encode_answer(xid, tail));
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
