//! The fuzzer: libFuzzer around one target of `node/fuzz`, built with the compiler's own counters.
//!
//! Owns the flags that count what is reached, a target directory of its own for what is built with them, so that nothing
//! else is built anew, and where the fuzzer keeps its findings: in the cache, until `--keep`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::setup;
use crate::shell::{cargo, run, run_quietly, say, step};

/// What LLVM counts for libFuzzer: edges, and what values are compared with. Stable compilers have it, too.
const COUNTERS: &str = "-Ctarget-cpu=x86-64-v2 -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Instrumented code is linked for a platform that is named, so that build scripts are not instrumented.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Longer inputs are slow, and show nothing that shorter ones do not.
const LONGEST: &str = "-max_len=2048";
/// The longest input of the committed corpus.
const LONGEST_KEPT: &str = "-max_len=512";

/// What is fuzzed, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The target: a directory of `node/fuzz/corpus`.
    target: String,
    /// Minutes of fuzzing.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Do not fuzz: add what was found to the committed corpus, as far as it reaches what the corpus does not.
    #[arg(long)]
    keep: bool,
    /// What else libFuzzer takes; `./x fuzz TARGET -- -help=1` lists it.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Fails when an input breaks a rule; the input stays, and its place is said.
pub(crate) fn run_fuzzer(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let corpora = layout.root("node/fuzz/corpus");
    let committed = corpora.join(&options.target);
    ensure!(committed.is_dir(), "there is no target {}: see {}", options.target, corpora.display());
    setup::cpp(layout)?;
    let copies = RunDir::create(layout)?;
    let program = step("building the fuzzer", || build(layout, &copies))?;
    let found = layout.cache(format!("fuzz/{}", options.target));
    std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut fuzzer = Command::new(program);
    fuzzer.env("PHAROS_FUZZ_TARGET", &options.target);
    if options.keep {
        fuzzer
            .args(["-set_cover_merge=1", "-use_counters=0", "-use_cmp=0", LONGEST_KEPT])
            .args([&committed, &found]);
        return step("keeping what was found", || run_quietly(fuzzer.args(&options.rest)));
    }
    // What breaks a rule lies beside the corpus, not in it.
    let broken = layout.cache(format!("fuzz/{}-", options.target));
    fuzzer.arg(format!("-artifact_prefix={}", broken.display())).args([LONGEST, "-print_final_stats=1"]);
    fuzzer.arg(format!("-max_total_time={}", (options.minutes * 60.0).ceil() as u64));
    let fuzzed = run(fuzzer.args(&options.rest).args([&found, &committed]));
    if fuzzed.is_err() {
        say(&format!(
            "the input is in {}-*; once the bug is mended it belongs into {}, under a name that says what it was",
            layout.cache(format!("fuzz/{}", options.target)).display(),
            committed.display(),
        ));
    }
    fuzzed
}

/// The directories of what is built with counters, one per profile.
pub(crate) fn built_in(layout: &Layout) -> PathBuf {
    layout.target.join("fuzz").join(PLATFORM)
}

/// Builds the fuzzer and gives the run's own copy.
fn build(layout: &Layout, copies: &RunDir) -> anyhow::Result<PathBuf> {
    let _lock = artifacts::lock_target(layout)?;
    let target = layout.target.join("fuzz");
    let args =
        ["build", "--quiet", "--package", "pharos-fuzz", "--features", "fuzzer", "--bin", "pharos-fuzz"];
    let mut command = cargo(layout, args);
    command.args(["--target", PLATFORM]).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", COUNTERS);
    run(&mut command)?;
    let program = copies.path().join("pharos-fuzz");
    artifacts::copy(&built_in(layout).join("debug/pharos-fuzz"), &program)?;
    Ok(program)
}
