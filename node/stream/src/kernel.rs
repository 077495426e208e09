//! Expressions over columns.
//!
//! Owns: the columnar kernels of the typed expression tree, and the mask of rows that failed.
//! Must not know: the languages expressions come from, dead letters.
//! Invariant: for every row the value, or the error, is that of the reference evaluator of
//! `pharos-beam`, to which the rarer functions (text, lists, formats) fall back row by row.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, new_null_array};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow_select::interleave::interleave;
use pharos_beam::expr::error::RowError;
use pharos_beam::expr::ir::{ArithmeticOp, Cast, CompareOp, Expr, ExprKind};
use pharos_beam::expr::{eval, number, time};
use pharos_beam::schema::{Type, Value};

use crate::column::{build, layout, rows_of, value_at};

/// The rows that failed, in order, each with its first error.
pub type RowErrors = Vec<(u32, RowError)>;

/// A column and the rows of it that hold no value.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// The values. Where a row failed, anything.
    pub column: ArrayRef,
    /// The rows that failed.
    pub errors: RowErrors,
}

impl Evaluated {
    fn ok(column: ArrayRef) -> Self {
        Self { column, errors: Vec::new() }
    }
}

/// Evaluates `expr` over the rows of `columns`.
#[must_use]
pub fn evaluate(expr: &Expr, columns: &[ArrayRef], rows: usize) -> Evaluated {
    match &expr.kind {
        ExprKind::Field(position) => Evaluated::ok(Arc::clone(&columns[*position])),
        ExprKind::Literal(value) => Evaluated::ok(literal(&expr.ty, value, rows)),
        ExprKind::Cast { cast, value } => evaluate_cast(expr, *cast, value, columns, rows),
        ExprKind::Negate(value) => negate(expr, evaluate(value, columns, rows)),
        ExprKind::Not(value) => map_bool(evaluate(value, columns, rows), |bits| !bits),
        ExprKind::IsNull(value) => {
            let value = evaluate(value, columns, rows);
            let flags = BooleanBuffer::collect_bool(rows, |row| value.column.is_null(row));
            Evaluated { column: Arc::new(BooleanArray::new(flags, None)), errors: value.errors }
        }
        ExprKind::Arithmetic { op, left, right } => {
            arithmetic(*op, evaluate(left, columns, rows), evaluate(right, columns, rows))
        }
        ExprKind::Compare { op, left, right } if is_scalar(&left.ty) && left.ty == right.ty => {
            compare(&left.ty, *op, &evaluate(left, columns, rows), &evaluate(right, columns, rows))
        }
        ExprKind::And(parts) => settle(parts, columns, rows, true),
        ExprKind::Or(parts) => settle(parts, columns, rows, false),
        ExprKind::If { condition, then, otherwise } => choose(
            &evaluate(condition, columns, rows),
            &evaluate(then, columns, rows),
            &evaluate(otherwise, columns, rows),
        ),
        ExprKind::MakeRow(cells) => make_row(&expr.ty, cells, columns, rows),
        ExprKind::Member { .. }
        | ExprKind::Truthy(_)
        | ExprKind::Compare { .. }
        | ExprKind::Call { .. }
        | ExprKind::Dynamic { .. }
        | ExprKind::MakeArray(_) => row_by_row(expr, columns, rows),
    }
}

fn literal(ty: &Type, value: &Value, rows: usize) -> ArrayRef {
    match (ty, value) {
        (Type::Int64, Value::Int64(value)) => Arc::new(Int64Array::from_value(*value, rows)),
        (Type::Float64, Value::Float64(value)) => Arc::new(Float64Array::from_value(*value, rows)),
        (Type::Boolean, Value::Boolean(value)) => {
            let bits = if *value { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) };
            Arc::new(BooleanArray::new(bits, None))
        }
        (ty, Value::Null) => new_null_array(&layout(ty), rows),
        _ => build(ty, &vec![value; rows]),
    }
}

fn make_row(ty: &Type, cells: &[Expr], columns: &[ArrayRef], rows: usize) -> Evaluated {
    let Type::Row(schema) = ty.non_null() else { unreachable!("a nested row has a schema") };
    let cells: Vec<Evaluated> = cells.iter().map(|cell| evaluate(cell, columns, rows)).collect();
    let errors = cells.iter().fold(RowErrors::new(), |errors, cell| join_errors(errors, &cell.errors));
    let cells = cells.into_iter().map(|cell| cell.column).collect();
    Evaluated { column: rows_of(schema, cells, rows, None), errors }
}

