//! Keys: canonical bytes, the pinned hash, key groups.
//!
//! Owns: version 1 of the canonical bytes and of the hash. State files and the division of work
//! among threads and workers rest on both: neither may change without a new version.
//! Must not know: tables, exchange.
//! Invariant: two keys have the same bytes exactly when Python holds them equal: `1`, `1.0` and
//! `True` are one key; so are `0.0` and `-0.0`, and here also `NaN` and `NaN`; null equals null.
//! A key comes out of a grouping as its canonical bytes say, so in a column of type `Any` the
//! number `1.0` and `True` come out as `1`.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use pharos_beam::schema::{Type, Value};

use crate::codec::{CodecError, Reader, put_len};
use crate::column::{build, value_at};

/// The version of the canonical bytes and of the hash, kept in every checkpoint.
pub(crate) const KEY_VERSION: u32 = 1;

const NULL: u8 = 0;
const NUMBER: u8 = 1;
const FRACTION: u8 = 2;
const TEXT: u8 = 3;
const BYTES: u8 = 4;
const TIME: u8 = 5;
const LIST: u8 = 6;
const MAP: u8 = 7;

/// The hash of a key's canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(pub u64);

/// One of the groups that keys are divided into: the unit in which state moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyGroup(pub u16);

impl KeyHash {
    /// The hash of `key`: eight bytes at a time, little endian, the last ones filled with zeros; the
    /// length goes in first; the rounds are those of Murmur3's 64-bit finaliser.
    #[must_use]
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut hash = 0x9E37_79B9_7F4A_7C15_u64 ^ (key.len() as u64).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        for chunk in key.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash ^ u64::from_le_bytes(word));
        }
        Self(mix(hash))
    }

    /// The key group: the top ten bits, for 1024 groups.
    #[must_use]
    pub(crate) fn group(self) -> KeyGroup {
        KeyGroup((self.0 >> 54) as u16)
    }
}

fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    word ^= word >> 33;
    word = word.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    word ^ (word >> 33)
}

impl KeyGroup {
    /// The number of groups.
    pub(crate) const COUNT: u32 = pharos_beam::plan::KEY_GROUPS;

    /// Its number.
    #[must_use]
    pub(crate) const fn number(self) -> u32 {
        self.0 as u32
    }

    /// The groups of the owners `who` of `owners`, who stand side by side.
    #[must_use]
    pub(crate) fn of_owners(who: &Range<usize>, owners: usize) -> Range<u32> {
        let first = |owner: usize| (owner * Self::COUNT as usize).div_ceil(owners) as u32;
        first(who.start)..first(who.end)
    }

    /// The hashes of keys in groups from `group` on begin here; none: there is no such group.
    #[must_use]
    pub(crate) fn first_hash(group: u32) -> Option<KeyHash> {
        (group < Self::COUNT).then(|| KeyHash(u64::from(group) << 54))
    }

    /// Which of `owners` has this group: each owns a contiguous range.
    #[must_use]
    pub(crate) fn owner(self, owners: usize) -> usize {
        usize::from(self.0) * owners / Self::COUNT as usize
    }
}

/// The keys of a batch: their bytes end to end, and their hashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    hashes: Vec<KeyHash>,
}

