//! Owns the decision on a Pipeline: what was seen and what is wanted go in; how many workers run, and what to do next,
//! come out. Pure. Must not know Kubernetes, HTTP or a clock.
//!
//! Invariant: a completed run never runs again; a worker is taken away only after its completion was recorded, for
//! suspension, for a newer template, or since fewer are wanted; of those that work together, one at a time for a newer
//! template, and those of another image once the first of the new ones answers.

use std::cmp::Reverse;

use pharos_crds::CompletedRun;
use pharos_crds::names::reason;

use crate::admin::{WorkerState, WorkerStatus};

/// Workers named in a condition; the rest is counted.
const SHOWN: usize = 3;

/// What was seen of a Pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The Ensemble it refers to.
    pub ensemble: EnsembleState,
    /// Whether its StatefulSet exists.
    pub exists: bool,
    /// Whether the StatefulSet controller has seen the latest template.
    pub revision_known: bool,
    /// Its workers' pods, by ordinal.
    pub workers: Vec<Worker>,
    /// The last completed run on record.
    pub completed: Option<CompletedRun>,
}

/// What was seen of an Ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsembleState {
    /// There is none of that name.
    Missing,
    /// It does not serve.
    NotReady,
    /// It serves.
    Ready,
}

/// What was seen of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Name of the pod.
    pub pod: String,
    /// Its place in the StatefulSet, from 0 on.
    pub ordinal: u32,
    /// UID of the pod.
    pub uid: String,
    /// Whether it was made from the latest template.
    pub up_to_date: bool,
    /// Whether its command is that of the latest template, which names the document, the run and the checkpoints.
    pub same_command: bool,
    /// Whether its image is that of the latest template.
    pub same_image: bool,
    /// Whether it was asked to go.
    pub terminating: bool,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
    /// Whether its container has ended before and was started again.
    pub restarted: bool,
    /// Why its container does not run, if it was tried and failed.
    pub crash: Option<String>,
    /// What it says about its pipeline.
    pub status: Option<WorkerStatus>,
}

impl Worker {
    /// Whether it is to be replaced at some time.
    fn is_outdated(&self) -> bool {
        !self.up_to_date && !self.terminating
    }

    fn leads(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.leads)
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// UID of the Pipeline.
    pub uid: String,
    /// Hash of the document.
    pub hash: String,
    /// The run.
    pub run_id: i64,
    /// How many workers, from 1 on.
    pub replicas: u32,
    /// Whether it is to be suspended.
    pub suspend: bool,
}

impl Wanted {
    /// Whether this run is on record as completed.
    #[must_use]
    pub fn is_completed(&self, completed: Option<&CompletedRun>) -> bool {
        completed.is_some_and(|run| {
            run.uid == self.uid && run.document_hash == self.hash && run.run_id == self.run_id
        })
    }

    fn is_run_of(&self, status: &WorkerStatus) -> bool {
        status.is_of(&self.hash, self.run_id)
    }

    /// Whether a worker says this of the wanted run.
    fn hears(&self, worker: &Worker, state: WorkerState) -> bool {
        worker.status.as_ref().is_some_and(|status| self.is_run_of(status) && status.state == state)
    }
}

/// How many workers there are to be; `None` leaves all as it is.
#[must_use]
pub fn workers(wanted: &Wanted, observed: &Observed) -> Option<u32> {
    if wanted.is_completed(observed.completed.as_ref()) || wanted.suspend {
        // Nothing is made only to have no workers.
        return observed.exists.then_some(0);
    }
    match observed.ensemble {
        EnsembleState::Ready => Some(wanted.replicas),
        // Running workers ride out a pause of their Ensemble; new ones wait for it.
        EnsembleState::NotReady | EnsembleState::Missing => None,
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not now, and why.
    Wait {
        /// Reason of the condition.
        reason: &'static str,
        /// What is waited for.
        message: String,
    },
    /// Replace workers that were made from an older template.
    Replace {
        /// Their pods; at least one.
        pods: Vec<Outdated>,
    },
    /// Put the completion on record, and only then take the workers away.
    RecordCompletion,
    /// The run is on record as completed, and its workers leave.
    Leaving,
    /// The run is on record as completed, and no worker is left.
    Completed,
    /// No worker is left, as asked.
    Suspended,
    /// A worker says that the run cannot go on.
    Failed {
        /// What it says.
        message: String,
    },
    /// All workers that are wanted run.
    Running,
}

/// A pod that was made from an older template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// The pod.
    pub pod: String,
    /// Its UID.
    pub uid: String,
}

