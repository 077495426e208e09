//! Which connections watch what.
//!
//! Owns one-shot, persistent and recursive watches of this member's connections, as ZooKeeper's
//! WatchManager. Must not know the tree: the caller says what happened and who may read it. Invariant:
//! a connection is named at most once per event, whatever it set, and nothing of a connection is left
//! after `forget`.

use crate::io::ConnId;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The kinds of watches a path can carry. Kinds of one connection on one path are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WatchKind {
    /// One-shot: data, existence.
    Data,
    /// One-shot: the list of children.
    Child,
    /// Both, until removed.
    Persistent,
    /// The node and everything below it, until removed; never a change of the list of children.
    Recursive,
}

const KINDS: usize = 4;

/// What happened at a path, as far as watches care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
}

impl Happening {
    /// The one-shot kinds that it sets off.
    fn fires(self) -> &'static [WatchKind] {
        match self {
            Self::Created | Self::DataChanged => &[WatchKind::Data],
            Self::Deleted => &[WatchKind::Data, WatchKind::Child],
            Self::ChildrenChanged => &[WatchKind::Child],
        }
    }
}

/// Watchers of a path, sorted. Connections have rising ids, so that insertion is mostly at the end.
type Watchers = Vec<ConnId>;
/// Never iterated over, so that its hasher's random seed cannot reach an output.
type ByPath = HashMap<Arc<str>, Watchers>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Watches {
    by_path: [ByPath; KINDS],
    by_conn: BTreeMap<ConnId, BTreeSet<(WatchKind, Arc<str>)>>,
    count: usize,
}

impl Watches {
    pub(crate) fn add(&mut self, kind: WatchKind, path: &str, conn: ConnId) {
        let table = &mut self.by_path[kind as usize];
        let path: Arc<str> = match table.get_key_value(path) {
            Some((path, _)) => Arc::clone(path),
            None => path.into(),
        };
        let watchers = table.entry(Arc::clone(&path)).or_default();
        if let Err(at) = watchers.binary_search(&conn) {
            watchers.insert(at, conn);
            self.count += 1;
            self.by_conn.entry(conn).or_default().insert((kind, path));
        }
    }

    pub(crate) fn has(&self, kind: WatchKind, path: &str, conn: ConnId) -> bool {
        self.by_path[kind as usize].get(path).is_some_and(|w| w.binary_search(&conn).is_ok())
    }

    /// Removes the watch; says whether there was one.
    pub(crate) fn remove(&mut self, kind: WatchKind, path: &str, conn: ConnId) -> bool {
        let removed = self.unlink(kind, path, conn);
        if removed && let Some(own) = self.by_conn.get_mut(&conn) {
            own.remove(&(kind, Arc::from(path)));
        }
        removed
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        for (kind, path) in self.by_conn.remove(&conn).unwrap_or_default() {
            self.unlink(kind, &path, conn);
        }
    }

