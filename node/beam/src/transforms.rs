//! The transforms: which there are, which keys they take, and what each makes of its input.
//!
//! Owns the table of transforms. Must not know how they are wired. Invariant: the table here is the one
//! place where a transform's name and keys are written.

mod aggregate;
mod elements;
mod io;
mod join;
mod mapping;

use crate::config::{Context, Entries};
use crate::diagnostic::Span;
use crate::expr::check::{self, Fields};
use crate::expr::ir::Expr;
use crate::expr::lexer::ExprError;
use crate::expr::syntax::Ast;
use crate::plan::{NodeKind, ReadSpec, SourceSpan, Windowing};
use crate::schema::{Schema, Type};
use crate::syntax::Transform;
use crate::yaml::{Data, Scalar, Yaml};

pub(crate) use join::{JoinSpec, JoinStep, check as check_join, parse as parse_join};

/// How many inputs a transform takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    Source,
    One,
    Many,
    /// Two or more, each by its name.
    Named,
}

struct Entry {
    name: &'static str,
    arity: Arity,
    has_output: bool,
    keys: &'static [&'static str],
}

const fn entry(name: &'static str, arity: Arity, has_output: bool, keys: &'static [&'static str]) -> Entry {
    Entry { name, arity, has_output, keys }
}

const TABLE: [Entry; 18] = [
    entry("Create", Arity::Source, true, &["elements", "reshuffle"]),
    entry("ReadFromText", Arity::Source, true, &["path", "watermark", "error_handling"]),
    entry(
        "ReadFromCsv",
        Arity::Source,
        true,
        &["path", "delimiter", "comment", "filename_column", "schema", "watermark", "error_handling"],
    ),
    entry("ReadFromJson", Arity::Source, true, &["path", "schema", "watermark", "error_handling"]),
    entry("ReadFromParquet", Arity::Source, true, &["path", "schema", "watermark", "error_handling"]),
    entry("WriteToText", Arity::One, false, &["path", "num_shards"]),
    entry("WriteToCsv", Arity::One, false, &["path", "delimiter", "num_shards"]),
    entry("WriteToJson", Arity::One, false, &["path", "num_shards"]),
    entry(
        "MapToFields",
        Arity::One,
        true,
        &["fields", "append", "drop", "language", "dependencies", "error_handling"],
    ),
    entry("Filter", Arity::One, true, &["keep", "language", "error_handling"]),
    entry("Explode", Arity::One, true, &["fields", "cross_product", "error_handling"]),
    entry("Flatten", Arity::Many, true, &[]),
    entry("AssignTimestamps", Arity::One, true, &["timestamp", "language", "error_handling"]),
    entry("WindowInto", Arity::One, true, &["windowing"]),
    entry("Combine", Arity::One, true, &["group_by", "combine", "language", "error_handling"]),
    entry("Join", Arity::Named, true, &["type", "equalities", "fields"]),
    entry("LogForTesting", Arity::One, true, &["level", "prefix", "error_handling"]),
    entry("AssertEqual", Arity::One, false, &["elements"]),
];

/// What Beam has and this does not serve yet: named so, rather than called unknown.
const NOT_YET: [&str; 24] = [
    "AnomalyDetection",
    "Enrichment",
    "ExtractWindowingInfo",
    "MLTransform",
    "MatchAll",
    "Partition",
    "PyTransform",
    "ReadFromAvro",
    "ReadFromBigQuery",
    "ReadFromJdbc",
    "ReadFromKafka",
    "ReadFromPubSub",
    "ReadFromTFRecord",
    "Reshuffle",
    "RunInference",
    "Sql",
    "StripErrorMetadata",
    "ValidateWithSchema",
    "WriteToAvro",
    "WriteToBigQuery",
    "WriteToJdbc",
    "WriteToKafka",
    "WriteToParquet",
    "WriteToPubSub",
];

fn find(ty: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == ty)
}

/// How many inputs a transform takes; `None` if there is no such transform.
pub(crate) fn arity(ty: &str) -> Option<Arity> {
    find(ty).map(|entry| entry.arity)
}

/// Whether it yields a result.
pub(crate) fn has_output(ty: &str) -> bool {
    find(ty).is_some_and(|entry| entry.has_output)
}

