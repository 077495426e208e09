//! All volumes but one are lost, and the ensemble goes on from that one.
//!
//! Owns when it happens, which volume is left, and what is told to whom joins afterwards. Must not know how a generation
//! begins. Invariant: the volume that is left is the one that a human is told to choose, of those that there are, so that
//! nothing that was acknowledged may be missing afterwards.

use super::{Event, Result, World};
use crate::coverage::Coverage;
use crate::rng::Rng;
use crate::violation::Violation;
use pharos_replica::{Founding, Plant};

impl World {
    /// In some of the seeds in which somebody makes new members, once; never with a planted bug, whose seeds it would
    /// change.
    pub(super) fn plan_disaster(&mut self, seed: u64) {
        let mut rng = Rng::new(seed ^ 0x6469_7361_7374_6572);
        let wanted = rng.per_mille(200) && self.operator.is_some() && self.bounds.plant == Plant::None;
        if wanted {
            let delay = rng.between(1_000_000, 20_000_000);
            self.at(delay, Event::Disaster { seed: rng.bits() });
        }
    }

    pub(super) fn disaster(&mut self, seed: u64) -> Result<()> {
        if !self.storm {
            return Ok(());
        }
        let mut rng = Rng::new(seed);
        for member in 0..self.members.len() {
            self.crash(member);
        }
        let mut best = None;
        for (at, member) in self.members.iter_mut().enumerate().filter(|(_, m)| !m.lost) {
            let Some(held) = member.holdings().map_err(Violation::new)? else { continue };
            if held.member(member.id).is_some() {
                best = best.max(Some(((held.accepted, held.end), at)));
            }
        }
        let (_, survivor) = best.ok_or_else(|| Violation::new("nobody holds anything"))?;
        self.members[survivor].retired = false;
        for (_, member) in self.members.iter_mut().enumerate().filter(|(at, _)| *at != survivor) {
            member.lose_volume();
            member.retired = true;
        }
        let generation = self.founding.generation + 1;
        let interrupted =
            self.members[survivor].begin_generation(generation, &mut rng).map_err(Violation::new)?;
        let Coverage { generations, generations_interrupted, .. } = &mut self.coverage;
        *generations += 1;
        *generations_interrupted += interrupted;
        let members = self.founding.members.clone();
        self.founding = Founding { generation, members, ..self.founding.clone() };
        self.at(1_000, Event::Start { member: survivor });
        Ok(())
    }
}
