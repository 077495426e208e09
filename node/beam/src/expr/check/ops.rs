//! Operators: arithmetic, comparison, membership, indexing.

use super::{
    ArithmeticOp, Ast, AstKind, Cast, Checked, Checker, CompareOp, DynamicOp, Expr, ExprError, ExprKind,
    Function, Relation, Span, Type, Value, boolean, call, convert, dynamic, is_none, literal, widen,
};

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

fn comparison_symbol(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Equal => "==",
        CompareOp::NotEqual => "!=",
        CompareOp::Less => "<",
        CompareOp::LessOrEqual => "<=",
        CompareOp::Greater => ">",
        CompareOp::GreaterOrEqual => ">=",
    }
}

/// A type as a message names it; `None` by its own name.
pub(super) fn described(expr: &Expr) -> String {
    if is_none(expr) { "None".into() } else { expr.ty.to_string() }
}

/// A number out of a number or a boolean.
fn as_number(expr: Expr) -> Option<Expr> {
    let expr = convert::assume(expr);
    match expr.ty {
        Type::Boolean => Some(convert::cast(Cast::BoolToInt, expr, Type::Int64)),
        Type::Int64 | Type::Float64 => Some(expr),
        _ => None,
    }
}

fn as_float(expr: Expr) -> Expr {
    if expr.ty == Type::Int64 { convert::int_to_float(expr) } else { expr }
}

