//! From the grammar's tree to the typed tree.
//!
//! Owns the types of expressions: what Python would refuse at run time for every row is refused here,
//! what it would refuse for some rows becomes a row error. Must not know transforms. Invariant: a tree
//! that leaves here obeys the rules of [`super::ir`].

mod call;
mod convert;
mod ops;

use super::format;
use super::ir::{ArithmeticOp, Cast, CompareOp, DynamicOp, Expr, ExprKind, Function};
use super::lexer::ExprError;
use super::syntax::{Ast, AstKind, Piece, Relation};
use crate::diagnostic::Span;
use crate::schema::{Schema, Type, Value};
pub(crate) use convert::{assume, coerce, widen};

/// How deep a typed tree may be: deeper ones would exceed what JSON readers nest.
const MAX_DEPTH: usize = 38;

pub(crate) type Checked = Result<Expr, ExprError>;

/// The fields that an expression may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) schema: &'a Schema,
    /// Whether there may be fields that the schema does not list (it is known only once data is read).
    pub(crate) open: bool,
}

/// Types an expression over these fields.
pub(crate) fn check(ast: &Ast, fields: Fields<'_>) -> Checked {
    finish(ast, Checker { fields, known: Vec::new() }.expr(ast))
}

/// Types an expression as a condition: anything, by its truth.
pub(crate) fn check_condition(ast: &Ast, fields: Fields<'_>) -> Checked {
    finish(ast, Checker { fields, known: Vec::new() }.condition(ast))
}

fn finish(ast: &Ast, checked: Checked) -> Checked {
    let expr = checked?;
    if depth(&expr) > MAX_DEPTH {
        let error = ExprError::new(ast.span, format!("the expression nests deeper than {MAX_DEPTH} levels"));
        return Err(error.help("compute parts of it in a MapToFields before"));
    }
    Ok(expr)
}

fn depth(expr: &Expr) -> usize {
    1 + expr.parts().into_iter().map(depth).max().unwrap_or(0)
}

pub(crate) fn literal(value: Value) -> Expr {
    let ty = match &value {
        Value::Boolean(_) => Type::Boolean,
        Value::Int64(_) => Type::Int64,
        Value::Float64(_) => Type::Float64,
        Value::String(_) => Type::String,
        _ => Type::Any,
    };
    Expr { ty, kind: ExprKind::Literal(value) }
}

fn is_none(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Literal(Value::Null))
}

fn boolean(kind: ExprKind) -> Expr {
    Expr { ty: Type::Boolean, kind }
}

fn call(ty: Type, function: Function, args: Vec<Expr>) -> Expr {
    Expr { ty, kind: ExprKind::Call { function, args } }
}

fn dynamic(ty: Type, op: DynamicOp, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| coerce(arg, &Type::Any).unwrap_or_else(|arg| *arg)).collect();
    Expr { ty, kind: ExprKind::Dynamic { op, args } }
}

struct Checker<'a> {
    fields: Fields<'a>,
    /// Expressions that the condition around has shown not to be null.
    known: Vec<Ast>,
}

