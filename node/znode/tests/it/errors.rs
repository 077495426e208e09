//! Which error wins when several apply, and that failures cost a zxid and nothing else.

use bytes::Bytes;
use pharos_jute::{Create, OpCode, PathVersion, Request, SetAcl, SetData};
use pharos_znode::{Acl, CreateMode, ErrorCode, Level, Op, State, Value, perms, validate_path};

use crate::world::{
    World, all_but, check, create, create_acl, create_mode, delete, open, set, set_acl, super_user, world_may,
};

/// `/n` open; `/a` with a child; `/e` ephemeral; `/ro` without any permission but READ; `/v` at version 1.
fn world() -> World {
    let mut world = World::new();
    world.make(&["/n", "/a", "/a/child", "/v"]);
    world.run(create_mode("/e", CreateMode::Ephemeral)).unwrap();
    world.run(create_acl("/ro", CreateMode::Persistent, world_may(perms::READ))).unwrap();
    world.run(set("/v", b"x", 0)).unwrap();
    world
}

fn assert_errors(table: Vec<(Op, ErrorCode)>) {
    let mut world = world();
    for (op, expected) in table {
        let before = (world.state.clone(), world.state.zxid());
        assert_eq!(world.run(op.clone()), Err(expected), "{op:?}");
        assert_eq!(world.out.zxid, before.1.next(), "a failed write takes a zxid: {op:?}");
        assert!(world.out.events.is_empty());
        assert_same_but_zxid(&before.0, &world.state, &op);
    }
}

fn assert_same_but_zxid(before: &State, after: &State, op: &Op) {
    let mut before = before.clone();
    let nop = Op::Nop { error: ErrorCode::OK };
    let mut out = pharos_znode::Applied::new();
    let command = World::new().command(crate::world::ALICE, 1, nop);
    before.apply(&command, 0, &mut out);
    assert_eq!(before.digest(), after.digest(), "a failed command leaves no trace: {op:?}");
    assert_eq!(before.node_count(), after.node_count());
}

#[test]
fn errors_of_create_come_in_zookeepers_order() {
    let bad_acl = vec![Acl::new(31, "nonsense", "x")];
    let with = |path: &str, mode, acl: &[Acl]| create_acl(path, mode, acl.to_vec());
    let persistent = CreateMode::Persistent;
    assert_errors(vec![
        (with("/n/x", CreateMode::PersistentTtl, &bad_acl), ErrorCode::UNIMPLEMENTED),
        (with("foo", persistent, &bad_acl), ErrorCode::BAD_ARGUMENTS),
        (with("", persistent, &open()), ErrorCode::BAD_ARGUMENTS),
        (with("/n/\0", persistent, &bad_acl), ErrorCode::BAD_ARGUMENTS),
        (with("/missing/x", persistent, &bad_acl), ErrorCode::INVALID_ACL),
        (with("/missing/x", persistent, &[]), ErrorCode::INVALID_ACL),
        (create("/missing/x"), ErrorCode::NO_NODE),
        (create("/n//b"), ErrorCode::NO_NODE),
        (create("/a//b"), ErrorCode::NO_NODE),
        (create("a/b"), ErrorCode::NO_NODE),
        (create("/ro/."), ErrorCode::NO_AUTH),
        (create("/ro/x"), ErrorCode::NO_AUTH),
        (create("/n/"), ErrorCode::BAD_ARGUMENTS),
        (create("/n/."), ErrorCode::BAD_ARGUMENTS),
        (create("/n/.."), ErrorCode::BAD_ARGUMENTS),
        (create("/n/\u{1}"), ErrorCode::BAD_ARGUMENTS),
        (create("/"), ErrorCode::NODE_EXISTS),
        (create("/n"), ErrorCode::NODE_EXISTS),
        (create("/e/x"), ErrorCode::NO_CHILDREN_FOR_EPHEMERALS),
    ]);
}

#[test]
fn a_time_to_live_without_a_mode_for_it_is_a_bad_argument() {
    let op = Op::Create {
        path: "/n/x".into(),
        data: None,
        acl: open(),
        mode: CreateMode::Persistent,
        ttl: 5,
        with_stat: true,
    };
    assert_errors(vec![(op, ErrorCode::BAD_ARGUMENTS)]);
}

