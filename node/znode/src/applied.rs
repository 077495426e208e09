//! What applying a command says: its zxid, its result, the events to fire.
//!
//! One [`Applied`] is reused from command to command. Paths lie in one text buffer and are referred to by
//! [`PathSpan`], so that a command allocates nothing here once the buffers have grown.

use std::sync::Arc;

use bytes::BufMut;
use pharos_jute::{Acl, ErrorCode, EventType, MultiResult, ReplyHeader, Response, Stat};

use crate::{SessionId, Zxid};

/// A path in the buffer of the [`Applied`] that holds it; see [`Applied::path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathSpan {
    start: u32,
    end: u32,
}

/// The result of a command that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing to say: delete, closing a session.
    Done,
    /// Of a check.
    Checked,
    /// Of a create.
    Created {
        /// The node's path, with its number if sequential.
        path: PathSpan,
        /// The node's Stat.
        stat: Stat,
        /// Whether the client wants the Stat.
        with_stat: bool,
    },
    /// Of a write of data or ACL.
    Stat(Stat),
    /// Of opening or attaching a session.
    Session {
        /// The attach counter that commands of the session must carry from now on.
        attach: u32,
        /// The timeout granted.
        timeout_ms: i32,
    },
    /// Of a multi. If one operation failed, each is an error: [`ErrorCode::OK`] before it, its code, then
    /// [`ErrorCode::RUNTIME_INCONSISTENCY`]; nothing was changed, and the reply header still says success.
    Multi(Vec<Result<Reply, ErrorCode>>),
}

/// Something that happened to the tree, as stored in [`Applied::events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEvent {
    /// What happened.
    pub kind: EventType,
    /// To which node.
    pub path: PathSpan,
    /// The node's ACL: who may not read the node must not hear of it (see [`crate::allowed`]).
    pub acl: Arc<[Acl]>,
}

/// A [`TreeEvent`] with its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventType,
    /// To which node.
    pub path: &'a str,
    /// The node's ACL.
    pub acl: &'a Arc<[Acl]>,
}

/// Something that happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// It was opened.
    Opened {
        /// The session.
        session: SessionId,
        /// The member it is attached to.
        owner: u32,
    },
    /// It was attached anew; connections of older attachments must be closed.
    Attached {
        /// The session.
        session: SessionId,
        /// The member it is attached to from now on.
        owner: u32,
        /// Its counter from now on.
        attach: u32,
    },
    /// It has ended; its connection must be closed.
    Closed {
        /// The session.
        session: SessionId,
        /// The member it was attached to.
        owner: u32,
        /// Whether its time had run out (else its client closed it).
        expired: bool,
    },
}

/// What applying one command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The zxid the command took; for one that takes none, the state's.
    pub zxid: Zxid,
    /// What to answer.
    pub result: Result<Reply, ErrorCode>,
    /// The tree's events in the order to fire them: a node's own before its parent's.
    pub events: Vec<TreeEvent>,
    /// The sessions' events.
    pub session_events: Vec<SessionEvent>,
    paths: String,
}

impl Default for Applied {
    fn default() -> Self {
        Self::new()
    }
}

impl Applied {
    /// An empty one, to be filled by [`crate::State::apply`].
    pub const fn new() -> Self {
        Self {
            zxid: Zxid(0),
            result: Ok(Reply::Done),
            events: Vec::new(),
            session_events: Vec::new(),
            paths: String::new(),
        }
    }

    /// The path a span of this value means.
    pub fn path(&self, span: PathSpan) -> &str {
        &self.paths[span.start as usize..span.end as usize]
    }

    /// The tree's events with their paths, in the order to fire them.
    pub fn tree_events(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.events.iter().map(|e| Event { kind: e.kind, path: self.path(e.path), acl: &e.acl })
    }

    /// The error that decided the result: of the command, or of the operation that failed a multi.
    pub fn error(&self) -> Option<ErrorCode> {
        match &self.result {
            Err(code) => Some(*code),
            Ok(Reply::Multi(results)) => {
                results.iter().filter_map(|r| r.as_ref().err().copied()).find(|code| !code.is_ok())
            }
            Ok(_) => None,
        }
    }

    /// The body to send to the client, or the error for the reply header.
    pub fn response(&self) -> Result<Response<'_>, ErrorCode> {
        Ok(match self.result.as_ref().map_err(|code| *code)? {
            Reply::Done | Reply::Checked | Reply::Session { .. } => Response::Empty,
            Reply::Created { path, stat, with_stat: true } => {
                Response::Created { path: self.path(*path), stat: *stat }
            }
            Reply::Created { path, .. } => Response::Path(Some(self.path(*path))),
            Reply::Stat(stat) => Response::Stat(*stat),
            Reply::Multi(results) => Response::Multi(results.iter().map(|r| self.multi_result(r)).collect()),
        })
    }

    /// Appends header and body of the answer. Of a multi, which may have very many results, [`Applied::response`] is not
    /// made.
    pub fn encode_answer(&self, xid: i32, out: &mut impl BufMut) {
        let header = |err| ReplyHeader { xid, zxid: self.zxid.0, err };
        if let Ok(Reply::Multi(results)) = &self.result {
            header(ErrorCode::OK).encode(out);
            return MultiResult::encode_list(results.iter().map(|result| self.multi_result(result)), out);
        }
        match self.response() {
            Ok(response) => response.encode_message(xid, self.zxid.0, out),
            Err(err) => header(err).encode(out),
        }
    }

    fn multi_result(&self, result: &Result<Reply, ErrorCode>) -> MultiResult<'_> {
        match result {
            Err(code) => MultiResult::Error(*code),
            Ok(Reply::Created { path, stat, with_stat: true }) => {
                MultiResult::Create2 { path: self.path(*path), stat: *stat }
            }
            Ok(Reply::Created { path, .. }) => MultiResult::Create { path: self.path(*path) },
            Ok(Reply::Stat(stat)) => MultiResult::SetData(*stat),
            Ok(Reply::Checked) => MultiResult::Check,
            Ok(Reply::Done | Reply::Session { .. } | Reply::Multi(_)) => MultiResult::Delete,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.result = Ok(Reply::Done);
        self.events.clear();
        self.session_events.clear();
        self.paths.clear();
    }

    /// Stores a path and gives its span.
    pub(crate) fn push_path(&mut self, path: &str) -> PathSpan {
        let start = self.paths.len();
        self.paths.push_str(path);
        span(start, self.paths.len())
    }

    /// The span of the parent of a stored path, which is a prefix of it; the root is its first character.
    pub(crate) fn parent_span(&self, of: PathSpan) -> PathSpan {
        let slash = self.path(of).rfind('/').unwrap_or(0);
        let start = of.start as usize;
        span(start, start + slash.max(1))
    }

    pub(crate) fn push_event(&mut self, kind: EventType, path: PathSpan, acl: Arc<[Acl]>) {
        self.events.push(TreeEvent { kind, path, acl });
    }
}

fn span(start: usize, end: usize) -> PathSpan {
    let narrow = |n: usize| u32::try_from(n).expect("the paths of one command are shorter than 4 GiB");
    PathSpan { start: narrow(start), end: narrow(end) }
}
