//! Combine: grouping and aggregation.

use super::{Checked, Form, Job, Language, Rows, expression};
use crate::config::Entries;
use crate::expr::check::{assume, coerce};
use crate::expr::ir::{Cast, Expr, ExprKind};
use crate::plan::{AggregateFunction, Aggregation, NodeKind, WindowFunction};
use crate::schema::{Field, Schema, Type};
use crate::yaml::{Data, Key, Yaml};

const FUNCTIONS: [(&str, AggregateFunction); 9] = [
    ("sum", AggregateFunction::Sum),
    ("max", AggregateFunction::Max),
    ("min", AggregateFunction::Min),
    ("all", AggregateFunction::All),
    ("any", AggregateFunction::Any),
    ("mean", AggregateFunction::Mean),
    ("count", AggregateFunction::Count),
    ("group", AggregateFunction::Group),
    ("concat", AggregateFunction::Concat),
];

pub(super) fn combine(job: &Job<'_, '_, '_>) -> Checked {
    job.language();
    let cx = job.cx;
    let input = job.input();
    grouping_is_possible(job);
    let mut schema = Schema::default();
    let mut keys = Vec::new();
    let group_by = job.required("group_by").and_then(|yaml| cx.texts(yaml, "`group_by`"));
    for (name, span) in group_by.unwrap_or_default() {
        match input.schema.index_of(name) {
            None if input.open => schema.fields.push(Field { name: name.to_owned(), ty: Type::Any }),
            None => {
                let error = cx.at(span, format!("the input has no field `{name}`"));
                cx.report(error.suggest(name, input.schema.names()));
            }
            Some(position) if keys.contains(&position) => {
                cx.error(span, format!("the field `{name}` is named twice"));
            }
            Some(position) => {
                keys.push(position);
                schema.fields.push(input.schema.fields[position].clone());
            }
        }
    }
    let combine = cx.map(job.required("combine")?, "`combine`")?;
    let mut aggregations = Vec::new();
    for (key, value) in combine.entries {
        let name = key.name();
        if schema.index_of(&name).is_some() {
            cx.error(key.span, format!("the field `{name}` exists already"));
        }
        let aggregation = aggregation(job, key, value);
        let ty = aggregation.as_ref().map_or(Type::Any, |aggregation| aggregation.output.clone());
        schema.fields.push(Field { name, ty });
        aggregations.extend(aggregation);
    }
    Some((NodeKind::Combine { keys, aggregations }, Some(Rows { grouped: true, ..input.with(schema) })))
}

fn grouping_is_possible(job: &Job<'_, '_, '_>) {
    let input = job.input();
    let span = job.transform.name_span;
    if input.mixed {
        let error = job.cx.at(span, "the rows come from inputs with different windowing");
        job.cx.report(error.with_help("put `windowing` on this transform"));
    }
    if !input.bounded && input.windowing.function == WindowFunction::Global {
        let error =
            job.cx.at(span, "an input without end is grouped in the global window, which never closes");
        job.cx.report(error.with_help("put `windowing` on this transform"));
    }
}

/// `out: fn`, `out: {value, fn}`, `out: {value, fn: {type}}`.
fn aggregation(job: &Job<'_, '_, '_>, key: &Key, yaml: &Yaml) -> Option<Aggregation> {
    let cx = job.cx;
    let name = key.name();
    let (function, value) = match &yaml.data {
        Data::Map(entries) => {
            let entries = Entries { entries };
            entries.only(cx, &["value", "fn"], &format!("the aggregation `{name}`"));
            (
                entries.required(cx, "fn", key.span, &format!("the aggregation `{name}`"))?,
                entries.get("value"),
            )
        }
        _ => (yaml, None),
    };
    let function_at = function;
    let function = self::function(job, function);
    let value = match value {
        Some(value) => {
            // Beam takes any Python expression here, whatever the language.
            expression(cx, value, "`value`")?.check(cx, job.input(), Form::value(Language::Python))
        }
        None => own_field(job, &name, key),
    };
    let (function, value) = (function?, value?);
    typed(job, function, value, function_at).map(|(value, output)| Aggregation {
        name,
        function,
        value,
        output,
    })
}

