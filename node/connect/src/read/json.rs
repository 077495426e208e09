//! One JSON object to a row.
//!
//! Owns: the JSON grammar (RFC 8259), and how JSON values become values of each type.
//! Must not know: files, lines.
//! Invariant: a row is taken whole or not at all. A field the schema does not have is skipped (its
//! value must still be JSON); of a field given twice the last counts; a missing field is null.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, new_null_array};
use arrow_schema::DataType;
use pharos_beam::schema::{Schema, Type, Value};
use pharos_stream::column::{build, encode_any};

/// How deep values may nest.
const MAX_DEPTH: u32 = 100;

enum Column {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Any(BinaryBuilder),
    Nested(Vec<Value>),
    /// Nobody looks at it: how many rows there are.
    Unwanted(usize),
}

struct Field {
    name: String,
    ty: Type,
    column: Column,
}

enum Cell<'a> {
    Missing,
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Value(Value),
}

/// Rows being gathered into columns.
pub(crate) struct JsonRows {
    fields: Vec<Field>,
}

impl JsonRows {
    /// No rows yet. Of the fields that are not `wanted` no column is made.
    #[must_use]
    pub(crate) fn new(schema: &Schema, wanted: &[bool]) -> Self {
        let field = |(field, wanted): (&pharos_beam::schema::Field, &bool)| Field {
            name: field.name.clone(),
            ty: field.ty.clone(),
            column: match field.ty.non_null() {
                _ if !wanted => Column::Unwanted(0),
                Type::Boolean => Column::Bool(BooleanBuilder::new()),
                Type::Int64 => Column::Int(Int64Builder::new()),
                Type::Float64 => Column::Float(Float64Builder::new()),
                Type::String => Column::Text(StringBuilder::new()),
                Type::Any => Column::Any(BinaryBuilder::new()),
                _ => Column::Nested(Vec::new()),
            },
        };
        Self { fields: schema.fields.iter().zip(wanted).map(field).collect() }
    }

    /// Adds the row that `line` holds.
    ///
    /// # Errors
    /// If it is no JSON object, or a value is not of its field's type; says where.
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|error| format!("the line is not utf-8: {error}"))?;
        let mut parser = Parser { text, at: 0 };
        let cells = self.cells(&mut parser).map_err(|what| format!("column {}: {what}", parser.column()))?;
        for (field, cell) in self.fields.iter().zip(&cells) {
            if matches!(cell, Cell::Missing | Cell::Null) && !field.ty.admits_null() {
                let what = if matches!(cell, Cell::Null) { "is null" } else { "is missing" };
                return Err(format!("field `{}` {what}", field.name));
            }
        }
        self.fields.iter_mut().zip(cells).for_each(|(field, cell)| field.append(cell));
        Ok(())
    }

    fn cells<'a>(&self, parser: &mut Parser<'a>) -> Result<Vec<Cell<'a>>, String> {
        let mut cells: Vec<Cell<'a>> = self.fields.iter().map(|_| Cell::Missing).collect();
        // Most files give the fields of every row in one order, that of the schema.
        let mut expected = 0;
        parser.expect(b'{', "an object")?;
        if !parser.accept(b'}') {
            loop {
                let name = parser.string("a field name")?;
                parser.expect(b':', "`:`")?;
                let position = if self.fields.get(expected).is_some_and(|field| field.name == name) {
                    Some(expected)
                } else {
                    self.fields.iter().position(|field| field.name == name)
                };
                match position {
                    Some(position) => {
                        cells[position] = parser.cell(&self.fields[position])?;
                        expected = position + 1;
                    }
                    None => parser.skip(0)?,
                }
                if !parser.accept(b',') {
                    parser.expect(b'}', "`,` or `}`")?;
                    break;
                }
            }
        }
        parser.end()?;
        Ok(cells)
    }

    /// The rows so far, one array for each field.
    pub(crate) fn finish(&mut self) -> Vec<ArrayRef> {
        self.fields.iter_mut().map(Field::finish).collect()
    }
}

