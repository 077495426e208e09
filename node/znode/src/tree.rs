//! The tree: nodes, the index of their paths, and the few primitive changes of which every command is made.
//!
//! Each primitive keeps index, links, ephemeral sets, digest, dirty marks and undo log in step; nothing else writes them.
//! It knows no rules of who may do what: `write` checks before it calls.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;
use pharos_jute::{Acl, Id};

use crate::acl_table::{AclId, AclTable};
use crate::cold::Clock;
use crate::cut::Cut;
use crate::hash::hash_bytes;
use crate::node::{Blob, CONTAINER, Dirty, Meta, Node, ttl_of};
use crate::slab::{NodeId, Slab};
use crate::undo::Undo;

const ROOT_HASH: u64 = 0x2f2f_2f2f;

/// A new node before it has its place.
pub(crate) struct NewNode<'a> {
    pub(crate) parent: NodeId,
    pub(crate) name: &'a str,
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) acl: AclId,
    pub(crate) owner: i64,
}

/// The tree.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) nodes: Slab,
    pub(crate) acls: AclTable,
    index: HashTable<NodeId>,
    ephemerals: BTreeMap<i64, BTreeSet<NodeId>>,
    /// Containers and nodes with a time to live.
    passing: BTreeSet<NodeId>,
    digest: u64,
    data_bytes: u64,
    /// Nodes that have changed since the last cut began.
    pub(crate) dirty: Vec<NodeId>,
    /// Paths of nodes that the store has and that were deleted since.
    pub(crate) deleted: BTreeSet<Box<str>>,
    pub(crate) generation: Dirty,
    pub(crate) cut: Option<Box<Cut>>,
    undo: Option<Vec<Undo>>,
    pub(crate) clock: Clock,
}

impl Tree {
    /// A tree of the root alone, with the given numbers and list.
    pub(crate) fn with_root(meta: impl FnOnce(AclId) -> Meta, acl: Vec<Acl>, dirty: Dirty) -> Self {
        let mut tree = Self::empty();
        let acl = tree.acls.acquire(acl);
        tree.insert_root(meta(acl), dirty);
        tree
    }

    /// A tree without any node, to be filled by [`Self::restore`].
    pub(crate) fn empty() -> Self {
        Self {
            nodes: Slab::default(),
            acls: AclTable::default(),
            index: HashTable::new(),
            ephemerals: BTreeMap::new(),
            passing: BTreeSet::new(),
            digest: 0,
            data_bytes: 0,
            dirty: Vec::new(),
            deleted: BTreeSet::new(),
            generation: Dirty::default(),
            cut: None,
            undo: None,
            clock: Clock::default(),
        }
    }

    fn insert_root(&mut self, meta: Meta, dirty: Dirty) {
        let root = Node::new(ROOT_HASH, meta, Blob::new("", Some(b"")), NodeId::NONE, dirty);
        self.add_digest(&root);
        let id = self.nodes.insert(root);
        assert_eq!(id, NodeId::ROOT, "the root is the first node");
        self.dirty.push(id);
    }

    /// The digest of all nodes.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes of all names and data.
    pub(crate) const fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Finds a node. The empty path is the root, as in ZooKeeper.
    pub(crate) fn find(&self, path: &str) -> Option<NodeId> {
        if path.is_empty() || path == "/" {
            return Some(NodeId::ROOT);
        }
        let names = path.strip_prefix('/')?;
        let hash = names.split('/').fold(ROOT_HASH, |hash, name| hash_bytes(hash, name.as_bytes()));
        self.index.find(hash, |id| self.has_path(*id, path)).copied()
    }

    fn has_path(&self, mut id: NodeId, mut path: &str) -> bool {
        while id != NodeId::ROOT {
            let node = &self.nodes[id];
            match path.rsplit_once('/') {
                Some((head, name)) if name.as_bytes() == node.parts().name_bytes() => path = head,
                _ => return false,
            }
            id = node.parent;
        }
        path.is_empty()
    }

