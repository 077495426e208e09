//! Simulated worker processes: the shipped driver, control and tasks.
//!
//! Owns: when a process hears its news, and when its threads do a step.
//! Must not know: what they do.
//! Invariant: a process does one thing at a time, but its threads go on while its driver waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::data;
use super::ensemble::{SimReach, paths, submission};
use super::network::greet;
use super::store::{SimBlobs, SimFiles};
use super::world::{Event, Proc, Process, World, with};
use crate::checkpoint::Blobs;
use crate::control::{Control, Moment, Outcome, Setup};
use crate::coordination::zookeeper::Persistent;
use crate::coordination::{Coordination, Member};
use crate::driver::{Driver, Greeted, News, Running, Surroundings, System};
use crate::event::Events;
use crate::exchange::link::Hello;
use crate::exec::worker::{Shared, Turn};

/// How long threads that wait sleep at most.
const NAP: Duration = Duration::from_millis(20);

struct SimSystem(Proc);

impl System for SimSystem {
    fn now(&self) -> Moment {
        with(|world| {
            let started = world.processes.get(&self.0).map_or(Duration::ZERO, |process| process.started);
            world.now.saturating_sub(started)
        })
    }

    fn greet(&self, calls: &[(Hello, Member)]) -> Vec<Result<Box<dyn Greeted>, String>> {
        greet(self.0, calls)
    }

    fn start(&self, _: &Arc<Shared>, threads: Vec<Running>) {
        with(|world| {
            world.counts.attempts += 1;
            let Some(process) = world.live(self.0) else { return };
            process.attempt += 1;
            process.waits.clear();
            let numbers: Vec<usize> = threads.iter().map(|running| running.thread).collect();
            process.threads = threads.into_iter().map(|running| (running.thread, Some(running))).collect();
            numbers.into_iter().for_each(|thread| world.step_after(self.0, thread, Duration::ZERO));
        });
    }

    fn join(&self) {
        // A thread's step lets no time pass, so none is in the middle of one.
        let threads = with(|world| {
            let process = world.processes.get_mut(&self.0)?;
            process.attempt += 1;
            Some(std::mem::take(&mut process.threads))
        });
        drop(threads);
    }
}

impl World {
    fn step_after(&mut self, proc: Proc, thread: usize, time: Duration) {
        let key = self.at(self.now + time, Event::Step(proc, thread));
        let before = self.processes.get_mut(&proc).and_then(|process| process.next.insert(thread, key));
        before.into_iter().for_each(|before| self.cancel(before));
    }

    /// The threads of a process look again at what they wait for, and its driver at its news.
    pub(super) fn wake(&mut self, proc: Proc) {
        let Some(process) = self.processes.get(&proc) else { return };
        let waiting: Vec<usize> = process.waits.keys().copied().collect();
        for thread in waiting {
            let delay = Duration::from_micros(self.rng.between(10, 1_000));
            self.step_after(proc, thread, delay);
        }
        let delay = self.rng.between(10, 1_000);
        self.turn_after(proc, delay);
    }

    /// A process hears its news after so many microseconds, or sooner if that was planned before.
    fn turn_after(&mut self, proc: Proc, micros: u64) {
        let Some(process) = self.processes.get(&proc) else { return };
        let (before, then) = (process.turn, self.now + Duration::from_micros(micros));
        match before {
            Some(before) if before.0 <= then => return,
            Some(before) => self.cancel(before),
            None => {}
        }
        let key = self.at(then, Event::Turn(proc));
        if let Some(process) = self.processes.get_mut(&proc) {
            process.turn = Some(key);
        }
    }
}

/// A host starts a process, unless one runs there.
pub(super) fn start(host: usize) {
    let made = with(|world| {
        if world.processes.values().any(|process| process.host == host) || world.ensemble.is_completed() {
            return None;
        }
        world.made += 1;
        let proc = world.made;
        let threads = world.rng.between(1, 2) as u32;
        let member = Member::new(format!("p{proc}"), format!("w{host}"), format!("w{host}:1"), threads);
        let (sender, news) = channel();
        let pace = Duration::from_micros(world.rng.pick(&[2_000, 15_000, 40_000]));
        let process = Process {
            member,
            host,
            started: world.now,
            paused: Duration::ZERO,
            paused_since: Duration::ZERO,
            sender,
            news: Rc::new(news),
            generation: Arc::default(),
            stop: Arc::default(),
            driver: Rc::new(RefCell::new(None)),
            threads: BTreeMap::new(),
            attempt: 0,
            pace,
            next: BTreeMap::new(),
            waits: BTreeMap::new(),
            silent: None,
            turn: None,
        };
        world.processes.insert(proc, process);
        Some((proc, world.interval))
    });
    let Some((proc, interval)) = made else { return };
    let submission = submission();
    let (mut coordination, lineage, kept) =
        match Persistent::of_submission(SimReach(proc), &submission, "sim") {
            Ok(found) => found,
            Err(why) => return exit(proc, Err(why.to_string())),
        };
    let plan = kept.unwrap_or_else(data::plan);
    coordination.keep_plan(&plan);
    let coordination: Arc<Mutex<dyn Coordination>> = Arc::new(Mutex::new(coordination));
    let found = with(|world| {
        if lineage.paths(&submission) != paths() {
            world.violate(format!("process {proc} goes on in {}", lineage.paths(&submission).run()));
        }
        let process = world.live(proc)?;
        let around = Surroundings {
            connectors: Arc::new(SimFiles(proc)),
            events: Events::new(Arc::new(|_| {})),
            stop: Arc::clone(&process.stop),
            part: "sim".to_owned(),
            run: "/sim".to_owned(),
            checkpoints: Some((Arc::new(SimBlobs(proc)) as Arc<dyn Blobs>, interval)),
            state: None,
            coordination: Some(coordination),
            sender: process.sender.clone(),
            generation: Arc::clone(&process.generation),
        };
        let me = process.member.clone();
        world.after(0, Event::Roster(proc));
        world.turn_after(proc, 0);
        Some((around, me))
    });
    let Some((around, me)) = found else { return };
    let setup = Setup { me, plan: plan.clone(), interval: Some(interval), alone: false };
    let driver = Driver::new(around, Box::new(SimSystem(proc)), plan, Control::new(setup, Duration::ZERO));
    let slot = with(|world| Rc::clone(&world.processes[&proc].driver));
    *slot.borrow_mut() = Some(driver);
}

