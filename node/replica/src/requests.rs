//! What happens to a client's request.
//!
//! Owns the way of a frame to an answer: at once, through the log, or in its turn behind earlier ones.
//! Must not know how a read or a command is carried out. Invariant: answers of one connection leave in
//! the order of its requests; a read sees every earlier write of its connection.

use crate::clients::{Conn, Pending, Phase};
use crate::io::{CloseReason, ConnId};
use crate::replica::Replica;
use bytes::BytesMut;
use pharos_jute::{DecodeError, ErrorCode, Reader, ReplyHeader, Request, RequestHeader, Response, xid};
use pharos_znode::{Command, Op, SessionId};
use std::net::IpAddr;

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

    /// A request of a connection whose session is bound.
    pub(crate) fn request(&mut self, conn: ConnId, frame: &[u8]) {
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut reader) else {
            return self.close(conn, CloseReason::Malformed);
        };
        match Request::decode(header.op, reader.rest()) {
            Err(DecodeError::UnknownOp(_)) => self.refuse(conn, header.xid),
            Err(_) => self.answer_in_turn(conn, header.xid, ErrorCode::MARSHALLING_ERROR, None),
            Ok(Request::Auth(auth)) => self.authenticate(conn, header.xid, &auth),
            Ok(Request::Sync(path)) => self.sync(conn, header.xid, path.unwrap_or_default()),
            Ok(Request::Check(_) | Request::DeleteContainer(_) | Request::Reconfig(_) | Request::Sasl(_)) => {
                self.refuse(conn, header.xid);
            }
            Ok(request) => match Op::from_request(&request) {
                Some(op) => self.write(conn, header, op),
                None => self.read_in_turn(conn, header.xid, &request, frame),
            },
        }
    }

    /// Carries out what waits at the head of the connection's requests, as far as it can be.
    pub(crate) fn drive(&mut self, conn: ConnId) {
        while let Some(own) = self.clients.get_mut(conn) {
            match own.pending.front() {
                Some(Pending::Sync { slot: Some(slot), .. }) if *slot <= self.applier.applied() => {}
                Some(Pending::Frame(_) | Pending::Answer(..)) => {}
                _ => return,
            }
            match own.pending.pop_front().expect("the head was just seen") {
                Pending::Sync { xid, path, .. } => self.answer(conn, xid, Ok(&Response::Path(Some(&path)))),
                Pending::Frame(frame) => self.read_frame(conn, &frame),
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

    fn write(&mut self, conn: ConnId, header: RequestHeader, op: Op) {
        let Some(Conn { phase: Phase::Live(live), .. }) = self.clients.get(conn) else { return };
        let (session, attach) = (live.session, live.attach);
        let serial = self.submit(conn, session, attach, header.xid, op);
        if let Some(own) = self.clients.get_mut(conn) {
            own.pending.push_back(Pending::Write { serial, xid: header.xid });
        }
    }

    fn sync(&mut self, conn: ConnId, xid: i32, path: &str) {
        let ctx = self.reads.sync(conn);
        if let Some(own) = self.clients.get_mut(conn) {
            own.pending.push_back(Pending::Sync { xid, path: path.into(), ctx, slot: None });
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

    fn read_frame(&mut self, conn: ConnId, frame: &[u8]) {
        let mut reader = Reader::new(frame);
        let header = RequestHeader::decode(&mut reader).expect("the frame was decoded when it came");
        let request = Request::decode(header.op, reader.rest()).expect("the frame was decoded when it came");
        self.read(conn, header.xid, &request);
    }

    /// A ping is answered with its fixed number, whatever number it was asked with.
    pub(crate) fn pong(&mut self, conn: ConnId) {
        self.answer(conn, xid::PING, Ok(&Response::Empty));
    }

    fn authenticate(&mut self, conn: ConnId, xid: i32, auth: &pharos_jute::Auth<'_>) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let credentials = auth.auth.unwrap_or_default();
        let accepted = match auth.scheme {
            Some("digest") => Some(pharos_znode::digest_auth(credentials)),
            // The address is known already; asking for it again succeeds, as in ZooKeeper.
            Some("ip") => own.auth.first().cloned(),
            _ => None,
        };
        let Some(id) = accepted else {
            return self.answer_in_turn(conn, xid, ErrorCode::AUTH_FAILED, Some(CloseReason::Refused));
        };
        if !own.auth.contains(&id) {
            own.auth.push(id);
        }
        self.answer_in_turn(conn, xid, ErrorCode::OK, None);
    }

    /// An operation that the protocol does not have: answered once what came before is, then the end.
    fn refuse(&mut self, conn: ConnId, xid: i32) {
        let mut bytes = BytesMut::new();
        let header = ReplyHeader { xid, zxid: -1, err: ErrorCode::UNIMPLEMENTED };
        crate::answers::framed(&mut bytes, |out| header.encode(out));
        self.give_in_turn(conn, bytes, Some(CloseReason::Refused));
    }

    /// An answer without a body, behind what came before.
    fn answer_in_turn(&mut self, conn: ConnId, xid: i32, err: ErrorCode, close: Option<CloseReason>) {
        let mut bytes = BytesMut::new();
        let zxid = if xid == pharos_jute::xid::AUTH { 0 } else { self.state.zxid().0 };
        crate::answers::framed(&mut bytes, |out| ReplyHeader { xid, zxid, err }.encode(out));
        self.give_in_turn(conn, bytes, close);
    }

    fn give_in_turn(&mut self, conn: ConnId, bytes: BytesMut, close: Option<CloseReason>) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        own.pending.push_back(Pending::Answer(bytes.to_vec().into(), close));
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
