//! The ensemble: one log, and the connections that feed it.
//!
//! Owns what is executed when, and what is lost at a change of leaders. Must not know what clients make of their
//! answers. Invariant: of each connection a prefix of its requests is executed, in their order, unless a flaw is planned.

use std::collections::{BTreeMap, BTreeSet};

use pharos_history::Request;
use pharos_znode::{Command, Op, SessionId};

use super::flaw::{Plan, Tail};
use super::link::{Link, Message};
use super::log::{Asked, Log, command, op};
use pharos_crowd::Rng;

/// The most requests that are carried out and not heard of when a leader is lost. About twice as many writes without an
/// answer leave traces then as in a run of `./x chaos`: 36 against 18.
const LONGEST_TAIL: usize = 8;
/// How long an answer is on its way at most.
const LATENCY: u64 = 400;
/// How much later than it might the leader gives a session up.
const PATIENCE: u64 = 100_000;

/// Names a connection.
pub(super) type LinkId = usize;

pub(super) struct World {
    rng: Rng,
    pub(super) now: u64,
    log: Log,
    links: BTreeMap<LinkId, Link>,
    opened: usize,
    sessions: i64,
    deadlines: BTreeMap<i64, u64>,
    /// Operations whose answers have arrived.
    told: BTreeSet<Asked>,
    /// A flaw that is still to come.
    pub(super) plan: Option<Plan>,
}

impl World {
    pub(super) fn new(rng: Rng) -> Self {
        let (links, deadlines, told) = Default::default();
        Self {
            rng,
            now: 1_000_000,
            log: Log::new(),
            links,
            opened: 0,
            sessions: 0x100,
            deadlines,
            told,
            plan: None,
        }
    }

    /// Opens a session, or resumes one; nothing if that has ended.
    pub(super) fn connect(&mut self, resumes: Option<i64>, timeout_ms: i32) -> Option<(LinkId, i64)> {
        self.sessions += i64::from(resumes.is_none());
        let session = resumes.unwrap_or(self.sessions);
        let op = match resumes {
            None => Op::CreateSession { timeout_ms },
            Some(_) => Op::AttachSession { timeout_ms },
        };
        self.execute(None, command(session, 0, op));
        let link = Link::new(session, self.log.attached()?);
        self.opened += 1;
        self.links.insert(self.opened, link);
        self.touch(session);
        Some((self.opened, session))
    }

    pub(super) fn submit(&mut self, link: LinkId, operation: usize, request: Request) {
        let Some(own) = self.links.get_mut(&link) else { return };
        own.queue.push_back((operation, request));
        let session = own.session;
        self.touch(session);
    }

    /// What has arrived by now.
    pub(super) fn receive(&mut self, link: LinkId) -> Option<Message> {
        let own = self.links.get_mut(&link)?;
        let (_, message) = own.outbox.pop_front_if(|(at, _)| *at <= self.now)?;
        if let Message::Reply(operation, ..) = &message {
            self.told.insert((link, *operation));
        }
        Some(message)
    }

    pub(super) fn is_lost(&self, link: LinkId) -> bool {
        self.links.get(&link).is_none_or(|own| !own.is_open && own.outbox.is_empty())
    }

    /// A connection breaks. Some of what was sent is on its way into the log.
    pub(super) fn cut(&mut self, link: LinkId) {
        let Some(own) = self.links.get_mut(&link) else { return };
        own.is_open = false;
        own.outbox.clear();
        own.queue.truncate(self.rng.below(own.queue.len() as u64 + 1) as usize);
    }

    /// Some connection breaks.
    pub(super) fn cut_one(&mut self) {
        let open: Vec<LinkId> = self.select(|own| own.is_open);
        if !open.is_empty() {
            let link = self.rng.pick(&open);
            self.cut(link);
        }
    }

    pub(super) fn session_count(&self) -> usize {
        self.log.state.sessions().len()
    }

    /// Ends the sessions whose time is over.
    pub(super) fn expire(&mut self) {
        let due: Vec<i64> =
            self.deadlines.iter().filter(|(_, at)| **at + PATIENCE < self.now).map(|(id, _)| *id).collect();
        for id in due {
            self.deadlines.remove(&id);
            let session = SessionId(id);
            if let Some(attach) = self.log.state.session(session).map(|own| own.attach) {
                self.execute(None, command(0, 0, Op::Expire { session, attach }));
            }
        }
    }

