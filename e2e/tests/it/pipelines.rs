//! One Pipeline on several worker processes, each on a host of its own, beside one on a single worker and under faults.

use std::time::Duration;

use pharos_e2e::environment::Environment;
use pharos_e2e::pipelines::{Options, Outage, Verdict, outage, run};

/// `PHAROS_SEED` asks for other rows and faults.
fn options(calm: &[usize], length: Duration, rows: usize) -> Options {
    let seed = std::env::var("PHAROS_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let keep = std::env::temp_dir().join("pharos-pipelines");
    let (calm, faults) = (calm.to_vec(), Vec::new());
    Options { calm, workers: 3, faults, length, rows, little_memory: false, seed, keep }
}

fn verdict(options: &Options) -> Verdict {
    let verdict = run(options).unwrap();
    assert!(verdict.is_good(), "{verdict}");
    println!("{verdict}");
    verdict
}

#[test]
fn three_workers_write_the_same_bytes_as_one_and_what_the_oracle_says() {
    let verdict = verdict(&options(&[1, 3], Duration::ZERO, 2_000_000));
    assert_eq!((verdict.runs(), verdict.faults(), verdict.together()), (2, 0, 3), "{verdict}");
    // Nobody had to begin again, but for taking in two who may have come late.
    assert!(verdict.generations() <= 4, "{verdict}");
}

#[test]
fn no_row_is_lost_or_doubled_while_workers_are_killed_stopped_cut_off_and_exchanged() {
    let verdict = verdict(&options(&[], Duration::from_secs(75), 3_000_000));
    // A run that meets little proves little.
    assert!(verdict.faults() >= 4 && verdict.kinds() >= 4, "{verdict}");
    assert!(verdict.checkpoints() >= 5 && verdict.generations() >= 3, "{verdict}");
}

#[test]
fn no_row_is_lost_or_doubled_where_state_does_not_fit_in_memory_either() {
    let options = options(&[], Duration::from_secs(45), 600_000);
    let verdict = verdict(&Options { little_memory: true, ..options });
    assert!(verdict.faults() >= 3, "{verdict}");
    assert!(verdict.checkpoints() >= 5 && verdict.generations() >= 2, "{verdict}");
}

/// `PHAROS_OUTAGE_SECONDS` asks for a longer absence than it takes until workers say what they wait for; after ten minutes
/// they end.
#[test]
fn a_store_that_refuses_all_connections_is_named_and_waited_for_and_nothing_is_lost() {
    let seconds = std::env::var("PHAROS_OUTAGE_SECONDS").ok().map_or(0, |text| text.parse().unwrap());
    let python = Environment::read().unwrap().python;
    let length = Duration::from_secs(seconds);
    let absence = outage(&Outage { python, length, rows: 3_000_000, seed: 1 }).unwrap();
    assert!(absence.checkpoints.1 > absence.checkpoints.0, "{absence:?}");
    println!("{absence:?}");
}
