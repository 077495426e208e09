//! Runs that die and go on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pharos_connect::{Division, open_blobs};
use pharos_stream::coordination::MemoryCoordination;
use pharos_stream::io::{Connectors, Fault};
use pharos_stream::{
    CheckpointOptions, Durability, Event, Report, RunOptions, StateMemory, StreamError, run,
};

use crate::support::{DIVIDED, Mortal, WHOLE, plan};

const DOCUMENT: &str = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: 'in-*.json', watermark: {timestamp: at, max_delay: 20s}}
    - type: Combine
      name: Group
      input: Read
      windowing: {type: WINDOWING}
      config:
        group_by: key
        combine:
          rows: {value: value, fn: count}
          sum: {value: value, fn: sum}
          mean: {value: value, fn: mean}
          all: {value: value, fn: group}
        error_handling: {output: late}
    - {type: WriteToJson, name: Results, input: Group, config: {path: results}}
    - {type: WriteToJson, name: Late, input: Group.late, config: {path: late}}
";

fn write_input(directory: &Path) {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for file in 0..3 {
        let mut text = String::new();
        let mut now = 0;
        for _ in 0..3000 + 1000 * file {
            now += next(4);
            let behind = if next(20) == 0 { next(120) } else { next(15) };
            let at = now.saturating_sub(behind);
            writeln!(text, r#"{{"at":{at},"key":"k{}","value":{}.25}}"#, next(9), next(1000)).unwrap();
        }
        std::fs::write(directory.join(format!("in-{file}.json")), text).unwrap();
    }
}

/// The outputs by name.
fn outputs(directory: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let read = |name| (name, std::fs::read(directory.join(format!("{name}-00000-of-00001"))).unwrap());
    ["results", "late"].into_iter().map(read).collect()
}

/// When a life is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    Never,
    /// After so many operations on files.
    After(u64),
    /// At the first operation after a checkpoint counts; a run commits nothing before one does.
    AtCheckpoint,
}

struct Life {
    report: Result<Report, StreamError>,
    checkpoints: u64,
    restored: Option<u64>,
}

fn live_once(
    directory: &Path,
    document: &str,
    threads: usize,
    death: Death,
    ensemble: &MemoryCoordination,
) -> Life {
    live_within(WHOLE, directory, document, threads, death, ensemble, None)
}

