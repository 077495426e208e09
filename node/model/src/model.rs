//! The model: where it begins, what can happen in a state.
//!
//! Owns the actions. Invariant: whatever the bounds leave room for can happen in every state in which the
//! shipped core and its surroundings let it happen.

use crate::bounds::{Bounds, Heartbeats, Start};
use crate::broken::Broken;
use crate::member::{Nudge, id, place};
use crate::net::Envelope;
use crate::properties::properties;
use crate::shared::Shared;
use crate::world::World;
use pharos_paxos::{MemberId, Role};
use stateright::{Model, Property};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A configuration as stateright takes it.
#[derive(Clone, Copy, Debug)]
pub struct PaxosModel {
    /// How large it is.
    pub bounds: Bounds,
}

/// What can happen. Members are named by their place, which is one below their id.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A message arrives.
    Deliver(Shared<Envelope>),
    /// A message arrives, and will or may arrive again.
    Repeat(Shared<Envelope>),
    /// The oldest write of a member becomes durable, and it is told.
    Durable(usize),
    /// A member dies and starts again; so many of its writes under way have become durable.
    Crash(usize, usize),
    /// A follower's election timeout ends; a candidate gives up, a leader steps down.
    Timeout(usize),
    /// A leader beats its heart and a candidate asks again.
    Beat(usize),
    /// A leader is given the next value.
    Propose(usize),
    /// A member that knows a leader is asked for a read index.
    Read(usize),
    /// A leader is told to hand over.
    Transfer(usize, usize),
    /// A leader is asked for other voters: which of those that are wanted.
    Reconfigure(usize, usize),
    /// A member flushes its store and trims its log.
    Trim(usize),
    /// The store of a member has flushed a state that came.
    Install(usize),
}

