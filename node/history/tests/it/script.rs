//! Histories written by hand, one line per thing that a client saw.

use pharos_history::{
    Answer, Body, Connection, ErrorCode, EventKind, History, Incoming, Limits, Micros, Operation, Outcome,
    Request, Rule, Session, Stat, View, WatchEvent, Write, check,
};

pub(crate) const TIMEOUT: u64 = 4_000_000;

/// A history, and the time in it.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) history: History,
    pub(crate) now: u64,
}

impl Script {
    /// A new session; its id is its number plus 100.
    pub(crate) fn session(&mut self) -> usize {
        let number = self.history.sessions.len();
        self.history.sessions.push(Session {
            id: id(number),
            timeout: Micros(TIMEOUT),
            connections: Vec::new(),
            told_expired: None,
        });
        self.connect(number);
        number
    }

    pub(crate) fn connect(&mut self, session: usize) {
        self.now += 10;
        let (asked, opened) = (Micros(self.now), Micros(self.now));
        self.history.sessions[session].connections.push(Connection {
            asked,
            opened,
            ..Connection::default()
        });
    }

    /// A request and its answer, one after everything before.
    pub(crate) fn say(
        &mut self,
        session: usize,
        request: Request,
        zxid: i64,
        result: Result<Body, ErrorCode>,
    ) {
        self.now += 10;
        let now = self.now;
        self.say_at(session, (now, now + 5), request, zxid, result);
    }

    pub(crate) fn say_at(
        &mut self,
        session: usize,
        (invoked, completed): (u64, u64),
        request: Request,
        zxid: i64,
        result: Result<Body, ErrorCode>,
    ) {
        let answer = Answer { completed: Micros(completed), zxid, result };
        let link = self.link(session);
        link.incoming.push(Incoming::Reply(link.operations.len()));
        link.operations.push(Operation {
            invoked: Micros(invoked),
            request,
            outcome: Outcome::Answered(answer),
        });
    }

    /// A request without an answer; the connection is lost with it.
    pub(crate) fn lose(&mut self, session: usize, request: Request) {
        self.now += 10;
        let invoked = Micros(self.now);
        self.link(session).operations.push(Operation { invoked, request, outcome: Outcome::Unknown });
    }

    pub(crate) fn hear(&mut self, session: usize, zxid: i64, kind: EventKind, path: &str) {
        let event = WatchEvent { zxid, kind, path: path.to_owned() };
        self.link(session).incoming.push(Incoming::Event(event));
    }

    pub(crate) fn pass(&mut self, micros: u64) {
        self.now += micros;
    }

    pub(crate) fn told_expired(&mut self, session: usize) {
        self.history.sessions[session].told_expired = Some(Micros(self.now));
    }

    fn link(&mut self, session: usize) -> &mut Connection {
        self.history.sessions[session].connections.last_mut().unwrap()
    }

    /// The rules that are broken.
    pub(crate) fn broken(&self) -> Vec<Rule> {
        broken(&self.history)
    }

    pub(crate) fn assert_right(&self) {
        let report = check(&self.history, Limits { contact_lag: 0 });
        assert_eq!(report.violations, []);
    }
}

pub(crate) fn broken(history: &History) -> Vec<Rule> {
    let report = check(history, Limits { contact_lag: 0 });
    let mut rules: Vec<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

pub(crate) fn id(session: usize) -> i64 {
    session as i64 + 100
}

/// A znode's Stat: created and written at these zxids, with this version. Times follow zxids.
pub(crate) fn stat(czxid: i64, mzxid: i64, version: i32, data: &str) -> Stat {
    Stat {
        czxid,
        mzxid,
        pzxid: czxid,
        ctime: czxid * 1000,
        mtime: mzxid * 1000,
        version,
        data_length: data.len() as i32,
        ..Stat::default()
    }
}

pub(crate) fn owned(stat: Stat, session: usize) -> Stat {
    Stat { ephemeral_owner: id(session), ..stat }
}

/// With a list of children.
pub(crate) fn parent(stat: Stat, pzxid: i64, creates: i32, children: i32) -> Stat {
    Stat { pzxid, cversion: 2 * creates - children, num_children: children, ..stat }
}

pub(crate) fn create(path: &str, data: &str) -> Request {
    Request::Write(new(path, data))
}

pub(crate) fn new(path: &str, data: &str) -> Write {
    Write::Create { path: path.to_owned(), data: data.into(), ephemeral: false, sequential: false }
}

pub(crate) fn ephemeral(path: &str) -> Request {
    Request::Write(Write::Create {
        path: path.to_owned(),
        data: Vec::new(),
        ephemeral: true,
        sequential: false,
    })
}

pub(crate) fn sequential(path: &str) -> Request {
    Request::Write(Write::Create {
        path: path.to_owned(),
        data: Vec::new(),
        ephemeral: false,
        sequential: true,
    })
}

pub(crate) fn set(path: &str, data: &str) -> Request {
    Request::Write(data_of(path, data, -1))
}

pub(crate) fn data_of(path: &str, data: &str, version: i32) -> Write {
    Write::SetData { path: path.to_owned(), data: data.into(), version }
}

pub(crate) fn delete(path: &str) -> Request {
    Request::Write(Write::Delete { path: path.to_owned(), version: -1 })
}

pub(crate) fn get(path: &str) -> Request {
    Request::Read { view: View::Data, path: path.to_owned(), watch: false }
}

pub(crate) fn watch(view: View, path: &str) -> Request {
    Request::Read { view, path: path.to_owned(), watch: true }
}

pub(crate) fn created(path: &str, stat: Stat) -> Result<Body, ErrorCode> {
    Ok(Body::Created(path.to_owned(), stat))
}

pub(crate) fn data(data: &str, stat: Stat) -> Result<Body, ErrorCode> {
    Ok(Body::Data(data.into(), stat))
}
