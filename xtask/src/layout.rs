//! Where things are: the clone, the caches outside of it, the shared target directory.
//!
//! Owns every path that more than one command uses. Must not create or remove anything.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The directories that commands work in.
pub(crate) struct Layout {
    /// The clone.
    pub(crate) root: PathBuf,
    /// What outlives a clone: compilers' caches, Kubernetes' binaries, Python packages.
    pub(crate) cache: PathBuf,
    /// Cargo's target directory, which several clones may share.
    pub(crate) target: PathBuf,
}

impl Layout {
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        // At run time, not at compile time: the binary may have been built by another clone.
        let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
        let root = manifest.parent().context("xtask's directory has no parent")?.to_path_buf();
        let cache = PathBuf::from(variable("PHAROS_CACHE")?);
        let target = PathBuf::from(variable("CARGO_TARGET_DIR")?);
        anyhow::ensure!(target.is_absolute(), "CARGO_TARGET_DIR is not absolute: {}", target.display());
        Ok(Self { root, cache, target })
    }

    pub(crate) fn root(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn cache(&self, path: impl AsRef<Path>) -> PathBuf {
        self.cache.join(path)
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set; start this through ./x"))
}
