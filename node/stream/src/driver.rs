//! Between what a worker decides and the machine it runs on.
//!
//! Owns: the worker's news, its connections by generation and place, its engine; carrying out what
//! [`crate::control`] commands.
//! Must not know: what is decided, and how the machine does what it is asked: that is a [`System`].
//! Invariant: commands are carried out one after the other, in the order in which they were given, and
//! the answer to each is heard before anything else. Whoever still waits for this worker learns that it
//! is gone, however an attempt ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pharos_beam::plan::Plan;

use crate::assemble::inputs;
use crate::checkpoint::coordinator::WorkerId;
use crate::checkpoint::keeper::Keeper;
use crate::checkpoint::part::Part;
use crate::checkpoint::{Blobs, CheckpointSize};
use crate::control::say::{Inputs, Say, Start};
use crate::control::{Command, Control, Input, Moment, Outcome, Took};
use crate::coordination::{Coordination, Member, View};
use crate::engine::{Engine, Parts, Told, commit};
use crate::error::StreamError;
use crate::event::Events;
use crate::exchange::link::{Handler, Hello, Wire};
use crate::exec::channel::{Channel, Epoch, Round};
use crate::exec::worker::{Crew, News as ThreadNews, Shared};
use crate::graph::Graph;
use crate::io::Connectors;
use crate::run::{Found, Lead, Taken, restored, take_over, with};
use crate::spill::{Run, StateBounds};

/// How soon a request to stop is noticed, and how exactly the clock goes.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What a worker hears.
pub(crate) enum News {
    /// Its threads, in a generation.
    Thread(u64, ThreadNews),
    /// Another worker, in a generation.
    Said(u64, WorkerId, Say),
    /// Another worker is lost, in a generation.
    Lost(u64, WorkerId, String),
    /// Another worker connected, in a generation.
    Connected(u64, WorkerId, Connection),
    /// Who is there.
    View(View),
}

/// A connection to another worker.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Its end here.
    pub wire: Arc<dyn Wire>,
    /// What is behind it.
    pub port: Arc<Port>,
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

/// Whom a worker lets in.
pub(crate) struct Judge {
    /// The process.
    pub id: String,
    /// What it works on.
    pub run: String,
    /// The highest generation that it took part in.
    pub generation: Arc<AtomicU64>,
}

impl Judge {
    /// Says why not, if someone who connects is not for this worker.
    ///
    /// # Errors
    /// If it works on something else, is another process, or has been called by a later coordinator.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<(), String> {
        let current = self.generation.load(Ordering::Acquire);
        if hello.run != self.run {
            return Err(format!("it works on {}, not on {}", self.run, hello.run));
        }
        if hello.to != self.id {
            return Err("the worker that is meant is not here any more".to_owned());
        }
        // The coordinator of a generation calls once; the others may call before or after it.
        if hello.generation < current || (hello.from == 0 && hello.generation == current) {
            return Err(format!("generation {} is over, it is in {current}", hello.generation));
        }
        Ok(())
    }
}

/// The tasks of one thread, to be run.
pub(crate) struct Running {
    /// Which thread, of those of all workers.
    pub thread: usize,
    /// The tasks.
    pub crew: Crew,
    /// Where they tell their news.
    pub tell: Box<dyn Fn(ThreadNews) + Send>,
}

/// A connection that was greeted, over which nothing is heard yet.
pub(crate) trait Greeted: Send {
    /// Lets what comes be heard.
    ///
    /// # Errors
    /// Says why, if it is lost already.
    fn open(self: Box<Self>, port: &Arc<Port>) -> Result<Arc<dyn Wire>, String>;
}

/// The machine that a worker runs on.
pub(crate) trait System {
    /// How long since the process started.
    fn now(&self) -> Moment;

    /// Connects to other workers and greets them, all at the same time. Says of each why, if it cannot be reached or
    /// does not want to.
    fn greet(&self, calls: &[(Hello, Member)]) -> Vec<Result<Box<dyn Greeted>, String>>;

    /// Starts threads, which share this.
    fn start(&self, shared: &Arc<Shared>, threads: Vec<Running>);

    /// Waits for the end of all threads, which have been told to stop.
    fn join(&self);
}

