//! What happens to a client's request.
//!
//! Owns the way of a frame to an answer: at once, through the log, or in its turn behind earlier ones.
//! Must not know how a read or a command is carried out. Invariant: answers of one connection leave in
//! the order of its requests; a read sees every earlier write of its connection.

use crate::clients::{Conn, Live, Pending, Phase, Verdict};
use crate::io::{CloseReason, ConnId};
use crate::replica::Replica;
use bytes::BytesMut;
use pharos_jute::{
    DecodeError, ErrorCode, OpCode, Reader, ReplyHeader, Request, RequestHeader, Response, xid,
};
use pharos_znode::{Command, MultiTranscoder, Op, SessionId};
use std::net::IpAddr;

/// Bytes of one connection's identities.
const MAX_AUTH_BYTES: usize = 4 << 10;
/// What an operation that is made ready for the log counts against [`crate::ReplicaConfig::apply_bytes`].
const READY_BYTES: usize = 128;

/// Where a request stands among those of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has just come.
    Back,
    /// It waited, and its turn has come.
    Front,
}

impl Replica {
    /// A client has connected.
    pub fn client_open(&mut self, conn: ConnId, ip: IpAddr) {
        self.clients.open(conn, ip);
    }

    /// A client's connection is gone. Its session lives on until its timeout.
    pub fn client_closed(&mut self, conn: ConnId) {
        self.watches.forget(conn);
        self.clients.forget(conn);
    }

