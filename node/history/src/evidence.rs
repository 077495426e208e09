//! What was seen of each zxid.
//!
//! Owns the facts that Stats and watch events tell. Must not know who is suspected. Invariant: nothing is told that was
//! not received.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Answer, Body, History, Incoming, Stat};
use crate::tree::{Applied, Tree};

/// One fact about a zxid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// The znode was created, by or for this owner.
    Created(String, i64),
    /// The znode's data was written, and had this version and length then; with the data, where a read gave it.
    Written(String, (i32, i32), Option<Vec<u8>>),
    /// The znode's list of children was changed, and had this cversion and length then; with the names, where a read
    /// gave them.
    Children(String, (i32, i32), Option<Vec<String>>),
    /// A watch event said this.
    Event(String, i32),
}

impl Fact {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Created(path, _)
            | Self::Written(path, ..)
            | Self::Children(path, ..)
            | Self::Event(path, _) => path,
        }
    }

    /// What the data was.
    pub(crate) fn value(&self) -> Option<(&str, &[u8])> {
        if let Self::Written(path, _, Some(data)) = self { Some((path, data)) } else { None }
    }

    /// Whether it tells how many changes there were before.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self, Self::Written(..) | Self::Children(..))
    }

    /// Whether it is so after a transaction at `zxid` was applied.
    pub(crate) fn holds(&self, zxid: i64, tree: &Tree, applied: &Applied) -> bool {
        let stat = |path: &str| tree.stat(path).unwrap_or_default();
        match self {
            Self::Created(path, owner) => {
                let stat = stat(path);
                (stat.czxid, stat.ephemeral_owner) == (zxid, *owner)
            }
            Self::Written(path, counts, data) => {
                let same = data.as_ref().is_none_or(|data| tree.data(path) == Some(data));
                let stat = stat(path);
                stat.mzxid == zxid && (stat.version, stat.data_length) == *counts && same
            }
            Self::Children(path, counts, names) => {
                let same = names.as_ref().is_none_or(|names| tree.children(path) == *names);
                let stat = stat(path);
                stat.pzxid == zxid && (stat.cversion, stat.num_children) == *counts && same
            }
            Self::Event(path, kind) => {
                applied.changes.iter().any(|change| change.kind.as_i32() == *kind && change.path == *path)
            }
        }
    }

    /// Where the tree differs from what is known of it after the transaction.
    pub(crate) fn focus(&self, tree: &Tree) -> Vec<String> {
        match self {
            Self::Children(path, _, Some(names)) => differing(path, &tree.children(path), names),
            _ => vec![self.path().to_owned()],
        }
    }
}

/// The children that are in one list alone; the parent if the lists are equal.
pub(crate) fn differing(parent: &str, have: &[String], want: &[String]) -> Vec<String> {
    let (have, want): (BTreeSet<_>, BTreeSet<_>) = (have.iter().collect(), want.iter().collect());
    let names: Vec<String> =
        have.symmetric_difference(&want).map(|name| format!("{parent}/{name}")).collect();
    if names.is_empty() { vec![parent.to_owned()] } else { names }
}

/// The facts about one zxid, and one who told one of them.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) facts: Vec<Fact>,
    pub(crate) told_by: String,
}

/// By zxid.
pub(crate) type Evidence = BTreeMap<i64, Facts>;

/// Collects it.
pub(crate) fn collect(history: &History) -> Evidence {
    let mut evidence = Evidence::new();
    let mut tell = |zxid: i64, fact: Fact, by: &dyn Fn() -> String| {
        if zxid <= 0 {
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
        let Some(Answer { zxid: own, result: Ok(body), .. }) = op.answer() else { continue };
        for (path, stat, data) in body.stats(&op.request) {
            let names = if let Body::Children(names, _) = body { Some(names) } else { None };
            of_stat(path, stat, (data, names), |zxid, fact| {
                // What a write answers is checked with it; in a multi it is not the end of it.
                if zxid != *own || !op.request.is_write() {
                    tell(zxid, fact, &|| history.tell(at));
                }
            });
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

fn of_stat(
    path: &str,
    stat: &Stat,
    (data, names): (Option<&[u8]>, Option<&Vec<String>>),
    mut tell: impl FnMut(i64, Fact),
) {
    // The root was created by nobody.
    if path == "/" {
        return;
    }
    tell(stat.czxid, Fact::Created(path.to_owned(), stat.ephemeral_owner));
    tell(
        stat.mzxid,
        Fact::Written(path.to_owned(), (stat.version, stat.data_length), data.map(<[u8]>::to_vec)),
    );
    if stat.pzxid != stat.czxid {
        let counts = (stat.cversion, stat.num_children);
        tell(stat.pzxid, Fact::Children(path.to_owned(), counts, names.cloned()));
    }
}
