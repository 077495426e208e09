//! Whoever decides which machines are members: it registers them, waits, changes the voters, lets go.
//!
//! Owns what is wanted and the requests for it. Must not know more than an operator can: each look begins with what some
//! leader says, who may be one no longer, and all that is remembered from one look to the next is what is wanted. So it
//! can end between any two requests. Invariant: of any voters it asks for, a majority has its volumes.

use super::disks::Disks;
use super::{Event, Result, World};
use crate::member::{Member, Permit, Volume};
use crate::rng::Rng;
use pharos_paxos::{ConfigNo, MemberId};
use pharos_replica::{Change, ChangeError, Founding, Levels, Registry, Replica};
use std::collections::BTreeSet;

pub(super) struct Operator {
    rng: Rng,
    /// The volumes that are to vote; none while all is as it should be.
    target: Option<Vec<Volume>>,
    rest_until: u64,
    /// Volumes made so far.
    made: u32,
    /// The voters that a leader was asked for and did not refuse, with their configuration.
    asked: Vec<(ConfigNo, Vec<MemberId>)>,
    /// Removed members that stay switched on.
    kept: BTreeSet<MemberId>,
}

/// The next thing to do for what is wanted.
enum Step {
    Wait,
    /// It has come about.
    Rest,
    /// It cannot come about any more, or it is time for something else.
    Aim,
    Register(Volume),
    Switch(MemberId, Volume),
    Seat(Vec<MemberId>),
    Dismiss(MemberId),
}

impl Operator {
    /// Some seeds have none.
    pub(super) fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed ^ 0x6f70_6572_6174_6f72);
        let (rest_until, made) = (rng.between(1_000_000, 4_000_000), 0);
        let (asked, kept) = (Vec::new(), BTreeSet::new());
        rng.per_mille(650).then_some(Self { rng, target: None, rest_until, made, asked, kept })
    }

    fn new_volume(&mut self) -> Volume {
        self.made += 1;
        let mut volume = [0xaa; 16];
        volume[..4].copy_from_slice(&self.made.to_le_bytes());
        volume
    }
}

fn registration(volume: Volume) -> Change {
    let host = format!("v{}", volume[0]);
    let id = MemberId(0);
    Change::Add(pharos_replica::Member { id, volume, host, peer_port: 1, client_port: 2 })
}

impl World {
    /// What the operator wants and does not have.
    pub(super) fn target(&self) -> Option<&[Volume]> {
        self.operator.as_ref().and_then(|operator| operator.target.as_deref())
    }

    pub(super) fn is_as_wanted(&self) -> bool {
        self.target().is_none()
    }

    /// One look.
    pub(super) fn operate(&mut self) -> Result<()> {
        let storm = self.storm;
        let Some(operator) = &mut self.operator else { return Ok(()) };
        let next = if storm { operator.rng.between(1_000, 250_000) } else { 50_000 };
        let (dead, odd) = (operator.rng.per_mille(200), operator.rng.per_mille(80));
        self.at(next, Event::Operate);
        if storm && dead {
            return Ok(());
        }
        self.switch_off_removed();
        if storm && odd {
            self.ask_oddly()?;
        }
        let Some(leader) = self.some_leader() else { return Ok(()) };
        if storm {
            self.trouble_soon(leader, 40);
        }
        match self.next_step(leader) {
            Step::Wait => {}
            Step::Rest => self.rest(),
            Step::Aim => self.aim(leader),
            Step::Register(volume) => {
                let levels = Levels::KNOWN.up_to(self.version_of(volume));
                let ask = |r: &mut Replica| {
                    r.admits(levels)?;
                    r.change_members(&registration(volume))
                };
                let answer = self.request(leader, ask)?;
                self.coverage.joiners_refused += u64::from(matches!(answer, Err(ChangeError::Level(_))));
            }
            Step::Switch(id, volume) => self.switch_on(leader, id, volume),
            Step::Seat(voters) => self.seat(leader, voters)?,
            Step::Dismiss(id) => {
                if self.request(leader, |r| r.change_members(&Change::Remove(id)))?.is_ok() {
                    self.coverage.learners_dismissed += 1;
                }
            }
        }
        Ok(())
    }

    fn draw(&mut self) -> &mut Rng {
        &mut self.operator.as_mut().expect("only an operator asks").rng
    }

    /// A member that believes to lead, if one answers.
    fn some_leader(&mut self) -> Option<usize> {
        let leads = |m: &Member| m.replica().is_some_and(|one| one.leads_in().is_some());
        let now = self.now;
        let answers = |m: &Member| m.paused_until <= now && leads(m);
        let leaders: Vec<_> = (0..self.members.len()).filter(|at| answers(&self.members[*at])).collect();
        (!leaders.is_empty()).then(|| *self.draw().pick(&leaders))
    }

    fn registry(&self, member: usize) -> &Registry {
        self.members[member].replica().expect("it was just seen to run").registry()
    }

    fn of_volume(&self, volume: Volume) -> Option<&Member> {
        self.members.iter().find(|m| m.volume == volume)
    }

