//! Arithmetic on numbers as Python does it, on 64 bits.
//!
//! Owns overflow, division by zero and rounding. Must not know expressions or columns; kernels and the
//! reference evaluator share it. Invariant: no operation panics or wraps.

use super::error::RowError;
use super::ir::ArithmeticOp;

fn overflow() -> RowError {
    RowError::new("OverflowError", "integer beyond 64 bits")
}

fn by_zero() -> RowError {
    RowError::new("ZeroDivisionError", "division by zero")
}

/// An operator on integers; [`ArithmeticOp::Divide`] is for floats only and is a type error here.
pub fn int(op: ArithmeticOp, a: i64, b: i64) -> Result<i64, RowError> {
    match op {
        ArithmeticOp::Add => a.checked_add(b).ok_or_else(overflow),
        ArithmeticOp::Subtract => a.checked_sub(b).ok_or_else(overflow),
        ArithmeticOp::Multiply => a.checked_mul(b).ok_or_else(overflow),
        ArithmeticOp::Divide => Err(RowError::new("TypeError", "true division of integers")),
        ArithmeticOp::FloorDivide => {
            if b == 0 {
                return Err(by_zero());
            }
            let quotient = a.checked_div(b).ok_or_else(overflow)?;
            Ok(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
        }
        ArithmeticOp::Modulo => {
            if b == 0 {
                return Err(by_zero());
            }
            let rest = a.wrapping_rem(b);
            Ok(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        ArithmeticOp::Power => int_power(a, b),
    }
}

fn int_power(base: i64, exponent: i64) -> Result<i64, RowError> {
    if exponent < 0 {
        return Err(RowError::new("ValueError", "negative power of an integer: make it a float"));
    }
    match base {
        0 | 1 => Ok(if exponent == 0 { 1 } else { base }),
        -1 => Ok(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => u32::try_from(exponent).ok().and_then(|e| base.checked_pow(e)).ok_or_else(overflow),
    }
}

/// An operator on floats.
pub fn float(op: ArithmeticOp, a: f64, b: f64) -> Result<f64, RowError> {
    match op {
        ArithmeticOp::Add => Ok(a + b),
        ArithmeticOp::Subtract => Ok(a - b),
        ArithmeticOp::Multiply => Ok(a * b),
        ArithmeticOp::Divide if b == 0.0 => Err(by_zero()),
        ArithmeticOp::Divide => Ok(a / b),
        ArithmeticOp::FloorDivide if b == 0.0 => Err(by_zero()),
        ArithmeticOp::FloorDivide => Ok(floor_divide(a, b)),
        ArithmeticOp::Modulo if b == 0.0 => Err(by_zero()),
        ArithmeticOp::Modulo => Ok(modulo(a, b)),
        ArithmeticOp::Power => float_power(a, b),
    }
}

fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0.0_f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

/// CPython's `float_divmod`: the quotient is corrected where the subtraction rounded.
fn floor_divide(a: f64, b: f64) -> f64 {
    let quotient = (a - modulo_raw(a, b)) / b;
    if quotient == 0.0 {
        return 0.0_f64.copysign(a / b);
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

fn modulo_raw(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

fn float_power(a: f64, b: f64) -> Result<f64, RowError> {
    if a == 0.0 && b < 0.0 {
        return Err(RowError::new("ZeroDivisionError", "0.0 cannot be raised to a negative power"));
    }
    let result = a.powf(b);
    if result.is_nan() && !a.is_nan() && !b.is_nan() {
        return Err(RowError::new("ValueError", "the power is no real number"));
    }
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(RowError::new("OverflowError", "(34, 'Numerical result out of range')"));
    }
    Ok(result)
}

/// `-x`
pub fn negate(value: i64) -> Result<i64, RowError> {
    value.checked_neg().ok_or_else(overflow)
}

/// `abs(x)`
pub fn abs(value: i64) -> Result<i64, RowError> {
    value.checked_abs().ok_or_else(overflow)
}

/// `int(x)` of a float.
pub fn truncate(value: f64) -> Result<i64, RowError> {
    whole(value.trunc(), value)
}

/// `round(x)` of a float: half to even.
pub fn round(value: f64) -> Result<i64, RowError> {
    whole(value.round_ties_even(), value)
}

fn whole(result: f64, value: f64) -> Result<i64, RowError> {
    if value.is_nan() {
        return Err(RowError::new("ValueError", "cannot convert float NaN to integer"));
    }
    if value.is_infinite() {
        return Err(RowError::new("OverflowError", "cannot convert float infinity to integer"));
    }
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&result) { Ok(result as i64) } else { Err(overflow()) }
}

/// `round(x, digits)` of a float: rounded on the exact decimal value, half to even.
pub fn round_digits(value: f64, digits: i64) -> Result<f64, RowError> {
    if !value.is_finite() || digits > 330 {
        return Ok(value);
    }
    if digits < -330 {
        return Ok(0.0_f64.copysign(value));
    }
    let text = if digits >= 0 {
        format!("{value:.*}", digits as usize)
    } else {
        let exact = format!("{:.1080}", value.abs());
        let (whole, fraction) = exact.split_once('.').expect("a precision writes a point");
        let rest = fraction.bytes().any(|b| b != b'0');
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", round_decimal(whole, digits.unsigned_abs() as usize, rest))
    };
    let rounded: f64 = text.parse().expect("a formatted float parses");
    let overflowed = rounded.is_infinite();
    if overflowed {
        return Err(RowError::new("OverflowError", "rounded value too large to represent"));
    }
    Ok(if rounded == 0.0 { 0.0_f64.copysign(value) } else { rounded })
}

/// A decimal integer with its last `places` digits rounded off, half to even; `rest` says that a
/// fraction follows.
fn round_decimal(whole: &str, places: usize, rest: bool) -> String {
    let padded = format!("{whole:0>width$}", width = places + 1);
    let (head, tail) = padded.split_at(padded.len() - places);
    let half = format!("5{}", "0".repeat(places - 1));
    let odd = head.ends_with(['1', '3', '5', '7', '9']);
    let up = match tail.cmp(half.as_str()) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => rest || odd,
    };
    let head = if up { increment(head) } else { head.to_owned() };
    format!("{head}{}", "0".repeat(places))
}

fn increment(decimal: &str) -> String {
    let nines = decimal.bytes().rev().take_while(|&b| b == b'9').count();
    let (kept, _) = decimal.split_at(decimal.len() - nines);
    let raised = match kept.as_bytes().split_last() {
        None => "1".to_owned(),
        Some((last, before)) => {
            let mut text = String::from_utf8_lossy(before).into_owned();
            text.push((last + 1) as char);
            text
        }
    };
    format!("{raised}{}", "0".repeat(nines))
}

/// `round(x, digits)` of an integer.
pub fn round_int_digits(value: i64, digits: i64) -> Result<i64, RowError> {
    if digits >= 0 {
        return Ok(value);
    }
    let places = digits.unsigned_abs();
    if places > 19 {
        return Ok(0);
    }
    let text = round_decimal(&value.unsigned_abs().to_string(), places as usize, false);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{text}").parse().map_err(|_| overflow())
}

/// `int(text)`
pub fn parse_int(text: &str) -> Result<i64, RowError> {
    let trimmed = text.trim_matches(super::strings::is_space);
    let (sign, digits) = match trimmed.strip_prefix(['-', '+']) {
        Some(rest) => (if trimmed.starts_with('-') { "-" } else { "" }, rest),
        None => ("", trimmed),
    };
    let clean =
        without_underscores(digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()) && !d.is_empty());
    let Some(clean) = clean else {
        let message = format!("invalid literal for int() with base 10: {}", super::text::quoted(text));
        return Err(RowError::new("ValueError", message));
    };
    format!("{sign}{clean}").parse().map_err(|_| overflow())
}

/// `float(text)`
pub fn parse_float(text: &str) -> Result<f64, RowError> {
    let trimmed = text.trim_matches(super::strings::is_space);
    let invalid = || {
        let message = format!("could not convert string to float: {}", super::text::quoted(text));
        RowError::new("ValueError", message)
    };
    let clean = without_underscores(trimmed).ok_or_else(invalid)?;
    clean.parse().map_err(|_| invalid())
}

/// The text without underscores, which may stand between digits only.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
    let valid = bytes
        .iter()
        .enumerate()
        .all(|(at, &b)| b != b'_' || (at > 0 && digit(bytes.get(at - 1)) && digit(bytes.get(at + 1))));
    valid.then(|| text.replace('_', ""))
}
