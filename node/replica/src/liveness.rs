//! Whom this member stops serving, and whose session the leader ends.
//!
//! Owns the consequences of silence: clients of a cut-off member, clients whose requests need a leader that is lost,
//! sessions without a touch. Must not know how contact is established. Invariant: a
//! session is served by no member that the leader has not heard of since a time after which the leader
//! will still wait for two thirds of the timeout.

use crate::clients::{Conn, Phase};
use crate::io::{CloseReason, ConnId};
use crate::replica::Replica;
use pharos_paxos::Millis;
use pharos_znode::{Command, Op};

/// Requests of a connection that may wait for an answer: ZooKeeper's `globalOutstandingLimit`, for each.
const MAX_OUTSTANDING: usize = 1000;
/// The same before it has a session.
const MAX_JOINING: usize = 16;
/// Bytes of commands that may wait for the log.
const QUEUE_BYTES: usize = 32 << 20;
/// Containers deleted after one look: ZooKeeper's `znode.container.maxPerMinute`.
const MAX_SWEPT: usize = 10_000;

impl Replica {
    /// May a session with this timeout be answered now? Not by who was removed, nor by who waits for its first state and
    /// would take every session for one that has ended.
    pub(crate) fn serves(&self, timeout_ms: i32) -> bool {
        !self.snapshots.comes()
            && (self.belongs() || self.cfg.plant.removed_keeps_serving())
            && !self.digests.is_wrong()
            && self.room.serves(timeout_ms.max(0) as u64, self.now.mono)
            && (self.contact.serves(timeout_ms.max(0) as u64, self.now.mono)
                || self.cfg.plant.answers_when_cut_off())
    }

    /// Whether a leader does what is asked of it here. A member that has found none within two election timeouts is
    /// likely the only one: the others do not hear it, or it does not hear them. Whoever needs a leader is better off
    /// elsewhere, long before the sessions of all clients are in danger.
    pub(crate) fn in_touch(&self) -> bool {
        self.contact.in_touch(2 * self.cfg.election.0, self.now.mono) || self.cfg.plant.answers_when_cut_off()
    }

    /// The shortest timeout a session can have, in milliseconds.
    pub(crate) fn min_timeout_ms(&self) -> i32 {
        2 * self.cfg.tick_ms as i32
    }

    /// Whether nothing more is read from a connection until it has been answered: it has much output to
    /// read or many requests on the way, or all commands together wait in too large a queue. Every answer is a
    /// reason to ask again.
    #[must_use]
    pub fn holds_back(&self, conn: ConnId) -> bool {
        let full = self.unsent.len() + self.proposals.len() > QUEUE_BYTES;
        self.clients.get(conn).is_some_and(|own| {
            own.out.len() > self.cfg.output_bytes
                || own.out.gaps() >= MAX_OUTSTANDING
                || own.pending.len() >= MAX_OUTSTANDING
                || (full && !own.pending.is_empty())
                || (matches!(own.phase, Phase::Joining(_)) && own.pending.len() >= MAX_JOINING)
        })
    }

    /// Whether a connection has not finished its handshake's first frame: whoever keeps it open for long does
    /// not speak the protocol.
    #[must_use]
    pub fn awaits_handshake(&self, conn: ConnId) -> bool {
        self.clients.awaits_handshake(conn)
    }

    pub(crate) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.watches.forget(conn);
        if let Some(output) = self.clients.close(conn, reason) {
            self.outputs.push_back(output);
        }
    }

    /// Closes the clients who need a leader that is out of touch, and those whose sessions it may be about to end.
    pub(crate) fn close_cut_off(&mut self) {
        if self.clients.len() == 0 {
            return;
        }
        if !self.in_touch() {
            for conn in self.clients.select(Conn::needs_leader) {
                self.close(conn, CloseReason::CutOff);
            }
        }
        if self.serves(self.min_timeout_ms()) {
            return;
        }
        let timeout = |conn: &Conn| match conn.phase {
            Phase::Fresh => None,
            Phase::Joining(joining) => Some(joining.timeout_ms),
            Phase::Live(live) => Some(live.timeout_ms),
        };
        for conn in self.clients.select(|conn| timeout(conn).is_some_and(|t| !self.serves(t))) {
            self.close(conn, CloseReason::CutOff);
        }
    }

    /// Commands were given to a leader that is no longer ours: nobody knows their fate, so their
    /// connections close, and what the same connections had not sent yet goes with them.
    pub(crate) fn close_in_flight(&mut self) {
        if self.cfg.plant.keeps_in_flight() {
            return;
        }
        for conn in self.clients.in_flight() {
            self.close(conn, CloseReason::LeaderLost);
        }
    }

    /// Proposes the end of each session whose time is over.
    pub(crate) fn expire_sessions(&mut self) {
        if !self.leads() || self.is_full() {
            return;
        }
        for id in self.expiry.due(self.session_clock()) {
            if let Some(attach) = self.state.session(id).map(|session| session.attach) {
                let command = self.own_command(Op::Expire { session: id, attach });
                self.proposals.push(&command, None);
            }
        }
    }

    /// Proposes the deletion of containers that are empty and were not always, and of nodes whose time to live is over,
    /// as ZooKeeper's `ContainerManager` does. A child or a write that comes first keeps them: apply looks again.
    pub(crate) fn sweep_containers(&mut self) {
        if !self.leads() || self.is_full() || self.now.mono.0 < self.swept.0 + self.cfg.container_sweep.0 {
            return;
        }
        self.swept = self.now.mono;
        for path in self.state.expendable(self.now.wall_ms).into_iter().take(MAX_SWEPT) {
            let command = self.own_command(Op::DeleteContainer { path });
            self.proposals.push(&command, None);
        }
    }

    /// A leader that did not run for a while has not heard anybody: it gives every session its whole
    /// timeout again, as a new leader does.
    pub(crate) fn grant_full_timeouts(&mut self) {
        self.expiry.clear();
        let now = self.session_clock();
        for (id, session) in self.state.sessions() {
            self.expiry.track(id, session.timeout_ms.max(0) as u64, now);
        }
    }

    /// The clock by which sessions end.
    pub(crate) fn session_clock(&self) -> Millis {
        if self.cfg.plant.expires_by_wall_clock() { Millis(self.now.wall_ms as u64) } else { self.now.mono }
    }

    pub(crate) fn own_command(&self, op: Op) -> Command {
        Command { origin: self.cfg.me.0, boot: self.cfg.boot, ..Command::of_ensemble(op) }
    }
}
