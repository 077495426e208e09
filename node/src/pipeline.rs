//! Pipelines in this process, for `local` and `check`.
//!
//! Owns: compiling a document with the data it names, running it with checkpoints through the
//! embedded Ensemble, and what is printed while it runs.
//! Must not know: how rows are processed.
//! Invariant: whose fault an error is decides the exit code; what a user can mend names the file.

use crate::failure::Failure;
use crate::local::PipelineJob;
use crate::local_manifests::LocalPipeline;
use crate::pipeline_progress::Progress;
use anyhow::anyhow;
use pharos_beam::plan::NodeKind;
use pharos_beam::{Plan, SourceName};
use pharos_connect::{Files, Sampler, open_blobs};
use pharos_crds::names::ZNODE_PIPELINES;
use pharos_stream::checkpoint::CheckpointSize;
use pharos_stream::coordination::{Paths, ZooKeeperCoordination};
use pharos_stream::io::{Connectors, Fault};
use pharos_stream::{CheckpointOptions, Durability, Event, Report, RunOptions, StateMemory, StreamError};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// From the end of one checkpoint to the start of the next, where a manifest does not say.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// The memory that is taken to be there if it cannot be told.
const UNKNOWN_MEMORY: u64 = 1 << 30;

/// Why a Pipeline does not run.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Whose fault it is.
    pub(crate) fault: Fault,
    /// What is said.
    pub(crate) text: String,
    /// Whether something is wrong with this process or its machine: another may do better.
    pub(crate) is_sick: bool,
}

impl Trouble {
    /// Trouble of which another process would have the same.
    pub(crate) fn new(fault: Fault, text: String) -> Self {
        Self { fault, text, is_sick: false }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble.fault {
            Fault::User | Fault::FullDisk | Fault::Denied => Self::users(anyhow!(trouble.text)),
            Fault::Environment => Self::ours(anyhow!(trouble.text)),
        }
    }
}

/// Checks what a document says, without the data it names.
pub(crate) fn check_local(pipeline: &LocalPipeline) -> Result<(), Failure> {
    let checked = pharos_beam::check(&pipeline.document, pipeline.source.clone());
    checked.map(drop).map_err(|errors| Failure::users(anyhow!("{errors}")))
}

