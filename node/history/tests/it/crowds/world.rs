//! The ensemble: one log, carried out by the product's own state machine, and the connections that feed it.
//!
//! Owns what is executed when, and what is lost at a change of leaders. Must not know what clients make of their
//! answers. Invariant: of each connection a prefix of its requests is executed, in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pharos_history::{Body, ErrorCode, EventKind, Rearm, Request, View, WatchEvent, Write};
use pharos_znode::{Acl, Applied, Command, CreateMode, Op, Reply, SessionId, State};

use crate::rng::Rng;

/// How long an answer is on its way at most.
const LATENCY: u64 = 400;
/// How much later than it might the leader gives a session up.
const PATIENCE: u64 = 100_000;

/// Something on its way to a client.
pub(super) enum Message {
    /// The answer to the operation with this index, with its zxid.
    Reply(usize, i64, Result<Body, ErrorCode>),
    /// A watch event.
    Event(WatchEvent),
}

/// Names a connection.
pub(super) type LinkId = usize;

const DATA: usize = 0;
const CHILD: usize = 1;
const PERSISTENT: usize = 2;
const RECURSIVE: usize = 3;

/// A connection, or what is left of one that its client has lost.
struct Link {
    session: i64,
    attach: u32,
    is_open: bool,
    queue: VecDeque<(usize, Request)>,
    outbox: VecDeque<(u64, Message)>,
    watches: [BTreeSet<String>; 4],
}

pub(super) struct World {
    rng: Rng,
    pub(super) now: u64,
    state: State,
    out: Applied,
    links: BTreeMap<LinkId, Link>,
    opened: usize,
    sessions: i64,
    deadlines: BTreeMap<i64, u64>,
}

