//! The one thread that owns the sockets and the replica, and the order of a turn.
//!
//! Owns the loop. Must not know framing, hellos or files.
//!
//! Invariants: the replica hears the time first in every turn; control lanes come before bulk ones and
//! peers before clients; every step of a turn is bounded, so that heartbeats are on time; nothing here
//! waits but for the poll, for at most 10 ms.

use crate::clients::{self, Clients, Turn};
use crate::command::{Ask, Command, Copied, Reply};
use crate::datadir::Volume;
use crate::disks::{LogWorker, Persister, ReadWorker, SpareWorker, StoreJob};
use crate::links::{self, LinkEvent, Links};
use crate::metrics::REASONS;
use crate::status::{Board, Counters};
use crate::view::View;
use mio::{Events, Poll, Token};
use pharos_paxos::{MemberId, Millis, Slot};
use pharos_replica::{CloseReason, ConnId, MemberRole, Now, Output, Replica};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const WAKE: Token = Token(0);
pub(crate) const CLIENT_LISTENER: Token = Token(1);
pub(crate) const PEER_LISTENER: Token = Token(2);

const LONGEST_WAIT: Duration = Duration::from_millis(10);
const PUBLISH_EVERY_MS: u64 = 50;
const SLOW_TURN_US: u64 = 50_000;
/// How long the end waits for another leader.
const HAND_OVER_MS: u64 = 1_000;
/// Milliseconds between two clocks from which people hear of it.
const CLOCK_OFF_MS: i64 = 10_000;
/// Between two tries to get the reserve of a full disk back.
const RESERVE_RETRY_MS: u64 = 1_000;

/// Everything the loop works with.
pub(crate) struct Reactor {
    pub(crate) poll: Poll,
    pub(crate) commands: Receiver<Command>,
    pub(crate) clock: Clock,
    pub(crate) replica: Replica,
    pub(crate) clients: Clients,
    pub(crate) links: Links,
    pub(crate) log: LogWorker,
    pub(crate) spares: SpareWorker,
    pub(crate) persister: Persister,
    /// They take the reads in turn.
    pub(crate) readers: [ReadWorker; 2],
    pub(crate) board: Arc<Board>,
    pub(crate) view: View,
    /// Keeps the data directory to this process until all threads are done with it.
    pub(crate) volume: Volume,
}

/// The process's own clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Now { mono: Millis(self.us() / 1000), wall_ms }
    }
}

/// How the loop ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As asked.
    Shutdown,
    /// The member cannot go on.
    Failed(String),
}

/// What one turn leaves to the next.
struct Loop {
    counters: Counters,
    events: Events,
    /// Sockets that can be written again.
    writable: Vec<ConnId>,
    now_ms: u64,
    now_us: u64,
    /// The next turn must not wait.
    busy: bool,
    published_ms: u64,
    /// Set when the server is to end.
    leave_by_ms: Option<u64>,
    handing_over: bool,
    /// When to try to get the reserve back; none while that is asked for, or it is there.
    take_reserve_ms: Option<u64>,
    /// As it was said last.
    full: bool,
    /// The same.
    clock_off: bool,
    /// Copies of the store that wait for a flush, with the slot they wait for.
    copies: Vec<(Slot, PathBuf, Copied)>,
    end: Option<End>,
}

impl Reactor {
    /// Turns until a command or a failure ends it.
    pub(crate) fn run(mut self) -> End {
        let mut state = Loop {
            counters: Counters::default(),
            events: Events::with_capacity(1024),
            writable: Vec::new(),
            now_ms: self.clock.us() / 1000,
            now_us: self.clock.us(),
            busy: true,
            published_ms: 0,
            leave_by_ms: None,
            handing_over: false,
            take_reserve_ms: Some(0),
            full: false,
            clock_off: false,
            copies: Vec::new(),
            end: None,
        };
        while state.end.is_none() {
            self.turn(&mut state);
        }
        self.clients.flush_all(&mut turn(&mut self.replica, &self.view, &mut state));
        state.end.unwrap_or(End::Shutdown)
    }

