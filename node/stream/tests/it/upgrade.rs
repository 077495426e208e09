//! Runs that go on under another document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pharos_connect::{Division, open_blobs};
use pharos_stream::coordination::MemoryCoordination;
use pharos_stream::io::{Connectors, Fault};
use pharos_stream::{
    CheckpointOptions, Durability, Event, Outcome, Report, RunOptions, StreamError, WorkerOptions, run, work,
};

use crate::support::{DIVIDED, Mortal, WHOLE, plan};

/// Rows of the shortest of the files: enough that no life comes to the end of it unless it is to.
const ROWS: u64 = 15_000;

const BEFORE: &str = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: 'in-*.json', watermark: {timestamp: at, max_delay: 200s}}
    - type: Combine
      name: Group
      input: Read
      windowing: {type: WINDOWING}
      config:
        group_by: key
        combine: {rows: {value: value, fn: count}, sum: {value: value, fn: sum}}
    - {type: WriteToJson, name: Results, input: Group, config: {path: results}}
";

/// The same by other steps without state; and one more grouping with an output.
fn after(windowing: &str) -> String {
    let more = "
    - {type: Filter, name: All, input: Read, config: {language: python, keep: value >= 0}}
    - {type: MapToFields, name: Named, input: Group, config: {append: true, language: python, fields: {twice: sum * 2}}}
    - type: Combine
      name: Most
      input: All
      windowing: {type: fixed, size: 100s}
      config: {group_by: key, combine: {most: {value: value, fn: max}}}
    - {type: WriteToJson, name: Later, input: Most, config: {path: later}}
";
    let changed = BEFORE.replace("input: Read\n", "input: All\n").replace("input: Group,", "input: Named,");
    format!("{changed}{}", &more[1..]).replace("WINDOWING", windowing)
}

fn write_input(directory: &Path, rows: u64) {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for file in 0..4 {
        let mut text = String::new();
        let mut now = 0;
        for _ in 0..rows + rows / 3 * file {
            now += next(4);
            let at = now.saturating_sub(next(15));
            writeln!(text, r#"{{"at":{at},"key":"k{}","value":{}}}"#, next(9), next(1000)).unwrap();
        }
        std::fs::write(directory.join(format!("in-{file}.json")), text).unwrap();
    }
}

fn result(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("results-00000-of-00001")).unwrap()
}

/// Each pane's key, rows and sum, in the order in which they were written.
fn panes(text: &str) -> Vec<(String, u64, u64)> {
    let row = |line: &str| {
        let row: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        (row["key"].to_string(), row["rows"].as_u64().unwrap(), row["sum"].as_u64().unwrap())
    };
    text.lines().map(row).collect()
}

struct Life {
    report: Result<Report, StreamError>,
    taken: Option<(Vec<String>, Vec<String>)>,
}

/// One life under a document, killed at the first operation after so many checkpoints, if at all.
fn live(
    directory: &Path,
    document: (&str, &str),
    threads: usize,
    death: Option<u64>,
    ensemble: &MemoryCoordination,
) -> Life {
    live_divided(WHOLE, directory, document, threads, death, ensemble)
}

fn live_divided(
    division: Division,
    directory: &Path,
    (name, document): (&str, &str),
    threads: usize,
    death: Option<u64>,
    ensemble: &MemoryCoordination,
) -> Life {
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let taken = Arc::new(Mutex::new(None));
    let (killed, noted, counted) = (Arc::clone(&left), Arc::clone(&taken), AtomicU64::new(0));
    if death == Some(0) {
        left.store(30, Ordering::SeqCst);
    }
    let options = RunOptions {
        state: None,
        threads,
        run: name.to_owned(),
        listener: Arc::new(move |event| match event {
            Event::Checkpoint { .. } if Some(counted.fetch_add(1, Ordering::SeqCst) + 1) == death => {
                killed.store(0, Ordering::SeqCst);
            }
            Event::TakenOver { kept, begun } => *noted.lock().unwrap() = Some((kept.clone(), begun.clone())),
            _ => {}
        }),
        durability: Some(Durability {
            coordination: Arc::new(Mutex::new(ensemble.clone())),
            checkpoints: Some(CheckpointOptions {
                interval: if death == Some(0) { Duration::from_secs(3600) } else { Duration::ZERO },
                blobs: open_blobs("checkpoints", directory).unwrap(),
            }),
        }),
        stop: Arc::new(AtomicBool::new(false)),
    };
    // The input must last for as many checkpoints.
    let pace =
        Arc::new(AtomicU64::new(if death.is_some_and(|checkpoints| checkpoints > 0) { 10 } else { 0 }));
    let files = Mortal::new(directory, &left).divided(division).slow(&pace);
    let connectors: Arc<dyn Connectors> = Arc::new(files);
    let report = run(&plan(document, directory), &connectors, &options);
    let taken = taken.lock().unwrap().take();
    Life { report, taken }
}

