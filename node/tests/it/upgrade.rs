//! Workers of one Pipeline whose document changes, as processes over an Ensemble.

use crate::kit::{names, program, run};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Rows of each of two files: some seconds of work, of which the first checkpoint takes one.
const ROWS: u64 = 1_800_000;

const DOCUMENT: &str = "pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: DIR/in-*.json, watermark: {timestamp: at, max_delay: 20s}}
    - type: Combine
      name: Sum
      input: Read
      windowing: {type: sessions, gap: 3s}
      config: {group_by: key, combine: {rows: {value: n, fn: count}, sum: {value: n, fn: sum}}}
    - {type: WriteToJson, name: Out, input: Sum, config: {path: DIR/out}}
";

/// A process that is killed when this is dropped.
struct Process(Child);

impl Process {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program()).args(args).current_dir(dir);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Worker {
    _process: Process,
    admin: String,
}

impl Worker {
    /// Starts a worker of a document of the Pipeline of that name.
    fn start(dir: &Path, ensemble: &str, pipeline: &str, document: &str) -> Self {
        let digest = document.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte) % 97);
        let hash = format!("{digest:016x}{:048}", 0);
        let file = format!("{digest:016x}.yaml");
        fs::write(dir.join(&file), document.replace("DIR", &dir.display().to_string())).unwrap();
        let admin = free_address();
        let args = ["worker", "--pipeline-file", &file, "--pipeline-uid", pipeline, "--name", pipeline];
        let more =
            ["--namespace", "ns", "--document-hash", &hash, "--ensemble", ensemble, "--worker-name", "w-0"];
        let ports =
            ["--admin-addr", &admin, "--metrics-addr", "127.0.0.1:0", "--exchange-addr", "127.0.0.1:0"];
        let place = ["--checkpoint", "checkpoints", "--checkpoint-interval", "1"];
        Self { _process: Process::start(dir, &[&args[..], &more, &ports, &place].concat()), admin }
    }

    fn says(&self) -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect(&self.admin).ok()?;
        write!(stream, "GET /v1/pipeline HTTP/1.1\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Waits until it says so.
    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let said = self.says();
            match said {
                Some(said) if holds(&said) => return said,
                said => assert!(Instant::now() < deadline, "{what}: {said:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn write_input(dir: &Path) {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for file in 0..2 {
        let mut text = String::new();
        let mut now = 0;
        for _ in 0..ROWS {
            now += u64::from(next(10) == 0);
            writeln!(text, r#"{{"at":{now},"key":"k{}","n":{}}}"#, next(500), next(100)).unwrap();
        }
        fs::write(dir.join(format!("in-{file}.json")), text).unwrap();
    }
}

/// How often each row of the output is there, a field left out.
fn rows(dir: &Path, without: &str) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for line in fs::read_to_string(dir.join("out-00000-of-00001")).unwrap().lines() {
        let mut row: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        row.remove(without);
        *rows.entry(format!("{row:?}")).or_default() += 1;
    }
    rows
}

/// An Ensemble at that address, for as long as the process is not dropped.
fn found(dir: &Path, address: &str) -> Process {
    let ensemble =
        "apiVersion: pharos.dev/v1alpha1\nkind: Ensemble\nmetadata: {name: main}\nspec: {replicas: 1}\n";
    fs::write(dir.join("e.yaml"), ensemble).unwrap();
    Process::start(dir, &["local", "-f", "e.yaml", "--client-addr", address])
}

#[test]
fn a_worker_that_comes_after_a_checkpoint_runs_the_plan_that_was_made_before() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_input(dir);
    let ensemble = free_address();
    let _ensemble = found(dir, &ensemble);
    let worker = Worker::start(dir, &ensemble, "first", DOCUMENT);
    let said = worker.until("a checkpoint", |said| said["epoch"].as_u64() >= Some(1));
    assert_eq!(said["state"], "running", "it had no time to be stopped");
    drop(worker);
    // It is the first by name: who looks at the input now would see another column, and another plan could not go on
    // from the checkpoint.
    let later = "{\"at\":9999999,\"key\":\"later\",\"n\":7,\"new\":1}\n".repeat(3);
    fs::write(dir.join("in--.json"), later).unwrap();
    let worker = Worker::start(dir, &ensemble, "first", DOCUMENT);
    worker.until("the end", |said| said["state"] == "completed");
    let text = fs::read_to_string(dir.join("out-00000-of-00001")).unwrap();
    assert_eq!(text.matches("{\"key\":\"later\",\"rows\":3,\"sum\":21}").count(), 1);
    let rows = text.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["rows"].as_u64().unwrap()
    });
    assert_eq!(rows.sum::<u64>(), 2 * ROWS + 3);
}

