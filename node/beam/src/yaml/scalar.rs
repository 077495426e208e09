//! What a plain scalar means: YAML 1.1 as PyYAML's `SafeLoader` reads it.
//!
//! Owns the resolution rules (`NO`, `010`, `1_000`, `12:30`, dates). Must not know the tree.
//! Invariant: for every text the result is what PyYAML constructs; `tests/it/pyyaml_scalars.txt` is
//! the table that says so.

use crate::schema::Micros;

/// A scalar value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, in decimal if it was, else as written.
    BigInt(String),
    Float(f64),
    /// A date or a date with a time; without a zone it is taken as UTC.
    Timestamp(Micros),
    String(String),
    /// The plain text `<<`, which is a merge when it is a key.
    Merge,
}

impl Scalar {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Scalar::Null => "null",
            Scalar::Bool(_) => "a boolean",
            Scalar::Int(_) | Scalar::BigInt(_) => "an integer",
            Scalar::Float(_) => "a number",
            Scalar::Timestamp(_) => "a date",
            Scalar::String(_) | Scalar::Merge => "a string",
        }
    }

    /// Python's `str` of the value.
    pub(crate) fn python_str(&self) -> String {
        match self {
            Scalar::Null => "None".into(),
            Scalar::Bool(true) => "True".into(),
            Scalar::Bool(false) => "False".into(),
            Scalar::Int(value) => value.to_string(),
            Scalar::BigInt(text) | Scalar::String(text) => text.clone(),
            Scalar::Float(value) => crate::expr::text::float(*value),
            Scalar::Timestamp(at) => crate::expr::text::timestamp(*at),
            Scalar::Merge => "<<".into(),
        }
    }

    /// Whether two keys are one to a Python dict, where `1`, `1.0` and `true` are equal.
    pub(crate) fn same_key(&self, other: &Scalar) -> bool {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => a == b,
            _ => self == other,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Scalar::Bool(value) => Some(f64::from(u8::from(*value))),
            Scalar::Int(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            _ => None,
        }
    }
}

/// The value of a plain scalar. An error is a text that PyYAML recognises and then cannot construct.
pub(crate) fn resolve(text: &str) -> Result<Scalar, String> {
    if let Some(value) = boolean(text) {
        return Ok(Scalar::Bool(value));
    }
    if is_float(text) {
        return float(text).ok_or_else(|| format!("`{text}` is no number"));
    }
    if is_int(text) {
        return int(text).ok_or_else(|| format!("`{text}` is no integer"));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Scalar::Null),
        "<<" => return Ok(Scalar::Merge),
        "=" => return Err("`=` alone has a meaning of its own in YAML: quote it".into()),
        _ => {}
    }
    if looks_like_timestamp(text) {
        return timestamp(text).map(Scalar::Timestamp).ok_or_else(|| format!("`{text}` is no date"));
    }
    Ok(Scalar::String(text.to_owned()))
}