impl Outdated {
    fn of(worker: &Worker) -> Self {
        Self { pod: worker.pod.clone(), uid: worker.uid.clone() }
    }
}

/// What comes next, after the objects are as `workers` says.
#[must_use]
pub fn plan(wanted: &Wanted, observed: &Observed) -> Step {
    let workers = &observed.workers;
    if wanted.is_completed(observed.completed.as_ref()) {
        return if workers.is_empty() { Step::Completed } else { Step::Leaving };
    }
    if wanted.suspend {
        return match workers.as_slice() {
            [] => Step::Suspended,
            [worker] => wait(reason::SUSPENDING, format!("pod {} leaves", worker.pod)),
            several => wait(reason::SUSPENDING, format!("{} pods leave", several.len())),
        };
    }
    match (observed.ensemble, workers.is_empty()) {
        (EnsembleState::Missing, _) => {
            wait(reason::ENSEMBLE_NOT_FOUND, "the Ensemble of spec.ensembleRef does not exist".into())
        }
        (EnsembleState::NotReady, true) => {
            wait(reason::ENSEMBLE_NOT_READY, "the Ensemble of spec.ensembleRef is not ready".into())
        }
        (EnsembleState::NotReady | EnsembleState::Ready, _) => step_of_workers(wanted, observed),
    }
}

fn step_of_workers(wanted: &Wanted, observed: &Observed) -> Step {
    let workers = &observed.workers;
    // Who has completed the wanted run is heard before templates are judged: an image that changes at that moment must
    // not run it again.
    if workers.iter().any(|worker| wanted.hears(worker, WorkerState::Completed)) {
        return Step::RecordCompletion;
    }
    if !observed.revision_known {
        return wait(
            reason::WORKER_STARTING,
            "the StatefulSet's controller has not seen the latest template".into(),
        );
    }
    let staying: Vec<&Worker> = workers.iter().filter(|worker| worker.ordinal < wanted.replicas).collect();
    let new_answers = staying.iter().any(|worker| worker.up_to_date && answers(wanted, worker));
    let at_once =
        staying.iter().filter(|worker| worker.is_outdated() && !is_missed(wanted, worker, new_answers));
    let at_once: Vec<Outdated> = at_once.map(|worker| Outdated::of(worker)).collect();
    if !at_once.is_empty() {
        return Step::Replace { pods: at_once };
    }
    if let Some(message) = failure(wanted, workers) {
        return Step::Failed { message };
    }
    let troubles: Vec<Trouble> = staying.iter().filter_map(|worker| trouble(wanted, worker)).collect();
    let missing = usize::try_from(wanted.replicas).unwrap_or(usize::MAX).saturating_sub(staying.len());
    // One by one, so that the others go on meanwhile; an outdated worker that does not answer holds nobody up.
    let waits = missing > 0 || troubles.iter().any(|trouble| !trouble.worker.is_outdated());
    match next_outdated(&staying).filter(|_| !waits) {
        Some(worker) => Step::Replace { pods: vec![Outdated::of(worker)] },
        None if troubles.is_empty() && missing == 0 => Step::Running,
        None => incomplete(wanted, troubles, missing),
    }
}

/// Whether it would be missed if it were replaced now. Whoever does no work is not; and workers with different commands
/// (another document, run or place of checkpoints) never work together: to replace them one by one would leave either
/// part alone with all the work. Nor do workers of two builds that exchange rows in different ways; but an image that
/// does not even start should not cost the workers that run, so one worker tries it first (`new_answers`).
fn is_missed(wanted: &Wanted, worker: &Worker, new_answers: bool) -> bool {
    let works = worker.ready || wanted.hears(worker, WorkerState::Running);
    let gave_up = worker.crash.is_some() || wanted.hears(worker, WorkerState::Failed);
    worker.same_command && (worker.same_image || !new_answers) && works && !gave_up
}

