//! Requests that change nothing: reads of the state, and watches.
//!
//! Owns how each read is answered from the state and which watch it leaves. Must not know when its turn
//! comes. Invariant: a watch is set in the same moment as the state that is answered was read, so no
//! change between falls through.

use crate::answers::put_answer;
use crate::clients::Clients;
use crate::cold::{self, Missing};
use crate::io::ConnId;
use crate::replica::Replica;
use crate::watches::WatchKind;
use pharos_jute::{
    AddWatchMode, ErrorCode, EventType, MultiOp, MultiResult, PathWatch, Request, Response, SetWatches, Stat,
    WatcherEvent, WatcherType,
};
use pharos_jute::{ClientInfo, Id};
use pharos_znode::{ColdValue, NodeData, State, Value, user_name};

type Result<T> = std::result::Result<T, ErrorCode>;

/// The longest answer to many reads at once, in bytes.
const MAX_READ_BYTES: usize = 64 << 20;
/// About what a name takes in a list.
const NAME_BYTES: usize = 32;

impl Replica {
    /// About how long the answer to a request would be, in bytes.
    pub(crate) fn answer_bytes(&self, request: &Request<'_>) -> usize {
        let data = |asked: &PathWatch<'_>| self.state.stat(asked.path?).map(|stat| stat.data_length as usize);
        let names = |asked: &PathWatch<'_>| {
            self.state.stat(asked.path?).map(|stat| stat.num_children as usize * NAME_BYTES)
        };
        let body = match request {
            Request::GetData(asked) => data(asked),
            Request::GetChildren(asked) | Request::GetChildren2(asked) => names(asked),
            Request::MultiRead(ops) => Some(
                ops.iter()
                    .filter_map(|op| match op {
                        MultiOp::GetData(asked) => data(asked),
                        MultiOp::GetChildren(asked) => names(asked),
                        _ => None,
                    })
                    .fold(0, usize::saturating_add),
            ),
            _ => None,
        };
        body.unwrap_or(0).saturating_add(100)
    }

    /// Carries out a request that needs no place in the log.
    pub(crate) fn read(&mut self, conn: ConnId, xid: i32, request: &Request<'_>) {
        match request {
            Request::Ping => self.pong(conn),
            Request::SetWatches(lists) | Request::SetWatches2(lists) => self.set_watches(conn, xid, lists),
            Request::AddWatch(path, mode) => self.add_watch(conn, xid, *path, *mode),
            Request::RemoveWatches(path, kind) => self.end_watches(conn, xid, *path, *kind, Ending::Remove),
            Request::CheckWatches(path, kind) => self.end_watches(conn, xid, *path, *kind, Ending::Check),
            Request::GetData(asked) => self.get_data(conn, xid, asked),
            Request::MultiRead(ops) => self.list(conn, |replica| replica.read_many(conn, xid, ops)),
            Request::GetAcl(path) => self.acl(conn, xid, *path),
            Request::GetEphemerals(prefix) => self.ephemerals(conn, xid, *prefix),
            Request::Exists(_) => self.query(conn, xid, request),
            _ => self.list(conn, |replica| replica.query(conn, xid, request)),
        }
    }

    /// An answer that may be long, and counts against what one turn may answer.
    fn list(&mut self, conn: ConnId, answer: impl FnOnce(&mut Self)) {
        let len = |clients: &Clients| clients.get(conn).map_or(0, |own| own.out.len());
        let before = len(&self.clients);
        answer(self);
        self.listed_bytes += len(&self.clients).saturating_sub(before);
    }

    /// Whether this turn has answered enough: a list of a million children takes long.
    pub(crate) fn has_listed_enough(&self) -> bool {
        self.listed_bytes >= self.cfg.apply_bytes
    }

    fn query(&mut self, conn: ConnId, xid: i32, request: &Request<'_>) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let zxid = self.state.zxid().0;
        let response = answer(&self.state, &own.auth, request);
        put_answer(own.out.tail(), xid, zxid, response.as_ref().map_err(|code| *code));
        if let Some((kind, path)) = watch_of(request, response.as_ref().err().copied()) {
            self.watches.add(kind, path, conn);
        }
        self.clients.mark_dirty(conn);
    }

    fn get_data(&mut self, conn: ConnId, xid: i32, asked: &PathWatch<'_>) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let zxid = self.state.zxid().0;
        let read = path(asked).and_then(|path| Ok((path, self.state.get_data(path, &own.auth)?)));
        let found = read.is_ok();
        match read {
            Ok((path, NodeData { data: Value::Cold(value), stat })) => {
                self.answer_cold(conn, xid, (path, stat), value);
            }
            Ok((_, NodeData { data, stat })) => {
                put_answer(own.out.tail(), xid, zxid, Ok(&Response::Data { data: data.here(), stat }));
            }
            Err(code) => put_answer(own.out.tail(), xid, zxid, Err(code)),
        }
        if asked.watch && found {
            self.watches.add(WatchKind::Data, asked.path.unwrap_or_default(), conn);
        }
        self.clients.mark_dirty(conn);
    }

    fn read_many(&mut self, conn: ConnId, xid: i32, ops: &[MultiOp<'_>]) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let zxid = self.state.zxid().0;
        let mut left = MAX_READ_BYTES;
        let one = |op| {
            let result = multi_read(&self.state, &own.auth, op)?;
            left = left.checked_sub(result.bytes()).ok_or(ErrorCode::MARSHALLING_ERROR)?;
            Ok(result)
        };
        let reads: Vec<One<'_, '_>> = match ops.iter().map(one).collect::<Result<_>>() {
            Ok(reads) => reads,
            Err(code) => return self.answer(conn, xid, Err(code)),
        };
        let zeros =
            vec![0; reads.iter().filter_map(One::cold).map(|(_, value)| value.len()).max().unwrap_or(0)];
        let results: Vec<_> = reads.iter().map(|read| read.result(&zeros)).collect();
        let ends: Vec<_> = cold::ends(&results).collect();
        let response = Response::Multi(results);
        if zeros.is_empty() {
            put_answer(own.out.tail(), xid, zxid, Ok(&response));
            return self.clients.mark_dirty(conn);
        }
        let frame = cold::frame_of(&response, xid, zxid);
        let missing = reads.iter().zip(ends).filter_map(|(read, end)| {
            read.cold().map(|(path, value)| Missing { path, value, end: end - Stat::LEN })
        });
        let missing: Vec<_> = missing.collect();
        self.answer_gapped(conn, &frame, missing);
    }

    fn acl(&mut self, conn: ConnId, xid: i32, path: Option<&str>) {
        let Some(own) = self.clients.get(conn) else { return };
        let view =
            path.ok_or(ErrorCode::MARSHALLING_ERROR).and_then(|path| self.state.get_acl(path, &own.auth));
        match &view {
            Ok(view) => self.answer(conn, xid, Ok(&Response::Acl { acl: view.wire(), stat: view.stat })),
            Err(code) => self.answer(conn, xid, Err(*code)),
        }
    }

    fn ephemerals(&mut self, conn: ConnId, xid: i32, prefix: Option<&str>) {
        let Some(crate::clients::Phase::Live(live)) = self.clients.get(conn).map(|own| own.phase) else {
            return;
        };
        let paths = self.state.ephemerals(live.session, prefix);
        let names = Response::Names(paths.iter().map(String::as_str).collect());
        self.answer(conn, xid, Ok(&names));
    }

    fn add_watch(&mut self, conn: ConnId, xid: i32, path: Option<&str>, mode: i32) {
        let kind = match AddWatchMode::from_i32(mode) {
            Some(AddWatchMode::Persistent) => WatchKind::Persistent,
            Some(AddWatchMode::PersistentRecursive) => WatchKind::Recursive,
            None => return self.answer(conn, xid, Err(ErrorCode::MARSHALLING_ERROR)),
        };
        self.watches.add(kind, path.unwrap_or_default(), conn);
        self.answer(conn, xid, Ok(&Response::Watch(ErrorCode::OK)));
    }

    fn end_watches(&mut self, conn: ConnId, xid: i32, path: Option<&str>, kind: i32, ending: Ending) {
        let kinds: &[WatchKind] = match WatcherType::from_i32(kind) {
            Some(WatcherType::Children) => &[WatchKind::Child],
            Some(WatcherType::Data) => &[WatchKind::Data],
            Some(WatcherType::Persistent) => &[WatchKind::Persistent],
            Some(WatcherType::PersistentRecursive) => &[WatchKind::Recursive],
            Some(WatcherType::Any) => {
                &[WatchKind::Child, WatchKind::Data, WatchKind::Persistent, WatchKind::Recursive]
            }
            None => return self.answer(conn, xid, Err(ErrorCode::MARSHALLING_ERROR)),
        };
        let path = path.unwrap_or_default();
        let mut found = false;
        for &kind in kinds {
            found |= match ending {
                Ending::Check => self.watches.has(kind, path, conn),
                Ending::Remove => self.watches.remove(kind, path, conn),
            };
        }
        let result = if found { Ok(&Response::Empty) } else { Err(ErrorCode::NO_WATCHER) };
        self.answer(conn, xid, result);
    }

    /// Watches of a client that was connected elsewhere: what changed since is told at once, with no
    /// zxid of its own, the rest is armed.
    fn set_watches(&mut self, conn: ConnId, xid: i32, lists: &SetWatches<'_>) {
        let since = lists.relative_zxid;
        for path in &lists.data {
            match self.state.stat(path) {
                None => self.catch_up(conn, EventType::NodeDeleted, path),
                Some(stat) if stat.mzxid > since => self.catch_up(conn, EventType::NodeDataChanged, path),
                Some(_) => self.watches.add(WatchKind::Data, path, conn),
            }
        }
        for path in &lists.exist {
            match self.state.stat(path) {
                Some(_) => self.catch_up(conn, EventType::NodeCreated, path),
                None => self.watches.add(WatchKind::Data, path, conn),
            }
        }
        for path in &lists.child {
            match self.state.stat(path) {
                None => self.catch_up(conn, EventType::NodeDeleted, path),
                Some(stat) if stat.pzxid > since => self.catch_up(conn, EventType::NodeChildrenChanged, path),
                Some(_) => self.watches.add(WatchKind::Child, path, conn),
            }
        }
        lists.persistent.iter().for_each(|path| self.watches.add(WatchKind::Persistent, path, conn));
        lists.persistent_recursive.iter().for_each(|path| self.watches.add(WatchKind::Recursive, path, conn));
        self.answer(conn, xid, Ok(&Response::Empty));
    }

    fn catch_up(&mut self, conn: ConnId, kind: EventType, path: &str) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let event = WatcherEvent::new(kind, path);
        crate::answers::framed(own.out.tail(), |out| event.encode_message(-1, out));
    }
}

