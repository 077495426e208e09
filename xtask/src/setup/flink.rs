//! Apache Flink, and what runs queries in it: the jars of a Python package, and the classes of `e2e/flink`.
//!
//! Owns the cache of the classes: one directory per content of their sources.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::layout::Layout;
use crate::setup::go::fingerprint;
use crate::setup::{packages, python};
use crate::shell::run_quietly;

const SOURCES: [&str; 4] = ["ColumnFile.java", "ColumnSource.java", "ColumnTables.java", "Nexmark.java"];

/// The Java class path, installed and compiled on the first call of a machine.
pub(crate) fn class_path(layout: &Layout) -> anyhow::Result<String> {
    packages::ensure(packages::PYTHON)?;
    packages::ensure(packages::JDK)?;
    let bin = python::environment(layout, "e2e/requirements-flink.txt", "Apache Flink (330 MB)")?;
    let jars = jars(&bin)?;
    let classes = classes(layout, &jars)?;
    // The sources' directory has the list of services.
    let parts = [classes, layout.root("e2e/flink"), jars];
    Ok(parts.map(|path| path.display().to_string()).join(":"))
}

/// All jars of the environment, as Java has it in a class path.
fn jars(bin: &std::path::Path) -> anyhow::Result<PathBuf> {
    let home = bin.parent().context("an environment's programs are in a directory of it")?;
    let libraries = home.join("lib");
    let pythons = std::fs::read_dir(&libraries);
    let pythons = pythons.with_context(|| format!("cannot read {}", libraries.display()))?;
    let mut places = pythons.flatten().map(|python| python.path().join("site-packages/pyflink/lib"));
    let place = places.find(|place| place.exists()).context("the environment has no Flink")?;
    Ok(place.join("*"))
}

fn classes(layout: &Layout, jars: &std::path::Path) -> anyhow::Result<PathBuf> {
    let sources = SOURCES.map(|name| layout.root("e2e/flink/nexmark").join(name));
    let mut contents = vec![jars.as_os_str().as_encoded_bytes().to_vec()];
    for source in &sources {
        contents.push(std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?);
    }
    let home = layout.cache(format!("flink-{}", fingerprint(contents.iter().map(Vec::as_slice))));
    if home.exists() {
        return Ok(home);
    }
    let part = home.with_extension("part");
    let mut javac = Command::new("javac");
    run_quietly(javac.arg("-d").arg(&part).arg("-cp").arg(jars).args(sources))?;
    std::fs::rename(&part, &home).with_context(|| format!("cannot name {}", home.display()))?;
    Ok(home)
}
