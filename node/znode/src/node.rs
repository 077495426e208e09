//! One node of the tree: what is stored of it, and its links.

use std::cell::Cell;
use std::sync::Arc;

use pharos_jute::Stat;

use crate::acl_table::AclId;
use crate::cold::{COLD_BYTES, Cold};
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

/// What stands behind a node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the data is null, not empty.
    Null,
    /// The data.
    Here,
    /// What is kept of data that only the store has: see [`Cold`].
    Cold,
}

/// A node's name and data in one allocation. Immutable and shared: rows on their way to the store keep the value they
/// were taken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    bytes: Arc<[u8]>,
    name_len: u16,
    kind: Kind,
}

/// A blob, borrowed. A node keeps the parts without the padding of [`Blob`].
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    bytes: &'a [u8],
    name_len: u16,
    kind: Kind,
}

impl Blob {
    pub(crate) fn new(name: &str, data: Option<&[u8]>) -> Self {
        let kind = if data.is_some() { Kind::Here } else { Kind::Null };
        Self::of(name.as_bytes(), data.unwrap_or_default(), kind)
    }

    /// A name whose data only the store has.
    pub(crate) fn cold(name: &str, cold: Cold) -> Self {
        Self::of(name.as_bytes(), &cold.to_bytes(), Kind::Cold)
    }

    fn of(name: &[u8], rest: &[u8], kind: Kind) -> Self {
        let name_len = u16::try_from(name.len()).expect("a path has at most 65,535 bytes");
        Self { bytes: [name, rest].concat().into(), name_len, kind }
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts { bytes: &self.bytes, name_len: self.name_len, kind: self.kind }
    }
}

impl<'a> Parts<'a> {
    pub(crate) fn name(self) -> &'a str {
        std::str::from_utf8(self.name_bytes()).expect("names are made of strings")
    }

    pub(crate) fn name_bytes(self) -> &'a [u8] {
        &self.bytes[..usize::from(self.name_len)]
    }

    pub(crate) const fn kind(self) -> Kind {
        self.kind
    }

    /// The data, unless it is null or only the store has it.
    pub(crate) fn data(self) -> Option<&'a [u8]> {
        (self.kind == Kind::Here).then(|| self.rest())
    }

    pub(crate) fn cold(self) -> Option<Cold> {
        (self.kind == Kind::Cold).then(|| Cold::from_bytes(self.rest()))
    }

    pub(crate) fn data_len(self) -> usize {
        match self.kind {
            Kind::Cold => Cold::from_bytes(self.rest()).len(),
            Kind::Null | Kind::Here => self.rest().len(),
        }
    }

    /// What the data counts against the memory for values: nothing where making it cold would free nothing.
    pub(crate) fn weight(self) -> u64 {
        match self.kind {
            Kind::Here if self.rest().len() > COLD_BYTES => self.rest().len() as u64,
            Kind::Here | Kind::Null | Kind::Cold => 0,
        }
    }

    fn rest(self) -> &'a [u8] {
        &self.bytes[usize::from(self.name_len)..]
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

/// What has to go to the store: a set of bits, for a node's size counts a million times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dirty(pub(crate) u8);

impl Dirty {
    /// The stat row.
    pub(crate) const STAT: Self = Self(1);
    /// The data row.
    pub(crate) const DATA: Self = Self(2);
    /// Both rows of a node that the store has never heard of, so that its deletion need not be told.
    pub(crate) const NEW: Self = Self(7);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which of the last cuts a node's data went with: see `Clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CutTag(u8);

impl CutTag {
    pub(crate) const fn next(self) -> Self {
        Self((self.0 + 1) % 4)
    }
}

/// What decides whether a node's data stays in memory, and what its kind is.
#[derive(Debug, Clone)]
struct Marks(Cell<u8>);

impl Marks {
    const KIND: u8 = 0b11;
    const READ: u8 = 0b100;
    const TAG_AT: u8 = 3;

    fn new(kind: Kind) -> Self {
        Self(Cell::new(kind as u8))
    }

