//! Plans made by hand, against a model that keeps all rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use pharos_beam::expr::ir::{Cast, Expr, ExprKind};
use pharos_beam::plan::*;
use pharos_beam::schema::{Micros, Schema, Type};
use pharos_connect::Files;
use pharos_stream::io::Connectors;
use pharos_stream::{Report, RunOptions, STEP_RECORDS, run};
use proptest::prelude::*;

const MAX_DELAY: i64 = 20;

fn field(position: usize, ty: Type) -> Expr {
    Expr { ty, kind: ExprKind::Field(position) }
}

fn output(name: &str, schema: Schema, function: WindowFunction) -> Output {
    Output {
        name: name.to_owned(),
        schema,
        windowing: Windowing { function, ..Windowing::default() },
        bounded: true,
    }
}

fn node(id: u32, name: &str, kind: NodeKind, inputs: &[(u32, u32)], outputs: Vec<Output>) -> Node {
    let inputs =
        inputs.iter().map(|(node, output)| OutputRef { node: NodeId(*node), output: *output }).collect();
    let error_output = (outputs.len() > 1).then_some(1);
    Node {
        id: NodeId(id),
        name: name.to_owned(),
        kind,
        inputs,
        outputs,
        error_output,
        span: SourceSpan::default(),
    }
}

fn aggregation(name: &str, function: AggregateFunction, value: Expr) -> Aggregation {
    let output = match function {
        AggregateFunction::Mean => Type::Float64,
        AggregateFunction::Count => Type::Int64,
        _ => value.ty.clone(),
    };
    Aggregation { name: name.to_owned(), function, value, output }
}

/// Reads files of `at`, `key`, `value`; counts, sums and takes the extremes of each key and window;
/// late rows go to a file of their own.
fn plan(pattern: &str, out: &Path, function: WindowFunction) -> Plan {
    let rows = Schema::new([("at", Type::Int64), ("key", Type::String), ("value", Type::Int64)]);
    let results = Schema::new([
        ("key", Type::String),
        ("rows", Type::Int64),
        ("sum", Type::Int64),
        ("first", Type::Int64),
        ("last", Type::Int64),
    ]);
    let at = field(0, Type::Int64);
    let read = NodeKind::Read(ReadSpec {
        path: pattern.to_owned(),
        format: ReadFormat::Json,
        schema: Some(rows.clone()),
        watermark: Some(WatermarkSpec {
            timestamp: Expr {
                ty: Type::Timestamp,
                kind: ExprKind::Cast { cast: Cast::IntSecondsToTimestamp, value: Box::new(at.clone()) },
            },
            max_delay: Micros(MAX_DELAY * 1_000_000),
            idle_after: None,
        }),
        bounded: true,
    });
    let combine = NodeKind::Combine {
        keys: vec![1],
        aggregations: vec![
            aggregation("rows", AggregateFunction::Count, field(2, Type::Int64)),
            aggregation("sum", AggregateFunction::Sum, field(2, Type::Int64)),
            aggregation("first", AggregateFunction::Min, at.clone()),
            aggregation("last", AggregateFunction::Max, at),
        ],
    };
    let write = |name: &str| {
        let path = out.join(name).to_string_lossy().into_owned();
        NodeKind::Write(WriteSpec { path, format: WriteFormat::Json, shards: None })
    };
    let letters = error_schema(Type::Row(rows.clone()));
    Plan {
        version: PLAN_VERSION,
        key_groups: KEY_GROUPS,
        nodes: vec![
            node(0, "read", read, &[], vec![output("output", rows.clone(), WindowFunction::Global)]),
            node(1, "window", NodeKind::WindowInto, &[(0, 0)], vec![output("output", rows, function)]),
            node(
                2,
                "group",
                combine,
                &[(1, 0)],
                vec![output("output", results, function), output("late", letters, function)],
            ),
            node(3, "results", write("results"), &[(2, 0)], vec![]),
            node(4, "late", write("late"), &[(2, 1)], vec![]),
        ],
    }
}

fn execute(plan: &Plan, threads: usize) -> Report {
    let files: Arc<dyn Connectors> = Arc::new(Files::new("."));
    let options = RunOptions {
        state: None,
        threads,
        run: "test".to_owned(),
        listener: Arc::new(|_| {}),
        durability: None,
        stop: Arc::default(),
    };
    run(plan, &files, &options).unwrap()
}

type Row = (i64, u8, i64);

