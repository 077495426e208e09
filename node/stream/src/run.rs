//! A run: from a plan to a report.
//!
//! Owns: starting and joining the threads, carrying out what the coordinator of checkpoints asks
//! for, the clock of checkpoints.
//! Must not know: formats, the Ensemble's protocol.
//! Invariant: outputs become visible only after the last checkpoint counts; a run that is done is
//! never run again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pharos_beam::plan::{NodeId, NodeKind, Plan};

use crate::assemble::{Assembly, Restored};
use crate::checkpoint::Blobs;
use crate::checkpoint::coordinator::{Command, Coordinator, Input, TaskId};
use crate::checkpoint::keeper::Keeper;
use crate::coordination::{Coordination, CoordinationError};
use crate::error::StreamError;
use crate::event::{Event, Events, Listener, Report};
use crate::exec::fragment::Steps;
use crate::exec::task::{TaskReport, TaskState};
use crate::exec::worker::{self, News, Shared, Task};
use crate::graph::Graph;
use crate::io::{Connectors, Encode};

/// How soon a request to stop is noticed.
const STOP_WITHIN: Duration = Duration::from_millis(50);

/// How checkpoints are taken.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// From the end of one to the start of the next.
    pub interval: Duration,
    /// Where their bytes are kept.
    pub blobs: Arc<dyn Blobs>,
}

/// What of a run outlives its process.
#[derive(Clone)]
pub struct Durability {
    /// Who says that a checkpoint counts and that the run is done.
    pub coordination: Arc<Mutex<dyn Coordination>>,
    /// Checkpoints; without them a run that dies starts from the beginning.
    pub checkpoints: Option<CheckpointOptions>,
}

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// How many threads; results do not depend on it.
    pub threads: usize,
    /// The name of the run, for files in the making.
    pub run: String,
    /// Who hears of progress.
    pub listener: Listener,
    /// What outlives the process; none: nothing but the outputs.
    pub durability: Option<Durability>,
    /// Set from outside to end the run early. Its last checkpoint stays.
    pub stop: Arc<AtomicBool>,
}

/// Runs a plan to its end, from its last checkpoint if it has one.
///
/// # Errors
/// If it cannot be run to its end.
pub fn run(
    plan: &Plan,
    connectors: &Arc<dyn Connectors>,
    options: &RunOptions,
) -> Result<Report, StreamError> {
    let graph = Graph::new(plan)?;
    let events = Events::new(Arc::clone(&options.listener));
    let mut start = Start { restored: Restored::default(), keeping: None, next: 1 };
    if let Some(durability) = &options.durability {
        match take_over(plan, durability, &graph, &**connectors, &events)? {
            Found::Completed => return Ok(Report { already_completed: true, ..events.report() }),
            Found::Ended => return Ok(events.report()),
            Found::Start(found) => start = *found,
        }
    }
    let assembly = Assembly {
        graph: &graph,
        connectors: &**connectors,
        threads: options.threads.max(1),
        run: &options.run,
        restored: start.restored,
        events: &events,
    };
    let tasks = assembly.tasks()?;
    let encoders = encoders(&graph, &**connectors)?;
    let ids = task_ids(&graph, options.threads.max(1));
    let steps = Steps { graph, encoders, events: events.clone() };
    let shared = Arc::new(Shared::new(steps));
    let mut control = Control {
        shared: &shared,
        connectors: &**connectors,
        events: &events,
        stop: &options.stop,
        coordinator: Coordinator::new(ids, start.next),
        due: Instant::now(),
        begun: Instant::now(),
        written: 0,
        keeping: start.keeping,
        coordination: options.durability.as_ref().map(|durability| Arc::clone(&durability.coordination)),
        sinks: BTreeMap::new(),
    };
    control.schedule();
    // What is due at once comes before the first round.
    control.checkpoint_if_due()?;
    let (threads, news) = spawn(&shared, tasks);
    let result = control.follow(&news, threads.len());
    if result.is_err() {
        shared.stop();
    }
    for thread in threads {
        thread.join().expect("a worker thread does not panic");
    }
    result?;
    Ok(events.report())
}

/// What a process that takes over has to do.
enum Found {
    /// Nothing: the run is noted as done.
    Completed,
    /// Nothing more: its input had ended, and now its outputs are visible.
    Ended,
    /// Run.
    Start(Box<Start>),
}

struct Start {
    restored: Restored,
    keeping: Option<Keeping>,
    next: u64,
}

