//! Nodes in numbered places that are reused. The store grows by chunks, so that it never copies what it holds.

use crate::node::Node;

/// A node's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    /// The root's place.
    pub(crate) const ROOT: Self = Self(0);
    /// No node.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// `None` for [`Self::NONE`].
    pub(crate) fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

const CHUNK: usize = 1024;

/// The places. Freed ones are reused last in, first out, which the undo log relies on: undoing in reverse order gives
/// each node its old place back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slab {
    chunks: Vec<Vec<Option<Node>>>,
    free: Vec<NodeId>,
    len: usize,
}

impl Slab {
    pub(crate) fn insert(&mut self, node: Node) -> NodeId {
        self.len += 1;
        if let Some(id) = self.free.pop() {
            *self.place(id) = Some(node);
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("a chunk was just made sure of");
        chunk.push(Some(node));
        NodeId(
            u32::try_from(full + chunk.len() - 1)
                .ok()
                .filter(|n| *n < u32::MAX)
                .expect("fewer nodes than 2^32"),
        )
    }

    pub(crate) fn remove(&mut self, id: NodeId) -> Node {
        let node = self.place(id).take().expect("a node is removed once");
        self.free.push(id);
        self.len -= 1;
        node
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Node> {
        self.chunks.get(id.0 as usize / CHUNK)?.get(id.0 as usize % CHUNK)?.as_ref()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How many places there are, free ones included.
    pub(crate) fn places(&self) -> usize {
        self.len + self.free.len()
    }

    fn place(&mut self, id: NodeId) -> &mut Option<Node> {
        &mut self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }
}

impl std::ops::Index<NodeId> for Slab {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        self.get(id).expect("links lead to nodes")
    }
}

impl std::ops::IndexMut<NodeId> for Slab {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        self.place(id).as_mut().expect("links lead to nodes")
    }
}
