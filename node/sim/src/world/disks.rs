//! What goes wrong with disks.
//!
//! Owns when what volumes hold is harmed, and when disks refuse, hang or are full. Must not know how a member bears it.
//!
//! Invariant: of the voters of every configuration that may be the current one, a majority holds what it was told to
//! keep; the last thing that a disk was told to keep is not lost without a trace, for nobody could tell.

use super::{Event, Result, World};
use crate::member::{Harm, Refusal};
use crate::rng::Rng;
use pharos_log::mem::Rot;

pub(super) struct Disks {
    rng: Rng,
}

impl Disks {
    /// Most seeds have disks that do as they are told, but for what a crash does.
    pub(super) fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed ^ 0x0064_6973_6b73);
        rng.per_mille(350).then_some(Self { rng })
    }

    /// Whether a machine's disk writes blocks of 4 KiB, and tears nothing smaller; those of the other seeds do not.
    pub(super) fn draw_whole_blocks(&mut self) -> bool {
        self.rng.per_mille(800)
    }
}

impl World {
    pub(super) fn disk_fault(&mut self) {
        let (storm, now, count) = (self.storm, self.now, self.members.len() as u64);
        let Some(Disks { rng }) = self.disks.as_mut().filter(|_| storm) else { return };
        let next = rng.between(100_000, 2_000_000);
        let (member, kind) = (rng.below(count) as usize, rng.below(13));
        let length = rng.between(1_000_000, 8_000_000);
        self.at(next, Event::DiskFault);
        let trouble = &mut self.members[member].trouble;
        match kind {
            0 | 1 => self.harm(member, Harm::Log(Rot::Flipped)),
            2 | 3 => self.harm(member, Harm::Log(Rot::Lost)),
            4 | 5 => self.harm(member, Harm::Log(Rot::Misdirected)),
            6 | 7 => self.harm(member, Harm::Row),
            8 => self.harm(member, Harm::NoRow),
            9 | 10 => trouble.fails = true,
            11 => {
                trouble.hangs_until = now + length;
                self.coverage.hung_disks += 1;
            }
            _ => trouble.full_until = now + length,
        }
    }

    /// The machine stops, and what its volume holds is not what was written any more.
    fn harm(&mut self, member: usize, harm: Harm) {
        let m = &self.members[member];
        if m.lost || m.retired || m.damage.is_some() || !self.can_spare(member) {
            return;
        }
        if self.operator.is_none() {
            // Nobody replaces it.
            let lost_before = std::mem::replace(&mut self.volume_lost, true);
            if lost_before || self.members.len() < 3 {
                return;
            }
        }
        self.crash(member);
        let Some(Disks { rng }) = &mut self.disks else { return };
        if !self.members[member].harm(harm, rng) {
            return;
        }
        let c = &mut self.coverage;
        match harm {
            Harm::Log(Rot::Flipped) => c.flipped_blocks += 1,
            Harm::Log(Rot::Lost) => c.lost_blocks += 1,
            Harm::Log(Rot::Misdirected) => c.misdirected_blocks += 1,
            Harm::Row => c.changed_rows += 1,
            Harm::NoRow => c.lost_rows += 1,
        }
    }

    /// The disk refuses an operation of the log: the process ends.
    pub(super) fn refused(&mut self, member: usize, refusal: Refusal) {
        self.note_crash(member);
        self.members[member].end();
        match refusal {
            Refusal::Write => self.coverage.failed_writes += 1,
            Refusal::Sync => self.coverage.failed_syncs += 1,
            Refusal::Room => self.coverage.logs_without_room += 1,
        }
        self.fall(member);
    }

    /// Another file for the log, unless the disk has no room: then it is tried again later.
    pub(super) fn spare(&mut self, member: usize, life: u64) -> Result<()> {
        let m = &mut self.members[member];
        if m.life != life {
            return Ok(());
        }
        if m.trouble.full_until > self.now {
            self.coverage.spares_refused += 1;
            self.at(1_000_000, Event::Spare { member, life });
            return Ok(());
        }
        match m.create_spare() {
            Some(op) => self.resume(member, life, move |r| r.spare_created(&op)),
            None => Ok(()),
        }
    }
}
