//! What the tests share: running a document in a directory.

use std::path::Path;
use std::sync::Arc;

use pharos_beam::{Plan, SourceName, compile};
use pharos_connect::{Files, Sampler};
use pharos_stream::io::Connectors;
use pharos_stream::{Report, RunOptions, StreamError, run};

/// Options of a run without checkpoints.
pub(crate) fn options(threads: usize) -> RunOptions {
    RunOptions {
        threads,
        run: "test".to_owned(),
        listener: Arc::new(|_| {}),
        durability: None,
        stop: Arc::default(),
    }
}

/// The plan of a document whose paths start at `directory`.
pub(crate) fn plan(document: &str, directory: &Path) -> Plan {
    let files = Files::new(directory);
    match compile(document, SourceName::new("test.yaml"), &Sampler::new(&files)) {
        Ok(plan) => plan,
        Err(errors) => panic!("{errors}"),
    }
}

/// Runs a document.
pub(crate) fn execute(document: &str, directory: &Path, threads: usize) -> Result<Report, StreamError> {
    let connectors: Arc<dyn Connectors> = Arc::new(Files::new(directory));
    run(&plan(document, directory), &connectors, &options(threads))
}

/// The lines of an output of one shard.
pub(crate) fn lines(directory: &Path, name: &str) -> Vec<String> {
    let path = directory.join(format!("{name}-00000-of-00001"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}
