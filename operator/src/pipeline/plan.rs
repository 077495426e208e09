//! Owns the decision on a Pipeline: what was seen and what is wanted go in; whether a worker runs, and what to do next,
//! come out. Pure. Must not know Kubernetes, HTTP or a clock.
//!
//! Invariant: a completed run never runs again; a worker is taken away only after its completion was recorded, for
//! suspension, or for a newer template.

use pharos_crds::CompletedRun;
use pharos_crds::names::reason;

use crate::admin::{WorkerState, WorkerStatus};

/// What was seen of a Pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The Ensemble it refers to.
    pub ensemble: EnsembleState,
    /// Whether its StatefulSet exists.
    pub exists: bool,
    /// Whether the StatefulSet controller has seen the latest template.
    pub revision_known: bool,
    /// Its worker's pod.
    pub worker: Option<Worker>,
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
    /// UID of the pod.
    pub uid: String,
    /// Whether it was made from the latest template.
    pub up_to_date: bool,
    /// Whether it was asked to go.
    pub terminating: bool,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
    /// Why its container does not run, if it was tried and failed.
    pub crash: Option<String>,
    /// What it says about its pipeline.
    pub status: Option<WorkerStatus>,
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
        status.document_hash.as_deref() == Some(&self.hash) && status.run_id == Some(self.run_id)
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
        EnsembleState::Ready => Some(1),
        // A running worker rides out a pause of its Ensemble; a new one waits for it.
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
    /// Replace a worker that was made from an older template.
    Replace {
        /// The pod.
        pod: String,
        /// Its UID.
        uid: String,
    },
    /// Put the completion on record, and only then take the worker away.
    RecordCompletion,
    /// The run is on record as completed, and its worker leaves.
    Leaving,
    /// The run is on record as completed, and no worker is left.
    Completed,
    /// No worker is left, as asked.
    Suspended,
    /// The worker says that it cannot go on.
    Failed {
        /// What it says.
        message: String,
    },
    /// It runs.
    Running,
}

/// What comes next, after the objects are as `workers` says.
#[must_use]
pub fn plan(wanted: &Wanted, observed: &Observed) -> Step {
    if wanted.is_completed(observed.completed.as_ref()) {
        return if observed.worker.is_some() { Step::Leaving } else { Step::Completed };
    }
    if wanted.suspend {
        return observed.worker.as_ref().map_or(Step::Suspended, |worker| Step::Wait {
            reason: reason::SUSPENDING,
            message: format!("pod {} leaves", worker.pod),
        });
    }
    match (observed.ensemble, &observed.worker) {
        (EnsembleState::Missing, _) => {
            wait(reason::ENSEMBLE_NOT_FOUND, "the Ensemble of spec.ensembleRef does not exist".into())
        }
        (EnsembleState::NotReady, None) => {
            wait(reason::ENSEMBLE_NOT_READY, "the Ensemble of spec.ensembleRef is not ready".into())
        }
        (_, None) => wait(reason::WORKER_STARTING, "the worker's pod does not exist yet".into()),
        (_, Some(worker)) => worker_step(wanted, observed, worker),
    }
}

fn worker_step(wanted: &Wanted, observed: &Observed, worker: &Worker) -> Step {
    if worker.terminating {
        return wait(reason::RESTARTING, format!("pod {} leaves", worker.pod));
    }
    if !observed.revision_known {
        return wait(
            reason::WORKER_STARTING,
            "the StatefulSet's controller has not seen the latest template".into(),
        );
    }
    // A worker that has completed the wanted run is heard before its template is judged: an image that changes at that
    // moment must not run it again.
    let status = worker.status.as_ref().filter(|status| wanted.is_run_of(status));
    if status.is_some_and(|status| status.state == WorkerState::Completed) {
        return Step::RecordCompletion;
    }
    if !worker.up_to_date {
        return Step::Replace { pod: worker.pod.clone(), uid: worker.uid.clone() };
    }
    if let Some(crash) = &worker.crash {
        return wait(reason::WORKER_CRASHING, format!("pod {}: {crash}", worker.pod));
    }
    match status.map(|status| (status.state, status.message.clone())) {
        Some((WorkerState::Failed, message)) => {
            Step::Failed { message: message.unwrap_or_else(|| "the worker gives no reason".into()) }
        }
        Some((WorkerState::Running, _)) if worker.ready => Step::Running,
        Some((state, message)) => {
            let detail =
                message.filter(|message| !message.is_empty()).unwrap_or_else(|| state.as_str().to_owned());
            wait(reason::WORKER_STARTING, format!("pod {}: {detail}", worker.pod))
        }
        None => wait(reason::WORKER_STARTING, format!("pod {} has not answered yet", worker.pod)),
    }
}