impl Keys {
    /// The canonical bytes of row `row`.
    #[must_use]
    pub(crate) fn bytes(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..self.ends[row] as usize]
    }

    /// The hash of row `row`.
    #[must_use]
    pub(crate) fn hash(&self, row: usize) -> KeyHash {
        self.hashes[row]
    }

    /// How many rows.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes all keys have together.
    #[must_use]
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes they take, roughly.
    #[must_use]
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 4 + self.hashes.capacity() * 8
    }

    /// Adds a key by its canonical bytes.
    pub(crate) fn push(&mut self, key: &[u8], hash: KeyHash) {
        self.bytes.extend_from_slice(key);
        self.ends.push(u32::try_from(self.bytes.len()).expect("the keys of a batch are smaller than 4 GiB"));
        self.hashes.push(hash);
    }

    /// Appends the keys.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_len(out, self.len());
        self.ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        self.hashes.iter().for_each(|hash| out.extend_from_slice(&hash.0.to_le_bytes()));
        out.extend_from_slice(&self.bytes);
    }

    /// Reads what `put` wrote.
    ///
    /// # Errors
    /// If the bytes are no keys.
    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let len = input.u32()? as usize;
        let words = |bytes| -> Result<usize, CodecError> {
            len.checked_mul(bytes).ok_or_else(|| input.error("a length that fits"))
        };
        let (ends, hashes) = (words(4)?, words(8)?);
        let ends: Vec<u32> = le_words(input.take(ends)?).map(u32::from_le_bytes).collect();
        let hashes = le_words(input.take(hashes)?).map(|word| KeyHash(u64::from_le_bytes(word))).collect();
        if !ends.is_sorted() {
            return Err(input.error("ends of keys that rise"));
        }
        let bytes = input.take(ends.last().map_or(0, |last| *last as usize))?.to_vec();
        Ok(Self { bytes, ends, hashes })
    }

    /// The keys at the positions `rows`.
    #[must_use]
    pub(crate) fn take(&self, rows: &[u32]) -> Self {
        let mut taken = Self::default();
        rows.iter().map(|row| *row as usize).for_each(|row| taken.push(self.bytes(row), self.hash(row)));
        taken
    }

    /// The keys of `rows` rows whose key fields are `columns`, of the types `types`.
    #[must_use]
    pub(crate) fn of(types: &[&Type], columns: &[&dyn Array], rows: usize) -> Self {
        let mut keys =
            Self { ends: Vec::with_capacity(rows), hashes: Vec::with_capacity(rows), ..Self::default() };
        for row in 0..rows {
            let start = keys.bytes.len();
            for (ty, column) in types.iter().zip(columns) {
                append_cell(ty, *column, row, &mut keys.bytes);
            }
            let hash = KeyHash::of(&keys.bytes[start..]);
            keys.hashes.push(hash);
            keys.ends
                .push(u32::try_from(keys.bytes.len()).expect("the keys of a batch are smaller than 4 GiB"));
        }
        keys
    }
}

fn le_words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("a chunk has its size"))
}

fn append_cell(ty: &Type, column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) {
        out.push(NULL);
        return;
    }
    match ty.non_null() {
        Type::String => sized(TEXT, column.as_string::<i32>().value(row).as_bytes(), out),
        Type::Int64 => number(column.as_primitive::<Int64Type>().value(row), out),
        Type::Boolean => number(i64::from(column.as_boolean().value(row)), out),
        Type::Float64 => float(column.as_primitive::<Float64Type>().value(row), out),
        Type::Bytes => sized(BYTES, column.as_binary::<i32>().value(row), out),
        ty => append_value(&value_at(ty, column, row), out),
    }
}

fn append_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Boolean(value) => number(i64::from(*value), out),
        Value::Int64(value) => number(*value, out),
        Value::Float64(value) => float(*value, out),
        Value::String(text) => sized(TEXT, text.as_bytes(), out),
        Value::Bytes(bytes) => sized(BYTES, bytes, out),
        Value::Timestamp(time) => {
            out.push(TIME);
            out.extend_from_slice(&time.0.to_le_bytes());
        }
        Value::Array(items) | Value::Row(items) => {
            out.push(LIST);
            out.extend_from_slice(&count(items.len()));
            items.iter().for_each(|item| append_value(item, out));
        }
        Value::Map(entries) => {
            out.push(MAP);
            out.extend_from_slice(&count(entries.len()));
            // Maps are equal whatever the order of their entries.
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            for (key, value) in entries {
                sized(TEXT, key.as_bytes(), out);
                append_value(value, out);
            }
        }
    }
}

fn count(of: usize) -> [u8; 4] {
    u32::try_from(of).expect("a value is smaller than 4 GiB").to_le_bytes()
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&count(bytes.len()));
    out.extend_from_slice(bytes);
}

