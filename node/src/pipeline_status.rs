//! What a worker says about its Pipeline, over HTTP.
//!
//! Owns: the status and its JSON, the metrics, the little server for both.
//! Must not know: how the run goes on.
//! Invariant: an answer never waits for the run; it is a copy of counters.

use crate::failure::Failure;
use crate::pipeline_load::{Bottleneck, Split, Stretch, worst};
use crate::pipeline_metrics::{Labels, Page};
use crate::pipeline_progress::{Input, Pace, Progress};
use anyhow::Context;
use pharos_stream::checkpoint::CheckpointSize;
use pharos_stream::{Event, Load, Meters, Timestamp, Watermark};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a caller may take over its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of a request is read.
const LONGEST_REQUEST: u64 = 8 << 10;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkerState {
    /// It connects, compiles or restores.
    Starting,
    /// It reads and writes.
    Running,
    /// It has read its input to the end, and its output is committed.
    Completed,
    /// It cannot go on.
    Failed,
}

/// The answer of `/v1/pipeline`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    state: WorkerState,
    epoch: Option<u64>,
    watermark: Option<String>,
    late_dropped: u64,
    windows_closed: u64,
    message: Option<String>,
    document_hash: String,
    run_id: i64,
    worker: String,
    leads: bool,
    workers: Option<u64>,
    generation: Option<u64>,
    /// When the last checkpoint counted, if this process saw it.
    checkpoint_at: Option<String>,
    bottleneck: Option<Bottleneck>,
    /// The worst.
    splits: Vec<Split>,
}

#[derive(Debug)]
struct Known {
    answer: Answer,
    late: BTreeMap<String, u64>,
    windows: BTreeMap<String, u64>,
    watermarks: BTreeMap<String, Watermark>,
    dead_letters: BTreeMap<String, u64>,
    checkpoint: Option<Checkpoint>,
    stretch: Stretch,
}

impl Known {
    fn metrics(&self, page: &mut Page) {
        let counts = |of: &BTreeMap<String, u64>| -> Vec<(Labels, f64)> {
            of.iter()
                .map(|(transform, count)| (vec![("transform", transform.clone())], *count as f64))
                .collect()
        };
        let mut count = |name, help, of| page.family(name, "counter", help, counts(of));
        count("pharos_late_rows_total", "Rows dropped as late.", &self.late);
        count("pharos_windows_closed_total", "Windows closed.", &self.windows);
        count("pharos_dead_letters_total", "Rows sent to dead letters.", &self.dead_letters);
        let mut gauge = |name, help, value| page.family(name, "gauge", help, [(Labels::new(), value)]);
        if let Some(Checkpoint { seconds, size }) = self.checkpoint {
            gauge("pharos_checkpoint_duration_seconds", "How long the last checkpoint took.", seconds);
            let CheckpointSize { written, whole } = size;
            gauge("pharos_checkpoint_size_bytes", "What the last checkpoint wrote.", written as f64);
            let help = "What the last checkpoint consists of, also what earlier ones wrote.";
            gauge("pharos_checkpoint_full_size_bytes", help, whole as f64);
        }
        if let Some(epoch) = self.answer.epoch {
            gauge("pharos_checkpoint_epoch", "Number of the last committed checkpoint.", epoch as f64);
        }
    }
}

fn reads(page: &mut Page, pace: &Pace) {
    let mut family = |name, kind, help, of: fn(&Input) -> Option<u64>| {
        let value = |(transform, input): (&String, &Input)| {
            Some((vec![("transform", transform.clone())], of(input)? as f64))
        };
        page.family(name, kind, help, pace.inputs().iter().filter_map(value).collect::<Vec<_>>());
    };
    family("pharos_records_read_total", "counter", "Records read.", |input| Some(input.records));
    family("pharos_bytes_read_total", "counter", "Bytes read.", |input| Some(input.read));
    family("pharos_input_splits", "gauge", "Files, objects, or parts of large ones, to read.", |input| {
        Some(input.splits)
    });
    family("pharos_input_bytes", "gauge", "Bytes to read in all, where they are known.", |input| input.bytes);
    family("pharos_input_done_bytes", "gauge", "Bytes read, also by earlier processes.", |input| {
        Some(input.done)
    });
}

/// The time on the wall.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// In whole seconds, as the API writes it.
fn now_in_words() -> String {
    let micros = now().micros();
    Timestamp::from_micros(micros - micros.rem_euclid(1_000_000)).to_string()
}

/// The last checkpoint of this process.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    seconds: f64,
    size: CheckpointSize,
}

/// What a worker says.
pub(crate) struct Status {
    known: Mutex<Known>,
    /// From when a run begins.
    meters: Mutex<Option<Arc<Meters>>>,
    progress: Progress,
}

