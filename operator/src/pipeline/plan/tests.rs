//! Scenarios of one worker and of several.

use super::*;

fn wanted() -> Wanted {
    Wanted { uid: "u".into(), hash: "h".into(), run_id: 1, replicas: 1, suspend: false }
}

fn of(replicas: u32) -> Wanted {
    Wanted { replicas, ..wanted() }
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
        leads: false,
        workers: None,
        checkpoint_at: None,
        bottleneck: None,
        splits: Vec::new(),
    }
}

/// Workers that say these, the first of which leads.
fn with<const N: usize>(states: [WorkerState; N]) -> Observed {
    let worker = |(ordinal, state): (u32, WorkerState)| Worker {
        pod: format!("p-{ordinal}"),
        ordinal,
        uid: format!("w{ordinal}"),
        up_to_date: true,
        same_command: true,
        same_image: true,
        restarted: false,
        terminating: false,
        ready: matches!(state, WorkerState::Running | WorkerState::Completed),
        crash: None,
        status: Some(WorkerStatus { leads: ordinal == 0, ..says(state) }),
    };
    Observed {
        ensemble: EnsembleState::Ready,
        exists: true,
        revision_known: true,
        workers: (0..).zip(states).map(worker).collect(),
        completed: None,
    }
}

fn completed(run_id: i64, hash: &str) -> CompletedRun {
    CompletedRun { uid: "u".into(), document_hash: hash.into(), run_id, at: String::new() }
}

fn replace<const N: usize>(ordinals: [u32; N]) -> Step {
    let outdated = |ordinal| Outdated { pod: format!("p-{ordinal}"), uid: format!("w{ordinal}") };
    Step::Replace { pods: ordinals.map(outdated).to_vec() }
}

fn waits(reason: &'static str, message: &str) -> Step {
    Step::Wait { reason, message: message.into() }
}

#[test]
fn completion_is_put_on_record_before_the_worker_is_taken_away() {
    let mut observed = with([WorkerState::Completed]);
    assert_eq!(
        (workers(&wanted(), &observed), plan(&wanted(), &observed)),
        (Some(1), Step::RecordCompletion)
    );
    observed.completed = Some(completed(1, "h"));
    assert_eq!((workers(&wanted(), &observed), plan(&wanted(), &observed)), (Some(0), Step::Leaving));
    observed.workers.clear();
    assert_eq!(plan(&wanted(), &observed), Step::Completed);
}

#[test]
fn a_new_image_does_not_run_a_completed_pipeline_again_but_a_new_run_or_document_does() {
    let mut observed = with([WorkerState::Completed]);
    observed.workers[0].up_to_date = false;
    assert_eq!(plan(&wanted(), &observed), Step::RecordCompletion);
    observed.workers.clear();
    observed.completed = Some(completed(1, "h"));
    assert_eq!(workers(&wanted(), &observed), Some(0));
    assert_eq!(workers(&Wanted { run_id: 2, ..wanted() }, &observed), Some(1));
    assert_eq!(workers(&Wanted { hash: "other".into(), ..wanted() }, &observed), Some(1));
    assert_eq!(workers(&Wanted { uid: "again".into(), ..wanted() }, &observed), Some(1));
}

#[test]
fn one_of_several_that_says_completed_is_enough_even_if_it_leaves() {
    let mut observed = with([WorkerState::Running, WorkerState::Failed, WorkerState::Completed]);
    observed.workers[2].terminating = true;
    observed.workers[1].crash = Some("Error".into());
    assert_eq!(plan(&of(2), &observed), Step::RecordCompletion);
}

#[test]
fn the_completion_of_another_run_is_not_taken_for_this_one() {
    let observed = with([WorkerState::Completed]);
    let step = plan(&Wanted { run_id: 2, ..wanted() }, &observed);
    assert_eq!(step, waits(reason::WORKER_STARTING, "pod p-0 has not answered yet"));
}

#[test]
fn a_missing_ensemble_starts_no_worker_and_a_pause_of_it_stops_none() {
    let mut observed = with([WorkerState::Running]);
    observed.ensemble = EnsembleState::NotReady;
    assert_eq!((workers(&wanted(), &observed), plan(&wanted(), &observed)), (None, Step::Running));
    observed.workers.clear();
    observed.ensemble = EnsembleState::Missing;
    assert_eq!(workers(&wanted(), &observed), None);
    let step = plan(&wanted(), &observed);
    assert!(matches!(step, Step::Wait { reason: reason::ENSEMBLE_NOT_FOUND, .. }), "{step:?}");
}

