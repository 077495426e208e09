//! Container nodes.

use pharos_jute::{AclRef, Create, Request};
use pharos_znode::{CreateMode, ErrorCode, Op};

use crate::world::{World, create, create_mode, delete};

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
    assert_eq!(world.state.expendable_containers(), Vec::<String>::new());
    world.run(delete("/c/x")).unwrap();
    assert_eq!(world.state.expendable_containers(), ["/c"]);
    world.run(sweep("/c")).unwrap();
    assert_eq!(world.run(sweep("/c")), Err(ErrorCode::NO_NODE));
    assert_eq!(world.state.expendable_containers(), Vec::<String>::new());
    world.run(create("/c")).unwrap();
}

#[test]
fn the_request_for_a_container_makes_one_whatever_its_flags() {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    for flags in [0, 4] {
        let create = Create { path: Some("/c"), data: None, acl: Some(acl.clone()), flags };
        let op = Op::from_request(&Request::CreateContainer(create)).unwrap();
        assert!(matches!(op, Op::Create { mode: CreateMode::Container, with_stat: true, .. }), "{op:?}");
    }
    let create = Create { path: Some("/c"), data: None, acl: Some(acl), flags: 9 };
    let op = Op::from_request(&Request::CreateContainer(create));
    assert_eq!(op, Some(Op::Nop { error: ErrorCode::BAD_ARGUMENTS }));
}
