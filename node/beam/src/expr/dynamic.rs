//! Python's operators on values whose types are known only row by row.
//!
//! Owns equality and order across types. Must not know expressions. Invariant: `1 == 1.0 == True`, as
//! in Python, exactly and without loss for large integers.

use std::cmp::Ordering;

use super::error::RowError;
use super::ir::{ArithmeticOp, CompareOp, DynamicOp};
use super::{number, strings, text};
use crate::schema::{Type, Value};

type Evaluated = Result<Value, RowError>;

/// A number out of a value; booleans are numbers in Python.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

fn as_number(value: &Value) -> Option<Number> {
    match value {
        Value::Boolean(value) => Some(Number::Int(i64::from(*value))),
        Value::Int64(value) => Some(Number::Int(*value)),
        Value::Float64(value) => Some(Number::Float(*value)),
        _ => None,
    }
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    fn order(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
            (Number::Int(a), Number::Float(b)) => int_float(a, b),
            (Number::Float(a), Number::Int(b)) => int_float(b, a).map(Ordering::reverse),
        }
    }
}

/// The order of an integer and a float, exact where a conversion would round.
fn int_float(a: i64, b: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() {
        None
    } else if b >= LIMIT {
        Some(Ordering::Less)
    } else if b < -LIMIT {
        Some(Ordering::Greater)
    } else {
        let whole = b.trunc();
        let fraction = (b - whole).partial_cmp(&0.0).map(Ordering::reverse)?;
        Some(a.cmp(&(whole as i64)).then(fraction))
    }
}

/// Python's `==`.
#[must_use]
pub fn equal(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (as_number(a), as_number(b)) {
        return a.order(b) == Some(Ordering::Equal);
    }
    match (a, b) {
        (Value::Array(a), Value::Array(b)) | (Value::Row(a), Value::Row(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.iter().any(|(other, there)| key == other && equal(value, there)))
        }
        (a, b) => a == b,
    }
}

/// `a < b` and its kin; values without an order are an error.
pub fn compare(op: CompareOp, a: &Value, b: &Value) -> Result<bool, RowError> {
    if let (Some(a), Some(b)) = (as_number(a), as_number(b)) {
        return Ok(a.order(b).is_some_and(|order| holds(op, order)));
    }
    let order = match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            return match a.iter().zip(b).find(|(a, b)| !equal(a, b)) {
                Some((a, b)) => compare(op, a, b),
                None => Ok(holds(op, a.len().cmp(&b.len()))),
            };
        }
        _ => {
            let message = format!("no order between {} and {}", kind(a), kind(b));
            return Err(RowError::type_error(message));
        }
    };
    Ok(holds(op, order))
}

fn holds(op: CompareOp, order: Ordering) -> bool {
    match op {
        CompareOp::Equal => order.is_eq(),
        CompareOp::NotEqual => order.is_ne(),
        CompareOp::Less => order.is_lt(),
        CompareOp::LessOrEqual => order.is_le(),
        CompareOp::Greater => order.is_gt(),
        CompareOp::GreaterOrEqual => order.is_ge(),
    }
}

/// Python's name of a value's type.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "'NoneType'",
        Value::Boolean(_) => "'bool'",
        Value::Int64(_) => "'int'",
        Value::Float64(_) => "'float'",
        Value::String(_) => "'str'",
        Value::Bytes(_) => "'bytes'",
        Value::Timestamp(_) => "'Timestamp'",
        Value::Array(_) => "'list'",
        Value::Map(_) => "'dict'",
        Value::Row(_) => "'Row'",
    }
}

fn unsupported(op: &str, values: &[Value]) -> RowError {
    let kinds: Vec<&str> = values.iter().map(kind).collect();
    RowError::type_error(format!("unsupported operand type(s) for {op}: {}", kinds.join(" and ")))
}

/// Applies the operator to one or two operands.
pub fn dynamic(op: DynamicOp, values: &[Value]) -> Evaluated {
    match (op, values) {
        (DynamicOp::Arithmetic(op), [a, b]) => arithmetic(op, a, b),
        (DynamicOp::Compare(CompareOp::Equal), [a, b]) => Ok(Value::Boolean(equal(a, b))),
        (DynamicOp::Compare(CompareOp::NotEqual), [a, b]) => Ok(Value::Boolean(!equal(a, b))),
        (DynamicOp::Compare(op), [a, b]) => compare(op, a, b).map(Value::Boolean),
        (DynamicOp::Negate, [a]) => match as_number(a) {
            Some(Number::Int(value)) => number::negate(value).map(Value::Int64),
            Some(Number::Float(value)) => Ok(Value::Float64(-value)),
            None => Err(unsupported("-", values)),
        },
        (DynamicOp::Abs, [a]) => match as_number(a) {
            Some(Number::Int(value)) => number::abs(value).map(Value::Int64),
            Some(Number::Float(value)) => Ok(Value::Float64(value.abs())),
            None => Err(unsupported("abs()", values)),
        },
        (DynamicOp::Index, [container, at]) => index(container, at),
        (DynamicOp::Length, [a]) => length(a).map(Value::Int64),
        (DynamicOp::Contains, [element, container]) => contains(element, container).map(Value::Boolean),
        _ => Err(unsupported("the operator", values)),
    }
}

