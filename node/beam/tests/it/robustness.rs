//! Whatever the text, there is an answer.

use pharos_beam::{NoSchemas, SourceName, compile};
use proptest::prelude::*;

/// The answer's text, so that rendering is part of the test.
fn answer(text: &str) -> String {
    match compile(text, SourceName::new("p"), &NoSchemas) {
        Ok(plan) => plan.hash().to_string(),
        Err(errors) => format!("{errors}{}", errors.summary()),
    }
}

fn pipeline(expression: &str) -> String {
    let quoted = serde_json::to_string(expression).unwrap();
    format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: [{{a: 1, s: x, l: [1], r: {{q: 1}}, n: null}}]}}}}\n    - type: MapToFields\n      config: {{language: python, fields: {{x: {quoted}}}}}\n"
    )
}

const WORDS: [&str; 40] = [
    "pipeline",
    "type",
    "transforms",
    "chain",
    "composite",
    "Create",
    "config",
    "elements",
    "input",
    "name",
    "Combine",
    "group_by",
    "combine",
    "windowing",
    "fixed",
    "size",
    "10s",
    "Filter",
    "keep",
    "a",
    "error_handling",
    "output",
    "&x",
    "*x",
    "<<",
    "|",
    ">",
    "\"",
    "'",
    "#",
    "!!str",
    "é",
    "\t",
    "-1",
    "2024-01-01",
    "~",
    "[",
    "}",
    "0x",
    ".",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_is_answered(text in "\\PC{0,60}") {
        answer(&text);
    }

    #[test]
    fn random_yaml_is_answered(
        parts in prop::collection::vec((0..WORDS.len(), prop::sample::select(vec![": ", "\n", "\n  ", "\n    - ", ", ", "{", "[", " "])), 0..30)
    ) {
        let text: String = parts.into_iter().map(|(word, gap)| format!("{}{gap}", WORDS[word])).collect();
        answer(&text);
    }

    #[test]
    fn random_expressions_are_answered(text in "[ a-z0-9'\"{}()+*/%<>=.,:!f\\[\\]\\\\é-]{0,30}") {
        answer(&pipeline(&text));
    }

    #[test]
    fn damaged_pipelines_are_answered(at in 0_usize..200, with in "[ -~\n\té]{0,3}") {
        let mut text = pipeline("s.upper() + str(a)[0:1]");
        let at = at.min(text.len());
        let end = (at + 2).min(text.len());
        text.replace_range(at..end, &with);
        answer(&text);
    }
}
