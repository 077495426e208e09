//! The reference evaluator: one expression over one row.
//!
//! Owns the meaning of the tree. Must not know columns; an engine is right when it gives the same
//! values and errors. Invariant: a tree from the checker never makes it panic.

use super::dynamic;
use super::error::RowError;
use super::ir::{ArithmeticOp, Cast, CompareOp, Expr, ExprKind, Function};
use super::{format, number, strings, text, time};
use crate::schema::{Micros, Type, Value};

pub use super::dynamic::{compare, dynamic, equal};

type Evaluated = Result<Value, RowError>;

/// The value of the expression for a row.
pub fn eval(expr: &Expr, row: &[Value]) -> Evaluated {
    match &expr.kind {
        ExprKind::Field(position) => Ok(row.get(*position).cloned().unwrap_or(Value::Null)),
        ExprKind::Literal(value) => Ok(value.clone()),
        ExprKind::Member { row: inner, field } => match eval(inner, row)? {
            Value::Row(mut values) if *field < values.len() => Ok(values.swap_remove(*field)),
            _ => Ok(Value::Null),
        },
        ExprKind::Cast { cast, value } => apply_cast(*cast, eval(value, row)?, &value.ty, &expr.ty),
        ExprKind::Negate(value) => match eval(value, row)? {
            Value::Int64(value) => number::negate(value).map(Value::Int64),
            Value::Float64(value) => Ok(Value::Float64(-value)),
            other => Err(mismatch(&other)),
        },
        ExprKind::Not(value) => Ok(Value::Boolean(!boolean(value, row)?)),
        ExprKind::IsNull(value) => Ok(Value::Boolean(eval(value, row)? == Value::Null)),
        ExprKind::Truthy(value) => Ok(Value::Boolean(truthy(&eval(value, row)?))),
        ExprKind::Arithmetic { op, left, right } => arithmetic(*op, &eval(left, row)?, &eval(right, row)?),
        ExprKind::Compare { op, left, right } => {
            let (left, right) = (eval(left, row)?, eval(right, row)?);
            match op {
                CompareOp::Equal => Ok(Value::Boolean(equal(&left, &right))),
                CompareOp::NotEqual => Ok(Value::Boolean(!equal(&left, &right))),
                op => compare(*op, &left, &right).map(Value::Boolean),
            }
        }
        ExprKind::And(parts) => until(parts, row, false),
        ExprKind::Or(parts) => until(parts, row, true),
        ExprKind::If { condition, then, otherwise } => {
            eval(if boolean(condition, row)? { then } else { otherwise }, row)
        }
        ExprKind::Call { function, args } => {
            let values = args.iter().map(|arg| eval(arg, row)).collect::<Result<Vec<_>, _>>()?;
            call(*function, &values, args)
        }
        ExprKind::MakeArray(items) => {
            items.iter().map(|item| eval(item, row)).collect::<Result<_, _>>().map(Value::Array)
        }
        ExprKind::MakeRow(cells) => {
            cells.iter().map(|cell| eval(cell, row)).collect::<Result<_, _>>().map(Value::Row)
        }
        ExprKind::Dynamic { op, args } => {
            let values = args.iter().map(|arg| eval(arg, row)).collect::<Result<Vec<_>, _>>()?;
            dynamic::dynamic(*op, &values)
        }
    }
}

fn boolean(expr: &Expr, row: &[Value]) -> Result<bool, RowError> {
    match eval(expr, row)? {
        Value::Boolean(value) => Ok(value),
        other => Err(mismatch(&other)),
    }
}

/// Evaluates booleans from left to right until one is `stop`.
fn until(parts: &[Expr], row: &[Value], stop: bool) -> Evaluated {
    for part in parts {
        if boolean(part, row)? == stop {
            return Ok(Value::Boolean(stop));
        }
    }
    Ok(Value::Boolean(!stop))
}

fn mismatch(value: &Value) -> RowError {
    RowError::type_error(format!("unsupported operand: {}", text::repr(value, &Type::Any)))
}

/// Python's truth of a value.
#[must_use]
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Boolean(value) => *value,
        Value::Int64(value) => *value != 0,
        Value::Float64(value) => *value != 0.0,
        Value::String(text) => !text.is_empty(),
        Value::Bytes(bytes) => !bytes.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        Value::Row(_) | Value::Timestamp(_) => true,
    }
}

