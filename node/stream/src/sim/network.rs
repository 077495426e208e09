//! Connections between simulated processes.
//!
//! Owns: what is on its way, in order, control apart from data; when a link is lost.
//! Must not know: what travels.
//! Invariant: what is sent arrives whole and in order or the link is lost, as `exchange::link` has it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::world::{Event, Op, Proc, SILENCE, World, elapse, op, with};
use crate::control::Moment;
use crate::coordination::Member;
use crate::driver::{Connection, Greeted, Judge, News, Port};
use crate::exchange::link::{DATA_HEAD, Handler, Hello, Wire};
use crate::meter::Traffic;

pub(super) type LinkId = u32;

/// One of the two ends of a link: the one that dialled is the first.
pub(super) type Side = usize;

/// What travels.
enum Frame {
    Data(Vec<u8>),
    Credit(u32, usize, usize),
    Control(Vec<u8>),
    /// Nothing more comes.
    End,
}

/// What is on its way to one side.
#[derive(Default)]
struct Way {
    first: VecDeque<Frame>,
    data: VecDeque<Frame>,
}

/// A link.
pub(super) struct Pipe {
    pub(super) ends: [(Proc, usize); 2],
    ports: [Arc<Port>; 2],
    ways: [Way; 2],
    closed: [bool; 2],
}

/// An end of a link.
pub(super) struct SimWire {
    link: LinkId,
    side: Side,
    proc: Proc,
}

impl fmt::Debug for SimWire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "link {} of process {}", self.link, self.proc)
    }
}

impl SimWire {
    fn send(&self, frame: Frame) {
        with(|world| {
            if world.live(self.proc).is_none() {
                return;
            }
            let delay = world.rng.between(20, 3_000);
            let Some(pipe) = world.links.get_mut(&self.link) else { return };
            if pipe.closed[self.side] {
                return;
            }
            let to = 1 - self.side;
            match frame {
                Frame::Data(_) | Frame::End => pipe.ways[to].data.push_back(frame),
                Frame::Credit(..) | Frame::Control(_) => pipe.ways[to].first.push_back(frame),
            }
            world.after(delay, Event::Deliver(self.link, to));
        });
    }
}

impl Wire for SimWire {
    fn send_data(&self, frame: Vec<u8>) {
        self.send(Frame::Data(frame));
    }
    fn send_credit(&self, channel: u32, bytes: usize, rounds: usize) {
        self.send(Frame::Credit(channel, bytes, rounds));
    }
    fn send_control(&self, message: &[u8]) {
        self.send(Frame::Control(message.to_vec()));
    }
    fn traffic(&self) -> Arc<Traffic> {
        Arc::default()
    }
    fn close(&self) {
        self.send(Frame::End);
        with(|world| {
            if let Some(pipe) = world.links.get_mut(&self.link) {
                pipe.closed[self.side] = true;
            }
        });
    }
}

/// Another process that answers.
pub(super) struct Reached {
    proc: Proc,
    hello: Hello,
    other: Proc,
    there: usize,
}

/// Calls other processes. What those that are not reached take of its time they take together.
pub(super) fn greet(proc: Proc, calls: &[(Hello, Member)]) -> Vec<Result<Box<dyn Greeted>, String>> {
    let mut silent = false;
    let mut reach = |(hello, to): &(Hello, Member)| -> Result<Box<dyn Greeted>, String> {
        let found = op(proc, Op::Network, || {
            with(|world| {
                let from = world.live(proc)?.host;
                let mut others =
                    world.processes.iter().filter(|(_, other)| other.member.address == to.address);
                let (other, there) = others.next().map(|(other, process)| (*other, process.host))?;
                let reached =
                    world.reaches(from, there) && world.reaches(there, from) && !world.is_paused(other);
                Some((other, there, reached))
            })
        });
        match found.ok_or("killed")? {
            None => Err("connection refused".to_owned()),
            Some((_, _, false)) => {
                silent = true;
                Err("timed out".to_owned())
            }
            Some((other, there, true)) => Ok(Box::new(Reached { proc, hello: hello.clone(), other, there })),
        }
    };
    let greeted = calls.iter().map(&mut reach).collect();
    if silent {
        elapse(proc, std::time::Duration::from_secs(2));
    }
    greeted
}

impl Greeted for Reached {
    fn open(self: Box<Self>, port: &Arc<Port>) -> Result<Arc<dyn Wire>, String> {
        let Self { proc, hello, other, there } = *self;
        connect(proc, &hello, other, there, port)
    }
}

