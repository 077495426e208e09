//! From nested transforms with references to a flat graph of steps.
//!
//! Owns names, references, chains, implicit flattens, windowing pushed down, and the rule that error
//! outputs are consumed. Must not know what a transform does. Invariant: steps are in topological order.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::config::Context;
use crate::diagnostic::Span;
use crate::syntax::{Inputs, Reference, Transform};
use crate::transforms::{Arity, JoinSpec, JoinStep, arity, parse_join};
use crate::yaml::Yaml;

/// One output of one step. `error` tells the dead letters from the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) step: usize,
    pub(crate) error: bool,
}

/// A step of the graph.
#[derive(Debug)]
pub(crate) struct Step<'y> {
    /// The full path of names.
    pub(crate) path: String,
    pub(crate) span: Span,
    pub(crate) kind: StepKind<'y>,
    pub(crate) inputs: Vec<Port>,
}

#[derive(Debug)]
pub(crate) enum StepKind<'y> {
    /// A transform that holds no others; the name of its dead letters if it asks for them.
    Leaf { transform: &'y Transform<'y>, error_output: Option<&'y str> },
    /// Windowing put before or after a transform.
    Window { spec: &'y Yaml },
    /// Several inputs where one is taken.
    Flatten,
    /// A step of a Join, which is made of several, and of which of its stages.
    Join { spec: Rc<JoinSpec>, stage: usize, step: JoinStep },
}

/// The outputs of a transform by name; `None` stands for one that could not be built.
#[derive(Clone, Debug, Default)]
struct Outputs {
    named: Vec<(String, Port)>,
    /// Which of them is the dead letters.
    error: Option<String>,
    /// What is wrong has been reported: references to it are not errors of their own.
    broken: bool,
}

impl Outputs {
    fn broken() -> Outputs {
        Outputs { broken: true, ..Outputs::default() }
    }
}

/// Resolves the pipeline into steps.
pub(crate) fn build<'y>(cx: &Context<'_>, pipeline: &'y Transform<'y>) -> Vec<Step<'y>> {
    let mut builder = Builder { cx, steps: Vec::new(), paths: BTreeSet::new() };
    let scope = Scope::new(pipeline, "", Vec::new(), pipeline.windowing);
    builder.composite(scope);
    builder.steps
}

enum State {
    New,
    Open,
    Done(Outputs),
}

/// The inside of a composite while it is resolved.
struct Scope<'y> {
    of: &'y Transform<'y>,
    members: Vec<&'y Transform<'y>>,
    paths: Vec<String>,
    states: Vec<State>,
    inputs: Vec<(String, Port)>,
    /// Windowing for members without inputs.
    windowing: Option<&'y Yaml>,
    /// How many members, from the first, feed each the next.
    chained: usize,
    consumed: BTreeSet<(usize, String)>,
}

impl<'y> Scope<'y> {
    fn new(
        of: &'y Transform<'y>,
        prefix: &str,
        inputs: Vec<(String, Port)>,
        windowing: Option<&'y Yaml>,
    ) -> Scope<'y> {
        let members: Vec<&Transform<'_>> = of.children.iter().chain(&of.extra).collect();
        let explicit =
            |member: &&Transform<'_>| matches!(member.inputs, Inputs::Given(_)) || !member.outputs.is_empty();
        let implicit = !inputs.is_empty() && !members.iter().any(explicit);
        let chained = if of.is_chain() || implicit { of.children.len() } else { 0 };
        let paths = paths(&members, prefix);
        let states = members.iter().map(|_| State::New).collect();
        Scope { of, members, paths, states, inputs, windowing, chained, consumed: BTreeSet::new() }
    }
}

/// Full paths: the explicit name, else the type, numbered from the second of the same type on.
fn paths(members: &[&Transform<'_>], prefix: &str) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    members
        .iter()
        .map(|member| match member.name {
            Some(name) => format!("{prefix}{name}"),
            None => {
                let count = seen.entry(member.ty).or_insert(0);
                *count += 1;
                let number = if *count == 1 { String::new() } else { format!("#{count}") };
                format!("{prefix}{}{number}", member.ty)
            }
        })
        .collect()
}

struct Builder<'a, 'c, 'y> {
    cx: &'a Context<'c>,
    steps: Vec<Step<'y>>,
    paths: BTreeSet<String>,
}

impl<'y> Builder<'_, '_, 'y> {
    fn step(&mut self, path: String, span: Span, kind: StepKind<'y>, inputs: Vec<Port>) -> usize {
        if !self.paths.insert(path.clone()) {
            let error = self.cx.at(span, format!("duplicate name `{path}`"));
            self.cx.report(error.with_help("state is kept by name: give each its own"));
        }
        self.steps.push(Step { path, span, kind, inputs });
        self.steps.len() - 1
    }

