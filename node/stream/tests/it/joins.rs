//! Joins beside a plain model of them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use pharos_connect::Files;
use pharos_stream::io::Connectors;
use pharos_stream::{RunOptions, StateMemory, run};

use crate::support::{lines, options, plan};

/// A row: when it is, its key, and its number.
#[derive(Debug, Clone, Copy)]
struct Row {
    at: i64,
    key: Option<i64>,
    number: i64,
}

/// The rows of both inputs, almost in the order of their time, so that windows close while they are read.
fn input(seed: u64) -> [Vec<Row>; 2] {
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    [3_000, 1_700].map(|rows| {
        let row = |number| Row {
            at: number * 1_200 / rows + next(4) as i64,
            key: Some(next(40) as i64).filter(|key| *key > 0),
            number,
        };
        (0..rows).map(row).collect()
    })
}

fn write(directory: &Path, sides: &[Vec<Row>; 2]) {
    for (name, rows) in ["a", "b"].iter().zip(sides) {
        let mut text = String::new();
        for Row { at, key, number } in rows {
            let key = key.map_or("null".to_owned(), |key| key.to_string());
            writeln!(text, r#"{{"at":{at},"key":{key},"number":{number},"text":"row {number}"}}"#).unwrap();
        }
        std::fs::write(directory.join(format!("{name}.json")), text).unwrap();
    }
}

fn document(windowing: &str, kind: &str) -> String {
    let read = |name: &str| {
        format!(
            "
    - type: ReadFromJson
      name: {name}
      config: {{path: {name}.json, watermark: {{timestamp: at, max_delay: 5s}}}}"
        )
    };
    format!(
        "pipeline:
  transforms:{}{}
    - type: Join
      input: {{a: a, b: b}}
      windowing: {{type: {windowing}}}
      config: {{type: {kind}, equalities: key, fields: {{a: {{one: number, text: text}}, b: {{other: number}}}}}}
    - {{type: WriteToJson, input: Join, config: {{path: out}}}}
",
        read("a"),
        read("b")
    )
}

/// The windows of a row among all rows of its key: their starts, or for sessions the first row's time.
fn windows(windowing: &str, row: &Row, all: &[Row]) -> Vec<i64> {
    match windowing.split(',').next().unwrap() {
        "global" => vec![0],
        "fixed" => vec![row.at.div_euclid(10)],
        // 10 s every 4 s.
        "sliding" => {
            (0..3).map(|back| row.at.div_euclid(4) - back).filter(|start| start * 4 + 10 > row.at).collect()
        }
        _ => {
            let mut times: Vec<i64> =
                all.iter().filter(|other| other.key == row.key).map(|other| other.at).collect();
            times.sort_unstable();
            let mut start = times[0];
            for pair in times.windows(2).take_while(|pair| pair[1] <= row.at) {
                if pair[1] - pair[0] >= 2 {
                    start = pair[1];
                }
            }
            vec![start]
        }
    }
}

fn model(windowing: &str, kind: &str, [left, right]: &[Vec<Row>; 2]) -> Vec<String> {
    let all: Vec<Row> = left.iter().chain(right).copied().collect();
    let placed = |rows: &[Row]| -> Vec<(i64, Row)> {
        rows.iter()
            .flat_map(|row| windows(windowing, row, &all).into_iter().map(|window| (window, *row)))
            .collect()
    };
    let (left, right) = (placed(left), placed(right));
    let meet = |one: &(i64, Row), other: &(i64, Row)| {
        one.0 == other.0 && one.1.key.is_some() && one.1.key == other.1.key
    };
    let line = |one: Option<i64>, other: Option<i64>| {
        let number = |number: Option<i64>| number.map_or("null".to_owned(), |number| number.to_string());
        let text = one.map_or("null".to_owned(), |number| format!("\"row {number}\""));
        format!(r#"{{"one":{},"text":{text},"other":{}}}"#, number(one), number(other))
    };
    let mut found = Vec::new();
    for one in &left {
        let partners: Vec<&(i64, Row)> = right.iter().filter(|other| meet(one, other)).collect();
        found.extend(partners.iter().map(|(_, other)| line(Some(one.1.number), Some(other.number))));
        if partners.is_empty() && matches!(kind, "left" | "outer") {
            found.push(line(Some(one.1.number), None));
        }
    }
    for other in &right {
        if matches!(kind, "right" | "outer") && left.iter().all(|one| !meet(one, other)) {
            found.push(line(None, Some(other.1.number)));
        }
    }
    found.sort();
    found
}

#[test]
fn every_join_in_every_window_gives_the_rows_of_a_plain_model() {
    for (seed, windowing) in
        ["global", "fixed, size: 10s", "sliding, size: 10s, period: 4s", "sessions, gap: 2s"]
            .iter()
            .enumerate()
    {
        let directory = tempfile::tempdir().unwrap();
        let sides = input(seed as u64 + 1);
        write(directory.path(), &sides);
        for (kind, threads, memory) in
            [("inner", 1, None), ("left", 3, None), ("right", 2, Some(20_000)), ("outer", 1, Some(10_000))]
        {
            let plan = plan(&document(windowing, kind), directory.path());
            let connectors: Arc<dyn Connectors> = Arc::new(Files::new(directory.path()));
            // Less memory than the rows take.
            let state = memory.map(|bytes| StateMemory { bytes, directory: directory.path().join("state") });
            let report = run(&plan, &connectors, &RunOptions { state, ..options(threads) }).unwrap();
            let group = &report.groups["Join"];
            assert_eq!(group.late_dropped, 0);
            assert!(*windowing == "global" || group.windows_closed_before_end > 10, "{windowing}: {group:?}");
            let mut found = lines(directory.path(), "out");
            found.sort();
            let expected = model(windowing, kind, &sides);
            assert!(expected.len() > 100, "{windowing} {kind}: only {} rows", expected.len());
            assert!(found == expected, "{windowing} {kind}: {} rows of {}", found.len(), expected.len());
        }
    }
}