/// The value of a scalar with an explicit tag such as `!!str`.
pub(crate) fn resolve_as(text: &str, tag: &str) -> Result<Scalar, String> {
    let value = match tag {
        "str" => Some(Scalar::String(text.to_owned())),
        "null" => Some(Scalar::Null),
        "bool" => lenient_boolean(text).map(Scalar::Bool),
        "int" => int(text),
        "float" => float(text),
        "timestamp" => timestamp(text).map(Scalar::Timestamp),
        _ => return Err(format!("the tag `!!{tag}` is not supported")),
    };
    value.ok_or_else(|| format!("`{text}` is no {tag}"))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// With `!!bool` PyYAML takes any mixture of cases.
fn lenient_boolean(text: &str) -> Option<bool> {
    boolean(&text.to_lowercase())
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && all_digits(text)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// `60:00`-like groups after the first number: each `[0-5]?[0-9]`.
fn sexagesimal_groups(text: &str) -> bool {
    let valid = |group: &str| match group.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    !text.is_empty() && text.split(':').all(valid)
}

fn is_float(text: &str) -> bool {
    let body = unsigned(text);
    match body {
        ".inf" | ".Inf" | ".INF" => return true,
        _ if matches!(text, ".nan" | ".NaN" | ".NAN") => return true,
        _ => {}
    }
    let Some((whole, fraction)) = body.split_once('.') else { return false };
    if whole.is_empty() {
        let (mantissa, exponent) = split_exponent(fraction);
        return text.starts_with('.') && digits(mantissa) && exponent;
    }
    if let Some((first, groups)) = whole.split_once(':') {
        return digits(first) && sexagesimal_groups(groups) && all_digits(fraction);
    }
    let (mantissa, exponent) = split_exponent(fraction);
    digits(whole) && all_digits(mantissa) && exponent
}

/// The mantissa, and whether what follows is nothing or a signed exponent.
fn split_exponent(text: &str) -> (&str, bool) {
    match text.find(['e', 'E']) {
        None => (text, true),
        Some(at) => {
            let rest = &text[at + 1..];
            let number = unsigned(rest);
            let valid =
                number.len() < rest.len() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            (&text[..at], valid)
        }
    }
}

fn is_int(text: &str) -> bool {
    let body = unsigned(text);
    let within =
        |rest: &str, valid: fn(u8) -> bool| !rest.is_empty() && rest.bytes().all(|b| valid(b) || b == b'_');
    if let Some(rest) = body.strip_prefix("0b") {
        return within(rest, |b| matches!(b, b'0' | b'1'));
    }
    if let Some(rest) = body.strip_prefix("0x") {
        return within(rest, |b| b.is_ascii_hexdigit());
    }
    if let Some(rest) = body.strip_prefix('0') {
        return rest.is_empty() || within(rest, |b| (b'0'..=b'7').contains(&b));
    }
    if let Some((first, groups)) = body.split_once(':') {
        return digits(first) && sexagesimal_groups(groups);
    }
    digits(body)
}

fn int(text: &str) -> Option<Scalar> {
    let clean = text.replace('_', "");
    let negative = clean.starts_with('-');
    let body = unsigned(&clean);
    let magnitude = if body == "0" {
        Some(0)
    } else if let Some(rest) = body.strip_prefix("0b") {
        radix(rest, 2)?
    } else if let Some(rest) = body.strip_prefix("0x") {
        radix(rest, 16)?
    } else if let Some(rest) = body.strip_prefix('0') {
        radix(rest, 8)?
    } else if body.contains(':') {
        sexagesimal_int(body)?
    } else {
        radix(body, 10)?
    };
    let signed = magnitude.map(|m| if negative { -m } else { m }).and_then(|m| i64::try_from(m).ok());
    Some(signed.map_or_else(|| Scalar::BigInt(clean.trim_start_matches('+').to_owned()), Scalar::Int))
}

/// The number; `Some(None)` when it is too large, `None` when it is none.
fn radix(text: &str, base: u32) -> Option<Option<i128>> {
    if text.is_empty() || !text.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some(i128::from_str_radix(text, base).ok())
}

fn sexagesimal_int(text: &str) -> Option<Option<i128>> {
    let mut total = Some(0_i128);
    for group in text.split(':') {
        let value: i128 = group.parse().ok()?;
        total = total.and_then(|t| t.checked_mul(60)?.checked_add(value));
    }
    Some(total)
}

fn float(text: &str) -> Option<Scalar> {
    let clean = text.replace('_', "").to_lowercase();
    let sign = if clean.starts_with('-') { -1.0 } else { 1.0 };
    let body = unsigned(&clean);
    let magnitude = match body {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if body.contains(':') => {
            let mut total = 0.0;
            let mut base = 1.0;
            for group in body.rsplit(':') {
                total += group.parse::<f64>().ok()? * base;
                base *= 60.0;
            }
            total
        }
        _ => body.parse().ok()?,
    };
    Some(Scalar::Float(sign * magnitude))
}

fn looks_like_timestamp(text: &str) -> bool {
    parts(text).is_some()
}

/// The parts of `YYYY-MM-DD` or of a date with a time.
struct Parts {
    date: [i64; 3],
    time: Option<[i64; 3]>,
    micros: i64,
    /// Minutes east of UTC.
    zone: i64,
}

struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if count < least {
            return None;
        }
        let (number, rest) = self.0.split_at(count);
        self.0 = rest;
        number.parse().ok()
    }

    fn eat(&mut self, character: char) -> bool {
        match self.0.strip_prefix(character) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn blanks(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let any = rest.len() < self.0.len();
        self.0 = rest;
        any
    }
}

fn parts(text: &str) -> Option<Parts> {
    let mut at = Cursor(text);
    let year = at.number(4, 4)?;
    at.eat('-').then_some(())?;
    let month_digits = at.0.bytes().take_while(u8::is_ascii_digit).count();
    let month = at.number(1, 2)?;
    at.eat('-').then_some(())?;
    let day_digits = at.0.bytes().take_while(u8::is_ascii_digit).count();
    let day = at.number(1, 2)?;
    let date = [year, month, day];
    if at.0.is_empty() {
        let strict = month_digits == 2 && day_digits == 2;
        return strict.then_some(Parts { date, time: None, micros: 0, zone: 0 });
    }
    (at.eat('T') || at.eat('t') || at.blanks()).then_some(())?;
    let hour = at.number(1, 2)?;
    at.eat(':').then_some(())?;
    let minute = at.number(2, 2)?;
    at.eat(':').then_some(())?;
    let second = at.number(2, 2)?;
    let micros = if at.eat('.') { fraction(&mut at)? } else { 0 };
    let zone = zone(&mut at)?;
    at.0.is_empty().then_some(Parts { date, time: Some([hour, minute, second]), micros, zone })
}

fn fraction(at: &mut Cursor<'_>) -> Option<i64> {
    let count = at.0.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = at.0.split_at(count);
    at.0 = rest;
    let mut six = number.get(..count.min(6))?.to_owned();
    while six.len() < 6 {
        six.push('0');
    }
    six.parse().ok()
}

fn zone(at: &mut Cursor<'_>) -> Option<i64> {
    if at.0.is_empty() {
        return Some(0);
    }
    at.blanks();
    if at.eat('Z') {
        return Some(0);
    }
    let sign = if at.eat('-') {
        -1
    } else if at.eat('+') {
        1
    } else {
        return None;
    };
    let hours = at.number(1, 2)?;
    let minutes = if at.eat(':') { at.number(2, 2)? } else { 0 };
    Some(sign * (hours * 60 + minutes))
}

fn timestamp(text: &str) -> Option<Micros> {
    let parts = parts(text)?;
    let [year, month, day] = parts.date;
    let [hour, minute, second] = parts.time.unwrap_or_default();
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && parts.zone.abs() < 24 * 60;
    let days = days_from_civil(year, month, day);
    let seconds = ((days * 24 + hour) * 60 + minute - parts.zone) * 60 + second;
    valid.then_some(Micros(seconds * 1_000_000 + parts.micros))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> (&'static str, String) {
        match resolve(text) {
            Err(_) => ("error", String::new()),
            Ok(Scalar::Null) => ("null", String::new()),
            Ok(Scalar::Merge) => ("merge", String::new()),
            Ok(Scalar::String(_)) => ("string", String::new()),
            Ok(Scalar::Timestamp(at)) => ("timestamp", at.0.to_string()),
            Ok(value @ Scalar::Bool(_)) => ("bool", value.python_str()),
            Ok(value @ (Scalar::Int(_) | Scalar::BigInt(_))) => ("int", value.python_str()),
            Ok(value @ Scalar::Float(_)) => ("float", value.python_str()),
        }
    }

    /// Each line: the text, what PyYAML 6.0.3 makes of it, the value as Python prints it.
    #[test]
    fn scalars_mean_what_pyyaml_makes_of_them() {
        let table = std::env::var("PYYAML_SCALARS").map_or_else(
            |_| include_str!("../../tests/facts/pyyaml_scalars.tsv").to_owned(),
            |path| std::fs::read_to_string(path).unwrap(),
        );
        let mut wrong = Vec::new();
        for line in table.lines() {
            let mut columns = line.split('\t');
            let mut next = || columns.next().unwrap();
            let (text, kind, value) = (next().replace("\\t", "\t"), next(), next());
            if described(&text) != (kind, value.to_owned()) {
                wrong.push(format!("{text:?}: {kind} {value}, not {:?}", described(&text)));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
