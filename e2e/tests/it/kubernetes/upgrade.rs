//! A Pipeline whose document changes, that is suspended, whose place is another's, or whose Ensemble loses its leader.

use std::collections::BTreeMap;
use std::time::Duration;

use pharos_crds::names::PORT_ADMIN;
use pharos_e2e::kubebox::BUCKET;
use pharos_e2e::objects;
use pharos_e2e::sandbox::Sandbox;
use serde_json::Value;

use super::pipeline::{
    READY, SELECTOR, YEARS, document, expected, manifest, rows, visible, with_members, write_input,
};

/// A Pipeline that has taken a checkpoint and has much to do yet.
struct Begun {
    sandbox: Sandbox<'static>,
    directory: tempfile::TempDir,
    document: String,
}

fn begun(purpose: &str) -> Begun {
    begun_on(purpose, 1)
}

/// The same on an Ensemble of so many members.
fn begun_on(purpose: &str, members: usize) -> Begun {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input.jsonl");
    write_input(YEARS, &[&input]);
    let sandbox = with_members(purpose, members);
    let place = format!("s3://{BUCKET}/{}", sandbox.name);
    objects::put(sandbox.cluster, &format!("{}/input.jsonl", sandbox.name), &input).unwrap();
    let document = document(&format!("{place}/input.jsonl"), &format!("{place}/results/punctuality.json"));
    sandbox.apply(&manifest(&sandbox, &document)).unwrap();
    let begun = Begun { sandbox, directory, document };
    begun.checkpoint_after(0);
    begun
}

impl Begun {
    /// What the worker says at its admin port, if it answers.
    fn answer(&self) -> Option<Value> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/flights-pipeline-0:{PORT_ADMIN}/proxy/v1/pipeline",
            self.sandbox.name
        );
        let answer = self.sandbox.kubectl(["get", "--raw", &path]).ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// Waits until a worker that runs has made a checkpoint later than that; its number.
    fn checkpoint_after(&self, epoch: u64) -> u64 {
        let answer = self.sandbox.wait_until("a later checkpoint", READY, || {
            let answer = self.answer().filter(|answer| answer["state"] == "running");
            Ok(answer.and_then(|answer| answer["epoch"].as_u64()).filter(|later| *later > epoch))
        });
        answer.unwrap()
    }

    fn uid_of_pod(&self) -> Value {
        self.sandbox.get("pod/flights-pipeline-0").unwrap()["metadata"]["uid"].clone()
    }

    fn completes_with(&self, document: &str) -> String {
        self.sandbox.wait_for("pipeline/flights", "condition=Completed", Duration::from_secs(300)).unwrap();
        let key = format!("{}/results/punctuality.json-00000-of-00001", self.sandbox.name);
        let text = objects::get(self.sandbox.cluster, &key).unwrap();
        let status = self.sandbox.get("pipeline/flights").unwrap()["status"].clone();
        let hash = self.sandbox.get("statefulset/flights-pipeline").unwrap()["spec"]["template"]["metadata"]
            ["annotations"]["pharos.dev/document-hash"]
            .clone();
        assert_eq!(status["completed"]["documentHash"], hash, "{document}");
        text
    }

    fn oracle(&self) -> BTreeMap<String, usize> {
        expected(self.directory.path(), "input.jsonl")
    }
}

