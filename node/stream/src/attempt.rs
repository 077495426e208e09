//! One attempt at a run by one worker: from an assignment and a checkpoint to the end, or to whatever
//! ends it before.
//!
//! Owns: starting and joining the threads, what workers and their coordinator say to each other,
//! carrying out what the coordinator of checkpoints asks for, the clock of checkpoints.
//! Must not know: formats, the Ensemble's protocol, how workers find each other.
//! Invariant: outputs become visible only after the last checkpoint counts; whatever goes wrong on any
//! worker ends the attempt on all of them, and nothing of it is lost that a checkpoint holds.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pharos_beam::plan::{NodeId, NodeKind, Plan};
use serde::{Deserialize, Serialize};

use crate::assemble::{Assembly, Restored, task_ids};
use crate::assignment::Assignment;
use crate::checkpoint::Blobs;
use crate::checkpoint::collector::{Collector, TaskId, Whole};
use crate::checkpoint::coordinator::{Command, Coordinator, Input, WorkerId};
use crate::checkpoint::keeper::Keeper;
use crate::checkpoint::part::{Part, PartWriter};
use crate::coordination::{Coordination, View};
use crate::error::StreamError;
use crate::event::{Event, Events};
use crate::exchange::link::{Handler, Hello, Link};
use crate::exec::channel::{Channel, Epoch, Round};
use crate::exec::fragment::Steps;
use crate::exec::task::{TaskReport, TaskState};
use crate::exec::worker::{self, News as ThreadNews, Shared, Task};
use crate::graph::Graph;
use crate::io::{Connectors, Encode, Fault};
use crate::run::with;
use crate::spill::StateBounds;

/// How soon a request to stop is noticed, and how exactly the clock of checkpoints goes.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// How long a worker that is to stop waits for a checkpoint that holds what it did.
const PARTING: Duration = Duration::from_secs(20);
/// How long others may be there, or be gone, before the work is divided anew.
const SETTLE: Duration = Duration::from_secs(1);
/// Without checkpoints the work is divided anew only while it is this young.
const YOUNG: Duration = Duration::from_secs(30);

/// What a worker hears.
pub(crate) enum News {
    /// Its threads, in a generation.
    Thread(u64, ThreadNews),
    /// Another worker, in a generation.
    Said(u64, WorkerId, Say),
    /// Another worker is lost, in a generation.
    Lost(u64, WorkerId, String),
    /// Someone connected.
    Connected(Hello, TcpStream),
    /// Who is there.
    View(View),
}

/// What workers and their coordinator say to each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Say {
    /// The coordinator: this is to be done.
    Start(Box<Start>),
    /// The worker can begin.
    Ready,
    /// The coordinator: all can begin.
    Go,
    /// The coordinator: begin no round until it is known where the barrier of this checkpoint stands.
    Hold(Epoch),
    /// The worker's sources are held, and have begun this round.
    Held(Epoch, Option<Round>),
    /// The coordinator: the barrier stands at the end of this round.
    Place(Epoch, Round),
    /// What the worker kept at a barrier.
    Kept(Epoch, Round, Box<Part>),
    /// What the worker left at its end.
    Ended(Box<Part>),
    /// The coordinator: this checkpoint counts; it took so many milliseconds and bytes.
    Counts(Epoch, u64, u64),
    /// The coordinator: the run is done.
    Completed,
    /// It cannot go on.
    Failed(Fault, String),
    /// The worker is to stop, and wants to hand over.
    Leaving,
    /// The worker has lost another, and why.
    Missing(WorkerId, String),
}

/// What a worker needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Who takes part, and the place of the one who hears this.
    pub assignment: Assignment,
    /// The plan: that of the coordinator counts.
    pub plan: Plan,
    /// The checkpoint to go on from.
    pub latest: Option<crate::coordination::Pointer>,
    /// What tells the files of each read from others.
    pub inputs: BTreeMap<String, u32>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The run is done.
    Completed,
    /// Another attempt may do better.
    Again(String),
    /// The work is to be divided anew; a checkpoint was taken.
    Divide,
    /// The coordinator of a later generation calls.
    Superseded(Hello, TcpStream),
    /// This worker was to stop.
    Stopped,
}