/// A life with files divided in some way, whose keyed state has so many bytes of memory.
fn live_within(
    division: Division,
    directory: &Path,
    document: &str,
    threads: usize,
    death: Death,
    ensemble: &MemoryCoordination,
    memory: Option<usize>,
) -> Life {
    let left = Arc::new(AtomicU64::new(match death {
        Death::After(operations) => operations,
        Death::Never | Death::AtCheckpoint => u64::MAX,
    }));
    let checkpoints = Arc::new(AtomicU64::new(0));
    let restored = Arc::new(Mutex::new(None));
    let (counted, noted, killed) = (Arc::clone(&checkpoints), Arc::clone(&restored), Arc::clone(&left));
    let options = RunOptions {
        state: memory.map(|bytes| StateMemory { bytes, directory: directory.join("state") }),
        threads,
        run: "test".to_owned(),
        listener: Arc::new(move |event| match event {
            Event::Checkpoint { .. } => {
                counted.fetch_add(1, Ordering::SeqCst);
                if death == Death::AtCheckpoint {
                    killed.store(0, Ordering::SeqCst);
                }
            }
            Event::Restored { epoch } => *noted.lock().unwrap() = Some(*epoch),
            _ => {}
        }),
        durability: Some(Durability {
            coordination: Arc::new(Mutex::new(ensemble.clone())),
            checkpoints: Some(CheckpointOptions {
                interval: Duration::ZERO,
                blobs: open_blobs("checkpoints", directory).unwrap(),
            }),
        }),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let connectors: Arc<dyn Connectors> = Arc::new(Mortal::new(directory, &left).divided(division));
    let report = run(&plan(document, directory), &connectors, &options);
    let restored = *restored.lock().unwrap();
    Life { report, checkpoints: checkpoints.load(Ordering::SeqCst), restored }
}

#[test]
fn a_run_killed_again_and_again_gives_the_same_bytes_as_one_that_was_not() {
    // How many operations a life may have grows by `scale`: sessions leave in few, large writes.
    for (windowing, scale, division) in [
        ("fixed, size: 10s", 20, WHOLE),
        ("sliding, size: 10s, period: 4s", 20, WHOLE),
        ("sessions, gap: 3s", 1, WHOLE),
        ("sessions, gap: 3s", 3, DIVIDED),
    ] {
        let document = DOCUMENT.replace("WINDOWING", windowing);
        let whole = tempfile::tempdir().unwrap();
        write_input(whole.path());
        let ensemble = MemoryCoordination::default();
        let life = live_within(division, whole.path(), &document, 2, Death::Never, &ensemble, None);
        life.report.unwrap();
        let expected = outputs(whole.path());
        assert!(expected.values().all(|bytes| !bytes.is_empty()));
        let mut restored_from = Vec::new();
        for first in [3, 29, 61] {
            let broken = tempfile::tempdir().unwrap();
            write_input(broken.path());
            let ensemble = MemoryCoordination::default();
            let mut lives = 0u64;
            loop {
                lives += 1;
                assert!(lives < 300, "every life goes a little further");
                let threads = 1 + (lives % 3) as usize;
                let death = match lives {
                    2 | 3 => Death::AtCheckpoint,
                    _ => Death::After((first + lives) * scale),
                };
                let life = live_within(division, broken.path(), &document, threads, death, &ensemble, None);
                restored_from.extend(life.restored.filter(|_| life.checkpoints > 0));
                match life.report {
                    Ok(_) => break,
                    Err(error) => assert!(error.to_string().contains("killed"), "{error}"),
                }
            }
            assert!(lives > 1, "it was killed at least once");
            assert_eq!(
                outputs(broken.path()),
                expected,
                "{windowing}, first killed after {first} operations"
            );
        }
        assert!(!restored_from.is_empty(), "some life started from a checkpoint and took another");
    }
}

#[test]
fn a_run_with_little_memory_killed_again_and_again_gives_the_same_bytes() {
    // Windows are long, for each time that state goes to disk is a file that the disk makes durable.
    for windowing in [
        "fixed, size: 100s",
        "sliding, size: 200s, period: 100s",
        "sessions, gap: 3s",
        "sliding, size: 200s, period: 100s, allowed_lateness: 10s",
    ] {
        let document = DOCUMENT.replace("WINDOWING", windowing);
        let whole = tempfile::tempdir().unwrap();
        write_input(whole.path());
        let life = live_once(whole.path(), &document, 2, Death::Never, &MemoryCoordination::default());
        life.report.unwrap();
        let broken = tempfile::tempdir().unwrap();
        write_input(broken.path());
        let files = |name: &str| {
            let entries = std::fs::read_dir(broken.path().join(name));
            let is_run = |name: &str| name.ends_with(".run");
            entries.map_or(0, |entries| {
                entries.filter(|entry| is_run(&entry.as_ref().unwrap().file_name().to_string_lossy())).count()
            })
        };
        let ensemble = MemoryCoordination::default();
        let mut kept = 0;
        for life in 1.. {
            assert!(life < 300, "every life goes a little further");
            let death = if life % 2 == 0 { Death::AtCheckpoint } else { Death::After(life * 30) };
            let threads = 1 + (life % 3) as usize;
            let life = live_within(WHOLE, broken.path(), &document, threads, death, &ensemble, Some(6 << 10));
            kept += usize::from(life.restored.is_some() && files("checkpoints") > 0);
            assert_eq!(files("state"), 0, "nothing is left behind");
            match life.report {
                Ok(_) => break,
                Err(error) => assert!(error.to_string().contains("killed"), "{error}"),
            }
        }
        assert!(kept > 0, "a life began from a checkpoint and left one with sorted files");
        assert_eq!(outputs(broken.path()), outputs(whole.path()), "{windowing}");
    }
}

#[test]
fn a_run_that_is_done_is_not_run_again() {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path());
    let document = DOCUMENT.replace("WINDOWING", "fixed, size: 10s");
    let ensemble = MemoryCoordination::default();
    live_once(directory.path(), &document, 2, Death::Never, &ensemble).report.unwrap();
    std::fs::remove_file(directory.path().join("results-00000-of-00001")).unwrap();
    let again = live_once(directory.path(), &document, 2, Death::Never, &ensemble).report.unwrap();
    assert!(again.already_completed);
    assert!(!directory.path().join("results-00000-of-00001").exists());
}

