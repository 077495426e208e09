//! Reading the state back from its rows. Nothing that is not understood is skipped: a row of an unknown table, version
//! or shape, and rows that do not add up to their digest, are refused by name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pharos_jute::{Acl, DecodeError, Id, Reader};

use crate::acl_table::AclId;
use crate::node::Meta;
use crate::path::MAX_PATH;
use crate::rows::{MetaRow, VERSION, WITH_LEVEL, table};
use crate::tree::Tree;
use crate::{Level, Levels, RowError, Session, SessionId, Settings, State, Zxid};

type Result<T> = std::result::Result<T, RowError>;

impl State {
    /// Reads a state from all its rows, which must come in ascending order of their keys.
    pub fn from_rows(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Self> {
        let mut loader = StateLoader::keeping(u64::MAX);
        for (key, value) in rows {
            loader.row(&key, &value)?;
        }
        loader.finish()
    }

    fn unborn() -> Self {
        Self {
            tree: Tree::empty(),
            sessions: BTreeMap::new(),
            zxid: Zxid(0),
            time_ms: 0,
            settings: Settings::default(),
            level: Level::FIRST,
            session_digest: 0,
            dirty_sessions: BTreeSet::new(),
            half: None,
        }
    }
}

/// Makes a state of its rows, one by one, in ascending order of their keys.
#[derive(Debug)]
pub struct StateLoader {
    meta: Option<MetaRow>,
    state: State,
    last: Vec<u8>,
}

impl StateLoader {
    /// A state that keeps so many bytes of values in memory, as [`State::keep_values`] does: it never holds more.
    #[must_use]
    pub fn keeping(values: u64) -> Self {
        let mut state = State::unborn();
        state.keep_values(values);
        Self { meta: None, state, last: Vec::new() }
    }

    /// Takes the next row.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key <= &self.last[..] {
            return Err(RowError::Order(owned(key)));
        }
        match key.first() {
            Some(&table::META) => self.meta_row(key, value)?,
            Some(&table::ACL) => self.acl_row(key, value)?,
            Some(&table::SESSION) => self.session_row(key, value)?,
            Some(&table::NODE) => self.node_row(key, value)?,
            Some(&table::DATA) => self.data_row(key, value)?,
            _ => return Err(RowError::Table(owned(key))),
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }

    fn meta_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() != 1 {
            return Err(RowError::Key(owned(key), "meta"));
        }
        let known = if value.first() == Some(&VERSION) { VERSION } else { WITH_LEVEL };
        let row = read(key, "meta", (value, known), |r| {
            Ok(MetaRow {
                zxid: Zxid(r.i64("zxid")?),
                time_ms: r.i64("time")?,
                settings: Settings { sasl: flag(r, "sasl")?, x509: flag(r, "x509")? },
                digest: r.i64("digest")?.cast_unsigned(),
                level: if known == WITH_LEVEL { level(r)? } else { Level::FIRST },
            })
        })?;
        if !Levels::KNOWN.include(row.level) {
            return Err(RowError::Level(row.level));
        }
        self.meta = Some(row);
        Ok(())
    }

    fn acl_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let id = AclId(u32::from_be_bytes(fixed_key(key, "acl")?));
        let list = read(key, "acl", (value, VERSION), |r| Ok(r.vector("acl", acl)?.unwrap_or_default()))?;
        // A place far beyond any number of lists can only be damage, and the table would grow to it.
        if id.0 >= 1 << 24 || !self.state.tree.acls.restore(id, list) {
            return Err(RowError::Key(owned(key), "acl"));
        }
        Ok(())
    }

    fn session_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let id = SessionId(i64::from_be_bytes(fixed_key(key, "session")?));
        let session = read(key, "session", (value, VERSION), |r| {
            Ok(Session {
                timeout_ms: r.i32("timeout")?,
                attach: r.i32("attach")?.cast_unsigned(),
                owner: r.i32("owner")?.cast_unsigned(),
            })
        })?;
        self.state.put_session(id, Some(session));
        Ok(())
    }

    fn node_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let path = node_path(key, "node")?;
        let meta = read(key, "node", (value, VERSION), meta)?;
        let missing = |what| RowError::Missing { key: owned(key), what };
        if !self.state.tree.acls.contains(meta.acl) {
            return Err(missing("its access control list"));
        }
        if path == "/" {
            self.state.tree.restore(None, "", meta);
            return Ok(());
        }
        let (parent, name) = path.rsplit_once('/').ok_or_else(|| RowError::Key(owned(key), "node"))?;
        if self.state.tree.nodes.len() == 0 {
            return Err(missing("the root"));
        }
        let parent = self.state.tree.find(parent).ok_or_else(|| missing("its parent"))?;
        self.state.tree.restore(Some(parent), name, meta);
        Ok(())
    }

    fn data_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let path = node_path(key, "data")?;
        let missing = || RowError::Missing { key: owned(key), what: "its node" };
        if self.state.tree.nodes.len() == 0 {
            return Err(missing());
        }
        let id = self.state.tree.find(path).ok_or_else(missing)?;
        let data = versioned(key, "data", value, VERSION)?;
        self.state.tree.restore_data(id, data);
        Ok(())
    }

    /// The state, if the rows add up to one.
    pub fn finish(self) -> Result<State> {
        let Self { meta, mut state, .. } = self;
        let meta = meta.ok_or(RowError::Absent("meta"))?;
        if state.tree.nodes.len() == 0 {
            return Err(RowError::Absent("node"));
        }
        state.zxid = meta.zxid;
        state.time_ms = meta.time_ms;
        state.settings = meta.settings;
        state.level = meta.level;
        state.tree.acls.drop_unused();
        state.tree.clean();
        state.dirty_sessions.clear();
        match state.digest() {
            found if found == meta.digest => Ok(state),
            found => Err(RowError::Digest { found, expected: meta.digest }),
        }
    }
}

