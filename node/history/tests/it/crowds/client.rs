//! Clients: what `./x chaos` does in its threads, one step at a time, and the record of it.

use std::collections::BTreeSet;

use pharos_history::{
    Answer, Body, Connection, EventKind, Incoming, Micros, Operation, Outcome, Request, Session, View,
    WatchEvent,
};

use super::link::Message;
use super::world::{LinkId, World};
use pharos_crowd::Rng;
use pharos_crowd::{ROOT, Watching, Workload, effects, look};

const TIMEOUTS_MS: [i32; 3] = [4_000, 6_000, 10_000];
const OBSERVER_TIMEOUT_MS: i32 = 10_000;
/// The longest pause of a worker between two batches.
const PAUSE: u64 = 600;
/// How long an observer waits before it looks again.
const OBSERVER_PAUSE: u64 = 2_000;

enum Role {
    /// Writes and reads at random. With what shows what became of lost requests.
    Worker(Box<Workload>, Vec<Request>),
    /// Watches everything, and reads what has changed.
    Observer,
    /// Asks this and no more.
    Script(Vec<Request>),
    /// Looks at everything once.
    Witness,
}

/// What is done once everything that was asked is answered.
enum Stage {
    Offline,
    /// Connected, and the watches of the connection before are set again.
    Greeted,
    /// To look at these.
    Look(Vec<String>),
    /// These were looked at.
    Looked(Vec<String>),
    Work,
    /// The last request was a close.
    Closing,
    Gone,
}

pub(super) struct Client {
    role: Role,
    rng: Rng,
    timeout_ms: i32,
    pub(super) record: Vec<Session>,
    link: Option<LinkId>,
    resumes: Option<i64>,
    watching: Watching,
    stage: Stage,
    until: u64,
    /// The first operation of the last batch.
    batch: usize,
    waiting: usize,
    heard: usize,
    /// To end at the next occasion.
    pub(super) stops: bool,
}

impl Client {
    fn new(role: Role, rng: Rng) -> Self {
        Self {
            role,
            rng,
            timeout_ms: OBSERVER_TIMEOUT_MS,
            record: Vec::new(),
            link: None,
            resumes: None,
            watching: Watching::default(),
            stage: Stage::Offline,
            until: 0,
            batch: 0,
            waiting: 0,
            heard: 0,
            stops: false,
        }
    }

    pub(super) fn worker(number: usize, mut rng: Rng) -> Self {
        let load = Workload::new(number, Rng::new(rng.below(u64::MAX)));
        let timeout_ms = rng.pick(&TIMEOUTS_MS);
        Self { timeout_ms, ..Self::new(Role::Worker(Box::new(load), Vec::new()), rng) }
    }

    pub(super) fn observer(rng: Rng) -> Self {
        Self::new(Role::Observer, rng)
    }

    pub(super) fn script(requests: Vec<Request>) -> Self {
        Self::new(Role::Script(requests), Rng::new(0))
    }

