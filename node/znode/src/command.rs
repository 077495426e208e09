//! Commands: what the log holds and [`crate::State::apply`] executes.

use bytes::Bytes;
use pharos_jute::{
    Acl, AclRef, Create, CreateMode, CreateTtl, ErrorCode, Id, MultiOp, OpCode, Request, SetAcl,
};

use crate::node::MAX_TTL;
use crate::{Level, SessionId, Zxid};

/// One command with everything that decides its result, so that members need nothing else to agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The member that took it from a client.
    pub origin: u32,
    /// That member's boot nonce: its earlier lives cannot claim the answer.
    pub boot: u64,
    /// The command's key at its origin.
    pub request: u64,
    /// The session it belongs to; [`SessionId::NONE`] for the ensemble's own.
    pub session: SessionId,
    /// The session's attach counter as the origin knows it.
    pub attach: u32,
    /// The client's number for the request.
    pub cxid: i32,
    /// The identities of the connection.
    pub auth: Vec<Id>,
    /// The zxid to take instead of the next one; for imports only.
    pub zxid: Option<Zxid>,
    /// What to do.
    pub op: Op,
}

impl Command {
    /// A command of the ensemble's own: of no session, and nobody waits for its answer.
    #[must_use]
    pub const fn of_ensemble(op: Op) -> Self {
        Self {
            origin: 0,
            boot: 0,
            request: 0,
            session: SessionId::NONE,
            attach: 0,
            cxid: 0,
            auth: Vec::new(),
            zxid: None,
            op,
        }
    }
}

/// Switches that change what commands do. They are state, changed by a command, never a member's own flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether `sasl` identities are valid in ACLs.
    pub sasl: bool,
    /// Whether `x509` identities are valid in ACLs.
    pub x509: bool,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates a node.
    Create {
        /// The path, without the number of a sequential node.
        path: String,
        /// The data; null and empty differ.
        data: Option<Bytes>,
        /// The ACL as the client gave it; `auth` entries are expanded when applied.
        acl: Vec<Acl>,
        /// What kind of node.
        mode: CreateMode,
        /// Time to live in ms, -1 for none.
        ttl: i64,
        /// Whether the answer has the Stat beside the path.
        with_stat: bool,
    },
    /// Deletes a node.
    Delete {
        /// The node.
        path: String,
        /// The version it must have, -1 for any.
        version: i32,
    },
    /// Deletes an empty node; the leader's sweeper only. Succeeds only when it is a container that once had a child, or
    /// its time to live is over by the log's time.
    DeleteContainer {
        /// The node.
        path: String,
    },
    /// Writes a node's data.
    SetData {
        /// The node.
        path: String,
        /// The data; null and empty differ.
        data: Option<Bytes>,
        /// The version it must have, -1 for any.
        version: i32,
    },
    /// Writes a node's ACL.
    SetAcl {
        /// The node.
        path: String,
        /// The ACL as the client gave it.
        acl: Vec<Acl>,
        /// The ACL version it must have, -1 for any.
        version: i32,
    },
    /// Checks a node's version.
    Check {
        /// The node.
        path: String,
        /// The version it must have, -1 for any.
        version: i32,
    },
    /// All of these or none; creates, deletes, writes of data and checks only.
    Multi(Vec<Op>),
    /// Opens the command's session.
    CreateSession {
        /// The negotiated timeout.
        timeout_ms: i32,
    },
    /// Moves the command's session to the command's origin and raises its attach counter. Takes no zxid.
    AttachSession {
        /// The newly negotiated timeout.
        timeout_ms: i32,
    },
    /// Ends the command's session and deletes its ephemeral nodes.
    CloseSession,
    /// Ends a session whose time has run out, unless it was attached anew since the leader looked.
    Expire {
        /// The session.
        session: SessionId,
        /// Its attach counter as the leader saw it.
        attach: u32,
    },
    /// Writes `/zookeeper/config`.
    SetConfig {
        /// The members, as ZooKeeper's text.
        data: Bytes,
    },
    /// Changes the settings.
    Configure(Settings),
    /// From here on commands are carried out by the rules of this level; does nothing if they are already.
    SetLevel(Level),
    /// Fails with this error: requests that are known to be malformed before they are logged, but take a zxid in
    /// ZooKeeper too. With [`ErrorCode::OK`] it succeeds and does nothing.
    Nop {
        /// The error.
        error: ErrorCode,
    },
}

