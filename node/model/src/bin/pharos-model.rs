//! `pharos-model`: exhausts the configurations and says how large they were.

use clap::Parser;
use pharos_model::{Bounds, Counterexample, LARGE, Report, SMALL, check};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Checks the shipped consensus core in every state within bounds.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Check the large configurations, too: it takes long, and gigabytes of memory.
    #[arg(long)]
    large: bool,
    /// Only configurations whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Cut a configuration off after so many million steps; then it is not exhausted, which is said.
    #[arg(long, default_value_t = 100)]
    million_steps: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let more = if args.large { LARGE } else { &[] };
    let chosen = |b: &&Bounds| args.only.as_ref().is_none_or(|part| b.name.contains(part));
    let mut failed = false;
    for bounds in SMALL.iter().chain(more).filter(chosen) {
        let start = Instant::now();
        let report = check(*bounds, args.million_steps.saturating_mul(1_000_000));
        say(&describe(bounds, &report, start.elapsed()));
        failed |= complain(bounds, &report);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::print_stdout, reason = "this is the program's answer")]
fn say(line: &str) {
    println!("{line}");
}

fn describe(bounds: &Bounds, report: &Report, took: Duration) -> String {
    let end = match (report.exhausted, report.broken.is_some()) {
        (true, _) => "exhausted",
        (false, true) => "BROKEN",
        (false, false) => "cut off",
    };
    let Report { unique, depth, met, .. } = report;
    let met = met.join("; ");
    format!("{}\n  {bounds}\n  met: {met}\n  {end}: {unique} states, depth {depth}, {took:.1?}", bounds.name)
}

/// Says on stderr what is wrong, if something is.
fn complain(bounds: &Bounds, report: &Report) -> bool {
    if let Some(broken) = &report.broken {
        eprintln!("{}", tell(broken));
        return true;
    }
    let missing = report.missing(bounds);
    if report.exhausted && !missing.is_empty() {
        eprintln!("{}: never met: {}", bounds.name, missing.join(", "));
        return true;
    }
    false
}

fn tell(broken: &Counterexample) -> String {
    let mut text = format!("does not hold: {}", broken.property);
    for (number, action) in broken.actions.iter().enumerate() {
        let _ = write!(text, "\n  {}. {action:?}", number + 1); // Writing to a string does not fail.
    }
    if !broken.found.is_empty() {
        let _ = write!(text, "\n  {}", broken.found);
    }
    text
}
