//! What clients ask for: many kinds of requests to few znodes, so that they meet.
//!
//! Owns names and chances. Must not know connections. Invariant: no two writes carry the same value, so that a write
//! whose answer was lost is recognised by what it left.

use std::collections::{BTreeMap, VecDeque};

use pharos_history::{Answer, Body, Request, View, Write};

use crate::Rng;

/// Everything is below this.
pub const ROOT: &str = "/chaos";
/// Where sequential znodes are that stay.
pub const JOB: &str = "/chaos/q/job-";
const REGISTERS: usize = 6;
const CHURN: usize = 6;
const LOCKS: usize = 4;
/// A client's own sequential znodes, before it deletes some.
const MOST_OWN: usize = 6;

/// What one client knows and asks.
#[derive(Debug)]
pub struct Workload {
    client: usize,
    rng: Rng,
    values: u64,
    versions: BTreeMap<String, i32>,
    own: VecDeque<String>,
}

/// The znodes that are there from the beginning, and stay.
#[must_use]
pub fn fixtures() -> Vec<Request> {
    let registers = (0..REGISTERS).map(register);
    let fixed = ["", "/r", "/n", "/e", "/q", "/l"].into_iter().map(|name| format!("{ROOT}{name}"));
    fixed.chain(registers).map(|path| Request::Write(create(path, Vec::new(), false, false))).collect()
}

/// Parents whose children are all ephemeral.
#[must_use]
pub fn ephemeral_parents() -> [String; 2] {
    [format!("{ROOT}/e"), format!("{ROOT}/l")]
}

fn register(index: usize) -> String {
    format!("{ROOT}/r/{index}")
}

fn create(path: String, data: Vec<u8>, ephemeral: bool, sequential: bool) -> Write {
    Write::Create { path, data, ephemeral, sequential }
}

impl Workload {
    /// That of the client with this number.
    #[must_use]
    pub fn new(client: usize, rng: Rng) -> Self {
        Self { client, rng, values: 0, versions: BTreeMap::new(), own: VecDeque::new() }
    }

    /// The client's own chance.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Requests to be sent at once.
    pub fn batch(&mut self) -> Vec<Request> {
        let count = 1 + self.rng.index(8);
        let mut batch = Vec::new();
        for _ in 0..count {
            self.one(&mut batch);
        }
        batch
    }

    /// Learns from the answer to a request.
    pub fn answered(&mut self, request: &Request, answer: &Answer) {
        if let (Some(version), Some(path)) = (version_of(answer), named(request)) {
            self.versions.insert(path.to_owned(), version);
        }
        if let (Request::Write(Write::Create { sequential: true, .. }), Ok(Body::Created(path, _))) =
            (request, &answer.result)
        {
            self.own.push_back(path.clone());
        }
    }

