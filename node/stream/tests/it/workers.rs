//! Runs of several workers, each with its own threads and connections, in this process.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pharos_connect::{Files, open_blobs};
use pharos_stream::checkpoint::{BlobError, Blobs};
use pharos_stream::coordination::MemoryCoordination;
use pharos_stream::io::{Connectors, Fault};
use pharos_stream::{
    CheckpointOptions, Event, Meters, Outcome, StateMemory, StreamError, WorkerOptions, work,
};

use crate::support::{Mortal, execute, plan};

const DOCUMENT: &str = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: 'in-*.json', watermark: {timestamp: at, max_delay: 20s}}
    - type: Combine
      name: Fixed
      input: Read
      windowing: {type: fixed, size: 10s}
      config:
        group_by: key
        combine: {rows: {value: value, fn: count}, mean: {value: value, fn: mean}, all: {value: word, fn: group}}
        error_handling: {output: late}
    - type: Combine
      name: Sliding
      input: Read
      windowing: {type: sliding, size: 10s, period: 4s}
      config: {group_by: key, combine: {sum: {value: value, fn: sum}}}
    - type: Combine
      name: Sessions
      input: Read
      windowing: {type: sessions, gap: 3s}
      config: {group_by: [key, word], combine: {sum: {value: value, fn: sum}}}
    - type: Combine
      name: Again
      input: Fixed
      config: {group_by: key, combine: {most: {value: rows, fn: max}}}
    - type: Join
      name: Joined
      input: {f: Fixed, m: Again}
      config: {type: left, equalities: [{f: key, m: key}, {f: rows, m: most}], fields: {f: [key, all], m: [most]}}
    - {type: WriteToJson, name: WriteFixed, input: Fixed, config: {path: fixed}}
    - {type: WriteToJson, name: WriteLate, input: Fixed.late, config: {path: late}}
    - {type: WriteToJson, name: WriteSliding, input: Sliding, config: {path: sliding}}
    - {type: WriteToJson, name: WriteSessions, input: Sessions, config: {path: sessions}}
    - {type: WriteToJson, name: WriteAgain, input: Again, config: {path: again}}
    - {type: WriteToJson, name: WriteJoined, input: Joined, config: {path: joined}}
";

const OUTPUTS: [&str; 6] = ["fixed", "late", "sliding", "sessions", "again", "joined"];

/// Keys that are one row each, all of them until the end.
const LARGE: &str = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: 'in-*.json', watermark: {timestamp: at, max_delay: 20s}}
    - type: Combine
      name: Group
      input: Read
      windowing: {type: WINDOWING}
      config: {group_by: [key, at, value], combine: {all: {value: word, fn: group}}}
    - {type: WriteToJson, name: Write, input: Group, config: {path: large}}
";

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(120);

fn write_input(directory: &Path, rows: u64) {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for file in 0..5 {
        let mut text = String::new();
        let mut now = 0;
        for _ in 0..rows + rows / 3 * file {
            now += next(4);
            let behind = if next(20) == 0 { next(120) } else { next(15) };
            let at = now.saturating_sub(behind);
            let (key, value, word) = (next(40), next(1000), next(3));
            writeln!(text, r#"{{"at":{at},"key":"k{key}","value":{value}.25,"word":"w{word}"}}"#).unwrap();
        }
        std::fs::write(directory.join(format!("in-{file}.json")), text).unwrap();
    }
}

fn outputs(directory: &Path) -> Vec<Vec<u8>> {
    let read = |name: &&str| std::fs::read(directory.join(format!("{name}-00000-of-00001"))).unwrap();
    OUTPUTS.iter().map(read).collect()
}

/// What a worker has told.
#[derive(Debug, Default)]
struct Told {
    checkpoints: AtomicU64,
    records: AtomicU64,
    workers: AtomicU64,
    generation: AtomicU64,
    leads: AtomicBool,
    meters: OnceLock<Arc<Meters>>,
    why: Mutex<Vec<String>>,
}

struct Worker {
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
    thread: JoinHandle<Result<Outcome, StreamError>>,
}

impl Worker {
    fn outcome(self) -> Result<Outcome, StreamError> {
        self.thread.join().unwrap()
    }
}

struct Job {
    directory: PathBuf,
    ensemble: MemoryCoordination,
    interval: Option<Duration>,
    document: String,
    /// How many bytes of memory state may take; none: as many as it needs.
    memory: Option<usize>,
    /// The blobs that were read as a whole.
    read: Arc<Mutex<Vec<String>>>,
    made: AtomicU64,
}

/// A store that notes what is read of it as a whole.
struct Noting {
    blobs: Arc<dyn Blobs>,
    read: Arc<Mutex<Vec<String>>>,
}

impl Blobs for Noting {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError> {
        self.blobs.put(name, bytes)
    }
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError> {
        self.blobs.create(name, bytes)
    }
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError> {
        self.read.lock().unwrap().push(name.to_owned());
        self.blobs.get(name)
    }
    fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
        self.blobs.range(name, range)
    }
    fn list(&self) -> Result<Vec<String>, BlobError> {
        self.blobs.list()
    }
    fn delete(&self, name: &str) -> Result<(), BlobError> {
        self.blobs.delete(name)
    }
}