/// The part of an expression that reads its operands as fields, and the operands.
fn row_by_row(expr: &Expr, columns: &[ArrayRef], rows: usize) -> Evaluated {
    let mut operands = Vec::new();
    let shell = Expr { ty: expr.ty.clone(), kind: shell(&expr.kind, &mut operands) };
    let evaluated: Vec<(&Type, Evaluated)> =
        operands.into_iter().map(|operand| (&operand.ty, evaluate(operand, columns, rows))).collect();
    let mut errors =
        evaluated.iter().fold(RowErrors::new(), |errors, (_, one)| join_errors(errors, &one.errors));
    let mut own = RowErrors::new();
    let mut values = Vec::with_capacity(rows);
    for row in 0..rows {
        if failed(&errors, row) {
            values.push(Value::Null);
            continue;
        }
        let cells: Vec<Value> = evaluated.iter().map(|(ty, one)| value_at(ty, &one.column, row)).collect();
        values.push(eval::eval(&shell, &cells).unwrap_or_else(|error| {
            own.push((row as u32, error));
            Value::Null
        }));
    }
    errors = join_errors(errors, &own);
    Evaluated { column: build(&expr.ty, &values.iter().collect::<Vec<_>>()), errors }
}

fn shell<'a>(kind: &'a ExprKind, operands: &mut Vec<&'a Expr>) -> ExprKind {
    let mut field = |operand: &'a Expr| {
        // The reference evaluator looks into literals (a format, "not given"), so they stay in place.
        if matches!(operand.kind, ExprKind::Literal(_)) {
            return operand.clone();
        }
        operands.push(operand);
        Expr { ty: operand.ty.clone(), kind: ExprKind::Field(operands.len() - 1) }
    };
    match kind {
        ExprKind::Member { row, field: at } => ExprKind::Member { row: Box::new(field(row)), field: *at },
        ExprKind::Truthy(value) => ExprKind::Truthy(Box::new(field(value))),
        ExprKind::Compare { op, left, right } => {
            let left = Box::new(field(left));
            ExprKind::Compare { op: *op, left, right: Box::new(field(right)) }
        }
        ExprKind::Cast { cast, value } => ExprKind::Cast { cast: *cast, value: Box::new(field(value)) },
        ExprKind::Call { function, args } => {
            ExprKind::Call { function: *function, args: args.iter().map(field).collect() }
        }
        ExprKind::Dynamic { op, args } => {
            ExprKind::Dynamic { op: *op, args: args.iter().map(field).collect() }
        }
        ExprKind::MakeArray(items) => ExprKind::MakeArray(items.iter().map(field).collect()),
        other => other.clone(),
    }
}

fn failed(errors: &RowErrors, row: usize) -> bool {
    errors.binary_search_by_key(&row, |(row, _)| *row as usize).is_ok()
}

/// The errors of both; where both failed, the first one's.
#[must_use]
pub fn join_errors(first: RowErrors, second: &RowErrors) -> RowErrors {
    if second.is_empty() {
        return first;
    }
    let mut joined = first;
    let known = joined.len();
    let new: Vec<_> = second.iter().filter(|(row, _)| !failed(&joined, *row as usize)).cloned().collect();
    joined.extend(new);
    if known > 0 {
        joined.sort_by_key(|(row, _)| *row);
    }
    joined
}

fn only(errors: &RowErrors, asked: impl Fn(usize) -> bool) -> RowErrors {
    errors.iter().filter(|(row, _)| asked(*row as usize)).cloned().collect()
}

