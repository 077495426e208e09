//! Where the tools are that `./x` has set up, as it says in environment variables.

use std::path::PathBuf;

use anyhow::Context;

/// The tools and the clone.
#[derive(Clone)]
pub struct Environment {
    /// The directory of kubectl, helm, kubelet and the control plane.
    pub kube_bin: PathBuf,
    /// A Python interpreter with kazoo and moto.
    pub python: PathBuf,
    /// The clone of this repository.
    pub root: PathBuf,
}

impl Environment {
    /// Reads the variables.
    ///
    /// # Errors
    /// If one is missing, which is so when the tests are not started by `./x`.
    pub fn read() -> anyhow::Result<Self> {
        Ok(Self { kube_bin: path("PHAROS_KUBE_BIN")?, python: path("PHAROS_PYTHON")?, root: root()? })
    }
}

/// The directory with this run's copies of our own binaries.
///
/// # Errors
/// If `./x` did not say where that is.
pub fn our_binaries() -> anyhow::Result<PathBuf> {
    path("PHAROS_BIN_DIR")
}

/// The node as it was before there were feature levels.
///
/// # Errors
/// If `./x` did not put it beside our own.
pub fn earlier_node() -> anyhow::Result<PathBuf> {
    let program = our_binaries()?.join("pharos-node-earlier");
    anyhow::ensure!(program.exists(), "{} is not there: start this by ./x test", program.display());
    Ok(program)
}

/// The clone of this repository.
///
/// # Errors
/// If `./x` did not say where that is.
pub fn root() -> anyhow::Result<PathBuf> {
    path("PHAROS_ROOT")
}

/// The directory for what outlives a run.
///
/// # Errors
/// If `./x` did not say where that is.
pub fn cache() -> anyhow::Result<PathBuf> {
    path("PHAROS_CACHE")
}

/// The program etcd.
///
/// # Errors
/// If `./x` did not say where that is.
pub fn etcd() -> anyhow::Result<PathBuf> {
    path("PHAROS_ETCD")
}

fn path(name: &str) -> anyhow::Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: start this by ./x test, ./x e2e or ./x box"))
}