    fn turn(&mut self, state: &mut Loop) {
        let wait = if state.busy { Duration::ZERO } else { LONGEST_WAIT };
        if let Err(error) = self.poll.poll(&mut state.events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            state.end = Some(End::Failed(format!("cannot wait for the sockets: {error}")));
            return;
        }
        state.now_us = self.clock.us();
        state.now_ms = state.now_us / 1000;
        self.replica.tick(self.clock.now());
        self.board.turned();
        self.take_commands(state);
        self.take_events(state);
        self.serve_peers(state);
        self.serve_clients(state);
        let more = self.replica.pump();
        self.carry_out(state);
        self.links.flush();
        self.write_clients(state);
        self.leave_if_due(state);
        if state.now_ms >= state.published_ms + PUBLISH_EVERY_MS {
            self.publish(state);
        }
        state.busy =
            more || self.replica.has_work() || self.links.has_work() || self.clients.has_work(state.now_ms);
        state.counters.turns += 1;
        if self.clock.us() - state.now_us > SLOW_TURN_US {
            state.counters.slow_turns += 1;
        }
    }

    fn take_commands(&mut self, state: &mut Loop) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::LogDone(io) => {
                    state.counters.log_syncs += 1;
                    self.replica.log_done(io);
                }
                Command::SpareCreated(op) => self.replica.spare_created(&op),
                Command::SpareFailed => self.replica.spare_failed(),
                Command::StoreFull => {
                    state.take_reserve_ms = Some(state.now_ms + RESERVE_RETRY_MS);
                    self.replica.store_is_full();
                }
                Command::StoreHasRoom => self.replica.store_has_room(),
                Command::Persisted(applied) => {
                    self.replica.persisted(applied);
                    self.copy_what_is_flushed(state);
                }
                Command::Copy { dir, reply } => {
                    let wanted = self.replica.cut_now();
                    state.copies.push((wanted, dir, reply));
                    self.copy_what_is_flushed(state);
                }
                Command::SnapshotOpened(transfer, applied) => self.replica.snapshot_opened(transfer, applied),
                Command::SnapshotPart(transfer, rows) => self.replica.snapshot_part(transfer, rows),
                Command::SnapshotLost(transfer) => self.replica.snapshot_lost(transfer),
                Command::PartStored(arrival, Ok(arrived)) => self.replica.part_stored(arrival, arrived),
                Command::PartStored(arrival, Err(why)) => {
                    tracing::error!(%why, "the state that the leader sends cannot be taken; the store keeps what it has");
                    self.replica.part_refused(arrival);
                }
                Command::ValueRead(read, row) => self.replica.value_read(read, row.as_deref()),
                Command::Dialled { peer, link, control, bulk } => {
                    self.links.dialled(self.poll.registry(), peer, link, [control, bulk], state.now_ms);
                }
                Command::Ask { ask, reply } => {
                    let outcome = self.ask(ask);
                    // Whoever asked may have gone.
                    let _ = reply.send(outcome.map_or_else(Reply::Refused, |()| Reply::Started));
                }
                Command::Failed(why) => state.end = Some(End::Failed(why)),
                Command::Shutdown => self.begin_to_leave(state),
            }
        }
        if state.take_reserve_ms.take_if(|due| *due <= state.now_ms).is_some() {
            self.persister.submit(StoreJob::TakeReserve);
        }
        self.say_if_full(state);
        self.say_if_clocks_differ(state);
    }

    /// Why nothing is acknowledged, or that it is again.
    fn say_if_full(&self, state: &mut Loop) {
        let full = self.replica.is_full();
        if std::mem::replace(&mut state.full, full) == full {
            return;
        }
        if full {
            tracing::error!(
                "the disk is full: this member acknowledges no writes and serves reads; it goes on by itself once there \
                 is room"
            );
        } else {
            tracing::info!("the disk has room again: this member goes on");
        }
    }

    /// Of a wrong clock nothing breaks here, but the times of znodes are wrong, and times to live end at a wrong time.
    fn say_if_clocks_differ(&self, state: &mut Loop) {
        let ahead_ms = self.replica.leader_clock_ahead_ms().unwrap_or(0);
        let off = ahead_ms.abs() >= CLOCK_OFF_MS;
        if std::mem::replace(&mut state.clock_off, off) != off && off {
            let (seconds, way) = (ahead_ms.abs() / 1_000, if ahead_ms > 0 { "ahead of" } else { "behind" });
            tracing::warn!(
                "the leader's clock is {seconds} s {way} this member's: set the clocks of both hosts right (NTP); the times \
                 of znodes, and when times to live end, follow the leader's"
            );
        }
    }

    /// Copies are made once the store holds what had been applied when they were asked for.
    fn copy_what_is_flushed(&mut self, state: &mut Loop) {
        let flushed = self.replica.flushed();
        for (_, dir, reply) in state.copies.extract_if(.., |(wanted, ..)| *wanted <= flushed) {
            self.persister.submit(StoreJob::Copy(dir, reply));
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<(), String> {
        match ask {
            Ask::Transfer(to) => self.replica.transfer(to).map_err(|why| why.to_string()),
            Ask::Members { change, levels } => {
                let admitted = levels.map_or(Ok(()), |levels| self.replica.admits(levels));
                let changed = admitted.and_then(|()| self.replica.change_members(&change));
                changed.map_err(|why| why.to_string())
            }
            Ask::Voters { config, voters } => {
                self.replica.change_voters(config, &voters).map_err(|why| why.to_string())
            }
        }
    }

    /// Connects to whom the list of members names now.
    fn meet(&mut self, state: &mut Loop) {
        let level = Some(self.replica.level());
        let next_id = self.replica.registry().next_id();
        if let Err(error) = self.links.meet(&self.replica.peers(), next_id, level) {
            return state.end = Some(End::Failed(format!("cannot start a thread to dial a peer: {error}")));
        }
        self.view.meet(&self.replica, |peer| self.links.is_up(peer));
        if self.replica.registry().membership().has(self.replica.me()) {
            self.volume.let_go();
            self.view.forget_former();
        }
        if self.replica.was_removed() {
            tracing::warn!("this member was removed from the ensemble; its data is of no more use");
        }
    }

    fn take_events(&mut self, state: &mut Loop) {
        for event in &state.events {
            match event.token() {
                WAKE => {}
                CLIENT_LISTENER => self.clients.on_acceptable(),
                PEER_LISTENER => self.links.on_acceptable(),
                Token(token) if token >= clients::FIRST_TOKEN => {
                    state.writable.extend(self.clients.on_ready(event));
                }
                Token(token) if token >= links::FIRST_TOKEN => self.links.on_ready(event),
                Token(_) => {}
            }
        }
        state.events.clear();
    }

    fn serve_peers(&mut self, state: &mut Loop) {
        self.links.tick(state.now_ms);
        self.links.accept(self.poll.registry(), state.now_ms);
        self.links.read(&mut state.counters, state.now_ms);
        while let Some(event) = self.links.next_event() {
            match event {
                LinkEvent::Up { peer, boot, levels } => {
                    state.counters.links_up += 1;
                    self.view.connected(peer, true);
                    self.replica.peer_up(peer, boot, levels);
                }
                LinkEvent::Down(peer) => {
                    state.counters.links_broken += 1;
                    self.view.connected(peer, false);
                    self.replica.peer_down(peer);
                }
                LinkEvent::Frame(peer, frame) => {
                    if let Err(error) = self.replica.peer_frame(peer, frame) {
                        tracing::warn!(%peer, %error, "the peer sent what this member cannot read");
                        self.links.break_link(peer, "it sent what this member cannot read");
                    }
                }
            }
        }
    }

    fn serve_clients(&mut self, state: &mut Loop) {
        let mut turn = turn(&mut self.replica, &self.view, state);
        self.clients.accept(self.poll.registry(), &mut turn);
        self.clients.read(&mut turn);
        self.clients.expire(&mut turn);
    }

    fn carry_out(&mut self, state: &mut Loop) {
        while let Some(output) = self.replica.next_output() {
            match output {
                Output::Peer { to, lane, frame } => self.links.send(to, lane, frame, state.now_ms),
                Output::Log { io, ops } => self.log.submit((io, ops)),
                Output::Spare { op } => self.spares.submit(op),
                Output::Persist { batch } => self.persister.submit(StoreJob::Persist(batch)),
                Output::Snapshot { transfer, step } => {
                    self.persister.submit(StoreJob::Snapshot(transfer, step));
                }
                Output::Store { arrival, first, last, rows } => {
                    self.persister.submit(StoreJob::Store { arrival, ends: (first, last), rows });
                }
                Output::Abandon => self.persister.submit(StoreJob::Abandon),
                Output::Discard { state } => self.persister.submit(StoreJob::Discard(state)),
                Output::ReadValue { read, key } => {
                    self.readers[(read % 2) as usize].submit((read, key));
                }
                Output::CloseClient { conn, reason, last_words } => {
                    count_close(&mut state.counters, reason);
                    let mut turn = turn(&mut self.replica, &self.view, state);
                    self.clients.close(&mut turn, conn, last_words);
                }
                Output::Members => self.meet(state),
                Output::Diverged { slot } => tracing::error!(
                    %slot,
                    "this member's state differs from that of the others: a disk or the memory has changed it; it \
                     serves nobody until it has taken theirs"
                ),
                Output::Fatal { reason } => state.end = Some(End::Failed(reason)),
            }
        }
    }

    fn write_clients(&mut self, state: &mut Loop) {
        let writable = std::mem::take(&mut state.writable);
        let mut turn = turn(&mut self.replica, &self.view, state);
        for conn in writable {
            self.clients.write(&mut turn, conn);
        }
        while let Some(conn) = turn.replica.next_dirty() {
            self.clients.write(&mut turn, conn);
        }
    }

    fn publish(&mut self, state: &mut Loop) {
        state.published_ms = state.now_ms;
        let snapshot = self.view.snapshot(&self.replica, &state.counters, self.clients.len());
        self.board.publish(snapshot);
    }

    fn begin_to_leave(&mut self, state: &mut Loop) {
        self.clients.stop_accepting();
        state.leave_by_ms.get_or_insert(state.now_ms + HAND_OVER_MS);
        let status = self.replica.status();
        let votes = |peer: MemberId| self.replica.registry().membership().has(peer);
        let heir = status.peers.iter().filter(|peer| votes(peer.member) && self.links.is_up(peer.member));
        let heir: Option<MemberId> = heir.max_by_key(|peer| peer.matched).map(|peer| peer.member);
        if status.role == MemberRole::Leader
            && let Some(heir) = heir
        {
            match self.replica.transfer(heir) {
                Ok(()) => state.handing_over = true,
                Err(error) => tracing::warn!(%error, "cannot hand leadership over"),
            }
        }
    }

    fn leave_if_due(&mut self, state: &mut Loop) {
        let Some(deadline) = state.leave_by_ms else { return };
        let waits = state.handing_over && self.replica.status().role == MemberRole::Leader;
        if !waits || state.now_ms >= deadline {
            state.end.get_or_insert(End::Shutdown);
        }
    }
}

fn turn<'a>(replica: &'a mut Replica, view: &'a View, state: &'a mut Loop) -> Turn<'a> {
    Turn { replica, view, counters: &mut state.counters, now_ms: state.now_ms, now_us: state.now_us }
}

fn count_close(counters: &mut Counters, reason: CloseReason) {
    if let Some(index) = REASONS.iter().position(|known| *known == reason) {
        counters.closed[index] += 1;
    }
}
