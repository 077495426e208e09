//! Owns the status of a Pipeline: what was seen and decided, in the words of the API. Pure. Must not know how it is
//! written.
//!
//! Invariant: every condition is there after the first visit; `Completed` and `Suspended` are reasons of `Ready=True`,
//! or tools that wait for it would wait for ever; a completed run stays on record.

use jiff::Timestamp;
use pharos_crds::names::{condition, reason};
use pharos_crds::{CompletedRun, PipelineStatus};

use super::plan::{EnsembleState, Observed, Step};
use super::validate::Validated;
use crate::admin::WorkerStatus;
use crate::conditions::{Truth, Verdict, is_true, merge};
use crate::ensemble::status::Blocked;

/// The status when a visit ended before anything could be planned: what was known stays, the conditions say why.
#[must_use]
pub fn blocked(
    old: &PipelineStatus,
    blocked: &Blocked,
    generation: Option<i64>,
    now: Timestamp,
) -> PipelineStatus {
    let invalid = matches!(blocked.reason, reason::INVALID_PIPELINE | reason::INVALID_SPEC);
    let valid = match blocked.reason {
        reason::INVALID_PIPELINE | reason::INVALID_SPEC | reason::DOCUMENT_NOT_FOUND => Truth::False,
        _ if is_true(&old.conditions, condition::VALID) => Truth::True,
        _ => Truth::Unknown,
    };
    let (reconciling, stalled) = stopped(blocked);
    let not_reached = "the step before this one was not passed";
    let valid_reason = if invalid || valid != Truth::True { blocked.reason } else { reason::VALID };
    let verdicts = vec![
        Verdict::new(condition::READY, false, blocked.reason, blocked.message.clone()),
        reconciling,
        stalled,
        Verdict::new(condition::VALID, valid, valid_reason, blocked.message.clone()),
        Verdict::new(condition::ENSEMBLE_READY, Truth::Unknown, reason::NOT_REACHED, not_reached),
        completed_verdict(false),
    ];
    PipelineStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, verdicts, generation, now),
        ..old.clone()
    }
}

fn stopped(blocked: &Blocked) -> (Verdict, Verdict) {
    if blocked.stalled {
        (
            Verdict::new(
                condition::RECONCILING,
                false,
                blocked.reason,
                "nothing is done until this is repaired",
            ),
            Verdict::new(condition::STALLED, true, blocked.reason, blocked.message.clone()),
        )
    } else {
        (
            Verdict::new(condition::RECONCILING, true, blocked.reason, blocked.message.clone()),
            Verdict::new(condition::STALLED, false, reason::NOT_STALLED, ""),
        )
    }
}

/// The status after a step.
#[must_use]
pub fn status(
    old: &PipelineStatus,
    pipeline: &Validated,
    observed: &Observed,
    step: &Step,
    now: Timestamp,
) -> PipelineStatus {
    let same_run =
        old.document_hash.as_deref() == Some(&pipeline.hash) && old.run_id == Some(pipeline.spec.run_id);
    // Numbers of another run say nothing of this one; those of this run stay when its worker is away.
    let before = if same_run { old.clone() } else { PipelineStatus::default() };
    let said = observed.worker.as_ref().and_then(|worker| worker.status.as_ref());
    let said = said.filter(|said| {
        said.document_hash.as_deref() == Some(&pipeline.hash) && said.run_id == Some(pipeline.spec.run_id)
    });
    let number = |pick: fn(&WorkerStatus) -> Option<i64>, before: Option<i64>| said.and_then(pick).or(before);
    let ready = observed.worker.as_ref().is_some_and(|worker| worker.ready && !worker.terminating);
    PipelineStatus {
        observed_generation: pipeline.generation,
        conditions: merge(&old.conditions, verdicts(observed, step), pipeline.generation, now),
        state: state(step, said).or(before.state),
        document_hash: Some(pipeline.hash.clone()),
        run_id: Some(pipeline.spec.run_id),
        epoch: number(|said| said.epoch, before.epoch),
        watermark: said.and_then(|said| said.watermark.clone()).or(before.watermark),
        late_dropped: number(|said| said.late_dropped, before.late_dropped),
        windows_closed: number(|said| said.windows_closed, before.windows_closed),
        ready_replicas: Some(i32::from(ready)),
        image: if runs_whole(observed, step) {
            Some(pipeline.image.reference.clone())
        } else {
            pipeline.kept_image.clone()
        },
        completed: if *step == Step::RecordCompletion {
            Some(completed(pipeline, now))
        } else {
            old.completed.clone()
        },
    }
}