#[test]
fn another_document_takes_over_by_name_or_is_refused_and_a_location_has_one_owner() {
    let alone = tempfile::tempdir().unwrap();
    write_input(alone.path());
    fs::write(alone.path().join("p.yaml"), DOCUMENT.replace("DIR/", "")).unwrap();
    let ended = run(alone.path(), ["local", "-f", "p.yaml", "--client-addr", "127.0.0.1:0"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    (0..2).for_each(|file| {
        let name = format!("in-{file}.json");
        fs::rename(alone.path().join(&name), dir.join(&name)).unwrap();
    });
    let ensemble = free_address();
    let _ensemble = found(dir, &ensemble);

    let worker = Worker::start(dir, &ensemble, "first", DOCUMENT);
    let said = worker.until("a checkpoint", |said| said["epoch"].as_u64() >= Some(1));
    assert_eq!(said["state"], "running", "it had no time to be stopped");
    // Another Pipeline that is pointed to the same place.
    let second = Worker::start(dir, &ensemble, "second", &DOCUMENT.replace("DIR/out", "DIR/second"));
    let said = second.until("the fate of the second", |said| said["state"] == "failed");
    assert!(said["message"].as_str().unwrap().contains("is that of Pipeline ns/first"), "{said}");
    drop(second);
    drop(worker);

    let other = DOCUMENT.replace("gap: 3s", "gap: 9s");
    let worker = Worker::start(dir, &ensemble, "first", &other);
    let said = worker.until("the fate of the incompatible one", |said| said["state"] == "failed");
    let message = said["message"].as_str().unwrap();
    let what = "transform `Sum`: window was sessions with a gap of 3 s, is sessions with a gap of 9 s";
    assert!(message.contains(what), "{message}");
    drop(worker);

    // The one before goes on from where it was.
    let worker = Worker::start(dir, &ensemble, "first", DOCUMENT);
    let said = worker.until("a later checkpoint", |said| said["epoch"].as_u64() >= Some(2));
    assert_eq!(said["state"], "running", "it had no time to be stopped");
    drop(worker);

    let map = "    - {type: MapToFields, name: Named, input: Sum, config: {append: true, language: python, fields: {twice: sum * 2}}}\n";
    let after = DOCUMENT.replace("    - {type: WriteToJson", &format!("{map}    - {{type: WriteToJson"));
    let worker = Worker::start(
        dir,
        &ensemble,
        "first",
        &after.replace("input: Sum, config: {path", "input: Named, config: {path"),
    );
    worker.until("the end", |said| said["state"] == "completed");
    let text = fs::read_to_string(dir.join("out-00000-of-00001")).unwrap();
    assert!(text.contains("twice") && !text.lines().all(|line| line.contains("twice")), "both have written");
    assert_eq!(rows(dir, "twice"), rows(alone.path(), "twice"));
    let lineages = names(&dir.join("checkpoints/first"));
    assert_eq!(lineages.len(), 1, "both were of one lineage: {lineages:?}");
    let left = names(&dir.join("checkpoints/first").join(&lineages[0]));
    assert!(left.len() <= 2, "what the document before needed is gone: {left:?}");

    // Another document after the end begins anew.
    fs::remove_file(dir.join("out-00000-of-00001")).unwrap();
    drop(worker);
    let worker = Worker::start(dir, &ensemble, "first", &other);
    worker.until("the end of another run", |said| said["state"] == "completed");
    assert!(dir.join("out-00000-of-00001").exists());
    assert_eq!(names(&dir.join("checkpoints/first")).len(), 2);
}
