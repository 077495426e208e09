//! What a connection is still to be sent.
//!
//! Owns the order of answers when some of their values come from the store later. Must not know what is in a frame.
//! Invariants: frames leave in the order in which they were put here, each whole; a frame with a value that is missing
//! holds back itself and all that follows.

use bytes::BytesMut;
use std::collections::VecDeque;

/// Frames in their order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// They may leave.
    ready: BytesMut,
    /// From the first frame on that lacks a value; zeros stand in for what is missing.
    held: BytesMut,
    /// Bytes that were taken from the front of `held` so far.
    base: usize,
    gaps: VecDeque<Gap>,
}

/// A value that is missing or was.
#[derive(Debug)]
struct Gap {
    read: u64,
    /// Where its frame begins, counted as `base` is.
    frame: usize,
    at: usize,
    len: usize,
    filled: bool,
}

impl Outbox {
    /// Where the next frame is written.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        if self.gaps.is_empty() { &mut self.ready } else { &mut self.held }
    }

    /// Adds a frame in which the read values are missing: for each its number, where it belongs in the frame, and how
    /// long it is.
    pub(crate) fn put_gapped(&mut self, frame: &[u8], gaps: impl IntoIterator<Item = (u64, usize, usize)>) {
        let start = self.base + self.held.len();
        self.held.extend_from_slice(frame);
        for (read, at, len) in gaps {
            assert!(at + len <= frame.len(), "a gap lies in its frame");
            self.gaps.push_back(Gap { read, frame: start, at: start + at, len, filled: false });
        }
    }

    /// Fills a gap. Nothing happens if there is no such gap.
    pub(crate) fn fill(&mut self, read: u64, value: &[u8]) {
        let Some(gap) = self.gaps.iter_mut().find(|gap| gap.read == read) else { return };
        let at = gap.at - self.base;
        gap.filled = true;
        self.held[at..at + gap.len].copy_from_slice(value);
        while self.gaps.front().is_some_and(|gap| gap.filled) {
            self.gaps.pop_front();
        }
        let upto = self.gaps.front().map_or(self.base + self.held.len(), |gap| gap.frame);
        let free = upto - self.base;
        if self.ready.is_empty() {
            self.ready = self.held.split_to(free);
        } else {
            self.ready.extend_from_slice(&self.held.split_to(free));
        }
        self.base += free;
    }

    /// How many values are missing or wait behind one that is.
    pub(crate) fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.held.len()
    }

    /// Whether something may leave.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What may leave, to be taken from the front.
    pub(crate) fn ready(&mut self) -> &mut BytesMut {
        &mut self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(out: &mut Outbox) -> String {
        String::from_utf8(out.ready().split().to_vec()).unwrap()
    }

    #[test]
    fn what_follows_a_gap_waits_for_it_and_no_more() {
        let mut out = Outbox::default();
        out.tail().extend_from_slice(b"one;");
        out.put_gapped(b"<00>;", [(1, 1, 2)]);
        out.tail().extend_from_slice(b"two;");
        out.put_gapped(b"<000>;", [(2, 1, 3)]);
        out.tail().extend_from_slice(b"three;");
        assert_eq!((taken(&mut out), out.gaps(), out.len()), ("one;".into(), 2, 21));
        out.fill(1, b"ab");
        assert_eq!((taken(&mut out), out.gaps()), ("<ab>;two;".into(), 1));
        out.fill(1, b"no");
        out.fill(2, b"cde");
        assert_eq!((taken(&mut out), out.gaps(), out.len()), ("<cde>;three;".into(), 0, 0));
        out.tail().extend_from_slice(b"four;");
        assert_eq!(taken(&mut out), "four;");
    }

    #[test]
    fn a_frame_leaves_whole_whatever_comes_first() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [2, 1, 3]] {
            let mut out = Outbox::default();
            out.put_gapped(b"<0,0>;", [(1, 1, 1), (2, 3, 1)]);
            out.put_gapped(b"<0>;", [(3, 1, 1)]);
            let mut seen = String::new();
            for read in order {
                out.fill(read, &[b'0' + read as u8]);
                let more = taken(&mut out);
                assert!(more.is_empty() || more.ends_with(';'), "{more}");
                seen += &more;
            }
            assert_eq!(seen, "<1,2>;<3>;");
        }
    }
}
