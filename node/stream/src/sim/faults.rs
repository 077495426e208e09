//! What goes wrong in a simulated run.
//!
//! Owns: the kinds of faults, and when they strike.
//! Must not know: what processes do.
//! Invariant: after a while nothing goes wrong any more, and then the run must come to its end.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{Event, Proc, SESSION, World, with};

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Its connections are reset.
    Loud,
    /// Its host is gone with it, and says nothing.
    Silent,
}

/// A process dies, and its host starts another after a while.
pub(super) fn kill(world: &mut World, proc: Proc, death: Death) {
    let links = world.links_of(proc);
    let Some(process) = world.processes.remove(&proc) else { return };
    match death {
        Death::Loud => links.into_iter().for_each(|link| world.reset(proc, link)),
        Death::Silent => world.watch(&links),
    }
    // What it holds goes when it notices: its driver may be in the middle of a step.
    world.graves.push((Rc::clone(&process.driver), process.threads));
    let expires = world.now + SESSION;
    world.at(expires, Event::Expired(proc));
    let delay = world.rng.between(50_000, 4_000_000);
    world.after(delay, Event::Start(process.host));
}

/// A fault strikes, and the next one is planned.
pub(super) fn strike() {
    with(|world| {
        if !world.wild {
            return;
        }
        let procs: Vec<Proc> = world.processes.keys().copied().collect();
        if !procs.is_empty() {
            let proc = world.rng.pick(&procs);
            match world.rng.below(100) {
                0..22 => {
                    world.counts.count("kill");
                    kill(world, proc, Death::Loud);
                }
                22..32 => {
                    world.counts.count("host lost");
                    kill(world, proc, Death::Silent);
                }
                32..37 => {
                    world.counts.count("kill all");
                    procs.iter().for_each(|proc| kill(world, *proc, Death::Loud));
                }
                37..62 => pause(world, proc),
                62..72 => {
                    world.counts.count("leave");
                    world.processes[&proc].stop.store(true, Ordering::SeqCst);
                }
                72..77 if world.hosts < 5 => {
                    world.counts.count("join");
                    world.hosts += 1;
                    let host = world.hosts - 1;
                    world.after(0, Event::Start(host));
                }
                77..90 => cut(world, proc),
                _ => {
                    world.counts.count("cut off from the Ensemble");
                    let until = spell(world);
                    let host = world.processes[&proc].host;
                    world.cut_off.insert(host, until);
                }
            }
        }
        let delay = world.rng.pick(&[50_000, 400_000, 2_000_000, 5_000_000]);
        let delay = world.rng.between(delay / 2, delay);
        world.after(delay, Event::Fault);
    });
}

/// Until when a fault lasts: some are over before anyone notices, some are not.
fn spell(world: &mut World) -> Duration {
    let longest = world.rng.pick(&[300, 3_000, 12_000]);
    world.now + Duration::from_millis(world.rng.between(longest / 4, longest))
}

/// A process stands still for a while.
pub(super) fn pause(world: &mut World, proc: Proc) {
    world.counts.count("pause");
    let (now, until) = (world.now, spell(world));
    let links = world.links_of(proc);
    world.watch(&links);
    if let Some(process) = world.processes.get_mut(&proc) {
        (process.paused_since, process.paused) = (now, process.paused.max(until));
    }
}

/// A host does not reach the others, or one of them, or only one way.
fn cut(world: &mut World, proc: Proc) {
    world.counts.count("cut off from workers");
    let until = spell(world);
    let host = world.processes[&proc].host;
    let one_way = world.rng.below(3) == 0;
    let others: Vec<usize> =
        world.processes.values().map(|other| other.host).filter(|other| *other != host).collect();
    let only = (world.rng.below(2) == 0 && !others.is_empty()).then(|| world.rng.pick(&others));
    for other in others.into_iter().filter(|other| only.is_none_or(|only| only == *other)) {
        world.cut.insert((host, other), until);
        if !one_way {
            world.cut.insert((other, host), until);
        }
    }
    let links = world.links_of(proc);
    world.watch(&links);
}
