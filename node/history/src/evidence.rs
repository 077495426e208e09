//! What was seen of zxids that no acknowledged write has.
//!
//! Owns the facts that Stats and watch events tell. Must not know who is suspected. Invariant: nothing is told that was
//! not received.

use std::collections::BTreeMap;

use crate::record::{History, Incoming, Stat};
use crate::timeline::Timeline;
use crate::tree::{Applied, Tree};

/// One fact about a zxid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// The znode was created.
    Created(String),
    /// The znode's data was written; with the data, where a read gave it.
    Written(String, Option<Vec<u8>>),
    /// The znode's list of children was changed.
    Children(String),
    /// A watch event said this.
    Event(String, i32),
}

impl Fact {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Created(path) | Self::Written(path, _) | Self::Children(path) | Self::Event(path, _) => {
                path
            }
        }
    }

    /// Whether it is so after a transaction at `zxid` was applied.
    pub(crate) fn holds(&self, zxid: i64, tree: &Tree, applied: &Applied) -> bool {
        let stat = |path: &str| tree.stat(path).unwrap_or_default();
        match self {
            Self::Created(path) => stat(path).czxid == zxid,
            Self::Written(path, data) => {
                let same = data.as_ref().is_none_or(|data| tree.data(path) == Some(data));
                stat(path).mzxid == zxid && same
            }
            Self::Children(path) => stat(path).pzxid == zxid,
            Self::Event(path, kind) => {
                applied.changes.iter().any(|change| change.kind.as_i32() == *kind && change.path == *path)
            }
        }
    }
}

/// The facts about one zxid, and one who told one of them.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) facts: Vec<Fact>,
    pub(crate) told_by: String,
}

/// By zxid.
pub(crate) type Evidence = BTreeMap<i64, Facts>;

/// Collects what was seen of free zxids.
pub(crate) fn collect(history: &History, timeline: &Timeline) -> Evidence {
    let mut evidence = Evidence::new();
    let mut tell = |zxid: i64, fact: Fact, by: &dyn Fn() -> String| {
        if zxid <= 0 || timeline.writes.contains_key(&zxid) {
            return;
        }
        let known = evidence.entry(zxid).or_default();
        if !known.facts.contains(&fact) {
            known.facts.push(fact);
            if known.told_by.is_empty() {
                known.told_by = by();
            }
        }
    };
    for (at, op) in history.operations() {
        let Some(Ok(body)) = op.answer().map(|answer| &answer.result) else { continue };
        for (path, stat, data) in body.stats(&op.request) {
            of_stat(path, stat, data, |zxid, fact| tell(zxid, fact, &|| history.tell(at)));
        }
    }
    for (session, connection, link) in history.connections() {
        for incoming in &link.incoming {
            let Incoming::Event(event) = incoming else { continue };
            let by = || format!("[session {session} connection {connection}: {event:x?}]");
            tell(event.zxid, Fact::Event(event.path.clone(), event.kind.as_i32()), &by);
        }
    }
    evidence
}

fn of_stat(path: &str, stat: &Stat, data: Option<&[u8]>, mut tell: impl FnMut(i64, Fact)) {
    // The root was created by nobody.
    if path == "/" {
        return;
    }
    tell(stat.czxid, Fact::Created(path.to_owned()));
    tell(stat.mzxid, Fact::Written(path.to_owned(), data.map(<[u8]>::to_vec)));
    if stat.pzxid != stat.czxid {
        tell(stat.pzxid, Fact::Children(path.to_owned()));
    }
}
