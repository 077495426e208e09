//! What a server is told at its start, and why it may not start.
//!
//! Owns the embedding API's vocabulary. Must not know flags: the binary translates.

use crate::backup::BackupError;
use crate::frames::DEFAULT_MAX_CLIENT_FRAME;
use crate::hello::Id128;
use crate::permit::PermitError;
use pharos_log::file::DataDirError;
use pharos_log::{LogError, WalConfig};
use pharos_paxos::MemberId;
use pharos_replica::{GenerationError, Level, Levels, StartError};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One member, or one member to be.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where its volume is.
    pub data_dir: PathBuf,
    /// Where clients connect; port 0 takes a free one.
    pub client_addr: SocketAddr,
    /// Where peers connect.
    pub peer_addr: SocketAddr,
    /// Where the admin endpoints are.
    pub admin_addr: SocketAddr,
    /// Where the metrics are, beside the admin address.
    pub metrics_addr: Option<SocketAddr>,
    /// How a blank volume becomes a member.
    pub admission: Admission,
    /// The token that admin commands and, on founders, the session secret need.
    pub token_file: Option<PathBuf>,
    /// Where else members may be reached: the operator's `ensemble.json`.
    pub peers_file: Option<PathBuf>,
    /// What can be tuned.
    pub tuning: Tuning,
}

/// How a blank volume becomes a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It does not: only a volume that is a member already will do.
    MemberOnly,
    /// A permit that names it appears in this file.
    PermitFile(PathBuf),
    /// It founds an ensemble of one at once.
    Alone,
}

/// What can be tuned. The defaults are those of the flags.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// `ZooKeeper`'s tickTime: session timeouts are kept within 2 to 20 of it.
    pub tick_ms: u32,
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Without a leader for so long, a member stands for election.
    pub election: Duration,
    /// The longest request of a client, in bytes.
    pub max_frame: usize,
    /// Connections of one address, 0 for no limit.
    pub max_per_ip: u32,
    /// Connections in all, 0 for no limit but the descriptors.
    pub max_connections: u32,
    /// A connection that has not begun a session within this time is dropped.
    pub handshake: Duration,
    /// The length of a log segment: whole blocks of 4 KiB.
    pub segment_bytes: u64,
    /// Unused segments kept ready.
    pub spare_segments: usize,
    /// Between two looks for empty containers.
    pub container_sweep: Duration,
    /// Log kept for members that were away briefly, in bytes.
    pub log_tail_bytes: u64,
    /// The highest feature level to carry out, if not the newest that this version knows.
    pub max_feature_level: Option<u16>,
    /// How fast states are sent to members that lack them, all together, in bytes per second.
    pub transfer_bytes_per_s: u64,
    /// Values kept in memory, in bytes; none: a quarter of what the process may use.
    pub value_bytes: Option<u64>,
}

impl Tuning {
    /// Bytes of values that stay in memory.
    pub(crate) fn values(&self) -> u64 {
        self.value_bytes.unwrap_or_else(|| crate::os::memory_limit().map_or(u64::MAX, |limit| limit / 4))
    }

    /// The log of the volume with this id.
    pub(crate) fn log(&self, volume: Id128) -> WalConfig {
        let Self { segment_bytes, spare_segments, .. } = *self;
        WalConfig { segment_bytes, spare_segments, identity: volume.0 }
    }

    /// The feature levels that the member carries out.
    pub(crate) fn levels(&self) -> Levels {
        self.max_feature_level.map_or(Levels::KNOWN, |max| Levels::KNOWN.up_to(Level(max)))
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            tick_ms: 2000,
            heartbeat: Duration::from_millis(50),
            election: Duration::from_millis(500),
            max_frame: DEFAULT_MAX_CLIENT_FRAME,
            max_per_ip: 0,
            max_connections: 0,
            handshake: Duration::from_secs(30),
            segment_bytes: 32 << 20,
            spare_segments: 2,
            container_sweep: Duration::from_secs(60),
            log_tail_bytes: 64 << 20,
            max_feature_level: None,
            transfer_bytes_per_s: 64 << 20,
            value_bytes: None,
        }
    }
}