/// The keys of its configuration.
pub(crate) fn config_keys(ty: &str) -> &'static [&'static str] {
    find(ty).map_or(&[], |entry| entry.keys)
}

pub(crate) fn report_unknown(cx: &Context<'_>, transform: &Transform<'_>) {
    let ty = transform.ty;
    if NOT_YET.contains(&ty) {
        cx.error(transform.span, format!("the transform `{ty}` is not supported yet"));
        return;
    }
    let known = TABLE.iter().map(|entry| entry.name).chain(["chain", "composite"]);
    let error = cx.at(transform.span, format!("unknown transform `{ty}`")).suggest(ty, known);
    cx.report(if error.suggestion().is_none() {
        let names: Vec<&str> = TABLE.iter().map(|entry| entry.name).collect();
        error.with_help(format!("the transforms are {}", names.join(", ")))
    } else {
        error
    });
}

/// The name of the dead letters, if the transform asks for them.
pub(crate) fn error_output<'y>(cx: &Context<'_>, transform: &Transform<'y>) -> Option<&'y str> {
    if !config_keys(transform.ty).contains(&"error_handling") {
        return None;
    }
    let handling = transform.config?.get("error_handling").filter(|handling| !handling.is_null())?;
    let entries = cx.map(handling, "`error_handling`")?;
    if let Some((key, _)) = entries.entry("threshold") {
        cx.error(key.span, "`threshold` is not supported yet");
    }
    entries.only(cx, &["output", "threshold"], "error_handling");
    let output = entries.required(cx, "output", handling.span, "`error_handling`")?;
    let name = cx.text(output, "the error output")?;
    if matches!(name, "out" | "output" | "good") {
        cx.error(output.span, format!("`{name}` is the name of the result: choose another"));
        return None;
    }
    Some(name)
}

/// Rows as far as they are known.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) schema: Schema,
    /// There may be fields that are not listed: the data tells.
    pub(crate) open: bool,
    /// `Any` may stand for a type that the data tells.
    pub(crate) loose: bool,
    pub(crate) windowing: Windowing,
    /// Inputs with different windows have met and not been windowed again.
    pub(crate) mixed: bool,
    /// A grouping has given some of them their windows.
    pub(crate) grouped: bool,
    pub(crate) bounded: bool,
}

impl Rows {
    pub(crate) fn source(schema: Schema) -> Rows {
        Rows {
            schema,
            open: false,
            loose: false,
            windowing: Windowing::default(),
            mixed: false,
            grouped: false,
            bounded: true,
        }
    }

    /// Rows of which nothing is known: after an error, or before the data is read.
    pub(crate) fn unknown() -> Rows {
        Rows { open: true, loose: true, ..Rows::source(Schema::default()) }
    }

    pub(crate) fn with(&self, schema: Schema) -> Rows {
        Rows { schema, open: false, ..self.clone() }
    }

    fn fields(&self) -> Fields<'_> {
        Fields { schema: &self.schema, open: self.open }
    }
}

/// What reads sample their schema with, once the document is otherwise sound.
pub(crate) type Sampler<'a> = dyn Fn(&ReadSpec) -> Result<Schema, String> + 'a;

/// A transform being checked.
pub(crate) struct Job<'j, 'c, 'y> {
    pub(crate) cx: &'j Context<'c>,
    pub(crate) transform: &'y Transform<'y>,
    pub(crate) config: Entries<'y>,
    pub(crate) inputs: &'j [Rows],
    pub(crate) sampler: Option<&'j Sampler<'j>>,
}

/// What a transform does, and the rows it yields, if any.
pub(crate) type Checked = Option<(NodeKind, Option<Rows>)>;

/// Checks a transform; `None` when something was reported.
pub(crate) fn check<'y>(
    cx: &Context<'_>,
    transform: &'y Transform<'y>,
    inputs: &[Rows],
    sampler: Option<&Sampler<'_>>,
) -> Checked {
    let before = cx.count();
    let config = transform.config.unwrap_or(Entries::empty());
    config.only(cx, config_keys(transform.ty), transform.ty);
    let job = Job { cx, transform, config, inputs, sampler };
    let checked = match transform.ty {
        "Create" => elements::create(&job),
        "AssertEqual" => elements::assert_equal(&job),
        "ReadFromText" | "ReadFromCsv" | "ReadFromJson" | "ReadFromParquet" => io::read(&job),
        "WriteToText" | "WriteToCsv" | "WriteToJson" => io::write(&job),
        "LogForTesting" => io::log(&job),
        "MapToFields" => mapping::map_to_fields(&job),
        "Filter" => mapping::filter(&job),
        "AssignTimestamps" => mapping::assign_timestamps(&job),
        "Explode" => mapping::explode(&job),
        "Flatten" => Some(flatten(inputs)),
        "WindowInto" => window_into(&job),
        _ => aggregate::combine(&job),
    };
    checked.filter(|_| cx.count() == before)
}

