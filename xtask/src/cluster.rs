//! Commands that need a Kubernetes cluster or the images that go into one.
//!
//! Must not know how the box works: that is `pharos-e2e`, which is built and run from here.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use clap::Subcommand;

use crate::artifacts::{self, RunDir, TestExecutable};
use crate::layout::Layout;
use crate::setup;
use crate::shell::{run, say, step};

/// The program of the crate `pharos-e2e`.
const E2E: &str = "pharos-e2e";
/// What goes into images.
const IMAGE_BINARIES: [&str; 2] = ["pharos-node", "pharos-operator"];

/// What is done with the box.
#[derive(Subcommand)]
pub(crate) enum BoxAction {
    /// Bring the cluster up; it stays until `box down`.
    Up {
        /// Also build and import the images and install the chart.
        #[arg(long)]
        install: bool,
    },
    /// Take the cluster down and remove what it left.
    Down,
    /// Run a program inside, with kubectl configured; a shell if none is given.
    Exec {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

pub(crate) fn run_box(layout: &Layout, action: &BoxAction) -> anyhow::Result<()> {
    let copies = RunDir::create(layout)?;
    artifacts::binaries(layout, &copies, &[E2E])?;
    match action {
        BoxAction::Up { install } => {
            let tools = Tools::set_up(layout)?;
            if *install {
                setup::cpp(layout)?;
                setup::announce_cold_build(layout);
                artifacts::binaries(layout, &copies, &IMAGE_BINARIES)?;
            }
            let mut command = artifacts::program(&copies, E2E);
            command.args(["box", "up"]).args(install.then_some("--install"));
            run(tools.give(layout, &mut command))
        }
        BoxAction::Down => run(artifacts::program(&copies, E2E).args(["box", "down"])),
        BoxAction::Exec { command } => {
            let tools = Tools::set_up(layout)?;
            run(tools
                .give(layout, artifacts::program(&copies, E2E).args(["box", "exec", "--"]).args(command)))
        }
    }
}

pub(crate) fn image(layout: &Layout, out: &Path) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::announce_cold_build(layout);
    let copies = RunDir::create(layout)?;
    step("building what goes into images", || {
        artifacts::binaries(layout, &copies, &[E2E])?;
        artifacts::binaries(layout, &copies, &IMAGE_BINARIES)
    })?;
    run(artifacts::program(&copies, E2E).current_dir(&layout.root).arg("image").arg(out))
}

/// The end-to-end tests alone.
pub(crate) fn e2e(layout: &Layout, name: Option<&str>) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    let tools = Tools::set_up(layout)?;
    setup::announce_cold_build(layout);
    let copies = RunDir::create(layout)?;
    let tests = artifacts::tests(layout, &copies, &["--test", "e2e"])?;
    artifacts::binaries(layout, &copies, &IMAGE_BINARIES)?;
    artifacts::binaries(layout, &copies, &[E2E])?;
    let test = tests.iter().find(|test| is_e2e(test)).context("pharos-e2e has no tests")?;
    kubernetes_tests(layout, &copies, &tools, test, name)
}

pub(crate) fn is_e2e(test: &TestExecutable) -> bool {
    test.source.ends_with("e2e/tests/it/main.rs")
}

/// Runs the tests on Kubernetes, one at a time, and removes what a killed box left.
pub(crate) fn kubernetes_tests(
    layout: &Layout,
    copies: &RunDir,
    tools: &Tools,
    test: &TestExecutable,
    name: Option<&str>,
) -> anyhow::Result<()> {
    let mut command = Command::new(&test.path);
    command.current_dir(&test.package).env("PHAROS_BIN_DIR", copies.path());
    command.args(["--test-threads=1", "kubernetes::"]).args(name);
    if name.is_some() {
        // libtest takes the union of its filters: leave the name alone.
        command = Command::new(&test.path);
        command
            .current_dir(&test.package)
            .env("PHAROS_BIN_DIR", copies.path())
            .arg("--test-threads=1")
            .args(name);
    }
    let result = run(tools.give(layout, &mut command));
    run(artifacts::program(copies, E2E).args(["box", "sweep"]))?;
    result
}

/// What the box is made of.
pub(crate) struct Tools {
    kubernetes: std::path::PathBuf,
    python: std::path::PathBuf,
}

impl Tools {
    pub(crate) fn set_up(layout: &Layout) -> anyhow::Result<Self> {
        if std::env::var_os("KUBECONFIG").is_some() {
            say("KUBECONFIG is set: that cluster is used and no box is brought up");
        } else {
            setup::kubernetes_packages()?;
        }
        Ok(Self { kubernetes: setup::kubernetes_binaries(layout)?, python: setup::python(layout)? })
    }

    /// Tells a program of `pharos-e2e` where they are.
    pub(crate) fn give<'a>(&self, layout: &Layout, command: &'a mut Command) -> &'a mut Command {
        command
            .env("PHAROS_KUBE_BIN", &self.kubernetes)
            .env("PHAROS_PYTHON", self.python.join("python"))
            .env("PHAROS_ROOT", &layout.root)
    }
}
