//! Machines that run: their turns, their disks, their starts.
//!
//! Owns what becomes of a member's outputs. Must not know what is wrong with the network. Invariant: what was under way
//! for an earlier life of a machine is never heard by a later one.

use super::{Event, Result, World};
use crate::member::{Started, Step, StoreDone, StoreJob};
use crate::violation::Violation;
use pharos_replica::{Level, Output, Replica};

impl World {
    /// Lets a member run: the time, one input, then what it does about it.
    pub(super) fn turn_of(
        &mut self,
        member: usize,
        life: u64,
        input: impl FnOnce(&mut Replica),
    ) -> Result<()> {
        let (now, paused) = (self.clock(member), self.members[member].paused_until);
        if self.members[member].life != life {
            return Ok(());
        }
        if paused > self.now {
            // A paused process keeps its sockets; what came is read when it goes on, but for what this
            // simulation drops: a lost message, which the protocol must bear.
            return Ok(());
        }
        let Some(process) = &mut self.members[member].process else { return Ok(()) };
        let half_way = |r: &Replica| (!r.is_between_slots(), r.gathers(), r.fenced());
        let transfers = process.replica.transfers();
        let before = half_way(&process.replica);
        process.replica.tick(now);
        input(&mut process.replica);
        let more = process.replica.pump();
        let (ends, gathers, fenced) = half_way(&process.replica);
        self.coverage.endings_in_slices += u64::from(ends && !before.0);
        self.coverage.cuts_in_slices += u64::from(gathers && !before.1);
        let now = process.replica.transfers();
        self.coverage.transfers_resumed += now.resumed - transfers.resumed;
        self.coverage.transfers_held_back += now.held_back - transfers.held_back;
        self.coverage.reads_fenced += fenced.saturating_sub(before.2) as u64;
        self.after_turn(member)?;
        let roomy = self.members[member].process.as_ref().is_some_and(|p| p.replica.has_work());
        self.coverage.reads_held_back += u64::from(roomy);
        let more = more || roomy;
        if more {
            // What is half-way is seen by whoever comes between two turns.
            let delay = if ends { self.rng.between(20, 2_000) } else { 20 };
            self.at(delay, Event::Turn { member, life });
        }
        Ok(())
    }