impl Checker<'_> {
    fn expr(&mut self, ast: &Ast) -> Checked {
        let expr = match &ast.kind {
            AstKind::Name(name) => self.field(name, ast.span)?,
            AstKind::None => literal(Value::Null),
            AstKind::Bool(value) => literal(Value::Boolean(*value)),
            AstKind::Int(value) => match i64::try_from(*value) {
                Ok(value) => literal(Value::Int64(value)),
                Err(_) => return Err(ExprError::new(ast.span, "the integer is beyond 64 bits")),
            },
            AstKind::Float(value) => literal(Value::Float64(*value)),
            AstKind::Str(text) => literal(Value::String(text.clone())),
            AstKind::FString(pieces) => return self.fstring(pieces),
            AstKind::List(items) => return self.list(items),
            AstKind::Negate(value) => return self.negate(value),
            AstKind::Plus(value) => return self.number(value, "+"),
            AstKind::Not(value) => boolean(ExprKind::Not(Box::new(self.condition(value)?))),
            AstKind::Binary(op, left, right) => return self.arithmetic(*op, left, right, ast.span),
            AstKind::Compare(first, links) => return self.comparison(first, links),
            AstKind::And(parts) => return self.junction(parts, true),
            AstKind::Or(parts) => return self.junction(parts, false),
            AstKind::If { condition, then, otherwise } => {
                return self.conditional(condition, then, otherwise);
            }
            AstKind::Attribute(value, name) => self.member(value, name, ast.span)?,
            AstKind::Call { function, args } => return self.call(function, args, ast.span),
            AstKind::Index(value, index) => return self.index(value, index, ast.span),
            AstKind::Slice(value, parts) => return self.slice(value, parts, ast.span),
        };
        if matches!(expr.ty, Type::Nullable(_)) && self.known.iter().any(|known| same(known, ast)) {
            return Ok(convert::assume(expr));
        }
        Ok(expr)
    }

    fn field(&self, name: &str, span: Span) -> Checked {
        if let Some(position) = self.fields.schema.index_of(name) {
            let ty = self.fields.schema.fields[position].ty.clone();
            return Ok(Expr { ty, kind: ExprKind::Field(position) });
        }
        if self.fields.open {
            return Ok(Expr { ty: Type::Any, kind: ExprKind::Field(usize::MAX) });
        }
        if call::is_function(name) {
            return Err(ExprError::new(span, format!("`{name}` is a function: call it")));
        }
        let error =
            ExprError::new(span, format!("unknown field `{name}`")).suggest(name, self.fields.schema.names());
        if error.suggestion.is_some() {
            return Err(error);
        }
        let names: Vec<&str> = self.fields.schema.names().take(12).collect();
        Err(match names.as_slice() {
            [] => error.help("the input has no fields"),
            names => error.help(format!("the fields are {}", names.join(", "))),
        })
    }

    fn member(&mut self, value: &Ast, name: &str, span: Span) -> Checked {
        let row = self.expr(value)?;
        match row.ty.non_null() {
            Type::Row(schema) => match schema.index_of(name) {
                Some(field) => {
                    let ty = schema.fields[field].ty.clone();
                    let row = Box::new(convert::assume(row));
                    Ok(Expr { ty, kind: ExprKind::Member { row, field } })
                }
                None => Err(ExprError::new(span, format!("`{name}` is no field of the row"))
                    .suggest(name, schema.names())),
            },
            Type::Any if self.fields.open && !is_none(&row) => {
                Ok(Expr { ty: Type::Any, kind: ExprKind::Member { row: Box::new(row), field: usize::MAX } })
            }
            Type::Map(_) => Err(ExprError::new(span, "a map has no attributes")
                .help(format!("write `[\"{name}\"]` for the value of a key"))),
            Type::String if call::is_method(name) => {
                Err(ExprError::new(span, format!("`{name}` is a method: call it")))
            }
            ty => Err(ExprError::new(span, format!("a value of type {ty} has no field `{name}`"))),
        }
    }

    fn fstring(&mut self, pieces: &[Piece]) -> Checked {
        let mut parts = Vec::new();
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) => literal(Value::String(text.clone())),
                Piece::Value { value, format: None } => {
                    let value = self.expr(value)?;
                    convert::to_text(value)
                }
                Piece::Value { value, format: Some(format) } => self.formatted(value, format)?,
            });
        }
        Ok(call(Type::String, Function::Concat, parts))
    }

    fn formatted(&mut self, value: &Ast, format: &str) -> Checked {
        let expr = convert::assume(self.expr(value)?);
        let kind = match expr.ty {
            Type::Int64 | Type::Boolean => format::Kind::Int,
            Type::Float64 => format::Kind::Float,
            Type::String => format::Kind::Text,
            ref ty => {
                let message = format!("a value of type {ty} takes no format");
                return Err(
                    ExprError::new(value.span, message).help("convert it with float(), int() or str()")
                );
            }
        };
        let parsed = format::parse(format).and_then(|spec| format::check(&spec, kind));
        parsed.map_err(|message| ExprError::new(value.span, message))?;
        Ok(call(Type::String, Function::Format, vec![expr, literal(Value::String(format.to_owned()))]))
    }

    fn list(&mut self, items: &[Ast]) -> Checked {
        let items = items.iter().map(|item| self.expr(item)).collect::<Result<Vec<_>, _>>()?;
        let ty = common(&items).unwrap_or(Type::Any);
        let items = items.into_iter().map(|item| convert::coerced(item, &ty)).collect();
        Ok(Expr { ty: Type::Array(Box::new(ty)), kind: ExprKind::MakeArray(items) })
    }

    fn conditional(&mut self, condition: &Ast, then: &Ast, otherwise: &Ast) -> Checked {
        let test = self.condition(condition)?;
        let then = self.given(non_null_when(condition, true), then)?;
        let otherwise = self.given(non_null_when(condition, false), otherwise)?;
        Ok(choose(test, then, otherwise))
    }

    /// Types an expression where these are known not to be null.
    fn given(&mut self, known: Vec<Ast>, ast: &Ast) -> Checked {
        let before = self.known.len();
        self.known.extend(known);
        let expr = self.expr(ast);
        self.known.truncate(before);
        expr
    }

    /// An expression by its truth.
    fn condition(&mut self, ast: &Ast) -> Checked {
        match &ast.kind {
            AstKind::And(parts) => self.conditions(parts).map(|parts| boolean(ExprKind::And(parts))),
            AstKind::Or(parts) => self.conditions(parts).map(|parts| boolean(ExprKind::Or(parts))),
            _ => self.expr(ast).map(convert::truthy),
        }
    }

    fn conditions(&mut self, parts: &[Ast]) -> Result<Vec<Expr>, ExprError> {
        parts.iter().map(|part| self.condition(part)).collect()
    }

    /// `and`, `or` as values: Python yields the operand that settles it.
    fn junction(&mut self, parts: &[Ast], and: bool) -> Checked {
        let typed = parts.iter().map(|part| self.expr(part)).collect::<Result<Vec<_>, _>>()?;
        if typed.iter().all(|part| part.ty == Type::Boolean) {
            return Ok(boolean(if and { ExprKind::And(typed) } else { ExprKind::Or(typed) }));
        }
        let mut parts = typed.into_iter().rev();
        let last = parts.next().expect("a junction has two parts");
        Ok(parts.fold(last, |rest, part| {
            let test = convert::truthy(part.clone());
            if and {
                choose(test, rest, part)
            } else {
                let part = convert::assume(part);
                choose(test, part, rest)
            }
        }))
    }
}

