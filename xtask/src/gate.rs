//! The whole gate, cheap checks first, the cluster last.
//!
//! Owns the order. Each step sets up what it needs and keeps its work in caches, so a killed run goes on from there.

use std::process::Command;

use anyhow::Context;

use crate::artifacts::{self, RunDir, TestExecutable};
use crate::cluster::{self, Tools};
use crate::layout::Layout;
use crate::shell::{cargo, run, step};
use crate::{chart, codegen, earlier, lint, model, setup, sim};

pub(crate) fn run_gate(layout: &Layout) -> anyhow::Result<()> {
    lint::format(layout)?;
    let copies = RunDir::create(layout)?;
    let has_earlier = earlier::node(layout, &copies)?;
    lint::clippy(layout)?;
    codegen::check(layout)?;
    lint::documentation(layout)?;
    let tests = step("building tests and programs", || {
        let tests = artifacts::tests(layout, &copies, &[])?;
        artifacts::binaries(
            layout,
            &copies,
            &["pharos-node", "pharos-operator", "pharos-e2e", "pharos-sim", "pharos-model"],
        )?;
        Ok(tests)
    })?;
    let (end_to_end, units): (Vec<_>, Vec<_>) = tests.iter().partition(|test| cluster::is_e2e(test));
    let end_to_end = end_to_end.first().context("pharos-e2e has no tests")?;
    step("unit and property tests", || {
        units.iter().try_for_each(|test| run(&mut executable(&copies, test)))?;
        let _lock = artifacts::lock_target(layout)?;
        run(&mut cargo(layout, ["test", "--quiet", "--workspace", "--doc"]))
    })?;
    sim::run_built(&copies, &sim::Options::gate())?;
    step("planted bugs", || planted_bugs(layout, "pharos-sim"))?;
    model::run_built(&copies, &model::Options::default())?;
    step("planted bugs, by the model", || planted_bugs(layout, "pharos-model"))?;
    step("planted bugs, by the core's own schedules", || planted_bugs(layout, "pharos-paxos"))?;
    step("planted bugs, by the log's tests", || planted_bugs(layout, "pharos-log"))?;
    setup::java()?;
    setup::networks()?;
    setup::clocks()?;
    let tools = Tools::set_up(layout)?;
    step("conformance with ZooKeeper's clients and server", || {
        let mut command = executable(&copies, end_to_end);
        command.args(["--skip", "kubernetes::"]);
        if !has_earlier {
            command.args(["--skip", earlier::TESTS]);
        }
        run(tools.give(layout, &mut command))
    })?;
    chart::check(layout)?;
    step("end to end on Kubernetes", || cluster::kubernetes_tests(layout, &copies, &tools, end_to_end, None))
}

const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

fn planted_bugs(layout: &Layout, package: &str) -> anyhow::Result<()> {
    let args = ["test", "--quiet", "--package", package, "--features", "planted-bugs", "--test", "it"];
    let _lock = artifacts::lock_target(layout)?;
    run(&mut cargo(layout, args))
}

fn executable(copies: &RunDir, test: &TestExecutable) -> Command {
    let mut command = Command::new(&test.path);
    // As cargo runs it: some tests find their fixtures so.
    command.current_dir(&test.package).env("CARGO_MANIFEST_DIR", &test.package);
    command.env("PHAROS_BIN_DIR", copies.path());
    // The same cases in every run; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for others.
    if std::env::var_os(PROPTEST_SEED).is_none() {
        command.env(PROPTEST_SEED, "1");
    }
    command
}
