//! Rows: what the store is told, and the state read back from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use pharos_znode::{
    Acl, Applied, Command, CreateMode, Level, Op, Progress, RowBatch, RowError, SessionId, Settings, State,
    Value, perms,
};
use proptest::prelude::*;

use crate::random::commands;
use crate::world::{
    ALICE, World, create, create_acl, create_data, create_mode, create_ttl, delete, set, super_user,
};

/// An ordered store in memory.
#[derive(Default, Clone)]
struct Store(BTreeMap<Bytes, Bytes>);

impl Store {
    fn write(&mut self, batch: &RowBatch) {
        for (key, value) in batch.to_pairs() {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    fn read(&self) -> Result<State, RowError> {
        State::from_rows(self.0.clone())
    }
}

fn shown(value: Value<'_>) -> Option<Vec<u8>> {
    assert!(!matches!(value, Value::Cold(_)), "nobody has said that values may be cold");
    value.here().map(<[u8]>::to_vec)
}

/// All that can be read of a state.
fn picture(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
    let auth = super_user();
    let mut nodes = BTreeMap::new();
    let mut paths = vec!["/".to_owned()];
    while let Some(path) = paths.pop() {
        let children = state.children(&path, &auth).unwrap();
        let prefix = if path == "/" { "" } else { &path };
        paths.extend(children.names.map(|name| format!("{prefix}/{name}")));
        let data = state.get_data(&path, &auth).unwrap();
        let acl = state.get_acl(&path, &auth).unwrap();
        nodes.insert(path, (data.stat, shown(data.data), acl.acl));
    }
    let sessions: Vec<_> = state.sessions().map(|(id, s)| (id, *s, state.ephemerals(id, None))).collect();
    let numbers = (state.zxid(), state.time_ms(), state.settings(), state.level(), state.digest());
    (nodes, sessions, numbers, state.expendable(state.time_ms() + 20))
}

/// Carries out commands in slices of so many steps, and after each goes on with a cut by so many nodes.
fn cut_meanwhile(commands: &[(Command, i64)], nodes: usize, every: usize, steps: usize) {
    let (mut state, mut out, mut store) = (State::new(), Applied::new(), Store::default());
    let mut wanted = None;
    for (i, (command, time)) in commands.iter().enumerate() {
        if wanted.is_none() && i % every == 0 {
            state.begin_cut();
            wanted = Some(picture(&state));
        }
        loop {
            let mut left = steps;
            let progress = state.apply_some(command, *time, &mut left, &mut out);
            if let Some(batch) = wanted.as_ref().and_then(|_| state.cut_some(nodes)) {
                store.write(&batch);
                assert_eq!(Some(picture(&store.read().unwrap())), wanted.take());
            }
            if progress == Progress::Done {
                break;
            }
        }
    }
    if let Some(wanted) = wanted {
        store.write(&state.cut_some(usize::MAX).unwrap());
        assert_eq!(picture(&store.read().unwrap()), wanted);
    }
    store.write(&state.take_dirty());
    assert_eq!(picture(&store.read().unwrap()), picture(&state));
}

#[test]
fn a_write_that_is_taken_back_during_a_cut_leaves_no_node_behind_that_the_store_has_never_heard_of() {
    let (mut world, mut store) = (World::new(), Store::default());
    world.make(&["/new"]);
    world.state.begin_cut();
    let fails = world.command(ALICE, 1, Op::Multi(vec![set("/new", b"other", -1), delete("/none")]));
    while world.state.apply_some(&fails, world.now, &mut 1, &mut world.out) != Progress::Done {}
    assert!(world.out.error().is_some());
    store.write(&world.state.cut_some(usize::MAX).unwrap());
    assert!(store.read().unwrap().stat("/new").is_some());
    world.run(delete("/new")).unwrap();
    store.write(&world.state.take_dirty());
    assert_eq!(picture(&store.read().unwrap()), picture(&world.state));
}

proptest! {
    #[test]
    fn a_state_read_back_from_its_rows_is_the_state_that_wrote_them(
        commands in commands(60),
        every in 1..9_usize,
    ) {
        let (mut state, mut out, mut store) = (State::new(), Applied::new(), Store::default());
        for (i, (command, time)) in commands.iter().enumerate() {
            state.apply(command, *time, &mut out);
            if i % every == 0 {
                store.write(&state.take_dirty());
                let read = store.read().unwrap();
                prop_assert_eq!(picture(&read), picture(&state));
            }
        }
        store.write(&state.take_dirty());
        let mut read = store.read().unwrap();
        prop_assert_eq!(picture(&read), picture(&state));
        prop_assert!(read.take_dirty().is_empty(), "what was read needs no writing");

        // The two go on alike.
        let mut other = Applied::new();
        let mut store_of_read = store.clone();
        for (command, time) in &commands {
            state.apply(command, *time, &mut out);
            read.apply(command, *time, &mut other);
            prop_assert_eq!(&out, &other);
        }
        prop_assert_eq!(picture(&read), picture(&state));
        store_of_read.write(&read.take_dirty());
        prop_assert_eq!(picture(&store_of_read.read().unwrap()), picture(&state));
    }

    #[test]
    fn a_cut_in_slices_has_the_values_of_its_beginning(
        commands in commands(80),
        nodes in 0..4_usize,
        every in 1..9_usize,
    ) {
        cut_meanwhile(&commands, nodes, every, usize::MAX);
    }

    #[test]
    fn so_it_has_whatever_is_half_way_and_taken_back_meanwhile(
        commands in commands(80),
        nodes in 0..3_usize,
        every in 1..5_usize,
        steps in 1..3_usize,
    ) {
        cut_meanwhile(&commands, nodes, every, steps);
    }

    #[test]
    fn damaged_rows_are_refused(commands in commands(20), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let (mut state, mut out, mut store) = (State::new(), Applied::new(), Store::default());
        for (command, time) in &commands {
            state.apply(command, *time, &mut out);
        }
        store.write(&state.take_dirty());
        let lengths: usize = store.0.values().map(Bytes::len).sum();
        let mut at = at.index(lengths);
        for value in store.0.values_mut() {
            if at < value.len() {
                let mut damaged = value.to_vec();
                damaged[at] ^= flip;
                *value = damaged.into();
                break;
            }
            at -= value.len();
        }
        prop_assert!(store.read().is_err());
    }

    #[test]
    fn any_rows_are_read_or_refused(
        mut rows in prop::collection::btree_map(
            prop::collection::vec(prop_oneof![0..6_u8, Just(b'/'), any::<u8>()], 0..8),
            prop::collection::vec(prop_oneof![Just(1_u8), any::<u8>()], 0..80),
            0..9,
        ),
        keep in any::<bool>(),
    ) {
        if keep {
            let mut store = Store::default();
            store.write(&State::new().take_dirty());
            rows.extend(store.0.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())));
        }
        let _ = State::from_rows(rows.into_iter().map(|(k, v)| (k.into(), v.into())));
    }
}

