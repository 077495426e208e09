//! The state as rows of an ordered store: what changed since the last time, and its bytes.
//!
//! A key's first byte is its table, in the order in which [`crate::State::from_rows`] needs them: what a row refers to
//! comes before it. A value's first byte is its version. Keys of nodes begin with the path's depth, so that a parent
//! comes before its children, and the children of one node lie side by side.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use pharos_jute::{Acl, put_bool};

use crate::acl_table::AclId;
use crate::batch::encode_acl;
use crate::node::{Blob, Kind, Meta};
use crate::{Level, Session, SessionId, Settings, Zxid};

/// The version of every row this crate writes, but for the meta row of a state above the first level.
pub(crate) const VERSION: u8 = 1;
/// The version of a meta row that has the level: a version that knows of no levels refuses it by name.
pub(crate) const WITH_LEVEL: u8 = 2;

/// First bytes of keys.
pub(crate) mod table {
    pub(crate) const META: u8 = 1;
    pub(crate) const ACL: u8 = 2;
    pub(crate) const SESSION: u8 = 3;
    pub(crate) const NODE: u8 = 4;
    pub(crate) const DATA: u8 = 5;
}

/// The rows changed since the last take, with the values they had then. Values are shared with the tree, not copied, so
/// that taking a batch is quick and encoding it can be left to another thread.
#[derive(Debug, Clone)]
pub struct RowBatch {
    /// They come first: a node deleted since may stand there again.
    pub(crate) deletions: Rows,
    pub(crate) rows: Rows,
    pub(crate) meta: MetaRow,
}

/// Rows in chunks, so that adding one never moves all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    full: Vec<Vec<Row>>,
    last: Vec<Row>,
}

const CHUNK: usize = 4096;

impl Rows {
    pub(crate) fn push(&mut self, row: Row) {
        if self.last.len() == CHUNK {
            self.full.push(std::mem::take(&mut self.last));
        }
        self.last.push(row);
    }

    fn iter(&self) -> impl Iterator<Item = &Row> {
        self.full.iter().chain([&self.last]).flatten()
    }

    fn len(&self) -> usize {
        self.full.len() * CHUNK + self.last.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetaRow {
    pub(crate) zxid: Zxid,
    pub(crate) time_ms: i64,
    pub(crate) settings: Settings,
    pub(crate) level: Level,
    pub(crate) digest: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Row {
    Acl(AclId, Option<Arc<[Acl]>>),
    Session(SessionId, Option<Session>),
    Node(NodeKey, Meta),
    Data(NodeKey, Blob),
    Deleted(NodeKey),
}

#[derive(Debug, Clone)]
pub(crate) struct NodeKey {
    pub(crate) depth: usize,
    pub(crate) path: Arc<str>,
}

/// One row's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowView<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; `None` deletes the row.
    pub value: Option<&'a [u8]>,
}

impl RowBatch {
    /// The zxid up to which the rows are.
    pub const fn zxid(&self) -> Zxid {
        self.meta.zxid
    }

    /// The digest of the state the rows make up.
    pub const fn digest(&self) -> u64 {
        self.meta.digest
    }

    /// How many entries there are, the meta row not counted.
    pub fn len(&self) -> usize {
        self.deletions.len() + self.rows.len()
    }

    /// Whether nothing but the meta row changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives each row's bytes, the meta row last. All belong into one atomic write.
    pub fn for_each(&self, mut put: impl FnMut(RowView<'_>)) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for row in self.deletions.iter().chain(self.rows.iter()) {
            key.clear();
            value.clear();
            row.encode(&mut key, &mut value, &mut put);
        }
        value.clear();
        self.meta.encode(&mut value);
        put(RowView { key: &[table::META], value: Some(&value) });
    }

    /// The rows' bytes with memory of their own.
    pub fn to_pairs(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut pairs = Vec::with_capacity(self.len() * 2 + 1);
        self.for_each(|row| {
            pairs.push((Bytes::copy_from_slice(row.key), row.value.map(Bytes::copy_from_slice)));
        });
        pairs
    }
}

/// The key of the row of a node's data.
pub(crate) fn data_key(path: &str) -> Bytes {
    let mut key = Vec::with_capacity(3 + path.len());
    NodeKey::of(path).encode(table::DATA, &mut key);
    key.into()
}

impl NodeKey {
    pub(crate) fn of(path: &str) -> Self {
        let depth = if path == "/" { 0 } else { path.matches('/').count() };
        Self { depth, path: path.into() }
    }

    fn encode(&self, table: u8, out: &mut Vec<u8>) {
        out.put_u8(table);
        out.put_u16(u16::try_from(self.depth).expect("a path of more names is longer than a frame"));
        out.put_slice(self.path.as_bytes());
    }
}

impl Row {
    fn encode(&self, key: &mut Vec<u8>, value: &mut Vec<u8>, put: &mut impl FnMut(RowView<'_>)) {
        value.put_u8(VERSION);
        let present = match self {
            Self::Acl(id, list) => {
                key.put_u8(table::ACL);
                key.put_u32(id.0);
                if let Some(list) = list {
                    encode_acl(list, value);
                }
                list.is_some()
            }
            Self::Session(id, session) => {
                key.put_u8(table::SESSION);
                key.put_i64(id.0);
                if let Some(session) = session {
                    encode_session(session, value);
                }
                session.is_some()
            }
            Self::Node(node, meta) => {
                node.encode(table::NODE, key);
                encode_meta(meta, value);
                true
            }
            Self::Data(node, blob) => {
                node.encode(table::DATA, key);
                let parts = blob.parts();
                assert_ne!(parts.kind(), Kind::Cold, "what only the store has is not written to it");
                value.put_slice(parts.data().unwrap_or_default());
                parts.data().is_some()
            }
            Self::Deleted(node) => {
                node.encode(table::NODE, key);
                put(RowView { key, value: None });
                key[0] = table::DATA;
                false
            }
        };
        put(RowView { key, value: present.then_some(value) });
    }
}

impl MetaRow {
    fn encode(&self, out: &mut Vec<u8>) {
        let first = self.level == Level::FIRST;
        out.put_u8(if first { VERSION } else { WITH_LEVEL });
        out.put_i64(self.zxid.0);
        out.put_i64(self.time_ms);
        put_bool(out, self.settings.sasl);
        put_bool(out, self.settings.x509);
        out.put_u64(self.digest);
        if !first {
            out.put_i32(self.level.0.into());
        }
    }
}

fn encode_session(session: &Session, out: &mut Vec<u8>) {
    let Session { timeout_ms, attach, owner } = session;
    out.put_i32(*timeout_ms);
    out.put_u32(*attach);
    out.put_u32(*owner);
}

fn encode_meta(meta: &Meta, out: &mut Vec<u8>) {
    let Meta { czxid, mzxid, pzxid, ctime, mtime, owner, version, creates, aversion, acl } = meta;
    for number in [czxid, mzxid, pzxid, ctime, mtime, owner] {
        out.put_i64(*number);
    }
    for number in [version, creates, aversion] {
        out.put_i32(*number);
    }
    out.put_u32(acl.0);
}
