//! Which watches a client has, as ZooKeeper's own clients keep them, to set them again on its next connection.

use std::collections::BTreeSet;

use pharos_history::{Answer, ErrorCode, EventKind, Rearm, Request, View, WatchEvent};

/// Them, and how far the client has seen.
#[derive(Debug, Default)]
pub struct Watching {
    /// The zxid of the last answer. Not of the last event: another of the same transaction may still have been to come.
    seen: i64,
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watching {
    /// A request was answered.
    pub fn answered(&mut self, request: &Request, answer: &Answer) {
        self.seen = self.seen.max(answer.zxid);
        let missing = answer.result == Err(ErrorCode::NO_NODE);
        match request {
            Request::Read { view: View::Stat, path, watch: true } if missing => {
                self.exist.insert(path.clone());
            }
            _ if answer.result.is_err() => {}
            Request::Read { view: View::Children, path, watch: true } => {
                self.child.insert(path.clone());
            }
            Request::Read { path, watch: true, .. } => {
                self.data.insert(path.clone());
            }
            Request::AddWatch { path, recursive: true } => {
                self.recursive.insert(path.clone());
            }
            Request::AddWatch { path, recursive: false } => {
                self.persistent.insert(path.clone());
            }
            _ => {}
        }
    }

    /// An event came: a watch for once is gone.
    pub fn fired(&mut self, event: &WatchEvent) {
        let path = event.path.as_str();
        match event.kind {
            EventKind::NodeCreated | EventKind::NodeDataChanged => {
                self.data.remove(path);
                self.exist.remove(path);
            }
            EventKind::NodeDeleted => {
                self.data.remove(path);
                self.exist.remove(path);
                self.child.remove(path);
            }
            EventKind::NodeChildrenChanged => {
                self.child.remove(path);
            }
        }
    }

    /// What a new connection has to be told, if there is anything.
    #[must_use]
    pub fn lists(&self) -> Option<Rearm> {
        let list = |paths: &BTreeSet<String>| paths.iter().cloned().collect();
        let lists = Rearm {
            since: self.seen,
            data: list(&self.data),
            exist: list(&self.exist),
            child: list(&self.child),
            persistent: list(&self.persistent),
            recursive: list(&self.recursive),
        };
        (lists != Rearm { since: self.seen, ..Rearm::default() }).then_some(lists)
    }
}