/// What does not change from one attempt to the next.
pub(crate) struct Surroundings<'a> {
    /// Sources and sinks.
    pub connectors: &'a dyn Connectors,
    /// Who listens.
    pub events: &'a Events,
    /// Set from outside to end the run early.
    pub stop: &'a AtomicBool,
    /// The name of the run, for files in the making.
    pub run: &'a str,
    /// Where state is kept, and from the end of one checkpoint to the start of the next.
    pub checkpoints: Option<(Arc<dyn Blobs>, Duration)>,
    /// How much memory keyed state may take, and where it goes beyond that.
    pub state: Option<&'a StateBounds>,
    /// Where threads and links tell their news.
    pub sender: Sender<News>,
    /// And where they are heard.
    pub news: &'a Receiver<News>,
    /// Connections of workers that are ahead of this one.
    pub waiting: RefCell<Vec<(Hello, TcpStream)>>,
    /// Who is there, if that was heard during an attempt.
    pub seen: RefCell<Option<View>>,
    /// Who said during an attempt that it wants to leave.
    pub leaving: RefCell<Vec<String>>,
}

/// What a link does with what comes.
pub(crate) struct Port {
    generation: u64,
    peer: WorkerId,
    sender: Sender<News>,
    /// The channels, and the threads that wait for them, once there are any.
    inner: OnceLock<Inside>,
}

/// Channels by number, and what the threads share.
type Inside = (BTreeMap<u32, Arc<Channel>>, Arc<Shared>);

impl Port {
    /// A port to a worker, without channels yet.
    #[must_use]
    pub(crate) fn new(generation: u64, peer: WorkerId, sender: Sender<News>) -> Arc<Self> {
        Arc::new(Self { generation, peer, sender, inner: OnceLock::new() })
    }

    fn on(&self, channel: u32, act: impl FnOnce(&Channel)) -> bool {
        let Some((channels, shared)) = self.inner.get() else { return false };
        let Some(channel) = channels.get(&channel) else { return false };
        act(channel);
        shared.wake();
        true
    }

    fn tell(&self, news: News) {
        // Nobody hears it any more only if the worker ends.
        let _ = self.sender.send(news);
    }
}

impl Handler for Port {
    fn data(&self, channel: u32, frame: Vec<u8>) -> bool {
        self.on(channel, |channel| channel.arrive(frame))
    }

    fn credit(&self, channel: u32, bytes: usize, rounds: usize) -> bool {
        self.on(channel, |channel| channel.credit(bytes, rounds))
    }

    fn control(&self, bytes: &[u8]) {
        match serde_json::from_slice(bytes) {
            Ok(say) => self.tell(News::Said(self.generation, self.peer, say)),
            Err(error) => self.lost(&format!("it said what cannot be read: {error}")),
        }
    }

    fn lost(&self, why: &str) {
        self.tell(News::Lost(self.generation, self.peer, why.to_owned()));
    }
}

/// The connections of an attempt.
#[derive(Default)]
pub(crate) struct Crew {
    /// The links by worker.
    pub links: BTreeMap<WorkerId, Arc<Link>>,
    /// What is behind each.
    pub ports: BTreeMap<WorkerId, Arc<Port>>,
}

impl Crew {
    /// Tells all that this worker cannot go on.
    pub(crate) fn tell_failure(&self, error: &StreamError) {
        let failed = Say::Failed(error.fault(), error.to_string());
        self.links.values().for_each(|link| link.send_control(&failed));
    }
}

/// Whoever still waits for this worker must learn that it is gone, however an attempt ends.
impl Drop for Crew {
    fn drop(&mut self) {
        self.links.values().for_each(|link| link.close());
    }
}

/// What the coordinator has beside what every worker has.
pub(crate) struct Lead {
    /// Who says that a checkpoint counts.
    pub coordination: Option<Arc<Mutex<dyn Coordination>>>,
    /// The manifests, if checkpoints are taken.
    pub keeper: Option<Keeper>,
    /// The number of the next checkpoint.
    pub next: Epoch,
    /// Who is on the roster and is not waited for, and until when: it could not be reached.
    pub absent: BTreeMap<String, Instant>,
}