/// What does not change from one attempt to the next.
pub(crate) struct Surroundings {
    /// Sources and sinks.
    pub connectors: Arc<dyn Connectors>,
    /// Who listens.
    pub events: Events,
    /// Set from outside to end the run early.
    pub stop: Arc<AtomicBool>,
    /// The name of the run, for files in the making.
    pub part: String,
    /// What tells the run from others at the same address.
    pub run: String,
    /// Where state is kept, and from the end of one checkpoint to the start of the next.
    pub checkpoints: Option<(Arc<dyn Blobs>, Duration)>,
    /// How much memory keyed state may take, and where it goes beyond that; none: all stays in memory.
    pub state: Option<StateBounds>,
    /// Who says that a checkpoint counts and that the run is done.
    pub coordination: Option<Arc<Mutex<dyn Coordination>>>,
    /// Where threads and links tell their news.
    pub sender: Sender<News>,
    /// The highest generation that the worker took part in.
    pub generation: Arc<AtomicU64>,
}

/// A worker.
pub(crate) struct Driver {
    around: Surroundings,
    system: Box<dyn System>,
    plan: Plan,
    control: Control,
    links: BTreeMap<(u64, WorkerId), Connection>,
    lead: Option<Lead>,
    engine: Option<Engine>,
    /// The sorted files of the attempt before: the next one need not read again what it goes on with.
    files: Vec<Arc<Run>>,
    /// Whether it was told that it is to leave.
    leaves: bool,
    /// Whether the run was done before this worker did anything for it.
    found_completed: bool,
}

impl Driver {
    /// A worker that has done nothing yet.
    #[must_use]
    pub(crate) fn new(around: Surroundings, system: Box<dyn System>, plan: Plan, control: Control) -> Self {
        Self {
            around,
            system,
            plan,
            control,
            links: BTreeMap::new(),
            lead: None,
            engine: None,
            files: Vec::new(),
            leaves: false,
            found_completed: false,
        }
    }

    /// Whether the run was done before this worker did anything for it.
    #[must_use]
    pub(crate) fn found_completed(&self) -> bool {
        self.found_completed
    }

    /// Hears news until the worker's work is over.
    ///
    /// # Errors
    /// If the run cannot go on before the user has mended something, or this worker cannot.
    pub(crate) fn drive(&mut self, news: &Receiver<News>) -> Result<Outcome, StreamError> {
        let mut next = None;
        loop {
            if let Some(outcome) = self.turn(next.take()) {
                return outcome;
            }
            next = match news.recv_timeout(LOOK) {
                Ok(news) => Some(news),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("it holds a sender itself"),
            };
        }
    }

    /// Hears one piece of news, or that there is none, and does all that follows from it. Says how the
    /// worker's work ended, if it did.
    pub(crate) fn turn(&mut self, news: Option<News>) -> Option<Result<Outcome, StreamError>> {
        let mut inputs = VecDeque::new();
        if !self.leaves && self.around.stop.load(Ordering::Acquire) {
            self.leaves = true;
            inputs.push_back(Input::Leave);
        }
        match news {
            Some(news) => inputs.extend(self.hear(news)),
            None => inputs.push_back(Input::Tick),
        }
        // Each command's answer comes before the next command's, and before other news.
        while let Some(input) = inputs.pop_front() {
            let mut commands = VecDeque::from(self.control.handle(self.system.now(), input));
            while let Some(command) = commands.pop_front() {
                if let Command::Exit(outcome) = command {
                    return Some(outcome);
                }
                let answer = self.carry_out(command).unwrap_or_else(|error| Some(Input::Failed(error)));
                if let Some(answer) = answer {
                    commands.extend(self.control.handle(self.system.now(), answer));
                }
            }
        }
        None
    }

    fn hear(&mut self, news: News) -> Vec<Input> {
        match news {
            News::Thread(generation, news) if generation == self.current() => match news {
                ThreadNews::Report(report) => {
                    let Some(engine) = &mut self.engine else { return Vec::new() };
                    let told = engine.report(report);
                    told.map_or_else(|error| vec![Input::Failed(error)], |told| inputs_of(told).collect())
                }
                // The echo of another's error, which is still to come.
                ThreadNews::Ended(Ok(()) | Err(StreamError::Stopped)) => Vec::new(),
                ThreadNews::Ended(Err(error)) => vec![Input::Failed(error)],
            },
            // Of an attempt that is over.
            News::Thread(..) => Vec::new(),
            News::Said(generation, who, say) => vec![Input::Said(generation, who, say)],
            News::Lost(generation, who, why) => vec![Input::Lost(generation, who, why)],
            News::Connected(generation, who, connection) => {
                if generation < self.current() {
                    connection.wire.close();
                    return Vec::new();
                }
                self.links.insert((generation, who), connection);
                vec![Input::Called(generation, who)]
            }
            News::View(view) => vec![Input::View(view)],
        }
    }