fn wait(reason: &'static str, message: String) -> Step {
    Step::Wait { reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted { uid: "u".into(), hash: "h".into(), run_id: 1, suspend: false }
    }

    fn says(state: WorkerState) -> WorkerStatus {
        WorkerStatus {
            state,
            epoch: None,
            watermark: None,
            late_dropped: None,
            windows_closed: None,
            message: Some("said".into()),
            document_hash: Some("h".into()),
            run_id: Some(1),
        }
    }

    fn with(state: WorkerState) -> Observed {
        let worker = Worker {
            pod: "p".into(),
            uid: "w".into(),
            up_to_date: true,
            terminating: false,
            ready: true,
            crash: None,
            status: Some(says(state)),
        };
        Observed {
            ensemble: EnsembleState::Ready,
            exists: true,
            revision_known: true,
            worker: Some(worker),
            completed: None,
        }
    }

    fn completed(run_id: i64, hash: &str) -> CompletedRun {
        CompletedRun { uid: "u".into(), document_hash: hash.into(), run_id, at: String::new() }
    }

    #[test]
    fn completion_is_put_on_record_before_the_worker_is_taken_away() {
        let mut observed = with(WorkerState::Completed);
        assert_eq!(
            (workers(&wanted(), &observed), plan(&wanted(), &observed)),
            (Some(1), Step::RecordCompletion)
        );
        observed.completed = Some(completed(1, "h"));
        assert_eq!((workers(&wanted(), &observed), plan(&wanted(), &observed)), (Some(0), Step::Leaving));
        observed.worker = None;
        assert_eq!(plan(&wanted(), &observed), Step::Completed);
    }

    #[test]
    fn a_new_image_does_not_run_a_completed_pipeline_again_but_a_new_run_or_document_does() {
        let mut observed = with(WorkerState::Completed);
        observed.worker.as_mut().expect("a worker").up_to_date = false;
        assert_eq!(plan(&wanted(), &observed), Step::RecordCompletion);
        observed.worker = None;
        observed.completed = Some(completed(1, "h"));
        assert_eq!(workers(&wanted(), &observed), Some(0));
        assert_eq!(workers(&Wanted { run_id: 2, ..wanted() }, &observed), Some(1));
        assert_eq!(workers(&Wanted { hash: "other".into(), ..wanted() }, &observed), Some(1));
        assert_eq!(workers(&Wanted { uid: "again".into(), ..wanted() }, &observed), Some(1));
    }

    #[test]
    fn the_completion_of_another_run_is_not_taken_for_this_one() {
        let observed = with(WorkerState::Completed);
        let step = plan(&Wanted { run_id: 2, ..wanted() }, &observed);
        assert!(matches!(step, Step::Wait { reason: reason::WORKER_STARTING, .. }), "{step:?}");
    }

    #[test]
    fn a_missing_ensemble_starts_no_worker_and_a_pause_of_it_stops_none() {
        let mut observed = with(WorkerState::Running);
        observed.ensemble = EnsembleState::NotReady;
        assert_eq!((workers(&wanted(), &observed), plan(&wanted(), &observed)), (None, Step::Running));
        observed.worker = None;
        observed.ensemble = EnsembleState::Missing;
        assert_eq!(workers(&wanted(), &observed), None);
        let step = plan(&wanted(), &observed);
        assert!(matches!(step, Step::Wait { reason: reason::ENSEMBLE_NOT_FOUND, .. }), "{step:?}");
    }

    #[test]
    fn suspension_takes_the_worker_away_and_makes_nothing() {
        let suspend = Wanted { suspend: true, ..wanted() };
        let mut observed = with(WorkerState::Running);
        assert_eq!(workers(&suspend, &observed), Some(0));
        observed.worker = None;
        assert_eq!(plan(&suspend, &observed), Step::Suspended);
        observed.exists = false;
        assert_eq!(workers(&suspend, &observed), None);
    }

    #[test]
    fn a_failed_worker_is_quoted_and_an_outdated_one_replaced() {
        let mut observed = with(WorkerState::Failed);
        assert_eq!(plan(&wanted(), &observed), Step::Failed { message: "said".into() });
        observed.worker.as_mut().expect("a worker").up_to_date = false;
        assert_eq!(plan(&wanted(), &observed), Step::Replace { pod: "p".into(), uid: "w".into() });
    }
}
