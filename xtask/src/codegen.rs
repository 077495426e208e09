//! The generated files that are committed.

use crate::artifacts::{RunDir, binaries, program};
use crate::layout::Layout;
use crate::shell::{run, step};

/// Writes them anew.
pub(crate) fn write(layout: &Layout) -> anyhow::Result<()> {
    crds(layout, &[])
}

/// Fails if one of them is not what its source gives.
pub(crate) fn check(layout: &Layout) -> anyhow::Result<()> {
    step("generated files", || crds(layout, &["--check"]))
}

fn crds(layout: &Layout, args: &[&str]) -> anyhow::Result<()> {
    let copies = RunDir::create(layout)?;
    binaries(layout, &copies, &["crdgen"])?;
    run(program(&copies, "crdgen").current_dir(&layout.root).args(args))
}
