//! The state: whatever the log holds, members that apply it agree, also when one of them was restored from its rows.

use crate::compare::{Store, assert_same};
use crate::history::{Step, steps};
use arbitrary::Unstructured;
use bytes::Bytes;
use pharos_znode::{Applied, Batch, State};

pub(crate) fn run(data: &[u8]) {
    let (mut kept, mut restored, mut store) = (State::new(), State::new(), Store::default());
    let mut out = (Applied::new(), Applied::new());
    for step in steps(&mut Unstructured::new(data)) {
        match step {
            Step::EpochStart => {
                let before = kept.zxid();
                kept.epoch_start();
                assert!(kept.zxid() > before, "zxids do not go back");
                restored.epoch_start();
            }
            Step::Restore => {
                store.flush(&mut restored);
                restored = store.load();
            }
            Step::Commands(payload) => {
                let Ok(batch) = Batch::decode(&payload) else { continue };
                let mut again = Vec::new();
                batch.encode(&mut again);
                assert_eq!(Batch::decode(&Bytes::from(again)).as_ref(), Ok(&batch), "a batch reads back");
                for command in &batch.commands {
                    let before = kept.zxid();
                    kept.apply(command, batch.time_ms, &mut out.0);
                    restored.apply(command, batch.time_ms, &mut out.1);
                    assert_eq!(out.0, out.1, "the same answer to {command:?}");
                    assert!(kept.zxid() >= before, "zxids do not go back");
                    let _ = out.0.response();
                }
            }
            Step::Members(_) => {} // Not the tree's.
        }
        assert_eq!(kept.digest(), restored.digest());
    }
    store.flush(&mut restored);
    assert_same(&kept, &restored);
    assert_same(&kept, &store.load());
}
