//! Apache Flink: one JVM for each query, in which its runs follow one another.
//!
//! Owns how it is started and told to run. Must not know what it does inside: that is `e2e/flink`. Invariant: the first
//! run, with which the JVM becomes warm, gives the answer; runs that are measured write nowhere.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::Query;
use super::answer::Answer;
use crate::command::Running;
use crate::environment::root;

/// Flink copies with Kryo, and looks into the closures it is given.
const OPENED: [&str; 6] = ["java.lang", "java.lang.invoke", "java.net", "java.nio", "java.time", "java.util"];
/// Enough for all bids and auctions of q4, which Flink keeps as objects.
const HEAP: &str = "-Xmx8g";
/// Between the file of the answer and its end.
const ANSWERED: &str = "answered";

/// A JVM that waits for the next run.
pub(super) struct Flink {
    _process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    directory: TempDir,
}

impl Flink {
    /// Starts it and runs the query once, for the answer.
    pub(super) fn start(query: Query, data: &Path, class_path: &str) -> anyhow::Result<(Self, Answer)> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let answer = directory.path().join("answer");
        let log = fs::File::create(directory.path().join("log")).context("cannot make a log")?;
        let mut command = Command::new("java");
        command.args([HEAP, "-XX:+UseG1GC", "-cp", class_path]);
        for package in OPENED {
            command.args(["--add-opens", &format!("java.base/{package}=ALL-UNNAMED")]);
        }
        command.arg("nexmark.Nexmark");
        command.arg(root()?.join(format!("e2e/flink/queries/{}.sql", query.name())));
        command.args([data, &answer]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Running::start(&mut command)?;
        let input = process.stdin.take().context("its input is a pipe")?;
        let output = BufReader::new(process.stdout.take().context("its output is a pipe")?);
        let mut flink = Self { _process: process, input, output, directory };
        let line = flink.line()?;
        ensure!(line == ANSWERED, "Flink says {line:?} instead of {ANSWERED:?}");
        let text = fs::read_to_string(&answer).context("cannot read Flink's answer")?;
        let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
        Ok((flink, Answer::of(rows.context("a row of Flink's is not JSON")?)))
    }

    /// Runs it once more; the CPU time in seconds.
    pub(super) fn run(&mut self) -> anyhow::Result<f64> {
        self.input.write_all(b"\n").context("cannot write to Flink")?;
        let line = self.line()?;
        let nanos: f64 = line.parse().with_context(|| format!("Flink says {line:?} instead of a time"))?;
        Ok(nanos / 1e9)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read from Flink")?;
        if line.is_empty() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            anyhow::bail!("Flink has ended:\n{log}");
        }
        Ok(line.trim_end().to_owned())
    }
}