impl Checker<'_> {
    /// A value that must be a number.
    pub(super) fn number(&mut self, ast: &Ast, op: &str) -> Checked {
        let expr = self.expr(ast)?;
        if expr.ty == Type::Any && !is_none(&expr) {
            return Ok(expr);
        }
        let shown = described(&expr);
        as_number(expr).ok_or_else(|| ExprError::new(ast.span, format!("`{op}` takes a number, not {shown}")))
    }

    pub(super) fn negate(&mut self, value: &Ast) -> Checked {
        let expr = self.number(value, "-")?;
        if expr.ty == Type::Any {
            return Ok(dynamic(Type::Any, DynamicOp::Negate, vec![expr]));
        }
        Ok(Expr { ty: expr.ty.clone(), kind: ExprKind::Negate(Box::new(expr)) })
    }

    pub(super) fn arithmetic(&mut self, op: ArithmeticOp, left: &Ast, right: &Ast, span: Span) -> Checked {
        let (a, b) = (self.expr(left)?, self.expr(right)?);
        let refuse = |a: &Expr, b: &Expr| {
            let (op, a, b) = (symbol(op), described(a), described(b));
            let error = ExprError::new(span, format!("`{op}` does not take {a} and {b}"));
            if a.starts_with("string") && op == "+" {
                error.help("convert with str()")
            } else if a.starts_with("string") && op == "%" {
                error.help("write an f-string")
            } else {
                error
            }
        };
        if is_none(&a) || is_none(&b) {
            return Err(refuse(&a, &b));
        }
        if a.ty == Type::Any || b.ty == Type::Any {
            return Ok(dynamic(Type::Any, DynamicOp::Arithmetic(op), vec![a, b]));
        }
        match (op, a.ty.non_null(), b.ty.non_null()) {
            (ArithmeticOp::Add, Type::String, Type::String) => return Ok(concat(a, b)),
            (ArithmeticOp::Add, Type::Array(_), Type::Array(_)) => return Ok(concat_arrays(a, b)),
            (ArithmeticOp::Multiply, Type::String, Type::Int64) => {
                return Ok(call(
                    Type::String,
                    Function::Repeat,
                    vec![convert::assume(a), convert::assume(b)],
                ));
            }
            (ArithmeticOp::Multiply, Type::Int64, Type::String) => {
                return Ok(call(
                    Type::String,
                    Function::Repeat,
                    vec![convert::assume(b), convert::assume(a)],
                ));
            }
            _ => {}
        }
        match (as_number(a.clone()), as_number(b.clone())) {
            (Some(left), Some(right)) => Ok(numeric(op, left, right)),
            _ => Err(refuse(&a, &b)),
        }
    }

    pub(super) fn comparison(&mut self, first: &Ast, links: &[(Relation, Ast)]) -> Checked {
        let mut left = first;
        let mut parts = Vec::with_capacity(links.len());
        for (relation, right) in links {
            parts.push(self.link(left, *relation, right)?);
            left = right;
        }
        if parts.len() == 1 {
            return Ok(parts.swap_remove(0));
        }
        Ok(boolean(ExprKind::And(parts)))
    }

    fn link(&mut self, left: &Ast, relation: Relation, right: &Ast) -> Checked {
        let span = Span::new(left.span.start, right.span.end);
        match relation {
            Relation::Compare(op) => {
                let (a, b) = (self.expr(left)?, self.expr(right)?);
                compare(op, a, b, span)
            }
            Relation::In => self.contains(left, right, span),
            Relation::NotIn => {
                let found = self.contains(left, right, span)?;
                Ok(boolean(ExprKind::Not(Box::new(found))))
            }
            Relation::Is | Relation::IsNot => {
                let op = if relation == Relation::Is { CompareOp::Equal } else { CompareOp::NotEqual };
                if !matches!(right.kind, AstKind::None | AstKind::Bool(_)) {
                    let error = ExprError::new(span, "`is` takes None, True or False on its right");
                    return Err(error.help("write `==` to compare values"));
                }
                let (a, b) = (self.expr(left)?, self.expr(right)?);
                compare(op, a, b, span)
            }
        }
    }

    fn contains(&mut self, element: &Ast, container: &Ast, span: Span) -> Checked {
        let (element, container) = (self.expr(element)?, convert::assume(self.expr(container)?));
        let refuse = |a: &Expr, b: &Expr| {
            Err(ExprError::new(span, format!("`in` does not take {} and {}", described(a), described(b))))
        };
        match (&element.ty, &container.ty) {
            (_, Type::Any) if !is_none(&container) => {
                Ok(dynamic(Type::Boolean, DynamicOp::Contains, vec![element, container]))
            }
            (ty, Type::String) => match ty.non_null() {
                Type::String | Type::Any if !is_none(&element) => {
                    let element = convert::coerced(element, &Type::String);
                    Ok(call(Type::Boolean, Function::ContainsText, vec![element, container]))
                }
                _ => refuse(&element, &container),
            },
            (ty, Type::Map(_)) if matches!(ty.non_null(), Type::String) => {
                Ok(call(Type::Boolean, Function::ContainsKey, vec![convert::assume(element), container]))
            }
            (ty, Type::Array(inner)) => {
                let inner = (**inner).clone();
                if !is_none(&element) && !comparable(ty, &inner) {
                    return refuse(&element, &container);
                }
                let joined = if is_none(&element) { inner.nullable() } else { widen(ty, &inner) };
                let array = Type::Array(Box::new(joined.clone()));
                let args = vec![convert::coerced(element, &joined), convert::coerced(container, &array)];
                Ok(call(Type::Boolean, Function::ContainsElement, args))
            }
            _ => refuse(&element, &container),
        }
    }

    pub(super) fn index(&mut self, value: &Ast, index: &Ast, span: Span) -> Checked {
        let (container, at) = (convert::assume(self.expr(value)?), convert::assume(self.expr(index)?));
        let at_shown = described(&at);
        let integer = |at: Expr| match at.ty {
            Type::Int64 => Ok(at),
            Type::Any if !is_none(&at) => Ok(convert::coerced(at, &Type::Int64)),
            _ => Err(ExprError::new(index.span, format!("an index is an integer, not {at_shown}"))),
        };
        match container.ty.clone() {
            Type::Any if !is_none(&container) => {
                Ok(dynamic(Type::Any, DynamicOp::Index, vec![container, at]))
            }
            Type::String => Ok(call(Type::String, Function::TextAt, vec![container, integer(at)?])),
            Type::Array(element) => Ok(call(*element, Function::ElementAt, vec![container, integer(at)?])),
            Type::Map(element) => match at.ty {
                Type::String => Ok(call(*element, Function::ValueAt, vec![container, at])),
                _ => Err(ExprError::new(index.span, format!("a key of a map is a string, not {at_shown}"))),
            },
            Type::Row(_) => {
                Err(ExprError::new(span, "a row has no items").help("write `row.field` for a field"))
            }
            _ => Err(ExprError::new(span, format!("a value of type {} has no items", described(&container)))),
        }
    }

    pub(super) fn slice(&mut self, value: &Ast, parts: &[Option<Box<Ast>>; 3], span: Span) -> Checked {
        let container = convert::assume(self.expr(value)?);
        let container = match container.ty {
            Type::Any if !is_none(&container) => convert::coerced(container, &Type::String),
            _ => container,
        };
        let function = match container.ty {
            Type::String => Function::SliceText,
            Type::Array(_) => Function::SliceArray,
            _ => {
                let message = format!("a value of type {} cannot be sliced", described(&container));
                return Err(ExprError::new(span, message));
            }
        };
        let ty = container.ty.clone();
        let mut args = vec![container];
        for part in parts {
            args.push(match part {
                None => literal(Value::Null),
                Some(part) => {
                    let bound = self.expr(part)?;
                    let shown = described(&bound);
                    match bound.ty.non_null() {
                        Type::Any if is_none(&bound) => bound,
                        Type::Int64 | Type::Any => convert::coerced(bound, &Type::Int64),
                        _ => {
                            let message = format!("a bound is an integer, not {shown}");
                            return Err(ExprError::new(part.span, message));
                        }
                    }
                }
            });
        }
        Ok(call(ty, function, args))
    }
}

