//! Text functions as Python's `str` has them, positions in code points.
//!
//! Owns the functions. Must not know expressions or columns; kernels and the reference evaluator share
//! it. Invariant: indices mean what they mean in Python, negative ones from the end.

use super::error::RowError;

/// What a repetition may grow to.
const MAX_REPEATED: usize = 1 << 20;

/// `str.isspace` of one character.
#[must_use]
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.title`
#[must_use]
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            push_title(&mut out, c)
        }
        inside = c.is_uppercase() || c.is_lowercase();
    }
    out
}

/// `str.capitalize`
#[must_use]
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    if let Some(first) = chars.next() {
        push_title(&mut out, first);
    }
    out.push_str(&chars.as_str().to_lowercase());
    out
}

fn push_title(out: &mut String, c: char) {
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    for rest in upper {
        out.extend(rest.to_lowercase());
    }
}

/// `str.strip`, `lstrip`, `rstrip`: of white space, or of any of the characters.
#[must_use]
pub fn strip<'a>(text: &'a str, characters: Option<&str>, start: bool, end: bool) -> &'a str {
    let matches = |c: char| characters.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if start { text.trim_start_matches(matches) } else { text };
    if end { text.trim_end_matches(matches) } else { text }
}

/// `str.replace`; a negative count replaces all.
#[must_use]
pub fn replace(text: &str, old: &str, new: &str, count: Option<i64>) -> String {
    match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(old, new, count),
        None => text.replace(old, new),
    }
}

/// `str.split`; a negative `most` splits everywhere.
pub fn split(text: &str, separator: Option<&str>, most: Option<i64>) -> Result<Vec<String>, RowError> {
    let most = most.and_then(|most| usize::try_from(most).ok());
    match (separator, most) {
        (Some(""), _) => Err(RowError::new("ValueError", "empty separator")),
        (Some(separator), None) => Ok(text.split(separator).map(str::to_owned).collect()),
        (Some(separator), Some(most)) => {
            Ok(text.splitn(most.saturating_add(1), separator).map(str::to_owned).collect())
        }
        (None, None) => Ok(text.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()),
        (None, Some(most)) => Ok(words(text, most)),
    }
}

fn words(text: &str, most: usize) -> Vec<String> {
    let mut rest = text.trim_start_matches(is_space);
    let mut out = Vec::new();
    while !rest.is_empty() {
        if out.len() == most {
            out.push(rest.to_owned());
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        out.push(rest[..end].to_owned());
        rest = rest[end..].trim_start_matches(is_space);
    }
    out
}

/// `str.find`
#[must_use]
pub fn find(text: &str, needle: &str) -> i64 {
    text.find(needle).map_or(-1, |at| text[..at].chars().count() as i64)
}

/// `str.count`
#[must_use]
pub fn count(text: &str, needle: &str) -> i64 {
    text.matches(needle).count() as i64
}

/// `text * n`
pub fn repeat(text: &str, times: i64) -> Result<String, RowError> {
    let times = usize::try_from(times).unwrap_or(0);
    match text.len().checked_mul(times) {
        Some(length) if length <= MAX_REPEATED => Ok(text.repeat(times)),
        _ => Err(RowError::new("OverflowError", "repeated string is too long")),
    }
}

/// `text[index]`
pub fn at(text: &str, index: i64) -> Result<String, RowError> {
    let found = if index >= 0 {
        text.chars().nth(index as usize)
    } else {
        text.chars().rev().nth(index.unsigned_abs() as usize - 1)
    };
    found.map(String::from).ok_or_else(|| RowError::new("IndexError", "string index out of range"))
}

/// The place of an index in a list of this length.
#[must_use]
pub fn position(index: i64, length: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add(length as i64)? } else { index };
    usize::try_from(at).ok().filter(|&at| at < length)
}

/// The positions that `[start:stop:step]` selects from a list of this length.
pub fn slice(
    length: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: Option<i64>,
) -> Result<Vec<usize>, RowError> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(RowError::new("ValueError", "slice step cannot be zero"));
    }
    let length = length as i64;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: Option<i64>, default: i64| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(low),
        Some(bound) => bound.min(high),
    };
    let (mut at, end) = if step > 0 {
        (clamp(start, low), clamp(stop, high))
    } else {
        (clamp(start, high), clamp(stop, low))
    };
    let mut out = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        out.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(out)
}

/// `text[start:stop:step]`
pub fn slice_text(
    text: &str,
    start: Option<i64>,
    stop: Option<i64>,
    step: Option<i64>,
) -> Result<String, RowError> {
    let chars: Vec<char> = text.chars().collect();
    Ok(slice(chars.len(), start, stop, step)?.into_iter().map(|at| chars[at]).collect())
}
