//! Arrow arrays as bytes whose type both sides know.
//!
//! Owns: version 1 of that layout: the length, the null bits if there are any, then values; what has
//! no fixed size as offsets from 0 before its values. All little endian.
//! Must not know: connections, batches.
//! Invariant: what is read is a valid array of the type asked for, or an error; never a panic.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};

use crate::codec::{CodecError, Reader, put_len};

#[cfg(target_endian = "big")]
compile_error!("the exchange copies arrays as they lie in memory, which must be little endian");

/// Appends an array of one of the types of [`crate::column::layout`].
pub(crate) fn put_array(array: &dyn Array, out: &mut Vec<u8>) {
    put_len(out, array.len());
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => out.push(0),
        Some(nulls) => {
            out.push(1);
            put_bits(nulls.inner(), out);
        }
    }
    match array.data_type() {
        DataType::Boolean => put_bits(array.as_boolean().values(), out),
        DataType::Int64 => {
            out.extend_from_slice(array.as_primitive::<Int64Type>().values().inner().as_slice());
        }
        DataType::Float64 => {
            out.extend_from_slice(array.as_primitive::<Float64Type>().values().inner().as_slice());
        }
        DataType::Utf8 => {
            let strings = array.as_string::<i32>();
            let (first, last) = put_offsets(strings.value_offsets(), out);
            out.extend_from_slice(&strings.value_data()[first..last]);
        }
        DataType::Binary => {
            let strings = array.as_binary::<i32>();
            let (first, last) = put_offsets(strings.value_offsets(), out);
            out.extend_from_slice(&strings.value_data()[first..last]);
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let (first, last) = put_offsets(lists.value_offsets(), out);
            put_array(&*lists.values().slice(first, last - first), out);
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().for_each(|column| put_array(&**column, out));
        }
        other => unreachable!("no column has the type {other}"),
    }
}

fn put_bits(bits: &BooleanBuffer, out: &mut Vec<u8>) {
    out.extend_from_slice(&bits.sliced().as_slice()[..bits.len().div_ceil(8)]);
}

/// Appends offsets, counted from the first, and says where the values begin and end.
fn put_offsets(offsets: &[i32], out: &mut Vec<u8>) -> (usize, usize) {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    offsets.iter().for_each(|offset| out.extend_from_slice(&(offset - first).to_le_bytes()));
    (first as usize, last as usize)
}

/// Reads an array of the type `ty`.
///
/// # Errors
/// If the bytes are none.
pub(crate) fn read_array(ty: &DataType, input: &mut Reader<'_>) -> Result<ArrayRef, CodecError> {
    let len = input.u32()? as usize;
    let nulls = if input.bool()? { Some(NullBuffer::new(read_bits(len, input)?)) } else { None };
    let at = input.error("a valid array");
    let invalid = |_| at.clone();
    Ok(match ty {
        DataType::Boolean => Arc::new(BooleanArray::new(read_bits(len, input)?, nulls)),
        DataType::Int64 => {
            let values = ScalarBuffer::new(Buffer::from(take_of(len, 8, input)?), 0, len);
            Arc::new(Int64Array::try_new(values, nulls).map_err(invalid)?)
        }
        DataType::Float64 => {
            let values = ScalarBuffer::new(Buffer::from(take_of(len, 8, input)?), 0, len);
            Arc::new(Float64Array::try_new(values, nulls).map_err(invalid)?)
        }
        DataType::Utf8 => {
            let (offsets, bytes) = read_offsets(len, input)?;
            let values = Buffer::from(input.take(bytes)?);
            Arc::new(StringArray::try_new(offsets, values, nulls).map_err(invalid)?)
        }
        DataType::Binary => {
            let (offsets, bytes) = read_offsets(len, input)?;
            let values = Buffer::from(input.take(bytes)?);
            Arc::new(BinaryArray::try_new(offsets, values, nulls).map_err(invalid)?)
        }
        DataType::List(item) => {
            let (offsets, _) = read_offsets(len, input)?;
            let values = read_array(item.data_type(), input)?;
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls).map_err(invalid)?)
        }
        DataType::Struct(fields) => {
            let column = |field: &Arc<Field>| read_array(field.data_type(), input);
            let columns = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
            let whole = StructArray::try_new_with_length(fields.clone(), columns, nulls, len);
            Arc::new(whole.map_err(|_| at.clone())?)
        }
        other => unreachable!("no column has the type {other}"),
    })
}