impl Model for PaxosModel {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        actions.extend(world.net.iter().cloned().map(Action::Deliver));
        if world.left.repeats > 0 {
            actions.extend(world.net.iter().cloned().map(Action::Repeat));
        }
        for (place, member) in world.members.iter().enumerate() {
            let pending = member.disk.pending.len();
            if pending > 0 {
                actions.push(Action::Durable(place));
            }
            if world.left.crashes > 0 {
                actions.extend((0..=pending).map(|survive| Action::Crash(place, survive)));
            }
            if member.arriving.as_ref().is_some_and(|arriving| arriving.given) {
                actions.push(Action::Install(place));
            }
            if world.left.trims > 0 && member.trims() {
                actions.push(Action::Trim(place));
            }
            self.nudges(world, place, actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        let result = catch_unwind(AssertUnwindSafe(|| self.act(&mut next, &action)));
        next.broken = match result {
            Ok(Ok(())) => None,
            Ok(Err(broken)) => Some(Arc::new(broken)),
            Err(panic) => Some(Arc::new(Broken::Panic(message(panic.as_ref())))),
        };
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

impl PaxosModel {
    fn nudges(&self, world: &World, place: usize, actions: &mut Vec<Action>) {
        let (member, left) = (&world.members[place], &world.left);
        let follows = matches!(member.core.role(), Role::Follower { .. });
        let stand = self.bounds.stand;
        let may = stand.is_empty() || stand.contains(&id(place).0);
        if left.timeouts > 0 && may && (follows || self.bounds.steps_down) {
            actions.push(Action::Timeout(place));
        }
        if left.beats > 0 && member.takes(Nudge::Beat) {
            actions.push(Action::Beat(place));
        }
        if left.values > 0 && member.takes(Nudge::Propose(0)) {
            actions.push(Action::Propose(place));
        }
        if left.reads > 0 && member.takes(Nudge::Read(0)) {
            actions.push(Action::Read(place));
        }
        if left.transfers > 0 && member.takes(Nudge::Transfer(MemberId(0))) {
            let others = (0..world.members.len()).filter(|other| *other != place);
            actions.extend(others.map(|other| Action::Transfer(place, other)));
        }
        if left.reconfigures > 0 && member.takes(Nudge::Transfer(MemberId(0))) {
            actions.extend((0..self.bounds.wanted.len()).map(|which| Action::Reconfigure(place, which)));
        }
    }

    fn act(&self, world: &mut World, action: &Action) -> Result<(), Broken> {
        let bounds = &self.bounds;
        match *action {
            Action::Deliver(ref envelope) => world.step(bounds, envelope.to, |s| s.deliver(envelope)),
            Action::Repeat(ref envelope) => {
                world.left.repeats -= 1;
                world.step(bounds, envelope.to, |s| s.repeat(envelope))
            }
            Action::Durable(place) => world.step(bounds, place, |s| s.complete()),
            Action::Install(place) => world.step(bounds, place, |s| s.install()),
            Action::Crash(place, survive) => {
                world.left.crashes -= 1;
                world.step(bounds, place, |s| s.crash(survive))
            }
            Action::Timeout(place) => {
                let stands = matches!(world.members[place].core.role(), Role::Follower { .. });
                world.left.timeouts -= u8::from(stands);
                world.step(bounds, place, |s| s.nudge(Nudge::Timeout))
            }
            Action::Beat(place) => {
                world.left.beats -= 1;
                world.step(bounds, place, |s| s.nudge(Nudge::Beat))
            }
            Action::Propose(place) => {
                world.left.values -= 1;
                let value = world.left.values;
                world.step(bounds, place, |s| s.nudge(Nudge::Propose(value)))
            }
            Action::Read(place) => {
                world.left.reads -= 1;
                world.step(bounds, place, |s| s.read())
            }
            Action::Transfer(place, to) => {
                world.left.transfers -= 1;
                world.step(bounds, place, |s| s.nudge(Nudge::Transfer(id(to))))
            }
            Action::Reconfigure(place, which) => {
                let mut taken = false;
                world.step(bounds, place, |s| {
                    taken = s.reconfigure(bounds.wanted[which])?;
                    Ok(())
                })?;
                world.left.reconfigures -= u8::from(taken);
                Ok(())
            }
            Action::Trim(place) => {
                world.left.trims -= 1;
                world.step(bounds, place, |s| s.trim())
            }
        }
    }

    fn begin(&self) -> World {
        let mut world = World::founded(&self.bounds);
        if let Start::Led { heard, values } = self.bounds.start {
            let left = world.left;
            world = self.led(world, heard, values);
            world.left = left;
        }
        world
    }

    /// Member 1 is made leader, and the values are proposed one by one.
    fn led(&self, mut world: World, heard: &[u32], values: u8) -> World {
        let heartbeats = Heartbeats::All;
        let plain = Self { bounds: Bounds { crashes: 0, trims: 0, repeats: 0, heartbeats, ..self.bounds } };
        world.left.repeats = 0;
        world.left.timeouts = 1;
        let mut inputs = vec![Action::Timeout(0)];
        // Who joins is heard by its answer to a heartbeat, asked for a promise, sent a state, and asked again.
        inputs.extend((0..2 * self.bounds.joiners).map(|_| Action::Beat(0)));
        inputs.extend((0..values).map(|_| Action::Propose(0)));
        for input in inputs {
            world.left.beats = 1;
            world.left.values = b'z' - b'a'; // Counted down, and no name of a value proposed later.
            world = plain.next_state(&world, input).unwrap_or(world);
            world = plain.settle(world, heard);
        }
        world
    }

    /// Everything on the way between those members, and on their disks, arrives; all else is lost.
    fn settle(&self, mut world: World, heard: &[u32]) -> World {
        let of = |member: usize| heard.iter().any(|h| place(MemberId(*h)) == member);
        let goes_on = |action: &Action| match action {
            Action::Deliver(envelope) => of(envelope.from) && of(envelope.to),
            Action::Durable(_) | Action::Install(_) => true,
            _ => false,
        };
        loop {
            let mut actions = Vec::new();
            self.actions(&world, &mut actions);
            let Some(action) = actions.into_iter().find(goes_on) else { break };
            world = self.next_state(&world, action).unwrap_or(world);
        }
        world.lose_all();
        world
    }
}