impl<'y> Job<'_, '_, 'y> {
    fn input(&self) -> &Rows {
        &self.inputs[0]
    }

    fn required(&self, key: &str) -> Option<&'y Yaml> {
        let (label, span) = (self.transform.label(), self.transform.name_span);
        self.config.required(self.cx, key, span, &format!("`{label}`"))
    }

    /// `generic` or `python`.
    fn language(&self) -> Option<Language> {
        let Some(yaml) = self.config.get("language").filter(|yaml| !yaml.is_null()) else {
            return Some(Language::Generic);
        };
        match self.cx.text(yaml, "the language")? {
            "generic" => Some(Language::Generic),
            "python" => Some(Language::Python),
            other => {
                let message = if matches!(other, "javascript" | "sql" | "calcite" | "java") {
                    format!("the language `{other}` is not supported yet")
                } else {
                    format!("unknown language `{other}`")
                };
                self.cx.report(self.cx.at(yaml.span, message).suggest(other, ["generic", "python"]));
                None
            }
        }
    }
}

/// The language of expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Generic,
    Python,
}

/// An expression's text in the document.
pub(crate) struct Source<'y> {
    pub(crate) text: String,
    yaml: &'y Yaml,
}

/// The text of an expression given as a scalar or as `{expression: …}`; other forms are refused.
pub(crate) fn expression<'y>(cx: &Context<'_>, yaml: &'y Yaml, what: &str) -> Option<Source<'y>> {
    match &yaml.data {
        Data::Scalar(Scalar::String(text)) => Some(Source { text: text.clone(), yaml }),
        Data::Scalar(scalar @ (Scalar::Int(_) | Scalar::BigInt(_) | Scalar::Float(_) | Scalar::Bool(_))) => {
            Some(Source { text: scalar.python_str(), yaml })
        }
        Data::Map(entries) => {
            let entries = Entries { entries };
            for key in ["callable", "path", "name"] {
                if let Some((key_at, _)) = entries.entry(key) {
                    let error =
                        cx.at(key_at.span, format!("`{key}` is not supported: {what} takes an expression"));
                    cx.report(error);
                    return None;
                }
            }
            entries.only(cx, &["expression", "output_type"], what);
            let inner = entries.required(cx, "expression", yaml.span, what)?;
            if matches!(inner.data, Data::Map(_)) {
                cx.error(inner.span, "an expression must be a string, not a map");
                return None;
            }
            expression(cx, inner, what)
        }
        _ => {
            cx.error(yaml.span, format!("{what} must be an expression, not {}", yaml.kind()));
            None
        }
    }
}

impl Source<'_> {
    /// Types the expression; errors point at its part of the document.
    pub(crate) fn check(&self, cx: &Context<'_>, rows: &Rows, form: Form) -> Option<Expr> {
        let checked = self.parse(rows.fields(), form).and_then(|ast| {
            if form.condition {
                check::check_condition(&ast, rows.fields())
            } else {
                check::check(&ast, rows.fields())
            }
        });
        checked.map_err(|error| self.report(cx, &error)).ok()
    }

    fn parse(&self, fields: Fields<'_>, form: Form) -> Result<Ast, ExprError> {
        match form.language {
            Language::Generic => crate::expr::generic::parse_generic(&self.text, fields, form.comparisons),
            Language::Python => crate::expr::syntax::parse(&self.text),
        }
    }

    pub(crate) fn report(&self, cx: &Context<'_>, error: &ExprError) {
        let start = locate(cx.source.text, self.yaml.span, &self.text, error.span.start);
        let end = locate(cx.source.text, self.yaml.span, &self.text, error.span.end.max(1) - 1) + 1;
        let end = (end..=cx.source.text.len()).find(|&at| cx.source.text.is_char_boundary(at)).unwrap_or(end);
        let found = cx.at(Span::new(start, end.max(start)), error.message.clone());
        let found = found.with_suggestion(error.suggestion.clone());
        cx.report(match &error.help {
            Some(help) => found.with_help(help.clone()),
            None => found,
        });
    }

    /// Where the expression stands.
    pub(crate) fn span(&self) -> Span {
        self.yaml.span
    }
}

