//! What reads show of each znode: its last change, and that of its list of children.
//!
//! Must not know who made a change. Invariant: whatever happened to a znode until a read is shown by that read, or came
//! before what is shown.

use std::collections::BTreeMap;

use crate::record::{EventKind, History, WatchEvent};

/// By path, the zxid of each answer and the zxid of the last change that it shows.
#[derive(Default)]
pub(crate) struct Shown {
    data: BTreeMap<String, Vec<(i64, i64)>>,
    children: BTreeMap<String, Vec<(i64, i64)>>,
}

impl Shown {
    pub(crate) fn of(history: &History) -> Self {
        let mut this = Self::default();
        for (_, op) in history.operations() {
            let Some(answer) = op.answer() else { continue };
            let Ok(body) = &answer.result else { continue };
            for (path, stat, _) in body.stats(&op.request) {
                this.data.entry(path.to_owned()).or_default().push((answer.zxid, stat.mzxid));
                this.children.entry(path.to_owned()).or_default().push((answer.zxid, stat.pzxid));
            }
        }
        this.data.values_mut().chain(this.children.values_mut()).for_each(|all| all.sort_unstable());
        this
    }

    /// Whether a change until `last`, which was not counted in what was shown of earlier changes, is contradicted by the
    /// next read.
    pub(crate) fn contradicts(&self, change: &WatchEvent, last: i64) -> bool {
        let all = match change.kind {
            EventKind::NodeDataChanged => self.data.get(&change.path),
            EventKind::NodeChildrenChanged => self.children.get(&change.path),
            EventKind::NodeCreated | EventKind::NodeDeleted => None,
        };
        let next = all.and_then(|all| all.get(all.partition_point(|(read, _)| *read < last)));
        next.is_some_and(|(_, shown)| *shown <= last)
    }
}
