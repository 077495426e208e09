//! The rules of writes: what is checked, in which order, and what then changes.
//!
//! The order of checks decides the error a client sees, and follows ZooKeeper's `PrepRequestProcessor`.

use bytes::Bytes;
use pharos_jute::{Acl, CreateMode, ErrorCode, EventType, perms};

use crate::acl::fix_up;
use crate::applied::PathSpan;
use crate::command::check_ttl;
use crate::node::{CONTAINER, ttl_owner};
use crate::path::{split, validate_path};
use crate::slab::NodeId;
use crate::state::{CONFIG, FIXED};
use crate::tree::NewNode;
use crate::{Applied, Command, Level, Op, Reply, SessionId, State};

type Result<T> = std::result::Result<T, ErrorCode>;

/// The fields of [`Op::Create`].
struct Create<'a> {
    path: &'a str,
    data: Option<&'a Bytes>,
    acl: &'a [Acl],
    mode: CreateMode,
    ttl: i64,
    with_stat: bool,
}

impl State {
    /// Executes one write. It either changes everything it should or returns an error and has changed nothing.
    pub(crate) fn write(&mut self, op: &Op, command: &Command, out: &mut Applied) -> Result<Reply> {
        match op {
            Op::Create { path, data, acl, mode, ttl, with_stat } => {
                let (data, mode, ttl, with_stat) = (data.as_ref(), *mode, *ttl, *with_stat);
                self.create(&Create { path, data, acl, mode, ttl, with_stat }, command, out)
            }
            Op::Delete { path, version } => self.delete(path, *version, command, out),
            Op::DeleteContainer { path } => self.delete_container(path, out),
            Op::SetData { path, data, version } => self.set_data(path, data.as_ref(), *version, command, out),
            Op::SetAcl { path, acl, version } => self.set_acl(path, acl, *version, command),
            Op::Check { path, version } => self.check(path, *version, command),
            Op::SetConfig { data } => self.set_config(data, out),
            Op::Configure(settings) => {
                self.settings = *settings;
                Ok(Reply::Done)
            }
            // A member stops before it carries out what it does not know.
            Op::SetLevel(level) if *level > Level::NEWEST => Err(ErrorCode::UNIMPLEMENTED),
            Op::SetLevel(level) => {
                self.level = self.level.max(*level);
                Ok(Reply::Done)
            }
            Op::Nop { error } if error.is_ok() => Ok(Reply::Done),
            Op::Nop { error } => Err(*error),
            Op::Multi(_)
            | Op::CreateSession { .. }
            | Op::AttachSession { .. }
            | Op::CloseSession
            | Op::Expire { .. } => Err(ErrorCode::UNIMPLEMENTED),
        }
    }

