//! State that is larger than the memory of the process.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pharos_connect::{Files, open_blobs};
use pharos_stream::coordination::MemoryCoordination;
use pharos_stream::io::Connectors;
use pharos_stream::{CheckpointOptions, Durability, RunOptions, StateMemory, run};

use crate::support::{options, plan};

/// How much memory a child may use, in KiB.
const LIMIT_KIB: u32 = 512 << 10;
/// How much of it is for state.
const BUDGET: usize = 24 << 20;
/// What each key holds at least.
const HELD: usize = 1000;
/// Together they hold more than twenty times as much, also without the tenth of them whose sessions may be over.
const KEYS: usize = 24 * BUDGET / HELD;

const DIRECTORY: &str = "PHAROS_TEST_DIRECTORY";
const BOUNDED: &str = "PHAROS_TEST_BOUNDED";

/// Each key holds a long text, of which only a little comes out.
fn document(windowing: &str) -> String {
    let long = "x".repeat(HELD);
    format!(
        "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {{path: in.json, watermark: {{timestamp: at, max_delay: 5s}}}}
    - type: MapToFields
      name: Long
      input: Read
      config:
        language: python
        fields: {{key: key, value: value, text: key + '{long}'}}
    - type: Combine
      name: Group
      input: Long
      windowing: {{{windowing}}}
      config:
        group_by: key
        combine:
          text: {{value: text, fn: max}}
          mean: {{value: value, fn: mean}}
    - type: MapToFields
      name: Short
      input: Group
      config:
        language: python
        fields: {{key: key, mean: mean}}
    - {{type: WriteToJson, name: Results, input: Short, config: {{path: results}}}}
"
    )
}

/// One row a second. Some keys come again, long after they have gone to disk.
fn write_input(directory: &Path) {
    let mut text = String::new();
    for row in 0..KEYS + KEYS / 5 {
        let first = if row < KEYS { row } else { KEYS / 3 + 3 * (row - KEYS) };
        let key = first * 7919 % KEYS;
        writeln!(text, r#"{{"key":"key-{key}","at":{row},"value":{}.1}}"#, row % 1013).unwrap();
    }
    std::fs::write(directory.join("in.json"), text).unwrap();
}

/// With a bound there are checkpoints, too.
fn run_in(directory: &Path, windowing: &str, state: Option<StateMemory>) {
    let durability = Durability {
        coordination: Arc::new(Mutex::new(MemoryCoordination::default())),
        checkpoints: Some(CheckpointOptions {
            interval: Duration::from_millis(500),
            blobs: open_blobs("checkpoints", directory).unwrap(),
        }),
    };
    let durability = state.is_some().then_some(durability);
    let options = RunOptions { state, durability, ..options(2) };
    let connectors: Arc<dyn Connectors> = Arc::new(Files::new(directory));
    run(&plan(&document(windowing), directory), &connectors, &options).unwrap();
}

/// Runs a test in a process of its own with little memory.
fn child(name: &str, directory: &Path, bounded: &str) -> bool {
    // Of a process's memory `ulimit -d` counts all that it can write to and shares with nobody.
    let limited = format!("ulimit -d {LIMIT_KIB} && exec \"$0\" --exact {name} --nocapture");
    let mut command = Command::new("sh");
    command.arg("-c").arg(limited).arg(std::env::current_exe().unwrap());
    command.env(DIRECTORY, directory).env(BOUNDED, bounded).output().unwrap().status.success()
}

/// Results of windows of some kind, with much memory and with little, in the test `name`.
fn twenty_times(name: &str, windowing: &str) {
    if let (Ok(directory), Ok(bounded)) = (std::env::var(DIRECTORY), std::env::var(BOUNDED)) {
        let directory = Path::new(&directory);
        let state = StateMemory { bytes: BUDGET, directory: directory.join("state") };
        return run_in(directory, windowing, Some(state).filter(|_| bounded == "yes"));
    }
    let [small, large] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    [&small, &large].into_iter().for_each(|directory| write_input(directory.path()));
    assert!(!child(name, large.path(), "no"), "it does not fit in memory");
    assert!(child(name, small.path(), "yes"), "it does not need to");
    run_in(large.path(), windowing, None);
    let results = |directory: &Path| std::fs::read(directory.join("results-00000-of-00001")).unwrap();
    let results = [&small, &large].map(|directory| results(directory.path()));
    assert!(results[0].iter().filter(|byte| **byte == b'\n').count() >= KEYS);
    assert!(results[0] == results[1], "the results differ");
}

#[test]
fn state_of_twenty_times_its_memory_gives_the_bytes_of_state_in_memory() {
    let name = "memory::state_of_twenty_times_its_memory_gives_the_bytes_of_state_in_memory";
    twenty_times(name, "type: fixed, size: 100000000s");
}

#[test]
fn sessions_of_twenty_times_their_memory_give_the_bytes_of_sessions_in_memory() {
    let name = "memory::sessions_of_twenty_times_their_memory_give_the_bytes_of_sessions_in_memory";
    twenty_times(name, &format!("type: sessions, gap: {}s", KEYS * 9 / 10));
}
