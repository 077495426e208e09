//! When a session may run out.
//!
//! Owns, per session, when its client's requests reached a member and when that member answered.
//! Invariant checked: a member answers only while a leader has heard of it within a third of the
//! timeout, so everything the client said before that third was reported; the session may not end
//! earlier than its timeout after the last such word.

use crate::violation::Violation;
use pharos_znode::SessionId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct SessionClock {
    sessions: BTreeMap<SessionId, Life>,
}

#[derive(Debug, Default)]
struct Life {
    timeout_us: u64,
    spoke: Vec<u64>,
    answered: u64,
}

impl SessionClock {
    /// A request of the session reached a member.
    pub(crate) fn spoke(&mut self, session: i64, timeout_ms: i32, now: u64) {
        let life = self.sessions.entry(SessionId(session)).or_default();
        life.timeout_us = timeout_ms.clamp(400, 4000) as u64 * 1000;
        life.spoke.push(now);
    }

    /// The member wrote to the session's client.
    pub(crate) fn answered(&mut self, session: i64, now: u64) {
        if let Some(life) = self.sessions.get_mut(&SessionId(session)) {
            life.answered = now;
        }
    }

    /// The leader ended the session for want of a touch.
    pub(crate) fn ended(&mut self, session: SessionId, now: u64) -> Result<(), Violation> {
        let Some(life) = self.sessions.remove(&session) else { return Ok(()) };
        let reported = life.answered.saturating_sub(life.timeout_us / 3);
        let Some(last) = life.spoke.iter().rev().find(|at| **at <= reported) else { return Ok(()) };
        if now < last + life.timeout_us {
            let ms = (now - last) / 1000;
            let what = format!("session {:#x} ended {ms} ms after a word its member had reported", session.0);
            return Err(Violation::new(what));
        }
        Ok(())
    }
}
