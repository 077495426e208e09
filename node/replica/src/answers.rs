//! What goes into a connection's buffer.
//!
//! Owns the framing of answers and events. Must not know why they are given.

use crate::io::ConnId;
use crate::replica::Replica;
use bytes::{BufMut, BytesMut};
use pharos_jute::{ErrorCode, ReplyHeader, Response};

/// Appends a frame: its length, then what `body` writes.
pub(crate) fn framed(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    body(out);
    let len = i32::try_from(out.len() - start - 4).expect("a frame is below 2 GiB");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends an answer: header, and the body if there is no error.
pub(crate) fn put_answer(out: &mut BytesMut, xid: i32, zxid: i64, result: Result<&Response<'_>, ErrorCode>) {
    framed(out, |out| match result {
        Ok(response) => response.encode_message(xid, zxid, out),
        Err(err) => ReplyHeader { xid, zxid, err }.encode(out),
    });
}

impl Replica {
    /// Answers from the state as it is.
    pub(crate) fn answer(&mut self, conn: ConnId, xid: i32, result: Result<&Response<'_>, ErrorCode>) {
        let zxid = self.state.zxid().0;
        if let Some(own) = self.clients.get_mut(conn) {
            put_answer(own.out.tail(), xid, zxid, result);
            self.clients.mark_dirty(conn);
        }
    }
}
