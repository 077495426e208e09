//! What happens to a client's request.
//!
//! Owns the way of a frame to an answer: at once, through the log, or in its turn behind earlier ones.
//! Must not know how a read or a command is carried out. Invariant: answers of one connection leave in
//! the order of its requests; a read sees every earlier write of its connection.

use crate::clients::{Conn, Pending, Phase};
use crate::io::{CloseReason, ConnId};
use crate::replica::Replica;
use bytes::BytesMut;
use pharos_jute::{
    DecodeError, ErrorCode, OpCode, Reader, ReplyHeader, Request, RequestHeader, Response, xid,
};
use pharos_znode::{Command, Op, SessionId};
use std::net::IpAddr;

/// Bytes of one connection's identities.
const MAX_AUTH_BYTES: usize = 4 << 10;

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
            Phase::Joining(_) => own.pending.push_back(Pending::Frame(frame.into())),
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
            own.pending.push_back(Pending::Frame(frame.into()));
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
        match Request::decode(header.op, reader.rest()) {
            Err(DecodeError::UnknownOp(_)) => self.refuse(conn, xid, place),
            Err(_) => match OpCode::from_i32(header.op).and_then(Op::from_undecodable) {
                Some(op) => self.write(conn, header, op, place),
                None => self.answer_in_turn(conn, xid, ErrorCode::MARSHALLING_ERROR, None, place),
            },
            Ok(Request::Auth(auth)) => self.authenticate(conn, xid, &auth, place),
            Ok(Request::Sync(path)) => self.sync(conn, xid, path, place),
            Ok(Request::Check(_) | Request::DeleteContainer(_) | Request::Reconfig(_) | Request::Sasl(_)) => {
                self.refuse(conn, xid, place);
            }
            Ok(request) => match Op::from_request(&request) {
                Some(op) => self.write(conn, header, op, place),
                None if place == Place::Front => self.read(conn, xid, &request),
                None => self.read_in_turn(conn, xid, &request, frame),
            },
        }
    }

    /// Carries out what waits at the head of the connection's requests, as far as it can be.
    pub(crate) fn drive(&mut self, conn: ConnId) {
        while let Some(own) = self.clients.get_mut(conn) {
            match own.pending.front() {
                Some(Pending::Sync { slot: Some(slot), .. }) if *slot <= self.applier.applied() => {}
                Some(Pending::Frame(_) | Pending::Answer(..)) => {}
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
                Pending::Frame(frame) => self.dispatch(conn, &frame, Place::Front),
                Pending::Answer(bytes, close) => self.give(conn, &bytes, close),
                Pending::Write { .. } => unreachable!("a write at the head ends the loop above"),
            }
        }
    }

    /// Gives a command of the connection to the log; returns its serial number.
    pub(crate) fn submit(&mut self, conn: ConnId, session: SessionId, attach: u32, cxid: i32, op: Op) -> u32 {
        let own = self.clients.get_mut(conn).expect("the caller holds the connection");
        own.serial = (own.serial + 1) & 0x00ff_ffff;
        let serial = own.serial;
        let command = Command {
            origin: self.cfg.me.0,
            boot: self.cfg.boot,
            request: request_key(conn, serial),
            session,
            attach,
            cxid,
            auth: own.auth.clone(),
            zxid: None,
            op,
        };
        self.unsent.push(&command, Some(conn));
        self.clients.unsent(conn);
        serial
    }

    fn write(&mut self, conn: ConnId, header: RequestHeader, op: Op, place: Place) {
        let Some(Conn { phase: Phase::Live(live), .. }) = self.clients.get(conn) else { return };
        let (session, attach) = (live.session, live.attach);
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
        let Some(own) = self.clients.get_mut(conn) else { return };
        if own.pending.is_empty() {
            self.read(conn, xid, request);
        } else {
            own.pending.push_back(Pending::Frame(frame.into()));
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
        let held: usize = own.auth.iter().map(|id| id.scheme.len() + id.id.len()).sum();
        let fits = |id: &pharos_jute::Id| own.auth.contains(id) || held + id.id.len() <= MAX_AUTH_BYTES;
        let Some(id) = accepted.filter(fits) else {
            let end = Some(CloseReason::Refused);
            return self.answer_in_turn(conn, xid, ErrorCode::AUTH_FAILED, end, place);
        };
        if !own.auth.contains(&id) {
            own.auth.push(id);
        }
        self.answer_in_turn(conn, xid, ErrorCode::OK, None, place);
    }

    /// An operation that the protocol does not have: answered once what came before is, then the end.
    fn refuse(&mut self, conn: ConnId, xid: i32, place: Place) {
        let mut bytes = BytesMut::new();
        let header = ReplyHeader { xid, zxid: -1, err: ErrorCode::UNIMPLEMENTED };
        crate::answers::framed(&mut bytes, |out| header.encode(out));
        self.give_in_turn(conn, bytes, Some(CloseReason::Refused), place);
    }

    /// An answer without a body, behind what came before.
    fn answer_in_turn(
        &mut self,
        conn: ConnId,
        xid: i32,
        err: ErrorCode,
        close: Option<CloseReason>,
        place: Place,
    ) {
        let mut bytes = BytesMut::new();
        let zxid = if xid == pharos_jute::xid::AUTH { 0 } else { self.state.zxid().0 };
        crate::answers::framed(&mut bytes, |out| ReplyHeader { xid, zxid, err }.encode(out));
        self.give_in_turn(conn, bytes, close, place);
    }

    fn give_in_turn(&mut self, conn: ConnId, bytes: BytesMut, close: Option<CloseReason>, place: Place) {
        if place == Place::Front {
            return self.give(conn, &bytes, close);
        }
        self.wait(conn, Pending::Answer(bytes.to_vec().into(), close), place);
        self.drive(conn);
    }

    fn give(&mut self, conn: ConnId, bytes: &[u8], close: Option<CloseReason>) {
        if let Some(own) = self.clients.get_mut(conn) {
            own.out.extend_from_slice(bytes);
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
        self.clients.get_mut(conn).map(|own| &mut own.out)
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
