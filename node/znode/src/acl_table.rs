//! Access control lists, each kept once and counted: most nodes of a tree share a few.

use std::sync::Arc;

use hashbrown::HashTable;
use pharos_jute::{Acl, Id, perms};

use crate::acl::allowed;
use crate::hash::{hash_bytes, mix};

/// A list's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AclId(pub(crate) u32);

#[derive(Debug, Clone)]
struct Entry {
    list: Arc<[Acl]>,
    hash: u64,
    /// What the list gives to everyone: answers most checks.
    world: i32,
    nodes: u32,
}

/// The lists in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct AclTable {
    entries: Vec<Option<Entry>>,
    free: Vec<AclId>,
    by_hash: HashTable<AclId>,
    dirty: Vec<AclId>,
}

impl AclTable {
    /// Counts one more node with this list and gives its place.
    pub(crate) fn acquire(&mut self, list: Vec<Acl>) -> AclId {
        let hash = hash_list(&list);
        if let Some(id) = self.by_hash.find(hash, |id| self.list(*id)[..] == list[..]).copied() {
            self.retain(id);
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            AclId(u32::try_from(self.entries.len() - 1).expect("fewer lists than nodes"))
        });
        self.insert(id, list, hash, 1);
        self.dirty.push(id);
        id
    }

    /// Puts a list read from a row at its place; its nodes are counted as they are read. `false` if it is taken.
    pub(crate) fn restore(&mut self, id: AclId, list: Vec<Acl>) -> bool {
        let index = id.0 as usize;
        while self.entries.len() < index {
            self.free.push(AclId(u32::try_from(self.entries.len()).expect("ids are u32")));
            self.entries.push(None);
        }
        if self.entries.len() == index {
            self.entries.push(None);
        } else if self.entries[index].is_some() {
            return false;
        } else {
            self.free.retain(|free| *free != id);
        }
        let hash = hash_list(&list);
        self.insert(id, list, hash, 0);
        true
    }

    fn insert(&mut self, id: AclId, list: Vec<Acl>, hash: u64, nodes: u32) {
        let world = list.iter().filter(|a| a.id.scheme == "world").fold(0, |bits, a| bits | a.perms);
        let world = if list.is_empty() { perms::ALL } else { world };
        self.entries[id.0 as usize] = Some(Entry { list: list.into(), hash, world, nodes });
        let Self { entries, by_hash, .. } = self;
        by_hash.insert_unique(hash, id, |id| entry(entries, *id).hash);
    }

    /// Counts one more node with the list at this place.
    pub(crate) fn retain(&mut self, id: AclId) {
        self.entry_mut(id).nodes += 1;
    }

    /// Counts one node less; the last one frees the place.
    pub(crate) fn release(&mut self, id: AclId) {
        let entry = self.entry_mut(id);
        entry.nodes -= 1;
        if entry.nodes > 0 {
            return;
        }
        let hash = entry.hash;
        self.by_hash.find_entry(hash, |other| *other == id).expect("each list is indexed").remove();
        self.entries[id.0 as usize] = None;
        self.free.push(id);
        self.dirty.push(id);
    }

    /// Drops lists that no node has.
    pub(crate) fn drop_unused(&mut self) {
        for index in 0..self.entries.len() {
            if self.entries[index].as_ref().is_some_and(|entry| entry.nodes == 0) {
                let id = AclId(u32::try_from(index).expect("ids are u32"));
                self.retain(id);
                self.release(id);
            }
        }
    }

    /// Whether there is a list at this place.
    pub(crate) fn contains(&self, id: AclId) -> bool {
        self.entries.get(id.0 as usize).is_some_and(Option::is_some)
    }

    pub(crate) fn list(&self, id: AclId) -> &Arc<[Acl]> {
        &entry(&self.entries, id).list
    }

    /// A hash of the list's content, the same whatever its place.
    pub(crate) fn hash(&self, id: AclId) -> u64 {
        entry(&self.entries, id).hash
    }

    pub(crate) fn allows(&self, id: AclId, wanted: i32, auth: &[Id]) -> bool {
        let entry = entry(&self.entries, id);
        entry.world & wanted != 0 || allowed(&entry.list, wanted, auth)
    }

    /// The places changed since the last call, with their lists (`None`: freed).
    pub(crate) fn take_dirty(&mut self) -> Vec<(AclId, Option<Arc<[Acl]>>)> {
        let mut ids = std::mem::take(&mut self.dirty);
        ids.sort_unstable();
        ids.dedup();
        let list = |id: AclId| self.entries[id.0 as usize].as_ref().map(|e| Arc::clone(&e.list));
        ids.into_iter().map(|id| (id, list(id))).collect()
    }

    fn entry_mut(&mut self, id: AclId) -> &mut Entry {
        self.entries[id.0 as usize].as_mut().expect("a node's list is in the table")
    }
}

fn entry(entries: &[Option<Entry>], id: AclId) -> &Entry {
    entries[id.0 as usize].as_ref().expect("a node's list is in the table")
}

fn hash_list(list: &[Acl]) -> u64 {
    list.iter().fold(list.len() as u64, |hash, acl| {
        let hash = mix(hash, u64::from(acl.perms.cast_unsigned()));
        hash_bytes(hash_bytes(hash, acl.id.scheme.as_bytes()), acl.id.id.as_bytes())
    })
}
