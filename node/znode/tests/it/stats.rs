//! Stat, sequence numbers, time and the nodes a new Ensemble has.

use pharos_znode::{CreateMode, Reply, Stat, State, Value, Zxid};

use crate::world::{
    ALICE, T0, World, create, create_data, create_mode, delete, open, set, set_acl, world_may,
};

#[test]
fn a_new_ensemble_looks_like_a_new_zookeeper() {
    let state = State::new();
    let fixed =
        |cversion, aversion, num_children| Stat { cversion, aversion, num_children, ..Stat::default() };
    assert_eq!(state.stat("/"), Some(fixed(-1, 0, 1)));
    assert_eq!(state.stat("/zookeeper"), Some(fixed(-2, 0, 2)));
    assert_eq!(state.stat("/zookeeper/quota"), Some(fixed(0, 0, 0)));
    assert_eq!(state.stat("/zookeeper/config"), Some(fixed(0, -1, 0)));
    assert_eq!(state.get_data("/", &[]).unwrap().data, Value::Here(b""));
    assert_eq!(state.get_acl("/zookeeper/config", &[]).unwrap().acl, world_may(1));
    assert_eq!(state.all_children_number("/", &[]), Ok(3));
    assert_eq!(state.zxid(), Zxid(0));
}

#[test]
fn a_created_node_has_its_transactions_numbers() {
    let mut world = World::new();
    let reply = world.run(create_data("/a", Some(b"data"))).unwrap();
    let zxid = world.out.zxid.0;
    let stat = Stat {
        czxid: zxid,
        mzxid: zxid,
        pzxid: zxid,
        ctime: T0,
        mtime: T0,
        data_length: 4,
        ..Stat::default()
    };
    assert_eq!(world.stat("/a"), stat);
    assert!(matches!(reply, Reply::Created { stat: told, with_stat: true, .. } if told == stat));
    assert_eq!(world.created_path(), "/a");
}

#[test]
fn sequence_numbers_count_creations_and_not_cversion() {
    let mut world = World::new();
    world.make(&["/n"]);
    for expected in ["/n/x0000000000", "/n/x0000000001", "/n/x0000000002"] {
        world.run(create_mode("/n/x", CreateMode::PersistentSequential)).unwrap();
        assert_eq!(world.created_path(), expected);
    }
    world.run(delete("/n/x0000000001")).unwrap();
    assert_eq!(world.stat("/n").cversion, 4);
    world.run(create_mode("/n/", CreateMode::EphemeralSequential)).unwrap();
    assert_eq!(world.created_path(), "/n/0000000003");
}

#[test]
fn the_parents_cversion_and_pzxid_move_on_creates_and_deletes_of_children_only() {
    let mut world = World::new();
    world.make(&["/n", "/n/a"]);
    let created = world.out.zxid.0;
    assert_eq!((world.stat("/n").cversion, world.stat("/n").pzxid), (1, created));
    world.run(set("/n/a", b"x", -1)).unwrap();
    world.run(set_acl("/n/a", world_may(31))).unwrap();
    assert_eq!((world.stat("/n").cversion, world.stat("/n").pzxid), (1, created));
    world.run(delete("/n/a")).unwrap();
    assert_eq!((world.stat("/n").cversion, world.stat("/n").pzxid), (2, world.out.zxid.0));
}

#[test]
fn a_data_write_moves_version_mzxid_and_mtime() {
    let mut world = World::new();
    world.make(&["/n"]);
    let before = world.stat("/n");
    world.now += 5;
    let reply = world.run(set("/n", b"four", 0)).unwrap();
    let after = Stat { version: 1, mzxid: world.out.zxid.0, mtime: T0 + 5, data_length: 4, ..before };
    assert_eq!(world.stat("/n"), after);
    assert_eq!(reply, Reply::Stat(after));
}

#[test]
fn an_acl_write_moves_aversion_alone() {
    let mut world = World::new();
    world.make(&["/n"]);
    let before = world.stat("/n");
    world.now += 5;
    world.run(set_acl("/n", open())).unwrap();
    assert_eq!(world.stat("/n"), Stat { aversion: 1, ..before });
    assert!(world.out.events.is_empty());
}

#[test]
fn null_data_and_empty_data_are_kept_apart() {
    let mut world = World::new();
    world.run(create_data("/null", None)).unwrap();
    world.run(create_data("/empty", Some(b""))).unwrap();
    let read = |path| world.state.get_data(path, &[]).unwrap();
    assert_eq!((read("/null").data, read("/null").stat.data_length), (Value::Null, 0));
    assert_eq!((read("/empty").data, read("/empty").stat.data_length), (Value::Here(b""), 0));
}

#[test]
fn time_never_goes_back() {
    let mut world = World::new();
    world.make(&["/a"]);
    world.now -= 1000;
    world.make(&["/b"]);
    assert_eq!(world.stat("/b").ctime, T0);
}

#[test]
fn an_epoch_starts_with_counter_zero_and_a_full_counter_runs_over() {
    let mut state = State::new();
    state.epoch_start();
    assert_eq!(state.zxid(), Zxid(1 << 32));
    state.jump_epoch(7);
    assert_eq!((state.zxid().epoch(), state.zxid().counter()), (7, 0));
    state.jump_epoch(3);
    assert_eq!(state.zxid().epoch(), 7, "never back");
    assert_eq!(Zxid(0x7_ffff_ffff).next(), Zxid(0x8_0000_0000));
}

#[test]
fn ephemerals_show_their_owner_and_are_listed_by_prefix() {
    let mut world = World::new();
    world.make(&["/n"]);
    for path in ["/n/b", "/n/a", "/top"] {
        world.run(create_mode(path, CreateMode::Ephemeral)).unwrap();
    }
    assert_eq!(world.stat("/top").ephemeral_owner, ALICE.0);
    let list = |prefix| world.state.ephemerals(ALICE, prefix);
    assert_eq!(list(None), ["/n/a", "/n/b", "/top"]);
    assert_eq!(list(Some(" / ")), ["/n/a", "/n/b", "/top"]);
    assert_eq!(list(Some("/n")), ["/n/a", "/n/b"]);
    assert_eq!(world.state.ephemeral_count(), 3);
}

#[test]
fn all_descendants_are_counted() {
    let mut world = World::new();
    world.make(&["/a", "/a/b", "/a/b/c", "/a/d", "/ab"]);
    let count = |path| world.state.all_children_number(path, &[]);
    assert_eq!((count("/a"), count("/ab"), count("/"), count("")), (Ok(3), Ok(0), Ok(8), Ok(9)));
}

#[test]
fn a_directory_of_many_children_is_changed_in_constant_time() {
    let mut world = World::new();
    world.make(&["/big"]);
    let mut out = pharos_znode::Applied::new();
    let count = 100_000;
    for _ in 0..count {
        let command = world.command(ALICE, 1, create_mode("/big/n", CreateMode::PersistentSequential));
        world.state.apply(&command, T0, &mut out);
    }
    assert_eq!(world.stat("/big").num_children, count);
    for n in (0..count).step_by(2) {
        let command = world.command(ALICE, 1, delete(&format!("/big/n{n:010}")));
        world.state.apply(&command, T0, &mut out);
    }
    assert_eq!(world.stat("/big").num_children, count / 2);
    assert_eq!(world.children("/big").len(), 50_000);
    assert_eq!(world.state.digest(), world.state.recompute_digest());
    world.run(create("/big/again")).unwrap();
}