    pub(super) fn witness() -> Self {
        Self::new(Role::Witness, Rng::new(0))
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Gone)
    }

    /// Takes what has come, and does the next thing if it is time.
    pub(super) fn poll(&mut self, world: &mut World) {
        let Some(link) = self.link else {
            if !self.is_gone() && world.now >= self.until {
                self.connect(world);
            }
            return;
        };
        while let Some(message) = world.receive(link) {
            self.take(message, world.now);
        }
        if world.is_lost(link) {
            self.lost(world.now);
        } else if self.waiting == 0 && world.now >= self.until {
            self.act(link, world);
        }
    }

    fn connect(&mut self, world: &mut World) {
        if self.stops && !matches!(self.role, Role::Observer) {
            self.stage = Stage::Gone;
            return;
        }
        let now = Micros(world.now);
        let is_new = self.resumes.is_none();
        let Some((link, session)) = world.connect(self.resumes, self.timeout_ms) else {
            self.record.last_mut().expect("it was opened").told_expired = Some(now);
            return self.forget();
        };
        if is_new {
            let timeout = Micros(self.timeout_ms as u64 * 1000);
            let (connections, told_expired) = (Vec::new(), None);
            self.record.push(Session { id: session, timeout, connections, told_expired });
        }
        let connection = Connection { asked: now, opened: now, ..Connection::default() };
        self.record.last_mut().expect("it is open").connections.push(connection);
        (self.link, self.resumes, self.heard) = (Some(link), Some(session), 0);
        self.stage = Stage::Greeted;
        match self.watching.lists() {
            Some(lists) if !is_new => self.ask(link, world, vec![Request::SetWatches(lists)]),
            _ if is_new && matches!(self.role, Role::Observer) => {
                self.ask(link, world, vec![Request::AddWatch { path: ROOT.to_owned(), recursive: true }]);
            }
            _ => {}
        }
    }

    /// Gives the session up; the next connection opens a new one.
    fn forget(&mut self) {
        (self.resumes, self.link, self.waiting) = (None, None, 0);
        self.watching = Watching::default();
        self.stage = Stage::Offline;
        if matches!(self.role, Role::Worker(..)) {
            self.timeout_ms = self.rng.pick(&TIMEOUTS_MS);
        }
        if self.stops || matches!(self.role, Role::Script(_) | Role::Witness) {
            self.stage = Stage::Gone;
        }
    }

    fn lost(&mut self, now: u64) {
        if matches!(self.stage, Stage::Closing) {
            return self.forget();
        }
        if matches!(self.stage, Stage::Work) && self.waiting > 0 {
            let effects: Vec<Request> =
                self.last_batch().iter().flat_map(|op| effects(&op.request)).collect();
            if let Role::Worker(_, doubtful) = &mut self.role {
                doubtful.extend(effects);
            }
        }
        (self.link, self.waiting) = (None, 0);
        self.stage = Stage::Offline;
        let stays_away = matches!(self.role, Role::Worker(..)) && self.rng.one_in(10);
        self.until = now + if stays_away { self.rng.below(9_000_000) } else { self.rng.below(4_000) };
    }

    fn act(&mut self, link: LinkId, world: &mut World) {
        match std::mem::replace(&mut self.stage, Stage::Work) {
            Stage::Greeted => match &mut self.role {
                Role::Worker(_, doubtful) => {
                    let doubtful = std::mem::take(doubtful);
                    self.ask(link, world, doubtful);
                }
                Role::Script(requests) => {
                    let requests = std::mem::take(requests);
                    self.ask(link, world, requests);
                }
                Role::Observer => self.stage = Stage::Look(vec![ROOT.to_owned()]),
                Role::Witness => {
                    self.ask(link, world, vec![Request::Sync]);
                    self.stage = Stage::Look(vec![ROOT.to_owned()]);
                }
            },
            Stage::Look(paths) if paths.is_empty() => {}
            Stage::Look(paths) => {
                let both = |path: &String| [look(View::Children, path), look(View::Data, path)];
                self.ask(link, world, paths.iter().flat_map(both).collect());
                self.stage = Stage::Looked(paths);
            }
            Stage::Looked(paths) => {
                let mut below = Vec::new();
                for (path, pair) in paths.iter().zip(self.last_batch().chunks(2)) {
                    if let Some(Ok(Body::Children(names, _))) = pair[0].answer().map(|answer| &answer.result)
                    {
                        below.extend(names.iter().map(|name| format!("{path}/{name}")));
                    }
                }
                self.stage = Stage::Look(below);
            }
            Stage::Work => self.work(link, world),
            Stage::Offline | Stage::Closing | Stage::Gone => {}
        }
    }

    fn work(&mut self, link: LinkId, world: &mut World) {
        let is_worker = matches!(self.role, Role::Worker(..));
        let chance = if is_worker { self.rng.below(if self.stops { 2 } else { 200 }) } else { 2 };
        if chance == 0 {
            world.cut(link);
            return self.forget();
        }
        if chance == 1 || self.stops || matches!(self.role, Role::Script(_) | Role::Witness) {
            self.ask(link, world, vec![Request::Close]);
            self.stage = Stage::Closing;
            return;
        }
        let batch = match &mut self.role {
            Role::Worker(load, _) => {
                let link = self.record.last().and_then(|session| session.connections.last());
                for op in &link.expect("it is connected").operations[self.batch..] {
                    if let Outcome::Answered(answer) = &op.outcome {
                        load.answered(&op.request, answer);
                    }
                }
                load.batch()
            }
            _ => self.written(),
        };
        let pause = if matches!(self.role, Role::Observer) { OBSERVER_PAUSE } else { PAUSE };
        self.until = world.now + self.rng.below(pause);
        self.ask(link, world, batch);
    }

    /// Reads of what events say was created or written, and a sign of life.
    fn written(&mut self) -> Vec<Request> {
        let heard = self.heard;
        let incoming = &self.connection().incoming;
        let paths: BTreeSet<&str> = incoming[heard..].iter().filter_map(read_after).collect();
        let mut batch: Vec<Request> = paths.into_iter().map(|path| look(View::Data, path)).collect();
        batch.push(look(View::Stat, ROOT));
        self.heard = self.connection().incoming.len();
        batch
    }

    fn ask(&mut self, link: LinkId, world: &mut World, requests: Vec<Request>) {
        let invoked = Micros(world.now);
        self.waiting = requests.len();
        self.batch = self.connection().operations.len();
        for request in requests {
            let operations = &mut self.connection().operations;
            world.submit(link, operations.len(), request.clone());
            operations.push(Operation { invoked, request, outcome: Outcome::Unknown });
        }
    }

    fn take(&mut self, message: Message, now: u64) {
        match message {
            Message::Event(event) => {
                self.watching.fired(&event);
                self.connection().incoming.push(Incoming::Event(event));
            }
            Message::Reply(operation, zxid, result) => {
                let answer = Answer { completed: Micros(now), zxid, result };
                let request = self.connection().operations[operation].request.clone();
                self.watching.answered(&request, &answer);
                self.connection().operations[operation].outcome = Outcome::Answered(answer);
                self.connection().incoming.push(Incoming::Reply(operation));
                self.waiting -= 1;
            }
        }
    }

    fn last_batch(&mut self) -> &[Operation] {
        let batch = self.batch;
        &self.connection().operations[batch..]
    }

    fn connection(&mut self) -> &mut Connection {
        let session = self.record.last_mut().expect("it is connected");
        session.connections.last_mut().expect("it is connected")
    }
}

fn read_after(incoming: &Incoming) -> Option<&str> {
    match incoming {
        Incoming::Event(WatchEvent {
            kind: EventKind::NodeCreated | EventKind::NodeDataChanged,
            path,
            ..
        }) => Some(path),
        _ => None,
    }
}
