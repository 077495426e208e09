//! What a worker says of its load: where the time of its tasks goes, who holds it up, which splits are behind.
//!
//! Owns: the stretch of time that shares are of, the words of the answer, the metrics of counters.
//! Must not know: how anything is counted, HTTP.
//! Invariant: the answer and the metrics are bounded by the plan, the threads and the workers, whatever the number of splits.

use crate::pipeline_metrics::{Label, Labels, Page};
use pharos_stream::{
    Load, STALL_BOUNDS, SplitAt, SplitLag, Stalls, TaskLoad, Timestamp, Watermark, bottleneck, worst_splits,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The splits that are named: the worst.
const WORST: usize = 10;
/// The letters of a name that are said: an answer must stay short.
const LONGEST_NAME: usize = 256;
/// The least time that shares are of. The most is that and the time between two who ask.
const STRETCH: Duration = Duration::from_secs(5);

/// Who holds a worker up.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bottleneck {
    transform: String,
    thread: usize,
    busy_percent: u8,
    blocked_percent: u8,
}

/// A split and how far it is behind the others of its read on this worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Split {
    transform: String,
    index: u32,
    file: String,
    offset: u64,
    bytes: Option<u64>,
    bytes_left: Option<u64>,
    event_time: Option<String>,
    /// The same as a number, which the operator compares with that of other workers.
    event_time_micros: Option<i64>,
    lag_seconds: Option<u64>,
}

impl From<SplitLag> for Split {
    fn from(lag: SplitLag) -> Self {
        let SplitLag { split: SplitAt { transform, index, file, offset, bytes, highest, .. }, behind, left } =
            lag;
        Self {
            transform: shortened(&transform),
            index,
            file: shortened(&file),
            offset,
            bytes,
            bytes_left: left,
            event_time: highest.map(|at| at.to_string()),
            event_time_micros: highest.map(Timestamp::micros),
            lag_seconds: behind.map(|time| time.as_secs()),
        }
    }
}

/// The end of a name, which tells it from others.
fn shortened(name: &str) -> String {
    let letters = name.chars().count();
    if letters <= LONGEST_NAME {
        return name.to_owned();
    }
    let end = name.chars().skip(letters - LONGEST_NAME + 1);
    std::iter::once('…').chain(end).collect()
}

/// The splits that are farthest behind.
pub(crate) fn worst(load: &Load) -> Vec<Split> {
    worst_splits(&load.splits, WORST).into_iter().map(Split::from).collect()
}

/// Two earlier readings: what is said is of the time since the first of them.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    first: Load,
    second: Option<(Instant, Load)>,
}

impl Stretch {
    /// Who held the worker up until `now`, when the counters say `load`.
    pub(crate) fn bottleneck(&mut self, now: Instant, load: &Load) -> Option<Bottleneck> {
        let of_time = |load: &Load| Load { tasks: load.tasks.clone(), ..Load::default() };
        match &mut self.second {
            Some((at, second)) if now.saturating_duration_since(*at) >= STRETCH => {
                self.first = std::mem::replace(second, of_time(load));
                *at = now;
            }
            Some(_) => {}
            None => self.second = Some((now, of_time(load))),
        }
        let percent = |share: f64| (share * 100.0).round() as u8;
        bottleneck(&self.first, load).map(|found| Bottleneck {
            transform: shortened(&found.transform),
            thread: found.thread,
            busy_percent: percent(found.busy),
            blocked_percent: percent(found.blocked),
        })
    }
}

/// Puts what the counters say on a page of metrics. `now` is the time on the wall.
pub(crate) fn metrics(page: &mut Page, load: &Load, now: Timestamp) {
    tasks(page, load);
    watermarks(page, load, now);
    stalls(page, load);
    let flow = |of: fn(&pharos_stream::Flow) -> u64| {
        load.flows.iter().map(move |flow| (vec![transform(&flow.transform)], of(flow) as f64))
    };
    page.family(
        "pharos_transform_records_in_total",
        "counter",
        "Rows that went into a transform.",
        flow(|flow| flow.rows_in),
    );
    page.family(
        "pharos_transform_records_out_total",
        "counter",
        "Rows that came out of a transform, dead letters included.",
        flow(|flow| flow.rows_out),
    );
    let queue = |of: fn(&pharos_stream::Queue) -> u64| {
        load.queues.iter().map(move |queue| (vec![transform(&queue.transform)], of(queue) as f64))
    };
    page.family(
        "pharos_queue_bytes",
        "gauge",
        "Bytes that wait for a transform.",
        queue(|queue| queue.bytes),
    );
    page.family(
        "pharos_queue_rounds",
        "gauge",
        "Rounds that wait for a transform.",
        queue(|queue| queue.rounds),
    );
    let peer = |of: fn(&pharos_stream::Peer) -> u64| {
        load.peers.iter().map(move |peer| (vec![("peer", peer.worker.clone())], of(peer) as f64))
    };
    page.family(
        "pharos_exchange_sent_bytes_total",
        "counter",
        "Bytes sent to another worker.",
        peer(|peer| peer.sent),
    );
    page.family(
        "pharos_exchange_received_bytes_total",
        "counter",
        "Bytes that came from another worker.",
        peer(|peer| peer.received),
    );
    splits(page, load);
}

