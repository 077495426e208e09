//! Requests: one variant per type of ZooKeeper 3.9's protocol, borrowed from the frame.

use bytes::BufMut;

use crate::{
    AclRef, DecodeError, MultiOp, OpCode, Reader, RequestHeader, decode_multi, encode_multi, put_bool,
    put_buffer, put_string, put_strings,
};

type Result<T> = std::result::Result<T, DecodeError>;

/// The body of `create`, `create2` and `createContainer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create<'a> {
    /// The node's path.
    pub path: Option<&'a str>,
    /// Its data.
    pub data: Option<&'a [u8]>,
    /// Its ACL.
    pub acl: Option<Vec<AclRef<'a>>>,
    /// A [`crate::CreateMode`], or a number that is none.
    pub flags: i32,
}

/// The body of `createTTL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTtl<'a> {
    /// What all creates carry.
    pub create: Create<'a>,
    /// The time to live, ms.
    pub ttl_ms: i64,
}

/// A path and an expected version: `delete` and `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathVersion<'a> {
    /// The node's path.
    pub path: Option<&'a str>,
    /// The version it must have; -1 takes any.
    pub version: i32,
}

/// A path and whether to set a watch: `exists`, `getData`, `getChildren`, `getChildren2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathWatch<'a> {
    /// The node's path.
    pub path: Option<&'a str>,
    /// Whether to set a watch.
    pub watch: bool,
}

/// The body of `setData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetData<'a> {
    /// The node's path.
    pub path: Option<&'a str>,
    /// The new data.
    pub data: Option<&'a [u8]>,
    /// The version the node must have; -1 takes any.
    pub version: i32,
}

/// The body of `setACL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAcl<'a> {
    /// The node's path.
    pub path: Option<&'a str>,
    /// The new ACL.
    pub acl: Option<Vec<AclRef<'a>>>,
    /// The ACL version the node must have; -1 takes any.
    pub version: i32,
}

/// The body of `setWatches` and `setWatches2`; the former has no persistent lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetWatches<'a> {
    /// The last zxid the client saw; what changed later is told at once.
    pub relative_zxid: i64,
    /// Paths with data watches.
    pub data: Vec<&'a str>,
    /// Paths with watches on coming into existence.
    pub exist: Vec<&'a str>,
    /// Paths with child watches.
    pub child: Vec<&'a str>,
    /// Paths with persistent watches.
    pub persistent: Vec<&'a str>,
    /// Paths with persistent recursive watches.
    pub persistent_recursive: Vec<&'a str>,
}

/// The body of `auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Not used by servers.
    pub kind: i32,
    /// The scheme.
    pub scheme: Option<&'a str>,
    /// The credentials.
    pub auth: Option<&'a [u8]>,
}

