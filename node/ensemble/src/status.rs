//! What the server says of itself: published by the reactor, read by the admin thread and the handle.
//!
//! Owns the snapshot and the board it hangs on. Must not know HTTP. Invariant: publishing never waits
//! for a reader for longer than the swap of a pointer.

use crate::hello::Id128;
use pharos_replica::{Level, Levels};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The build's version, as clients of the four-letter words see it: `ZooKeeper`'s whose protocol it
/// speaks, then ours.
pub const ZOOKEEPER_VERSION: &str = concat!("3.9.4-pharos-", env!("CARGO_PKG_VERSION"));
/// The build's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A reactor that has not turned for so long is dead.
const LIVENESS: Duration = Duration::from_secs(5);

/// How far the data directory has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// A volume id and nothing else.
    #[default]
    Blank,
    /// A permit names it; the founding entry is being written.
    Founding,
    /// A permit names it; the state of the ensemble that it joins has not come yet.
    Joining,
    /// It belongs to an ensemble.
    Member,
}

/// Who this is: `/v1/identity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// How far the data directory has come.
    pub state: Life,
    /// The data directory's id.
    pub volume: HexText,
    /// The member's id, once it has one.
    pub member_id: Option<u32>,
    /// The ensemble, once there is one.
    pub cluster_id: Option<HexText>,
    /// Its generation.
    pub generation: Option<u32>,
    /// The port where it listens for peers.
    pub peer_port: u16,
    /// The port where it listens for clients.
    pub client_port: u16,
    /// The feature levels that it can carry out.
    pub feature_levels: LevelRange,
    /// Whose data the directory had, until it was found damaged; it is kept until this member votes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<GaveUp>,
}

/// Feature levels, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl From<Levels> for LevelRange {
    fn from(levels: Levels) -> Self {
        Self { min: levels.min.0, max: levels.max.0 }
    }
}

impl From<LevelRange> for Levels {
    fn from(range: LevelRange) -> Self {
        Self { min: Level(range.min), max: Level(range.max) }
    }
}

impl Default for LevelRange {
    fn default() -> Self {
        Levels::KNOWN.into()
    }
}

/// An identity that a volume gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GaveUp {
    /// The member that it was.
    pub member_id: u32,
    /// What was damaged, and where.
    pub why: String,
}

/// An [`Id128`] that is written as hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HexText(pub Id128);

impl Serialize for HexText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What the member does in its ensemble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Waits for its permit.
    #[default]
    Blank,
    /// Writes the founding entry, or reads its log.
    Founding,
    /// Waits for the state of the ensemble that it joins.
    Joining,
    /// Looks for a leader.
    Candidate,
    /// Follows, and has no vote.
    Learner,
    /// Follows.
    Follower,
    /// Leads.
    Leader,
    /// It belonged to the ensemble, and does not any more.
    Removed,
}

impl RoleName {
    /// The word in JSON and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Founding => "founding",
            Self::Joining => "joining",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Leader => "leader",
            Self::Removed => "removed",
        }
    }
}

/// One peer as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Who.
    pub member_id: u32,
    /// Up to where its log is known to be durable and the same as ours.
    pub matched: u64,
    /// It has all but what was proposed last: it can be made a voter.
    pub caught_up: bool,
    /// Both lanes to it are there.
    pub connected: bool,
    /// The feature levels that it said last that it can carry out; nothing until it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_levels: Option<LevelRange>,
}

/// Who belongs to the ensemble, as of the last slot applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipStatus {
    /// The number of the configuration.
    pub config: u32,
    /// The id that the next volume gets.
    pub next_member_id: u32,
    /// What members compare to find out that they were founded alike.
    pub founding_digest: HexText,
    /// Voters and learners.
    pub members: Vec<RegisteredMember>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredMember {
    /// Its id, never used again.
    pub member_id: u32,
    /// Its volume.
    pub volume: HexText,
    /// The name or address that its peers dial.
    pub host: String,
    /// The port that its peers dial.
    pub peer_port: u16,
    /// The port that its clients dial.
    pub client_port: u16,
    /// Whether it votes.
    pub voter: bool,
}

/// How the member does: `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The member's id, 0 while it has none.
    pub member_id: u32,
    /// What it does.
    pub role: RoleName,
    /// Whom it follows, itself included.
    pub leader: Option<u32>,
    /// `configuration.round.member`.
    pub ballot: String,
    /// The ballot whose leader's log this member's log is a beginning of. Of two members the one with the higher ballot,
    /// or with the same and more durable slots, knows more.
    pub accepted: String,
    /// The last slot applied.
    pub applied: u64,
    /// The last slot known to be chosen.
    pub committed: u64,
    /// The last slot durable in this member's log.
    pub durable: u64,
    /// The last slot in the store.
    pub flushed: u64,
    /// The last transaction applied, in hexadecimal.
    pub zxid: String,
    /// Sessions of the whole ensemble.
    pub sessions: u64,
    /// Whether clients are answered.
    pub serving: bool,
    /// Whether its disk has no room, so that it acknowledges no writes.
    pub disk_full: bool,
    /// By how many milliseconds the leader's clock is ahead of this member's, once it knows; negative, behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_clock_ahead_ms: Option<i64>,
    /// The build.
    pub version: &'static str,
    /// The feature level in force, as of the last slot applied: by its rules commands are carried out.
    pub feature_level: u16,
    /// The feature levels that this member can carry out. The leader raises the level once all members can.
    pub feature_levels: LevelRange,
    /// The others.
    pub peers: Vec<PeerStatus>,
    /// Who belongs to the ensemble, once this member knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<MembershipStatus>,
}

