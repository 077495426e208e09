//! A connection as its member sees it: requests in, answers and watch events out.

use std::collections::{BTreeSet, VecDeque};

use pharos_history::{Body, ErrorCode, EventKind, Rearm, Request, Stat, View, WatchEvent};
use pharos_znode::State;

/// Something on its way to a client.
pub(super) enum Message {
    /// The answer to the operation with this index, with its zxid.
    Reply(usize, i64, Result<Body, ErrorCode>),
    /// A watch event.
    Event(WatchEvent),
}

const DATA: usize = 0;
const CHILD: usize = 1;
const PERSISTENT: usize = 2;
const RECURSIVE: usize = 3;

/// A connection, or what is left of one that its client has lost.
pub(super) struct Link {
    pub(super) session: i64,
    pub(super) attach: u32,
    pub(super) is_open: bool,
    /// What is not executed yet, each with its index.
    pub(super) queue: VecDeque<(usize, Request)>,
    /// What has not arrived yet, each with the time at which it will.
    pub(super) outbox: VecDeque<(u64, Message)>,
    watches: [BTreeSet<String>; 4],
}

impl Link {
    pub(super) fn new(session: i64, attach: u32) -> Self {
        let (queue, outbox, watches) = Default::default();
        Self { session, attach, is_open: true, queue, outbox, watches }
    }

    /// Sends to the client, if there still is one; nothing overtakes what was sent before.
    pub(super) fn send(&mut self, at: u64, message: Message) {
        if self.is_open {
            let at = self.outbox.back().map_or(at, |(before, _)| at.max(*before));
            self.outbox.push_back((at, message));
        }
    }

    /// Whether the client is told; one-shot watches are used up.
    pub(super) fn is_set_off(&mut self, by: EventKind, path: &str) -> bool {
        let [data, child, persistent, recursive] = &mut self.watches;
        let mut told = persistent.contains(path);
        if by == EventKind::NodeChildrenChanged {
            return told | child.remove(path);
        }
        told |= data.remove(path);
        told |= by == EventKind::NodeDeleted && child.remove(path);
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            told |= recursive.contains(above);
            above = parent;
        }
        told
    }

    /// Executes what is no write. `setWatches` also gives what it tells at once.
    pub(super) fn read(
        &mut self,
        request: &Request,
        state: &State,
    ) -> (Vec<WatchEvent>, Result<Body, ErrorCode>) {
        match request {
            Request::Read { view, path, watch } => {
                let result = look(*view, path, state);
                let waits_for_it = *view == View::Stat && result == Err(ErrorCode::NO_NODE);
                if *watch && (result.is_ok() || waits_for_it) {
                    self.watch(if *view == View::Children { CHILD } else { DATA }, path);
                }
                return (Vec::new(), result);
            }
            Request::AddWatch { path, recursive } => {
                self.watch(if *recursive { RECURSIVE } else { PERSISTENT }, path);
            }
            Request::SetWatches(lists) => return (self.rearm(lists, state), Ok(Body::Empty)),
            _ => {}
        }
        (Vec::new(), Ok(Body::Empty))
    }

    fn watch(&mut self, kind: usize, path: &str) {
        self.watches[kind].insert(path.to_owned());
    }

    fn rearm(&mut self, lists: &Rearm, state: &State) -> Vec<WatchEvent> {
        let mut told = Vec::new();
        let mut arm = |kind: usize, path: &String, event: Option<EventKind>| match event {
            Some(event) => told.push(WatchEvent { zxid: -1, kind: event, path: path.clone() }),
            None => self.watch(kind, path),
        };
        let changed = |path: &str, zxid: fn(&Stat) -> i64, kind: EventKind| match state.stat(path) {
            None => Some(EventKind::NodeDeleted),
            Some(stat) => (zxid(&stat) > lists.since).then_some(kind),
        };
        for path in &lists.data {
            arm(DATA, path, changed(path, |stat| stat.mzxid, EventKind::NodeDataChanged));
        }
        for path in &lists.exist {
            arm(DATA, path, state.stat(path).map(|_| EventKind::NodeCreated));
        }
        for path in &lists.child {
            arm(CHILD, path, changed(path, |stat| stat.pzxid, EventKind::NodeChildrenChanged));
        }
        lists.persistent.iter().for_each(|path| arm(PERSISTENT, path, None));
        lists.recursive.iter().for_each(|path| arm(RECURSIVE, path, None));
        told
    }
}

fn look(view: View, path: &str, state: &State) -> Result<Body, ErrorCode> {
    Ok(match view {
        View::Stat => Body::Stat(state.exists(path, &[])?),
        View::Data => {
            let node = state.get_data(path, &[])?;
            Body::Data(node.data.here().unwrap_or_default().to_vec(), node.stat)
        }
        View::Children => {
            let children = state.children(path, &[])?;
            let mut names: Vec<String> = children.names.map(str::to_owned).collect();
            names.sort_unstable();
            Body::Children(names, children.stat)
        }
    })
}
