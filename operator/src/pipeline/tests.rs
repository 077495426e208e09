//! From the smallest manifest through the real `validate` and `build`; and what tools read in the status.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pharos_crds::names::{condition, reason};
use pharos_crds::{Pipeline, PipelineStatus, names};
use serde_json::{Value, json};

use super::build::{Desired, build};
use super::plan::{EnsembleState, Observed, Step, Worker};
use super::status::{blocked, status};
use super::validate::{Invalid, Validated, validate};
use crate::conditions::kstatus;
use crate::ensemble::status::Blocked;
use crate::pods::Image;

const SMALLEST: &str = "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, \
                        metadata: {name: clicks, namespace: ns, uid: u1, generation: 1}, \
                        spec: {ensembleRef: {name: main}, checkpoint: {location: 's3://bucket/a'}, upgradeMode: LastState, \
                        pipeline: \"pipeline: {type: chain, transforms: [\\n  {type: Create, config: {elements: [1]}},\\n  {type: LogForTesting}]}\"}}";

const DOCUMENT: &str = "pipeline: \"pipeline: {type: chain, transforms: [\\n  {type: Create, config: {elements: [1]}},\\n  {type: LogForTesting}]}\"";

fn checked(manifest: &str) -> Result<Validated, Invalid> {
    let pipeline: Pipeline = serde_yaml::from_str(manifest).expect("a manifest");
    validate(&pipeline, None, None, &default_image())
}

fn default_image() -> Image {
    Image { reference: "node:1".into(), pull_policy: "IfNotPresent".into() }
}

fn valid(manifest: &str) -> Validated {
    checked(manifest).expect("it is valid")
}

fn set_of(manifest: &str) -> Value {
    json!(build(&valid(manifest), 1).stateful_set)
}

#[test]
fn the_objects_of_the_smallest_pipeline() {
    let Desired { document, service_account, service, network_policy, stateful_set } =
        build(&valid(SMALLEST), 1);
    let objects =
        [json!(document), json!(service_account), json!(service), json!(network_policy), json!(stateful_set)];
    let text: Vec<String> = objects
        .iter()
        .map(|object| serde_yaml::to_string(object).expect("an object is plain data"))
        .collect();
    insta::assert_snapshot!(text.join("---\n"));
}

#[test]
fn mistakes_in_the_document_are_named_with_line_and_column() {
    let refused = checked(&SMALLEST.replace("LogForTesting", "LogForTestin")).expect_err("it has a mistake");
    assert_eq!((refused.reason(), refused.lasts()), (reason::INVALID_PIPELINE, true));
    let message = refused.to_string();
    assert!(message.starts_with("spec.pipeline:3:"), "{message}");
    assert!(message.contains("LogForTesting"), "the nearest known name is offered: {message}");
}

#[test]
fn a_document_that_is_not_there_is_waited_for() {
    let manifest = SMALLEST.replace(DOCUMENT, "pipelineFrom: {configMapKeyRef: {name: docs, key: a.yaml}}");
    let refused = checked(&manifest).expect_err("there is no document");
    assert_eq!((refused.reason(), refused.lasts()), (reason::DOCUMENT_NOT_FOUND, false));
    assert_eq!(refused.to_string(), "ConfigMap docs does not exist or has no key a.yaml");
}

#[test]
fn a_secret_reaches_the_worker_by_reference_alone() {
    let manifest = SMALLEST.replace(
        "upgradeMode: LastState",
        "variables: [{name: key, valueFrom: {secretKeyRef: {name: s3, key: k}}}]",
    );
    let env = set_of(&manifest)["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let variable =
        json!({"name": "PHAROS_VAR_key", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}});
    assert!(env.as_array().is_some_and(|env| env.contains(&variable)), "{env}");
}

#[test]
fn a_claim_for_checkpoints_is_mounted() {
    let manifest =
        SMALLEST.replace("location: 's3://bucket/a'", "volumeClaim: {claimName: cp}, interval: 1m");
    let set = set_of(&manifest);
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][1]["persistentVolumeClaim"]["claimName"], "cp");
    let command = pod["containers"][0]["command"].as_array().expect("a command");
    let tail: Vec<&str> = command.iter().rev().take(4).rev().filter_map(Value::as_str).collect();
    assert_eq!(tail, ["--checkpoint", "file:///var/lib/pharos/checkpoints", "--checkpoint-interval", "60"]);
}

