//! The simulation of one seed: members, network, clients, faults, and the clock they share.
//!
//! Owns virtual time and the order of events. Must not know how a member works. Invariant: the seed
//! decides everything, so a violation can be seen again.

mod clients;
mod faults;

use crate::client::Client;
use crate::coverage::Coverage;
use crate::member::{Member, Pace, Started};
use crate::net::Net;
use crate::reference::Reference;
use crate::rng::Rng;
use crate::sessions::SessionClock;
use crate::violation::Violation;
use bytes::Bytes;
use pharos_paxos::{MemberId, Millis, Slot};
use pharos_replica::{ConnId, Founding, Now, Output, Plant, Replica};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

type Result<T> = std::result::Result<T, Violation>;

/// How long and how hard a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Events of the stormy part.
    pub events: u64,
    /// Acknowledged operations of the stormy part.
    pub acknowledged: u64,
    /// The bug to run with.
    pub plant: Plant,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events: 20_000, acknowledged: 200, plant: Plant::None }
    }
}

enum Event {
    Tick {
        member: usize,
        life: u64,
    },
    Turn {
        member: usize,
        life: u64,
    },
    Frame {
        link: u64,
        from: MemberId,
        to: MemberId,
        frame: Bytes,
        sent: u64,
    },
    LinkUp {
        a: usize,
        b: usize,
    },
    PeerDown {
        member: usize,
        life: u64,
        peer: MemberId,
    },
    Disk {
        member: usize,
        life: u64,
    },
    Spare {
        member: usize,
        life: u64,
    },
    Flush {
        member: usize,
        life: u64,
    },
    Snapshot {
        member: usize,
        life: u64,
    },
    Start {
        member: usize,
    },
    ClientWakes {
        client: usize,
    },
    ToMember {
        conn: ConnId,
        frame: Vec<u8>,
    },
    /// A member that was paused reads what came meanwhile.
    ReadOn {
        conn: ConnId,
    },
    ToClient {
        conn: ConnId,
        frame: Vec<u8>,
    },
    ClientGone {
        conn: ConnId,
    },
    MemberGone {
        conn: ConnId,
    },
    Fault,
    Heal,
}

/// Where a connection of a client ends.
struct Wire {
    client: usize,
    member: usize,
    life: u64,
    boot: u64,
    last_in: u64,
    last_out: u64,
    /// What has come and the member has not read.
    unread: VecDeque<Vec<u8>>,
    /// The member has heard of it.
    opened: bool,
}

struct World {
    rng: Rng,
    now: u64,
    wall_offset_ms: i64,
    seq: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    members: Vec<Member>,
    net: Net,
    pace: Pace,
    clients: Vec<Client>,
    /// Up to here what is chosen was seen to be durable on a majority.
    durable: Slot,
    wires: BTreeMap<ConnId, Wire>,
    conn_of: Vec<Option<ConnId>>,
    next_conn: u64,
    reference: Reference,
    clock: SessionClock,
    written: i64,
    last_arrival: BTreeMap<(MemberId, MemberId), u64>,
    storm: bool,
    founding: Founding,
    volume_lost: bool,
    leaders: BTreeSet<(u64, u32)>,
    bounds: Bounds,
    coverage: Coverage,
    hash: u64,
}

/// What one seed did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it met.
    pub coverage: Coverage,
    /// A hash of every event in order: equal runs have equal hashes.
    pub trace: u64,
}

/// Virtual microseconds within which a healed ensemble must serve every client again.
const PATIENCE_US: u64 = 60_000_000;
/// Answers that each client must get after the storm.
const CALM_ANSWERS: u64 = 20;

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, bounds: Bounds) -> Result<Outcome> {
    let mut world = World::new(seed, bounds);
    world.begin()?;
    while world.coverage.events < bounds.events || world.coverage.acknowledged < bounds.acknowledged {
        if world.coverage.events > 40 * bounds.events {
            return Err(Violation::new("the storm left no room for progress: too few answers"));
        }
        world.step()?;
    }
    world.calm()?;
    world.coverage.unknown = world.clients.iter().map(|c| c.unknown).sum();
    Ok(Outcome { coverage: world.coverage, trace: world.hash })
}

