//! Watch events: each connection gets exactly those due to it, in order, before any answer that shows a newer state.
//!
//! Owns what is armed on a connection. Must not know the tree: what changed is given. Invariant: of each armed watch
//! the next change that sets it off is known, so every incoming message is judged at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{ErrorCode, EventKind, History, Incoming, OpRef, Request, View, WatchEvent};
use crate::replay::Replayed;
use crate::violation::{Rule, Violation};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Data,
    Child,
    Persistent,
    Recursive,
}

impl Kind {
    fn is_set_off(self, by: EventKind) -> bool {
        match self {
            Self::Data => by != EventKind::NodeChildrenChanged,
            Self::Child => matches!(by, EventKind::NodeChildrenChanged | EventKind::NodeDeleted),
            Self::Persistent => true,
            Self::Recursive => by != EventKind::NodeChildrenChanged,
        }
    }

    fn stays(self) -> bool {
        matches!(self, Self::Persistent | Self::Recursive)
    }
}

type Watch<'a> = (Kind, &'a str);

/// For each watch that anyone set, the changes that set it off, as indexes into all changes.
struct Index<'a> {
    changes: &'a [WatchEvent],
    by_watch: BTreeMap<Watch<'a>, Vec<usize>>,
}

pub(crate) fn check<'a>(history: &'a History, replayed: &'a Replayed, events: &mut usize) -> Vec<Violation> {
    let index = Index::of(history, replayed);
    let mut violations = Vec::new();
    for (session, connection, link) in history.connections() {
        let mut watched = Watched { index: &index, due: BTreeSet::new(), armed: BTreeSet::new() };
        for incoming in &link.incoming {
            let judged = match incoming {
                Incoming::Event(event) if event.zxid == -1 => Ok(()),
                Incoming::Event(event) => watched.event(event).map(|()| *events += 1),
                Incoming::Reply(operation) => {
                    watched.reply(history, OpRef { session, connection, operation: *operation }, replayed)
                }
            };
            if let Err(text) = judged {
                let text = format!("session {session} connection {connection}: {text}");
                violations.push(Violation::new(Rule::Watches, text));
                break;
            }
        }
    }
    violations
}

struct Watched<'a> {
    index: &'a Index<'a>,
    due: BTreeSet<(usize, Watch<'a>)>,
    armed: BTreeSet<Watch<'a>>,
}

impl<'a> Watched<'a> {
    fn event(&mut self, event: &WatchEvent) -> Result<(), String> {
        let changes = self.index.changes;
        let Some((first, _)) = self.due.first() else {
            return Err(format!("{event:x?}, but no armed watch is set off any more"));
        };
        let zxid = changes[*first].zxid;
        let same = self.due.iter().take_while(|(at, _)| changes[*at].zxid == zxid);
        let Some(at) = same.map(|(at, _)| *at).find(|at| changes[*at] == *event) else {
            return Err(format!("{event:x?} came, but {:x?} is due", changes[*first]));
        };
        let fired: Vec<_> =
            self.due.range((at, (Kind::Data, ""))..).take_while(|(a, _)| *a == at).copied().collect();
        for due in fired {
            self.due.remove(&due);
            let (_, watch) = due;
            self.armed.remove(&watch);
            if watch.0.stays() {
                self.arm_after(watch, |change| change <= at);
            }
        }
        Ok(())
    }

    fn reply(&mut self, history: &'a History, at: OpRef, replayed: &'a Replayed) -> Result<(), String> {
        let op = history.operation(at);
        let Some(answer) = op.answer() else { return Ok(()) };
        if let Some((first, watch)) = self.due.first()
            && self.index.changes[*first].zxid <= answer.zxid
        {
            let missed = &self.index.changes[*first];
            return Err(format!("{} came before {missed:x?} of the watch {watch:?}", history.tell(at)));
        }
        let missing = answer.result == Err(ErrorCode::NO_NODE);
        match &op.request {
            Request::Read { view, path, watch: true } => match view {
                View::Stat if missing => self.arm((Kind::Data, path), answer.zxid),
                _ if answer.result.is_err() => {}
                View::Data | View::Stat => self.arm((Kind::Data, path), answer.zxid),
                View::Children => self.arm((Kind::Child, path), answer.zxid),
            },
            Request::AddWatch { path, recursive } if answer.result.is_ok() => {
                let kind = if *recursive { Kind::Recursive } else { Kind::Persistent };
                self.arm((kind, path), answer.zxid);
            }
            Request::SetWatches(lists) => {
                if let Some(armed) = replayed.armed.get(&at) {
                    armed.data.iter().for_each(|path| self.arm((Kind::Data, path), answer.zxid));
                    armed.child.iter().for_each(|path| self.arm((Kind::Child, path), answer.zxid));
                }
                lists.persistent.iter().for_each(|path| self.arm((Kind::Persistent, path), answer.zxid));
                lists.recursive.iter().for_each(|path| self.arm((Kind::Recursive, path), answer.zxid));
            }
            _ => {}
        }
        Ok(())
    }

    fn arm(&mut self, watch: Watch<'a>, since: i64) {
        let changes = self.index.changes;
        self.arm_after(watch, |change| changes[change].zxid <= since);
    }

    fn arm_after(&mut self, watch: Watch<'a>, passed: impl Fn(usize) -> bool) {
        if !self.armed.insert(watch) {
            return;
        }
        let own = self.index.by_watch.get(&watch).map_or(&[][..], Vec::as_slice);
        if let Some(next) = own.get(own.partition_point(|change| passed(*change))) {
            self.due.insert((*next, watch));
        }
    }
}

impl<'a> Index<'a> {
    fn of(history: &'a History, replayed: &'a Replayed) -> Self {
        let mut by_watch: BTreeMap<Watch<'a>, Vec<usize>> = BTreeMap::new();
        for (_, op) in history.operations() {
            for watch in watches_of(&op.request) {
                by_watch.entry(watch).or_default();
            }
        }
        for (at, change) in replayed.changes.iter().enumerate() {
            let mut note = |watch: Watch<'a>| {
                if watch.0.is_set_off(change.kind)
                    && let Some(own) = by_watch.get_mut(&watch)
                {
                    own.push(at);
                }
            };
            for kind in [Kind::Data, Kind::Child, Kind::Persistent] {
                note((kind, &change.path));
            }
            ancestors(&change.path).for_each(|path| note((Kind::Recursive, path)));
        }
        Self { changes: &replayed.changes, by_watch }
    }
}

/// The watches that a request may leave.
fn watches_of(request: &Request) -> Vec<Watch<'_>> {
    fn each(kind: Kind, paths: &[String]) -> impl Iterator<Item = Watch<'_>> {
        paths.iter().map(move |path| (kind, path.as_str()))
    }
    match request {
        Request::Read { view: View::Children, path, watch: true } => vec![(Kind::Child, path)],
        Request::Read { path, watch: true, .. } => vec![(Kind::Data, path)],
        Request::AddWatch { path, recursive: true } => vec![(Kind::Recursive, path)],
        Request::AddWatch { path, .. } => vec![(Kind::Persistent, path)],
        Request::SetWatches(lists) => each(Kind::Data, &lists.data)
            .chain(each(Kind::Data, &lists.exist))
            .chain(each(Kind::Child, &lists.child))
            .chain(each(Kind::Persistent, &lists.persistent))
            .chain(each(Kind::Recursive, &lists.recursive))
            .collect(),
        _ => Vec::new(),
    }
}

/// The path and those above it.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| (*path != "/").then(|| crate::tree::parent_of(path)))
}