/// Whether it is up and finds nothing wrong with what it is to do.
fn answers(wanted: &Wanted, worker: &Worker) -> bool {
    let up = !worker.terminating && !worker.restarted && worker.crash.is_none() && worker.status.is_some();
    up && !wanted.hears(worker, WorkerState::Failed)
}

/// The one that leads comes last: each change of the leader begins a generation anew.
fn next_outdated<'a>(staying: &[&'a Worker]) -> Option<&'a Worker> {
    let outdated = staying.iter().filter(|worker| worker.is_outdated());
    outdated.min_by_key(|worker| (worker.leads(), Reverse(worker.ordinal))).copied()
}

/// What the workers that gave the wanted run up say: the one that leads, if it says anything.
fn failure(wanted: &Wanted, workers: &[Worker]) -> Option<String> {
    let failed = |worker: &&Worker| {
        worker.up_to_date && !worker.terminating && wanted.hears(worker, WorkerState::Failed)
    };
    let message = |worker: &Worker| worker.status.as_ref()?.message.clone().filter(|text| !text.is_empty());
    let mut failed: Vec<&Worker> = workers.iter().filter(failed).collect();
    failed.sort_by_key(|worker| !worker.leads());
    let said = failed.iter().find_map(|worker| message(worker));
    (!failed.is_empty()).then(|| said.unwrap_or_else(|| "the worker gives no reason".into()))
}

/// Why a worker does not do what is wanted. The gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Crashes,
    Leaves,
    Starts,
}

impl Why {
    fn reason(self) -> &'static str {
        match self {
            Self::Crashes => reason::WORKER_CRASHING,
            Self::Leaves => reason::RESTARTING,
            Self::Starts => reason::WORKER_STARTING,
        }
    }
}

struct Trouble<'a> {
    why: Why,
    worker: &'a Worker,
    message: String,
}

fn trouble<'a>(wanted: &Wanted, worker: &'a Worker) -> Option<Trouble<'a>> {
    let pod = &worker.pod;
    let status = worker.status.as_ref().filter(|status| wanted.is_run_of(status));
    let (why, message) = match (&worker.crash, status) {
        _ if worker.terminating => (Why::Leaves, format!("pod {pod} leaves")),
        (Some(crash), _) => (Why::Crashes, format!("pod {pod}: {crash}")),
        (None, Some(status)) if status.state == WorkerState::Running && worker.ready => return None,
        (None, Some(status)) => {
            let said = status.message.as_deref().filter(|message| !message.is_empty());
            (Why::Starts, format!("pod {pod}: {}", said.unwrap_or(status.state.as_str())))
        }
        (None, None) => (Why::Starts, format!("pod {pod} has not answered yet")),
    };
    Some(Trouble { why, worker, message })
}

/// Not all of those wanted run: how many do, and why the others do not.
fn incomplete(wanted: &Wanted, mut troubles: Vec<Trouble>, missing: usize) -> Step {
    troubles.sort_by_key(|trouble| (trouble.why, trouble.worker.ordinal));
    let reason = troubles.first().map_or(reason::WORKER_STARTING, |trouble| trouble.why.reason());
    let mut parts: Vec<String> = Vec::new();
    if wanted.replicas > 1 {
        let absent = troubles.len() + missing;
        let run = usize::try_from(wanted.replicas).unwrap_or(usize::MAX).saturating_sub(absent);
        parts.push(format!("{run} of {} workers run", wanted.replicas));
    }
    parts.extend(troubles.iter().take(SHOWN).map(|trouble| trouble.message.clone()));
    if troubles.len() > SHOWN {
        parts.push(format!("and {} more", troubles.len() - SHOWN));
    }
    match (missing, wanted.replicas) {
        (0, _) => {}
        (_, 1) => parts.push("the worker's pod does not exist yet".into()),
        (1, _) => parts.push("1 pod does not exist yet".into()),
        (_, _) => parts.push(format!("{missing} pods do not exist yet")),
    }
    wait(reason, parts.join("; "))
}

fn wait(reason: &'static str, message: String) -> Step {
    Step::Wait { reason, message }
}

#[cfg(test)]
mod tests;
