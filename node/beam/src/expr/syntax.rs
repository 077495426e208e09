//! The grammar: Python's expressions, a subset, with a place on every node.
//!
//! Owns precedence and what of the grammar is served. Must not know types. Invariant: a tree is never
//! deeper than [`MAX_DEPTH`].

use super::lexer::{ExprError, Tok, Token, tokens, unescape};
use crate::diagnostic::Span;
use crate::expr::ir::{ArithmeticOp, CompareOp};

/// How deep expressions may nest.
const MAX_DEPTH: usize = 100;
/// How long an expression may be.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ast {
    pub(crate) span: Span,
    pub(crate) kind: AstKind,
    depth: usize,
}

impl Ast {
    pub(crate) fn name(name: &str, span: Span) -> Ast {
        Ast { span, kind: AstKind::Name(name.to_owned()), depth: 1 }
    }

    pub(crate) fn comparison(left: Ast, op: &str, right: Ast) -> Ast {
        let op = match op {
            "==" => CompareOp::Equal,
            "!=" => CompareOp::NotEqual,
            "<" => CompareOp::Less,
            "<=" => CompareOp::LessOrEqual,
            ">" => CompareOp::Greater,
            _ => CompareOp::GreaterOrEqual,
        };
        let span = Span::new(left.span.start, right.span.end);
        let depth = left.depth.max(right.depth) + 1;
        Ast { span, kind: AstKind::Compare(Box::new(left), vec![(Relation::Compare(op), right)]), depth }
    }

