//! What goes wrong, and frames on their way.
//!
//! Owns crashes, pauses, partitions, broken connections and lost volumes. Faults are placed so that a
//! correct system survives: at most one volume, of three or more, loses what was synced.

use super::{Event, Result, World};
use crate::net::Fate;
use bytes::Bytes;
use pharos_paxos::MemberId;

impl World {
    pub(super) fn fault(&mut self) -> Result<()> {
        if !self.storm {
            return Ok(());
        }
        let next = self.rng.between(50_000, 1_200_000);
        self.at(next, Event::Fault);
        let member = self.rng.below(self.members.len() as u64) as usize;
        match self.rng.below(13) {
            0..4 => self.crash(member),
            4 => self.pause(member),
            5 => self.break_links(member),
            6 => self.isolate(member, Cut::Both),
            7 => self.isolate(member, Cut::Outgoing),
            8 => self.isolate(member, Cut::Incoming),
            9 | 10 => self.clog(member),
            11 => self.lose_volume(member),
            _ => self.split(member),
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, member: usize) {
        if self.members[member].process.is_none() {
            return;
        }
        let (crash, in_io) = self.members[member].crash(&mut self.rng);
        self.coverage.crashes += 1;
        self.coverage.crashes_in_io += u64::from(in_io);
        self.coverage.lost_unsynced_tails += u64::from(crash.lost > 0);
        self.coverage.torn_sectors += u64::from(crash.torn > 0);
        for other in 0..self.members.len() {
            self.unlink(member, other);
        }
        self.close_wires_of(member);
        let delay = self.rng.between(1_000, 900_000);
        self.at(delay, Event::Start { member });
    }

    /// One volume of three or more, once: the others still hold what was acknowledged.
    fn lose_volume(&mut self, member: usize) {
        let lost_before = std::mem::replace(&mut self.volume_lost, self.members.len() > 2);
        if lost_before || self.members.len() < 3 {
            return;
        }
        self.crash(member);
        self.members[member].lose_volume();
        self.coverage.lost_volumes += 1;
        if self.bounds.plant.votes_from_empty_disk() {
            self.members[member].found_again(&self.founding);
        }
    }

    fn pause(&mut self, member: usize) {
        self.coverage.pauses += 1;
        let length = self.rng.between(100_000, 3_000_000);
        let until = &mut self.members[member].paused_until;
        *until = (*until).max(self.now + length);
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

    /// Ends a connection between members: each side notices in its own time, and dials again.
    fn unlink(&mut self, a: usize, b: usize) -> bool {
        if a == b || !self.net.disconnect(self.members[a].id, self.members[b].id) {
            return false;
        }
        for (member, peer) in [(a, b), (b, a)] {
            let (life, peer, delay) =
                (self.members[member].life, self.members[peer].id, self.rng.between(50, 5_000));
            self.at(delay, Event::PeerDown { member, life, peer });
        }
        let delay = self.rng.between(6_000, 60_000);
        self.at(delay, Event::LinkUp { a, b });
        true
    }

    /// Both sides have greeted each other; if one is down, or cannot be reached, it is tried again.
    pub(super) fn link_up(&mut self, a: usize, b: usize) -> Result<()> {
        let (ia, ib) = (self.members[a].id, self.members[b].id);
        if self.net.link(ia, ib).is_some() {
            return Ok(());
        }
        if self.members[a].process.is_none() || self.members[b].process.is_none() {
            return Ok(());
        }
        if !self.net.passes(ia, ib) || !self.net.passes(ib, ia) {
            self.at(50_000, Event::LinkUp { a, b });
            return Ok(());
        }
        self.net.connect(ia, ib);
        for (member, peer) in [(a, b), (b, a)] {
            let boot = self.members[peer].process.as_ref().map_or(0, |p| p.boot);
            let (life, id) = (self.members[member].life, self.members[peer].id);
            self.resume(member, life, move |r| r.peer_up(id, boot))?;
        }
        Ok(())
    }

    pub(super) fn send(&mut self, from: MemberId, to: MemberId, frame: &Bytes) {
        let Some(link) = self.net.link(from, to) else { return };
        if !self.net.passes(from, to) {
            self.coverage.lost_frames += 1;
            return;
        }
        let Fate { arrivals, late } = self.net.fate(from, to, &mut self.rng);
        self.coverage.lost_frames += u64::from(arrivals.is_empty());
        self.coverage.duplicated_frames += u64::from(arrivals.len() > 1);
        for delay in arrivals {
            // A connection keeps its order; a late frame stands for what overtook it on the other lane.
            let last = self.last_arrival.entry((from, to)).or_default();
            let at = if late { self.now + delay } else { (*last).max(self.now + delay) };
            if !late {
                *last = at;
            }
            let (delay, sent) = (at - self.now, self.now);
            self.at(delay, Event::Frame { link, from, to, frame: frame.clone(), sent });
        }
    }

    pub(super) fn frame(
        &mut self,
        link: u64,
        from: MemberId,
        to: MemberId,
        frame: Bytes,
        sent: u64,
    ) -> Result<()> {
        if self.net.link(from, to) != Some(link) {
            self.coverage.lost_frames += 1;
            return Ok(());
        }
        self.coverage.reordered_frames += u64::from(self.now > sent + 10_000);
        let member = to.0 as usize - 1;
        let life = self.members[member].life;
        self.turn_of(member, life, move |r| {
            r.peer_frame(from, frame).expect("the simulated network does not change frames");
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Both,
    Outgoing,
    Incoming,
}
