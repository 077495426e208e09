//! Values as Python prints them.
//!
//! Owns `str` and `repr`. Must not know expressions. Invariant: the text is CPython's.

use std::fmt::Write as _;

use crate::schema::{Micros, Schema, Type, Value};

/// `repr` of a float.
#[must_use]
pub fn float(value: f64) -> String {
    let mut out = String::new();
    write_float(value, &mut out);
    out
}

/// Appends `repr` of a float.
pub fn write_float(value: f64, out: &mut String) {
    if value.is_nan() {
        return out.push_str("nan");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    let start = out.len();
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        write!(out, "{value}").expect("a string takes everything");
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
        return;
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a decimal exponent");
    let sign = if exponent < 0 { '-' } else { '+' };
    write!(out, "{mantissa}e{sign}{:02}", exponent.abs()).expect("a string takes everything");
}

/// A point in time as `YYYY-MM-DD HH:MM:SS[.ffffff]+00:00`.
#[must_use]
pub fn timestamp(at: Micros) -> String {
    let (seconds, micros) = (at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// The inverse of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `str` of a value of a type; the type names the fields of rows.
#[must_use]
pub fn str(value: &Value, ty: &Type) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other, ty),
    }
}

/// `repr` of a value of a type.
#[must_use]
pub fn repr(value: &Value, ty: &Type) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Boolean(true) => "True".into(),
        Value::Boolean(false) => "False".into(),
        Value::Int64(value) => value.to_string(),
        Value::Float64(value) => float(*value),
        Value::String(text) => quoted(text),
        Value::Bytes(bytes) => bytes_literal(bytes),
        Value::Timestamp(at) => format!("Timestamp({})", seconds(*at)),
        Value::Array(items) => {
            let element = match ty.non_null() {
                Type::Array(element) => element,
                _ => &Type::Any,
            };
            let items: Vec<String> = items.iter().map(|item| repr(item, element)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let element = match ty.non_null() {
                Type::Map(element) => element,
                _ => &Type::Any,
            };
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), repr(value, element)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Row(values) => row(values, ty),
    }
}

fn row(values: &[Value], ty: &Type) -> String {
    let unnamed = Schema::default();
    let schema = match ty.non_null() {
        Type::Row(schema) => schema,
        _ => &unnamed,
    };
    let fields: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(position, value)| match schema.fields.get(position) {
            Some(field) => format!("{}={}", field.name, repr(value, &field.ty)),
            None => repr(value, &Type::Any),
        })
        .collect();
    format!("Row({})", fields.join(", "))
}

/// Seconds as Beam's `Timestamp` prints them.
fn seconds(at: Micros) -> String {
    let sign = if at.0 < 0 { "-" } else { "" };
    let (whole, micros) = (at.0.unsigned_abs() / 1_000_000, at.0.unsigned_abs() % 1_000_000);
    if micros == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{micros:06}") }
}

/// `repr` of a string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (0x80..0xa1).contains(&(c as u32)) || c as u32 == 0xad => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn bytes_literal(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut out = format!("b{quote}");
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte if byte == quote as u8 => out.push_str(&format!("\\{quote}")),
            0x20..=0x7e => out.push(byte as char),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push(quote);
    out
}
