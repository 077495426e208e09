//! The log: writes as the product's own state machine takes them.
//!
//! Owns the state, and which entries brought it about since the leader began.

use pharos_history::{Body, ErrorCode, Request, WatchEvent, Write};
use pharos_znode::{Acl, Applied, Command, CreateMode, Op, Reply, SessionId, State, Zxid};

/// The operation of a connection that asked for an entry.
pub(super) type Asked = (usize, usize);

/// What was executed.
struct Entry {
    asked: Option<Asked>,
    command: Command,
    time_ms: i64,
    zxid: Zxid,
    changed: bool,
}

pub(super) struct Log {
    pub(super) state: State,
    out: Applied,
    /// The state when the leader began, and what it has executed since.
    base: State,
    entries: Vec<Entry>,
}

impl Log {
    pub(super) fn new() -> Self {
        let mut log =
            Self { state: State::new(), out: Applied::new(), base: State::new(), entries: Vec::new() };
        log.begin_epoch();
        log
    }

    pub(super) fn begin_epoch(&mut self) {
        self.state.epoch_start();
        self.base = self.state.clone();
        self.entries.clear();
    }

    /// Executes a command; gives its zxid and its result.
    pub(super) fn execute(
        &mut self,
        asked: Option<Asked>,
        command: Command,
        now: u64,
    ) -> (i64, Result<Body, ErrorCode>) {
        let time_ms = 1_700_000_000_000 + (now / 1000) as i64;
        self.state.apply(&command, time_ms, &mut self.out);
        let zxid = self.out.zxid;
        let changed = self.out.error().is_none();
        self.entries.push(Entry { asked, command, time_ms, zxid, changed });
        let result = self.out.result.as_ref().map(|reply| body(&self.out, reply)).map_err(|code| *code);
        (zxid.0, result)
    }

    /// What the last command set off, in order.
    pub(super) fn events(&self) -> Vec<WatchEvent> {
        let zxid = self.out.zxid.0;
        let events = self.out.tree_events();
        events.map(|event| WatchEvent { zxid, kind: event.kind, path: event.path.to_owned() }).collect()
    }

    /// The attachment of the session that the last command opened or attached.
    pub(super) fn attached(&self) -> Option<u32> {
        match self.out.result {
            Ok(Reply::Session { attach, .. }) => Some(attach),
            _ => None,
        }
    }

    /// Whether each of these would change something if they were executed one after the other.
    pub(super) fn changing(&self, commands: &[Command]) -> Vec<bool> {
        let (mut state, mut out) = (self.state.clone(), Applied::new());
        let each = commands.iter().map(|command| {
            state.apply(command, 0, &mut out);
            out.error().is_none()
        });
        each.collect()
    }

    /// Entries of this epoch, with who asked for them, that changed something.
    pub(super) fn changes(&self) -> impl Iterator<Item = (usize, Asked, &Op)> {
        let changes = self.entries.iter().enumerate().filter(|(_, entry)| entry.changed);
        changes.filter_map(|(index, entry)| Some((index, entry.asked?, &entry.command.op)))
    }

    /// The state becomes what it would be without this entry.
    pub(super) fn forget(&mut self, index: usize) {
        self.entries.remove(index);
        self.state = self.base.clone();
        for entry in &self.entries {
            let command = Command { zxid: Some(entry.zxid), ..entry.command.clone() };
            self.state.apply(&command, entry.time_ms, &mut self.out);
        }
    }
}

pub(super) fn command(session: i64, attach: u32, op: Op) -> Command {
    let session = SessionId(session);
    Command { origin: 1, boot: 1, request: 0, session, attach, cxid: 0, auth: Vec::new(), zxid: None, op }
}

/// What a write is in the log; nothing for a request that is none.
pub(super) fn op(request: &Request) -> Option<Op> {
    match request {
        Request::Write(write) => Some(op_of(write)),
        Request::Multi(writes) => Some(Op::Multi(writes.iter().map(op_of).collect())),
        Request::Close => Some(Op::CloseSession),
        _ => None,
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
            let each = |result: &Result<Reply, ErrorCode>| match result {
                Ok(reply) => Ok(body(out, reply)),
                Err(code) => Err(*code),
            };
            Body::Multi(results.iter().map(each).collect())
        }
        Reply::Done | Reply::Checked | Reply::Session { .. } => Body::Empty,
    }
}