fn owned(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}

/// The value without its version, which must be the one that is known.
fn versioned<'a>(key: &[u8], table: &'static str, value: &'a [u8], known: u8) -> Result<&'a [u8]> {
    match value.split_first() {
        Some((&version, rest)) if version == known => Ok(rest),
        Some((&version, _)) => Err(RowError::Version { key: owned(key), table, version, known }),
        None => Err(value_error(key, table, DecodeError::Truncated { field: "version" })),
    }
}

fn value_error(key: &[u8], table: &'static str, source: DecodeError) -> RowError {
    RowError::Value { key: owned(key), table, source }
}

fn read<T>(
    key: &[u8],
    table: &'static str,
    (value, known): (&[u8], u8),
    read: impl FnOnce(&mut Reader<'_>) -> std::result::Result<T, DecodeError>,
) -> Result<T> {
    let mut r = Reader::new(versioned(key, table, value, known)?);
    let row = read(&mut r).map_err(|e| value_error(key, table, e))?;
    match i32::try_from(r.rest().len()) {
        Ok(0) => Ok(row),
        len => {
            let len = len.unwrap_or(i32::MAX);
            Err(value_error(key, table, DecodeError::Length { field: "trailing bytes", len }))
        }
    }
}

fn fixed_key<const N: usize>(key: &[u8], table: &'static str) -> Result<[u8; N]> {
    key[1..].try_into().map_err(|_| RowError::Key(owned(key), table))
}

fn node_path<'a>(key: &'a [u8], table: &'static str) -> Result<&'a str> {
    let malformed = || RowError::Key(owned(key), table);
    let path = std::str::from_utf8(key.get(3..).ok_or_else(malformed)?).map_err(|_| malformed())?;
    if path.len() > MAX_PATH {
        return Err(malformed());
    }
    let depth = if path == "/" { 0 } else { path.matches('/').count() };
    if key[1..3] == u16::try_from(depth).map_err(|_| malformed())?.to_be_bytes() {
        Ok(path)
    } else {
        Err(malformed())
    }
}

/// A bool of ours. The wire's takes any byte but 0 for true, which would let a damaged one pass.
fn flag(r: &mut Reader<'_>, field: &'static str) -> std::result::Result<bool, DecodeError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Value { field, value: other.into() }),
    }
}

fn level(r: &mut Reader<'_>) -> std::result::Result<Level, DecodeError> {
    let value = r.i32("level")?;
    let level = u16::try_from(value).map(Level).ok().filter(|level| *level > Level::FIRST);
    level.ok_or(DecodeError::Value { field: "level", value })
}

fn acl(r: &mut Reader<'_>) -> std::result::Result<Acl, DecodeError> {
    let perms = r.i32("perms")?;
    let scheme = r.string("scheme")?.unwrap_or_default();
    Ok(Acl { perms, id: Id::new(scheme, r.string("id")?.unwrap_or_default()) })
}

fn meta(r: &mut Reader<'_>) -> std::result::Result<Meta, DecodeError> {
    Ok(Meta {
        czxid: r.i64("czxid")?,
        mzxid: r.i64("mzxid")?,
        pzxid: r.i64("pzxid")?,
        ctime: r.i64("ctime")?,
        mtime: r.i64("mtime")?,
        owner: r.i64("owner")?,
        version: r.i32("version")?,
        creates: r.i32("creates")?,
        aversion: r.i32("aversion")?,
        acl: AclId(r.i32("acl")?.cast_unsigned()),
    })
}
