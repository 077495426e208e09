//! `pharos-node worker`: one of the workers of a Pipeline, in a pod.
//!
//! Owns: the worker's flags, its life from start to idling, and what it says on its admin port.
//! Must not know: Kubernetes, how rows are processed.
//! Invariant: a worker whose run is done, or whose user must mend something, stays up and says so;
//! one whose store or Ensemble does not answer says why it waits and tries again by itself, and only if that does not help
//! for ten minutes ends with exit code 1, to be started anew.

use crate::failure::Failure;
use crate::pipeline::{Trouble, compile, state_bytes, threads, trouble};
use crate::pipeline_status::{Status, WorkerState, serve};
use clap::{Args, ValueEnum};
use pharos_beam::{Plan, SourceName};
use pharos_connect::{Files, open_blobs};
use pharos_crds::names::{ENV_UPGRADE_MODE, ZNODE_PIPELINES};
use pharos_stream::checkpoint::Owner;
use pharos_stream::coordination::{Lineage, Submission, Upgrade, ZooKeeperCoordination, ZooKeeperRoster};
use pharos_stream::io::{Connectors, Fault};
use pharos_stream::{CheckpointOptions, Event, Outcome, StateMemory, WorkerOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What lies between two tries, growing from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// So long a worker tries again by itself: then perhaps a new process helps. A store that is away is no reason to have the
/// kubelet wait for minutes between two starts.
const PATIENCE: Duration = Duration::from_secs(600);

/// How soon an idle worker notices that it is to end.
const WATCH: Duration = Duration::from_millis(100);

/// What a changed document goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum UpgradeArg {
    /// The last checkpoint: transforms of the same names take their state over
    LastState,
    /// Nothing
    Stateless,
}

/// The flags of a worker.
#[derive(Args, Debug)]
pub(crate) struct WorkerArgs {
    /// Beam YAML document to run
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline_file: PathBuf,
    /// UID of the Pipeline; with the document's hash and the run it names what is to be done once
    #[arg(long, value_name = "UID")]
    pub(crate) pipeline_uid: String,
    /// Namespace of the Pipeline, for messages
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Name of the Pipeline, for messages
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// SHA-256 of the document as it was submitted
    #[arg(long, value_name = "HEX")]
    pub(crate) document_hash: String,
    /// Which run of the document
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) run_id: i64,
    /// What it goes on from if another document of the Pipeline ran before
    #[arg(long, value_enum, env = ENV_UPGRADE_MODE, default_value_t = UpgradeArg::LastState)]
    pub(crate) upgrade_mode: UpgradeArg,
    /// Where the Ensemble answers clients, host:port, several joined by commas
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) ensemble: String,
    /// Directory or URL (`file://`, `s3://`) for checkpoints [default: none; a run that dies starts anew]
    #[arg(long, value_name = "URL")]
    pub(crate) checkpoint: Option<String>,
    /// Time between checkpoints, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) checkpoint_interval: u64,
    /// Memory for keyed state in windows, in MiB; what does not fit goes to sorted files, and a checkpoint may for a while
    /// need as much again [default: a quarter of the container's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) state_memory_mib: Option<u32>,
    /// Directory in which this worker has one for these files, which no other worker of the Pipeline may use [default: the
    /// system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Name of this worker, for messages [default: the name of the machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) worker_name: Option<String>,
    /// Address at which other workers of the Pipeline connect
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7100")]
    pub(crate) exchange_addr: SocketAddr,
    /// Host under which they reach it [default: the address of --exchange-addr, or the name of the machine if that is any]
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// Address of /livez, /readyz, /metrics and /v1/pipeline
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub(crate) admin_addr: SocketAddr,
    /// Address of /metrics alone
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7000")]
    pub(crate) metrics_addr: SocketAddr,
}