    /// Appends the connections to tell, in rising order without duplicates; one-shot watches are used up.
    pub(crate) fn fire(&mut self, what: Happening, path: &str, out: &mut Vec<ConnId>) {
        if self.count == 0 {
            return;
        }
        let start = out.len();
        for &kind in what.fires() {
            self.use_up(kind, path, out);
        }
        if let Some(watchers) = self.by_path[WatchKind::Persistent as usize].get(path) {
            out.extend_from_slice(watchers);
        }
        if what != Happening::ChildrenChanged {
            self.recursive(path, out);
        }
        out[start..].sort_unstable();
        let mut kept = start;
        for i in start..out.len() {
            if kept == start || out[kept - 1] != out[i] {
                out[kept] = out[i];
                kept += 1;
            }
        }
        out.truncate(kept);
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn use_up(&mut self, kind: WatchKind, path: &str, out: &mut Vec<ConnId>) {
        let Some((path, watchers)) = self.by_path[kind as usize].remove_entry(path) else { return };
        self.count -= watchers.len();
        for conn in watchers {
            if let Some(own) = self.by_conn.get_mut(&conn) {
                own.remove(&(kind, Arc::clone(&path)));
            }
            out.push(conn);
        }
    }

    /// Watchers of the path and of each node above it.
    fn recursive(&self, path: &str, out: &mut Vec<ConnId>) {
        let table = &self.by_path[WatchKind::Recursive as usize];
        if table.is_empty() {
            return;
        }
        let mut at = path;
        loop {
            if let Some(watchers) = table.get(at) {
                out.extend_from_slice(watchers);
            }
            at = match at.rfind('/') {
                Some(0) if at.len() > 1 => "/",
                Some(0) | None => return,
                Some(end) => &at[..end],
            };
        }
    }

    fn unlink(&mut self, kind: WatchKind, path: &str, conn: ConnId) -> bool {
        let table = &mut self.by_path[kind as usize];
        let Some(watchers) = table.get_mut(path) else { return false };
        let Ok(at) = watchers.binary_search(&conn) else { return false };
        watchers.remove(at);
        self.count -= 1;
        if watchers.is_empty() {
            table.remove(path);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    fn fired(watches: &mut Watches, what: Happening, path: &str) -> Vec<ConnId> {
        let mut out = Vec::new();
        watches.fire(what, path, &mut out);
        out
    }

    #[test]
    fn a_one_shot_watch_fires_once() {
        let mut w = Watches::default();
        w.add(WatchKind::Data, "/a", A);
        w.add(WatchKind::Data, "/a", A);
        assert_eq!(fired(&mut w, Happening::DataChanged, "/a"), vec![A]);
        assert_eq!(fired(&mut w, Happening::DataChanged, "/a"), vec![]);
        assert_eq!(w.len(), 0);
    }

    #[test]
    fn a_deletion_uses_up_data_and_child_watches_with_one_event() {
        let mut w = Watches::default();
        w.add(WatchKind::Data, "/a", A);
        w.add(WatchKind::Child, "/a", A);
        w.add(WatchKind::Child, "/a", B);
        assert_eq!(fired(&mut w, Happening::Deleted, "/a"), vec![A, B]);
        assert_eq!(w.len(), 0);
    }

    #[test]
    fn a_persistent_watch_stays_and_hears_data_and_children() {
        let mut w = Watches::default();
        w.add(WatchKind::Persistent, "/a", A);
        w.add(WatchKind::Data, "/a", A);
        assert_eq!(fired(&mut w, Happening::DataChanged, "/a"), vec![A]);
        assert_eq!(fired(&mut w, Happening::ChildrenChanged, "/a"), vec![A]);
        assert_eq!(fired(&mut w, Happening::Created, "/a/b"), vec![]);
    }

    #[test]
    fn a_recursive_watch_hears_all_below_but_never_a_change_of_children() {
        let mut w = Watches::default();
        w.add(WatchKind::Recursive, "/a", A);
        w.add(WatchKind::Recursive, "/", B);
        assert_eq!(fired(&mut w, Happening::Created, "/a/b/c"), vec![A, B]);
        assert_eq!(fired(&mut w, Happening::Deleted, "/a"), vec![A, B]);
        assert_eq!(fired(&mut w, Happening::DataChanged, "/"), vec![B]);
        assert_eq!(fired(&mut w, Happening::DataChanged, "/ab"), vec![B]);
        assert_eq!(fired(&mut w, Happening::ChildrenChanged, "/a"), vec![]);
    }

    #[test]
    fn nothing_of_a_forgotten_connection_is_left() {
        let mut w = Watches::default();
        for kind in [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::Recursive] {
            w.add(kind, "/a", A);
        }
        w.forget(A);
        assert_eq!((w.len(), fired(&mut w, Happening::Deleted, "/a")), (0, vec![]));
        assert!(w.by_path.iter().all(HashMap::is_empty) && w.by_conn.is_empty());
    }

    #[test]
    fn a_removed_watch_is_removed_in_its_kind_alone() {
        let mut w = Watches::default();
        w.add(WatchKind::Data, "/a", A);
        w.add(WatchKind::Persistent, "/a", A);
        assert!(w.remove(WatchKind::Data, "/a", A));
        assert!(!w.remove(WatchKind::Data, "/a", A));
        assert!(w.has(WatchKind::Persistent, "/a", A));
    }
}
