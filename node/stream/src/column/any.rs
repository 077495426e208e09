//! Values that carry their type with them, as tagged bytes.
//!
//! Owns: the encoding of `Any`, version 1: a tag byte, then the payload, little endian; lengths and
//! counts are u32. Null has a tag of its own inside lists and maps; a null cell is Arrow's null.
//! Must not know: columns.
//! Invariant: `decode(encode(v)) == v`; bytes that are not such an encoding are refused by offset.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBufferBuilder;
use pharos_beam::schema::{Micros, Schema, Type, Value};

use super::{build, rows_of, value_at};

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;
const TIME: u8 = 7;
const LIST: u8 = 8;
const MAP: u8 = 9;
const ROW: u8 = 10;

/// How deep lists and maps may nest in bytes that are read.
const MAX_DEPTH: u32 = 128;

/// Why bytes are not a tagged value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnyError {
    /// The bytes end in the middle.
    #[error("a tagged value ends early at byte {0}")]
    Short(usize),
    /// A tag that this version does not know.
    #[error("unknown tag {tag} of a tagged value at byte {at}")]
    Tag {
        /// The tag.
        tag: u8,
        /// Where it stands.
        at: usize,
    },
    /// Text that is not UTF-8.
    #[error("text of a tagged value at byte {0} is not utf-8")]
    Text(usize),
    /// Bytes after the value.
    #[error("bytes after a tagged value from byte {0}")]
    Trailing(usize),
    /// Nesting without end.
    #[error("a tagged value nests deeper than {MAX_DEPTH}")]
    Depth,
}

/// The bytes of `value`.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// Appends the bytes of `value`.
pub fn encode_into(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Boolean(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Int64(value) => fixed(out, INT, value.to_le_bytes()),
        Value::Float64(value) => fixed(out, FLOAT, value.to_bits().to_le_bytes()),
        Value::Timestamp(Micros(value)) => fixed(out, TIME, value.to_le_bytes()),
        Value::String(text) => sized(out, TEXT, text.as_bytes()),
        Value::Bytes(bytes) => sized(out, BYTES, bytes),
        Value::Array(items) => {
            fixed(out, LIST, length(items.len()));
            items.iter().for_each(|item| encode_into(item, out));
        }
        Value::Row(items) => {
            fixed(out, ROW, length(items.len()));
            items.iter().for_each(|item| encode_into(item, out));
        }
        Value::Map(entries) => {
            fixed(out, MAP, length(entries.len()));
            for (key, value) in entries {
                sized(out, TEXT, key.as_bytes());
                encode_into(value, out);
            }
        }
    }
}

/// Appends the bytes of a cell of a column of type `ty`.
pub fn encode_cell_into(ty: &Type, column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) {
        return out.push(NULL);
    }
    match ty.non_null() {
        Type::Int64 => fixed(out, INT, column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        Type::Timestamp => fixed(out, TIME, column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        Type::Float64 => {
            fixed(out, FLOAT, column.as_primitive::<Float64Type>().value(row).to_bits().to_le_bytes());
        }
        Type::String => sized(out, TEXT, column.as_string::<i32>().value(row).as_bytes()),
        Type::Bytes => sized(out, BYTES, column.as_binary::<i32>().value(row)),
        // It is such bytes.
        Type::Any => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        Type::Row(schema) => {
            fixed(out, ROW, length(schema.fields.len()));
            for (field, cells) in schema.fields.iter().zip(column.as_struct().columns()) {
                encode_cell_into(&field.ty, cells, row, out);
            }
        }
        ty => encode_into(&value_at(ty, column, row), out),
    }
}

fn fixed<const N: usize>(out: &mut Vec<u8>, tag: u8, payload: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&payload);
}

fn sized(out: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    fixed(out, tag, length(payload.len()));
    out.extend_from_slice(payload);
}

fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).expect("a value is smaller than 4 GiB").to_le_bytes()
}

/// The value that `bytes` encode, all of them.
///
/// # Errors
/// If they are not one tagged value.
pub fn decode(bytes: &[u8]) -> Result<Value, AnyError> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    if reader.at < bytes.len() { Err(AnyError::Trailing(reader.at)) } else { Ok(value) }
}