/// What is asked about a watch.
#[derive(Clone, Copy)]
enum Ending {
    Check,
    Remove,
}

/// The watch a read leaves: on existence even where nothing is yet, else only where it succeeded.
fn watch_of<'a>(request: &Request<'a>, error: Option<ErrorCode>) -> Option<(WatchKind, &'a str)> {
    let (kind, asked, waits_for_it) = match request {
        Request::Exists(asked) => (WatchKind::Data, asked, error == Some(ErrorCode::NO_NODE)),
        Request::GetChildren(asked) | Request::GetChildren2(asked) => (WatchKind::Child, asked, false),
        _ => return None,
    };
    (asked.watch && (error.is_none() || waits_for_it)).then(|| (kind, asked.path.unwrap_or_default()))
}

fn answer<'s>(state: &'s State, auth: &'s [Id], request: &Request<'_>) -> Result<Response<'s>> {
    match request {
        Request::Exists(asked) => Ok(Response::Stat(state.exists(path(asked)?, auth)?)),
        Request::GetChildren(asked) => {
            Ok(Response::Names(state.children(path(asked)?, auth)?.names.collect()))
        }
        Request::GetChildren2(asked) => {
            let (names, stat) = children(state, auth, path(asked)?)?;
            Ok(Response::Children { names, stat })
        }
        Request::GetAllChildrenNumber(path) => {
            Ok(Response::Number(state.all_children_number(path.ok_or(ErrorCode::MARSHALLING_ERROR)?, auth)?))
        }
        Request::WhoAmI => {
            let infos = auth.iter().map(|id| ClientInfo { scheme: &id.scheme, user: user_name(id) });
            Ok(Response::WhoAmI(infos.collect()))
        }
        _ => Err(ErrorCode::UNIMPLEMENTED),
    }
}