/// The body of `reconfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconfig<'a> {
    /// Servers to add, incrementally.
    pub joining: Option<&'a str>,
    /// Servers to remove, incrementally.
    pub leaving: Option<&'a str>,
    /// The whole new membership.
    pub new_members: Option<&'a str>,
    /// The configuration version expected; -1 takes any.
    pub config_id: i64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Creates a node, answers its path.
    Create(Create<'a>),
    /// Creates a node, answers path and Stat.
    Create2(Create<'a>),
    /// Creates a container node.
    CreateContainer(Create<'a>),
    /// Creates a node with a time to live.
    CreateTtl(CreateTtl<'a>),
    /// Deletes a node.
    Delete(PathVersion<'a>),
    /// Deletes an empty container; refused from clients.
    DeleteContainer(Option<&'a str>),
    /// Asks for a node's Stat.
    Exists(PathWatch<'a>),
    /// Reads a node's data.
    GetData(PathWatch<'a>),
    /// Writes a node's data.
    SetData(SetData<'a>),
    /// Reads a node's ACL.
    GetAcl(Option<&'a str>),
    /// Writes a node's ACL.
    SetAcl(SetAcl<'a>),
    /// Lists a node's children.
    GetChildren(PathWatch<'a>),
    /// Lists a node's children, with its Stat.
    GetChildren2(PathWatch<'a>),
    /// Waits until this server has seen all that was committed before.
    Sync(Option<&'a str>),
    /// Keeps the session alive.
    Ping,
    /// Checks a version; a server refuses it outside a multi.
    Check(PathVersion<'a>),
    /// Several writes, all or none.
    Multi(Vec<MultiOp<'a>>),
    /// Several reads, each by itself.
    MultiRead(Vec<MultiOp<'a>>),
    /// Changes the ensemble's membership.
    Reconfig(Reconfig<'a>),
    /// Asks whether a watch is set: path and [`crate::WatcherType`], or a number that is none.
    CheckWatches(Option<&'a str>, i32),
    /// Removes watches: path and [`crate::WatcherType`], or a number that is none.
    RemoveWatches(Option<&'a str>, i32),
    /// Adds an identity to the connection.
    Auth(Auth<'a>),
    /// Sets watches again after a reconnect.
    SetWatches(SetWatches<'a>),
    /// As `SetWatches`, with persistent ones.
    SetWatches2(SetWatches<'a>),
    /// One step of SASL: the client's token.
    Sasl(Option<&'a [u8]>),
    /// Lists the session's ephemeral nodes below a prefix.
    GetEphemerals(Option<&'a str>),
    /// Counts all descendants.
    GetAllChildrenNumber(Option<&'a str>),
    /// Sets a persistent watch: path and [`crate::AddWatchMode`], or a number that is none.
    AddWatch(Option<&'a str>, i32),
    /// Lists the connection's identities.
    WhoAmI,
    /// Ends the session.
    CloseSession,
}

impl<'a> Request<'a> {
    /// Reads the body of a request whose header said `op`.
    pub fn decode(op: i32, body: &'a [u8]) -> Result<Self> {
        let known = OpCode::from_i32(op).ok_or(DecodeError::UnknownOp(op))?;
        let r = &mut Reader::new(body);
        Ok(match known {
            OpCode::Create => Self::Create(Create::decode(r)?),
            OpCode::Create2 => Self::Create2(Create::decode(r)?),
            OpCode::CreateContainer => Self::CreateContainer(Create::decode(r)?),
            OpCode::CreateTtl => Self::CreateTtl(CreateTtl::decode(r)?),
            OpCode::Delete => Self::Delete(PathVersion::decode(r)?),
            OpCode::DeleteContainer => Self::DeleteContainer(r.string("path")?),
            OpCode::Exists => Self::Exists(PathWatch::decode(r)?),
            OpCode::GetData => Self::GetData(PathWatch::decode(r)?),
            OpCode::SetData => Self::SetData(SetData::decode(r)?),
            OpCode::GetAcl => Self::GetAcl(r.string("path")?),
            OpCode::SetAcl => Self::SetAcl(SetAcl::decode(r)?),
            OpCode::GetChildren => Self::GetChildren(PathWatch::decode(r)?),
            OpCode::GetChildren2 => Self::GetChildren2(PathWatch::decode(r)?),
            OpCode::Sync => Self::Sync(r.string("path")?),
            OpCode::Ping => Self::Ping,
            OpCode::Check => Self::Check(PathVersion::decode(r)?),
            OpCode::Multi => Self::Multi(decode_multi(r)?),
            OpCode::MultiRead => Self::MultiRead(decode_multi(r)?),
            OpCode::Reconfig => Self::Reconfig(Reconfig::decode(r)?),
            OpCode::CheckWatches => Self::CheckWatches(r.string("path")?, r.i32("type")?),
            OpCode::RemoveWatches => Self::RemoveWatches(r.string("path")?, r.i32("type")?),
            OpCode::Auth => Self::Auth(Auth::decode(r)?),
            OpCode::SetWatches => Self::SetWatches(SetWatches::decode(r)?),
            OpCode::SetWatches2 => Self::SetWatches2(SetWatches::decode2(r)?),
            OpCode::Sasl => Self::Sasl(r.buffer("token")?),
            OpCode::GetEphemerals => Self::GetEphemerals(r.string("prefixPath")?),
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber(r.string("path")?),
            OpCode::AddWatch => Self::AddWatch(r.string("path")?, r.i32("mode")?),
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::CloseSession => Self::CloseSession,
            OpCode::CreateSession | OpCode::Error => return Err(DecodeError::UnknownOp(op)),
        })
    }

    /// The request's type.
    pub const fn op(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::CreateContainer(_) => OpCode::CreateContainer,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::DeleteContainer(_) => OpCode::DeleteContainer,
            Self::Exists(_) => OpCode::Exists,
            Self::GetData(_) => OpCode::GetData,
            Self::SetData(_) => OpCode::SetData,
            Self::GetAcl(_) => OpCode::GetAcl,
            Self::SetAcl(_) => OpCode::SetAcl,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetChildren2(_) => OpCode::GetChildren2,
            Self::Sync(_) => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::Check(_) => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::CheckWatches(..) => OpCode::CheckWatches,
            Self::RemoveWatches(..) => OpCode::RemoveWatches,
            Self::Auth(_) => OpCode::Auth,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::Sasl(_) => OpCode::Sasl,
            Self::GetEphemerals(_) => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber(_) => OpCode::GetAllChildrenNumber,
            Self::AddWatch(..) => OpCode::AddWatch,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    /// Appends header and body.
    pub fn encode_message(&self, xid: i32, out: &mut impl BufMut) {
        RequestHeader { xid, op: self.op().as_i32() }.encode(out);
        self.encode(out);
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Create(c) | Self::Create2(c) | Self::CreateContainer(c) => c.encode(out),
            Self::CreateTtl(c) => c.encode(out),
            Self::Delete(p) | Self::Check(p) => p.encode(out),
            Self::Exists(p) | Self::GetData(p) | Self::GetChildren(p) | Self::GetChildren2(p) => {
                p.encode(out)
            }
            Self::SetData(s) => s.encode(out),
            Self::SetAcl(s) => s.encode(out),
            Self::DeleteContainer(path)
            | Self::GetAcl(path)
            | Self::Sync(path)
            | Self::GetEphemerals(path)
            | Self::GetAllChildrenNumber(path) => put_string(out, *path),
            Self::Multi(ops) | Self::MultiRead(ops) => encode_multi(ops, out),
            Self::Reconfig(c) => c.encode(out),
            Self::CheckWatches(path, number)
            | Self::RemoveWatches(path, number)
            | Self::AddWatch(path, number) => {
                put_string(out, *path);
                out.put_i32(*number);
            }
            Self::Auth(a) => a.encode(out),
            Self::SetWatches(w) => w.encode(out),
            Self::SetWatches2(w) => w.encode2(out),
            Self::Sasl(token) => put_buffer(out, *token),
            Self::Ping | Self::WhoAmI | Self::CloseSession => {}
        }
    }
}

impl<'a> Create<'a> {
    pub(crate) fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            path: r.string("path")?,
            data: r.buffer("data")?,
            acl: AclRef::decode_list(r)?,
            flags: r.i32("flags")?,
        })
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.path);
        put_buffer(out, self.data);
        AclRef::encode_list(self.acl.as_deref(), out);
        out.put_i32(self.flags);
    }
}

impl<'a> CreateTtl<'a> {
    pub(crate) fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { create: Create::decode(r)?, ttl_ms: r.i64("ttl")? })
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.create.encode(out);
        out.put_i64(self.ttl_ms);
    }
}

impl<'a> PathVersion<'a> {
    pub(crate) fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { path: r.string("path")?, version: r.i32("version")? })
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.path);
        out.put_i32(self.version);
    }
}

impl<'a> PathWatch<'a> {
    pub(crate) fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { path: r.string("path")?, watch: r.bool("watch")? })
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.path);
        put_bool(out, self.watch);
    }
}

impl<'a> SetData<'a> {
    pub(crate) fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { path: r.string("path")?, data: r.buffer("data")?, version: r.i32("version")? })
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.path);
        put_buffer(out, self.data);
        out.put_i32(self.version);
    }
}

impl<'a> SetAcl<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { path: r.string("path")?, acl: AclRef::decode_list(r)?, version: r.i32("version")? })
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.path);
        AclRef::encode_list(self.acl.as_deref(), out);
        out.put_i32(self.version);
    }
}

impl<'a> SetWatches<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            relative_zxid: r.i64("relativeZxid")?,
            data: r.strings("dataWatches")?,
            exist: r.strings("existWatches")?,
            child: r.strings("childWatches")?,
            persistent: Vec::new(),
            persistent_recursive: Vec::new(),
        })
    }

    fn decode2(r: &mut Reader<'a>) -> Result<Self> {
        let mut watches = Self::decode(r)?;
        watches.persistent = r.strings("persistentWatches")?;
        watches.persistent_recursive = r.strings("persistentRecursiveWatches")?;
        Ok(watches)
    }

    fn encode(&self, out: &mut impl BufMut) {
        out.put_i64(self.relative_zxid);
        put_strings(out, self.data.iter().copied());
        put_strings(out, self.exist.iter().copied());
        put_strings(out, self.child.iter().copied());
    }

    fn encode2(&self, out: &mut impl BufMut) {
        self.encode(out);
        put_strings(out, self.persistent.iter().copied());
        put_strings(out, self.persistent_recursive.iter().copied());
    }
}

impl<'a> Auth<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { kind: r.i32("type")?, scheme: r.string("scheme")?, auth: r.buffer("auth")? })
    }

    fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.kind);
        put_string(out, self.scheme);
        put_buffer(out, self.auth);
    }
}

impl<'a> Reconfig<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            joining: r.string("joiningServers")?,
            leaving: r.string("leavingServers")?,
            new_members: r.string("newMembers")?,
            config_id: r.i64("curConfigId")?,
        })
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_string(out, self.joining);
        put_string(out, self.leaving);
        put_string(out, self.new_members);
        out.put_i64(self.config_id);
    }
}