#[test]
fn another_document_is_another_config_map_and_restarts_the_worker() {
    let other = SMALLEST.replace("[1]", "[2]");
    let (first, second) = (build(&valid(SMALLEST), 1), build(&valid(&other), 1));
    assert_ne!(first.document.metadata.name, second.document.metadata.name);
    assert_ne!(json!(first.stateful_set)["spec"]["template"], json!(second.stateful_set)["spec"]["template"]);
}

#[test]
fn another_number_of_workers_restarts_none() {
    let more = valid(&SMALLEST.replace("spec: {", "spec: {replicas: 3, "));
    let (one, three) = (build(&valid(SMALLEST), 1), build(&more, 3));
    let mut scaled = one.clone();
    scaled.stateful_set.spec.as_mut().expect("a spec").replicas = Some(3);
    assert_eq!(three, scaled);
}

#[test]
fn only_workers_of_the_same_pipeline_exchange_rows() {
    let policy = json!(build(&valid(SMALLEST), 2).network_policy);
    let rules = policy["spec"]["ingress"].as_array().expect("rules");
    let with_port =
        |port: u16| rules.iter().filter(move |rule| rule["ports"].to_string().contains(&port.to_string()));
    let [exchange] = with_port(names::PORT_EXCHANGE).collect::<Vec<_>>()[..] else { panic!("{policy}") };
    assert_eq!(exchange["from"], json!([{"podSelector": policy["spec"]["podSelector"]}]));
    assert!(with_port(names::PORT_ADMIN).all(|rule| rule["from"].is_null()));
}

/// A document with a window of so many seconds, a read without a schema, and an output.
fn windowed(seconds: u32, more: &str) -> String {
    let document = format!(
        "pipeline: {{type: chain, transforms: [{{type: ReadFromJson, name: R, config: {{path: in, watermark: {{timestamp: at, \
         max_delay: 1s}}}}}}, {more} {{type: Combine, name: Sum, windowing: {{type: fixed, size: {seconds}s}}, config: \
         {{group_by: user, combine: {{n: {{value: cost, fn: count}}}}}}}}, {{type: WriteToJson, name: W, config: {{path: \
         out}}}}]}}"
    );
    SMALLEST
        .replace(DOCUMENT, &format!("pipeline: {}", serde_json::to_string(&document).expect("text is JSON")))
}

#[test]
fn a_change_that_cannot_take_over_the_state_is_refused_by_the_name_of_the_transform() {
    let before = valid(&windowed(60, ""));
    let set = build(&before, 1).stateful_set;
    let running = super::upgrade::running(&set).expect("it names a document");
    assert_eq!(running, super::upgrade::Running { hash: before.hash.clone(), run_id: 1, keeps_state: true });
    let compared = |after: &str| {
        let after = valid(after);
        assert!(running.is_followed_by(&after, None), "it is another document of the same run");
        super::upgrade::compare(&before.document, &after)
    };
    let refused = compared(&windowed(300, "")).expect_err("the window differs");
    let message = super::upgrade::message(&refused);
    assert!(message.contains("transform `Sum`: window was fixed 60 s, is fixed 300 s"), "{message}");
    let filter = "{type: Filter, name: F, config: {language: python, keep: cost > 1}},";
    assert_eq!(compared(&windowed(60, filter)), Ok(()));
}

#[test]
fn nothing_is_compared_where_no_state_is_taken_over() {
    let before = valid(&windowed(60, ""));
    let running = super::upgrade::running(&build(&before, 1).stateful_set).expect("it names a document");
    let other = windowed(300, "");
    assert!(!running.is_followed_by(&before, None), "the document has not changed");
    for (from, to) in [("upgradeMode: LastState", "upgradeMode: Stateless"), ("spec: {", "spec: {runId: 2, ")]
    {
        assert!(!running.is_followed_by(&valid(&other.replace(from, to)), None), "{to}");
    }
    let completed = pharos_crds::CompletedRun {
        uid: "u1".into(),
        document_hash: before.hash.clone(),
        run_id: 1,
        at: String::new(),
    };
    assert!(!running.is_followed_by(&valid(&other), Some(&completed)), "the run before is over");
    let another = pharos_crds::CompletedRun { document_hash: "0".into(), ..completed };
    assert!(running.is_followed_by(&valid(&other), Some(&another)));
    let says =
        |said: Value| -> crate::admin::WorkerStatus { serde_json::from_value(said).expect("a status") };
    let said = says(json!({"state": "completed", "documentHash": before.hash, "runId": 1}));
    assert!(running.has_completed(&said));
    assert!(!running.has_completed(&crate::admin::WorkerStatus { run_id: Some(2), ..said }));
}

