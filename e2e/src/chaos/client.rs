//! One client: its session, its connection, its watches, and the record of all of it.
//!
//! Must not know what it is told to ask. Invariant: a request is in the record before it is sent, and what comes in is
//! recorded in its order before anything else is done with it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pharos_history::{
    Answer, Connection, EventKind, Incoming, Micros, Operation, Outcome, Request, Session, WatchEvent,
};
use pharos_jute::{Reader, ReplyHeader, WatcherEvent, xid};

use super::translate;
use crate::wire::{self, Expired, Terms, Wire};
use pharos_crowd::Watching;

/// The one clock of a run.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Micros {
        Micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

pub(super) struct Client {
    clock: Clock,
    wire: Option<Wire>,
    resumes: wire::Session,
    record: Vec<Session>,
    watching: Watching,
}

/// A session in this state is resumed by the next connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Connected {
    /// It is a new one.
    New,
    /// It goes on.
    Resumed,
    /// It had expired; the next connection opens a new one.
    Expired,
}

impl Client {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            wire: None,
            resumes: wire::Session::default(),
            record: Vec::new(),
            watching: Watching::default(),
        }
    }

    pub(super) fn into_record(self) -> Vec<Session> {
        self.record
    }

    pub(super) fn is_connected(&self) -> bool {
        self.wire.is_some()
    }

    /// Connects to a member, with the session that there is or a new one.
    pub(super) fn connect(&mut self, address: SocketAddr, timeout_ms: i32) -> anyhow::Result<Connected> {
        // A client gives a silent member up after two thirds of its timeout, as ZooKeeper's do.
        let patience = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0) * 2 / 3);
        let asked = self.clock.now();
        let is_new = self.resumes.id() == 0;
        let wire = match Wire::connect(address, &self.resumes, Terms { timeout_ms, patience }) {
            Ok(wire) => wire,
            Err(error) if error.is::<Expired>() && !is_new => {
                let now = self.clock.now();
                self.record.last_mut().context("a session that is resumed was opened")?.told_expired =
                    Some(now);
                self.forget();
                return Ok(Connected::Expired);
            }
            Err(error) => return Err(error),
        };
        let connection = Connection { asked, opened: self.clock.now(), ..Connection::default() };
        if is_new {
            let timeout = Micros(u64::try_from(wire.timeout_ms()).unwrap_or(0) * 1000);
            let id = wire.session().id();
            self.record.push(Session { id, timeout, connections: Vec::new(), told_expired: None });
        }
        self.record.last_mut().context("a session was opened")?.connections.push(connection);
        self.wire = Some(wire);
        if is_new {
            return Ok(Connected::New);
        }
        if let Some(lists) = self.watching.lists() {
            self.ask(vec![Request::SetWatches(lists)])?;
        }
        Ok(Connected::Resumed)
    }

    /// Breaks the connection without a word; the session is left to be resumed.
    pub(super) fn disconnect(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.resumes = wire.session();
        }
    }

    /// Gives the session up; the next connection opens a new one.
    pub(super) fn forget(&mut self) {
        self.wire = None;
        self.resumes = wire::Session::default();
        self.watching = Watching::default();
    }

    /// Closes the session. A lost answer leaves its fate unknown.
    pub(super) fn close(&mut self) {
        let asked = self.ask(vec![Request::Close]);
        drop(asked);
        self.forget();
    }

    /// Sends all requests at once and waits for all answers, which are given in the same order. If the connection breaks
    /// it is dropped, and the rest stays unknown.
    pub(super) fn ask(&mut self, requests: Vec<Request>) -> anyhow::Result<Vec<Answer>> {
        let answers = self.try_ask(requests);
        if answers.is_err() {
            self.disconnect();
        }
        answers
    }

    fn try_ask(&mut self, requests: Vec<Request>) -> anyhow::Result<Vec<Answer>> {
        let count = requests.len();
        let wire = self.wire.as_mut().context("there is no connection")?;
        let link = link(&mut self.record)?;
        for request in requests {
            wire.ask(xid_of(link.operations.len())?, &translate::request(&request));
            let invoked = self.clock.now();
            link.operations.push(Operation { invoked, request, outcome: Outcome::Unknown });
        }
        wire.flush()?;
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            answers.extend(self.receive()?);
        }
        Ok(answers)
    }

    /// Takes one message; gives the answer if it is one.
    fn receive(&mut self) -> anyhow::Result<Option<Answer>> {
        let wire = self.wire.as_mut().context("there is no connection")?;
        let (header, body) = wire.message()?;
        let link = link(&mut self.record)?;
        if header.xid == xid::NOTIFICATION {
            let event = event(header, body)?;
            self.watching.fired(&event);
            link.incoming.push(Incoming::Event(event));
            return Ok(None);
        }
        let index = usize::try_from(header.xid - 1).context("an answer that nobody asked for")?;
        let Some(op) = link.operations.get_mut(index).filter(|op| op.answer().is_none()) else {
            bail!("an answer that nobody asked for: {header:?}");
        };
        let result = translate::answer(&op.request, header.err, body)?;
        let answer = Answer { completed: self.clock.now(), zxid: header.zxid, result };
        self.watching.answered(&op.request, &answer);
        op.outcome = Outcome::Answered(answer.clone());
        link.incoming.push(Incoming::Reply(index));
        Ok(Some(answer))
    }

    /// What came in since the connection began.
    pub(super) fn incoming(&self) -> &[Incoming] {
        let link = self.record.last().and_then(|session| session.connections.last());
        link.map_or(&[], |link| &link.incoming)
    }
}

fn link(record: &mut [Session]) -> anyhow::Result<&mut Connection> {
    record.last_mut().and_then(|session| session.connections.last_mut()).context("there is no connection")
}

/// Operations are numbered from 1 on each connection.
fn xid_of(operations: usize) -> anyhow::Result<i32> {
    i32::try_from(operations + 1).context("too many requests on one connection")
}

fn event(header: ReplyHeader, body: &[u8]) -> anyhow::Result<WatchEvent> {
    let event = WatcherEvent::decode(&mut Reader::new(body)).context("cannot read a watch event")?;
    let kind = EventKind::from_i32(event.kind).with_context(|| format!("no server sends {event:?}"))?;
    Ok(WatchEvent { zxid: header.zxid, kind, path: event.path.unwrap_or_default().to_owned() })
}