impl World {
    fn new(seed: u64, bounds: Bounds) -> Self {
        let mut rng = Rng::new(seed);
        let count = *rng.pick(&[1, 3, 3, 3, 3, 5]);
        let founder = |id: u32| pharos_replica::Member {
            id: MemberId(id),
            volume: [id as u8; 16],
            host: format!("m{id}"),
            peer_port: 1,
            client_port: 2,
        };
        let founding = Founding {
            cluster: [1; 16],
            generation: 1,
            secret: [2; 16],
            members: (1..=count).map(founder).collect(),
        };
        let members = founding.members.iter().map(|m| Member::found(m.id, &founding)).collect();
        let net = Net::new(&mut rng);
        let pace = Pace::new(&mut rng);
        let clients: Vec<_> = (0..5).map(|i| Client::new(rng.between(400, 4000) as i32, i == 0)).collect();
        Self {
            now: 1_000_000,
            wall_offset_ms: 1_700_000_000_000,
            seq: 0,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            members,
            net,
            pace,
            conn_of: vec![None; clients.len()],
            clients,
            durable: Slot::ZERO,
            wires: BTreeMap::new(),
            next_conn: 0,
            reference: Reference::new(),
            clock: SessionClock::default(),
            written: 0,
            last_arrival: BTreeMap::new(),
            storm: true,
            founding,
            volume_lost: false,
            leaders: BTreeSet::new(),
            bounds,
            coverage: Coverage::default(),
            hash: seed,
            rng,
        }
    }