fn arithmetic(op: ArithmeticOp, a: &Value, b: &Value) -> Evaluated {
    if let (Some(x), Some(y)) = (as_number(a), as_number(b)) {
        return match (op, x, y) {
            (ArithmeticOp::Power, Number::Int(_), Number::Int(exponent)) if exponent < 0 => {
                number::float(op, x.float(), y.float()).map(Value::Float64)
            }
            (ArithmeticOp::Divide, ..) | (_, Number::Float(_), _) | (_, _, Number::Float(_)) => {
                number::float(op, x.float(), y.float()).map(Value::Float64)
            }
            (_, Number::Int(a), Number::Int(b)) => number::int(op, a, b).map(Value::Int64),
        };
    }
    match (op, a, b) {
        (ArithmeticOp::Add, Value::String(a), Value::String(b)) => Ok(Value::String(format!("{a}{b}"))),
        (ArithmeticOp::Add, Value::Array(a), Value::Array(b)) => {
            Ok(Value::Array(a.iter().chain(b).cloned().collect()))
        }
        (ArithmeticOp::Multiply, Value::String(text), times)
        | (ArithmeticOp::Multiply, times, Value::String(text)) => match as_number(times) {
            Some(Number::Int(times)) => strings::repeat(text, times).map(Value::String),
            _ => Err(unsupported("*", &[a.clone(), b.clone()])),
        },
        _ => Err(unsupported(symbol(op), &[a.clone(), b.clone()])),
    }
}

fn symbol(op: ArithmeticOp) -> &'static str {
    match op {
        ArithmeticOp::Add => "+",
        ArithmeticOp::Subtract => "-",
        ArithmeticOp::Multiply => "*",
        ArithmeticOp::Divide => "/",
        ArithmeticOp::FloorDivide => "//",
        ArithmeticOp::Modulo => "%",
        ArithmeticOp::Power => "**",
    }
}

/// `container[at]`
pub(crate) fn index(container: &Value, at: &Value) -> Evaluated {
    match (container, at) {
        (Value::Map(entries), Value::String(key)) => entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .ok_or_else(|| RowError::new("KeyError", key.clone())),
        (Value::Map(_), other) => Err(RowError::new("KeyError", text::repr(other, &Type::Any))),
        (Value::String(text), at) => match as_number(at) {
            Some(Number::Int(at)) => strings::at(text, at).map(Value::String),
            _ => Err(RowError::type_error("string indices must be integers")),
        },
        (Value::Array(items), at) => match as_number(at) {
            Some(Number::Int(at)) => strings::position(at, items.len())
                .map(|at| items[at].clone())
                .ok_or_else(|| RowError::new("IndexError", "list index out of range")),
            _ => Err(RowError::type_error("list indices must be integers")),
        },
        (other, _) => Err(RowError::type_error(format!("{} object is not subscriptable", kind(other)))),
    }
}

/// `len(value)`
pub(crate) fn length(value: &Value) -> Result<i64, RowError> {
    match value {
        Value::String(text) => Ok(text.chars().count() as i64),
        Value::Bytes(bytes) => Ok(bytes.len() as i64),
        Value::Array(items) => Ok(items.len() as i64),
        Value::Map(entries) => Ok(entries.len() as i64),
        other => Err(RowError::type_error(format!("object of type {} has no len()", kind(other)))),
    }
}

fn contains(element: &Value, container: &Value) -> Result<bool, RowError> {
    match (element, container) {
        (Value::String(needle), Value::String(text)) => Ok(text.contains(needle.as_str())),
        (element, Value::Array(items)) => Ok(items.iter().any(|item| equal(item, element))),
        (Value::String(key), Value::Map(entries)) => Ok(entries.iter().any(|(name, _)| name == key)),
        (_, Value::Map(_)) => Ok(false),
        (element, container) => {
            Err(RowError::type_error(format!("no test of {} in {}", kind(element), kind(container))))
        }
    }
}

/// `int(value)`
pub(crate) fn to_int(value: &Value) -> Result<i64, RowError> {
    match (as_number(value), value) {
        (Some(Number::Int(value)), _) => Ok(value),
        (Some(Number::Float(value)), _) => number::truncate(value),
        (None, Value::String(text)) => number::parse_int(text),
        (None, other) => Err(RowError::type_error(format!(
            "int() argument must be a string or a number, not {}",
            kind(other)
        ))),
    }
}

/// `float(value)`
pub(crate) fn to_float(value: &Value) -> Result<f64, RowError> {
    match (as_number(value), value) {
        (Some(value), _) => Ok(value.float()),
        (None, Value::String(text)) => number::parse_float(text),
        (None, other) => Err(RowError::type_error(format!(
            "float() argument must be a string or a number, not {}",
            kind(other)
        ))),
    }
}
