//! The end of a session, in slices: a session may own a million ephemeral nodes.
//!
//! Owns the order in which they go and how far that has come. Must not know how long a slice may last. Invariant: state,
//! result and events are the same whatever the slices; what is half-way shows in no number that clients are told.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::slab::NodeId;
use crate::state::Half;
use crate::tree::Tree;
use crate::{Applied, Progress, Session, SessionEvent, SessionId, State, Zxid};

/// The end of a session that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    id: SessionId,
    session: Session,
    expired: bool,
    /// What clients are told until the command is carried out.
    pub(crate) before: Zxid,
    found: Found,
    /// Those of its nodes that were found and are not deleted, by their paths.
    nodes: BTreeMap<Box<str>, NodeId>,
}

/// Which of the session's nodes were found.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// Those in places before.
    Before(Bound<NodeId>),
    All,
}

impl Ending {
    pub(crate) fn new(id: SessionId, session: Session, expired: bool, before: Zxid) -> Self {
        let found = Found::Before(Bound::Unbounded);
        Self { id, session, expired, before, found, nodes: BTreeMap::new() }
    }

    /// Goes on with finding the nodes; true when all are.
    fn find(&mut self, tree: &Tree, steps: &mut usize) -> bool {
        let Found::Before(mut after) = self.found else { return true };
        for id in tree.ephemerals_of(self.id.0, after) {
            if *steps == 0 {
                self.found = Found::Before(after);
                return false;
            }
            *steps -= 1;
            self.nodes.insert(tree.path(id).into(), id);
            after = Bound::Excluded(id);
        }
        self.found = Found::All;
        true
    }
}

impl State {
    /// Goes on with the end of a session.
    pub(crate) fn go_on_ending(
        &mut self,
        mut ending: Ending,
        steps: &mut usize,
        out: &mut Applied,
    ) -> Progress {
        out.clear();
        if !ending.find(&self.tree, steps) {
            self.half = Some(Half::Ending(ending));
            return Progress::Half;
        }
        while let Some(first) = ending.nodes.first_entry() {
            if *steps == 0 {
                self.half = Some(Half::Ending(ending));
                return Progress::Half;
            }
            *steps -= 1;
            let (path, id) = first.remove_entry();
            self.remove(&path, id, out);
        }
        let Ending { id, session, expired, .. } = ending;
        self.put_session(id, None);
        out.session_events.push(SessionEvent::Closed { session: id, owner: session.owner, expired });
        Progress::Done
    }
}
