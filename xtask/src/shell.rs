//! Running other programs, and telling the user what happens.
//!
//! Owns how a failed program is reported. Must not know which programs those are.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::layout::Layout;

/// Says what is being done, on stderr, so that a command's own output stays clean.
pub(crate) fn say(text: &str) {
    eprintln!("\x1b[1m==>\x1b[0m {text}");
}

/// Runs `work`, saying its name before and its duration after.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    say(name);
    let start = Instant::now();
    let result = work().with_context(|| format!("{name}: failed"))?;
    say(&format!("{name}: done in {:.0?}", start.elapsed()));
    Ok(result)
}

/// `cargo` in the clone.
pub(crate) fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(layout: &Layout, args: I) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(&layout.root).args(args);
    // What `cargo run` set for xtask is not meant for what xtask runs: a build script that looks at it would run anew, and
    // all that depends on it with it, whenever `cargo` and `./x` take turns.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program whose output the user sees.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Runs a program whose output the user sees only when it fails.
pub(crate) fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&text).trim_end());
    }
    Ok(())
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let mut line = words.join(" ");
    if line.len() > 200 {
        line = line.chars().take(200).collect::<String>() + "…";
    }
    line
}
