//! What is kept of a run in which something was wrong, and its history checked once more.
//!
//! Must not know what was wrong.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use pharos_history::{History, Report};

use super::strike::Field;
use super::{LIMITS, Options, archive};
use crate::command::output;

const HISTORY: &str = "history.json";

/// Ends the members, and copies their logs, their volumes and the history.
pub(super) fn keep(
    options: &Options,
    window: usize,
    history: &History,
    field: &mut Field,
) -> anyhow::Result<PathBuf> {
    let name = format!("seed-{}-members-{}-window-{window}", options.seed, options.members);
    let place = options.keep.join(name);
    std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    std::fs::write(place.join(HISTORY), archive::write(history).to_string())
        .context("cannot write a history")?;
    for member in 0..field.ensemble.size() {
        // It may have ended by itself.
        let _ = field.ensemble.kill(member);
        let copy = place.join(format!("volume-{member}"));
        output(Command::new("cp").arg("-a").arg(field.ensemble.data_dir(member)?).arg(&copy))?;
        let log = place.join(format!("member-{member}.log"));
        std::fs::write(log, field.ensemble.log_of(member)?).context("cannot write a log")?;
    }
    Ok(place)
}

/// Checks a history that was kept in the directory.
///
/// # Errors
/// If it cannot be read.
pub fn recheck(place: &Path) -> anyhow::Result<Report> {
    let path = place.join(HISTORY);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let value = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let history = archive::read(&value).with_context(|| format!("{} is no history", path.display()))?;
    Ok(pharos_history::check(&history, LIMITS))
}
