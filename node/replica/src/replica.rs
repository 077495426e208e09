//! The member itself: its parts, its inputs and the order in which a turn does things.
//!
//! Owns the composition of consensus core, log, state, sessions, watches and connections. Must not know
//! sockets, files, threads or clocks. Invariant: the same inputs give the same outputs, byte for byte,
//! which is why what the simulator runs is what ships.

use crate::apply::Applier;
use crate::batch::Queue;
use crate::clients::Clients;
use crate::clocks::Clocks;
use crate::cold::ColdReads;
use crate::contact::Contact;
use crate::digests::Digests;
use crate::expiry::Expiry;
use crate::forward::{Incoming, Outgoing};
use crate::founding::Founding;
use crate::generation;
use crate::group::GroupCommit;
use crate::io::{Now, Output};
use crate::levels::{KnownLevels, LogLevelError, check_boot};
use crate::peer_msg::PeerMsg;
use crate::persist::Persist;
use crate::reads::ReadIndexes;
use crate::registry::Registry;
use crate::room::Room;
use crate::sending::Sending;
use crate::snapshot::{self, Snapshots};
use crate::watches::Watches;
use crate::wire::WireError;
use bytes::Bytes;
use pharos_paxos::{Ballot, EntryKind, IoId, MemberId, Membership, Millis, Paxos, Role, Slot};
use pharos_znode::{Levels, State};
use std::collections::{BTreeMap, VecDeque};
use thiserror::Error;

/// Keys of the replica's own rows in the store begin with this byte; the state's never do.
pub const OWN_PREFIX: u8 = 0xff;
pub(crate) const FOUNDING_KEY: &[u8] = b"\xfffounding";
/// The own row of the list of members, as of the store's applied slot.
pub const REGISTRY_KEY: &[u8] = b"\xffregistry";

/// What a member is told by whoever drives it.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The member's id.
    pub me: MemberId,
    /// Random at each start of the process.
    pub boot: u64,
    /// ZooKeeper's tickTime in milliseconds: session timeouts are kept within 2 to 20 of it.
    pub tick_ms: u32,
    /// Between a leader's heartbeats.
    pub heartbeat: Millis,
    /// Without a leader for this long, a member stands for election.
    pub election: Millis,
    /// Spreads the members' election timeouts.
    pub seed: u64,
    /// Between two looks for containers to delete: ZooKeeper's `znode.container.checkIntervalMs`.
    pub container_sweep: Millis,
    /// How much of the log stays for members that were away briefly, in bytes.
    pub log_tail_bytes: u64,
    /// Messages of log entries between members are cut when they reach so many bytes.
    pub chunk_bytes: usize,
    /// The feature levels that it can carry out: it refuses a state of any other.
    pub levels: Levels,
    /// A client with more unread output than this gets no answers to further reads until it has read some, in bytes.
    pub output_bytes: usize,
    /// About how much one turn applies, in bytes of entries, so that no heartbeat waits for a long backlog or a huge
    /// command: a step of one that is carried out in slices counts as a quarter of a KiB. After lists of so many bytes
    /// clients' further reads wait for the next turn.
    pub apply_bytes: usize,
    /// How fast states are sent to members that lack them, all together, in bytes per second: the clients' share of the
    /// network and of the disk is the rest.
    pub transfer_bytes_per_s: u64,
    /// Values that stay in memory, in bytes; the store has the others. Short ones always stay and do not count.
    pub value_bytes: u64,
    /// A known bug to run with, so that the checkers can be checked.
    pub plant: crate::plant::Plant,
}

/// What the driver found on the disk.
#[derive(Debug)]
pub struct Boot {
    /// The log; its `ops` have been carried out.
    pub log: pharos_log::Recovery,
    /// The state as of `applied`.
    pub state: State,
    /// The rows whose key begins with [`OWN_PREFIX`].
    pub own: Vec<(Bytes, Bytes)>,
    /// What the store has flushed.
    pub applied: Slot,
    /// As what a disk that holds nothing else joins an ensemble: its founding, with a secret that is not known yet.
    pub joins: Option<Founding>,
}

impl Boot {
    /// Whether the disk says which ensemble it is of: otherwise only [`Boot::joins`] can.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        let first = self.log.entries.first().filter(|e| e.kind == EntryKind::Founding);
        first.is_some() || self.own.iter().any(|(key, _)| key == FOUNDING_KEY)
    }

    /// The last slot in the log.
    pub(crate) fn log_end(&self) -> Slot {
        self.log.entries.last().map_or(self.log.trimmed, |entry| entry.slot)
    }
}

