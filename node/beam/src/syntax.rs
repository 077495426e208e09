//! The shape of a pipeline: transforms, their nesting, inputs and outputs as written.
//!
//! Owns which keys stand where. Must not know what a reference means. Invariant: a [`Transform`] has a
//! type; what was wrong with its shape has been reported.

use crate::config::{Context, Entries};
use crate::diagnostic::Span;
use crate::yaml::{Data, Yaml};

/// How many transforms a pipeline may have.
const MAX_TRANSFORMS: usize = 1000;

/// A reference to an output, as written.
#[derive(Clone, Debug)]
pub(crate) struct Reference<'y> {
    pub(crate) text: &'y str,
    pub(crate) span: Span,
}

/// The inputs of a transform, as written.
#[derive(Clone, Debug)]
pub(crate) enum Inputs<'y> {
    /// No `input` key.
    Absent,
    /// `input: {}`: explicitly none.
    Empty,
    /// By name; a plain reference has the name `input`.
    Given(Vec<(String, Vec<Reference<'y>>)>),
}

/// A transform as written.
#[derive(Debug)]
pub(crate) struct Transform<'y> {
    pub(crate) ty: &'y str,
    /// Where its type stands.
    pub(crate) span: Span,
    pub(crate) name: Option<&'y str>,
    pub(crate) name_span: Span,
    pub(crate) inputs: Inputs<'y>,
    pub(crate) outputs: Vec<(String, Reference<'y>)>,
    pub(crate) windowing: Option<&'y Yaml>,
    pub(crate) config: Option<Entries<'y>>,
    pub(crate) children: Vec<Transform<'y>>,
    /// Of a chain: further transforms, which are not part of it.
    pub(crate) extra: Vec<Transform<'y>>,
}

impl Transform<'_> {
    pub(crate) fn is_chain(&self) -> bool {
        self.ty == "chain"
    }

    pub(crate) fn is_composite(&self) -> bool {
        matches!(self.ty, "chain" | "composite")
    }

    /// What messages call it.
    pub(crate) fn label(&self) -> &str {
        self.name.unwrap_or(self.ty)
    }
}

const DOCUMENT: [&str; 4] = ["pipeline", "options", "providers", "tests"];
const PIPELINE: [&str; 7] =
    ["type", "transforms", "extra_transforms", "source", "sink", "windowing", "resource_hints"];
const COMPOSITE: [&str; 10] = [
    "type",
    "name",
    "input",
    "output",
    "transforms",
    "extra_transforms",
    "source",
    "sink",
    "windowing",
    "resource_hints",
];
const LEAF: [&str; 7] = ["type", "name", "input", "output", "config", "windowing", "resource_hints"];

/// Reads the whole document.
pub(crate) fn document<'y>(cx: &Context<'_>, root: &'y Yaml) -> Option<Transform<'y>> {
    let entries = cx.map(root, "a pipeline document")?;
    if entries.get("pipeline").is_none() && entries.get("transforms").is_some() {
        let error = cx.at(entries.entries[0].0.span, "the document lacks the key `pipeline`");
        cx.report(error.with_help("put `pipeline:` above and indent the rest"));
        return None;
    }
    entries.only(cx, &DOCUMENT, "the document");
    for key in ["providers", "tests"] {
        if let Some((key_at, value)) = entries.entry(key)
            && !matches!(&value.data, Data::List(items) if items.is_empty())
            && !value.is_null()
        {
            cx.error(key_at.span, format!("`{key}` is not supported yet"));
        }
    }
    if let Some(options) = entries.get("options").filter(|options| !options.is_null()) {
        cx.map(options, "`options`");
    }
    let pipeline =
        entries.required(cx, "pipeline", Span::new(root.span.start, root.span.start), "the document")?;
    let body = cx.map(pipeline, "`pipeline`")?;
    body.only(cx, &PIPELINE, "the pipeline");
    let (ty, span) = match body.get("type") {
        None => ("composite", entries.entry("pipeline")?.0.span),
        Some(ty) => (cx.text(ty, "the type of the pipeline")?, ty.span),
    };
    if !matches!(ty, "chain" | "composite") {
        let error = cx.at(span, format!("the type of a pipeline is `chain` or `composite`, not `{ty}`"));
        cx.report(error.suggest(ty, ["chain", "composite"]));
        return None;
    }
    let mut budget = MAX_TRANSFORMS;
    nested(cx, body, ty, span, &mut budget)
}

/// A transform that holds others.
fn nested<'y>(
    cx: &Context<'_>,
    body: Entries<'y>,
    ty: &'y str,
    span: Span,
    budget: &mut usize,
) -> Option<Transform<'y>> {
    let mut children = Vec::new();
    if let Some(source) = body.get("source") {
        children.extend(transform(cx, source, budget).map(|mut source| {
            if matches!(source.inputs, Inputs::Absent) {
                source.inputs = Inputs::Empty;
            }
            source
        }));
    }
    match body.get("transforms") {
        Some(list) => children.extend(transforms(cx, list, "`transforms`", budget)),
        None if body.get("source").is_none() || body.get("sink").is_none() => {
            cx.error(span, "`transforms` is missing");
        }
        None => {}
    }
    children.extend(body.get("sink").and_then(|sink| transform(cx, sink, budget)));
    let extra = match body.entry("extra_transforms") {
        None => Vec::new(),
        Some((_, list)) if ty == "chain" => transforms(cx, list, "`extra_transforms`", budget),
        Some((key, _)) => {
            cx.error(key.span, "`extra_transforms` stands in chains only");
            Vec::new()
        }
    };
    Some(Transform {
        ty,
        span,
        name: body.get("name").and_then(|name| cx.text(name, "the name")),
        name_span: body.get("name").map_or(span, |name| name.span),
        inputs: inputs(cx, body),
        outputs: outputs(cx, body),
        windowing: body.get("windowing"),
        config: None,
        children,
        extra,
    })
}