fn number(value: i64, out: &mut Vec<u8>) {
    out.push(NUMBER);
    out.extend_from_slice(&value.to_le_bytes());
}

fn float(value: f64, out: &mut Vec<u8>) {
    // 2^63 itself does not fit in an i64; -2^63 does.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    if fits && value.fract() == 0.0 {
        return number(value as i64, out);
    }
    out.push(FRACTION);
    let canonical = if value.is_nan() { f64::NAN } else { value };
    out.extend_from_slice(&canonical.to_bits().to_le_bytes());
}

/// The columns of the key fields, of the types `types`, from canonical bytes of this version.
#[must_use]
pub(crate) fn key_columns<'k>(types: &[Type], keys: impl Iterator<Item = &'k [u8]>) -> Vec<ArrayRef> {
    let mut columns: Vec<KeyColumn<'_>> = types.iter().map(KeyColumn::new).collect();
    for mut rest in keys {
        columns.iter_mut().for_each(|column| column.take(&mut rest));
    }
    columns.into_iter().map(KeyColumn::finish).collect()
}

/// A key field's column in the making.
enum KeyColumn<'t> {
    Ints(Int64Builder),
    Texts(StringBuilder),
    Values(&'t Type, Vec<Value>),
}

impl<'t> KeyColumn<'t> {
    fn new(ty: &'t Type) -> Self {
        match ty.non_null() {
            Type::Int64 => Self::Ints(Int64Builder::new()),
            Type::String => Self::Texts(StringBuilder::new()),
            _ => Self::Values(ty, Vec::new()),
        }
    }

    /// Takes the next value off the front of a key's bytes.
    fn take(&mut self, rest: &mut &[u8]) {
        match self {
            Self::Texts(texts) if rest.first() == Some(&TEXT) => {
                *rest = &rest[1..];
                texts.append_value(String::from_utf8_lossy(read_sized(rest)));
            }
            Self::Texts(texts) => {
                read_value(rest);
                texts.append_null();
            }
            Self::Ints(ints) => ints.append_option(match read_value(rest) {
                Value::Int64(value) => Some(value),
                _ => None,
            }),
            Self::Values(ty, values) => values.push(as_type(read_value(rest), ty.non_null())),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Ints(mut ints) => Arc::new(ints.finish()),
            Self::Texts(mut texts) => Arc::new(texts.finish()),
            Self::Values(ty, values) => build(ty, &values.iter().collect::<Vec<_>>()),
        }
    }
}

fn as_type(value: Value, ty: &Type) -> Value {
    match (value, ty) {
        (Value::Int64(value), Type::Float64) => Value::Float64(value as f64),
        (Value::Int64(value), Type::Boolean) => Value::Boolean(value != 0),
        (Value::Array(items), Type::Row(schema)) => {
            let cell =
                |(item, field): (Value, &pharos_beam::schema::Field)| as_type(item, field.ty.non_null());
            Value::Row(items.into_iter().zip(&schema.fields).map(cell).collect())
        }
        (Value::Array(items), Type::Array(item)) => {
            Value::Array(items.into_iter().map(|value| as_type(value, item.non_null())).collect())
        }
        (Value::Map(entries), Type::Map(item)) => Value::Map(
            entries.into_iter().map(|(key, value)| (key, as_type(value, item.non_null()))).collect(),
        ),
        (value, _) => value,
    }
}

fn read_array<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_at(N);
    *rest = left;
    taken.try_into().expect("split at this length")
}