struct Leading {
    with: Lead,
    coordinator: Coordinator<Box<Part>>,
    ready: usize,
    begun: Instant,
    /// When the next checkpoint is.
    due: Instant,
    /// When the checkpoint under way was asked for, and the bytes that were written for it.
    asked: Instant,
    written: u64,
    /// What the sinks prepared last, by transform.
    sinks: BTreeMap<String, String>,
    /// Since when who is there is not who takes part.
    differs: Option<Instant>,
    /// The work is to be divided anew after the next checkpoint.
    divide: bool,
}

/// One attempt of one worker.
pub(crate) struct Attempt<'a> {
    around: &'a Surroundings<'a>,
    assignment: Assignment,
    crew: Crew,
    shared: Arc<Shared>,
    /// The tasks of its threads, until they are started.
    tasks: Vec<Vec<Task>>,
    threads: Vec<JoinHandle<()>>,
    collector: Collector<TaskState>,
    writer: PartWriter,
    lead: Option<Leading>,
    /// What this worker says to itself, as coordinator or to the coordinator.
    to_self: VecDeque<Say>,
    /// Since when it is to stop.
    leaving: Option<Instant>,
    ending: Option<Ending>,
}

impl<'a> Attempt<'a> {
    /// Prepares an attempt.
    ///
    /// # Errors
    /// If a source or sink cannot be opened, or restored state cannot be read.
    pub(crate) fn new(
        around: &'a Surroundings<'a>,
        plan: &Plan,
        graph: Graph,
        assignment: Assignment,
        crew: Crew,
        restored: Restored,
        lead: Option<Lead>,
    ) -> Result<Self, StreamError> {
        let first = restored.round;
        let assembly = Assembly {
            graph: &graph,
            connectors: around.connectors,
            assignment: &assignment,
            links: &crew.links,
            run: around.run,
            restored,
            state: around.state,
            events: around.events,
        };
        let opened =
            assembly.assemble().and_then(|assembled| Ok((assembled, encoders(&graph, around.connectors)?)));
        let (assembled, encoders) = opened.inspect_err(|error| crew.tell_failure(error))?;
        let collector = Collector::new(task_ids(&graph, assignment.threads(), &assignment.here()));
        let steps = Steps { graph, encoders, events: around.events.clone() };
        let shared = Arc::new(Shared::new(steps));
        for (peer, port) in &crew.ports {
            let theirs = |number: &&u32| assembled.channels[number].is_over(&crew.links[peer]);
            let channels = assembled.channels.keys().filter(theirs);
            let channels =
                channels.map(|number| (*number, Arc::clone(&assembled.channels[number]))).collect();
            let _ = port.inner.set((channels, Arc::clone(&shared)));
        }
        let blobs = around.checkpoints.as_ref().map(|(blobs, _)| Arc::clone(blobs));
        let writer = PartWriter::new(blobs, plan, &assignment);
        let workers = (0..assignment.workers.len() as WorkerId).collect();
        let now = Instant::now();
        let lead = lead.map(|with| Leading {
            coordinator: Coordinator::new(workers, first, with.next),
            with,
            ready: 0,
            begun: now,
            due: now,
            asked: now,
            written: 0,
            sinks: BTreeMap::new(),
            differs: None,
            divide: false,
        });
        around.events.begin();
        around.events.send(Event::Joined {
            generation: assignment.generation,
            workers: assignment.workers.len() as u64,
            leads: assignment.leads(),
        });
        Ok(Self {
            around,
            assignment,
            crew,
            shared,
            tasks: assembled.tasks,
            threads: Vec::new(),
            collector,
            writer,
            lead,
            to_self: VecDeque::new(),
            leaving: None,
            ending: None,
        })
    }