/// What must come out: for each window and key the results, and the late rows by line.
fn model(files: &[Vec<Row>], windows: impl Fn(i64) -> Vec<(i64, i64)>) -> (Vec<String>, Vec<String>) {
    let mut results: BTreeMap<(i64, i64, u8), (i64, i64, i64, i64)> = BTreeMap::new();
    let mut late = Vec::new();
    let mut highest: Vec<Option<i64>> = vec![None; files.len()];
    let steps = files.iter().map(|rows| rows.len().div_ceil(STEP_RECORDS)).max().unwrap_or(0);
    for step in 0..steps {
        let ended = |file: usize| files[file].len().div_ceil(STEP_RECORDS) <= step;
        let watermark = (0..files.len())
            .filter(|file| !ended(*file))
            .map(|file| highest[file].map_or(i64::MIN, |highest| highest - MAX_DELAY))
            .min()
            .unwrap_or(i64::MAX);
        for (file, rows) in files.iter().enumerate() {
            for (at, key, value) in rows.iter().skip(step * STEP_RECORDS).take(STEP_RECORDS) {
                for (start, end) in windows(*at) {
                    if end <= watermark {
                        late.push(format!("{at} k{key} {value} {start}"));
                        continue;
                    }
                    let group = results.entry((start, end, *key)).or_insert((0, 0, i64::MAX, i64::MIN));
                    *group = (group.0 + 1, group.1 + value, group.2.min(*at), group.3.max(*at));
                }
                highest[file] = highest[file].max(Some(*at));
            }
        }
    }
    let line = |((_, _, key), (rows, sum, first, last)): (_, (i64, i64, i64, i64))| {
        let _: u8 = key;
        format!(r#"{{"key":"k{key}","rows":{rows},"sum":{sum},"first":{first},"last":{last}}}"#)
    };
    let mut results: Vec<String> = results.into_iter().map(line).collect();
    results.sort();
    late.sort();
    (results, late)
}

fn sorted_lines(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn late_rows(path: &Path) -> Vec<String> {
    let mut rows: Vec<String> = std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            let (row, message) = (&letter["element"], letter["msg"].as_str().unwrap());
            assert!(message.starts_with("late: window ["), "{message}");
            format!("{} {} {}", row["at"], row["key"].as_str().unwrap(), row["value"])
        })
        .collect();
    rows.sort();
    rows
}

fn write_files(directory: &Path, files: &[Vec<Row>]) {
    for (position, rows) in files.iter().enumerate() {
        let mut text = String::new();
        for (at, key, value) in rows {
            writeln!(text, r#"{{"at":{at},"key":"k{key}","value":{value}}}"#).unwrap();
        }
        std::fs::write(directory.join(format!("in-{position}.json")), text).unwrap();
    }
}

/// Files whose time advances, with stragglers.
fn any_files() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (0i64..4, prop_oneof![8 => 0i64..15, 1 => 15i64..120], 0u8..6, -50i64..50);
    prop::collection::vec(prop::collection::vec(row, 1..700), 1..4).prop_map(|files| {
        files
            .into_iter()
            .map(|rows| {
                let mut now = 0;
                rows.into_iter()
                    .map(|(passed, behind, key, value)| {
                        now += passed;
                        (now - behind, key, value)
                    })
                    .collect()
            })
            .collect()
    })
}

fn fixed(at: i64) -> Vec<(i64, i64)> {
    let start = at.div_euclid(10) * 10;
    vec![(start, start + 10)]
}

fn sliding(at: i64) -> Vec<(i64, i64)> {
    let last = at.div_euclid(4) * 4;
    (0..)
        .map(|back| last - 4 * back)
        .take_while(|start| *start > at - 10)
        .map(|start| (start, start + 10))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn results_and_late_rows_equal_the_model_on_any_number_of_threads(files in any_files()) {
        let seconds = |count: i64| Micros(count * 1_000_000);
        let cases: [(WindowFunction, fn(i64) -> Vec<(i64, i64)>); 2] = [
            (WindowFunction::Fixed { size: seconds(10), offset: seconds(0) }, fixed),
            (WindowFunction::Sliding { size: seconds(10), period: seconds(4), offset: seconds(0) }, sliding),
        ];
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), &files);
        let pattern = directory.path().join("in-*.json");
        for (function, windows) in cases {
            let (results, late) = model(&files, windows);
            let mut first: Option<(Vec<u8>, Vec<u8>)> = None;
            for threads in [1, 2, 3] {
                let out = directory.path().join("out");
                let report = execute(&plan(&pattern.to_string_lossy(), &out, function), threads);
                prop_assert_eq!(report.groups["group"].late_dropped as usize, late.len());
                let paths = [out.join("results-00000-of-00001"), out.join("late-00000-of-00001")];
                prop_assert_eq!(&sorted_lines(&paths[0]), &results);
                let mut rows: Vec<String> = late.iter().map(|row| row.rsplit_once(' ').unwrap().0.to_owned()).collect();
                rows.sort();
                prop_assert_eq!(late_rows(&paths[1]), rows);
                // Not only the same rows: the same bytes.
                let bytes = (std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
                prop_assert!(first.as_ref().is_none_or(|first| *first == bytes));
                first = Some(bytes);
            }
        }
    }
}
