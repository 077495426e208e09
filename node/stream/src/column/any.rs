//! Values that carry their type with them, as tagged bytes.
//!
//! Owns: the encoding of `Any`, version 1: a tag byte, then the payload, little endian; lengths and
//! counts are u32. Null has a tag of its own inside lists and maps; a null cell is Arrow's null.
//! Must not know: columns.
//! Invariant: `decode(encode(v)) == v`; bytes that are not such an encoding are refused by offset.

use pharos_beam::schema::{Micros, Value};

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

    fn text(&mut self) -> Result<String, AnyError> {
        let at = self.at;
        let count = self.count()?;
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| AnyError::Text(at))
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
            TEXT => Value::String(self.text()?),
            BYTES => {
                let count = self.count()?;
                Value::Bytes(self.take(count)?.to_vec())
            }
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
            entries.push((self.text()?, self.value(depth + 1)?));
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

    proptest! {
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