/// What one document alone gives.
fn undisturbed(document: &str, rows: u64) -> String {
    let whole = tempfile::tempdir().unwrap();
    write_input(whole.path(), rows);
    live(whole.path(), ("before", document), 2, None, &MemoryCoordination::default()).report.unwrap();
    result(whole.path())
}

#[test]
fn another_document_goes_on_from_the_state_of_the_one_before_and_nothing_is_lost_or_doubled() {
    for windowing in ["fixed, size: 10s", "sliding, size: 10s, period: 4s", "sessions, gap: 3s"] {
        let before = BEFORE.replace("WINDOWING", windowing);
        let expected = panes(&undisturbed(&before, ROWS));
        let directory = tempfile::tempdir().unwrap();
        write_input(directory.path(), ROWS);
        let ensemble = MemoryCoordination::default();
        let life = live(directory.path(), ("before", &before), 2, Some(3), &ensemble);
        assert!(life.report.is_err() && life.taken.is_none());
        let after = after(windowing);
        // It dies before a checkpoint of its own counts, then after some.
        let life = live(directory.path(), ("after", &after), 3, Some(0), &ensemble);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let taken = (names(&["Group", "Read", "Results"]), names(&["Later", "Most"]));
        assert_eq!(life.taken, Some(taken.clone()), "{:?}", life.report);
        assert!(life.report.is_err());
        let life = live(directory.path(), ("after", &after), 1, Some(2), &ensemble);
        assert_eq!(life.taken, Some(taken), "{:?}", life.report);
        assert!(life.report.is_err());
        let life = live(directory.path(), ("after", &after), 2, None, &ensemble);
        assert!(life.taken.is_none(), "it goes on from its own checkpoint");
        life.report.unwrap();
        let text = result(directory.path());
        assert_eq!(panes(&text), expected, "{windowing}");
        assert!(text.lines().any(|line| line.contains("twice")), "the later document has written");
        assert!(!text.lines().all(|line| line.contains("twice")), "and so has the one before");
        let parts = std::fs::read_dir(directory.path()).unwrap();
        let hidden = |name: &String| name.ends_with(".part");
        let parts: Vec<String> =
            parts.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(hidden).collect();
        assert_eq!(parts, [""; 0], "nothing is left of what was in the making");
    }
}

#[test]
fn an_incompatible_document_is_refused_by_name_and_the_one_before_goes_on() {
    let before = BEFORE.replace("WINDOWING", "fixed, size: 10s");
    let expected = undisturbed(&before, ROWS);
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), ROWS);
    let ensemble = MemoryCoordination::default();
    live(directory.path(), ("before", &before), 2, Some(3), &ensemble).report.unwrap_err();
    let other = BEFORE.replace("WINDOWING", "fixed, size: 20s").replace("fn: sum", "fn: max");
    let error = live(directory.path(), ("other", &other), 2, None, &ensemble).report.unwrap_err();
    assert_eq!(error.fault(), Fault::User);
    for what in [
        "transform `Group`: aggregation `sum` was sum of integer, is max of integer",
        "transform `Group`: window was fixed 10 s, is fixed 20 s",
        "`upgradeMode: Stateless`",
    ] {
        assert!(error.to_string().contains(what), "{error}");
    }
    live(directory.path(), ("before", &before), 1, None, &ensemble).report.unwrap();
    assert_eq!(result(directory.path()), expected);
}