/// Whether the worker does its work with the image that the template names.
fn runs_whole(observed: &Observed, step: &Step) -> bool {
    let up_to_date = || observed.worker.as_ref().is_some_and(|worker| worker.up_to_date);
    *step == Step::Running || (*step == Step::RecordCompletion && up_to_date())
}

fn completed(pipeline: &Validated, now: Timestamp) -> CompletedRun {
    CompletedRun {
        uid: pipeline.uid.clone(),
        document_hash: pipeline.hash.clone(),
        run_id: pipeline.spec.run_id,
        at: Timestamp::from_second(now.as_second())
            .expect("a time without its fraction is a time")
            .to_string(),
    }
}

fn state(step: &Step, said: Option<&WorkerStatus>) -> Option<String> {
    match step {
        Step::Completed | Step::Leaving | Step::RecordCompletion => Some("completed".into()),
        Step::Suspended => Some("suspended".into()),
        _ => said.map(|said| said.state.as_str().to_owned()),
    }
}

fn verdicts(observed: &Observed, step: &Step) -> Vec<Verdict> {
    let [ready, reconciling, stalled] = progress(step);
    let ensemble = match observed.ensemble {
        EnsembleState::Ready => Verdict::new(condition::ENSEMBLE_READY, true, reason::SERVING, "it serves"),
        EnsembleState::NotReady => {
            Verdict::new(condition::ENSEMBLE_READY, false, reason::ENSEMBLE_NOT_READY, "it does not serve")
        }
        EnsembleState::Missing => {
            Verdict::new(condition::ENSEMBLE_READY, false, reason::ENSEMBLE_NOT_FOUND, "it does not exist")
        }
    };
    let done = matches!(step, Step::Completed | Step::Leaving | Step::RecordCompletion);
    let valid = Verdict::new(condition::VALID, true, reason::VALID, "the document was read and checked");
    vec![ready, reconciling, stalled, valid, ensemble, completed_verdict(done)]
}

fn completed_verdict(done: bool) -> Verdict {
    if done {
        Verdict::new(condition::COMPLETED, true, reason::COMPLETED, "the input was read to its end")
    } else {
        Verdict::new(condition::COMPLETED, false, reason::NOT_COMPLETED, "")
    }
}

fn progress(step: &Step) -> [Verdict; 3] {
    let calm = Verdict::new(condition::STALLED, false, reason::NOT_STALLED, "");
    let settled = |reason, message: &str| {
        [
            Verdict::new(condition::READY, true, reason, message),
            Verdict::new(condition::RECONCILING, false, reason, "nothing is left to do"),
            calm.clone(),
        ]
    };
    let under_way = |reason, message: String| {
        [
            Verdict::new(condition::READY, false, reason, message.clone()),
            Verdict::new(condition::RECONCILING, true, reason, message),
            calm.clone(),
        ]
    };
    match step {
        Step::Running => settled(reason::RUNNING, "the pipeline runs"),
        Step::Completed => settled(reason::COMPLETED, "the input was read to its end"),
        Step::Suspended => settled(reason::SUSPENDED, "spec.suspend is set, and no worker is left"),
        Step::RecordCompletion | Step::Leaving => {
            // Ready at once, so that who waits need not wait for the worker to leave.
            let [ready, ..] = settled(reason::COMPLETED, "the input was read to its end");
            let [_, reconciling, calm] = under_way(reason::COMPLETED, "its worker leaves".into());
            [ready, reconciling, calm]
        }
        Step::Wait { reason, message } => under_way(reason, message.clone()),
        Step::Replace { pod, .. } => {
            under_way(reason::RESTARTING, format!("pod {pod} moves to the latest template"))
        }
        Step::Failed { message } => [
            Verdict::new(condition::READY, false, reason::PIPELINE_FAILED, message.clone()),
            Verdict::new(condition::RECONCILING, false, reason::PIPELINE_FAILED, "the worker gave up"),
            Verdict::new(condition::STALLED, true, reason::PIPELINE_FAILED, message.clone()),
        ],
    }
}
