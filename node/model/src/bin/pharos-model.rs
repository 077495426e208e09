//! `pharos-model`: exhausts the configurations and says how large they were.

use clap::Parser;
use pharos_model::{Bounds, LARGE, Report, SMALL, check};
use std::process::ExitCode;
use std::time::Instant;

/// Checks the shipped consensus core in every state within bounds.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Check the large configurations, too.
    #[arg(long)]
    large: bool,
    /// Only configurations whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Cut a configuration off after so many million steps.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut ok = true;
    for b in SMALL.iter().chain(LARGE) {
        if args.only.as_ref().is_some_and(|o| !b.name.contains(o.as_str())) { continue; }
        let t = Instant::now();
        let r = check(*b, args.limit * 1_000_000);
        println!("{:20} unique {} steps {} depth {} {} {:?} {:?}", b.name, r.unique, r.steps, r.depth, r.exhausted, t.elapsed(), r.met);
        if let Some(c) = r.broken { println!("{} {}", c.property, c.found); for a in c.actions { println!("   {a:?}"); } ok = false; }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
