//! `pharos-sim`: runs seeds and says what they met.

use clap::Parser;
use pharos_sim::{Bounds, Coverage, Outcome, run};
use std::process::ExitCode;

/// Simulates whole Ensembles under faults, seed by seed.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events per seed, at least.
    #[arg(long, default_value_t = Bounds::default().events)]
    events: u64,
}

/// One seed in so many is run twice.
const TWICE: u64 = 50;

/// Runs a seed, and some of them again: the second run must be the first.
fn run_checked(seed: u64, bounds: Bounds) -> Result<Outcome, String> {
    let outcome = run(seed, bounds).map_err(|violation| violation.to_string())?;
    if seed.is_multiple_of(TWICE) && run(seed, bounds).as_ref() != Ok(&outcome) {
        return Err("determinism: a second run of the seed is another one".to_owned());
    }
    Ok(outcome)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let bounds = Bounds { events: args.events, ..Bounds::default() };
    let mut coverage = Coverage::default();
    for seed in args.seed..args.seed + args.seeds {
        match run_checked(seed, bounds) {
            Ok(outcome) => coverage.add(&outcome.coverage),
            Err(violation) => {
                eprintln!("seed {seed}: {violation}\nagain with: ./x sim --seeds 1 --seed {seed}");
                return ExitCode::FAILURE;
            }
        }
    }
    #[expect(clippy::print_stdout, reason = "this is the program's answer")]
    {
        println!("{} seeds, nothing broken\n{coverage}", args.seeds);
    }
    let missing = coverage.missing();
    if missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("never happened: {}; run more seeds", missing.join(", "));
    ExitCode::FAILURE
}
