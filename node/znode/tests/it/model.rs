//! A naive model of the rules (a map of paths, copied for each multi) against the state, over random commands; and two
//! states against each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use pharos_znode::EventType::{self, NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
use pharos_znode::{
    Acl, Applied, Command, CreateMode, ErrorCode, Id, Level, Op, Reply, SessionId, Settings, Stat, State,
    Value, allowed, perms, validate_path,
};
use proptest::prelude::*;

use crate::random::commands;
use crate::world::super_user;

#[derive(Debug, Clone)]
struct Node {
    stat: Stat,
    creates: i32,
    container: bool,
    ttl: Option<i64>,
    data: Option<Bytes>,
    acl: Vec<Acl>,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Nothing,
    Created(String, Stat),
    Stat(Stat),
    Session(u32),
    Multi(Vec<Result<Told, ErrorCode>>),
}

type Events = Vec<(EventType, String)>;

#[derive(Debug, Clone)]
struct Model {
    nodes: BTreeMap<String, Node>,
    sessions: BTreeMap<SessionId, u32>,
    settings: Settings,
    level: Level,
    zxid: i64,
    time: i64,
    events: Events,
}

fn parent(path: &str) -> String {
    match path.rfind('/') {
        Some(0) | None => "/".into(),
        Some(at) => path[..at].into(),
    }
}

impl Model {
    fn new() -> Self {
        let node = |aversion, acl| Node {
            stat: Stat { aversion, ..Stat::default() },
            creates: 0,
            container: false,
            ttl: None,
            data: Some(Bytes::new()),
            acl,
        };
        let nodes = [
            ("/", node(0, vec![Acl::open()])),
            ("/zookeeper", node(0, vec![Acl::open()])),
            ("/zookeeper/quota", node(0, vec![Acl::open()])),
            ("/zookeeper/config", node(-1, vec![Acl::new(1, "world", "anyone")])),
        ];
        Self {
            nodes: nodes.map(|(path, node)| (path.to_owned(), node)).into(),
            sessions: BTreeMap::new(),
            settings: Settings::default(),
            level: Level(1),
            zxid: 0,
            time: 0,
            events: Vec::new(),
        }
    }

    fn children(&self, path: &str) -> Vec<&String> {
        self.nodes.keys().filter(|p| *p != "/" && parent(p) == path).collect()
    }

    fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let num_children = i32::try_from(self.children(path).len()).unwrap();
        let data_length = i32::try_from(node.data.as_ref().map_or(0, Bytes::len)).unwrap();
        Stat { cversion: 2 * node.creates - num_children, num_children, data_length, ..node.stat }
    }

    fn apply(&mut self, command: &Command, time: i64) -> Result<Told, ErrorCode> {
        self.time = self.time.max(time);
        self.events.clear();
        let attaching = matches!(command.op, Op::AttachSession { .. });
        self.zxid += i64::from(!attaching);
        let known = self.sessions.get(&command.session).copied();
        match (&command.op, known) {
            (Op::CreateSession { .. }, _) if command.session == SessionId::NONE => {
                Err(ErrorCode::BAD_ARGUMENTS)
            }
            (Op::CreateSession { .. }, Some(_)) => Err(ErrorCode::BAD_ARGUMENTS),
            (Op::CreateSession { .. }, None) => {
                self.sessions.insert(command.session, 1);
                Ok(Told::Session(1))
            }
            (Op::AttachSession { .. }, None) => Err(ErrorCode::SESSION_EXPIRED),
            (Op::AttachSession { .. }, Some(attach)) => {
                self.sessions.insert(command.session, attach + 1);
                Ok(Told::Session(attach + 1))
            }
            (_, None) if command.session != SessionId::NONE => Err(ErrorCode::SESSION_EXPIRED),
            (_, Some(attach)) if attach != command.attach => Err(ErrorCode::SESSION_MOVED),
            (Op::CloseSession, _) => self.end(command.session),
            (Op::Expire { session, attach }, _) => match self.sessions.get(session) {
                None => Err(ErrorCode::SESSION_EXPIRED),
                Some(now) if now != attach => Err(ErrorCode::SESSION_MOVED),
                Some(_) => self.end(*session),
            },
            (Op::Multi(ops), _) => Ok(self.multi(ops, command)),
            (op, _) => self.single(op, command),
        }
    }

    fn end(&mut self, session: SessionId) -> Result<Told, ErrorCode> {
        self.sessions.remove(&session).ok_or(ErrorCode::SESSION_EXPIRED)?;
        let owned = |node: &Node| node.stat.ephemeral_owner == session.0;
        let paths: Vec<String> =
            self.nodes.iter().filter(|(_, n)| owned(n)).map(|(path, _)| path.clone()).collect();
        paths.iter().for_each(|path| self.remove(path));
        Ok(Told::Nothing)
    }

    fn multi(&mut self, ops: &[Op], command: &Command) -> Told {
        let before = self.clone();
        let mut told = Vec::new();
        for op in ops {
            match self.single(op, command) {
                Ok(one) => told.push(Ok(one)),
                Err(code) => {
                    *self = before;
                    let done = told.len();
                    let mut told = vec![Err(ErrorCode::OK); done];
                    told.push(Err(code));
                    told.resize(ops.len(), Err(ErrorCode::RUNTIME_INCONSISTENCY));
                    return Told::Multi(told);
                }
            }
        }
        Told::Multi(told)
    }

    fn single(&mut self, op: &Op, command: &Command) -> Result<Told, ErrorCode> {
        match op {
            Op::Create { path, data, acl, mode, ttl, .. } => {
                self.create(path, data.as_ref(), acl, (*mode, *ttl), command)
            }
            Op::Delete { path, version } => {
                self.deletable(path)?;
                self.may(&parent_raw(path), perms::DELETE, command)?;
                let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
                expect(node.stat.version, *version)?;
                self.childless(path)?;
                self.remove(path);
                Ok(Told::Nothing)
            }
            Op::DeleteContainer { path } => {
                self.deletable(path)?;
                let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
                self.childless(path)?;
                let over = node.ttl.is_some_and(|ttl| self.time - node.stat.mtime > ttl);
                if !over && (!node.container || node.creates == 0) {
                    return Err(ErrorCode::BAD_VERSION);
                }
                self.remove(path);
                Ok(Told::Nothing)
            }
            Op::SetData { path, data, version } => {
                valid(path)?;
                self.may(path, perms::WRITE, command)?;
                expect(self.nodes[path].stat.version, *version)?;
                self.write(path, data.as_ref());
                Ok(Told::Stat(self.stat(path)))
            }
            Op::SetAcl { path, acl, version } => {
                valid(path)?;
                let acl = fixed(acl, &command.auth)?;
                self.may(path, perms::ADMIN, command)?;
                expect(self.nodes[path].stat.aversion, *version)?;
                let node = self.nodes.get_mut(path).unwrap();
                node.acl = acl;
                node.stat.aversion += 1;
                Ok(Told::Stat(self.stat(path)))
            }
            Op::Check { path, version } => {
                valid(path)?;
                self.may(path, perms::READ, command)?;
                expect(self.nodes[path].stat.version, *version)?;
                Ok(Told::Nothing)
            }
            Op::SetConfig { data } => {
                self.write("/zookeeper/config", Some(data));
                self.nodes.get_mut("/zookeeper/config").unwrap().stat.version = -1;
                Ok(Told::Stat(self.stat("/zookeeper/config")))
            }
            Op::Configure(settings) => {
                self.settings = *settings;
                Ok(Told::Nothing)
            }
            Op::SetLevel(level) => {
                self.level = self.level.max(*level);
                Ok(Told::Nothing)
            }
            Op::Nop { error } => Err(*error),
            other => panic!("not single: {other:?}"),
        }
    }

    fn create(
        &mut self,
        path: &str,
        data: Option<&Bytes>,
        acl: &[Acl],
        (mode, ttl): (CreateMode, i64),
        command: &Command,
    ) -> Result<Told, ErrorCode> {
        match mode.is_ttl() {
            true if self.level == Level(1) => return Err(ErrorCode::UNIMPLEMENTED),
            true if !(1..1 << 40).contains(&ttl) => return Err(ErrorCode::BAD_ARGUMENTS),
            false if ttl >= 0 => return Err(ErrorCode::BAD_ARGUMENTS),
            _ => {}
        }
        if !path.contains('/') || path.contains('\0') {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let acl = fixed(acl, &command.auth)?;
        let up = parent_raw(path);
        self.may(&up, perms::CREATE, command)?;
        let path = match mode.is_sequential() {
            true => format!("{path}{:010}", self.nodes[&up].creates),
            false => path.to_owned(),
        };
        valid(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if self.nodes[&up].stat.ephemeral_owner != 0 {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        if mode.is_ephemeral() && command.session == SessionId::NONE {
            return Err(ErrorCode::SESSION_EXPIRED);
        }
        let stat = Stat {
            czxid: self.zxid,
            mzxid: self.zxid,
            pzxid: self.zxid,
            ctime: self.time,
            mtime: self.time,
            ephemeral_owner: if mode.is_ephemeral() { command.session.0 } else { 0 },
            ..Stat::default()
        };
        let container = mode == CreateMode::Container;
        let ttl = mode.is_ttl().then_some(ttl);
        let node = Node { stat, creates: 0, container, ttl, data: data.cloned(), acl };
        self.nodes.insert(path.clone(), node);
        let up_node = self.nodes.get_mut(&up).unwrap();
        up_node.creates += 1;
        up_node.stat.pzxid = self.zxid;
        self.events.extend([(NodeCreated, path.clone()), (NodeChildrenChanged, up)]);
        let stat = self.stat(&path);
        Ok(Told::Created(path, stat))
    }

    fn remove(&mut self, path: &str) {
        self.nodes.remove(path).unwrap();
        let up = parent(path);
        self.nodes.get_mut(&up).unwrap().stat.pzxid = self.zxid;
        self.events.extend([(NodeDeleted, path.to_owned()), (NodeChildrenChanged, up)]);
    }

    fn write(&mut self, path: &str, data: Option<&Bytes>) {
        let node = self.nodes.get_mut(path).unwrap();
        node.data = data.cloned();
        node.stat.version += 1;
        node.stat.mzxid = self.zxid;
        node.stat.mtime = self.time;
        self.events.push((NodeDataChanged, path.to_owned()));
    }

    fn deletable(&self, path: &str) -> Result<(), ErrorCode> {
        let fixed = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
        if !path.contains('/') || path.contains('\0') || fixed.contains(&path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        self.nodes.get(&parent_raw(path)).map(|_| ()).ok_or(ErrorCode::NO_NODE)
    }

    fn childless(&self, path: &str) -> Result<(), ErrorCode> {
        if self.children(path).is_empty() { Ok(()) } else { Err(ErrorCode::NOT_EMPTY) }
    }

    fn may(&self, path: &str, wanted: i32, command: &Command) -> Result<(), ErrorCode> {
        let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
        if allowed(&node.acl, wanted, &command.auth) { Ok(()) } else { Err(ErrorCode::NO_AUTH) }
    }
}

fn parent_raw(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".into(),
        Some((up, _)) => up.into(),
    }
}

fn valid(path: &str) -> Result<(), ErrorCode> {
    if validate_path(path) { Ok(()) } else { Err(ErrorCode::BAD_ARGUMENTS) }
}

fn expect(current: i32, wanted: i32) -> Result<(), ErrorCode> {
    if wanted == -1 || wanted == current { Ok(()) } else { Err(ErrorCode::BAD_VERSION) }
}

fn fixed(acl: &[Acl], auth: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    let mut out = Vec::new();
    for entry in acl {
        match entry.id.scheme.as_str() {
            "auth" => {
                let ids: Vec<&Id> = auth.iter().filter(|id| id.scheme == "digest").collect();
                if ids.is_empty() {
                    return Err(ErrorCode::INVALID_ACL);
                }
                out.extend(ids.into_iter().map(|id| Acl { perms: entry.perms, id: id.clone() }));
            }
            "digest" if !entry.id.id.contains(':') => return Err(ErrorCode::INVALID_ACL),
            _ => out.push(entry.clone()),
        }
    }
    if out.is_empty() { Err(ErrorCode::INVALID_ACL) } else { Ok(out) }
}

fn told(out: &Applied, result: &Result<Reply, ErrorCode>) -> Result<Told, ErrorCode> {
    Ok(match result.as_ref().map_err(|code| *code)? {
        Reply::Done | Reply::Checked => Told::Nothing,
        Reply::Created { path, stat, .. } => Told::Created(out.path(*path).to_owned(), *stat),
        Reply::Stat(stat) => Told::Stat(*stat),
        Reply::Session { attach, .. } => Told::Session(*attach),
        Reply::Multi(results) => Told::Multi(results.iter().map(|r| told(out, r)).collect()),
    })
}

fn assert_equal(state: &State, model: &Model) {
    let auth = super_user();
    assert_eq!(state.node_count(), model.nodes.len());
    for (path, node) in &model.nodes {
        assert_eq!(state.stat(path), Some(model.stat(path)), "{path}");
        let data = node.data.as_deref().map_or(Value::Null, Value::Here);
        assert_eq!(state.get_data(path, &auth).unwrap().data, data, "{path}");
        assert_eq!(state.acl(path).unwrap()[..], node.acl, "{path}");
        let mut names: Vec<String> = state.children(path, &auth).unwrap().names.map(str::to_owned).collect();
        names.sort();
        let expected: Vec<String> =
            model.children(path).iter().map(|p| p.rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(names, expected, "{path}");
    }
    for (id, session) in state.sessions() {
        assert_eq!(model.sessions.get(&id), Some(&session.attach));
        let owned = model.nodes.iter().filter(|(_, n)| n.stat.ephemeral_owner == id.0);
        assert_eq!(state.ephemerals(id, None), owned.map(|(path, _)| path.clone()).collect::<Vec<_>>());
    }
    assert_eq!(state.sessions().len(), model.sessions.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_state_does_what_the_model_does(commands in commands(80)) {
        let (mut state, mut model, mut out) = (State::new(), Model::new(), Applied::new());
        for (command, time) in &commands {
            state.apply(command, *time, &mut out);
            let expected = model.apply(command, *time);
            prop_assert_eq!(told(&out, &out.result), expected, "{:?}", command);
            let events: Events = out.tree_events().map(|e| (e.kind, e.path.to_owned())).collect();
            prop_assert_eq!(&events, &model.events);
            prop_assert_eq!(out.zxid.0, model.zxid);
            prop_assert_eq!(state.digest(), state.recompute_digest());
        }
        assert_equal(&state, &model);
    }

    #[test]
    fn the_same_commands_give_the_same_states(commands in commands(60)) {
        let (mut one, mut two) = (State::new(), State::new());
        let (mut out_one, mut out_two) = (Applied::new(), Applied::new());
        for (command, time) in &commands {
            one.apply(command, *time, &mut out_one);
            two.apply(command, *time, &mut out_two);
            prop_assert_eq!(&out_one, &out_two);
            prop_assert_eq!(one.digest(), two.digest());
        }
        prop_assert_eq!(one.take_dirty().to_pairs(), two.take_dirty().to_pairs());
    }
}