    /// The node, which stands so much later in the text; for leaves and paths.
    pub(crate) fn moved(mut self, by: usize) -> Ast {
        self.span = Span::new(self.span.start + by, self.span.end + by);
        if let AstKind::Attribute(value, name) = self.kind {
            self.kind = AstKind::Attribute(Box::new(value.moved(by)), name);
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AstKind {
    Name(String),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    FString(Vec<Piece>),
    List(Vec<Ast>),
    Negate(Box<Ast>),
    Plus(Box<Ast>),
    Not(Box<Ast>),
    Binary(ArithmeticOp, Box<Ast>, Box<Ast>),
    Compare(Box<Ast>, Vec<(Relation, Ast)>),
    And(Vec<Ast>),
    Or(Vec<Ast>),
    If { condition: Box<Ast>, then: Box<Ast>, otherwise: Box<Ast> },
    Attribute(Box<Ast>, String),
    Call { function: Box<Ast>, args: Vec<Ast> },
    Index(Box<Ast>, Box<Ast>),
    Slice(Box<Ast>, [Option<Box<Ast>>; 3]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Relation {
    Compare(CompareOp),
    In,
    NotIn,
    Is,
    IsNot,
}

/// A part of an f-string.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Value { value: Ast, format: Option<String> },
}

/// Parses a whole text as one expression.
pub(crate) fn parse(text: &str) -> Result<Ast, ExprError> {
    if text.len() > MAX_BYTES {
        return Err(ExprError::new(Span::new(0, 1), format!("an expression longer than {MAX_BYTES} bytes")));
    }
    parse_at(text, 0, 0)
}

fn parse_at(text: &str, offset: usize, level: usize) -> Result<Ast, ExprError> {
    let mut parser = Parser { tokens: tokens(text, offset)?, at: 0, level };
    if parser.peek() == &Tok::End {
        return Err(ExprError::new(Span::new(offset, offset), "the expression is empty"));
    }
    let ast = parser.conditional()?;
    match parser.peek() {
        Tok::End => Ok(ast),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    level: usize,
}

type Parsed = Result<Ast, ExprError>;

/// Python's words that begin something this subset leaves out.
fn unsupported_word(word: &str) -> Option<&'static str> {
    match word {
        "lambda" => Some("lambda is not supported"),
        "await" | "async" => Some("await is not supported"),
        "yield" => Some("yield is not supported"),
        "for" => Some("comprehensions are not supported"),
        "import" | "def" | "class" | "return" | "while" | "try" | "with" | "raise" | "del" | "pass" => {
            Some("only an expression may stand here, no statement")
        }
        _ => None,
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "and" | "or" | "not" | "if" | "else" | "in" | "is") || unsupported_word(word).is_some()
}

impl Parser {
    fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }

    fn span(&self) -> Span {
        self.tokens[self.at].span
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Tok::Op(found) if *found == op);
        if found {
            self.advance();
        }
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Name(found) if found == word)
    }

    fn unexpected(&self) -> ExprError {
        let span = self.span();
        match self.peek() {
            Tok::End => ExprError::new(span, "the expression ends too early"),
            Tok::Name(word) => match unsupported_word(word) {
                Some(why) => ExprError::new(span, why),
                None => ExprError::new(span, format!("unexpected `{word}`")),
            },
            Tok::Op(op @ ("|" | "&" | "^" | "~" | "<<" | ">>" | "@" | ":=")) => {
                let help = if matches!(*op, "|" | "&") { Some("say `or`, `and`") } else { None };
                let error = ExprError::new(span, format!("the operator `{op}` is not supported"));
                ExprError { help: help.map(str::to_owned), ..error }
            }
            Tok::Op("=") => {
                let error = ExprError::new(span, "`=` is neither a comparison nor supported in calls");
                error.help("write `==` to compare; pass arguments by position")
            }
            Tok::Op(op) => ExprError::new(span, format!("unexpected `{op}`")),
            _ => ExprError::new(span, "unexpected value: an operator is missing before it"),
        }
    }

    fn expect(&mut self, op: &'static str) -> Result<Span, ExprError> {
        let span = self.span();
        if self.eat(op) {
            return Ok(span);
        }
        match self.peek() {
            Tok::End => Err(ExprError::new(span, format!("`{op}` is missing"))),
            _ => Err(self.unexpected()),
        }
    }

    fn node(&self, span: Span, kind: AstKind, depth: usize) -> Parsed {
        if depth >= MAX_DEPTH {
            return Err(ExprError::new(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Ast { span, kind, depth: depth + 1 })
    }

    fn leaf(&self, span: Span, kind: AstKind) -> Parsed {
        self.node(span, kind, 0)
    }

    fn over(&self, parts: &[&Ast], span: Span, kind: AstKind) -> Parsed {
        let depth = parts.iter().map(|part| part.depth).max().unwrap_or(0);
        self.node(span, kind, depth)
    }

    fn conditional(&mut self) -> Parsed {
        self.level += 1;
        if self.level > MAX_DEPTH {
            return Err(ExprError::new(self.span(), format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let then = self.or()?;
        let ast = if self.eat_word("if") {
            let condition = self.or()?;
            if !self.eat_word("else") {
                let error = ExprError::new(self.span(), "`else` is missing");
                return Err(error.help("write `value if condition else other`"));
            }
            let otherwise = self.conditional()?;
            let span = Span::new(then.span.start, otherwise.span.end);
            let depth = then.depth.max(condition.depth).max(otherwise.depth);
            let kind = AstKind::If {
                condition: Box::new(condition),
                then: Box::new(then),
                otherwise: Box::new(otherwise),
            };
            self.node(span, kind, depth)?
        } else {
            then
        };
        self.level -= 1;
        Ok(ast)
    }

    fn or(&mut self) -> Parsed {
        self.chain("or", Self::and, AstKind::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain("and", Self::not, AstKind::And)
    }

    fn chain(&mut self, word: &str, part: fn(&mut Self) -> Parsed, make: fn(Vec<Ast>) -> AstKind) -> Parsed {
        let first = part(self)?;
        if !self.at_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat_word(word) {
            parts.push(part(self)?);
        }
        let span = Span::new(parts[0].span.start, parts[parts.len() - 1].span.end);
        let depth = parts.iter().map(|part| part.depth).max().unwrap_or(0);
        self.node(span, make(parts), depth)
    }

    fn not(&mut self) -> Parsed {
        let mut starts = Vec::new();
        while self.at_word("not") {
            starts.push(self.advance().span.start);
        }
        let mut ast = self.comparison()?;
        for start in starts.into_iter().rev() {
            let span = Span::new(start, ast.span.end);
            let depth = ast.depth;
            ast = self.node(span, AstKind::Not(Box::new(ast)), depth)?;
        }
        Ok(ast)
    }

    fn comparison(&mut self) -> Parsed {
        let first = self.sum()?;
        let mut links = Vec::new();
        while let Some(relation) = self.relation()? {
            links.push((relation, self.sum()?));
        }
        if links.is_empty() {
            return Ok(first);
        }
        let end = links[links.len() - 1].1.span.end;
        let depth = links.iter().map(|(_, ast)| ast.depth).max().unwrap_or(0).max(first.depth);
        let span = Span::new(first.span.start, end);
        self.node(span, AstKind::Compare(Box::new(first), links), depth)
    }

    fn relation(&mut self) -> Result<Option<Relation>, ExprError> {
        let relation = match self.peek() {
            Tok::Op("==") => Relation::Compare(CompareOp::Equal),
            Tok::Op("!=") => Relation::Compare(CompareOp::NotEqual),
            Tok::Op("<") => Relation::Compare(CompareOp::Less),
            Tok::Op("<=") => Relation::Compare(CompareOp::LessOrEqual),
            Tok::Op(">") => Relation::Compare(CompareOp::Greater),
            Tok::Op(">=") => Relation::Compare(CompareOp::GreaterOrEqual),
            Tok::Name(word) if word == "in" => Relation::In,
            Tok::Name(word) if word == "is" => Relation::Is,
            Tok::Name(word) if word == "not" => Relation::NotIn,
            _ => return Ok(None),
        };
        self.advance();
        if relation == Relation::NotIn && !self.eat_word("in") {
            return Err(ExprError::new(self.span(), "`in` is missing after `not`"));
        }
        if relation == Relation::Is && self.eat_word("not") {
            return Ok(Some(Relation::IsNot));
        }
        Ok(Some(relation))
    }

    fn sum(&mut self) -> Parsed {
        self.binary(Self::product, |op| match op {
            "+" => Some(ArithmeticOp::Add),
            "-" => Some(ArithmeticOp::Subtract),
            _ => None,
        })
    }

    fn product(&mut self) -> Parsed {
        self.binary(Self::unary, |op| match op {
            "*" => Some(ArithmeticOp::Multiply),
            "/" => Some(ArithmeticOp::Divide),
            "//" => Some(ArithmeticOp::FloorDivide),
            "%" => Some(ArithmeticOp::Modulo),
            _ => None,
        })
    }

    fn binary(&mut self, part: fn(&mut Self) -> Parsed, op: fn(&str) -> Option<ArithmeticOp>) -> Parsed {
        let mut left = part(self)?;
        loop {
            let found = match self.peek() {
                Tok::Op(symbol) => op(symbol),
                _ => None,
            };
            let Some(op) = found else { return Ok(left) };
            self.advance();
            let right = part(self)?;
            let span = Span::new(left.span.start, right.span.end);
            let depth = left.depth.max(right.depth);
            left = self.node(span, AstKind::Binary(op, Box::new(left), Box::new(right)), depth)?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let start = self.span().start;
        let negative = match self.peek() {
            Tok::Op("-") => true,
            Tok::Op("+") => false,
            _ => return self.power(),
        };
        self.level += 1;
        if self.level > MAX_DEPTH {
            return Err(ExprError::new(self.span(), format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.advance();
        let operand = self.unary()?;
        self.level -= 1;
        let span = Span::new(start, operand.span.end);
        match operand.kind {
            AstKind::Int(value) if negative && value > 0 => self.leaf(span, AstKind::Int(-value)),
            AstKind::Float(value) if negative => self.leaf(span, AstKind::Float(-value)),
            _ => {
                let depth = operand.depth;
                let make = if negative { AstKind::Negate } else { AstKind::Plus };
                self.node(span, make(Box::new(operand)), depth)
            }
        }
    }

    fn power(&mut self) -> Parsed {
        let base = self.postfix()?;
        if !self.eat("**") {
            return Ok(base);
        }
        let exponent = self.unary()?;
        let span = Span::new(base.span.start, exponent.span.end);
        let depth = base.depth.max(exponent.depth);
        let kind = AstKind::Binary(ArithmeticOp::Power, Box::new(base), Box::new(exponent));
        self.node(span, kind, depth)
    }

    fn postfix(&mut self) -> Parsed {
        let mut ast = self.atom()?;
        loop {
            if self.eat(".") {
                let token = self.advance();
                let Tok::Name(name) = token.tok else {
                    return Err(ExprError::new(token.span, "a name is missing after `.`"));
                };
                let span = Span::new(ast.span.start, token.span.end);
                let depth = ast.depth;
                ast = self.node(span, AstKind::Attribute(Box::new(ast), name), depth)?;
            } else if self.eat("(") {
                ast = self.call(ast)?;
            } else if self.eat("[") {
                ast = self.subscript(ast)?;
            } else {
                return Ok(ast);
            }
        }
    }

    fn call(&mut self, function: Ast) -> Parsed {
        let mut args = Vec::new();
        let end = loop {
            let close = self.span();
            if self.eat(")") {
                break close.end;
            }
            if matches!(self.peek(), Tok::Op("*" | "**")) {
                return Err(ExprError::new(self.span(), "unpacked arguments are not supported"));
            }
            args.push(self.conditional()?);
            if !self.eat(",") {
                break self.expect(")")?.end;
            }
        };
        let span = Span::new(function.span.start, end);
        let depth = args.iter().map(|arg| arg.depth).max().unwrap_or(0).max(function.depth);
        self.node(span, AstKind::Call { function: Box::new(function), args }, depth)
    }

    fn subscript(&mut self, value: Ast) -> Parsed {
        let mut parts: [Option<Box<Ast>>; 3] = [None, None, None];
        let mut colons = 0;
        let mut depth = value.depth;
        let end = loop {
            let close = self.span();
            if self.eat("]") {
                break close.end;
            }
            if self.eat(":") {
                colons += 1;
                if colons > 2 {
                    return Err(ExprError::new(close, "unexpected `:`"));
                }
                continue;
            }
            if parts[colons].is_some() {
                return Err(self.unexpected());
            }
            let part = self.conditional()?;
            depth = depth.max(part.depth);
            parts[colons] = Some(Box::new(part));
        };
        let span = Span::new(value.span.start, end);
        match parts {
            [Some(index), ..] if colons == 0 => {
                self.node(span, AstKind::Index(Box::new(value), index), depth)
            }
            _ if colons == 0 => Err(ExprError::new(span, "the index is missing")),
            parts => self.node(span, AstKind::Slice(Box::new(value), parts), depth),
        }
    }

    fn atom(&mut self) -> Parsed {
        let span = self.span();
        match self.peek().clone() {
            Tok::Int(value) => {
                self.advance();
                self.leaf(span, AstKind::Int(value))
            }
            Tok::Float(value) => {
                self.advance();
                self.leaf(span, AstKind::Float(value))
            }
            Tok::Str(_) | Tok::FString { .. } => self.strings(),
            Tok::Name(word) => self.name(&word),
            Tok::Op("(") => self.parenthesis(),
            Tok::Op("[") => self.list(),
            Tok::Op("{") => Err(ExprError::new(span, "dictionaries and sets are not supported")),
            _ => Err(self.unexpected()),
        }
    }

    fn name(&mut self, word: &str) -> Parsed {
        let span = self.span();
        let kind = match word {
            "None" => AstKind::None,
            "True" => AstKind::Bool(true),
            "False" => AstKind::Bool(false),
            word if is_keyword(word) => return Err(self.unexpected()),
            word => AstKind::Name(word.to_owned()),
        };
        self.advance();
        self.leaf(span, kind)
    }

    /// Parentheses around one expression, or a tuple, which counts as a list.
    fn parenthesis(&mut self) -> Parsed {
        let open = self.advance().span;
        if self.eat(")") {
            return self.leaf(Span::new(open.start, self.span().start), AstKind::List(Vec::new()));
        }
        let first = self.conditional()?;
        let span = self.span();
        if self.eat(")") {
            return Ok(Ast { span: Span::new(open.start, span.end), ..first });
        }
        if self.at_word("for") {
            return Err(self.unexpected());
        }
        if self.peek() == &Tok::End {
            return Err(ExprError::new(span, "`)` is missing"));
        }
        self.expect(",")?;
        self.items(open, vec![first], ")")
    }

    fn list(&mut self) -> Parsed {
        let open = self.advance().span;
        self.items(open, Vec::new(), "]")
    }

    fn items(&mut self, open: Span, mut items: Vec<Ast>, close: &'static str) -> Parsed {
        let end = loop {
            let span = self.span();
            if self.eat(close) {
                break span.end;
            }
            items.push(self.conditional()?);
            if !self.eat(",") {
                break self.expect(close)?.end;
            }
        };
        let parts: Vec<&Ast> = items.iter().collect();
        let depth = parts.iter().map(|part| part.depth).max().unwrap_or(0);
        self.node(Span::new(open.start, end), AstKind::List(items), depth)
    }

    /// Adjacent literals are one string.
    fn strings(&mut self) -> Parsed {
        let start = self.span().start;
        let mut end = start;
        let mut pieces: Vec<Piece> = Vec::new();
        loop {
            match self.peek().clone() {
                Tok::Str(text) => push_text(&mut pieces, text),
                Tok::FString { body, at, raw } => {
                    for piece in fstring(&body, at, raw, self.level)? {
                        match piece {
                            Piece::Text(text) => push_text(&mut pieces, text),
                            value => pieces.push(value),
                        }
                    }
                }
                _ => break,
            }
            end = self.span().end.max(end);
            self.advance();
        }
        let span = Span::new(start, end);
        match pieces.as_slice() {
            [] => self.leaf(span, AstKind::Str(String::new())),
            [Piece::Text(text)] => self.leaf(span, AstKind::Str(text.clone())),
            _ => {
                let values: Vec<&Ast> = pieces
                    .iter()
                    .filter_map(|piece| match piece {
                        Piece::Value { value, .. } => Some(value),
                        Piece::Text(_) => None,
                    })
                    .collect();
                self.over(&values, span, AstKind::FString(pieces.clone()))
            }
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: String) {
    if let Some(Piece::Text(before)) = pieces.last_mut() {
        before.push_str(&text);
    } else if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// The pieces of an f-string's body, which begins at byte `at` of the expression.
fn fstring(body: &str, at: usize, raw: bool, level: usize) -> Result<Vec<Piece>, ExprError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut here = 0;
    let failed =
        |from: usize, to: usize, message: &str| ExprError::new(Span::new(at + from, at + to), message);
    while let Some(c) = body[here..].chars().next() {
        let rest = &body[here..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            text.push(c);
            here += 2;
        } else if c == '}' {
            return Err(failed(here, here + 1, "a single `}` in an f-string: write `}}`"));
        } else if c == '{' {
            push_text(&mut pieces, unescaped(&text, raw, at)?);
            text.clear();
            let (end, colon) = field_end(rest).ok_or_else(|| failed(here, body.len(), "`}` is missing"))?;
            pieces.push(field(rest, colon, end, at + here, level + 1)?);
            here += end + 1;
        } else {
            text.push(c);
            here += c.len_utf8();
            if c == '\\'
                && let Some(next) = body[here..].chars().next()
            {
                text.push(next);
                here += next.len_utf8();
            }
        }
    }
    push_text(&mut pieces, unescaped(&text, raw, at)?);
    Ok(pieces)
}

fn unescaped(text: &str, raw: bool, at: usize) -> Result<String, ExprError> {
    if raw {
        return Ok(text.to_owned());
    }
    unescape(text).map_err(|message| ExprError::new(Span::new(at, at + 1), message))
}

/// Where a replacement field `{…}` closes, and where its format begins.
fn field_end(text: &str) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut colon = None;
    for (at, c) in text.char_indices().skip(1) {
        match (quote, c) {
            (Some(open), c) if c == open && colon.is_none() => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') if colon.is_none() => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, '}') if depth == 0 => return Some((at, colon.unwrap_or(at))),
            (None, ')' | ']' | '}') => depth = depth.checked_sub(1)?,
            (None, ':') if depth == 0 && colon.is_none() => colon = Some(at),
            _ => {}
        }
    }
    None
}

fn field(text: &str, colon: usize, end: usize, at: usize, level: usize) -> Result<Piece, ExprError> {
    let source = &text[1..colon];
    let span = Span::new(at + 1, at + colon);
    let trimmed = source.trim_end();
    let conversion = ["!r", "!s", "!a"].iter().any(|suffix| trimmed.ends_with(suffix));
    if conversion || trimmed.ends_with('=') {
        return Err(ExprError::new(span, "`!r`, `!s` and `=` in f-strings are not supported"));
    }
    if source.trim().is_empty() {
        return Err(ExprError::new(span, "an empty `{}` in an f-string"));
    }
    let value = parse_at(source, at + 1, level)?;
    let format = (colon < end).then(|| text[colon + 1..end].to_owned()).filter(|format| !format.is_empty());
    if format.as_deref().is_some_and(|format| format.contains(['{', '}'])) {
        return Err(ExprError::new(span, "nested fields in a format are not supported"));
    }
    Ok(Piece::Value { value, format })
}
