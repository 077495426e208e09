//! A Python environment outside the clone, one per content of its list of packages.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::layout::Layout;
use crate::setup::go::fingerprint;
use crate::shell::{run_quietly, say};

/// The `bin` directory of an environment with exactly what a file of the clone pins; `what` says what that is.
pub(crate) fn environment(layout: &Layout, requirements: &str, what: &str) -> anyhow::Result<PathBuf> {
    let requirements = layout.root(requirements);
    let text =
        std::fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let home = layout.cache(format!("python-{}", fingerprint([text.as_slice()])));
    let complete = home.join("complete");
    let bin = home.join("bin");
    if complete.exists() {
        return Ok(bin);
    }
    say(&format!("installing Python packages: {what}"));
    run_quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run_quietly(
        Command::new(bin.join("python"))
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"])
            .arg(&requirements),
    )?;
    std::fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(bin)
}
