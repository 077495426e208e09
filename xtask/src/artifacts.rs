//! Building the workspace's executables and taking copies of them.
//!
//! Owns the lock on the shared target directory: clones of this repository share one (RocksDB takes half an hour to
//! build), and another clone's build replaces executables there. Invariant: nothing is run from the target directory,
//! only from a run's own copies.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};

use crate::layout::Layout;
use crate::shell::cargo;

/// The directory of one run, removed when the run ends.
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    pub(crate) fn create(layout: &Layout) -> anyhow::Result<Self> {
        let runs = layout.cache("runs");
        sweep(&runs);
        // A step of a run may be a run too: each has a directory of its own.
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}.{number}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What stays behind is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of runs that were killed.
fn sweep(runs: &Path) {
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split('.').next()).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// An executable made of tests.
pub(crate) struct TestExecutable {
    pub(crate) path: PathBuf,
    /// The directory of its package, which tests are run in.
    pub(crate) package: PathBuf,
    /// The file that is its root.
    pub(crate) source: PathBuf,
}

/// Builds the named binaries with the features of the whole workspace and copies them to `run`.
///
/// Always the whole workspace's features: with `-p`, cargo would choose others and build dependencies twice.
pub(crate) fn binaries(layout: &Layout, run: &RunDir, names: &[&str]) -> anyhow::Result<()> {
    build_binaries(layout, run, names, &[])
}

/// The same, optimised and without assertions as a release is, for benchmarks. The dependencies are those of all other
/// builds, which are optimised anyway.
pub(crate) fn fast_binaries(layout: &Layout, run: &RunDir, names: &[&str]) -> anyhow::Result<()> {
    let settings = ["opt-level=3", "debug-assertions=false", "overflow-checks=false"];
    let config: Vec<_> = settings
        .iter()
        .flat_map(|setting| ["--config".to_owned(), format!("profile.dev.{setting}")])
        .collect();
    build_binaries(layout, run, names, &config)
}

fn build_binaries(layout: &Layout, run: &RunDir, names: &[&str], config: &[String]) -> anyhow::Result<()> {
    let _lock = lock_target(layout)?;
    let mut command = cargo(layout, ["build", "--quiet", "--workspace"]);
    command.args(config);
    for name in names {
        command.args(["--bin", name]);
    }
    crate::shell::run(&mut command)?;
    for name in names {
        copy(&layout.target.join("debug").join(name), &run.path().join(name))?;
    }
    Ok(())
}

/// Builds all tests, or those that cargo's `filter` names, and copies their executables to `run`.
pub(crate) fn tests(layout: &Layout, run: &RunDir, filter: &[&str]) -> anyhow::Result<Vec<TestExecutable>> {
    let _lock = lock_target(layout)?;
    let args = ["test", "--workspace", "--no-run", "--quiet", "--message-format=json-render-diagnostics"];
    let mut command = cargo(layout, args);
    let mut child = command.args(filter).stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo's stdout is a pipe")?;
    let mut built = Vec::new();
    for line in BufReader::new(stdout).lines() {
        built.extend(parse_artifact(&line.context("cannot read what cargo says")?));
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("cargo test --workspace --no-run: {status}");
    }
    let mut tests = Vec::new();
    for artifact in built {
        let name = artifact.executable.file_name().context("an executable has a name")?;
        let path = run.path().join(name);
        copy(&artifact.executable, &path)?;
        // What is not a test is a binary that integration tests start.
        if artifact.is_test {
            tests.push(TestExecutable { path, package: artifact.package, source: artifact.source });
        }
    }
    Ok(tests)
}

struct Artifact {
    executable: PathBuf,
    package: PathBuf,
    source: PathBuf,
    is_test: bool,
}

/// Reads one line of cargo's JSON, of which four plain strings matter: not worth a JSON library, which every
/// `./x --help` would have to build.
fn parse_artifact(line: &str) -> Option<Artifact> {
    if !line.starts_with(r#"{"reason":"compiler-artifact""#) {
        return None;
    }
    let string = |key: &str| {
        let (_, rest) = line.split_once(&format!(r#""{key}":""#))?;
        rest.split_once('"').map(|(value, _)| PathBuf::from(value))
    };
    Some(Artifact {
        executable: string("executable")?,
        package: string("manifest_path")?.parent()?.to_path_buf(),
        source: string("src_path")?,
        is_test: line.contains(r#""test":true},"features""#),
    })
}

/// Locks the shared target directory until the file is dropped. Cargo tells what is new by times alone, so what another
/// clone left there would pass for this one's: it forgets the workspace's own crates first. Dependencies stay.
pub(crate) fn lock_target(layout: &Layout) -> anyhow::Result<File> {
    std::fs::create_dir_all(&layout.target)
        .with_context(|| format!("cannot make {}", layout.target.display()))?;
    let path = layout.target.join("pharos.lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    let here = layout.root.as_os_str().as_encoded_bytes();
    let mut owner = Vec::new();
    file.read_to_end(&mut owner)?;
    if owner != here {
        forget_own_crates(&layout.target)?;
        let fuzzer = crate::fuzz::built_in(layout);
        if fuzzer.exists() {
            forget_own_crates(&fuzzer)?;
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(here)?;
    }
    Ok(file)
}

/// Builds what is not this clone's in the locked target directory, and gives where its programs are. Neither takes for
/// its own what the other built there, not even if this is killed.
pub(crate) fn build_of_others(
    layout: &Layout,
    lock: &File,
    build: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    lock.set_len(0)?;
    forget_own_crates(&layout.target)?;
    build()?;
    Ok(layout.target.join("debug"))
}

/// Removes cargo's notes that crates of the workspace were built, in every profile under `target`.
fn forget_own_crates(target: &Path) -> anyhow::Result<()> {
    for profile in std::fs::read_dir(target)?.flatten() {
        let notes = profile.path().join(".fingerprint");
        for note in std::fs::read_dir(notes).into_iter().flatten().flatten() {
            let name = note.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("pharos-") || name.starts_with("xtask-") {
                let path = note.path();
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// A copied program, told where the other copies are.
pub(crate) fn program(run: &RunDir, name: impl AsRef<Path>) -> Command {
    let mut command = Command::new(run.path().join(name));
    command.env("PHAROS_BIN_DIR", run.path());
    command
}