/// Arithmetic on numbers: true division and a negative literal power make floats.
fn numeric(op: ArithmeticOp, left: Expr, right: Expr) -> Expr {
    let negative_power = op == ArithmeticOp::Power
        && matches!(right.kind, ExprKind::Literal(Value::Int64(exponent)) if exponent < 0);
    let float =
        op == ArithmeticOp::Divide || negative_power || left.ty == Type::Float64 || right.ty == Type::Float64;
    let (left, right) = if float { (as_float(left), as_float(right)) } else { (left, right) };
    let ty = left.ty.clone();
    Expr { ty, kind: ExprKind::Arithmetic { op, left: Box::new(left), right: Box::new(right) } }
}

/// Concatenation; a chain of `+` is one call.
fn concat(left: Expr, right: Expr) -> Expr {
    let (left, right) = (convert::assume(left), convert::assume(right));
    match left.kind {
        ExprKind::Call { function: Function::Concat, mut args } => {
            args.push(right);
            call(Type::String, Function::Concat, args)
        }
        _ => call(Type::String, Function::Concat, vec![left, right]),
    }
}

fn concat_arrays(left: Expr, right: Expr) -> Expr {
    let (left, right) = (convert::assume(left), convert::assume(right));
    let ty = widen(&left.ty, &right.ty);
    let args = vec![convert::coerced(left, &ty), convert::coerced(right, &ty)];
    call(ty, Function::ConcatArray, args)
}

/// Whether values of the two types can be equal.
fn comparable(a: &Type, b: &Type) -> bool {
    let number = |ty: &Type| matches!(ty, Type::Int64 | Type::Float64 | Type::Boolean);
    match (a.non_null(), b.non_null()) {
        (Type::Any, _) | (_, Type::Any) => true,
        (a, b) if number(a) && number(b) => true,
        (Type::Array(a), Type::Array(b)) | (Type::Map(a), Type::Map(b)) => comparable(a, b),
        (Type::Row(_), Type::Row(_)) => true,
        (a, b) => a == b,
    }
}

fn compare(op: CompareOp, a: Expr, b: Expr, span: Span) -> Checked {
    if matches!(op, CompareOp::Equal | CompareOp::NotEqual) {
        return equality(op, a, b, span);
    }
    let refuse = |a: &Expr, b: &Expr| {
        let message =
            format!("`{}` has no order for {} and {}", comparison_symbol(op), described(a), described(b));
        Err(ExprError::new(span, message))
    };
    if is_none(&a) || is_none(&b) {
        return refuse(&a, &b);
    }
    if a.ty == Type::Any || b.ty == Type::Any {
        return Ok(dynamic(Type::Boolean, DynamicOp::Compare(op), vec![a, b]));
    }
    let (left, right) = (convert::assume(a.clone()), convert::assume(b.clone()));
    let (left, right) = match (&left.ty, &right.ty) {
        (x, y) if x == y => (left, right),
        _ => match (as_number(left), as_number(right)) {
            (Some(left), Some(right)) if left.ty != right.ty => (as_float(left), as_float(right)),
            (Some(left), Some(right)) => (left, right),
            _ => return refuse(&a, &b),
        },
    };
    match left.ty {
        Type::Array(_) | Type::Map(_) | Type::Row(_) => refuse(&a, &b),
        _ => Ok(boolean(ExprKind::Compare { op, left: Box::new(left), right: Box::new(right) })),
    }
}

fn equality(op: CompareOp, a: Expr, b: Expr, span: Span) -> Checked {
    if is_none(&a) || is_none(&b) {
        let value = if is_none(&a) { b } else { a };
        let null = boolean(ExprKind::IsNull(Box::new(value)));
        return Ok(if op == CompareOp::Equal { null } else { boolean(ExprKind::Not(Box::new(null))) });
    }
    if !comparable(&a.ty, &b.ty) {
        let message = format!("{} and {} are never equal", described(&a), described(&b));
        return Err(ExprError::new(span, message));
    }
    let joined = widen(&a.ty, &b.ty);
    let (left, right) = (Box::new(convert::coerced(a, &joined)), Box::new(convert::coerced(b, &joined)));
    Ok(boolean(ExprKind::Compare { op, left, right }))
}
