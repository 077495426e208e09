//! Which fields of a read somebody looks at.
//!
//! Owns: how each step uses the fields of its input.
//! Must not know: formats, threads.
//! Invariant: a field that is not wanted is never asked for a value: it is only passed on or dropped.
//!
//! A step that may send its rows to dead letters shows them whole, so it wants every field.

use std::collections::BTreeMap;

use pharos_beam::expr::ir::{Expr, ExprKind};
use pharos_beam::plan::{Node, NodeId, NodeKind, OutputRef};

use crate::graph::Graph;

/// What is known already, by output: many ways may lead to one.
type Known = BTreeMap<OutputRef, Vec<bool>>;

/// For each field of a read's rows, whether it is wanted.
#[must_use]
pub(crate) fn wanted(graph: &Graph, read: &Node) -> Vec<bool> {
    let output = OutputRef { node: read.id, output: 0 };
    let mut wanted = of_output(graph, output, &mut Known::new());
    if read.error_output.is_some() {
        wanted.fill(true);
    }
    if let NodeKind::Read(spec) = &read.kind {
        spec.watermark.iter().for_each(|watermark| look(&watermark.timestamp, &mut wanted));
    }
    wanted
}

/// For each field of an output, whether one of its consumers wants it.
fn of_output(graph: &Graph, output: OutputRef, known: &mut Known) -> Vec<bool> {
    if let Some(wanted) = known.get(&output) {
        return wanted.clone();
    }
    let mut wanted = vec![false; graph.schema(output).fields.len()];
    for consumer in graph.consumers(output) {
        of_input(graph, graph.node(consumer.node), consumer.input, &mut wanted, known);
    }
    known.insert(output, wanted.clone());
    wanted
}

/// Adds what a step wants of the fields of one of its inputs.
fn of_input(graph: &Graph, node: &Node, input: usize, wanted: &mut [bool], known: &mut Known) {
    if node.error_output.is_some() {
        return wanted.fill(true);
    }
    let mut passed_on = |wanted: &mut [bool]| {
        let after = of_output(graph, result(node.id), known);
        wanted.iter_mut().zip(after).for_each(|(wanted, after)| *wanted |= after);
    };
    match &node.kind {
        NodeKind::Map { fields } => computed(of_output(graph, result(node.id), known), fields, wanted),
        NodeKind::Flatten { projections } => {
            computed(of_output(graph, result(node.id), known), &projections[input], wanted);
        }
        NodeKind::Filter { keep } => {
            look(keep, wanted);
            passed_on(wanted);
        }
        NodeKind::Explode { fields, .. } => {
            fields.iter().for_each(|field| wanted[*field] = true);
            passed_on(wanted);
        }
        NodeKind::AssignTimestamps { timestamp } => {
            look(timestamp, wanted);
            passed_on(wanted);
        }
        NodeKind::WindowInto => passed_on(wanted),
        NodeKind::Combine { keys, aggregations } => {
            keys.iter().for_each(|key| wanted[*key] = true);
            aggregations.iter().for_each(|aggregation| look(&aggregation.value, wanted));
        }
        NodeKind::Join { .. } | NodeKind::Log { .. } | NodeKind::AssertEqual { .. } | NodeKind::Write(_) => {
            wanted.fill(true)
        }
        NodeKind::Read(_) | NodeKind::Create { .. } => {}
    }
}

const fn result(node: NodeId) -> OutputRef {
    OutputRef { node, output: 0 }
}

/// What the expressions of a step's fields look at. One that only passes a field on looks at it if somebody looks at the
/// result.
fn computed(after: Vec<bool>, exprs: &[Expr], wanted: &mut [bool]) {
    for (expr, after) in exprs.iter().zip(after) {
        if after || !matches!(expr.kind, ExprKind::Field(_)) {
            look(expr, wanted);
        }
    }
}

/// Marks the fields that an expression looks at.
fn look(expr: &Expr, wanted: &mut [bool]) {
    wanted.iter_mut().enumerate().for_each(|(position, wanted)| *wanted |= expr.uses(position));
}

#[cfg(test)]
mod tests {
    use pharos_beam::{NoSchemas, SourceName, compile};

    use super::*;

    const FIELDS: &str = "
        schema:
          type: object
          properties: {a: {type: integer}, b: {type: integer}, c: {type: integer}, d: {type: string}}
          required: [a, b, c, d]";

    /// The fields that are wanted of a read that these transforms follow.
    fn wanted_of(after: &str) -> String {
        let text = format!(
            "pipeline:\n  type: chain\n  transforms:\n    - type: ReadFromParquet\n      config:\n        path: x{}\n{after}",
            FIELDS
        );
        let plan = compile(&text, SourceName::new("test.yaml"), &NoSchemas).unwrap();
        let graph = Graph::new(&plan).unwrap();
        let wanted = wanted(&graph, &plan.nodes[0]);
        ["a", "b", "c", "d"].iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect()
    }

    #[test]
    fn only_what_is_looked_at_is_wanted() {
        let combine = "
    - {type: Combine, config: {group_by: [b], combine: {n: {value: c, fn: sum}}}}";
        let map = "
    - {type: MapToFields, config: {fields: {b: a, c: c, unused: d}}}";
        let computed = "
    - {type: MapToFields, config: {language: python, fields: {b: a, c: c, unused: d + d}}}";
        let filter = "
    - {type: Filter, config: {language: python, keep: a > 1}}";
        let caught = "
    - {type: Filter, config: {language: python, keep: a > 1, error_handling: {output: bad}}}";
        let log = "
    - {type: LogForTesting}";
        let rest = "
  extra_transforms:
    - {type: LogForTesting, name: Bad, input: Filter.bad}";
        for (steps, expected) in [
            (combine.to_owned(), "bc"),
            (format!("{filter}{combine}"), "abc"),
            // A field that is passed on is wanted if somebody looks at the result.
            (format!("{map}{combine}"), "ac"),
            // A field that is computed may fail, whoever looks at it.
            (format!("{computed}{combine}"), "acd"),
            (log.to_owned(), "abcd"),
            (format!("{caught}{combine}{rest}"), "abcd"),
            // Nobody looks at the rows.
            (filter.to_owned(), "a"),
        ] {
            assert_eq!(wanted_of(&steps), expected, "{steps}");
        }
    }

    #[test]
    fn the_event_time_is_wanted() {
        let text = format!("{FIELDS}\n        watermark: {{timestamp: a, max_delay: 1s}}");
        let text = format!(
            "pipeline:\n  type: chain\n  transforms:\n    - type: ReadFromParquet\n      config:\n        path: x{text}\n    - {{type: Combine, config: {{group_by: [b], combine: {{n: {{value: b, fn: count}}}}}}}}"
        );
        let plan = compile(&text, SourceName::new("test.yaml"), &NoSchemas).unwrap();
        let graph = Graph::new(&plan).unwrap();
        assert_eq!(wanted(&graph, &plan.nodes[0]), [true, true, false, false]);
    }
}
