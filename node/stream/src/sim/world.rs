//! The simulated world: time, chance, processes, and the order in which things happen.
//!
//! Owns: the queue of events, what is alive and who can reach whom, and steps of a process that take time.
//! Must not know: what processes do.
//! Invariant: everything follows from the seed. One thing happens at a time; while a process waits for a
//! step of its own, the others go on.
//!
//! The world belongs to the thread, so that whatever a process holds can reach it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::data::Row;
use super::ensemble::Ensemble;
use super::network::{LinkId, Pipe, Side};
use super::rng::Rng;
use super::{faults, network, process};
use crate::checkpoint::manifest::Manifest;
use crate::control::Moment;
use crate::coordination::Member;
use crate::driver::{Driver, News, Running};

/// A process: never used again after it.
pub(super) type Proc = u32;

/// After this long a silent link is lost, as `exchange::link` has it.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// After this long a silent session is over, as `coordination::roster` has it.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A process hears its news, or looks at the clock.
    Turn(Proc),
    /// A thread of a process does a step.
    Step(Proc, usize),
    /// What is on its way to one side of a link arrives.
    Deliver(LinkId, Side),
    /// A link that has been silent since that moment is lost.
    Silence(LinkId, Moment),
    /// A process hears from the roster.
    Roster(Proc),
    /// The session of a process that died is over.
    Expired(Proc),
    /// The next fault.
    Fault,
    /// A host starts a process.
    Start(usize),
}

/// A step that takes time and may not come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Of the store.
    Store,
    /// Of the Ensemble.
    Ensemble,
    /// Of the network.
    Network,
}

/// What the world knows of a process.
pub(super) struct Process {
    pub(super) member: Member,
    pub(super) host: usize,
    pub(super) started: Moment,
    /// Not before that moment does it do anything.
    pub(super) paused: Moment,
    /// Since when it is paused, if it is.
    pub(super) paused_since: Moment,
    pub(super) sender: Sender<News>,
    pub(super) news: Rc<Receiver<News>>,
    pub(super) generation: Arc<AtomicU64>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) driver: Rc<RefCell<Option<Driver>>>,
    /// The threads' tasks, but for those that are doing a step.
    pub(super) threads: BTreeMap<usize, Option<Running>>,
    /// How often its threads were started.
    pub(super) attempt: u64,
    /// How long a step of its threads takes.
    pub(super) pace: Duration,
    /// When each thread's next step is, for waking it, and how long it waits for the one after.
    pub(super) next: BTreeMap<usize, (Moment, u64)>,
    pub(super) waits: BTreeMap<usize, Duration>,
    /// Since when the Ensemble has not heard of it.
    pub(super) silent: Option<Moment>,
    /// When it hears its news next.
    pub(super) turn: Option<(Moment, u64)>,
}

/// What happened in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) checkpoints: u64,
    pub(super) attempts: u64,
    pub(super) by_kind: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.by_kind.entry(what).or_default() += 1;
    }
}

pub(super) struct World {
    pub(super) now: Moment,
    pub(super) rng: Rng,
    sequence: u64,
    queue: BTreeMap<(Moment, u64), Event>,
    pub(super) processes: BTreeMap<Proc, Process>,
    pub(super) made: Proc,
    pub(super) hosts: usize,
    /// Links, by number.
    pub(super) links: BTreeMap<LinkId, Pipe>,
    pub(super) linked: u32,
    /// Who hears nothing from whom, by host, and until when.
    pub(super) cut: BTreeMap<(usize, usize), Moment>,
    /// Which hosts do not reach the Ensemble.
    pub(super) cut_off: BTreeMap<usize, Moment>,
    pub(super) ensemble: Ensemble,
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    pub(super) input: Vec<(Arc<Vec<Row>>, u64)>,
    pub(super) making: BTreeMap<String, Vec<u8>>,
    pub(super) visible: BTreeMap<String, Vec<u8>>,
    /// From the end of one checkpoint to the start of the next.
    pub(super) interval: Duration,
    /// Whether faults still happen.
    pub(super) wild: bool,
    pub(super) counts: Counts,
    /// What dead processes held.
    pub(super) graves: Vec<Grave>,
    pub(super) violation: Option<String>,
}

/// The driver of a dead process, which may be in the middle of a step, and its threads' tasks.
type Grave = (Rc<RefCell<Option<Driver>>>, BTreeMap<usize, Option<Running>>);

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// With the world of this thread, which must not be asked for within.
pub(super) fn with<T>(act: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| act(world.as_mut().expect("the world is there")))
}

/// Puts a world in place of the one before it.
pub(super) fn begin(rng: Rng, input: Vec<(Arc<Vec<Row>>, u64)>, interval: Duration) {
    let world = World {
        now: Duration::ZERO,
        rng,
        sequence: 0,
        queue: BTreeMap::new(),
        processes: BTreeMap::new(),
        made: 0,
        hosts: 0,
        links: BTreeMap::new(),
        linked: 0,
        cut: BTreeMap::new(),
        cut_off: BTreeMap::new(),
        ensemble: Ensemble::default(),
        blobs: BTreeMap::new(),
        input,
        making: BTreeMap::new(),
        visible: BTreeMap::new(),
        interval,
        wild: false,
        counts: Counts::default(),
        graves: Vec::new(),
        violation: None,
    };
    WORLD.with_borrow_mut(|slot| *slot = Some(world));
}

