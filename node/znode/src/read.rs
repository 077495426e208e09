//! Reads. They take any path: one that breaks the rules simply does not exist. Each checks the node's ACL as ZooKeeper
//! does, except where noted.

use std::ops::Bound;
use std::sync::Arc;

use pharos_jute::{Acl, AclRef, ErrorCode, Id, Stat, perms};

use crate::acl::{redacted, wire};
use crate::cold::ColdValue;
use crate::slab::NodeId;
use crate::tree::Tree;
use crate::{SessionId, State};

type Result<T> = std::result::Result<T, ErrorCode>;

/// A node's data; null and empty differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// There are none.
    Null,
    /// These.
    Here(&'a [u8]),
    /// Those in the row [`State::data_row`] of the store: until a cut that is taken later is written to it.
    Cold(ColdValue),
}

impl<'a> Value<'a> {
    /// The data, if there are any and they are in memory.
    #[must_use]
    pub const fn here(self) -> Option<&'a [u8]> {
        match self {
            Self::Here(data) => Some(data),
            Self::Null | Self::Cold(_) => None,
        }
    }
}

/// A node's data and Stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeData<'a> {
    /// The data.
    pub data: Value<'a>,
    /// The Stat.
    pub stat: Stat,
}

/// A node's children and Stat.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    /// The node's own Stat.
    pub stat: Stat,
    /// The children's names, in no order.
    pub names: ChildNames<'a>,
}

/// Names of a node's children, in no order (ZooKeeper promises none either).
#[derive(Debug, Clone)]
pub struct ChildNames<'a> {
    tree: &'a Tree,
    next: Option<NodeId>,
    left: usize,
}

impl<'a> Iterator for ChildNames<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let node = &self.tree.nodes[self.next?];
        self.next = node.next.some();
        self.left -= 1;
        Some(node.name())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for ChildNames<'_> {}

/// A node's ACL as the asking connection may see it, and the node's Stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclView {
    /// The entries; without digests of passwords for those who may not administer the node.
    pub acl: Vec<Acl>,
    /// The Stat.
    pub stat: Stat,
}

impl AclView {
    /// The entries as they go on the wire.
    pub fn wire(&self) -> Vec<AclRef<'_>> {
        wire(&self.acl)
    }
}

impl State {
    /// A node's Stat.
    pub fn exists(&self, path: &str, auth: &[Id]) -> Result<Stat> {
        if path.contains('\0') {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        Ok(self.tree.nodes[self.readable(path, perms::READ, auth)?].stat())
    }

    /// A node's data.
    pub fn get_data(&self, path: &str, auth: &[Id]) -> Result<NodeData<'_>> {
        let node = &self.tree.nodes[self.readable(path, perms::READ, auth)?];
        node.touch();
        let parts = node.parts();
        let data = match (parts.data(), parts.cold()) {
            (Some(data), _) => Value::Here(data),
            (None, Some(cold)) => Value::Cold(ColdValue::new(node.hash, cold)),
            (None, None) => Value::Null,
        };
        Ok(NodeData { data, stat: node.stat() })
    }

    /// A node's children.
    pub fn children(&self, path: &str, auth: &[Id]) -> Result<Children<'_>> {
        let node = &self.tree.nodes[self.readable(path, perms::READ, auth)?];
        let names =
            ChildNames { tree: &self.tree, next: node.first_child.some(), left: node.children as usize };
        Ok(Children { stat: node.stat(), names })
    }

    /// A node's ACL: to readers and administrators.
    pub fn get_acl(&self, path: &str, auth: &[Id]) -> Result<AclView> {
        let id = self.readable(path, perms::READ | perms::ADMIN, auth)?;
        let list = self.tree.acl(id);
        let acl = if self.tree.allows(id, perms::ADMIN, auth) { list.to_vec() } else { redacted(list) };
        Ok(AclView { acl, stat: self.tree.nodes[id].stat() })
    }

    /// The number of nodes below a node.
    pub fn all_children_number(&self, path: &str, auth: &[Id]) -> Result<i32> {
        let id = self.readable(path, perms::READ, auth)?;
        let count = match path {
            // ZooKeeper counts paths that begin with the given one and a slash; for the empty path the root's does.
            "" => self.node_count(),
            "/" => self.node_count() - 1,
            _ => self.descendants(id),
        };
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// The paths of a session's ephemeral nodes that begin with a prefix, sorted. Checks no ACL.
    pub fn ephemerals(&self, session: SessionId, prefix: Option<&str>) -> Vec<String> {
        let prefix = prefix.unwrap_or_default();
        let all = matches!(prefix.trim_matches(|c| c <= ' '), "" | "/");
        let paths = self.tree.ephemerals_of(session.0, Bound::Unbounded).map(|id| self.tree.path(id));
        let mut paths: Vec<String> = paths.filter(|path| all || path.starts_with(prefix)).collect();
        paths.sort_unstable();
        paths
    }

    /// A node's Stat, checking no ACL: for the catch-up of `setWatches`.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        Some(self.tree.nodes[self.tree.find(path)?].stat())
    }

    /// A node's ACL, as events carry it.
    pub fn acl(&self, path: &str) -> Option<Arc<[Acl]>> {
        Some(self.tree.acl(self.tree.find(path)?).clone())
    }

    /// What may be deleted in a batch of that time: containers that are empty but were not always, and empty nodes whose
    /// time to live is over. Sorted.
    pub fn expendable(&self, time_ms: i64) -> Vec<String> {
        let now_ms = self.time_ms.max(time_ms);
        let expendable = self.tree.passing().filter(|id| self.tree.nodes[*id].is_expendable(now_ms));
        let mut paths: Vec<String> = expendable.map(|id| self.tree.path(id)).collect();
        paths.sort_unstable();
        paths
    }

    fn readable(&self, path: &str, wanted: i32, auth: &[Id]) -> Result<NodeId> {
        let id = self.tree.find(path).ok_or(ErrorCode::NO_NODE)?;
        if self.tree.allows(id, wanted, auth) { Ok(id) } else { Err(ErrorCode::NO_AUTH) }
    }

    fn descendants(&self, id: NodeId) -> usize {
        let mut stack = vec![id];
        let mut count = 0;
        while let Some(id) = stack.pop() {
            let before = stack.len();
            stack.extend(self.tree.child_ids(id));
            count += stack.len() - before;
        }
        count
    }
}
