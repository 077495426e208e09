//! Sessions as every member knows them. Touches and expiry clocks are the leader's own and not here.

use crate::SessionId;
use crate::hash::hash_words;

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The negotiated timeout.
    pub timeout_ms: i32,
    /// Counts attachments, from 1; commands carry it, and those of an older attachment are refused.
    pub attach: u32,
    /// The member the session is attached to.
    pub owner: u32,
}

impl Session {
    /// The session's part of the state's digest.
    pub(crate) fn digest(&self, id: SessionId) -> u64 {
        let timeout = u64::from(self.timeout_ms.cast_unsigned());
        let place = u64::from(self.attach) << 32 | u64::from(self.owner);
        hash_words(0x7365_7373, &[id.0.cast_unsigned(), timeout, place])
    }
}
