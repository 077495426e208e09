//! What one thread can do at best: each query written by hand for its data, which is in memory as columns.
//!
//! Owns one kernel for each query, with watermarks and batches as an engine has them, but without a plan, decoding,
//! checkpoints or an exchange. Must not know the other sides. Invariant: the kernels' answers are the right ones; tests
//! compare them with computations that are slow and plain.

mod q1;
mod q11;
mod q4;
mod q5;
mod q7;
mod q8;
mod table;
#[cfg(test)]
mod tests;

use std::hint::black_box;
use std::time::Duration;

use serde_json::json;

use super::Query;
use super::answer::Answer;
use super::columns::Columns;
use crate::bench::cpu_time;

/// Rows that are worked on before the watermark is looked at.
const BATCH: usize = 4096;
/// Of the watermark behind the latest time, in ms.
const DELAY: i64 = 4_000;
/// Of windows, and of the gap between sessions, in ms.
const SIZE: i64 = 10_000;
/// A kernel is repeated for so long, as the system counts time in hundredths of a second.
const ENOUGH: Duration = Duration::from_secs(1);

/// What a query answers.
pub(super) fn answer(query: Query, columns: &Columns) -> Answer {
    let pairs =
        |pairs: Vec<(i64, i64)>| Answer::of(pairs.into_iter().map(|(key, value)| json!([key, value])));
    let (bids, persons) = (&columns.bids, &columns.persons);
    match query {
        Query::Q1 => {
            let q1::Converted { bids, total } = q1::run(columns);
            Answer::of([json!([bids, total])])
        }
        Query::Q4 => pairs(q4::run(columns)),
        Query::Q5 => pairs(q5::run(columns)),
        Query::Q7 => {
            let rows = q7::run(columns).into_iter();
            Answer::of(rows.map(|row| json!([bids.auction[row], bids.bidder[row], bids.price[row]])))
        }
        Query::Q8 => {
            let rows = q8::run(columns).into_iter();
            Answer::of(rows.map(|row| json!([persons.id[row], persons.name.get(row)])))
        }
        Query::Q11 => pairs(q11::run(columns)),
    }
}

/// The CPU time of a query's kernel, in seconds.
pub(super) fn cpu_seconds(query: Query, columns: &Columns) -> anyhow::Result<f64> {
    let process = std::process::id();
    let before = cpu_time(process)?;
    for runs in 1_u32.. {
        match query {
            Query::Q1 => drop(black_box(q1::run(columns))),
            Query::Q4 => drop(black_box(q4::run(columns))),
            Query::Q5 => drop(black_box(q5::run(columns))),
            Query::Q7 => drop(black_box(q7::run(columns))),
            Query::Q8 => drop(black_box(q8::run(columns))),
            Query::Q11 => drop(black_box(q11::run(columns))),
        }
        let spent = cpu_time(process)? - before;
        if spent >= ENOUGH {
            return Ok(spent.as_secs_f64() / f64::from(runs));
        }
    }
    anyhow::bail!("a kernel takes no time")
}
