//! A cut: the rows of all that has changed, gathered in slices while changes go on.
//!
//! Owns which changes belong to the cut under way and which to the next one. Must not know when a cut is taken or where
//! its rows go. Invariant: the rows of a cut have the values of the moment in which it began. A node that is about to
//! change before its turn has come gives its rows first; what it changes to belongs to the next cut.

use std::collections::BTreeSet;

use crate::node::{CutTag, Dirty};
use crate::rows::{MetaRow, NodeKey, Row, Rows};
use crate::slab::NodeId;
use crate::tree::Tree;
use crate::{RowBatch, State};

impl Dirty {
    /// In which of two generations the node changed: they take turns with the cuts.
    const ODD: Self = Self(8);

    /// The generation after this one.
    fn next_generation(self) -> Self {
        if self == Self::ODD { Self::default() } else { Self::ODD }
    }

    /// Whether something has changed, and in another generation than this one.
    fn is_before(self, generation: Self) -> bool {
        self != Self::default() && self.has(Self::ODD) != (generation == Self::ODD)
    }
}

/// The cut under way.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    meta: MetaRow,
    /// The mark of the nodes whose rows it has.
    tag: CutTag,
    /// Nodes whose rows were due when it began; those before `next` have had their turn.
    pending: Vec<NodeId>,
    next: usize,
    /// Paths of nodes that were deleted before it began.
    deleted: BTreeSet<Box<str>>,
    deletions: Rows,
    rows: Rows,
}

impl State {
    /// Begins a cut: what [`Self::cut_some`] gives is what has changed since the last one began, as it is now.
    pub fn begin_cut(&mut self) {
        assert!(self.is_whole(), "a cut shows no command half-way");
        let mut rows = Rows::default();
        for (id, list) in self.tree.acls.take_dirty() {
            rows.push(Row::Acl(id, list));
        }
        for id in std::mem::take(&mut self.dirty_sessions) {
            rows.push(Row::Session(id, self.sessions.get(&id).copied()));
        }
        let Self { zxid, time_ms, settings, level, .. } = *self;
        let meta = MetaRow { zxid, time_ms, settings, level, digest: self.digest() };
        self.tree.begin_cut(meta, rows);
    }

    /// Goes on with the cut, by at most so many nodes. Gives the rows when they are complete.
    pub fn cut_some(&mut self, nodes: usize) -> Option<RowBatch> {
        self.tree.cut_some(nodes)
    }

    /// Takes the rows that changed since the last cut began, in time proportional to their number. The first call of a
    /// new state gives all rows.
    pub fn take_dirty(&mut self) -> RowBatch {
        self.begin_cut();
        self.cut_some(usize::MAX).expect("nothing is left of a cut without a limit")
    }
}

impl Tree {
    fn begin_cut(&mut self, meta: MetaRow, rows: Rows) {
        assert!(self.cut.is_none(), "a cut begins when the one before is complete");
        let (pending, deleted) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.deleted));
        let (tag, deletions) = (self.clock.take_cut(), Rows::default());
        self.cut = Some(Box::new(Cut { meta, tag, pending, next: 0, deleted, deletions, rows }));
        self.generation = self.generation.next_generation();
    }

    fn cut_some(&mut self, nodes: usize) -> Option<RowBatch> {
        for _ in 0..nodes {
            let cut = self.cut.as_mut()?;
            if let Some(id) = cut.pending.get(cut.next).copied() {
                cut.next += 1;
                // A place may be listed twice, or have been given to another node since.
                if self.nodes.get(id).is_some_and(|node| node.dirty.is_before(self.generation)) {
                    self.take_rows(id);
                }
            } else if let Some(path) = cut.deleted.pop_first() {
                self.take_deletion(&path);
            } else {
                break;
            }
        }
        let ended = |cut: &mut Box<Cut>| cut.next == cut.pending.len() && cut.deleted.is_empty();
        let Cut { meta, deletions, rows, .. } = *self.cut.take_if(ended)?;
        Some(RowBatch { deletions, rows, meta })
    }

    /// A node is about to change.
    pub(crate) fn touch(&mut self, id: NodeId) {
        if self.cut.is_some() && self.nodes[id].dirty.is_before(self.generation) {
            self.take_rows(id);
        }
    }

    fn take_rows(&mut self, id: NodeId) {
        let key = NodeKey { depth: self.depth(id), path: self.path(id).into() };
        let node = &mut self.nodes[id];
        let dirty = std::mem::take(&mut node.dirty);
        let Some(cut) = &mut self.cut else { return };
        node.set_cut(cut.tag);
        if dirty.has(Dirty::STAT) {
            cut.rows.push(Row::Node(key.clone(), node.meta));
        }
        if dirty.has(Dirty::DATA) {
            cut.rows.push(Row::Data(key, node.blob()));
        }
    }

    /// A node that stood at the path again when the cut began gives all its rows, and they come after the deletions.
    fn take_deletion(&mut self, path: &str) {
        let later = |dirty: Dirty| dirty.has(Dirty::NEW) && !dirty.is_before(self.generation);
        if self.find(path).is_none_or(|id| later(self.nodes[id].dirty))
            && let Some(cut) = &mut self.cut
        {
            cut.deletions.push(Row::Deleted(NodeKey::of(path)));
        }
    }

    /// Forgets all dirty marks: what was just read is what the store has.
    pub(crate) fn clean(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            self.nodes[id].dirty = Dirty::default();
        }
        self.acls.take_dirty();
        self.clock.flushed();
    }
}
