//! A worker among others, on a real machine.
//!
//! Owns: the listener, the threads of tasks, the clock.
//! Must not know: what a worker does next, tasks, checkpoints' formats, the Ensemble's protocol.
//! Invariant: when the work is over, nothing of it runs any more.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use pharos_beam::plan::Plan;

use crate::control::{Control, Moment, Outcome, Setup};
use crate::coordination::{Coordination, CoordinationError, Member, Roster};
use crate::driver::{Connection, Driver, Greeted, Judge, LOOK, News, Port, Running, Surroundings, System};
use crate::error::StreamError;
use crate::event::{Events, Listener};
use crate::exchange::link::{Handler, Hello, Link, Wire, dial, welcome};
use crate::exec::worker::{self, Shared};
use crate::io::Connectors;
use crate::run::CheckpointOptions;
use crate::spill::{StateBounds, StateMemory};

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

/// Works on a run with others until it is done or the worker is to leave.
///
/// # Errors
/// If the run cannot go on before the user has mended something, or this worker cannot.
pub fn work(
    plan: &Plan,
    connectors: &Arc<dyn Connectors>,
    mut options: WorkerOptions,
) -> Result<Outcome, StreamError> {
    let (sender, news) = channel();
    let door = Door::open(&options, sender.clone())?;
    let threads = options.threads.max(1) as u32;
    let me = Member::new(options.id.clone(), options.name.clone(), options.address.clone(), threads);
    let me = Member { work: Some(options.run.clone()), ..me };
    let checkpoints = options.checkpoints.clone().map(|options| (options.blobs, options.interval));
    let around = Surroundings {
        connectors: Arc::clone(connectors),
        events: Events::new(Arc::clone(&options.events)),
        stop: Arc::clone(&options.stop),
        part: options.part.clone(),
        run: options.run.clone(),
        state: options.state.as_ref().map(StateBounds::new),
        checkpoints,
        coordination: Some(Arc::clone(&options.coordination)),
        sender: sender.clone(),
        generation: Arc::clone(&door.generation),
    };
    let watcher = Arc::new(move |view| {
        // Nobody hears it any more only if the worker ends.
        let _ = sender.send(News::View(view));
    });
    options
        .roster
        .join(&me, watcher)
        .map_err(|error: CoordinationError| StreamError::Checkpoint(error.to_string()))?;
    let mut driver = Driver::on_machine(around, me, plan, false);
    let outcome = driver.drive(&news);
    drop(driver);
    options.roster.leave();
    drop(door);
    outcome
}

impl Driver {
    /// A worker on this machine.
    pub(crate) fn on_machine(around: Surroundings, me: Member, plan: &Plan, alone: bool) -> Self {
        let machine = Machine { start: Instant::now(), threads: Mutex::default() };
        let interval = around.checkpoints.as_ref().map(|(_, interval)| *interval);
        let setup = Setup { me, plan: plan.clone(), interval, alone };
        let control = Control::new(setup, machine.now());
        Self::new(around, Box::new(machine), plan.clone(), control)
    }
}

/// The machine that this process runs on.
struct Machine {
    start: Instant,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl System for Machine {
    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    fn greet(&self, calls: &[(Hello, Member)]) -> Vec<Result<Box<dyn Greeted>, String>> {
        let greet = |(hello, to): &(Hello, Member)| {
            let socket = dial(&to.address, hello)?;
            Ok(Box::new(Socket { socket, address: to.address.clone() }) as Box<dyn Greeted>)
        };
        // Who does not answer costs its time once, not once for each.
        std::thread::scope(|scope| {
            let callers: Vec<_> = calls.iter().map(|call| scope.spawn(move || greet(call))).collect();
            callers.into_iter().map(|caller| caller.join().expect("a caller does not panic")).collect()
        })
    }

    fn start(&self, shared: &Arc<Shared>, threads: Vec<Running>) {
        let start = |running: Running| {
            std::thread::Builder::new()
                .name(format!("pharos-worker-{}", running.thread))
                .spawn(move || worker::run(running.crew, &running.tell))
                .expect("the system gives a thread")
        };
        let handles: Vec<JoinHandle<()>> = threads.into_iter().map(start).collect();
        shared.introduce(handles.iter().map(|handle| handle.thread().clone()).collect());
        *self.threads.lock().unwrap_or_else(PoisonError::into_inner) = handles;
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        threads.into_iter().for_each(|thread| thread.join().expect("a worker thread does not panic"));
    }
}

/// A socket after the greeting.
struct Socket {
    socket: TcpStream,
    address: String,
}

impl Greeted for Socket {
    fn open(self: Box<Self>, port: &Arc<Port>) -> Result<Arc<dyn Wire>, String> {
        let start = |socket| {
            let link = Link::new(socket)?;
            link.start(Arc::clone(port) as Arc<dyn Handler>)?;
            Ok(link as Arc<dyn Wire>)
        };
        start(self.socket).map_err(|error: std::io::Error| format!("{}: {error}", self.address))
    }
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
                let _ = std::thread::Builder::new()
                    .name("pharos-greeting".to_owned())
                    .spawn(move || let_in(socket, &judge, &sender));
            }
        });
        Ok(Self { generation, closed, address, thread: Some(thread.map_err(failed)?) })
    }
}

fn let_in(socket: TcpStream, judge: &Judge, sender: &Sender<News>) {
    let Ok(hello) = welcome(&socket, |hello| judge.judge(hello)) else { return };
    let port = Port::new(hello.generation, hello.from, sender.clone());
    // The other end learns that there is no link from the end of the connection.
    let Ok(link) = Link::new(socket) else { return };
    let connection = Connection { wire: Arc::clone(&link) as Arc<dyn Wire>, port: Arc::clone(&port) };
    // Before anything is heard over it: what is said in a generation that has not begun here is not meant.
    let told = sender.send(News::Connected(hello.generation, hello.from, connection));
    if told.is_err() || link.start(Arc::clone(&port) as Arc<dyn Handler>).is_err() {
        link.close();
        port.lost("it cannot be heard");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::say::Say;

    #[test]
    fn that_someone_has_connected_is_heard_before_what_it_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let judge = Judge { id: "b".to_owned(), run: "/r".to_owned(), generation: Arc::default() };
        let (sender, news) = channel();
        for generation in 1..=100 {
            let (there, from) = (address.clone(), Port::new(generation, 1, channel().0));
            let hello = Hello { run: "/r".to_owned(), generation, from: 0, to: "b".to_owned() };
            let caller = std::thread::spawn(move || {
                let link = Link::new(dial(&there, &hello).unwrap()).unwrap();
                link.send_control(&serde_json::to_vec(&Say::Go).unwrap());
                link.start(from).unwrap();
                link
            });
            let_in(listener.accept().unwrap().0, &judge, &sender);
            let News::Connected(of, 0, connection) = news.recv().unwrap() else { panic!("it is told first") };
            let News::Said(said_in, 0, Say::Go) = news.recv().unwrap() else { panic!("then what it says") };
            assert_eq!((of, said_in), (generation, generation));
            caller.join().unwrap().close();
            connection.wire.close();
            assert!(matches!(news.recv().unwrap(), News::Lost(..)));
        }
    }
}
