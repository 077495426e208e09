//! Owns what the workers of a Pipeline together say of its load: who holds them up, which splits are behind, how far the
//! watermark is behind the clock. Pure. Must not know how it is measured.
//!
//! Invariant: what comes out is bounded, whatever the workers say.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use pharos_crds::{Bottleneck, SplitLag};

use super::plan::Worker;
use crate::admin::{WorkerSplit, WorkerStatus};

/// The splits that the status names: the worst.
const WORST: usize = 10;

/// The busiest of those that hold up their workers: what the others wait for is on one of them.
#[must_use]
pub fn bottleneck(workers: &[Worker], hash: &str, run_id: i64) -> Option<Bottleneck> {
    // Of equals the first, so that the status does not change back and forth.
    bottlenecks(workers, hash, run_id)
        .min_by_key(|found| Reverse((found.busy_percent, found.blocked_percent)))
}

/// The one that keeps those before it waiting for most of their time.
#[must_use]
pub fn slowest(workers: &[Worker], hash: &str, run_id: i64) -> Option<Bottleneck> {
    bottlenecks(workers, hash, run_id).min_by_key(|found| Reverse(found.blocked_percent))
}

fn bottlenecks<'a>(
    workers: &'a [Worker],
    hash: &'a str,
    run_id: i64,
) -> impl Iterator<Item = Bottleneck> + use<'a> {
    let of = move |worker: &Worker| {
        let said = worker.status.as_ref().filter(|said| said.is_of(hash, run_id))?.bottleneck.clone()?;
        Some(Bottleneck {
            transform: said.transform,
            worker: worker.pod.clone(),
            busy_percent: said.busy_percent,
            blocked_percent: said.blocked_percent,
        })
    };
    workers.iter().filter_map(of)
}

/// The splits that are farthest behind the farthest split of their read on any worker.
#[must_use]
pub fn splits(said: &[&WorkerStatus]) -> Vec<SplitLag> {
    let mut heads: BTreeMap<&str, i64> = BTreeMap::new();
    // While workers change over, two may speak of one split: the one that is further has it now.
    let mut latest: BTreeMap<(&str, i64), &WorkerSplit> = BTreeMap::new();
    for split in said.iter().flat_map(|said| &said.splits) {
        if let Some(head) = head(split) {
            let known = heads.entry(&split.transform).or_insert(head);
            *known = head.max(*known);
        }
        let known = latest.entry((split.transform.as_str(), split.index)).or_insert(split);
        if split.offset > known.offset {
            *known = split;
        }
    }
    let lag = |split: &WorkerSplit| {
        let micros = heads.get(split.transform.as_str())?.saturating_sub(split.event_time_micros?);
        Some(micros.div_euclid(1_000_000))
    };
    let mut worst: Vec<(bool, SplitLag)> = latest
        .into_values()
        .map(|split| {
            let unsaid = split.event_time_micros.is_none() && heads.contains_key(split.transform.as_str());
            (unsaid, shown(split, lag(split)))
        })
        .collect();
    // Those that have given no event time hold up all others.
    worst.sort_by_key(|(unsaid, split)| Reverse((*unsaid, split.lag_seconds, split.bytes_left)));
    worst.into_iter().map(|(_, split)| split).take(WORST).collect()
}

/// How far the farthest split of a read is, as far as the worker that says it knows.
fn head(split: &WorkerSplit) -> Option<i64> {
    let behind = split.lag_seconds?.saturating_mul(1_000_000);
    Some(split.event_time_micros?.saturating_add(behind))
}

fn shown(split: &WorkerSplit, lag_seconds: Option<i64>) -> SplitLag {
    SplitLag {
        transform: split.transform.clone(),
        index: split.index,
        file: split.file.clone(),
        offset: split.offset,
        bytes_left: split.bytes_left,
        event_time: split.event_time.clone(),
        lag_seconds,
    }
}

/// How far a watermark is behind the clock; none if it stands before or after all time.
#[must_use]
pub fn lag(watermark: &str, now: Timestamp) -> Option<String> {
    let at: Timestamp = watermark.parse().ok()?;
    Some(short(u64::try_from(now.as_second() - at.as_second()).unwrap_or_default()))
}