    fn kind(&self) -> Kind {
        match self.0.get() & Self::KIND {
            0 => Kind::Null,
            1 => Kind::Here,
            _ => Kind::Cold,
        }
    }

    fn set_kind(&self, kind: Kind) {
        self.0.set(self.0.get() & !Self::KIND | kind as u8);
    }
}

/// One node. A million of them are the rule, so that every byte counts: see `a_node_is_small`.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Hash of the full path: chained from the parent's.
    pub(crate) hash: u64,
    pub(crate) meta: Meta,
    bytes: Arc<[u8]>,
    pub(crate) parent: NodeId,
    pub(crate) first_child: NodeId,
    pub(crate) next: NodeId,
    pub(crate) prev: NodeId,
    pub(crate) children: u32,
    name_len: u16,
    marks: Marks,
    pub(crate) dirty: Dirty,
}

impl Node {
    /// Without links.
    pub(crate) fn new(hash: u64, meta: Meta, blob: Blob, parent: NodeId, dirty: Dirty) -> Self {
        let Blob { bytes, name_len, kind } = blob;
        Self {
            hash,
            meta,
            bytes,
            parent,
            first_child: NodeId::NONE,
            next: NodeId::NONE,
            prev: NodeId::NONE,
            children: 0,
            name_len,
            marks: Marks::new(kind),
            dirty,
        }
    }

    /// Name and data.
    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts { bytes: &self.bytes, name_len: self.name_len, kind: self.marks.kind() }
    }

    pub(crate) fn name(&self) -> &str {
        self.parts().name()
    }

    /// Name and data, to keep.
    pub(crate) fn blob(&self) -> Blob {
        Blob { bytes: Arc::clone(&self.bytes), name_len: self.name_len, kind: self.marks.kind() }
    }

    /// Other data below the same name.
    pub(crate) fn set_blob(&mut self, blob: Blob) {
        let Blob { bytes, name_len, kind } = blob;
        assert_eq!(name_len, self.name_len, "a node keeps its name");
        self.bytes = bytes;
        self.marks.set_kind(kind);
    }

    /// Somebody reads the data.
    pub(crate) fn touch(&self) {
        let marks = self.marks.0.get();
        if marks & Marks::READ == 0 {
            self.marks.0.set(marks | Marks::READ);
        }
    }

    /// Whether somebody has read the data since this was asked last.
    pub(crate) fn take_touched(&self) -> bool {
        let marks = self.marks.0.get();
        self.marks.0.set(marks & !Marks::READ);
        marks & Marks::READ != 0
    }

    pub(crate) fn cut(&self) -> CutTag {
        CutTag(self.marks.0.get() >> Marks::TAG_AT)
    }

    pub(crate) fn set_cut(&self, cut: CutTag) {
        let marks = self.marks.0.get() & (Marks::KIND | Marks::READ);
        self.marks.0.set(marks | cut.0 << Marks::TAG_AT);
    }

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
            data_length: i32::try_from(self.parts().data_len()).expect("data fits a frame"),
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
        let parts = self.parts();
        match parts.cold() {
            Some(cold) => cold.digest(),
            None => parts.data().map_or(0, |data| data_digest(self.hash, data)),
        }
    }
}

/// Of a node with this hash.
pub(crate) fn data_digest(hash: u64, data: &[u8]) -> u64 {
    hash_bytes(!hash, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        assert_eq!(size_of::<Option<Node>>(), 112);
    }

    #[test]
    fn marks_are_independent() {
        let meta = Meta::created(1, 2, 0, AclId(0));
        let mut node = Node::new(7, meta, Blob::new("name", Some(b"data")), NodeId::ROOT, Dirty::NEW);
        let third = CutTag::default().next().next().next();
        node.set_cut(third);
        node.touch();
        node.set_blob(Blob::new("name", None));
        assert_eq!((node.cut(), node.parts().kind(), node.take_touched()), (third, Kind::Null, true));
        assert_eq!((node.cut(), node.take_touched()), (third, false));
        assert_eq!(third.next(), CutTag::default());
        assert!(Dirty::NEW.has(Dirty::DATA) && !Dirty::STAT.has(Dirty::NEW));
    }
}