#[test]
fn no_damaged_byte_passes_unseen() {
    let mut world = World::new();
    world.run(Op::Configure(Settings { sasl: true, x509: false })).unwrap();
    world
        .run(create_acl("/a", CreateMode::Ephemeral, vec![Acl::new(perms::READ, "ip", "127.0.0.1")]))
        .unwrap();
    world.run(create_data("/b", Some(b"data"))).unwrap();
    let mut store = Store::default();
    store.write(&world.state.take_dirty());
    each_damaged_byte_is_seen(&store);
    world.run(Op::SetLevel(Level::NEWEST)).unwrap();
    world.run(create_ttl("/t", 50)).unwrap();
    store.write(&world.state.take_dirty());
    each_damaged_byte_is_seen(&store);
}

fn each_damaged_byte_is_seen(store: &Store) {
    for (key, value) in store.0.clone() {
        for (at, flip) in (0..value.len()).flat_map(|at| (1..=u8::MAX).map(move |flip| (at, flip))) {
            let mut damaged = value.to_vec();
            damaged[at] ^= flip;
            let rows = Store(store.0.clone().into_iter().chain([(key.clone(), damaged.into())]).collect());
            assert!(rows.read().is_err(), "byte {at} of {key:?}, {value:?} by {flip:#x}");
        }
    }
}