/// What an expression may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) language: Language,
    /// Whether the generic language may compare.
    pub(crate) comparisons: bool,
    /// Whether only its truth counts.
    pub(crate) condition: bool,
}

impl Form {
    pub(crate) fn value(language: Language) -> Form {
        Form { language, comparisons: true, condition: false }
    }
}

/// The byte of the document where byte `offset` of a scalar's value stands: the value is matched with
/// the text, which may have quotes, escapes, folds and indentation between.
fn locate(document: &str, span: Span, value: &str, offset: usize) -> usize {
    let raw = &document[span.start..span.end.min(document.len())];
    let mut at = match raw.chars().next() {
        Some('|' | '>') => raw.find('\n').map_or(0, |end| end + 1),
        Some('"' | '\'') => 1,
        _ => 0,
    };
    for (here, c) in value.char_indices() {
        let rest = &raw[at.min(raw.len())..];
        let skip = if c.is_whitespace() { 0 } else { rest.find(c).unwrap_or(rest.len()) };
        if here >= offset {
            return span.start + (at + skip).min(raw.len());
        }
        if c == '\n' || c == ' ' && !rest.starts_with(' ') {
            at += rest.len() - rest.trim_start().len();
        } else if rest[skip..].starts_with(c) {
            at += skip + c.len_utf8();
        }
    }
    span.start + at.min(raw.len())
}

/// Where a span begins, as the plan keeps it.
pub(crate) fn place(cx: &Context<'_>, span: Span) -> SourceSpan {
    let (line, column) = cx.source.position(span.start);
    SourceSpan { line, column }
}

/// The union of all inputs: fields that one lacks are null, types that differ are `Any`.
pub(crate) fn flatten(inputs: &[Rows]) -> (NodeKind, Option<Rows>) {
    let open = inputs.iter().any(|rows| rows.open);
    let union = inputs.iter().map(|rows| rows.schema.clone()).reduce(|a, b| a.union(&b)).unwrap_or_default();
    let projections = inputs
        .iter()
        .map(|rows| {
            union.fields.iter().map(|field| project(rows, &field.name, &field.ty)).collect::<Vec<Expr>>()
        })
        .collect();
    let windowing = inputs[0].windowing.clone();
    let rows = Rows {
        schema: union,
        open,
        loose: inputs.iter().any(|rows| rows.loose),
        mixed: inputs.iter().any(|rows| rows.mixed || rows.windowing != windowing),
        grouped: inputs.iter().any(|rows| rows.grouped),
        bounded: inputs.iter().all(|rows| rows.bounded),
        windowing,
    };
    (NodeKind::Flatten { projections }, Some(rows))
}

/// The field of that name in that type, or null.
fn project(rows: &Rows, name: &str, ty: &Type) -> Expr {
    use crate::expr::ir::ExprKind;
    use crate::schema::Value;
    match rows.schema.index_of(name) {
        None => Expr { ty: ty.clone(), kind: ExprKind::Literal(Value::Null) },
        Some(position) => {
            let field = Expr { ty: rows.schema.fields[position].ty.clone(), kind: ExprKind::Field(position) };
            check::coerce(field, ty).unwrap_or_else(|expr| *expr)
        }
    }
}

fn window_into(job: &Job<'_, '_, '_>) -> Checked {
    let spec = job.transform.windowing.or_else(|| job.config.get("windowing"));
    let Some(spec) = spec else {
        job.required("windowing");
        return None;
    };
    window(job.cx, spec, job.input())
}

/// The windowing of a specification put onto rows.
pub(crate) fn window(cx: &Context<'_>, spec: &Yaml, rows: &Rows) -> Checked {
    let windowing = crate::windowing::parse(cx, spec)?;
    Some((NodeKind::WindowInto, Some(Rows { windowing, mixed: false, grouped: false, ..rows.clone() })))
}