impl World {
    pub(super) fn new(rng: Rng) -> Self {
        let mut state = State::new();
        state.epoch_start();
        Self {
            rng,
            now: 1_000_000,
            state,
            out: Applied::new(),
            links: BTreeMap::new(),
            opened: 0,
            sessions: 0x100,
            deadlines: BTreeMap::new(),
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
        self.apply(&command(session, 0, op));
        let Ok(Reply::Session { attach, .. }) = self.out.result else { return None };
        self.opened += 1;
        let link = Link {
            session,
            attach,
            is_open: true,
            queue: VecDeque::new(),
            outbox: VecDeque::new(),
            watches: Default::default(),
        };
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
        own.outbox.pop_front_if(|(at, _)| *at <= self.now).map(|(_, message)| message)
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
        let open: Vec<LinkId> = self.links.iter().filter(|(_, own)| own.is_open).map(|(id, _)| *id).collect();
        if !open.is_empty() {
            let link = self.rng.pick(&open);
            self.cut(link);
        }
    }

    pub(super) fn session_count(&self) -> usize {
        self.state.sessions().len()
    }

    /// Ends the sessions whose time is over.
    pub(super) fn expire(&mut self) {
        let due: Vec<i64> =
            self.deadlines.iter().filter(|(_, at)| **at + PATIENCE < self.now).map(|(id, _)| *id).collect();
        for session in due {
            self.deadlines.remove(&session);
            let id = SessionId(session);
            if let Some(attach) = self.state.session(id).map(|own| own.attach) {
                self.apply(&command(0, 0, Op::Expire { session: id, attach }));
            }
        }
    }

    /// Executes a write of some connection, or reads up to its next write.
    pub(super) fn step(&mut self) {
        self.links.retain(|_, own| own.is_open || !own.queue.is_empty() || !own.outbox.is_empty());
        let Some(link) = self.some_busy() else { return };
        while let Some((operation, request)) = self.links.get_mut(&link).and_then(|own| own.queue.pop_front())
        {
            let is_write = is_write(&request);
            self.execute(link, operation, &request);
            let next = self.links.get(&link).and_then(|own| own.queue.front());
            if is_write || next.is_none_or(|(_, request)| self::is_write(request)) {
                return;
            }
        }
    }

    /// The leader is lost, and with it every connection. Some of what it had been given is chosen nevertheless.
    pub(super) fn change_leader(&mut self) {
        for command in self.tail() {
            self.now += self.rng.below(100);
            self.apply(&command);
        }
        self.links.clear();
    }

    /// The next leader begins. It gives every session a whole timeout.
    pub(super) fn begin_epoch(&mut self) {
        self.state.epoch_start();
        let sessions: Vec<i64> = self.state.sessions().map(|(id, _)| id.0).collect();
        sessions.into_iter().for_each(|session| self.touch(session));
    }

    fn tail(&mut self) -> Vec<Command> {
        let waiting: usize = self.links.values().map(|own| own.queue.len()).sum();
        let mut tail = Vec::new();
        for _ in 0..self.rng.below(waiting as u64 + 1) {
            let Some(link) = self.some_busy() else { break };
            let own = self.links.get_mut(&link).expect("it was found among them");
            if let Some((_, request)) = own.queue.pop_front()
                && is_write(&request)
            {
                tail.push(command(own.session, own.attach, op(&request)));
            }
        }
        tail
    }

    fn some_busy(&mut self) -> Option<LinkId> {
        let busy: Vec<LinkId> =
            self.links.iter().filter(|(_, own)| !own.queue.is_empty()).map(|(id, _)| *id).collect();
        (!busy.is_empty()).then(|| self.rng.pick(&busy))
    }

    fn touch(&mut self, session: i64) {
        if let Some(own) = self.state.session(SessionId(session)) {
            self.deadlines.insert(session, self.now + own.timeout_ms as u64 * 1000);
        }
    }

    fn execute(&mut self, link: LinkId, operation: usize, request: &Request) {
        let own = &self.links[&link];
        if is_write(request) {
            let command = command(own.session, own.attach, op(request));
            let is_open = own.is_open;
            self.apply(&command);
            if is_open {
                let result =
                    self.out.result.as_ref().map(|reply| body(&self.out, reply)).map_err(|code| *code);
                self.send(link, Message::Reply(operation, self.out.zxid.0, result));
            }
        } else if own.is_open {
            let result = self.read(link, request);
            self.send(link, Message::Reply(operation, self.state.zxid().0, result));
        }
    }

    /// Executes a command; whoever watches hears of it.
    fn apply(&mut self, command: &Command) {
        let time_ms = 1_700_000_000_000 + (self.now / 1000) as i64;
        self.state.apply(command, time_ms, &mut self.out);
        let zxid = self.out.zxid.0;
        let events: Vec<WatchEvent> = self
            .out
            .tree_events()
            .map(|event| WatchEvent { zxid, kind: event.kind, path: event.path.to_owned() })
            .collect();
        for event in events {
            let fired = |own: &mut Link| own.is_open && own.is_set_off(event.kind, &event.path);
            let told: Vec<LinkId> =
                self.links.iter_mut().filter_map(|(id, own)| fired(own).then_some(*id)).collect();
            told.into_iter().for_each(|link| self.send(link, Message::Event(event.clone())));
        }
        for own in self.links.values_mut() {
            own.is_open &= self.state.session(SessionId(own.session)).is_some();
        }
    }

    fn send(&mut self, link: LinkId, message: Message) {
        let at = self.now + self.rng.below(LATENCY);
        let Some(own) = self.links.get_mut(&link) else { return };
        let at = own.outbox.back().map_or(at, |(before, _)| at.max(*before));
        own.outbox.push_back((at, message));
    }

    fn read(&mut self, link: LinkId, request: &Request) -> Result<Body, ErrorCode> {
        match request {
            Request::Read { view, path, watch } => {
                let result = view_of(&self.state, *view, path);
                let waits_for_it = *view == View::Stat && result == Err(ErrorCode::NO_NODE);
                if *watch && (result.is_ok() || waits_for_it) {
                    let kind = if *view == View::Children { CHILD } else { DATA };
                    self.watch(link, kind, path);
                }
                return result;
            }
            Request::AddWatch { path, recursive } => {
                self.watch(link, if *recursive { RECURSIVE } else { PERSISTENT }, path);
            }
            Request::SetWatches(lists) => self.rearm(link, lists),
            _ => {}
        }
        Ok(Body::Empty)
    }

    fn watch(&mut self, link: LinkId, kind: usize, path: &str) {
        if let Some(own) = self.links.get_mut(&link) {
            own.watches[kind].insert(path.to_owned());
        }
    }

    fn rearm(&mut self, link: LinkId, lists: &Rearm) {
        for (kind, paths) in [(DATA, &lists.data), (CHILD, &lists.child)] {
            // `exist` lies between the two.
            if kind == CHILD {
                for path in &lists.exist {
                    match self.state.stat(path) {
                        Some(_) => self.catch_up(link, EventKind::NodeCreated, path),
                        None => self.watch(link, DATA, path),
                    }
                }
            }
            for path in paths {
                match (self.state.stat(path), kind) {
                    (None, _) => self.catch_up(link, EventKind::NodeDeleted, path),
                    (Some(stat), DATA) if stat.mzxid > lists.since => {
                        self.catch_up(link, EventKind::NodeDataChanged, path);
                    }
                    (Some(stat), CHILD) if stat.pzxid > lists.since => {
                        self.catch_up(link, EventKind::NodeChildrenChanged, path);
                    }
                    _ => self.watch(link, kind, path),
                }
            }
        }
        lists.persistent.iter().for_each(|path| self.watch(link, PERSISTENT, path));
        lists.recursive.iter().for_each(|path| self.watch(link, RECURSIVE, path));
    }

    fn catch_up(&mut self, link: LinkId, kind: EventKind, path: &str) {
        self.send(link, Message::Event(WatchEvent { zxid: -1, kind, path: path.to_owned() }));
    }
}

impl Link {
    /// Whether it is told; one-shot watches are used up.
    fn is_set_off(&mut self, by: EventKind, path: &str) -> bool {
        let [data, child, persistent, recursive] = &mut self.watches;
        let mut told = persistent.contains(path);
        if by == EventKind::NodeChildrenChanged {
            return told | child.remove(path);
        }
        told |= data.remove(path);
        told |= by == EventKind::NodeDeleted && child.remove(path);
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            told |= recursive.contains(above);
            above = parent;
        }
        told
    }
}

