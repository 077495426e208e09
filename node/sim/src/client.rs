//! A ZooKeeper client as a user writes one: a session, requests in flight, reconnects.
//!
//! Owns one client's view and checks what any client may rely on: its own order, zxids that never go
//! back, events before the answers that show their state, reads that equal what was chosen at their
//! zxid. Must not know how members work.

use crate::reference::{CommandKey, Reference, answer_tail};
use crate::rng::Rng;
use crate::violation::Violation;
use pharos_jute::{AclRef, MultiOp, Request, Response, SetData, xid};
use pharos_jute::{
    ConnectRequest, ConnectResponse, Create, CreateTtl, OpCode, PathVersion, PathWatch, Reader, ReplyHeader,
};
use std::collections::VecDeque;

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Down,
    /// The handshake was sent.
    Joining,
    Up,
}

#[derive(Debug)]
struct Asked {
    xid: i32,
    op: OpCode,
    path: String,
    /// The key of the command, for writes.
    serial: Option<u32>,
    /// The highest zxid any client had been told when this was asked.
    floor: i64,
}

/// What a client has seen of one answer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) acknowledged: u64,
    pub(crate) events: u64,
    pub(crate) syncs: u64,
    pub(crate) resumed: u64,
    /// The zxid of a write that is now known to be done.
    pub(crate) written: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) link: Link,
    pub(crate) session: i64,
    password: [u8; 16],
    pub(crate) timeout_ms: i32,
    /// It only reads, so nothing of its own ever holds its answers back.
    reader: bool,
    /// Some of what it writes takes several blocks of a disk.
    pub(crate) writes_much: bool,
    asked: VecDeque<Asked>,
    next_xid: i32,
    serial: u32,
    last_zxid: i64,
    /// The highest zxid in an answer on this connection.
    answered_zxid: i64,
    pub(crate) unknown: u64,
    /// When the member was last heard.
    pub(crate) heard_at: u64,
}

const ROOMS: u64 = 6;
/// So many times eight bytes are more than a block.
const MUCH: usize = 700;

