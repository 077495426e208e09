//! A large multi on its way from the protocol's form to the log's.
//!
//! Owns how far it has come. Must not know the form of a single operation, in either. Invariant: what comes out is what
//! [`Op::from_request`] makes of the request, encoded; the operations in between never exist all at once.

use bytes::BufMut;
use pharos_jute::{ErrorCode, Reader, decode_multi_op};

use crate::batch::{encode_op, kind};
use crate::{Level, Op};

/// The kind of a multi, and how many operations follow it.
const HEAD: usize = 1 + 4;

/// An operation as it stands in a command, for [`crate::Command::encode_with`].
#[derive(Debug)]
pub struct EncodedOp(Vec<u8>);

impl EncodedOp {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Turns the body of a multi into an operation of the log, in slices.
#[derive(Debug)]
pub struct MultiTranscoder {
    request: Box<[u8]>,
    /// What is before is done.
    at: usize,
    reads: Option<bool>,
    level: Level,
    count: i32,
    out: Vec<u8>,
}

impl MultiTranscoder {
    /// Begins with a request whose body starts at `body`, by the rules of that level.
    pub fn new(request: Box<[u8]>, body: usize, level: Level) -> Self {
        let mut out = Vec::with_capacity(request.len());
        out.put_u8(kind::MULTI);
        out.put_i32(0);
        Self { request, at: body, reads: None, level, count: 0, out }
    }

    /// Goes on by at most so many operations; gives the whole when nothing is left. A malformed request becomes the
    /// [`Op::Nop`] that answers it.
    pub fn go_on(&mut self, steps: &mut usize) -> Option<EncodedOp> {
        let mut reader = Reader::new(&self.request[self.at..]);
        while *steps > 0 {
            *steps -= 1;
            match decode_multi_op(&mut reader, &mut self.reads) {
                Ok(Some(op)) => match Op::from_multi_op(&op, self.level) {
                    Some(op) => encode_op(&op, &mut self.out),
                    None => return Some(malformed()),
                },
                Ok(None) => {
                    self.out[HEAD - 4..HEAD].copy_from_slice(&self.count.to_be_bytes());
                    return Some(EncodedOp(std::mem::take(&mut self.out)));
                }
                Err(_) => return Some(malformed()),
            }
            self.count += 1;
        }
        self.at = self.request.len() - reader.rest().len();
        None
    }
}

fn malformed() -> EncodedOp {
    let mut out = Vec::new();
    encode_op(&Op::Nop { error: ErrorCode::MARSHALLING_ERROR }, &mut out);
    EncodedOp(out)
}