    fn after_turn(&mut self, member: usize) -> Result<()> {
        let m = &mut self.members[member];
        let Some(process) = &mut m.process else { return Ok(()) };
        if self.reference.observe(&mut m.seen, &process.replica)? {
            self.coverage.installed_states += 1;
            self.coverage.states_of_joiners += u64::from(!std::mem::replace(&mut m.told.stated, true));
        }
        for session in std::mem::take(&mut self.reference.expired) {
            self.coverage.sessions_expired += 1;
            self.clock.ended(session, self.now)?;
        }
        self.check_seals()?;
        self.check_leader(member)?;
        self.check_durable(member)?;
        self.flush_clients(member)?;
        while let Some(output) = self.members[member].process.as_mut().and_then(|p| p.replica.next_output()) {
            self.carry_out(member, output)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, member: usize, output: Output) -> Result<()> {
        let life = self.members[member].life;
        match output {
            Output::Peer { to, frame, .. } => self.send(self.members[member].id, to, &frame),
            Output::Log { io, ops } => {
                if self.members[member].enqueue(io, ops) {
                    let delay = self.pace.disk_delay(&mut self.rng);
                    self.at(delay, Event::Disk { member, life });
                }
            }
            Output::Spare { op } => {
                if let Some(process) = &mut self.members[member].process {
                    process.spare = Some(op);
                }
                self.at(5000, Event::Spare { member, life });
            }
            Output::Persist { batch } => {
                if let Some(process) = &mut self.members[member].process {
                    process.persist = Some(batch);
                }
                let delay = self.rng.between(500, 40_000);
                self.at(delay, Event::Flush { member, life });
            }
            Output::Snapshot { transfer, step } => {
                self.ask_store(member, StoreJob::Snapshot { transfer, step });
            }
            Output::Store { arrival, first, last, rows } => {
                self.coverage.states_cut += u64::from(first && !last);
                self.ask_store(member, StoreJob::Store { arrival, first, last, rows });
            }
            Output::Abandon => self.ask_store(member, StoreJob::Abandon),
            Output::Discard { .. } => {}
            Output::ReadValue { read, key } => {
                self.coverage.cold_reads += 1;
                let written = self.reference.times_written(&key);
                let delay = self.pace.disk_delay(&mut self.rng);
                self.at(delay, Event::ReadValue { member, life, read, key, written });
            }
            Output::CloseClient { conn, last_words, .. } => {
                self.say(member, conn, &last_words);
                self.closed_by_member(conn);
            }
            Output::Diverged { slot } => {
                return Err(Violation::new(format!(
                    "a member's state differs from that of the others at slot {slot}"
                )));
            }
            Output::Members => {
                self.note_members(member);
                self.meet(member);
            }
            Output::Fatal { reason } if reason.contains("feature level") => {
                self.beyond(member, &reason)?;
                self.crash(member);
            }
            Output::Fatal { reason } => return Err(Violation::new(format!("a member gave up: {reason}"))),
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life == life {
            self.at(10_000, Event::Tick { member, life });
        }
        self.turn_of(member, life, |_| {})
    }

    pub(super) fn disk(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        if self.storm && self.rng.per_mille(self.pace.crashes) {
            self.crash(member);
            return Ok(());
        }
        let hangs_until = self.members[member].trouble.hangs_until;
        if hangs_until > self.now {
            self.at(hangs_until - self.now, Event::Disk { member, life });
            return Ok(());
        }
        let (done, more) = match self.members[member].disk_step(self.now, &mut self.rng) {
            Step::Done(done, more) => (done, more),
            Step::Failed(refusal) => {
                self.refused(member, refusal);
                return Ok(());
            }
        };
        if more {
            let delay = self.pace.disk_delay(&mut self.rng);
            self.at(delay, Event::Disk { member, life });
        }
        match done {
            Some(io) => self.resume(member, life, move |r| r.log_done(io)),
            None => Ok(()),
        }
    }

    /// A completion is never lost: a paused process takes it when it goes on.
    pub(super) fn resume(
        &mut self,
        member: usize,
        life: u64,
        input: impl FnOnce(&mut Replica),
    ) -> Result<()> {
        let paused = std::mem::take(&mut self.members[member].paused_until);
        self.turn_of(member, life, input)?;
        self.members[member].paused_until = paused;
        Ok(())
    }

    pub(super) fn flush(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        match self.members[member].flush() {
            Some(applied) => self.resume(member, life, move |r| r.persisted(applied)),
            None => Ok(()),
        }
    }

    fn ask_store(&mut self, member: usize, job: StoreJob) {
        let life = self.members[member].life;
        if let Some(process) = &mut self.members[member].process {
            process.jobs.push_back(job);
        }
        let delay = self.rng.between(100, 10_000);
        self.at(delay, Event::Store { member, life });
    }

    pub(super) fn store(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        let done = self.members[member].store_step(self.pace);
        match done.map_err(|why| Violation::new(format!("a state is refused: {why}")))? {
            StoreDone::Opened { transfer, upto } => {
                self.resume(member, life, move |r| r.snapshot_opened(transfer, upto))
            }
            StoreDone::Part { transfer, rows } => {
                self.resume(member, life, move |r| r.snapshot_part(transfer, rows))
            }
            StoreDone::Stored { arrival, arrived } => {
                self.resume(member, life, move |r| r.part_stored(arrival, arrived))
            }
            StoreDone::Nothing => Ok(()),
        }
    }

    pub(super) fn read_value(
        &mut self,
        member: usize,
        life: u64,
        read: u64,
        key: &[u8],
        written: usize,
    ) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        self.coverage.cold_reads_overtaken += u64::from(self.reference.times_written(key) > written);
        let row = self.members[member].row(key, &mut self.rng);
        self.resume(member, life, move |r| r.value_read(read, row.as_deref()))
    }

    pub(super) fn start(&mut self, member: usize) -> Result<()> {
        if self.members[member].process.is_some() || self.members[member].retired {
            return Ok(());
        }
        let (now, life) = (self.clock(member), self.members[member].life);
        let (pace, plant) = (self.pace, self.bounds.plant);
        let started = self.members[member].start(now, &mut self.rng, pace, plant);
        let (started, mended) = started.map_err(Violation::new)?;
        self.coverage.logs_mended += u64::from(mended.log);
        self.coverage.stores_mended += u64::from(mended.store);
        match started {
            Started::Beyond => return self.beyond(member, "its disk holds more"),
            Started::Blank => self.coverage.blank_starts += 1,
            Started::GaveUp => self.coverage.identities_given_up += 1,
            Started::Refused | Started::FromLog | Started::FromStore { .. } => {}
        }
        self.coverage.early_starts += u64::from(self.members[member].levels.max < Level::NEWEST);
        if self.members[member].process.is_none() {
            return Ok(());
        }
        self.coverage.restarts += u64::from(life > 0);
        if let Started::FromStore { ahead, cold } = started {
            self.coverage.restarts_from_store += 1;
            self.coverage.restarts_ahead_of_log += u64::from(ahead);
            self.coverage.restarts_with_cold_values += u64::from(cold);
        }
        self.at(0, Event::Tick { member, life });
        for other in 0..self.members.len() {
            if other != member && !self.members[other].retired {
                let delay = self.rng.between(500, 30_000);
                self.at(delay, Event::LinkUp { a: member, b: other });
            }
        }
        Ok(())
    }
}
