//! Records and numbers that requests and responses share.

use bytes::BufMut;

use crate::{DecodeError, ErrorCode, Reader, put_string, put_vector_len};

/// The state of a watch event's connection: connected (the only one a server sends).
pub const KEEPER_SYNC_CONNECTED: i32 = 3;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The meaning of a number of the wire, if it has one.
            pub const fn from_i32(value: i32) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn as_i32(self) -> i32 {
                self as i32
            }
        }
    };
}

numbered! {
    /// The type of a request.
    OpCode {
        /// Creates a node, answers its path.
        Create = 1,
        /// Deletes a node.
        Delete = 2,
        /// Asks for a node's Stat.
        Exists = 3,
        /// Reads a node's data.
        GetData = 4,
        /// Writes a node's data.
        SetData = 5,
        /// Reads a node's ACL.
        GetAcl = 6,
        /// Writes a node's ACL.
        SetAcl = 7,
        /// Lists a node's children.
        GetChildren = 8,
        /// Waits until this server has seen all that was committed before.
        Sync = 9,
        /// Keeps the session alive.
        Ping = 11,
        /// Lists a node's children, with its Stat.
        GetChildren2 = 12,
        /// Checks a node's version (in a multi only).
        Check = 13,
        /// Several writes, all or none.
        Multi = 14,
        /// Creates a node, answers path and Stat.
        Create2 = 15,
        /// Changes the ensemble's membership.
        Reconfig = 16,
        /// Asks whether a watch is set.
        CheckWatches = 17,
        /// Removes watches.
        RemoveWatches = 18,
        /// Creates a container node.
        CreateContainer = 19,
        /// Deletes an empty container (the server's own; refused from clients).
        DeleteContainer = 20,
        /// Creates a node with a time to live.
        CreateTtl = 21,
        /// Several reads, each by itself.
        MultiRead = 22,
        /// Adds an identity to the connection.
        Auth = 100,
        /// Sets watches again after a reconnect.
        SetWatches = 101,
        /// One step of SASL.
        Sasl = 102,
        /// Lists the session's ephemeral nodes.
        GetEphemerals = 103,
        /// Counts all descendants.
        GetAllChildrenNumber = 104,
        /// Sets watches again after a reconnect, persistent ones too.
        SetWatches2 = 105,
        /// Sets a persistent watch.
        AddWatch = 106,
        /// Lists the connection's identities.
        WhoAmI = 107,
        /// Opens a session (the server's own; never on the wire).
        CreateSession = -10,
        /// Ends the session.
        CloseSession = -11,
        /// Marks a failed result in a multi.
        Error = -1,
    }
}

numbered! {
    /// The flags of a create.
    CreateMode {
        /// Stays until deleted.
        Persistent = 0,
        /// Lives as long as its session.
        Ephemeral = 1,
        /// Persistent, with a number appended to the name.
        PersistentSequential = 2,
        /// Ephemeral, with a number appended to the name.
        EphemeralSequential = 3,
        /// Removed by the server when its last child has gone.
        Container = 4,
        /// Removed by the server when childless and unchanged for a time.
        PersistentTtl = 5,
        /// As `PersistentTtl`, with a number appended to the name.
        PersistentSequentialTtl = 6,
    }
}

impl CreateMode {
    /// Whether the node lives as long as its session.
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether a number is appended to the name.
    pub const fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential | Self::PersistentSequentialTtl)
    }

    /// Whether the node has a time to live.
    pub const fn is_ttl(self) -> bool {
        matches!(self, Self::PersistentTtl | Self::PersistentSequentialTtl)
    }
}

numbered! {
    /// What a watch event says.
    EventType {
        /// The node was created.
        NodeCreated = 1,
        /// The node was deleted.
        NodeDeleted = 2,
        /// The node's data was written.
        NodeDataChanged = 3,
        /// A child was created or deleted.
        NodeChildrenChanged = 4,
    }
}

numbered! {
    /// Which watches `checkWatches` and `removeWatches` mean.
    WatcherType {
        /// Watches on children.
        Children = 1,
        /// Watches on data and existence.
        Data = 2,
        /// All one-shot watches.
        Any = 3,
        /// Persistent watches.
        Persistent = 4,
        /// Persistent recursive watches.
        PersistentRecursive = 5,
    }
}

numbered! {
    /// The mode of `addWatch`.
    AddWatchMode {
        /// Events of the node and its children list.
        Persistent = 0,
        /// Events of the node and all below.
        PersistentRecursive = 1,
    }
}