impl Op {
    /// The command for a client's request, or `None` if the request is not a write. Malformed writes become
    /// [`Op::Nop`] with their error, so that they are answered in their order; which it is may depend on the level.
    pub fn from_request(request: &Request<'_>, level: Level) -> Option<Self> {
        let op = match request {
            Request::Create(create) => Self::from_create(create, false, level),
            Request::Create2(create) => Self::from_create(create, true, level),
            Request::CreateContainer(create) => Self::from_container(create, level),
            Request::CreateTtl(create) => Self::from_create_ttl(create, level),
            Request::Delete(r) => Self::with_path(r.path, ErrorCode::MARSHALLING_ERROR, |path| {
                Self::Delete { path, version: r.version }
            }),
            Request::SetData(r) => Self::with_path(r.path, ErrorCode::BAD_ARGUMENTS, |path| Self::SetData {
                path,
                data: r.data.map(Bytes::copy_from_slice),
                version: r.version,
            }),
            Request::SetAcl(r) => Self::from_set_acl(r),
            Request::Check(_) | Request::DeleteContainer(_) => Self::Nop { error: ErrorCode::UNIMPLEMENTED },
            Request::Multi(ops) => Self::from_multi(ops, level),
            Request::CloseSession => Self::CloseSession,
            _ => return None,
        };
        Some(op)
    }

    /// The command for a request of a known type whose body could not be decoded, or `None` if it is to be answered
    /// without the log: only for a multi does ZooKeeper take a zxid, which the next reply then shows.
    pub const fn from_undecodable(op: OpCode) -> Option<Self> {
        match op {
            OpCode::Multi => Some(Self::Nop { error: ErrorCode::MARSHALLING_ERROR }),
            _ => None,
        }
    }

    /// Whether the op may stand in a multi.
    pub(crate) const fn allowed_in_multi(&self) -> bool {
        matches!(
            self,
            Self::Create { .. }
                | Self::Delete { .. }
                | Self::SetData { .. }
                | Self::Check { .. }
                | Self::Nop { .. }
        )
    }

    /// A null path is malformed to ZooKeeper where it takes the path apart, and bad where it validates it first.
    fn with_path(path: Option<&str>, null: ErrorCode, make: impl FnOnce(String) -> Self) -> Self {
        match path {
            Some(path) => make(path.to_owned()),
            None => Self::Nop { error: null },
        }
    }

    fn from_set_acl(r: &SetAcl<'_>) -> Self {
        Self::with_path(r.path, ErrorCode::BAD_ARGUMENTS, |path| match acl_list(r.acl.as_deref()) {
            Ok(acl) => Self::SetAcl { path, acl, version: r.version },
            Err(error) => Self::Nop { error },
        })
    }

    fn from_create(create: &Create<'_>, with_stat: bool, level: Level) -> Self {
        match CreateMode::from_i32(create.flags) {
            Some(mode) => Self::create(create, (mode, -1), with_stat, level),
            None => Self::Nop { error: ErrorCode::BAD_ARGUMENTS },
        }
    }

    /// `createContainer` makes a container whatever its flags say, as long as they say something.
    fn from_container(create: &Create<'_>, level: Level) -> Self {
        match CreateMode::from_i32(create.flags) {
            Some(mode) if mode.is_ttl() => Self::create(create, (mode, -1), true, level),
            Some(_) => Self::create(create, (CreateMode::Container, -1), true, level),
            None => Self::Nop { error: ErrorCode::BAD_ARGUMENTS },
        }
    }

    fn from_create_ttl(request: &CreateTtl<'_>, level: Level) -> Self {
        match CreateMode::from_i32(request.create.flags) {
            Some(mode) if mode.is_ttl() => Self::create(&request.create, (mode, request.ttl_ms), true, level),
            _ => Self::Nop { error: ErrorCode::BAD_ARGUMENTS },
        }
    }

