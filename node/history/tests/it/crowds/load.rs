//! What clients ask for: the mix of `./x chaos`.
//!
//! Invariant: no two writes carry the same value.

use std::collections::{BTreeMap, VecDeque};

use pharos_history::{Answer, Body, Request, View, Write};

use crate::rng::Rng;

pub(super) const ROOT: &str = "/chaos";
/// Where sequential znodes are that stay.
pub(super) const JOB: &str = "/chaos/q/job-";
const REGISTERS: u64 = 6;
const CHURN: u64 = 6;
const LOCKS: u64 = 4;
/// A client's own sequential znodes, before it deletes some.
const MOST_OWN: usize = 6;

/// What one client knows and asks.
pub(super) struct Load {
    client: usize,
    pub(super) rng: Rng,
    values: u64,
    versions: BTreeMap<String, i32>,
    own: VecDeque<String>,
}

/// The znodes that are there from the beginning, and stay.
pub(super) fn fixtures() -> Vec<Request> {
    let fixed = ["", "/r", "/n", "/e", "/q", "/l"].into_iter().map(|name| format!("{ROOT}{name}"));
    let registers = (0..REGISTERS).map(register);
    fixed.chain(registers).map(|path| Request::Write(create(path, Vec::new(), false, false))).collect()
}

/// Reads that show whether a write has happened.
pub(super) fn effects(request: &Request) -> Vec<Request> {
    let writes = match request {
        Request::Write(write) => std::slice::from_ref(write),
        Request::Multi(writes) => writes,
        _ => &[],
    };
    writes.iter().map(|write| look(View::Data, write.path())).collect()
}

pub(super) fn look(view: View, path: &str) -> Request {
    Request::Read { view, path: path.to_owned(), watch: false }
}

fn register(index: u64) -> String {
    format!("{ROOT}/r/{index}")
}

fn create(path: String, data: Vec<u8>, ephemeral: bool, sequential: bool) -> Write {
    Write::Create { path, data, ephemeral, sequential }
}

impl Load {
    pub(super) fn new(client: usize, rng: Rng) -> Self {
        Self { client, rng, values: 0, versions: BTreeMap::new(), own: VecDeque::new() }
    }

    /// Requests to be sent at once.
    pub(super) fn batch(&mut self) -> Vec<Request> {
        let mut batch = Vec::new();
        for _ in 0..=self.rng.below(8) {
            self.one(&mut batch);
        }
        batch
    }

    /// Learns from the answer to a request.
    pub(super) fn answered(&mut self, request: &Request, answer: &Answer) {
        let path = match request {
            Request::Write(write) => write.path(),
            Request::Read { path, view: View::Data | View::Stat, .. } => path,
            _ => return,
        };
        if let Ok(Body::Data(_, stat) | Body::Stat(stat) | Body::Created(_, stat)) = &answer.result {
            self.versions.insert(path.to_owned(), stat.version);
        }
        if let (Request::Write(Write::Create { sequential: true, .. }), Ok(Body::Created(path, _))) =
            (request, &answer.result)
        {
            self.own.push_back(path.clone());
        }
    }

    fn one(&mut self, batch: &mut Vec<Request>) {
        match self.rng.below(100) {
            0..16 => batch.push(Request::Write(self.set())),
            16..30 => batch.push(self.read(View::Data)),
            30..40 => batch.push(self.read(View::Stat)),
            40..46 => batch.push(self.children()),
            46..54 => batch.push(Request::Write(create(self.churned(), self.value(), false, false))),
            54..62 => batch.push(Request::Write(self.churn_delete())),
            62..68 => batch.push(Request::Write(self.ephemeral())),
            68..70 => batch.push(Request::Write(Write::Delete { path: self.lock(), version: -1 })),
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
        match (self.rng.below(4), known) {
            (0, Some(version)) => version,
            (1, _) if self.rng.one_in(4) => 1,
            _ => -1,
        }
    }

    fn set(&mut self) -> Write {
        let path = if self.rng.one_in(4) { self.churned() } else { self.register() };
        Write::SetData { version: self.version(&path), data: self.value(), path }
    }

    fn register(&mut self) -> String {
        register(self.rng.below(REGISTERS))
    }

    fn churned(&mut self) -> String {
        let path = format!("{ROOT}/n/{}", self.rng.below(CHURN));
        if self.rng.one_in(3) { format!("{path}/{}", self.rng.below(3)) } else { path }
    }

    fn lock(&mut self) -> String {
        format!("{ROOT}/e/{}", self.rng.below(LOCKS))
    }

    fn read(&mut self, view: View) -> Request {
        let path = match self.rng.below(8) {
            0..4 => self.register(),
            4..7 => self.churned(),
            _ => self.lock(),
        };
        Request::Read { view, path, watch: self.rng.one_in(4) }
    }

    fn children(&mut self) -> Request {
        let path = match self.rng.below(6) {
            0..4 => format!("{ROOT}/n/{}", self.rng.below(CHURN)),
            4 => format!("{ROOT}/n"),
            _ => format!("{ROOT}/{}", self.rng.pick(&["e", "q", "l"])),
        };
        Request::Read { view: View::Children, path, watch: self.rng.one_in(3) }
    }

    fn churn_delete(&mut self) -> Write {
        let path = self.churned();
        Write::Delete { version: self.version(&path), path }
    }

    fn ephemeral(&mut self) -> Write {
        create(self.lock(), self.value(), true, false)
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
        for _ in 0..=self.rng.below(3) {
            writes.push(match self.rng.below(5) {
                0 => create(self.churned(), self.value(), false, false),
                1 => self.churn_delete(),
                2 => self.ephemeral(),
                3 => {
                    let path = self.register();
                    Write::Check { version: self.version(&path), path }
                }
                _ => self.set(),
            });
        }
        Request::Multi(writes)
    }

    fn persistent_watch(&mut self) -> Request {
        let recursive = self.rng.one_in(2);
        let path = if recursive { format!("{ROOT}/n") } else { self.register() };
        Request::AddWatch { path, recursive }
    }
}
