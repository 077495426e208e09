//! Documents as users write them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{execute, lines};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// The block below `spec.pipeline` of an example.
fn document(example: &str) -> String {
    let text = fs::read_to_string(examples().join(example)).unwrap();
    let block = text.split("  pipeline: |\n").nth(1).expect("the example has a pipeline");
    block.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

#[test]
fn the_flights_example_equals_its_oracle_on_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("data")).unwrap();
    fs::copy(examples().join("data/flights.jsonl"), directory.path().join("data/flights.jsonl")).unwrap();
    for threads in [1, 4] {
        let report = execute(&document("flights.yaml"), directory.path(), threads).unwrap();
        let group = &report.groups["Punctuality"];
        assert!(group.windows_closed_before_end >= 100 && group.late_dropped > 0, "{group:?}");
        let out = directory.path().join("out");
        let oracle = Command::new("python3")
            .arg(examples().join("oracle.py"))
            .arg(out.join("punctuality.json-00000-of-00001"))
            .arg(out.join("late.json-00000-of-00001"))
            .output()
            .unwrap();
        assert!(oracle.status.success(), "{}", String::from_utf8_lossy(&oracle.stdout));
    }
}

#[test]
fn rows_that_fail_go_to_the_dead_letters_and_the_others_on() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in.csv"), "name,n\na,1\nb,x\nc,0\n").unwrap();
    let document = "
pipeline:
  transforms:
    - type: ReadFromCsv
      config:
        path: in.csv
        schema: {type: object, properties: {name: {type: string}, n: {type: integer}}}
        error_handling: {output: bad}
    - type: MapToFields
      input: ReadFromCsv
      config:
        language: python
        fields: {name: name.upper(), inverse: 6 / n}
        error_handling: {output: bad}
    - {type: WriteToCsv, name: Good, input: MapToFields, config: {path: good}}
    - {type: WriteToJson, name: Records, input: ReadFromCsv.bad, config: {path: records}}
    - {type: WriteToJson, name: Rows, input: MapToFields.bad, config: {path: rows}}
";
    execute(document, directory.path(), 2).unwrap();
    assert_eq!(lines(directory.path(), "good"), ["name,inverse", "A,6.0"]);
    let records = lines(directory.path(), "records");
    assert!(
        records[0].contains(r#""element":"b,x","msg":""#) && records[0].contains("in.csv:3: column `n`"),
        "{records:?}"
    );
    let rows = lines(directory.path(), "rows");
    assert!(
        rows[0].starts_with(r#"{"element":{"name":"c","n":0},"msg":"ZeroDivisionError('division by zero')""#),
        "{rows:?}"
    );
}

#[test]
fn a_malformed_row_without_dead_letters_fails_the_run_and_names_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in.json"), "{\"a\": 1}\n{\"a\": \n").unwrap();
    let document = "
pipeline:
  type: chain
  transforms:
    - {type: ReadFromJson, config: {path: in.json}}
    - {type: WriteToJson, config: {path: out}}
";
    let error = execute(document, directory.path(), 1).unwrap_err();
    assert_eq!(error.fault(), pharos_stream::io::Fault::User);
    let message = error.to_string();
    assert!(message.contains("in.json:2: column 7: expected a value"), "{message}");
    assert!(!directory.path().join("out-00000-of-00001").exists(), "nothing half done becomes visible");
}

#[test]
fn a_missing_input_is_named_before_anything_runs() {
    let directory = tempfile::tempdir().unwrap();
    let document = "
pipeline:
  type: chain
  transforms:
    - {type: ReadFromText, config: {path: no-such.txt}}
    - {type: WriteToText, config: {path: out}}
";
    let error = execute(document, directory.path(), 1).unwrap_err();
    assert_eq!(error.fault(), pharos_stream::io::Fault::User);
    assert!(error.to_string().contains("no-such.txt`: there is no such file"), "{error}");
}

