//! What the tests share: running a document in a directory, and files that fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pharos_beam::plan::{ReadSpec, WriteSpec};
use pharos_beam::schema::Schema;
use pharos_beam::{Plan, SourceName, compile};
use pharos_connect::{Division, Files, Sampler};
use pharos_stream::io::{
    AttemptId, ConnectError, Connectors, Encode, Last, Offset, PreparedOutput, Records, Settle, Sink, Split,
    Version,
};
use pharos_stream::{Report, RunOptions, StreamError, run};

/// Small files are divided as large ones are.
pub(crate) const DIVIDED: Division = Division { whole: 50_000, stripe: 20_000, lanes: 3, all: 1024 };
/// No file is.
pub(crate) const WHOLE: Division = Division { whole: u64::MAX, ..DIVIDED };

/// Options of a run without checkpoints.
pub(crate) fn options(threads: usize) -> RunOptions {
    RunOptions {
        state: None,
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

/// Files that take part in `left` more operations and then fail, as a process that is killed does.
pub(crate) struct Mortal {
    files: Files,
    left: Arc<AtomicU64>,
    /// How long a read takes, in milliseconds.
    pace: Arc<AtomicU64>,
    /// What comes before each write.
    before_write: Hook,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

impl Mortal {
    /// The files below `directory`, for `left` more operations.
    pub(crate) fn new(directory: &Path, left: &Arc<AtomicU64>) -> Self {
        Self {
            files: Files::new(directory),
            left: Arc::clone(left),
            pace: Arc::default(),
            before_write: Arc::new(|| {}),
        }
    }

    /// The same, with files divided in another way.
    pub(crate) fn divided(self, division: Division) -> Self {
        Self { files: self.files.divided(division), ..self }
    }

    /// The same, with something that comes before each write.
    pub(crate) fn before_write(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self { before_write: Arc::new(hook), ..self }
    }

    /// The same on a slow disk.
    pub(crate) fn slow(self, pace: &Arc<AtomicU64>) -> Self {
        Self { pace: Arc::clone(pace), ..self }
    }
}

fn live(left: &AtomicU64) -> Result<(), ConnectError> {
    let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    before.map(drop).map_err(|_| ConnectError::environment("killed"))
}

struct MortalSplit(Box<dyn Split>, Arc<AtomicU64>, Arc<AtomicU64>);

impl Split for MortalSplit {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn offset(&self) -> Offset {
        self.0.offset()
    }
    fn bytes(&self) -> Option<u64> {
        self.0.bytes()
    }
    fn done(&self) -> u64 {
        self.0.done()
    }
    fn version(&self) -> Version {
        self.0.version()
    }
    fn seek(&mut self, offset: Offset, version: Option<&Version>) -> Result<(), ConnectError> {
        self.0.seek(offset, version)
    }
    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        std::thread::sleep(Duration::from_millis(self.2.load(Ordering::SeqCst)));
        live(&self.1)?;
        self.0.read(records)
    }
    fn record(&self, position: u32) -> (String, String) {
        self.0.record(position)
    }
}

struct MortalSink(Box<dyn Sink>, Arc<AtomicU64>, Hook);

impl Sink for MortalSink {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), ConnectError> {
        (self.2)();
        for (at, bytes) in pieces.iter().enumerate() {
            // Half of what was to be written may be there.
            if live(&self.1).is_err() {
                let half = [&pieces[..at], &[&bytes[..bytes.len() / 2]]].concat();
                self.0.append(&half)?;
                return Err(ConnectError::environment("killed"));
            }
        }
        self.0.append(pieces)
    }
    fn prepare(&mut self, last: Last) -> Result<PreparedOutput, ConnectError> {
        live(&self.1)?;
        let prepared = self.0.prepare(last)?;
        // It may die before what it said is on the disk.
        let settle = |settle: Settle| -> Settle {
            let left = Arc::clone(&self.1);
            Arc::new(move || live(&left).and_then(|()| settle()))
        };
        Ok(PreparedOutput { settle: prepared.settle.into_iter().map(settle).collect(), ..prepared })
    }
}

impl Connectors for Mortal {
    fn splits(
        &self,
        read: &ReadSpec,
        schema: &Schema,
        wanted: &[bool],
    ) -> Result<Vec<Box<dyn Split>>, ConnectError> {
        let splits = self.files.splits(read, schema, wanted)?.into_iter();
        let mortal = |split| -> Box<dyn Split> {
            Box::new(MortalSplit(split, Arc::clone(&self.left), Arc::clone(&self.pace)))
        };
        Ok(splits.map(mortal).collect())
    }
    fn encoder(&self, write: &WriteSpec, schema: &Schema) -> Result<Arc<dyn Encode>, ConnectError> {
        self.files.encoder(write, schema)
    }
    fn sink(
        &self,
        write: &WriteSpec,
        schema: &Schema,
        attempt: AttemptId<'_>,
        prepared: Option<&str>,
    ) -> Result<Box<dyn Sink>, ConnectError> {
        let sink = self.files.sink(write, schema, attempt, prepared)?;
        Ok(Box::new(MortalSink(sink, Arc::clone(&self.left), Arc::clone(&self.before_write))))
    }
    fn commit(&self, write: &WriteSpec, prepared: &str) -> Result<Vec<String>, ConnectError> {
        live(&self.left)?;
        let files = self.files.commit(write, prepared)?;
        live(&self.left)?;
        Ok(files)
    }
}
