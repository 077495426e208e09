//! The workers of one run as processes, each on a host of its own, and who starts them again as a kubelet does.
//!
//! Owns processes, what they say, and which ends are in order. Must not know why a worker is killed. Invariant: a worker
//! ends by itself with exit code 1 alone, and within `GRACE` when it is asked to.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::stalls::Stalls;
use crate::command::{Running, output, wait_until};
use crate::environment::our_binaries;
use crate::local::{free_ports, get};
use crate::netns::Host;

/// What Kubernetes gives a pod to end.
const GRACE: Duration = Duration::from_secs(30);
/// How long the supervisor waits until it starts a worker again that has ended.
const BACKOFF: Duration = Duration::from_millis(500);
const SIGTERM: i32 = 15;
/// Where outputs go, below a run's directory.
const OUT: &str = "out";
const ANSWERS: Duration = Duration::from_secs(1);

/// What the workers are started with.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) program: PathBuf,
    /// Where the document is, and the workers' logs.
    pub(super) directory: PathBuf,
    pub(super) checkpoints: Option<Checkpoints>,
    /// Variables of the workers' environment.
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) ensemble: String,
    pub(super) document: PathBuf,
    pub(super) hash: String,
    pub(super) run: usize,
    /// Whether each worker has one core, and so one thread.
    pub(super) pinned: bool,
    /// How much memory state may take; none: what workers take by themselves.
    pub(super) state_memory_mib: Option<u32>,
}

/// Where checkpoints go, and how often.
#[derive(Clone)]
pub(super) struct Checkpoints {
    /// A directory, or a URL.
    pub(super) location: String,
    pub(super) seconds: u64,
}

impl Job {
    /// The run of that number over the rows in `input`, in a directory of its own that it makes: one checkpoint each
    /// second, and outputs below `out`.
    pub(super) fn new(
        input: &Path,
        directory: PathBuf,
        ensemble: String,
        run: usize,
    ) -> anyhow::Result<Self> {
        let text = super::input::document(input, &directory.join(OUT));
        Self::running(&text, directory, ensemble, run)
    }

    /// The same of another document.
    pub(super) fn running(
        text: &str,
        directory: PathBuf,
        ensemble: String,
        run: usize,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&directory).context("cannot make a directory")?;
        let document = directory.join("pipeline.yaml");
        std::fs::write(&document, text).context("cannot write a document")?;
        Ok(Self {
            program: our_binaries()?.join("pharos-node"),
            checkpoints: Some(Checkpoints {
                location: directory.join("checkpoints").display().to_string(),
                seconds: 1,
            }),
            environment: Vec::new(),
            directory,
            ensemble,
            document,
            hash: hex::encode(Sha256::digest(text)),
            run,
            pinned: false,
            state_memory_mib: None,
        })
    }

    /// What it has written.
    pub(super) fn outputs(&self) -> anyhow::Result<[Vec<u8>; 3]> {
        super::input::read_outputs(&self.directory.join(OUT))
    }
}

enum Life {
    Absent,
    Due(Instant),
    Runs(Running),
    Stopped(Running),
    /// It was asked to end by then, and is to be back so long after that.
    Leaves(Running, Instant, Option<Duration>),
}

struct Worker {
    host: Host,
    admin: u16,
    metrics: u16,
    exchange: u16,
    life: Life,
}

/// See the module.
pub(super) struct Workers {
    job: Job,
    workers: Vec<Worker>,
    /// How often one has ended by itself.
    pub(super) ended: usize,
    /// How often one was started.
    pub(super) started: usize,
}

/// What the workers say at one moment.
#[derive(Default)]
pub(super) struct Seen {
    /// The newest checkpoint.
    pub(super) epoch: u64,
    pub(super) generation: u64,
    /// Who leads.
    pub(super) lead: Option<usize>,
    /// How many have said that the run is completed.
    pub(super) completed: usize,
    /// How many take part, as the one says that leads.
    pub(super) together: usize,
    /// Why the run does not go on, as they say it.
    pub(super) messages: Vec<String>,
}

impl Workers {
    /// Starts the first `count` of them; there is a host for each.
    pub(super) fn start(job: Job, hosts: &[Host], count: usize) -> anyhow::Result<Self> {
        let now = Instant::now();
        let worker = |(index, host): (usize, &Host)| {
            let [admin, metrics, exchange] = free_ports()?;
            let life = if index < count { Life::Due(now) } else { Life::Absent };
            Ok(Worker { host: host.clone(), admin, metrics, exchange, life })
        };
        let workers = hosts.iter().enumerate().map(worker).collect::<anyhow::Result<_>>()?;
        let mut this = Self { job, workers, ended: 0, started: 0 };
        this.supervise()?;
        Ok(this)
    }