impl Job {
    fn new(directory: &Path, interval: Option<Duration>) -> Self {
        let directory = directory.to_owned();
        let (ensemble, read) = (MemoryCoordination::default(), Arc::default());
        let document = DOCUMENT.to_owned();
        Self { directory, ensemble, interval, document, memory: None, read, made: AtomicU64::new(0) }
    }

    fn worker(&self, threads: usize) -> Worker {
        self.worker_of(threads, Arc::new(Files::new(&self.directory)))
    }

    fn worker_of(&self, threads: usize, connectors: Arc<dyn Connectors>) -> Worker {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let told = Arc::new(Told::default());
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let heard = Arc::clone(&told);
        let options = WorkerOptions {
            state: self.memory.map(|bytes| StateMemory {
                bytes,
                directory: self.directory.join(format!("state-{number}")),
            }),
            id: format!("w{number}"),
            name: format!("w{number}"),
            address: listener.local_addr().unwrap().to_string(),
            listener,
            threads,
            run: "/test".to_owned(),
            part: "test".to_owned(),
            events: Arc::new(move |event| match event {
                Event::Measured { meters } => drop(heard.meters.set(Arc::clone(meters))),
                Event::Checkpoint { .. } => drop(heard.checkpoints.fetch_add(1, Ordering::SeqCst)),
                Event::Read { records, .. } => drop(heard.records.fetch_add(*records, Ordering::SeqCst)),
                Event::Joined { generation, workers, leads } => {
                    heard.generation.store(*generation, Ordering::SeqCst);
                    heard.workers.store(*workers, Ordering::SeqCst);
                    heard.leads.store(*leads, Ordering::SeqCst);
                }
                Event::Interrupted { why } => heard.why.lock().unwrap().push(why.clone()),
                _ => {}
            }),
            coordination: Arc::new(Mutex::new(self.ensemble.clone())),
            roster: Box::new(self.ensemble.clone()),
            checkpoints: self.interval.map(|interval| CheckpointOptions {
                interval,
                blobs: Arc::new(Noting {
                    blobs: open_blobs("checkpoints", &self.directory).unwrap(),
                    read: Arc::clone(&self.read),
                }),
            }),
            stop: Arc::clone(&stop),
        };
        let plan = plan(&self.document, &self.directory);
        let thread = std::thread::spawn(move || work(&plan, &connectors, options));
        Worker { stop, told, thread }
    }
}

#[test]
fn three_workers_give_the_bytes_of_one() {
    let alone = tempfile::tempdir().unwrap();
    write_input(alone.path(), 3000);
    execute(DOCUMENT, alone.path(), 2).unwrap();
    let expected = outputs(alone.path());
    assert!(expected.iter().all(|bytes| !bytes.is_empty()));
    for interval in [None, Some(Duration::ZERO)] {
        let together = tempfile::tempdir().unwrap();
        write_input(together.path(), 3000);
        let job = Job::new(together.path(), interval);
        let workers: Vec<Worker> = [1, 2, 1].map(|threads| job.worker(threads)).into();
        for worker in workers {
            let told = Arc::clone(&worker.told);
            assert_eq!(worker.outcome().unwrap(), Outcome::Completed);
            assert_eq!(told.workers.load(Ordering::SeqCst), 3, "all took part");
            assert!(told.records.load(Ordering::SeqCst) > 0, "each has read");
            let peers = told.meters.get().unwrap().load().peers;
            let spoke = peers.iter().filter(|peer| peer.sent > 10_000 && peer.received > 10_000).count();
            assert_eq!(
                (peers.len(), spoke),
                (2, 2),
                "each has exchanged rows with the two others: {peers:?}"
            );
            assert_eq!(told.checkpoints.load(Ordering::SeqCst) > 0, interval.is_some());
        }
        assert_eq!(outputs(together.path()), expected, "with checkpoints each {interval:?}");
    }
}

