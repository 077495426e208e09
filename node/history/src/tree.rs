//! The reference: a tree of znodes as ZooKeeper's documents describe it, as simple as can be.
//!
//! Must not know the product's tree. Invariant: a write changes all it should or nothing, and what was changed since a
//! mark can be taken back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::record::{Body, ErrorCode, EventKind, Request, Stat, View, WatchEvent, Write};

type Result<T> = std::result::Result<T, ErrorCode>;

#[derive(Clone, Debug)]
struct Node {
    data: Vec<u8>,
    czxid: i64,
    mzxid: i64,
    pzxid: i64,
    /// What nobody has seen may have changed the data, or the list of children, until here.
    unseen: (i64, i64),
    version: i32,
    /// Children ever created: the next sequential number.
    creates: i32,
    children: i32,
    owner: i64,
}

impl Node {
    fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.pzxid,
            version: self.version,
            cversion: 2 * self.creates - self.children,
            ephemeral_owner: self.owner,
            data_length: self.data.len() as i32,
            num_children: self.children,
            ..Stat::default()
        }
    }
}

impl Node {
    fn with_children_changed(mut self, by: Transaction<'_>) -> Self {
        if by.unseen {
            self.unseen.1 = self.unseen.1.max(by.zxid);
        } else {
            self.pzxid = by.zxid;
        }
        self
    }
}

/// What was asked for, by whom, at which zxid.
#[derive(Clone, Copy)]
pub(crate) struct Transaction<'a> {
    pub(crate) request: &'a Request,
    pub(crate) session: i64,
    pub(crate) zxid: i64,
    /// Nobody has seen it: whatever is the last change of something is seen with it, so this one was not the last.
    pub(crate) unseen: bool,
}

/// What a transaction answered, and what it changed, in the order in which watches fire.
pub(crate) struct Applied {
    pub(crate) result: Result<Body>,
    pub(crate) changes: Vec<WatchEvent>,
}

pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
    owned: BTreeMap<i64, BTreeSet<String>>,
    /// What each changed place held before, the oldest forgotten.
    before: VecDeque<(String, Option<Node>)>,
    forgotten: usize,
}

/// How much had been changed at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Mark(usize);