/// An operator on two numbers of one type.
pub(crate) fn arithmetic(op: ArithmeticOp, left: &Value, right: &Value) -> Evaluated {
    match (left, right) {
        (Value::Int64(a), Value::Int64(b)) => number::int(op, *a, *b).map(Value::Int64),
        (Value::Float64(a), Value::Float64(b)) => number::float(op, *a, *b).map(Value::Float64),
        (Value::Int64(_) | Value::Float64(_), other) | (other, _) => Err(mismatch(other)),
    }
}

/// Seconds to a point in time, as Beam's `Timestamp.of`.
pub fn seconds_to_timestamp(seconds: f64) -> Result<Micros, RowError> {
    let micros = (seconds * 1e6).trunc();
    // Beam's range: the microseconds that fit 64 bits, less what milliseconds cannot say.
    if micros.is_finite() && micros.abs() <= 9_223_372_036_854_775_000.0 {
        Ok(Micros(micros as i64))
    } else {
        Err(out_of_time())
    }
}

fn out_of_time() -> RowError {
    RowError::new("OverflowError", "the time is out of range")
}

/// Applies a cast to a value of a type.
pub fn apply_cast(cast: Cast, value: Value, from: &Type, to: &Type) -> Evaluated {
    match (cast, value) {
        (Cast::Wrap, value) => Ok(value),
        (Cast::ToAny, value) => Ok(to_any(value, from)),
        (Cast::FromAny, value) => from_any(value, to),
        (Cast::Structural, value) => structural(value, from, to),
        (_, Value::Null) => Err(RowError::type_error("unsupported operand: None")),
        (Cast::Assume, value) => Ok(value),
        (Cast::BoolToInt, Value::Boolean(value)) => Ok(Value::Int64(i64::from(value))),
        (Cast::IntToFloat, Value::Int64(value)) => Ok(Value::Float64(value as f64)),
        (Cast::IntSecondsToTimestamp, Value::Int64(seconds)) => seconds
            .checked_mul(1_000_000)
            .map(|micros| Value::Timestamp(Micros(micros)))
            .ok_or_else(out_of_time),
        (Cast::FloatSecondsToTimestamp, Value::Float64(seconds)) => {
            seconds_to_timestamp(seconds).map(Value::Timestamp)
        }
        (Cast::TextToTimestamp, Value::String(text)) => time::parse(&text).map(Value::Timestamp),
        (_, value) => Err(mismatch(&value)),
    }
}

/// The value as `Any` holds it: a row becomes a map, so that it keeps its names.
fn to_any(value: Value, from: &Type) -> Value {
    match (value, from.non_null()) {
        (Value::Row(values), Type::Row(schema)) => Value::Map(
            schema
                .fields
                .iter()
                .zip(values)
                .map(|(field, value)| (field.name.clone(), to_any(value, &field.ty)))
                .collect(),
        ),
        (Value::Array(items), Type::Array(element)) => {
            Value::Array(items.into_iter().map(|item| to_any(item, element)).collect())
        }
        (Value::Map(entries), Type::Map(element)) => {
            Value::Map(entries.into_iter().map(|(key, value)| (key, to_any(value, element))).collect())
        }
        (value, _) => value,
    }
}

fn from_any(value: Value, to: &Type) -> Evaluated {
    match (value, to) {
        (value, Type::Any) | (value @ Value::Null, Type::Nullable(_)) => Ok(value),
        (value, Type::Nullable(inner)) => from_any(value, inner),
        (Value::Boolean(value), Type::Int64) => Ok(Value::Int64(i64::from(value))),
        (Value::Boolean(value), Type::Float64) => Ok(Value::Float64(f64::from(u8::from(value)))),
        (Value::Int64(value), Type::Float64) => Ok(Value::Float64(value as f64)),
        (value @ Value::Boolean(_), Type::Boolean)
        | (value @ Value::Int64(_), Type::Int64)
        | (value @ Value::Float64(_), Type::Float64)
        | (value @ Value::String(_), Type::String)
        | (value @ Value::Bytes(_), Type::Bytes)
        | (value @ Value::Timestamp(_), Type::Timestamp) => Ok(value),
        (Value::Array(items), Type::Array(element)) => {
            items.into_iter().map(|item| from_any(item, element)).collect::<Result<_, _>>().map(Value::Array)
        }
        (Value::Map(entries), Type::Map(element)) => entries
            .into_iter()
            .map(|(key, value)| Ok((key, from_any(value, element)?)))
            .collect::<Result<_, _>>()
            .map(Value::Map),
        (Value::Map(entries), Type::Row(schema)) => schema
            .fields
            .iter()
            .map(|field| {
                let value = entries.iter().find(|(name, _)| *name == field.name);
                from_any(value.map_or(Value::Null, |(_, value)| value.clone()), &field.ty)
            })
            .collect::<Result<_, _>>()
            .map(Value::Row),
        (value, to) => {
            let shown = text::repr(&value, &Type::Any);
            Err(RowError::type_error(format!("expected {to}, not {shown}")))
        }
    }
}

