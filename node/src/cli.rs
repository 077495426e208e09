//! The flags.
//!
//! Owns their names, defaults, units and help. Must not act on them.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Pharos: a keeper that speaks the ZooKeeper protocol, and a beam that runs Beam YAML pipelines.
#[derive(Debug, Parser)]
#[command(name = "pharos-node", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What goes to standard error.
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// What to log: error, warn, info, debug, trace, or directives such as `info,pharos_ensemble=debug`
    #[arg(long, global = true, env = "PHAROS_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How to write it
    #[arg(long, global = true, env = "PHAROS_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

impl Log {
    /// Directs the program's log to standard error.
    pub(crate) fn install(&self) {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&self.log))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one member of an Ensemble
    Ensemble(EnsembleArgs),
    /// Write the permit that founds an Ensemble of blank members (the operator does this in Kubernetes)
    Permit(PermitArgs),
    /// Show or change who belongs to an Ensemble (the operator does this in Kubernetes)
    Members(MembersArgs),
    /// Let an Ensemble that has lost its majority for good go on from one member's data directory
    Recover(RecoverArgs),
    /// Copy the state of an Ensemble, while it runs, to a directory or object store
    Backup(BackupArgs),
    /// Put a backup on a blank data directory, from which the Ensemble goes on
    Restore(RestoreArgs),
    /// Run the Ensembles and Pipelines of manifests, or a Beam YAML file, in this process: the very YAML
    /// that `kubectl apply` takes. Ends when all Pipelines have completed, or with Ctrl-C
    Local(LocalArgs),
    /// Run one Pipeline through its Ensemble, then idle (what a worker's pod does)
    Worker(crate::pipeline_worker::WorkerArgs),
    /// Check a Beam YAML file with the data that it names, and start nothing
    Check(CheckArgs),
    /// Print the version
    Version,
}

