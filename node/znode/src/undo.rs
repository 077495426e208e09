//! How to take back the changes of a multi that failed half-way.

use crate::node::{Blob, Dirty, Meta, Node};
use crate::slab::NodeId;

/// The inverse of one change. Undone in reverse order, since later changes build on earlier ones.
#[derive(Debug, Clone)]
pub(crate) enum Undo {
    /// A node was created: remove it. Holds the parent's numbers.
    Create(NodeId, Meta),
    /// A node was deleted: put it back. Holds the parent's numbers.
    Delete(Box<Node>, Meta),
    /// Numbers or data of a node were written: write the old ones. Holds what of it the store lacked before.
    Write(NodeId, Meta, Blob, Dirty),
}