/// Numbers for metrics and four-letter words only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Nodes in the tree.
    pub znodes: u64,
    /// Ephemeral ones among them.
    pub ephemerals: u64,
    /// Bytes of paths and data, roughly.
    pub data_bytes: u64,
    /// Bytes of values in memory, but for short ones.
    pub values_here: u64,
    /// Values that were read from the store since the start.
    pub cold_reads: u64,
    /// Watches of this member's clients.
    pub watches: u64,
    /// Requests that wait for their reply.
    pub outstanding: u64,
    /// Voters.
    pub voters: u64,
    /// Connected clients.
    pub connections: u64,
    /// Bytes of the log that a restart would read.
    pub log_bytes: u64,
    /// Segments of the log.
    pub log_segments: u64,
    /// Slots applied from the log at this start because the store did not hold them.
    pub replayed_slots: u64,
    /// States taken over from a leader, because the log did not reach far enough.
    pub installed_states: u64,
    /// Those among them that were taken since this member's own was not that of the others.
    pub repaired_states: u64,
    /// Elections this member has stood in.
    pub elections: u64,
    /// What the server has counted since its start.
    pub counters: Counters,
}

/// Counts since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests read from clients.
    pub packets_received: u64,
    /// Replies and events written to clients.
    pub packets_sent: u64,
    /// Bytes read from clients.
    pub bytes_received: u64,
    /// Bytes written to clients.
    pub bytes_sent: u64,
    /// Clients accepted.
    pub accepted: u64,
    /// Clients turned away by a limit.
    pub rejected: u64,
    /// Clients closed for a frame longer than the limit.
    pub oversized: u64,
    /// Clients closed for bytes that are no frame.
    pub malformed: u64,
    /// Clients closed since they did not read what they asked for.
    pub too_slow: u64,
    /// Clients closed by the replica, by reason.
    pub closed: [u64; CLOSE_REASONS],
    /// Times a link to a peer came up.
    pub links_up: u64,
    /// Times a link to a peer broke.
    pub links_broken: u64,
    /// Peers turned away by their hello.
    pub hellos_refused: u64,
    /// Turns of the reactor.
    pub turns: u64,
    /// Turns that took longer than 50 ms.
    pub slow_turns: u64,
    /// Groups that the log made durable.
    pub log_syncs: u64,
    /// Latency of sampled requests.
    pub latency: Latency,
}

/// The kinds of [`pharos_replica::CloseReason`].
pub(crate) const CLOSE_REASONS: usize = 10;

/// From a request read to its connection's next bytes written: one sample at a time per connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Their sum, in microseconds.
    pub sum_us: u64,
    /// The shortest, in microseconds.
    pub min_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

impl Latency {
    /// Takes a sample.
    pub fn record(&mut self, us: u64) {
        self.min_us = if self.count == 0 { us } else { self.min_us.min(us) };
        self.max_us = self.max_us.max(us);
        self.count += 1;
        self.sum_us += us;
    }

    /// The mean in milliseconds.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_us as f64 / self.count as f64 / 1000.0 }
    }
}

/// Everything the admin endpoints show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Who.
    pub identity: Identity,
    /// How.
    pub status: Status,
    /// How much.
    pub gauges: Gauges,
}

/// Where the reactor hangs its snapshots.
#[derive(Debug)]
pub(crate) struct Board {
    started: Instant,
    /// When the reactor last turned, in ms after `started`; 0 before its first turn.
    last_turn: AtomicU64,
    snapshot: watch::Sender<Arc<Snapshot>>,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        let (snapshot, _) = watch::channel(Arc::default());
        Arc::new(Self { started: Instant::now(), last_turn: AtomicU64::new(0), snapshot })
    }

    /// Hangs up a snapshot.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// The newest snapshot.
    #[must_use]
    pub(crate) fn read(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// The reactor has turned.
    pub(crate) fn turned(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_turn.store(elapsed.max(1), Ordering::Relaxed);
    }

    /// How long the process has run.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the reactor makes progress; true while there is none yet.
    #[must_use]
    pub(crate) fn is_live(&self) -> bool {
        match self.last_turn.load(Ordering::Relaxed) {
            0 => true,
            last => self.started.elapsed() < Duration::from_millis(last) + LIVENESS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_written_as_the_operator_reads_it() {
        let identity = Identity {
            state: Life::Member,
            volume: HexText(Id128([0xab; 16])),
            member_id: Some(2),
            cluster_id: Some(HexText(Id128([1; 16]))),
            generation: Some(1),
            peer_port: 2888,
            client_port: 2181,
            feature_levels: LevelRange { min: 1, max: 2 },
            gave_up: None,
        };
        let (volume, cluster) = ("ab".repeat(16), "01".repeat(16));
        assert_eq!(
            serde_json::to_string(&identity).unwrap(),
            format!(
                r#"{{"state":"member","volume":"{volume}","memberId":2,"clusterId":"{cluster}","generation":1,"peerPort":2888,"clientPort":2181,"featureLevels":{{"min":1,"max":2}}}}"#
            )
        );
    }

    #[test]
    fn latency_keeps_its_bounds_and_mean() {
        let mut latency = Latency::default();
        for us in [3000, 1000, 2000] {
            latency.record(us);
        }
        assert_eq!((latency.min_us, latency.max_us, latency.mean_ms()), (1000, 3000, 2.0));
    }

    #[test]
    fn a_board_is_live_before_the_first_turn_and_after_a_fresh_one() {
        let board = Board::new();
        assert!(board.is_live());
        board.turned();
        assert!(board.is_live());
    }
}
