//! The node as it was at an earlier commit, to run beside the present one.
//!
//! Owns which commit that is, and its copy in the cache. Invariant: it is built once for a machine, in the same target
//! directory, so that its dependencies are those that are there; what it leaves there passes for nobody's build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::setup;
use crate::shell::{cargo, run, say, step};

/// The last commit that knows of no feature levels: a volume of an Ensemble at a higher level is not for it.
const COMMIT: &str = "a43e6eafcdcda3dcff13c1450a6985aeecf751c6";
/// Its name among a run's programs.
const NAME: &str = "pharos-node-earlier";

/// The tests that need it.
pub(crate) const TESTS: &str = "levels::";

/// Puts a copy of it among the run's programs. `false` if that cannot be: a shallow clone whose origin does not give the
/// commit, on a machine that has not built it.
pub(crate) fn node(layout: &Layout, copies: &RunDir) -> anyhow::Result<bool> {
    let kept = layout.cache(format!("earlier-{}", &COMMIT[..12]));
    let program = kept.join(NAME);
    if !program.exists() {
        if !has_commit(layout) && !fetch_commit(layout) {
            say(&format!(
                "NOT TESTED: members of two versions ({TESTS}). This clone lacks commit {COMMIT}, whose node is run beside \
                 the present one: fetch the history with `git fetch --unshallow`"
            ));
            return Ok(false);
        }
        step("building the node of an earlier commit, once for this machine", || build(layout, &kept))?;
    }
    artifacts::copy(&program, &copies.path().join(NAME))?;
    Ok(true)
}

fn has_commit(layout: &Layout) -> bool {
    git_succeeds(layout, &["cat-file", "-e", &format!("{COMMIT}^{{commit}}")])
}

/// Of a shallow clone: the one commit, if the origin gives it.
fn fetch_commit(layout: &Layout) -> bool {
    git_succeeds(layout, &["fetch", "--quiet", "--depth", "1", "origin", COMMIT]) && has_commit(layout)
}

/// Where there is no git it does not succeed either.
fn git_succeeds(layout: &Layout, args: &[&str]) -> bool {
    let mut command = Command::new("git");
    command
        .current_dir(&layout.root)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn build(layout: &Layout, kept: &Path) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    let lock = artifacts::lock_target(layout)?;
    // Another run may have built it while this one waited.
    if kept.join(NAME).exists() {
        return Ok(());
    }
    let source = Source::check_out(layout, kept)?;
    setup::announce_cold_build(layout);
    let built = artifacts::build_of_others(layout, &lock, || {
        let mut command =
            cargo(layout, ["build", "--quiet", "--locked", "--workspace", "--bin", "pharos-node"]);
        run(command.current_dir(&source.0))
    })?
    .join("pharos-node");
    // Under its name only when it is whole.
    let half = kept.join(format!("{NAME}.part"));
    artifacts::copy(&built, &half)?;
    std::fs::rename(&half, kept.join(NAME)).context("cannot name the program")
}

/// The files of the commit, removed when it is built.
struct Source(PathBuf);

impl Source {
    fn check_out(layout: &Layout, kept: &Path) -> anyhow::Result<Self> {
        let source = Self(kept.join("source"));
        // What a killed run left.
        let _ = std::fs::remove_dir_all(&source.0);
        std::fs::create_dir_all(&source.0).with_context(|| format!("cannot make {}", source.0.display()))?;
        let archive = kept.join("source.tar");
        run(Command::new("git")
            .current_dir(&layout.root)
            .arg("archive")
            .arg("--output")
            .arg(&archive)
            .arg(COMMIT))?;
        run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source.0))?;
        std::fs::remove_file(&archive).context("cannot remove the archive")?;
        Ok(source)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
