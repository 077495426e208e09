//! Create and AssertEqual: rows written in the document.

use super::{Checked, Job, Rows};
use crate::config::Context;
use crate::expr::check::widen;
use crate::plan::NodeKind;
use crate::schema::{Schema, Type, Value};
use crate::yaml::{Data, Scalar, Yaml};

pub(super) fn create(job: &Job<'_, '_, '_>) -> Checked {
    let cx = job.cx;
    if let Some(reshuffle) = job.config.get("reshuffle").filter(|value| !value.is_null()) {
        cx.boolean(reshuffle, "`reshuffle`");
    }
    let elements = cx.list(job.required("elements")?, "`elements`")?;
    let before = cx.count();
    let rows: Vec<Value> = elements.iter().map(|element| as_row(cx, element)).collect();
    if cx.count() > before {
        return None;
    }
    let schema = infer_rows(&rows.iter().collect::<Vec<_>>());
    let ty = Type::Row(schema.clone());
    let rows = rows
        .into_iter()
        .map(|row| match fit(row, &ty) {
            Value::Row(values) => values,
            _ => Vec::new(),
        })
        .collect();
    Some((NodeKind::Create { rows }, Some(Rows::source(schema))))
}

/// An element as a map from field to value; what is no map is the field `element`.
fn as_row(cx: &Context<'_>, element: &Yaml) -> Value {
    match value(cx, element) {
        map @ Value::Map(_) => map,
        other => Value::Map(vec![("element".to_owned(), other)]),
    }
}

/// The value that a node writes down.
fn value(cx: &Context<'_>, yaml: &Yaml) -> Value {
    match &yaml.data {
        Data::List(items) => Value::Array(items.iter().map(|item| value(cx, item)).collect()),
        Data::Map(entries) => {
            Value::Map(entries.iter().map(|(key, item)| (key.name(), value(cx, item))).collect())
        }
        Data::Scalar(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Boolean(*value),
            Scalar::Int(value) => Value::Int64(*value),
            Scalar::BigInt(text) => {
                cx.error(yaml.span, format!("the integer {text} is beyond 64 bits"));
                Value::Null
            }
            Scalar::Float(value) => Value::Float64(*value),
            Scalar::Timestamp(at) => Value::Timestamp(*at),
            Scalar::String(text) => Value::String(text.clone()),
            Scalar::Merge => Value::String("<<".to_owned()),
        },
    }
}

/// The type that holds all these values: null makes it nullable, kinds that differ make it `Any`.
fn infer(values: &[&Value]) -> Type {
    let present: Vec<&Value> = values.iter().copied().filter(|value| **value != Value::Null).collect();
    let ty = if present.is_empty() {
        Type::Any
    } else if present.iter().all(|value| matches!(value, Value::Map(_))) {
        Type::Row(infer_rows(&present))
    } else {
        let lists: Vec<&Vec<Value>> = present
            .iter()
            .filter_map(|value| match value {
                Value::Array(items) => Some(items),
                _ => None,
            })
            .collect();
        if lists.len() == present.len() {
            let items: Vec<&Value> = lists.into_iter().flatten().collect();
            Type::Array(Box::new(infer(&items)))
        } else {
            let types = present.iter().map(|value| scalar_type(value));
            types.reduce(|a, b| widen(&a, &b)).unwrap_or(Type::Any)
        }
    };
    if present.len() < values.len() { ty.nullable() } else { ty }
}

fn scalar_type(value: &Value) -> Type {
    match value {
        Value::Boolean(_) => Type::Boolean,
        Value::Int64(_) => Type::Int64,
        Value::Float64(_) => Type::Float64,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        Value::Timestamp(_) => Type::Timestamp,
        Value::Null | Value::Array(_) | Value::Map(_) | Value::Row(_) => Type::Any,
    }
}

/// The fields of all these maps, in the order of first appearance; one that a map lacks is null there.
fn infer_rows(maps: &[&Value]) -> Schema {
    let mut names: Vec<&String> = Vec::new();
    for map in maps {
        if let Value::Map(entries) = map {
            names.extend(entries.iter().map(|(name, _)| name));
            let mut seen = std::collections::BTreeSet::new();
            names.retain(|name| seen.insert(*name));
        }
    }
    Schema::new(names.into_iter().map(|name| {
        let column: Vec<&Value> = maps.iter().map(|map| member(map, name).unwrap_or(&Value::Null)).collect();
        (name.clone(), infer(&column))
    }))
}

fn member<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    match map {
        Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

/// The value in a type that was widened over it.
fn fit(value: Value, ty: &Type) -> Value {
    match (value, ty.non_null()) {
        (Value::Int64(value), Type::Float64) => Value::Float64(value as f64),
        (Value::Array(items), Type::Array(element)) => {
            Value::Array(items.into_iter().map(|item| fit(item, element)).collect())
        }
        (Value::Map(mut entries), Type::Row(schema)) => Value::Row(
            schema
                .fields
                .iter()
                .map(|field| match entries.iter().position(|(name, _)| *name == field.name) {
                    Some(at) => fit(entries.swap_remove(at).1, &field.ty),
                    None => Value::Null,
                })
                .collect(),
        ),
        (value, _) => value,
    }
}

pub(super) fn assert_equal(job: &Job<'_, '_, '_>) -> Checked {
    let cx = job.cx;
    let elements = cx.list(job.required("elements")?, "`elements`")?;
    let mut expected = Vec::new();
    for element in elements {
        let Some(entries) = cx.map(element, "an element of AssertEqual") else { continue };
        for (key, _) in entries.entries.iter().filter(|(_, item)| !item.is_null()) {
            let name = key.name();
            if !job.input().open && job.input().schema.index_of(&name).is_none() {
                let error = cx.at(key.span, format!("the input has no field `{name}`"));
                cx.report(error.suggest(&name, job.input().schema.names()));
            }
        }
        if let Value::Map(entries) = value(cx, element) {
            expected.push(Value::Map(entries.into_iter().filter(|(_, item)| *item != Value::Null).collect()));
        }
    }
    Some((NodeKind::AssertEqual { elements: expected }, None))
}
