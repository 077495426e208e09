//! Beam's `generic` language: a field, a literal, or one comparison of two of them.
//!
//! Owns what the language admits. Must not know types: it yields the tree of [`super::syntax`].

use super::lexer::ExprError;
use super::syntax::{Ast, parse};
use crate::diagnostic::Span;
use crate::expr::check::Fields;

const COMPARISONS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];

/// Reads an expression of the generic language over these fields.
pub(crate) fn parse_generic(text: &str, fields: Fields<'_>, comparisons: bool) -> Result<Ast, ExprError> {
    let whole = text.trim();
    let start = text.len() - text.trim_start().len();
    if let Some(ast) = atom(whole, start, fields) {
        return Ok(ast);
    }
    let refuse = |at: usize, word: &str| {
        let span = Span::new(at, at + word.len());
        let error = ExprError::new(span, format!("`{word}` is no field, literal or comparison"));
        let error = error.suggest(word, fields.schema.names());
        if error.suggestion.is_some() {
            error
        } else {
            error.help("for an expression say `language: python`")
        }
    };
    let Some((at, op)) = comparison(whole).filter(|_| comparisons) else {
        return Err(refuse(start, whole));
    };
    let (left, right) = (&whole[..at], &whole[at + op.len()..]);
    let left_at = start + left.len() - left.trim_start().len();
    let right_at = start + at + op.len() + right.len() - right.trim_start().len();
    let left = atom(left.trim(), left_at, fields).ok_or_else(|| refuse(left_at, left.trim()))?;
    let right = atom(right.trim(), right_at, fields).ok_or_else(|| refuse(right_at, right.trim()))?;
    Ok(Ast::comparison(left, op, right))
}

/// A field (of a nested row too) or a literal.
fn atom(text: &str, at: usize, fields: Fields<'_>) -> Option<Ast> {
    let span = Span::new(at, at + text.len());
    if fields.schema.index_of(text).is_some() {
        return Some(Ast::name(text, span));
    }
    let first = text.split('.').next().unwrap_or_default();
    let name = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c == '_' || c.is_alphanumeric())
            && !part.starts_with(|c: char| c.is_ascii_digit())
    };
    let reserved = matches!(text, "True" | "False" | "None" | "true" | "false" | "null");
    let path = text.split('.').all(name) && !reserved;
    let known = fields.open || text.contains('.') && fields.schema.index_of(first).is_some();
    if is_literal(text) || path && known { parse(text).ok().map(|ast| ast.moved(at)) } else { None }
}

/// An integer within 32 bits, a decimal, or a double-quoted string without escapes.
fn is_literal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.strip_prefix('-').unwrap_or(text);
    if digits(number) {
        return text.parse::<i64>().is_ok_and(|value| value.abs() < 1 << 31);
    }
    if let Some((whole, fraction)) = number.split_once('.') {
        return digits(whole) && (fraction.is_empty() || digits(fraction));
    }
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    quoted.is_some_and(|body| !body.contains(['"', '\\']))
}

/// The first comparison outside quotes.
fn comparison(text: &str) -> Option<(usize, &'static str)> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        quoted ^= c == '"';
        if let Some(op) = COMPARISONS.iter().find(|op| !quoted && text[at..].starts_with(**op)) {
            return Some((at, op));
        }
    }
    None
}