impl Field {
    fn append(&mut self, cell: Cell<'_>) {
        match (&mut self.column, cell) {
            (Column::Bool(column), Cell::Bool(value)) => column.append_value(value),
            (Column::Bool(column), _) => column.append_null(),
            (Column::Int(column), Cell::Int(value)) => column.append_value(value),
            (Column::Int(column), _) => column.append_null(),
            (Column::Float(column), Cell::Float(value)) => column.append_value(value),
            (Column::Float(column), _) => column.append_null(),
            (Column::Text(column), Cell::Text(value)) => column.append_value(value),
            (Column::Text(column), _) => column.append_null(),
            (Column::Any(column), Cell::Value(value)) => column.append_value(encode_any(&value)),
            (Column::Any(column), _) => column.append_null(),
            (Column::Nested(values), Cell::Value(value)) => values.push(value),
            (Column::Nested(values), _) => values.push(Value::Null),
            (Column::Unwanted(rows), _) => *rows += 1,
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.column {
            Column::Bool(column) => Arc::new(column.finish()),
            Column::Int(column) => Arc::new(column.finish()),
            Column::Float(column) => Arc::new(column.finish()),
            Column::Text(column) => Arc::new(column.finish()),
            Column::Any(column) => Arc::new(column.finish()),
            Column::Nested(values) => {
                let values = std::mem::take(values);
                build(&self.ty, &values.iter().collect::<Vec<_>>())
            }
            Column::Unwanted(rows) => new_null_array(&DataType::Null, std::mem::take(rows)),
        }
    }
}

/// Reads a JSON text as a value without a type of its own.
///
/// # Errors
/// If it is no JSON; says where.
pub(crate) fn parse(line: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("the line is not utf-8: {error}"))?;
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0).and_then(|value| parser.end().map(|()| value));
    value.map_err(|what| format!("column {}: {what}", parser.column()))
}

