//! Cores joined by a wire and disks that the test moves by hand.

use crate::oracle::Oracle;
use bytes::Bytes;
use pharos_paxos::{
    Ballot, Config, ConfigNo, Entry, EntryKind, HardState, IoId, LogOp, MemberId, Membership, Message,
    Millis, NotLeader, Output, Paxos, ReconfigError, Recovered, Role, Slot,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const FOUNDING: Ballot = Ballot { config: ConfigNo(1), round: 0, member: MemberId(0) };

/// What is durable, and what is not yet.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    pub(crate) trimmed: Slot,
    pub(crate) entries: BTreeMap<Slot, Entry>,
    pub(crate) pending: VecDeque<(IoId, Vec<LogOp>)>,
}

impl Disk {
    fn founded() -> Self {
        let entry = Entry {
            slot: Slot(1),
            ballot: FOUNDING,
            kind: EntryKind::Founding,
            payload: Bytes::from_static(b"f"),
        };
        Self {
            hard: HardState { promised: FOUNDING, accepted: FOUNDING, committed: Slot(1) },
            trimmed: Slot::ZERO,
            entries: BTreeMap::from([(Slot(1), entry)]),
            pending: VecDeque::new(),
        }
    }

    /// Of a member that comes later.
    fn blank() -> Self {
        Self {
            hard: HardState::EMPTY,
            trimmed: Slot::ZERO,
            entries: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }

    fn apply(&mut self, ops: Vec<LogOp>) {
        for op in ops {
            match op {
                LogOp::Truncate { from } => drop(self.entries.split_off(&from)),
                LogOp::Reset { after } => {
                    self.entries.clear();
                    self.trimmed = after;
                    self.hard.committed = after;
                }
                LogOp::Append(entry) => {
                    let end = self.entries.keys().next_back().copied().unwrap_or(self.trimmed);
                    assert_eq!(entry.slot, end.next(), "appends are contiguous");
                    self.entries.insert(entry.slot, entry);
                }
                LogOp::Accepted(ballot) => self.hard.accepted = ballot,
                LogOp::Promised(ballot) => self.hard.promised = ballot,
                LogOp::Committed(slot) => self.hard.committed = slot,
            }
        }
    }

    pub(crate) fn recovered(&self) -> Recovered {
        Recovered {
            hard: self.hard,
            trimmed: self.trimmed,
            entries: self.entries.values().cloned().collect(),
        }
    }
}

pub(crate) struct Node {
    pub(crate) core: Option<Paxos>,
    pub(crate) disk: Disk,
    /// The membership that the state store holds: as of the trim point or later.
    pub(crate) stored: Membership,
    /// The end of the state that it took over last.
    installed: Slot,
    pub(crate) committed: Slot,
    pub(crate) roles: Vec<Role>,
    pub(crate) reads: Vec<(u64, Option<Slot>)>,
    boots: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) msg: Message,
}

pub(crate) struct Net {
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) wire: Vec<Flight>,
    pub(crate) cut: BTreeSet<(u32, u32)>,
    pub(crate) now: u64,
    /// Who is sent the log without a vote.
    pub(crate) learners: BTreeSet<MemberId>,
    pub(crate) oracle: Oracle,
    /// Everything that came out, folded: two equal runs have equal folds.
    pub(crate) trace: u64,
    template: Config,
}

impl Node {
    fn new(disk: Disk, stored: Membership) -> Self {
        Self {
            core: None,
            disk,
            stored,
            installed: Slot::ZERO,
            committed: Slot::ZERO,
            roles: vec![],
            reads: vec![],
            boots: 0,
        }
    }
}

impl Net {
    pub(crate) fn new(members: u32) -> Self {
        Self::with(members, |_| {})
    }