    /// Starts who is due, and takes note of who has ended.
    pub(super) fn supervise(&mut self) -> anyhow::Result<()> {
        for index in 0..self.workers.len() {
            let life = std::mem::replace(&mut self.workers[index].life, Life::Absent);
            let next = self.next(index, life).with_context(|| format!("worker {index}"))?;
            self.workers[index].life = next;
        }
        Ok(())
    }

    fn next(&mut self, index: usize, life: Life) -> anyhow::Result<Life> {
        let now = Instant::now();
        Ok(match life {
            Life::Due(at) if at <= now => Life::Runs(self.spawn(index)?),
            Life::Runs(mut process) => match ended(&mut process)? {
                None => Life::Runs(process),
                Some(status) => {
                    ensure!(status.code() == Some(1), "it has ended by itself: {status}");
                    self.ended += 1;
                    Life::Due(now + BACKOFF)
                }
            },
            Life::Leaves(mut process, by, back) => match ended(&mut process)? {
                None if now < by => Life::Leaves(process, by, back),
                None => bail!("it was asked to end and has not in {GRACE:?}"),
                Some(status) => {
                    // What it was about to fail of is an end, too; and one that was just started may not listen yet.
                    let is_end = matches!(status.code(), Some(0 | 1)) || status.signal() == Some(SIGTERM);
                    ensure!(is_end, "it was asked to end: {status}");
                    back.map_or(Life::Absent, |back| Life::Due(now + back))
                }
            },
            other => other,
        })
    }

    fn spawn(&mut self, index: usize) -> anyhow::Result<Running> {
        let Worker { host, admin, metrics, exchange, .. } = &self.workers[index];
        let at = |port: &u16| format!("{}:{port}", host.address());
        let log = File::options().create(true).append(true).open(self.log_path(index));
        let mut command = if self.job.pinned {
            let cores = std::thread::available_parallelism().context("cannot count the cores")?;
            let mut taskset = host.command("taskset");
            taskset.args(["--cpu-list", &(index % cores).to_string()]).arg(&self.job.program);
            taskset
        } else {
            host.command(&self.job.program)
        };
        command.arg("worker").arg("--pipeline-file").arg(&self.job.document);
        command.args(["--pipeline-uid", "proof", "--name", "proof", "--document-hash", &self.job.hash]);
        command.args(["--run-id", &self.job.run.to_string(), "--ensemble", &self.job.ensemble]);
        command.envs(self.job.environment.iter().map(|(name, value)| (name, value)));
        if let Some(Checkpoints { location, seconds }) = &self.job.checkpoints {
            command.arg("--checkpoint").arg(location);
            command.args(["--checkpoint-interval", &seconds.to_string()]);
        }
        if let Some(mib) = self.job.state_memory_mib {
            command.args(["--state-memory-mib", &mib.to_string()]);
        }
        command.arg("--state-dir").arg(&self.job.directory);
        command.args(["--admin-addr", &at(admin), "--metrics-addr", &at(metrics)]);
        command.args(["--worker-name", &format!("worker-{index}"), "--exchange-addr", &at(exchange)]);
        let log = log.context("cannot open a log")?;
        self.started += 1;
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
    }

    /// Those that run and are not stopped.
    pub(super) fn running(&self) -> Vec<usize> {
        let runs = |index: &usize| matches!(self.workers[*index].life, Life::Runs(_));
        (0..self.workers.len()).filter(runs).collect()
    }

    /// One that is not there.
    pub(super) fn absent(&self) -> Option<usize> {
        self.workers.iter().position(|worker| matches!(worker.life, Life::Absent))
    }

    /// How many are to be there.
    pub(super) fn wanted(&self) -> usize {
        self.workers.iter().filter(|worker| !matches!(worker.life, Life::Absent)).count()
    }

    /// Whether all that are to be there run.
    pub(super) fn are_whole(&self) -> bool {
        self.running().len() == self.wanted()
    }

    /// Kills one as kill -9 does; it is started again after that time.
    pub(super) fn kill(&mut self, index: usize, back: Duration) -> anyhow::Result<()> {
        let life = std::mem::replace(&mut self.workers[index].life, Life::Due(Instant::now() + back));
        match life {
            Life::Runs(process) | Life::Stopped(process) => process.kill(),
            _ => bail!("worker {index} does not run"),
        }
    }

    /// Stops one as SIGSTOP does.
    pub(super) fn stop(&mut self, index: usize) -> anyhow::Result<()> {
        self.signal(index, "-STOP", Life::Stopped)
    }

    /// A stopped one goes on, unless it was killed meanwhile.
    pub(super) fn go_on(&mut self, index: usize) -> anyhow::Result<()> {
        match self.workers[index].life {
            Life::Stopped(_) => self.signal(index, "-CONT", Life::Runs),
            _ => Ok(()),
        }
    }

