//! Pipelines in pods: input, output and checkpoints are in an S3 server.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pharos_e2e::command::output;
use pharos_e2e::environment::our_binaries;
use pharos_e2e::kubebox::BUCKET;
use pharos_e2e::objects;
use pharos_e2e::sandbox::Sandbox;
use pharos_e2e::watch::PodWatch;

use super::{installed, operator};

const READY: Duration = Duration::from_secs(180);
const SELECTOR: &str = "app.kubernetes.io/component=pipeline";
/// Copies of the example's flights that make the input, each a year later than the one before.
const YEARS: u32 = 60;

/// Flights per airport and window, with the files' place left open.
fn document(input: &str, results: &str) -> String {
    format!(
        "pipeline:
  transforms:
    - type: ReadFromJson
      name: Flights
      config:
        path: {input}
        watermark: {{timestamp: date, max_delay: 60m}}
    - type: Combine
      name: Punctuality
      input: Flights
      windowing: {{type: fixed, size: 5m}}
      config:
        group_by: origin
        combine:
          flights: {{value: delay, fn: count}}
          worst_delay: {{value: delay, fn: max}}
          miles: {{value: distance, fn: sum}}
          first: {{value: date, fn: min}}
    - type: WriteToJson
      name: Results
      input: Punctuality
      config: {{path: {results}}}
"
    )
}

/// A Pipeline that is slow enough to be disturbed.
fn manifest(sandbox: &Sandbox<'_>, document: &str) -> String {
    let environment = objects::environment(sandbox.cluster).unwrap();
    let document: String = document.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: pharos.dev/v1alpha1
kind: Pipeline
metadata: {{name: flights}}
spec:
  ensembleRef: {{name: main}}
  checkpoint: {{interval: 1s, location: 's3://{BUCKET}/{}/checkpoints'}}
  pods:
    env: {environment}
    resources: {{limits: {{cpu: 200m}}}}
  pipeline: |
{document}",
        sandbox.name
    )
}

fn with_ensemble(purpose: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&installed().cluster, purpose).unwrap();
    let ensemble = "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
                    spec: {replicas: 1, storage: {size: 1Gi}}}";
    sandbox.apply(ensemble).unwrap();
    sandbox.wait_for("ensemble/main", "condition=Ready", READY).unwrap();
    sandbox
}

fn write_input(file: &Path) {
    let flights = installed().cluster.root().join("examples/data/flights.jsonl");
    let flights = std::fs::read_to_string(flights).unwrap();
    let mut file = std::fs::File::create(file).unwrap();
    for year in 0..YEARS {
        let later = flights.replace("\"2001-", &format!("\"{}-", 2001 + year));
        file.write_all(later.as_bytes()).unwrap();
    }
}

/// How often each row is there.
fn rows(text: &str) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let row: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        *rows.entry(format!("{row:?}")).or_default() += 1;
    }
    rows
}

/// What the same document gives undisturbed, in one process on this machine.
fn expected(directory: &Path) -> BTreeMap<String, usize> {
    std::fs::write(directory.join("flights.yaml"), document("input.jsonl", "results.json")).unwrap();
    let mut local = Command::new(our_binaries().unwrap().join("pharos-node"));
    local.args(["local", "--client-addr", "127.0.0.1:0", "-f"]).arg(directory.join("flights.yaml"));
    output(&mut local).unwrap();
    rows(&std::fs::read_to_string(directory.join("results.json-00000-of-00001")).unwrap())
}