    pub(crate) fn with(members: u32, change: impl Fn(&mut Config)) -> Self {
        let voters = (1..=members).map(MemberId).collect();
        let membership = Membership::founding(voters);
        let mut template = Config::new(MemberId(1), membership.clone(), 7);
        change(&mut template);
        let nodes = (1..=members).map(|id| (id, Node::new(Disk::founded(), membership.clone())));
        let mut net = Self {
            nodes: nodes.collect(),
            wire: vec![],
            cut: BTreeSet::new(),
            now: 1000,
            learners: BTreeSet::new(),
            oracle: Oracle::default(),
            trace: 0,
            template,
        };
        (1..=members).for_each(|id| net.boot(id));
        net
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn alive(&self, id: u32) -> bool {
        self.nodes[&id].core.is_some()
    }

    pub(crate) fn core(&self, id: u32) -> &Paxos {
        self.nodes[&id].core.as_ref().expect("it is running")
    }

    pub(crate) fn core_mut(&mut self, id: u32) -> &mut Paxos {
        self.nodes.get_mut(&id).expect("a member").core.as_mut().expect("it is running")
    }

    pub(crate) fn disk(&self, id: u32) -> &Disk {
        &self.nodes[&id].disk
    }

    pub(crate) fn boot(&mut self, id: u32) {
        let now = Millis(self.now);
        let node = self.nodes.get_mut(&id).expect("a member");
        assert!(node.core.is_none() && node.disk.pending.is_empty());
        node.boots += 1;
        if node.installed > node.disk.trimmed {
            // What the log holds up to a state that was installed may never have been chosen; the store has it.
            node.disk.entries = node.disk.entries.split_off(&node.installed.next());
            node.disk.trimmed = node.installed;
        }
        let mut cfg = self.template.clone();
        cfg.me = MemberId(id);
        cfg.membership = node.stored.clone();
        cfg.seed = self.template.seed.wrapping_add(node.boots * 1_000_003);
        node.committed = node.disk.trimmed;
        let mut core = Paxos::new(cfg, node.disk.recovered(), now);
        core.set_learners(self.learners.iter().copied());
        node.core = Some(core);
        self.collect(id);
    }

    /// A new machine, which learns.
    pub(crate) fn join(&mut self, id: u32) {
        let node = Node::new(Disk::blank(), self.template.membership.clone());
        assert!(self.nodes.insert(id, node).is_none(), "ids are not used again");
        self.learners.insert(MemberId(id));
        self.boot(id);
        for id in self.ids() {
            if self.alive(id) {
                let learners = self.learners.clone();
                self.core_mut(id).set_learners(learners);
                self.collect(id);
            }
        }
    }

    pub(crate) fn reconfigure(&mut self, leader: u32, voters: &[u32]) -> Result<Slot, ReconfigError> {
        let voters: Vec<_> = voters.iter().copied().map(MemberId).collect();
        let slot = self.core_mut(leader).reconfigure(&voters, b"rest");
        self.collect(leader);
        slot
    }

    /// A leader's state reaches a member that lacks what is trimmed, or the seal.
    pub(crate) fn install(&mut self, leader: u32, to: u32) -> bool {
        let from = self.core(leader);
        let upto = from.committed().min(from.durable());
        let complete = from.epoch_start().filter(|start| *start <= upto).map(|_| from.ballot());
        let stale =
            self.alive(to) && from.ballot() >= self.core(to).ballot() && self.core(to).committed() < upto;
        let installs = stale && from.behind().any(|member| member.0 == to);
        if installs {
            let ballot = from.ballot();
            self.core_mut(to).await_state(ballot);
            self.collect(to);
            self.sync_all(to);
            let membership = self.oracle.membership_at(upto, &self.template.membership);
            let node = self.nodes.get_mut(&to).expect("a member");
            (node.committed, node.installed) = (upto, upto);
            self.core_mut(to).install(upto, complete, &membership);
            // The store is flushed before the log is cut; here both are durable at once.
            self.collect(to);
            self.sync_all(to);
            self.nodes.get_mut(&to).expect("a member").stored = membership;
        }
        installs
    }

    /// All who are behind get a leader's state.
    pub(crate) fn install_all(&mut self) {
        for leader in self.leaders() {
            for to in self.core(leader).behind().map(|member| member.0).collect::<Vec<_>>() {
                self.install(leader, to);
            }
        }
    }

    /// Who votes, as far as is known to be chosen.
    pub(crate) fn membership(&self) -> Membership {
        self.oracle.membership_at(Slot(u64::MAX), &self.template.membership)
    }

    /// The process dies; of the writes under way the first `survive` reach the disk.
    pub(crate) fn crash(&mut self, id: u32, survive: usize) {
        let node = self.nodes.get_mut(&id).expect("a member");
        node.core = None;
        for (_, ops) in node.disk.pending.drain(..).take(survive).collect::<Vec<_>>() {
            node.disk.apply(ops);
        }
    }

    pub(crate) fn restart(&mut self, id: u32) {
        self.crash(id, 0);
        self.boot(id);
    }

    /// Takes everything the core wants done.
    pub(crate) fn collect(&mut self, id: u32) {
        while let Some(output) = self.nodes.get_mut(&id).and_then(|n| n.core.as_mut()?.next_output()) {
            self.fold(id, &output);
            self.carry_out(id, output);
        }
    }

    fn fold(&mut self, id: u32, output: &Output) {
        for byte in format!("{id}{output:?}").bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn carry_out(&mut self, id: u32, output: Output) {
        let node = self.nodes.get_mut(&id).expect("a member");
        let core = node.core.as_ref().expect("it is running");
        match output {
            Output::Send { to, msg } => {
                let mut bytes = vec![];
                msg.encode(&mut bytes);
                assert_eq!(Message::decode(&bytes).as_ref(), Ok(&msg), "what is sent can be read");
                if !self.cut.contains(&(id, to.0)) {
                    self.wire.push(Flight { from: id, to: to.0, msg });
                }
            }
            Output::Write { io, ops } => {
                self.oracle.on_write(&ops);
                node.disk.pending.push_back((io, ops));
            }
            Output::Commit { upto } if upto == node.installed => {}
            Output::Commit { upto } => {
                self.oracle.on_commit(core, node.committed, upto);
                node.committed = upto;
            }
            Output::ReadReady { ctx, slot } => {
                node.reads.push((ctx, Some(slot)));
                self.oracle.on_read(ctx, Some(slot));
            }
            Output::ReadFailed { ctx } => {
                node.reads.push((ctx, None));
                self.oracle.on_read(ctx, None);
            }
            Output::Role(role) => {
                self.oracle.on_role(core, role);
                node.roles.push(role);
            }
            Output::Fatal { reason } => panic!("member {id} stopped: {reason}"),
        }
    }

    /// Delivers the message at that place on the wire.
    pub(crate) fn deliver(&mut self, index: usize) {
        let Flight { from, to, msg } = self.wire.remove(index);
        self.hand(from, to, msg);
    }

    pub(crate) fn hand(&mut self, from: u32, to: u32, msg: Message) {
        if self.alive(to) && !self.cut.contains(&(from, to)) {
            self.core_mut(to).recv(MemberId(from), msg);
            self.collect(to);
        }
    }

    /// Delivers the first message that fits; false when none does.
    pub(crate) fn deliver_first(&mut self, fits: impl Fn(&Flight) -> bool) -> bool {
        let Some(index) = self.wire.iter().position(fits) else { return false };
        self.deliver(index);
        true
    }

    /// Delivers all messages that fit, and those they cause.
    pub(crate) fn deliver_all(&mut self, fits: impl Fn(&Flight) -> bool) {
        while self.deliver_first(&fits) {}
    }

    /// Completes the first `count` writes under way.
    pub(crate) fn sync(&mut self, id: u32, count: usize) {
        let node = self.nodes.get_mut(&id).expect("a member");
        let mut last = None;
        for _ in 0..count.min(node.disk.pending.len()) {
            let (io, ops) = node.disk.pending.pop_front().expect("counted");
            node.disk.apply(ops);
            last = Some(io);
        }
        if let (Some(io), Some(core)) = (last, node.core.as_mut()) {
            core.disk_done(io);
            self.collect(id);
        }
    }

    pub(crate) fn sync_all(&mut self, id: u32) {
        self.sync(id, usize::MAX);
    }

    pub(crate) fn tick(&mut self, ms: u64) {
        self.now += ms;
        for id in self.ids() {
            self.tick_one(id);
        }
    }

    pub(crate) fn tick_one(&mut self, id: u32) {
        let now = Millis(self.now);
        if self.alive(id) {
            self.core_mut(id).tick(now);
            self.collect(id);
        }
    }

    /// Everything on the wire and on the disks, until nothing moves.
    pub(crate) fn settle(&mut self) {
        loop {
            for id in self.ids() {
                self.sync_all(id);
            }
            if self.wire.is_empty() && self.nodes.values().all(|n| n.disk.pending.is_empty()) {
                return self.check();
            }
            self.deliver_all(|_| true);
        }
    }

    /// Lets time pass with everything working.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.tick(10);
            self.settle();
        }
    }

