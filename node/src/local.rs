//! `pharos-node local`: the manifests of a cluster, in one process.
//!
//! Owns starting an embedded member per Ensemble and a run per Pipeline, and how long all of it lasts. Must
//! not know how a Pipeline runs.
//!
//! Invariant: what the files say is checked whole before anything is started. However many members an
//! Ensemble has in Kubernetes, here it is one: there is only one machine to lose.

use crate::cli::LocalArgs;
use crate::failure::Failure;
use crate::local_manifests::{self, LocalEnsemble, LocalPipeline, Manifests};
use anyhow::{Context, anyhow};
use pharos_ensemble::{Admission, Server, ServerConfig, ServerHandle, Tuning};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// The Ensemble of Pipelines that name none: plain Beam YAML files.
const IMPLICIT: &str = "local";
/// A member of one is its own quorum; replaying its log may take a while.
const SERVING_WITHIN: Duration = Duration::from_secs(60);
const WATCH: Duration = Duration::from_millis(20);

/// One Pipeline to run in this process.
#[derive(Debug)]
pub(crate) struct PipelineJob {
    /// What was read.
    pub(crate) pipeline: LocalPipeline,
    /// A directory of its own, for checkpoints and files in the making; kept when the user named one.
    pub(crate) data_dir: PathBuf,
    /// Where its Ensemble answers clients.
    pub(crate) ensemble: SocketAddr,
    /// How many bytes of memory its keyed state may take.
    pub(crate) state_bytes: usize,
    /// Set when the run is to end early, in good order.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Runs what the files say.
pub(crate) fn run(args: &LocalArgs) -> Result<(), Failure> {
    let mut manifests = local_manifests::read(&args.files).map_err(all_mistakes)?;
    for pipeline in &manifests.pipelines {
        crate::pipeline::check_local(pipeline)?;
    }
    if manifests.ensembles.is_empty() {
        manifests.ensembles.push(LocalEnsemble {
            name: IMPLICIT.to_owned(),
            replicas: 1,
            max_feature_level: None,
        });
    }
    let dir = DataDir::of(args)?;
    let ensembles = start_ensembles(args, &manifests, dir.path())?;
    let stop = Arc::new(AtomicBool::new(false));
    let jobs = start_pipelines(manifests.pipelines, &ensembles, dir.path(), &stop)?;
    let result = wait(jobs, &ensembles, &stop);
    for (_, server) in &ensembles {
        server.shutdown();
    }
    let ends: Vec<_> = ensembles.into_iter().map(|(_, server)| server.join()).collect();
    result?;
    ends.into_iter().collect::<Result<(), _>>().map_err(Failure::from)
}

fn all_mistakes(mistakes: Vec<local_manifests::Mistake>) -> Failure {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    Failure::users(anyhow!("{}", lines.join("\n")))
}

/// Where everything is kept, and whether it stays.
enum DataDir {
    Users(PathBuf),
    Temporary(TempDir),
}

impl DataDir {
    fn of(args: &LocalArgs) -> Result<Self, Failure> {
        match &args.data_dir {
            Some(dir) => Ok(Self::Users(dir.clone())),
            None => {
                let made = tempfile::Builder::new().prefix("pharos-local-").tempdir();
                let made = made.context("cannot make a temporary data directory").map_err(Failure::users);
                made.map(Self::Temporary)
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Users(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

type Ensembles = Vec<(String, ServerHandle)>;

fn start_ensembles(args: &LocalArgs, manifests: &Manifests, dir: &Path) -> Result<Ensembles, Failure> {
    let mut started = Vec::new();
    for (index, ensemble) in manifests.ensembles.iter().enumerate() {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let client_addr =
            if index == 0 { args.client_addr } else { SocketAddr::new(args.client_addr.ip(), 0) };
        let server = Server::start(ServerConfig {
            data_dir: dir.join("ensembles").join(&ensemble.name),
            client_addr,
            peer_addr: free,
            admin_addr: free,
            metrics_addr: None,
            admission: Admission::Alone,
            token_file: None,
            peers_file: None,
            tuning: Tuning { max_feature_level: ensemble.max_feature_level, ..Tuning::default() },
        })?;
        if !server.wait_until_serving(SERVING_WITHIN) {
            let error = match server.join() {
                Err(error) => Failure::from(error),
                Ok(()) => Failure::ours(anyhow!("Ensemble {} does not serve", ensemble.name)),
            };
            return Err(error);
        }
        introduce(ensemble, &server);
        started.push((ensemble.name.clone(), server));
    }
    Ok(started)
}

fn introduce(ensemble: &LocalEnsemble, server: &ServerHandle) {
    let addresses = server.addresses();
    println!("Ensemble {} serves ZooKeeper clients on {}", ensemble.name, addresses.client);
    println!("  zkCli.sh -server {}", addresses.client);
    println!(
        "  python3 -c 'from kazoo.client import KazooClient; zk = KazooClient(\"{}\"); zk.start(); print(zk.get_children(\"/\"))'",
        addresses.client
    );
    println!("  status, metrics: http://{}/v1/status http://{}/metrics", addresses.admin, addresses.admin);
    if ensemble.replicas > 1 {
        println!("  one member here; in Kubernetes it has {}", ensemble.replicas);
    }
}

type Jobs = Vec<(String, JoinHandle<Result<(), Failure>>)>;

fn start_pipelines(
    pipelines: Vec<LocalPipeline>,
    ensembles: &Ensembles,
    dir: &Path,
    stop: &Arc<AtomicBool>,
) -> Result<Jobs, Failure> {
    let mut jobs = Vec::new();
    let state_bytes = crate::pipeline::state_bytes(pipelines.len());
    for pipeline in pipelines {
        let name = pipeline.name.clone();
        let wanted = pipeline.spec.as_ref().map(|spec| spec.ensemble_ref.name.as_str());
        let mut served = ensembles.iter();
        let ensemble = match wanted {
            Some(wanted) => served.find(|(name, _)| name == wanted),
            None => served.next(),
        };
        let (_, server) = ensemble.expect("each Pipeline's Ensemble was found in the files");
        let job = PipelineJob {
            data_dir: dir.join("pipelines").join(&name),
            ensemble: server.addresses().client,
            state_bytes,
            stop: Arc::clone(stop),
            pipeline,
        };
        let thread = std::thread::Builder::new().name(format!("pharos-pipeline-{name}"));
        let thread = thread.spawn(move || crate::pipeline::run_local(job));
        jobs.push((name, thread.context("cannot start a thread").map_err(Failure::ours)?));
    }
    Ok(jobs)
}

/// Until all Pipelines have completed or one has failed; without Pipelines, until Ctrl-C. Ctrl-C ends
/// everything in good order.
fn wait(mut jobs: Jobs, ensembles: &Ensembles, stop: &AtomicBool) -> Result<(), Failure> {
    let stays = jobs.is_empty();
    if stays {
        println!("Ctrl-C ends it");
    }
    let interrupted = interrupts()?;
    let mut result = Ok(());
    while result.is_ok() && (stays || !jobs.is_empty()) && !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(WATCH);
        if let Some((name, _)) = ensembles.iter().find(|(_, server)| server.has_ended()) {
            result = Err(Failure::ours(anyhow!("the member of Ensemble {name} has ended")));
        }
        // A member waits for room; whoever waits for a command that ends cannot know of it. The jobs wait for the member.
        let full = ensembles.iter().find(|(_, server)| !stays && server.snapshot().status.disk_full);
        if let Some((name, _)) = full {
            return Err(Failure::users(anyhow!(
                "the disk of Ensemble {name} is full: make room, or name another place with --data-dir, and run it again"
            )));
        }
        for (name, job) in jobs.extract_if(.., |(_, job)| job.is_finished()) {
            result = result.and(job_result(&name, job));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (name, job) in jobs {
        result = result.and(job_result(&name, job));
    }
    result
}

fn job_result(name: &str, job: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    job.join().unwrap_or_else(|_| Err(Failure::ours(anyhow!("Pipeline {name} panicked"))))
}

/// Becomes true with Ctrl-C or SIGTERM.
fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for signals").map_err(Failure::ours)?;
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let thread = std::thread::Builder::new().name("pharos-signals".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = runtime.block_on(crate::ensemble::signalled()) {
            tracing::error!(%error, "cannot wait for signals");
        }
        set.store(true, Ordering::Relaxed);
    });
    spawned.context("cannot start a thread").map_err(Failure::ours)?;
    Ok(flag)
}