/// Runs the Pipeline, then idles until the process is asked to end.
pub(crate) fn run(args: &WorkerArgs) -> Result<(), Failure> {
    // First of all: until then the first process of a container does not hear that it is to end.
    let stop = Arc::new(AtomicBool::new(false));
    crate::pipeline_status::stop_on_signal(&stop)?;
    // Every file of a read is open at once.
    if let Err(error) = pharos_ensemble::raise_descriptor_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    let status = Arc::new(Status::new(&args.document_hash, args.run_id));
    serve(args.admin_addr, args.metrics_addr, &status)?;
    match work_patiently(args, &status, &stop) {
        Ok(Outcome::Completed) => status.set(WorkerState::Completed, None),
        Ok(Outcome::Stopped) => return Ok(()),
        // The pod would only fail again: the operator hears of it and waits for another document.
        Err(trouble) if trouble.fault == Fault::User => {
            tracing::error!("{}", trouble.text);
            status.set(WorkerState::Failed, Some(trouble.text));
        }
        Err(trouble) => return Err(trouble.into()),
    }
    while !stop.load(Ordering::Acquire) {
        std::thread::sleep(WATCH);
    }
    Ok(())
}

/// Works, and tries again while a store or the Ensemble does not answer. A worker that is sick itself ends: each time that it
/// takes part the others go back to the last checkpoint, and the kubelet's growing pause between restarts spares them.
fn work_patiently(
    args: &WorkerArgs,
    status: &Arc<Status>,
    stop: &Arc<AtomicBool>,
) -> Result<Outcome, Trouble> {
    let (mut pause, mut since) = (PAUSES.0, Instant::now());
    loop {
        let before = status.epoch();
        let trouble = match work(args, status, stop) {
            Err(trouble) if trouble.fault == Fault::Environment && !trouble.is_sick => trouble,
            other => return other,
        };
        if status.epoch() != before {
            // It has come further meanwhile.
            (pause, since) = (PAUSES.0, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(trouble);
        }
        tracing::error!("{}; it tries again in {pause:?}", trouble.text);
        status.set(WorkerState::Starting, Some(trouble.text));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if stop.load(Ordering::Acquire) {
                return Ok(Outcome::Stopped);
            }
            std::thread::sleep(WATCH);
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Works until the document's own run is done. One of the document before that was still under way is brought
/// to its end first if it has read all its input; then this one begins anew.
fn work(args: &WorkerArgs, status: &Arc<Status>, stop: &Arc<AtomicBool>) -> Result<Outcome, Trouble> {
    loop {
        match work_in_lineage(args, status, stop)? {
            Worked::On(outcome) => return Ok(outcome),
            Worked::OnOther => tracing::info!("the run of the document before is complete; this one begins"),
        }
    }
}

/// On whose run it worked.
enum Worked {
    /// Its own.
    On(Outcome),
    /// That of the document before, which is done.
    OnOther,
}

fn work_in_lineage(
    args: &WorkerArgs,
    status: &Arc<Status>,
    stop: &Arc<AtomicBool>,
) -> Result<Worked, Trouble> {
    let of = Trouble::new;
    let document = std::fs::read_to_string(&args.pipeline_file)
        .map_err(|error| of(Fault::User, format!("{}: {error}", args.pipeline_file.display())))?;
    // What is wrong with the document itself is said even if no Ensemble answers.
    let source = SourceName::new("spec.pipeline");
    pharos_beam::check(&document, source.clone()).map_err(|errors| of(Fault::User, errors.to_string()))?;
    let files = Files::new(".");
    let ours =
        |error: &dyn std::fmt::Display| of(Fault::Environment, format!("Pipeline {}: {error}", args.name));
    let machine = machine_name();
    let name = args.worker_name.clone().unwrap_or_else(|| machine.clone());
    let submission = submission(args);
    let Some((mut coordination, lineage, kept)) = find_lineage(args, &submission, &name, stop)? else {
        return Ok(Worked::On(Outcome::Stopped));
    };
    let plan = kept.map_or_else(|| compile(&document, source, &files), Ok)?;
    coordination.keep_plan(&plan);
    let paths = lineage.paths(&submission);
    let listener = TcpListener::bind(args.exchange_addr).map_err(|error| {
        // The one of the try before may not be gone yet.
        let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
        let fault = if in_use { Fault::Environment } else { Fault::User };
        of(fault, format!("cannot listen on {}: {error}", args.exchange_addr))
    })?;
    let port = listener.local_addr().map_err(|error| ours(&error))?.port();
    let host = args.advertise.clone().unwrap_or_else(|| match args.exchange_addr.ip() {
        any if any.is_unspecified() => machine,
        address => address.to_string(),
    });
    // An IPv6 address stands in brackets before its port.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let checkpoints = match &args.checkpoint {
        None => None,
        Some(url) => {
            own_location(args, url)?;
            let url = url.trim_end_matches('/');
            let place = format!("{url}/{}/{}", args.pipeline_uid, lineage.short_name());
            let blobs = open_blobs(&place, Path::new("."));
            let blobs = blobs.map_err(|error| of(error.fault, format!("Pipeline {}: {error}", args.name)))?;
            Some(CheckpointOptions { interval: Duration::from_secs(args.checkpoint_interval), blobs })
        }
    };
    status.name(&name);
    let heard = Arc::clone(status);
    let options = WorkerOptions {
        id: process_id().map_err(|error| ours(&error))?,
        name,
        listener,
        address: format!("{host}:{port}"),
        threads: threads(),
        run: lineage.work(&submission),
        part: lineage.part(&submission),
        events: Arc::new(move |event: &Event| heard.hear(event)),
        state: Some(state_memory(args)),
        coordination: Arc::new(Mutex::new(coordination)),
        roster: Box::new(ZooKeeperRoster::new(&args.ensemble, paths)),
        checkpoints,
        stop: Arc::clone(stop),
    };
    let connectors: Arc<dyn Connectors> = Arc::new(files);
    let worked = pharos_stream::work(&plan, &connectors, options);
    let outcome = worked.map_err(|error| trouble(&args.name, &error))?;
    if outcome == Outcome::Completed {
        let now = find_lineage(args, &submission, &args.name, stop)?;
        if now.is_some_and(|(_, now, _)| now.short_name() != lineage.short_name()) {
            return Ok(Worked::OnOther);
        }
    }
    Ok(Worked::On(outcome))
}

/// Finds where the document goes on, and the plan it has there if it has had a checkpoint; nothing if the process is to stop before the Ensemble has answered.
fn find_lineage(
    args: &WorkerArgs,
    submission: &Submission,
    name: &str,
    stop: &AtomicBool,
) -> Result<Option<(ZooKeeperCoordination, Lineage, Option<Plan>)>, Trouble> {
    let trouble = |error: &dyn std::fmt::Display| {
        Trouble::new(Fault::Environment, format!("Pipeline {}: {error}", args.name))
    };
    let (ensemble, submission, name) = (args.ensemble.clone(), submission.clone(), name.to_owned());
    let finding = std::thread::Builder::new()
        .name("pharos-lineage".to_owned())
        .spawn(move || ZooKeeperCoordination::of_submission(&ensemble, &submission, &name))
        .map_err(|error| trouble(&error))?;
    while !finding.is_finished() {
        if stop.load(Ordering::Acquire) {
            return Ok(None);
        }
        std::thread::sleep(WATCH);
    }
    let found = finding.join().expect("it does not panic");
    found.map(Some).map_err(|error| trouble(&error))
}

fn submission(args: &WorkerArgs) -> Submission {
    Submission {
        root: ZNODE_PIPELINES.to_owned(),
        uid: args.pipeline_uid.clone(),
        document: args.document_hash.clone(),
        run_id: args.run_id,
        upgrade: match args.upgrade_mode {
            UpgradeArg::LastState => Upgrade::LastState,
            UpgradeArg::Stateless => Upgrade::Stateless,
        },
    }
}

/// Makes sure that the checkpoints' location is this Pipeline's alone.
fn own_location(args: &WorkerArgs, url: &str) -> Result<(), Trouble> {
    let of = |fault, text: String| Trouble::new(fault, format!("Pipeline {}: {text}", args.name));
    let blobs = open_blobs(url, Path::new(".")).map_err(|error| of(error.fault, error.to_string()))?;
    let owner = Owner::new(&args.pipeline_uid, &args.namespace, &args.name);
    owner.claim(&*blobs, url).map_err(|error| of(error.fault(), error.to_string()))
}

fn state_memory(args: &WorkerArgs) -> StateMemory {
    let within = args.state_dir.clone().unwrap_or_else(std::env::temp_dir);
    // The next process of this worker has the same name: it uses what this one leaves, or clears it.
    let name = args.worker_name.clone().unwrap_or_else(machine_name);
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "-._".contains(letter) { letter } else { '-' };
    let name: String = format!("pharos-state-{}-{name}", args.pipeline_uid).chars().map(plain).collect();
    StateMemory {
        bytes: args.state_memory_mib.map_or_else(|| state_bytes(1), |mib| (mib as usize) << 20),
        directory: within.join(name),
    }
}

/// What no other process has.
fn process_id() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(id.trim().to_owned())
}

fn machine_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}
