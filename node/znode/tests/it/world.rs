//! A state with a session or two, and short words for what is done to it.

use bytes::Bytes;
use pharos_znode::{
    Acl, Applied, Command, CreateMode, ErrorCode, EventType, Id, Op, Reply, SessionId, Stat, State, perms,
};

pub(crate) const ALICE: SessionId = SessionId(0x100);
pub(crate) const BOB: SessionId = SessionId(0x200);
pub(crate) const T0: i64 = 1_700_000_000_000;

/// A state with the sessions of Alice (at member 1) and Bob (at member 2) open, at zxid 0x100000002.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) out: Applied,
    pub(crate) now: i64,
    pub(crate) auth: Vec<Id>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut state = State::new();
        state.epoch_start();
        let auth = vec![Id::new("ip", "127.0.0.1")];
        let mut world = Self { state, out: Applied::new(), now: T0, auth };
        for (origin, session) in [(1, ALICE), (2, BOB)] {
            let op = Op::CreateSession { timeout_ms: 4000 };
            world.apply(&Command { origin, ..world.command(session, 0, op) }).unwrap();
        }
        world
    }

    pub(crate) fn command(&self, session: SessionId, attach: u32, op: Op) -> Command {
        let auth = self.auth.clone();
        Command { origin: 1, boot: 9, request: 1, session, attach, cxid: 1, auth, zxid: None, op }
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Result<Reply, ErrorCode> {
        let Self { state, out, now, .. } = self;
        state.apply(command, *now, out);
        assert_eq!(state.digest(), state.recompute_digest(), "digest after {command:?}");
        out.result.clone()
    }

    /// As Alice.
    pub(crate) fn run(&mut self, op: Op) -> Result<Reply, ErrorCode> {
        self.run_as(ALICE, op)
    }

    pub(crate) fn run_as(&mut self, session: SessionId, op: Op) -> Result<Reply, ErrorCode> {
        let attach = self.state.session(session).map_or(1, |s| s.attach);
        self.apply(&self.command(session, attach, op))
    }

    /// Creates persistent nodes.
    pub(crate) fn make(&mut self, paths: &[&str]) {
        for path in paths {
            self.run(create(path)).unwrap();
        }
    }

    pub(crate) fn created_path(&self) -> &str {
        match &self.out.result {
            Ok(Reply::Created { path, .. }) => self.out.path(*path),
            other => panic!("not a create: {other:?}"),
        }
    }

    pub(crate) fn stat(&self, path: &str) -> Stat {
        self.state.stat(path).unwrap()
    }

    pub(crate) fn children(&self, path: &str) -> Vec<String> {
        let children = self.state.children(path, &super_user()).unwrap();
        let mut names: Vec<String> = children.names.map(str::to_owned).collect();
        names.sort();
        names
    }

    pub(crate) fn events(&self) -> Vec<(EventType, String)> {
        self.out.tree_events().map(|e| (e.kind, e.path.to_owned())).collect()
    }
}

pub(crate) fn super_user() -> Vec<Id> {
    vec![Id::new("super", "")]
}

pub(crate) fn open() -> Vec<Acl> {
    vec![Acl::open()]
}

pub(crate) fn world_may(perms: i32) -> Vec<Acl> {
    vec![Acl::new(perms, "world", "anyone")]
}

pub(crate) fn create(path: &str) -> Op {
    create_mode(path, CreateMode::Persistent)
}

pub(crate) fn create_mode(path: &str, mode: CreateMode) -> Op {
    create_acl(path, mode, open())
}

pub(crate) fn create_ttl(path: &str, ttl: i64) -> Op {
    let (data, mode) = (Some(Bytes::new()), CreateMode::PersistentTtl);
    Op::Create { path: path.into(), data, acl: open(), mode, ttl, with_stat: true }
}

pub(crate) fn create_acl(path: &str, mode: CreateMode, acl: Vec<Acl>) -> Op {
    Op::Create { path: path.into(), data: Some(Bytes::new()), acl, mode, ttl: -1, with_stat: false }
}

pub(crate) fn create_data(path: &str, data: Option<&'static [u8]>) -> Op {
    let data = data.map(Bytes::from_static);
    Op::Create {
        path: path.into(),
        data,
        acl: open(),
        mode: CreateMode::Persistent,
        ttl: -1,
        with_stat: true,
    }
}

pub(crate) fn delete(path: &str) -> Op {
    Op::Delete { path: path.into(), version: -1 }
}

pub(crate) fn set(path: &str, data: &'static [u8], version: i32) -> Op {
    Op::SetData { path: path.into(), data: Some(Bytes::from_static(data)), version }
}

pub(crate) fn set_acl(path: &str, acl: Vec<Acl>) -> Op {
    Op::SetAcl { path: path.into(), acl, version: -1 }
}

pub(crate) fn check(path: &str, version: i32) -> Op {
    Op::Check { path: path.into(), version }
}

/// A list without the given permissions.
pub(crate) fn all_but(perms: i32) -> Vec<Acl> {
    world_may(perms::ALL & !perms)
}