/// Why a member cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Neither the log nor the store holds the founding entry: this disk has never been a member.
    #[error("the log and the store hold no founding entry; an empty disk never votes")]
    NotFounded,
    /// The founding entry cannot be read.
    #[error("founding entry: {0}")]
    Founding(#[from] WireError),
    /// The log was trimmed beyond what the store holds.
    #[error("the log begins after slot {trimmed} but the store ends at slot {applied}; the volume lost data")]
    Gap {
        /// Entries up to here are gone from the log.
        trimmed: Slot,
        /// The store's last slot.
        applied: Slot,
    },
    /// The log has lost its end.
    #[error("the log ends at slot {end} but the store holds slot {applied}; the log lost its end")]
    Behind {
        /// The log's last slot.
        end: Slot,
        /// The store's last slot.
        applied: Slot,
    },
    /// The list of members cannot be read.
    #[error("list of members: {0}")]
    Registry(WireError),
    /// The state or the log is of a feature level that this member does not carry out.
    #[error(transparent)]
    Level(#[from] LogLevelError),
}

/// A whole member without I/O. See ARCHITECTURE.md for the life of a request.
pub struct Replica {
    pub(crate) cfg: ReplicaConfig,
    pub(crate) founding: Founding,
    pub(crate) registry: Registry,
    pub(crate) now: Now,
    pub(crate) paxos: Paxos,
    pub(crate) group: GroupCommit,
    pub(crate) state: State,
    pub(crate) applier: Applier,
    pub(crate) persist: Persist,
    pub(crate) clients: Clients,
    pub(crate) cold: ColdReads,
    pub(crate) contact: Contact,
    pub(crate) reads: ReadIndexes,
    pub(crate) expiry: Expiry,
    /// When containers were looked for last.
    pub(crate) swept: Millis,
    pub(crate) watches: Watches,
    /// Commands of this member's clients that no leader has been given.
    pub(crate) unsent: Queue,
    /// Commands for the log, while this member leads.
    pub(crate) proposals: Queue,
    /// Bytes of lists that this turn has answered with.
    pub(crate) listed_bytes: usize,
    pub(crate) snapshots: Snapshots,
    pub(crate) sending: Sending,
    pub(crate) digests: Digests,
    pub(crate) room: Room,
    pub(crate) clocks: Clocks,
    pub(crate) levels: KnownLevels,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) peers: BTreeMap<MemberId, u64>,
    pub(crate) leadership: Leadership,
    pub(crate) outputs: VecDeque<Output>,
}

/// Whom this member's writes go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    None,
    Follows { leader: MemberId, ballot: Ballot },
    Leads { ballot: Ballot },
}

/// Bytes of commands in one entry; one larger command makes an entry of its own.
const BATCH_BYTES: usize = 1 << 20;

impl Replica {
    /// Starts a member from what was on its disk.
    ///
    /// # Errors
    /// When the disk does not hold a member that can go on; see [`StartError`].
    pub fn start(cfg: ReplicaConfig, boot: Boot, now: Now) -> Result<Self, StartError> {
        check_boot(&boot, cfg.levels)?;
        boot.check()?;
        let founding = find_founding(&boot)?;
        let registry = find_registry(&boot, &founding)?;
        // What peers are told from the start is the generation that the log leads to.
        let founding = generation::newest(founding, &boot)?;
        let log_end = boot.log_end();
        let Boot { log, state, own, applied, .. } = boot;
        let mut hard = log.hard;
        // What the log holds up to a state that was installed may never have been chosen.
        let installed = snapshot::installed(&own)?;
        let mut trimmed = log.trimmed;
        let mut entries = log.entries;
        if installed > trimmed && installed <= log_end {
            entries.drain(..(installed.0 - trimmed.0) as usize);
            trimmed = installed;
        }
        let unlogged = installed > log_end;
        if !unlogged {
            hard.committed = hard.committed.max(applied);
        }
        // A log that holds nothing votes nowhere, whatever the state says that was installed.
        let blank = trimmed == Slot::ZERO && entries.is_empty();
        let membership = if blank { founding.membership() } else { registry.membership().clone() };
        let recovered = pharos_paxos::Recovered { hard, trimmed, entries };
        let mut persist = Persist::new(applied, now.mono, cfg.value_bytes);
        recovered
            .entries
            .iter()
            .take_while(|e| e.slot <= applied)
            .for_each(|e| persist.held_in_log(e.slot, e.payload.len()));
        let paxos = Paxos::new(paxos_config(&cfg, membership), recovered, now.mono);
        let mut replica = Self {
            clients: Clients::new(cfg.me, now.wall_ms),
            cold: ColdReads::default(),
            group: GroupCommit::new(log.wal),
            applier: Applier::new(applied, log_end),
            persist,
            contact: Contact::default(),
            reads: ReadIndexes::default(),
            expiry: Expiry::default(),
            swept: now.mono,
            watches: Watches::default(),
            unsent: Queue::default(),
            proposals: Queue::default(),
            listed_bytes: 0,
            snapshots: Snapshots::default(),
            sending: Sending::default(),
            digests: Digests::default(),
            room: Room::default(),
            clocks: Clocks::default(),
            levels: KnownLevels::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            peers: BTreeMap::new(),
            leadership: Leadership::None,
            outputs: VecDeque::new(),
            cfg,
            founding,
            registry,
            now,
            paxos,
            state,
        };
        if unlogged {
            replica.paxos.install(installed, None, replica.registry.membership());
        }
        replica.state.keep_values(replica.cfg.value_bytes);
        replica.paxos.set_learners(replica.registry.learners());
        replica.take_core_outputs();
        Ok(replica)
    }

