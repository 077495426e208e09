//! Nodes that go by themselves: containers, and those with a time to live.

use pharos_jute::{AclRef, Create, Request};
use pharos_znode::{CreateMode, ErrorCode, Level, Op};

use crate::world::{T0, World, create, create_mode, create_ttl, delete, set};

fn sweep(path: &str) -> Op {
    Op::DeleteContainer { path: path.into() }
}

#[test]
fn a_container_shows_no_owner_and_may_have_children() {
    let mut world = World::new();
    world.run(create_mode("/c", CreateMode::Container)).unwrap();
    assert_eq!(world.stat("/c").ephemeral_owner, 0);
    world.make(&["/c/x"]);
}

#[test]
fn a_container_is_swept_once_its_last_child_has_gone() {
    let mut world = World::new();
    world.make(&["/plain"]);
    world.run(create_mode("/c", CreateMode::Container)).unwrap();
    assert_eq!(world.run(sweep("/c")), Err(ErrorCode::BAD_VERSION), "it never had a child");
    assert_eq!(world.run(sweep("/plain")), Err(ErrorCode::BAD_VERSION));
    world.make(&["/c/x"]);
    assert_eq!(world.run(sweep("/c")), Err(ErrorCode::NOT_EMPTY));
    assert_eq!(world.state.expendable(T0), Vec::<String>::new());
    world.run(delete("/c/x")).unwrap();
    assert_eq!(world.state.expendable(T0), ["/c"]);
    world.run(sweep("/c")).unwrap();
    assert_eq!(world.run(sweep("/c")), Err(ErrorCode::NO_NODE));
    assert_eq!(world.state.expendable(T0), Vec::<String>::new());
    world.run(create("/c")).unwrap();
}

#[test]
fn the_request_for_a_container_makes_one_whatever_its_flags() {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    for flags in [0, 4] {
        let create = Create { path: Some("/c"), data: None, acl: Some(acl.clone()), flags };
        let op = Op::from_request(&Request::CreateContainer(create), Level::NEWEST).unwrap();
        assert!(matches!(op, Op::Create { mode: CreateMode::Container, with_stat: true, .. }), "{op:?}");
    }
    let create = Create { path: Some("/c"), data: None, acl: Some(acl), flags: 9 };
    let op = Op::from_request(&Request::CreateContainer(create), Level::NEWEST);
    assert_eq!(op, Some(Op::Nop { error: ErrorCode::BAD_ARGUMENTS }));
}

fn with_ttls() -> World {
    let mut world = World::new();
    world.run(Op::SetLevel(Level::TTL)).unwrap();
    world
}

#[test]
fn a_time_to_live_is_refused_below_its_level_whatever_the_version_can_do() {
    let mut world = World::new();
    assert_eq!(world.run(create_ttl("/t", 50)), Err(ErrorCode::UNIMPLEMENTED));
    world.run(Op::SetLevel(Level::TTL)).unwrap();
    world.run(create_ttl("/t", 50)).unwrap();
    world.run(Op::SetLevel(Level::FIRST)).unwrap();
    assert_eq!(world.state.level(), Level::TTL, "a level never falls");
}

#[test]
fn a_node_is_swept_once_it_is_empty_and_was_not_written_for_its_time() {
    let mut world = with_ttls();
    world.run(create_ttl("/t", 50)).unwrap();
    assert_eq!(world.stat("/t").ephemeral_owner, 0);
    world.now = T0 + 50;
    assert_eq!(world.state.expendable(world.now), Vec::<String>::new());
    assert_eq!(world.run(sweep("/t")), Err(ErrorCode::BAD_VERSION), "its time is not over");
    world.run(set("/t", b"new", -1)).unwrap();
    world.make(&["/t/x"]);
    world.now = T0 + 101;
    assert_eq!(world.state.expendable(world.now), Vec::<String>::new());
    assert_eq!(world.run(sweep("/t")), Err(ErrorCode::NOT_EMPTY));
    world.run(delete("/t/x")).unwrap();
    assert_eq!(
        world.state.expendable(T0),
        ["/t"],
        "the log's time has come, whatever the leader's clock says"
    );
    world.run(sweep("/t")).unwrap();
    assert_eq!(world.state.expendable(i64::MAX), Vec::<String>::new());
}

#[test]
fn a_time_to_live_has_bounds_and_is_for_its_own_modes_alone() {
    let mut world = with_ttls();
    for ttl in [i64::MIN, -1, 0, 1 << 40, i64::MAX] {
        assert_eq!(world.run(create_ttl("/t", ttl)), Err(ErrorCode::BAD_ARGUMENTS), "{ttl}");
    }
    world.run(create_ttl("/t", (1 << 40) - 1)).unwrap();
    world.run(create_ttl("/u", 1)).unwrap();
    world.now = T0 + (1 << 40) - 1;
    assert_eq!(world.state.expendable(world.now), ["/u"]);
}

#[test]
fn a_node_with_a_time_to_live_may_have_a_number_and_children_that_have_one() {
    let mut world = with_ttls();
    world.run(create_ttl("/t", 50)).unwrap();
    let Op::Create { path, data, acl, with_stat, .. } = create_ttl("/t/n-", 50) else { unreachable!() };
    let mode = CreateMode::PersistentSequentialTtl;
    world.run(Op::Create { path, data, acl, mode, ttl: 50, with_stat }).unwrap();
    assert_eq!(world.children("/t"), ["n-0000000000"]);
    assert_eq!(world.state.expendable(T0 + 51), ["/t/n-0000000000"]);
}