/// Why a server does not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is a log but nothing says whose.
    #[error("data directory {0} has a log but no superblock: it is damaged, or not a data directory")]
    NoSuperblock(PathBuf),
    /// Blank, and nothing to wait for.
    #[error("data directory {0} is blank, and no permit file is given that could make it a member")]
    Blank(PathBuf),
    /// Nothing there to go on from.
    #[error("{0} is not the data directory of a member")]
    NoMember(PathBuf),
    /// The volume is a member of something else than the permit is for.
    #[error("data directory {dir} belongs to {found}, but the permit {permit} is for {expected}")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The permit.
        permit: PathBuf,
        /// What the superblock says.
        found: String,
        /// What the permit says.
        expected: String,
    },
    /// An address cannot be used.
    #[error("cannot listen for {what} on {address}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The permit names this volume but cannot be used.
    #[error("the permit that names this volume: {0}")]
    Permit(#[from] PermitError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log cannot be written at the start.
    #[error("cannot write the log in {dir}")]
    LogWrite {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be opened where it is, or by this version.
    #[error("{0}")]
    StoreRefused(String),
    /// The store is not what was written.
    #[error("the store in {dir} is damaged: {why}")]
    DamagedStore {
        /// The store's directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What the member promised or acknowledged may be lost, and it cannot give its identity up.
    #[error("data directory {dir} is damaged: {why}. {advice}")]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
        /// What can be done.
        advice: String,
    },
    /// The store was put there from elsewhere.
    #[error(
        "the store in {dir} is of the ensemble {found}, but the volume of member {member} of {expected}: put back what was \
         there, or start with an empty data directory, which joins as a new member"
    )]
    ForeignStore {
        /// The store's directory.
        dir: PathBuf,
        /// What the superblock says.
        member: MemberId,
        /// What the superblock says.
        expected: Id128,
        /// What the store says.
        found: Id128,
    },
    /// The store cannot be read by this version.
    #[error("cannot read the store in {dir}: {why}")]
    Store {
        /// The store's directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// What is on the disk does not make a member.
    #[error("the member cannot start: {0}")]
    Start(#[from] StartError),
    /// The log was founded otherwise than the superblock says.
    #[error("the superblock names member {superblock} of {cluster}, but the log was founded for {founded}")]
    Mismatch {
        /// What the superblock says.
        superblock: MemberId,
        /// What the superblock says.
        cluster: Id128,
        /// What the founding entry says.
        founded: Id128,
    },
    /// A backup is only put on a blank volume.
    #[error("data directory {0} belongs to an ensemble: a backup is restored to a directory that does not")]
    NotBlank(PathBuf),
    /// It cannot be restored.
    #[error("cannot restore the backup: {0}")]
    Backup(#[from] BackupError),
    /// It cannot go on alone.
    #[error("{dir}: {source}")]
    Generation {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: GenerationError,
    },
    /// The log is of another time than the superblock.
    #[error(
        "the superblock of {dir} is of generation {noted}, but its log of {found}: the log is an old copy"
    )]
    OldLog {
        /// The data directory.
        dir: PathBuf,
        /// What the superblock says.
        noted: u64,
        /// What the log leads to.
        found: u32,
    },
    /// The operating system refuses something that the server cannot do without.
    #[error("cannot {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The member ran and cannot go on.
    #[error("{0}")]
    Failed(String),
}

impl ServerError {
    /// Whether whoever started the server can put it right: exit code 2, otherwise 1.
    #[must_use]
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::DataDir(_)
            | Self::NoSuperblock(_)
            | Self::Blank(_)
            | Self::NoMember(_)
            | Self::NotBlank(_)
            | Self::Backup(_)
            | Self::Foreign { .. }
            | Self::Listen { .. }
            | Self::LogWrite { .. }
            | Self::StoreRefused(_)
            | Self::Permit(_)
            | Self::Mismatch { .. }
            | Self::ForeignStore { .. }
            | Self::Generation { .. }
            | Self::OldLog { .. }
            | Self::Start(StartError::Level(_))
            | Self::Log(LogError::ForeignVolume { .. } | LogError::UnknownFormat { .. }) => true,
            Self::Log(_)
            | Self::DamagedStore { .. }
            | Self::Damaged { .. }
            | Self::Store { .. }
            | Self::Start(_)
            | Self::System { .. }
            | Self::Failed(_) => false,
        }
    }
}