fn take_of<'a>(len: usize, size: usize, input: &mut Reader<'a>) -> Result<&'a [u8], CodecError> {
    let bytes = len.checked_mul(size).ok_or_else(|| input.error("a length that fits"))?;
    input.take(bytes)
}

fn read_bits(len: usize, input: &mut Reader<'_>) -> Result<BooleanBuffer, CodecError> {
    Ok(BooleanBuffer::new(Buffer::from(input.take(len.div_ceil(8))?), 0, len))
}

/// The offsets of `len` values, and where the last one ends.
fn read_offsets(len: usize, input: &mut Reader<'_>) -> Result<(OffsetBuffer<i32>, usize), CodecError> {
    let count = len.checked_add(1).ok_or_else(|| input.error("a length that fits"))?;
    let offsets = ScalarBuffer::<i32>::new(Buffer::from(take_of(count, 4, input)?), 0, count);
    let rising = offsets[0] == 0 && offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rising {
        return Err(input.error("offsets that rise from 0"));
    }
    let last = offsets[len] as usize;
    Ok((OffsetBuffer::new(offsets), last))
}

#[cfg(test)]
mod tests {
    use pharos_beam::schema::{Field as BeamField, Schema, Type, Value};
    use proptest::prelude::*;

    use super::*;
    use crate::column::{build, layout};

    fn ty() -> impl Strategy<Value = Type> {
        let plain = prop_oneof![
            Just(Type::Boolean),
            Just(Type::Int64),
            Just(Type::Float64),
            Just(Type::String),
            Just(Type::Bytes),
            Just(Type::Any)
        ];
        plain.prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|item| Type::Array(Box::new(item))),
                inner.clone().prop_map(|value| Type::Map(Box::new(value))),
                prop::collection::vec(inner, 0..3).prop_map(|types| {
                    let field = |(at, ty)| BeamField { name: format!("f{at}"), ty };
                    Type::Row(Schema { fields: types.into_iter().enumerate().map(field).collect() })
                }),
            ]
        })
    }

    fn value(ty: Type) -> BoxedStrategy<Value> {
        let some: BoxedStrategy<Value> = match ty {
            Type::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
            Type::Int64 | Type::Any => any::<i64>().prop_map(Value::Int64).boxed(),
            Type::Float64 => (-1e9..1e9f64).prop_map(Value::Float64).boxed(),
            Type::String => ".{0,6}".prop_map(Value::String).boxed(),
            Type::Bytes => prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes).boxed(),
            Type::Array(item) => prop::collection::vec(value(*item), 0..4).prop_map(Value::Array).boxed(),
            Type::Map(of) => prop::collection::vec(("[a-c]{0,2}", value(*of)), 0..4)
                .prop_map(|entries| Value::Map(entries.into_iter().collect()))
                .boxed(),
            Type::Row(schema) => schema
                .fields
                .into_iter()
                .map(|field| value(field.ty))
                .collect::<Vec<_>>()
                .prop_map(Value::Row)
                .boxed(),
            other => unreachable!("{other:?} is not made above"),
        };
        prop_oneof![4 => some, 1 => Just(Value::Null)].boxed()
    }

    fn column() -> impl Strategy<Value = (Type, Vec<Value>)> {
        ty().prop_flat_map(|ty| (Just(ty.clone()), prop::collection::vec(value(ty), 0..20)))
    }

    proptest! {
        /// Any part of any column comes back as it was; cut short or changed it is an error or an array.
        #[test]
        fn an_array_comes_back(
            (ty, values) in column(),
            from in 0usize..8,
            (cut, at, bit) in (0usize..400, 0usize..400, 0u8..8),
        ) {
            let whole = build(&ty, &values.iter().collect::<Vec<_>>());
            let from = from.min(whole.len());
            let part = whole.slice(from, whole.len() - from);
            let mut bytes = Vec::new();
            put_array(&*part, &mut bytes);
            let mut input = Reader::new(&bytes);
            let back = read_array(&layout(&ty), &mut input).unwrap();
            prop_assert!(input.is_done());
            prop_assert_eq!(&back.to_data(), &part.to_data());
            if cut < bytes.len() {
                prop_assert!(read_array(&layout(&ty), &mut Reader::new(&bytes[..cut])).is_err());
            }
            if at < bytes.len() {
                bytes[at] ^= 1 << bit;
                let _ = read_array(&layout(&ty), &mut Reader::new(&bytes));
            }
        }
    }
}