    fn create(create: &Create<'_>, (mode, ttl): (CreateMode, i64), with_stat: bool, level: Level) -> Self {
        // A time to live is looked at before the path.
        let null = check_ttl(mode, ttl, level).err().unwrap_or(ErrorCode::MARSHALLING_ERROR);
        match acl_list(create.acl.as_deref()) {
            Ok(acl) => Self::with_path(create.path, null, |path| Self::Create {
                path,
                data: create.data.map(Bytes::copy_from_slice),
                acl,
                mode,
                ttl,
                with_stat,
            }),
            Err(error) => Self::Nop { error },
        }
    }

    /// A multi with an operation that cannot be executed at all fails as a whole, with no results.
    fn from_multi(ops: &[MultiOp<'_>], level: Level) -> Self {
        match ops.iter().map(|op| Self::from_multi_op(op, level)).collect() {
            Some(ops) => Self::Multi(ops),
            None => Self::Nop { error: ErrorCode::MARSHALLING_ERROR },
        }
    }

    pub(crate) fn from_multi_op(op: &MultiOp<'_>, level: Level) -> Option<Self> {
        let op = match op {
            MultiOp::Create(create) => Self::from_multi_create(create, false, level)?,
            MultiOp::Create2(create) => Self::from_multi_create(create, true, level)?,
            MultiOp::CreateContainer(create) => {
                create.acl.as_ref()?;
                CreateMode::from_i32(create.flags).filter(|mode| !mode.is_ttl())?;
                Self::from_container(create, level)
            }
            MultiOp::CreateTtl(CreateTtl { create: Create { path: None, .. }, .. }) => return None,
            // ZooKeeper drops the time to live when the flags do not ask for one.
            MultiOp::CreateTtl(request) => match CreateMode::from_i32(request.create.flags) {
                Some(mode) if mode.is_ttl() => Self::from_create_ttl(request, level),
                _ => Self::from_create(&request.create, false, level),
            },
            MultiOp::Delete(r) => Self::Delete { path: r.path?.to_owned(), version: r.version },
            MultiOp::SetData(r) => Self::SetData {
                path: r.path?.to_owned(),
                data: r.data.map(Bytes::copy_from_slice),
                version: r.version,
            },
            MultiOp::Check(r) => Self::Check { path: r.path?.to_owned(), version: r.version },
            MultiOp::GetChildren(_) | MultiOp::GetData(_) => return None,
        };
        (op != Self::Nop { error: ErrorCode::MARSHALLING_ERROR }).then_some(op)
    }

    /// In a multi ZooKeeper turns creates with the container flag into that operation, whose result has the Stat, and
    /// refuses the whole multi for flags that mean nothing or ask for a time to live, which a create does not carry, and
    /// for a null list.
    fn from_multi_create(create: &Create<'_>, with_stat: bool, level: Level) -> Option<Self> {
        create.acl.as_ref()?;
        let mode = CreateMode::from_i32(create.flags).filter(|mode| !mode.is_ttl())?;
        Some(Self::create(create, (mode, -1), with_stat || mode == CreateMode::Container, level))
    }
}

/// Nodes with a time to live need `extendedTypesEnabled` in ZooKeeper, a flag of each server; here the level.
pub(crate) fn check_ttl(mode: CreateMode, ttl_ms: i64, level: Level) -> Result<(), ErrorCode> {
    let fits = if mode.is_ttl() { (1..=MAX_TTL).contains(&ttl_ms) } else { ttl_ms < 0 };
    match fits {
        _ if mode.is_ttl() && level < Level::TTL => Err(ErrorCode::UNIMPLEMENTED),
        true => Ok(()),
        false => Err(ErrorCode::BAD_ARGUMENTS),
    }
}

/// A null list is an empty one; both are refused when applied.
fn acl_list(list: Option<&[AclRef<'_>]>) -> Result<Vec<Acl>, ErrorCode> {
    list.unwrap_or_default().iter().map(|entry| entry.to_acl()).collect()
}
