//! Forgetting what has no say in what a core does next, for the model checker.
//!
//! Owns which fields those are: two cores that differ in nothing else answer the same inputs with the same
//! outputs, so a model that puts them to fixed values visits fewer states and misses no behaviour. Must not
//! be called in production, where the numbers of requests must differ.

use crate::leader::PATIENCE_HEARTBEATS;
use crate::paxos::{Paxos, State};
use crate::status::Counters;
use crate::types::Millis;
use std::collections::BTreeMap;

/// The time that it is for a core which has forgotten.
const NOON: Millis = Millis(1 << 20);

impl Paxos {
    /// The time of this core's clock.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Puts the clock back to one fixed time and everything remembered as long before or after it as it
    /// was; what is older than anything asks for is just old. Numbers the writes under way from one.
    ///
    /// A caller must never tick the core between now and its deadline, and may see the same number on two
    /// canvasses: the deadline and the count of the numbers drawn are forgotten, too.
    pub fn forget(&mut self) {
        let now = self.now;
        let oldest = self.cfg.election.0.max(PATIENCE_HEARTBEATS * self.cfg.heartbeat.0);
        let clock = move |t: &mut Millis| {
            *t = if *t <= now {
                Millis(NOON.0 - (now.0 - t.0).min(oldest))
            } else {
                Millis(NOON.0 + (t.0 - now.0))
            };
        };
        self.disk.forget(&clock);
        self.reads.forget(&clock);
        match &mut self.state {
            State::Follower => {}
            State::Candidate(c) => c.forget(&clock),
            State::Leader(l) => l.forget(&clock),
        }
        self.contact.iter_mut().for_each(clock);
        self.heard.values_mut().for_each(clock);
        self.gap_reported.iter_mut().for_each(|(_, when)| clock(when));
        self.now = NOON;
        self.deadline = Millis(NOON.0 + 2 * self.cfg.election.0);
        self.draws = 0;
        self.seen = self.seen.max(self.promised); // A ballot is opened above both.
        self.counters = Counters::default();
    }

    /// Forgets who was heard when. Nothing but the answer to a canvass depends on it.
    pub fn forget_contacts(&mut self) {
        self.contact = Some(self.now);
        self.heard = BTreeMap::new();
    }
}
