//! What members say to each other: any bytes are a message or are refused, and a message is written as it was read.

use bytes::Bytes;
use pharos_paxos::Message;
use pharos_replica::{Change, Founding};

// Their crate links RocksDB, which the fuzzer would have to compile anew.
#[allow(dead_code, unreachable_pub, reason = "the rest is for sockets")]
#[path = "../../ensemble/src/frames.rs"]
pub(crate) mod frames;
#[allow(dead_code, unreachable_pub, reason = "the rest is for sockets")]
#[path = "../../ensemble/src/hello.rs"]
mod hello;

use frames::{MAX_GREETING, PeerFrames, peer_header};
use hello::Greeting;

pub(crate) fn run(data: &[u8]) {
    let Some((&pieces, data)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(data);
    stream(data, usize::from(pieces));
    framed(&body, usize::from(pieces));
    greeting(data);
    if let Ok(again) = pharos_replica::reread(body.clone()) {
        assert_eq!(again, body, "a frame is written as it was read");
    }
    let message = Message::decode(data);
    assert_eq!(message, Message::decode_shared(&body), "shared or copied");
    if let Ok(message) = message {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again, data, "a message is written as it was read");
    }
    if let Ok(founding) = Founding::decode(body.clone()) {
        assert_eq!(founding.encode(), data, "a founding is written as it was read");
    }
    let _ = Change::decode(body);
}

/// Bytes that are no frames, in two pieces: nothing longer than the limit is waited for.
fn stream(data: &[u8], pieces: usize) {
    let mut frames = PeerFrames::default();
    let (first, second) = data.split_at(pieces.min(data.len()));
    for piece in [first, second] {
        frames.extend(piece);
        while let Ok(Some(frame)) = frames.next_frame(MAX_GREETING) {
            assert!(frame.len() <= MAX_GREETING);
        }
    }
}

/// A frame arrives whole, however it is cut.
fn framed(body: &Bytes, pieces: usize) {
    let wire = [&peer_header(body)[..], body].concat();
    let mut frames = PeerFrames::default();
    let mut arrived = Vec::new();
    for piece in wire.chunks(pieces.max(1)) {
        frames.extend(piece);
        while let Some(frame) = frames.next_frame(usize::MAX).expect("it is intact") {
            arrived.push(frame);
        }
    }
    assert_eq!(arrived, std::slice::from_ref(body));
}

fn greeting(data: &[u8]) {
    // What follows the fields was added by a later version, and an earlier one does not say whom it means nor what it can
    // do; a refusal is a text that is cut and mended.
    if let Ok(greeting @ Greeting::Hello(_)) = Greeting::decode(data) {
        let again = greeting.encode();
        let old = again.len() - size_of::<u32>() - 3 * size_of::<u16>();
        assert_eq!(again[..old], data[..old], "a greeting is written as it was read");
        assert_eq!(Greeting::decode(&again), Ok(greeting));
    }
}