    fn next_step(&mut self, leader: usize) -> Step {
        let storm = self.storm;
        let now = self.now;
        let Some(operator) = &mut self.operator else { return Step::Wait };
        let bored = storm && operator.rng.per_mille(15);
        let Some(target) = operator.target.clone() else {
            let due = storm && now >= operator.rest_until;
            return if due { Step::Aim } else { Step::Wait };
        };
        if bored {
            return Step::Aim;
        }
        let registry = self.registry(leader);
        let mut ids = Vec::new();
        for volume in target {
            let machine = self.of_volume(volume);
            if machine.is_some_and(|m| m.lost || m.damage.is_some() || registry.was_removed(m.id)) {
                return Step::Aim;
            }
            match (registry.members().iter().find(|m| m.volume == volume), machine) {
                (Some(m), Some(_)) => ids.push(m.id),
                (Some(m), None) => return Step::Switch(m.id, volume),
                (None, Some(_)) => return Step::Wait, // This leader is behind.
                (None, None) => return Step::Register(volume),
            }
        }
        ids.sort_unstable();
        if ids == registry.membership().voters {
            let extra = registry.members().iter().map(|m| m.id).find(|id| !ids.contains(id));
            return extra.map_or(Step::Rest, Step::Dismiss);
        }
        let status = self.members[leader].replica().expect("it was just seen to run").status();
        let follows = |id: &MemberId| status.peers.iter().any(|peer| peer.member == *id && peer.keeps_up);
        let ready = ids.iter().all(|id| registry.membership().has(*id) || follows(id));
        if ready { Step::Seat(ids) } else { Step::Wait }
    }

    fn rest(&mut self) {
        let now = self.now;
        if let Some(operator) = &mut self.operator {
            operator.target = None;
            operator.rest_until = now + operator.rng.below(3_000_000);
        }
        self.coverage.wishes_granted += 1;
    }

    /// Wants something else: some of the members that have their volumes, and new ones.
    fn aim(&mut self, leader: usize) {
        let registry = self.registry(leader);
        let has_volume = |m: &&pharos_replica::Member| {
            self.of_volume(m.volume).is_none_or(|one| !one.lost && one.damage.is_none())
        };
        let sound: Vec<_> = registry.members().iter().filter(has_volume).map(|m| m.volume).collect();
        let Some(operator) = &mut self.operator else { return };
        let size = *operator.rng.pick(&[1, 2, 3, 3, 3, 4, 5]);
        let mut pool = sound;
        let kept = operator.rng.below(pool.len().min(size) as u64 + 1) as usize;
        let mut target = Vec::new();
        while target.len() < kept {
            let at = operator.rng.below(pool.len() as u64) as usize;
            target.push(pool.swap_remove(at));
        }
        while target.len() < size {
            target.push(operator.new_volume());
        }
        operator.target = Some(target);
    }

    fn switch_on(&mut self, leader: usize, id: MemberId, volume: Volume) {
        let members = self.registry(leader).members().iter().map(|m| m.id).collect();
        let founding = Founding { secret: [0; 16], ..self.founding.clone() };
        let member = self.members.len();
        let mut joining = Member::joining(id, volume, Permit { founding, members });
        if self.disks.as_mut().is_some_and(Disks::draw_whole_blocks) {
            joining.write_whole_blocks();
        }
        self.members.push(joining);
        let before = self.places.insert(id, member);
        assert!(before.is_none(), "an id is given once");
        self.plan_version_of(member);
        let delay = self.draw().below(300_000);
        self.at(delay, Event::Start { member });
        if self.draw().per_mille(300) {
            let after = self.draw().below(400_000);
            self.at(delay + after, Event::FaultAt { member });
        }
    }

    fn seat(&mut self, leader: usize, voters: Vec<MemberId>) -> Result<()> {
        let config = self.registry(leader).membership().config;
        if self.request(leader, |r| r.change_voters(config, &voters))?.is_ok() {
            self.note_asked(leader, config, voters);
        }
        Ok(())
    }

    fn note_asked(&mut self, leader: usize, config: ConfigNo, voters: Vec<MemberId>) {
        self.coverage.seals_proposed += 1;
        self.trouble_soon(leader, 500);
        if let Some(operator) = &mut self.operator {
            operator.asked.push((ConfigNo(config.0 + 1), voters));
        }
    }

    /// Asks a member for something, as its admin port does.
    fn request(
        &mut self,
        member: usize,
        ask: impl FnOnce(&mut Replica) -> std::result::Result<(), ChangeError>,
    ) -> Result<std::result::Result<(), ChangeError>> {
        let mut answer = Err(ChangeError::NotLeader);
        let life = self.members[member].life;
        self.turn_of(member, life, |r| answer = ask(r))?;
        self.coverage.requests_refused += u64::from(answer.is_err());
        Ok(answer)
    }