    fn one(&mut self, batch: &mut Vec<Request>) {
        match self.rng.index(100) {
            0..16 => batch.push(Request::Write(self.set())),
            16..30 => batch.push(self.read(View::Data)),
            30..40 => batch.push(self.read(View::Stat)),
            40..46 => batch.push(self.children()),
            46..54 => batch.push(Request::Write(self.churn_create())),
            54..62 => batch.push(Request::Write(self.churn_delete())),
            62..68 => batch.push(Request::Write(self.ephemeral())),
            68..70 => batch.push(Request::Write(self.lock_delete())),
            70..82 => batch.push(Request::Write(self.sequential())),
            82..91 => batch.push(self.multi()),
            91..99 => batch.extend([Request::Sync, self.read(View::Data)]),
            _ => batch.push(self.persistent_watch()),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        format!("{}-{}", self.client, self.values).into_bytes()
    }

    /// Any version, the one last seen, or one that may be wrong.
    fn version(&mut self, path: &str) -> i32 {
        let known = self.versions.get(path).copied();
        match (self.rng.index(4), known) {
            (0, Some(version)) => version,
            (1, _) if self.rng.one_in(4) => 1,
            _ => -1,
        }
    }

    fn set(&mut self) -> Write {
        let path = if self.rng.one_in(4) { self.churned() } else { register(self.rng.index(REGISTERS)) };
        Write::SetData { version: self.version(&path), data: self.value(), path }
    }

    fn churned(&mut self) -> String {
        let path = format!("{ROOT}/n/{}", self.rng.index(CHURN));
        if self.rng.one_in(3) { format!("{path}/{}", self.rng.index(3)) } else { path }
    }

    fn read(&mut self, view: View) -> Request {
        let path = match self.rng.index(8) {
            0..4 => register(self.rng.index(REGISTERS)),
            4..7 => self.churned(),
            _ => self.lock(),
        };
        Request::Read { view, path, watch: self.rng.one_in(4) }
    }

    fn children(&mut self) -> Request {
        let path = match self.rng.index(6) {
            0..4 => format!("{ROOT}/n/{}", self.rng.index(CHURN)),
            4 => format!("{ROOT}/n"),
            _ => format!("{ROOT}/{}", self.rng.pick(&["e", "q", "l"])),
        };
        Request::Read { view: View::Children, path, watch: self.rng.one_in(3) }
    }

    fn churn_create(&mut self) -> Write {
        create(self.churned(), self.value(), false, false)
    }

    fn churn_delete(&mut self) -> Write {
        let path = self.churned();
        Write::Delete { version: self.version(&path), path }
    }

    fn lock(&mut self) -> String {
        format!("{ROOT}/e/{}", self.rng.index(LOCKS))
    }

    fn ephemeral(&mut self) -> Write {
        create(self.lock(), self.value(), true, false)
    }

    fn lock_delete(&mut self) -> Write {
        Write::Delete { path: self.lock(), version: -1 }
    }

    fn sequential(&mut self) -> Write {
        if (self.own.len() > MOST_OWN || self.rng.one_in(3))
            && let Some(path) = self.own.pop_front()
        {
            return Write::Delete { path, version: -1 };
        }
        let ephemeral = self.rng.one_in(2);
        let path = if ephemeral { format!("{ROOT}/l/lock-") } else { JOB.to_owned() };
        create(path, self.value(), ephemeral, true)
    }

    fn multi(&mut self) -> Request {
        let mut writes = vec![self.set()];
        for _ in 0..1 + self.rng.index(3) {
            writes.push(match self.rng.index(5) {
                0 => self.churn_create(),
                1 => self.churn_delete(),
                2 => self.ephemeral(),
                3 => {
                    let path = register(self.rng.index(REGISTERS));
                    Write::Check { version: self.version(&path), path }
                }
                _ => self.set(),
            });
        }
        Request::Multi(writes)
    }

    fn persistent_watch(&mut self) -> Request {
        let recursive = self.rng.one_in(2);
        let path = if recursive { format!("{ROOT}/n") } else { register(self.rng.index(REGISTERS)) };
        Request::AddWatch { path, recursive }
    }
}

/// Reads that show whether a write has happened.
#[must_use]
pub fn effects(request: &Request) -> Vec<Request> {
    let writes = match request {
        Request::Write(write) => std::slice::from_ref(write),
        Request::Multi(writes) => writes,
        _ => &[],
    };
    writes.iter().map(|write| look(View::Data, write.path())).collect()
}

/// A read without a watch.
#[must_use]
pub fn look(view: View, path: &str) -> Request {
    Request::Read { view, path: path.to_owned(), watch: false }
}

/// The version that an answer tells.
fn version_of(answer: &Answer) -> Option<i32> {
    match &answer.result {
        Ok(Body::Data(_, stat) | Body::Stat(stat) | Body::Created(_, stat)) => Some(stat.version),
        _ => None,
    }
}

fn named(request: &Request) -> Option<&str> {
    match request {
        Request::Write(write) => Some(write.path()),
        Request::Read { path, view: View::Data | View::Stat, .. } => Some(path),
        _ => None,
    }
}