#[test]
fn errors_of_delete_come_in_zookeepers_order() {
    let delete_version = |path: &str, version| Op::Delete { path: path.into(), version };
    assert_errors(vec![
        (delete("nope"), ErrorCode::BAD_ARGUMENTS),
        (delete("/"), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper"), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper/quota"), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper/config"), ErrorCode::BAD_ARGUMENTS),
        (delete("/missing/x"), ErrorCode::NO_NODE),
        (delete("/ro/x"), ErrorCode::NO_AUTH),
        (delete("/missing"), ErrorCode::NO_NODE),
        (delete("/n/"), ErrorCode::NO_NODE),
        (delete_version("/a", 7), ErrorCode::BAD_VERSION),
        (delete_version("/a", 0), ErrorCode::NOT_EMPTY),
    ]);
}

#[test]
fn errors_of_data_and_acl_writes_and_checks_come_in_zookeepers_order() {
    let set_acl_version = |version| Op::SetAcl { path: "/v".into(), acl: open(), version };
    assert_errors(vec![
        (set("/n/", b"", -1), ErrorCode::BAD_ARGUMENTS),
        (set("/missing", b"", -1), ErrorCode::NO_NODE),
        (set("/ro", b"", 9), ErrorCode::NO_AUTH),
        (set("/zookeeper/config", b"", -1), ErrorCode::NO_AUTH),
        (set("/v", b"", 0), ErrorCode::BAD_VERSION),
        (set_acl("/n/", vec![]), ErrorCode::BAD_ARGUMENTS),
        (set_acl("/missing", vec![]), ErrorCode::INVALID_ACL),
        (set_acl("/missing", open()), ErrorCode::NO_NODE),
        (set_acl("/ro", open()), ErrorCode::NO_AUTH),
        (set_acl_version(1), ErrorCode::BAD_VERSION),
        (check("n", -1), ErrorCode::BAD_ARGUMENTS),
        (check("/missing", -1), ErrorCode::NO_NODE),
        (check("/v", 0), ErrorCode::BAD_VERSION),
        (Op::Nop { error: ErrorCode::MARSHALLING_ERROR }, ErrorCode::MARSHALLING_ERROR),
    ]);
}

#[test]
fn null_paths_of_writes_fail_as_zookeeper_comes_upon_them() {
    let nop = |error| Some(Op::Nop { error });
    let delete = Request::Delete(PathVersion { path: None, version: -1 });
    let set_data = Request::SetData(SetData { path: None, data: None, version: -1 });
    let set_acl = Request::SetAcl(SetAcl { path: None, acl: None, version: -1 });
    let create = Request::Create2(Create { path: None, data: None, acl: Some(vec![]), flags: 0 });
    assert_eq!(Op::from_request(&delete, Level::NEWEST), nop(ErrorCode::MARSHALLING_ERROR));
    assert_eq!(Op::from_request(&create, Level::NEWEST), nop(ErrorCode::MARSHALLING_ERROR));
    let with_ttl = Request::Create2(Create { path: None, data: None, acl: Some(vec![]), flags: 5 });
    assert_eq!(Op::from_request(&with_ttl, Level::FIRST), nop(ErrorCode::UNIMPLEMENTED));
    assert_eq!(Op::from_request(&with_ttl, Level::TTL), nop(ErrorCode::BAD_ARGUMENTS), "it names no time");
    assert_eq!(Op::from_request(&set_data, Level::NEWEST), nop(ErrorCode::BAD_ARGUMENTS));
    assert_eq!(Op::from_request(&set_acl, Level::NEWEST), nop(ErrorCode::BAD_ARGUMENTS));
}

#[test]
fn of_what_cannot_be_decoded_a_multi_alone_goes_to_the_log() {
    assert_eq!(Op::from_undecodable(OpCode::Multi), Some(Op::Nop { error: ErrorCode::MARSHALLING_ERROR }));
    assert_eq!(Op::from_undecodable(OpCode::Delete), None);
}

#[test]
fn reads_do_not_validate_paths() {
    let world = world();
    for path in ["nope", "/n/", "//", "/n//x", "/missing"] {
        assert_eq!(world.state.exists(path, &[]).unwrap_err(), ErrorCode::NO_NODE, "{path}");
        assert_eq!(world.state.get_data(path, &[]).unwrap_err(), ErrorCode::NO_NODE, "{path}");
        assert_eq!(world.state.children(path, &[]).unwrap_err(), ErrorCode::NO_NODE, "{path}");
    }
    assert_eq!(world.state.exists("", &[]), world.state.exists("/", &[]));
    assert_eq!(world.state.exists("/\0", &[]), Err(ErrorCode::BAD_ARGUMENTS));
    assert_eq!(world.state.get_data("/\0", &[]), Err(ErrorCode::NO_NODE));
}