impl Tree {
    /// A root with nothing below it but what ZooKeeper puts there, which no checked operation may name.
    pub(crate) fn new() -> Self {
        let root = Node {
            data: Vec::new(),
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            unseen: (0, 0),
            version: 0,
            creates: 0,
            children: 1,
            owner: 0,
        };
        let nodes = BTreeMap::from([("/".to_owned(), root)]);
        Self { nodes, owned: BTreeMap::new(), before: VecDeque::new(), forgotten: 0 }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.forgotten + self.before.len())
    }

    /// Takes back what was changed since; what is forgotten stays.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        while self.forgotten + self.before.len() > mark.0 {
            let Some((path, node)) = self.before.pop_back() else { return };
            self.place(path, node);
        }
    }

    /// Nobody will go back further than to this.
    pub(crate) fn forget(&mut self, mark: Mark) {
        self.before.drain(..mark.0 - self.forgotten);
        self.forgotten = mark.0;
    }

    /// Carries out a write, a multi or the end of a session.
    pub(crate) fn apply(&mut self, transaction: Transaction<'_>) -> Applied {
        let mut changes = Vec::new();
        let result = match transaction.request {
            Request::Write(write) => self.write(write, transaction, &mut changes),
            Request::Multi(writes) => Ok(self.multi(writes, transaction, &mut changes)),
            _ => {
                self.end_session(transaction, &mut changes);
                Ok(Body::Empty)
            }
        };
        Applied { result, changes }
    }

    pub(crate) fn read(&self, view: View, path: &str) -> Result<Body> {
        let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
        Ok(match view {
            View::Data => Body::Data(node.data.clone(), node.stat()),
            View::Stat => Body::Stat(node.stat()),
            View::Children => Body::Children(self.children(path), node.stat()),
        })
    }

    pub(crate) fn stat(&self, path: &str) -> Option<Stat> {
        self.nodes.get(path).map(Node::stat)
    }

    /// The last zxids at which its data and its list of children may have changed.
    pub(crate) fn changes(&self, path: &str) -> Option<(i64, i64)> {
        let node = self.nodes.get(path)?;
        Some((node.mzxid.max(node.unseen.0), node.pzxid.max(node.unseen.1)))
    }

    /// The last zxid at which the znode, or its list of children, changed.
    pub(crate) fn changed_at(&self, path: &str) -> i64 {
        self.nodes.get(path).map_or(0, |node| node.mzxid.max(node.pzxid))
    }

    pub(crate) fn data(&self, path: &str) -> Option<&[u8]> {
        self.nodes.get(path).map(|node| node.data.as_slice())
    }

    /// Sessions that own the znode or a child of it.
    pub(crate) fn owners_at(&self, path: &str) -> BTreeSet<i64> {
        let own = self.nodes.get(path).map(|node| node.owner);
        let below = self.below(path).map(|(_, node)| node.owner);
        own.into_iter().chain(below).filter(|owner| *owner != 0).collect()
    }

    pub(crate) fn children(&self, path: &str) -> Vec<String> {
        let start = prefix(path).len();
        self.below(path).map(|(path, _)| path[start..].to_owned()).collect()
    }

    fn below(&self, path: &str) -> impl Iterator<Item = (&String, &Node)> {
        let start = prefix(path);
        let len = start.len();
        // '0' is the character after '/'.
        let end = format!("{}0", &start[..len - 1]);
        self.nodes.range(start..end).filter(move |(path, _)| path.len() > len && !path[len..].contains('/'))
    }

    fn write(&mut self, write: &Write, by: Transaction<'_>, changes: &mut Vec<WatchEvent>) -> Result<Body> {
        match write {
            Write::Create { path, data, ephemeral, sequential } => {
                let owner = if *ephemeral { by.session } else { 0 };
                self.create((path, data, owner, *sequential), by, changes)
            }
            Write::Delete { path, version } => {
                let node = self.expect(path, *version, by.zxid)?;
                if node.children > 0 {
                    return Err(ErrorCode::NOT_EMPTY);
                }
                self.remove(path, by, changes);
                Ok(Body::Empty)
            }
            Write::SetData { path, data, version } => {
                let node = self.expect(path, *version, by.zxid)?;
                let mut node = Node { version: node.version + 1, ..node.clone() };
                if by.unseen {
                    node.unseen.0 = node.unseen.0.max(by.zxid);
                } else {
                    node = Node { data: data.clone(), mzxid: by.zxid, ..node };
                }
                let stat = node.stat();
                self.put(path, Some(node));
                changes.push(WatchEvent {
                    zxid: by.zxid,
                    kind: EventKind::NodeDataChanged,
                    path: path.clone(),
                });
                Ok(Body::Stat(stat))
            }
            Write::Check { path, version } => self.expect(path, *version, by.zxid).map(|_| Body::Empty),
        }
    }

    fn create(
        &mut self,
        (path, data, owner, sequential): (&str, &[u8], i64, bool),
        by: Transaction<'_>,
        changes: &mut Vec<WatchEvent>,
    ) -> Result<Body> {
        let zxid = by.zxid;
        let parent = self.nodes.get(parent_of(path)).ok_or(ErrorCode::NO_NODE)?.clone();
        let path = if sequential { format!("{path}{:010}", parent.creates) } else { path.to_owned() };
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if parent.owner != 0 {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        let node = Node {
            data: data.to_vec(),
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            unseen: (0, 0),
            version: 0,
            creates: 0,
            children: 0,
            owner,
        };
        let stat = node.stat();
        self.put(&path, Some(node));
        let parent = Node {
            creates: parent.creates + 1,
            children: parent.children + 1,
            ..parent.with_children_changed(by)
        };
        self.put(parent_of(&path), Some(parent));
        changes.extend(node_and_parent(zxid, EventKind::NodeCreated, &path));
        Ok(Body::Created(path, stat))
    }

    fn remove(&mut self, path: &str, by: Transaction<'_>, changes: &mut Vec<WatchEvent>) {
        self.put(path, None);
        if let Some(parent) = self.nodes.get(parent_of(path)) {
            let parent = Node { children: parent.children - 1, ..parent.clone().with_children_changed(by) };
            self.put(parent_of(path), Some(parent));
        }
        changes.extend(node_and_parent(by.zxid, EventKind::NodeDeleted, path));
    }

    /// All or none; each sees what those before it did.
    fn multi(&mut self, writes: &[Write], by: Transaction<'_>, changes: &mut Vec<WatchEvent>) -> Body {
        let mark = self.mark();
        let mut results = Vec::new();
        for write in writes {
            match self.write(write, by, changes) {
                Ok(body) => results.push(Ok(body)),
                Err(code) => {
                    self.roll_back(mark);
                    changes.clear();
                    results.fill(Err(ErrorCode::OK));
                    results.push(Err(code));
                    results.resize(writes.len(), Err(ErrorCode::RUNTIME_INCONSISTENCY));
                    break;
                }
            }
        }
        Body::Multi(results)
    }

    fn end_session(&mut self, by: Transaction<'_>, changes: &mut Vec<WatchEvent>) {
        for path in self.owned.get(&by.session).cloned().unwrap_or_default() {
            self.remove(&path, by, changes);
        }
    }

    /// The znode, unless it was created later.
    fn expect(&self, path: &str, version: i32, zxid: i64) -> Result<&Node> {
        let node = self.nodes.get(path).filter(|node| node.czxid <= zxid).ok_or(ErrorCode::NO_NODE)?;
        if version == -1 || version == node.version { Ok(node) } else { Err(ErrorCode::BAD_VERSION) }
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        let before = self.place(path.to_owned(), node);
        self.before.push_back((path.to_owned(), before));
    }

    fn place(&mut self, path: String, node: Option<Node>) -> Option<Node> {
        let owner = node.as_ref().map_or(0, |node| node.owner);
        let before = match node {
            Some(node) => self.nodes.insert(path.clone(), node),
            None => self.nodes.remove(&path),
        };
        let was = before.as_ref().map_or(0, |node| node.owner);
        if was != owner {
            if let Some(paths) = self.owned.get_mut(&was) {
                paths.remove(&path);
            }
            if owner != 0 {
                self.owned.entry(owner).or_default().insert(path);
            }
        }
        before
    }
}

fn node_and_parent(zxid: i64, kind: EventKind, path: &str) -> [WatchEvent; 2] {
    let parent = parent_of(path).to_owned();
    [
        WatchEvent { zxid, kind, path: path.to_owned() },
        WatchEvent { zxid, kind: EventKind::NodeChildrenChanged, path: parent },
    ]
}

fn prefix(path: &str) -> String {
    if path == "/" { "/".to_owned() } else { format!("{path}/") }
}

pub(crate) fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(end) => &path[..end],
    }
}
