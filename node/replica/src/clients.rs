//! The connections of this member's clients.
//!
//! Owns each connection's place in its handshake, its requests in order and its output. Must not know
//! what a request means. Invariant: answers leave in the order of the requests, and a connection that
//! is closed is forgotten at once, with its watches' owner told by the caller.

use crate::batch::{Owner, Queue};
use crate::io::{CloseReason, ConnId, Output};
use crate::outbox::Outbox;
use bytes::Bytes;
use hashbrown::HashMap;
use pharos_jute::{ErrorCode, Id, RequestHeader};
use pharos_paxos::{MemberId, Slot};
use pharos_znode::{MultiTranscoder, SessionId};
use std::collections::VecDeque;
use std::net::IpAddr;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing received yet.
    Fresh,
    /// The handshake's command is on its way through the log.
    Joining(Joining),
    /// The session is bound to this connection.
    Live(Live),
}

/// A handshake under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    pub(crate) session: SessionId,
    pub(crate) timeout_ms: i32,
    /// The client sent the read-only byte, so its answer has one too.
    pub(crate) read_only_byte: bool,
    pub(crate) serial: u32,
}

/// A session served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) session: SessionId,
    pub(crate) attach: u32,
    pub(crate) timeout_ms: i32,
}

/// A request whose answer is not written yet.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A command on its way through the log.
    Write { serial: u32, xid: i32 },
    /// A sync: answered once what a quorum-confirmed leader had chosen is applied here.
    Sync { xid: i32, path: Option<Box<str>>, ctx: u64, slot: Option<Slot> },
    /// A request that is carried out when its turn comes, and about how long its answer will be, in bytes.
    Frame { frame: Box<[u8]>, owed: usize },
    /// A large multi that is made ready for the log, by and by.
    Multi { header: RequestHeader, multi: Box<MultiTranscoder> },
    /// An answer that waits for its turn.
    Answer(Verdict),
    /// The end of the session, which waits until nothing is missing in earlier answers.
    End { header: RequestHeader },
}

/// An answer without a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) xid: i32,
    /// The state's when the answer is given, if there is none.
    pub(crate) zxid: Option<i64>,
    pub(crate) err: ErrorCode,
    /// Whether the connection ends with it.
    pub(crate) close: Option<CloseReason>,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) phase: Phase,
    pub(crate) auth: Vec<Id>,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) out: Outbox,
    /// The client has spoken since the last touch report.
    pub(crate) touched: bool,
    pub(crate) serial: u32,
    /// A sync or an end waits, or there is no room for answers, and all that came later waits too.
    pub(crate) deferring: bool,
    /// A read waits for room in the output.
    pub(crate) choked: bool,
    /// About how long the answers to the reads that wait behind writes will be, in bytes.
    pub(crate) owed: usize,
    /// Commands given to a leader and not answered.
    in_flight: u32,
    /// Commands that no leader has been given.
    unsent: u32,
    listed: bool,
}

impl Conn {
    /// Whether commands of it are under way.
    pub(crate) fn writes(&self) -> bool {
        self.in_flight + self.unsent > 0
    }

    /// Whether a leader has to do something before it goes on.
    pub(crate) fn needs_leader(&self) -> bool {
        self.writes() || matches!(self.pending.front(), Some(Pending::Sync { slot: None, .. }))
    }
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Clients {
    conns: HashMap<ConnId, Conn>,
    by_session: HashMap<SessionId, ConnId>,
    dirty: VecDeque<ConnId>,
    /// Connections whose reads waited for room and have it now, or for the next turn.
    roomy: Vec<ConnId>,
    closed_with_unsent: bool,
    next_session: i64,
}

impl Clients {
    /// Session ids as ZooKeeper's: the member in the high byte, then time, then a counter.
    pub(crate) fn new(me: MemberId, wall_ms: i64) -> Self {
        // As in ZooKeeper, no session begins with 0xff: those numbers are owners of another kind.
        let next_session = (i64::from((me.0 % 255) as u8) << 56) | ((wall_ms << 16) & 0x00ff_ffff_ffff_ffff);
        Self {
            conns: HashMap::new(),
            by_session: HashMap::new(),
            dirty: VecDeque::new(),
            roomy: Vec::new(),
            closed_with_unsent: false,
            next_session,
        }
    }

    pub(crate) fn next_session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }

