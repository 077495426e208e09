//! The pipeline that simulated workers run, its input, and what must come out.
//!
//! Owns: rows by seed, and an oracle that shares nothing with the engine.
//! Must not know: workers, faults.
//! Invariant: no row is late, so what comes out does not depend on watermarks as long as these are right.

use std::collections::BTreeMap;

use pharos_beam::{NoSchemas, Plan, SourceName, compile};

use super::rng::Rng;
use crate::exec::ROUND_RECORDS;

const DOCUMENT: &str = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config:
        path: in
        schema: {type: object, properties: {at: {type: integer}, key: {type: string}, value: {type: integer}}}
        watermark: {timestamp: at, max_delay: 20s}
    - type: Combine
      name: Fixed
      input: Read
      windowing: {type: fixed, size: 20s}
      config: {group_by: key, combine: {sum: {value: value, fn: sum}, rows: {value: value, fn: count}}}
    - type: Combine
      name: Sliding
      input: Read
      windowing: {type: sliding, size: 40s, period: 16s}
      config: {group_by: key, combine: {sum: {value: value, fn: sum}}}
    - type: Combine
      name: Sessions
      input: Read
      windowing: {type: sessions, gap: 6s}
      config: {group_by: key, combine: {sum: {value: value, fn: sum}, rows: {value: value, fn: count}}}
    - type: Combine
      name: Growing
      input: Read
      windowing: {type: fixed, size: 1h}
      config: {group_by: at, combine: {rows: {value: value, fn: count}}}
    - {type: WriteToJson, name: WriteGrowing, input: Growing, config: {path: growing}}
    - {type: WriteToJson, name: WriteFixed, input: Fixed, config: {path: fixed}}
    - {type: WriteToJson, name: WriteSliding, input: Sliding, config: {path: sliding}}
    - {type: WriteToJson, name: WriteSessions, input: Sessions, config: {path: sessions}}
";

/// How far behind the highest of its split a row may be, in seconds: less than `max_delay`.
const DISORDER: u64 = 19;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its place in its split.
    pub(super) position: u64,
    pub(super) at: i64,
    pub(super) key: String,
    pub(super) value: i64,
}

/// The rows of each split, and how many records it has: those that are no rows are empty ones.
pub(super) type Splits = Vec<(Vec<Row>, u64)>;

/// The plan.
pub(super) fn plan() -> Plan {
    compile(DOCUMENT, SourceName::new("sim.yaml"), &NoSchemas).expect("the document is right")
}

/// An input of two to five splits, of different lengths.
pub(super) fn splits(rng: &mut Rng) -> Splits {
    let keys = rng.between(2, 12);
    (0..rng.between(2, 5)).map(|_| split(rng, keys)).collect()
}

fn split(rng: &mut Rng, keys: u64) -> (Vec<Row>, u64) {
    let records = ROUND_RECORDS as u64 * rng.between(0, 30) + rng.below(ROUND_RECORDS as u64);
    let (mut rows, mut position, mut now) = (Vec::new(), 0, 100);
    loop {
        position += rng.below(180);
        if position >= records {
            return (rows, records);
        }
        now += rng.below(8);
        let (at, key) = ((now - rng.below(DISORDER)) as i64, format!("k{}", rng.below(keys)));
        rows.push(Row { position, at, key, value: rng.below(1_000_000) as i64 });
        position += 1;
    }
}

/// The lines of each output, sorted.
pub(super) fn expected(splits: &Splits) -> BTreeMap<String, Vec<String>> {
    let rows = || splits.iter().flat_map(|(rows, _)| rows);
    let mut fixed: BTreeMap<(i64, &str), (i64, i64)> = BTreeMap::new();
    let mut sliding: BTreeMap<(i64, &str), i64> = BTreeMap::new();
    let mut growing: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let mut by_key: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for Row { at, key, value, .. } in rows() {
        let (sum, count) = fixed.entry((at.div_euclid(20), key)).or_default();
        (*sum, *count) = (*sum + value, *count + 1);
        *growing.entry((at.div_euclid(3600), *at)).or_default() += 1;
        let last = at.div_euclid(16) * 16;
        for start in (0..3).map(|back| last - 16 * back).filter(|start| start + 40 > *at) {
            *sliding.entry((start, key)).or_default() += value;
        }
        by_key.entry(key).or_default().push((*at, *value));
    }
    let mut sessions = Vec::new();
    for (key, mut rows) in by_key {
        rows.sort_unstable();
        for session in rows.chunk_by(|(one, _), (next, _)| next - one < 6) {
            let sum: i64 = session.iter().map(|(_, value)| value).sum();
            sessions.push(format!(r#"{{"key":"{key}","sum":{sum},"rows":{}}}"#, session.len()));
        }
    }
    let fixed = fixed
        .into_iter()
        .map(|((_, key), (sum, rows))| format!(r#"{{"key":"{key}","sum":{sum},"rows":{rows}}}"#));
    let sliding = sliding.into_iter().map(|((_, key), sum)| format!(r#"{{"key":"{key}","sum":{sum}}}"#));
    let growing = growing.into_iter().map(|((_, at), rows)| format!(r#"{{"at":{at},"rows":{rows}}}"#));
    let sorted = |lines: &mut dyn Iterator<Item = String>| {
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines
    };
    BTreeMap::from([
        ("fixed".to_owned(), sorted(&mut { fixed })),
        ("sliding".to_owned(), sorted(&mut { sliding })),
        ("sessions".to_owned(), sorted(&mut sessions.into_iter())),
        ("growing".to_owned(), sorted(&mut { growing })),
    ])
}