    /// A node's full path.
    pub(crate) fn path(&self, mut id: NodeId) -> String {
        if id == NodeId::ROOT {
            return "/".to_owned();
        }
        let mut names = Vec::new();
        while id != NodeId::ROOT {
            let node = &self.nodes[id];
            names.push(node.name());
            id = node.parent;
        }
        let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// How many names a node's path has.
    pub(crate) fn depth(&self, id: NodeId) -> usize {
        std::iter::successors(Some(id), |id| self.nodes[*id].parent.some()).count() - 1
    }

    pub(crate) fn acl(&self, id: NodeId) -> &Arc<[Acl]> {
        self.acls.list(self.nodes[id].meta.acl)
    }

    pub(crate) fn allows(&self, id: NodeId, wanted: i32, auth: &[Id]) -> bool {
        self.acls.allows(self.nodes[id].meta.acl, wanted, auth)
    }

    /// A node's children, in no order.
    pub(crate) fn child_ids(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.nodes[id].first_child.some(), |id| self.nodes[*id].next.some())
    }

    /// The ephemeral nodes of a session, by their places.
    pub(crate) fn ephemerals_of(&self, owner: i64, after: Bound<NodeId>) -> impl Iterator<Item = NodeId> {
        let ids = self.ephemerals.get(&owner).into_iter();
        ids.flat_map(move |ids| ids.range((after, Bound::Unbounded))).copied()
    }

    /// How many ephemeral nodes there are.
    pub(crate) fn ephemeral_count(&self) -> usize {
        self.ephemerals.values().map(BTreeSet::len).sum()
    }

    /// The containers and the nodes with a time to live.
    pub(crate) fn passing(&self) -> impl Iterator<Item = NodeId> {
        self.passing.iter().copied()
    }

    /// Creates a node, and counts the creation at its parent. The new node takes over one count of its list.
    pub(crate) fn create(&mut self, new: NewNode<'_>, zxid: i64, time_ms: i64) -> NodeId {
        let before = self.nodes[new.parent].meta;
        let id = self.insert(
            new.parent,
            Meta::created(zxid, time_ms, new.owner, new.acl),
            Blob::new(new.name, new.data),
            Dirty::NEW.with(self.generation),
        );
        self.change(new.parent, |parent| {
            parent.children += 1;
            parent.meta.creates = parent.meta.creates.wrapping_add(1);
            parent.meta.pzxid = zxid;
        });
        self.record(|| Undo::Create(id, before));
        id
    }

    /// Deletes a node that has no children.
    pub(crate) fn delete(&mut self, id: NodeId, zxid: i64) {
        let parent = self.nodes[id].parent;
        let before = self.nodes[parent].meta;
        self.note_deletion(id);
        let node = self.take_out(id);
        self.change(parent, |parent| {
            parent.children -= 1;
            parent.meta.pzxid = zxid;
        });
        if self.undo.is_some() {
            self.record(|| Undo::Delete(Box::new(node), before));
        } else {
            self.acls.release(node.meta.acl);
        }
    }

    /// Writes a node's data.
    pub(crate) fn set_data(&mut self, id: NodeId, data: Option<&[u8]>, zxid: i64, time_ms: i64) {
        // The cut under way takes its rows first: what they were is not to be restored as if they were still due.
        self.touch(id);
        self.record_write(id);
        let blob = Blob::new(self.nodes[id].name(), data);
        self.set_blob(id, blob);
        self.change(id, |node| {
            node.meta.version = node.meta.version.wrapping_add(1);
            node.meta.mzxid = zxid;
            node.meta.mtime = time_ms;
        });
    }

    /// Writes the version of a node whose data is not counted: `/zookeeper/config`.
    pub(crate) fn set_version(&mut self, id: NodeId, version: i32) {
        self.change(id, |node| node.meta.version = version);
    }

    /// Makes a fixed node look as ZooKeeper's do, which no transaction created.
    pub(crate) fn mark_unborn(&mut self, id: NodeId, aversion: i32) {
        self.change(id, |node| {
            node.meta.creates = 0;
            node.meta.aversion = aversion;
        });
    }

