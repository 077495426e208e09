//! Random requests over a few paths, so that they meet: everything a client may ask, sensible and not.

use pharos_jute::OpCode;

use super::action::{AclEntry, Action, Data, NewNode, Path};
use pharos_crowd::Rng;

/// One step of a run.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A request on a connection.
    Request(usize, Action),
    /// Cut a connection and resume its session on a new one.
    Resume(usize),
    /// Close a connection's session and open a new one.
    Renew(usize),
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "é"];
const ODD_PATHS: [&str; 14] = [
    "",
    "/",
    "foo",
    "a/b",
    "/a/",
    "//",
    "/a//b",
    "/a/.",
    "/a/../b",
    "/a/\u{1}",
    "/a/\0",
    "/a/😀",
    "/a/\u{fff0}",
    "/zookeeper/nothing",
];
/// What may be written anywhere without locking the run out of its own tree.
const FIXED: [&str; 3] = ["/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// Makes steps.
#[derive(Debug)]
pub(crate) struct Generator {
    rng: Rng,
    connections: usize,
}

impl Generator {
    pub(crate) const fn new(seed: u64, connections: usize) -> Self {
        Self { rng: Rng::new(seed), connections }
    }

    pub(crate) fn step(&mut self) -> Step {
        let connection = self.rng.index(self.connections);
        match self.rng.index(200) {
            0 => Step::Resume(connection),
            1 => Step::Renew(connection),
            _ => Step::Request(connection, self.action()),
        }
    }

    fn action(&mut self) -> Action {
        match self.rng.index(100) {
            0..22 => self.create(),
            22..32 => Action::Delete(self.write_path(), self.version()),
            32..42 => Action::SetData(self.write_path(), self.data(), self.version()),
            42..45 => self.set_acl(),
            45..67 => self.read(),
            67..72 => self.named(),
            72..83 => self.multi(),
            83..86 => self.multi_read(),
            86..93 => self.watch(),
            93..96 => self.set_watches(),
            96 => Action::Ping,
            97 => Action::WhoAmI,
            _ => self.rare(),
        }
    }

    fn rare(&mut self) -> Action {
        let user = self.rng.pick(&["alice:secret", "bob:secret"]);
        match self.rng.index(12) {
            0..6 => Action::Auth("digest".into(), Data(Some(user.into()))),
            6 => Action::Auth("nonsense".into(), Data(Some(b"x".to_vec()))),
            7 => Action::Check(self.path(), -1),
            8 => Action::UnknownOp(self.rng.pick(&[10, 99, -7])),
            _ => Action::Malformed(self.rng.pick(&[
                OpCode::Delete,
                OpCode::GetData,
                OpCode::SetAcl,
                OpCode::Multi,
            ])),
        }
    }

    /// A path that is likely to exist, or to have a parent that does.
    fn good_path(&mut self) -> String {
        let depth = self.rng.weighted(&[(4, 1), (4, 2), (1, 3)]);
        let mut path = String::new();
        for _ in 0..depth {
            path.push('/');
            path.push_str(self.rng.pick(&NAMES));
        }
        if self.rng.one_in(8) {
            // The sequential nodes that creates leave behind.
            let number = self.rng.index(6);
            path.push_str(&format!("/s{number:010}"));
        }
        path
    }

    fn path(&mut self) -> Path {
        match self.rng.index(40) {
            0 => None,
            1..4 => Some(self.rng.pick(&ODD_PATHS).into()),
            4 => Some(self.rng.pick(&FIXED[..2]).into()),
            5 => Some("/".into()),
            _ => Some(self.good_path()),
        }
    }

    fn write_path(&mut self) -> Path {
        if self.rng.one_in(40) { Some(self.rng.pick(&FIXED).into()) } else { self.path() }
    }

    fn version(&mut self) -> i32 {
        self.rng.weighted(&[(7, -1), (2, 0), (1, 1), (1, 2)])
    }

    fn data(&mut self) -> Data {
        Data(match self.rng.index(8) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![b'x'; 2000]),
            _ => Some(format!("data {}", self.rng.index(100)).into_bytes()),
        })
    }

    fn acl(&mut self) -> Option<Vec<AclEntry>> {
        let entry = |perms, scheme: &str, id: &str| (perms, scheme.to_owned(), id.to_owned());
        let open = entry(31, "world", "anyone");
        Some(match self.rng.index(60) {
            0 => return None,
            1 => vec![],
            2 => vec![entry(31, "auth", "")],
            3 => vec![entry(31, "auth", "ignored"), open],
            4 => vec![entry(31, "ip", "127.0.0.1")],
            5 => vec![entry(31, "ip", "127.0.0.0/8"), entry(1, "ip", "10.0.0.0/30")],
            6 => vec![entry(31, "ip", "10.0.0.1")],
            7 => vec![open.clone(), open, entry(1, "digest", "user:hash")],
            8 => vec![entry(i32::try_from(self.rng.index(32)).unwrap_or(1), "world", "anyone")],
            9 => vec![self.bad_acl()],
            10 => vec![entry(31, "ip", "::1/64"), open],
            _ => vec![open],
        })
    }

    fn bad_acl(&mut self) -> AclEntry {
        let (scheme, id) = self.rng.pick(&[
            ("world", "someone"),
            ("nonsense", "x"),
            ("super", ""),
            ("digest", "nocolon"),
            ("digest", "a:b:c"),
            ("ip", "localhost"),
            ("ip", "1.2.3"),
            ("ip", "1.2.3.4/33"),
            ("sasl", "user"),
            ("x509", "CN=x"),
        ]);
        (31, scheme.into(), id.into())
    }

    fn create(&mut self) -> Action {
        let op = self.rng.weighted(&[
            (10, OpCode::Create2),
            (6, OpCode::Create),
            (2, OpCode::CreateContainer),
            (2, OpCode::CreateTtl),
        ]);
        let flags = match op {
            OpCode::CreateContainer => 4,
            OpCode::CreateTtl => self.rng.pick(&[5, 6]),
            _ => self.rng.weighted(&[(8, 0), (3, 1), (3, 2), (2, 3), (1, 5), (1, 9)]),
        };
        let mut path = self.path();
        if matches!(flags, 2 | 3 | 6)
            && let Some(path) = &mut path
        {
            path.push_str(self.rng.pick(&["/s", "/s", "/"]));
        }
        // None is over before the run is, since nobody can say when a sweeper comes.
        let ttl_ms = self.rng.weighted(&[(8, 1 << 36), (1, (1 << 40) - 1), (1, 1 << 40), (1, 0), (1, -1)]);
        Action::Create(op, NewNode { path, data: self.data(), acl: self.acl(), flags, ttl_ms })
    }

    /// Not of the root or its children: a locked one would end the run's work.
    fn set_acl(&mut self) -> Action {
        let path = self.path();
        let deep = path.as_ref().is_none_or(|path| path.matches('/').count() > 1);
        let acl = if deep { self.acl() } else { Some(vec![(31, "world".into(), "anyone".into())]) };
        Action::SetAcl(path, acl, self.version())
    }

    fn read(&mut self) -> Action {
        let ops = [OpCode::Exists, OpCode::GetData, OpCode::GetChildren, OpCode::GetChildren2];
        Action::Read(self.rng.pick(&ops), self.path(), self.rng.one_in(2))
    }

    fn named(&mut self) -> Action {
        let ops = [
            OpCode::Sync,
            OpCode::GetAcl,
            OpCode::GetAcl,
            OpCode::GetEphemerals,
            OpCode::GetAllChildrenNumber,
        ];
        // ZooKeeper echoes characters beyond U+FFFF as two encoded surrogates, which is not UTF-8.
        let path = self.path().filter(|path| path.chars().all(|c| u32::from(c) <= 0xffff));
        Action::Named(self.rng.pick(&ops), path)
    }

    /// Null paths and lists are not asked for here: the former leave an original ZooKeeper with changes that were never
    /// made, the latter are the one malformed multi that takes no zxid.
    fn multi(&mut self) -> Action {
        let count = self.rng.index(6);
        let mut ops = Vec::new();
        while ops.len() < count {
            let op = match self.rng.index(20) {
                0..9 => self.create(),
                9..13 => Action::Delete(self.write_path(), self.version()),
                13..17 => Action::SetData(self.write_path(), self.data(), self.version()),
                17..19 => Action::Check(self.path(), self.version()),
                _ if self.rng.one_in(8) => self.read(),
                _ => continue,
            };
            if !has_null(&op) {
                ops.push(op);
            }
        }
        Action::Multi(ops)
    }

    fn multi_read(&mut self) -> Action {
        let count = self.rng.index(5);
        let ops = [OpCode::GetData, OpCode::GetChildren];
        let mut reads = Vec::new();
        while reads.len() < count {
            let read = Action::Read(self.rng.pick(&ops), self.path(), self.rng.one_in(2));
            if !has_null(&read) {
                reads.push(read);
            }
        }
        Action::MultiRead(reads)
    }

    fn watch(&mut self) -> Action {
        let path = Some(self.good_path());
        match self.rng.index(10) {
            0..5 => Action::Watch(OpCode::AddWatch, path, self.rng.weighted(&[(4, 0), (4, 1), (1, 2)])),
            5..7 => Action::Watch(OpCode::CheckWatches, path, self.rng.pick(&[1, 2, 3, 4, 5])),
            _ => Action::Watch(OpCode::RemoveWatches, path, self.rng.pick(&[1, 2, 3, 4, 5])),
        }
    }

    fn set_watches(&mut self) -> Action {
        let op = self.rng.pick(&[OpCode::SetWatches, OpCode::SetWatches2]);
        let mut lists: [Vec<String>; 5] = Default::default();
        for list in &mut lists {
            for _ in 0..self.rng.index(3) {
                list.push(self.good_path());
            }
        }
        Action::SetWatches(op, self.rng.one_in(3), lists)
    }
}

fn has_null(action: &Action) -> bool {
    match action {
        Action::Create(_, NewNode { path, acl, .. }) => path.is_none() || acl.is_none(),
        Action::Delete(path, _)
        | Action::SetData(path, ..)
        | Action::Check(path, _)
        | Action::Read(_, path, _) => path.is_none(),
        _ => false,
    }
}