/// Bits of [`Acl::perms`].
pub mod perms {
    /// Read data, ACL and children.
    pub const READ: i32 = 1;
    /// Write data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Write the ACL.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

/// A node's metadata as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Stat {
    /// Transaction that created the node.
    pub czxid: i64,
    /// Transaction that last wrote the data.
    pub mzxid: i64,
    /// Creation time, ms since 1970.
    pub ctime: i64,
    /// Time of the last data write, ms since 1970.
    pub mtime: i64,
    /// Number of data writes.
    pub version: i32,
    /// Number of changes to the children list.
    pub cversion: i32,
    /// Number of ACL writes.
    pub aversion: i32,
    /// Owning session of an ephemeral node, else 0.
    pub ephemeral_owner: i64,
    /// Bytes of data; 0 for both null and empty.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// Transaction that last changed the children list.
    pub pzxid: i64,
}

impl Stat {
    /// Bytes of a Stat on the wire.
    pub const LEN: usize = 68;

    /// Appends the record.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i64(self.czxid);
        out.put_i64(self.mzxid);
        out.put_i64(self.ctime);
        out.put_i64(self.mtime);
        out.put_i32(self.version);
        out.put_i32(self.cversion);
        out.put_i32(self.aversion);
        out.put_i64(self.ephemeral_owner);
        out.put_i32(self.data_length);
        out.put_i32(self.num_children);
        out.put_i64(self.pzxid);
    }

    /// Reads the record.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: r.i64("stat.czxid")?,
            mzxid: r.i64("stat.mzxid")?,
            ctime: r.i64("stat.ctime")?,
            mtime: r.i64("stat.mtime")?,
            version: r.i32("stat.version")?,
            cversion: r.i32("stat.cversion")?,
            aversion: r.i32("stat.aversion")?,
            ephemeral_owner: r.i64("stat.ephemeralOwner")?,
            data_length: r.i32("stat.dataLength")?,
            num_children: r.i32("stat.numChildren")?,
            pzxid: r.i64("stat.pzxid")?,
        })
    }
}

/// An identity: a scheme and what it calls its user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// `world`, `auth`, `digest`, `ip`, `x509`, `sasl` or `super`.
    pub scheme: String,
    /// The user within the scheme.
    pub id: String,
}

impl Id {
    /// An identity of these two parts.
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Self { scheme: scheme.into(), id: id.into() }
    }
}

/// One entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// Bits of [`perms`].
    pub perms: i32,
    /// To whom they are given.
    pub id: Id,
}

impl Acl {
    /// An entry of these parts.
    pub fn new(perms: i32, scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Self { perms, id: Id::new(scheme, id) }
    }

    /// Everything to everyone.
    pub fn open() -> Self {
        Self::new(perms::ALL, "world", "anyone")
    }

    /// The entry, borrowed, as it goes on the wire.
    pub fn as_ref(&self) -> AclRef<'_> {
        AclRef { perms: self.perms, scheme: Some(&self.id.scheme), id: Some(&self.id.id) }
    }
}

/// One entry of an access control list as it stands on the wire, where both strings may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclRef<'a> {
    /// Bits of [`perms`].
    pub perms: i32,
    /// The scheme.
    pub scheme: Option<&'a str>,
    /// The user within the scheme.
    pub id: Option<&'a str>,
}

impl<'a> AclRef<'a> {
    /// The entry with strings of its own. A null scheme is an invalid ACL and a null id a malformed request, as in
    /// ZooKeeper.
    pub fn to_acl(self) -> Result<Acl, ErrorCode> {
        let scheme = self.scheme.ok_or(ErrorCode::INVALID_ACL)?;
        let id = self.id.ok_or(ErrorCode::MARSHALLING_ERROR)?;
        Ok(Acl::new(self.perms, scheme, id))
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.perms);
        put_string(out, self.scheme);
        put_string(out, self.id);
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { perms: r.i32("acl.perms")?, scheme: r.string("acl.scheme")?, id: r.string("acl.id")? })
    }

    pub(crate) fn encode_list(list: Option<&[Self]>, out: &mut impl BufMut) {
        match list {
            None => out.put_i32(-1),
            Some(entries) => {
                put_vector_len(out, entries.len());
                entries.iter().for_each(|entry| entry.encode(out));
            }
        }
    }

    pub(crate) fn decode_list(r: &mut Reader<'a>) -> Result<Option<Vec<Self>>, DecodeError> {
        r.vector("acl", AclRef::decode)
    }
}
