//! What goes wrong.
//!
//! Owns crashes, pauses, partitions, broken connections and lost volumes. Faults are placed so that a correct system
//! survives: of the voters of every configuration that may be the current one, a majority keeps its volumes.

use super::{Event, Result, World};

impl World {
    pub(super) fn fault(&mut self) -> Result<()> {
        if !self.storm {
            return Ok(());
        }
        let next = self.rng.between(50_000, 1_200_000);
        self.at(next, Event::Fault);
        let member = self.rng.below(self.members.len() as u64) as usize;
        if self.members[member].retired {
            return Ok(());
        }
        match self.rng.below(14) {
            0..4 => self.crash(member),
            4 => self.pause(member),
            5 => self.break_links(member),
            6 => self.isolate(member, Cut::Both),
            7 => self.isolate(member, Cut::Outgoing),
            8 => self.isolate(member, Cut::Incoming),
            9 | 10 => self.clog(member),
            11 => self.lose_volume(member),
            12 => self.set_clock(member),
            _ => self.split(member),
        }
        Ok(())
    }

    /// What can happen to a leader, more often when it was just asked for other voters, and to one that joins.
    pub(super) fn trouble(&mut self, member: usize) {
        if !self.storm || self.members[member].retired {
            return;
        }
        match self.rng.below(8) {
            0 | 1 => self.crash(member),
            2 => self.pause(member),
            3 | 4 => {
                // Late answers keep a leader in office while others, who hear it no more, elect another.
                self.clog(member);
                let delay = self.rng.between(10_000, 1_500_000);
                self.at(delay, Event::FaultAt { member });
            }
            5 => self.isolate(member, Cut::Both),
            6 => self.isolate(member, Cut::Outgoing),
            _ => self.isolate(member, Cut::Incoming),
        }
    }

    pub(super) fn crash(&mut self, member: usize) {
        if self.members[member].process.is_none() {
            return;
        }
        self.note_crash(member);
        let (crash, in_io) = self.members[member].crash(&mut self.rng);
        self.coverage.crashes += 1;
        self.coverage.crashes_in_io += u64::from(in_io);
        self.coverage.lost_unsynced_tails += u64::from(crash.lost > 0);
        self.coverage.torn_sectors += u64::from(crash.torn > 0);
        let parted = u64::from(crash.kept > 0 && crash.lost > 0);
        if self.members[member].whole_blocks {
            self.coverage.torn_between_blocks += parted;
        } else {
            self.coverage.torn_between_sectors += parted;
        }
        self.fall(member);
    }

    /// The process is gone, and starts again later.
    pub(super) fn fall(&mut self, member: usize) {
        for other in 0..self.members.len() {
            self.unlink(member, other);
        }
        self.close_wires_of(member);
        let delay = self.rng.between(1_000, 900_000);
        self.at(delay, Event::Start { member });
    }

    /// One volume of three or more, once, where nobody replaces it: the others still hold what was acknowledged.
    fn lose_volume(&mut self, member: usize) {
        if self.operator.is_some() {
            if self.members[member].lost || !self.can_spare(member) {
                return;
            }
        } else {
            let lost_before = std::mem::replace(&mut self.volume_lost, self.members.len() > 2);
            if lost_before || self.members.len() < 3 {
                return;
            }
        }
        self.crash(member);
        self.members[member].lose_volume();
        self.coverage.lost_volumes += 1;
        let founded = self.founding.members.iter().any(|founder| founder.id == self.members[member].id);
        if founded && self.bounds.plant.votes_from_empty_disk() {
            self.members[member].found_again(&self.founding);
        }
    }

    fn pause(&mut self, member: usize) {
        self.coverage.pauses += 1;
        let length = self.rng.between(100_000, 3_000_000);
        let until = &mut self.members[member].paused_until;
        *until = (*until).max(self.now + length);
    }

    /// Somebody sets the wall clock, by seconds or by a year, in either direction.
    fn set_clock(&mut self, member: usize) {
        self.coverage.clock_jumps += 1;
        let most = *self.rng.pick(&[5_000, 3_600_000, 31_536_000_000]);
        self.members[member].wall_off_ms = self.rng.below(2 * most) as i64 - most as i64;
    }

    fn break_links(&mut self, member: usize) {
        for other in 0..self.members.len() {
            if self.unlink(member, other) {
                self.coverage.broken_links += 1;
            }
        }
    }

    fn isolate(&mut self, member: usize, cut: Cut) {
        let id = self.members[member].id;
        for other in self.members.iter().map(|m| m.id).filter(|other| *other != id).collect::<Vec<_>>() {
            if cut != Cut::Incoming {
                self.net.cut(id, other);
            }
            if cut != Cut::Outgoing {
                self.net.cut(other, id);
            }
        }
        self.heal_later(cut == Cut::Both);
    }

    /// Everything that a member sends, or everything it is sent, comes late.
    fn clog(&mut self, member: usize) {
        let id = self.members[member].id;
        let (by_us, incoming) = (self.rng.between(50_000, 1_500_000), self.rng.per_mille(500));
        for other in self.members.iter().map(|m| m.id).filter(|other| *other != id) {
            let (from, to) = if incoming { (other, id) } else { (id, other) };
            self.net.clog(from, to, by_us);
        }
        self.coverage.clogged_links += 1;
        let length = self.rng.between(100_000, 4_000_000);
        self.at(length, Event::Heal);
    }

    /// A member loses one other: the rest sees both.
    fn split(&mut self, member: usize) {
        let other = (member + 1) % self.members.len();
        let (a, b) = (self.members[member].id, self.members[other].id);
        if a != b {
            self.net.cut(a, b);
            self.net.cut(b, a);
            self.heal_later(true);
        }
    }

    fn heal_later(&mut self, both: bool) {
        if both {
            self.coverage.partitions += 1;
        } else {
            self.coverage.one_way_partitions += 1;
        }
        let length = self.rng.between(100_000, 4_000_000);
        self.at(length, Event::Heal);
    }

    pub(super) fn heal(&mut self) {
        self.net.heal();
        if !self.storm {
            self.net.weather.loss = 0;
            self.net.weather.late = 0;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Both,
    Outgoing,
    Incoming,
}