    fn current(&self) -> u64 {
        self.around.generation.load(Ordering::Acquire)
    }

    /// Carries out a command and says what it is answered with, if it is.
    fn carry_out(&mut self, command: Command) -> Result<Option<Input>, StreamError> {
        let mut answer = None;
        match command {
            Command::TakeOver => answer = Some(Input::TookOver(self.take_over()?)),
            Command::Enter(generation) => self.enter(generation),
            Command::Dial { generation, from, first, members } => {
                let dialled = self.dial(generation, from, first, &members);
                answer = Some(Input::Dialled(generation, dialled));
            }
            Command::Survey => answer = Some(Input::Surveyed(self.survey()?)),
            Command::Assemble(start) => answer = Some(Input::Assembled(self.assemble(*start)?)),
            Command::Say(who, say) => self.say(&say, |peer| peer == who),
            Command::SayAll(say) => self.say(&say, |_| true),
            Command::Go => self.start_threads(),
            Command::Hold(epoch) => answer = Some(Input::Held(epoch, self.hold())),
            Command::Place(epoch, round) => self.place(epoch, round),
            Command::Write(epoch, round, parts) => {
                answer = Some(Input::Written(epoch, self.write(epoch, round, parts)?));
            }
            Command::Publish(epoch) => answer = self.publish().map(|()| Some(Input::Published(epoch)))?,
            Command::Clean => self.clean()?,
            Command::Commit(sinks) => answer = self.commit(&sinks).map(|()| Some(Input::Committed))?,
            Command::Note => answer = self.note().map(|()| Some(Input::Noted))?,
            Command::End => self.end(),
            Command::Tell(event) => self.around.events.send(event),
            // The last of all: whoever asked for a turn is told of it.
            Command::Exit(_) => {}
        }
        Ok(answer)
    }

    fn enter(&mut self, generation: u64) {
        self.around.generation.store(generation, Ordering::Release);
        self.hang_up(|of| of < generation);
    }

    fn say(&self, say: &Say, to: impl Fn(WorkerId) -> bool) {
        let body = serde_json::to_vec(say).expect("plain data becomes JSON");
        self.links_now().filter(|(peer, _)| to(*peer)).for_each(|(_, wire)| wire.send_control(&body));
    }

    fn survey(&self) -> Result<Inputs, StreamError> {
        inputs(&Graph::new(&self.plan)?, &*self.around.connectors)
    }

    fn hold(&self) -> Option<Round> {
        self.engine.as_ref().and_then(|engine| engine.shared.barriers.hold())
    }

    fn place(&self, epoch: Epoch, round: Round) {
        if let Some(engine) = &self.engine {
            engine.shared.barriers.place(epoch, round);
            engine.shared.wake();
        }
    }

    fn clean(&mut self) -> Result<(), StreamError> {
        let keeper = self.lead.as_mut().and_then(|lead| lead.keeper.as_mut());
        keeper.map_or(Ok(()), Keeper::clean)
    }

