//! Reads, writes and the log.

use super::{Checked, Form, Job, Language, Rows, expression};
use crate::config::{Context, Entries};
use crate::expr::ir::{Cast, Expr, ExprKind, Function};
use crate::plan::{LogLevel, NodeKind, ReadFormat, ReadSpec, WatermarkSpec, WriteFormat, WriteSpec};
use crate::schema::{Field, Schema, Type};
use crate::yaml::{Data, Scalar, Yaml};

pub(super) fn read(job: &Job<'_, '_, '_>) -> Checked {
    let before = job.cx.count();
    let path = job.required("path").and_then(|path| job.cx.text(path, "`path`")).map(str::to_owned);
    let format = match job.transform.ty {
        "ReadFromText" => Some(ReadFormat::Text),
        "ReadFromJson" => Some(ReadFormat::Json),
        "ReadFromParquet" => Some(ReadFormat::Parquet),
        _ => csv(job),
    };
    let declared = match (&format, job.config.get("schema")) {
        (Some(ReadFormat::Text), _) => Some(Schema::new([("line", Type::String)])),
        (_, Some(schema)) => row_schema(job.cx, schema),
        _ => None,
    };
    let (Some(path), Some(format)) = (path, format) else {
        watermark(job, &Rows::unknown());
        return None;
    };
    let filename = match &format {
        ReadFormat::Csv { filename_column, .. } => filename_column.clone(),
        _ => None,
    };
    let mut spec = ReadSpec { path, format, schema: declared, watermark: None, bounded: true };
    if spec.schema.is_none() && job.cx.count() == before {
        spec.schema = sample(job, &spec);
    }
    let mut rows = match &spec.schema {
        Some(schema) => Rows::source(schema.clone()),
        None => Rows::unknown(),
    };
    if let Some(name) = filename.filter(|name| !rows.open && rows.schema.index_of(name).is_none()) {
        rows.schema.fields.push(Field { name, ty: Type::String });
    }
    rows.bounded = spec.bounded;
    spec.watermark = watermark(job, &rows);
    spec.schema = (!rows.open).then(|| rows.schema.clone());
    (job.cx.count() == before).then_some((NodeKind::Read(spec), Some(rows)))
}

/// The schema as the data shows it, when there is data to look at.
fn sample(job: &Job<'_, '_, '_>, spec: &ReadSpec) -> Option<Schema> {
    let sampled = (job.sampler?)(spec);
    sampled
        .map_err(|why| {
            let span = job.config.get("path").map_or(job.transform.span, |path| path.span);
            let error = job.cx.at(span, format!("the schema of the data is not known: {why}"));
            job.cx.report(error.with_help("declare it by `schema`"));
        })
        .ok()
}

fn csv(job: &Job<'_, '_, '_>) -> Option<ReadFormat> {
    let comment = match job.config.get("comment").filter(|value| !value.is_null()) {
        None => None,
        Some(value) => Some(one_character(job.cx, value, "`comment`")?),
    };
    let filename_column = match job.config.get("filename_column").filter(|value| !value.is_null()) {
        None => None,
        Some(value) => Some(job.cx.text(value, "`filename_column`")?.to_owned()),
    };
    Some(ReadFormat::Csv { delimiter: delimiter(job)?, comment, filename_column })
}

fn delimiter(job: &Job<'_, '_, '_>) -> Option<char> {
    match job.config.get("delimiter").filter(|value| !value.is_null()) {
        None => Some(','),
        Some(value) => one_character(job.cx, value, "`delimiter`"),
    }
}

fn one_character(cx: &Context<'_>, yaml: &Yaml, what: &str) -> Option<char> {
    let text = cx.text(yaml, what)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii() && c != '\n' && c != '\r' => Some(c),
        _ => {
            cx.error(yaml.span, format!("{what} must be one ASCII character"));
            None
        }
    }
}

