//! Values that only the store has: nothing but the place of their bytes is different.

use std::collections::BTreeMap;

use bytes::Bytes;
use pharos_znode::{Applied, CreateMode, Op, RowBatch, State, StateLoader, Value};
use proptest::prelude::*;

use crate::random::commands;
use crate::world::{World, create_data, create_mode, delete, set, super_user};

type Rows = BTreeMap<Bytes, Bytes>;

const LONG: &[u8] = b"a value that is long enough to be left to the store";

fn write(rows: &mut Rows, batch: &RowBatch) {
    for (key, value) in batch.to_pairs() {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
}

fn paths(state: &State) -> Vec<String> {
    let (mut paths, mut seen) = (vec!["/".to_owned()], 0);
    while seen < paths.len() {
        let path = paths[seen].clone();
        let prefix = if path == "/" { "" } else { &path };
        let names = state.children(&path, &super_user()).unwrap().names;
        paths.extend(names.map(|name| format!("{prefix}/{name}")));
        seen += 1;
    }
    paths
}

fn value<'s>(state: &'s State, path: &str) -> Value<'s> {
    state.get_data(path, &super_user()).unwrap().data
}

/// Whoever keeps all values and whoever keeps some have the same ones, by the rows of the store as they are now.
fn assert_same_values(all: &State, some: &State, rows: &Rows) {
    for path in paths(all) {
        match value(some, &path) {
            Value::Cold(cold) => {
                let row = rows.get(&State::data_row(&path)).expect("the store has a cold value");
                assert_eq!(cold.in_row(row), value(all, &path).here(), "{path}");
                assert_eq!(some.stat(&path).unwrap().data_length as usize, cold.len());
            }
            here => assert_eq!(here, value(all, &path), "{path}"),
        }
    }
}

fn warm_all(state: &mut State, rows: &Rows) {
    for path in paths(state) {
        if let Value::Cold(cold) = value(state, &path) {
            let row = &rows[&State::data_row(&path)];
            state.warm(&path, &cold, cold.in_row(row).unwrap());
            assert!(matches!(value(state, &path), Value::Here(_)));
        }
    }
}

fn loaded(rows: &Rows, keep: u64) -> State {
    let mut state = StateLoader::keeping(keep);
    rows.iter().for_each(|(key, value)| state.row(key, value).unwrap());
    state.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_left_to_the_store_the_same_commands_do_the_same(
        commands in commands(80),
        keep in prop::sample::select(vec![0, 40, u64::MAX]),
        script in prop::collection::vec(0..7_u8, 80),
    ) {
        let (mut all, mut some, mut rows) = (State::new(), State::new(), Rows::new());
        let (mut out_all, mut out_some, mut under_way) = (Applied::new(), Applied::new(), None);
        some.keep_values(keep);
        for ((command, time), step) in commands.iter().zip(script) {
            all.apply(command, *time, &mut out_all);
            some.apply(command, *time, &mut out_some);
            prop_assert_eq!(&out_all, &out_some);
            prop_assert_eq!((some.digest(), some.data_bytes()), (all.digest(), all.data_bytes()));
            prop_assert_eq!(some.digest(), some.recompute_digest());
            match step {
                0 if under_way.is_none() => {
                    let cut = some.take_dirty();
                    prop_assert_eq!(cut.to_pairs(), all.take_dirty().to_pairs());
                    under_way = Some(cut);
                }
                0 | 1 => if let Some(cut) = under_way.take() {
                    write(&mut rows, &cut);
                    some.flushed();
                },
                2 | 3 => while some.cool() {},
                4 => warm_all(&mut some, &rows),
                _ => {}
            }
            assert_same_values(&all, &some, &rows);
            if let Some(cut) = &under_way {
                // Whether the store has written the cut already nobody can tell.
                let mut written = rows.clone();
                write(&mut written, cut);
                assert_same_values(&all, &some, &written);
            }
        }
        if let Some(cut) = under_way {
            write(&mut rows, &cut);
        }
        write(&mut rows, &some.take_dirty());
        some = loaded(&rows, keep);
        prop_assert!(some.values_here() <= keep);
        prop_assert_eq!(some.digest(), all.digest());
        prop_assert!(some.take_dirty().is_empty(), "what was read needs no writing");
        assert_same_values(&all, &some, &rows);
    }
}

/// A state with one long value, durable.
fn world(keep: u64) -> (World, Rows) {
    let (mut world, mut rows) = (World::new(), Rows::new());
    world.state.keep_values(keep);
    world.run(create_data("/n", Some(LONG))).unwrap();
    write(&mut rows, &world.state.take_dirty());
    world.state.flushed();
    (world, rows)
}

fn is_cold(state: &State, path: &str) -> bool {
    matches!(value(state, path), Value::Cold(_))
}

#[test]
fn a_value_is_left_to_the_store_once_it_is_durable_and_not_before() {
    let (mut world, _) = world(0);
    world.run(create_data("/short", Some(b"short"))).unwrap();
    world.run(create_data("/new", Some(LONG))).unwrap();
    while world.state.cool() {}
    assert_eq!((is_cold(&world.state, "/n"), is_cold(&world.state, "/new")), (true, false));
    world.state.take_dirty();
    while world.state.cool() {}
    assert!(!is_cold(&world.state, "/new"), "the cut may be lost");
    world.state.flushed();
    while world.state.cool() {}
    assert!(is_cold(&world.state, "/new") && !is_cold(&world.state, "/short"));
    assert_eq!(world.state.values_here(), 0);
}

#[test]
fn what_was_read_of_late_stays_longer() {
    let (mut world, mut rows) = world(LONG.len() as u64);
    for path in ["/a", "/b"] {
        world.run(create_data(path, Some(LONG))).unwrap();
    }
    write(&mut rows, &world.state.take_dirty());
    world.state.flushed();
    value(&world.state, "/a");
    while world.state.cool() {}
    let cold = ["/n", "/a", "/b"].map(|path| is_cold(&world.state, path));
    assert_eq!(cold, [true, false, true]);
}

#[test]
fn a_multi_that_fails_leaves_a_cold_value_as_it_was() {
    let (mut world, rows) = world(0);
    while world.state.cool() {}
    world.run(Op::Multi(vec![set("/n", b"other", -1), delete("/absent")])).unwrap();
    world
        .run(Op::Multi(vec![delete("/n"), create_mode("/n", CreateMode::Persistent), delete("/absent")]))
        .unwrap();
    assert!(is_cold(&world.state, "/n"));
    let mut after = rows.clone();
    write(&mut after, &world.state.take_dirty());
    assert_eq!(after[&State::data_row("/n")], rows[&State::data_row("/n")]);
    assert_eq!(loaded(&after, u64::MAX).digest(), world.state.digest());
}

#[test]
fn a_row_with_another_value_is_not_taken_for_the_one_that_is_wanted() {
    let (mut world, rows) = world(0);
    while world.state.cool() {}
    let Value::Cold(cold) = value(&world.state, "/n") else { panic!("it is cold") };
    let row = &rows[&State::data_row("/n")];
    assert_eq!(cold.in_row(row), Some(LONG));
    assert_eq!((cold.in_row(&row[..row.len() - 1]), cold.in_row(b"")), (None, None));
    let mut other = row.to_vec();
    other[7] ^= 1;
    assert_eq!(cold.in_row(&other), None);
    world.run(set("/n", b"now it is another", -1)).unwrap();
    world.state.warm("/n", &cold, LONG);
    assert_eq!(value(&world.state, "/n"), Value::Here(b"now it is another"));
}