fn evaluate_cast(expr: &Expr, cast: Cast, operand: &Expr, columns: &[ArrayRef], rows: usize) -> Evaluated {
    match cast {
        Cast::Wrap => evaluate(operand, columns, rows),
        Cast::Assume => {
            let value = evaluate(operand, columns, rows);
            if value.column.null_count() == 0 { value } else { row_by_row(expr, columns, rows) }
        }
        Cast::TextToTimestamp => {
            let value = evaluate(operand, columns, rows);
            if value.column.null_count() > 0 {
                return row_by_row(expr, columns, rows);
            }
            let texts = value.column.as_string::<i32>();
            let (micros, own) = fallible(rows, |row| time::parse(texts.value(row)).map(|micros| micros.0));
            let own = only(&own, |row| !failed(&value.errors, row));
            let column: ArrayRef = Arc::new(Int64Array::new(micros, None));
            Evaluated { column, errors: join_errors(value.errors, &own) }
        }
        Cast::BoolToInt | Cast::IntToFloat => {
            let value = evaluate(operand, columns, rows);
            if value.column.null_count() > 0 {
                return row_by_row(expr, columns, rows);
            }
            let column: ArrayRef = if cast == Cast::IntToFloat {
                let ints = value.column.as_primitive::<Int64Type>();
                Arc::new(Float64Array::from_iter_values(ints.values().iter().map(|int| *int as f64)))
            } else {
                let bits = value.column.as_boolean().values();
                Arc::new(Int64Array::from_iter_values(bits.iter().map(i64::from)))
            };
            Evaluated { column, errors: value.errors }
        }
        _ => row_by_row(expr, columns, rows),
    }
}

fn map_bool(value: Evaluated, change: impl Fn(&BooleanBuffer) -> BooleanBuffer) -> Evaluated {
    let bits = value.column.as_boolean();
    let column = BooleanArray::new(change(bits.values()), bits.nulls().cloned());
    Evaluated { column: Arc::new(column), errors: value.errors }
}

fn negate(expr: &Expr, value: Evaluated) -> Evaluated {
    if expr.ty == Type::Float64 {
        let floats = value.column.as_primitive::<Float64Type>();
        return Evaluated { column: Arc::new(floats.unary::<_, Float64Type>(|x| -x)), errors: value.errors };
    }
    let ints = value.column.as_primitive::<Int64Type>();
    let (column, own) = fallible(ints.len(), |row| number::negate(ints.value(row)));
    Evaluated { column: Arc::new(Int64Array::new(column, None)), errors: join_errors(value.errors, &own) }
}

fn fallible<T: Default + Clone + arrow_buffer::ArrowNativeType>(
    rows: usize,
    of: impl Fn(usize) -> Result<T, RowError>,
) -> (ScalarBuffer<T>, RowErrors) {
    let mut errors = RowErrors::new();
    let value = |row| {
        of(row).unwrap_or_else(|error| {
            errors.push((row as u32, error));
            T::default()
        })
    };
    let values: Vec<T> = (0..rows).map(value).collect();
    (values.into(), errors)
}

fn arithmetic(op: ArithmeticOp, left: Evaluated, right: Evaluated) -> Evaluated {
    let rows = left.column.len();
    let (column, own): (ArrayRef, RowErrors) = match left.column.as_primitive_opt::<Int64Type>() {
        Some(a) => {
            let (a, b) = (a.values(), right.column.as_primitive::<Int64Type>().values());
            let (values, errors) = fallible(rows, |row| number::int(op, a[row], b[row]));
            (Arc::new(Int64Array::new(values, None)), errors)
        }
        None => {
            let a = left.column.as_primitive::<Float64Type>().values();
            let b = right.column.as_primitive::<Float64Type>().values();
            let (values, errors) = fallible(rows, |row| number::float(op, a[row], b[row]));
            (Arc::new(Float64Array::new(values, None)), errors)
        }
    };
    let errors = join_errors(left.errors, &right.errors);
    // A row whose operand failed has no value of its own that could fail.
    let own = only(&own, |row| !failed(&errors, row));
    Evaluated { column, errors: join_errors(errors, &own) }
}

fn is_scalar(ty: &Type) -> bool {
    matches!(
        ty.non_null(),
        Type::Boolean | Type::Int64 | Type::Float64 | Type::String | Type::Bytes | Type::Timestamp
    )
}