/// The cast between two types that [`Cast::Structural`] applies to the parts.
fn structural(value: Value, from: &Type, to: &Type) -> Evaluated {
    match (value, from.non_null(), to.non_null()) {
        (Value::Null, _, _) if to.admits_null() => Ok(Value::Null),
        (value, Type::Any, _) => from_any(value, to),
        (value, _, Type::Any) => Ok(to_any(value, from)),
        (Value::Int64(value), _, Type::Float64) => Ok(Value::Float64(value as f64)),
        (Value::Array(items), Type::Array(a), Type::Array(b)) => {
            items.into_iter().map(|item| structural(item, a, b)).collect::<Result<_, _>>().map(Value::Array)
        }
        (Value::Map(entries), Type::Map(a), Type::Map(b)) => entries
            .into_iter()
            .map(|(key, value)| Ok((key, structural(value, a, b)?)))
            .collect::<Result<_, _>>()
            .map(Value::Map),
        (Value::Row(values), Type::Row(a), Type::Row(b)) => b
            .fields
            .iter()
            .map(|field| match a.index_of(&field.name) {
                Some(at) => structural(values[at].clone(), &a.fields[at].ty, &field.ty),
                None => Ok(Value::Null),
            })
            .collect::<Result<_, _>>()
            .map(Value::Row),
        (value, a, b) if a == b => Ok(value),
        (value, _, _) => Err(mismatch(&value)),
    }
}

fn string(value: &Value) -> Result<&str, RowError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(mismatch(other)),
    }
}

fn int(value: &Value) -> Result<i64, RowError> {
    match value {
        Value::Int64(value) => Ok(*value),
        other => Err(mismatch(other)),
    }
}

fn optional_int(value: Option<&Value>) -> Result<Option<i64>, RowError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => int(value).map(Some),
    }
}

fn optional_string(value: Option<&Value>) -> Result<Option<&str>, RowError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => string(value).map(Some),
    }
}

fn list(value: &Value) -> Result<&[Value], RowError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(mismatch(other)),
    }
}

/// A function of evaluated arguments; the expressions give their types.
fn call(function: Function, values: &[Value], args: &[Expr]) -> Evaluated {
    use Function as F;
    match function {
        F::Upper
        | F::Lower
        | F::Title
        | F::Capitalize
        | F::Strip
        | F::StripStart
        | F::StripEnd
        | F::StartsWith
        | F::EndsWith
        | F::Replace
        | F::Split
        | F::Join
        | F::Find
        | F::Count
        | F::ContainsText
        | F::Concat
        | F::Repeat
        | F::TextAt
        | F::SliceText => text_function(function, values),
        F::ContainsElement => {
            Ok(Value::Boolean(list(&values[1])?.iter().any(|item| equal(item, &values[0]))))
        }
        F::ContainsKey | F::ValueAt | F::ElementAt | F::SliceArray | F::ConcatArray | F::Length => {
            container_function(function, values)
        }
        F::ToText => Ok(Value::String(text::str(&values[0], &args[0].ty))),
        F::ParseInt => number::parse_int(string(&values[0])?).map(Value::Int64),
        F::ParseFloat => number::parse_float(string(&values[0])?).map(Value::Float64),
        F::AnyToInt => dynamic::to_int(&values[0]).map(Value::Int64),
        F::AnyToFloat => dynamic::to_float(&values[0]).map(Value::Float64),
        F::Min | F::Max => extreme(values, function == F::Max),
        F::MinOf | F::MaxOf => extreme(list(&values[0])?, function == F::MaxOf),
        F::Truncate | F::Round | F::RoundDigits | F::RoundIntDigits | F::Abs | F::SumOf => {
            number_function(function, values, &args[0].ty)
        }
        F::Format => {
            let spec = format::parse(string(&values[1])?).map_err(|e| RowError::new("ValueError", e))?;
            format::apply(&spec, &values[0]).map(Value::String)
        }
    }
}