impl Client {
    pub(crate) fn new(timeout_ms: i32, reader: bool) -> Self {
        Self {
            link: Link::Down,
            session: 0,
            password: [0; 16],
            timeout_ms,
            reader,
            writes_much: false,
            asked: VecDeque::new(),
            next_xid: 1,
            serial: 0,
            last_zxid: 0,
            answered_zxid: 0,
            unknown: 0,
            heard_at: 0,
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.asked.len()
    }

    /// The connection is gone; what was asked has an unknown fate.
    pub(crate) fn disconnected(&mut self) {
        self.unknown += self.asked.iter().filter(|a| a.serial.is_some()).count() as u64;
        self.asked.clear();
        self.link = Link::Down;
    }

    /// The first frame of a new connection.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        self.link = Link::Joining;
        self.serial = 1;
        self.answered_zxid = 0;
        let mut out = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.timeout_ms,
            session_id: self.session,
            password: Some(&self.password),
            read_only: Some(false),
        };
        request.encode(&mut out);
        out
    }

    pub(crate) fn ping(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Request::Ping.encode_message(xid::PING, &mut out);
        out
    }

    /// A request by chance; with more, some create nodes with a time to live.
    pub(crate) fn ask(&mut self, rng: &mut Rng, floor: i64, more: bool) -> Vec<u8> {
        let path = format!("/{}", rng.below(ROOMS));
        let deep = format!("{path}/{}", rng.below(3));
        let path = if rng.per_mille(400) { deep } else { path };
        let value = rng.bits().to_le_bytes();
        let much = self.writes_much && value[0].is_multiple_of(8);
        // At least long enough to be left to the store.
        let value = value.repeat(if much { MUCH } else { 3 });
        let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
        let create =
            |flags: i32| Create { path: Some(&path), data: Some(&value), acl: Some(acl.clone()), flags };
        let watch = PathWatch { path: Some(&path), watch: rng.per_mille(400) };
        let any = PathVersion { path: Some(&path), version: -1 };
        let set = SetData { path: Some(&path), data: Some(&value), version: -1 };
        let choice = if self.reader { rng.between(13, 19) } else { rng.below(20) };
        let request = match choice {
            0..4 if more && value[0].is_multiple_of(4) => {
                let ttl_ms = 1 + 8 * i64::from(value[1]);
                Request::CreateTtl(CreateTtl { create: create(5), ttl_ms })
            }
            0..4 => Request::Create(create(0)),
            4 => Request::Create2(create(1)),
            5 => Request::Create(create(3)),
            6..10 => Request::SetData(set),
            10..12 => Request::Delete(any),
            12 => Request::Multi(vec![MultiOp::Check(any), MultiOp::SetData(set)]),
            13..17 => Request::GetData(watch),
            17 => Request::Exists(watch),
            18 => Request::GetChildren2(watch),
            _ => Request::Sync(Some(&path)),
        };
        let mut out = Vec::new();
        request.encode_message(self.next_xid, &mut out);
        let op = request.op();
        let write = !matches!(op, OpCode::GetData | OpCode::Exists | OpCode::GetChildren2 | OpCode::Sync);
        self.serial += u32::from(write);
        let serial = write.then_some(self.serial);
        self.asked.push_back(Asked { xid: self.next_xid, op, path, serial, floor });
        self.next_xid += 1;
        out
    }

    /// A frame from the member, which the client's command keys belong to.
    pub(crate) fn hear(
        &mut self,
        frame: &[u8],
        key: impl Fn(u32) -> CommandKey,
        reference: &Reference,
    ) -> Result<Seen, Violation> {
        if self.link == Link::Joining {
            return self.joined(frame, reference);
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).map_err(|e| Violation::new(e.to_string()))?;
        match header.xid {
            xid::NOTIFICATION => self.event(header.zxid),
            xid::PING => self.forward(header.zxid).map(|()| Seen::default()),
            _ => self.answer(header, frame, reader.rest(), key, reference),
        }
    }

    fn joined(&mut self, frame: &[u8], reference: &Reference) -> Result<Seen, Violation> {
        let response = ConnectResponse::decode(frame).map_err(|e| Violation::new(e.to_string()))?;
        if response.timeout_ms == 0 {
            if reference.lives(self.session) {
                return Err(Violation::new("a session that has not ended is refused"));
            }
            self.session = 0;
            self.last_zxid = 0;
            self.link = Link::Down;
            return Ok(Seen::default());
        }
        if self.session != 0 && self.session != response.session_id {
            return Err(Violation::new("a resumed session was answered with another one"));
        }
        let resumed = u64::from(self.session != 0);
        self.session = response.session_id;
        self.password.copy_from_slice(response.password.unwrap_or(&[0; 16]));
        self.link = Link::Up;
        Ok(Seen { resumed, ..Seen::default() })
    }

    fn event(&mut self, zxid: i64) -> Result<Seen, Violation> {
        if zxid <= self.answered_zxid {
            return Err(Violation::new(format!(
                "watch: event {zxid:#x} after an answer that shows its state"
            )));
        }
        self.forward(zxid)?;
        Ok(Seen { events: 1, ..Seen::default() })
    }

    fn forward(&mut self, zxid: i64) -> Result<(), Violation> {
        if zxid < self.last_zxid {
            return Err(Violation::new(format!("zxid went back from {:#x} to {zxid:#x}", self.last_zxid)));
        }
        self.last_zxid = zxid;
        Ok(())
    }

    fn answer(
        &mut self,
        header: ReplyHeader,
        frame: &[u8],
        body: &[u8],
        key: impl Fn(u32) -> CommandKey,
        reference: &Reference,
    ) -> Result<Seen, Violation> {
        let asked =
            self.asked.pop_front().ok_or_else(|| Violation::new("an answer that nobody asked for"))?;
        if asked.xid != header.xid {
            return Err(Violation::new(format!("order: asked {}, answered {}", asked.xid, header.xid)));
        }
        self.forward(header.zxid)?;
        let mut seen = Seen { acknowledged: 1, ..Seen::default() };
        if let Some(serial) = asked.serial {
            check_write(reference, key(serial), header.zxid, answer_tail(frame))?;
            if header.zxid <= self.answered_zxid {
                return Err(Violation::new("order: an answer before shows the write, or a later one"));
            }
            if header.zxid <= asked.floor {
                return Err(Violation::new(
                    "real time: a write's zxid is below one that was answered before it",
                ));
            }
            seen.written = Some(header.zxid);
        } else if asked.op == OpCode::Sync {
            seen.syncs = 1;
            if header.zxid < asked.floor {
                return Err(Violation::new("sync: does not show a write that was answered before it"));
            }
        } else {
            check_read(reference, &asked, header, body)?;
        }
        self.answered_zxid = self.answered_zxid.max(header.zxid);
        Ok(seen)
    }
}

fn check_write(reference: &Reference, key: CommandKey, zxid: i64, tail: &[u8]) -> Result<(), Violation> {
    match reference.answer(key) {
        None => Err(Violation::new(format!("durability: an answered write {key:?} is not chosen"))),
        Some((at, body)) if *at == zxid && body == tail => Ok(()),
        Some((at, _)) => {
            Err(Violation::new(format!("a write's answer at {zxid:#x} is not what was chosen at {at:#x}")))
        }
    }
}

fn check_read(
    reference: &Reference,
    asked: &Asked,
    header: ReplyHeader,
    body: &[u8],
) -> Result<(), Violation> {
    let expected = reference.node_at(&asked.path, header.zxid);
    if expected.is_some() != header.err.is_ok() {
        return Err(Violation::new(format!(
            "read: existence of {} at {:#x} differs",
            asked.path, header.zxid
        )));
    }
    let Some((data, version)) = expected else { return Ok(()) };
    let found = match Response::decode(asked.op, body).map_err(|e| Violation::new(e.to_string()))? {
        Response::Data { data, stat } => Some((data.unwrap_or_default().to_vec(), stat.version)),
        Response::Stat(stat) | Response::Children { stat, .. } => Some((data.clone(), stat.version)),
        _ => None,
    };
    if found.as_ref() != Some(&(data.clone(), *version)) {
        return Err(Violation::new(format!("read: {} at {:#x} differs", asked.path, header.zxid)));
    }
    Ok(())
}