    /// Asks someone for what may be wrong, or may come at a bad moment.
    fn ask_oddly(&mut self) -> Result<()> {
        let count = self.members.len() as u64;
        let anyone = self.draw().below(count) as usize;
        let leader = self.some_leader();
        let at = leader.filter(|_| self.draw().per_mille(850)).unwrap_or(anyone);
        if self.members[at].replica().is_none() || self.members[at].paused_until > self.now {
            return Ok(());
        }
        let registry = self.registry(at).clone();
        let config = registry.membership().config;
        let id = MemberId(self.draw().between(1, u64::from(registry.next_id().0) + 1) as u32);
        match self.draw().below(8) {
            0 => drop(self.request(at, |r| r.change_members(&Change::Remove(id)))?),
            1 => {
                let other = ConfigNo(config.0 ^ 1);
                let voters: Vec<_> = registry.members().iter().map(|m| m.id).collect();
                drop(self.request(at, |r| r.change_voters(other, &voters))?);
            }
            2 => drop(self.request(at, |r| r.change_voters(config, &[]))?),
            3 => {
                let voters = self.some_of(&registry);
                if self.could_go_on(&voters) {
                    self.seat(at, voters)?;
                }
            }
            4 => {
                let member = self.draw().pick(registry.members()).clone();
                let moved = pharos_replica::Member { host: format!("{}x", member.host), ..member };
                drop(self.request(at, |r| r.change_members(&Change::Add(moved)))?);
            }
            5 => return self.remove_and_seat(at, &registry),
            6 => {
                let life = self.members[at].life;
                self.turn_of(at, life, |r| drop(r.transfer(id)))?;
            }
            _ => {
                let volume = self.operator.as_mut().expect("it asks").new_volume();
                drop(self.request(at, |r| r.change_members(&registration(volume)))?);
            }
        }
        Ok(())
    }

    /// A learner is removed and given a vote in one breath.
    fn remove_and_seat(&mut self, at: usize, registry: &Registry) -> Result<()> {
        let learners = registry.members().iter().map(|m| m.id).filter(|id| !registry.membership().has(*id));
        let learners: Vec<_> = learners.collect();
        if learners.is_empty() {
            return Ok(());
        }
        let learner = *self.draw().pick(&learners);
        let config = registry.membership().config;
        let mut voters = registry.membership().voters.clone();
        voters.push(learner);
        voters.sort_unstable();
        if !self.could_go_on(&voters) {
            return Ok(());
        }
        let answer = self.request(at, |r| {
            r.change_members(&Change::Remove(learner))?;
            r.change_voters(config, &voters)
        })?;
        if answer.is_ok() {
            self.note_asked(at, config, voters);
        }
        Ok(())
    }

    /// In so many of a thousand cases.
    fn trouble_soon(&mut self, member: usize, share: u64) {
        if self.draw().per_mille(share) {
            let most = *self.draw().pick(&[500, 3_000, 30_000]);
            let delay = self.draw().below(most);
            self.at(delay, Event::FaultAt { member });
        }
    }

    fn some_of(&mut self, registry: &Registry) -> Vec<MemberId> {
        let all: Vec<_> = registry.members().iter().map(|m| m.id).collect();
        let share = self.draw().between(300, 1000);
        let some = all.iter().copied().filter(|_| self.draw().per_mille(share)).collect::<Vec<_>>();
        if some.is_empty() { all } else { some }
    }

    fn has_volume(&self, id: MemberId) -> bool {
        let sound = |m: &Member| !m.lost && !m.retired && m.damage.is_none();
        self.places.get(&id).is_some_and(|at| sound(&self.members[*at]))
    }

    fn could_go_on(&self, voters: &[MemberId]) -> bool {
        voters.iter().filter(|voter| self.has_volume(**voter)).count() > voters.len() / 2
    }

    /// Whether every configuration that may be the current one, or become it, goes on without this member's volume.
    pub(super) fn can_spare(&self, member: usize) -> bool {
        let id = self.members[member].id;
        let (settled, current) = (self.reference.settled(), self.reference.roll().membership());
        let chosen = (settled.0..=current.config.0).filter_map(|no| self.reference.voters_in(ConfigNo(no)));
        let asked = self.operator.iter().flat_map(|operator| &operator.asked);
        let asked = asked.filter(|(config, _)| *config > current.config).map(|(_, voters)| &voters[..]);
        let spares = |voters: &[MemberId]| {
            let left = voters.iter().filter(|voter| **voter != id && self.has_volume(**voter)).count();
            !voters.contains(&id) || left > voters.len() / 2
        };
        chosen.chain(asked).all(spares)
    }

    /// Machines that belonged to the ensemble, once something is chosen without them; some stay on.
    fn switch_off_removed(&mut self) {
        let roll = self.reference.roll();
        if self.reference.settled() < roll.membership().config {
            return;
        }
        let Some(operator) = &mut self.operator else { return };
        let gone = |m: &&Member| !m.retired && roll.was_removed(m.id) && !operator.kept.contains(&m.id);
        let Some(id) = self.members.iter().find(gone).map(|m| m.id) else { return };
        match operator.rng.below(100) {
            0..85 => {}
            85..90 => {
                operator.kept.insert(id);
            }
            _ => {
                let member = self.places[&id];
                self.crash(member);
                self.members[member].retired = true;
                self.coverage.members_switched_off += 1;
            }
        }
    }
}