    fn begin(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.at(0, Event::Start { member });
        }
        for client in 0..self.clients.len() {
            let delay = self.rng.below(500_000);
            self.at(delay, Event::ClientWakes { client });
        }
        let delay = self.rng.between(200_000, 1_500_000);
        self.at(delay, Event::Fault);
        Ok(())
    }

    /// After the storm: everything is healed and started, and every client must be served.
    fn calm(&mut self) -> Result<()> {
        self.storm = false;
        self.heal();
        for member in 0..self.members.len() {
            if self.members[member].process.is_none() {
                self.at(0, Event::Start { member });
            }
        }
        let until = self.now + PATIENCE_US;
        let wanted = self.coverage.acknowledged + CALM_ANSWERS * self.clients.len() as u64;
        while !(self.coverage.acknowledged >= wanted && self.converged()) {
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

    /// Every member that still has its volume has applied everything.
    fn converged(&self) -> bool {
        let end = self.reference.end();
        let done = |m: &Member| m.process.as_ref().is_some_and(|p| p.replica.digest().0 == end);
        self.members.iter().all(|m| m.lost || done(m))
    }

    fn picture(&self) -> String {
        let one = |m: &Member| match &m.process {
            None => format!("{} down", m.id),
            Some(p) => {
                let s = p.replica.status();
                format!(
                    "{} {:?} applied {} durable {} serving {}",
                    m.id, s.role, s.applied, s.durable, s.serving
                )
            }
        };
        self.members.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.seq += 1;
        self.heap.push(Reverse((self.now + delay, self.seq)));
        self.events.insert(self.seq, event);
    }

    fn clock(&self) -> Now {
        let ms = self.now / 1000;
        Now { mono: Millis(ms), wall_ms: self.wall_offset_ms + ms as i64 }
    }

    fn step(&mut self) -> Result<()> {
        let Reverse((time, seq)) = self.heap.pop().expect("members tick for ever");
        let event = self.events.remove(&seq).expect("every event on the heap is stored");
        assert!(time >= self.now, "time does not go back");
        self.now = time;
        self.coverage.events += 1;
        self.hash = (self.hash ^ time ^ seq).wrapping_mul(0x0000_0100_0000_01b3);
        match event {
            Event::Tick { member, life } => self.tick(member, life),
            Event::Turn { member, life } => self.turn_of(member, life, |_| {}),
            Event::Frame { link, from, to, frame, sent } => self.frame(link, from, to, frame, sent),
            Event::LinkUp { a, b } => self.link_up(a, b),
            Event::PeerDown { member, life, peer } => self.turn_of(member, life, |r| r.peer_down(peer)),
            Event::Disk { member, life } => self.disk(member, life),
            Event::Spare { member, life } => self.spare(member, life),
            Event::Flush { member, life } => self.flush(member, life),
            Event::Snapshot { member, life } => self.snapshot(member, life),
            Event::Start { member } => self.start(member),
            Event::ClientWakes { client } => self.client_wakes(client),
            Event::ToMember { conn, frame } => self.at_member(conn, frame),
            Event::ReadOn { conn } => self.read_on(conn),
            Event::ToClient { conn, frame } => self.at_client(conn, &frame),
            Event::ClientGone { conn } => self.client_gone(conn),
            Event::MemberGone { conn } => {
                self.drop_wire(conn);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Heal => {
                self.heal();
                Ok(())
            }
        }
    }

    /// Lets a member run: the time, one input, then what it does about it.
    fn turn_of(&mut self, member: usize, life: u64, input: impl FnOnce(&mut Replica)) -> Result<()> {
        let (now, paused) = (self.clock(), self.members[member].paused_until);
        if self.members[member].life != life {
            return Ok(());
        }
        if paused > self.now {
            // A paused process keeps its sockets; what came is read when it goes on, but for what this
            // simulation drops: a lost message, which the protocol must bear.
            return Ok(());
        }
        let Some(process) = &mut self.members[member].process else { return Ok(()) };
        process.replica.tick(now);
        input(&mut process.replica);
        let more = process.replica.pump();
        self.after_turn(member)?;
        let roomy = self.members[member].process.as_ref().is_some_and(|p| p.replica.has_work());
        self.coverage.reads_held_back += u64::from(roomy);
        let more = more || roomy;
        if more {
            self.at(20, Event::Turn { member, life });
        }
        Ok(())
    }

    /// What a leader takes for chosen is durable on a majority. Members that do not run may hold it.
    fn check_durable(&mut self, member: usize) -> Result<()> {
        let Some(leader) = self.members[member].replica().filter(|one| one.leads_in().is_some()) else {
            return Ok(());
        };
        let Some(entry) = leader.last_chosen().filter(|entry| entry.slot > self.durable) else {
            return Ok(());
        };
        let lacks = |m: &&Member| m.replica().is_some_and(|one| !one.is_durable(entry));
        let lacking = self.members.iter().filter(lacks).count();
        if lacking > (self.members.len() - 1) / 2 {
            return Err(Violation::new(format!(
                "durability: {lacking} members lack chosen slot {}",
                entry.slot
            )));
        }
        self.durable = entry.slot;
        Ok(())
    }

    fn after_turn(&mut self, member: usize) -> Result<()> {
        let m = &mut self.members[member];
        let Some(process) = &mut m.process else { return Ok(()) };
        if self.reference.observe(&mut m.seen, &process.replica)? {
            self.coverage.installed_states += 1;
        }
        for session in std::mem::take(&mut self.reference.expired) {
            self.coverage.sessions_expired += 1;
            self.clock.ended(session, self.now)?;
        }
        if let Some(ballot) = process.replica.leads_in()
            && self.leaders.insert((ballot.round, ballot.member.0))
        {
            self.coverage.leaders += 1;
        }
        self.check_durable(member)?;
        self.flush_clients(member);
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
            Output::Snapshot => {
                let delay = self.rng.between(500, 40_000);
                self.at(delay, Event::Snapshot { member, life });
            }
            Output::CloseClient { conn, last_words, .. } => {
                self.say(member, conn, &last_words);
                self.closed_by_member(conn);
            }
            Output::Members | Output::Diverged { .. } => {}
            Output::Fatal { reason } => return Err(Violation::new(format!("a member gave up: {reason}"))),
        }
        Ok(())
    }

    fn tick(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life == life {
            self.at(10_000, Event::Tick { member, life });
        }
        self.turn_of(member, life, |_| {})
    }

    fn disk(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        if self.storm && self.rng.per_mille(self.pace.crashes) {
            self.crash(member);
            return Ok(());
        }
        let (done, more) = self.members[member].disk_step();
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
    fn resume(&mut self, member: usize, life: u64, input: impl FnOnce(&mut Replica)) -> Result<()> {
        let paused = std::mem::take(&mut self.members[member].paused_until);
        self.turn_of(member, life, input)?;
        self.members[member].paused_until = paused;
        Ok(())
    }

    fn spare(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        match self.members[member].create_spare() {
            Some(op) => self.resume(member, life, move |r| r.spare_created(&op)),
            None => Ok(()),
        }
    }

    fn flush(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        match self.members[member].flush() {
            Some(applied) => self.resume(member, life, move |r| r.persisted(applied)),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self, member: usize, life: u64) -> Result<()> {
        if self.members[member].life != life {
            return Ok(());
        }
        let (upto, snapshot) = self.members[member].snapshot();
        self.resume(member, life, move |r| r.snapshot_read(upto, snapshot))
    }

    fn start(&mut self, member: usize) -> Result<()> {
        if self.members[member].process.is_some() {
            return Ok(());
        }
        let (now, life) = (self.clock(), self.members[member].life);
        let (pace, plant) = (self.pace, self.bounds.plant);
        let started = self.members[member].start(now, &mut self.rng, pace, plant).map_err(Violation::new)?;
        if started == Started::Blank {
            self.coverage.blank_starts += 1;
            return Ok(());
        }
        self.coverage.restarts += u64::from(life > 0);
        self.coverage.restarts_from_store += u64::from(started == Started::FromStore);
        self.at(0, Event::Tick { member, life });
        for other in 0..self.members.len() {
            if other != member {
                let delay = self.rng.between(500, 30_000);
                self.at(delay, Event::LinkUp { a: member, b: other });
            }
        }
        Ok(())
    }
}