/// A process hears its news, or looks at the clock.
pub(super) fn turn(proc: Proc) {
    let found = with(|world| {
        let now = world.now;
        let process = world.live(proc)?;
        process.turn = None;
        let paused = process.paused;
        let found = (Rc::clone(&process.driver), Rc::clone(&process.news));
        if paused > now {
            let micros = (paused - now).as_micros() as u64;
            world.turn_after(proc, micros);
            return None;
        }
        Some(found)
    });
    let Some((driver, news)) = found else { return };
    // While it waits for a step of its own it hears nothing.
    let Ok(mut driver) = driver.try_borrow_mut() else {
        with(|world| world.turn_after(proc, 5_000));
        return;
    };
    let Some(running) = driver.as_mut() else { return };
    let mut next: Option<News> = news.try_recv().ok();
    let outcome = loop {
        if let Some(outcome) = running.turn(next.take()) {
            break Some(outcome);
        }
        match news.try_recv() {
            Ok(news) => next = Some(news),
            Err(_) => break None,
        }
        if with(|world| world.live(proc).is_none()) {
            break None;
        }
    };
    match outcome {
        None => {
            let killed = with(|world| {
                let killed = world.live(proc).is_none();
                let delay = world.rng.between(20_000, 50_000);
                if !killed {
                    world.turn_after(proc, delay);
                }
                killed
            });
            if killed {
                *driver = None;
            }
        }
        Some(outcome) => {
            *driver = None;
            drop(driver);
            exit(proc, outcome.map_err(|error| error.to_string()));
        }
    }
}

/// A process ends by itself.
fn exit(proc: Proc, outcome: Result<Outcome, String>) {
    let threads = with(|world| {
        let completed = world.ensemble.is_completed();
        let process = world.processes.remove(&proc)?;
        match outcome {
            Ok(Outcome::Completed) if !completed => {
                world.violate(format!("process {proc} says that the run is done, and it is not"));
            }
            Ok(Outcome::Completed) => world.counts.count("completed"),
            Ok(Outcome::Stopped) if !process.stop.load(Ordering::SeqCst) => {
                world.violate(format!("process {proc} stopped, and nobody asked it to"));
            }
            Ok(Outcome::Stopped) => world.counts.count("left"),
            // What it could not do another can, or it itself once it is started again.
            Err(why) => {
                if !world.wild && !why.contains("gave up") {
                    world.violate(format!("process {proc} cannot go on: {why}"));
                }
                world.counts.count("failed");
            }
        }
        let links = world.links_of(proc);
        links.into_iter().for_each(|link| world.reset(proc, link));
        world.ensemble.leave(proc);
        let delay = world.rng.between(100_000, 3_000_000);
        world.after(delay, Event::Start(process.host));
        Some(process.threads)
    });
    drop(threads);
}

/// A thread of a process does a step.
pub(super) fn step(proc: Proc, thread: usize) {
    let found = with(|world| {
        let now = world.now;
        let process = world.live(proc)?;
        process.next.remove(&thread);
        if process.paused > now {
            let time = process.paused - now;
            world.step_after(proc, thread, time);
            return None;
        }
        let running = process.threads.get_mut(&thread)?.take()?;
        Some((running, process.attempt, process.pace))
    });
    let Some((mut running, attempt, pace)) = found else { return };
    let polled = running.crew.step(&running.tell);
    let over = with(|world| {
        let same = world.live(proc).is_some_and(|process| process.attempt == attempt);
        if !same || polled == Turn::Ended {
            if same {
                world.wake(proc);
            }
            return Some(running);
        }
        let spread = world.rng.between(50, 150);
        let process = world.processes.get_mut(&proc).expect("it is alive");
        process.threads.insert(thread, Some(running));
        let time = if polled == Turn::Worked {
            process.waits.clear();
            pace * spread as u32 / 100
        } else {
            let wait = process.waits.entry(thread).or_insert(Duration::from_millis(1));
            *wait = (*wait * 2).min(NAP);
            *wait
        };
        if polled == Turn::Worked {
            world.wake(proc);
        }
        world.step_after(proc, thread, time);
        None
    });
    drop(over);
}
