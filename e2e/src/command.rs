//! Running programs and waiting for conditions, with errors that say what was run and what it said.

use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Runs a program to its end; what it printed is the answer, or the error.
///
/// # Errors
/// If it cannot be started or does not succeed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = describe(command);
    let output = raw_output(command)?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&text).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: its output is not UTF-8"))
}

/// Runs a program to its end, whatever that is.
///
/// # Errors
/// If it cannot be started.
pub fn raw_output(command: &mut Command) -> anyhow::Result<Output> {
    let line = describe(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {line}"))
}

/// Runs a program to its end, giving it `input`.
///
/// # Errors
/// If it cannot be started or does not succeed.
pub fn output_with_input(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let line = describe(command);
    // A file and not a pipe: nothing can block on it.
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    std::io::Write::write_all(&mut file, input.as_bytes()).context("cannot write a temporary file")?;
    std::io::Seek::rewind(&mut file).context("cannot rewind a temporary file")?;
    let output = command.stdin(file).output().with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&text).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: its output is not UTF-8"))
}

/// A program that runs, and is killed with this value.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {}", describe(command)))?;
        Ok(Self(child))
    }

    /// Kills it as kill -9 does, and waits for its end.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill().context("cannot kill a program")?;
        self.0.wait().context("cannot wait for a program").map(drop)
    }

    /// Asks it to end, as SIGTERM does, and waits until it has.
    ///
    /// # Errors
    /// If it does not within `limit`; it is killed then.
    pub fn stop(mut self, limit: Duration) -> anyhow::Result<()> {
        output(Command::new("kill").args(["-TERM", &self.0.id().to_string()]))?;
        wait_until("the end of a program", limit, || self.0.try_wait().context("cannot wait for a program"))
            .map(drop)
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program and its arguments on one line.
#[must_use]
pub fn describe(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

const POLL: Duration = Duration::from_millis(200);

/// Asks again and again until there is an answer; the last error or refusal is reported after `limit`.
///
/// # Errors
/// If `limit` passes first.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let last = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= limit {
            return match last {
                Some(error) => Err(error.context(format!("{what}: not within {limit:?}"))),
                None => bail!("{what}: not within {limit:?}"),
            };
        }
        std::thread::sleep(POLL);
    }
}
