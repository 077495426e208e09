//! Queues between threads.
//!
//! Owns: one queue for each origin and thread on the one side, target and thread on the other; the
//! bound in bytes; the merging of several queues round by round.
//! Must not know: what batches hold.
//! Invariant: a target sees the rounds in order, each complete, its parts ordered by label. So what
//! it sees does not depend on which thread was faster.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pharos_beam::plan::NodeId;
use pharos_window::{SplitState, SplitWatermarks, Watermark};

use super::ROUND_STEPS;
use crate::column::Batch;
use crate::group::KeyedBatch;

/// A queue that holds this many bytes takes no further round.
const FULL: usize = 4 << 20;

/// The number of a round. In a round every split gives the same number of records.
pub(crate) type Round = u64;

/// The number of a checkpoint.
pub(crate) type Epoch = u64;

/// Where a part belongs among those of a round. The order is the same whatever the threads: first
/// the origin, then (of a grouping) the window, then the way through the plan, then the split, or
/// the range of key groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    /// The origin.
    pub origin: u32,
    /// The step, for the results of a grouping.
    pub step: u8,
    /// The end of the window, in microseconds.
    pub major: i64,
    /// Its start.
    pub minor: i64,
    /// The way from the origin to the target, where there are several.
    pub branch: u64,
    /// The split or thread.
    pub part: u32,
}

impl Label {
    /// The label of an origin's rows without a window.
    #[must_use]
    pub(crate) fn new(origin: NodeId, step: u8, part: u32) -> Self {
        Self { origin: origin.0, step, major: i64::MIN, minor: 0, branch: 0, part }
    }

    /// The same, further along a way.
    #[must_use]
    pub(crate) fn along(self, branch: u64) -> Self {
        Self { branch: self.branch.saturating_add(branch), ..self }
    }

    /// What is the same in parts that differ only in who worked on them.
    #[must_use]
    pub(crate) fn whole(self) -> Self {
        Self { part: 0, ..self }
    }
}

/// What travels.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Rows for a grouping.
    Keyed(KeyedBatch),
    /// Rows.
    Rows(Batch),
    /// Encoded rows.
    Bytes(Vec<u8>, usize),
}

impl Payload {
    fn bytes(&self) -> usize {
        match self {
            Self::Keyed(batch) => batch.bytes(),
            Self::Rows(batch) => batch.bytes(),
            Self::Bytes(bytes, _) => bytes.len(),
        }
    }
}

/// What one origin on one thread has for one target on one thread in one round.
#[derive(Debug)]
pub(crate) struct Message {
    /// The round.
    pub round: Round,
    /// How far the origin's time is after each step.
    pub states: [SplitState; ROUND_STEPS],
    /// Whether nothing follows.
    pub end: bool,
    /// The checkpoint to take at the end of it.
    pub barrier: Option<Epoch>,
    /// The rows.
    pub parts: Vec<(Label, Payload)>,
}

/// One queue, with one thread on each side.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    queue: Mutex<VecDeque<(usize, Message)>>,
    bytes: AtomicUsize,
}

impl Channel {
    /// Whether another round may be sent. One round more than the bound is always let in, or a
    /// large round could never pass.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < FULL
    }

    /// Sends a round.
    pub(crate) fn send(&self, message: Message) {
        let bytes = 64 + message.parts.iter().map(|(_, payload)| payload.bytes()).sum::<usize>();
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((bytes, message));
    }

    fn has_round(&self) -> bool {
        !self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn receive(&self) -> Option<Message> {
        let (bytes, message) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        Some(message)
    }
}

/// The queues into one target on one thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    channels: Vec<(Arc<Channel>, Open)>,
    watermarks: SplitWatermarks,
    watermark: Watermark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Yes,
    No,
}

/// A round, complete.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Its number.
    pub round: Round,
    /// The rows, in order.
    pub parts: Vec<(Label, Payload)>,
    /// For each step the watermark during it and the one after it.
    pub watermarks: [(Watermark, Watermark); ROUND_STEPS],
    /// Whether all origins are idle.
    pub idle: bool,
    /// The checkpoint to take now.
    pub barrier: Option<Epoch>,
    /// Whether nothing follows.
    pub end: bool,
}

impl Inbox {
    /// An inbox that goes on from `watermark`.
    #[must_use]
    pub(crate) fn new(channels: Vec<Arc<Channel>>, watermark: Watermark) -> Self {
        let watermarks = SplitWatermarks::new(channels.len());
        Self {
            channels: channels.into_iter().map(|channel| (channel, Open::Yes)).collect(),
            watermarks,
            watermark,
        }
    }

    /// The next round, once every origin that has not ended has sent it.
    pub(crate) fn gather(&mut self) -> Option<Gathered> {
        let open = |channel: &&(Arc<Channel>, Open)| channel.1 == Open::Yes;
        if !self.channels.iter().filter(open).all(|(channel, _)| channel.has_round()) {
            return None;
        }
        let mut parts = Vec::new();
        let mut states = Vec::with_capacity(self.channels.len());
        let mut round = None;
        let mut barrier = None;
        let mut idle = true;
        for (position, (channel, open)) in self.channels.iter_mut().enumerate() {
            if *open == Open::No {
                continue;
            }
            let message = channel.receive()?;
            assert!(round.is_none_or(|round| round == message.round), "rounds arrive in step");
            round = Some(message.round);
            barrier = barrier.or(message.barrier);
            idle &= message.states.iter().all(|state| *state == SplitState::Idle);
            states.push((position, message.states));
            parts.extend(message.parts);
            if message.end {
                *open = Open::No;
            }
        }
        parts.sort_by_key(|(label, _)| *label);
        let watermarks = std::array::from_fn(|step| {
            states.iter().for_each(|(position, states)| self.watermarks.update(*position, states[step]));
            let before = self.watermark;
            self.watermark = before.max(self.watermarks.combined());
            (before, self.watermark)
        });
        let end = self.channels.iter().all(|(_, open)| *open == Open::No);
        Some(Gathered { round: round?, parts, watermarks, idle, barrier, end })
    }
}