    /// Writes a node's list; takes over one count of it. Never part of a multi.
    pub(crate) fn set_acl(&mut self, id: NodeId, acl: AclId, aversion: i32) {
        assert!(self.undo.is_none(), "a multi writes no lists");
        let old = self.nodes[id].meta.acl;
        self.change(id, |node| {
            node.meta.acl = acl;
            node.meta.aversion = aversion;
        });
        self.acls.release(old);
    }

    /// Puts a node read from its row below its parent; the parent's own row has its numbers, except its count of
    /// children.
    pub(crate) fn restore(&mut self, parent: Option<NodeId>, name: &str, meta: Meta) {
        self.acls.retain(meta.acl);
        match parent {
            None => {
                self.insert_root(meta, Dirty::default());
                self.set_blob(NodeId::ROOT, Blob::new("", None));
            }
            Some(parent) => {
                self.insert(parent, meta, Blob::new(name, None), Dirty::default());
                self.change(parent, |parent| parent.children += 1);
            }
        }
    }

    /// Gives a node the data read from its row.
    pub(crate) fn restore_data(&mut self, id: NodeId, data: &[u8]) {
        let blob = self.blob_of_row(id, data);
        self.set_blob(id, blob);
    }

    /// Starts to note how changes are undone.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// Makes the changes since [`Self::begin`] final; true when all are.
    pub(crate) fn commit(&mut self, steps: &mut usize) -> bool {
        while let Some(undo) = self.next_undo(steps) {
            match undo {
                Undo::Delete(node, _) => self.acls.release(node.meta.acl),
                Undo::Create(..) | Undo::Write(..) => {}
            }
        }
        self.undo.take_if(|undo| undo.is_empty()).is_some()
    }

    /// Takes back the changes since [`Self::begin`]; true when all are.
    pub(crate) fn roll_back(&mut self, steps: &mut usize) -> bool {
        while let Some(undo) = self.next_undo(steps) {
            self.take_back(undo);
        }
        self.undo.take_if(|undo| undo.is_empty()).is_some()
    }

