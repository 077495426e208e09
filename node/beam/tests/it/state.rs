//! Whose state another pipeline takes over.

use pharos_beam::plan::PLAN_VERSION;
use pharos_beam::schema::{Schema, Type};
use pharos_beam::state::{StateSchema, TakeOver};
use pharos_beam::{SourceName, check, compile};
use proptest::prelude::*;

use crate::support::{Sampled, plan, schema};

/// A pipeline in pieces, so that one of them can be another.
const PIECES: [(&str, &str); 5] = [
    (
        "Events",
        "    - type: ReadFromJson
      name: Events
      config:
        path: in/*.json
        schema: {type: object, required: [at, user, cost], properties: {at: {type: integer}, user: {type: string}, cost: {type: number}}}
        watermark: {timestamp: at, max_delay: 30s}
",
    ),
    ("Few", "    - {type: Filter, name: Few, input: Events, config: {language: python, keep: cost > 1}}\n"),
    (
        "Sum",
        "    - type: Combine
      name: Sum
      input: Few
      windowing: {type: fixed, size: 60s}
      config: {group_by: user, combine: {n: {value: cost, fn: count}, cost: {value: cost, fn: sum}}}
",
    ),
    ("Fixed", "    - {type: Create, name: Fixed, config: {elements: [1, 2]}}\n"),
    ("Out", "    - {type: WriteToJson, name: Out, input: Sum, config: {path: out}}\n"),
];

fn document(of: impl Fn(&str, &str) -> String) -> String {
    let pieces = PIECES.iter().map(|(name, text)| of(name, text)).collect::<String>();
    format!("pipeline:\n  transforms:\n{pieces}")
}

fn state(text: &str) -> StateSchema {
    StateSchema::of(&plan(text))
}

fn with(from: &str, to: &str) -> String {
    let whole = document(|_, text| text.to_owned());
    assert!(whole.contains(from), "{from}");
    whole.replace(from, to)
}

/// What stands in the way of the change, as the worker finds it and as the operator does.
fn refused(from: &str, to: &str) -> [String; 2] {
    let (before, after) = (with("", ""), with(from, to));
    let worker = state(&before).taken_over_by(&state(&after));
    let checked = |text: &str| check(text, SourceName::new("p")).unwrap().state().clone();
    let operator = checked(&before).taken_over_by(&checked(&after));
    [worker, operator].map(|found| found.map_or_else(|found| found.to_string(), |_| "taken over".to_owned()))
}

#[test]
fn whoever_has_not_changed_takes_everything_over() {
    let own = state(&with("", ""));
    let names = ["Events", "Fixed", "Out", "Sum"].map(str::to_owned).to_vec();
    assert_eq!(own.taken_over_by(&own), Ok(TakeOver { kept: names, begun: Vec::new() }));
    assert_eq!(serde_json::from_str::<StateSchema>(&serde_json::to_string(&own).unwrap()).unwrap(), own);
}

#[test]
fn what_keeps_no_state_changes_freely() {
    for (from, to) in [
        ("cost > 1", "cost > 2"),
        ("max_delay: 30s", "max_delay: 50s"),
        ("cost: {value: cost, fn: sum}", "cost: {value: cost * 2, fn: sum}"),
        ("properties: {at", "properties: {ip: {type: string}, at"),
        ("input: Few", "input: Events"),
    ] {
        assert_eq!(refused(from, to), ["taken over", "taken over"], "{from} becomes {to}");
    }
    let more = "    - {type: Combine, name: More, input: Events, config: {group_by: user, combine: {n: {value: cost, fn: count}}}}\n";
    let after = with("    - {type: Create", &format!("{more}    - {{type: Create"));
    let taken = state(&with("", "")).taken_over_by(&state(&after)).unwrap();
    assert_eq!(taken.begun, ["More"]);
}

#[test]
fn what_state_means_must_stay_and_the_transform_is_named() {
    for (from, to, what) in [
        (
            "user: {type: string}",
            "user: {type: integer}",
            "transform `Sum`: key field `user` was string, is integer",
        ),
        ("size: 60s", "size: 300s", "transform `Sum`: window was fixed 60 s, is fixed 300 s"),
        (
            "{type: fixed, size: 60s}",
            "{type: sessions, gap: 5s}",
            "transform `Sum`: window was fixed 60 s, is sessions with a gap of 5 s",
        ),
        ("group_by: user", "group_by: at", "transform `Sum`: its key was `user`, is `at`"),
        ("group_by: user", "group_by: [user, at]", "transform `Sum`: its key was `user`, is `user`, `at`"),
        ("fn: sum", "fn: max", "transform `Sum`: aggregation `cost` was sum of number, is max of number"),
        (
            "{n: {value: cost, fn: count}, ",
            "{",
            "transform `Sum`: its aggregations were `n`, `cost`, are `cost`",
        ),
        (
            "path: in/*.json",
            "path: in/a*.json",
            "transform `Events`: its path was `in/*.json`, is `in/a*.json`",
        ),
        ("timestamp: at", "timestamp: cost", "transform `Events`: its event time was of `at`, is of `cost`"),
        (
            "        watermark: {timestamp: at, max_delay: 30s}\n",
            "",
            "transform `Events`: its event time was of `at`, is none",
        ),
        ("[1, 2]", "[1, 3]", "transform `Fixed`: its rows are out, and are others now"),
        ("path: out}", "path: other}", "transform `Out`: its path was `out`, is `other`"),
        ("path: out}", "path: out, num_shards: 2}", "transform `Out`: its number of files was 1, is 2"),
        ("WriteToJson", "WriteToCsv", "transform `Out`: its format was JSON, is CSV by ','"),
    ] {
        let [worker, operator] = refused(from, to);
        assert_eq!(worker, what, "{from} becomes {to}");
        assert_eq!(operator, what, "{from} becomes {to}");
    }
}

#[test]
fn a_transform_that_is_gone_or_something_else_is_named() {
    let without =
        |gone: &str| document(|name, text| if name == gone { String::new() } else { text.to_owned() });
    let before = state(&with("", ""));
    let found = before.taken_over_by(&state(&without("Out"))).unwrap_err().to_string();
    assert_eq!(found, "transform `Out`: is gone, with what it has written and is not visible yet");
    let other = "    - {type: Filter, name: Fixed, input: Few, config: {language: python, keep: cost > 1}}\n";
    let found = before.taken_over_by(&state(&document(|name, text| {
        if name == "Fixed" { other.to_owned() } else { text.to_owned() }
    })));
    assert_eq!(
        found.unwrap_err().to_string(),
        "transform `Fixed`: is gone, with the note that its rows are out"
    );
    let renamed = state(&with("name: Sum", "name: Total").replace("input: Sum", "input: Total"));
    let found = before.taken_over_by(&renamed).unwrap_err().to_string();
    assert_eq!(found, "transform `Sum`: is gone, with what it has gathered");
}

#[test]
fn what_only_the_data_tells_is_left_to_the_worker() {
    let schema_line = with("", "").lines().find(|line| line.contains("schema:")).unwrap().to_owned();
    let sampled = with(&format!("{schema_line}\n"), "");
    let other = sampled.replace("cost > 1", "cost > 5");
    let of = |text: &str, user: Type| {
        let fields: Schema = schema(&[("at", Type::Int64), ("user", user), ("cost", Type::Float64)]);
        let compiled = compile(text, SourceName::new("p"), &Sampled(fields)).unwrap();
        assert_eq!(compiled.version, PLAN_VERSION);
        StateSchema::of(&compiled)
    };
    let checked = |text: &str| check(text, SourceName::new("p")).unwrap().state().clone();
    assert!(checked(&sampled).taken_over_by(&checked(&other)).is_ok());
    assert!(checked(&with("", "")).taken_over_by(&checked(&other)).is_ok());
    let (before, now) = (of(&sampled, Type::String), of(&other, Type::Int64));
    let found = before.taken_over_by(&now).unwrap_err().to_string();
    assert_eq!(found, "transform `Sum`: key field `user` was string, is integer");
    assert!(!before.has_input_of(&now) && before.has_input_of(&of(&other, Type::String)));
    // What the document does say is compared all the same.
    let found = checked(&sampled).taken_over_by(&checked(&other.replace("60s", "61s"))).unwrap_err();
    assert_eq!(found.to_string(), "transform `Sum`: window was fixed 60 s, is fixed 61 s");
}

#[test]
fn the_columns_that_the_head_of_a_file_names_stay() {
    let csv = with("WriteToJson", "WriteToCsv");
    let other = csv.replace(
        "cost: {value: cost, fn: sum}",
        "cost: {value: cost, fn: sum}, most: {value: cost, fn: max}",
    );
    let found = state(&csv).taken_over_by(&state(&other)).unwrap_err().to_string();
    assert!(
        found.contains(
            "transform `Out`: its columns were `user`, `n`, `cost`, are `user`, `n`, `cost`, `most`"
        ),
        "{found}"
    );
}

proptest! {
    /// Whatever is left out, the transforms that keep state and are gone are named, and no others.
    #[test]
    fn all_that_is_gone_is_named(gone in prop::collection::btree_set(prop::sample::select(vec!["Sum", "Fixed", "Out"]), 0..3)) {
        // What reads a transform that is gone reads the one before it.
        let after = document(|name, text| {
            let text = if gone.contains("Sum") { text.replace("input: Sum", "input: Few") } else { text.to_owned() };
            if gone.contains(name) { String::new() } else { text }
        });
        let (before, after) = (state(&with("", "")), state(&after));
        let named: Vec<String> = match before.taken_over_by(&after) {
            Ok(_) => Vec::new(),
            Err(found) => found.differences.iter().map(|one| one.transform.clone()).collect(),
        };
        let expected: Vec<String> = gone.iter().map(|name| (*name).to_owned()).collect();
        prop_assert_eq!(named, expected);
        // It has been taken over if nothing is named: then the way back loses nothing either.
        if gone.is_empty() {
            prop_assert!(after.taken_over_by(&before).is_ok());
        }
    }
}
