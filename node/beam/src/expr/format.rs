//! Format specifications of f-strings: `[[fill]align][sign][0][width][,][.precision][type]`.
//!
//! Owns the specification and its effect on numbers and text. Must not know expressions. Invariant: a
//! specification that parses for a kind of value formats every value of that kind.

use super::error::RowError;
use crate::schema::Value;

/// How wide or precise a format may be.
const MAX_WIDTH: usize = 1000;

/// A parsed specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    zero: bool,
    width: usize,
    comma: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Reads a specification; the error says what is wrong with it.
pub fn parse(text: &str) -> Result<Spec, String> {
    let mut chars: Vec<char> = text.chars().collect();
    chars.reverse();
    let mut spec = Spec {
        fill: ' ',
        align: None,
        sign: '-',
        zero: false,
        width: 0,
        comma: false,
        precision: None,
        kind: None,
    };
    let is_align = |c: Option<&char>| c.is_some_and(|c| matches!(c, '<' | '>' | '^' | '='));
    if chars.len() >= 2 && is_align(chars.get(chars.len() - 2)) {
        spec.fill = chars.pop().unwrap_or(' ');
        spec.align = chars.pop();
    } else if is_align(chars.last()) {
        spec.align = chars.pop();
    }
    if let Some(sign) = chars.pop_if(|c| matches!(c, '+' | '-' | ' ')) {
        spec.sign = sign;
    }
    spec.zero = chars.pop_if(|c| *c == '0').is_some();
    spec.width = number(&mut chars, text)?.unwrap_or(0);
    spec.comma = chars.pop_if(|c| *c == ',').is_some();
    if chars.pop_if(|c| *c == '.').is_some() {
        spec.precision = Some(number(&mut chars, text)?.ok_or(format!("`{text}` lacks a precision"))?);
    }
    spec.kind = chars.pop();
    match spec.kind {
        None | Some('s' | 'd' | 'f' | 'F' | 'e' | 'E' | '%') if chars.is_empty() => Ok(spec),
        _ => Err(format!("the format `{text}` is not supported")),
    }
}

fn number(chars: &mut Vec<char>, text: &str) -> Result<Option<usize>, String> {
    let mut value: Option<usize> = None;
    while let Some(digit) = chars.last().and_then(|c| c.to_digit(10)) {
        chars.pop();
        let next = value.unwrap_or(0) * 10 + digit as usize;
        if next > MAX_WIDTH {
            return Err(format!("`{text}` is wider than {MAX_WIDTH}"));
        }
        value = Some(next);
    }
    Ok(value)
}

/// What a format is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// An integer.
    Int,
    /// A float.
    Float,
}

/// Whether the specification suits values of this kind; the error says why not.
pub fn check(spec: &Spec, kind: Kind) -> Result<(), String> {
    let code = spec.kind.unwrap_or(' ');
    let fits = match kind {
        Kind::Text => matches!(code, ' ' | 's') && !spec.comma && spec.sign == '-' && spec.align != Some('='),
        Kind::Int => match code {
            ' ' | 'd' => spec.precision.is_none(),
            's' => false,
            _ => true,
        },
        Kind::Float => match code {
            ' ' => spec.precision.is_none(),
            'd' | 's' => false,
            _ => true,
        },
    };
    if fits { Ok(()) } else { Err("the format does not suit the type of the value".into()) }
}

/// `format(value, spec)`
pub fn apply(spec: &Spec, value: &Value) -> Result<String, RowError> {
    match value {
        Value::String(text) => {
            let shown: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            let spec = Spec {
                fill: if spec.zero && spec.align.is_none() { '0' } else { spec.fill },
                ..spec.clone()
            };
            Ok(pad(&spec, "", &shown, '<'))
        }
        Value::Boolean(value) => apply(spec, &Value::Int64(i64::from(*value))),
        Value::Int64(value) => match spec.kind {
            None | Some('d') => Ok(number_text(spec, *value < 0, &value.unsigned_abs().to_string())),
            _ => apply(spec, &Value::Float64(*value as f64)),
        },
        Value::Float64(value) => Ok(float_text(spec, *value)),
        _ => Err(RowError::type_error("unsupported format")),
    }
}

fn float_text(spec: &Spec, value: f64) -> String {
    let negative = value.is_sign_negative() && !value.is_nan();
    let magnitude = value.abs();
    let precision = spec.precision.unwrap_or(6);
    let upper = matches!(spec.kind, Some('F' | 'E'));
    let mut body = if !magnitude.is_finite() {
        super::text::float(magnitude)
    } else {
        match spec.kind {
            None => super::text::float(magnitude),
            Some('%') => format!("{:.precision$}", magnitude * 100.0),
            Some('e' | 'E') => exponent(magnitude, precision),
            _ => format!("{magnitude:.precision$}"),
        }
    };
    if spec.kind == Some('%') {
        body.push('%');
    }
    if upper {
        body.make_ascii_uppercase();
    }
    number_text(spec, negative, &body)
}

fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, power) = text.split_once('e').expect("`{:e}` writes an exponent");
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn number_text(spec: &Spec, negative: bool, body: &str) -> String {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, '+') => "+",
        (false, ' ') => " ",
        (false, _) => "",
    };
    let whole_end = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    let (whole, rest) = body.split_at(whole_end);
    let zero_fill = spec.zero && spec.align.is_none();
    let room = spec.width.saturating_sub(sign.len() + rest.chars().count());
    let whole = match (spec.comma, zero_fill) {
        (true, true) => grouped_to(whole, room),
        (true, false) => grouped(whole),
        (false, true) => format!("{whole:0>room$}"),
        (false, false) => whole.to_owned(),
    };
    let spec = Spec {
        fill: if spec.zero && spec.align.is_some() && spec.fill == ' ' { '0' } else { spec.fill },
        ..spec.clone()
    };
    pad(&spec, sign, &format!("{whole}{rest}"), '>')
}

fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Grouped digits, filled with zeros (grouped too) to at least this width.
fn grouped_to(digits: &str, width: usize) -> String {
    let mut padded = digits.to_owned();
    while grouped(&padded).len() < width {
        padded.insert(0, '0');
    }
    grouped(&padded)
}

fn pad(spec: &Spec, sign: &str, body: &str, default: char) -> String {
    let length = sign.chars().count() + body.chars().count();
    let missing = spec.width.saturating_sub(length);
    let fill = |count: usize| spec.fill.to_string().repeat(count);
    match spec.align.unwrap_or(default) {
        '<' => format!("{sign}{body}{}", fill(missing)),
        '^' => format!("{}{sign}{body}{}", fill(missing / 2), fill(missing - missing / 2)),
        '=' => format!("{sign}{}{body}", fill(missing)),
        _ => format!("{}{sign}{body}", fill(missing)),
    }
}