    fn next_undo(&mut self, steps: &mut usize) -> Option<Undo> {
        *steps = steps.checked_sub(1)?;
        self.undo.as_mut()?.pop()
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Create(id, before) => {
                let node = self.take_out(id);
                self.acls.release(node.meta.acl);
                self.change(node.parent, |parent| {
                    parent.children -= 1;
                    parent.meta = before;
                });
            }
            Undo::Delete(node, before) => {
                let Node { meta, parent, dirty, .. } = *node;
                let id = self.insert(parent, meta, node.blob(), dirty);
                self.nodes[id].set_cut(node.cut());
                if !dirty.has(Dirty::NEW) {
                    let path = self.path(id);
                    self.deleted.remove(path.as_str());
                }
                self.change(parent, |parent| {
                    parent.children += 1;
                    parent.meta = before;
                });
            }
            Undo::Write(id, meta, blob, dirty) => {
                self.set_blob(id, blob);
                // Of a cold value there is nothing to write, and its row is as it was.
                self.nodes[id].dirty = dirty;
                self.change(id, |node| node.meta = meta);
            }
        }
    }

    /// The digest computed from scratch, to check the incremental one against.
    pub(crate) fn recompute_digest(&self) -> u64 {
        let mut stack = vec![NodeId::ROOT];
        let mut digest = 0_u64;
        while let Some(id) = stack.pop() {
            let node = &self.nodes[id];
            digest = digest.wrapping_add(node.stat_digest(self.acls.hash(node.meta.acl)));
            digest = digest.wrapping_add(node.data_digest());
            stack.extend(self.child_ids(id));
        }
        digest
    }

    /// Puts a node into slab, index, links and sets; its parent's numbers are the caller's to change.
    fn insert(&mut self, parent: NodeId, meta: Meta, blob: Blob, dirty: Dirty) -> NodeId {
        let parts = blob.parts();
        let hash = hash_bytes(self.nodes[parent].hash, parts.name_bytes());
        let next = self.nodes[parent].first_child;
        self.data_bytes += (parts.name_bytes().len() + parts.data_len()) as u64;
        self.clock.add(parts.weight());
        let mut node = Node::new(hash, meta, blob, parent, dirty);
        node.next = next;
        self.add_digest(&node);
        let id = self.nodes.insert(node);
        if let Some(next) = next.some() {
            self.nodes[next].prev = id;
        }
        self.nodes[parent].first_child = id;
        let Self { index, nodes, .. } = self;
        index.insert_unique(hash, id, |id| nodes[*id].hash);
        self.join_owner(id, meta.owner);
        if dirty != Dirty::default() {
            self.dirty.push(id);
        }
        id
    }

    /// The reverse of [`Self::insert`].
    fn take_out(&mut self, id: NodeId) -> Node {
        let hash = self.nodes[id].hash;
        self.index.find_entry(hash, |other| *other == id).expect("each node is indexed").remove();
        let node = self.nodes.remove(id);
        assert_eq!(node.children, 0, "only nodes without children are deleted");
        match node.prev.some() {
            Some(prev) => self.nodes[prev].next = node.next,
            None => self.nodes[node.parent].first_child = node.next,
        }
        if let Some(next) = node.next.some() {
            self.nodes[next].prev = node.prev;
        }
        self.sub_digest(&node);
        let parts = node.parts();
        self.data_bytes -= (parts.name_bytes().len() + parts.data_len()) as u64;
        self.clock.sub(parts.weight());
        self.leave_owner(id, node.meta.owner);
        node
    }

    fn note_deletion(&mut self, id: NodeId) {
        self.touch(id);
        if !self.nodes[id].dirty.has(Dirty::NEW) {
            let path = self.path(id).into_boxed_str();
            self.deleted.insert(path);
        }
    }

    fn join_owner(&mut self, id: NodeId, owner: i64) {
        match owner {
            0 => {}
            owner if owner == CONTAINER || ttl_of(owner).is_some() => {
                self.passing.insert(id);
            }
            session => {
                self.ephemerals.entry(session).or_default().insert(id);
            }
        }
    }

    fn leave_owner(&mut self, id: NodeId, owner: i64) {
        self.passing.remove(&id);
        if let Some(ids) = self.ephemerals.get_mut(&owner) {
            ids.remove(&id);
            if ids.is_empty() {
                self.ephemerals.remove(&owner);
            }
        }
    }

    /// Changes a node's numbers.
    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        self.touch(id);
        let Self { nodes, acls, digest, dirty, generation, .. } = self;
        let node = &mut nodes[id];
        *digest = digest.wrapping_sub(node.stat_digest(acls.hash(node.meta.acl)));
        change(node);
        *digest = digest.wrapping_add(node.stat_digest(acls.hash(node.meta.acl)));
        if node.dirty == Dirty::default() {
            dirty.push(id);
        }
        node.dirty = node.dirty.with(Dirty::STAT).with(*generation);
    }

    fn set_blob(&mut self, id: NodeId, blob: Blob) {
        self.touch(id);
        let Self { nodes, digest, dirty, generation, data_bytes, clock, .. } = self;
        let node = &mut nodes[id];
        *digest = digest.wrapping_sub(node.data_digest());
        *data_bytes = *data_bytes - node.parts().data_len() as u64 + blob.parts().data_len() as u64;
        clock.sub(node.parts().weight());
        clock.add(blob.parts().weight());
        node.set_blob(blob);
        *digest = digest.wrapping_add(node.data_digest());
        if node.dirty == Dirty::default() {
            dirty.push(id);
        }
        node.dirty = node.dirty.with(Dirty::DATA).with(*generation);
    }

    fn add_digest(&mut self, node: &Node) {
        let stat = node.stat_digest(self.acls.hash(node.meta.acl));
        self.digest = self.digest.wrapping_add(stat).wrapping_add(node.data_digest());
    }

    fn sub_digest(&mut self, node: &Node) {
        let stat = node.stat_digest(self.acls.hash(node.meta.acl));
        self.digest = self.digest.wrapping_sub(stat).wrapping_sub(node.data_digest());
    }

    fn record(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(log) = &mut self.undo {
            log.push(undo());
        }
    }

    fn record_write(&mut self, id: NodeId) {
        if let Some(log) = &mut self.undo {
            let node = &self.nodes[id];
            log.push(Undo::Write(id, node.meta, node.blob(), node.dirty));
        }
    }
}
