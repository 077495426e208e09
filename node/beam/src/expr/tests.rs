//! The expression language against CPython.

use super::check::{Fields, check};
use super::eval::eval;
use super::syntax::parse;
use super::text::repr;
use crate::schema::{Schema, Type, Value};

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// The fields of `tests/facts/python_expressions.tsv`, with their values.
fn fields() -> (Schema, Vec<Value>) {
    let row = Schema::new([("a", Type::Int64), ("b", Type::String)]);
    let null = |ty: Type| ty.nullable();
    let array = |ty: Type| Type::Array(Box::new(ty));
    let ints = |values: &[i64]| Value::Array(values.iter().map(|&v| Value::Int64(v)).collect());
    let all: Vec<(&str, Type, Value)> = vec![
        ("i", Type::Int64, Value::Int64(7)),
        ("j", Type::Int64, Value::Int64(-3)),
        ("z", Type::Int64, Value::Int64(0)),
        ("f", Type::Float64, Value::Float64(2.5)),
        ("g", Type::Float64, Value::Float64(-0.5)),
        ("h", Type::Float64, Value::Float64(1e300)),
        ("s", Type::String, text("Hello World")),
        ("t", Type::String, text("  a,b,,c ")),
        ("e", Type::String, text("")),
        ("b", Type::Boolean, Value::Boolean(true)),
        ("n", null(Type::Int64), Value::Null),
        ("m", null(Type::Int64), Value::Int64(5)),
        ("l", array(Type::Int64), ints(&[3, 1, 2])),
        ("ls", array(Type::String), Value::Array(vec![text("x"), text("y")])),
        ("u", Type::String, text("ünïcode ß")),
        (
            "d",
            Type::Map(Box::new(Type::Int64)),
            Value::Map(vec![("k".into(), Value::Int64(1)), ("q".into(), Value::Int64(2))]),
        ),
        ("ns", null(Type::String), Value::Null),
        ("ms", null(Type::String), text("txt")),
        ("a1", Type::Any, Value::Int64(4)),
        ("a2", Type::Any, text("any")),
        ("a3", Type::Any, Value::Null),
        ("a4", Type::Any, Value::Array(vec![Value::Int64(1), text("x")])),
        ("a5", Type::Any, Value::Float64(2.5)),
        ("big", Type::Int64, Value::Int64(9_007_199_254_740_993)),
        ("r", Type::Row(row), Value::Row(vec![Value::Int64(1), text("x")])),
    ];
    let schema = Schema::new(all.iter().map(|(name, ty, _)| (*name, ty.clone())));
    (schema, all.into_iter().map(|(_, _, value)| value).collect())
}

/// The value as Python prints it, the class of a row's error, or `refused: …`.
fn outcome(source: &str) -> String {
    let (schema, row) = fields();
    let checked = parse(source).and_then(|ast| check(&ast, Fields { schema: &schema, open: false }));
    match checked {
        Err(error) => format!("refused: {}", error.message),
        Ok(expr) => match eval(&expr, &row) {
            Ok(value) => repr(&value, &expr.ty),
            Err(error) => format!("error:{}", error.class),
        },
    }
}

/// Each line: an expression, what CPython 3.11 makes of it. What fails for every row may be refused.
#[test]
fn expressions_mean_what_python_makes_of_them() {
    let mut wrong = Vec::new();
    for line in include_str!("../../tests/facts/python_expressions.tsv").lines() {
        let (source, expected) = line.split_once('\t').unwrap();
        let source = source.replace("\\n!", "\n");
        let found = outcome(&source);
        // A missing attribute of a value of unknown type is one of its type.
        let expected = &expected.replace("AttributeError", "TypeError");
        let refused = found.starts_with("refused") && expected.starts_with("error:");
        if found != *expected && !refused {
            wrong.push(format!("{source}\n    expected {expected}\n    found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Where Python would keep an integer beside a float, a column has one type.
#[test]
fn an_integer_beside_a_number_is_a_number() {
    assert_eq!(outcome("1 / z if z else 0"), "0.0");
    assert_eq!(outcome("[1, 2.5]"), "[1.0, 2.5]");
}

#[test]
fn integers_beyond_64_bits_fail_their_row() {
    let beyond = ["big ** 2", "9223372036854775807 + i", "-9223372036854775807 - i", "big * big", "10 ** 19"];
    for source in beyond {
        assert_eq!(outcome(source), "error:OverflowError", "{source}");
    }
    assert_eq!(outcome("-9223372036854775808 // -1"), "error:OverflowError");
    assert_eq!(outcome("-9223372036854775808 % -1"), "0");
}

#[test]
fn what_python_refuses_for_every_row_is_refused() {
    let refused = [
        ("s + 1", "`+` does not take string and integer"),
        ("s < 1", "`<` has no order for string and integer"),
        ("s == 1", "string and integer are never equal"),
        ("None + 1", "`+` does not take None and integer"),
        ("-s", "`-` takes a number, not string"),
        ("i.upper()", "`upper` is a method of strings, not of integer"),
        ("s.uper()", "unknown method `uper`"),
        ("lenn(s)", "unknown function `lenn`"),
        ("x", "unknown field `x`"),
        ("len", "`len` is a function: call it"),
        ("len(i)", "`len` does not take integer"),
        ("len(s, s)", "`len` takes 1 argument, not 2"),
        ("s.replace('a')", "`replace` takes 2 to 3 arguments, not 1"),
        ("s[1.5]", "an index is an integer, not number"),
        ("i[0]", "a value of type integer has no items"),
        ("r.c", "`c` is no field of the row"),
        ("1 +", "the expression ends too early"),
        ("(1", "`)` is missing"),
        ("1 2", "unexpected value: an operator is missing before it"),
        ("i = 7", "`=` is neither a comparison nor supported in calls"),
        ("i & 1", "the operator `&` is not supported"),
        ("lambda: 1", "lambda is not supported"),
        ("[x for x in l]", "comprehensions are not supported"),
        ("{1: 2}", "dictionaries and sets are not supported"),
        ("'abc", "the string is not closed"),
        ("012", "`012`: leading zeros are not permitted; octal is `0o\u{2026}`"),
        ("9223372036854775808", "the integer is beyond 64 bits"),
        ("i if b", "`else` is missing"),
        ("f'{i'", "`}` is missing"),
        ("f'{i:Q}'", "the format `Q` is not supported"),
        ("f'{f:d}'", "the format does not suit the type of the value"),
        ("", "the expression is empty"),
    ];
    for (source, message) in refused {
        assert_eq!(outcome(source), format!("refused: {message}"), "{source}");
    }
}

#[test]
fn depth_is_bounded() {
    assert!(outcome(&"(".repeat(500)).starts_with("refused: nested deeper"));
    assert!(outcome(&format!("{}b", "not ".repeat(500))).starts_with("refused: nested deeper"));
    assert!(outcome(&format!("{}i", "-".repeat(500))).starts_with("refused: nested deeper"));
    assert!(outcome(&format!("i{}", " + i".repeat(60))).starts_with("refused: the expression nests deeper"));
    assert!(outcome(&format!("s{}", " + s".repeat(60))).starts_with("'Hello"));
    let deepest = format!("i{}", " + i".repeat(37));
    let (schema, _) = fields();
    let expr = check(&parse(&deepest).unwrap(), Fields { schema: &schema, open: false }).unwrap();
    let json = serde_json::to_string(&vec![vec![vec![vec![expr.clone()]]]]).unwrap();
    let back: Vec<Vec<Vec<Vec<super::ir::Expr>>>> = serde_json::from_str(&json).unwrap();
    assert_eq!(back[0][0][0][0], expr);
}