fn watermark(job: &Job<'_, '_, '_>, rows: &Rows) -> Option<WatermarkSpec> {
    let cx = job.cx;
    let yaml = job.config.get("watermark").filter(|value| !value.is_null())?;
    let entries = cx.map(yaml, "`watermark`")?;
    entries.only(cx, &["timestamp", "max_delay", "idle_after"], "watermark");
    let length = |key: &str| {
        let value = entries.get(key)?;
        let length = crate::windowing::duration(cx, value, key)?;
        if length.0 < 0 {
            cx.error(value.span, format!("`{key}` must not be negative"));
        }
        Some(length)
    };
    let max_delay = match entries.get("max_delay") {
        None => {
            cx.error(yaml.span, "`watermark` lacks `max_delay`");
            None
        }
        Some(_) => length("max_delay"),
    };
    let idle_after = length("idle_after");
    let time = entries.required(cx, "timestamp", yaml.span, "`watermark`")?;
    let timestamp = timestamp(cx, time, "`timestamp`", rows, Language::Python, Text::Iso8601)?;
    Some(WatermarkSpec { timestamp, max_delay: max_delay?, idle_after })
}

/// What becomes of text where a point in time is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// It is refused, as Beam does.
    Refused,
    /// It is read as ISO 8601.
    Iso8601,
}

/// An expression that gives a point in time: a timestamp, or seconds since the epoch.
pub(super) fn timestamp(
    cx: &Context<'_>,
    yaml: &Yaml,
    what: &str,
    rows: &Rows,
    language: Language,
    text: Text,
) -> Option<Expr> {
    let source = expression(cx, yaml, what)?;
    let form = Form { comparisons: false, ..Form::value(language) };
    let expr = crate::expr::check::assume(source.check(cx, rows, form)?);
    let cast = |cast, value: Expr| Expr {
        ty: Type::Timestamp,
        kind: ExprKind::Cast { cast, value: Box::new(value) },
    };
    match expr.ty {
        Type::Timestamp => Some(expr),
        Type::String if text == Text::Iso8601 => Some(cast(Cast::TextToTimestamp, expr)),
        Type::Int64 => Some(cast(Cast::IntSecondsToTimestamp, expr)),
        Type::Float64 => Some(cast(Cast::FloatSecondsToTimestamp, expr)),
        Type::Any if !matches!(expr.kind, ExprKind::Literal(_)) => {
            let kind = ExprKind::Call { function: Function::AnyToFloat, args: vec![expr] };
            Some(cast(Cast::FloatSecondsToTimestamp, Expr { ty: Type::Float64, kind }))
        }
        ty => {
            let message = format!("a timestamp is a number of seconds since 1970, not {ty}");
            let error = cx.at(source.span(), message);
            cx.report(if ty == Type::String {
                error.with_help(
                    "if the text is a number, write `int(…)` or `float(…)` with `language: python`",
                )
            } else {
                error
            });
            None
        }
    }
}

pub(super) fn write(job: &Job<'_, '_, '_>) -> Checked {
    let cx = job.cx;
    let input = job.input();
    let path = job.required("path").and_then(|path| cx.text(path, "`path`"));
    let shards = match job.config.get("num_shards").filter(|value| !value.is_null()) {
        None => None,
        Some(yaml) => match yaml.data {
            Data::Scalar(Scalar::Int(count @ 1..=10_000)) => Some(count as u32),
            _ => {
                cx.error(yaml.span, "`num_shards` must be an integer from 1 to 10000");
                return None;
            }
        },
    };
    let format = match job.transform.ty {
        "WriteToText" => {
            if !input.open && input.schema.fields.len() != 1 {
                let names: Vec<&str> = input.schema.names().collect();
                let message = format!("WriteToText takes rows of one field, not {}", names.join(", "));
                let error = cx.at(job.transform.span, message);
                cx.report(error.with_help("make one by MapToFields"));
                return None;
            }
            WriteFormat::Text
        }
        "WriteToCsv" => WriteFormat::Csv { delimiter: delimiter(job)? },
        _ => WriteFormat::Json,
    };
    Some((NodeKind::Write(WriteSpec { path: path?.to_owned(), format, shards }), None))
}

