//! Apache Flink: one JVM for each query, in which its runs follow one another.
//!
//! Owns how it is started and told to run. Must not know what it does inside: that is `e2e/flink`. Invariant: the first
//! run, with which the JVM becomes warm, gives the answer; runs that are measured write nowhere.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::answer::Answer;
use super::{Nexmark, Query, Run};
use crate::command::Running;
use crate::environment::root;

/// Flink copies with Kryo, and looks into the closures it is given.
const OPENED: [&str; 6] = ["java.lang", "java.lang.invoke", "java.net", "java.nio", "java.time", "java.util"];
/// Enough for all bids and auctions of q4, which Flink keeps as objects.
const HEAP: &str = "-Xmx8g";
/// Between the file of the answer and its end.
const ANSWERED: &str = "answered";
const LOG: &str = "log";

/// A JVM that waits for the next run.
pub(super) struct Flink {
    _process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    directory: TempDir,
    /// How many checkpoints runs have completed so far.
    completed: usize,
}

impl Flink {
    /// Starts it and runs the query once, for the answer.
    pub(super) fn start(query: Query, data: &Path, options: &Nexmark) -> anyhow::Result<(Self, Answer)> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let answer = directory.path().join("answer");
        let log = fs::File::create(directory.path().join(LOG)).context("cannot make a log")?;
        let mut command = Command::new("java");
        command.args([HEAP, "-XX:+UseG1GC", "-cp", &options.class_path]);
        for package in OPENED {
            command.args(["--add-opens", &format!("java.base/{package}=ALL-UNNAMED")]);
        }
        let home = root()?.join("e2e/flink");
        if options.checkpoints {
            let settings = home.join("checkpoints.properties");
            command.arg(format!("-Dlog4j.configurationFile={}", settings.display()));
        }
        command.arg("nexmark.Nexmark");
        command.arg(home.join(format!("queries/{}.sql", query.name())));
        command.args([data, &answer]);
        if options.checkpoints {
            command.arg(directory.path().join("state"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Running::start(&mut command)?;
        let input = process.stdin.take().context("its input is a pipe")?;
        let output = BufReader::new(process.stdout.take().context("its output is a pipe")?);
        let mut flink = Self { _process: process, input, output, directory, completed: 0 };
        let line = flink.line()?;
        ensure!(line == ANSWERED, "Flink says {line:?} instead of {ANSWERED:?}");
        let text = fs::read_to_string(&answer).context("cannot read Flink's answer")?;
        flink.checkpoints()?;
        let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
        Ok((flink, Answer::of(rows.context("a row of Flink's is not JSON")?)))
    }

    /// Runs it once more; what that took.
    pub(super) fn run(&mut self) -> anyhow::Result<Run> {
        self.input.write_all(b"\n").context("cannot write to Flink")?;
        let line = self.line()?;
        let nanos: f64 = line.parse().with_context(|| format!("Flink says {line:?} instead of a time"))?;
        Ok(Run { seconds: nanos / 1e9, checkpoints: self.checkpoints()? })
    }

    /// The bytes of the checkpoints since the last call.
    fn checkpoints(&mut self) -> anyhow::Result<Vec<u64>> {
        let log = fs::read_to_string(self.directory.path().join(LOG)).context("cannot read Flink's log")?;
        let new: Vec<u64> = log.lines().filter_map(checkpoint).skip(self.completed).collect();
        self.completed += new.len();
        Ok(new)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read from Flink")?;
        if line.is_empty() {
            let log = fs::read_to_string(self.directory.path().join(LOG)).unwrap_or_default();
            anyhow::bail!("Flink has ended:\n{log}");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// The bytes of a checkpoint, if the line of the log tells of one that is completed.
fn checkpoint(line: &str) -> Option<u64> {
    let (_, statistics) = line.split_once("CheckpointStatistics ")?.1.split_once("dump = ")?;
    let statistics: Value = serde_json::from_str(statistics).ok()?;
    if statistics["status"] != "COMPLETED" {
        return None;
    }
    statistics["checkpointed_size"].as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_checkpoint_counts_when_it_is_completed() {
        let line = |status| {
            let dump = json!({"status": status, "checkpointed_size": 310, "state_size": 900});
            format!("12:00:00 DEBUG CheckpointStatistics (for jobID=9, checkpointId=1) dump = {dump}")
        };
        assert_eq!(checkpoint(&line("COMPLETED")), Some(310));
        assert_eq!(checkpoint(&line("FAILED")), None);
        assert_eq!(checkpoint("12:00:00 ERROR Caught exception"), None);
    }
}
