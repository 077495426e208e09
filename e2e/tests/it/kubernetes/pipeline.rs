//! Pipelines in pods: input, output and checkpoints are in an S3 server.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pharos_crds::names::PORT_ADMIN;
use pharos_e2e::command::output;
use pharos_e2e::environment::our_binaries;
use pharos_e2e::kubebox::BUCKET;
use pharos_e2e::objects;
use pharos_e2e::sandbox::Sandbox;
use pharos_e2e::watch::PodWatch;
use serde_json::Value;

use super::{installed, operator};

pub(super) const READY: Duration = Duration::from_secs(180);
pub(super) const SELECTOR: &str = "app.kubernetes.io/component=pipeline";
/// Copies of the example's flights that make the input, each a year later than the one before.
pub(super) const YEARS: u32 = 60;
/// The same for several workers, which need time to come and go in.
const YEARS_OF_SEVERAL: u32 = 240;
/// Files that several workers read the input from.
const FILES: usize = 4;

/// Flights per airport and window, with the files' place left open.
pub(super) fn document(input: &str, results: &str) -> String {
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
pub(super) fn manifest(sandbox: &Sandbox<'_>, document: &str) -> String {
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
    with_members(purpose, 1)
}

/// A namespace with an Ensemble of so many members that is ready.
pub(super) fn with_members(purpose: &str, members: usize) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&installed().cluster, purpose).unwrap();
    let ensemble = format!(
        "{{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {{name: main}}, spec: {{replicas: {members}, \
         storage: {{size: 1Gi}}}}}}"
    );
    sandbox.apply(&ensemble).unwrap();
    sandbox.wait_for("ensemble/main", "condition=Ready", READY).unwrap();
    sandbox
}

/// Deals the flights of so many years out to files, row by row: all of them span the same time.
pub(super) fn write_input(years: u32, files: &[impl AsRef<Path>]) {
    let flights = installed().cluster.root().join("examples/data/flights.jsonl");
    let flights = std::fs::read_to_string(flights).unwrap();
    let create = |file| BufWriter::new(std::fs::File::create(file).unwrap());
    let mut files: Vec<_> = files.iter().map(create).collect();
    let count = files.len();
    for year in 0..years {
        let later = flights.replace("\"2001-", &format!("\"{}-", 2001 + year));
        for (index, row) in later.lines().enumerate() {
            writeln!(files[index % count], "{row}").unwrap();
        }
    }
    files.iter_mut().for_each(|file| file.flush().unwrap());
}

/// How often each row is there.
pub(super) fn rows(text: &str) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let row: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        *rows.entry(format!("{row:?}")).or_default() += 1;
    }
    rows
}

/// What the same document gives undisturbed, in one process on this machine.
pub(super) fn expected(directory: &Path, input: &str) -> BTreeMap<String, usize> {
    std::fs::write(directory.join("flights.yaml"), document(input, "results.json")).unwrap();
    let mut local = Command::new(our_binaries().unwrap().join("pharos-node"));
    local.args(["local", "--client-addr", "127.0.0.1:0", "-f"]).arg(directory.join("flights.yaml"));
    output(&mut local).unwrap();
    rows(&std::fs::read_to_string(directory.join("results.json-00000-of-00001")).unwrap())
}

#[test]
fn a_pipeline_completes_once_with_the_right_file_although_its_pod_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input.jsonl");
    write_input(YEARS, &[&input]);
    let expected = expected(directory.path(), "input.jsonl");

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
            Ok(found.iter().any(|key| epoch(key) >= Some(2)).then_some(()))
        })
        .unwrap();
    let finished = visible(&sandbox);
    sandbox.kubectl(["delete", "pods", "--selector", SELECTOR, "--grace-period=0", "--force"]).unwrap();
    assert_eq!(finished, [""; 0], "the result was there before the pod was killed");
    let completed = sandbox.get("pipeline/flights").unwrap()["status"]["completed"].clone();
    assert!(completed.is_null(), "it completed before its pod was killed: {completed}");
    sandbox.wait_for("pipeline/flights", "condition=Completed", Duration::from_secs(300)).unwrap();

    let key = format!("{}/results/punctuality.json-00000-of-00001", sandbox.name);
    let results = objects::get(sandbox.cluster, &key).unwrap();
    assert_eq!(rows(&results), expected);
    nothing_is_left_beside(&sandbox, &key);
    super::applied_again_changes_nothing(&sandbox, "pipeline/flights", &manifest);
    is_not_run_again(&sandbox);
    assert_eq!(objects::get(sandbox.cluster, &key).unwrap(), results);
}

/// The number of the checkpoint of which this is the manifest: `.../GENERATION-EPOCH.manifest`.
fn epoch(key: &str) -> Option<u64> {
    key.strip_suffix(".manifest")?.rsplit_once('-')?.1.parse().ok()
}