    /// Asks one to end, as SIGTERM does. It comes back after that time, or does not.
    pub(super) fn leave(&mut self, index: usize, back: Option<Duration>) -> anyhow::Result<()> {
        let by = Instant::now() + GRACE;
        self.signal(index, "-TERM", |process| Life::Leaves(process, by, back))
    }

    /// One that is not there comes.
    pub(super) fn come(&mut self, index: usize) {
        self.workers[index].life = Life::Due(Instant::now());
    }

    /// One that came goes for good, whatever it does.
    pub(super) fn dismiss(&mut self, index: usize) -> anyhow::Result<()> {
        match self.workers[index].life {
            Life::Runs(_) => self.leave(index, None),
            _ => {
                self.workers[index].life = Life::Absent;
                Ok(())
            }
        }
    }

    /// Asks all that run to end, and waits until they have.
    pub(super) fn all_end(&mut self) -> anyhow::Result<()> {
        self.running().iter().try_for_each(|worker| self.leave(*worker, None))?;
        self.wait("the workers to end", GRACE, |workers| Ok((workers.wanted() == 0).then_some(())))
    }

    /// Asks again and again until there is an answer. That a worker has ended as it must not, or says so, is one.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        wait_until(what, limit, || Ok(self.supervise().and_then(|()| ask(self)).transpose()))?
    }

    fn signal(
        &mut self,
        index: usize,
        signal: &str,
        then: impl FnOnce(Running) -> Life,
    ) -> anyhow::Result<()> {
        let worker = &mut self.workers[index];
        match std::mem::replace(&mut worker.life, Life::Absent) {
            Life::Runs(process) | Life::Stopped(process) => {
                output(Command::new("kill").args([signal, &process.id().to_string()]))?;
                worker.life = then(process);
                Ok(())
            }
            _ => bail!("worker {index} does not run"),
        }
    }

    /// Asks all that run. Who does not answer is starting, or is about to end.
    ///
    /// # Errors
    /// If one says that the run has failed, or that rows were late, of which there are none.
    pub(super) fn look(&self) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        for index in self.running() {
            let Ok(text) = self.ask(index) else { continue };
            let status: Value =
                serde_json::from_str(&text).with_context(|| format!("worker {index}: {text}"))?;
            ensure!(status["state"] != "failed" && status["lateDropped"] == 0, "worker {index}: {text}");
            seen.epoch = seen.epoch.max(status["epoch"].as_u64().unwrap_or_default());
            seen.completed += usize::from(status["state"] == "completed");
            seen.messages.extend(status["message"].as_str().map(str::to_owned));
            let generation = status["generation"].as_u64().unwrap_or_default();
            // One that is cut off may not know yet that it leads no more.
            if status["leads"] == true && generation >= seen.generation {
                seen.lead = Some(index);
                let workers = status["workers"].as_u64().unwrap_or_default();
                seen.together = usize::try_from(workers).unwrap_or_default();
            }
            seen.generation = seen.generation.max(generation);
        }
        Ok(seen)
    }

    /// What barriers have taken of the tasks of those that run.
    ///
    /// # Errors
    /// If one does not answer.
    pub(super) fn stalls(&self) -> anyhow::Result<Stalls> {
        let mut all = Stalls::default();
        for index in self.running() {
            all.add(&Stalls::read(&self.metrics(index)?)?);
        }
        Ok(all)
    }

    /// A worker's page of metrics.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) fn metrics(&self, index: usize) -> anyhow::Result<String> {
        let Worker { host, metrics, .. } = &self.workers[index];
        get(SocketAddr::from((host.address(), *metrics)), "/metrics", ANSWERS)
    }

    fn ask(&self, index: usize) -> anyhow::Result<String> {
        let Worker { host, admin, .. } = &self.workers[index];
        get(SocketAddr::from((host.address(), *admin)), "/v1/pipeline", ANSWERS)
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.job.directory.join(format!("worker-{index}.log"))
    }

    /// What a person would look at first.
    pub(super) fn describe(&self) -> String {
        const LAST: usize = 15;
        let describe = |index: usize| {
            let status = match &self.workers[index].life {
                Life::Absent => "is not there".to_owned(),
                Life::Due(_) => "is about to be started".to_owned(),
                Life::Stopped(_) => "is stopped".to_owned(),
                Life::Leaves(..) => "was asked to end".to_owned(),
                Life::Runs(_) => self.ask(index).unwrap_or_else(|error| format!("{error:#}")),
            };
            let log = std::fs::read_to_string(self.log_path(index)).unwrap_or_default();
            let skipped = log.lines().count().saturating_sub(LAST);
            let last = log.lines().skip(skipped).collect::<Vec<_>>().join("\n");
            format!("--- worker {index}: {status}\n{last}\n")
        };
        (0..self.workers.len()).map(describe).collect()
    }
}

fn ended(process: &mut Running) -> anyhow::Result<Option<ExitStatus>> {
    process.try_wait().context("cannot ask for a process")
}