#[test]
fn a_checkpoint_of_an_input_with_other_columns_is_the_users_to_decide_about() {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path());
    let document = DOCUMENT.replace("WINDOWING", "fixed, size: 10s");
    let ensemble = MemoryCoordination::default();
    let life = live_once(directory.path(), &document, 2, Death::AtCheckpoint, &ensemble);
    assert!(life.report.is_err() && life.checkpoints > 0, "it was killed after a checkpoint");
    for file in 0..3 {
        let path = directory.path().join(format!("in-{file}.json"));
        let text = std::fs::read_to_string(&path).unwrap().replace(r#","value""#, r#","other":1,"value""#);
        std::fs::write(path, text).unwrap();
    }
    let error = live_once(directory.path(), &document, 2, Death::Never, &ensemble).report.unwrap_err();
    assert_eq!(error.fault(), Fault::User, "{error}");
    assert!(
        error.to_string().contains("is of another plan") && error.to_string().contains("`schema`"),
        "{error}"
    );
}

/// A run that was killed when its checkpoint counted.
fn broken_off() -> (tempfile::TempDir, String, MemoryCoordination) {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path());
    let document = DOCUMENT.replace("WINDOWING", "fixed, size: 10s");
    let ensemble = MemoryCoordination::default();
    let life = live_once(directory.path(), &document, 2, Death::AtCheckpoint, &ensemble);
    assert!(life.report.is_err() && life.checkpoints > 0, "it was killed after a checkpoint");
    (directory, document, ensemble)
}

#[track_caller]
fn refused(life: Life, fault: Fault, said: &[&str]) {
    let error = life.report.unwrap_err();
    assert_eq!(error.fault(), fault, "{error}");
    for text in said {
        assert!(error.to_string().contains(text), "{text:?} is not in {error}");
    }
}

#[test]
fn a_checkpoint_goes_on_only_with_the_files_that_it_knows() {
    let (directory, document, ensemble) = broken_off();
    let again =
        |division| live_within(division, directory.path(), &document, 2, Death::Never, &ensemble, None);
    // Builds that did not divide files kept one split for each.
    let renamed =
        ["transform `Read`: `", "in-0.json` was being read, now `", "in-0.json#0/3x20000` stands in"];
    refused(again(DIVIDED), Fault::User, &renamed);
    let last = directory.path().join("in-2.json");
    let text = std::fs::read(&last).unwrap();
    std::fs::remove_file(&last).unwrap();
    refused(again(WHOLE), Fault::User, &["in-2.json` was being read and is gone: put the files back"]);
    std::fs::write(&last, &text[..10]).unwrap();
    refused(again(WHOLE), Fault::User, &["in-2.json` had ", "bytes and has 10 now"]);
    std::fs::write(&last, text).unwrap();
    again(WHOLE).report.unwrap();
}

#[test]
fn a_blob_that_is_missing_or_damaged_is_named() {
    let (directory, document, ensemble) = broken_off();
    let again = || live_once(directory.path(), &document, 2, Death::Never, &ensemble);
    let blobs = std::fs::read_dir(directory.path().join("checkpoints")).unwrap();
    let blobs: Vec<_> = blobs.map(|entry| entry.unwrap().path()).collect();
    assert!(blobs.iter().any(|blob| blob.extension().is_some_and(|kind| kind == "state")));
    for blob in blobs {
        let (name, bytes) = (blob.file_name().unwrap().to_str().unwrap(), std::fs::read(&blob).unwrap());
        std::fs::remove_file(&blob).unwrap();
        // It may have been tidied up by whoever has taken over.
        refused(
            again(),
            Fault::Environment,
            &[&format!("`{name}` is missing: put it back, or begin a new run")],
        );
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&blob, damaged).unwrap();
        refused(
            again(),
            Fault::User,
            &[name, "is damaged", "put back what the store held, or begin a new run"],
        );
        std::fs::write(&blob, bytes).unwrap();
    }
    again().report.unwrap();
}
