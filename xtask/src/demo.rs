//! The example on the embedded default, compared with an oracle that knows nothing of this code.

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::setup;
use crate::shell::step;

pub(crate) fn run_demo(layout: &Layout) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::python_interpreter()?;
    setup::announce_cold_build(layout);
    let copies = RunDir::create(layout)?;
    step("building pharos-node", || artifacts::binaries(layout, &copies, &["pharos-node"]))?;
    Ok(())
}