    /// A frame came from a client, without its length. Frames of connections that were closed meanwhile
    /// are dropped.
    pub fn client_frame(&mut self, conn: ConnId, frame: &[u8]) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        match own.phase {
            Phase::Fresh => self.connect(conn, frame),
            Phase::Joining(_) => own.pending.push_back(Pending::Frame { frame: frame.into(), owed: 0 }),
            Phase::Live(live) => {
                own.touched = true;
                if self.serves(live.timeout_ms) {
                    self.request(conn, frame);
                } else {
                    self.close(conn, CloseReason::CutOff);
                }
            }
        }
    }

    /// A request of a connection whose session is bound: behind a sync everything waits, for neither a
    /// read nor a write may overtake it.
    pub(crate) fn request(&mut self, conn: ConnId, frame: &[u8]) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        if own.deferring {
            own.pending.push_back(Pending::Frame { frame: frame.into(), owed: 0 });
        } else {
            self.dispatch(conn, frame, Place::Back);
        }
    }

    fn dispatch(&mut self, conn: ConnId, frame: &[u8], place: Place) {
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut reader) else {
            return self.close(conn, CloseReason::Malformed);
        };
        let xid = header.xid;
        if header.op == OpCode::Multi.as_i32() && frame.len() > self.cfg.apply_bytes {
            return self.make_ready(conn, header, frame, frame.len() - reader.rest().len(), place);
        }
        match Request::decode(header.op, reader.rest()) {
            Err(DecodeError::UnknownOp(_)) => self.refuse(conn, xid, place),
            Err(_) => match OpCode::from_i32(header.op).and_then(Op::from_undecodable) {
                Some(op) => self.write(conn, header, op, place),
                None => {
                    let err = ErrorCode::MARSHALLING_ERROR;
                    self.give_in_turn(conn, Verdict { xid, zxid: None, err, close: None }, place);
                }
            },
            Ok(Request::Auth(auth)) => self.authenticate(conn, xid, &auth, place),
            Ok(Request::Sync(path)) => self.sync(conn, xid, path, place),
            Ok(Request::Check(_) | Request::DeleteContainer(_) | Request::Reconfig(_) | Request::Sasl(_)) => {
                self.refuse(conn, xid, place);
            }
            Ok(request) => match Op::from_request(&request, self.level()) {
                Some(op) => self.write(conn, header, op, place),
                None if place == Place::Front => self.read(conn, xid, &request),
                None => self.read_in_turn(conn, xid, &request, frame),
            },
        }
    }

    /// Some of the connection's output was written. The next turn answers the reads that waited for room.
    pub fn written(&mut self, conn: ConnId) {
        self.clients.written(conn, self.cfg.output_bytes);
    }

    /// Whether the next turn has work although nothing comes.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.clients.is_roomy()
    }

    /// Carries out what waits at the head of the connection's requests, as far as it can be.
    pub(crate) fn drive(&mut self, conn: ConnId) {
        if self.is_fenced() {
            return self.fence(conn);
        }
        loop {
            let enough = self.has_listed_enough();
            let Some(own) = self.clients.get_mut(conn) else { return };
            match own.pending.front() {
                // Behind writes it cannot wait: they would be carried out before it.
                Some(Pending::Frame { .. }) if own.out.len() > self.cfg.output_bytes && !own.writes() => {
                    (own.deferring, own.choked) = (true, true);
                    return;
                }
                Some(Pending::Frame { .. }) if enough && !own.writes() => {
                    own.deferring = true;
                    return self.clients.postpone(conn);
                }
                Some(Pending::Sync { slot: Some(slot), .. }) if *slot <= self.applier.applied() => {}
                Some(Pending::Answer(Verdict { close: Some(_), .. }) | Pending::End { .. })
                    if own.out.gaps() > 0 =>
                {
                    return;
                }
                Some(Pending::Multi { .. }) => {
                    if !self.go_on_ready(conn) {
                        return self.clients.postpone(conn);
                    }
                    continue;
                }
                Some(Pending::Frame { .. } | Pending::Answer(_) | Pending::End { .. }) => {}
                Some(_) => return,
                None => {
                    own.deferring = false;
                    return;
                }
            }
            match own.pending.pop_front().expect("the head was just seen") {
                Pending::Sync { xid, path, .. } => {
                    self.answer(conn, xid, Ok(&Response::Path(path.as_deref())))
                }
                Pending::Frame { frame, owed } => {
                    own.owed -= owed;
                    self.dispatch(conn, &frame, Place::Front);
                }
                Pending::Answer(verdict) => self.give(conn, verdict),
                Pending::End { header } => self.write(conn, header, Op::CloseSession, Place::Front),
                Pending::Write { .. } | Pending::Multi { .. } => {
                    unreachable!("neither gets past the look at the head")
                }
            }
        }
    }

    /// A multi that is too large for one turn: it begins once all before it is answered, and all that comes later waits.
    fn make_ready(&mut self, conn: ConnId, header: RequestHeader, frame: &[u8], body: usize, place: Place) {
        let multi = Box::new(MultiTranscoder::new(frame.into(), body, self.level()));
        self.wait(conn, Pending::Multi { header, multi }, place);
        let Some(own) = self.clients.get_mut(conn) else { return };
        own.deferring = true;
        if place == Place::Back && own.pending.len() == 1 {
            self.clients.postpone(conn);
        }
    }

    /// Goes on with the multi at the head; true when it is on its way.
    fn go_on_ready(&mut self, conn: ConnId) -> bool {
        let mut steps = (self.cfg.apply_bytes / READY_BYTES).max(1);
        let Some(own) = self.clients.get_mut(conn) else { return true };
        let Some(Pending::Multi { header, multi }) = own.pending.front_mut() else { return true };
        let (xid, Some(op)) = (header.xid, multi.go_on(&mut steps)) else { return false };
        own.pending.pop_front();
        let Phase::Live(Live { session, attach, .. }) = own.phase else { return true };
        let command = self.next_command(conn, session, attach, xid, Op::Multi(Vec::new()));
        let (_, serial) = split_key(command.request);
        self.unsent.push_with(&command, &op, Some(conn));
        self.clients.unsent(conn);
        self.wait(conn, Pending::Write { serial, xid }, Place::Front);
        true
    }

    /// Gives a command of the connection to the log; returns its serial number.
    pub(crate) fn submit(&mut self, conn: ConnId, session: SessionId, attach: u32, cxid: i32, op: Op) -> u32 {
        let command = self.next_command(conn, session, attach, cxid, op);
        self.unsent.push(&command, Some(conn));
        self.clients.unsent(conn);
        split_key(command.request).1
    }

    fn next_command(&mut self, conn: ConnId, session: SessionId, attach: u32, cxid: i32, op: Op) -> Command {
        let own = self.clients.get_mut(conn).expect("the caller holds the connection");
        own.serial = (own.serial + 1) & 0x00ff_ffff;
        Command {
            origin: self.cfg.me.0,
            boot: self.cfg.boot,
            request: request_key(conn, own.serial),
            session,
            attach,
            cxid,
            auth: own.auth.clone(),
            zxid: None,
            op,
        }
    }

    fn write(&mut self, conn: ConnId, header: RequestHeader, op: Op, place: Place) {
        let Some(Conn { phase: Phase::Live(live), .. }) = self.clients.get(conn) else { return };
        let (session, attach) = (live.session, live.attach);
        if op == Op::CloseSession && self.holds_until_told(conn, || Pending::End { header }, place) {
            return;
        }
        let serial = self.submit(conn, session, attach, header.xid, op);
        self.wait(conn, Pending::Write { serial, xid: header.xid }, place);
    }

    fn sync(&mut self, conn: ConnId, xid: i32, path: Option<&str>, place: Place) {
        let ctx = self.reads.sync(conn);
        self.wait(conn, Pending::Sync { xid, path: path.map(Box::from), ctx, slot: None }, place);
        if let Some(own) = self.clients.get_mut(conn) {
            own.deferring = true;
        }
    }

    fn wait(&mut self, conn: ConnId, pending: Pending, place: Place) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        match place {
            Place::Back => own.pending.push_back(pending),
            Place::Front => own.pending.push_front(pending),
        }
    }

    fn read_in_turn(&mut self, conn: ConnId, xid: i32, request: &Request<'_>, frame: &[u8]) {
        let Some(own) = self.clients.get(conn) else { return };
        let room = self.cfg.output_bytes;
        let (fenced, enough) = (self.is_fenced(), self.has_listed_enough());
        // A ping shows nothing of the state but a number that never shows what is half-way.
        let now = !fenced && !enough || matches!(request, Request::Ping);
        if own.pending.is_empty() && own.out.len() <= room && now {
            return self.read(conn, xid, request);
        }
        // No write follows more reads than there is room for: see `drive`.
        let owed = if own.writes() { self.answer_bytes(request) } else { 0 };
        let Some(own) = self.clients.get_mut(conn) else { return };
        own.owed += owed;
        own.deferring |= own.owed > room;
        own.pending.push_back(Pending::Frame { frame: frame.into(), owed });
        if own.pending.len() == 1 {
            own.deferring = true;
            own.choked = now;
            if fenced {
                self.fence(conn);
            } else if enough {
                self.clients.postpone(conn);
            }
        }
    }

    /// A ping is answered with its fixed number, whatever number it was asked with.
    pub(crate) fn pong(&mut self, conn: ConnId) {
        self.answer(conn, xid::PING, Ok(&Response::Empty));
    }

    fn authenticate(&mut self, conn: ConnId, xid: i32, auth: &pharos_jute::Auth<'_>, place: Place) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let credentials = auth.auth.unwrap_or_default();
        let accepted = match auth.scheme {
            Some("digest") => Some(pharos_znode::digest_auth(credentials)),
            // The address is known already; asking for it again succeeds, as in ZooKeeper.
            Some("ip") => own.auth.first().cloned(),
            _ => None,
        };
        // Every command carries them all, so they are few or short.
        let zxid = (xid == xid::AUTH).then_some(0);
        let held: usize = own.auth.iter().map(|id| id.scheme.len() + id.id.len()).sum();
        let fits = |id: &pharos_jute::Id| own.auth.contains(id) || held + id.id.len() <= MAX_AUTH_BYTES;
        let Some(id) = accepted.filter(fits) else {
            let close = Some(CloseReason::Refused);
            return self.give_in_turn(conn, Verdict { xid, zxid, err: ErrorCode::AUTH_FAILED, close }, place);
        };
        if !own.auth.contains(&id) {
            own.auth.push(id);
        }
        self.give_in_turn(conn, Verdict { xid, zxid, err: ErrorCode::OK, close: None }, place);
    }

    /// An operation that the protocol does not have: answered once what came before is, then the end.
    fn refuse(&mut self, conn: ConnId, xid: i32, place: Place) {
        let close = Some(CloseReason::Refused);
        self.give_in_turn(conn, Verdict { xid, zxid: Some(-1), err: ErrorCode::UNIMPLEMENTED, close }, place);
    }

    fn give_in_turn(&mut self, conn: ConnId, verdict: Verdict, place: Place) {
        if verdict.close.is_some() && self.holds_until_told(conn, || Pending::Answer(verdict), place) {
            return;
        }
        if place == Place::Front {
            return self.give(conn, verdict);
        }
        self.wait(conn, Pending::Answer(verdict), place);
        self.drive(conn);
    }

    /// What ends a connection waits while values are missing in earlier answers, and all that comes later waits with it.
    fn holds_until_told(&mut self, conn: ConnId, end: impl FnOnce() -> Pending, place: Place) -> bool {
        let waits = self.clients.get(conn).is_some_and(|own| own.out.gaps() > 0);
        if waits {
            self.wait(conn, end(), place);
            if let Some(own) = self.clients.get_mut(conn) {
                own.deferring = true;
            }
        }
        waits
    }

    fn give(&mut self, conn: ConnId, verdict: Verdict) {
        let Verdict { xid, zxid, err, close } = verdict;
        let zxid = zxid.unwrap_or(self.state.zxid().0);
        if let Some(own) = self.clients.get_mut(conn) {
            crate::answers::framed(own.out.tail(), |out| ReplyHeader { xid, zxid, err }.encode(out));
            self.clients.mark_dirty(conn);
        }
        if let Some(reason) = close {
            self.close(conn, reason);
        }
    }

    /// The next connection whose buffer has something to write.
    pub fn next_dirty(&mut self) -> Option<ConnId> {
        self.clients.next_dirty()
    }

    /// A connection's output: whole frames with their lengths. The driver takes from the front.
    pub fn buffer(&mut self, conn: ConnId) -> Option<&mut BytesMut> {
        self.clients.get_mut(conn).map(|own| own.out.ready())
    }
}

/// Commands are found again by their connection and number.
pub(crate) fn request_key(conn: ConnId, serial: u32) -> u64 {
    conn.0 << 24 | u64::from(serial)
}

/// The connection and number of a command of this member.
pub(crate) fn split_key(key: u64) -> (ConnId, u32) {
    (ConnId(key >> 24), (key & 0x00ff_ffff) as u32)
}