pub(super) fn log(job: &Job<'_, '_, '_>) -> Checked {
    let cx = job.cx;
    let level = match job.config.get("level").filter(|value| !value.is_null()) {
        None => LogLevel::Info,
        Some(yaml) => match cx.text(yaml, "`level`")? {
            "ERROR" => LogLevel::Error,
            "INFO" => LogLevel::Info,
            "DEBUG" => LogLevel::Debug,
            other => {
                let error = cx.at(yaml.span, format!("unknown level `{other}`"));
                let error = error.suggest(other, ["ERROR", "INFO", "DEBUG"]);
                cx.report(if error.suggestion().is_none() {
                    error.with_help("one of ERROR, INFO, DEBUG")
                } else {
                    error
                });
                return None;
            }
        },
    };
    let prefix = match job.config.get("prefix").filter(|value| !value.is_null()) {
        None => String::new(),
        Some(yaml) => cx.text(yaml, "`prefix`")?.to_owned(),
    };
    Some((NodeKind::Log { level, prefix }, Some(job.input().clone())))
}

/// A schema of rows: JSON Schema's `type: object` with `properties`.
pub(super) fn row_schema(cx: &Context<'_>, yaml: &Yaml) -> Option<Schema> {
    match json_type(cx, yaml)? {
        Type::Row(schema) => Some(schema),
        _ => {
            cx.error(yaml.span, "a schema of rows is of `type: object` with `properties`");
            None
        }
    }
}

const TYPES: [&str; 8] = ["boolean", "integer", "number", "string", "bytes", "timestamp", "array", "object"];

/// A type as Beam YAML writes it: JSON Schema, or the bare name of an atomic type.
pub(super) fn json_type(cx: &Context<'_>, yaml: &Yaml) -> Option<Type> {
    if let Some(name) = yaml.as_str() {
        return atomic(cx, yaml, name);
    }
    let entries = cx.map(yaml, "a type")?;
    let known = ["type", "properties", "required", "items", "additionalProperties", "description", "title"];
    entries.only(cx, &known, "a type");
    let ty = entries.required(cx, "type", yaml.span, "the type")?;
    match cx.text(ty, "the name of a type")? {
        "array" => {
            let items = entries.required(cx, "items", yaml.span, "the type of an array")?;
            json_type(cx, items).map(|items| Type::Array(Box::new(items)))
        }
        "object" => object(cx, entries, yaml),
        name => atomic(cx, ty, name),
    }
}

fn atomic(cx: &Context<'_>, yaml: &Yaml, name: &str) -> Option<Type> {
    match name {
        "boolean" => Some(Type::Boolean),
        "integer" => Some(Type::Int64),
        "number" => Some(Type::Float64),
        "string" => Some(Type::String),
        "bytes" => Some(Type::Bytes),
        "timestamp" => Some(Type::Timestamp),
        other => {
            let error = cx.at(yaml.span, format!("unknown type `{other}`")).suggest(other, TYPES);
            cx.report(if error.suggestion().is_none() {
                error.with_help(format!("the types are {}", TYPES.join(", ")))
            } else {
                error
            });
            None
        }
    }
}

fn object(cx: &Context<'_>, entries: Entries<'_>, yaml: &Yaml) -> Option<Type> {
    let Some(properties) = entries.get("properties") else {
        let Some(values) = entries.get("additionalProperties") else {
            cx.error(yaml.span, "an object type needs `properties` or `additionalProperties`");
            return None;
        };
        return json_type(cx, values).map(|values| Type::Map(Box::new(values)));
    };
    let properties = cx.map(properties, "`properties`")?;
    let required = match entries.get("required") {
        None => Vec::new(),
        Some(list) => cx.texts(list, "`required`")?,
    };
    let mut fields = Vec::new();
    for (key, value) in properties.entries {
        let name = key.name();
        let Some(ty) = json_type(cx, value) else { continue };
        let needed = required.iter().any(|(required, _)| *required == name);
        fields.push(Field { name, ty: if needed { ty } else { ty.nullable() } });
    }
    for (name, span) in required {
        if properties.get(name).is_none() {
            let error = cx.at(span, format!("`{name}` is required but no property"));
            let keys: Vec<String> = properties.entries.iter().map(|(key, _)| key.name()).collect();
            cx.report(error.suggest(name, keys.iter().map(String::as_str)));
        }
    }
    Some(Type::Row(Schema { fields }))
}