#[test]
fn a_new_states_first_rows_are_all_of_it() {
    let (mut state, mut store) = (State::new(), Store::default());
    store.write(&state.take_dirty());
    assert_eq!(picture(&store.read().unwrap()), picture(&state));
    assert!(state.take_dirty().is_empty());
}

#[test]
fn a_batch_holds_what_changed_and_no_more() {
    let mut world = World::new();
    world.run(create_data("/parent", Some(b"large"))).unwrap();
    world.make(&["/other"]);
    world.state.take_dirty();
    world.make(&["/parent/x"]);
    let batch = world.state.take_dirty();
    let keys = |batch: &RowBatch| -> Vec<(String, bool)> {
        let name =
            |key: &Bytes| format!("{}{}", key[0], String::from_utf8_lossy(key.get(3..).unwrap_or_default()));
        let mut keys: Vec<_> =
            batch.to_pairs().iter().map(|(key, value)| (name(key), value.is_some())).collect();
        keys.sort();
        keys
    };
    let expected = [("1", true), ("4/parent", true), ("4/parent/x", true), ("5/parent/x", true)];
    assert_eq!(keys(&batch), expected.map(|(key, put)| (key.to_owned(), put)));
    assert_eq!((batch.zxid(), batch.digest()), (world.state.zxid(), world.state.digest()));

    world.run(delete("/parent/x")).unwrap();
    world.run(create_mode("/gone-at-once", CreateMode::Ephemeral)).unwrap();
    world.run(delete("/gone-at-once")).unwrap();
    let expected =
        [("1", true), ("4/", true), ("4/parent", true), ("4/parent/x", false), ("5/parent/x", false)];
    assert_eq!(keys(&world.state.take_dirty()), expected.map(|(key, put)| (key.to_owned(), put)));
}

#[test]
fn a_batch_keeps_the_values_it_was_taken_with() {
    let mut world = World::new();
    world.run(create_data("/n", Some(b"old"))).unwrap();
    let batch = world.state.take_dirty();
    world.run(set("/n", b"new", -1)).unwrap();
    let mut store = Store::default();
    store.write(&batch);
    let read = store.read().unwrap();
    assert_eq!(read.get_data("/n", &[]).unwrap().data, Value::Here(b"old"));
}

#[test]
fn a_node_deleted_and_created_anew_with_null_data_loses_its_old_data() {
    let mut world = World::new();
    world.run(create_data("/n", Some(b"old"))).unwrap();
    let mut store = Store::default();
    store.write(&world.state.take_dirty());
    world.run(Op::Multi(vec![delete("/n"), create_data("/n", None)])).unwrap();
    store.write(&world.state.take_dirty());
    assert_eq!(picture(&store.read().unwrap()), picture(&world.state));
}

#[test]
fn the_roots_data_may_be_null() {
    let mut world = World::new();
    world.run(Op::SetData { path: "/".into(), data: None, version: -1 }).unwrap();
    let mut store = Store::default();
    store.write(&world.state.take_dirty());
    assert_eq!(store.read().unwrap().get_data("/", &[]).unwrap().data, Value::Null);
}

fn store() -> Store {
    let mut world = World::new();
    world.make(&["/n"]);
    world.run_as(ALICE, create("/n/x")).unwrap();
    let mut store = Store::default();
    store.write(&world.state.take_dirty());
    store
}