    /// Runs until it ends, and ends all its threads and connections.
    ///
    /// # Errors
    /// If it cannot go on, here or elsewhere, in a way that another attempt would meet again.
    pub(crate) fn run(mut self) -> Result<Ending, StreamError> {
        let followed = self.follow();
        if let Err(error) = &followed {
            self.crew.tell_failure(error);
        }
        self.shared.stop();
        for thread in self.threads.drain(..) {
            thread.join().expect("a worker thread does not panic");
        }
        followed
    }

    fn follow(&mut self) -> Result<Ending, StreamError> {
        self.tell_coordinator(Say::Ready);
        loop {
            while let Some(say) = self.to_self.pop_front() {
                self.hear(self.assignment.me, say)?;
            }
            if let Some(ending) = self.ending.take() {
                return Ok(ending);
            }
            self.look_at_clock()?;
            if !self.to_self.is_empty() {
                continue;
            }
            match self.around.news.recv_timeout(LOOK) {
                Ok(news) => self.take(news)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("it holds a sender itself"),
            }
        }
    }

    fn take(&mut self, news: News) -> Result<(), StreamError> {
        let generation = self.assignment.generation;
        match news {
            News::Thread(of, news) if of == generation => match news {
                ThreadNews::Report(report) => self.report(report)?,
                // The echo of another's error, which is still to come.
                ThreadNews::Ended(Ok(()) | Err(StreamError::Stopped)) => {}
                ThreadNews::Ended(Err(error)) => return Err(error),
            },
            News::Said(of, who, say) if of == generation => self.hear(who, say)?,
            // Whether that ends the attempt is for the coordinator to say, who may know why it went.
            News::Lost(of, who, why) if of == generation && who != 0 => {
                self.tell_coordinator(Say::Missing(who, why));
            }
            News::Lost(of, who, why) if of == generation => self.missing(who, &why),
            News::Connected(hello, socket) if hello.from == 0 && hello.generation > generation => {
                self.ending = Some(Ending::Superseded(hello, socket));
            }
            News::View(view) => {
                self.compare(&view);
                *self.around.seen.borrow_mut() = Some(view);
            }
            News::Connected(hello, socket) if hello.generation > generation => {
                self.around.waiting.borrow_mut().push((hello, socket));
            }
            // Of an attempt that is over.
            News::Thread(..) | News::Said(..) | News::Lost(..) | News::Connected(..) => {}
        }
        Ok(())
    }

    fn missing(&mut self, who: WorkerId, why: &str) {
        let name = &self.assignment.workers[who as usize].name;
        self.ending = Some(Ending::Again(format!("worker `{name}` is lost: {why}")));
    }

    /// The coordinator divides the work anew when others are there than those who take part.
    fn compare(&mut self, view: &View) {
        let Some(lead) = &mut self.lead else { return };
        let takes_part = |id: &String| self.assignment.workers.iter().any(|worker| worker.id == *id);
        let now = Instant::now();
        lead.with.absent.retain(|_, until| now < *until);
        let new = view.members.iter().map(|member| &member.id);
        let differs = new.filter(|id| !lead.with.absent.contains_key(*id)).any(|id| !takes_part(id));
        lead.differs = lead.differs.filter(|_| differs).or(differs.then(Instant::now));
    }

