//! Each kind of mistake: where it is shown, what it says, what it suggests.

use crate::support::errors;
use pharos_beam::{SourceName, check};

/// A chain of Create with fields `a: integer`, `s: string` and these lines after it (from line 5 on).
fn after_create(rest: &str) -> String {
    format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: [{{a: 1, s: x}}]}}}}\n{rest}"
    )
}

#[test]
fn an_unknown_transform_is_named_with_the_nearest_known() {
    let text = after_create("    - type: Combin\n");
    assert_eq!(errors(&text), ["5:13: unknown transform `Combin` (did you mean `Combine`?)"]);
    let error = check(&text, SourceName::new("spec.pipeline")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: unknown transform `Combin`\n --> spec.pipeline:5:13\n  |\n5 |     - type: Combin\n  \
         |             ^^^^^^\n  = help: did you mean `Combine`?"
    );
}

#[test]
fn a_transform_of_beam_that_is_not_served_is_said_to_be_so() {
    let text = after_create("    - type: ReadFromKafka\n");
    assert_eq!(errors(&text), ["5:13: the transform `ReadFromKafka` is not supported yet"]);
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known() {
    let text = after_create("    - type: Filter\n      config: {kep: a}\n");
    let expected =
        ["5:13: `Filter` lacks `keep`", "6:16: unknown key `kep` of Filter (did you mean `keep`?)"];
    assert_eq!(errors(&text), expected);
    let text = after_create("    - type: Filter\n      confg: {keep: a}\n");
    assert_eq!(errors(&text)[1], "6:7: unknown key `confg` of Filter (did you mean `config`?)");
    let text = after_create("    - type: Filter\n      keep: a\n");
    assert_eq!(errors(&text)[1], "6:7: `keep` belongs under `config`");
    assert_eq!(errors("pipelin: {}\n")[0], "1:1: the document lacks `pipeline`");
}

#[test]
fn an_expression_points_at_its_part_of_the_line() {
    let text = after_create(
        "    - type: MapToFields\n      config:\n        language: python\n        fields:\n          x: a + s\n          y: s.uper()\n          z: \"'x' + st\"\n          v: |\n            a +\n              b\n",
    );
    assert_eq!(
        errors(&text),
        [
            "9:14: `+` does not take integer and string",
            "10:14: unknown method `uper` (did you mean `upper`?)",
            "11:21: unknown field `st` (the fields are a, s)",
            "14:15: unknown field `b` (the fields are a, s)",
        ]
    );
}

#[test]
fn the_generic_language_takes_fields_literals_and_one_comparison() {
    let text = after_create(
        "    - type: MapToFields\n      config:\n        fields:\n          x: a + 1\n          y: hello\n          z: aa\n",
    );
    assert_eq!(
        errors(&text),
        [
            "8:14: `a + 1` is no field, literal or comparison (for an expression say `language: python`)",
            "9:14: `hello` is no field, literal or comparison (for an expression say `language: python`)",
            "10:14: `aa` is no field, literal or comparison (for an expression say `language: python`)",
        ]
    );
    let text = after_create("    - {type: Filter, config: {keep: s > 1}}\n");
    assert_eq!(errors(&text), ["5:37: `>` has no order for string and integer"]);
}

#[test]
fn inputs_must_exist_and_be_told_apart() {
    let text = "pipeline:\n  transforms:\n    - {type: Create, name: Source, config: {elements: [1]}}\n    - {type: LogForTesting, input: Sorce}\n    - type: LogForTesting\n      name: Lonely\n";
    assert_eq!(
        errors(text),
        [
            "4:36: unknown input `Sorce` (did you mean `Source`?)",
            "6:13: `Lonely` has no input (name another transform by `input:`, or use `type: chain`)",
        ]
    );
    let text = "pipeline:\n  transforms:\n    - {type: Create, config: {elements: [1]}}\n    - {type: Create, config: {elements: [1]}}\n    - {type: LogForTesting, input: Create}\n";
    assert_eq!(errors(text), ["5:36: `Create` is ambiguous: lines 3, 4 (give the transforms names)"]);
    let text = "pipeline:\n  transforms:\n    - {type: Create, config: {elements: [1]}}\n    - {type: LogForTesting, input: Create.errs}\n";
    assert_eq!(errors(text), ["4:36: `Create` has no output `errs`"]);
    let text = "pipeline:\n  transforms:\n    - {type: Create, name: A, config: {elements: [1]}}\n    - {type: Create, input: A, config: {elements: [1]}}\n";
    assert_eq!(errors(text), ["4:14: `Create` takes no input"]);
    let text = "pipeline:\n  transforms:\n    - {type: Create, name: A, config: {elements: [1]}}\n    - {type: WriteToJson, input: A, config: {path: x}}\n    - {type: LogForTesting, input: WriteToJson}\n";
    assert_eq!(errors(text), ["5:36: `WriteToJson` has no output"]);
}

#[test]
fn a_cycle_is_shown_where_it_closes() {
    let text = "pipeline:\n  transforms:\n    - {type: LogForTesting, name: A, input: B}\n    - {type: LogForTesting, name: B, input: A}\n";
    assert_eq!(errors(text), ["4:45: `A` depends on itself"]);
    let text = "pipeline:\n  transforms:\n    - {type: LogForTesting, name: A, input: A}\n";
    assert_eq!(errors(text), ["3:45: `A` depends on itself"]);
}

#[test]
fn members_of_a_chain_name_no_inputs() {
    let text = after_create("    - {type: LogForTesting, input: Create}\n");
    assert_eq!(
        errors(&text),
        [
            "5:14: `LogForTesting` is part of a chain and takes no `input` (use `type: composite`, or `extra_transforms`)"
        ]
    );
}

#[test]
fn error_outputs_must_be_consumed() {
    let text = after_create(
        "    - type: MapToFields\n      config: {language: python, fields: {x: 1 / a}, error_handling: {output: bad}}\n    - type: LogForTesting\n",
    );
    assert_eq!(
        errors(&text),
        [
            "5:13: the error output `MapToFields.bad` is not consumed (use it as an input of another transform in `extra_transforms`)"
        ]
    );
    let text = after_create("    - {type: Filter, config: {keep: a, error_handling: {}}}\n");
    assert_eq!(errors(&text), ["5:56: `error_handling` lacks `output`"]);
}

#[test]
fn two_transforms_of_one_name_are_refused() {
    let text = "pipeline:\n  transforms:\n    - {type: Create, name: A, config: {elements: [1]}}\n    - {type: Create, name: A, config: {elements: [1]}}\n";
    assert_eq!(errors(text), ["4:28: duplicate name `A` (state is kept by name: give each its own)"]);
}

#[test]
fn two_writes_to_one_path_are_refused() {
    let to = |paths: [&str; 3]| {
        let line = |(at, path)| {
            format!("    - {{type: WriteToJson, name: W{at}, input: C, config: {{path: {path}}}}}\n")
        };
        let writes: String = paths.into_iter().enumerate().map(line).collect();
        format!(
            "pipeline:\n  transforms:\n    - {{type: Create, name: C, config: {{elements: [{{a: 1}}]}}}}\n{writes}"
        )
    };
    assert_eq!(
        errors(&to(["/out/a", "b", "'/out/.//a'"])),
        [
            "6:33: `/out/.//a` is written by W0 already (give it a `path` of its own, or bring both together by Flatten)"
        ]
    );
    check(&to(["s3://b/a", "s3://b//a", "s3://b/./a"]), SourceName::new("spec.pipeline")).unwrap();
}

#[test]
fn windowing_is_checked_key_by_key() {
    let one = |windowing: &str| {
        errors(&after_create(&format!("    - type: LogForTesting\n      windowing: {windowing}\n")))
    };
    assert_eq!(one("{type: fiexd, size: 1m}"), ["6:25: unknown window type `fiexd` (did you mean `fixed`?)"]);
    assert_eq!(
        one("{type: fixed, sise: 1m}"),
        [
            "6:18: fixed windows lacks `size`",
            "6:32: unknown key `sise` of fixed windows (did you mean `size`?)"
        ]
    );
    assert_eq!(
        one("{type: fixed, size: 1 m}"),
        ["6:38: `size`: unknown unit ` m` (a number and one of ms, s, m, h, d, as in `30s`)"]
    );
    assert_eq!(one("{type: fixed, size: 0}"), ["6:38: `size` must be positive"]);
    assert_eq!(
        one("{type: sessions, gap: 1s, trigger: {after_processing_time: 5s}}"),
        ["6:53: triggers other than `default` are not supported yet"]
    );
    assert_eq!(
        one("{type: global, timestamp_combiner: latst}"),
        ["6:53: unknown timestamp_combiner `latst` (did you mean `latest`?)"]
    );
    assert_eq!(one("fixed"), ["6:18: `windowing` must be a map"]);
}

#[test]
fn combine_names_what_it_cannot_aggregate() {
    let text = after_create(
        "    - type: Combine\n      config:\n        group_by: b\n        combine:\n          a: sun\n          s: sum\n          n: count\n",
    );
    assert_eq!(
        errors(&text),
        [
            "7:19: the input has no field `b`",
            "9:14: unknown aggregation `sun` (did you mean `sum`?)",
            "10:14: `sum` does not aggregate string",
            "11:11: the input has no field `n` to aggregate (say which: `n: {value: …, fn: …}`)",
        ]
    );
}

#[test]
fn a_timestamp_is_a_number() {
    let text = after_create("    - {type: AssignTimestamps, config: {timestamp: s}}\n");
    assert_eq!(
        errors(&text),
        [
            "5:52: a timestamp is a number of seconds since 1970, not string (if the text is a number, write `int(…)` or `float(…)` with `language: python`)"
        ]
    );
}

#[test]
fn yaml_itself_is_checked_with_places() {
    assert_eq!(errors("a: 1\na: 2\n"), ["2:1: duplicate key `a`, first on line 1"]);
    assert_eq!(errors("pipeline: {}\n---\nb: 1\n"), ["2:1: expected one document, found a second"]);
    assert_eq!(errors(""), ["1:1: the document is empty"]);
    assert_eq!(errors("pipeline: {type: 08:00}\n").len(), 1);
    assert!(errors("pipeline:\n\ttype: chain\n")[0].starts_with("2:2: invalid YAML: tabs"));
    assert!(errors("pipeline: [1\n")[0].contains("invalid YAML"));
    assert_eq!(errors("pipeline: 2024-13-01\n"), ["1:11: `2024-13-01` is no date"]);
    assert_eq!(errors("- 1\n"), ["1:1: a pipeline document must be a map, not a list"]);
    assert_eq!(errors("? [1]\n: 2\n"), ["1:3: a map or list cannot be a key"]);
}

#[test]
fn words_that_yaml_reads_as_other_types_are_explained() {
    let text = "pipeline:\n  transforms:\n    - {type: Create, name: NO, config: {elements: [1]}}\n";
    assert_eq!(
        errors(text),
        ["3:28: the name must be a string, not a boolean (YAML 1.1 reads this as another type: quote it)"]
    );
}

#[test]
fn several_errors_come_at_once_in_order() {
    let text = "pipeline:\n  transforms:\n    - {type: Creat}\n    - {type: Filter, input: Nobody, config: {keep: 1, foo: 2}}\n    - {typ: Filter}\n";
    assert_eq!(
        errors(text),
        [
            "3:14: unknown transform `Creat` (did you mean `Create`?)",
            "4:29: unknown input `Nobody`",
            "5:7: the transform lacks `type` (`typ` may be meant as `type`)",
        ]
    );
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let text = format!("{}providers: [{{type: python}}]\ntests: [{{}}]\n", after_create(""));
    assert_eq!(errors(&text), ["5:1: `providers` is not supported yet", "6:1: `tests` is not supported yet"]);
    let text = after_create(
        "    - type: MapToFields\n      config: {language: javascript, fields: {x: {callable: f}}}\n",
    );
    assert_eq!(errors(&text), ["6:26: the language `javascript` is not supported yet"]);
}

#[test]
fn an_embedded_block_is_named_by_its_field_or_by_the_lines_of_its_file() {
    let text = after_create("    - type: Combin\n");
    let in_file = SourceName::new("m.yaml").embedded(12, 4);
    let error = check(&text, in_file).unwrap_err();
    let first = &error.as_slice()[0];
    assert_eq!((first.source_name(), first.line(), first.column()), ("m.yaml", 16, 17));
}