/// The column of values of type `ty`, each of which `items` has the bytes of.
///
/// # Errors
/// If they are not tagged values of that type.
pub fn decode_column<'a>(ty: &Type, items: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef, AnyError> {
    let mut cells = Cells::new(ty);
    for bytes in items {
        let mut reader = Reader { bytes, at: 0 };
        cells.push(&mut reader)?;
        if reader.at < bytes.len() {
            return Err(AnyError::Trailing(reader.at));
        }
    }
    Ok(cells.finish())
}

/// A column in the making.
enum Cells<'t> {
    Booleans(BooleanBuilder),
    Ints(Int64Builder),
    Floats(Float64Builder),
    Texts(StringBuilder),
    Bytes(BinaryBuilder),
    Rows { schema: &'t Schema, fields: Vec<Cells<'t>>, present: NullBufferBuilder },
    Others(&'t Type, Vec<Value>),
}

impl<'t> Cells<'t> {
    fn new(ty: &'t Type) -> Self {
        match ty.non_null() {
            Type::Boolean => Self::Booleans(BooleanBuilder::new()),
            Type::Int64 | Type::Timestamp => Self::Ints(Int64Builder::new()),
            Type::Float64 => Self::Floats(Float64Builder::new()),
            Type::String => Self::Texts(StringBuilder::new()),
            Type::Bytes => Self::Bytes(BinaryBuilder::new()),
            Type::Row(schema) => Self::Rows {
                schema,
                fields: schema.fields.iter().map(|field| Self::new(&field.ty)).collect(),
                present: NullBufferBuilder::new(0),
            },
            ty => Self::Others(ty, Vec::new()),
        }
    }

    fn push(&mut self, reader: &mut Reader<'_>) -> Result<(), AnyError> {
        if let Self::Others(_, values) = self {
            values.push(reader.value(0)?);
            return Ok(());
        }
        let at = reader.at;
        let [tag] = reader.array()?;
        match (self, tag) {
            (cells, NULL) => cells.push_null(),
            (Self::Booleans(cells), FALSE | TRUE) => cells.append_value(tag == TRUE),
            (Self::Ints(cells), INT | TIME) => cells.append_value(i64::from_le_bytes(reader.array()?)),
            (Self::Floats(cells), FLOAT) => {
                cells.append_value(f64::from_bits(u64::from_le_bytes(reader.array()?)));
            }
            (Self::Texts(cells), TEXT) => cells.append_value(reader.text()?),
            (Self::Bytes(cells), BYTES) => cells.append_value(reader.sized()?),
            (Self::Rows { fields, present, .. }, ROW) => {
                if reader.count()? != fields.len() {
                    return Err(AnyError::Tag { tag, at });
                }
                present.append_non_null();
                fields.iter_mut().try_for_each(|field| field.push(reader))?;
            }
            _ => return Err(AnyError::Tag { tag, at }),
        }
        Ok(())
    }

    fn push_null(&mut self) {
        match self {
            Self::Booleans(cells) => cells.append_null(),
            Self::Ints(cells) => cells.append_null(),
            Self::Floats(cells) => cells.append_null(),
            Self::Texts(cells) => cells.append_null(),
            Self::Bytes(cells) => cells.append_null(),
            Self::Rows { fields, present, .. } => {
                present.append_null();
                fields.iter_mut().for_each(Self::push_null);
            }
            Self::Others(_, values) => values.push(Value::Null),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Booleans(mut cells) => Arc::new(cells.finish()),
            Self::Ints(mut cells) => Arc::new(cells.finish()),
            Self::Floats(mut cells) => Arc::new(cells.finish()),
            Self::Texts(mut cells) => Arc::new(cells.finish()),
            Self::Bytes(mut cells) => Arc::new(cells.finish()),
            Self::Rows { schema, fields, mut present } => {
                let rows = present.len();
                let columns = fields.into_iter().map(Self::finish).collect();
                rows_of(schema, columns, rows, present.finish())
            }
            Self::Others(ty, values) => build(ty, &values.iter().collect::<Vec<_>>()),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], AnyError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let taken = &self.bytes[self.at..end.ok_or(AnyError::Short(self.at))?];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AnyError> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    fn count(&mut self) -> Result<usize, AnyError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn sized(&mut self) -> Result<&'a [u8], AnyError> {
        let count = self.count()?;
        self.take(count)
    }