#[test]
fn create_explode_flatten_filter_and_assert_work_together() {
    let directory = tempfile::tempdir().unwrap();
    let document = "
pipeline:
  transforms:
    - type: Create
      name: Lists
      config: {elements: [{k: a, v: [1, 2]}, {k: b, v: [3]}]}
    - type: Explode
      input: Lists
      config: {fields: v}
    - type: Create
      name: More
      config: {elements: [{k: a, v: 10}, {k: c, v: 0}]}
    - type: Flatten
      input: [Explode, More]
    - type: Filter
      input: Flatten
      config: {language: python, keep: v > 0}
    - type: Combine
      input: Filter
      config: {group_by: k, combine: {v: sum}}
    - type: AssertEqual
      input: Combine
      config: {elements: [{k: b, v: 3}, {k: a, v: 13}]}
";
    execute(document, directory.path(), 3).unwrap();
    let wrong = document.replace("v: 13", "v: 14");
    let error = execute(&wrong, directory.path(), 3).unwrap_err().to_string();
    assert!(
        error.contains(r#"expected but missing [{"k":"a","v":14}], not expected [{"k":"a","v":13}]"#),
        "{error}"
    );
}

#[test]
fn a_path_around_a_grouping_and_one_through_it_meet_again_in_step() {
    let directory = tempfile::tempdir().unwrap();
    // More than the queues hold, so that one path must wait for the other.
    let rows: String =
        (0..60_000).map(|n| format!("{{\"at\":{},\"k\":\"key{}\"}}\n", n / 100, n % 7)).collect();
    fs::write(directory.path().join("in.json"), rows).unwrap();
    let document = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: in.json, watermark: {timestamp: at, max_delay: 5s}}
    - type: Combine
      name: PerSecond
      input: Read
      windowing: {type: fixed, size: 1s}
      config: {group_by: k, combine: {n: {value: at, fn: count}}}
    - type: MapToFields
      name: Direct
      input: Read
      config: {language: python, fields: {k: k, n: \"1\"}}
    - type: MapToFields
      name: Grouped
      input: PerSecond
      config: {fields: {k: k, n: n}}
    - type: Flatten
      input: [Direct, Grouped]
    - type: Combine
      name: PerMinute
      input: Flatten
      windowing: {type: fixed, size: 60s}
      config: {group_by: k, combine: {n: sum}}
    - type: Combine
      name: All
      input: PerMinute
      windowing: {type: global}
      config: {group_by: k, combine: {n: sum}}
    - {type: WriteToJson, name: Write, input: All, config: {path: out}}
";
    let mut first = None;
    for threads in [1, 2, 4] {
        let report = execute(document, directory.path(), threads).unwrap();
        assert_eq!(report.groups["PerMinute"].late_dropped, 0);
        let mut rows = lines(directory.path(), "out");
        assert_eq!(rows.len(), 7);
        assert!(first.as_ref().is_none_or(|first| *first == rows), "the same whatever the threads");
        first = Some(rows.clone());
        rows.sort();
        assert_eq!(rows[0], r#"{"k":"key0","n":17144}"#);
    }
}

#[test]
fn the_order_of_rows_does_not_depend_on_the_threads() {
    let directory = tempfile::tempdir().unwrap();
    for file in 0..3 {
        let rows: String =
            (0..30_000).map(|n| format!("{{\"at\":{},\"k\":\"key{}\"}}\n", n / 100, n % 97 + file)).collect();
        fs::write(directory.path().join(format!("in{file}.json")), rows).unwrap();
    }
    let document = "
pipeline:
  transforms:
    - type: ReadFromJson
      name: Read
      config: {path: 'in*.json', watermark: {timestamp: at, max_delay: 5s}}
    - type: Combine
      name: PerSecond
      input: Read
      windowing: {type: fixed, size: 1s}
      config: {group_by: k, combine: {n: {value: at, fn: count}}}
    - type: Filter
      name: Few
      input: PerSecond
      config: {language: python, keep: n < 3}
    - type: MapToFields
      name: Marked
      input: PerSecond
      config: {language: python, fields: {k: \"'x' + k\", n: n}}
    - type: Flatten
      input: [Few, Marked, PerSecond]
    - {type: WriteToJson, name: Whole, input: Flatten, config: {path: whole}}
    - {type: WriteToJson, name: Dealt, input: Flatten, config: {path: dealt, num_shards: 3}}
";
    let outputs = |threads| {
        execute(document, directory.path(), threads).unwrap();
        let names =
            ["whole-00000-of-00001", "dealt-00000-of-00003", "dealt-00001-of-00003", "dealt-00002-of-00003"];
        names.map(|name| fs::read_to_string(directory.path().join(name)).unwrap())
    };
    let one = outputs(1);
    assert!(one.iter().all(|text| text.lines().count() > 100));
    for threads in [2, 4] {
        assert!(outputs(threads) == one, "another order on {threads} threads");
    }
}

#[test]
fn text_and_csv_are_written_as_beam_writes_them() {
    let directory = tempfile::tempdir().unwrap();
    let document = "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{a: 'x, \"y\"', b: 2.0, c: null}, {a: z, b: 0.1, c: true}]}
    - {type: WriteToCsv, input: Create, config: {path: table.csv}}
    - type: MapToFields
      input: Create
      config: {fields: {line: a}}
    - {type: WriteToText, input: MapToFields, config: {path: lines.txt}}
";
    execute(document, directory.path(), 1).unwrap();
    assert_eq!(lines(directory.path(), "table.csv"), ["a,b,c", r#""x, ""y""",2.0,"#, "z,0.1,True"]);
    assert_eq!(lines(directory.path(), "lines.txt"), [r#"x, "y""#, "z"]);
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no file in the making is left: {left:?}");
}
