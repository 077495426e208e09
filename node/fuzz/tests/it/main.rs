//! The corpus, and a bounded number of mutations of it, through every target: always the same ones.

use std::path::{Path, PathBuf};

use pharos_fuzz::{TARGETS, Target, mutated};

/// The inputs of a target, by name.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = std::fs::read_dir(&directory).expect("every target has a corpus");
    let mut inputs: Vec<_> = files
        .map(|file| {
            let path = file.expect("the corpus is readable").path();
            let input = std::fs::read(&path).expect("the corpus is readable");
            (path, input)
        })
        .collect();
    inputs.sort();
    inputs
}

/// Says which input it was when the target panics.
struct Trying<'a>(&'a Path, Option<u64>);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is {}, mutation {:?}", self.0.display(), self.1);
        }
    }
}

/// Runs the corpus, then so many mutations.
fn replay(name: &str, mutations: u64) {
    let Target { run, .. } = TARGETS.into_iter().find(|target| target.name == name).expect("a target");
    let inputs = corpus(name);
    assert!(inputs.len() >= 10, "the corpus of {name} has {} inputs", inputs.len());
    for (path, input) in &inputs {
        let _trying = Trying(path, None);
        run(input);
    }
    for number in 0..mutations {
        let at = |n: u64| &inputs[(n % inputs.len() as u64) as usize];
        let ((path, input), (_, other)) = (at(number), at(number.wrapping_mul(7).wrapping_add(3)));
        let _trying = Trying(path, Some(number));
        run(&mutated(input, other, number));
    }
}

#[test]
fn a_client_may_say_anything() {
    replay("client", 2_000);
}

#[test]
fn a_peer_may_say_anything() {
    replay("peers", 20_000);
}

#[test]
fn a_damaged_log_gives_what_was_acknowledged_or_is_refused() {
    replay("log", 3_000);
}

#[test]
fn damaged_rows_are_refused() {
    replay("rows", 1_000);
}

#[test]
fn any_commands_have_the_same_effect_on_a_state_that_was_restored() {
    replay("apply", 5_000);
}

#[test]
fn any_entries_have_the_same_effect_on_a_member_that_was_restarted() {
    replay("entries", 1_000);
}

#[test]
fn a_state_arrives_as_it_was_sent_or_is_refused() {
    replay("snapshot", 1_000);
}

#[test]
fn every_target_has_a_test_and_the_corpus_stays_small() {
    let here = include_str!("main.rs");
    for target in TARGETS {
        assert!(here.contains(&format!("replay(\"{}\"", target.name)), "{} has no test", target.name);
    }
    let bytes: usize =
        TARGETS.iter().flat_map(|target| corpus(target.name)).map(|(_, input)| input.len()).sum();
    assert!(bytes <= 300_000, "the corpus has {bytes} bytes");
}