pub(super) fn is_write(request: &Request) -> bool {
    matches!(request, Request::Write(_) | Request::Multi(_) | Request::Close)
}

fn command(session: i64, attach: u32, op: Op) -> Command {
    let session = SessionId(session);
    Command { origin: 1, boot: 1, request: 0, session, attach, cxid: 0, auth: Vec::new(), zxid: None, op }
}

fn op(request: &Request) -> Op {
    match request {
        Request::Write(write) => op_of(write),
        Request::Multi(writes) => Op::Multi(writes.iter().map(op_of).collect()),
        _ => Op::CloseSession,
    }
}

fn op_of(write: &Write) -> Op {
    let path = write.path().to_owned();
    match write {
        Write::Create { data, ephemeral, sequential, .. } => Op::Create {
            path,
            data: Some(data.clone().into()),
            acl: vec![Acl::open()],
            mode: CreateMode::from_i32(i32::from(*ephemeral) + 2 * i32::from(*sequential)).unwrap(),
            ttl: -1,
            with_stat: true,
        },
        Write::Delete { version, .. } => Op::Delete { path, version: *version },
        Write::SetData { data, version, .. } => {
            Op::SetData { path, data: Some(data.clone().into()), version: *version }
        }
        Write::Check { version, .. } => Op::Check { path, version: *version },
    }
}

fn body(out: &Applied, reply: &Reply) -> Body {
    match reply {
        Reply::Created { path, stat, .. } => Body::Created(out.path(*path).to_owned(), *stat),
        Reply::Stat(stat) => Body::Stat(*stat),
        Reply::Multi(results) => {
            let each = results
                .iter()
                .map(|result| result.as_ref().map(|reply| body(out, reply)).map_err(|code| *code));
            Body::Multi(each.collect())
        }
        Reply::Done | Reply::Checked | Reply::Session { .. } => Body::Empty,
    }
}

fn view_of(state: &State, view: View, path: &str) -> Result<Body, ErrorCode> {
    Ok(match view {
        View::Stat => Body::Stat(state.exists(path, &[])?),
        View::Data => {
            let node = state.get_data(path, &[])?;
            Body::Data(node.data.unwrap_or_default().to_vec(), node.stat)
        }
        View::Children => {
            let children = state.children(path, &[])?;
            let mut names: Vec<String> = children.names.map(str::to_owned).collect();
            names.sort_unstable();
            Body::Children(names, children.stat)
        }
    })
}