    fn text(&mut self) -> Result<&'a str, AnyError> {
        let at = self.at;
        std::str::from_utf8(self.sized()?).map_err(|_| AnyError::Text(at))
    }

    fn value(&mut self, depth: u32) -> Result<Value, AnyError> {
        if depth > MAX_DEPTH {
            return Err(AnyError::Depth);
        }
        let at = self.at;
        let [tag] = self.array()?;
        Ok(match tag {
            NULL => Value::Null,
            FALSE => Value::Boolean(false),
            TRUE => Value::Boolean(true),
            INT => Value::Int64(i64::from_le_bytes(self.array()?)),
            FLOAT => Value::Float64(f64::from_bits(u64::from_le_bytes(self.array()?))),
            TIME => Value::Timestamp(Micros(i64::from_le_bytes(self.array()?))),
            TEXT => Value::String(self.text()?.to_owned()),
            BYTES => Value::Bytes(self.sized()?.to_vec()),
            LIST => Value::Array(self.values(depth)?),
            ROW => Value::Row(self.values(depth)?),
            MAP => Value::Map(self.entries(depth)?),
            tag => return Err(AnyError::Tag { tag, at }),
        })
    }

    fn values(&mut self, depth: u32) -> Result<Vec<Value>, AnyError> {
        let count = self.count()?;
        (0..count).map(|_| self.value(depth + 1)).collect()
    }

    fn entries(&mut self, depth: u32) -> Result<Vec<(String, Value)>, AnyError> {
        let count = self.count()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let at = self.at;
            let [tag] = self.array()?;
            if tag != TEXT {
                return Err(AnyError::Tag { tag, at });
            }
            entries.push((self.text()?.to_owned(), self.value(depth + 1)?));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Int64),
            (-1e9f64..1e9).prop_map(Value::Float64),
            ".{0,8}".prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
            any::<i64>().prop_map(|micros| Value::Timestamp(Micros(micros))),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-c]{0,3}", inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    /// A type, and values of it or null.
    fn typed_values() -> impl Strategy<Value = (Type, Vec<Value>)> {
        let ints = || any::<i64>().prop_map(Value::Int64);
        let texts = || ".{0,8}".prop_map(Value::String);
        let row = Schema::new([
            ("i", Type::Int64.nullable()),
            ("t", Type::String),
            ("r", Type::Row(Schema::new([("f", Type::Float64)])).nullable()),
            ("l", Type::Array(Box::new(Type::Int64))),
        ]);
        let inner = (-1e9f64..1e9).prop_map(|float| Value::Row(vec![Value::Float64(float)]));
        let list = prop::collection::vec(ints(), 0..3).prop_map(Value::Array);
        let rows =
            (prop::option::of(ints()), texts(), prop::option::of(inner), list).prop_map(|(i, t, r, l)| {
                Value::Row(vec![i.unwrap_or(Value::Null), t, r.unwrap_or(Value::Null), l])
            });
        let any_of = any_value().prop_filter("null is a null cell", |value| *value != Value::Null);
        prop_oneof![
            of(Type::Boolean, any::<bool>().prop_map(Value::Boolean)),
            of(Type::Timestamp, any::<i64>().prop_map(|micros| Value::Timestamp(Micros(micros)))),
            of(Type::Bytes, prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes)),
            of(Type::Row(row), rows),
            of(Type::Any, any_of),
        ]
    }

    fn of(ty: Type, values: impl Strategy<Value = Value>) -> impl Strategy<Value = (Type, Vec<Value>)> {
        let values = prop::option::of(values).prop_map(|value| value.unwrap_or(Value::Null));
        prop::collection::vec(values, 0..6).prop_map(move |values| (ty.clone().nullable(), values))
    }

    proptest! {
        #[test]
        fn a_column_survives_its_cells_bytes((ty, values) in typed_values()) {
            let column = build(&ty, &values.iter().collect::<Vec<_>>());
            let cells: Vec<Vec<u8>> = (0..values.len())
                .map(|row| {
                    let mut bytes = Vec::new();
                    encode_cell_into(&ty, &column, row, &mut bytes);
                    bytes
                })
                .collect();
            for (bytes, value) in cells.iter().zip(&values) {
                prop_assert_eq!(bytes, &encode(value));
            }
            let again = decode_column(&ty, cells.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(again.data_type(), column.data_type());
            for (row, value) in values.iter().enumerate() {
                prop_assert_eq!(&value_at(&ty, &again, row), value);
            }
        }

        #[test]
        fn a_value_survives_its_bytes(value in any_value()) {
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_are_a_value_or_refused_but_never_a_panic(
            bytes in prop::collection::vec(0u8..12, 0..40),
        ) {
            if let Ok(value) = decode(&bytes) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }
    }
}