/// The rows without a field, and how often each is there.
fn without(text: &str, field: &str) -> BTreeMap<String, usize> {
    let strip = |line: &str| {
        let mut row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        row.remove(field);
        Value::Object(row).to_string()
    };
    rows(&text.lines().map(strip).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_pipeline_that_is_suspended_goes_on_from_its_checkpoint() {
    let begun = begun("suspended");
    let suspend = |value: bool| {
        let patch = format!("{{\"spec\": {{\"suspend\": {value}}}}}");
        begun.sandbox.kubectl(["patch", "pipeline", "flights", "--type=merge", "--patch", &patch]).unwrap();
    };
    suspend(true);
    begun
        .sandbox
        .wait_until("the end of the workers", READY, || {
            let ready = begun.sandbox.condition("pipeline/flights", "Ready")?;
            let suspended = ready == Some(("True".to_owned(), "Suspended".to_owned()));
            Ok((suspended && begun.sandbox.list("pods", SELECTOR)?.is_empty()).then_some(()))
        })
        .unwrap();
    let before = begun.sandbox.get("pipeline/flights").unwrap()["status"]["epoch"].as_u64().unwrap();
    assert_eq!(visible(&begun.sandbox), [""; 0], "it has not completed before it was suspended");
    suspend(false);
    // Numbers go on where they were: it has not begun anew.
    assert!(begun.checkpoint_after(before) > before);
    let text = begun.completes_with(&begun.document);
    assert_eq!(rows(&text), begun.oracle());
}

#[test]
fn a_change_that_cannot_take_over_the_state_is_refused_while_the_pipeline_goes_on() {
    let begun = begun("refused");
    let pod = begun.uid_of_pod();
    let other = begun.document.replace("size: 5m", "size: 7m");
    begun.sandbox.apply(&manifest(&begun.sandbox, &other)).unwrap();
    begun.sandbox.wait_for("pipeline/flights", "condition=Stalled", READY).unwrap();
    let status = begun.sandbox.get("pipeline/flights").unwrap()["status"].clone();
    let stalled =
        status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Stalled").unwrap();
    assert_eq!(stalled["reason"], "IncompatibleChange");
    let message = stalled["message"].as_str().unwrap();
    assert!(message.contains("transform `Punctuality`: window was fixed 300 s, is fixed 420 s"), "{message}");
    // The one before is not touched.
    let now = begun.answer().and_then(|answer| answer["epoch"].as_u64()).unwrap();
    begun.checkpoint_after(now);
    assert_eq!(begun.uid_of_pod(), pod);
    begun.sandbox.apply(&manifest(&begun.sandbox, &begun.document)).unwrap();
    let text = begun.completes_with(&begun.document);
    assert_eq!(rows(&text), begun.oracle());
    let pods = begun.sandbox.list("pods", SELECTOR).unwrap();
    assert!(pods.iter().all(|one| one["metadata"]["uid"] == pod), "the worker was never replaced: {pods:?}");
}

#[test]
fn another_document_goes_on_from_the_state_of_the_one_before() {
    let begun = begun("changed");
    let map = "    - {type: MapToFields, name: Named, input: Punctuality, config: {append: true, language: python, \
               fields: {twice: flights * 2}}}\n    - type: WriteToJson\n";
    let other = begun.document.replace("    - type: WriteToJson\n", map);
    let other = other.replace("input: Punctuality\n      config: {path", "input: Named\n      config: {path");
    let before = begun.answer().and_then(|answer| answer["epoch"].as_u64()).unwrap();
    let first = begun.uid_of_pod();
    begun.sandbox.apply(&manifest(&begun.sandbox, &other)).unwrap();
    begun
        .sandbox
        .wait_until("the worker of the other document", READY, || {
            let pod = begun.sandbox.get("pod/flights-pipeline-0").ok();
            Ok(pod.filter(|pod| pod["metadata"]["uid"] != first).map(drop))
        })
        .unwrap();
    assert!(begun.checkpoint_after(before) > before);
    let text = begun.completes_with(&other);
    assert!(text.contains("\"twice\""), "the later document has written");
    assert_eq!(without(&text, "twice"), begun.oracle());
}

#[test]
fn a_pipeline_goes_on_when_the_leader_of_its_ensemble_is_killed() {
    let begun = begun_on("led", 3);
    let leader = super::ensemble::leader(&begun.sandbox, "main");
    let pod = begun.uid_of_pod();
    begun.sandbox.kubectl(["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
    let before = begun.answer().and_then(|answer| answer["epoch"].as_u64()).unwrap();
    assert_eq!(visible(&begun.sandbox), [""; 0], "it has not completed before the leader was killed");
    begun.checkpoint_after(before);
    assert_eq!(begun.uid_of_pod(), pod);
    let text = begun.completes_with(&begun.document);
    assert_eq!(rows(&text), begun.oracle());
}

#[test]
fn a_second_pipeline_at_the_same_location_is_told_whose_it_is() {
    let begun = begun("shared");
    let second = manifest(&begun.sandbox, &begun.document.replace("punctuality.json", "second.json"));
    let second = second.replace("metadata: {name: flights}", "metadata: {name: second}");
    begun.sandbox.apply(&second).unwrap();
    begun.sandbox.wait_for("pipeline/second", "condition=Stalled", READY).unwrap();
    let status = begun.sandbox.get("pipeline/second").unwrap()["status"].clone();
    let ready = status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&Value::from("False"), &Value::from("PipelineFailed")));
    let owner = format!("is that of Pipeline {}/flights", begun.sandbox.name);
    assert!(ready["message"].as_str().unwrap().contains(&owner), "{ready}");
    let now = begun.answer().and_then(|answer| answer["epoch"].as_u64()).unwrap();
    begun.checkpoint_after(now);
    // Made anew under its own name, the first one has its place again.
    begun.sandbox.kubectl(["delete", "pipeline", "flights", "--cascade=foreground", "--wait"]).unwrap();
    begun.sandbox.apply(&manifest(&begun.sandbox, &begun.document)).unwrap();
    assert!(begun.checkpoint_after(0) > 0);
}
