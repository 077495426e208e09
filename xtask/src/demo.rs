//! The example on the embedded default, compared with an oracle that knows nothing of this code.

use std::process::Command;

use anyhow::Context;

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::setup;
use crate::shell::{run, say, step};

const MANIFESTS: &str = "examples/flights.yaml";
const ORACLE: &str = "examples/oracle.py";
/// Relative paths in a manifest start at its directory.
const OUT: &str = "examples/out";
const RESULTS: &str = "punctuality.json-00000-of-00001";
const LATE: &str = "late.json-00000-of-00001";

pub(crate) fn run_demo(layout: &Layout) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::python_interpreter()?;
    setup::announce_cold_build(layout);
    let copies = RunDir::create(layout)?;
    step("building pharos-node", || artifacts::binaries(layout, &copies, &["pharos-node"]))?;
    let out = layout.root(OUT);
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    say(&format!("pharos-node local -f {MANIFESTS}"));
    // Any free port: somebody's ZooKeeper may have the usual one.
    let mut local = artifacts::program(&copies, "pharos-node");
    local.current_dir(&layout.root).args(["local", "-f", MANIFESTS, "--client-addr", "127.0.0.1:0"]);
    run(&mut local)?;
    say("comparing the results and the late flights with the oracle");
    let mut oracle = Command::new("python3");
    run(oracle.arg(layout.root(ORACLE)).args([out.join(RESULTS), out.join(LATE)]))?;
    say(&format!("the results are in {OUT}; the pipeline is in {MANIFESTS}"));
    Ok(())
}