/// `then if test else otherwise`, both in their common type.
fn choose(test: Expr, then: Expr, otherwise: Expr) -> Expr {
    let both = [then, otherwise];
    let ty = common(&both).unwrap_or(Type::Any);
    let [then, otherwise] = both.map(|branch| Box::new(convert::coerced(branch, &ty)));
    Expr { ty, kind: ExprKind::If { condition: Box::new(test), then, otherwise } }
}

/// The type that holds them all; `None` fits every nullable type.
fn common(items: &[Expr]) -> Option<Type> {
    let typed = items.iter().filter(|item| !is_none(item)).map(|item| item.ty.clone());
    let ty = typed.reduce(|a, b| widen(&a, &b))?;
    Some(if items.iter().any(is_none) { ty.nullable() } else { ty })
}

/// Whether two expressions are the same text of names.
fn same(a: &Ast, b: &Ast) -> bool {
    match (&a.kind, &b.kind) {
        (AstKind::Name(a), AstKind::Name(b)) => a == b,
        (AstKind::Attribute(a, x), AstKind::Attribute(b, y)) => x == y && same(a, b),
        _ => false,
    }
}

/// What a condition shows not to be null when it is true, or when it is false.
fn non_null_when(condition: &Ast, holds: bool) -> Vec<Ast> {
    match &condition.kind {
        AstKind::Name(_) | AstKind::Attribute(..) if holds => vec![condition.clone()],
        AstKind::Not(inner) => non_null_when(inner, !holds),
        AstKind::And(parts) if holds => parts.iter().flat_map(|part| non_null_when(part, true)).collect(),
        AstKind::Or(parts) if !holds => parts.iter().flat_map(|part| non_null_when(part, false)).collect(),
        AstKind::Compare(value, links) => match links.as_slice() {
            [(relation, none)] if none.kind == AstKind::None => {
                let not = matches!(relation, Relation::IsNot | Relation::Compare(CompareOp::NotEqual));
                let is = matches!(relation, Relation::Is | Relation::Compare(CompareOp::Equal));
                if holds && not || !holds && is { vec![(**value).clone()] } else { Vec::new() }
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
