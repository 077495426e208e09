//! Responses: what stands after a reply header without an error.

use bytes::BufMut;

use crate::{
    AclRef, DecodeError, ErrorCode, MultiResult, OpCode, Reader, ReplyHeader, Stat, put_buffer, put_string,
    put_strings, put_vector_len,
};

/// One identity of a connection, as `whoAmI` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientInfo<'a> {
    /// The scheme.
    pub scheme: &'a str,
    /// The user, without what proves it.
    pub user: &'a str,
}

/// The body of one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// No body: `delete`, `ping`, `setWatches`, `checkWatches`, `removeWatches`, `auth`, `closeSession`.
    Empty,
    /// A path: `create`, `sync`.
    Path(Option<&'a str>),
    /// Path and Stat: `create2`, `createContainer`, `createTTL`.
    Created {
        /// The created node's path.
        path: &'a str,
        /// Its Stat.
        stat: Stat,
    },
    /// A Stat: `exists`, `setData`, `setACL`.
    Stat(Stat),
    /// Data and Stat: `getData`, `reconfig`.
    Data {
        /// The data.
        data: Option<&'a [u8]>,
        /// The node's Stat.
        stat: Stat,
    },
    /// Names: `getChildren`, `getEphemerals`.
    Names(Vec<&'a str>),
    /// Names and the parent's Stat: `getChildren2`.
    Children {
        /// Names of the children.
        names: Vec<&'a str>,
        /// The parent's Stat.
        stat: Stat,
    },
    /// `getACL`.
    Acl {
        /// The entries.
        acl: Vec<AclRef<'a>>,
        /// The node's Stat.
        stat: Stat,
    },
    /// `multi` and `multiRead`.
    Multi(Vec<MultiResult<'a>>),
    /// The number of descendants: `getAllChildrenNumber`.
    Number(i32),
    /// `addWatch`, whose success has a body of four zero bytes.
    Watch(ErrorCode),
    /// `whoAmI`.
    WhoAmI(Vec<ClientInfo<'a>>),
    /// The server's token: `sasl`.
    Token(Option<&'a [u8]>),
}

impl<'a> Response<'a> {
    /// Reads the body of a successful response to a request of type `op`.
    pub fn decode(op: OpCode, body: &'a [u8]) -> Result<Self, DecodeError> {
        let r = &mut Reader::new(body);
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(r.string("path")?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::Created { path: r.string("path")?.unwrap_or_default(), stat: Stat::decode(r)? }
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl | OpCode::Check => Self::Stat(Stat::decode(r)?),
            OpCode::GetData | OpCode::Reconfig => {
                Self::Data { data: r.buffer("data")?, stat: Stat::decode(r)? }
            }
            OpCode::GetChildren | OpCode::GetEphemerals => Self::Names(r.strings("children")?),
            OpCode::GetChildren2 => Self::Children { names: r.strings("children")?, stat: Stat::decode(r)? },
            OpCode::GetAcl => {
                Self::Acl { acl: AclRef::decode_list(r)?.unwrap_or_default(), stat: Stat::decode(r)? }
            }
            OpCode::Multi | OpCode::MultiRead => Self::Multi(MultiResult::decode_list(r)?),
            OpCode::GetAllChildrenNumber => Self::Number(r.i32("totalNumber")?),
            OpCode::AddWatch => Self::Watch(ErrorCode(r.i32("err")?)),
            OpCode::WhoAmI => Self::WhoAmI(decode_client_infos(r)?),
            OpCode::Sasl => Self::Token(r.buffer("token")?),
            OpCode::Delete
            | OpCode::DeleteContainer
            | OpCode::Ping
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CreateSession
            | OpCode::CloseSession
            | OpCode::Error => Self::Empty,
        })
    }

    /// Appends header and body of a success.
    pub fn encode_message(&self, xid: i32, zxid: i64, out: &mut impl BufMut) {
        ReplyHeader { xid, zxid, err: ErrorCode::OK }.encode(out);
        self.encode(out);
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Empty => {}
            Self::Path(path) => put_string(out, *path),
            Self::Created { path, stat } => {
                put_string(out, Some(path));
                stat.encode(out);
            }
            Self::Stat(stat) => stat.encode(out),
            Self::Data { data, stat } => {
                put_buffer(out, *data);
                stat.encode(out);
            }
            Self::Names(names) => put_strings(out, names.iter().copied()),
            Self::Children { names, stat } => {
                put_strings(out, names.iter().copied());
                stat.encode(out);
            }
            Self::Acl { acl, stat } => {
                AclRef::encode_list(Some(acl), out);
                stat.encode(out);
            }
            Self::Multi(results) => MultiResult::encode_list(results, out),
            Self::Number(number) => out.put_i32(*number),
            Self::Watch(code) => out.put_i32(code.0),
            Self::WhoAmI(infos) => encode_client_infos(infos, out),
            Self::Token(token) => put_buffer(out, *token),
        }
    }
}

fn decode_client_infos<'a>(r: &mut Reader<'a>) -> Result<Vec<ClientInfo<'a>>, DecodeError> {
    let infos = r.vector("clientInfo", |r| {
        Ok(ClientInfo {
            scheme: r.string("authScheme")?.unwrap_or_default(),
            user: r.string("user")?.unwrap_or_default(),
        })
    })?;
    Ok(infos.unwrap_or_default())
}

fn encode_client_infos(infos: &[ClientInfo<'_>], out: &mut impl BufMut) {
    put_vector_len(out, infos.len());
    for info in infos {
        put_string(out, Some(info.scheme));
        put_string(out, Some(info.user));
    }
}
