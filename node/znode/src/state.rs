//! The state as a whole: the tree, the sessions, the zxid and the time, and the door for commands.

use std::collections::{BTreeMap, BTreeSet};

use pharos_jute::{Acl, ErrorCode, perms};

use crate::hash::hash_words;
use crate::node::{Dirty, Meta};
use crate::slab::NodeId;
use crate::tree::{NewNode, Tree};
use crate::{Applied, Command, Level, Op, Reply, Session, SessionEvent, SessionId, Settings, Zxid};

/// Paths of the nodes that are always there.
pub(crate) const FIXED: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
/// The node whose data is the membership.
pub(crate) const CONFIG: &str = FIXED[3];

/// The last zxid that a command may name: an import does not use up the epochs that are left for leaders.
const LAST_IMPORTED: Zxid = Zxid(i64::MAX >> 1);

/// The replicated state. See the crate's description for what it promises.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) tree: Tree,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) zxid: Zxid,
    pub(crate) time_ms: i64,
    pub(crate) settings: Settings,
    pub(crate) level: Level,
    pub(crate) session_digest: u64,
    pub(crate) dirty_sessions: BTreeSet<SessionId>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state of a new Ensemble: the fixed nodes alone, all numbers 0, as ZooKeeper starts.
    pub fn new() -> Self {
        let unborn = |acl| Meta { czxid: 0, mzxid: 0, pzxid: 0, ..Meta::created(0, 0, 0, acl) };
        let dirty = Dirty { stat: true, data: true, new: true };
        let mut tree = Tree::with_root(unborn, vec![Acl::open()], dirty);
        let zookeeper = fixed_node(&mut tree, NodeId::ROOT, "zookeeper", Acl::open());
        fixed_node(&mut tree, zookeeper, "quota", Acl::open());
        let config = fixed_node(&mut tree, zookeeper, "config", Acl::new(perms::READ, "world", "anyone"));
        tree.mark_unborn(NodeId::ROOT, 0);
        tree.mark_unborn(zookeeper, 0);
        tree.mark_unborn(config, -1);
        Self {
            tree,
            sessions: BTreeMap::new(),
            zxid: Zxid(0),
            time_ms: 0,
            settings: Settings::default(),
            level: Level::FIRST,
            session_digest: 0,
            dirty_sessions: BTreeSet::new(),
        }
    }

    /// Applies the entry with which a new leader's log begins: the next epoch, counter 0.
    pub fn epoch_start(&mut self) {
        self.zxid = self.zxid.next_epoch();
    }

    /// Moves zxids far ahead, into the given epoch, and no further back: for restored and forcibly recovered ensembles.
    pub fn jump_epoch(&mut self, epoch: i64) {
        self.zxid = self.zxid.max(Zxid(epoch << 32));
    }

    /// Executes a command. `time_ms` is its batch's; time never goes back. All that is to be said goes into `out`, whose
    /// previous content is dropped.
    pub fn apply(&mut self, command: &Command, time_ms: i64, out: &mut Applied) {
        out.clear();
        self.time_ms = self.time_ms.max(time_ms);
        out.result = self.take_zxid(command).and_then(|()| self.execute(command, out));
        out.zxid = self.zxid;
    }

    /// For planted bugs alone: executes a command by the rules of another level than that in force.
    #[doc(hidden)]
    pub fn apply_at(&mut self, level: Level, command: &Command, time_ms: i64, out: &mut Applied) {
        let in_force = std::mem::replace(&mut self.level, level);
        self.apply(command, time_ms, out);
        self.level = in_force.max(if let Op::SetLevel(level) = command.op { level } else { in_force });
    }

    /// The zxid of the last command.
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The time of the last command.
    pub const fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// The settings in force.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The feature level in force.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// All sessions, by id.
    pub fn sessions(&self) -> impl ExactSizeIterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// A session.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// The number of nodes, fixed ones included.
    pub const fn node_count(&self) -> usize {
        self.tree.nodes.len()
    }

    /// The number of ephemeral nodes.
    pub fn ephemeral_count(&self) -> usize {
        self.tree.ephemeral_count()
    }

    /// Bytes of all names and data.
    pub const fn data_bytes(&self) -> u64 {
        self.tree.data_bytes()
    }

    /// A digest of everything that members must agree on, maintained as commands are applied. Independent of the order
    /// in which the state came about.
    pub fn digest(&self) -> u64 {
        self.combine(self.tree.digest(), self.session_digest)
    }

    /// The same digest, computed from scratch: to check the incremental one against.
    pub fn recompute_digest(&self) -> u64 {
        let sessions = self.sessions.iter().fold(0_u64, |sum, (id, s)| sum.wrapping_add(s.digest(*id)));
        self.combine(self.tree.recompute_digest(), sessions)
    }

    fn combine(&self, tree: u64, sessions: u64) -> u64 {
        let settings = u64::from(self.settings.sasl) | u64::from(self.settings.x509) << 1;
        let zxid = self.zxid.0.cast_unsigned();
        // Of the first level it is what versions that know of no levels compute, which may be among the members.
        let level = u64::from(self.level.0 - Level::FIRST.0);
        hash_words(1 ^ level << 32, &[tree, sessions, settings, zxid, self.time_ms.cast_unsigned()])
    }

    /// Takes the command's zxid. Attaching a session is no transaction in ZooKeeper and takes none.
    fn take_zxid(&mut self, command: &Command) -> Result<(), ErrorCode> {
        match (command.zxid, &command.op) {
            (Some(zxid), _) if zxid < self.zxid || zxid > self.zxid.max(LAST_IMPORTED) => {
                return Err(ErrorCode::RUNTIME_INCONSISTENCY);
            }
            (Some(zxid), _) => self.zxid = zxid,
            (None, Op::AttachSession { .. }) => {}
            (None, _) => self.zxid = self.zxid.next(),
        }
        Ok(())
    }

    fn execute(&mut self, command: &Command, out: &mut Applied) -> Result<Reply, ErrorCode> {
        match &command.op {
            Op::CreateSession { timeout_ms } => return self.create_session(command, *timeout_ms, out),
            Op::AttachSession { timeout_ms } => return self.attach_session(command, *timeout_ms, out),
            _ => self.check_session(command)?,
        }
        match &command.op {
            Op::CloseSession => self.end_session(command.session, false, out),
            Op::Expire { session, attach } => self.expire(*session, *attach, out),
            Op::Multi(ops) => Ok(self.multi(ops, command, out)),
            op => self.write(op, command, out),
        }
    }

    /// Commands of a session must come through its present attachment; the ensemble's own have none.
    fn check_session(&self, command: &Command) -> Result<(), ErrorCode> {
        if command.session == SessionId::NONE {
            return Ok(());
        }
        match self.sessions.get(&command.session) {
            None => Err(ErrorCode::SESSION_EXPIRED),
            Some(session) if session.attach != command.attach => Err(ErrorCode::SESSION_MOVED),
            Some(_) => Ok(()),
        }
    }

    fn create_session(
        &mut self,
        command: &Command,
        timeout_ms: i32,
        out: &mut Applied,
    ) -> Result<Reply, ErrorCode> {
        let id = command.session;
        if id == SessionId::NONE || self.sessions.contains_key(&id) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let session = Session { timeout_ms, attach: 1, owner: command.origin };
        self.put_session(id, Some(session));
        out.session_events.push(SessionEvent::Opened { session: id, owner: session.owner });
        Ok(Reply::Session { attach: session.attach, timeout_ms })
    }

    fn attach_session(
        &mut self,
        command: &Command,
        timeout_ms: i32,
        out: &mut Applied,
    ) -> Result<Reply, ErrorCode> {
        let id = command.session;
        let old = self.sessions.get(&id).ok_or(ErrorCode::SESSION_EXPIRED)?;
        let session = Session { timeout_ms, attach: old.attach.wrapping_add(1), owner: command.origin };
        self.put_session(id, Some(session));
        let Session { owner, attach, .. } = session;
        out.session_events.push(SessionEvent::Attached { session: id, owner, attach });
        Ok(Reply::Session { attach, timeout_ms })
    }

    fn expire(&mut self, id: SessionId, attach: u32, out: &mut Applied) -> Result<Reply, ErrorCode> {
        match self.sessions.get(&id) {
            None => Err(ErrorCode::SESSION_EXPIRED),
            Some(session) if session.attach != attach => Err(ErrorCode::SESSION_MOVED),
            Some(_) => self.end_session(id, true, out),
        }
    }

    fn end_session(&mut self, id: SessionId, expired: bool, out: &mut Applied) -> Result<Reply, ErrorCode> {
        let session = *self.sessions.get(&id).ok_or(ErrorCode::SESSION_EXPIRED)?;
        self.delete_ephemerals(id, out);
        self.put_session(id, None);
        out.session_events.push(SessionEvent::Closed { session: id, owner: session.owner, expired });
        Ok(Reply::Done)
    }

    pub(crate) fn put_session(&mut self, id: SessionId, session: Option<Session>) {
        let old = match session {
            Some(session) => {
                self.session_digest = self.session_digest.wrapping_add(session.digest(id));
                self.sessions.insert(id, session)
            }
            None => self.sessions.remove(&id),
        };
        if let Some(old) = old {
            self.session_digest = self.session_digest.wrapping_sub(old.digest(id));
        }
        self.dirty_sessions.insert(id);
    }
}

/// Adds a fixed node. They are not counted as creations: a new ZooKeeper shows `/` with cversion -1.
fn fixed_node(tree: &mut Tree, parent: NodeId, name: &str, acl: Acl) -> NodeId {
    let acl = tree.acls.acquire(vec![acl]);
    tree.create(NewNode { parent, name, data: Some(b""), acl, owner: 0 }, 0, 0)
}
