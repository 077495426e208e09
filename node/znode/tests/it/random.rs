//! Random commands over a few paths, so that they meet.

use bytes::Bytes;
use pharos_znode::{
    Acl, Command, CreateMode, ErrorCode, Id, Level, Op, SessionId, Settings, digest_auth, perms,
};
use proptest::prelude::*;

use crate::world::{ALICE, BOB};

pub(crate) const SESSIONS: [SessionId; 4] = [ALICE, BOB, SessionId(0x300), SessionId::NONE];

pub(crate) fn users() -> Vec<Vec<Id>> {
    let ip = Id::new("ip", "127.0.0.1");
    vec![
        vec![ip.clone()],
        vec![ip.clone(), digest_auth(b"a:a")],
        vec![ip, digest_auth(b"b:b"), digest_auth(b"a:a")],
        vec![Id::new("super", "")],
    ]
}

fn path() -> impl Strategy<Value = String> {
    let names = ["a", "b", "c"];
    let name = prop::sample::select(names.to_vec());
    prop_oneof![
        20 => prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/"))),
        1 => Just("/".to_owned()),
        1 => prop::sample::select(vec!["", "a", "/a/", "/a//b", "/a/.", "/a/😀", "/a/\0"]).prop_map(str::to_owned),
        1 => Just("/zookeeper/config".to_owned()),
    ]
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    let lengths = prop_oneof![2 => 0..9_usize, 1 => 10..30_usize];
    let bytes = lengths.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    prop::option::of(bytes.prop_map(Bytes::from))
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    prop_oneof![
        12 => Just(vec![Acl::open()]),
        1 => (1..32).prop_map(|perms| vec![Acl::new(perms, "world", "anyone"), Acl::new(31, "digest", "x:y")]),
        1 => Just(vec![Acl::new(perms::ALL, "auth", "")]),
        1 => Just(vec![Acl { perms: perms::ALL, id: digest_auth(b"a:a") }, Acl::new(perms::READ, "ip", "127.0.0.0/8")]),
        1 => Just(vec![Acl::new(1, "digest", "nocolon")]),
        1 => Just(vec![]),
    ]
}

fn version() -> impl Strategy<Value = i32> {
    prop_oneof![4 => Just(-1), 1 => 0..3]
}

fn create() -> impl Strategy<Value = Op> {
    let mode = prop::sample::select(vec![
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Ephemeral,
        CreateMode::PersistentSequential,
        CreateMode::EphemeralSequential,
        CreateMode::Container,
        CreateMode::PersistentTtl,
        CreateMode::PersistentTtl,
        CreateMode::PersistentSequentialTtl,
    ]);
    // Times are of the size of the commands' own, so that some are over.
    let ttl = prop::sample::select(vec![1, 5, 20, 20, 0, 1 << 40]);
    let node = (path(), data(), acl(), mode, prop_oneof![9 => Just(true), 1 => Just(false)], ttl);
    (node, any::<bool>()).prop_map(|((path, data, acl, mode, fits, ttl), with_stat)| Op::Create {
        path,
        data,
        acl,
        mode,
        ttl: if mode.is_ttl() == fits { ttl } else { -1 },
        with_stat,
    })
}

fn single() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => create(),
        4 => (path(), version()).prop_map(|(path, version)| Op::Delete { path, version }),
        3 => (path(), data(), version()).prop_map(|(path, data, version)| Op::SetData { path, data, version }),
        2 => (path(), version()).prop_map(|(path, version)| Op::Check { path, version }),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => single(),
        6 => prop::collection::vec(single(), 0..5).prop_map(Op::Multi),
        2 => (path(), acl(), version()).prop_map(|(path, acl, version)| Op::SetAcl { path, acl, version }),
        2 => path().prop_map(|path| Op::DeleteContainer { path }),
        1 => (1..3_u16).prop_map(|level| Op::SetLevel(Level(level))),
        2 => (1..9).prop_map(|timeout_ms| Op::CreateSession { timeout_ms }),
        1 => (1..9).prop_map(|timeout_ms| Op::AttachSession { timeout_ms }),
        1 => Just(Op::CloseSession),
        1 => (0..3_usize, 1..3_u32).prop_map(|(i, attach)| Op::Expire { session: SESSIONS[i], attach }),
        1 => data().prop_map(|data| Op::SetConfig { data: data.unwrap_or_default() }),
        1 => any::<(bool, bool)>().prop_map(|(sasl, x509)| Op::Configure(Settings { sasl, x509 })),
        1 => Just(Op::Nop { error: ErrorCode::MARSHALLING_ERROR }),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let session = prop::sample::select(SESSIONS.to_vec());
    (op(), session, prop_oneof![9 => Just(1_u32), 1 => 0..3_u32], prop::sample::select(users()), 1..4_u32)
        .prop_map(|(op, session, attach, auth, origin)| Command {
            origin,
            boot: 5,
            request: 6,
            session,
            attach,
            cxid: 7,
            auth,
            zxid: None,
            op,
        })
}

/// Commands with the time of each.
pub(crate) fn commands(count: usize) -> impl Strategy<Value = Vec<(Command, i64)>> {
    prop::collection::vec((command(), 0..50_i64), 1..count)
}