#[test]
fn suspension_takes_the_workers_away_and_makes_nothing() {
    let suspend = Wanted { suspend: true, ..of(2) };
    let mut observed = with([WorkerState::Running; 2]);
    assert_eq!(workers(&suspend, &observed), Some(0));
    assert_eq!(plan(&suspend, &observed), waits(reason::SUSPENDING, "2 pods leave"));
    observed.workers.pop();
    assert_eq!(plan(&suspend, &observed), waits(reason::SUSPENDING, "pod p-0 leaves"));
    observed.workers.clear();
    assert_eq!(plan(&suspend, &observed), Step::Suspended);
    observed.exists = false;
    assert_eq!(workers(&suspend, &observed), None);
}

#[test]
fn a_failed_worker_is_quoted_and_an_outdated_one_replaced() {
    let mut observed = with([WorkerState::Failed]);
    assert_eq!(plan(&wanted(), &observed), Step::Failed { message: "said".into() });
    observed.workers[0].up_to_date = false;
    assert_eq!(plan(&wanted(), &observed), replace([0]));
}

#[test]
fn any_worker_that_gave_up_fails_the_run_and_the_leader_is_quoted_if_it_says_why() {
    let mut observed = with([WorkerState::Failed, WorkerState::Failed, WorkerState::Running]);
    let quote = |observed: &mut Observed, leader: Option<&str>, other: Option<&str>| {
        for (worker, message) in observed.workers.iter_mut().zip([leader, other]) {
            worker.status.as_mut().expect("a status").message = message.map(str::to_owned);
        }
        plan(&of(3), observed)
    };
    let failed = |message: &str| Step::Failed { message: message.into() };
    observed.workers.swap(0, 1);
    assert_eq!(quote(&mut observed, Some("by p-1"), Some("by p-0")), failed("by p-0"));
    assert_eq!(quote(&mut observed, Some("by p-1"), None), failed("by p-1"));
    assert_eq!(quote(&mut observed, None, None), failed("the worker gives no reason"));
}

#[test]
fn it_runs_when_all_that_are_wanted_do_and_those_that_do_not_are_named() {
    let mut observed = with([WorkerState::Running; 2]);
    assert_eq!(workers(&of(4), &observed), Some(4));
    let step = plan(&of(4), &observed);
    assert_eq!(step, waits(reason::WORKER_STARTING, "2 of 4 workers run; 2 pods do not exist yet"));

    observed.workers.extend(with([WorkerState::Starting; 4]).workers.into_iter().skip(2));
    observed.workers[3].status = None;
    observed.workers[2].status.as_mut().expect("a status").message = None;
    let message = "2 of 4 workers run; pod p-2: starting; pod p-3 has not answered yet";
    assert_eq!(plan(&of(4), &observed), waits(reason::WORKER_STARTING, message));

    observed.workers[3].crash = Some("CrashLoopBackOff: back-off".into());
    observed.workers[1].terminating = true;
    let message =
        "1 of 4 workers run; pod p-3: CrashLoopBackOff: back-off; pod p-1 leaves; pod p-2: starting";
    assert_eq!(plan(&of(4), &observed), waits(reason::WORKER_CRASHING, message));

    assert_eq!(plan(&of(4), &with([WorkerState::Running; 4])), Step::Running);
}

#[test]
fn of_many_workers_that_do_not_run_a_few_are_named() {
    let observed = with([WorkerState::Starting; 9]);
    let message = "0 of 10 workers run; pod p-0: said; pod p-1: said; pod p-2: said; and 6 more; \
                   1 pod does not exist yet";
    assert_eq!(plan(&of(10), &observed), waits(reason::WORKER_STARTING, message));
}

#[test]
fn those_that_are_too_many_are_neither_waited_for_nor_replaced() {
    let mut observed = with([WorkerState::Running; 3]);
    observed.workers[2].terminating = true;
    observed.workers[1].up_to_date = false;
    assert_eq!((workers(&of(1), &observed), plan(&of(1), &observed)), (Some(1), Step::Running));
}

/// The pod of an ordinal has been replaced, and says this now.
fn replaced(observed: &mut Observed, ordinal: usize, state: WorkerState) {
    let worker = &mut observed.workers[ordinal];
    worker.up_to_date = true;
    worker.same_command = true;
    worker.same_image = true;
    worker.ready = state == WorkerState::Running;
    worker.status = Some(says(state));
}

fn outdated<const N: usize>(states: [WorkerState; N]) -> Observed {
    let mut observed = with(states);
    observed.workers.iter_mut().for_each(|worker| worker.up_to_date = false);
    observed
}

