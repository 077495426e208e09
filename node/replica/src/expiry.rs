//! When the leader gives a session up.
//!
//! Owns the deadlines of all sessions while this member leads, in buckets as ZooKeeper's
//! ExpiryQueue. Must not know clients or the log. Invariant: a session is due no earlier than its whole
//! timeout after the last touch, on the leader's monotonic clock; a new leader gives everyone a full one.

use pharos_paxos::Millis;
use pharos_znode::SessionId;
use std::collections::{BTreeMap, BTreeSet};

const BUCKET_MS: u64 = 100;

#[derive(Debug, Default)]
pub(crate) struct Expiry {
    sessions: BTreeMap<SessionId, Deadline>,
    buckets: BTreeMap<u64, BTreeSet<SessionId>>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    timeout_ms: u64,
    bucket: u64,
}

impl Expiry {
    /// Starts or restarts a session's time.
    pub(crate) fn track(&mut self, id: SessionId, timeout_ms: u64, now: Millis) {
        self.forget(id);
        let bucket = bucket_after(now, timeout_ms);
        self.sessions.insert(id, Deadline { timeout_ms, bucket });
        self.buckets.entry(bucket).or_default().insert(id);
    }

    /// The session's client has spoken. A session that is due already stays so until its end is decided.
    pub(crate) fn touch(&mut self, id: SessionId, now: Millis) {
        if let Some(deadline) = self.sessions.get(&id) {
            self.track(id, deadline.timeout_ms, now);
        }
    }

    pub(crate) fn forget(&mut self, id: SessionId) {
        let Some(old) = self.sessions.remove(&id) else { return };
        if let Some(bucket) = self.buckets.get_mut(&old.bucket) {
            bucket.remove(&id);
            if bucket.is_empty() {
                self.buckets.remove(&old.bucket);
            }
        }
    }

    /// Takes the sessions whose time is over; they are no longer tracked.
    pub(crate) fn due(&mut self, now: Millis) -> Vec<SessionId> {
        let mut due = Vec::new();
        while let Some(entry) = self.buckets.first_entry() {
            if *entry.key() * BUCKET_MS > now.0 {
                break;
            }
            due.extend(entry.remove());
        }
        due.iter().for_each(|id| {
            self.sessions.remove(id);
        });
        due
    }

    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
        self.buckets.clear();
    }
}

fn bucket_after(now: Millis, timeout_ms: u64) -> u64 {
    (now.0 + timeout_ms).div_ceil(BUCKET_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_due_after_its_whole_timeout_and_once() {
        let mut expiry = Expiry::default();
        expiry.track(SessionId(1), 4000, Millis(50));
        assert_eq!(expiry.due(Millis(4049)), vec![]);
        assert_eq!(expiry.due(Millis(4100)), vec![SessionId(1)]);
        assert_eq!(expiry.due(Millis(9000)), vec![]);
    }

    #[test]
    fn a_touch_starts_the_time_again() {
        let mut expiry = Expiry::default();
        expiry.track(SessionId(1), 4000, Millis(0));
        expiry.touch(SessionId(1), Millis(3000));
        assert_eq!(expiry.due(Millis(6999)), vec![]);
        assert_eq!(expiry.due(Millis(7000)), vec![SessionId(1)]);
    }

    #[test]
    fn an_unknown_or_forgotten_session_is_never_due() {
        let mut expiry = Expiry::default();
        expiry.touch(SessionId(5), Millis(0));
        expiry.track(SessionId(6), 1000, Millis(0));
        expiry.forget(SessionId(6));
        assert_eq!(expiry.due(Millis(99_999)), vec![]);
    }
}
