//! Rows as JSON text.
//!
//! Owns: how each type is spelt in JSON, for files, logs and messages.
//! Must not know: files.
//! Invariant: one row is one line. Bytes are base64-free: they are written as text if they are
//! UTF-8, else as lower-case hex; times are RFC 3339; NaN and infinities are null, as JSON has no
//! such numbers.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use pharos_beam::schema::{Schema, Type, Value};

use crate::column::value_at;

/// One row as a JSON object.
#[must_use]
pub fn row(schema: &Schema, columns: &[ArrayRef], row: usize) -> String {
    let mut out = String::new();
    write_row(schema, columns, row, &mut out);
    out
}

/// Appends one row as a JSON object, fields in order. Those that were not read, since nobody looks at them, are left out.
pub fn write_row(schema: &Schema, columns: &[ArrayRef], row: usize, out: &mut String) {
    out.push('{');
    let read = schema.fields.iter().zip(columns).filter(|(_, column)| *column.data_type() != DataType::Null);
    for (position, (field, column)) in read.enumerate() {
        if position > 0 {
            out.push(',');
        }
        text(&field.name, out);
        out.push(':');
        cell(&field.ty, column, row, out);
    }
    out.push('}');
}

fn cell(ty: &Type, column: &ArrayRef, row: usize, out: &mut String) {
    if column.is_null(row) {
        out.push_str("null");
        return;
    }
    match ty.non_null() {
        Type::Int64 => integer(column.as_primitive::<Int64Type>().value(row), out),
        Type::Float64 => float(column.as_primitive::<Float64Type>().value(row), out),
        Type::String => text(column.as_string::<i32>().value(row), out),
        Type::Boolean => out.push_str(if column.as_boolean().value(row) { "true" } else { "false" }),
        Type::Row(schema) => write_row(schema, column.as_struct().columns(), row, out),
        ty => value(ty, &value_at(ty, column, row), out),
    }
}

/// Appends a single value of type `ty`.
pub fn value(ty: &Type, of: &Value, out: &mut String) {
    match (of, ty.non_null()) {
        (Value::Null, _) => out.push_str("null"),
        (Value::Boolean(value), _) => out.push_str(if *value { "true" } else { "false" }),
        (Value::Int64(value), _) => integer(*value, out),
        (Value::Float64(value), _) => float(*value, out),
        (Value::String(value), _) => text(value, out),
        (Value::Bytes(bytes), _) => match std::str::from_utf8(bytes) {
            Ok(utf8) => text(utf8, out),
            Err(_) => text(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), out),
        },
        (Value::Timestamp(micros), _) => {
            text(&pharos_window::Timestamp::from_micros(micros.0).to_string(), out);
        }
        (Value::Array(items), ty) => {
            let item_type = match ty {
                Type::Array(item) => item,
                _ => &Type::Any,
            };
            list(items.iter(), |item, out| value(item_type, item, out), ['[', ']'], out);
        }
        (Value::Map(entries), ty) => {
            let item_type = match ty {
                Type::Map(item) => item,
                _ => &Type::Any,
            };
            let entry = |(key, item): &(String, Value), out: &mut String| {
                text(key, out);
                out.push(':');
                value(item_type, item, out);
            };
            list(entries.iter(), entry, ['{', '}'], out);
        }
        (Value::Row(cells), Type::Row(schema)) => {
            let entry = |(field, cell): (&pharos_beam::schema::Field, &Value), out: &mut String| {
                text(&field.name, out);
                out.push(':');
                value(&field.ty, cell, out);
            };
            list(schema.fields.iter().zip(cells), entry, ['{', '}'], out);
        }
        (Value::Row(cells), _) => {
            list(cells.iter(), |item, out| value(&Type::Any, item, out), ['[', ']'], out)
        }
    }
}

fn list<T>(
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut String),
    brackets: [char; 2],
    out: &mut String,
) {
    out.push(brackets[0]);
    for (position, item) in items.enumerate() {
        if position > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

fn integer(value: i64, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(value));
}

fn float(value: f64, out: &mut String) {
    if !value.is_finite() {
        out.push_str("null");
    } else {
        pharos_beam::expr::text::write_float(value, out);
    }
}

/// Appends text as a JSON string.
pub fn text(of: &str, out: &mut String) {
    out.push('"');
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if !of.bytes().fold(false, |any, byte| any | special(byte)) {
        out.push_str(of);
        out.push('"');
        return;
    }
    let mut plain = 0;
    for (at, byte) in of.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&of[plain..at]);
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("a string takes everything");
        } else {
            out.push_str(escape);
        }
        plain = at + 1;
    }
    out.push_str(&of[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::build;

    #[test]
    fn a_row_is_one_line_of_json() {
        let schema = Schema::new([
            ("s", Type::String),
            ("f", Type::Float64),
            ("z", Type::Float64),
            ("i", Type::Int64),
            ("n", Type::Int64.nullable()),
            ("l", Type::Array(Box::new(Type::Int64))),
        ]);
        let cells = [
            Value::String("a\"\n\u{1}ä".to_owned()),
            Value::Float64(2.0),
            Value::Float64(-0.0),
            Value::Int64(i64::MIN),
            Value::Null,
            Value::Array(vec![Value::Int64(1), Value::Int64(2)]),
        ];
        let columns: Vec<_> =
            schema.fields.iter().zip(&cells).map(|(field, cell)| build(&field.ty, &[cell])).collect();
        assert_eq!(
            row(&schema, &columns, 0),
            r#"{"s":"a\"\n\u0001ä","f":2.0,"z":-0.0,"i":-9223372036854775808,"n":null,"l":[1,2]}"#
        );
    }
}