    fn look_at_clock(&mut self) -> Result<(), StreamError> {
        let stopping = self.around.stop.load(Ordering::Acquire);
        if stopping && self.leaving.is_none() {
            self.leaving = Some(Instant::now());
            self.tell_coordinator(Say::Leaving);
        }
        if self.leaving.is_some_and(|since| since.elapsed() > PARTING) {
            self.ending = Some(Ending::Stopped);
        }
        let Some(lead) = &mut self.lead else { return Ok(()) };
        if !self.threads.is_empty() && lead.differs.is_some_and(|since| since.elapsed() > SETTLE) {
            lead.differs = None;
            self.divide()?;
        }
        let Some(lead) = &mut self.lead else { return Ok(()) };
        if lead.with.keeper.is_some() && !self.threads.is_empty() && Instant::now() >= lead.due {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Has the work divided anew as soon as a checkpoint holds what was done.
    fn divide(&mut self) -> Result<(), StreamError> {
        let Some(lead) = &mut self.lead else { return Ok(()) };
        if lead.coordinator.has_ended() {
            return Ok(());
        }
        if lead.with.keeper.is_some() {
            lead.divide = true;
            return self.checkpoint();
        }
        // Who leaves takes its work along: there is nothing to wait for.
        if lead.begun.elapsed() < YOUNG || !self.around.leaving.borrow().is_empty() {
            self.ending = Some(Ending::Divide);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StreamError> {
        if let (Some(lead), Some((_, interval))) = (&mut self.lead, &self.around.checkpoints) {
            lead.due = Instant::now() + *interval;
        }
        self.act(Input::Due)
    }

    fn tell_coordinator(&mut self, say: Say) {
        if self.assignment.leads() {
            self.to_self.push_back(say);
        } else {
            self.crew.links[&0].send_control(&say);
        }
    }

    fn tell_all(&mut self, say: &Say) {
        self.crew.links.values().for_each(|link| link.send_control(say));
        self.to_self.push_back(say.clone());
    }

    fn hear(&mut self, who: WorkerId, say: Say) -> Result<(), StreamError> {
        match say {
            Say::Ready => {
                let Some(lead) = &mut self.lead else { return Ok(()) };
                lead.ready += 1;
                if lead.ready == self.assignment.workers.len() {
                    // What is due at once comes before the first round.
                    let interval = self.around.checkpoints.as_ref().map(|(_, interval)| *interval);
                    lead.due = Instant::now() + interval.unwrap_or_default();
                    if lead.with.keeper.is_some() && interval == Some(Duration::ZERO) {
                        self.checkpoint()?;
                    }
                    self.tell_all(&Say::Go);
                }
            }
            Say::Go => self.start_threads(),
            Say::Hold(epoch) => {
                let begun = self.shared.barriers.hold();
                self.tell_coordinator(Say::Held(epoch, begun));
            }
            Say::Place(epoch, round) => {
                self.shared.barriers.place(epoch, round);
                self.shared.wake();
            }
            Say::Held(epoch, begun) => self.act(Input::Held(who, epoch, begun))?,
            Say::Kept(epoch, round, part) => self.act(Input::Kept(who, epoch, round, part))?,
            Say::Ended(part) => self.act(Input::Ended(who, part))?,
            Say::Counts(epoch, took, bytes) => {
                let took = Duration::from_millis(took);
                self.around.events.send(Event::Checkpoint { epoch, took, bytes });
            }
            Say::Completed => self.ending = Some(Ending::Completed),
            Say::Failed(fault, message) => return self.failed_elsewhere(who, fault, message),
            Say::Leaving if self.lead.is_some() => {
                let id = self.assignment.workers[who as usize].id.clone();
                self.around.leaving.borrow_mut().push(id);
                self.divide()?;
            }
            Say::Missing(who, why) if self.lead.is_some() => self.missing(who, &why),
            Say::Leaving | Say::Missing(..) | Say::Start(_) => {}
        }
        Ok(())
    }

    fn failed_elsewhere(&mut self, who: WorkerId, fault: Fault, message: String) -> Result<(), StreamError> {
        if fault == Fault::User {
            return Err(StreamError::Elsewhere { fault, message });
        }
        let name = &self.assignment.workers[who as usize].name;
        self.ending = Some(Ending::Again(format!("worker `{name}`: {message}")));
        Ok(())
    }

    fn start_threads(&mut self) {
        let here = self.assignment.here();
        let generation = self.assignment.generation;
        for (thread, tasks) in here.clone().zip(std::mem::take(&mut self.tasks)) {
            let (shared, sender, here) = (Arc::clone(&self.shared), self.around.sender.clone(), here.clone());
            let news = move |news| {
                // Nobody hears it any more only if the worker ends.
                let _ = sender.send(News::Thread(generation, news));
            };
            let handle = std::thread::Builder::new()
                .name(format!("pharos-worker-{thread}"))
                .spawn(move || worker::run(&shared, thread, here, tasks, &news))
                .expect("the system gives a thread");
            self.threads.push(handle);
        }
        self.shared.introduce(self.threads.iter().map(|handle| handle.thread().clone()).collect());
    }

    fn report(&mut self, report: TaskReport) -> Result<(), StreamError> {
        let id = TaskId { node: report.node.0, thread: report.thread as u32 };
        let whole = match report.barrier {
            Some((epoch, round)) => self.collector.kept(id, epoch, round, report.state),
            None => self.collector.ended(id, report.state),
        };
        for whole in whole {
            let say = match whole {
                Whole::Kept(epoch, round, states) => {
                    Say::Kept(epoch, round, Box::new(self.writer.write(&epoch.to_string(), states)?))
                }
                Whole::Ended(states) => Say::Ended(Box::new(self.writer.write("end", states)?)),
            };
            self.tell_coordinator(say);
        }
        Ok(())
    }

    fn act(&mut self, input: Input<Box<Part>>) -> Result<(), StreamError> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(lead) = &mut self.lead else { return Ok(()) };
            for command in lead.coordinator.handle(input) {
                inputs.extend(self.carry_out(command)?);
            }
        }
        let Some(lead) = &self.lead else { return Ok(()) };
        if lead.coordinator.is_done() {
            self.tell_all(&Say::Completed);
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command<Box<Part>>) -> Result<Option<Input<Box<Part>>>, StreamError> {
        let lead = self.lead.as_mut().expect("only a coordinator has commands");
        Ok(match command {
            Command::Hold(epoch) => {
                lead.asked = Instant::now();
                self.tell_all(&Say::Hold(epoch));
                None
            }
            Command::Place(epoch, round) => {
                self.tell_all(&Say::Place(epoch, round));
                None
            }
            Command::Write { epoch, round, parts } => {
                if round.is_none() {
                    lead.asked = Instant::now();
                }
                lead.sinks = parts.values().flat_map(|part| part.sinks.clone()).collect();
                if let Some(keeper) = &mut lead.with.keeper {
                    let parts = parts.into_iter().map(|(worker, part)| (worker, *part)).collect();
                    lead.written = keeper.write(epoch, round, parts)?;
                }
                Some(Input::Written(epoch))
            }
            Command::Publish(epoch) => {
                if let Some(keeper) = &lead.with.keeper {
                    let pointer = keeper.pointer().expect("a checkpoint was written just before");
                    let coordination = lead.with.coordination.as_ref();
                    let coordination = coordination.expect("who keeps checkpoints coordinates them");
                    with(coordination, |ensemble| ensemble.publish(&pointer))?;
                    let (took, bytes) = (lead.asked.elapsed(), lead.written);
                    let counts = Say::Counts(epoch, took.as_millis() as u64, bytes);
                    self.crew.links.values().for_each(|link| link.send_control(&counts));
                    self.around.events.send(Event::Checkpoint { epoch, took, bytes });
                }
                Some(Input::Published(epoch))
            }
            Command::Clean(_) => {
                if let Some(keeper) = &mut lead.with.keeper {
                    keeper.clean()?;
                }
                if lead.divide && !lead.coordinator.has_ended() {
                    self.ending = Some(Ending::Divide);
                }
                None
            }
            Command::Commit => {
                commit(&self.shared.steps.graph, self.around.connectors, self.around.events, &lead.sinks)?;
                Some(Input::Committed)
            }
            Command::Note => {
                if let Some(coordination) = &lead.with.coordination {
                    with(coordination, |ensemble| ensemble.complete())?;
                }
                Some(Input::Noted)
            }
        })
    }
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

/// Makes visible what sinks prepared.
///
/// # Errors
/// If it cannot be done; doing it again is harmless.
pub(crate) fn commit(
    graph: &Graph,
    connectors: &dyn Connectors,
    events: &Events,
    sinks: &BTreeMap<String, String>,
) -> Result<(), StreamError> {
    for node in &graph.nodes {
        let (NodeKind::Write(spec), Some(prepared)) = (&node.kind, sinks.get(&node.name)) else { continue };
        let files = connectors
            .commit(spec, prepared)
            .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
        events.send(Event::Written { transform: node.name.clone(), files });
    }
    Ok(())
}