/// A run that a file comes to between two documents, whose files are divided in one way and then in another, and
/// what came of it.
fn with_a_file_that_came(divisions: [Division; 2]) -> (tempfile::TempDir, Result<Report, StreamError>) {
    let before = BEFORE.replace("WINDOWING", "global");
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), ROWS);
    let ensemble = MemoryCoordination::default();
    let [first, then] = divisions;
    live_divided(first, directory.path(), ("before", &before), 2, Some(3), &ensemble).report.unwrap_err();
    // In the order of names it comes between those that were begun.
    std::fs::copy(directory.path().join("in-3.json"), directory.path().join("in-00.json")).unwrap();
    let after = after("global");
    let report = live_divided(then, directory.path(), ("after", &after), 2, None, &ensemble).report;
    (directory, report)
}

#[test]
fn a_file_that_came_meanwhile_is_read_from_its_start() {
    let of = |text: String| {
        let mut panes = panes(&text);
        panes.sort();
        panes
    };
    let whole = tempfile::tempdir().unwrap();
    write_input(whole.path(), ROWS);
    std::fs::copy(whole.path().join("in-3.json"), whole.path().join("in-00.json")).unwrap();
    let before = BEFORE.replace("WINDOWING", "global");
    live(whole.path(), ("before", &before), 2, None, &MemoryCoordination::default()).report.unwrap();
    for division in [WHOLE, DIVIDED] {
        let (directory, report) = with_a_file_that_came([division; 2]);
        report.unwrap();
        assert_eq!(of(result(directory.path())), of(result(whole.path())), "{division:?}");
    }
}

#[test]
fn a_file_that_is_divided_in_another_way_is_refused_by_name() {
    for (divisions, name) in [([WHOLE, DIVIDED], "in-0.json`"), ([DIVIDED, WHOLE], "in-0.json#0/3x20000`")] {
        let error = with_a_file_that_came(divisions).1.unwrap_err();
        assert_eq!(error.fault(), Fault::User);
        assert!(error.to_string().contains(&format!("{name} was being read")), "{error}");
    }
}

#[test]
fn two_workers_take_over_what_one_of_another_document_left() {
    let before = BEFORE.replace("WINDOWING", "sessions, gap: 3s");
    let expected = panes(&undisturbed(&before, ROWS));
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), ROWS);
    let ensemble = MemoryCoordination::default();
    live(directory.path(), ("before", &before), 2, Some(3), &ensemble).report.unwrap_err();
    let document = after("sessions, gap: 3s");
    let read = Arc::new(AtomicU64::new(0));
    let worker = |number: u32| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let counted = Arc::clone(&read);
        let options = WorkerOptions {
            state: None,
            id: format!("w{number}"),
            name: format!("w{number}"),
            address: listener.local_addr().unwrap().to_string(),
            listener,
            threads: 1 + number as usize,
            run: "/test#after".to_owned(),
            part: "after".to_owned(),
            events: Arc::new(move |event| {
                if let Event::Joined { workers: 2, .. } = event {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }),
            coordination: Arc::new(Mutex::new(ensemble.clone())),
            roster: Box::new(ensemble.clone()),
            checkpoints: Some(CheckpointOptions {
                interval: Duration::ZERO,
                blobs: open_blobs("checkpoints", directory.path()).unwrap(),
            }),
            stop: Arc::default(),
        };
        let connectors: Arc<dyn Connectors> =
            Arc::new(Mortal::new(directory.path(), &Arc::new(AtomicU64::new(u64::MAX))));
        let plan = plan(&document, directory.path());
        std::thread::spawn(move || work(&plan, &connectors, options))
    };
    let workers = [worker(0), worker(1)];
    for worker in workers {
        assert_eq!(worker.join().unwrap().unwrap(), Outcome::Completed);
    }
    assert_eq!(read.load(Ordering::SeqCst), 2, "both took part");
    assert_eq!(panes(&result(directory.path())), expected);
}
