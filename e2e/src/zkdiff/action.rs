//! What is done to both servers, with strings of its own, so that a step can be kept and shown.

use std::fmt;

use pharos_jute::{
    AclRef, Auth, Create, CreateTtl, MultiOp, OpCode, PathVersion, PathWatch, Request, SetAcl, SetData,
    SetWatches,
};

/// An ACL entry: permissions, scheme, id.
pub(crate) type AclEntry = (i32, String, String);

/// A node's path; `None` is the null string.
pub(crate) type Path = Option<String>;

/// A node's data; shown shortened.
#[derive(Clone)]
pub(crate) struct Data(pub(crate) Option<Vec<u8>>);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(bytes) if bytes.len() > 40 => write!(f, "<{} bytes>", bytes.len()),
            Some(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            None => f.write_str("null"),
        }
    }
}

/// The fields of all creates.
#[derive(Debug, Clone)]
pub(crate) struct NewNode {
    pub(crate) path: Path,
    pub(crate) data: Data,
    pub(crate) acl: Option<Vec<AclEntry>>,
    pub(crate) flags: i32,
    pub(crate) ttl_ms: i64,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Create(OpCode, NewNode),
    Delete(Path, i32),
    SetData(Path, Data, i32),
    SetAcl(Path, Option<Vec<AclEntry>>, i32),
    /// `exists`, `getData`, `getChildren` or `getChildren2`, perhaps with a watch.
    Read(OpCode, Path, bool),
    /// A request that is a path alone.
    Named(OpCode, Path),
    /// A check, which is allowed in a multi only.
    Check(Path, i32),
    Multi(Vec<Action>),
    MultiRead(Vec<Action>),
    /// `checkWatches`, `removeWatches` or `addWatch`.
    Watch(OpCode, Path, i32),
    /// `setWatches` or `setWatches2`: how far before the last zxid, and the five lists.
    SetWatches(OpCode, bool, [Vec<String>; 5]),
    Auth(String, Data),
    Ping,
    WhoAmI,
    /// A known type whose body ends early.
    Malformed(OpCode),
    /// A type that does not exist.
    UnknownOp(i32),
}

impl Action {
    /// Writes the request. `zxid` is the last one seen on the connection.
    pub(crate) fn encode(&self, xid: i32, zxid: i64, out: &mut Vec<u8>) {
        match self {
            Self::Malformed(op) => raw(xid, op.as_i32(), b"\0\0\0\x09/a", out),
            Self::UnknownOp(op) => raw(xid, *op, b"", out),
            _ => self.with_request(zxid, |request| request.encode_message(xid, out)),
        }
    }

    /// The type whose response to expect; [`OpCode::Error`] if none can come.
    pub(crate) fn op(&self) -> OpCode {
        match self {
            Self::Create(op, _)
            | Self::Read(op, ..)
            | Self::Named(op, _)
            | Self::Watch(op, ..)
            | Self::SetWatches(op, ..)
            | Self::Malformed(op) => *op,
            Self::Delete(..) => OpCode::Delete,
            Self::SetData(..) => OpCode::SetData,
            Self::SetAcl(..) => OpCode::SetAcl,
            Self::Check(..) => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Auth(..) => OpCode::Auth,
            Self::Ping => OpCode::Ping,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::UnknownOp(_) => OpCode::Error,
        }
    }

