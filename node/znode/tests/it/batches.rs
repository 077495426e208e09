//! The log's form of commands.

use bytes::{BufMut, Bytes};
use pharos_znode::{Batch, BatchDecoder, BatchError, Command, Level, Op, Zxid};
use proptest::prelude::*;

use crate::random::command;

fn encoded(batch: &Batch) -> Bytes {
    let mut bytes = Vec::new();
    batch.encode(&mut bytes);
    bytes.into()
}

proptest! {
    #[test]
    fn batches_read_back_as_written(
        time_ms in any::<i64>(),
        mut commands in prop::collection::vec(command(), 0..5),
        zxid in any::<Option<i64>>(),
    ) {
        if let Some(command) = commands.first_mut() {
            command.zxid = zxid.map(Zxid);
        }
        let batch = Batch { time_ms, commands };
        let mut pieces = Vec::new();
        Batch::put_header(time_ms, batch.commands.len(), &mut pieces);
        if batch.raises_to().is_some() {
            pieces[0] = 2;
        }
        batch.commands.iter().for_each(|command| command.encode(&mut pieces));
        prop_assert_eq!(&encoded(&batch)[..], &pieces[..]);
        let mut decoder = BatchDecoder::new(encoded(&batch)).unwrap();
        while !decoder.go_on(&mut 1).unwrap() {}
        prop_assert_eq!(&decoder.finish(), &batch);
        prop_assert_eq!(Batch::decode(&encoded(&batch)), Ok(batch));
    }

    #[test]
    fn damaged_batches_are_read_or_refused(
        commands in prop::collection::vec(command(), 1..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&Batch { time_ms: 1, commands }).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Batch::decode(&bytes.clone().into());
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Batch::decode(&bytes.into()).is_err(), "a cut batch is never whole");
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Batch::decode(&bytes.clone().into());
        let mut versioned = vec![1];
        versioned.put_slice(&bytes);
        let _ = Batch::decode(&versioned.into());
    }
}

#[test]
fn batches_of_unknown_versions_kinds_and_shapes_are_refused_by_name() {
    let empty = encoded(&Batch::default());
    let refused = |bytes: &[u8]| Batch::decode(&Bytes::copy_from_slice(bytes)).unwrap_err();
    assert_eq!(refused(b""), BatchError::Empty);
    assert_eq!(refused(b"\x03rest").to_string(), "batch has version 3, this member knows up to 2");
    assert_eq!(refused(&[&empty[..], b"x"].concat()), BatchError::Trailing(1));
}

#[test]
fn a_batch_that_raises_the_level_is_of_a_version_that_others_refuse() {
    let raise = Command::of_ensemble(Op::SetLevel(Level(7)));
    let (batch, other) = (Batch { time_ms: 1, commands: vec![raise] }, encoded(&Batch::default()));
    assert_eq!((encoded(&batch)[0], other[0]), (2, 1));
    assert_eq!(Batch::level_in(&encoded(&batch)), Ok(Some(Level(7))));
    assert_eq!(Batch::level_in(&other), Ok(None));
    let mut disguised = encoded(&batch).to_vec();
    disguised[0] = 1;
    assert_eq!(Batch::decode(&disguised.into()), Err(BatchError::Kind(15)));
}