fn transform(name: &str) -> Label {
    ("transform", name.to_owned())
}

fn tasks(page: &mut Page, load: &Load) {
    let mut family = |what: &str, help: &str, of: fn(&TaskLoad) -> Duration| {
        let value = |task: &TaskLoad| -> (Labels, f64) {
            let labels = vec![transform(&task.transform), ("thread", task.thread.to_string())];
            (labels, of(task).as_secs_f64())
        };
        let name = format!("pharos_task_{what}_seconds_total");
        page.family(&name, "counter", help, load.tasks.iter().map(value));
    };
    family("busy", "Time in which a task worked.", |task| task.busy);
    family("blocked", "Time in which the output of a task was full.", |task| task.blocked);
    family("idle", "Time in which a task had nothing to do.", |task| task.idle);
    family("waiting", "Time in which the thread of a task did the work of others.", |task| task.waiting);
}

fn stalls(page: &mut Page, load: &Load) {
    let mut by_transform: BTreeMap<&str, Stalls> = BTreeMap::new();
    for task in &load.tasks {
        by_transform.entry(&task.transform).or_default().add(&task.stalls);
    }
    page.distribution(
        "pharos_barrier_stall_seconds",
        "Time that a barrier took of a task: a source waits for its place, others set their state aside.",
        &STALL_BOUNDS.map(|bound| bound.as_secs_f64()),
        by_transform
            .iter()
            .map(|(name, stalls)| (transform(name), &stalls.counts[..], stalls.sum.as_secs_f64())),
    );
}

fn watermarks(page: &mut Page, load: &Load, now: Timestamp) {
    let mut least: BTreeMap<&str, Watermark> = BTreeMap::new();
    for task in &load.tasks {
        if let Some(watermark) = task.watermark {
            let known = least.entry(&task.transform).or_insert(watermark);
            *known = watermark.min(*known);
        }
    }
    let seconds = |watermark: Watermark| match watermark {
        Watermark::NEG_INF => f64::NEG_INFINITY,
        Watermark::POS_INF => f64::INFINITY,
        at => at.timestamp().micros() as f64 / 1e6,
    };
    let least: Vec<(Labels, f64)> =
        least.into_iter().map(|(name, watermark)| (vec![transform(name)], seconds(watermark))).collect();
    let behind = least.iter().filter(|(_, at)| at.is_finite());
    let behind = behind.map(|(labels, at)| (labels.clone(), (now.micros() as f64 / 1e6 - at).max(0.0)));
    page.family(
        "pharos_watermark_lag_seconds",
        "gauge",
        "How far the watermark of a transform is behind the clock.",
        behind.collect::<Vec<_>>(),
    );
    page.family("pharos_watermark_seconds", "gauge", "Event time up to which a transform has come.", least);
}