#[test]
fn rows_that_are_not_understood_are_refused_by_name() {
    let refused = |key: &[u8], value: Option<&[u8]>| {
        let mut store = store();
        match value {
            Some(value) => store.0.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
            None => store.0.remove(key),
        };
        store.read().unwrap_err().to_string()
    };
    assert_eq!(refused(b"\x09x", Some(b"")), r#"row b"\tx" is of no known table"#);
    assert_eq!(refused(b"\x01", None), "there is no meta row");
    assert_eq!(
        refused(b"\x01", Some(b"\x02")),
        r#"value of row b"\x01" of table `meta`: record ends inside `zxid`"#
    );
    assert_eq!(
        refused(b"\x01", Some(b"\x03")),
        r#"row b"\x01" of table `meta` has version 3, this member knows 2"#
    );
    assert_eq!(
        refused(b"\x01", Some(b"\x01")),
        r#"value of row b"\x01" of table `meta`: record ends inside `zxid`"#
    );
    assert_eq!(refused(b"\x03x", Some(b"\x01")), r#"key b"\x03x" of table `session` is malformed"#);
    assert_eq!(
        refused(b"\x04\0\x01/n", None),
        r#"row b"\x04\0\x02/n/x" refers to its parent, which is missing"#
    );
    assert_eq!(
        refused(b"\x04\0\x02/n/x", None),
        r#"row b"\x05\0\x02/n/x" refers to its node, which is missing"#
    );
    assert_eq!(refused(b"\x04\0\0/", None), r#"row b"\x04\0\x01/n" refers to the root, which is missing"#);
    assert_eq!(
        refused(b"\x05\0\x07/n", Some(b"\x01")),
        r#"key b"\x05\0\x07/n" of table `data` is malformed"#
    );
    assert!(refused(b"\x05\0\x01/n", Some(b"\x01other")).starts_with("rows have digest"));
    assert_eq!(State::from_rows([]).unwrap_err(), RowError::Absent("meta"));
}

#[test]
fn rows_out_of_order_are_refused() {
    let mut rows: Vec<_> = store().0.into_iter().collect();
    rows.swap(1, 2);
    assert!(matches!(State::from_rows(rows), Err(RowError::Order(_))));
}

#[test]
fn sessions_survive_with_their_attachment() {
    let mut world = World::new();
    let op = Op::AttachSession { timeout_ms: 9000 };
    world.apply(&world.command(ALICE, 0, op)).unwrap();
    let mut store = Store::default();
    store.write(&world.state.take_dirty());
    assert_eq!(store.read().unwrap().session(ALICE), world.state.session(ALICE));
    world.run(Op::CloseSession).unwrap();
    store.write(&world.state.take_dirty());
    assert_eq!(store.read().unwrap().session(ALICE), None);
    assert_eq!(store.read().unwrap().session(SessionId(0x200)), world.state.session(SessionId(0x200)));
}

#[test]
fn the_first_level_leaves_no_trace_in_rows_and_a_level_that_is_not_known_is_refused_by_name() {
    let (mut world, mut store) = (World::new(), Store::default());
    store.write(&world.state.take_dirty());
    let meta = |store: &Store| store.0[&b"\x01"[..]].to_vec();
    assert_eq!((meta(&store)[0], meta(&store).len()), (1, 27), "as versions that know of no levels write it");
    world.run(Op::SetLevel(Level::NEWEST)).unwrap();
    store.write(&world.state.take_dirty());
    assert_eq!((meta(&store)[0], store.read().unwrap().level()), (2, Level::NEWEST));
    let mut unknown = meta(&store);
    *unknown.last_mut().unwrap() += 1;
    store.0.insert(Bytes::from_static(b"\x01"), unknown.into());
    assert_eq!(
        store.read().unwrap_err().to_string(),
        "the state is of feature level 3, this version knows levels 1 to 2: run a version that knows level 3"
    );
}