    /// Executes a write of some connection, or reads up to its next write.
    pub(super) fn step(&mut self) {
        self.links.retain(|_, own| own.is_open || !own.queue.is_empty() || !own.outbox.is_empty());
        let Some(link) = self.some_busy() else { return };
        loop {
            let own = self.links.get_mut(&link).expect("it is busy");
            let Some((operation, request)) = own.queue.pop_front() else { return };
            if let Some(op) = op(&request) {
                let command = command(own.session, own.attach, op);
                return self.execute(Some((link, operation)), command);
            }
            let (events, result) = own.read(&request, &self.log.state);
            let ends = own.queue.front().is_none_or(|(_, next)| op(next).is_some());
            events.into_iter().for_each(|event| self.send(link, Message::Event(event)));
            self.send(link, Message::Reply(operation, self.log.state.zxid().0, result));
            if ends {
                return;
            }
        }
    }

    /// The leader is lost, and with it every connection, or every one that waits for an answer. Some of what it had been
    /// given is chosen nevertheless.
    pub(super) fn lose_leader(&mut self) {
        let stays = self.rng.one_in(3);
        let idle = self.select(|own| stays && own.is_open && own.queue.is_empty());
        let mut tail = self.tail();
        self.links.retain(|id, _| idle.contains(id));
        if self.rng.one_in(4) {
            self.open_unheard();
        }
        if let Some(plan) = &mut self.plan
            && plan.happens(&mut self.log, &self.told, &mut tail, &mut self.rng)
        {
            self.plan = None;
        }
        for (asked, command) in tail {
            self.now += self.rng.below(100);
            self.execute(Some(asked), command);
        }
    }

    /// The next leader begins. It gives every session a whole timeout.
    pub(super) fn begin_epoch(&mut self) {
        self.log.begin_epoch();
        let sessions: Vec<i64> = self.log.state.sessions().map(|(id, _)| id.0).collect();
        sessions.into_iter().for_each(|session| self.touch(session));
    }

    /// A session whose client never hears of it.
    fn open_unheard(&mut self) {
        self.sessions += 1;
        self.execute(None, command(self.sessions, 0, Op::CreateSession { timeout_ms: 4_000 }));
    }

    fn tail(&mut self) -> Tail {
        let waiting: usize = self.links.values().map(|own| own.queue.len()).sum();
        let mut tail = Tail::new();
        for _ in 0..self.rng.below(waiting.min(LONGEST_TAIL) as u64 + 1) {
            let Some(link) = self.some_busy() else { break };
            let own = self.links.get_mut(&link).expect("it is busy");
            if let Some((operation, request)) = own.queue.pop_front()
                && let Some(op) = op(&request)
            {
                tail.push(((link, operation), command(own.session, own.attach, op)));
            }
        }
        tail
    }

    fn some_busy(&mut self) -> Option<LinkId> {
        let busy = self.select(|own| !own.queue.is_empty());
        (!busy.is_empty()).then(|| self.rng.pick(&busy))
    }

    fn select(&self, wanted: impl Fn(&Link) -> bool) -> Vec<LinkId> {
        self.links.iter().filter(|(_, own)| wanted(own)).map(|(id, _)| *id).collect()
    }

    fn touch(&mut self, session: i64) {
        if let Some(own) = self.log.state.session(SessionId(session)) {
            self.deadlines.insert(session, self.now + own.timeout_ms as u64 * 1000);
        }
    }

    /// Executes a command: first whoever watches hears of it, then who asked for it, and last it ends connections.
    fn execute(&mut self, asked: Option<Asked>, command: Command) {
        let (zxid, result) = self.log.execute(asked, command, self.now);
        for event in self.log.events() {
            let links = self.links.iter_mut();
            let told = links.filter_map(|(id, own)| own.is_set_off(event.kind, &event.path).then_some(*id));
            let told: Vec<LinkId> = told.collect();
            told.into_iter().for_each(|link| self.send(link, Message::Event(event.clone())));
        }
        if let Some((link, operation)) = asked {
            self.send(link, Message::Reply(operation, zxid, result));
        }
        for own in self.links.values_mut() {
            own.is_open &= self.log.state.session(SessionId(own.session)).is_some();
        }
    }

    fn send(&mut self, link: LinkId, message: Message) {
        let at = self.now + self.rng.below(LATENCY);
        if let Some(own) = self.links.get_mut(&link) {
            own.send(at, message);
        }
    }
}