    /// The ensemble's identity and its founders.
    #[must_use]
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// This member.
    #[must_use]
    pub fn me(&self) -> MemberId {
        self.cfg.me
    }

    /// Whether this member waits for the state of the ensemble that it joins.
    #[must_use]
    pub fn joins(&self) -> bool {
        !self.belongs() && !self.was_removed()
    }

    /// Who belongs to the ensemble, as of the last slot applied.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Tells the time. First in every turn, so that a process that was paused notices before it
    /// answers anybody, and at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        assert!(now.mono >= self.now.mono, "the monotonic clock went back");
        let pause = now.mono.0 - self.now.mono.0;
        self.now = now;
        self.listed_bytes = 0;
        if self.leads() && pause > self.cfg.election.0 {
            self.grant_full_timeouts();
        }
        self.paxos.tick(now.mono);
        self.take_core_outputs();
        self.close_cut_off();
        self.spare_full_disk();
        self.expire_sessions();
        self.sweep_containers();
        if self.outgoing.stalled(now.mono, Millis(2 * self.cfg.election.0)) {
            self.break_off();
        }
        self.go_on_with_repair();
        if self.contact.due(now.mono) {
            self.report_contact();
        }
    }

    /// Both connections to the peer stand; `boot` is the nonce of its process, which can carry out these levels. Frames
    /// of an older connection never arrive after this.
    pub fn peer_up(&mut self, peer: MemberId, boot: u64, levels: Levels) {
        self.levels.hear(peer, levels);
        let closed = self.sending.connected(peer, boot, self.now.mono);
        self.outputs.extend(closed);
        if self.peers.insert(peer, boot) != Some(boot) {
            self.incoming.restarted(peer);
        }
    }

    /// A connection to the peer broke; what was sent last may be lost.
    pub fn peer_down(&mut self, peer: MemberId) {
        self.incoming.lost(peer);
        self.sending.lost(peer);
        self.paxos.peer_lost(peer);
        if matches!(self.leadership, Leadership::Follows { leader, .. } if leader == peer) {
            self.break_off();
        }
        self.take_core_outputs();
    }

    /// A frame came from the peer.
    ///
    /// # Errors
    /// When it cannot be read: the driver closes the connection.
    pub fn peer_frame(&mut self, peer: MemberId, frame: Bytes) -> Result<(), crate::PeerError> {
        match PeerMsg::decode(frame)? {
            PeerMsg::Paxos(message) if self.passes_by(&message) => {}
            PeerMsg::Paxos(message) => self.paxos.recv(peer, message),
            PeerMsg::Forward { ballot, stream, seq, count, commands } => {
                self.take_forwarded(peer, ballot, (stream, seq), &commands, count)?;
            }
            PeerMsg::ForwardBroken { stream } => {
                if self.outgoing.is_current(stream) {
                    self.break_off();
                }
            }
            PeerMsg::Touch { report, sessions } => self.take_touch(peer, report, &sessions),
            PeerMsg::TouchAck { report, stream, received } => {
                self.contact.acknowledged(report);
                self.outgoing.confirmed(stream, received);
            }
            PeerMsg::Snapshot { ballot, upto, complete, part, parts, rows } => {
                self.take_snapshot(peer, (ballot, upto, complete), (part, parts), rows);
            }
            PeerMsg::SnapshotAck { upto, next } => {
                self.sending.acknowledged(peer, upto, next, self.now.mono);
            }
            PeerMsg::Digest { slot, version, digest } => self.take_digest(peer, slot, version, digest),
            PeerMsg::Diverged { slot } => self.take_diverged(peer, slot),
            PeerMsg::NeedState { applied } => self.take_need(peer, applied),
            PeerMsg::Full => self.take_full(peer),
        }
        self.take_core_outputs();
        Ok(())
    }

    /// The log request is durable.
    pub fn log_done(&mut self, io: IoId) {
        self.group.done(io);
        self.paxos.disk_done(io);
        self.take_core_outputs();
    }

    /// The spare segment of an [`Output::Spare`] exists.
    pub fn spare_created(&mut self, op: &pharos_log::DiskOp) {
        self.group.spare_created(op);
    }

    /// Hands leadership to a member once it has caught up.
    ///
    /// # Errors
    /// When this member does not lead or the other does not vote.
    pub fn transfer(&mut self, to: MemberId) -> Result<(), TransferError> {
        if !matches!(self.leadership, Leadership::Leads { .. }) {
            return Err(TransferError::NotLeader);
        }
        if !self.registry.membership().has(to) {
            return Err(TransferError::NotAVoter(to));
        }
        self.paxos.transfer(to);
        self.take_core_outputs();
        Ok(())
    }

    /// Ends a turn: applies what is chosen, in bounded slices, gives commands to the leader or the log, and
    /// starts the next group of writes. True when more work waits.
    pub fn pump(&mut self) -> bool {
        self.take_core_outputs();
        for conn in self.clients.take_roomy() {
            self.drive(conn);
        }
        let more = self.apply_some() | self.state.cool();
        self.send_snapshots();
        self.send_reads();
        self.send_commands();
        self.raise_level();
        self.propose();
        self.take_core_outputs();
        if let Some((io, ops)) = self.group.next() {
            self.outputs.push_back(Output::Log { io, ops });
        }
        if let Some(op) = self.group.wanted_spare(self.now.mono) {
            self.outputs.push_back(Output::Spare { op });
        }
        self.persist_if_due();
        more || self.gathers()
    }

    /// What the driver has to do next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The ballot in which this member leads.
    #[must_use]
    pub fn leads_in(&self) -> Option<Ballot> {
        if let Leadership::Leads { ballot } = self.leadership { Some(ballot) } else { None }
    }

    /// An entry of the log, for whoever checks that members agree.
    #[must_use]
    pub fn chosen(&self, slot: Slot) -> Option<&pharos_paxos::Entry> {
        self.paxos.entry(slot).filter(|_| slot <= self.applier.chosen())
    }

    /// The last entry that this member knows to be chosen, unless it is gone from the log.
    #[must_use]
    pub fn last_chosen(&self) -> Option<&pharos_paxos::Entry> {
        self.paxos.entry(self.applier.chosen())
    }

    /// Whether the entry is durable in this member's log, or was and is trimmed.
    #[must_use]
    pub fn is_durable(&self, entry: &pharos_paxos::Entry) -> bool {
        let holds = || self.paxos.entry(entry.slot).is_none_or(|own| own.ballot == entry.ballot);
        entry.slot <= self.paxos.durable() && holds()
    }

    pub(crate) fn send(&mut self, to: MemberId, message: &PeerMsg) {
        self.outputs.push_back(Output::Peer { to, lane: message.lane(), frame: message.encode() });
    }

    /// Does this member lead in a ballot whose prefix it has adopted?
    pub(crate) fn leads(&self) -> bool {
        matches!(self.leadership, Leadership::Leads { .. })
    }

    pub(crate) fn take_core_outputs(&mut self) {
        while let Some(output) = self.paxos.next_output() {
            match output {
                pharos_paxos::Output::Send { to, msg } => self.send(to, &PeerMsg::Paxos(msg)),
                pharos_paxos::Output::Write { io, ops } => self.group.push(io, ops),
                pharos_paxos::Output::Commit { upto } => self.applier.committed(upto),
                pharos_paxos::Output::ReadReady { ctx, slot } => self.read_ready(ctx, slot),
                pharos_paxos::Output::ReadFailed { ctx } => self.read_failed(ctx),
                pharos_paxos::Output::Role(role) => self.role_changed(role),
                pharos_paxos::Output::Fatal { reason } => {
                    self.outputs.push_back(Output::Fatal { reason: reason.to_string() });
                }
            }
        }
    }

    fn role_changed(&mut self, role: Role) {
        let leadership = match role {
            Role::Leader { ballot } => Leadership::Leads { ballot },
            Role::Follower { leader: Some(leader), ballot } => Leadership::Follows { leader, ballot },
            Role::Follower { leader: None, .. } | Role::Candidate => Leadership::None,
        };
        if leadership == self.leadership {
            return;
        }
        self.break_off();
        self.leadership = leadership;
        self.proposals.clear();
        self.incoming.clear();
        self.stop_sending();
        let abandoned = self.snapshots.leader_changed(self.paxos.ballot());
        self.outputs.extend(abandoned);
        self.digests.leader_changed();
        self.expiry.clear();
        if self.leads() {
            self.grant_full_timeouts();
        }
    }

    fn break_off(&mut self) {
        self.outgoing.break_off();
        self.close_in_flight();
    }

    fn take_forwarded(
        &mut self,
        from: MemberId,
        ballot: Ballot,
        (stream, seq): (u64, u64),
        commands: &[u8],
        count: u32,
    ) -> Result<(), WireError> {
        use crate::forward::Intake;
        let intake = match self.leadership {
            Leadership::Leads { ballot: ours } if ours == ballot => self.incoming.judge(from, stream, seq),
            _ => Intake::Broken,
        };
        match intake {
            Intake::Take => self.proposals.push_frames(commands, count)?,
            Intake::Ignore => {}
            Intake::Broken => self.send(from, &PeerMsg::ForwardBroken { stream }),
        }
        Ok(())
    }

    fn send_commands(&mut self) {
        self.clients.purge_closed(&mut self.unsent);
        match self.leadership {
            Leadership::None => {}
            Leadership::Leads { .. } => {
                let owners = self.unsent.move_to(&mut self.proposals);
                self.clients.sent(owners);
            }
            Leadership::Follows { leader, ballot } => {
                while !self.unsent.is_empty() {
                    let (owners, commands) = self.unsent.take_frames(BATCH_BYTES);
                    let count = u32::try_from(owners.len()).expect("a frame has fewer than 2^32 commands");
                    self.clients.sent(owners);
                    let message = self.outgoing.send(ballot, count, commands, self.now.mono);
                    self.send(leader, &message);
                }
            }
        }
    }

    fn propose(&mut self) {
        while self.leads()
            && !self.is_full()
            && !self.proposals.is_empty()
            && self.paxos.can_propose()
            && !self.persist.is_behind()
        {
            let payload = self.proposals.take_batch(self.now.wall_ms, BATCH_BYTES);
            self.paxos.propose(EntryKind::Commands, payload).expect("the core said that it takes a proposal");
        }
    }
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("this member does not lead")]
    NotLeader,
    /// The target does not vote.
    #[error("member {0} is not a voter")]
    NotAVoter(MemberId),
}

