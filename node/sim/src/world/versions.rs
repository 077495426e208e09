//! Members of two versions in one ensemble: those that know of the first feature level alone, until they are upgraded.
//!
//! Owns which machine runs which version, and when that changes. Must not know what a level means. Invariant: a machine
//! that only ever ran the earlier version is never asked for what it cannot do; one that has run the later one, and so may
//! have said that it can, may find no way back.

use super::{Event, Result, World};
use crate::member::Volume;
use crate::rng::Rng;
use crate::violation::Violation;
use pharos_replica::{Level, Levels, Plant};

/// Whether two versions meet in this run, and the chance that is kept for it.
pub(super) struct Versions {
    rng: Rng,
    mixed: bool,
    /// With the bugs that were there before the levels nobody goes beyond the first: it would change their seeds.
    ours: bool,
}

impl Versions {
    pub(super) fn of(seed: u64, plant: Plant) -> Self {
        let mut rng = Rng::new(seed ^ 0x6c65_7665_6c73);
        let ours = plant == Plant::None || plant.is_of_levels();
        Self { mixed: rng.per_mille(400) && ours, rng, ours }
    }

    /// What a machine can do that runs one version or the other.
    fn newest(&self) -> Level {
        if self.ours { Level::NEWEST } else { Level::FIRST }
    }

    /// Whether clients ask for what only the second level has.
    pub(super) fn asks_for_more(&self) -> bool {
        self.ours
    }

    /// The version of a machine that is new, by its volume, so that who registers it need not remember.
    fn of_volume(&self, volume: Volume, storm: bool) -> Level {
        if storm && self.mixed && volume[0].is_multiple_of(3) { Level::FIRST } else { self.newest() }
    }
}

impl World {
    pub(super) fn plan_versions(&mut self) {
        for member in 0..self.members.len() {
            let rng = &mut self.versions.rng;
            let early = self.versions.mixed && rng.per_mille(600);
            // Some are not upgraded before the storm is over.
            let upgraded_at = rng.between(500_000, 8_000_000);
            let (doubts, back_at, again) =
                (rng.per_mille(250), rng.between(2_000_000, 9_000_000), rng.between(200_000, 2_000_000));
            let level = if early { Level::FIRST } else { self.versions.newest() };
            self.members[member].install(level);
            if early {
                self.at(upgraded_at, Event::Install { member, level: Level::NEWEST });
            }
            if self.versions.mixed && doubts {
                self.at(back_at, Event::Install { member, level: Level::FIRST });
                self.at(back_at + again, Event::Install { member, level: Level::NEWEST });
            }
        }
    }

    /// A machine that was just switched on for the first time.
    pub(super) fn plan_version_of(&mut self, member: usize) {
        let level = self.version_of(self.members[member].volume);
        self.members[member].install(level);
        if level < self.versions.newest() {
            let delay = self.versions.rng.between(500_000, 4_000_000);
            self.at(delay, Event::Install { member, level: Level::NEWEST });
        }
    }

    /// What the machine of a new volume will be able to do.
    pub(super) fn version_of(&self, volume: Volume) -> Level {
        self.versions.of_volume(volume, self.storm)
    }

    /// Another version is installed: the process ends and starts as that.
    pub(super) fn install(&mut self, member: usize, level: Level) {
        if self.members[member].retired || (!self.storm && level == Level::FIRST) {
            return;
        }
        let m = &self.members[member];
        self.coverage.upgrades += u64::from(level > m.levels.max);
        self.coverage.downgrades += u64::from(level < m.levels.max);
        self.members[member].install(level);
        if self.members[member].process.is_some() {
            self.crash(member);
        } else {
            self.at(1_000, Event::Start { member });
        }
    }

    /// After the storm everybody has the later version.
    pub(super) fn install_everywhere(&mut self) {
        for member in 0..self.members.len() {
            if self.members[member].levels.max < self.versions.newest() {
                self.install(member, Level::NEWEST);
            }
        }
    }

    /// Whether each of two can carry out what the other holds, as their hellos say.
    pub(super) fn levels_agree(&self, a: usize, b: usize) -> bool {
        let holds = |at: usize| self.members[at].replica().filter(|one| !one.joins()).map(|one| one.level());
        let can = |at: usize| self.members[at].levels;
        let fits = |level: Option<Level>, levels: Levels| level.is_none_or(|level| levels.include(level));
        fits(holds(a), can(b)) && fits(holds(b), can(a))
    }

    /// A member says that it cannot carry out what has come, or what it holds: right if it had said before that it can.
    pub(super) fn beyond(&mut self, member: usize, why: &str) -> Result<()> {
        if self.members[member].levels.max == Level::NEWEST || !self.members[member].promised_newest {
            let (id, levels) = (self.members[member].id, self.members[member].levels);
            return Err(Violation::new(format!(
                "member {id}, which can only ever do levels {levels}: {why}"
            )));
        }
        self.coverage.members_beyond += 1;
        Ok(())
    }
}
