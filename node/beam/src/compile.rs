//! From text to plan.
//!
//! Owns the order of the phases. Must not know any transform. Invariant: the data is looked at only when
//! nothing is wrong with the document itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::config::Context;
use crate::diagnostic::{Diagnostics, Source, SourceName};
use crate::graph::{self, Port, Step, StepKind};
use crate::plan::error_schema;
use crate::plan::{KEY_GROUPS, Node, NodeId, NodeKind, Output, OutputRef, PLAN_VERSION, Plan, ReadSpec};
use crate::schema::{Schema, Type};
use crate::state::{StateSchema, Types};
use crate::transforms::{self, Rows, Sampler};
use crate::{syntax, yaml};

/// Gives the schema of data that declares none.
pub trait SchemaSource {
    /// The schema of what the read would read; the message says why it is not known.
    fn sample(&self, read: &ReadSpec) -> Result<Schema, String>;
}

/// For pipelines whose schemas are all declared: asks nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoSchemas;

impl SchemaSource for NoSchemas {
    fn sample(&self, _read: &ReadSpec) -> Result<Schema, String> {
        Err("there is no data to look at".to_owned())
    }
}

/// A pipeline that is sound as far as the document alone tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedPipeline {
    transforms: Vec<String>,
    sampled: Vec<String>,
    state: StateSchema,
}

impl CheckedPipeline {
    /// The full names of the steps, inputs before users.
    #[must_use]
    pub fn transforms(&self) -> &[String] {
        &self.transforms
    }

    /// The paths of reads whose schema only the data tells, so that types after them are unchecked.
    #[must_use]
    pub fn unsampled_reads(&self) -> &[String] {
        &self.sampled
    }

    /// What state it keeps, as far as the document alone tells.
    #[must_use]
    pub fn state(&self) -> &StateSchema {
        &self.state
    }
}

/// Checks everything that needs no data. What an operator runs.
pub fn check(text: &str, source: SourceName) -> Result<CheckedPipeline, Diagnostics> {
    let nodes = run(text, source, None)?;
    let sampled = nodes
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Read(read) if read.schema.is_none() => Some(read.path.clone()),
            _ => None,
        })
        .collect();
    let state = StateSchema::of_nodes(&nodes, Types::Declared);
    Ok(CheckedPipeline { transforms: nodes.into_iter().map(|node| node.name).collect(), sampled, state })
}

/// Compiles a Beam YAML document, once it is sound asking for the schemas it does not declare.
pub fn compile(text: &str, source: SourceName, schemas: &dyn SchemaSource) -> Result<Plan, Diagnostics> {
    run(text, source.clone(), None)?;
    let sampler = |read: &ReadSpec| schemas.sample(read);
    let nodes = run(text, source, Some(&sampler))?;
    Ok(Plan { version: PLAN_VERSION, key_groups: KEY_GROUPS, nodes })
}

fn run(text: &str, name: SourceName, sampler: Option<&Sampler<'_>>) -> Result<Vec<Node>, Diagnostics> {
    let source = Source::new(text, name);
    let root = yaml::parse(&source).map_err(|error| Diagnostics::new(vec![*error]))?;
    let cx = Context::new(source);
    let Some(pipeline) = syntax::document(&cx, &root) else {
        return Err(Diagnostics::new(cx.into_found()));
    };
    let steps = graph::build(&cx, &pipeline);
    if steps.is_empty() && cx.count() == 0 {
        cx.error(pipeline.span, "the pipeline has no transforms");
    }
    let nodes = type_steps(&cx, &steps, sampler);
    refuse_shared_outputs(&cx, &steps, &nodes);
    if cx.count() > 0 { Err(Diagnostics::new(cx.into_found())) } else { Ok(nodes) }
}

/// Types each step after its inputs. A step that is wrong yields unknown rows, so that one mistake is
/// reported once.
fn type_steps(cx: &Context<'_>, steps: &[Step<'_>], sampler: Option<&Sampler<'_>>) -> Vec<Node> {
    let mut results: Vec<[Rows; 2]> = Vec::with_capacity(steps.len());
    let mut nodes = Vec::with_capacity(steps.len());
    for (position, step) in steps.iter().enumerate() {
        let inputs: Vec<Rows> =
            step.inputs.iter().map(|port| results[port.step][usize::from(port.error)].clone()).collect();
        let checked = match &step.kind {
            StepKind::Leaf { transform, .. } => transforms::check(cx, transform, &inputs, sampler),
            StepKind::Window { spec } => transforms::window(cx, spec, &inputs[0]),
            StepKind::Flatten => Some(transforms::flatten(&inputs)),
            StepKind::Join { spec, stage, step } => transforms::check_join(cx, spec, *stage, *step, &inputs),
        };
        let errors = errors_of(step, inputs.first());
        let Some((kind, rows)) = checked else {
            results.push([Rows::unknown(), errors]);
            continue;
        };
        nodes.push(node(cx, step, position, kind, rows.as_ref(), &errors));
        results.push([rows.unwrap_or_else(Rows::unknown), errors]);
    }
    nodes
}

/// Two writes to one place would write over each other.
fn refuse_shared_outputs(cx: &Context<'_>, steps: &[Step<'_>], nodes: &[Node]) {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for node in nodes {
        let NodeKind::Write(write) = &node.kind else { continue };
        match taken.entry(plain_path(&write.path)) {
            Entry::Vacant(entry) => drop(entry.insert(&node.name)),
            Entry::Occupied(first) => {
                let message = format!("`{}` is written by {} already", write.path, first.get());
                let error = cx.at(steps[node.id.0 as usize].span, message);
                cx.report(error.with_help("give it a `path` of its own, or bring both together by Flatten"));
            }
        }
    }
}

/// A path without what does not change where it leads. In the name of an object every `/` counts.
fn plain_path(path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    root.to_owned() + &parts.join("/")
}

/// The rows of a step's dead letters.
fn errors_of(step: &Step<'_>, input: Option<&Rows>) -> Rows {
    match input {
        None => Rows::source(error_schema(Type::String)),
        Some(input) if input.open => Rows { loose: true, ..input.with(error_schema(Type::Any)) },
        Some(input) => {
            debug_assert!(!step.inputs.is_empty());
            input.with(error_schema(Type::Row(input.schema.clone())))
        }
    }
}

fn node(
    cx: &Context<'_>,
    step: &Step<'_>,
    position: usize,
    kind: NodeKind,
    rows: Option<&Rows>,
    errors: &Rows,
) -> Node {
    let output = |name: &str, rows: &Rows| Output {
        name: name.to_owned(),
        schema: rows.schema.clone(),
        windowing: rows.windowing.clone(),
        bounded: rows.bounded,
    };
    let mut outputs: Vec<Output> = rows.iter().map(|rows| output("output", rows)).collect();
    let error_name = match &step.kind {
        StepKind::Leaf { error_output, .. } => *error_output,
        _ => None,
    };
    let error_output = error_name.map(|name| {
        outputs.push(output(name, errors));
        outputs.len() as u32 - 1
    });
    let reference = |port: &Port| OutputRef {
        node: NodeId(port.step as u32),
        // The dead letters come after the result.
        output: u32::from(port.error),
    };
    Node {
        id: NodeId(position as u32),
        name: step.path.clone(),
        kind,
        inputs: step.inputs.iter().map(reference).collect(),
        outputs,
        error_output,
        span: transforms::place(cx, step.span),
    }
}
