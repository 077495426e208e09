//! The record of a run: what each session asked and what it was sent.
//!
//! Must not know how it was taken. Invariant: operations stand in the order in which they were submitted, and what came
//! in in the order in which it came.

use std::fmt;

pub use pharos_jute::{ErrorCode, EventType as EventKind, Stat};

/// Microseconds on the one monotonic clock of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub u64);

/// All sessions of a run against one ensemble.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order.
    pub sessions: Vec<Session>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    /// As the ensemble named it.
    pub id: i64,
    /// Its timeout, as granted.
    pub timeout: Micros,
    /// Its connections, in order; the first one opened it.
    pub connections: Vec<Connection>,
    /// When a member said that it has expired.
    pub told_expired: Option<Micros>,
}

/// One connection of a session, from the member's greeting to its end.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// When the greeting was asked for.
    pub asked: Micros,
    /// When it came.
    pub opened: Micros,
    /// Everything submitted on it, in order.
    pub operations: Vec<Operation>,
    /// Everything that came in, in order.
    pub incoming: Vec<Incoming>,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Before it was sent.
    pub invoked: Micros,
    /// What was asked.
    pub request: Request,
    /// What is known of it.
    pub outcome: Outcome,
}

/// What is known of an operation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The connection was lost before an answer came.
    Unknown,
    /// It was answered.
    Answered(Answer),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// After it was received.
    pub completed: Micros,
    /// The header's zxid.
    pub zxid: i64,
    /// The header's error, or the body.
    pub result: Result<Body, ErrorCode>,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One write.
    Write(Write),
    /// Several, all or none.
    Multi(Vec<Write>),
    /// The end of the session.
    Close,
    /// A read of one znode, perhaps with a one-shot watch.
    Read {
        /// What of it.
        view: View,
        /// Its path.
        path: String,
        /// Whether to watch it.
        watch: bool,
    },
    /// A persistent watch.
    AddWatch {
        /// The path.
        path: String,
        /// Whether everything below is watched too.
        recursive: bool,
    },
    /// The watches of an earlier connection.
    SetWatches(Rearm),
    /// A barrier.
    Sync,
    /// Nothing but contact.
    Ping,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// `create2`.
    Create {
        /// The path; of a sequential znode without its number.
        path: String,
        /// The data.
        data: Vec<u8>,
        /// Whether it goes with the session.
        ephemeral: bool,
        /// Whether a number is appended.
        sequential: bool,
    },
    /// `delete`.
    Delete {
        /// The path.
        path: String,
        /// The version it must have; -1 takes any.
        version: i32,
    },
    /// `setData`.
    SetData {
        /// The path.
        path: String,
        /// The new data.
        data: Vec<u8>,
        /// The version it must have; -1 takes any.
        version: i32,
    },
    /// `check`, in a multi only.
    Check {
        /// The path.
        path: String,
        /// The version it must have; -1 takes any.
        version: i32,
    },
}

impl Write {
    /// The path that it names.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::Delete { path, .. }
            | Self::SetData { path, .. }
            | Self::Check { path, .. } => path,
        }
    }
}

/// What of a znode is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// `getData`.
    Data,
    /// `exists`.
    Stat,
    /// `getChildren2`.
    Children,
}

/// The lists of `setWatches2`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rearm {
    /// The last zxid the client has seen.
    pub since: i64,
    /// Paths of znodes that were there.
    pub data: Vec<String>,
    /// Paths where nothing was.
    pub exist: Vec<String>,
    /// Paths whose children are watched.
    pub child: Vec<String>,
    /// Paths with persistent watches.
    pub persistent: Vec<String>,
    /// Paths with persistent recursive watches.
    pub recursive: Vec<String>,
}

/// The body of a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing, or nothing that is checked.
    Empty,
    /// Path and Stat of a new znode.
    Created(String, Stat),
    /// A Stat.
    Stat(Stat),
    /// Data and Stat.
    Data(Vec<u8>, Stat),
    /// Names, sorted, and their parent's Stat.
    Children(Vec<String>, Stat),
    /// One result per operation.
    Multi(Vec<Result<Body, ErrorCode>>),
}

/// Something that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to the operation with this index.
    Reply(usize),
    /// A watch event.
    Event(WatchEvent),
}

/// A watch event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The header's zxid; -1 for what `setWatches` caught up with.
    pub zxid: i64,
    /// What happened.
    pub kind: EventKind,
    /// Where.
    pub path: String,
}

/// Names an operation: session, connection and operation by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpRef {
    /// Index of the session.
    pub session: usize,
    /// Index of its connection.
    pub connection: usize,
    /// Index of the operation on it.
    pub operation: usize,
}