    fn composite(&mut self, mut scope: Scope<'y>) -> Outputs {
        if scope.of.is_chain() {
            self.check_chain(&scope);
        }
        for member in 0..scope.members.len() {
            self.member(&mut scope, member, None);
        }
        let outputs = self.composite_outputs(&mut scope);
        self.errors_consumed(&scope);
        outputs
    }

    fn check_chain(&self, scope: &Scope<'y>) {
        for (position, member) in scope.of.children.iter().enumerate() {
            let explicit = match member.inputs {
                Inputs::Absent => None,
                Inputs::Empty if position == 0 => None,
                _ => Some("input"),
            };
            let explicit = explicit.or((!member.outputs.is_empty()).then_some("output"));
            if let Some(key) = explicit {
                let message = format!("`{}` is part of a chain and takes no `{key}`", member.label());
                let error = self.cx.at(member.name_span, message);
                self.cx.report(error.with_help("use `type: composite`, or `extra_transforms`"));
            }
        }
    }

    fn composite_outputs(&mut self, scope: &mut Scope<'y>) -> Outputs {
        let last = scope.chained.checked_sub(1);
        if scope.of.outputs.is_empty() {
            return match last {
                Some(last) => {
                    if let State::Done(outputs) = &scope.states[last] {
                        outputs.clone()
                    } else {
                        Outputs::broken()
                    }
                }
                None => Outputs::default(),
            };
        }
        let mut outputs = Outputs::default();
        for (name, reference) in &scope.of.outputs {
            match self.resolve(scope, reference) {
                Some(port) => outputs.named.push((name.clone(), port)),
                None => outputs.broken = true,
            }
        }
        outputs
    }

    /// Builds a member once; `from` is the reference that asks for it.
    fn member(&mut self, scope: &mut Scope<'y>, member: usize, from: Option<&Reference<'y>>) -> Outputs {
        match &scope.states[member] {
            State::Done(outputs) => return outputs.clone(),
            State::Open => {
                let span = from.map_or(scope.members[member].span, |reference| reference.span);
                let label = scope.members[member].label();
                self.cx.error(span, format!("`{label}` depends on itself"));
                return Outputs::broken();
            }
            State::New => {}
        }
        scope.states[member] = State::Open;
        let outputs = self.build(scope, member);
        scope.states[member] = State::Done(outputs.clone());
        outputs
    }

    fn build(&mut self, scope: &mut Scope<'y>, member: usize) -> Outputs {
        let transform = scope.members[member];
        let path = scope.paths[member].clone();
        let inputs = self.inputs(scope, member);
        if inputs.iter().any(|(_, ports)| ports.is_empty()) {
            return self.broken(transform, &path, scope.windowing);
        }
        let root = inputs.is_empty();
        let own = transform.windowing.filter(|_| transform.ty != "WindowInto");
        let pushed = if root { scope.windowing } else { None };
        let inputs = self.window_inputs(inputs, own, transform, &path);
        if transform.is_composite() {
            let inputs = self.flattened(inputs, transform, &path);
            let windowing = own.or(pushed);
            let prefix = format!("{path}/");
            return self.composite(Scope::new(transform, &prefix, inputs, windowing));
        }
        let windowing = if root { own.or(pushed) } else { None };
        self.leaf(transform, &path, inputs, windowing)
    }

    /// A transform whose inputs are wrong is still checked for itself.
    fn broken(&mut self, transform: &'y Transform<'y>, path: &str, windowing: Option<&'y Yaml>) -> Outputs {
        if transform.is_composite() {
            self.composite(Scope::new(transform, &format!("{path}/"), Vec::new(), windowing));
        }
        Outputs::broken()
    }

    fn inputs(&mut self, scope: &mut Scope<'y>, member: usize) -> Vec<(String, Vec<Port>)> {
        let transform = scope.members[member];
        match &transform.inputs {
            Inputs::Given(inputs) if member >= scope.chained || !scope.of.is_chain() => inputs
                .iter()
                .map(|(key, references)| {
                    let ports = references.iter().map(|reference| self.resolve(scope, reference));
                    (key.clone(), ports.collect::<Option<Vec<Port>>>().unwrap_or_default())
                })
                .collect(),
            _ if member >= scope.chained => Vec::new(),
            Inputs::Empty if member == 0 => Vec::new(),
            _ if member == 0 => scope.inputs.iter().map(|(key, port)| (key.clone(), vec![*port])).collect(),
            _ => {
                let outputs = self.member(scope, member - 1, None);
                let span = transform.span;
                let port = self.pick(scope.members[member - 1].label(), &outputs, span);
                vec![("input".to_owned(), port.into_iter().collect())]
            }
        }
    }