/// A time in its two largest units.
fn short(seconds: u64) -> String {
    const UNITS: [(u64, char); 5] = [(31_536_000, 'y'), (86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, letter) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(next, letter)| (seconds % unit / next, *letter));
    match rest {
        Some((rest, next)) if rest > 0 => format!("{}{letter}{rest}{next}", seconds / unit),
        _ => format!("{}{letter}", seconds / unit),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(answer: &Value) -> WorkerStatus {
        serde_json::from_value(answer.clone()).expect("an answer")
    }

    fn split(index: i64, at: Option<i64>, lag: Option<i64>, left: i64) -> Value {
        json!({"transform": "Read", "index": index, "file": format!("f{index}"), "offset": 10, "bytes": 99,
               "bytesLeft": left, "eventTime": at.map(|at| format!("{at} s")),
               "eventTimeMicros": at.map(|at| at * 1_000_000), "lagSeconds": lag})
    }

    #[test]
    fn lag_is_behind_the_farthest_split_of_all_workers() {
        let one = said(
            &json!({"state": "running", "splits": [split(0, Some(10), Some(90), 5), split(2, Some(100), Some(0), 7)]}),
        );
        let other = said(&json!({"state": "running", "splits": [
            split(3, None, None, 1), split(1, Some(400), Some(100), 3), split(5, Some(400), Some(100), 9),
        ]}));
        let all = splits(&[&one, &other]);
        let read: Vec<_> = all.iter().map(|split| (split.index, split.lag_seconds)).collect();
        assert_eq!(read, [(3, None), (0, Some(490)), (2, Some(400)), (5, Some(100)), (1, Some(100))]);
        assert_eq!(
            json!(all[1]),
            json!({"transform": "Read", "index": 0, "file": "f0", "offset": 10, "bytesLeft": 5, "eventTime": "10 s",
                   "lagSeconds": 490})
        );
    }

    #[test]
    fn ten_splits_are_named_and_each_once() {
        let many: Vec<Value> = (0..9).map(|index| split(index, Some(index), Some(20 - index), 1)).collect();
        let mut moved = split(0, Some(15), Some(5), 1);
        moved["offset"] = json!(11);
        let others: Vec<Value> =
            (9..18).map(|index| split(index, Some(index), Some(20 - index), 1)).collect();
        let (one, other) =
            (json!({"state": "running", "splits": many}), json!({"state": "running", "splits": others}));
        let late = said(&json!({"state": "running", "splits": [moved]}));
        let all = splits(&[&said(&one), &late, &said(&other)]);
        assert_eq!(all.iter().map(|split| split.index).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(splits(&[]), []);
    }

    #[test]
    fn the_bottleneck_is_on_the_worker_where_it_is_busiest() {
        let worker = |ordinal: u32, hash: &str, transform: &str, busy: i64| Worker {
            pod: format!("p-{ordinal}"),
            ordinal,
            uid: String::new(),
            up_to_date: true,
            same_command: true,
            same_image: true,
            restarted: false,
            terminating: false,
            ready: true,
            crash: None,
            status: Some(said(&json!({"state": "running", "documentHash": hash, "runId": 1, "bottleneck":
                {"transform": transform, "thread": 0, "busyPercent": busy, "blockedPercent": 80}}))),
        };
        let silent = Worker { status: None, ..worker(3, "h", "", 0) };
        let workers =
            [worker(0, "h", "Read", 40), worker(1, "h", "Write", 97), worker(2, "old", "Old", 99), silent];
        let found = bottleneck(&workers, "h", 1);
        assert_eq!(
            json!(found),
            json!({"transform": "Write", "worker": "p-1", "busyPercent": 97, "blockedPercent": 80})
        );
        assert_eq!(bottleneck(&workers[3..], "h", 1), None);
    }

    #[test]
    fn a_lag_has_the_two_largest_units() {
        let now = Timestamp::from_second(1_000_000_000).expect("a time");
        let of = |seconds: i64| {
            lag(&Timestamp::from_second(1_000_000_000 - seconds).expect("a time").to_string(), now)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!([of(0), of(-5), of(59), of(60), of(200)], ["0s", "0s", "59s", "1m", "3m20s"].map(some));
        assert_eq!([of(7260), of(90_061), of(800_000_000)], ["2h1m", "1d1h", "25y134d"].map(some));
        assert_eq!([lag("-inf", now), lag("+inf", now), lag("soon", now)], [None, None, None]);
    }
}
