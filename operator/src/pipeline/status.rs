//! Owns the status of a Pipeline: what was seen and decided, in the words of the API. Pure. Must not know how it is
//! written.
//!
//! Invariant: every condition is there after the first visit; `Completed` and `Suspended` are reasons of `Ready=True`,
//! or tools that wait for it would wait for ever; a completed run stays on record.

use jiff::Timestamp;
use pharos_crds::names::{COMPONENT_PIPELINE, condition, reason};
use pharos_crds::{Bottleneck, CompletedRun, PipelineStatus};

use super::load;
use super::plan::{EnsembleState, Observed, Outdated, Step};
use super::validate::Validated;
use crate::admin::{WorkerState, WorkerStatus};
use crate::conditions::{Truth, Verdict, is_true, merge};
use crate::ensemble::status::Blocked;
use crate::pods;

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
        Verdict::new(condition::BACK_PRESSURE, Truth::Unknown, reason::NOT_REACHED, not_reached),
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
    // Numbers of another run say nothing of this one; those of this run stay when its workers are away.
    let before = if same_run { old.clone() } else { PipelineStatus::default() };
    let said = observed.workers.iter().filter_map(|worker| worker.status.as_ref());
    let said: Vec<&WorkerStatus> =
        said.filter(|said| said.is_of(&pipeline.hash, pipeline.spec.run_id)).collect();
    let most = |pick: fn(&WorkerStatus) -> Option<i64>| said.iter().filter_map(|said| pick(said)).max();
    let late = said.iter().filter_map(|said| said.late_dropped).reduce(i64::saturating_add);
    let watermark = least_watermark(&said);
    let ready = observed.workers.iter().filter(|worker| worker.ready && !worker.terminating).count();
    let bottleneck = load::bottleneck(&observed.workers, &pipeline.hash, pipeline.spec.run_id);
    let mut verdicts = verdicts(observed, step);
    let slowest = load::slowest(&observed.workers, &pipeline.hash, pipeline.spec.run_id);
    let was = is_true(&old.conditions, condition::BACK_PRESSURE);
    verdicts.push(back_pressure(slowest.as_ref(), !said.is_empty(), was));
    PipelineStatus {
        observed_generation: pipeline.generation,
        conditions: merge(&old.conditions, verdicts, pipeline.generation, now),
        state: state(step, &said).or(before.state),
        document_hash: Some(pipeline.hash.clone()),
        run_id: Some(pipeline.spec.run_id),
        epoch: most(|said| said.epoch).or(before.epoch),
        checkpoint_at: said
            .iter()
            .filter_map(|said| said.checkpoint_at.clone())
            .max()
            .or(before.checkpoint_at),
        watermark_lag: watermark.as_deref().and_then(|watermark| load::lag(watermark, now)),
        watermark: watermark.or(before.watermark),
        bottleneck,
        splits: load::splits(&said),
        // Each worker counts the rows that it dropped itself.
        late_dropped: late.or(before.late_dropped),
        windows_closed: most(|said| said.windows_closed).or(before.windows_closed),
        replicas: i32::try_from(observed.workers.len()).ok(),
        ready_replicas: i32::try_from(ready).ok(),
        selector: Some(pods::selector_text(&pipeline.name, COMPONENT_PIPELINE)),
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

/// Whether the workers do their work with the image that the template names.
fn runs_whole(observed: &Observed, step: &Step) -> bool {
    let up_to_date = || observed.workers.iter().all(|worker| worker.up_to_date);
    *step == Step::Running || (*step == Step::RecordCompletion && up_to_date())
}

/// How far all are that say it: a text that is no time counts only where there is no other.
fn least_watermark(said: &[&WorkerStatus]) -> Option<String> {
    let all = said.iter().filter_map(|said| said.watermark.as_deref());
    all.min_by_key(|text| Moment::read(text)).map(str::to_owned)
}

/// A watermark in the order of time. Not of a calendar library: the engine's years reach further.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Moment<'a> {
    Beginning,
    /// The year, and what follows it without the `Z`: a fraction of a second makes it longer and so later.
    At(i64, &'a str),
    End,
    Unreadable,
}

impl<'a> Moment<'a> {
    fn read(text: &'a str) -> Self {
        match text {
            "-inf" => return Self::Beginning,
            "+inf" => return Self::End,
            _ => {}
        }
        let sign = usize::from(text.starts_with('-'));
        let year = text.char_indices().find(|(at, letter)| *at >= sign && *letter == '-');
        let Some((year, rest)) = year.map(|(at, _)| text.split_at(at)) else { return Self::Unreadable };
        let rest = rest.strip_suffix('Z').unwrap_or(rest);
        year.parse().map_or(Self::Unreadable, |year| Self::At(year, rest))
    }
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

fn state(step: &Step, said: &[&WorkerStatus]) -> Option<String> {
    match step {
        Step::Completed | Step::Leaving | Step::RecordCompletion => Some("completed".into()),
        Step::Suspended => Some("suspended".into()),
        Step::Failed { .. } => Some("failed".into()),
        Step::Running | Step::Wait { .. } | Step::Replace { .. } => {
            // One that runs runs the pipeline, whatever the others do.
            let rank = |state: &WorkerState| match state {
                WorkerState::Running => 0,
                WorkerState::Completed => 1,
                WorkerState::Failed => 2,
                WorkerState::Starting => 3,
                WorkerState::Suspended => 4,
            };
            let first = said.iter().map(|said| said.state).min_by_key(rank);
            first.map(|state| state.as_str().to_owned())
        }
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

/// From this share of time on in which those before a transform wait for it there is back-pressure,
const PRESSED: i64 = 50;
/// and below this one there is none any more: a condition must not come and go with every visit.
const RELIEVED: i64 = 30;

/// The numbers are in the status: a condition says what does not change from visit to visit.
fn back_pressure(slowest: Option<&Bottleneck>, anyone_says: bool, was: bool) -> Verdict {
    let least = if was { RELIEVED } else { PRESSED };
    match slowest.filter(|found| found.blocked_percent >= least) {
        Some(Bottleneck { transform, worker, .. }) => {
            let message = format!(
                "`{transform}` on pod {worker} is slower than what comes before it, which waits for it"
            );
            Verdict::new(condition::BACK_PRESSURE, true, reason::SLOW_TRANSFORM, message)
        }
        None if !anyone_says => Verdict::new(
            condition::BACK_PRESSURE,
            Truth::Unknown,
            reason::NOT_REACHED,
            "no worker says anything",
        ),
        None => Verdict::new(condition::BACK_PRESSURE, false, reason::FLOWING, ""),
    }
}

fn moving(pods: &[Outdated]) -> String {
    match pods {
        [one] => format!("pod {} moves to the latest template", one.pod),
        several => format!("{} pods move to the latest template", several.len()),
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
            // Ready at once, so that who waits need not wait for the workers to leave.
            let [ready, ..] = settled(reason::COMPLETED, "the input was read to its end");
            let [_, reconciling, calm] = under_way(reason::COMPLETED, "its workers leave".into());
            [ready, reconciling, calm]
        }
        Step::Wait { reason, message } => under_way(reason, message.clone()),
        Step::Replace { pods } => under_way(reason::RESTARTING, moving(pods)),
        Step::Failed { message } => [
            Verdict::new(condition::READY, false, reason::PIPELINE_FAILED, message.clone()),
            Verdict::new(condition::RECONCILING, false, reason::PIPELINE_FAILED, "the workers gave up"),
            Verdict::new(condition::STALLED, true, reason::PIPELINE_FAILED, message.clone()),
        ],
    }
}