fn text_function(function: Function, values: &[Value]) -> Evaluated {
    use Function as F;
    let of = |at: usize| values.get(at).map_or(Err(RowError::type_error("missing argument")), string);
    let text = |text: String| Ok(Value::String(text));
    match function {
        F::Upper => text(of(0)?.to_uppercase()),
        F::Lower => text(of(0)?.to_lowercase()),
        F::Title => text(strings::title(of(0)?)),
        F::Capitalize => text(strings::capitalize(of(0)?)),
        F::Strip | F::StripStart | F::StripEnd => {
            let set = optional_string(values.get(1))?;
            let (start, end) = (function != F::StripEnd, function != F::StripStart);
            text(strings::strip(of(0)?, set, start, end).to_owned())
        }
        F::StartsWith => Ok(Value::Boolean(of(0)?.starts_with(of(1)?))),
        F::EndsWith => Ok(Value::Boolean(of(0)?.ends_with(of(1)?))),
        F::Replace => text(strings::replace(of(0)?, of(1)?, of(2)?, optional_int(values.get(3))?)),
        F::Split => strings::split(of(0)?, optional_string(values.get(1))?, optional_int(values.get(2))?)
            .map(|parts| Value::Array(parts.into_iter().map(Value::String).collect())),
        F::Join => {
            let parts = list(&values[1])?.iter().map(string).collect::<Result<Vec<_>, _>>()?;
            text(parts.join(of(0)?))
        }
        F::Find => Ok(Value::Int64(strings::find(of(0)?, of(1)?))),
        F::Count => Ok(Value::Int64(strings::count(of(0)?, of(1)?))),
        F::ContainsText => Ok(Value::Boolean(of(1)?.contains(of(0)?))),
        F::Concat => values.iter().map(string).collect::<Result<String, _>>().map(Value::String),
        F::Repeat => strings::repeat(of(0)?, int(&values[1])?).map(Value::String),
        F::TextAt => strings::at(of(0)?, int(&values[1])?).map(Value::String),
        _ => {
            let [start, stop, step] = slice_bounds(values)?;
            strings::slice_text(of(0)?, start, stop, step).map(Value::String)
        }
    }
}

fn slice_bounds(values: &[Value]) -> Result<[Option<i64>; 3], RowError> {
    Ok([optional_int(values.get(1))?, optional_int(values.get(2))?, optional_int(values.get(3))?])
}

fn container_function(function: Function, values: &[Value]) -> Evaluated {
    use Function as F;
    match (function, &values[0]) {
        (F::ContainsKey, key) => match &values[1] {
            Value::Map(entries) => {
                let key = string(key)?;
                Ok(Value::Boolean(entries.iter().any(|(name, _)| name == key)))
            }
            other => Err(mismatch(other)),
        },
        (F::ValueAt | F::ElementAt, container) => dynamic::index(container, &values[1]),
        (F::SliceArray, container) => {
            let items = list(container)?;
            let [start, stop, step] = slice_bounds(values)?;
            let chosen = strings::slice(items.len(), start, stop, step)?;
            Ok(Value::Array(chosen.into_iter().map(|at| items[at].clone()).collect()))
        }
        (F::ConcatArray, container) => {
            Ok(Value::Array(list(container)?.iter().chain(list(&values[1])?).cloned().collect()))
        }
        (_, container) => dynamic::length(container).map(Value::Int64),
    }
}

fn number_function(function: Function, values: &[Value], ty: &Type) -> Evaluated {
    use Function as F;
    match (function, &values[0]) {
        (F::Truncate, Value::Float64(value)) => number::truncate(*value).map(Value::Int64),
        (F::Round, Value::Float64(value)) => number::round(*value).map(Value::Int64),
        (F::RoundDigits, Value::Float64(value)) => {
            number::round_digits(*value, int(&values[1])?).map(Value::Float64)
        }
        (F::RoundIntDigits, Value::Int64(value)) => {
            number::round_int_digits(*value, int(&values[1])?).map(Value::Int64)
        }
        (F::Abs, Value::Int64(value)) => number::abs(*value).map(Value::Int64),
        (F::Abs, Value::Float64(value)) => Ok(Value::Float64(value.abs())),
        (F::SumOf, Value::Array(items)) => {
            let float = matches!(ty, Type::Array(element) if **element == Type::Float64);
            let zero = if float { Value::Float64(0.0) } else { Value::Int64(0) };
            items.iter().try_fold(zero, |sum, item| arithmetic(ArithmeticOp::Add, &sum, item))
        }
        (_, other) => Err(mismatch(other)),
    }
}

/// The first of the smallest, or of the largest.
fn extreme(values: &[Value], largest: bool) -> Evaluated {
    let op = if largest { CompareOp::Greater } else { CompareOp::Less };
    let mut values = values.iter();
    let first =
        values.next().ok_or_else(|| RowError::new("ValueError", "min() or max() of an empty list"))?;
    let mut best = first;
    for value in values {
        if compare(op, value, best)? {
            best = value;
        }
    }
    Ok(best.clone())
}