    pub(crate) fn open(&mut self, id: ConnId, ip: IpAddr) {
        let conn = Conn {
            phase: Phase::Fresh,
            auth: vec![Id::new("ip", ip.to_string())],
            pending: VecDeque::new(),
            out: Outbox::default(),
            touched: false,
            serial: 0,
            deferring: false,
            choked: false,
            owed: 0,
            in_flight: 0,
            unsent: 0,
            listed: false,
        };
        assert!(self.conns.insert(id, conn).is_none(), "connection ids are not reused");
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    /// Requests that wait for an answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.conns.values().map(|conn| conn.pending.len()).sum()
    }

    /// The connection that serves the session here.
    pub(crate) fn of_session(&self, session: SessionId) -> Option<ConnId> {
        self.by_session.get(&session).copied()
    }

    /// The handshake is done: the connection serves the session.
    pub(crate) fn bind(&mut self, id: ConnId, live: Live) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.phase = Phase::Live(live);
            self.by_session.insert(live.session, id);
        }
    }

    /// A command of the connection waits for a leader.
    pub(crate) fn unsent(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.unsent += 1;
        }
    }

    /// Commands were given to the leader.
    pub(crate) fn sent(&mut self, owners: Vec<Owner>) {
        for conn in owners.into_iter().flatten() {
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.unsent -= 1;
                conn.in_flight += 1;
            }
        }
    }

    /// A command of the connection was applied.
    pub(crate) fn answered(&mut self, id: ConnId) {
        let conn = self.conns.get_mut(&id).expect("the caller holds the connection");
        assert!(conn.in_flight > 0, "an answer belongs to a command that was given to a leader");
        conn.in_flight -= 1;
    }

    /// Connections whose commands may be lost, in rising order.
    pub(crate) fn in_flight(&self) -> Vec<ConnId> {
        self.select(|conn| conn.in_flight > 0)
    }

    /// Connections for which the predicate holds, in rising order.
    pub(crate) fn select(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        let mut found: Vec<_> = self.conns.iter().filter(|(_, c)| wanted(c)).map(|(id, _)| *id).collect();
        found.sort_unstable();
        found
    }

    /// Takes the sessions whose clients have spoken since the last call, in rising order.
    pub(crate) fn take_touched(&mut self) -> Vec<SessionId> {
        let mut touched = Vec::new();
        for conn in self.conns.values_mut() {
            if let Phase::Live(live) = conn.phase
                && std::mem::take(&mut conn.touched)
            {
                touched.push(live.session);
            }
        }
        touched.sort_unstable();
        touched
    }

    /// Something was written to the connection's buffer.
    pub(crate) fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.out.is_ready()
            && !std::mem::replace(&mut conn.listed, true)
        {
            self.dirty.push_back(id);
        }
    }

    /// The next connection that has something to write.
    pub(crate) fn next_dirty(&mut self) -> Option<ConnId> {
        while let Some(id) = self.dirty.pop_front() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.listed = false;
                return Some(id);
            }
        }
        None
    }

    /// The connection's output has become shorter, `room` being what it may hold.
    pub(crate) fn written(&mut self, id: ConnId, room: usize) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.choked
            && conn.out.len() <= room
        {
            conn.choked = false;
            self.roomy.push(id);
        }
    }

    /// The connection's requests wait for the next turn.
    pub(crate) fn postpone(&mut self, id: ConnId) {
        self.roomy.push(id);
    }

    pub(crate) fn is_roomy(&self) -> bool {
        !self.roomy.is_empty()
    }

    pub(crate) fn take_roomy(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.roomy)
    }

    /// Forgets the connection; what it still had to say goes with the close.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason) -> Option<Output> {
        let last_words = self.forget(id)?;
        Some(Output::CloseClient { conn: id, reason, last_words })
    }

    /// Whether the connection has not said which session it wants.
    pub(crate) fn awaits_handshake(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_some_and(|conn| matches!(conn.phase, Phase::Fresh))
    }

    /// Forgets the connection.
    pub(crate) fn forget(&mut self, id: ConnId) -> Option<Bytes> {
        let mut conn = self.conns.remove(&id)?;
        self.closed_with_unsent |= conn.unsent > 0;
        if let Phase::Live(live) = conn.phase
            && self.by_session.get(&live.session) == Some(&id)
        {
            self.by_session.remove(&live.session);
        }
        Some(conn.out.ready().split().freeze())
    }

    /// Drops commands of closed connections that no leader has been given: one that follows a lost
    /// one of the same client must not be carried out.
    pub(crate) fn purge_closed(&mut self, unsent: &mut Queue) {
        if std::mem::take(&mut self.closed_with_unsent) {
            unsent.retain(|owner| owner.is_none_or(|conn| self.conns.contains_key(&conn)));
        }
    }
}