/// A value as one of type `ty`.
fn convert(value: Value, ty: &Type) -> Result<Value, String> {
    Ok(match (value, ty.non_null()) {
        (Value::Null, inner) if ty.admits_null() || *inner == Type::Any => Value::Null,
        (value, Type::Any) => value,
        (value @ Value::Boolean(_), Type::Boolean)
        | (value @ Value::Int64(_), Type::Int64)
        | (value @ Value::Float64(_), Type::Float64)
        | (value @ Value::String(_), Type::String) => value,
        (Value::Int64(value), Type::Float64) => Value::Float64(value as f64),
        (Value::Array(items), Type::Array(item)) => {
            Value::Array(items.into_iter().map(|value| convert(value, item)).collect::<Result<_, _>>()?)
        }
        (Value::Map(entries), Type::Map(item)) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Ok((key, convert(value, item)?)))
                .collect::<Result<_, String>>()?,
        ),
        (Value::Map(entries), Type::Row(schema)) => {
            let mut cells = vec![Value::Null; schema.fields.len()];
            for (key, value) in entries {
                if let Some(position) = schema.index_of(&key) {
                    cells[position] = convert(value, &schema.fields[position].ty)?;
                }
            }
            let missing = schema
                .fields
                .iter()
                .zip(&cells)
                .find(|(field, cell)| **cell == Value::Null && !field.ty.admits_null());
            if let Some((field, _)) = missing {
                return Err(format!("field `{}` is missing", field.name));
            }
            Value::Row(cells)
        }
        (value, ty) => return Err(format!("expected {ty}, found {}", kind(&value))),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "a boolean",
        Value::Int64(_) => "an integer",
        Value::Float64(_) => "a number",
        Value::Array(_) => "an array",
        Value::Map(_) => "an object",
        _ => "a string",
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn column(&self) -> usize {
        // An error may stand inside a character: the bytes that begin one are counted.
        let before = &self.text.as_bytes()[..self.at.min(self.text.len())];
        before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1
    }

    fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), String> {
        if self.accept(byte) { Ok(()) } else { Err(format!("expected {what}")) }
    }

    fn end(&mut self) -> Result<(), String> {
        if self.peek().is_none() { Ok(()) } else { Err("expected the end of the line".to_owned()) }
    }

    fn cell(&mut self, field: &Field) -> Result<Cell<'a>, String> {
        let ty = &field.ty;
        let wrong =
            |found: &str| format!("field `{}`: expected {}, found {found}", field.name, ty.non_null());
        let first = self.peek().ok_or_else(|| "expected a value".to_owned())?;
        if first == b'n' {
            self.word("null")?;
            return Ok(Cell::Null);
        }
        match (ty.non_null(), first) {
            (Type::String, b'"') => self.string("a string").map(Cell::Text),
            (Type::Int64, b'-' | b'0'..=b'9') => match self.number()? {
                Value::Int64(value) => Ok(Cell::Int(value)),
                _ => Err(wrong("a number that is no 64-bit integer")),
            },
            (Type::Float64, b'-' | b'0'..=b'9') => match self.number()? {
                Value::Int64(value) => Ok(Cell::Float(value as f64)),
                Value::Float64(value) => Ok(Cell::Float(value)),
                _ => Err(wrong("no number")),
            },
            (Type::Boolean, b't') => self.word("true").map(|()| Cell::Bool(true)),
            (Type::Boolean, b'f') => self.word("false").map(|()| Cell::Bool(false)),
            (Type::String | Type::Int64 | Type::Float64 | Type::Boolean, _) => {
                let value = self.value(0)?;
                Err(wrong(kind(&value)))
            }
            _ => {
                let value = self.value(0)?;
                convert(value, ty).map(Cell::Value).map_err(|what| format!("field `{}`: {what}", field.name))
            }
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err("expected a value".to_owned())
    }

    fn number(&mut self) -> Result<Value, String> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |at: &mut usize| {
            let from = *at;
            while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            *at - from
        };
        let mut at = self.at + usize::from(bytes.get(self.at) == Some(&b'-'));
        let whole = at;
        let mut valid = digits(&mut at) > 0 && (bytes[whole] != b'0' || at == whole + 1);
        let mut integer = true;
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            integer = false;
            valid &= digits(&mut at) > 0;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            integer = false;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            valid &= digits(&mut at) > 0;
        }
        if !valid {
            return Err("a malformed number".to_owned());
        }
        self.at = at;
        let text = &self.text[start..at];
        match (integer, text.parse::<i64>()) {
            (true, Ok(value)) => Ok(Value::Int64(value)),
            // An integer beyond 64 bits is a number still.
            _ => text.parse().map(Value::Float64).map_err(|_| "a malformed number".to_owned()),
        }
    }

    fn string(&mut self, what: &str) -> Result<Cow<'a, str>, String> {
        self.expect(b'"', what)?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
                }
                Some(b'\\') => return self.escaped(start).map(Cow::Owned),
                Some(0..=0x1f) => return Err("a control character in a string".to_owned()),
                Some(_) => self.at += 1,
                None => return Err("the string does not end".to_owned()),
            }
        }
    }

    /// The rest of a string from its first escape.
    fn escaped(&mut self, start: usize) -> Result<String, String> {
        let bytes = self.text.as_bytes();
        let mut out = self.text[start..self.at].to_owned();
        let mut plain = self.at;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    out.push(self.escape()?);
                    plain = self.at;
                }
                Some(0..=0x1f) => return Err("a control character in a string".to_owned()),
                Some(_) => self.at += 1,
                None => return Err("the string does not end".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let byte = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err("an unknown escape".to_owned()),
        })
    }

    fn unicode(&mut self) -> Result<char, String> {
        let high = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.hex()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err("half of a surrogate pair".to_owned());
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| "half of a surrogate pair".to_owned())
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits =
            self.text.get(self.at..self.at + 4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or_else(|| "an escape needs four hexadecimal digits".to_owned())
    }

    fn value(&mut self, depth: u32) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        match self.peek() {
            Some(b'"') => self.string("a string").map(|text| Value::String(text.into_owned())),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true").map(|()| Value::Boolean(true)),
            Some(b'f') => self.word("false").map(|()| Value::Boolean(false)),
            Some(b'n') => self.word("null").map(|()| Value::Null),
            Some(b'[') => self.array(depth),
            Some(b'{') => self.object(depth),
            _ => Err("expected a value".to_owned()),
        }
    }

    fn array(&mut self, depth: u32) -> Result<Value, String> {
        self.expect(b'[', "`[`")?;
        let mut items = Vec::new();
        if !self.accept(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                if !self.accept(b',') {
                    self.expect(b']', "`,` or `]`")?;
                    break;
                }
            }
        }
        Ok(Value::Array(items))
    }

    fn object(&mut self, depth: u32) -> Result<Value, String> {
        self.expect(b'{', "`{`")?;
        let mut entries: Vec<(String, Value)> = Vec::new();
        if !self.accept(b'}') {
            loop {
                let name = self.string("a field name")?.into_owned();
                self.expect(b':', "`:`")?;
                let value = self.value(depth + 1)?;
                match entries.iter_mut().find(|(known, _)| *known == name) {
                    Some(known) => known.1 = value,
                    None => entries.push((name, value)),
                }
                if !self.accept(b',') {
                    self.expect(b'}', "`,` or `}`")?;
                    break;
                }
            }
        }
        Ok(Value::Map(entries))
    }

    fn skip(&mut self, depth: u32) -> Result<(), String> {
        self.value(depth).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array as _;
    use pharos_stream::json;

    fn all_of(schema: &Schema) -> JsonRows {
        JsonRows::new(schema, &vec![true; schema.fields.len()])
    }

    #[test]
    fn of_a_field_that_nobody_looks_at_there_is_no_column_and_it_must_still_be_right() {
        let schema = Schema::new([("a", Type::Int64), ("b", Type::String)]);
        let mut rows = JsonRows::new(&schema, &[true, false]);
        rows.push(br#"{"a": 1, "b": "x"}"#).unwrap();
        let error = rows.push(br#"{"a": 1, "b": 2}"#).unwrap_err();
        assert!(error.ends_with("field `b`: expected string, found an integer"), "{error}");
        assert_eq!(rows.push(br#"{"a": 1}"#).unwrap_err(), "field `b` is missing");
        rows.push(br#"{"a": 3, "b": "y"}"#).unwrap();
        let columns = rows.finish();
        assert_eq!((columns[0].len(), columns[1].len()), (2, 2));
        assert_eq!(columns[1].data_type(), &DataType::Null);
        assert_eq!(rows.finish()[1].len(), 0);
    }

    fn rows(schema: &Schema, lines: &[&str]) -> Vec<Result<String, String>> {
        lines
            .iter()
            .map(|line| {
                let mut rows = all_of(schema);
                rows.push(line.as_bytes()).map(|()| json::row(schema, &rows.finish(), 0))
            })
            .collect()
    }

    #[test]
    fn rows_are_taken_by_field_name_and_type() {
        let schema = Schema::new([
            ("i", Type::Int64),
            ("f", Type::Float64.nullable()),
            ("s", Type::String.nullable()),
            ("a", Type::Any),
        ]);
        let got = rows(
            &schema,
            &[
                r#"{"i": 1, "f": 2, "s": "x\u00e4\n", "a": [1, {"k": null}]}"#,
                r#" {"a":true,"other":{"deep":[1]},"i":-3} "#,
            ],
        );
        assert_eq!(got[0], Ok(r#"{"i":1,"f":2.0,"s":"xä\n","a":[1,{"k":null}]}"#.to_owned()));
        assert_eq!(got[1], Ok(r#"{"i":-3,"f":null,"s":null,"a":true}"#.to_owned()));
    }

    #[test]
    fn what_is_no_row_is_told_with_its_column() {
        let schema = Schema::new([("i", Type::Int64)]);
        for (line, error) in [
            (r#"{"i": "x"}"#, "column 10: field `i`: expected integer, found a string"),
            (
                r#"{"i": 1.5}"#,
                "column 10: field `i`: expected integer, found a number that is no 64-bit integer",
            ),
            (r#"{"i": 1"#, "column 8: expected `,` or `}`"),
            (r#"{"i": 01}"#, "column 7: a malformed number"),
            ("[1]", "column 1: expected an object"),
            ("{}", "field `i` is missing"),
            (r#"{"i": null}"#, "field `i` is null"),
            (r#"{"i": 1} x"#, "column 10: expected the end of the line"),
        ] {
            assert_eq!(rows(&schema, &[line]), [Err(error.to_owned())], "{line}");
        }
    }

    #[test]
    fn a_row_that_fails_leaves_nothing_behind() {
        let schema = Schema::new([("i", Type::Int64), ("s", Type::String)]);
        let mut rows = all_of(&schema);
        rows.push(br#"{"i": 1, "s": 2}"#).unwrap_err();
        rows.push(br#"{"i": 2, "s": "b"}"#).unwrap();
        assert_eq!(json::row(&schema, &rows.finish(), 0), r#"{"i":2,"s":"b"}"#);
    }

    #[test]
    fn an_error_inside_a_character_has_a_column() {
        for line in [r#"{"a": "\é"}"#, r#"{"a": "\u00é"}"#, r#"{"a": "\u000é"}"#] {
            let error = all_of(&Schema::new([("a", Type::String)])).push(line.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("column"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_is_json_or_refused_but_never_a_panic(line in "[\\[\\]{}\",:0-9a-zé.\\\\ -]{0,40}") {
            let _ = parse(line.as_bytes());
            let _ = all_of(&Schema::new([("a", Type::Int64)])).push(line.as_bytes());
        }
    }
}
