//! What the commands need on the machine, piece by piece.
//!
//! Owns which piece depends on which. Each piece is pinned, silent when it is there already, and says plainly what is
//! missing when it may not install it.

mod compilers;
mod flights;
mod flink;
mod go;
mod packages;
mod python;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::layout::Layout;
use crate::shell::say;

/// A part of the set-up that can be asked for by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Piece {
    /// Compilers and headers that RocksDB is built with.
    Cpp,
    /// The container runtime and network tools that the Kubernetes box uses.
    Kubernetes,
    /// The network and disk tools of the hosts that members run on.
    Networks,
    /// The control plane, kubelet, kubectl and Helm, built from Go modules.
    Go,
    /// A Python environment with kazoo and the S3 server of the tests.
    Python,
    /// A Java runtime and Maven, for the differential test against ZooKeeper.
    Java,
}

pub(crate) fn run(layout: &Layout, pieces: &[Piece]) -> anyhow::Result<()> {
    let pieces = if pieces.is_empty() { Piece::value_variants() } else { pieces };
    for piece in pieces {
        match piece {
            Piece::Cpp => cpp(layout)?,
            Piece::Kubernetes => kubernetes_packages()?,
            Piece::Networks => networks()?,
            Piece::Go => drop(kubernetes_binaries(layout)?),
            Piece::Python => drop(python(layout)?),
            Piece::Java => java()?,
        }
    }
    Ok(())
}

/// What building RocksDB takes.
pub(crate) fn cpp(layout: &Layout) -> anyhow::Result<()> {
    packages::ensure(packages::CPP)?;
    compilers::cached(layout)
}

/// What the Kubernetes box takes besides Kubernetes itself.
pub(crate) fn kubernetes_packages() -> anyhow::Result<()> {
    packages::ensure(packages::KUBERNETES)
}

/// What members on hosts and disks of their own take.
pub(crate) fn networks() -> anyhow::Result<()> {
    packages::ensure(packages::NETWORKS)
}

/// What the test of a member with a wrong clock takes.
pub(crate) fn clocks() -> anyhow::Result<()> {
    packages::ensure(packages::CLOCKS)
}

/// What the differential test against ZooKeeper takes.
pub(crate) fn java() -> anyhow::Result<()> {
    packages::ensure(packages::JAVA)
}

/// An environment for the example's oracle: any Python does, so none is installed beside it.
pub(crate) fn python_interpreter() -> anyhow::Result<()> {
    packages::ensure(packages::PYTHON_INTERPRETER)
}

/// The directory of the Python environment's programs.
pub(crate) fn python(layout: &Layout) -> anyhow::Result<PathBuf> {
    packages::ensure(packages::PYTHON)?;
    python::environment(layout, "e2e/requirements.txt", "kazoo and the S3 server of the tests (1 minute)")
}

/// What the comparison with DuckDB takes: a Python interpreter that has it, and the file of all flights.
pub(crate) fn duckdb(layout: &Layout) -> anyhow::Result<(PathBuf, PathBuf)> {
    packages::ensure(packages::PYTHON)?;
    let bin = python::environment(layout, "e2e/requirements-bench.txt", "DuckDB")?;
    Ok((bin.join("python"), flights::parquet(layout)?))
}

/// What the comparison with Apache Flink takes: the Java class path of it and of what runs the queries.
pub(crate) fn flink(layout: &Layout) -> anyhow::Result<String> {
    flink::class_path(layout)
}

/// The program etcd, which the comparison starts, built if need be.
pub(crate) fn etcd(layout: &Layout) -> anyhow::Result<PathBuf> {
    go::etcd(layout)
}

/// The directory of Kubernetes' binaries, built if need be.
pub(crate) fn kubernetes_binaries(layout: &Layout) -> anyhow::Result<PathBuf> {
    go::kubernetes(layout)
}

/// Warns once that the first build of RocksDB takes long.
pub(crate) fn announce_cold_build(layout: &Layout) {
    let built = std::fs::read_dir(layout.target.join("debug/deps")).is_ok_and(|files| {
        files.flatten().any(|f| f.file_name().to_string_lossy().starts_with("librocksdb-"))
    });
    if !built {
        say(
            "the first build compiles RocksDB and all dependencies: 15 to 30 minutes on two cores; later ones seconds",
        );
    }
}
