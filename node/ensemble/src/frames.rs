//! Where a frame begins and ends: of a client, and of a peer.
//!
//! Owns both framings. Must not know sockets or what is in a frame.
//!
//! Invariant: however the bytes arrive in pieces, the same frames come out, and no frame longer than the
//! limit is ever buffered.

use bytes::{Buf, Bytes, BytesMut};

/// `ZooKeeper`'s `jute.maxbuffer`: the longest request of a client.
pub const DEFAULT_MAX_CLIENT_FRAME: usize = 1_048_575;
/// The longest frame between members: a few of the largest entries and their envelope.
pub(crate) const MAX_PEER_FRAME: usize = 64 << 20;
/// The longest greeting: what a stranger may make this member hold.
pub(crate) const MAX_GREETING: usize = 4 << 10;
/// Length and checksum in front of a peer's frame.
pub(crate) const PEER_HEADER: usize = 8;

/// Why a client's bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientFrameError {
    /// Longer than allowed.
    #[error("a frame of {length} bytes is longer than the limit of {limit}")]
    Oversized {
        /// What the client announced.
        length: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A length below zero.
    #[error("a frame of {0} bytes")]
    Negative(i32),
}

/// Cuts a client's bytes into frames. It holds the beginning of a frame that has not arrived whole.
#[derive(Debug)]
pub(crate) struct ClientFrames {
    limit: usize,
    partial: Vec<u8>,
}

impl ClientFrames {
    /// A splitter that accepts frames of at most `limit` bytes.
    #[must_use]
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new() }
    }

    /// Calls `on_frame` for each whole frame, without its length. After an error the connection is of no
    /// more use; frames before the offending one have been handed out.
    pub(crate) fn feed(
        &mut self,
        data: &[u8],
        mut on_frame: impl FnMut(&[u8]),
    ) -> Result<(), ClientFrameError> {
        if self.partial.is_empty() {
            let used = split(self.limit, data, &mut on_frame)?;
            self.partial.extend_from_slice(&data[used..]);
            return Ok(());
        }
        self.partial.extend_from_slice(data);
        let used = split(self.limit, &self.partial, &mut on_frame)?;
        self.partial.drain(..used);
        if self.partial.is_empty() && self.partial.capacity() > 64 << 10 {
            self.partial = Vec::new();
        }
        Ok(())
    }

    /// The bytes held back.
    #[must_use]
    pub(crate) fn pending(&self) -> &[u8] {
        &self.partial
    }
}

fn split(limit: usize, data: &[u8], on_frame: &mut impl FnMut(&[u8])) -> Result<usize, ClientFrameError> {
    let mut used = 0;
    while let Some(head) = data[used..].first_chunk::<4>() {
        let length = i32::from_be_bytes(*head);
        let length = usize::try_from(length).map_err(|_| ClientFrameError::Negative(length))?;
        if length > limit {
            return Err(ClientFrameError::Oversized { length, limit });
        }
        let Some(body) = data[used + 4..].get(..length) else { break };
        on_frame(body);
        used += 4 + length;
    }
    Ok(used)
}

/// Why a peer's bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerFrameError {
    /// Longer than allowed.
    #[error("a frame of {length} bytes is longer than the limit of {limit}")]
    Oversized {
        /// What the peer announced.
        length: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// What arrived is not what was sent.
    #[error("a frame of {0} bytes has a wrong checksum")]
    Checksum(usize),
}

/// The bytes that go in front of a peer's frame.
#[must_use]
pub(crate) fn peer_header(body: &[u8]) -> [u8; PEER_HEADER] {
    let mut header = [0; PEER_HEADER];
    let length = u32::try_from(body.len()).expect("no frame is longer than MAX_PEER_FRAME");
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
    header
}

/// Cuts a peer's bytes into frames that share the buffer they arrived in.
#[derive(Debug, Default)]
pub(crate) struct PeerFrames {
    buffer: BytesMut,
}

