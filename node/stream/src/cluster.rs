//! A worker among others: finding them, following the one that coordinates, or being it.
//!
//! Owns: the worker's life from one attempt to the next, the listener, who is asked to take part.
//! Must not know: tasks, checkpoints' formats, the Ensemble's protocol.
//! Invariant: the first on the roster coordinates, and before it does anything it raises the generation:
//! what a coordinator before it still wants can no more count. A worker follows whoever has the highest
//! generation that called it.
//!
//! The connections of an attempt: the coordinator connects to each worker and says who takes part;
//! every worker then connects to those after it. So each pair has one connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pharos_beam::plan::Plan;

use crate::assemble::inputs;
use crate::assignment::Assignment;
use crate::attempt::{Attempt, Crew, Ending, LOOK, Lead, News, Port, Say, Start, Surroundings};
use crate::checkpoint::coordinator::WorkerId;
use crate::coordination::{Coordination, CoordinationError, Member, Pointer, Roster, View};
use crate::error::StreamError;
use crate::event::{Event, Events, Listener};
use crate::exchange::link::{Hello, Link, dial, welcome};
use crate::graph::Graph;
use crate::io::Connectors;
use crate::run::{CheckpointOptions, Found, Taken, restored, take_over};
use crate::spill::{StateBounds, StateMemory};

/// The first on the roster waits so long for others before it begins with those that are there.
const SETTLE: Duration = Duration::from_millis(1500);
/// So long a worker that could not be reached is not asked again.
const ABSENT: Duration = Duration::from_secs(10);
/// Between attempts, growing from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How a worker works.
pub struct WorkerOptions {
    /// The process: no other has this id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Where other workers connect.
    pub listener: TcpListener,
    /// Under which address they know it, `host:port`.
    pub address: String,
    /// How many threads it works with; results do not depend on it.
    pub threads: usize,
    /// What tells this run from others at the same address.
    pub run: String,
    /// The name of the run, for files in the making.
    pub part: String,
    /// Who hears of progress.
    pub events: Listener,
    /// Who says that a checkpoint counts and that the run is done.
    pub coordination: Arc<Mutex<dyn Coordination>>,
    /// Who is there.
    pub roster: Box<dyn Roster>,
    /// How much memory keyed state may take, and where it goes beyond that; none: all stays in memory.
    pub state: Option<StateMemory>,
    /// Checkpoints; without them a worker that is lost makes all start from the beginning.
    pub checkpoints: Option<CheckpointOptions>,
    /// Set from outside to make it leave: it hands over after a checkpoint.
    pub stop: Arc<AtomicBool>,
}

/// How a worker's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The run is done.
    Completed,
    /// It was to leave, and did.
    Stopped,
}

/// Works on a run with others until it is done or the worker is to leave.
///
/// # Errors
/// If the run cannot go on before the user has mended something, or this worker cannot.
pub fn work(
    plan: &Plan,
    connectors: &Arc<dyn Connectors>,
    mut options: WorkerOptions,
) -> Result<Outcome, StreamError> {
    let events = Events::new(Arc::clone(&options.events));
    let (sender, news) = channel();
    let door = Door::open(&options, sender.clone())?;
    let threads = options.threads.max(1) as u32;
    let me = Member::new(options.id.clone(), options.name.clone(), options.address.clone(), threads);
    let checkpoints = options.checkpoints.as_ref();
    let state = options.state.as_ref().map(StateBounds::new);
    let around = Surroundings {
        state: state.as_ref(),
        connectors: &**connectors,
        events: &events,
        stop: &options.stop,
        run: &options.part,
        checkpoints: checkpoints.map(|options| (Arc::clone(&options.blobs), options.interval)),
        sender: sender.clone(),
        news: &news,
        waiting: RefCell::default(),
        seen: RefCell::default(),
        leaving: RefCell::default(),
    };
    let watcher = Arc::new(move |view| {
        // Nobody hears it any more only if the worker ends.
        let _ = sender.send(News::View(view));
    });
    options.roster.join(&me, watcher).map_err(ensemble)?;
    let mut worker = Worker {
        around: &around,
        plan,
        run: &options.run,
        me,
        coordination: &options.coordination,
        generation: Arc::clone(&door.generation),
        view: View::default(),
        since: Instant::now(),
        settled: false,
        absent: BTreeMap::new(),
        pause: BACKOFF.0,
    };
    let outcome = worker.live();
    options.roster.leave();
    drop(door);
    outcome
}