    fn with_request<R>(&self, zxid: i64, use_it: impl FnOnce(Request<'_>) -> R) -> R {
        match self {
            Self::Create(op, node) => use_it(create(*op, node)),
            Self::Delete(path, version) => use_it(Request::Delete(path_version(path, *version))),
            Self::SetData(path, data, version) => use_it(Request::SetData(set_data(path, data, *version))),
            Self::SetAcl(path, acl, version) => {
                let acl = acl.as_deref().map(entries);
                use_it(Request::SetAcl(SetAcl { path: path.as_deref(), acl, version: *version }))
            }
            Self::Read(op, path, watch) => use_it(read(*op, path, *watch)),
            Self::Named(op, path) => use_it(named(*op, path.as_deref())),
            Self::Check(path, version) => use_it(Request::Check(path_version(path, *version))),
            Self::Multi(ops) => use_it(Request::Multi(ops.iter().map(Self::multi_op).collect())),
            Self::MultiRead(ops) => use_it(Request::MultiRead(ops.iter().map(Self::multi_op).collect())),
            Self::Watch(op, path, number) => use_it(match op {
                OpCode::AddWatch => Request::AddWatch(path.as_deref(), *number),
                OpCode::CheckWatches => Request::CheckWatches(path.as_deref(), *number),
                _ => Request::RemoveWatches(path.as_deref(), *number),
            }),
            Self::SetWatches(op, past, lists) => {
                use_it(set_watches(*op, if *past { 0 } else { zxid }, lists))
            }
            Self::Auth(scheme, auth) => {
                use_it(Request::Auth(Auth { kind: 0, scheme: Some(scheme), auth: auth.0.as_deref() }))
            }
            Self::Ping => use_it(Request::Ping),
            Self::WhoAmI | Self::Malformed(_) | Self::UnknownOp(_) => use_it(Request::WhoAmI),
        }
    }

    fn multi_op(&self) -> MultiOp<'_> {
        match self {
            Self::Create(OpCode::Create2, node) => MultiOp::Create2(new_node(node)),
            Self::Create(OpCode::CreateContainer, node) => MultiOp::CreateContainer(new_node(node)),
            Self::Create(OpCode::CreateTtl, node) => {
                MultiOp::CreateTtl(CreateTtl { create: new_node(node), ttl_ms: node.ttl_ms })
            }
            Self::Create(_, node) => MultiOp::Create(new_node(node)),
            Self::SetData(path, data, version) => MultiOp::SetData(set_data(path, data, *version)),
            Self::Check(path, version) => MultiOp::Check(path_version(path, *version)),
            Self::Delete(path, version) => MultiOp::Delete(path_version(path, *version)),
            Self::Read(OpCode::GetData, path, watch) => {
                MultiOp::GetData(PathWatch { path: path.as_deref(), watch: *watch })
            }
            Self::Read(_, path, watch) => {
                MultiOp::GetChildren(PathWatch { path: path.as_deref(), watch: *watch })
            }
            other => unreachable!("the generator puts no {other:?} into a multi"),
        }
    }
}

fn raw(xid: i32, op: i32, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&xid.to_be_bytes());
    out.extend_from_slice(&op.to_be_bytes());
    out.extend_from_slice(body);
}

fn entries(acl: &[AclEntry]) -> Vec<AclRef<'_>> {
    acl.iter()
        .map(|(perms, scheme, id)| AclRef { perms: *perms, scheme: Some(scheme), id: Some(id) })
        .collect()
}

fn new_node(node: &NewNode) -> Create<'_> {
    Create {
        path: node.path.as_deref(),
        data: node.data.0.as_deref(),
        acl: node.acl.as_deref().map(entries),
        flags: node.flags,
    }
}

fn create(op: OpCode, node: &NewNode) -> Request<'_> {
    match op {
        OpCode::Create2 => Request::Create2(new_node(node)),
        OpCode::CreateContainer => Request::CreateContainer(new_node(node)),
        OpCode::CreateTtl => Request::CreateTtl(CreateTtl { create: new_node(node), ttl_ms: node.ttl_ms }),
        _ => Request::Create(new_node(node)),
    }
}

fn path_version(path: &Path, version: i32) -> PathVersion<'_> {
    PathVersion { path: path.as_deref(), version }
}

fn set_data<'a>(path: &'a Path, data: &'a Data, version: i32) -> SetData<'a> {
    SetData { path: path.as_deref(), data: data.0.as_deref(), version }
}

fn read(op: OpCode, path: &Path, watch: bool) -> Request<'_> {
    let body = PathWatch { path: path.as_deref(), watch };
    match op {
        OpCode::Exists => Request::Exists(body),
        OpCode::GetData => Request::GetData(body),
        OpCode::GetChildren => Request::GetChildren(body),
        _ => Request::GetChildren2(body),
    }
}

fn named(op: OpCode, path: Option<&str>) -> Request<'_> {
    match op {
        OpCode::Sync => Request::Sync(path),
        OpCode::GetAcl => Request::GetAcl(path),
        OpCode::GetEphemerals => Request::GetEphemerals(path),
        _ => Request::GetAllChildrenNumber(path),
    }
}

fn set_watches(op: OpCode, relative_zxid: i64, lists: &[Vec<String>; 5]) -> Request<'_> {
    let [data, exist, child, persistent, persistent_recursive] =
        lists.each_ref().map(|list| list.iter().map(String::as_str).collect());
    let watches = SetWatches { relative_zxid, data, exist, child, persistent, persistent_recursive };
    match op {
        OpCode::SetWatches2 => Request::SetWatches2(watches),
        _ => Request::SetWatches(watches),
    }
}
