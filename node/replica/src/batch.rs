//! Commands on their way into the log, as they were encoded at their origin.
//!
//! Owns the queues of a member's own and forwarded commands, so that neither a follower nor the leader
//! decodes what it only passes on. Must not know what a command does. Invariant: a queue gives its
//! commands in the order it got them, each once.

use crate::io::ConnId;
use crate::wire::{WireError, put_bytes};
use bytes::Bytes;
use pharos_znode::{Batch, Command, EncodedOp};
use std::collections::VecDeque;

/// The connection a command came from; none for a peer's or the member's own.
pub(crate) type Owner = Option<ConnId>;

/// Commands in the order they were given, encoded. To take some costs as much as is taken, however many
/// wait behind them. Positions are counted from the first byte that was ever pushed.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// From `base` on; those before `start` are dead.
    bytes: Vec<u8>,
    base: usize,
    start: usize,
    /// Where each command ends and whose it is.
    ends: VecDeque<(usize, Owner)>,
}

impl Queue {
    pub(crate) fn push(&mut self, command: &Command, owner: Owner) {
        command.encode(&mut self.bytes);
        self.ends.push_back((self.end(), owner));
    }

    /// A command with this operation in the place of its own.
    pub(crate) fn push_with(&mut self, command: &Command, op: &EncodedOp, owner: Owner) {
        command.encode_with(op, &mut self.bytes);
        self.ends.push_back((self.end(), owner));
    }

    /// Appends `count` commands as [`Queue::take_frames`] gave them at their origin.
    ///
    /// # Errors
    /// When the bytes are not that many frames; nothing has been appended then.
    pub(crate) fn push_frames(&mut self, frames: &[u8], count: u32) -> Result<(), WireError> {
        let (mut rest, bytes, ends) = (frames, self.bytes.len(), self.ends.len());
        for _ in 0..count {
            let Some((command, tail)) = split_frame(rest) else {
                self.bytes.truncate(bytes);
                self.ends.truncate(ends);
                return Err(WireError::Truncated { field: "command" });
            };
            self.bytes.extend_from_slice(command);
            self.ends.push_back((self.end(), None));
            rest = tail;
        }
        if rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(rest.len())) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of the commands that wait.
    pub(crate) fn len(&self) -> usize {
        self.end() - self.start
    }

    /// Takes commands from the front, at least one and no more than about `max_bytes`: their owners and
    /// their bytes, each with its length before it.
    pub(crate) fn take_frames(&mut self, max_bytes: usize) -> (Vec<Owner>, Bytes) {
        let count = self.within(max_bytes);
        let mut out = Vec::with_capacity(self.ends[count - 1].0 - self.start + 4 * count);
        let mut start = self.start;
        for &(end, _) in self.ends.range(..count) {
            put_bytes(&mut out, self.between(start, end));
            start = end;
        }
        (self.drop_front(count), out.into())
    }

    /// Takes the payload of the next entry, stamped with the leader's time.
    pub(crate) fn take_batch(&mut self, time_ms: i64, max_bytes: usize) -> Bytes {
        let count = self.within(max_bytes);
        let end = self.ends[count - 1].0;
        let mut out = Vec::with_capacity(end - self.start + 16);
        Batch::put_header(time_ms, count, &mut out);
        out.extend_from_slice(self.between(self.start, end));
        self.drop_front(count);
        out.into()
    }

    /// Moves everything into another queue; returns whose commands they were.
    pub(crate) fn move_to(&mut self, other: &mut Self) -> Vec<Owner> {
        let (from, to) = (self.start, other.end());
        other.bytes.extend_from_slice(self.between(self.start, self.end()));
        other.ends.extend(self.ends.iter().map(|&(end, _)| (to + (end - from), None)));
        let owners = self.ends.iter().map(|(_, owner)| *owner).collect();
        self.clear();
        owners
    }

