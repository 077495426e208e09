//! The state as a whole: the tree, the sessions, the zxid and the time, and the door for commands.

use std::collections::{BTreeMap, BTreeSet};

use pharos_jute::{Acl, ErrorCode, perms};

use crate::ending::Ending;
use crate::hash::hash_words;
use crate::multi::Multi;
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
    /// The command that is half-way.
    pub(crate) half: Option<Half>,
}

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is done.
    Done,
    /// Its events so far are to be told, and it has to come again.
    Half,
    /// It may still fail: nothing is to be told, and it has to come again.
    Undecided,
}

/// A command that is half-way.
#[derive(Debug, Clone)]
pub(crate) enum Half {
    Ending(Ending),
    Multi(Multi),
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
        let mut tree = Tree::with_root(unborn, vec![Acl::open()], Dirty::NEW);
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
            half: None,
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
        let mut steps = usize::MAX;
        let progress = self.apply_some(command, time_ms, &mut steps, out);
        assert_eq!(progress, Progress::Done, "nothing is left of a command without a limit");
    }

    /// Executes a command, or goes on with the one that is half-way, by at most so many steps; what is left of them stays
    /// in `steps`. One that is not done has to come again, with the same `out`, before any other.
    pub fn apply_some(
        &mut self,
        command: &Command,
        time_ms: i64,
        steps: &mut usize,
        out: &mut Applied,
    ) -> Progress {
        if self.half.is_none() {
            out.clear();
            self.time_ms = self.time_ms.max(time_ms);
            let before = self.zxid;
            out.result = self.take_zxid(command).and_then(|()| self.execute(command, before, out));
        }
        out.zxid = self.zxid;
        match self.half.take() {
            None => Progress::Done,
            Some(Half::Ending(ending)) => self.go_on_ending(ending, steps, out),
            Some(Half::Multi(multi)) => self.go_on_multi(multi, command, steps, out),
        }
    }

    /// For planted bugs alone: executes a command, or goes on with it, by the rules of another level than that in force.
    #[doc(hidden)]
    pub fn apply_some_at(
        &mut self,
        level: Level,
        command: &Command,
        time_ms: i64,
        steps: &mut usize,
        out: &mut Applied,
    ) -> Progress {
        let in_force = std::mem::replace(&mut self.level, level);
        let progress = self.apply_some(command, time_ms, steps, out);
        self.level = in_force.max(if let Op::SetLevel(level) = command.op { level } else { in_force });
        progress
    }

    /// The zxid of the last command that is done.
    pub const fn zxid(&self) -> Zxid {
        match &self.half {
            None => self.zxid,
            Some(Half::Ending(Ending { before, .. }) | Half::Multi(Multi { before, .. })) => *before,
        }
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

    /// Whether no command is half-way. While one is, nothing is to be read but what clients are told of numbers.
    pub const fn is_whole(&self) -> bool {
        self.half.is_none()
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
    /// in which the state came about. Of a state that is whole: see [`Self::is_whole`].
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

    /// What is carried out in slices only begins here. `before` is the zxid before the command's.
    fn execute(&mut self, command: &Command, before: Zxid, out: &mut Applied) -> Result<Reply, ErrorCode> {
        match &command.op {
            Op::CreateSession { timeout_ms } => return self.create_session(command, *timeout_ms, out),
            Op::AttachSession { timeout_ms } => return self.attach_session(command, *timeout_ms, out),
            _ => self.check_session(command)?,
        }
        match &command.op {
            Op::CloseSession => self.end_session(command.session, false, before),
            Op::Expire { session, attach } => self.expire(*session, *attach, before),
            Op::Multi(_) => {
                self.begin_multi(before);
                Ok(Reply::Done)
            }
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

    fn expire(&mut self, id: SessionId, attach: u32, before: Zxid) -> Result<Reply, ErrorCode> {
        match self.sessions.get(&id) {
            None => Err(ErrorCode::SESSION_EXPIRED),
            Some(session) if session.attach != attach => Err(ErrorCode::SESSION_MOVED),
            Some(_) => self.end_session(id, true, before),
        }
    }

    fn end_session(&mut self, id: SessionId, expired: bool, before: Zxid) -> Result<Reply, ErrorCode> {
        let session = *self.sessions.get(&id).ok_or(ErrorCode::SESSION_EXPIRED)?;
        self.half = Some(Half::Ending(Ending::new(id, session, expired, before)));
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
