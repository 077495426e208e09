//! Format, lints and documentation.

use crate::artifacts;
use crate::layout::Layout;
use crate::setup;
use crate::shell::{self, cargo, step};

pub(crate) fn run(layout: &Layout) -> anyhow::Result<()> {
    format(layout)?;
    clippy(layout)?;
    documentation(layout)
}

pub(crate) fn format(layout: &Layout) -> anyhow::Result<()> {
    step("format", || run_cargo(layout, &["fmt", "--all", "--check"]))
}

pub(crate) fn clippy(layout: &Layout) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::announce_cold_build(layout);
    step("clippy", || {
        run_cargo(layout, &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })
}

pub(crate) fn documentation(layout: &Layout) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    step("documentation", || {
        let _lock = artifacts::lock_target(layout)?;
        // RUSTDOCFLAGS, unlike RUSTFLAGS, rebuilds no dependency.
        shell::run(
            cargo(layout, ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    })
}

fn run_cargo(layout: &Layout, args: &[&str]) -> anyhow::Result<()> {
    let _lock = artifacts::lock_target(layout)?;
    shell::run(&mut cargo(layout, args))
}