#[test]
fn a_new_template_is_rolled_out_one_by_one_and_the_leader_comes_last() {
    let mut observed = outdated([WorkerState::Running; 3]);
    observed.workers[0].status.as_mut().expect("a status").leads = false;
    observed.workers[2].status.as_mut().expect("a status").leads = true;
    for ordinal in [1, 0, 2] {
        assert_eq!(plan(&of(3), &observed), replace([ordinal]));
        let ordinal = usize::try_from(ordinal).expect("small");
        observed.workers[ordinal].terminating = true;
        let step = plan(&of(3), &observed);
        assert_eq!(step, waits(reason::RESTARTING, &format!("2 of 3 workers run; pod p-{ordinal} leaves")));
        observed.workers[ordinal].terminating = false;
        replaced(&mut observed, ordinal, WorkerState::Starting);
        let step = plan(&of(3), &observed);
        assert_eq!(
            step,
            waits(reason::WORKER_STARTING, &format!("2 of 3 workers run; pod p-{ordinal}: said"))
        );
        replaced(&mut observed, ordinal, WorkerState::Running);
    }
    assert_eq!(plan(&of(3), &observed), Step::Running);
}

#[test]
fn a_roll_out_stops_at_a_worker_that_crashes_and_goes_on_with_another_template() {
    let mut observed = outdated([WorkerState::Running; 3]);
    observed.workers[2].up_to_date = true;
    observed.workers[2].ready = false;
    observed.workers[2].status = None;
    observed.workers[2].crash = Some("ErrImagePull: no".into());
    let message = "2 of 3 workers run; pod p-2: ErrImagePull: no";
    assert_eq!(plan(&of(3), &observed), waits(reason::WORKER_CRASHING, message));
    observed.workers[2].up_to_date = false;
    assert_eq!(plan(&of(3), &observed), replace([2]));
}

#[test]
fn workers_of_another_document_or_run_are_replaced_all_at_once() {
    let mut observed = outdated([WorkerState::Running; 3]);
    for worker in &mut observed.workers {
        worker.same_command = false;
    }
    assert_eq!(plan(&of(3), &observed), replace([0, 1, 2]));
    // Those that were replaced already wait for nobody.
    replaced(&mut observed, 1, WorkerState::Starting);
    assert_eq!(plan(&of(3), &observed), replace([0, 2]));
}

#[test]
fn one_worker_tries_another_image_and_the_others_follow_once_it_answers() {
    let mut observed = outdated([WorkerState::Running; 3]);
    observed.workers.iter_mut().for_each(|worker| worker.same_image = false);
    assert_eq!(plan(&of(3), &observed), replace([2]));
    replaced(&mut observed, 2, WorkerState::Starting);
    observed.workers[2].status = None;
    observed.workers[2].crash = Some("ErrImagePull: no".into());
    let message = "2 of 3 workers run; pod p-2: ErrImagePull: no";
    assert_eq!(plan(&of(3), &observed), waits(reason::WORKER_CRASHING, message));
    observed.workers[2].crash = None;
    // One that finds the document wrong, or has been started again, is no reason to take the others away.
    observed.workers[2].status = Some(says(WorkerState::Failed));
    assert_eq!(plan(&of(3), &observed), Step::Failed { message: "said".into() });
    observed.workers[2].status = Some(says(WorkerState::Starting));
    observed.workers[2].restarted = true;
    assert!(matches!(plan(&of(3), &observed), Step::Wait { .. }));
    observed.workers[2].restarted = false;
    // It need not run: perhaps it does not understand the others.
    observed.workers[2].status = Some(says(WorkerState::Starting));
    assert_eq!(plan(&of(3), &observed), replace([0, 1]));
}

#[test]
fn outdated_workers_that_do_no_work_are_replaced_at_once() {
    let states = [WorkerState::Failed, WorkerState::Running, WorkerState::Starting, WorkerState::Running];
    let mut observed = outdated(states);
    observed.workers[3].crash = Some("Error".into());
    assert_eq!(plan(&of(4), &observed), replace([0, 2, 3]));
}

#[test]
fn an_outdated_worker_that_does_not_answer_holds_nobody_up() {
    let mut observed = outdated([WorkerState::Running; 2]);
    for worker in &mut observed.workers {
        worker.status = None;
    }
    assert_eq!(plan(&of(2), &observed), replace([1]));
}

#[test]
fn nobody_is_replaced_before_the_latest_template_is_known() {
    let mut observed = outdated([WorkerState::Running; 2]);
    observed.revision_known = false;
    let step = plan(&of(2), &observed);
    assert!(matches!(step, Step::Wait { reason: reason::WORKER_STARTING, .. }), "{step:?}");
}