/// Without `value` the field of the same name is aggregated.
fn own_field(job: &Job<'_, '_, '_>, name: &str, key: &Key) -> Option<Expr> {
    let input = job.input();
    match input.schema.index_of(name) {
        Some(position) => {
            let ty = input.schema.fields[position].ty.clone();
            Some(Expr { ty, kind: ExprKind::Field(position) })
        }
        None if input.open => Some(Expr { ty: Type::Any, kind: ExprKind::Field(usize::MAX) }),
        None => {
            let message = format!("the input has no field `{name}` to aggregate");
            let error = job.cx.at(key.span, message).suggest(name, input.schema.names());
            job.cx.report(if error.suggestion().is_none() {
                error.with_help(format!("say which: `{name}: {{value: …, fn: …}}`"))
            } else {
                error
            });
            None
        }
    }
}

fn function(job: &Job<'_, '_, '_>, yaml: &Yaml) -> Option<AggregateFunction> {
    let cx = job.cx;
    let named = match &yaml.data {
        Data::Map(entries) => {
            let entries = Entries { entries };
            entries.only(cx, &["type", "config"], "`fn`");
            if let Some((key, value)) = entries.entry("config")
                && !matches!(&value.data, Data::Map(entries) if entries.is_empty())
                && !value.is_null()
            {
                cx.error(key.span, "the built-in aggregations take no `config`");
            }
            entries.required(cx, "type", yaml.span, "`fn`")?
        }
        _ => yaml,
    };
    let name = cx.text(named, "an aggregation")?;
    if let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) {
        return Some(*function);
    }
    let names = FUNCTIONS.map(|(name, _)| name);
    let error = cx.at(named.span, format!("unknown aggregation `{name}`")).suggest(name, names);
    cx.report(if error.suggestion().is_none() {
        error.with_help(format!("the aggregations are {}", names.join(", ")))
    } else {
        error
    });
    None
}

/// The value as the function takes it, and the type of the result.
fn typed(job: &Job<'_, '_, '_>, function: AggregateFunction, value: Expr, at: &Yaml) -> Option<(Expr, Type)> {
    use AggregateFunction as F;
    let shown = value.ty.to_string();
    let unknown = job.input().loose && value.ty == Type::Any;
    let refuse = |help: &str| {
        let name = FUNCTIONS.iter().find(|(_, known)| *known == function).map_or("", |(name, _)| name);
        let error = job.cx.at(at.span, format!("`{name}` does not aggregate {shown}"));
        job.cx.report(if help.is_empty() { error } else { error.with_help(help) });
        None
    };
    match function {
        F::Count => return Some((value, Type::Int64)),
        F::Group => {
            let array = Type::Array(Box::new(value.ty.clone()));
            return Some((value, array));
        }
        F::Any | F::All => {
            let kind = ExprKind::Truthy(Box::new(value.clone()));
            let truth = Expr { ty: Type::Boolean, kind };
            return Some((if value.ty == Type::Boolean { value } else { truth }, Type::Boolean));
        }
        _ if unknown => return Some((value, Type::Any)),
        _ => {}
    }
    let value = assume(value);
    let help = if value.ty == Type::Any { "give `value` a type, by float(), int() or str()" } else { "" };
    match (function, value.ty.clone()) {
        (F::Sum, Type::Boolean) => {
            let kind = ExprKind::Cast { cast: Cast::BoolToInt, value: Box::new(value) };
            Some((Expr { ty: Type::Int64, kind }, Type::Int64))
        }
        (F::Sum, ty @ (Type::Int64 | Type::Float64)) => Some((value, ty)),
        (F::Mean, Type::Int64 | Type::Float64) => {
            Some((coerce(value, &Type::Float64).unwrap_or_else(|value| *value), Type::Float64))
        }
        (
            F::Min | F::Max,
            ty @ (Type::Boolean | Type::Int64 | Type::Float64 | Type::String | Type::Bytes | Type::Timestamp),
        ) => Some((value, ty)),
        (F::Concat, ty @ Type::Array(_)) => Some((value, ty)),
        _ => refuse(help),
    }
}
