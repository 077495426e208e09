//! Our engine: a program of its own for each run, which reads Parquet and writes JSON.
//!
//! Owns the documents of the queries. Must not know how they are run. Invariant: each run begins in a directory without
//! an answer, on one core, and its CPU time is that of the whole program, with its start and its embedded Ensemble.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::answer::Answer;
use super::{Query, Run, files};
use crate::bench::children_cpu_time;
use crate::command::{describe, raw_output};
use crate::environment::our_binaries;

const DOCUMENT: &str = "query.yaml";
const ANSWER: &str = "answer.json-00000-of-00001";
/// A query's manifest for runs with checkpoints, up to its document. Like those without they are kept in a temporary
/// directory, wherever the manifest wants them.
const MANIFEST: &str = r"apiVersion: pharos.dev/v1alpha1
kind: Ensemble
metadata: {name: main}
spec:
  replicas: 1
  storage: {size: 1Gi}
---
apiVersion: pharos.dev/v1alpha1
kind: Pipeline
metadata: {name: query}
spec:
  ensembleRef: {name: main}
  checkpoint: {interval: 1s, location: 'file:///elsewhere'}
  pipeline: |
";

/// A query and its data in a directory.
pub(super) struct Pharos {
    query: Query,
    directory: TempDir,
}

impl Pharos {
    pub(super) fn new(query: Query, data: &Path, checkpoints: bool) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        for table in files::TABLES {
            let name = format!("{table}.parquet");
            std::os::unix::fs::symlink(data.join(&name), directory.path().join(&name))
                .with_context(|| format!("cannot link {name}"))?;
        }
        let document = if checkpoints { manifest(query) } else { document(query).to_owned() };
        fs::write(directory.path().join(DOCUMENT), document).context("cannot write a query")?;
        Ok(Self { query, directory })
    }

    /// Runs it; what that took, and the answer.
    pub(super) fn run(&self) -> anyhow::Result<(Run, Answer)> {
        let path = self.directory.path().join(ANSWER);
        if path.exists() {
            fs::remove_file(&path).context("cannot remove an answer")?;
        }
        let node = our_binaries()?.join("pharos-node");
        // With one core it has one thread, as the others do.
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0"]).arg(node).current_dir(self.directory.path());
        command.args(["local", "-f", DOCUMENT, "--client-addr", "127.0.0.1:0"]);
        let before = children_cpu_time()?;
        let ended = raw_output(&mut command)?;
        let seconds = (children_cpu_time()? - before).as_secs_f64();
        let log = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{}: {}\n{log}", describe(&command), ended.status);
        let checkpoints = log.lines().filter_map(checkpoint).collect();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let rows = text.lines().map(|line| row(self.query, line)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((Run { seconds, checkpoints }, Answer::of(rows)))
    }
}

fn manifest(query: Query) -> String {
    let lines = document(query).lines().map(|line| format!("    {line}\n"));
    MANIFEST.to_owned() + &lines.collect::<String>()
}

/// The bytes that a checkpoint wrote, if the line of the log tells of one.
fn checkpoint(line: &str) -> Option<u64> {
    let (_, sizes) = line.split_once(": checkpoint ")?.1.split_once(", ")?;
    sizes.split_once(" bytes written")?.0.split_once(" of ")?.0.parse().ok()
}

const fn document(query: Query) -> &'static str {
    match query {
        Query::Q1 => include_str!("queries/q1.yaml"),
        Query::Q4 => include_str!("queries/q4.yaml"),
        Query::Q5 => include_str!("queries/q5.yaml"),
        Query::Q7 => include_str!("queries/q7.yaml"),
        Query::Q8 => include_str!("queries/q8.yaml"),
        Query::Q11 => include_str!("queries/q11.yaml"),
    }
}

/// The fields of an answer's rows, in the order in which the other sides have them.
const fn fields(query: Query) -> &'static [&'static str] {
    match query {
        Query::Q1 => &["bids", "total"],
        Query::Q4 => &["category", "mean"],
        Query::Q5 => &["auction", "bids"],
        Query::Q7 => &["auction", "bidder", "price"],
        Query::Q8 => &["id", "name"],
        Query::Q11 => &["bidder", "bids"],
    }
}

fn row(query: Query, line: &str) -> anyhow::Result<Value> {
    let row: Value = serde_json::from_str(line).context("a row is JSON")?;
    let field = |name: &&str| {
        let value = row.get(name).cloned().unwrap_or_default();
        ensure!(value.is_string() || value.is_number(), "{line} has no {name}");
        Ok(whole(value))
    };
    fields(query).iter().map(field).collect::<anyhow::Result<Vec<_>>>().map(Value::Array)
}

/// A mean without its fraction, which the others' integers lack.
fn whole(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if value.is_f64() => Value::from(number.trunc() as i64),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_checkpoint_is_told_by_its_line() {
        assert_eq!(
            checkpoint("12:00:00  INFO query: checkpoint 7, 8192 of 9000 bytes written in 12 ms"),
            Some(8192)
        );
        assert_eq!(checkpoint("query: goes on from checkpoint 7"), None);
    }

    #[test]
    fn a_row_has_the_fields_of_the_query_without_fractions() {
        let mean = row(Query::Q4, r#"{"mean": 1234.75, "category": 10, "more": null}"#);
        assert_eq!(mean.unwrap(), json!([10, 1234]));
        assert_eq!(row(Query::Q8, r#"{"id": 1, "name": "ab"}"#).unwrap(), json!([1, "ab"]));
        let error = row(Query::Q5, r#"{"auction": 1, "bids": null}"#).unwrap_err();
        assert_eq!(error.to_string(), r#"{"auction": 1, "bids": null} has no bids"#);
    }
}