impl Status {
    /// A worker that starts.
    pub(crate) fn new(document_hash: &str, run_id: i64) -> Self {
        let answer = Answer {
            state: WorkerState::Starting,
            epoch: None,
            watermark: None,
            late_dropped: 0,
            windows_closed: 0,
            message: None,
            document_hash: document_hash.to_owned(),
            run_id,
            worker: String::new(),
            leads: false,
            workers: None,
            generation: None,
            checkpoint_at: None,
            bottleneck: None,
            splits: Vec::new(),
        };
        let known = Known {
            answer,
            late: BTreeMap::new(),
            windows: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            checkpoint: None,
            stretch: Stretch::default(),
        };
        Self { known: Mutex::new(known), meters: Mutex::default(), progress: Progress::in_log() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meters(&self) -> MutexGuard<'_, Option<Arc<Meters>>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says who the worker is.
    pub(crate) fn name(&self, name: &str) {
        name.clone_into(&mut self.known().answer.worker);
    }

    /// Says what the worker does now.
    pub(crate) fn set(&self, state: WorkerState, message: Option<String>) {
        let mut known = self.known();
        known.answer.state = state;
        known.answer.message = message;
        if state == WorkerState::Starting {
            // It takes part in nothing any more.
            (known.answer.leads, known.answer.workers, known.answer.generation) = (false, None, None);
        }
    }

    /// The last checkpoint that it knows of.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.known().answer.epoch
    }

    /// Takes news of the run.
    pub(crate) fn hear(&self, event: &Event) {
        self.progress.hear(event);
        let mut known = self.known();
        match event {
            // What the run of the document before came to says nothing of this one.
            Event::Measured { meters } => {
                *self.meters() = Some(Arc::clone(meters));
                known.stretch = Stretch::default();
            }
            Event::WindowClosed { transform, closed, .. } => {
                known.windows.insert(transform.clone(), *closed);
                known.answer.windows_closed = known.windows.values().sum();
            }
            Event::Watermark { transform, watermark } => {
                known.watermarks.insert(transform.clone(), *watermark);
                known.answer.watermark = known.watermarks.values().min().map(ToString::to_string);
            }
            Event::LateDropped { transform, total, .. } => {
                known.late.insert(transform.clone(), *total);
                known.answer.late_dropped = known.late.values().sum();
            }
            Event::DeadLetters { transform, rows } => {
                *known.dead_letters.entry(transform.clone()).or_default() += rows;
            }
            Event::Checkpoint { epoch, took, size } => {
                known.answer.epoch = Some(*epoch);
                known.answer.checkpoint_at = Some(now_in_words());
                known.checkpoint = Some(Checkpoint { seconds: took.as_secs_f64(), size: *size });
                tracing::info!(
                    epoch,
                    written = size.written,
                    whole = size.whole,
                    ms = took.as_secs_f64() * 1e3,
                    "checkpoint"
                );
            }
            Event::Joined { generation, workers, leads } => {
                let answer = &mut known.answer;
                (answer.state, answer.message, answer.leads) = (WorkerState::Running, None, *leads);
                (answer.workers, answer.generation) = (Some(*workers), Some(*generation));
                tracing::info!(generation, workers, leads, "takes part");
            }
            Event::Interrupted { why } => {
                known.answer.message = Some(why.clone());
                tracing::warn!("{why}");
            }
            Event::Restored { epoch } => {
                known.answer.epoch = Some(*epoch);
                tracing::info!(epoch, "goes on from a checkpoint");
            }
            Event::TakenOver { kept, begun } => {
                tracing::info!(?kept, ?begun, "takes the state of the document before over");
            }
            Event::Written { files, .. } => tracing::info!(?files, "wrote"),
            Event::Log { level, text, .. } => match level {
                pharos_beam::plan::LogLevel::Error => tracing::error!("{text}"),
                pharos_beam::plan::LogLevel::Info => tracing::info!("{text}"),
                pharos_beam::plan::LogLevel::Debug => tracing::debug!("{text}"),
            },
            _ => {}
        }
    }

    fn ready(&self) -> bool {
        matches!(self.known().answer.state, WorkerState::Running | WorkerState::Completed)
    }

    fn load(&self) -> Load {
        let meters = self.meters().clone();
        meters.map(|meters| meters.load()).unwrap_or_default()
    }

    fn json(&self) -> String {
        let load = self.load();
        let mut known = self.known();
        let bottleneck = known.stretch.bottleneck(Instant::now(), &load);
        let answer = Answer { bottleneck, splits: worst(&load), ..known.answer.clone() };
        serde_json::to_string(&answer).expect("plain data becomes JSON")
    }

    fn metrics(&self) -> String {
        let mut page = Page::default();
        self.known().metrics(&mut page);
        reads(&mut page, &self.progress.pace());
        crate::pipeline_load::metrics(&mut page, &self.load(), now());
        page.text()
    }

    fn answer(&self, path: &str) -> (u16, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "/livez" => (200, TEXT, "alive\n".to_owned()),
            "/readyz" if self.ready() => (200, TEXT, "ready\n".to_owned()),
            "/readyz" => (503, TEXT, "not ready\n".to_owned()),
            "/metrics" => (200, "text/plain; version=0.0.4", self.metrics()),
            "/v1/pipeline" => (200, "application/json", self.json()),
            _ => (404, TEXT, "there is no such page\n".to_owned()),
        }
    }
}