fn path<'a>(asked: &PathWatch<'a>) -> Result<&'a str> {
    asked.path.ok_or(ErrorCode::MARSHALLING_ERROR)
}

fn children<'s>(state: &'s State, auth: &[Id], path: &str) -> Result<(Vec<&'s str>, Stat)> {
    let children = state.children(path, auth)?;
    Ok((children.names.collect(), children.stat))
}

/// What one of many reads found.
enum One<'s, 'p> {
    Data(&'p str, NodeData<'s>),
    Children(Vec<&'s str>),
    Error(ErrorCode),
}

impl<'p> One<'_, 'p> {
    fn bytes(&self) -> usize {
        100 + match self {
            Self::Data(_, node) => node.stat.data_length as usize,
            Self::Children(names) => names.iter().map(|name| 4 + name.len()).sum(),
            Self::Error(_) => 0,
        }
    }

    /// The value, if only the store has it.
    fn cold(&self) -> Option<(&'p str, ColdValue)> {
        match self {
            Self::Data(path, NodeData { data: Value::Cold(value), .. }) => Some((*path, *value)),
            _ => None,
        }
    }

    /// As it is told; zeros stand for a value that only the store has.
    fn result<'a>(&'a self, zeros: &'a [u8]) -> MultiResult<'a> {
        match self {
            Self::Data(_, NodeData { data: Value::Cold(value), stat }) => {
                MultiResult::Data { data: Some(&zeros[..value.len()]), stat: *stat }
            }
            Self::Data(_, NodeData { data, stat }) => MultiResult::Data { data: data.here(), stat: *stat },
            Self::Children(names) => MultiResult::Children(names.clone()),
            Self::Error(code) => MultiResult::Error(*code),
        }
    }
}

/// Each read of a multi stands for itself; only a write among them fails the whole.
fn multi_read<'s, 'p>(state: &'s State, auth: &[Id], op: &MultiOp<'p>) -> Result<One<'s, 'p>> {
    let result = match op {
        MultiOp::GetData(asked) => {
            path(asked).and_then(|path| Ok(One::Data(path, state.get_data(path, auth)?)))
        }
        MultiOp::GetChildren(asked) => path(asked)
            .and_then(|path| state.children(path, auth))
            .map(|children| One::Children(children.names.collect())),
        _ => return Err(ErrorCode::MARSHALLING_ERROR),
    };
    Ok(result.unwrap_or_else(One::Error))
}
