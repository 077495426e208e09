//! The handshake: the first record of a connection in each direction, without a header.

use bytes::BufMut;

use crate::{DecodeError, Reader, put_bool, put_buffer};

/// The only version of the protocol there is.
pub const PROTOCOL_VERSION: i32 = 0;
/// Bytes of a session's password.
pub const PASSWORD_LEN: usize = 16;

/// What a client sends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// 0.
    pub protocol_version: i32,
    /// The highest zxid the client has seen; a server behind it must not serve the client.
    pub last_zxid_seen: i64,
    /// The session timeout asked for, ms.
    pub timeout_ms: i32,
    /// The session to resume, 0 for a new one.
    pub session_id: i64,
    /// The session's password.
    pub password: Option<&'a [u8]>,
    /// Whether the client takes a read-only server. `None`: an old client that does not send the byte, and to whom the
    /// reply must lack it too.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads the record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        Ok(Self {
            protocol_version: r.i32("connect.protocolVersion")?,
            last_zxid_seen: r.i64("connect.lastZxidSeen")?,
            timeout_ms: r.i32("connect.timeOut")?,
            session_id: r.i64("connect.sessionId")?,
            password: r.buffer("connect.passwd")?,
            read_only: optional_bool(&mut r)?,
        })
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.protocol_version);
        out.put_i64(self.last_zxid_seen);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session_id);
        put_buffer(out, self.password);
        if let Some(read_only) = self.read_only {
            put_bool(out, read_only);
        }
    }
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectResponse<'a> {
    /// 0.
    pub protocol_version: i32,
    /// The timeout granted, ms; 0 says that the session has expired.
    pub timeout_ms: i32,
    /// The session.
    pub session_id: i64,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// Whether this server is read-only; `None` leaves the byte out, for clients that did not send theirs.
    pub read_only: Option<bool>,
}

impl<'a> ConnectResponse<'a> {
    /// The answer that a session has expired or its password was wrong.
    pub fn expired(read_only: Option<bool>) -> ConnectResponse<'static> {
        ConnectResponse {
            protocol_version: PROTOCOL_VERSION,
            timeout_ms: 0,
            session_id: 0,
            password: Some(&[0; PASSWORD_LEN]),
            read_only,
        }
    }

    /// Reads the record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        Ok(Self {
            protocol_version: r.i32("connected.protocolVersion")?,
            timeout_ms: r.i32("connected.timeOut")?,
            session_id: r.i64("connected.sessionId")?,
            password: r.buffer("connected.passwd")?,
            read_only: optional_bool(&mut r)?,
        })
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.protocol_version);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session_id);
        put_buffer(out, self.password);
        if let Some(read_only) = self.read_only {
            put_bool(out, read_only);
        }
    }
}

fn optional_bool(r: &mut Reader<'_>) -> Result<Option<bool>, DecodeError> {
    if r.rest().is_empty() { Ok(None) } else { r.bool("readOnly").map(Some) }
}