fn splits(page: &mut Page, load: &Load) {
    let worst = worst(load);
    let labels = |split: &Split| {
        vec![transform(&split.transform), ("split", split.index.to_string()), ("file", split.file.clone())]
    };
    let of = |value: fn(&Split) -> Option<u64>| {
        let values = worst.iter().filter_map(|split| Some((labels(split), value(split)? as f64)));
        values.collect::<Vec<_>>()
    };
    page.family(
        "pharos_split_lag_seconds",
        "gauge",
        "How far a split is behind the farthest of its read, in event time: the ten worst splits.",
        of(|split| split.lag_seconds),
    );
    page.family(
        "pharos_split_left_bytes",
        "gauge",
        "Bytes of a split that are left to read: the ten worst splits.",
        of(|split| split.bytes_left),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_stream::{Flow, Peer, Queue};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn task(transform: &str, thread: usize, busy: u64, blocked: u64, watermark: Watermark) -> TaskLoad {
        TaskLoad {
            transform: transform.to_owned(),
            thread,
            busy: Duration::from_millis(busy),
            blocked: Duration::from_millis(blocked),
            idle: Duration::ZERO,
            waiting: Duration::ZERO,
            stalls: Stalls { counts: [1; STALL_BOUNDS.len() + 1], sum: Duration::from_millis(busy) },
            watermark: Some(watermark),
        }
    }

    fn split(index: u32, highest: Option<Timestamp>) -> SplitAt {
        let (transform, file) = ("r".to_owned(), format!("f{index}"));
        SplitAt { transform, index, file, offset: 30, bytes: Some(100), highest, ended: false }
    }

    #[test]
    fn shares_are_of_the_last_seconds() {
        let load = |busy, blocked| Load {
            tasks: vec![
                task("sink", 0, busy, 0, Watermark::NEG_INF),
                task("read", 1, blocked, busy, Watermark::NEG_INF),
            ],
            feeds: vec![("read".to_owned(), "sink".to_owned())],
            ..Load::default()
        };
        let mut stretch = Stretch::default();
        let begun = Instant::now();
        let mut ask = |second, busy, blocked| {
            let found = stretch.bottleneck(begun + Duration::from_secs(second), &load(busy, blocked));
            found.map(|found| (found.transform, found.busy_percent, found.blocked_percent))
        };
        let sink = |blocked| Some(("sink".to_owned(), 100, blocked));
        // At first it is all since the start.
        assert_eq!(ask(0, 1000, 0), sink(100));
        assert_eq!(ask(4, 1000, 1000), sink(50));
        // The stretch begins with a reading that is old enough.
        assert_eq!(ask(6, 1000, 3000), Some(("read".to_owned(), 100, 0)));
        assert_eq!(ask(12, 1000, 3000), None);
    }

    #[test]
    fn metrics_have_each_counter_once_and_few_splits() {
        let load = Load {
            tasks: vec![
                task("r", 0, 1500, 0, Watermark::at(at(40))),
                task("r", 1, 250, 750, Watermark::at(at(30))),
                task("w", 0, 1, 0, Watermark::NEG_INF),
            ],
            flows: vec![Flow { transform: "r\"".to_owned(), rows_in: 0, rows_out: 7 }],
            splits: (0..30).map(|index| split(index, Some(at(i64::from(index))))).collect(),
            queues: vec![Queue { transform: "w".to_owned(), channels: 2, bytes: 64, rounds: 3 }],
            feeds: Vec::new(),
            peers: vec![Peer { worker: "w1".to_owned(), sent: 5, received: 6 }],
        };
        let mut page = Page::default();
        metrics(&mut page, &load, at(100));
        let text = page.text();
        for line in [
            "pharos_task_busy_seconds_total{transform=\"r\",thread=\"0\"} 1.5",
            "pharos_task_blocked_seconds_total{transform=\"r\",thread=\"1\"} 0.75",
            "pharos_task_idle_seconds_total{transform=\"w\",thread=\"0\"} 0",
            "pharos_task_waiting_seconds_total{transform=\"w\",thread=\"0\"} 0",
            "pharos_barrier_stall_seconds_bucket{transform=\"r\",le=\"0.005\"} 12",
            "pharos_barrier_stall_seconds_sum{transform=\"r\"} 1.75",
            "pharos_transform_records_in_total{transform=\"r\\\"\"} 0",
            "pharos_transform_records_out_total{transform=\"r\\\"\"} 7",
            "pharos_queue_bytes{transform=\"w\"} 64",
            "pharos_queue_rounds{transform=\"w\"} 3",
            "pharos_exchange_sent_bytes_total{peer=\"w1\"} 5",
            "pharos_exchange_received_bytes_total{peer=\"w1\"} 6",
            "pharos_watermark_seconds{transform=\"r\"} 30",
            "pharos_watermark_seconds{transform=\"w\"} -Inf",
            "pharos_watermark_lag_seconds{transform=\"r\"} 70",
            "pharos_split_lag_seconds{transform=\"r\",split=\"0\",file=\"f0\"} 29",
            "pharos_split_left_bytes{transform=\"r\",split=\"9\",file=\"f9\"} 70",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not in {text}");
        }
        let of = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!((of("pharos_split_lag_seconds{"), of("pharos_split_left_bytes{")), (10, 10));
        assert_eq!(of("pharos_watermark_lag_seconds{"), 1, "-inf is behind no clock");
    }

    #[test]
    fn long_names_keep_their_end() {
        let long = format!("{}end", "x".repeat(1000));
        let short = shortened(&long);
        assert_eq!(
            (short.chars().count(), short.starts_with('…'), short.ends_with("end")),
            (256, true, true)
        );
        assert_eq!(shortened("short"), "short");
    }
}
