//! All flights of 2001, for the benchmark: a file of an npm package, kept in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::layout::Layout;
use crate::setup::packages;
use crate::shell::{run_quietly, say};

const PACKAGE: &str = "vega-datasets@3.2.1";
const FILE: &str = "package/data/flights-3m.parquet";

/// The file, fetched on the first call of a machine.
pub(crate) fn parquet(layout: &Layout) -> anyhow::Result<PathBuf> {
    let home = layout.cache("vega-datasets-3.2.1");
    let file = home.join(FILE);
    if file.exists() {
        return Ok(file);
    }
    packages::ensure(packages::NPM)?;
    say(&format!("fetching the flights: {PACKAGE}"));
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    run_quietly(Command::new("npm").current_dir(&home).args(["pack", "--silent", PACKAGE]))?;
    let mut unpack = Command::new("tar");
    unpack.current_dir(&home).args(["--extract", "--gzip", "--file", "vega-datasets-3.2.1.tgz", FILE]);
    run_quietly(&mut unpack)?;
    Ok(file)
}
