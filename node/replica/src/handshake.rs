//! How a connection gets its session.
//!
//! Owns the first exchange on a connection: a new session, a resumed one, a refusal. Must not know what
//! follows. Invariant: a session is bound to a connection only by a command in the log, so that every
//! member agrees on where it is; a resumed session keeps its id or is refused, never replaced.

use crate::answers::framed;
use crate::clients::{Joining, Live, Phase};
use crate::io::{CloseReason, ConnId};
use crate::replica::Replica;
use pharos_jute::{ConnectRequest, ConnectResponse, ErrorCode, PASSWORD_LEN, PROTOCOL_VERSION};
use pharos_znode::{Op, SessionId};
use sha2::{Digest, Sha256};

impl Replica {
    /// The first frame of a connection.
    pub(crate) fn connect(&mut self, conn: ConnId, frame: &[u8]) {
        let Ok(request) = ConnectRequest::decode(frame) else {
            return self.close(conn, CloseReason::Malformed);
        };
        if request.last_zxid_seen > self.state.zxid().0 {
            return self.close(conn, CloseReason::ClientAhead);
        }
        let tick = self.cfg.tick_ms as i32;
        let timeout_ms = request.timeout_ms.clamp(2 * tick, 20 * tick);
        if !self.serves(timeout_ms) || !self.in_touch() {
            return self.close(conn, CloseReason::NotServing);
        }
        let (session, op) = if request.session_id == 0 {
            (self.clients.next_session(), Op::CreateSession { timeout_ms })
        } else {
            let session = SessionId(request.session_id);
            if request.password != Some(&self.password(session)) {
                return self.refuse_session(conn, request.read_only.is_some());
            }
            (session, Op::AttachSession { timeout_ms })
        };
        let read_only_byte = request.read_only.is_some();
        let serial = self.submit(conn, session, 0, 0, op);
        if let Some(conn) = self.clients.get_mut(conn) {
            conn.phase = Phase::Joining(Joining { session, timeout_ms, read_only_byte, serial });
        }
    }

    /// The handshake's command was applied.
    pub(crate) fn connected(&mut self, conn: ConnId, joining: Joining, result: Result<u32, ErrorCode>) {
        let Ok(attach) = result else {
            return self.refuse_session(conn, joining.read_only_byte);
        };
        let Joining { session, timeout_ms, read_only_byte, .. } = joining;
        self.clients.bind(conn, Live { session, attach, timeout_ms });
        let password = self.password(session);
        let response = ConnectResponse {
            protocol_version: PROTOCOL_VERSION,
            timeout_ms,
            session_id: session.0,
            password: Some(&password),
            read_only: read_only_byte.then_some(false),
        };
        let Some(own) = self.clients.get_mut(conn) else { return };
        framed(own.out.tail(), |out| response.encode(out));
        let early = std::mem::take(&mut own.pending);
        self.clients.mark_dirty(conn);
        for pending in early {
            if let crate::clients::Pending::Frame { frame, .. } = pending {
                self.request(conn, &frame);
            }
        }
    }

    /// ZooKeeper's answer that a client takes for the end of its session.
    fn refuse_session(&mut self, conn: ConnId, read_only_byte: bool) {
        if let Some(own) = self.clients.get_mut(conn) {
            let response = ConnectResponse::expired(read_only_byte.then_some(false));
            framed(own.out.tail(), |out| response.encode(out));
        }
        self.close(conn, CloseReason::SessionRefused);
    }

    /// Nobody who does not know the ensemble's secret can guess it: a keyed hash of the session's id.
    fn password(&self, session: SessionId) -> [u8; PASSWORD_LEN] {
        let hash = Sha256::new().chain_update(self.founding.secret).chain_update(session.0.to_le_bytes());
        let mut password = [0; PASSWORD_LEN];
        password.copy_from_slice(&hash.finalize()[..PASSWORD_LEN]);
        password
    }
}