#[test]
fn a_pipeline_completes_once_with_the_right_file_although_its_pod_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input.jsonl");
    write_input(&input);
    let expected = expected(directory.path());

    let sandbox = with_ensemble("flights");
    let place = format!("s3://{BUCKET}/{}", sandbox.name);
    objects::put(sandbox.cluster, &format!("{}/input.jsonl", sandbox.name), &input).unwrap();
    let document = document(&format!("{place}/input.jsonl"), &format!("{place}/results/punctuality.json"));
    let manifest = manifest(&sandbox, &document);
    sandbox.apply(&manifest).unwrap();
    // After the first checkpoint and before the last window.
    sandbox
        .wait_until("a checkpoint", READY, || {
            // The second is begun when the first is committed; the status would say so only seconds later.
            let found = objects::list(sandbox.cluster, &format!("{}/checkpoints", sandbox.name))?;
            Ok(found.iter().any(|key| key.contains("-2.")).then_some(()))
        })
        .unwrap();
    let finished = objects::list(sandbox.cluster, &format!("{}/results", sandbox.name)).unwrap();
    sandbox.kubectl(["delete", "pods", "--selector", SELECTOR, "--grace-period=0", "--force"]).unwrap();
    assert_eq!(finished, [""; 0], "the result was there before the pod was killed");
    let completed = sandbox.get("pipeline/flights").unwrap()["status"]["completed"].clone();
    assert!(completed.is_null(), "it completed before its pod was killed: {completed}");
    sandbox.wait_for("pipeline/flights", "condition=Completed", Duration::from_secs(300)).unwrap();

    let key = format!("{}/results/punctuality.json-00000-of-00001", sandbox.name);
    let results = objects::get(sandbox.cluster, &key).unwrap();
    assert_eq!(rows(&results), expected);
    super::applied_again_changes_nothing(&sandbox, "pipeline/flights", &manifest);
    is_not_run_again(&sandbox);
    assert_eq!(objects::get(sandbox.cluster, &key).unwrap(), results);
}

/// Its pods are gone, and an operator that knows nothing of the past makes none.
fn is_not_run_again(sandbox: &Sandbox<'_>) {
    let no_pods = || Ok(sandbox.list("pods", SELECTOR)?.is_empty().then_some(()));
    sandbox.wait_until("the end of the workers", READY, no_pods).unwrap();
    let before = sandbox.get("pipeline/flights").unwrap();
    let watch = PodWatch::start(sandbox, SELECTOR).unwrap();
    operator::kill();
    // It has seen the Pipeline once it has acted on a change that restarts nothing.
    sandbox.kubectl(["label", "pipeline", "flights", "seen=no"]).unwrap();
    let suspend = |value: bool| {
        let patch = format!("{{\"spec\": {{\"suspend\": {value}}}}}");
        sandbox.kubectl(["patch", "pipeline", "flights", "--type=merge", "--patch", &patch]).unwrap();
        sandbox
            .wait_until("the operator to see the change", READY, || {
                let pipeline = sandbox.get("pipeline/flights")?;
                let seen = pipeline["metadata"]["generation"] == pipeline["status"]["observedGeneration"];
                Ok(seen.then_some(()))
            })
            .unwrap();
    };
    suspend(true);
    suspend(false);
    sandbox.wait_for("pipeline/flights", "condition=Completed", READY).unwrap();
    assert_eq!(watch.so_far(), []);
    assert_eq!(
        sandbox.get("pipeline/flights").unwrap()["status"]["completed"],
        before["status"]["completed"]
    );
}

#[test]
fn a_broken_pipeline_is_stalled_with_line_and_column_and_starts_no_pod() {
    let sandbox = with_ensemble("broken");
    let watch = PodWatch::start(&sandbox, SELECTOR).unwrap();
    let document = document("in.json", "out.json").replace("type: ReadFromJson", "type: ReadFromJsn");
    sandbox.apply(&manifest(&sandbox, &document)).unwrap();
    sandbox.wait_for("pipeline/flights", "condition=Stalled", READY).unwrap();
    let pipeline = sandbox.get("pipeline/flights").unwrap();
    let conditions = pipeline["status"]["conditions"].as_array().unwrap();
    let stalled = conditions.iter().find(|condition| condition["type"] == "Stalled").unwrap();
    assert_eq!(stalled["reason"], "InvalidPipeline");
    let message = stalled["message"].as_str().unwrap();
    // The third line of the document, and the column of the name.
    assert!(message.contains("spec.pipeline:3:13"), "{message}");
    assert!(message.contains("ReadFromJson"), "it names the nearest known name: {message}");
    assert_eq!(watch.so_far(), []);
}
