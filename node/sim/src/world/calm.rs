//! After the storm: what was broken is healed, and what is promised must come true.
//!
//! Owns the end of a run. Must not know how members work. Invariant: whoever belongs to the ensemble and has its volume
//! catches up, every client is served, and what the operator wants comes about.

use super::{Event, Result, World};
use crate::member::{Member, Trouble};
use crate::violation::Violation;

/// Virtual microseconds within which a healed ensemble must serve every client again.
const PATIENCE_US: u64 = 60_000_000;
/// Answers that each client must get after the storm.
const CALM_ANSWERS: u64 = 20;

impl World {
    /// After the storm: everything is healed and started, and every client must be served.
    pub(super) fn calm(&mut self) -> Result<()> {
        self.storm = false;
        self.heal();
        self.install_everywhere();
        for member in 0..self.members.len() {
            self.members[member].trouble = Trouble::default();
            if self.members[member].process.is_none() {
                self.at(0, Event::Start { member });
            }
        }
        let until = self.now + PATIENCE_US;
        let wanted = self.coverage.acknowledged + CALM_ANSWERS * self.clients.len() as u64;
        while !(self.coverage.acknowledged >= wanted && self.converged() && self.is_as_wanted()) {
            if self.now > until {
                return Err(Violation::new(format!(
                    "progress: the healed ensemble does not serve; {}",
                    self.picture()
                )));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Every member that still has its volume has applied everything; who was removed need not know it.
    fn converged(&self) -> bool {
        let end = self.reference.end();
        let done = |m: &Member| m.replica().is_some_and(|one| one.digest().0 == end);
        let belongs = |m: &&Member| !m.lost && self.reference.roll().has(m.id);
        self.members.iter().filter(belongs).all(done)
    }

    /// Everybody, for whoever looks into a run that stands still.
    fn picture(&self) -> String {
        let members = self.members.iter().map(|m| self.portrait(m)).collect::<Vec<_>>().join("\n");
        format!("{:?}, wanted {:?}\n{members}", self.reference.roll().membership(), self.target())
    }

    fn portrait(&self, m: &Member) -> String {
        let Some(one) = m.replica() else {
            return format!("{} down, lost {}, switched off {}", m.id, m.lost, m.retired);
        };
        let (s, config) = (one.status(), one.registry().membership().config.0);
        let linked = |other: &&Member| self.net.link(m.id, other.id).is_some();
        let links: Vec<_> = self.members.iter().filter(linked).map(|other| other.id.0).collect();
        format!(
            "{} {:?} in {config}, ballot {}, applied {}, committed {}, durable {}, trimmed {}, serves {}, linked {links:?}",
            m.id, s.role, s.ballot, s.applied, s.committed, s.durable, s.trimmed, s.serving
        )
    }
}
