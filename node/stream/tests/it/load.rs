//! What the counters of a run say while its sink is slow, and of splits that are behind.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pharos_beam::plan::{ReadSpec, WriteSpec};
use pharos_beam::schema::Schema;
use pharos_connect::Files;
use pharos_stream::io::{AttemptId, ConnectError, Connectors, Encode, Last, Sink, Split};
use pharos_stream::{Event, Load, Meters, RunOptions, TaskLoad, bottleneck, run, worst_splits};

use crate::support::{options, plan};

const DOCUMENT: &str = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: 'in-*.json', watermark: {timestamp: at, max_delay: 1s}}
    - {type: Filter, name: Odd, input: Read, config: {language: python, keep: 'value % 2 == 1'}}
    - {type: WriteToJson, name: Write, input: Odd, config: {path: out}}
";

/// How many rounds may wait in a queue.
const AHEAD: u64 = 8;
const ROWS: u64 = 512 * 60;

/// Counters, once there are any, and what they said at each write.
#[derive(Default)]
struct Watch {
    meters: OnceLock<Arc<Meters>>,
    seen: Mutex<Vec<Load>>,
}

/// Files whose writes take `pace`, and are watched.
struct Slow {
    files: Files,
    pace: Duration,
    watch: Arc<Watch>,
}

struct SlowSink(Box<dyn Sink>, Duration, Arc<Watch>);

impl Sink for SlowSink {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), ConnectError> {
        std::thread::sleep(self.1);
        self.2.seen.lock().unwrap().push(self.2.meters.get().unwrap().load());
        self.0.append(pieces)
    }
    fn prepare(&mut self, last: Last) -> Result<String, ConnectError> {
        self.0.prepare(last)
    }
}

impl Connectors for Slow {
    fn splits(&self, read: &ReadSpec, schema: &Schema) -> Result<Vec<Box<dyn Split>>, ConnectError> {
        self.files.splits(read, schema)
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
        Ok(Box::new(SlowSink(sink, self.pace, Arc::clone(&self.watch))))
    }
    fn commit(&self, write: &WriteSpec, prepared: &str) -> Result<Vec<String>, ConnectError> {
        self.files.commit(write, prepared)
    }
}

/// Runs the document on two threads; what was seen at each write, and at the end.
fn watched(directory: &Path, pace: Duration) -> (Vec<Load>, Load) {
    let watch = Arc::<Watch>::default();
    let connectors: Arc<dyn Connectors> =
        Arc::new(Slow { files: Files::new(directory), pace, watch: Arc::clone(&watch) });
    let hears = Arc::clone(&watch);
    let listener = Arc::new(move |event: &Event| {
        if let Event::Measured { meters } = event {
            hears.meters.set(Arc::clone(meters)).unwrap();
        }
    });
    run(&plan(DOCUMENT, directory), &connectors, &RunOptions { listener, ..options(2) }).unwrap();
    let seen = std::mem::take(&mut *watch.seen.lock().unwrap());
    (seen, watch.meters.get().unwrap().load())
}

/// Files of so many rows, a second apart; each begins when this says.
fn write_input(directory: &Path, begins: &[u64], rows: u64) {
    for (file, begin) in begins.iter().enumerate() {
        let mut text = String::new();
        for row in 0..rows {
            writeln!(text, r#"{{"at":{},"value":{row}}}"#, begin + row).unwrap();
        }
        std::fs::write(directory.join(format!("in-{file}.json")), text).unwrap();
    }
}

fn share(task: &TaskLoad, of: Duration) -> f64 {
    of.as_secs_f64() / (task.busy + task.blocked + task.idle + task.waiting).as_secs_f64()
}

#[test]
fn a_slow_sink_is_busy_and_keeps_its_sources_blocked_within_their_bounds() {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), &[0, 0, 0, 0], ROWS);
    let (seen, end) = watched(directory.path(), Duration::from_millis(20));
    // While all still read: at the end sources have nothing left to do.
    let reading = |load: &&Load| load.splits.iter().all(|split| !split.ended);
    let late = seen.iter().rfind(reading).unwrap();
    let task = |name: &str, thread: usize| {
        late.tasks.iter().find(|task| task.transform == name && task.thread == thread)
    };
    let (sink, thread) =
        [0, 1].into_iter().find_map(|thread| Some((task("Write", thread)?, thread))).unwrap();
    let beside = task("Read", 1 - thread).unwrap();
    assert!(share(sink, sink.busy) > 0.5, "{sink:?}");
    assert!(share(beside, beside.blocked) > 0.5, "{beside:?}");
    let found = bottleneck(&Load::default(), late).unwrap();
    assert_eq!((found.transform.as_str(), found.thread), ("Write", thread), "{found:?}");
    assert!(found.blocked > 0.5, "{found:?}");
    let queues: Vec<_> = seen.iter().flat_map(|load| &load.queues).collect();
    assert!(queues.iter().all(|queue| queue.channels == 2 && queue.transform == "Write"));
    let most = queues.iter().map(|queue| queue.rounds).max().unwrap();
    assert!((AHEAD..=2 * AHEAD).contains(&most), "{most} rounds wait in two queues");
    let flow = |name: &str| {
        let flow = end.flows.iter().find(|flow| flow.transform == name).unwrap();
        (flow.rows_in, flow.rows_out)
    };
    let rows = 4 * ROWS;
    assert_eq!(
        [flow("Read"), flow("Odd"), flow("Write")],
        [(0, rows), (rows, rows / 2), (rows / 2, rows / 2)]
    );
}

#[test]
fn the_lag_of_each_split_is_told_while_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), &[100_000, 0, 40_000], 512 * 20);
    let (seen, end) = watched(directory.path(), Duration::ZERO);
    let whole = |index: u32| {
        let path = directory.path().join(format!("in-{index}.json"));
        std::fs::metadata(path).unwrap().len()
    };
    // The first of them all have read a round of.
    let said = |load: &&Load| load.splits.iter().all(|split| split.highest.is_some() && !split.ended);
    let worst = worst_splits(&seen.iter().find(said).unwrap().splits, 10);
    let order: Vec<u32> = worst.iter().map(|lag| lag.split.index).collect();
    assert_eq!(order, [1, 2, 0]);
    // Threads are up to eight rounds apart.
    let apart = 8 * 512;
    for (lag, behind) in worst.iter().zip([100_000, 60_000, 0_u64]) {
        let told = lag.behind.unwrap().as_secs();
        assert!(told.abs_diff(behind) <= apart, "{lag:?} is {behind} s behind");
        let (offset, left) = (lag.split.offset, lag.left.unwrap());
        assert!(offset > 0 && offset + left == whole(lag.split.index), "{lag:?}");
        assert!(lag.split.file.ends_with(&format!("in-{}.json", lag.split.index)), "{lag:?}");
    }
    assert_eq!(worst_splits(&end.splits, 10), [], "who has ended is behind nobody");
    assert!(end.splits.iter().all(|split| split.ended && split.offset == whole(split.index)));
}