    /// Drops the commands whose owner is not wanted any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(Owner) -> bool) {
        let mut kept = Self::default();
        let mut start = self.start;
        for &(end, owner) in &self.ends {
            if keep(owner) {
                kept.bytes.extend_from_slice(self.between(start, end));
                kept.ends.push_back((kept.end(), owner));
            }
            start = end;
        }
        *self = kept;
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.base, self.start) = (0, 0);
    }

    fn end(&self) -> usize {
        self.base + self.bytes.len()
    }

    fn between(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[from - self.base..to - self.base]
    }

    fn within(&self, max_bytes: usize) -> usize {
        assert!(!self.is_empty(), "only a queue that holds something is taken from");
        self.ends.partition_point(|&(end, _)| end - self.start <= max_bytes).max(1)
    }

    fn drop_front(&mut self, count: usize) -> Vec<Owner> {
        self.start = self.ends[count - 1].0;
        let owners = self.ends.drain(..count).map(|(_, owner)| owner).collect();
        let dead = self.start - self.base;
        // What lives is moved when it is less than what has died, so that each byte is moved once at most.
        if dead >= self.bytes.len() - dead {
            self.bytes.drain(..dead);
            self.base = self.start;
        }
        owners
    }
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_znode::{ErrorCode, Op, SessionId};

    fn command(request: u64) -> Command {
        let op = Op::Nop { error: ErrorCode::OK };
        let session = SessionId(1);
        Command { origin: 1, boot: 2, request, session, attach: 0, cxid: 0, auth: vec![], zxid: None, op }
    }

    fn requests(payload: &Bytes) -> Vec<u64> {
        Batch::decode(payload).unwrap().commands.iter().map(|c| c.request).collect()
    }

    #[test]
    fn forwarded_commands_reach_the_log_in_their_order() {
        let (mut follower, mut leader) = (Queue::default(), Queue::default());
        leader.push(&command(1), None);
        follower.push(&command(2), Some(ConnId(7)));
        follower.push(&command(3), Some(ConnId(8)));
        let (owners, frames) = follower.take_frames(1 << 20);
        assert_eq!(owners, vec![Some(ConnId(7)), Some(ConnId(8))]);
        leader.push_frames(&frames, 2).unwrap();
        assert_eq!(requests(&leader.take_batch(5, 1 << 20)), vec![1, 2, 3]);
        assert!(leader.is_empty() && follower.is_empty());
    }

    #[test]
    fn a_batch_is_cut_at_whole_commands_and_takes_at_least_one() {
        let mut queue = Queue::default();
        (1..=3).for_each(|r| queue.push(&command(r), None));
        assert_eq!(requests(&queue.take_batch(0, 1)), vec![1]);
        assert_eq!(requests(&queue.take_batch(0, 1 << 20)), vec![2, 3]);
    }

    #[test]
    fn commands_are_taken_in_their_order_while_others_come() {
        let (mut queue, mut taken, mut next) = (Queue::default(), Vec::new(), 1);
        let one = {
            queue.push(&command(0), None);
            let one = queue.len();
            queue.clear();
            one
        };
        for step in 0..200 {
            for _ in 0..step % 5 {
                queue.push(&command(next), Some(ConnId(next)));
                next += 1;
            }
            if !queue.is_empty() {
                taken.extend(requests(&queue.take_batch(0, one * (1 + step % 4))));
            }
            assert_eq!(queue.len(), one * (next as usize - 1 - taken.len()));
        }
        assert!(taken.len() > 300);
        assert!(taken.iter().copied().eq(1..=taken.len() as u64));
    }

    #[test]
    fn frames_that_end_early_append_nothing() {
        let (mut follower, mut leader) = (Queue::default(), Queue::default());
        follower.push(&command(2), None);
        let (_, frames) = follower.take_frames(1 << 20);
        assert!(leader.push_frames(&frames[..frames.len() - 1], 1).is_err());
        assert!(leader.push_frames(&frames, 2).is_err());
        assert!(leader.is_empty());
    }

    #[test]
    fn commands_of_a_connection_that_is_gone_are_dropped_alone() {
        let mut queue = Queue::default();
        (1..=3).for_each(|r| queue.push(&command(r), Some(ConnId(r))));
        queue.retain(|owner| owner != Some(ConnId(2)));
        assert_eq!(requests(&queue.take_batch(0, 1 << 20)), vec![1, 3]);
    }
}
