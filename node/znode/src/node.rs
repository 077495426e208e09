//! One node of the tree: what is stored of it, and its links.

use std::sync::Arc;

use pharos_jute::Stat;

use crate::acl_table::AclId;
use crate::hash::{hash_bytes, hash_words};
use crate::slab::NodeId;

/// The owner of container nodes, which clients see as 0.
pub(crate) const CONTAINER: i64 = i64::MIN;
/// The owner of nodes with a time to live is this and the time, as in ZooKeeper's `EphemeralType`; clients see it as 0.
/// No session has such a number: its first byte is a member's, and the bits between are of a time.
const TTL: i64 = 0xff << 56;
/// The longest time to live, in ms.
pub(crate) const MAX_TTL: i64 = (1 << 40) - 1;

/// The owner of a node that lives so long.
pub(crate) fn ttl_owner(ttl_ms: i64) -> i64 {
    assert!((1..=MAX_TTL).contains(&ttl_ms), "the time was checked");
    TTL | ttl_ms
}

/// The time to live that an owner means, in ms.
pub(crate) const fn ttl_of(owner: i64) -> Option<i64> {
    if owner & !MAX_TTL == TTL { Some(owner & MAX_TTL) } else { None }
}

/// A node's name and data in one allocation. Immutable and shared: rows on their way to the store keep the value they
/// were taken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    bytes: Arc<[u8]>,
    /// Length of the name; the top bit says that the data is null, not empty.
    name_len: u32,
}

const NULL_DATA: u32 = 1 << 31;

impl Blob {
    pub(crate) fn new(name: &str, data: Option<&[u8]>) -> Self {
        let len = u32::try_from(name.len()).ok().filter(|n| *n < NULL_DATA).expect("a name fits a frame");
        let bytes = [name.as_bytes(), data.unwrap_or_default()].concat();
        Self { bytes: bytes.into(), name_len: if data.is_some() { len } else { len | NULL_DATA } }
    }

    pub(crate) fn with_data(&self, data: Option<&[u8]>) -> Self {
        Self::new(self.name(), data)
    }

    pub(crate) fn name(&self) -> &str {
        std::str::from_utf8(self.name_bytes()).expect("names are made of strings")
    }

    pub(crate) fn name_bytes(&self) -> &[u8] {
        &self.bytes[..self.split()]
    }

    pub(crate) fn data(&self) -> Option<&[u8]> {
        (self.name_len & NULL_DATA == 0).then(|| &self.bytes[self.split()..])
    }

    pub(crate) fn data_len(&self) -> usize {
        self.bytes.len() - self.split()
    }

    const fn split(&self) -> usize {
        (self.name_len & !NULL_DATA) as usize
    }
}

/// A node's numbers: all that its stat row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) pzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    /// Session of an ephemeral node, [`CONTAINER`], that of a time to live, or 0.
    pub(crate) owner: i64,
    pub(crate) version: i32,
    /// Children ever created: the next sequential child's number. Clients see `2 * creates - children`.
    pub(crate) creates: i32,
    pub(crate) aversion: i32,
    pub(crate) acl: AclId,
}

impl Meta {
    /// Of a node created now.
    pub(crate) const fn created(zxid: i64, time_ms: i64, owner: i64, acl: AclId) -> Self {
        Self {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time_ms,
            mtime: time_ms,
            owner,
            version: 0,
            creates: 0,
            aversion: 0,
            acl,
        }
    }
}

/// What has to go to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dirty {
    /// The stat row.
    pub(crate) stat: bool,
    /// The data row.
    pub(crate) data: bool,
    /// The store has never heard of the node, so its deletion need not be told.
    pub(crate) new: bool,
}

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Hash of the full path: chained from the parent's.
    pub(crate) hash: u64,
    pub(crate) meta: Meta,
    pub(crate) blob: Blob,
    pub(crate) parent: NodeId,
    pub(crate) first_child: NodeId,
    pub(crate) next: NodeId,
    pub(crate) prev: NodeId,
    pub(crate) children: u32,
    pub(crate) dirty: Dirty,
}

impl Node {
    /// Whether a session owns the node.
    pub(crate) const fn is_ephemeral(&self) -> bool {
        self.meta.owner != 0 && self.meta.owner != CONTAINER && ttl_of(self.meta.owner).is_none()
    }

    /// Whether the leader's sweeper may delete the node: a container that is empty and was not always, or one whose time
    /// is over, which no change of its children prolongs.
    pub(crate) const fn is_expendable(&self, now_ms: i64) -> bool {
        let Meta { owner, creates, mtime, .. } = self.meta;
        let due = match ttl_of(owner) {
            Some(ttl_ms) => now_ms.saturating_sub(mtime) > ttl_ms,
            None => owner == CONTAINER && creates != 0,
        };
        due && self.children == 0
    }

    /// The metadata as clients see it.
    pub(crate) fn stat(&self) -> Stat {
        let meta = &self.meta;
        let children = self.children.cast_signed();
        Stat {
            czxid: meta.czxid,
            mzxid: meta.mzxid,
            ctime: meta.ctime,
            mtime: meta.mtime,
            version: meta.version,
            cversion: meta.creates.wrapping_mul(2).wrapping_sub(children),
            aversion: meta.aversion,
            ephemeral_owner: if self.is_ephemeral() { meta.owner } else { 0 },
            data_length: i32::try_from(self.blob.data_len()).expect("data fits a frame"),
            num_children: children,
            pzxid: meta.pzxid,
        }
    }

    /// The numbers' part of the state's digest. `acl` is the hash of the list's content: its place differs by history.
    pub(crate) fn stat_digest(&self, acl: u64) -> u64 {
        let meta = &self.meta;
        let pair =
            |high: i32, low: i32| u64::from(high.cast_unsigned()) << 32 | u64::from(low.cast_unsigned());
        hash_words(
            self.hash,
            &[
                meta.czxid.cast_unsigned(),
                meta.mzxid.cast_unsigned(),
                meta.pzxid.cast_unsigned(),
                meta.ctime.cast_unsigned(),
                meta.mtime.cast_unsigned(),
                meta.owner.cast_unsigned(),
                pair(meta.version, meta.creates),
                pair(meta.aversion, self.children.cast_signed()),
                acl,
            ],
        )
    }

    /// The data's part of the state's digest, kept apart so that a change of numbers does not hash the data again.
    pub(crate) fn data_digest(&self) -> u64 {
        self.blob.data().map_or(0, |data| hash_bytes(!self.hash, data))
    }
}