    fn resolve(&mut self, scope: &mut Scope<'y>, reference: &Reference<'y>) -> Option<Port> {
        if let Some((_, port)) = scope.inputs.iter().find(|(name, _)| name == reference.text) {
            return Some(*port);
        }
        let (name, output) = match reference.text.rsplit_once('.') {
            Some((name, output)) => (name, Some(output)),
            None => (reference.text, None),
        };
        let member = self.find(scope, name, reference)?;
        let outputs = self.member(scope, member, Some(reference));
        match output {
            None => self.pick(name, &outputs, reference.span),
            Some(output) => {
                scope.consumed.insert((member, output.to_owned()));
                self.named(name, output, &outputs, reference.span)
            }
        }
    }

    /// The member of that name or type.
    fn find(&self, scope: &Scope<'y>, name: &str, reference: &Reference<'y>) -> Option<usize> {
        let matches = |member: &&Transform<'_>| member.name == Some(name) || member.ty == name;
        let found: Vec<usize> = (0..scope.members.len()).filter(|&at| matches(&scope.members[at])).collect();
        match found.as_slice() {
            [member] => return Some(*member),
            [] => {
                let names = scope.members.iter().map(|member| member.label());
                let inputs = scope.inputs.iter().map(|(name, _)| name.as_str());
                let error = self.cx.at(reference.span, format!("unknown input `{name}`"));
                self.cx.report(error.suggest(name, names.chain(inputs)));
            }
            several => {
                let lines: Vec<String> = several
                    .iter()
                    .map(|&at| self.cx.source.position(scope.members[at].span.start).0.to_string())
                    .collect();
                let message = format!("`{name}` is ambiguous: lines {}", lines.join(", "));
                let error = self.cx.at(reference.span, message);
                self.cx.report(error.with_help("give the transforms names"));
            }
        }
        None
    }

    /// The one output of a transform, or the one that is not its dead letters.
    fn pick(&self, name: &str, outputs: &Outputs, span: Span) -> Option<Port> {
        let mut results = outputs.named.iter().filter(|(key, _)| Some(key) != outputs.error.as_ref());
        match (results.next(), results.next()) {
            (Some((_, port)), None) => return Some(*port),
            (None, _) if outputs.broken => {}
            (None, _) => self.cx.error(span, format!("`{name}` has no output")),
            (Some(_), Some(_)) => {
                let names: Vec<&str> = outputs.named.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("`{name}` has several outputs: {}", names.join(", "));
                self.cx.error(span, message);
            }
        }
        None
    }

    fn named(&self, name: &str, output: &str, outputs: &Outputs, span: Span) -> Option<Port> {
        if let Some((_, port)) = outputs.named.iter().find(|(key, _)| key == output) {
            return Some(*port);
        }
        let mut results = outputs.named.iter().filter(|(key, _)| Some(key) != outputs.error.as_ref());
        if let (Some((_, port)), None, "out" | "output" | "good") = (results.next(), results.next(), output) {
            return Some(*port);
        }
        if !outputs.broken {
            let names = outputs.named.iter().map(|(name, _)| name.as_str());
            let error = self.cx.at(span, format!("`{name}` has no output `{output}`"));
            self.cx.report(error.suggest(output, names));
        }
        None
    }

    fn window_inputs(
        &mut self,
        inputs: Vec<(String, Vec<Port>)>,
        windowing: Option<&'y Yaml>,
        transform: &'y Transform<'y>,
        path: &str,
    ) -> Vec<(String, Vec<Port>)> {
        let Some(spec) = windowing else { return inputs };
        inputs
            .into_iter()
            .map(|(key, ports)| {
                let several = ports.len() > 1;
                let windowed = ports.into_iter().enumerate().map(|(at, port)| {
                    let number = if several { at.to_string() } else { String::new() };
                    let path = format!("{path}/WindowInto[{key}{number}]");
                    let step = self.step(path, transform.span, StepKind::Window { spec }, vec![port]);
                    Port { step, error: false }
                });
                let windowed: Vec<Port> = windowed.collect();
                (key, windowed)
            })
            .collect()
    }

    /// One port for each name: several are flattened.
    fn flattened(
        &mut self,
        inputs: Vec<(String, Vec<Port>)>,
        transform: &'y Transform<'y>,
        path: &str,
    ) -> Vec<(String, Port)> {
        inputs
            .into_iter()
            .filter_map(|(key, ports)| match ports.as_slice() {
                [] => None,
                [port] => Some((key, *port)),
                _ => {
                    let path = format!("{path}/Flatten[{key}]");
                    let step = self.step(path, transform.span, StepKind::Flatten, ports);
                    Some((key, Port { step, error: false }))
                }
            })
            .collect()
    }