/// The results that are there. Hidden beside them, while a run lasts, are notes of what it has begun to upload.
pub(super) fn visible(sandbox: &Sandbox<'_>) -> Vec<String> {
    let place = format!("{}/results", sandbox.name);
    let found = objects::list(sandbox.cluster, &place).unwrap();
    found.into_iter().filter(|key| !key[place.len()..].starts_with("/.")).collect()
}

/// The result is all that is there.
fn nothing_is_left_beside(sandbox: &Sandbox<'_>, key: &str) {
    assert_eq!(objects::list(sandbox.cluster, &format!("{}/results", sandbox.name)).unwrap(), [key]);
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

/// What the workers that answer say at their admin ports, by pod.
fn answers(sandbox: &Sandbox<'_>) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut answers = BTreeMap::new();
    for pod in sandbox.list("pods", SELECTOR)? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{name}:{PORT_ADMIN}/proxy/v1/pipeline", sandbox.name);
        // One that starts or has gone does not answer.
        if let Ok(answer) = sandbox.kubectl(["get", "--raw", &path]) {
            answers.insert(name.to_owned(), serde_json::from_str(&answer)?);
        }
    }
    Ok(answers)
}

/// Waits until so many workers run the Pipeline together, and gives what they say then.
fn run_together(sandbox: &Sandbox<'_>, workers: usize) -> BTreeMap<String, Value> {
    let what = format!("{workers} workers of one run");
    let answers = sandbox.wait_until(&what, READY, || {
        let answers = answers(sandbox)?;
        let together = answers.values().all(|said| said["state"] == "running" && said["workers"] == workers);
        let completed = answers.values().any(|said| said["state"] == "completed");
        Ok(((answers.len() == workers && together) || completed).then_some(answers))
    });
    let answers = answers.unwrap();
    let states: Vec<&Value> = answers.values().map(|said| &said["state"]).collect();
    assert!(states.iter().all(|state| *state == "running"), "it has no time for {what}: {states:?}");
    answers
}

fn scale(sandbox: &Sandbox<'_>, workers: usize) {
    sandbox.kubectl(["scale", "ppl/flights", &format!("--replicas={workers}")]).unwrap();
}

#[test]
fn a_pipeline_on_two_workers_survives_the_loss_of_one_and_scales() {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..FILES).map(|file| format!("input-{file}.jsonl")).collect();
    let inputs: Vec<_> = names.iter().map(|name| directory.path().join(name)).collect();
    write_input(YEARS_OF_SEVERAL, &inputs);
    let expected = expected(directory.path(), "input-*.jsonl");

    let sandbox = with_ensemble("scaled");
    let place = format!("s3://{BUCKET}/{}", sandbox.name);
    for (name, file) in names.iter().zip(&inputs) {
        objects::put(sandbox.cluster, &format!("{}/{name}", sandbox.name), file).unwrap();
    }
    let document = document(&format!("{place}/input-*.jsonl"), &format!("{place}/results/punctuality.json"));
    let manifest = manifest(&sandbox, &document);
    let manifest =
        manifest.replace("\nspec:\n", "\nspec:\n  replicas: 2\n").replace("cpu: 200m", "cpu: 100m");
    sandbox.apply(&manifest).unwrap();
    run_together(&sandbox, 2);
    let (leader, generation) = sandbox
        .wait_until("a checkpoint and its leader", READY, || {
            let answers = answers(&sandbox)?;
            let led =
                answers.iter().find(|(_, said)| said["leads"] == true && said["epoch"].as_u64() >= Some(1));
            Ok(led.map(|(pod, said)| (pod.clone(), said["generation"].as_u64().unwrap())))
        })
        .unwrap();
    let finished = visible(&sandbox);
    sandbox.kubectl(["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
    assert_eq!(finished, [""; 0], "the result was there before the leader was killed");

    scale(&sandbox, 3);
    let answers = run_together(&sandbox, 3);
    let later = answers.values().all(|said| said["generation"].as_u64() > Some(generation));
    assert!(later, "a lost worker ends its generation, which was {generation}: {answers:?}");
    assert_eq!(answers.values().filter(|said| said["leads"] == true).count(), 1, "{answers:?}");
    scale(&sandbox, 1);
    let few = || Ok((sandbox.list("pods", SELECTOR)?.len() <= 1).then_some(()));
    sandbox.wait_until("the end of the workers that are too many", READY, few).unwrap();
    sandbox.wait_for("pipeline/flights", "condition=Completed", Duration::from_secs(300)).unwrap();

    let key = format!("{}/results/punctuality.json-00000-of-00001", sandbox.name);
    assert_eq!(rows(&objects::get(sandbox.cluster, &key).unwrap()), expected);
    nothing_is_left_beside(&sandbox, &key);
    let pipeline = sandbox.get("pipeline/flights").unwrap();
    assert_eq!(pipeline["spec"]["replicas"], 1);
    assert_eq!(pipeline["status"]["state"], "completed");
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