/// The means of taking checkpoints.
struct Keeping {
    keeper: Keeper,
    interval: Duration,
}

fn coordination(error: CoordinationError) -> StreamError {
    match error {
        CoordinationError::Fenced => StreamError::Fenced,
        other => StreamError::Checkpoint(other.to_string()),
    }
}

fn with<T>(
    of: &Arc<Mutex<dyn Coordination>>,
    step: impl FnOnce(&mut dyn Coordination) -> Result<T, CoordinationError>,
) -> Result<T, StreamError> {
    step(&mut *of.lock().unwrap_or_else(PoisonError::into_inner)).map_err(coordination)
}

fn take_over(
    plan: &Plan,
    durability: &Durability,
    graph: &Graph,
    connectors: &dyn Connectors,
    events: &Events,
) -> Result<Found, StreamError> {
    let tenure = with(&durability.coordination, |ensemble| ensemble.take_over())?;
    if tenure.completed {
        return Ok(Found::Completed);
    }
    let Some(options) = &durability.checkpoints else {
        let start = Start { restored: Restored::default(), keeping: None, next: 1 };
        return Ok(Found::Start(Box::new(start)));
    };
    let keeper = Keeper::open(Arc::clone(&options.blobs), plan, tenure.generation, tenure.latest.as_ref())?;
    keeper.sweep(tenure.latest.as_ref())?;
    let last = keeper.last().map(|manifest| (manifest.epoch, manifest.round));
    if let Some((epoch, round)) = last {
        events.send(Event::Restored { epoch });
        if round.is_none() {
            // The process died after the input had ended: what the sinks prepared is committed again.
            commit(graph, connectors, events, &keeper.prepared())?;
            with(&durability.coordination, |ensemble| ensemble.complete())?;
            return Ok(Found::Ended);
        }
    }
    let restored = keeper.restore()?;
    let keeping = Keeping { keeper, interval: options.interval };
    let next = last.map_or(0, |(epoch, _)| epoch) + 1;
    Ok(Found::Start(Box::new(Start { restored, keeping: Some(keeping), next })))
}

fn encoders(
    graph: &Graph,
    connectors: &dyn Connectors,
) -> Result<BTreeMap<NodeId, Arc<dyn Encode>>, StreamError> {
    let mut encoders = BTreeMap::new();
    for node in graph.targets() {
        if let NodeKind::Write(spec) = &node.kind {
            let encoder = connectors
                .encoder(spec, graph.input_schema(node, 0))
                .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
            encoders.insert(node.id, encoder);
        }
    }
    Ok(encoders)
}

/// Every task that reports: all threads of origins, the one thread of each sink.
fn task_ids(graph: &Graph, threads: usize) -> BTreeSet<TaskId> {
    let mut ids = BTreeSet::new();
    for node in &graph.nodes {
        let id = |thread: usize| TaskId { node: node.id.0, thread: thread as u32 };
        match node.kind {
            NodeKind::Read(_) | NodeKind::Create { .. } | NodeKind::Combine { .. } => {
                ids.extend((0..threads).map(id));
            }
            NodeKind::Write(_) | NodeKind::AssertEqual { .. } => {
                ids.insert(id(node.id.0 as usize % threads));
            }
            _ => {}
        }
    }
    ids
}

fn spawn(shared: &Arc<Shared>, tasks: Vec<Vec<Task>>) -> (Vec<JoinHandle<()>>, Receiver<News>) {
    let (sender, news) = channel();
    let threads = tasks.len();
    let handles: Vec<JoinHandle<()>> = tasks
        .into_iter()
        .enumerate()
        .map(|(thread, tasks)| {
            let (shared, sender) = (Arc::clone(shared), sender.clone());
            std::thread::Builder::new()
                .name(format!("pharos-worker-{thread}"))
                .spawn(move || worker::run(&shared, thread, threads, tasks, &sender))
                .expect("the system gives a thread")
        })
        .collect();
    shared.introduce(handles.iter().map(|handle| handle.thread().clone()).collect());
    (handles, news)
}

/// The control side of a run.
struct Control<'a> {
    shared: &'a Arc<Shared>,
    connectors: &'a dyn Connectors,
    events: &'a Events,
    stop: &'a AtomicBool,
    coordinator: Coordinator<TaskState>,
    /// When the next checkpoint is, if any are taken.
    due: Instant,
    /// When the checkpoint under way was asked for, and the bytes that were written for it.
    begun: Instant,
    written: u64,
    keeping: Option<Keeping>,
    coordination: Option<Arc<Mutex<dyn Coordination>>>,
    /// What the sinks prepared last.
    sinks: BTreeMap<NodeId, String>,
}