/// Answers on both addresses until the process ends.
pub(crate) fn serve(admin: SocketAddr, metrics: SocketAddr, status: &Arc<Status>) -> Result<(), Failure> {
    for address in [admin, metrics] {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address}"))
            .map_err(Failure::users)?;
        let status = Arc::clone(status);
        let thread = std::thread::Builder::new().name("pharos-admin".to_owned());
        let thread = thread.spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that hangs up early harms nobody else.
                let _ = exchange(&stream, &status);
            }
        });
        thread.context("cannot start a thread").map_err(Failure::ours)?;
    }
    Ok(())
}

/// One request, one answer; the connection is closed after it.
fn exchange(stream: &TcpStream, status: &Status) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(stream.take(LONGEST_REQUEST));
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = first.split_ascii_whitespace();
    let (code, kind, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some(path)) => status.answer(path),
        _ => (405, "text/plain; charset=utf-8", "only GET is answered\n".to_owned()),
    };
    let body = if first.starts_with("HEAD ") { String::new() } else { body };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {code} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        if code == 200 { "OK" } else { "-" },
        body.len()
    )
}

/// Sets `stop` with Ctrl-C or SIGTERM.
pub(crate) fn stop_on_signal(stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for signals").map_err(Failure::ours)?;
    let stop = Arc::clone(stop);
    let thread = std::thread::Builder::new().name("pharos-signals".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = runtime.block_on(crate::ensemble::signalled()) {
            tracing::error!(%error, "cannot wait for signals");
        }
        stop.store(true, Ordering::Release);
    });
    spawned.map(drop).context("cannot start a thread").map_err(Failure::ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_the_operator_reads() {
        let status = Status::new("abc", 3);
        assert_eq!(status.answer("/readyz").0, 503);
        status.name("w");
        status.hear(&Event::Joined { generation: 4, workers: 2, leads: true });
        let size = CheckpointSize { written: 99, whole: 700 };
        status.hear(&Event::Checkpoint { epoch: 7, took: Duration::from_millis(1500), size });
        let transform = || "r".to_owned();
        status.hear(&Event::Input { transform: transform(), splits: 2, bytes: Some(500), done: 100 });
        status.hear(&Event::Read { transform: transform(), records: 3, bytes: 40 });
        status.hear(&Event::LateDropped { transform: "t".to_owned(), rows: 2, total: 5 });
        assert_eq!(status.answer("/readyz").0, 200);
        let mut said: serde_json::Value = serde_json::from_str(&status.answer("/v1/pipeline").2).unwrap();
        let at = said["checkpointAt"].take();
        assert!(at.as_str().is_some_and(|at| at.len() == "2026-01-01T00:00:00Z".len()), "{at}");
        assert_eq!(
            said,
            serde_json::json!({
                "state": "running", "epoch": 7, "watermark": null, "lateDropped": 5, "windowsClosed": 0, "message": null,
                "documentHash": "abc", "runId": 3, "worker": "w", "leads": true, "workers": 2, "generation": 4,
                "checkpointAt": null, "bottleneck": null, "splits": [],
            })
        );
        let metrics = status.answer("/metrics").2;
        for line in [
            "pharos_late_rows_total{transform=\"t\"} 5",
            "pharos_records_read_total{transform=\"r\"} 3",
            "pharos_bytes_read_total{transform=\"r\"} 40",
            "pharos_input_splits{transform=\"r\"} 2",
            "pharos_input_bytes{transform=\"r\"} 500",
            "pharos_input_done_bytes{transform=\"r\"} 140",
            "pharos_checkpoint_duration_seconds 1.5",
            "pharos_checkpoint_size_bytes 99",
            "pharos_checkpoint_full_size_bytes 700",
        ] {
            assert!(metrics.lines().any(|said| said == line), "{line} is not in {metrics}");
        }
    }
}
