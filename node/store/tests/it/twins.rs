//! Both stores do the same, whatever is asked of them.

use crate::suite::{Kind, rows};
use bytes::Bytes;
use pharos_store::{MemStore, RocksStore, Store, WriteBatch};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(WriteBatch),
    Replace(Vec<(Bytes, Bytes)>),
    Flush,
    Crash,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0_u8..3, 0..4).prop_map(Bytes::from)
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let batch = (prop::collection::vec((key(), value.clone()), 0..6), prop::collection::vec(key(), 0..3));
    prop_oneof![
        6 => batch.prop_map(|(puts, deletes)| Step::Write(WriteBatch { puts, deletes })),
        1 => prop::collection::btree_map(key(), value, 0..6).prop_map(|rows| Step::Replace(rows.into_iter().collect())),
        2 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_hold_the_same_after_any_steps(steps in prop::collection::vec(step(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut mem, mut rocks) = (MemStore::new(), RocksStore::at(dir.path()));
        let mut applied = 0;
        for step in steps {
            match step {
                Step::Write(batch) => {
                    applied += 1;
                    mem.write(batch.clone(), applied).unwrap();
                    rocks.write(batch, applied).unwrap();
                }
                Step::Replace(all) => {
                    applied += 1;
                    let all = WriteBatch { puts: all, deletes: Vec::new() };
                    mem.clear().and_then(|()| mem.write(all.clone(), applied)).unwrap();
                    rocks.clear().and_then(|()| rocks.write(all, applied)).unwrap();
                }
                Step::Flush => prop_assert_eq!(mem.flush().unwrap(), rocks.flush().unwrap()),
                Step::Crash => {
                    mem.crash();
                    rocks = rocks.crashed(dir.path());
                    applied = mem.applied();
                }
            }
            prop_assert_eq!(rows(&mem), rows(&rocks));
            prop_assert_eq!((mem.applied(), mem.flushed()), (rocks.applied(), rocks.flushed()));
        }
    }
}
