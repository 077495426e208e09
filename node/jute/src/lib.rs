//! ZooKeeper's wire records.
//!
//! Owns the bytes of the client protocol of ZooKeeper 3.9, in both directions: a server decodes [`Request`] and
//! encodes [`Response`]; a client (tests, the simulator) does the reverse. It knows no sockets, sessions or trees.
//!
//! Invariant: decoding is total. Any bytes give a record or a [`DecodeError`] that names the field at fault; nothing
//! panics, and what is allocated is proportional to the bytes that were really there, never to a length they claim.
//!
//! A string or buffer of length -1 is `None` and stays distinct from an empty one, as in ZooKeeper. Bytes after the
//! end of a record are ignored, as in ZooKeeper.

mod codec;
mod connect;
mod error;
mod header;
mod multi;
mod request;
mod response;
mod types;

#[cfg(test)]
mod tests;

pub use codec::{
    Reader, begin_frame, end_frame, framed, put_bool, put_buffer, put_string, put_strings, put_vector_len,
};
pub use connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN, PROTOCOL_VERSION};
pub use error::{DecodeError, ErrorCode};
pub use header::{ReplyHeader, RequestHeader, WatcherEvent, xid};
pub use multi::{MultiOp, MultiResult, decode_multi, decode_multi_op, encode_multi};
pub use request::{
    Auth, Create, CreateTtl, PathVersion, PathWatch, Reconfig, Request, SetAcl, SetData, SetWatches,
};
pub use response::{ClientInfo, Response};
pub use types::{
    Acl, AclRef, AddWatchMode, CreateMode, EventType, Id, KEEPER_SYNC_CONNECTED, OpCode, Stat, WatcherType,
    perms,
};
