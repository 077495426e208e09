//! Queues between threads, of one worker or of two.
//!
//! Owns: one queue for each origin and thread on the one side, target and thread on the other; the
//! bound in bytes and rounds, which between workers is the credit; the merging of several queues round by round.
//! Must not know: what batches hold, connections.
//! Invariant: a target sees the rounds in order, each complete, its parts ordered by label. So what
//! it sees does not depend on which thread was faster, nor on which worker it runs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pharos_beam::plan::NodeId;
use pharos_window::{SplitState, SplitWatermarks, Watermark};

use super::ROUND_STEPS;
use crate::codec::CodecError;
use crate::column::Batch;
use crate::exchange::link::{DATA_HEAD, Wire, data_frame};
use crate::exchange::message::{Shape, put_message, read_message};
use crate::group::{KeyedBatch, Partials};
use crate::plant;

/// A queue that holds this many bytes takes no further round.
const FULL: usize = 4 << 20;
/// Nor one that holds this many rounds: what waits for a slower origin gains nothing by more, and a
/// barrier would have to wait until the slower one has been there too.
const AHEAD: usize = 8;

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
    /// Such rows, added up.
    Partials(Partials),
    /// Rows.
    Rows(Batch),
    /// Encoded rows.
    Bytes(Vec<u8>, usize),
}

impl Payload {
    fn bytes(&self) -> usize {
        match self {
            Self::Keyed(batch) => batch.bytes(),
            Self::Partials(partials) => partials.bytes(),
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
    queue: Mutex<VecDeque<(usize, Queued)>>,
    /// What was sent and not yet taken out, at the other end too.
    held: Held,
    ends: Ends,
}

/// Bytes and rounds.
#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    rounds: AtomicUsize,
}

impl Held {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.rounds.fetch_add(1, Ordering::AcqRel);
    }

    /// More than was added is the other side's mistake, and must not become room without bound.
    fn remove(&self, bytes: usize, rounds: usize) {
        for (held, gone) in [(&self.bytes, bytes), (&self.rounds, rounds)] {
            let left = |held: usize| Some(held.saturating_sub(gone));
            let _ = held.fetch_update(Ordering::AcqRel, Ordering::Acquire, left);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= FULL || self.rounds.load(Ordering::Acquire) >= AHEAD
    }

    fn is_worth_telling(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= FULL / 4 || self.rounds.load(Ordering::Acquire) >= AHEAD / 2
    }

    fn take(&self) -> (usize, usize) {
        (self.bytes.swap(0, Ordering::AcqRel), self.rounds.swap(0, Ordering::AcqRel))
    }
}

/// What waits in a queue. What came from another worker is read by the thread that it is for.
#[derive(Debug)]
enum Queued {
    Message(Box<Message>),
    Frame(Vec<u8>),
}

/// Where the two sides of a queue are.
#[derive(Debug, Default)]
enum Ends {
    /// Both on this worker.
    #[default]
    Here,
    /// The receiver is on another worker.
    Out { link: Arc<dyn Wire>, id: u32 },
    /// The sender is on another worker.
    In { link: Arc<dyn Wire>, id: u32, shape: Arc<Shape>, owed: Held },
}

impl Channel {
    /// A queue whose receiver is at the other end of `link`, where it has the number `id` too.
    #[must_use]
    pub(crate) fn out(link: Arc<dyn Wire>, id: u32) -> Self {
        Self { ends: Ends::Out { link, id }, ..Self::default() }
    }

    /// A queue whose sender is at the other end of `link`. `shape` says what it sends.
    #[must_use]
    pub(crate) fn incoming(link: Arc<dyn Wire>, id: u32, shape: Arc<Shape>) -> Self {
        Self { ends: Ends::In { link, id, shape, owed: Held::default() }, ..Self::default() }
    }

    /// Whether its other side is at the other end of `link`.
    #[must_use]
    pub(crate) fn is_over(&self, link: &Arc<dyn Wire>) -> bool {
        match &self.ends {
            Ends::Here => false,
            Ends::Out { link: over, .. } | Ends::In { link: over, .. } => {
                std::ptr::addr_eq(Arc::as_ptr(over), Arc::as_ptr(link))
            }
        }
    }

    /// The bytes and rounds that wait for a receiver on this worker; none if it is on another one.
    #[must_use]
    pub(crate) fn waiting(&self) -> Option<(usize, usize)> {
        let held = || (self.held.bytes.load(Ordering::Relaxed), self.held.rounds.load(Ordering::Relaxed));
        (!matches!(self.ends, Ends::Out { .. })).then(held)
    }

    /// Whether another round may be sent. One round more than the bound is always let in, or a
    /// large round could never pass.
    pub(crate) fn has_room(&self) -> bool {
        !self.held.is_full()
    }

    /// Sends a round.
    pub(crate) fn send(&self, message: Message) {
        if let Ends::Out { link, id } = &self.ends {
            let (frame, bytes) = data_frame(*id, |out| put_message(&message, out));
            // Before it leaves: the credit for it may be back at once.
            self.held.add(bytes);
            link.send_data(frame);
            return;
        }
        let bytes = 64 + message.parts.iter().map(|(_, payload)| payload.bytes()).sum::<usize>();
        self.push(bytes, Queued::Message(Box::new(message)));
    }

    /// Takes in what the sender on another worker has sent.
    pub(crate) fn arrive(&self, frame: Vec<u8>) {
        self.push(frame.len(), Queued::Frame(frame));
    }

    /// The receiver on another worker has taken out so much.
    pub(crate) fn credit(&self, bytes: usize, rounds: usize) {
        self.held.remove(bytes, rounds);
    }

    fn push(&self, bytes: usize, what: Queued) {
        self.held.add(bytes);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((bytes, what));
    }

    fn has_round(&self) -> bool {
        !self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn receive(&self) -> Result<Option<Message>, CodecError> {
        let (next, empty) = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            (queue.pop_front(), queue.is_empty())
        };
        let Some((bytes, queued)) = next else { return Ok(None) };
        self.held.remove(bytes, 1);
        match (queued, &self.ends) {
            (Queued::Message(message), _) => Ok(Some(*message)),
            (Queued::Frame(frame), Ends::In { link, id, shape, owed }) => {
                owed.add(bytes);
                if (empty || owed.is_worth_telling()) && !plant::keeps_credit() {
                    let (bytes, rounds) = owed.take();
                    link.send_credit(*id, bytes, rounds);
                }
                read_message(shape, &frame[DATA_HEAD..]).map(Some)
            }
            (Queued::Frame(_), _) => unreachable!("only another worker sends frames"),
        }
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

impl Gathered {
    /// The watermark at the end of it.
    #[must_use]
    pub(crate) fn reached(&self) -> Watermark {
        self.watermarks[ROUND_STEPS - 1].1
    }
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
    ///
    /// # Errors
    /// If another worker has sent what is no message.
    pub(crate) fn gather(&mut self) -> Result<Option<Gathered>, CodecError> {
        let open = |channel: &&(Arc<Channel>, Open)| channel.1 == Open::Yes;
        if !self.channels.iter().filter(open).all(|(channel, _)| channel.has_round()) {
            return Ok(None);
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
            let Some(message) = channel.receive()? else { return Ok(None) };
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
        Ok(round.map(|round| Gathered { round, parts, watermarks, idle, barrier, end }))
    }
}