#[derive(Args, Debug)]
pub(crate) struct EnsembleArgs {
    /// Directory of the member's log and state; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address for clients; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:2181")]
    pub(crate) client_addr: SocketAddr,
    /// Address for the other members
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:2888")]
    pub(crate) peer_addr: SocketAddr,
    /// Address of /livez, /readyz, /metrics, /v1/identity, /v1/status, /v1/transfer, /v1/members, /v1/voters and
    /// /v1/backup
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub(crate) admin_addr: SocketAddr,
    /// Address of /metrics alone
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7000")]
    pub(crate) metrics_addr: SocketAddr,
    /// JSON file with further addresses of members, by the first part of the name; read again at each attempt to reach one
    /// [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) peers_file: Option<PathBuf>,
    /// JSON file that may appear later and, if it names this member's volume, makes it a founder or a learner
    /// [default: none; a blank data directory is then an error]
    #[arg(long, value_name = "FILE")]
    pub(crate) permit_file: Option<PathBuf>,
    /// File with the token that commands to the admin address need, and from which founders derive the key of session
    /// passwords; the same on all members [default: none; commands are then refused]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tuning: TuningArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TuningArgs {
    /// Tick in ms: session timeouts are kept within 2 to 20 ticks
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) tick_ms: u32,
    /// Time between two heartbeats of a leader, in ms
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) heartbeat_ms: u32,
    /// Time without a leader after which a member stands for election, in ms; at least 4 heartbeats
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(4..=60_000))]
    pub(crate) election_ms: u32,
    /// Longest request of a client, in bytes (ZooKeeper's jute.maxbuffer); longer ones end the connection
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_575, value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub(crate) max_frame_bytes: u32,
    /// Connections that one address may have, 0 for no limit (ZooKeeper's default is 60, which a proxy or a
    /// node full of pods exceeds)
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) max_connections_per_ip: u32,
    /// Connections in all, 0 for as many as there are descriptors
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) max_connections: u32,
    /// Highest feature level to carry out. The leader raises the level of the Ensemble, for good, once all members can do
    /// better: 2 brings nodes with a time to live. A member below the level in force does not start. While a new version
    /// is tried, this keeps the way back open [default: the highest that this version knows]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_feature_level: Option<u16>,
    /// How fast states are sent to members that lack them, all together, in MiB per second
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) transfer_mib_per_s: u32,
    /// Values kept in memory, in MiB; the others are read from the disk when a client asks for them. Each znode takes
    /// about 200 bytes more, with its name [default: a quarter of the memory that the container or machine has]
    #[arg(long, value_name = "MIB")]
    pub(crate) value_memory_mib: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct PermitArgs {
    /// Admin address of a blank member, such as `http://127.0.0.1:8080`; once for each founder. Its host is
    /// where the others will dial it
    #[arg(long = "founder", value_name = "URL", required = true, num_args = 1)]
    pub(crate) founders: Vec<String>,
    /// Where to write the permit; each founder reads it as its --permit-file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct MembersArgs {
    /// Admin address of a member, such as `http://127.0.0.1:8080`; once for each: the leader is asked
    #[arg(long, value_name = "URL", required = true, num_args = 1)]
    pub(crate) ensemble: Vec<String>,
    /// File with the admin token of the members; changes need it [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// How long to try, in s
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub(crate) timeout_s: u32,
    #[command(subcommand)]
    pub(crate) command: MembersCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// Show the members
    List,
    /// Register a blank member as a learner, and write the permit by which it joins. It has no vote until `switch`
    Add {
        /// Admin address of the blank member. Its host is where the others will dial it
        #[arg(long, value_name = "URL")]
        joiner: String,
        /// Where to write the permit; the member reads it as its --permit-file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Begin the next configuration with these voters, once all of them have caught up. Voters that are not named are
    /// removed for good: their data is of no more use
    Switch {
        /// Ids of the members that are to vote
        #[arg(value_name = "ID", required = true)]
        voters: Vec<u32>,
    },
    /// Remove a learner for good
    Remove {
        /// Its id
        #[arg(value_name = "ID")]
        member: u32,
    },
}

#[derive(Args, Debug)]
pub(crate) struct RecoverArgs {
    /// Data directory of the member that survived, which must not be running. Of several survivors it should be the one
    /// that knows most: without --accept-lost-writes this shows what it holds and changes nothing
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Do it: the Ensemble goes on from here in a new generation with this member alone. What only the others hold is
    /// lost, even if it was acknowledged; they are turned away for good. Then start the member, and add others with
    /// `members`
    #[arg(long)]
    pub(crate) accept_lost_writes: bool,
    /// Number of the new generation, above that of the directory [default: the next one]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) generation: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// Admin address of a member, such as `http://127.0.0.1:8080`; once for each: the leader is asked
    #[arg(long, value_name = "URL", required = true, num_args = 1)]
    pub(crate) ensemble: Vec<String>,
    /// File with the admin token of the members
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: PathBuf,
    /// Directory or URL, such as `s3://bucket/prefix`, under which the backup gets a directory of its own. Keep it as
    /// secret as the token: it has all data, and the key of session passwords
    #[arg(long, value_name = "LOCATION")]
    pub(crate) to: String,
    /// How long to look for the leader, in s
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub(crate) timeout_s: u32,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// Directory or URL of the backup, as `backup` printed it
    #[arg(long, value_name = "LOCATION")]
    pub(crate) from: String,
    /// Data directory, which is made if it is not there and must not be a member's. The Ensemble goes on from it in a new
    /// generation with one member: start it, and add others with `members`
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the others will dial the member
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port of the member's --peer-addr
    #[arg(long, value_name = "PORT", default_value_t = 2888)]
    pub(crate) peer_port: u16,
    /// Port of the member's --client-addr
    #[arg(long, value_name = "PORT", default_value_t = 2181)]
    pub(crate) client_port: u16,
    /// Number of the new generation, above the backup's and every one since [default: the one after the backup's]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) generation: Option<u32>,
    /// Succeed, too, on a directory to which the same backup was restored before, as when the restore was killed before it
    /// could tell
    #[arg(long)]
    pub(crate) unless_restored: bool,
    /// File to which the outcome is written as JSON, beside what is printed [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) report_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct LocalArgs {
    /// YAML with Ensembles and Pipelines, or a plain Beam YAML file; may be given several times
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    /// Directory for everything that is to outlive the process [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address for ZooKeeper clients of the first Ensemble; port 0 takes a free one, as further Ensembles do
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2181")]
    pub(crate) client_addr: SocketAddr,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Beam YAML file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// The version of the program, and of the protocol that clients see.
pub(crate) fn print_version() {
    println!("pharos-node {}", pharos_ensemble::VERSION);
    println!("serves ZooKeeper's protocol as {}", pharos_ensemble::ZOOKEEPER_VERSION);
}
