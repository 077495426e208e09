//! A run by one worker alone: from a plan to a report.
//!
//! Owns: taking the run over, and what a process finds that does.
//! Must not know: formats, the Ensemble's protocol, other workers.
//! Invariant: a run that is done is never run again.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pharos_beam::plan::Plan;
use pharos_beam::state::TakeOver;

use crate::assemble::Restored;
use crate::assignment::Assignment;
use crate::checkpoint::Blobs;
use crate::checkpoint::keeper::{Keeper, restore};
use crate::control::Outcome;
use crate::coordination::{Coordination, CoordinationError, Pointer};
use crate::driver::{Driver, Surroundings};
use crate::engine::commit;
use crate::error::StreamError;
use crate::event::{Event, Events, Listener, Report};
use crate::exec::channel::Epoch;
use crate::graph::Graph;
use crate::io::Connectors;
use crate::key::KeyGroup;
use crate::plant;
use crate::spill::{StateBounds, StateMemory};

/// How checkpoints are taken.
#[derive(Clone)]
pub struct CheckpointOptions {
    /// From the end of one to the start of the next.
    pub interval: Duration,
    /// Where their bytes are kept.
    pub blobs: Arc<dyn Blobs>,
}

/// What of a run outlives its process.
#[derive(Clone)]
pub struct Durability {
    /// Who says that a checkpoint counts and that the run is done.
    pub coordination: Arc<Mutex<dyn Coordination>>,
    /// Checkpoints; without them a run that dies starts from the beginning.
    pub checkpoints: Option<CheckpointOptions>,
}

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// How many threads; results do not depend on it.
    pub threads: usize,
    /// The name of the run, for files in the making.
    pub run: String,
    /// Who hears of progress.
    pub listener: Listener,
    /// How much memory keyed state may take, and where it goes beyond that; none: all stays in memory.
    pub state: Option<StateMemory>,
    /// What outlives the process; none: nothing but the outputs.
    pub durability: Option<Durability>,
    /// Set from outside to end the run early. Its last checkpoint stays.
    pub stop: Arc<AtomicBool>,
}

/// Runs a plan to its end, from its last checkpoint if it has one.
///
/// # Errors
/// If it cannot be run to its end.
pub fn run(
    plan: &Plan,
    connectors: &Arc<dyn Connectors>,
    options: &RunOptions,
) -> Result<Report, StreamError> {
    let events = Events::new(Arc::clone(&options.listener));
    let (sender, news) = channel();
    let durability = options.durability.as_ref();
    let checkpoints = durability.and_then(|durability| durability.checkpoints.clone());
    let state = options.state.as_ref().map(StateBounds::new);
    let around = Surroundings {
        connectors: Arc::clone(connectors),
        events: events.clone(),
        stop: Arc::clone(&options.stop),
        part: options.run.clone(),
        run: options.run.clone(),
        state,
        checkpoints: checkpoints.map(|options| (options.blobs, options.interval)),
        coordination: durability.map(|durability| Arc::clone(&durability.coordination)),
        sender,
        generation: Arc::default(),
    };
    let me = Assignment::alone(0, options.threads).workers.remove(0);
    let mut driver = Driver::on_machine(around, me, plan, true);
    match driver.drive(&news)? {
        Outcome::Completed => Ok(Report { already_completed: driver.found_completed(), ..events.report() }),
        Outcome::Stopped => Err(StreamError::Stopped),
    }
}

/// What a process that takes over has to do.
pub(crate) enum Found {
    /// Nothing: the run is noted as done.
    Completed,
    /// Nothing more: its input had ended, and now its outputs are visible.
    Ended,
    /// Run.
    Start(Box<Taken>),
}

/// A run that was taken over.
pub(crate) struct Taken {
    /// The generation.
    pub generation: u64,
    /// The checkpoint to go on from.
    pub latest: Option<Pointer>,
    /// What its coordinator needs.
    pub lead: Lead,
}

impl Taken {
    /// A run that nothing outlives.
    #[must_use]
    pub(crate) fn without_ensemble() -> Self {
        Self { generation: 0, latest: None, lead: Lead { keeper: None, next: 1 } }
    }
}

/// What the coordinator has beside what every worker has.
pub(crate) struct Lead {
    /// The manifests, if checkpoints are taken.
    pub keeper: Option<Keeper>,
    /// The number of the next checkpoint.
    pub next: Epoch,
}

fn coordination(error: CoordinationError) -> StreamError {
    match error {
        CoordinationError::Fenced => StreamError::Fenced,
        other => StreamError::Checkpoint(other.to_string()),
    }
}

/// One step with the Ensemble.
pub(crate) fn with<T>(
    of: &Arc<Mutex<dyn Coordination>>,
    step: impl FnOnce(&mut dyn Coordination) -> Result<T, CoordinationError>,
) -> Result<T, StreamError> {
    step(&mut *of.lock().unwrap_or_else(PoisonError::into_inner)).map_err(coordination)
}

/// Takes a run over from whoever led it.
///
/// # Errors
/// If the Ensemble or the store does not answer, or what they hold cannot be read.
pub(crate) fn take_over(
    plan: &Plan,
    graph: &Graph,
    around: &Surroundings,
    ensemble: &Arc<Mutex<dyn Coordination>>,
) -> Result<Found, StreamError> {
    let tenure = with(ensemble, |ensemble| ensemble.take_over())?;
    if tenure.completed {
        return Ok(Found::Completed);
    }
    let mut lead = Lead { keeper: None, next: 1 };
    if let Some((blobs, _)) = &around.checkpoints {
        let (generation, latest) = (tenure.generation, tenure.latest.as_ref());
        let keeper = Keeper::open(Arc::clone(blobs), plan, &around.part, generation, latest)?;
        keeper.sweep()?;
        if let Some(last) = keeper.last() {
            let (epoch, ended) = (last.epoch, last.round.is_none());
            around.events.send(Event::Restored { epoch });
            if let Some(TakeOver { kept, begun }) = keeper.taken_over() {
                around.events.send(Event::TakenOver { kept, begun });
            }
            if ended {
                // Who led died after the input had ended: what the sinks prepared is committed again.
                if !plant::notes_without_commit() {
                    commit(graph, &*around.connectors, &around.events, &last.sinks)?;
                }
                with(ensemble, |ensemble| ensemble.complete())?;
                return Ok(Found::Ended);
            }
            lead.next = epoch + 1;
        }
        lead.keeper = Some(keeper);
    }
    // Without checkpoints nothing is gone on from.
    let latest = tenure.latest.filter(|_| around.checkpoints.is_some());
    Ok(Found::Start(Box::new(Taken { generation: tenure.generation, latest, lead })))
}

/// The state of a checkpoint, as far as a worker needs it.
///
/// # Errors
/// If a piece of it is missing or damaged.
pub(crate) fn restored(
    plan: &Plan,
    around: &Surroundings,
    assignment: &Assignment,
    latest: Option<&Pointer>,
) -> Result<Restored, StreamError> {
    match (&around.checkpoints, latest) {
        (Some((blobs, _)), Some(pointer)) => {
            let groups = KeyGroup::of_owners(&assignment.here(), assignment.threads());
            let disk = around.state.as_ref().map(|state| &state.disk);
            restore(&**blobs, plan, &around.part, pointer, &groups, disk)
        }
        _ => Ok(Restored::default()),
    }
}
