//! Documents that compile, and the plans they give.

use pharos_beam::expr::eval::eval;
use pharos_beam::plan::{AggregateFunction, NodeKind, Plan, PlanError, WindowFunction};
use pharos_beam::schema::{Micros, Schema, Type, Value};
use pharos_beam::{NoSchemas, SourceName, check, compile};

use crate::support::{Sampled, names, node, plan, schema};

const CLICKS: &str = "
pipeline:
  type: chain
  transforms:
    - type: ReadFromJson
      config:
        path: in/*.json
        schema:
          type: object
          required: [at, page]
          properties:
            at: {type: integer}
            page: {type: string}
            cost: {type: number}
        watermark: {timestamp: at, max_delay: 30s}
    - type: Combine
      windowing: {type: fixed, size: 60s}
      config:
        group_by: page
        combine:
          clicks: {value: at, fn: count}
          cost: sum
    - {type: WriteToJson, config: {path: out}}
";

#[test]
fn a_chain_becomes_nodes_in_order() {
    let plan = plan(CLICKS);
    assert_eq!(names(&plan), ["ReadFromJson", "Combine/WindowInto[input]", "Combine", "WriteToJson"]);
    let combine = node(&plan, "Combine");
    assert_eq!(
        combine.outputs[0].schema,
        schema(&[("page", Type::String), ("clicks", Type::Int64), ("cost", Type::Float64)])
    );
    assert_eq!(
        combine.outputs[0].windowing.function,
        WindowFunction::Fixed { size: Micros(60_000_000), offset: Micros(0) }
    );
    let NodeKind::Combine { keys, aggregations } = &combine.kind else { panic!() };
    assert_eq!(keys, &[1]);
    assert_eq!(aggregations[0].function, AggregateFunction::Count);
    let NodeKind::Read(read) = &node(&plan, "ReadFromJson").kind else { panic!() };
    let watermark = read.watermark.as_ref().unwrap();
    assert_eq!(watermark.max_delay, Micros(30_000_000));
    let row = [Value::Int64(5), Value::Null, Value::Null];
    assert_eq!(eval(&watermark.timestamp, &row), Ok(Value::Timestamp(Micros(5_000_000))));
}

#[test]
fn a_plan_survives_its_json_and_refuses_other_versions() {
    let plan = plan(CLICKS);
    let json = plan.to_json();
    assert_eq!(Plan::from_json(&json).unwrap(), plan);
    let newer = String::from_utf8(json).unwrap().replacen("\"version\":1", "\"version\":2", 1);
    let error = Plan::from_json(newer.as_bytes()).unwrap_err();
    assert!(matches!(error, PlanError::Version { found: 2 }));
    assert_eq!(error.to_string(), "plan has version 2, this reads version 1");
}

#[test]
fn the_hash_ignores_comments_and_sees_changes() {
    let hash = plan(CLICKS).hash();
    let commented = CLICKS.replace("  type: chain", "  # words\n\n  type: chain");
    assert_eq!(plan(&commented).hash(), hash);
    assert_ne!(plan(&CLICKS.replace("60s", "61s")).hash(), hash);
    // Pinned: a plan that is stored by its hash must be found again by the next version.
    assert_eq!(hash.to_string(), PINNED);
}

const PINNED: &str = "64c7afdcc08a107473887e862bd581776f9875dc9c4d3ed42413f643d55356a1";

#[test]
fn schemas_that_only_the_data_tells_are_asked_for() {
    let text = "
pipeline:
  type: chain
  transforms:
    - {type: ReadFromCsv, config: {path: x.csv, filename_column: file}}
    - {type: MapToFields, config: {language: python, append: true, fields: {twice: n * 2, up: s.upper()}}}
    - {type: Combine, config: {group_by: s, combine: {twice: sum}}}
    - {type: WriteToCsv, config: {path: out}}
";
    let checked = check(text, SourceName::new("p")).unwrap();
    assert_eq!(checked.unsampled_reads(), ["x.csv"]);
    assert_eq!(checked.transforms().len(), 4);
    let source = Sampled(schema(&[("n", Type::Float64), ("s", Type::String)]));
    let plan = compile(text, SourceName::new("p"), &source).unwrap();
    assert_eq!(
        node(&plan, "MapToFields").outputs[0].schema.names().collect::<Vec<_>>(),
        ["n", "s", "file", "twice", "up"]
    );
    assert_eq!(
        node(&plan, "Combine").outputs[0].schema,
        schema(&[("s", Type::String), ("twice", Type::Float64)])
    );
    let error = compile(text, SourceName::new("p"), &NoSchemas).unwrap_err();
    assert_eq!(
        error.summary(),
        "p:5:42: the schema of the data is not known: there is no data to look at (declare it by `schema`)"
    );
    let source = Sampled(schema(&[("m", Type::Float64), ("s", Type::String)]));
    let error = compile(text, SourceName::new("p"), &source).unwrap_err();
    assert_eq!(error.summary(), "p:6:84: unknown field `n` (the fields are m, s, file)");
}

fn created(elements: &str) -> (Schema, Vec<Vec<Value>>) {
    let text = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: {elements}}}}}\n    - type: LogForTesting\n"
    );
    let plan = plan(&text);
    let NodeKind::Create { rows } = node(&plan, "Create").kind.clone() else { panic!() };
    (node(&plan, "Create").outputs[0].schema.clone(), rows)
}

#[test]
fn create_finds_the_type_of_each_column() {
    let (found, rows) = created("[{a: 1, b: x}, {b: y, c: 2.5}, {a: null, c: 1}]");
    let expected =
        [("a", Type::Int64.nullable()), ("b", Type::String.nullable()), ("c", Type::Float64.nullable())];
    assert_eq!(found, schema(&expected));
    assert_eq!(rows[2], [Value::Null, Value::Null, Value::Float64(1.0)]);
    assert_eq!(created("[1, 2]").0, schema(&[("element", Type::Int64)]));
    assert_eq!(created("[1, x]").0, schema(&[("element", Type::Any)]));
    assert_eq!(created("[{v: 1}, {v: x}]").0, schema(&[("v", Type::Any)]));
    assert_eq!(
        created("[{v: [1, null]}]").0,
        schema(&[("v", Type::Array(Box::new(Type::Int64.nullable())))])
    );
    let nested = created("[{r: {a: 1}}, {r: {a: 2, b: NO}}]");
    let inner = schema(&[("a", Type::Int64), ("b", Type::Boolean.nullable())]);
    assert_eq!(nested.0, schema(&[("r", Type::Row(inner))]));
    assert_eq!(nested.1[0], [Value::Row(vec![Value::Int64(1), Value::Null])]);
    assert_eq!(created("[{d: 2024-01-01}]").1[0], [Value::Timestamp(Micros(1_704_067_200_000_000))]);
    assert_eq!(created("[]").0, schema(&[]));
}

#[test]
fn dead_letters_are_rows_of_their_own() {
    let plan = plan(
        "
pipeline:
  transforms:
    - {type: Create, config: {elements: [{a: 1}, {a: 0}]}}
    - type: MapToFields
      name: Divide
      input: Create
      config: {language: python, fields: {x: 1 / a}, error_handling: {output: bad}}
    - {type: WriteToJson, name: Good, input: Divide, config: {path: good}}
    - {type: WriteToJson, name: Bad, input: Divide.bad, config: {path: bad}}
",
    );
    let divide = node(&plan, "Divide");
    assert_eq!(divide.error_output, Some(1));
    let element = Type::Row(schema(&[("a", Type::Int64)]));
    let expected = schema(&[("element", element), ("msg", Type::String), ("stack", Type::String)]);
    assert_eq!(divide.outputs[1].schema, expected);
    assert_eq!(node(&plan, "Bad").inputs[0].output, 1);
    assert_eq!(node(&plan, "Good").inputs[0].output, 0);
    let NodeKind::Map { fields } = &divide.kind else { panic!() };
    let error = eval(&fields[0], &[Value::Int64(0)]).unwrap_err();
    assert_eq!(error.to_string(), "ZeroDivisionError('division by zero')");
}

#[test]
fn windowing_of_the_pipeline_reaches_the_roots_without_their_own() {
    let plan = plan(
        "
pipeline:
  windowing: {type: fixed, size: 1m}
  transforms:
    - {type: Create, name: A, config: {elements: [{a: 1}]}}
    - {type: Create, name: B, windowing: {type: sessions, gap: 1s}, config: {elements: [{a: 1}]}}
    - {type: composite, name: C, transforms: [{type: Create, config: {elements: [{a: 2}]}}]}
    - {type: LogForTesting, name: L, input: A}
    - {type: LogForTesting, name: M, input: B}
    - {type: WindowInto, input: A, config: {windowing: {type: sliding, size: 10, period: 5, offset: 7}}}
",
    );
    assert_eq!(
        names(&plan),
        [
            "A",
            "A/WindowInto[out]",
            "B",
            "B/WindowInto[out]",
            "C/Create",
            "C/Create/WindowInto[out]",
            "L",
            "M",
            "WindowInto"
        ]
    );
    let function = |name: &str| node(&plan, name).outputs[0].windowing.function;
    let minute = WindowFunction::Fixed { size: Micros(60_000_000), offset: Micros(0) };
    assert_eq!(function("A"), WindowFunction::Global);
    assert_eq!(function("L"), minute);
    assert_eq!(function("M"), WindowFunction::Sessions { gap: Micros(1_000_000) });
    assert_eq!(function("C/Create/WindowInto[out]"), minute);
    let sliding = WindowFunction::Sliding {
        size: Micros(10_000_000),
        period: Micros(5_000_000),
        offset: Micros(2_000_000),
    };
    assert_eq!(function("WindowInto"), sliding);
}

#[test]
fn a_list_of_inputs_is_flattened_and_a_flatten_unites_schemas() {
    let plan = plan(
        "
pipeline:
  transforms:
    - {type: Create, name: A, config: {elements: [{a: 1, c: 1}]}}
    - {type: Create, name: B, config: {elements: [{b: x, c: x}]}}
    - {type: LogForTesting, name: L, input: [A, B]}
    - {type: Flatten, input: {x: A, y: B}}
",
    );
    assert_eq!(names(&plan), ["A", "B", "L/Flatten[input]", "L", "Flatten"]);
    let united = schema(&[("a", Type::Int64.nullable()), ("c", Type::Any), ("b", Type::String.nullable())]);
    assert_eq!(node(&plan, "L").outputs[0].schema, united);
    let NodeKind::Flatten { projections } = &node(&plan, "Flatten").kind else { panic!() };
    let row = [Value::Int64(1), Value::Int64(2)];
    let first: Vec<Value> = projections[0].iter().map(|expr| eval(expr, &row).unwrap()).collect();
    assert_eq!(first, [Value::Int64(1), Value::Int64(2), Value::Null]);
}

#[test]
fn composites_have_inputs_outputs_and_paths() {
    let plan = plan(
        "
pipeline:
  transforms:
    - {type: Create, config: {elements: [{a: 1}]}}
    - type: composite
      name: Inner
      input: {rows: Create}
      transforms:
        - {type: Filter, input: rows, name: Big, config: {keep: a > 0}}
        - {type: Filter, input: rows, name: Other, config: {keep: a < 0}}
      output: {big: Big, small: Other}
    - type: chain
      name: Tail
      input: Inner.big
      transforms:
        - type: LogForTesting
        - type: LogForTesting
    - {type: WriteToJson, input: Tail, config: {path: x}}
    - {type: composite, name: Implicit, input: Inner.small, transforms: [{type: LogForTesting}, {type: Explode, config: {fields: []}}]}
",
    );
    assert_eq!(
        names(&plan),
        [
            "Create",
            "Inner/Big",
            "Inner/Other",
            "Tail/LogForTesting",
            "Tail/LogForTesting#2",
            "WriteToJson",
            "Implicit/LogForTesting",
            "Implicit/Explode"
        ]
    );
    assert_eq!(node(&plan, "WriteToJson").inputs[0].node.0, 4);
}

#[test]
fn a_chain_may_begin_and_end_with_source_and_sink_and_have_extras() {
    let plan = plan(
        "
pipeline:
  type: chain
  source: {type: Create, config: {elements: [{a: 1}]}}
  transforms:
    - {type: Filter, config: {keep: a, error_handling: {output: bad}}}
  sink: {type: WriteToJson, config: {path: x}}
  extra_transforms:
    - {type: LogForTesting, input: Filter.bad}
",
    );
    assert_eq!(names(&plan), ["Create", "Filter", "WriteToJson", "LogForTesting"]);
}

#[test]
fn fields_are_appended_dropped_and_declared() {
    let plan = plan(
        "
pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{a: 1, b: x, c: [1, 2]}]}}
    - type: MapToFields
      config:
        language: python
        append: true
        drop: [b]
        fields:
          b: {expression: a + 1, output_type: number}
          n: \"None\"
          m: {expression: 'a if a > 3 else None', output_type: integer}
    - {type: Explode, config: {fields: c}}
    - type: MapToFields
      config: {fields: {x: a, y: 5, z: '\"q\"', lt: a < 3}}
",
    );
    let first = &node(&plan, "MapToFields").outputs[0].schema;
    assert_eq!(
        first,
        &schema(&[
            ("a", Type::Int64),
            ("c", Type::Array(Box::new(Type::Int64))),
            ("b", Type::Float64),
            ("n", Type::Any),
            ("m", Type::Int64),
        ])
    );
    assert_eq!(node(&plan, "Explode").outputs[0].schema.fields[1].ty, Type::Int64);
    assert_eq!(
        node(&plan, "MapToFields#2").outputs[0].schema,
        schema(&[("x", Type::Int64), ("y", Type::Int64), ("z", Type::String), ("lt", Type::Boolean)])
    );
}

#[test]
fn anchors_aliases_and_merges_are_resolved() {
    let plan = plan(
        "
pipeline:
  transforms:
    - &base {type: Create, name: A, config: &c {elements: [{a: 1}]}}
    - {<<: *base, name: B}
    - {type: Create, name: C, config: *c}
",
    );
    assert_eq!(names(&plan), ["A", "B", "C"]);
}