    fn create(&mut self, op: &Create<'_>, command: &Command, out: &mut Applied) -> Result<Reply> {
        check_ttl(op.mode, op.ttl, self.level)?;
        let (parent_path, name) = split(op.path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let acl = fix_up(op.acl, &command.auth, self.settings)?;
        let parent = self.tree.find(parent_path).ok_or(ErrorCode::NO_NODE)?;
        self.check_acl(parent, perms::CREATE, command)?;
        let number = op.mode.is_sequential().then(|| self.tree.nodes[parent].meta.creates);
        let path = numbered(op.path, number);
        let name = numbered(name, number);
        if !validate_path(&path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        if self.tree.find(&path).is_some() {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if self.tree.nodes[parent].is_ephemeral() {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        if op.mode.is_ephemeral() && command.session == SessionId::NONE {
            return Err(ErrorCode::SESSION_EXPIRED);
        }
        let new = NewNode {
            parent,
            name: &name,
            data: op.data.map(|data| &data[..]),
            acl: self.tree.acls.acquire(acl),
            owner: owner(op, command.session),
        };
        let id = self.tree.create(new, self.zxid.0, self.time_ms);
        let path = self.announce(EventType::NodeCreated, &path, id, out);
        Ok(Reply::Created { path, stat: self.tree.nodes[id].stat(), with_stat: op.with_stat })
    }

    fn delete(&mut self, path: &str, version: i32, command: &Command, out: &mut Applied) -> Result<Reply> {
        let parent = self.parent_of_deletable(path)?;
        self.check_acl(parent, perms::DELETE, command)?;
        let id = self.tree.find(path).ok_or(ErrorCode::NO_NODE)?;
        check_version(self.tree.nodes[id].meta.version, version)?;
        if self.tree.nodes[id].children > 0 {
            return Err(ErrorCode::NOT_EMPTY);
        }
        self.remove(path, id, out);
        Ok(Reply::Done)
    }

    fn delete_container(&mut self, path: &str, out: &mut Applied) -> Result<Reply> {
        self.parent_of_deletable(path)?;
        let id = self.tree.find(path).ok_or(ErrorCode::NO_NODE)?;
        let node = &self.tree.nodes[id];
        if node.children > 0 {
            return Err(ErrorCode::NOT_EMPTY);
        }
        if !node.is_expendable(self.time_ms) {
            return Err(ErrorCode::BAD_VERSION);
        }
        self.remove(path, id, out);
        Ok(Reply::Done)
    }

    fn set_data(
        &mut self,
        path: &str,
        data: Option<&Bytes>,
        version: i32,
        command: &Command,
        out: &mut Applied,
    ) -> Result<Reply> {
        let id = self.find_valid(path)?;
        self.check_acl(id, perms::WRITE, command)?;
        check_version(self.tree.nodes[id].meta.version, version)?;
        self.tree.set_data(id, data.map(|data| &data[..]), self.zxid.0, self.time_ms);
        self.announce_data(path, id, out);
        Ok(Reply::Stat(self.tree.nodes[id].stat()))
    }

    fn set_acl(&mut self, path: &str, acl: &[Acl], version: i32, command: &Command) -> Result<Reply> {
        if !validate_path(path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let acl = fix_up(acl, &command.auth, self.settings)?;
        let id = self.tree.find(path).ok_or(ErrorCode::NO_NODE)?;
        self.check_acl(id, perms::ADMIN, command)?;
        let aversion = self.tree.nodes[id].meta.aversion;
        check_version(aversion, version)?;
        let acl = self.tree.acls.acquire(acl);
        self.tree.set_acl(id, acl, aversion.wrapping_add(1));
        Ok(Reply::Stat(self.tree.nodes[id].stat()))
    }

    fn check(&self, path: &str, version: i32, command: &Command) -> Result<Reply> {
        let id = self.find_valid(path)?;
        self.check_acl(id, perms::READ, command)?;
        check_version(self.tree.nodes[id].meta.version, version)?;
        Ok(Reply::Checked)
    }

    /// ZooKeeper keeps the node's version at -1: the version that counts is in the text.
    fn set_config(&mut self, data: &Bytes, out: &mut Applied) -> Result<Reply> {
        let id = self.tree.find(CONFIG).ok_or(ErrorCode::NO_NODE)?;
        self.tree.set_data(id, Some(data), self.zxid.0, self.time_ms);
        self.tree.set_version(id, -1);
        self.announce_data(CONFIG, id, out);
        Ok(Reply::Stat(self.tree.nodes[id].stat()))
    }

    fn parent_of_deletable(&self, path: &str) -> Result<NodeId> {
        let (parent, _) = split(path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        if FIXED.contains(&path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        self.tree.find(parent).ok_or(ErrorCode::NO_NODE)
    }

    fn find_valid(&self, path: &str) -> Result<NodeId> {
        if !validate_path(path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        self.tree.find(path).ok_or(ErrorCode::NO_NODE)
    }

    fn check_acl(&self, id: NodeId, wanted: i32, command: &Command) -> Result<()> {
        if self.tree.allows(id, wanted, &command.auth) { Ok(()) } else { Err(ErrorCode::NO_AUTH) }
    }

    /// Deletes a node that may be deleted, and says so.
    pub(crate) fn remove(&mut self, path: &str, id: NodeId, out: &mut Applied) {
        self.announce(EventType::NodeDeleted, path, id, out);
        self.tree.delete(id, self.zxid.0);
    }

    /// Fires a node's own event, then its parent's.
    fn announce(&self, kind: EventType, path: &str, id: NodeId, out: &mut Applied) -> PathSpan {
        let path = out.push_path(path);
        out.push_event(kind, path, self.tree.acl(id).clone());
        let parent = out.parent_span(path);
        out.push_event(
            EventType::NodeChildrenChanged,
            parent,
            self.tree.acl(self.tree.nodes[id].parent).clone(),
        );
        path
    }

    fn announce_data(&self, path: &str, id: NodeId, out: &mut Applied) {
        let path = out.push_path(path);
        out.push_event(EventType::NodeDataChanged, path, self.tree.acl(id).clone());
    }
}

fn check_version(current: i32, expected: i32) -> Result<()> {
    if expected == -1 || expected == current { Ok(()) } else { Err(ErrorCode::BAD_VERSION) }
}

/// Appends a sequential node's number: ten digits, as Java's `%010d` writes it.
fn numbered(text: &str, number: Option<i32>) -> std::borrow::Cow<'_, str> {
    match number {
        Some(number) => format!("{text}{number:010}").into(),
        None => text.into(),
    }
}

fn owner(op: &Create<'_>, session: SessionId) -> i64 {
    match op.mode {
        CreateMode::Container => CONTAINER,
        mode if mode.is_ttl() => ttl_owner(op.ttl),
        mode if mode.is_ephemeral() => session.0,
        _ => 0,
    }
}