impl Control<'_> {
    /// Hears the threads until all have ended and the run is done. The first error that is not the
    /// echo of another is the result.
    fn follow(&mut self, news: &Receiver<News>, threads: usize) -> Result<(), StreamError> {
        let mut running = threads;
        let mut failure = None;
        while running > 0 {
            if self.stop.load(Ordering::Acquire) {
                self.shared.stop();
            }
            if failure.is_none() {
                self.checkpoint_if_due()?;
            }
            match news.recv_timeout(STOP_WITHIN) {
                Ok(News::Report(report)) if failure.is_none() => self.report(report)?,
                Ok(News::Report(_)) => {}
                Ok(News::Ended(ended)) => {
                    running -= 1;
                    if let Err(error) = ended
                        && failure.as_ref().is_none_or(|known| matches!(known, StreamError::Stopped))
                    {
                        failure = Some(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match failure {
            Some(error) => Err(error),
            None if self.coordinator.is_done() => Ok(()),
            None => Err(StreamError::Checkpoint("the threads ended before the run was done".to_owned())),
        }
    }

    fn schedule(&mut self) {
        if let Some(keeping) = &self.keeping {
            self.due = Instant::now() + keeping.interval;
        }
    }

    fn checkpoint_if_due(&mut self) -> Result<(), StreamError> {
        if self.keeping.is_some() && Instant::now() >= self.due {
            self.act(Input::Due)?;
            self.schedule();
        }
        Ok(())
    }

    fn report(&mut self, report: TaskReport) -> Result<(), StreamError> {
        let id = TaskId { node: report.node.0, thread: report.thread as u32 };
        if let TaskState::Sink(prepared) = &report.state {
            self.sinks.insert(report.node, prepared.clone());
        }
        self.act(match report.barrier {
            Some((epoch, round)) => Input::Kept(id, epoch, round, report.state),
            None => Input::Ended(id, report.state),
        })
    }

    fn act(&mut self, input: Input<TaskState>) -> Result<(), StreamError> {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for command in self.coordinator.handle(input) {
                inputs.extend(self.carry_out(command)?);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command<TaskState>) -> Result<Option<Input<TaskState>>, StreamError> {
        let keeping = self.keeping.as_mut();
        Ok(match (command, keeping) {
            (Command::Inject(epoch), _) => {
                self.begun = Instant::now();
                self.shared.barriers.request(epoch);
                None
            }
            (Command::Write { epoch, round, parts }, keeping) => {
                if let Some(keeping) = keeping {
                    if round.is_none() {
                        self.begun = Instant::now();
                    }
                    self.written = keeping.keeper.write(epoch, round, parts)?;
                }
                Some(Input::Written(epoch))
            }
            (Command::Publish(epoch), keeping) => {
                if let Some(keeping) = keeping {
                    let pointer = keeping.keeper.pointer().expect("a checkpoint was written just before");
                    let coordination =
                        self.coordination.as_ref().expect("who keeps checkpoints coordinates them");
                    with(coordination, |ensemble| ensemble.publish(&pointer))?;
                    let (took, bytes) = (self.begun.elapsed(), self.written);
                    self.events.send(Event::Checkpoint { epoch, took, bytes });
                }
                Some(Input::Published(epoch))
            }
            (Command::Clean(_), keeping) => {
                if let Some(keeping) = keeping {
                    keeping.keeper.clean()?;
                }
                None
            }
            (Command::Commit, _) => {
                commit(&self.shared.steps.graph, self.connectors, self.events, &self.sinks)?;
                Some(Input::Committed)
            }
            (Command::Note, _) => {
                if let Some(coordination) = &self.coordination {
                    with(coordination, |ensemble| ensemble.complete())?;
                }
                Some(Input::Noted)
            }
        })
    }
}

fn commit(
    graph: &Graph,
    connectors: &dyn Connectors,
    events: &Events,
    sinks: &BTreeMap<NodeId, String>,
) -> Result<(), StreamError> {
    for (id, prepared) in sinks {
        let node = graph.node(*id);
        let NodeKind::Write(spec) = &node.kind else { continue };
        let files = connectors
            .commit(spec, prepared)
            .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
        events.send(Event::Written { transform: node.name.clone(), files });
    }
    Ok(())
}
