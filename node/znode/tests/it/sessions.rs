//! Sessions: opened, attached elsewhere, closed, expired.

use pharos_znode::EventType::{NodeChildrenChanged, NodeDeleted};
use pharos_znode::{Command, CreateMode, ErrorCode, Op, Reply, Session, SessionEvent, SessionId};

use crate::world::{ALICE, BOB, World, create, create_mode};

fn attach(world: &mut World, session: SessionId, origin: u32) -> Result<Reply, ErrorCode> {
    let op = Op::AttachSession { timeout_ms: 9000 };
    world.apply(&Command { origin, ..world.command(session, 0, op) })
}

#[test]
fn a_session_is_opened_once() {
    let mut world = World::new();
    assert_eq!(world.state.session(ALICE), Some(&Session { timeout_ms: 4000, attach: 1, owner: 1 }));
    let again = world.command(ALICE, 0, Op::CreateSession { timeout_ms: 1 });
    assert_eq!(world.apply(&again), Err(ErrorCode::BAD_ARGUMENTS));
    let ids: Vec<SessionId> = world.state.sessions().map(|(id, _)| id).collect();
    assert_eq!(ids, [ALICE, BOB]);
}

#[test]
fn attaching_moves_a_session_and_takes_no_zxid() {
    let mut world = World::new();
    let before = world.state.zxid();
    assert_eq!(attach(&mut world, ALICE, 3), Ok(Reply::Session { attach: 2, timeout_ms: 9000 }));
    assert_eq!(world.state.zxid(), before);
    assert_eq!(world.state.session(ALICE), Some(&Session { timeout_ms: 9000, attach: 2, owner: 3 }));
    let event = SessionEvent::Attached { session: ALICE, owner: 3, attach: 2 };
    assert_eq!(world.out.session_events, [event]);
    assert_eq!(attach(&mut world, SessionId(77), 3), Err(ErrorCode::SESSION_EXPIRED));
}

#[test]
fn commands_of_an_older_attachment_change_nothing() {
    let mut world = World::new();
    attach(&mut world, ALICE, 3).unwrap();
    let nodes = world.state.node_count();
    for op in [create("/x"), Op::CloseSession, Op::Multi(vec![create("/x")])] {
        let late = world.command(ALICE, 1, op);
        assert_eq!(world.apply(&late), Err(ErrorCode::SESSION_MOVED));
    }
    assert_eq!(world.state.node_count(), nodes);
    assert!(world.state.session(ALICE).is_some());
    assert!(world.run(create("/x")).is_ok());
}

#[test]
fn commands_of_an_unknown_session_are_answered_expired() {
    let mut world = World::new();
    world.run(Op::CloseSession).unwrap();
    for op in [create("/x"), Op::CloseSession, Op::AttachSession { timeout_ms: 1 }] {
        let late = world.command(ALICE, 1, op);
        assert_eq!(world.apply(&late), Err(ErrorCode::SESSION_EXPIRED));
    }
}

#[test]
fn closing_deletes_the_ephemerals_in_path_order_in_one_transaction() {
    let mut world = World::new();
    world.make(&["/n"]);
    for path in ["/n/b", "/z", "/n/a"] {
        world.run(create_mode(path, CreateMode::Ephemeral)).unwrap();
    }
    world.run_as(BOB, create_mode("/n/bob", CreateMode::Ephemeral)).unwrap();
    let before = world.state.zxid();
    world.run(Op::CloseSession).unwrap();
    assert_eq!(world.state.zxid(), before.next());
    let expected = [
        (NodeDeleted, "/n/a".into()),
        (NodeChildrenChanged, "/n".into()),
        (NodeDeleted, "/n/b".into()),
        (NodeChildrenChanged, "/n".into()),
        (NodeDeleted, "/z".into()),
        (NodeChildrenChanged, "/".into()),
    ];
    assert_eq!(world.events(), expected);
    assert_eq!(world.out.session_events, [SessionEvent::Closed { session: ALICE, owner: 1, expired: false }]);
    assert_eq!(world.children("/n"), ["bob"]);
    assert_eq!(world.stat("/n").pzxid, world.state.zxid().0);
    assert_eq!(world.stat("/n").cversion, 5);
}

#[test]
fn expiry_counts_only_if_the_session_was_not_attached_meanwhile() {
    let mut world = World::new();
    world.run(create_mode("/e", CreateMode::Ephemeral)).unwrap();
    let expire = |world: &mut World, attach| {
        let op = Op::Expire { session: ALICE, attach };
        world.apply(&world.command(SessionId::NONE, 0, op))
    };
    attach(&mut world, ALICE, 2).unwrap();
    assert_eq!(expire(&mut world, 1), Err(ErrorCode::SESSION_MOVED));
    assert!(world.state.stat("/e").is_some());
    assert_eq!(expire(&mut world, 2), Ok(Reply::Done));
    assert_eq!(world.out.session_events, [SessionEvent::Closed { session: ALICE, owner: 2, expired: true }]);
    assert!(world.state.stat("/e").is_none());
    assert_eq!(expire(&mut world, 2), Err(ErrorCode::SESSION_EXPIRED));
}

#[test]
fn an_ephemeral_recreated_by_another_session_survives_the_first_ones_end() {
    let mut world = World::new();
    world.run(create_mode("/e", CreateMode::Ephemeral)).unwrap();
    world.run_as(BOB, crate::world::delete("/e")).unwrap();
    world.run_as(BOB, create_mode("/e", CreateMode::Ephemeral)).unwrap();
    world.run(Op::CloseSession).unwrap();
    assert_eq!(world.stat("/e").ephemeral_owner, BOB.0);
}
