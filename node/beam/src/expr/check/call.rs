//! Calls of functions and methods.

use super::ops::described;
use super::{
    Ast, AstKind, Cast, Checked, Checker, DynamicOp, Expr, ExprError, ExprKind, Function, Span, Type, Value,
    boolean, call, common, convert, dynamic, is_none, literal,
};

const FUNCTIONS: [&str; 10] = ["abs", "bool", "float", "int", "len", "max", "min", "round", "str", "sum"];

const METHODS: [&str; 15] = [
    "capitalize",
    "count",
    "endswith",
    "find",
    "get",
    "join",
    "lower",
    "lstrip",
    "replace",
    "rstrip",
    "split",
    "startswith",
    "strip",
    "title",
    "upper",
];

pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

pub(super) fn is_method(name: &str) -> bool {
    METHODS.contains(&name)
}

/// Refuses a call with too few or too many arguments.
fn arity(name: &str, args: &[Ast], least: usize, most: usize, span: Span) -> Result<(), ExprError> {
    if (least..=most).contains(&args.len()) {
        return Ok(());
    }
    let wanted = match (least, most) {
        (0, 0) => "no arguments".to_owned(),
        (1, 1) => "1 argument".to_owned(),
        (least, most) if least == most => format!("{least} arguments"),
        (least, usize::MAX) => format!("at least {least} arguments"),
        (least, most) => format!("{least} to {most} arguments"),
    };
    Err(ExprError::new(span, format!("`{name}` takes {wanted}, not {}", args.len())))
}

