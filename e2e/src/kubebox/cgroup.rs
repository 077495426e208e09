//! The cgroups that the box's pods live under, on machines with cgroup v1, v2 or both.
//!
//! The name is random: two boxes on one machine, even from different roots, must not remove each other's pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::command::wait_until;

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the root of the box's cgroups in every hierarchy, notes its name in `dir`, and gives it.
pub(super) fn create(dir: &Path) -> anyhow::Result<String> {
    let random = dir.file_name().context("the box's directory has a name")?.to_string_lossy().to_lowercase();
    let name = format!("{random}-{}", std::process::id());
    fs::write(dir.join("cgroup"), &name).context("cannot note the cgroup's name")?;
    for hierarchy in hierarchies() {
        let path = hierarchy.join(&name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    if is_v2() {
        delegate(&name)?;
    } else {
        let cpuset = Path::new(ROOT).join("cpuset");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // A v1 cpuset starts empty and takes no process until it is filled.
            fs::copy(cpuset.join(file), cpuset.join(&name).join(file))
                .with_context(|| format!("cannot set {file}"))?;
        }
    }
    Ok(name)
}

/// Removes the cgroups that the box of `dir` made, deepest first.
pub(super) fn remove(dir: &Path) -> anyhow::Result<()> {
    let Ok(name) = fs::read_to_string(dir.join("cgroup")) else { return Ok(()) };
    // On a machine with both versions, runc makes cgroups in the unified tree by itself.
    for hierarchy in hierarchies().into_iter().chain([Path::new(ROOT).join("unified")]) {
        let path = hierarchy.join(&name);
        // Killed processes leave their cgroup a moment later.
        wait_until(&format!("the end of {}", path.display()), Duration::from_secs(20), || {
            remove_tree(&path).map(Some)
        })?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Where a cgroup of ours is made: the one tree of v2, or each tree of v1.
fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![PathBuf::from(ROOT)];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let trees = entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.ends_with("unified"));
    trees.collect()
}

/// Hands the controllers down to the pods' cgroups.
fn delegate(name: &str) -> anyhow::Result<()> {
    for parent in [PathBuf::from(ROOT), Path::new(ROOT).join(name)] {
        let file = parent.join("cgroup.controllers");
        let available =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for controller in available.split_whitespace() {
            // Not every controller can be handed down everywhere; kubelet says which one it misses.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}