fn compare(ty: &Type, op: CompareOp, left: &Evaluated, right: &Evaluated) -> Evaluated {
    let rows = left.column.len();
    let (a, b) = (&left.column, &right.column);
    let bits = match ty.non_null() {
        Type::Int64 | Type::Timestamp => {
            let (x, y) = (a.as_primitive::<Int64Type>().values(), b.as_primitive::<Int64Type>().values());
            BooleanBuffer::collect_bool(rows, |row| holds(op, &x[row], &y[row]))
        }
        Type::Float64 => {
            let (x, y) = (a.as_primitive::<Float64Type>().values(), b.as_primitive::<Float64Type>().values());
            BooleanBuffer::collect_bool(rows, |row| holds(op, &x[row], &y[row]))
        }
        Type::Boolean => {
            let (x, y) = (a.as_boolean(), b.as_boolean());
            BooleanBuffer::collect_bool(rows, |row| holds(op, &x.value(row), &y.value(row)))
        }
        Type::String => {
            let (x, y) = (a.as_string::<i32>(), b.as_string::<i32>());
            BooleanBuffer::collect_bool(rows, |row| holds(op, x.value(row), y.value(row)))
        }
        _ => {
            let (x, y) = (a.as_binary::<i32>(), b.as_binary::<i32>());
            BooleanBuffer::collect_bool(rows, |row| holds(op, x.value(row), y.value(row)))
        }
    };
    let bits = with_nulls(op, bits, a.nulls(), b.nulls());
    let errors = join_errors(left.errors.clone(), &right.errors);
    Evaluated { column: Arc::new(BooleanArray::new(bits, None)), errors }
}

/// Null equals null and nothing else.
fn with_nulls(
    op: CompareOp,
    bits: BooleanBuffer,
    left: Option<&NullBuffer>,
    right: Option<&NullBuffer>,
) -> BooleanBuffer {
    if left.is_none() && right.is_none() {
        return bits;
    }
    let null = |nulls: Option<&NullBuffer>, row| nulls.is_some_and(|nulls| nulls.is_null(row));
    BooleanBuffer::collect_bool(bits.len(), |row| match (null(left, row), null(right, row)) {
        (false, false) => bits.value(row),
        (one, other) => (one == other) == (op == CompareOp::Equal),
    })
}

fn holds<T: PartialOrd + ?Sized>(op: CompareOp, left: &T, right: &T) -> bool {
    match op {
        CompareOp::Equal => left == right,
        CompareOp::NotEqual => left != right,
        CompareOp::Less => left < right,
        CompareOp::LessOrEqual => left <= right,
        CompareOp::Greater => left > right,
        CompareOp::GreaterOrEqual => left >= right,
    }
}

/// All parts together by `and` (which goes on where the left is true) or by `or`.
fn settle(parts: &[Expr], columns: &[ArrayRef], rows: usize, go_on: bool) -> Evaluated {
    parts
        .iter()
        .map(|part| evaluate(part, columns, rows))
        .reduce(|left, right| short_circuit(&left, &right, go_on))
        .unwrap_or_else(|| Evaluated::ok(literal(&Type::Boolean, &Value::Boolean(go_on), rows)))
}

/// `and` goes on where the left is true, `or` where it is false.
fn short_circuit(left: &Evaluated, right: &Evaluated, go_on: bool) -> Evaluated {
    let (a, b) = (left.column.as_boolean(), right.column.as_boolean());
    let bits = if go_on { a.values() & b.values() } else { a.values() | b.values() };
    let asked = |row: usize| a.value(row) == go_on && !failed(&left.errors, row);
    let errors = join_errors(left.errors.clone(), &only(&right.errors, asked));
    Evaluated { column: Arc::new(BooleanArray::new(bits, None)), errors }
}

fn choose(condition: &Evaluated, then: &Evaluated, otherwise: &Evaluated) -> Evaluated {
    let bits = condition.column.as_boolean();
    let column = match bits.values().count_set_bits() {
        0 => Arc::clone(&otherwise.column),
        all if all == bits.len() => Arc::clone(&then.column),
        _ => {
            let picks: Vec<(usize, usize)> =
                (0..bits.len()).map(|row| (usize::from(!bits.value(row)), row)).collect();
            interleave(&[&*then.column, &*otherwise.column], &picks)
                .expect("both branches have the expression's type")
        }
    };
    let taken = only(&then.errors, |row| bits.value(row));
    let other = only(&otherwise.errors, |row| !bits.value(row));
    let branches = join_errors(taken, &other);
    Evaluated { column, errors: join_errors(condition.errors.clone(), &branches) }
}

#[cfg(test)]
mod tests;
