//! The headers before each record, and the watch event, whose header is fixed.

use bytes::BufMut;

use crate::{DecodeError, ErrorCode, EventType, KEEPER_SYNC_CONNECTED, Reader, put_string};

/// Request numbers with a meaning of their own.
pub mod xid {
    /// Replies that are watch events.
    pub const NOTIFICATION: i32 = -1;
    /// Pings; the reply carries it whatever the request said.
    pub const PING: i32 = -2;
    /// Auth packets, as clients send them.
    pub const AUTH: i32 = -4;
    /// `setWatches`, as clients send it.
    pub const SET_WATCHES: i32 = -8;
}

/// What stands before each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number for the request.
    pub xid: i32,
    /// The request's type; not every number is an [`crate::OpCode`].
    pub op: i32,
}

impl RequestHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// Reads the header; the reader then stands at the body.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: r.i32("header.xid")?, op: r.i32("header.type")? })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.xid);
        out.put_i32(self.op);
    }
}

/// What stands before each response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's number.
    pub xid: i32,
    /// For a write its own zxid, for a read the last one the server had applied.
    pub zxid: i64,
    /// The error; the body is absent unless it is 0.
    pub err: ErrorCode,
}

impl ReplyHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Reads the header; the reader then stands at the body.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: r.i32("reply.xid")?, zxid: r.i64("reply.zxid")?, err: ErrorCode(r.i32("reply.err")?) })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.xid);
        out.put_i64(self.zxid);
        out.put_i32(self.err.0);
    }
}

/// A watch event: a reply that nobody asked for, with xid -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatcherEvent<'a> {
    /// What happened; kept as a number, for clients make up further kinds.
    pub kind: i32,
    /// The connection's state.
    pub state: i32,
    /// The changed node's path.
    pub path: Option<&'a str>,
}

impl<'a> WatcherEvent<'a> {
    /// An event as servers send it.
    pub const fn new(kind: EventType, path: &'a str) -> Self {
        Self { kind: kind.as_i32(), state: KEEPER_SYNC_CONNECTED, path: Some(path) }
    }

    /// Appends reply header and event. `zxid` is the transaction's, or -1 for catch-up after `setWatches`.
    pub fn encode_message(&self, zxid: i64, out: &mut impl BufMut) {
        ReplyHeader { xid: xid::NOTIFICATION, zxid, err: ErrorCode::OK }.encode(out);
        self.encode(out);
    }

    /// Appends the event alone.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.kind);
        out.put_i32(self.state);
        put_string(out, self.path);
    }

    /// Reads the event, after its reply header.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { kind: r.i32("event.type")?, state: r.i32("event.state")?, path: r.string("event.path")? })
    }
}