#[test]
fn each_permission_guards_what_zookeeper_lets_it_guard() {
    let with = |missing| {
        let mut world = World::new();
        world.run(create_acl("/p", CreateMode::Persistent, all_but(missing))).unwrap();
        world.auth = super_user();
        world.make(&["/p/child"]);
        world.auth = Vec::new();
        world
    };
    assert_eq!(with(perms::CREATE).run(create("/p/x")), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::DELETE).run(delete("/p/child")), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::WRITE).run(set("/p", b"", -1)), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::ADMIN).run(set_acl("/p", open())), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::READ).run(check("/p", -1)), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::READ).state.exists("/p", &[]), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::READ).state.get_data("/p", &[]), Err(ErrorCode::NO_AUTH));
    assert_eq!(with(perms::READ).state.children("/p", &[]).unwrap_err(), ErrorCode::NO_AUTH);
    assert_eq!(with(perms::READ).state.all_children_number("/p", &[]), Err(ErrorCode::NO_AUTH));
    assert!(with(perms::READ).state.get_acl("/p", &[]).is_ok(), "ADMIN suffices");
    assert!(with(perms::ALL & !perms::CREATE).run(create("/p/x")).is_ok());
    assert!(with(perms::ALL & !perms::DELETE).run(delete("/p/child")).is_ok());
}

#[test]
fn paths_follow_path_utils_in_utf16_units() {
    let good =
        ["/", "/a", "/a/b", "/.a", "/a.", "/...", "/a..b", "/ü", "/中", "/\u{20}", "/\u{d7ff}", "/\u{ffef}"];
    let bad = [
        "",
        "a",
        "/a/",
        "//",
        "/a//b",
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/\0",
        "/\u{1f}",
        "/\u{7f}",
        "/\u{9f}",
        "/\u{e000}",
        "/\u{f8ff}",
        "/\u{fff0}",
        "/\u{ffff}",
        "/😀",
    ];
    assert_eq!(good.into_iter().filter(|p| !validate_path(p)).collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(bad.into_iter().filter(|p| validate_path(p)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn an_import_takes_the_zxid_it_names_and_none_below() {
    let mut world = World::new();
    let import = |world: &World, zxid, path: &str| pharos_znode::Command {
        zxid: Some(pharos_znode::Zxid(zxid)),
        ..world.command(crate::world::ALICE, 1, create(path))
    };
    world.apply(&import(&world, 0x5_0000_0007, "/a")).unwrap();
    assert_eq!(world.stat("/a").czxid, 0x5_0000_0007);
    let refused = world.apply(&import(&world, 0x5_0000_0006, "/b"));
    assert_eq!(refused, Err(ErrorCode::RUNTIME_INCONSISTENCY));
    assert_eq!(world.state.zxid().0, 0x5_0000_0007);
}

#[test]
fn an_import_leaves_epochs_for_leaders() {
    let mut world = World::new();
    for zxid in [i64::MAX, 1 << 62] {
        let import = pharos_znode::Command {
            zxid: Some(pharos_znode::Zxid(zxid)),
            ..world.command(crate::world::ALICE, 1, create("/a"))
        };
        assert_eq!(world.apply(&import), Err(ErrorCode::RUNTIME_INCONSISTENCY));
    }
    let before = world.state.zxid();
    world.state.epoch_start();
    assert!(world.state.zxid() > before);
}

#[test]
fn the_membership_is_written_by_its_own_command() {
    let mut world = World::new();
    world.auth = Vec::new();
    let command = world.command(
        pharos_znode::SessionId::NONE,
        0,
        Op::SetConfig { data: Bytes::from_static(b"server.1=a") },
    );
    world.apply(&command).unwrap();
    assert_eq!(world.state.get_data("/zookeeper/config", &[]).unwrap().data, Value::Here(b"server.1=a"));
    assert_eq!(world.stat("/zookeeper/config").version, -1);
    assert_eq!(world.events(), [(pharos_znode::EventType::NodeDataChanged, "/zookeeper/config".into())]);
}
