//! Links between members: who dials whom, who is let in, and frames on their way.
//!
//! Owns what stands between two machines. Must not know what a frame says. Invariant, as with the real links: one comes
//! about only between two that know each other by their lists at that moment, and stays until it breaks, even if one of
//! the two is removed meanwhile.

use super::{Event, Result, World};
use crate::net::Fate;
use bytes::Bytes;
use pharos_paxos::MemberId;

/// Until someone who was turned away dials again.
const TURNED_AWAY_US: u64 = 150_000;

impl World {
    /// Ends a connection between members: each side notices in its own time, and dials again.
    pub(super) fn unlink(&mut self, a: usize, b: usize) -> bool {
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

    /// Both sides have greeted each other; if one cannot be reached, or does not know the other yet, it is tried again.
    pub(super) fn link_up(&mut self, a: usize, b: usize) -> Result<()> {
        let (ia, ib) = (self.members[a].id, self.members[b].id);
        if self.net.link(ia, ib).is_some() {
            return Ok(());
        }
        let (Some(pa), Some(pb)) = (&self.members[a].process, &self.members[b].process) else {
            return Ok(());
        };
        let known = (pa.roster.admits(ib), pb.roster.admits(ia));
        if known != (true, true) {
            // The one with the higher id dials.
            if if ia > ib { known.0 } else { known.1 } {
                self.coverage.turned_away += 1;
                self.at(TURNED_AWAY_US, Event::LinkUp { a, b });
            }
            return Ok(());
        }
        if !self.levels_agree(a, b) {
            self.coverage.links_refused_by_level += 1;
            self.at(TURNED_AWAY_US, Event::LinkUp { a, b });
            return Ok(());
        }
        if !self.net.passes(ia, ib) || !self.net.passes(ib, ia) {
            self.at(50_000, Event::LinkUp { a, b });
            return Ok(());
        }
        self.net.connect(ia, ib);
        for (member, peer) in [(a, b), (b, a)] {
            let boot = self.members[peer].process.as_ref().map_or(0, |p| p.boot);
            let (life, id, levels) =
                (self.members[member].life, self.members[peer].id, self.members[peer].levels);
            self.resume(member, life, move |r| r.peer_up(id, boot, levels))?;
        }
        Ok(())
    }

    /// The list of members has changed here: those that are new in it are dialled. A link to whom it names no more
    /// stays.
    pub(super) fn meet(&mut self, member: usize) {
        let Some(process) = &mut self.members[member].process else { return };
        for peer in process.meet() {
            if let Some(&b) = self.places.get(&peer) {
                let delay = self.rng.between(500, 30_000);
                self.at(delay, Event::LinkUp { a: member, b });
            }
        }
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
        let member = self.places[&to];
        let life = self.members[member].life;
        self.turn_of(member, life, move |r| {
            r.peer_frame(from, frame).expect("the simulated network does not change frames");
        })
    }
}