fn transforms<'y>(cx: &Context<'_>, list: &'y Yaml, what: &str, budget: &mut usize) -> Vec<Transform<'y>> {
    let items = cx.list(list, what).unwrap_or_default();
    items.iter().filter_map(|item| transform(cx, item, budget)).collect()
}

fn transform<'y>(cx: &Context<'_>, yaml: &'y Yaml, budget: &mut usize) -> Option<Transform<'y>> {
    if *budget == 0 {
        cx.error(yaml.span, format!("more than {MAX_TRANSFORMS} transforms"));
        return None;
    }
    *budget -= 1;
    let body = cx.map(yaml, "a transform")?;
    let start = Span::new(yaml.span.start, yaml.span.start + 1);
    let Some(ty_yaml) = body.get("type") else {
        let keys: Vec<String> = body.entries.iter().map(|(key, _)| key.name()).collect();
        let near = keys.iter().find(|key| crate::diagnostic::nearest(key, ["type"]).is_some());
        let error = cx.at(start, "the transform lacks `type`");
        cx.report(match near {
            Some(key) => error.with_help(format!("`{key}` may be meant as `type`")),
            None => error,
        });
        return None;
    };
    let ty = cx.text(ty_yaml, "the type of a transform")?;
    if matches!(ty, "chain" | "composite") {
        body.only(cx, &COMPOSITE, ty);
        return nested(cx, body, ty, ty_yaml.span, budget);
    }
    keys(cx, body, ty);
    let config = match body.get("config") {
        Some(config) if !config.is_null() => Some(cx.map(config, "`config`")?),
        _ => None,
    };
    Some(Transform {
        ty,
        span: ty_yaml.span,
        name: body.get("name").and_then(|name| cx.text(name, "the name")),
        name_span: body.get("name").map_or(ty_yaml.span, |name| name.span),
        inputs: inputs(cx, body),
        outputs: outputs(cx, body),
        windowing: body.get("windowing"),
        config,
        children: Vec::new(),
        extra: Vec::new(),
    })
}

/// The keys of a transform that holds no others; a key of its configuration that stands outside is
/// named as such.
fn keys(cx: &Context<'_>, body: Entries<'_>, ty: &str) {
    let settings = crate::transforms::config_keys(ty);
    for (key, _) in body.entries {
        let name = key.name();
        if name == "output_schema" {
            cx.error(key.span, "`output_schema` is not supported yet");
        } else if settings.contains(&name.as_str()) && !LEAF.contains(&name.as_str()) {
            let error = cx.at(key.span, format!("`{name}` belongs under `config`"));
            cx.report(error);
        } else if !LEAF.contains(&name.as_str()) {
            let error = cx.at(key.span, format!("unknown key `{name}` of {ty}")).suggest(&name, LEAF);
            cx.report(if error.suggestion().is_none() {
                error.with_help(format!("known keys: {}", LEAF.join(", ")))
            } else {
                error
            });
        }
    }
}

fn inputs<'y>(cx: &Context<'_>, body: Entries<'y>) -> Inputs<'y> {
    let Some((key, input)) = body.entry("input") else { return Inputs::Absent };
    match &input.data {
        Data::Map(entries) if entries.is_empty() => Inputs::Empty,
        Data::Map(entries) => {
            Inputs::Given(entries.iter().map(|(key, value)| (key.name(), references(cx, value))).collect())
        }
        _ if input.is_null() => {
            cx.error(key.span, "`input` is empty: name a transform, or write `{}` for none");
            Inputs::Empty
        }
        _ => Inputs::Given(vec![("input".to_owned(), references(cx, input))]),
    }
}

fn references<'y>(cx: &Context<'_>, yaml: &'y Yaml) -> Vec<Reference<'y>> {
    let found = cx.texts(yaml, "an input").unwrap_or_default();
    if found.is_empty() && matches!(&yaml.data, Data::List(items) if items.is_empty()) {
        cx.error(yaml.span, "the list of inputs is empty");
    }
    found.into_iter().map(|(text, span)| Reference { text, span }).collect()
}

fn outputs<'y>(cx: &Context<'_>, body: Entries<'y>) -> Vec<(String, Reference<'y>)> {
    let Some(output) = body.get("output") else { return Vec::new() };
    let one = |key: String, value: &'y Yaml| {
        cx.text(value, "an output").map(|text| (key, Reference { text, span: value.span }))
    };
    match &output.data {
        Data::Map(entries) => entries.iter().filter_map(|(key, value)| one(key.name(), value)).collect(),
        _ => one("output".to_owned(), output).into_iter().collect(),
    }
}