#[test]
fn a_document_that_never_had_a_checkpoint_is_no_hindrance_on_the_way_back() {
    let running =
        super::upgrade::running(&build(&valid(SMALLEST), 1).stateful_set).expect("it names a document");
    let hash = running.hash.clone();
    let says = |epoch: Option<u64>| -> crate::admin::WorkerStatus {
        let said = json!({"state": "failed", "documentHash": hash, "runId": 1, "epoch": epoch});
        serde_json::from_value(said).expect("a status")
    };
    let seen = |epoch: Option<i64>| PipelineStatus {
        document_hash: Some(hash.clone()),
        run_id: Some(1),
        epoch,
        ..PipelineStatus::default()
    };
    assert!(!running.has_state(&seen(None), [].iter()));
    assert!(!running.has_state(&seen(None), [says(None)].iter()));
    assert!(running.has_state(&seen(None), [says(Some(3))].iter()));
    assert!(running.has_state(&seen(Some(3)), [].iter()), "its workers are away");
    let of_another = PipelineStatus { document_hash: Some("0".into()), ..seen(Some(3)) };
    assert!(!running.has_state(&of_another, [].iter()));
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn observed() -> Observed {
    Observed {
        ensemble: EnsembleState::Ready,
        exists: true,
        revision_known: true,
        workers: Vec::new(),
        completed: None,
    }
}

/// A worker that says this of the run of `SMALLEST`.
fn worker(ordinal: u32, says: Value) -> Worker {
    let mut said = json!({"documentHash": valid(SMALLEST).hash, "runId": 1});
    said.as_object_mut().expect("an object").extend(says.as_object().cloned().expect("an object"));
    Worker {
        pod: format!("clicks-pipeline-{ordinal}"),
        ordinal,
        uid: format!("w{ordinal}"),
        up_to_date: true,
        same_command: true,
        same_image: true,
        restarted: false,
        terminating: false,
        ready: said["state"] == "running",
        crash: None,
        status: Some(serde_json::from_value(said).expect("an answer")),
    }
}

fn after_saying(answers: &[Value]) -> PipelineStatus {
    let workers = (0..).zip(answers).map(|(ordinal, says)| worker(ordinal, says.clone())).collect();
    let wait = Step::Wait { reason: reason::WORKER_STARTING, message: String::new() };
    let observed = Observed { workers, ..observed() };
    status(&PipelineStatus::default(), &valid(SMALLEST), &observed, &wait, at(100))
}

fn after(old: &PipelineStatus, step: &Step) -> PipelineStatus {
    status(old, &valid(SMALLEST), &observed(), step, at(100))
}

fn read(status: &PipelineStatus) -> kstatus::Verdict {
    kstatus::compute(1, status.observed_generation, &status.conditions)
}

#[test]
fn tools_read_every_stage_of_a_pipeline_right() {
    let new = PipelineStatus::default();
    let wait = Step::Wait { reason: reason::ENSEMBLE_NOT_FOUND, message: String::new() };
    assert_eq!(read(&after(&new, &wait)), kstatus::Verdict::InProgress);
    for settled in [Step::Running, Step::Completed, Step::Suspended] {
        assert_eq!(read(&after(&new, &settled)), kstatus::Verdict::Current, "{settled:?}");
    }
    assert_eq!(read(&after(&new, &Step::Failed { message: "no".into() })), kstatus::Verdict::Failed);
    let invalid = Blocked { reason: reason::INVALID_PIPELINE, message: "line 1".into(), stalled: true };
    assert_eq!(read(&blocked(&new, &invalid, Some(1), at(1))), kstatus::Verdict::Failed);
}

#[test]
fn all_conditions_are_there_on_the_first_visit_with_the_generation() {
    let invalid = Blocked { reason: reason::INVALID_PIPELINE, message: "line 1".into(), stalled: true };
    let new = PipelineStatus::default();
    for status in [after(&new, &Step::Running), blocked(&new, &invalid, Some(1), at(1))] {
        let types: BTreeSet<&str> = status.conditions.iter().map(|one| one.type_.as_str()).collect();
        assert_eq!(types, BTreeSet::from(condition::OF_PIPELINE));
        assert!(status.conditions.iter().all(|one| one.observed_generation == Some(1)));
    }
}

#[test]
fn an_image_that_never_ran_goes_when_the_spec_names_it_no_more() {
    let bad = SMALLEST.replace("spec: {", "spec: {image: {repository: bad, tag: '1'}, ");
    let wait = Step::Wait { reason: reason::WORKER_CRASHING, message: String::new() };
    let was_good = after(&PipelineStatus::default(), &Step::Running);
    assert_eq!(was_good.image.as_deref(), Some("node:1"));
    for before in [PipelineStatus::default(), was_good] {
        let with = |manifest: &str, status, set| {
            let pipeline =
                Pipeline { status: Some(status), ..serde_yaml::from_str(manifest).expect("a manifest") };
            validate(&pipeline, None, set, &default_image()).expect("it is valid")
        };
        let tried = with(&bad, before.clone(), None);
        assert_eq!(tried.image.reference, "bad:1");
        let set = build(&tried, 1).stateful_set;
        let status = status(&before, &tried, &observed(), &wait, at(100));
        assert_eq!(with(SMALLEST, status, Some(&set)).image, default_image());
    }
}

#[test]
fn back_pressure_names_the_slow_transform_and_does_not_come_and_go() {
    let after = |old: &PipelineStatus, blocked: Option<i64>| {
        let bottleneck = blocked.map(|blocked| {
            json!({"transform": "Write", "thread": 0, "busyPercent": 97, "blockedPercent": blocked})
        });
        let workers = vec![worker(0, json!({"state": "running", "bottleneck": bottleneck}))];
        let observed = Observed { workers, ..observed() };
        status(old, &valid(SMALLEST), &observed, &Step::Running, at(100))
    };
    let mut status = PipelineStatus::default();
    let mut seen = Vec::new();
    for blocked in [Some(49), Some(50), Some(30), Some(29), Some(49), Some(90), None] {
        status = after(&status, blocked);
        let found = status.conditions.iter().find(|one| one.type_ == condition::BACK_PRESSURE);
        let found = found.expect("it is there");
        seen.push(found.status == "True");
        assert_eq!(found.message.contains("`Write` on pod clicks-pipeline-0"), found.status == "True");
        // A slow pipeline does its work.
        assert_eq!(read(&status), kstatus::Verdict::Current);
    }
    assert_eq!(seen, [false, true, true, false, false, true, false]);
    let truth = |status: &PipelineStatus| {
        let found = status.conditions.iter().find(|one| one.type_ == condition::BACK_PRESSURE);
        found.map(|found| (found.status.clone(), found.message.clone())).expect("it is there")
    };
    // Who says nothing is not known to flow.
    assert_eq!(truth(&self::after(&status, &Step::Running)).0, "Unknown");
    // The busiest worker holds nobody up; another one does.
    let says = |transform: &str, busy: i64, blocked: i64| {
        json!({"state": "running", "bottleneck": {"transform": transform, "thread": 0, "busyPercent": busy,
               "blockedPercent": blocked}})
    };
    let status = after_saying(&[says("Read", 99, 0), says("Write", 97, 90)]);
    assert_eq!(status.bottleneck.as_ref().map(|found| found.transform.as_str()), Some("Read"));
    assert!(truth(&status).1.contains("`Write` on pod clicks-pipeline-1"));
}

#[test]
fn the_status_of_several_workers_is_that_of_the_run() {
    let status = after_saying(&[
        json!({"state": "running", "epoch": 4, "lateDropped": 2, "windowsClosed": 7, "watermark": "+inf"}),
        json!({"state": "running", "epoch": 5, "lateDropped": 3, "windowsClosed": 6, "leads": true, "workers": 2,
               "generation": 9, "worker": "clicks-pipeline-1", "watermark": "2001-01-01T00:05:00Z"}),
        json!({"state": "starting", "epoch": null, "lateDropped": 0, "windowsClosed": 0}),
        json!({"state": "completed", "runId": 7, "epoch": 99, "lateDropped": 99, "windowsClosed": 99}),
    ]);
    assert_eq!((status.epoch, status.late_dropped, status.windows_closed), (Some(5), Some(5), Some(7)));
    assert_eq!(status.watermark.as_deref(), Some("2001-01-01T00:05:00Z"));
    assert_eq!(status.state.as_deref(), Some("running"));
    assert_eq!((status.replicas, status.ready_replicas), (Some(4), Some(2)));
    let selector = status.selector.expect("a selector");
    assert_eq!(
        selector,
        "app.kubernetes.io/component=pipeline,app.kubernetes.io/instance=clicks,app.kubernetes.io/name=pharos"
    );
}

#[test]
fn the_status_says_who_holds_the_run_up_and_how_far_it_is_behind() {
    let status = after_saying(&[
        json!({"state": "running", "watermark": "1970-01-01T00:00:10Z", "checkpointAt": "1970-01-01T00:01:30Z",
               "bottleneck": {"transform": "Write", "thread": 1, "busyPercent": 96, "blockedPercent": 90},
               "splits": [{"transform": "Read", "index": 4, "file": "f", "offset": 3, "bytes": 9, "bytesLeft": 6,
                           "eventTime": "1970-01-01T00:00:12Z", "eventTimeMicros": 12_000_000, "lagSeconds": 2}]}),
        json!({"state": "running", "watermark": "+inf", "checkpointAt": "1970-01-01T00:01:29Z", "bottleneck": null}),
    ]);
    let bottleneck = status.bottleneck.clone().expect("one of them has one");
    assert_eq!((bottleneck.transform.as_str(), bottleneck.worker.as_str()), ("Write", "clicks-pipeline-0"));
    assert_eq!(
        status.splits.iter().map(|split| (split.index, split.lag_seconds)).collect::<Vec<_>>(),
        [(4, Some(2))]
    );
    assert_eq!(status.watermark_lag.as_deref(), Some("1m30s"));
    assert_eq!(status.checkpoint_at.as_deref(), Some("1970-01-01T00:01:30Z"));
    // While nobody answers, what was reached stays; how it goes now is not known.
    let away = after(&status, &Step::Wait { reason: reason::WORKER_STARTING, message: String::new() });
    assert_eq!((away.watermark, away.checkpoint_at), (status.watermark, status.checkpoint_at));
    assert_eq!((away.bottleneck, away.splits, away.watermark_lag), (None, Vec::new(), None));
}

#[test]
fn the_watermark_is_the_earliest_in_time_not_in_spelling() {
    let of = |watermarks: &[&str]| {
        let answers: Vec<Value> =
            watermarks.iter().map(|text| json!({"state": "running", "watermark": text})).collect();
        after_saying(&answers).watermark.unwrap_or_default()
    };
    let order = [
        "-inf",
        "-002-12-31T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "2001-01-01T00:00:00Z",
        "2001-01-01T00:00:00.000001Z",
        "2001-01-01T00:00:00.500000Z",
        "2001-01-01T00:00:01Z",
        "10000-01-01T00:00:00Z",
        "+inf",
        "what is this?",
    ];
    for (index, earlier) in order.iter().enumerate() {
        for later in &order[index..] {
            assert_eq!(
                (of(&[earlier, later]), of(&[later, earlier])),
                ((*earlier).into(), (*earlier).into())
            );
        }
    }
    assert_eq!(of(&[]), "");
}

#[test]
fn numbers_of_a_run_stay_while_no_worker_answers() {
    let before = after_saying(&[json!({"state": "running", "epoch": 5, "watermark": "-inf"})]);
    let after = after(&before, &Step::Wait { reason: reason::WORKER_STARTING, message: String::new() });
    assert_eq!((after.epoch, after.watermark, after.state), (before.epoch, before.watermark, before.state));
    assert_eq!(after.replicas, Some(0));
}

#[test]
fn a_completion_is_recorded_once_with_uid_hash_and_run() {
    let recorded = after(&PipelineStatus::default(), &Step::RecordCompletion);
    let run = recorded.completed.clone().expect("a record");
    assert_eq!((run.uid.as_str(), run.run_id, run.at.as_str()), ("u1", 1, "1970-01-01T00:01:40Z"));
    assert_eq!(run.document_hash, valid(SMALLEST).hash);
    assert_eq!(after(&recorded, &Step::Completed).completed, Some(run));
}