/// Lets go of what dead processes held. It asks for the world when it goes.
fn bury() {
    for (driver, threads) in with(|world| std::mem::take(&mut world.graves)) {
        drop(threads);
        let Ok(mut slot) = driver.try_borrow_mut() else {
            with(|world| world.graves.push((Rc::clone(&driver), BTreeMap::new())));
            continue;
        };
        let held = slot.take();
        drop(slot);
        drop(held);
    }
}

/// Takes the world away.
pub(super) fn end() -> World {
    // What still lives goes first, for it asks for the world when it goes.
    with(|world| {
        let processes = std::mem::take(&mut world.processes).into_values();
        world.graves.extend(processes.map(|process| (process.driver, process.threads)));
    });
    bury();
    WORLD.with_borrow_mut(Option::take).expect("the world is there")
}

impl World {
    pub(super) fn at(&mut self, moment: Moment, event: Event) -> (Moment, u64) {
        self.sequence += 1;
        let key = (moment.max(self.now), self.sequence);
        self.queue.insert(key, event);
        key
    }

    pub(super) fn after(&mut self, micros: u64, event: Event) -> (Moment, u64) {
        self.at(self.now + Duration::from_micros(micros), event)
    }

    pub(super) fn cancel(&mut self, key: (Moment, u64)) {
        self.queue.remove(&key);
    }

    /// A process that is alive; none that is not.
    pub(super) fn live(&mut self, proc: Proc) -> Option<&mut Process> {
        if self.violation.is_some() {
            return None;
        }
        self.processes.get_mut(&proc)
    }

    pub(super) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The checkpoint that counts.
    pub(super) fn manifest(&self) -> Option<Manifest> {
        let pointer = self.ensemble.latest()?;
        self.blobs.get(&pointer.manifest).and_then(|bytes| serde_json::from_slice(bytes).ok())
    }

    /// The blobs that the checkpoint that counts needs.
    pub(super) fn needed(&self) -> BTreeSet<String> {
        let Some(pointer) = self.ensemble.latest() else { return BTreeSet::new() };
        let manifest = self.manifest();
        let blobs = manifest.iter().flat_map(|manifest| manifest.blobs().map(str::to_owned));
        blobs.chain([pointer.manifest]).collect()
    }

    /// Whether what one process sends reaches another.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        self.cut.get(&(from, to)).is_none_or(|until| *until <= self.now)
    }

    pub(super) fn reaches_ensemble(&self, proc: Proc) -> bool {
        self.processes.get(&proc).is_some_and(|process| {
            process.paused <= self.now
                && self.cut_off.get(&process.host).is_none_or(|until| *until <= self.now)
        })
    }

    pub(super) fn is_paused(&self, proc: Proc) -> bool {
        self.processes.get(&proc).is_some_and(|process| process.paused > self.now)
    }
}

/// Lets time pass until a moment, or until nothing is to be done.
pub(super) fn run_until(until: Moment, over: &dyn Fn(&World) -> bool) {
    loop {
        let event = with(|world| {
            if world.violation.is_some() || over(world) {
                return None;
            }
            let (key, _) = world.queue.first_key_value()?;
            if key.0 > until {
                return None;
            }
            let (key, event) = world.queue.pop_first()?;
            world.now = world.now.max(key.0);
            world.counts.events += 1;
            Some(event)
        });
        match event {
            None => break,
            Some(Event::Turn(proc)) => process::turn(proc),
            Some(Event::Step(proc, thread)) => process::step(proc, thread),
            Some(Event::Deliver(link, side)) => network::deliver(link, side),
            Some(Event::Silence(link, since)) => network::silence(link, since),
            Some(Event::Roster(proc)) => super::ensemble::roster(proc),
            Some(Event::Expired(proc)) => super::ensemble::expired(proc),
            Some(Event::Fault) => faults::strike(),
            Some(Event::Start(host)) => process::start(host),
        }
        bury();
    }
    with(|world| {
        if world.violation.is_none() && !over(world) {
            world.now = world.now.max(until);
        }
    });
}

/// The process waits so long, and longer if it is paused. None: it is killed meanwhile.
pub(super) fn elapse(proc: Proc, time: Duration) -> Option<()> {
    let mut until = with(|world| world.live(proc).map(|_| ()).map(|()| world.now + time))?;
    loop {
        run_until(until, &|_| false);
        let paused = with(|world| world.live(proc).map(|process| process.paused))?;
        if paused <= with(|world| world.now) {
            return Some(());
        }
        until = paused;
    }
}

/// A step of a process that takes effect at one moment: time passes before and after it, in which the
/// process may be killed or paused, and others go on. None: the process is dead, whether or not the step
/// took effect.
pub(super) fn op<T>(proc: Proc, kind: Op, effect: impl FnOnce() -> T) -> Option<T> {
    let delay = || {
        with(|world| {
            world.live(proc)?;
            if world.wild && world.rng.per_million(4_000) {
                world.counts.count("killed in a step");
                faults::kill(world, proc, faults::Death::Loud);
                return None;
            }
            if world.wild && world.rng.per_million(20_000) {
                faults::pause(world, proc);
                return Some(Duration::from_millis(1));
            }
            Some(match (kind, world.rng.below(1000)) {
                // Most steps are as fast as nothing, which keeps runs short.
                (_, 0..700) => Duration::ZERO,
                (Op::Store, 990..) if world.wild => {
                    world.counts.count("slow upload");
                    Duration::from_millis(world.rng.between(500, 9_000))
                }
                _ => Duration::from_micros(world.rng.between(100, 30_000)),
            })
        })
    };
    let wait = |time: Duration| if time.is_zero() { Some(()) } else { elapse(proc, time) };
    wait(delay()?)?;
    let value = effect();
    wait(delay()?)?;
    Some(value)
}