impl PeerFrames {
    /// Takes what was read from the socket.
    pub(crate) fn extend(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole frame, of at most `limit` bytes.
    pub(crate) fn next_frame(&mut self, limit: usize) -> Result<Option<Bytes>, PeerFrameError> {
        let Some(head) = self.buffer.first_chunk::<PEER_HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let checksum = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if length > limit {
            return Err(PeerFrameError::Oversized { length, limit });
        }
        if self.buffer.len() < PEER_HEADER + length {
            self.buffer.reserve(PEER_HEADER + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(PEER_HEADER);
        let body = self.buffer.split_to(length).freeze();
        if crc32c::crc32c(&body) != checksum {
            return Err(PeerFrameError::Checksum(length));
        }
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn frames_of(splitter: &mut ClientFrames, data: &[u8]) -> Result<Vec<Vec<u8>>, ClientFrameError> {
        let mut out = Vec::new();
        splitter.feed(data, |frame| out.push(frame.to_vec()))?;
        Ok(out)
    }

    #[test]
    fn a_frame_of_the_limit_passes_and_one_byte_more_is_refused_before_its_body_arrives() {
        let mut splitter = ClientFrames::new(3);
        assert_eq!(frames_of(&mut splitter, &[0, 0, 0, 3, 1, 2, 3]), Ok(vec![vec![1, 2, 3]]));
        let oversized = ClientFrameError::Oversized { length: 4, limit: 3 };
        assert_eq!(frames_of(&mut splitter, &[0, 0, 0, 4]), Err(oversized));
    }

    #[test]
    fn a_negative_length_is_refused() {
        let mut splitter = ClientFrames::new(3);
        assert_eq!(frames_of(&mut splitter, &[255, 255, 255, 254]), Err(ClientFrameError::Negative(-2)));
    }

    #[test]
    fn frames_before_a_bad_one_are_handed_out() {
        let mut splitter = ClientFrames::new(3);
        let mut seen = Vec::new();
        let result = splitter.feed(&[0, 0, 0, 1, 9, 0, 0, 9, 9], |frame| seen.push(frame.to_vec()));
        assert_eq!((seen, result.is_err()), (vec![vec![9]], true));
    }

    #[test]
    fn a_flipped_bit_between_members_is_noticed() {
        let mut frames = PeerFrames::default();
        frames.extend(&peer_header(b"abc"));
        frames.extend(b"abd");
        assert_eq!(frames.next_frame(MAX_PEER_FRAME), Err(PeerFrameError::Checksum(3)));
    }

    #[test]
    fn an_absurd_length_between_members_is_refused() {
        let mut frames = PeerFrames::default();
        frames.extend(&[255; 8]);
        assert_eq!(
            frames.next_frame(9),
            Err(PeerFrameError::Oversized { length: u32::MAX as usize, limit: 9 })
        );
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_client_frames(
            bodies in vec(vec(any::<u8>(), 0..40), 0..12), cuts in vec(1_usize..30, 1..40),
        ) {
            let wire: Vec<u8> = bodies.iter().flat_map(|body| {
                let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
                frame.extend_from_slice(body);
                frame
            }).collect();
            let (mut splitter, mut seen) = (ClientFrames::new(64), Vec::new());
            for chunk in chunks(&wire, &cuts) {
                seen.extend(frames_of(&mut splitter, chunk).unwrap());
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(splitter.pending().is_empty());
        }

        #[test]
        fn any_chunking_gives_the_same_peer_frames(
            bodies in vec(vec(any::<u8>(), 0..40), 0..12), cuts in vec(1_usize..30, 1..40),
        ) {
            let wire: Vec<u8> =
                bodies.iter().flat_map(|body| [&peer_header(body)[..], body].concat()).collect();
            let (mut frames, mut seen) = (PeerFrames::default(), Vec::new());
            for chunk in chunks(&wire, &cuts) {
                frames.extend(chunk);
                while let Some(frame) = frames.next_frame(MAX_PEER_FRAME).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }

    /// Cuts `wire` by the sizes in `cuts`, over and over.
    fn chunks<'a>(mut wire: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut out = Vec::new();
        for &cut in cuts.iter().cycle() {
            if wire.is_empty() {
                break;
            }
            let (head, rest) = wire.split_at(cut.min(wire.len()));
            out.push(head);
            wire = rest;
        }
        out
    }
}