fn read_sized<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = u32::from_le_bytes(read_array(rest)) as usize;
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn read_value(rest: &mut &[u8]) -> Value {
    let [tag] = read_array(rest);
    match tag {
        NUMBER => Value::Int64(i64::from_le_bytes(read_array(rest))),
        FRACTION => Value::Float64(f64::from_bits(u64::from_le_bytes(read_array(rest)))),
        TIME => Value::Timestamp(pharos_beam::schema::Micros(i64::from_le_bytes(read_array(rest)))),
        TEXT => Value::String(String::from_utf8_lossy(read_sized(rest)).into_owned()),
        BYTES => Value::Bytes(read_sized(rest).to_vec()),
        LIST => {
            let count = u32::from_le_bytes(read_array(rest));
            Value::Array((0..count).map(|_| read_value(rest)).collect())
        }
        MAP => {
            let count = u32::from_le_bytes(read_array(rest));
            let entry = |_| {
                let [_tag] = read_array(rest);
                let key = String::from_utf8_lossy(read_sized(rest)).into_owned();
                (key, read_value(rest))
            };
            Value::Map((0..count).map(entry).collect())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::layout;

    fn key(ty: &Type, value: &Value) -> Vec<u8> {
        Keys::of(&[ty], &[&build(ty, &[value])], 1).bytes(0).to_vec()
    }

    #[test]
    fn the_hash_is_pinned() {
        // State files of version 1 rest on these numbers.
        assert_eq!(KeyHash::of(b"").0, PINNED[0]);
        assert_eq!(KeyHash::of(b"SEA").0, PINNED[1]);
        assert_eq!(KeyHash::of(b"twelve bytes").0, PINNED[2]);
    }

    const PINNED: [u64; 3] = [11_286_133_854_226_296_554, 226_526_455_923_240_254, 6_028_964_267_843_227_956];

    #[test]
    fn the_groups_of_owners_are_those_that_they_own() {
        for owners in [1, 2, 3, 7, 256, 1024] {
            for who in [0..1, 0..owners, owners / 2..owners / 2 + 1, owners - 1..owners] {
                let groups = KeyGroup::of_owners(&who, owners);
                for group in 0..KeyGroup::COUNT {
                    let owner = KeyGroup(group as u16).owner(owners);
                    assert_eq!(groups.contains(&group), who.contains(&owner), "{group} of {who:?}, {owners}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_python_holds_equal_are_one_key() {
        let one = key(&Type::Int64, &Value::Int64(1));
        assert_eq!(key(&Type::Float64, &Value::Float64(1.0)), one);
        assert_eq!(key(&Type::Boolean, &Value::Boolean(true)), one);
        assert_eq!(key(&Type::Any, &Value::Float64(1.0)), one);
        assert_eq!(key(&Type::Float64, &Value::Float64(-0.0)), key(&Type::Int64, &Value::Int64(0)));
        assert_eq!(
            key(&Type::Float64, &Value::Float64(f64::NAN)),
            key(&Type::Float64, &Value::Float64(-f64::NAN))
        );
        assert_ne!(key(&Type::Any, &Value::String("1".to_owned())), one);
    }

    #[test]
    fn keys_come_back_from_their_bytes_in_the_type_of_their_field() {
        for (ty, value) in [
            (Type::Float64, Value::Float64(3.0)),
            (Type::Float64, Value::Float64(0.25)),
            (Type::Boolean, Value::Boolean(true)),
            (Type::Int64, Value::Int64(-3)),
            (Type::Int64.nullable(), Value::Null),
            (Type::String.nullable(), Value::String("ä".to_owned())),
            (Type::String.nullable(), Value::Null),
            (Type::Array(Box::new(Type::Int64)), Value::Array(vec![Value::Int64(3)])),
        ] {
            let columns = key_columns(std::slice::from_ref(&ty), [&key(&ty, &value)[..]].into_iter());
            assert_eq!(columns[0].data_type(), &layout(&ty));
            assert_eq!(value_at(&ty, &columns[0], 0), value);
        }
    }

    #[test]
    fn key_groups_are_spread_over_contiguous_ranges() {
        let owners: Vec<usize> = (0..1024).map(|group| KeyGroup(group).owner(3)).collect();
        assert!(owners.is_sorted());
        assert_eq!((owners[0], owners[1023]), (0, 2));
        let spread: std::collections::BTreeSet<_> =
            (0..2000u32).map(|key| KeyHash::of(&key.to_le_bytes()).group()).collect();
        assert!(spread.len() > 700, "2000 keys fill {} of 1024 groups", spread.len());
    }
}