/// Connects a process to another, if that one lets it in.
fn connect(
    proc: Proc,
    hello: &Hello,
    other: Proc,
    there: usize,
    port: &Arc<Port>,
) -> Result<Arc<dyn Wire>, String> {
    with(|world| {
        let gone = "it closed the connection";
        let process = world.live(other).ok_or(gone)?;
        let judge = Judge {
            id: process.member.id.clone(),
            run: hello.run.clone(),
            generation: Arc::clone(&process.generation),
        };
        judge.judge(hello)?;
        let theirs = Port::new(hello.generation, hello.from, process.sender.clone());
        let sender = process.sender.clone();
        let host = world.live(proc).ok_or("killed")?.host;
        world.linked += 1;
        let link = world.linked;
        let pipe = Pipe {
            ends: [(proc, host), (other, there)],
            ports: [Arc::clone(port), Arc::clone(&theirs)],
            ways: Default::default(),
            closed: [false; 2],
        };
        world.links.insert(link, pipe);
        let wire = Arc::new(SimWire { link, side: 1, proc: other });
        let _ = sender.send(News::Connected(hello.generation, hello.from, Connection { wire, port: theirs }));
        Ok(Arc::new(SimWire { link, side: 0, proc }) as Arc<dyn Wire>)
    })
}

/// The next of what is on its way to one side of a link arrives.
pub(super) fn deliver(link: LinkId, to: Side) {
    let arrived = with(|world| {
        let pipe = world.links.get(&link)?;
        let ((_, there), (proc, host)) = (pipe.ends[1 - to], pipe.ends[to]);
        let paused = world.processes.get(&proc).map(|process| process.paused);
        let later = match (paused, world.cut.get(&(there, host))) {
            (_, Some(until)) if *until > world.now => Some(*until),
            (Some(paused), _) if paused > world.now => Some(paused),
            _ => None,
        };
        if let Some(later) = later {
            world.at(later, Event::Deliver(link, to));
            return None;
        }
        let control = world.rng.below(10) > 0;
        let pipe = world.links.get_mut(&link)?;
        let Way { first, data } = &mut pipe.ways[to];
        let frame = if control || data.is_empty() {
            first.pop_front().or_else(|| data.pop_front())
        } else {
            data.pop_front()
        };
        Some((frame?, Arc::clone(&pipe.ports[to]), proc, pipe.closed[to]))
    });
    let Some((frame, port, proc, closed)) = arrived else { return };
    if closed {
        return;
    }
    let whole = match frame {
        Frame::Data(frame) => {
            // As it is read from a socket: without the header.
            let body = frame[9..].to_vec();
            let channel = u32::from_le_bytes(body[..DATA_HEAD].try_into().expect("four bytes"));
            port.data(channel, body)
        }
        Frame::Credit(channel, bytes, rounds) => port.credit(channel, bytes, rounds),
        Frame::Control(bytes) => {
            port.control(&bytes);
            true
        }
        Frame::End => {
            with(|world| world.links.remove(&link));
            port.lost("it closed the connection");
            true
        }
    };
    if !whole {
        lose(link, "a frame that nobody waits for");
    }
    with(|world| world.wake(proc));
}

/// Both sides of a link lose it.
pub(super) fn lose(link: LinkId, why: &str) {
    if let Some(pipe) = with(|world| world.links.remove(&link)) {
        pipe.ports.iter().for_each(|port| port.lost(why));
    }
}

/// A link over which one side has heard nothing for too long is lost.
pub(super) fn silence(link: LinkId, since: Moment) {
    let lost = with(|world| {
        let pipe = world.links.get(&link)?;
        let [(one, host), (other, there)] = pipe.ends;
        let now = world.now;
        let silent = |world: &World, proc: Proc| {
            world
                .processes
                .get(&proc)
                .is_none_or(|process| process.paused > now && process.paused_since <= since)
        };
        let cut = !world.reaches(host, there) || !world.reaches(there, host);
        (cut || silent(world, one) || silent(world, other)).then_some(())
    });
    if lost.is_some() {
        with(|world| world.counts.count("link silent"));
        lose(link, "it was silent for 5s");
    }
}

impl World {
    /// The links of a process.
    pub(super) fn links_of(&self, proc: Proc) -> Vec<LinkId> {
        let of = |pipe: &Pipe| pipe.ends.iter().any(|(end, _)| *end == proc);
        self.links.iter().filter(|(_, pipe)| of(pipe)).map(|(link, _)| *link).collect()
    }

    /// Looks after a while whether links are still silent.
    pub(super) fn watch(&mut self, links: &[LinkId]) {
        let (now, then) = (self.now, self.now + SILENCE);
        for link in links {
            self.at(then, Event::Silence(*link, now));
        }
    }

    /// What a dead process has sent and did not arrive may be lost, and the other side learns that it is
    /// gone.
    pub(super) fn reset(&mut self, proc: Proc, link: LinkId) {
        let delay = self.rng.between(20, 5_000);
        let all = self.rng.below(2) == 0;
        let Some(pipe) = self.links.get_mut(&link) else { return };
        let to = usize::from(pipe.ends[0].0 == proc);
        if !all {
            pipe.ways[to] = Way::default();
        }
        pipe.ways[to].data.push_back(Frame::End);
        pipe.closed[1 - to] = true;
        // One for each that may still be there, for deliveries are counted.
        self.after(delay, Event::Deliver(link, to));
    }
}
