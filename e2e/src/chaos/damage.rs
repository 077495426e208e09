//! Files that change while nobody looks.
//!
//! Owns the choice of file and place. Must not know what is in a file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::faults::Fault;
use pharos_crowd::Rng;

/// Does it to one file of a volume; says to which, and what.
pub(super) fn damage(volume: &Path, fault: Fault, rng: &mut Rng) -> anyhow::Result<(PathBuf, String)> {
    let (directory, cut) = match fault {
        Fault::CutLog => ("log", true),
        Fault::FlippedLog => ("log", false),
        Fault::CutStore => ("state", true),
        Fault::FlippedStore => ("state", false),
        other => bail!("{other} damages no file"),
    };
    let files = files(&volume.join(directory))?;
    let path = rng.pick(&files);
    let file = OpenOptions::new().read(true).write(true).open(&path).context("cannot open a file")?;
    let length = written(&file)?;
    let at = rng.index(usize::try_from(length).context("a file is too large")?) as u64;
    let what =
        if cut { format!("cut at byte {at} of {length}") } else { format!("a bit of byte {at} of {length}") };
    if cut {
        file.set_len(at).context("cannot cut a file")?;
    } else {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).context("cannot read a file")?;
        file.write_all_at(&[byte[0] ^ (1 << rng.index(8))], at).context("cannot write a file")?;
    }
    file.sync_all().context("cannot sync a file")?;
    let what = format!("{}: {what}", path.display());
    Ok((path, what))
}

/// The files with data in them, in the order of their names.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.context("cannot list a directory")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let counts = name.ends_with(".wal")
            || name.ends_with(".sst")
            || name.ends_with(".blob")
            || name.starts_with("MANIFEST")
            || name == "CURRENT";
        if counts && written(&File::open(&path).context("cannot open a file")?)? > 0 {
            files.push(path);
        }
    }
    files.sort_unstable();
    if files.is_empty() {
        bail!("{} has no files", directory.display());
    }
    Ok(files)
}

/// Up to where a file holds anything but zeros.
fn written(file: &File) -> anyhow::Result<u64> {
    const STEP: u64 = 1 << 20;
    let length = file.metadata().context("cannot measure a file")?.len();
    let mut buffer = vec![0; usize::try_from(STEP).unwrap_or_default()];
    let mut end = length;
    while end > 0 {
        let from = end.saturating_sub(STEP);
        let part = &mut buffer[..usize::try_from(end - from).unwrap_or_default()];
        file.read_exact_at(part, from).context("cannot read a file")?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}
