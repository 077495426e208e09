//! Which events fire, in which order, and whose ACL guards them.

use pharos_znode::EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
use pharos_znode::{CreateMode, Op, perms};

use crate::world::{World, create, create_acl, delete, open, set, set_acl, world_may};

#[test]
fn a_nodes_own_event_comes_before_its_parents() {
    let mut world = World::new();
    world.make(&["/a"]);
    assert_eq!(world.events(), [(NodeCreated, "/a".into()), (NodeChildrenChanged, "/".into())]);
    world.make(&["/a/b"]);
    assert_eq!(world.events(), [(NodeCreated, "/a/b".into()), (NodeChildrenChanged, "/a".into())]);
    world.run(set("/a/b", b"x", -1)).unwrap();
    assert_eq!(world.events(), [(NodeDataChanged, "/a/b".into())]);
    world.run(delete("/a/b")).unwrap();
    assert_eq!(world.events(), [(NodeDeleted, "/a/b".into()), (NodeChildrenChanged, "/a".into())]);
    world.run(set_acl("/a", open())).unwrap();
    assert_eq!(world.events(), []);
}

#[test]
fn an_event_carries_the_acl_of_the_node_it_names() {
    let mut world = World::new();
    world.run(create_acl("/p", CreateMode::Persistent, world_may(perms::CREATE | perms::DELETE))).unwrap();
    world.run(create_acl("/p/c", CreateMode::Persistent, world_may(perms::READ))).unwrap();
    let acls = |world: &World| -> Vec<i32> { world.out.tree_events().map(|e| e.acl[0].perms).collect() };
    assert_eq!(acls(&world), [perms::READ, perms::CREATE | perms::DELETE]);
    world.run(delete("/p/c")).unwrap();
    assert_eq!(acls(&world), [perms::READ, perms::CREATE | perms::DELETE]);
}

#[test]
fn a_sequential_nodes_event_names_the_final_path() {
    let mut world = World::new();
    let op =
        Op::Multi(vec![create("/q"), crate::world::create_mode("/q/", CreateMode::PersistentSequential)]);
    world.run(op).unwrap();
    let expected = [
        (NodeCreated, "/q".into()),
        (NodeChildrenChanged, "/".into()),
        (NodeCreated, "/q/0000000000".into()),
        (NodeChildrenChanged, "/q".into()),
    ];
    assert_eq!(world.events(), expected);
}