fn paxos_config(cfg: &ReplicaConfig, membership: Membership) -> pharos_paxos::Config {
    pharos_paxos::Config {
        heartbeat: cfg.heartbeat,
        election: cfg.election,
        chunk_bytes: cfg.chunk_bytes,
        plant: cfg.plant.core(),
        ..pharos_paxos::Config::new(cfg.me, membership, cfg.seed)
    }
}

fn own_row<'a>(boot: &'a Boot, wanted: &[u8]) -> Option<&'a Bytes> {
    boot.own.iter().find(|(key, _)| key == wanted).map(|(_, value)| value)
}

/// As of what the store has flushed: from there, from the log's first entry before the first flush, or else from the
/// permit to join.
pub(crate) fn find_founding(boot: &Boot) -> Result<Founding, StartError> {
    let first = boot.log.entries.first().filter(|e| e.kind == EntryKind::Founding);
    match own_row(boot, FOUNDING_KEY).or(first.map(|first| &first.payload)) {
        Some(bytes) => Ok(Founding::decode(bytes.clone())?),
        None => boot.joins.clone().ok_or(StartError::NotFounded),
    }
}

pub(crate) fn find_registry(boot: &Boot, founding: &Founding) -> Result<Registry, StartError> {
    match own_row(boot, REGISTRY_KEY) {
        Some(bytes) => Registry::decode(bytes.clone()).map_err(StartError::Registry),
        None => Ok(Registry::founding(founding)),
    }
}