impl Checker<'_> {
    pub(super) fn call(&mut self, function: &Ast, args: &[Ast], span: Span) -> Checked {
        match &function.kind {
            AstKind::Name(name) if self.fields.schema.index_of(name).is_some() => {
                Err(ExprError::new(function.span, format!("`{name}` is a field and hides the function")))
            }
            AstKind::Name(name) if is_function(name) => self.function(name, args, span),
            AstKind::Name(name) => {
                let error = ExprError::new(function.span, format!("unknown function `{name}`"))
                    .suggest(name, FUNCTIONS);
                let help = format!("the functions are {}", FUNCTIONS.join(", "));
                Err(if error.suggestion.is_some() { error } else { error.help(help) })
            }
            AstKind::Attribute(value, name) => self.method(value, name, args, function.span, span),
            _ => Err(ExprError::new(function.span, "this is no function")),
        }
    }

    fn function(&mut self, name: &str, args: &[Ast], span: Span) -> Checked {
        let (least, most) = match name {
            "round" => (1, 2),
            "min" | "max" => (1, usize::MAX),
            _ => (1, 1),
        };
        arity(name, args, least, most, span)?;
        let refuse = |expr: &Expr| {
            Err(ExprError::new(args[0].span, format!("`{name}` does not take {}", described(expr))))
        };
        let first = self.expr(&args[0])?;
        let any = first.ty == Type::Any && !is_none(&first);
        match name {
            "str" => Ok(convert::to_text(first)),
            "bool" => Ok(convert::truthy(first)),
            "int" | "float" if any => {
                let (ty, function) = if name == "int" {
                    (Type::Int64, Function::AnyToInt)
                } else {
                    (Type::Float64, Function::AnyToFloat)
                };
                Ok(call(ty, function, vec![first]))
            }
            "int" => to_int(convert::assume(first)).or_else(|expr| refuse(&expr)),
            "float" => to_float(convert::assume(first)).or_else(|expr| refuse(&expr)),
            "len" if any => Ok(convert::cast(
                Cast::FromAny,
                dynamic(Type::Any, DynamicOp::Length, vec![first]),
                Type::Int64,
            )),
            "abs" if any => Ok(dynamic(Type::Any, DynamicOp::Abs, vec![first])),
            "len" => match first.ty.non_null() {
                Type::String | Type::Bytes | Type::Array(_) | Type::Map(_) => {
                    Ok(call(Type::Int64, Function::Length, vec![convert::assume(first)]))
                }
                _ => refuse(&first),
            },
            "abs" => match number(first.clone()) {
                Some(value) => Ok(call(value.ty.clone(), Function::Abs, vec![value])),
                None => refuse(&first),
            },
            "round" => self.round(first, args),
            "sum" => match first.ty.non_null() {
                Type::Array(element) if matches!(**element, Type::Int64 | Type::Float64) => {
                    Ok(call((**element).clone(), Function::SumOf, vec![convert::assume(first)]))
                }
                _ => refuse(&first),
            },
            _ => self.extreme(name, first, args),
        }
    }

    fn round(&mut self, first: Expr, args: &[Ast]) -> Checked {
        let first = if first.ty == Type::Any && !is_none(&first) {
            call(Type::Float64, Function::AnyToFloat, vec![first])
        } else {
            first
        };
        let Some(value) = number(first.clone()) else {
            return Err(ExprError::new(args[0].span, format!("`round` does not take {}", described(&first))));
        };
        let Some(digits) = args.get(1) else {
            return Ok(match value.ty {
                Type::Int64 => value,
                _ => call(Type::Int64, Function::Round, vec![value]),
            });
        };
        let digits = self.integer(digits, "round")?;
        let function = if value.ty == Type::Int64 { Function::RoundIntDigits } else { Function::RoundDigits };
        Ok(call(value.ty.clone(), function, vec![value, digits]))
    }

    fn extreme(&mut self, name: &str, first: Expr, args: &[Ast]) -> Checked {
        let largest = name == "max";
        let ordered = |ty: &Type| {
            matches!(ty, Type::Boolean | Type::Int64 | Type::Float64 | Type::String | Type::Timestamp)
        };
        let refuse = |ty: &str| Err(ExprError::new(args[0].span, format!("`{name}` does not take {ty}")));
        if args.len() == 1 {
            let function = if largest { Function::MaxOf } else { Function::MinOf };
            return match first.ty.non_null() {
                Type::Array(element) if ordered(element) => {
                    Ok(call((**element).clone(), function, vec![convert::assume(first)]))
                }
                _ => refuse(&described(&first)),
            };
        }
        let mut values = vec![first];
        for arg in &args[1..] {
            values.push(self.expr(arg)?);
        }
        if let Some(none) = values.iter().position(is_none) {
            return Err(ExprError::new(args[none].span, format!("`{name}` does not take None")));
        }
        let values: Vec<Expr> = values.into_iter().map(convert::assume).collect();
        let ty = common(&values).unwrap_or(Type::Any);
        if !ordered(&ty) {
            let types: Vec<String> = values.iter().map(described).collect();
            return refuse(&types.join(" and "));
        }
        let values = values.into_iter().map(|value| convert::coerced(value, &ty)).collect();
        Ok(call(ty, if largest { Function::Max } else { Function::Min }, values))
    }

    fn method(&mut self, value: &Ast, name: &str, args: &[Ast], at: Span, span: Span) -> Checked {
        let receiver = self.expr(value)?;
        if !is_method(name) {
            let error = ExprError::new(at, format!("unknown method `{name}`")).suggest(name, METHODS);
            let help = format!("the methods are {}", METHODS.join(", "));
            return Err(if error.suggestion.is_some() { error } else { error.help(help) });
        }
        if name == "get" {
            return self.get(receiver, args, value.span, span);
        }
        let text = match receiver.ty.non_null() {
            Type::String => convert::assume(receiver),
            Type::Any if !is_none(&receiver) => convert::coerced(receiver, &Type::String),
            _ => {
                let message = format!("`{name}` is a method of strings, not of {}", described(&receiver));
                return Err(ExprError::new(value.span, message));
            }
        };
        let (least, most) = match name {
            "upper" | "lower" | "title" | "capitalize" => (0, 0),
            "strip" | "lstrip" | "rstrip" => (0, 1),
            "split" => (0, 2),
            "replace" => (2, 3),
            _ => (1, 1),
        };
        arity(name, args, least, most, span)?;
        self.text_method(name, text, args)
    }

    fn text_method(&mut self, name: &str, text: Expr, args: &[Ast]) -> Checked {
        let string = Type::String;
        match name {
            "upper" => Ok(call(string, Function::Upper, vec![text])),
            "lower" => Ok(call(string, Function::Lower, vec![text])),
            "title" => Ok(call(string, Function::Title, vec![text])),
            "capitalize" => Ok(call(string, Function::Capitalize, vec![text])),
            "strip" => Ok(call(string, Function::Strip, vec![text, self.optional_text(args.first(), name)?])),
            "lstrip" => {
                Ok(call(string, Function::StripStart, vec![text, self.optional_text(args.first(), name)?]))
            }
            "rstrip" => {
                Ok(call(string, Function::StripEnd, vec![text, self.optional_text(args.first(), name)?]))
            }
            "startswith" => self.affix(Function::StartsWith, name, text, &args[0]),
            "endswith" => self.affix(Function::EndsWith, name, text, &args[0]),
            "find" => Ok(call(Type::Int64, Function::Find, vec![text, self.text(&args[0], name)?])),
            "count" => Ok(call(Type::Int64, Function::Count, vec![text, self.text(&args[0], name)?])),
            "replace" => {
                let (old, new) = (self.text(&args[0], name)?, self.text(&args[1], name)?);
                let count = self.optional_integer(args.get(2), name)?;
                Ok(call(string, Function::Replace, vec![text, old, new, count]))
            }
            "split" => {
                let separator = self.optional_text(args.first(), name)?;
                let most = self.optional_integer(args.get(1), name)?;
                Ok(call(Type::Array(Box::new(string)), Function::Split, vec![text, separator, most]))
            }
            _ => {
                let list = self.expr(&args[0])?;
                let strings = Type::Array(Box::new(Type::String));
                let shown = described(&list);
                let list = convert::coerce(list, &strings).map_err(|_| {
                    ExprError::new(args[0].span, format!("`join` takes an array of string, not {shown}"))
                })?;
                Ok(call(string, Function::Join, vec![text, list]))
            }
        }
    }

    /// `startswith` and `endswith` take one text or several.
    fn affix(&mut self, function: Function, name: &str, text: Expr, arg: &Ast) -> Checked {
        let AstKind::List(items) = &arg.kind else {
            return Ok(call(Type::Boolean, function, vec![text, self.text(arg, name)?]));
        };
        let mut parts = Vec::new();
        for item in items {
            parts.push(call(Type::Boolean, function, vec![text.clone(), self.text(item, name)?]));
        }
        Ok(boolean(ExprKind::Or(parts)))
    }

    /// `map.get(key)` and `map.get(key, default)`.
    fn get(&mut self, receiver: Expr, args: &[Ast], at: Span, span: Span) -> Checked {
        arity("get", args, 1, 2, span)?;
        let map = convert::assume(receiver);
        let Type::Map(element) = map.ty.clone() else {
            let message = format!("`get` is a method of maps, not of {}", described(&map));
            return Err(ExprError::new(at, message));
        };
        let key = self.text(&args[0], "get")?;
        let default = match args.get(1) {
            Some(default) => self.expr(default)?,
            None => literal(Value::Null),
        };
        let present = call(Type::Boolean, Function::ContainsKey, vec![key.clone(), map.clone()]);
        let value = call(*element, Function::ValueAt, vec![map, key]);
        Ok(super::choose(present, value, default))
    }

    fn text(&mut self, ast: &Ast, name: &str) -> Checked {
        let expr = self.expr(ast)?;
        let shown = described(&expr);
        let refuse = |_| ExprError::new(ast.span, format!("`{name}` takes a string here, not {shown}"));
        convert::coerce(expr, &Type::String).map_err(refuse)
    }

    fn integer(&mut self, ast: &Ast, name: &str) -> Checked {
        let expr = self.expr(ast)?;
        let shown = described(&expr);
        let refuse = |_| ExprError::new(ast.span, format!("`{name}` takes an integer here, not {shown}"));
        convert::coerce(expr, &Type::Int64).map_err(refuse)
    }

    fn optional_text(&mut self, ast: Option<&Ast>, name: &str) -> Checked {
        match ast {
            Some(ast) if ast.kind != AstKind::None => self.text(ast, name),
            _ => Ok(literal(Value::Null)),
        }
    }

    fn optional_integer(&mut self, ast: Option<&Ast>, name: &str) -> Checked {
        match ast {
            Some(ast) => self.integer(ast, name),
            None => Ok(literal(Value::Null)),
        }
    }
}

fn number(expr: Expr) -> Option<Expr> {
    let expr = convert::assume(expr);
    match expr.ty {
        Type::Boolean => Some(convert::cast(Cast::BoolToInt, expr, Type::Int64)),
        Type::Int64 | Type::Float64 => Some(expr),
        _ => None,
    }
}

fn to_int(expr: Expr) -> Result<Expr, Expr> {
    match expr.ty {
        Type::Int64 => Ok(expr),
        Type::Boolean => Ok(convert::cast(Cast::BoolToInt, expr, Type::Int64)),
        Type::Float64 => Ok(call(Type::Int64, Function::Truncate, vec![expr])),
        Type::String => Ok(call(Type::Int64, Function::ParseInt, vec![expr])),
        _ => Err(expr),
    }
}

fn to_float(expr: Expr) -> Result<Expr, Expr> {
    match expr.ty {
        Type::Float64 => Ok(expr),
        Type::Int64 => Ok(convert::int_to_float(expr)),
        Type::Boolean => Ok(convert::int_to_float(convert::cast(Cast::BoolToInt, expr, Type::Int64))),
        Type::String => Ok(call(Type::Float64, Function::ParseFloat, vec![expr])),
        _ => Err(expr),
    }
}
