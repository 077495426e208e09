//! Conversions between types, written into the tree.
//!
//! Owns which type holds two, and the casts from one to another.

use super::{Cast, Expr, ExprKind, Function, boolean, call, is_none, literal};
use crate::schema::{Field, Schema, Type, Value};

/// The type that holds both: like [`Type::union`], but an integer and a number are a number.
pub(crate) fn widen(a: &Type, b: &Type) -> Type {
    if a == b {
        return a.clone();
    }
    let null = a.admits_null() || b.admits_null();
    let joined = match (a.non_null(), b.non_null()) {
        (a, b) if a == b => a.clone(),
        (Type::Int64, Type::Float64) | (Type::Float64, Type::Int64) => Type::Float64,
        (Type::Array(a), Type::Array(b)) => Type::Array(Box::new(widen(a, b))),
        (Type::Map(a), Type::Map(b)) => Type::Map(Box::new(widen(a, b))),
        (Type::Row(a), Type::Row(b)) => Type::Row(widen_schema(a, b)),
        _ => return Type::Any,
    };
    if null { joined.nullable() } else { joined }
}

fn widen_schema(a: &Schema, b: &Schema) -> Schema {
    let union = a.union(b);
    let fields = union.fields.into_iter().map(|field| match (a.field(&field.name), b.field(&field.name)) {
        (Some(x), Some(y)) => Field { ty: widen(&x.ty, &y.ty), name: field.name },
        _ => field,
    });
    Schema { fields: fields.collect() }
}

/// Without null: null becomes a row error.
pub(crate) fn assume(expr: Expr) -> Expr {
    match expr.ty.clone() {
        Type::Nullable(inner) => cast(Cast::Assume, expr, *inner),
        _ => expr,
    }
}

pub(super) fn cast(cast: Cast, value: Expr, ty: Type) -> Expr {
    Expr { ty, kind: ExprKind::Cast { cast, value: Box::new(value) } }
}

/// By Python's truth.
pub(super) fn truthy(expr: Expr) -> Expr {
    if expr.ty == Type::Boolean { expr } else { boolean(ExprKind::Truthy(Box::new(expr))) }
}

/// By `str`.
pub(super) fn to_text(expr: Expr) -> Expr {
    if expr.ty == Type::String { expr } else { call(Type::String, Function::ToText, vec![expr]) }
}

/// The expression in a type that [`widen`] gave for it.
pub(super) fn coerced(expr: Expr, ty: &Type) -> Expr {
    coerce(expr, ty).unwrap_or_else(|expr| *expr)
}

/// The expression in that type, if every value of its own has a place there; null in a type without
/// null, and `Any` in a definite type, become row errors. An error gives the expression back.
pub(crate) fn coerce(expr: Expr, ty: &Type) -> Result<Expr, Box<Expr>> {
    if expr.ty == *ty {
        return Ok(expr);
    }
    if is_none(&expr) && ty.admits_null() {
        return Ok(Expr { ty: ty.clone(), kind: ExprKind::Literal(Value::Null) });
    }
    match (&expr.ty, ty) {
        (_, Type::Any) => Ok(cast(Cast::ToAny, expr, Type::Any)),
        (Type::Any, _) if is_none(&expr) => Err(Box::new(expr)),
        (Type::Any, _) => Ok(cast(Cast::FromAny, expr, ty.clone())),
        (Type::Nullable(from), Type::Nullable(to)) if **from == Type::Int64 && **to == Type::Float64 => {
            Ok(nullable_float(expr, ty))
        }
        (Type::Nullable(from), Type::Nullable(to)) if fits(from, to) => {
            Ok(cast(Cast::Structural, expr, ty.clone()))
        }
        (Type::Nullable(_), Type::Nullable(_)) => Err(Box::new(expr)),
        (_, Type::Nullable(to)) => coerce(expr, to).map(|expr| cast(Cast::Wrap, expr, ty.clone())),
        (Type::Nullable(_), _) => coerce(assume(expr), ty),
        (Type::Int64, Type::Float64) => Ok(int_to_float(expr)),
        (from, to) if fits(from, to) => Ok(cast(Cast::Structural, expr, ty.clone())),
        _ => Err(Box::new(expr)),
    }
}

pub(super) fn int_to_float(expr: Expr) -> Expr {
    match expr.kind {
        ExprKind::Literal(Value::Int64(value)) => literal(Value::Float64(value as f64)),
        _ => cast(Cast::IntToFloat, expr, Type::Float64),
    }
}

fn nullable_float(expr: Expr, ty: &Type) -> Expr {
    let present = cast(Cast::Wrap, int_to_float(assume(expr.clone())), ty.clone());
    let null = Expr { ty: ty.clone(), kind: ExprKind::Literal(Value::Null) };
    let test = boolean(ExprKind::IsNull(Box::new(expr)));
    let (then, otherwise) = (Box::new(null), Box::new(present));
    Expr { ty: ty.clone(), kind: ExprKind::If { condition: Box::new(test), then, otherwise } }
}

/// Whether [`Cast::Structural`] can make one type of the other.
fn fits(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (a, b) if a == b => true,
        (_, Type::Any) | (Type::Any, _) | (Type::Int64, Type::Float64) => true,
        (Type::Nullable(a), Type::Nullable(b)) => fits(a, b),
        (a, Type::Nullable(b)) => fits(a, b),
        (Type::Array(a), Type::Array(b)) | (Type::Map(a), Type::Map(b)) => fits(a, b),
        (Type::Row(a), Type::Row(b)) => {
            let present = b.fields.iter().all(|field| match a.field(&field.name) {
                Some(there) => fits(&there.ty, &field.ty),
                None => field.ty.admits_null(),
            });
            present && a.fields.iter().all(|field| b.field(&field.name).is_some())
        }
        _ => false,
    }
}
