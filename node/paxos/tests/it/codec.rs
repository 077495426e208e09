//! Every message survives its bytes, and no bytes break the decoder.

use bytes::Bytes;
use pharos_paxos::{
    Ballot, ConfigNo, DecodeError, Entry, EntryKind, MAX_RUNS, MemberId, Message, Run, Slot, Standing,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn slot() -> impl Strategy<Value = Slot> {
    (0..u64::MAX - 100).prop_map(Slot)
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(c, round, m)| Ballot {
        config: ConfigNo(c),
        round,
        member: MemberId(m),
    })
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    vec((ballot(), slot()).prop_map(|(ballot, last)| Run { ballot, last }), 0..=MAX_RUNS)
}

fn standing() -> impl Strategy<Value = Standing> {
    (ballot(), ballot(), slot(), slot(), slot()).prop_map(|(promised, accepted, end, durable, staged)| {
        Standing { promised, accepted, end, durable, staged }
    })
}

fn entries(first: Slot) -> impl Strategy<Value = Vec<Entry>> {
    let kind = prop_oneof![Just(EntryKind::EpochStart), Just(EntryKind::Commands), Just(EntryKind::Founding)];
    vec((ballot(), kind, vec(any::<u8>(), 0..40)), 0..5).prop_map(move |parts| {
        let entry = |((ballot, kind, payload), slot)| Entry {
            slot: Slot(slot),
            ballot,
            kind,
            payload: Bytes::from(payload),
        };
        parts.into_iter().zip(first.0..).map(entry).collect()
    })
}

fn with_entries(first: fn(Slot) -> Slot) -> impl Strategy<Value = (Slot, Vec<Entry>)> {
    slot().prop_flat_map(move |s| (Just(s), entries(first(s))))
}

fn message() -> impl Strategy<Value = Message> {
    let same = |s: Slot| s;
    prop_oneof![
        (any::<u64>(), any::<u32>(), ballot(), slot()).prop_map(|(nonce, config, accepted, end)| {
            Message::Canvass { config: ConfigNo(config), nonce, accepted, end }
        }),
        (any::<u64>(), any::<bool>(), ballot(), slot(), slot(), any::<bool>(), ballot()).prop_map(
            |(nonce, willing, accepted, end, trimmed, connected, promised)| Message::CanvassReply {
                nonce,
                willing,
                accepted,
                end,
                trimmed,
                connected,
                promised
            }
        ),
        (ballot(), ballot(), slot(), slot(), slot(), ballot(), runs()).prop_map(
            |(ballot, accepted, end, committed, since, by, runs)| Message::Prepare {
                ballot,
                accepted,
                end,
                committed,
                since,
                by,
                runs
            }
        ),
        (ballot(), ballot(), slot(), slot(), slot(), runs(), with_entries(Slot::next)).prop_map(
            |(ballot, accepted, end, committed, trimmed, runs, (base, entries))| Message::Promise {
                ballot,
                accepted,
                end,
                committed,
                trimmed,
                runs,
                base,
                entries
            }
        ),
        (ballot(), slot()).prop_map(|(ballot, from)| Message::Fetch { ballot, from }),
        (ballot(), with_entries(same)).prop_map(|(ballot, (from, entries))| Message::Fetched {
            ballot,
            from,
            entries
        }),
        (ballot(), slot(), slot(), slot(), with_entries(same)).prop_map(
            |(ballot, base, sync_point, commit, (from, entries))| Message::AcceptSync {
                ballot,
                base,
                sync_point,
                from,
                entries,
                commit
            }
        ),
        (ballot(), slot(), with_entries(same))
            .prop_map(|(ballot, commit, (from, entries))| Message::Accept { ballot, from, entries, commit }),
        (ballot(), slot()).prop_map(|(ballot, upto)| Message::Accepted { ballot, upto }),
        (ballot(), any::<bool>(), standing()).prop_map(|(ballot, gap, standing)| Message::Have {
            ballot,
            gap,
            standing
        }),
        (ballot(), any::<u64>(), slot()).prop_map(|(ballot, seq, commit)| Message::Heartbeat {
            ballot,
            seq,
            commit
        }),
        (ballot(), any::<u64>(), standing()).prop_map(|(ballot, seq, standing)| Message::HeartbeatAck {
            ballot,
            seq,
            standing
        }),
        (ballot(), slot()).prop_map(|(ballot, upto)| Message::Commit { ballot, upto }),
        (ballot(), ballot()).prop_map(|(ballot, promised)| Message::Reject { ballot, promised }),
        any::<u64>().prop_map(|id| Message::ReadRequest { id }),
        (any::<u64>(), proptest::option::of(slot())).prop_map(|(id, slot)| Message::ReadReply { id, slot }),
        ballot().prop_map(|ballot| Message::TransferNow { ballot }),
        (slot(), ballot()).prop_map(|(slot, ballot)| Message::Chosen { slot, ballot }),
        ballot().prop_map(|ballot| Message::Lacks { ballot }),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = vec![];
    message.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_message_survives_its_bytes(m in message()) {
        let bytes = encoded(&m);
        prop_assert_eq!(Message::decode_shared(&Bytes::from(bytes.clone())), Ok(m.clone()));
        prop_assert_eq!(Message::decode(&bytes), Ok(m));
    }

    #[test]
    fn no_proper_part_of_a_message_is_one(m in message(), cut: prop::sample::Index) {
        let mut bytes = encoded(&m);
        let cut = cut.index(bytes.len());
        prop_assert!(Message::decode(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert_eq!(Message::decode(&bytes), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn random_bytes_are_refused_or_read_without_panic(tag in 0..20_u8, rest in vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![1, tag];
        bytes.extend(rest);
        if let Ok(m) = Message::decode(&bytes) {
            prop_assert_eq!(encoded(&m), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_without_panic(m in message(), at: prop::sample::Index, to: u8) {
        let mut bytes = encoded(&m);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(m) = Message::decode(&bytes) {
            prop_assert_eq!(encoded(&m), bytes);
        }
    }
}

#[test]
fn a_version_of_the_future_is_refused_by_name() {
    assert_eq!(Message::decode(&[3, 1]), Err(DecodeError::Version(3)));
    assert_eq!(Message::decode(&[]), Err(DecodeError::Short));
    assert_eq!(Message::decode(&[2, 99]), Err(DecodeError::Tag(99)));
}

#[test]
fn a_claimed_length_allocates_nothing() {
    let accept = Message::Accept { ballot: Ballot::ZERO, from: Slot(1), entries: vec![], commit: Slot(0) };
    let mut bytes = encoded(&accept);
    let count = 2 + 16 + 8;
    bytes[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let claimed = u32::MAX as usize;
    assert_eq!(
        Message::decode(&bytes),
        Err(DecodeError::TooMany { what: "the number of entries", len: claimed })
    );
}