    fn leaf(
        &mut self,
        transform: &'y Transform<'y>,
        path: &str,
        inputs: Vec<(String, Vec<Port>)>,
        windowing: Option<&'y Yaml>,
    ) -> Outputs {
        let Some(arity) = arity(transform.ty) else {
            crate::transforms::report_unknown(self.cx, transform);
            return Outputs::broken();
        };
        if !self.inputs_fit(arity, &inputs, transform) {
            return Outputs::broken();
        }
        if arity == Arity::Named {
            return self.join(transform, path, inputs);
        }
        let ports: Vec<Port> = if arity == Arity::Many {
            inputs.into_iter().flat_map(|(_, ports)| ports).collect()
        } else {
            self.flattened(inputs, transform, path).into_iter().map(|(_, port)| port).collect()
        };
        let error_output = crate::transforms::error_output(self.cx, transform);
        let kind = StepKind::Leaf { transform, error_output };
        let step = self.step(path.to_owned(), transform.name_span, kind, ports);
        let mut outputs = Outputs { error: error_output.map(str::to_owned), ..Outputs::default() };
        if crate::transforms::has_output(transform.ty) {
            let main = if error_output.is_some() { "good" } else { "out" };
            outputs.named.push((main.to_owned(), Port { step, error: false }));
        }
        outputs.named.extend(error_output.map(|name| (name.to_owned(), Port { step, error: true })));
        if let Some(spec) = windowing {
            for (name, port) in &mut outputs.named {
                let path = format!("{path}/WindowInto[{name}]");
                let step = self.step(path, transform.span, StepKind::Window { spec }, vec![*port]);
                *port = Port { step, error: false };
            }
        }
        outputs
    }

    /// A Join as the steps it is made of. The last stage's grouping, which keeps its state, has its name.
    fn join(
        &mut self,
        transform: &'y Transform<'y>,
        path: &str,
        inputs: Vec<(String, Vec<Port>)>,
    ) -> Outputs {
        let inputs = self.flattened(inputs, transform, path);
        let tables: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        let Some(spec) = parse_join(self.cx, transform, tables).map(Rc::new) else {
            return Outputs::broken();
        };
        let mut left = inputs[0].1;
        for (stage, (table, right)) in inputs[1..].iter().enumerate() {
            let last = stage + 2 == inputs.len();
            let path = if last { path.to_owned() } else { format!("{path}/Join[{table}]") };
            let mut step = |of: &str, step, ports| {
                let kind = StepKind::Join { spec: Rc::clone(&spec), stage, step };
                Port {
                    step: self.step(format!("{path}{of}"), transform.name_span, kind, ports),
                    error: false,
                }
            };
            let sides = step("/Sides", JoinStep::Sides, vec![left, *right]);
            let groups = step("", JoinStep::Group, vec![sides]);
            left = step("/Rows", JoinStep::Rows, vec![groups]);
        }
        Outputs { named: vec![("out".to_owned(), left)], ..Outputs::default() }
    }

    fn inputs_fit(&self, arity: Arity, inputs: &[(String, Vec<Port>)], transform: &Transform<'_>) -> bool {
        let label = transform.label();
        let wrong = match (arity, inputs.len()) {
            (Arity::Source, 0) | (Arity::One, 1) | (Arity::Many, 1..) | (Arity::Named, 2..) => None,
            (Arity::Named, _) => {
                Some(format!("`{label}` takes two inputs at least, each by a name of its own"))
            }
            (Arity::Source, _) => Some(format!("`{label}` takes no input")),
            (_, 0) => Some(format!("`{label}` has no input")),
            (_, _) => Some(format!("`{label}` takes one input, not {}", inputs.len())),
        };
        match wrong {
            None => true,
            Some(message) => {
                let error = self.cx.at(transform.name_span, message);
                let missing = inputs.is_empty();
                self.cx.report(if arity == Arity::Named {
                    error.with_help("write `input: {one: …, other: …}`")
                } else if missing {
                    error.with_help("name another transform by `input:`, or use `type: chain`")
                } else {
                    error
                });
                false
            }
        }
    }

    /// Dead letters that nobody reads would be lost without a word.
    fn errors_consumed(&self, scope: &Scope<'y>) {
        for (at, state) in scope.states.iter().enumerate() {
            if let State::Done(Outputs { error: Some(error), broken: false, .. }) = state
                && !scope.consumed.contains(&(at, error.clone()))
                && !scope.members[at].is_composite()
            {
                let label = scope.members[at].label();
                let message = format!("the error output `{label}.{error}` is not consumed");
                let found = self.cx.at(scope.members[at].name_span, message);
                let place = if scope.of.is_chain() { " in `extra_transforms`" } else { "" };
                self.cx.report(found.with_help(format!("use it as an input of another transform{place}")));
            }
        }
    }
}