    pub(crate) fn leaders(&self) -> Vec<u32> {
        let leads = |id: &u32| self.alive(*id) && matches!(self.core(*id).role(), Role::Leader { .. });
        self.ids().into_iter().filter(leads).collect()
    }

    /// Makes `id` the leader, by time and canvass; the others' canvasses are lost.
    pub(crate) fn elect(&mut self, id: u32) {
        for _ in 0..400 {
            self.tick(10);
            self.wire.retain(|f| f.from == id || !matches!(f.msg, Message::Canvass { .. }));
            self.settle();
            if self.leaders() == [id] {
                return self.settle();
            }
        }
        panic!("member {id} is not elected");
    }

    pub(crate) fn propose(&mut self, id: u32, payload: &str) -> Result<Slot, NotLeader> {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let slot = self.core_mut(id).propose(EntryKind::Commands, payload);
        self.collect(id);
        slot
    }

    pub(crate) fn read(&mut self, id: u32) -> u64 {
        let ctx = self.oracle.ask();
        self.core_mut(id).read_index(ctx);
        self.collect(id);
        ctx
    }

    /// How a read was answered, if it was.
    pub(crate) fn answer(&self, id: u32, ctx: u64) -> Option<Option<Slot>> {
        self.nodes[&id].reads.iter().find(|(c, _)| *c == ctx).map(|(_, slot)| *slot)
    }

    /// Separates `id` from the others, in both directions.
    pub(crate) fn isolate(&mut self, id: u32) {
        for other in self.ids() {
            if other != id {
                self.cut.extend([(id, other), (other, id)]);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn check(&self) {
        self.oracle.check_disks(&self.nodes, &self.template.membership);
        let cores: Vec<_> = self.nodes.values().filter_map(|n| n.core.as_ref()).collect();
        self.oracle.check_prefix(&cores);
    }

    /// The payloads of a member's log as one text, with `*` for an EpochStart and `.` for the founding entry.
    pub(crate) fn log(&self, id: u32) -> String {
        let core = self.core(id);
        let word = |slot| match core.entry(Slot(slot)) {
            Some(e) if e.kind == EntryKind::EpochStart => "*".to_owned(),
            Some(e) if e.kind == EntryKind::Founding => ".".to_owned(),
            Some(e) => String::from_utf8_lossy(&e.payload).into_owned(),
            None => "-".to_owned(),
        };
        (1..=core.last_slot().0).map(word).collect()
    }
}
