//! The store of checkpoints goes away while a Pipeline runs, and comes back.
//!
//! Owns the store and its absence. Must not know how workers try again. Invariant: while it is away there is no new
//! checkpoint and nobody gives up; afterwards the run comes to its end with all rows.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::input::Input;
use super::workers::{Checkpoints, Job, Workers};
use super::{MEMBERS, PATIENCE};
use crate::command::Running;
use crate::kubebox::make_bucket;
use crate::local::{LocalEnsemble, Place, free_ports};
use crate::netns::{BRIDGE, Network, isolated};
use crate::objects::variables_at;

const WORKERS: usize = 2;
const BUCKET: &str = "checkpoints";
/// Until workers say what they wait for.
const SAYS: Duration = Duration::from_secs(90);
const LONGEST: Duration = Duration::from_secs(300);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Outage {
    /// A Python interpreter with an S3 server beside it.
    pub python: PathBuf,
    /// How long the store is away at least.
    pub length: Duration,
    /// How many rows are read, about.
    pub rows: usize,
    /// What the rows follow from.
    pub seed: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Absence {
    /// How long the store was away.
    pub length: Duration,
    /// What a worker said of it.
    pub message: String,
    /// The newest checkpoint when the store went, and in the end.
    pub checkpoints: (u64, u64),
    /// From the return of the store to the end of the run.
    pub took: Duration,
}

/// Runs a Pipeline on two workers, lets their store refuse all connections, and then not any more.
///
/// # Errors
/// If a worker gives up, a checkpoint counts that cannot have been written, or the outputs are not what they have to be.
pub fn outage(options: &Outage) -> anyhow::Result<Absence> {
    isolated(|| {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let input = Input::write(directory.path(), options.rows, options.seed)?;
        let network = Network::new(MEMBERS + WORKERS)?;
        let (members, hosts) = network.hosts().split_at(MEMBERS);
        let places = members.iter().map(|host| Place { host: host.clone(), volume: None }).collect();
        let ensemble = LocalEnsemble::found_on(places)?;
        let [port] = free_ports()?;
        let _store = store(&options.python, port)?;
        let job = Job::new(directory.path(), directory.path().join("run"), ensemble.hosts(), 0)?;
        let checkpoints = Checkpoints { location: format!("s3://{BUCKET}/run"), seconds: 1 };
        let environment = variables_at(format!("http://{BRIDGE}:{port}")).into();
        let job = Job { checkpoints: Some(checkpoints), environment, ..job };
        let mut workers = Workers::start(job.clone(), hosts, WORKERS)?;
        let absence =
            watch(&mut workers, &network, port, options.length).with_context(|| workers.describe())?;
        workers.all_end()?;
        input.check(&job.outputs()?)?;
        Ok(absence)
    })
}

fn store(python: &std::path::Path, port: u16) -> anyhow::Result<Running> {
    let mut server = Command::new(python.with_file_name("moto_server"));
    server.args(["-H", &BRIDGE.to_string(), "-p", &port.to_string()]);
    let server = Running::start(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    make_bucket(|| Command::new(python), &format!("http://{BRIDGE}:{port}/{BUCKET}"))?;
    Ok(server)
}

fn watch(workers: &mut Workers, network: &Network, port: u16, length: Duration) -> anyhow::Result<Absence> {
    workers.wait("checkpoints", PATIENCE, |workers| {
        let seen = workers.look()?;
        ensure!(seen.completed == 0, "the run was over before the store went away");
        Ok((seen.epoch >= 2 && seen.together == WORKERS).then_some(()))
    })?;
    network.refuse(port)?;
    let gone = Instant::now();
    // One that was being written may still come to count.
    let before = workers.look()?.epoch;
    let store = format!("s3://{BUCKET}/run");
    let message = workers.wait("a word of the store", SAYS, |workers| {
        Ok(workers.look()?.messages.into_iter().find(|message| message.contains(&store)))
    })?;
    workers.wait("the time of its absence", length + PATIENCE, |workers| {
        let seen = workers.look()?;
        ensure!(seen.epoch <= before + 1 && seen.completed == 0, "there are checkpoints without a store");
        Ok((gone.elapsed() >= length).then_some(()))
    })?;
    network.serve(port)?;
    let (length, back) = (gone.elapsed(), Instant::now());
    let after = workers.wait("the end of the run", LONGEST, |workers| {
        let seen = workers.look()?;
        Ok((seen.completed == WORKERS).then_some(seen.epoch))
    })?;
    ensure!(workers.ended == 0, "{} workers gave up", workers.ended);
    Ok(Absence { length, message, checkpoints: (before, after), took: back.elapsed() })
}