    fn commit(&self, sinks: &BTreeMap<String, String>) -> Result<(), StreamError> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let graph = &engine.shared.steps.graph;
        commit(graph, &*self.around.connectors, &self.around.events, sinks)
    }

    fn note(&self) -> Result<(), StreamError> {
        let ensemble = self.around.coordination.as_ref();
        ensemble.map_or(Ok(()), |ensemble| with(ensemble, |ensemble| ensemble.complete()))
    }

    fn take_over(&mut self) -> Result<Took, StreamError> {
        let graph = Graph::new(&self.plan)?;
        let taken = match &self.around.coordination {
            None => Taken::without_ensemble(),
            Some(ensemble) => match take_over(&self.plan, &graph, &self.around, ensemble)? {
                Found::Completed => {
                    self.found_completed = true;
                    return Ok(Took::Over);
                }
                Found::Ended => return Ok(Took::Over),
                Found::Start(taken) => *taken,
            },
        };
        let Taken { generation, latest, lead } = taken;
        let next = lead.next;
        self.lead = Some(lead);
        Ok(Took::Leads { generation, latest, next })
    }

    fn dial(
        &mut self,
        generation: u64,
        from: WorkerId,
        first: WorkerId,
        members: &[Member],
    ) -> Vec<Result<(), String>> {
        let hello = |member: &Member| {
            let (run, to) = (self.around.run.clone(), member.id.clone());
            (Hello { run, generation, from, to }, member.clone())
        };
        let calls: Vec<(Hello, Member)> = members.iter().map(hello).collect();
        let greeted = self.system.greet(&calls);
        let mut peer = first;
        let mut open = |greeted: Box<dyn Greeted>| {
            let port = Port::new(generation, peer, self.around.sender.clone());
            let wire = greeted.open(&port)?;
            self.links.insert((generation, peer), Connection { wire, port });
            peer += 1;
            Ok(())
        };
        greeted.into_iter().map(|greeted| open(greeted?)).collect()
    }

    /// The connections of the attempt.
    fn links_now(&self) -> impl Iterator<Item = (WorkerId, &Arc<dyn Wire>)> {
        let generation = self.current();
        let links = self.links.range((generation, 0)..=(generation, WorkerId::MAX));
        links.map(|((_, peer), connection)| (*peer, &connection.wire))
    }

    /// Prepares an attempt, and says in which round it goes on; none, if this worker finds other files to
    /// read than the coordinator.
    fn assemble(&mut self, start: Start) -> Result<Option<Round>, StreamError> {
        let Start { assignment, plan, latest, inputs: theirs } = start;
        if let Some(theirs) = theirs.filter(|_| !assignment.leads())
            && inputs(&Graph::new(&plan)?, &*self.around.connectors)? != theirs
        {
            return Ok(None);
        }
        let restored = restored(&plan, &self.around, &assignment, latest.as_ref())?;
        let round = restored.round;
        self.around.events.begin();
        let engine = Engine::new(Parts {
            plan: &plan,
            connectors: &*self.around.connectors,
            events: &self.around.events,
            run: &self.around.part,
            assignment: &assignment,
            links: &self.links_now().map(|(peer, wire)| (peer, Arc::clone(wire))).collect(),
            restored,
            state: self.around.state.as_ref(),
            blobs: self.around.checkpoints.as_ref().map(|(blobs, _)| Arc::clone(blobs)),
        })?;
        for Connection { wire, port } in self.links.values() {
            if port.generation == assignment.generation {
                let _ = port.inner.set((engine.channels_over(wire), Arc::clone(&engine.shared)));
            }
        }
        self.engine = Some(engine);
        self.files.clear();
        self.around.state.iter().for_each(|state| state.disk.clear_leftovers());
        Ok(Some(round))
    }

    fn start_threads(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let (here, generation) = (engine.here.clone(), self.around.generation.load(Ordering::Acquire));
        let running = |(thread, tasks)| {
            let sender = self.around.sender.clone();
            Running {
                thread,
                crew: Crew::new(Arc::clone(&engine.shared), thread, here.clone(), tasks),
                tell: Box::new(move |news| {
                    // Nobody hears it any more only if the worker ends.
                    let _ = sender.send(News::Thread(generation, news));
                }),
            }
        };
        let threads: Vec<Running> =
            here.clone().zip(std::mem::take(&mut engine.tasks)).map(running).collect();
        self.system.start(&engine.shared, threads);
    }

    fn write(
        &mut self,
        epoch: Epoch,
        round: Option<Round>,
        parts: BTreeMap<WorkerId, Box<Part>>,
    ) -> Result<CheckpointSize, StreamError> {
        let keeper = self.lead.as_mut().and_then(|lead| lead.keeper.as_mut());
        let parts = parts.into_iter().map(|(worker, part)| (worker, *part)).collect();
        let size = keeper.map(|keeper| keeper.write(epoch, round, parts)).transpose()?;
        Ok(size.unwrap_or_default())
    }

    fn publish(&mut self) -> Result<(), StreamError> {
        let keeper = self.lead.as_ref().and_then(|lead| lead.keeper.as_ref());
        if let (Some(keeper), Some(coordination)) = (keeper, &self.around.coordination) {
            let pointer = keeper.pointer().expect("a checkpoint was written just before");
            with(coordination, |ensemble| ensemble.publish(&pointer))?;
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.files = self.around.state.as_ref().map_or_else(Vec::new, |state| state.disk.runs());
            engine.shared.stop();
            self.system.join();
        }
        self.lead = None;
        let current = self.current();
        self.hang_up(|generation| generation <= current);
    }

    fn hang_up(&mut self, over: impl Fn(u64) -> bool) {
        self.links.retain(|(generation, _), connection| {
            let over = over(*generation);
            if over {
                connection.wire.close();
            }
            !over
        });
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end();
        self.hang_up(|_| true);
    }
}

fn inputs_of(told: Vec<Told>) -> impl Iterator<Item = Input> {
    told.into_iter().map(|told| match told {
        Told::Kept(epoch, round, part) => Input::Kept(epoch, round, part),
        Told::Ended(part) => Input::Ended(part),
    })
}
