//! The simulation of one seed: members, network, clients, faults, and the clock they share.
//!
//! Owns virtual time and the order of events. Must not know how a member works. Invariant: the seed
//! decides everything, so a violation can be seen again.

mod calm;
mod checks;
mod clients;
mod disaster;
mod disks;
mod faults;
mod links;
mod machines;
mod operator;
mod versions;

use crate::client::Client;
use crate::coverage::Coverage;
use crate::member::{Member, Pace};
use crate::net::Net;
use crate::reference::Reference;
use crate::rng::Rng;
use crate::sessions::SessionClock;
use crate::violation::Violation;
use bytes::Bytes;
use disks::Disks;
use operator::Operator;
use pharos_paxos::{ConfigNo, MemberId, Millis, Slot};
use pharos_replica::{ConnId, Founding, Level, Now, Plant};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use versions::Versions;

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
    Store {
        member: usize,
        life: u64,
    },
    /// A reader of the store comes to a row.
    ReadValue {
        member: usize,
        life: u64,
        read: u64,
        key: Bytes,
        /// How often the node had been written when the read was asked for.
        written: usize,
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
    DiskFault,
    /// Something happens to this member.
    FaultAt {
        member: usize,
    },
    Heal,
    /// Another version runs there from now on, which can do up to this level.
    Install {
        member: usize,
        level: Level,
    },
    /// All volumes but one are lost.
    Disaster {
        seed: u64,
    },
    /// Whoever decides which machines are members has a look.
    Operate,
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
    /// Where a member stands in `members`.
    places: BTreeMap<MemberId, usize>,
    /// None where the founders are the members for ever.
    operator: Option<Operator>,
    versions: Versions,
    /// None where disks do as they are told.
    disks: Option<Disks>,
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
    leaders: BTreeSet<(ConfigNo, u64, u32)>,
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

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, bounds: Bounds) -> Result<Outcome> {
    let mut world = World::new(seed, bounds);
    world.plan_versions();
    world.begin();
    world.plan_disaster(seed);
    while world.coverage.events < bounds.events || world.coverage.acknowledged < bounds.acknowledged {
        if world.coverage.events > 40 * bounds.events {
            return Err(Violation::new("the storm left no room for progress: too few answers"));
        }
        world.step()?;
    }
    world.calm()?;
    let c = &mut world.coverage;
    c.unknown = world.clients.iter().map(|c| c.unknown).sum();
    let told = &world.reference.told;
    c.levels_raised = told.levels_raised;
    c.ttl_nodes = told.ttl_nodes;
    c.ttl_nodes_refused = told.ttl_nodes_refused;
    c.nodes_swept = told.nodes_swept;
    c.seals_voided = c.seals_proposed - c.voters_switched;
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
        let mut members: Vec<_> = founding.members.iter().map(|m| Member::found(m.id, &founding)).collect();
        let mut disks = Disks::of(seed);
        for member in &mut members {
            if disks.as_mut().is_some_and(Disks::draw_whole_blocks) {
                member.write_whole_blocks();
            }
        }
        let net = Net::new(&mut rng);
        let mut pace = Pace::new(&mut rng, seed);
        let mut clients: Vec<_> =
            (0..5).map(|i| Client::new(rng.between(400, 4000) as i32, i == 0)).collect();
        if disks.is_some() {
            clients.iter_mut().for_each(|client| client.writes_much = true);
            pace.bear_much();
        }
        Self {
            now: 1_000_000,
            wall_offset_ms: 1_700_000_000_000,
            seq: 0,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            places: members.iter().enumerate().map(|(at, m)| (m.id, at)).collect(),
            members,
            operator: Operator::of(seed),
            versions: Versions::of(seed, bounds.plant),
            disks,
            net,
            pace,
            conn_of: vec![None; clients.len()],
            clients,
            durable: Slot::ZERO,
            wires: BTreeMap::new(),
            next_conn: 0,
            reference: Reference::new(&founding),
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

    fn begin(&mut self) {
        for member in 0..self.members.len() {
            self.at(0, Event::Start { member });
        }
        for client in 0..self.clients.len() {
            let delay = self.rng.below(500_000);
            self.at(delay, Event::ClientWakes { client });
        }
        let delay = self.rng.between(200_000, 1_500_000);
        self.at(delay, Event::Fault);
        if self.operator.is_some() {
            self.at(0, Event::Operate);
        }
        if self.disks.is_some() {
            self.at(500_000, Event::DiskFault);
        }
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.seq += 1;
        self.heap.push(Reverse((self.now + delay, self.seq)));
        self.events.insert(self.seq, event);
    }

    fn clock(&self, member: usize) -> Now {
        let ms = self.now / 1000;
        let wall_ms = self.wall_offset_ms + self.members[member].wall_off_ms + ms as i64;
        Now { mono: Millis(ms), wall_ms }
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
            Event::Store { member, life } => self.store(member, life),
            Event::ReadValue { member, life, read, key, written } => {
                self.read_value(member, life, read, &key, written)
            }
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
            Event::DiskFault => {
                self.disk_fault();
                Ok(())
            }
            Event::FaultAt { member } => {
                self.trouble(member);
                Ok(())
            }
            Event::Heal => {
                self.heal();
                Ok(())
            }
            Event::Install { member, level } => {
                self.install(member, level);
                Ok(())
            }
            Event::Disaster { seed } => self.disaster(seed),
            Event::Operate => self.operate(),
        }
    }
}
