//! The example's Pipeline over millions of flights, beside DuckDB over the same file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::{children_cpu_time, median};
use crate::command::output;
use crate::environment::{cache, our_binaries, root};

const SCRIPT: &str = include_str!("flights.py");
const RESULTS: &str = "punctuality.json-00000-of-00001";
const LATE: &str = "late.json-00000-of-00001";

/// The example's Pipeline over the first `rows` flights of the whole file, and the same query by DuckDB, `rounds` times
/// in turn.
///
/// # Errors
/// If one side does not do its work, or ours loses a row.
pub fn pipeline(rows: usize, rounds: usize, parquet: &Path, python: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let flights = prepared(rows, parquet, python)?;
    fs::create_dir(dir.path().join("data")).context("cannot make a directory")?;
    std::os::unix::fs::symlink(&flights, dir.path().join("data/flights.jsonl"))
        .context("cannot link the flights")?;
    fs::copy(root()?.join("examples/flights.yaml"), dir.path().join("flights.yaml"))
        .context("cannot copy the example")?;
    let threads = std::thread::available_parallelism().context("cannot count the cores")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let _ = fs::remove_dir_all(dir.path().join("out"));
        let mut local = Command::new(our_binaries()?.join("pharos-node"));
        local.current_dir(dir.path()).args(["local", "-f", "flights.yaml", "--client-addr", "127.0.0.1:0"]);
        ours.push(timed(&mut local)?);
        let mut duckdb = Command::new(python);
        duckdb.args(["-c", SCRIPT, "query"]).arg(&flights).arg(dir.path().join("duckdb.json"));
        theirs.push(timed(duckdb.arg(threads.to_string()))?);
    }
    let (counted, late) = (
        counted(&dir.path().join("out").join(RESULTS))?,
        rows_of(&dir.path().join("out").join(LATE))?.count(),
    );
    ensure!(counted + late == rows, "{counted} flights counted and {late} late are not {rows}");
    println!("{rows} flights as JSON lines, {threads} threads, median of {rounds}; {late} late");
    println!("{:<28}{:>12}{:>12}{:>8}", "", "Pharos", "DuckDB", "ratio");
    let figure = |samples: &[Sample], pick: fn(&Sample) -> Duration| {
        rows as f64 / median(samples.iter().map(|sample| pick(sample).as_secs_f64()).collect())
    };
    for (name, pick) in [
        ("events per CPU-second", (|sample| sample.cpu) as fn(&Sample) -> Duration),
        ("events per second", |sample| sample.wall),
    ] {
        let (ours, theirs) = (figure(&ours, pick), figure(&theirs, pick));
        println!("{name:<28}{ours:>12.0}{theirs:>12.0}{:>8.2}", ours / theirs);
    }
    Ok(())
}

struct Sample {
    cpu: Duration,
    wall: Duration,
}

/// Runs a program; its time is that of its threads and of the children that it waited for.
fn timed(command: &mut Command) -> anyhow::Result<Sample> {
    let (start, before) = (Instant::now(), children_cpu_time()?);
    output(command)?;
    Ok(Sample { cpu: children_cpu_time()? - before, wall: start.elapsed() })
}

/// The flights as JSON lines, made on the first call of a machine.
fn prepared(rows: usize, parquet: &Path, python: &Path) -> anyhow::Result<PathBuf> {
    let path = cache()?.join(format!("flights-{rows}.jsonl"));
    if path.exists() {
        return Ok(path);
    }
    eprintln!("preparing {}", path.display());
    let part = path.with_extension("part");
    let mut make = Command::new(python);
    output(make.args(["-c", SCRIPT, "make"]).arg(parquet).arg(rows.to_string()).arg(&part))?;
    fs::rename(&part, &path).with_context(|| format!("cannot rename {}", part.display()))?;
    Ok(path)
}

fn rows_of(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<String>>> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(BufReader::new(file).lines().map(|line| line.context("cannot read a result")))
}

/// How many flights all results count together.
fn counted(path: &Path) -> anyhow::Result<usize> {
    let count = |line: anyhow::Result<String>| {
        let row: serde_json::Value = serde_json::from_str(&line?).context("a result is JSON")?;
        row["flights"].as_u64().map(|flights| flights as usize).context("a result counts flights")
    };
    rows_of(path)?.map(count).sum()
}