/// Checks a Beam YAML file with the data it names, and prints what is wrong.
pub(crate) fn check(path: &Path) -> ExitCode {
    let checked = std::fs::read_to_string(path)
        .map_err(|error| Failure::users(anyhow!("{}: {error}", path.display())))
        .and_then(|document| {
            let files = Files::new(directory_of(path));
            let plan = compile(&document, SourceName::new(path.display().to_string()), &files)?;
            check_inputs(path, &plan, &files)?;
            Ok(plan)
        });
    match checked {
        Ok(plan) => {
            println!("{}: {} steps, nothing wrong", path.display(), plan.nodes.len());
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(),
    }
}

/// Opens what a plan reads, as a run does before anything else; a schema that is declared was not sampled.
fn check_inputs(path: &Path, plan: &Plan, files: &Files) -> Result<(), Trouble> {
    for node in &plan.nodes {
        let NodeKind::Read(read) = &node.kind else { continue };
        let schema = &node.outputs[0].schema;
        files.splits(read, schema, &vec![true; schema.fields.len()]).map_err(|error| {
            let (line, column) = (node.span.line, node.span.column);
            let text = format!("{}:{line}:{column}: transform `{}`: {error}", path.display(), node.name);
            Trouble::new(error.fault, text)
        })?;
    }
    Ok(())
}

/// Runs a Pipeline of a manifest to its end. Relative paths in it start at the manifest's directory.
pub(crate) fn run_local(job: PipelineJob) -> Result<(), Failure> {
    let PipelineJob { pipeline, data_dir, ensemble, state_bytes, stop } = job;
    let files = Files::new(directory_of(&pipeline.file));
    let plan = compile(&pipeline.document, pipeline.source.clone(), &files)?;
    let run_id = pipeline.spec.as_ref().map_or(0, |spec| spec.run_id);
    let paths = Paths::new(ZNODE_PIPELINES, &format!("local-{}", pipeline.name), &short_hash(&plan), run_id);
    let run = format!("{}-{run_id}", short_hash(&plan));
    let blobs = open_blobs(&format!("checkpoints/{run}"), &data_dir)
        .map_err(|error| Trouble::new(error.fault, error.message))?;
    let coordination = ZooKeeperCoordination::new(&ensemble.to_string(), paths, "local")
        .map_err(|error| Failure::ours(anyhow!("{error}")))?;
    let interval = pipeline.spec.as_ref().and_then(|spec| spec.checkpoint.as_ref());
    let interval = interval
        .and_then(|checkpoint| checkpoint.interval_seconds())
        .map_or(CHECKPOINT_INTERVAL, Duration::from_secs);
    let screen = Arc::new(Screen::new(&pipeline.name));
    let shown = Arc::clone(&screen);
    let options = RunOptions {
        threads: threads(),
        run,
        state: Some(StateMemory { bytes: state_bytes, directory: data_dir.join("state") }),
        listener: Arc::new(move |event: &Event| shown.show(event)),
        durability: Some(Durability {
            coordination: Arc::new(Mutex::new(coordination)),
            checkpoints: Some(CheckpointOptions { interval, blobs }),
        }),
        stop,
    };
    let connectors: Arc<dyn Connectors> = Arc::new(files);
    let ended = pharos_stream::run(&plan, &connectors, &options);
    screen.progress.end();
    match ended {
        Ok(report) => {
            summary(&pipeline.name, &report);
            Ok(())
        }
        // Ctrl-C is no failure; the next start with the same data directory goes on from here.
        Err(StreamError::Stopped) => Ok(()),
        Err(error) => Err(trouble(&pipeline.name, &error).into()),
    }
}

/// Compiles a document; reads that declare no schema are sampled.
pub(crate) fn compile(document: &str, source: SourceName, files: &Files) -> Result<Plan, Trouble> {
    let sampler = Sampler::new(files);
    pharos_beam::compile(document, source, &sampler)
        .map_err(|errors| Trouble::new(sampler.fault(), errors.to_string()))
}

/// An error of a run by whose fault it is.
pub(crate) fn trouble(name: &str, error: &StreamError) -> Trouble {
    let is_sick =
        matches!(error, StreamError::Spill(_) | StreamError::State { .. } | StreamError::PlanVersion(_));
    Trouble { is_sick, ..Trouble::new(error.fault(), format!("Pipeline {name}: {error}")) }
}

/// As many threads as the process may use cores.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many bytes of memory keyed state may take in each of so many Pipelines of this process.
pub(crate) fn state_bytes(pipelines: usize) -> usize {
    let limit = pharos_ensemble::memory_limit().unwrap_or(UNKNOWN_MEMORY);
    usize::try_from(limit / 4).unwrap_or(usize::MAX) / pipelines.max(1)
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn short_hash(plan: &Plan) -> String {
    plan.hash().to_string().chars().take(16).collect()
}

/// What is printed while a Pipeline runs.
struct Screen {
    name: String,
    late: Mutex<BTreeMap<String, u64>>,
    progress: Progress,
}

impl Screen {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), late: Mutex::default(), progress: Progress::on_terminal(name) }
    }

    fn show(&self, event: &Event) {
        let name = &self.name;
        self.progress.hear(event);
        match event {
            Event::WindowClosed { transform, window, results, closed } => {
                let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
                let late = late.get(transform).copied().unwrap_or_default();
                self.progress.say(&format!(
                    "{name}: window {closed:>4} {window} closed with {results} results; {late} late rows so far"
                ));
            }
            Event::LateDropped { transform, total, .. } => {
                self.late.lock().unwrap_or_else(PoisonError::into_inner).insert(transform.clone(), *total);
            }
            Event::Log { level, text, .. } => match level {
                pharos_beam::plan::LogLevel::Error => tracing::error!("{text}"),
                pharos_beam::plan::LogLevel::Info => tracing::info!("{text}"),
                pharos_beam::plan::LogLevel::Debug => tracing::debug!("{text}"),
            },
            Event::Restored { epoch } => {
                self.progress.say(&format!("{name}: goes on from checkpoint {epoch}"));
            }
            Event::Checkpoint { epoch, took, size: CheckpointSize { written, whole } } => {
                let millis = took.as_millis();
                tracing::info!(
                    "{name}: checkpoint {epoch}, {written} of {whole} bytes written in {millis} ms"
                );
            }
            Event::Written { files, .. } => {
                files.iter().for_each(|file| self.progress.say(&format!("{name}: wrote {file}")));
            }
            Event::Watermark { transform, watermark } => {
                tracing::debug!("{name}: watermark of {transform} at {watermark}");
            }
            _ => {}
        }
    }
}

fn summary(name: &str, report: &Report) {
    if report.already_completed {
        println!("{name}: had completed before; nothing to do");
        return;
    }
    for (transform, group) in &report.groups {
        println!(
            "{name}: {transform}: {} results in {} windows, {} of them closed before the input ended; {} rows dropped as late",
            group.results, group.windows_closed, group.windows_closed_before_end, group.late_dropped
        );
    }
    let read: u64 = report.records_read.values().sum();
    println!("{name}: completed after {read} records");
}
