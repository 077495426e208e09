//! Python's tokens, as far as expressions need them.
//!
//! Owns numbers, strings, names and operators with their places. Must not know the grammar. Invariant:
//! the tokens' spans are byte offsets into the text, ascending, the last token is [`Tok::End`].

use crate::diagnostic::Span;

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExprError {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
    pub(crate) help: Option<String>,
}

impl ExprError {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> ExprError {
        ExprError { span, message: message.into(), suggestion: None, help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> ExprError {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn suggest<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> ExprError {
        self.suggestion = crate::diagnostic::nearest(found, known).map(str::to_owned);
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    Name(String),
    /// Up to `u64`'s range, so that the minimum can be written with its sign.
    Int(i128),
    Float(f64),
    Str(String),
    /// The body of an f-string, escapes untouched, and where it begins.
    FString {
        body: String,
        at: usize,
        raw: bool,
    },
    Op(&'static str),
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) span: Span,
}

const OPERATORS: [&str; 42] = [
    "**=", "//=", "...", "<<=", ">>=", "**", "//", "==", "!=", "<=", ">=", "<<", ">>", ":=", "->", "+=",
    "-=", "*=", "/=", "%=", "+", "-", "*", "/", "%", "<", ">", "(", ")", "[", "]", "{", "}", ",", ".", ":",
    "|", "&", "^", "~", "@", "=",
];

/// Splits the text into tokens; `offset` is where it begins in a larger text.
pub(crate) fn tokens(text: &str, offset: usize) -> Result<Vec<Token>, ExprError> {
    let mut lexer = Lexer { text, at: 0, offset };
    let mut out = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let tok = lexer.next()?;
        let end = tok == Tok::End;
        out.push(Token { tok, span: lexer.span(start) });
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    offset: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn span(&self, start: usize) -> Span {
        Span::new(self.offset + start, self.offset + self.at)
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            if rest.starts_with('#') {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("\\\n") {
                self.at += 2;
            } else if let Some(c) =
                rest.chars().next().filter(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'))
            {
                self.at += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Tok, ExprError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Tok::End) };
        let second = rest[first.len_utf8()..].chars().next();
        if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit()) {
            return self.number();
        }
        if first == '_' || first.is_alphabetic() {
            return self.word();
        }
        if matches!(first, '"' | '\'') {
            return self.string("");
        }
        let start = self.at;
        if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
            self.at += op.len();
            return Ok(Tok::Op(op));
        }
        self.at += first.len_utf8();
        let help =
            if matches!(first, '“' | '”' | '‘' | '’') { Some("use straight quotes") } else { None };
        let error = ExprError::new(self.span(start), format!("unexpected character `{first}`"));
        Err(ExprError { help: help.map(str::to_owned), ..error })
    }

    fn word(&mut self) -> Result<Tok, ExprError> {
        let rest = self.rest();
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..end];
        let quoted = rest[end..].starts_with(['"', '\'']);
        let prefix = word.to_ascii_lowercase();
        if quoted && matches!(prefix.as_str(), "r" | "f" | "rf" | "fr" | "u" | "b" | "br" | "rb") {
            self.at += end;
            return self.string(&prefix);
        }
        self.at += end;
        Ok(Tok::Name(word.to_owned()))
    }

    fn number(&mut self) -> Result<Tok, ExprError> {
        let start = self.at;
        let rest = self.rest();
        let mut end = rest.find(|c: char| c != '_' && c != '.' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let decimal = !rest.starts_with("0x") && !rest.starts_with("0X");
        if decimal && rest[..end].ends_with(['e', 'E']) && rest[end..].starts_with(['+', '-']) {
            let more = &rest[end + 1..];
            end += 1 + more.find(|c: char| !c.is_ascii_digit()).unwrap_or(more.len());
        }
        self.at += end;
        let text = &rest[..end];
        number_literal(text).map_err(|message| ExprError::new(self.span(start), message))
    }

    fn string(&mut self, prefix: &str) -> Result<Tok, ExprError> {
        let start = self.at - prefix.len();
        let rest = self.rest();
        let quote = &rest[..1];
        let triple = quote.repeat(3);
        let delimiter = if rest.starts_with(&triple) { triple.as_str() } else { quote };
        let body_at = self.at + delimiter.len();
        let mut at = body_at;
        let body = loop {
            let rest = &self.text[at..];
            let Some(c) = rest.chars().next() else {
                self.at = at;
                return Err(ExprError::new(self.span(start), "the string is not closed"));
            };
            if rest.starts_with(delimiter) {
                break &self.text[body_at..at];
            }
            if c == '\n' && delimiter.len() == 1 {
                self.at = at;
                return Err(ExprError::new(self.span(start), "the string is not closed on its line"));
            }
            at += c.len_utf8();
            if c == '\\' {
                at += self.text[at..].chars().next().map_or(0, char::len_utf8);
            }
        };
        self.at = at + delimiter.len();
        let raw = prefix.contains('r');
        if prefix.contains('b') {
            return Err(ExprError::new(self.span(start), "bytes literals are not supported"));
        }
        if prefix.contains('f') {
            return Ok(Tok::FString { body: body.to_owned(), at: self.offset + body_at, raw });
        }
        let value = if raw { Ok(body.to_owned()) } else { unescape(body) };
        value.map(Tok::Str).map_err(|message| ExprError::new(self.span(start), message))
    }
}

fn number_literal(text: &str) -> Result<Tok, String> {
    let invalid = || format!("`{text}` is no number");
    let bytes = text.as_bytes();
    let lone_underscore =
        text.ends_with('_') || text.contains("__") || text.contains("_.") || text.contains("._");
    if lone_underscore || text.ends_with(['j', 'J']) {
        return Err(invalid());
    }
    let clean = text.replace('_', "");
    let based = |base: u32| i128::from_str_radix(&clean[2..], base).map_err(|_| invalid());
    let value = match clean.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => based(16)?,
        Some("0o") => based(8)?,
        Some("0b") => based(2)?,
        _ if clean.bytes().all(|b| b.is_ascii_digit()) => {
            if bytes[0] == b'0' && clean.bytes().any(|b| b != b'0') {
                return Err(format!("`{text}`: leading zeros are not permitted; octal is `0o…`"));
            }
            clean.parse().unwrap_or(i128::MAX)
        }
        _ => {
            let valid =
                clean.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
            return if valid { clean.parse().map(Tok::Float).map_err(|_| invalid()) } else { Err(invalid()) };
        }
    };
    if value > i128::from(i64::MAX) + 1 {
        return Err(format!("`{text}` is beyond 64 bits"));
    }
    Ok(Tok::Int(value))
}

/// The text of a string literal with its escapes resolved.
pub(crate) fn unescape(body: &str) -> Result<String, String> {
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'v' => out.push('\x0b'),
            'x' => rest = push_code(&mut out, rest, 2, 16)?,
            'u' => rest = push_code(&mut out, rest, 4, 16)?,
            'U' => rest = push_code(&mut out, rest, 8, 16)?,
            'N' => return Err("named characters are not supported".into()),
            '0'..='7' => {
                let digits = 1 + rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let octal = format!("{c}{}", &rest[..digits - 1]);
                push_code(&mut out, &octal, digits, 8)?;
                rest = &rest[digits - 1..];
            }
            other => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn push_code<'a>(out: &mut String, rest: &'a str, digits: usize, base: u32) -> Result<&'a str, String> {
    let code = rest.get(..digits).and_then(|code| u32::from_str_radix(code, base).ok());
    match code.and_then(char::from_u32) {
        Some(c) => {
            out.push(c);
            Ok(&rest[digits..])
        }
        None => Err("the string has an invalid escape".into()),
    }
}
