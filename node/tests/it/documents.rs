//! Documents and data that a Pipeline cannot be run from.

use crate::kit::{Ended, names, run};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A directory with a chain of these transforms, from line 4 on, in `p.yaml`.
fn chain(transforms: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("pipeline:\n  type: chain\n  transforms:\n{transforms}");
    fs::write(dir.path().join("p.yaml"), text).unwrap();
    dir
}

fn check(dir: &Path) -> Ended {
    run(dir, ["check", "p.yaml"])
}

fn local(dir: &Path) -> Ended {
    run(dir, ["local", "-f", "p.yaml", "--data-dir", "data", "--client-addr", "127.0.0.1:0"])
}

#[test]
fn unknown_transforms_and_keys_and_type_errors_are_told_with_line_and_column_and_nothing_is_started() {
    for (filter, said) in [
        (
            "{type: Filtre}",
            "error: unknown transform `Filtre`\n --> p.yaml:5:14\n  |\n5 |     - {type: Filtre}\n",
        ),
        (
            "{type: Filter, config: {keep: a, kep: s}}",
            "error: unknown key `kep` of Filter\n --> p.yaml:5:40\n",
        ),
        (
            "{type: Filter, config: {language: python, keep: a + s > 1}}",
            "error: `+` does not take integer and string\n --> p.yaml:5:55\n",
        ),
    ] {
        let dir = chain(&format!(
            "    - {{type: Create, config: {{elements: [{{a: 1, s: x}}]}}}}\n    - {filter}\n"
        ));
        check(dir.path()).is_refused(&[said]);
        local(dir.path()).is_refused(&[said]);
        assert_eq!(names(dir.path()), ["p.yaml"]);
    }
}

#[test]
fn a_missing_document_is_named() {
    let dir = tempfile::tempdir().unwrap();
    check(dir.path()).is_refused(&["p.yaml: No such file"]);
    local(dir.path()).is_refused(&["p.yaml: cannot read it: No such file"]);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_missing_input_is_named_whether_or_not_its_schema_is_declared() {
    for (read, place) in [
        ("{type: ReadFromText, config: {path: no.txt}}", "p.yaml:4:"),
        ("{type: ReadFromJson, config: {path: no.txt}}", "p.yaml:4:43"),
        (
            "{type: ReadFromJson, config: {path: no.txt, schema: {type: object, properties: {a: {type: integer}}}}}",
            "p.yaml:4:",
        ),
    ] {
        let dir = chain(&format!("    - {read}\n    - {{type: WriteToJson, config: {{path: out}}}}\n"));
        check(dir.path()).is_refused(&["no.txt`: there is no such file", place]);
        local(dir.path()).is_refused(&["no.txt`: there is no such file"]);
        assert_eq!(names(dir.path()), ["data", "p.yaml"], "no output is begun");
    }
}

#[test]
fn a_malformed_row_fails_the_run_with_file_and_line_unless_it_is_a_dead_letter() {
    let write = "    - {type: WriteToJson, config: {path: out}}\n";
    let dir = chain(&format!("    - {{type: ReadFromJson, config: {{path: in.json}}}}\n{write}"));
    fs::write(dir.path().join("in.json"), "{\"a\": 1}\n{\"a\": \n").unwrap();
    local(dir.path()).is_refused(&["transform `ReadFromJson`", "in.json:2: column 7: expected a value"]);
    assert!(!dir.path().join("out-00000-of-00001").exists(), "nothing half done becomes visible");
    let handled = "pipeline:\n  transforms:\n    - {type: ReadFromJson, name: R, config: {path: in.json, error_handling: {output: bad}}}\n    - {type: WriteToJson, name: W, input: R, config: {path: out}}\n    - {type: WriteToJson, name: B, input: R.bad, config: {path: bad}}\n";
    fs::write(dir.path().join("p.yaml"), handled).unwrap();
    let ended = local(dir.path());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let written = |name: &str| fs::read_to_string(dir.path().join(format!("{name}-00000-of-00001"))).unwrap();
    assert_eq!(written("out"), "{\"a\":1}\n");
    assert!(written("bad").contains("in.json:2: column 7"), "{}", written("bad"));
}

#[test]
fn files_whose_fields_differ_are_one_schema_if_it_is_seen_and_else_named_by_line_with_nothing_lost() {
    let read = |more: &str| format!("{{type: ReadFromJson, name: R, config: {{path: 'in-*.json'{more}}}}}");
    let write = "    - {type: WriteToJson, name: W, config: {path: out}}\n";
    let dir = chain(&format!("    - {}\n{write}", read("")));
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let written = |name: &str| fs::read_to_string(dir.path().join(format!("{name}-00000-of-00001"))).unwrap();
    // A number in one file and a text in the other, a field that only one has: both are seen before anything is read.
    put("in-a.json", "{\"n\": 1}\n");
    put("in-b.json", "{\"n\": \"x\", \"more\": true}\n");
    let ended = local(dir.path());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(written("out"), "{\"n\":1,\"more\":null}\n{\"n\":\"x\",\"more\":true}\n");
    // So many records are not looked at.
    let many = "{\"n\": 1}\n".repeat(10_000);
    put("in-a.json", &many);
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    local(dir.path()).is_refused(&[
        "transform `R`",
        "in-b.json:1: column 10: field `n`: expected integer, found a string",
    ]);
    assert_eq!(written("out").lines().count(), 2, "nothing half done becomes visible");
    let handled = format!(
        "pipeline:\n  transforms:\n    - {}\n    - {{type: WriteToJson, name: W, input: R, config: {{path: out}}}}\n\
         \x20   - {{type: WriteToJson, name: B, input: R.bad, config: {{path: bad}}}}\n",
        read(", error_handling: {output: bad}")
    );
    put("p.yaml", &handled);
    let ended = local(dir.path());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(written("out"), many.replace(": ", ":"));
    assert!(written("bad").contains("in-b.json:1: column 10: field `n`"), "{}", written("bad"));
}

#[test]
fn an_output_that_cannot_be_made_is_named() {
    let dir = chain(
        "    - {type: Create, config: {elements: [1]}}\n    - {type: WriteToJson, config: {path: p.yaml/out}}\n",
    );
    local(dir.path()).is_refused(&["transform `WriteToJson`: `./p.yaml`: File exists"]);
}
