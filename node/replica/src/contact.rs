//! Whether a leader that a quorum stands behind has heard of this member lately.
//!
//! Owns the touch reports in flight and the time the newest acknowledged one was sent. Must not know
//! who leads. Invariant: a client is answered only within a third of its session's timeout after a
//! report that was *sent* and then acknowledged by a quorum-confirmed leader; to hear heartbeats is not
//! enough, for under a one-way partition the leader would be expiring the very sessions we keep alive.

use pharos_paxos::Millis;
use pharos_znode::SessionId;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds between reports while there is nothing else to say.
const INTERVAL_MS: u64 = 100;
/// Reports that may be in flight; older ones can no longer help.
const MAX_IN_FLIGHT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Contact {
    next: u64,
    sent: VecDeque<(u64, Millis)>,
    last_sent: Option<Millis>,
    /// Sessions whose clients have spoken, and the report that said so first: repeated until a report
    /// at least as new is acknowledged, for a lost report must not cost a session.
    touched: BTreeMap<SessionId, u64>,
    fresh_at: Option<Millis>,
}

impl Contact {
    pub(crate) fn due(&self, now: Millis) -> bool {
        self.last_sent.is_none_or(|at| now.0 >= at.0 + INTERVAL_MS)
    }

    /// A report of these sessions goes out now; returns its number.
    pub(crate) fn send(&mut self, now: Millis, touched: impl Iterator<Item = SessionId>) -> u64 {
        self.next += 1;
        touched.for_each(|session| {
            self.touched.insert(session, self.next);
        });
        if self.sent.len() == MAX_IN_FLIGHT {
            self.sent.pop_front();
        }
        self.sent.push_back((self.next, now));
        self.last_sent = Some(now);
        self.next
    }

    /// The sessions that no acknowledged report has named.
    pub(crate) fn unconfirmed(&self) -> Vec<SessionId> {
        self.touched.keys().copied().collect()
    }

    /// The report was acknowledged; older ones are as good as acknowledged.
    pub(crate) fn acknowledged(&mut self, report: u64) {
        self.touched.retain(|_, said| *said > report);
        while let Some(&(number, at)) = self.sent.front() {
            if number > report {
                break;
            }
            self.sent.pop_front();
            if number == report {
                self.fresh_at = self.fresh_at.max(Some(at));
            }
        }
    }

    /// Has a leader answered a report of the last `within_ms`?
    pub(crate) fn in_touch(&self, within_ms: u64, now: Millis) -> bool {
        self.fresh_at.is_some_and(|at| now.0 - at.0.min(now.0) <= within_ms + INTERVAL_MS)
    }

    /// May a session with this timeout be served?
    pub(crate) fn serves(&self, timeout_ms: u64, now: Millis) -> bool {
        self.fresh_at.is_some_and(|at| (now.0 - at.0.min(now.0)) * 3 <= timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_in_touch_for_a_while_after_it_has_answered() {
        let mut contact = Contact::default();
        assert!(!contact.in_touch(1000, Millis(0)));
        let report = send(&mut contact, 100);
        contact.acknowledged(report);
        assert!(contact.in_touch(1000, Millis(1200)), "a report is sent every 100 ms");
        assert!(!contact.in_touch(1000, Millis(1201)));
    }

    fn send(contact: &mut Contact, at: u64) -> u64 {
        contact.send(Millis(at), std::iter::empty())
    }

    #[test]
    fn a_touched_session_is_reported_until_a_report_with_it_is_acknowledged() {
        let mut contact = Contact::default();
        let first = contact.send(Millis(0), [SessionId(7)].into_iter());
        let second = send(&mut contact, 100);
        assert_eq!(contact.unconfirmed(), vec![SessionId(7)]);
        contact.acknowledged(second);
        assert_eq!(contact.unconfirmed(), vec![]);
        assert!(first < second);
    }

    #[test]
    fn a_member_serves_only_after_an_acknowledged_report_and_for_a_third_of_the_timeout() {
        let mut contact = Contact::default();
        assert!(!contact.serves(4000, Millis(0)));
        let report = contact.send(Millis(100), std::iter::empty());
        assert!(!contact.serves(4000, Millis(110)));
        contact.acknowledged(report);
        assert!(contact.serves(4000, Millis(1433)));
        assert!(!contact.serves(4000, Millis(1434)));
    }

    #[test]
    fn freshness_counts_from_the_sending_not_from_the_answer() {
        let mut contact = Contact::default();
        let (first, second) = (send(&mut contact, 0), send(&mut contact, 200));
        contact.acknowledged(second);
        contact.acknowledged(first);
        assert!(contact.serves(3000, Millis(1200)));
        assert!(!contact.serves(3000, Millis(1201)));
    }
}
