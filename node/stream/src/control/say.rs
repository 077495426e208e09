//! What workers and their coordinator say to each other.
//!
//! Owns: the messages, in JSON, of version 3 of the exchange.
//! Must not know: how they travel, what is done about them.
//! Invariant: each travels over the connection of one generation and is of no meaning in another.

use std::collections::BTreeMap;

use pharos_beam::plan::Plan;
use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;
use crate::checkpoint::CheckpointSize;
use crate::checkpoint::coordinator::WorkerId;
use crate::checkpoint::part::Part;
use crate::coordination::Pointer;
use crate::exec::channel::{Epoch, Round};
use crate::io::Fault;

/// What tells the files of each read from others.
pub(crate) type Inputs = BTreeMap<String, u32>;

/// What workers and their coordinator say to each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Say {
    /// The coordinator: this is to be done.
    Start(Box<Start>),
    /// The worker can begin.
    Ready,
    /// The coordinator: all can begin.
    Go,
    /// The coordinator: begin no round until it is known where the barrier of this checkpoint stands.
    Hold(Epoch),
    /// The worker's sources are held, and have begun this round.
    Held(Epoch, Option<Round>),
    /// The coordinator: the barrier stands at the end of this round.
    Place(Epoch, Round),
    /// What the worker kept at a barrier.
    Kept(Epoch, Round, Box<Part>),
    /// What the worker left at its end.
    Ended(Box<Part>),
    /// The coordinator: this checkpoint counts; it took so many milliseconds, and is of this size.
    Counts(Epoch, u64, CheckpointSize),
    /// The coordinator: the run is done.
    Completed,
    /// It cannot go on.
    Failed(Fault, String),
    /// The worker is to stop, and wants to hand over.
    Leaving,
    /// The worker has lost another, and why.
    Missing(WorkerId, String),
}

/// What a worker needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Who takes part, and the place of the one who hears this.
    pub assignment: Assignment,
    /// The plan: that of the coordinator counts.
    pub plan: Plan,
    /// The checkpoint to go on from.
    pub latest: Option<Pointer>,
    /// What tells the files of each read from others; nothing if the worker is alone.
    pub inputs: Option<Inputs>,
}