impl fmt::Display for OpRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} connection {} operation {}", self.session, self.connection, self.operation)
    }
}

impl History {
    /// The operation of that name.
    #[must_use]
    pub fn operation(&self, at: OpRef) -> &Operation {
        &self.sessions[at.session].connections[at.connection].operations[at.operation]
    }

    /// All operations, session by session.
    pub fn operations(&self) -> impl Iterator<Item = (OpRef, &Operation)> {
        self.connections().flat_map(|(session, connection, link)| {
            let named = move |(operation, op)| (OpRef { session, connection, operation }, op);
            link.operations.iter().enumerate().map(named)
        })
    }

    /// All connections: index of the session, index in it, connection.
    pub fn connections(&self) -> impl Iterator<Item = (usize, usize, &Connection)> {
        self.sessions.iter().enumerate().flat_map(|(session, own)| {
            own.connections.iter().enumerate().map(move |(connection, link)| (session, connection, link))
        })
    }

    /// The operation in words, for evidence.
    pub(crate) fn tell(&self, at: OpRef) -> String {
        let op = self.operation(at);
        let outcome = match &op.outcome {
            Outcome::Unknown => "unknown outcome".to_owned(),
            Outcome::Answered(answer) => format!(
                "completed at {} µs with zxid {:#x}: {:x?}",
                answer.completed.0, answer.zxid, answer.result
            ),
        };
        let id = self.sessions[at.session].id;
        format!("[{at} ({id:#x}): {:?}, invoked at {} µs, {outcome}]", op.request, op.invoked.0)
    }
}

impl Operation {
    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Unknown => None,
            Outcome::Answered(answer) => Some(answer),
        }
    }
}

impl Request {
    /// Whether it takes a zxid of its own.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Multi(_) | Self::Close)
    }

    /// The data that it writes, each with the path that it names.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let writes = match self {
            Self::Write(write) => std::slice::from_ref(write),
            Self::Multi(writes) => writes,
            _ => &[],
        };
        writes.iter().filter_map(|write| match write {
            Write::Create { path, data, .. } | Write::SetData { path, data, .. } => {
                Some((path.as_str(), data.as_slice()))
            }
            Write::Delete { .. } | Write::Check { .. } => None,
        })
    }

    /// The paths it names.
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Self::Write(write) => vec![write.path()],
            Self::Multi(writes) => writes.iter().map(Write::path).collect(),
            Self::Read { path, .. } | Self::AddWatch { path, .. } => vec![path],
            Self::SetWatches(lists) => {
                [&lists.data, &lists.exist, &lists.child].into_iter().flatten().map(String::as_str).collect()
            }
            Self::Close | Self::Sync | Self::Ping => Vec::new(),
        }
    }
}

impl Body {
    /// The Stats in it, each with the path it is of, where `path` is the path that was asked for.
    pub(crate) fn stats<'a>(&'a self, asked: &'a Request) -> Vec<(&'a str, &'a Stat, Option<&'a [u8]>)> {
        let path = asked.paths().first().copied().unwrap_or_default();
        match self {
            Self::Empty => Vec::new(),
            Self::Created(path, stat) => vec![(path, stat, None)],
            Self::Stat(stat) | Self::Children(_, stat) => vec![(path, stat, None)],
            Self::Data(data, stat) => vec![(path, stat, Some(data))],
            Self::Multi(results) => {
                let paths = asked.paths();
                let each = results.iter().zip(paths).filter_map(|(result, path)| match result {
                    Ok(Self::Created(path, stat)) => Some((path.as_str(), stat, None)),
                    Ok(Self::Stat(stat)) => Some((path, stat, None)),
                    _ => None,
                });
                each.collect()
            }
        }
    }

    /// The same without wall-clock times, which the reference has none of.
    pub(crate) fn timeless(&self) -> Self {
        let bare = |stat: &Stat| Stat { ctime: 0, mtime: 0, ..*stat };
        match self {
            Self::Empty => Self::Empty,
            Self::Created(path, stat) => Self::Created(path.clone(), bare(stat)),
            Self::Stat(stat) => Self::Stat(bare(stat)),
            Self::Data(data, stat) => Self::Data(data.clone(), bare(stat)),
            Self::Children(names, stat) => Self::Children(names.clone(), bare(stat)),
            Self::Multi(results) => {
                let each = results.iter().map(|result| result.as_ref().map(Self::timeless).map_err(|e| *e));
                Self::Multi(each.collect())
            }
        }
    }
}