/// Workers that come and go.
struct Crowd {
    job: Job,
    pace: Arc<AtomicU64>,
    /// The workers, and how many operations each has left.
    here: Vec<(Worker, Arc<AtomicU64>)>,
}

impl Crowd {
    fn add(&mut self, threads: usize) {
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let files = Mortal::new(&self.job.directory, &left).slow(&self.pace);
        self.here.push((self.job.worker_of(threads, Arc::new(files)), left));
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds() {
            let told =
                || self.here.iter().map(|(worker, _)| format!("{:?}; ", worker.told)).collect::<String>();
            let over = self.here.iter().any(|(worker, _)| worker.thread.is_finished());
            assert!(!over && Instant::now() < deadline, "{what}: not before the end: {}", told());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until all that are here work together.
    fn together(&self) {
        let count = self.here.len() as u64;
        self.until(&format!("{count} workers work together"), || {
            let newest =
                self.here.iter().map(|(worker, _)| worker.told.generation.load(Ordering::SeqCst)).max();
            self.here.iter().all(|(worker, _)| {
                worker.told.workers.load(Ordering::SeqCst) == count
                    && Some(worker.told.generation.load(Ordering::SeqCst)) == newest
            })
        });
    }

    /// Waits until each has read and a checkpoint holds it.
    fn advance(&self) {
        let now =
            |told: &Told| (told.records.load(Ordering::SeqCst), told.checkpoints.load(Ordering::SeqCst));
        let before: Vec<(u64, u64)> = self.here.iter().map(|(worker, _)| now(&worker.told)).collect();
        self.until("each reads, and a checkpoint begun after it counts", || {
            let later = |((worker, _), (read, kept)): (&(Worker, _), &(u64, u64))| {
                let (reads, keeps) = now(&worker.told);
                reads > *read && keeps > *kept + 1
            };
            self.here.iter().zip(&before).all(later)
        });
    }

    fn take(&mut self, leads: bool) -> (Worker, Arc<AtomicU64>) {
        let place =
            self.here.iter().position(|(worker, _)| worker.told.leads.load(Ordering::SeqCst) == leads);
        self.here.remove(place.unwrap())
    }
}

#[test]
fn workers_come_and_go_and_die_and_the_bytes_are_those_of_one() {
    let alone = tempfile::tempdir().unwrap();
    write_input(alone.path(), 50_000);
    execute(DOCUMENT, alone.path(), 2).unwrap();
    let together = tempfile::tempdir().unwrap();
    write_input(together.path(), 50_000);
    let mut crowd = Crowd {
        job: Job::new(together.path(), Some(Duration::ZERO)),
        pace: Arc::new(AtomicU64::new(100)),
        here: Vec::new(),
    };
    crowd.add(1);
    crowd.add(2);
    crowd.together();
    crowd.advance();
    // One comes.
    crowd.add(1);
    crowd.together();
    crowd.advance();
    // One that does not lead dies.
    let (worker, left) = crowd.take(false);
    left.store(0, Ordering::SeqCst);
    worker.outcome().unwrap_err();
    crowd.together();
    crowd.advance();
    // The one that leads leaves.
    let (worker, _) = crowd.take(true);
    worker.stop.store(true, Ordering::SeqCst);
    assert_eq!(worker.outcome().unwrap(), Outcome::Stopped);
    crowd.together();
    crowd.advance();
    crowd.add(2);
    crowd.together();
    crowd.advance();
    // The one that leads dies.
    let (worker, left) = crowd.take(true);
    left.store(0, Ordering::SeqCst);
    worker.outcome().unwrap_err();
    crowd.together();
    assert!(!together.path().join("fixed-00000-of-00001").exists(), "nothing is visible before the end");
    crowd.pace.store(0, Ordering::SeqCst);
    for (worker, _) in crowd.here {
        assert_eq!(worker.outcome().unwrap(), Outcome::Completed);
    }
    assert_eq!(outputs(together.path()), outputs(alone.path()));
    let left = std::fs::read_dir(together.path().join("checkpoints")).unwrap().count();
    assert!(left <= 8, "{left} files are left of the checkpoints: those of the last one and no more");
}

#[test]
fn who_survives_does_not_read_its_own_sorted_files_again() {
    for windowing in ["fixed, size: 100000000s", "sessions, gap: 100000000s"] {
        let document = LARGE.replace("WINDOWING", windowing);
        let alone = tempfile::tempdir().unwrap();
        write_input(alone.path(), 10_000);
        execute(&document, alone.path(), 2).unwrap();
        let together = tempfile::tempdir().unwrap();
        write_input(together.path(), 10_000);
        let job = Job::new(together.path(), Some(Duration::ZERO));
        let job = Job { memory: Some(1 << 20), document, ..job };
        let mut crowd = Crowd { job, pace: Arc::new(AtomicU64::new(100)), here: Vec::new() };
        crowd.add(1);
        crowd.add(1);
        crowd.together();
        // Sorted files, generation-thread-node-number, of both threads in the generation of both.
        let generation = crowd.here[0].0.told.generation.load(Ordering::SeqCst);
        let of = |names: &[String], thread: u32| {
            let prefix = format!("{generation}-{thread}-");
            names.iter().filter(|name| name.ends_with(".run") && name.starts_with(&prefix)).count()
        };
        let kept = || {
            let entries = std::fs::read_dir(together.path().join("checkpoints")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let names: Vec<String> = names.collect();
            [of(&names, 0), of(&names, 1)]
        };
        crowd.until("both have files in a checkpoint", || kept().iter().all(|files| *files > 0));
        crowd.advance();
        let (worker, left) = crowd.take(false);
        left.store(0, Ordering::SeqCst);
        worker.outcome().unwrap_err();
        crowd.together();
        let read = crowd.job.read.lock().unwrap().clone();
        // The one that leads is the first.
        assert_eq!((of(&read, 0), of(&read, 1) > 0), (0, true), "{read:?}");
        crowd.pace.store(0, Ordering::SeqCst);
        for (worker, _) in crowd.here {
            assert_eq!(worker.outcome().unwrap(), Outcome::Completed);
        }
        let written = |directory: &Path| std::fs::read(directory.join("large-00000-of-00001")).unwrap();
        assert!(written(together.path()) == written(alone.path()), "{windowing}: the results differ");
        let left = std::fs::read_dir(together.path()).unwrap();
        let left = left.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("state-")
        });
        assert_eq!(left.count(), 0, "nothing is left on the disks of workers");
    }
}

#[test]
fn a_row_that_fails_on_one_worker_is_told_by_all() {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), 3000);
    let path = directory.path().join("in-3.json");
    let text = std::fs::read_to_string(&path).unwrap().replacen("\"value\":1.25", "\"value\":\"one\"", 1);
    std::fs::write(&path, text).unwrap();
    let job = Job::new(directory.path(), Some(Duration::from_secs(10)));
    let workers: Vec<Worker> = [1, 1, 1].map(|threads| job.worker(threads)).into();
    for worker in workers {
        let error = worker.outcome().unwrap_err();
        assert!(error.fault() == Fault::User && error.to_string().contains("in-3.json"), "{error}");
    }
}

#[test]
fn an_input_that_is_not_there_ends_the_work_of_all() {
    let directory = tempfile::tempdir().unwrap();
    write_input(directory.path(), 100);
    let job = Job::new(directory.path(), Some(Duration::from_secs(10)));
    let workers: Vec<Worker> = [1, 1, 1].map(|threads| job.worker(threads)).into();
    // Each has compiled the document by now.
    for file in 0..5 {
        std::fs::remove_file(directory.path().join(format!("in-{file}.json"))).unwrap();
    }
    for worker in workers {
        let error = worker.outcome().unwrap_err();
        assert!(error.fault() == Fault::User && error.to_string().contains("in-*.json"), "{error}");
    }
}