fn ensemble(error: CoordinationError) -> StreamError {
    StreamError::Checkpoint(error.to_string())
}

/// The listener's thread.
struct Door {
    generation: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    fn open(options: &WorkerOptions, sender: Sender<News>) -> Result<Self, StreamError> {
        let failed = |error: std::io::Error| StreamError::Exchange(format!("cannot listen: {error}"));
        let listener = options.listener.try_clone().map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let generation = Arc::new(AtomicU64::new(0));
        let closed = Arc::new(AtomicBool::new(false));
        let judge = Arc::new(Judge {
            id: options.id.clone(),
            run: options.run.clone(),
            generation: Arc::clone(&generation),
        });
        let shut = Arc::clone(&closed);
        let thread = std::thread::Builder::new().name("pharos-exchange".to_owned()).spawn(move || {
            for socket in listener.incoming() {
                if shut.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(socket), judge, sender) = (socket, Arc::clone(&judge), sender.clone()) else {
                    continue;
                };
                // One that says nothing must not keep the next one waiting.
                let greeting = move || {
                    if let Ok(hello) = welcome(&socket, |hello| judge.judge(hello)) {
                        let _ = sender.send(News::Connected(hello, socket));
                    }
                };
                let _ = std::thread::Builder::new().name("pharos-greeting".to_owned()).spawn(greeting);
            }
        });
        Ok(Self { generation, closed, address, thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        // The thread waits for a connection.
        if TcpStream::connect_timeout(&address, LOOK).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Whom a worker lets in.
struct Judge {
    id: String,
    run: String,
    generation: Arc<AtomicU64>,
}

impl Judge {
    fn judge(&self, hello: &Hello) -> Result<(), String> {
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

struct Worker<'a> {
    around: &'a Surroundings<'a>,
    plan: &'a Plan,
    run: &'a str,
    me: Member,
    coordination: &'a Arc<Mutex<dyn Coordination>>,
    /// The highest generation that this worker took part in.
    generation: Arc<AtomicU64>,
    view: View,
    /// Since when the view is as it is.
    since: Instant,
    /// Whether others were waited for already.
    settled: bool,
    /// Those that could not be reached or leave, and until when they are not asked again.
    absent: BTreeMap<String, Instant>,
    pause: Duration,
}

impl Worker<'_> {
    fn news(&self) -> &Receiver<News> {
        self.around.news
    }

    fn live(&mut self) -> Result<Outcome, StreamError> {
        let mut call = None;
        loop {
            if self.around.stop.load(Ordering::Acquire) {
                return Ok(Outcome::Stopped);
            }
            let begun = Instant::now();
            let ended = match call.take() {
                Some((hello, socket)) => self.follow(&hello, socket)?,
                None if self.view.completed => return Ok(Outcome::Completed),
                None if self.is_first() && self.is_settled() => self.lead()?,
                None => {
                    call = self.listen(LOOK);
                    continue;
                }
            };
            if let Some(view) = self.around.seen.take() {
                self.see(view);
            }
            let until = Instant::now() + ABSENT;
            self.absent.extend(self.around.leaving.take().into_iter().map(|id| (id, until)));
            match ended {
                Ending::Completed => return Ok(Outcome::Completed),
                Ending::Stopped => return Ok(Outcome::Stopped),
                Ending::Superseded(hello, socket) => call = Some((hello, socket)),
                Ending::Divide => self.settled = true,
                Ending::Again(why) => {
                    self.around.events.send(Event::Interrupted { why });
                    // One that went well for a while says nothing about the next.
                    let calm = begun.elapsed() > BACKOFF.1;
                    self.pause = if calm { BACKOFF.0 } else { (self.pause * 2).min(BACKOFF.1) };
                    call = self.rest(self.pause);
                }
            }
        }
    }

    /// Waits before the next attempt, unless someone calls.
    fn rest(&mut self, pause: Duration) -> Option<(Hello, TcpStream)> {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.around.stop.load(Ordering::Acquire) {
            let call = self.listen(LOOK.min(pause));
            if call.is_some() {
                return call;
            }
        }
        None
    }

    fn is_first(&self) -> bool {
        self.view.members.first().is_some_and(|first| first.id == self.me.id)
    }

    fn is_settled(&mut self) -> bool {
        std::mem::take(&mut self.settled) || self.since.elapsed() > SETTLE
    }

    /// Hears what comes within `time`; the coordinator of a later generation, if it calls.
    fn listen(&mut self, time: Duration) -> Option<(Hello, TcpStream)> {
        match self.news().recv_timeout(time) {
            Ok(News::View(view)) => self.see(view),
            Ok(News::Connected(hello, socket)) => {
                if hello.from == 0 && hello.generation > self.generation.load(Ordering::Acquire) {
                    return Some((hello, socket));
                }
                self.around.waiting.borrow_mut().push((hello, socket));
            }
            // Of an attempt that is over.
            Ok(News::Thread(..) | News::Said(..) | News::Lost(..)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("it holds a sender itself"),
        }
        None
    }

    fn see(&mut self, view: View) {
        if view.members != self.view.members {
            self.since = Instant::now();
        }
        self.view = view;
    }

    /// Takes part in a generation from now on, and forgets connections of earlier ones.
    fn enter(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
        self.around.waiting.borrow_mut().retain(|(hello, _)| hello.generation >= generation);
    }

    /// Leads an attempt with all that can be reached.
    fn lead(&mut self) -> Result<Ending, StreamError> {
        let graph = Graph::new(self.plan)?;
        let taken = match take_over(self.plan, &graph, self.around, Arc::clone(self.coordination)) {
            Ok(Found::Completed | Found::Ended) => return Ok(Ending::Completed),
            Ok(Found::Start(taken)) => *taken,
            Err(StreamError::Fenced) => return Ok(Ending::Again(StreamError::Fenced.to_string())),
            Err(error) => return Err(error),
        };
        let Taken { generation, latest, mut lead } = taken;
        self.enter(generation);
        let now = Instant::now();
        self.absent.retain(|_, until| now < *until);
        let mut sockets = Vec::new();
        let mut workers = vec![self.me.clone()];
        for member in self.view.members.iter().filter(|member| member.id != self.me.id) {
            if self.absent.contains_key(&member.id) {
                continue;
            }
            match dial(&member.address, &self.hello(generation, 0, member)) {
                Ok(socket) => {
                    workers.push(member.clone());
                    sockets.push(socket);
                }
                Err(why) => {
                    let why = format!("worker `{}` takes no part: {why}", member.name);
                    self.around.events.send(Event::Interrupted { why });
                    self.absent.insert(member.id.clone(), Instant::now() + ABSENT);
                }
            }
        }
        lead.absent = self.absent.clone();
        let assignment = Assignment { generation, workers, me: 0 };
        let mut crew = Crew::default();
        for (peer, socket) in (1..).zip(sockets) {
            self.connect(&mut crew, generation, peer, socket)?;
        }
        let inputs = if crew.links.is_empty() {
            BTreeMap::new()
        } else {
            let found = inputs(&graph, self.around.connectors);
            found.inspect_err(|error| crew.tell_failure(error))?
        };
        for (peer, link) in &crew.links {
            let assignment = Assignment { me: *peer, ..assignment.clone() };
            let (plan, latest, inputs) = (self.plan.clone(), latest.clone(), inputs.clone());
            let start = Start { assignment, plan, latest, inputs };
            link.send_control(&Say::Start(Box::new(start)));
        }
        let ended = self.attempt(self.plan, graph, assignment, crew, latest.as_ref(), Some(lead));
        match ended {
            Err(StreamError::Fenced) => Ok(Ending::Again(StreamError::Fenced.to_string())),
            other => other,
        }
    }

    fn hello(&self, generation: u64, from: WorkerId, to: &Member) -> Hello {
        Hello { run: self.run.to_owned(), generation, from, to: to.id.clone() }
    }

    fn connect(
        &self,
        crew: &mut Crew,
        generation: u64,
        peer: WorkerId,
        socket: TcpStream,
    ) -> Result<(), StreamError> {
        let port = Port::new(generation, peer, self.around.sender.clone());
        let link = Link::start(socket, Arc::clone(&port) as Arc<_>)
            .map_err(|error| StreamError::Exchange(error.to_string()))?;
        crew.links.insert(peer, link);
        crew.ports.insert(peer, port);
        Ok(())
    }

    /// Takes part in an attempt that another worker leads.
    fn follow(&mut self, hello: &Hello, socket: TcpStream) -> Result<Ending, StreamError> {
        let generation = hello.generation;
        self.enter(generation);
        let mut crew = Crew::default();
        self.connect(&mut crew, generation, 0, socket)?;
        let start = match self.meet(&mut crew, generation) {
            Ok(start) => start,
            Err(ending) => return Ok(ending),
        };
        let graph = Graph::new(&start.plan)?;
        let found = inputs(&graph, self.around.connectors);
        if found.inspect_err(|error| crew.tell_failure(error))? != start.inputs {
            let why = "it finds other files to read than the coordinator".to_owned();
            crew.tell_failure(&StreamError::Exchange(why.clone()));
            return Ok(Ending::Again(why));
        }
        self.attempt(&start.plan, graph, start.assignment, crew, start.latest.as_ref(), None)
    }

    /// Hears from the coordinator who takes part, and connects with them.
    fn meet(&mut self, crew: &mut Crew, generation: u64) -> Result<Start, Ending> {
        let mut start: Option<Start> = None;
        loop {
            if let Some(start) = start.take_if(|start| self.all_there(crew, start)) {
                for (peer, member) in
                    (0..).zip(&start.assignment.workers).skip(start.assignment.me as usize + 1)
                {
                    let socket = dial(&member.address, &self.hello(generation, start.assignment.me, member));
                    let connected = socket.map_err(StreamError::Exchange);
                    connected
                        .and_then(|socket| self.connect(crew, generation, peer, socket))
                        .map_err(|error| Ending::Again(format!("worker `{}`: {error}", member.name)))?;
                }
                return Ok(start);
            }
            if self.around.stop.load(Ordering::Acquire) {
                return Err(Ending::Stopped);
            }
            match self.news().recv_timeout(LOOK) {
                Ok(News::Said(of, 0, Say::Start(said))) if of == generation => start = Some(*said),
                Ok(News::Lost(of, who, why)) if of == generation => {
                    return Err(Ending::Again(format!("worker {who} is lost: {why}")));
                }
                Ok(News::Connected(hello, socket)) if hello.from == 0 && hello.generation > generation => {
                    return Err(Ending::Superseded(hello, socket));
                }
                Ok(News::Connected(hello, socket)) => {
                    self.around.waiting.borrow_mut().push((hello, socket));
                }
                Ok(News::View(view)) => self.see(view),
                _ => {}
            }
        }
    }

    /// Takes the connections of those before this worker; true once all are there.
    fn all_there(&self, crew: &mut Crew, start: &Start) -> bool {
        let Assignment { generation, me, .. } = start.assignment;
        let mut here = Vec::new();
        self.around.waiting.borrow_mut().retain_mut(|(hello, socket)| {
            let wanted = hello.generation == generation && (1..me).contains(&hello.from);
            if wanted {
                here.extend(socket.try_clone().map(|socket| (hello.from, socket)));
            }
            !wanted
        });
        here.into_iter().all(|(peer, socket)| self.connect(crew, generation, peer, socket).is_ok())
            && crew.links.len() == me as usize
    }

    fn attempt(
        &mut self,
        plan: &Plan,
        graph: Graph,
        assignment: Assignment,
        crew: Crew,
        latest: Option<&Pointer>,
        lead: Option<Lead>,
    ) -> Result<Ending, StreamError> {
        let restored = restored(plan, self.around, &assignment, latest);
        let restored = restored.inspect_err(|error| crew.tell_failure(error))?;
        Attempt::new(self.around, plan, graph, assignment, crew, restored, lead)?.run()
    }
}
