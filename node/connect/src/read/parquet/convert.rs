//! Parquet's values as ours.
//!
//! Owns: which type each of Parquet's types has here, and the way from the arrays of its reader to the layout of ours.
//! Must not know: files, pages.
//! Invariant: no value changes silently: one that does not fit is an error of its row.
//!
//! | Parquet | here |
//! |---|---|
//! | integers of any width | `integer`; of 64 bits without a sign: an error of the row beyond the range |
//! | half, float, double | `number` |
//! | decimals | `string`, every digit: `float(…)` where a number will do |
//! | text, enum, JSON | `string` |
//! | bytes, of fixed length or not | `bytes` |
//! | timestamps (also INT96), dates | `timestamp`; nanoseconds are cut off, a date is its first instant, UTC |
//! | lists, maps with text for keys, groups | `array`, map, row |
//!
//! Times of day and intervals have no type here.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, DecimalType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Int64Array, ListArray, PrimitiveArray, StringArray, StructArray,
    new_null_array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, TimeUnit};
use pharos_beam::schema::{Field, Schema, Type};
use pharos_stream::column::{layout, rows_of};

/// Rows that hold a value that does not fit, with the reason.
pub(super) type Misfits = Vec<(usize, String)>;

/// The type here of a field of a Parquet file; of one that has none, its own.
///
/// # Errors
/// The type that has none here.
pub(super) fn type_of(field: &arrow_schema::Field) -> Result<Type, DataType> {
    let ty = match field.data_type() {
        DataType::Boolean => Type::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Type::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Type::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Type::Float64,
        DataType::Utf8 | DataType::Null | DataType::Decimal128(..) | DataType::Decimal256(..) => Type::String,
        DataType::Binary | DataType::FixedSizeBinary(_) => Type::Bytes,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Type::Timestamp,
        DataType::List(item) => Type::Array(Box::new(type_of(item)?)),
        DataType::Struct(fields) => Type::Row(schema_of(fields).map_err(|(_, ty)| ty)?),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if *pair[0].data_type() == DataType::Utf8 => {
                Type::Map(Box::new(type_of(&pair[1])?))
            }
            _ => return Err(field.data_type().clone()),
        },
        other => return Err(other.clone()),
    };
    Ok(if field.is_nullable() { ty.nullable() } else { ty })
}

/// The fields of a Parquet file with its old timestamps (INT96) in microseconds: in nanoseconds, which is what the reader
/// takes them for, the years that are used for "never" do not fit. `old` says of each column whether it is one.
pub(super) fn in_micros(
    fields: &arrow_schema::Fields,
    old: &mut dyn Iterator<Item = bool>,
) -> arrow_schema::Fields {
    let mut field = |field: &Arc<arrow_schema::Field>| {
        let ty = match field.data_type() {
            DataType::Struct(fields) => DataType::Struct(in_micros(fields, old)),
            DataType::List(item) => {
                DataType::List(Arc::clone(&in_micros(&vec![Arc::clone(item)].into(), old)[0]))
            }
            DataType::Map(pair, sorted) => {
                DataType::Map(Arc::clone(&in_micros(&vec![Arc::clone(pair)].into(), old)[0]), *sorted)
            }
            ty => match (old.next(), ty) {
                (Some(true), DataType::Timestamp(_, zone)) => {
                    DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
                }
                _ => ty.clone(),
            },
        };
        Arc::new(field.as_ref().clone().with_data_type(ty))
    };
    fields.iter().map(&mut field).collect()
}

/// The schema here of the fields of a Parquet file.
///
/// # Errors
/// The name of a field whose type has none here, and that type.
pub(super) fn schema_of(fields: &arrow_schema::Fields) -> Result<Schema, (String, DataType)> {
    let field = |field: &Arc<arrow_schema::Field>| match type_of(field) {
        Ok(ty) => Ok(Field { name: field.name().clone(), ty }),
        Err(ty) => Err((field.name().clone(), ty)),
    };
    Ok(Schema { fields: fields.iter().map(field).collect::<Result<_, _>>()? })
}

/// Whether values of type `found` may be read as `wanted`; whether null is among them shows row by row.
#[must_use]
pub(super) fn fits(wanted: &Type, found: &Type) -> bool {
    match (wanted.non_null(), found.non_null()) {
        (Type::Float64, Type::Int64) => true,
        (Type::Array(wanted), Type::Array(found)) | (Type::Map(wanted), Type::Map(found)) => {
            fits(wanted, found)
        }
        (Type::Row(wanted), Type::Row(found)) => {
            wanted.fields.iter().all(|field| match found.field(&field.name) {
                Some(found) => fits(&field.ty, &found.ty),
                None => field.ty.admits_null(),
            })
        }
        (wanted, found) => wanted == found,
    }
}

/// A column as one of type `ty`, which it [`fits`].
#[must_use]
pub(super) fn convert(ty: &Type, column: &ArrayRef, misfits: &mut Misfits) -> ArrayRef {
    match (ty.non_null(), column.data_type()) {
        (Type::Array(item), DataType::List(_)) => list(ty, item, column, misfits),
        (Type::Map(value), DataType::Map(..)) => map(ty, value, column, misfits),
        (Type::Row(schema), DataType::Struct(_)) => nested(schema, column, misfits),
        (Type::Float64, DataType::Float64) => Arc::clone(column),
        (Type::Float64, DataType::Float32) => unary::<Float32Type, Float64Type>(column, f64::from),
        (Type::Float64, DataType::Float16) => unary::<Float16Type, Float64Type>(column, f64::from),
        (Type::Float64, _) => {
            unary::<Int64Type, Float64Type>(&integers(column, misfits), |value| value as f64)
        }
        (Type::Int64, _) => integers(column, misfits),
        (Type::Timestamp, _) => times(column, misfits),
        (Type::String, DataType::Null) => new_null_array(&DataType::Utf8, column.len()),
        (Type::String, DataType::Decimal128(..)) => digits::<Decimal128Type>(column),
        (Type::String, DataType::Decimal256(..)) => digits::<Decimal256Type>(column),
        (Type::Bytes, DataType::FixedSizeBinary(_)) => {
            Arc::new(column.as_fixed_size_binary().iter().collect::<BinaryArray>())
        }
        _ => Arc::clone(column),
    }
}

fn unary<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
    column: &ArrayRef,
    of: impl Fn(From::Native) -> To::Native,
) -> ArrayRef {
    Arc::new(column.as_primitive::<From>().unary::<_, To>(of))
}

fn integers(column: &ArrayRef, misfits: &mut Misfits) -> ArrayRef {
    match column.data_type() {
        DataType::Int8 => unary::<Int8Type, Int64Type>(column, i64::from),
        DataType::Int16 => unary::<Int16Type, Int64Type>(column, i64::from),
        DataType::Int32 => unary::<Int32Type, Int64Type>(column, i64::from),
        DataType::UInt8 => unary::<UInt8Type, Int64Type>(column, i64::from),
        DataType::UInt16 => unary::<UInt16Type, Int64Type>(column, i64::from),
        DataType::UInt32 => unary::<UInt32Type, Int64Type>(column, i64::from),
        DataType::UInt64 => fitting::<UInt64Type>(column, misfits, |value| i64::try_from(value).ok()),
        _ => Arc::clone(column),
    }
}

fn times(column: &ArrayRef, misfits: &mut Misfits) -> ArrayRef {
    const DAY: i64 = 86_400_000_000;
    match column.data_type() {
        DataType::Date32 => fitting::<Date32Type>(column, misfits, |days| i64::from(days).checked_mul(DAY)),
        DataType::Date64 => fitting::<Date64Type>(column, misfits, |millis| millis.checked_mul(1_000)),
        DataType::Timestamp(TimeUnit::Second, _) => {
            fitting::<TimestampSecondType>(column, misfits, |seconds| seconds.checked_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            fitting::<TimestampMillisecondType>(column, misfits, |millis| millis.checked_mul(1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            unary::<TimestampMicrosecondType, Int64Type>(column, |micros| micros)
        }
        _ => unary::<TimestampNanosecondType, Int64Type>(column, |nanos| nanos.div_euclid(1_000)),
    }
}

/// Values that may not fit. Null stays, and stands where a value does not fit.
fn fitting<From: ArrowPrimitiveType>(
    column: &ArrayRef,
    misfits: &mut Misfits,
    of: impl Fn(From::Native) -> Option<i64>,
) -> ArrayRef {
    let values = column.as_primitive::<From>();
    let fitting: Int64Array = values.unary_opt(&of);
    if fitting.null_count() > values.null_count() {
        let misfit = |row: &usize| values.is_valid(*row) && fitting.is_null(*row);
        misfits.extend((0..values.len()).filter(misfit).map(|row| {
            (row, format!("{:?} of type {} is outside the range", values.value(row), column.data_type()))
        }));
    }
    Arc::new(fitting)
}

fn digits<D: DecimalType>(column: &ArrayRef) -> ArrayRef {
    let values: &PrimitiveArray<D> = column.as_primitive();
    let text = |row| values.is_valid(row).then(|| values.value_as_string(row));
    Arc::new((0..values.len()).map(text).collect::<StringArray>())
}

/// Tells the nulls of a column that must have none, but for those of rows that are null as a whole.
pub(super) fn refuse_null(ty: &Type, column: &ArrayRef, whole: Option<&NullBuffer>, misfits: &mut Misfits) {
    if ty.admits_null() || column.null_count() == 0 {
        return;
    }
    let there = |row: &usize| whole.is_none_or(|whole| whole.is_valid(*row));
    let nulls = (0..column.len()).filter(|row| column.is_null(*row)).filter(there);
    misfits.extend(nulls.map(|row| (row, format!("expected {ty}, found null"))));
}

/// The rows in whose lists the items at these places are.
fn of_lists(offsets: &OffsetBuffer<i32>, items: Misfits) -> impl Iterator<Item = (usize, String)> {
    items.into_iter().filter_map(|(item, why)| {
        let row = offsets.partition_point(|offset| *offset as usize <= item).checked_sub(1)?;
        // A part of a column still has the items of all of it.
        (row + 1 < offsets.len()).then_some((row, why))
    })
}

fn lists(ty: &Type, offsets: &OffsetBuffer<i32>, nulls: Option<&NullBuffer>, items: ArrayRef) -> ArrayRef {
    let DataType::List(field) = layout(ty) else { unreachable!("arrays and maps lie in lists") };
    Arc::new(ListArray::new(field, offsets.clone(), items, nulls.cloned()))
}

fn list(ty: &Type, item: &Type, column: &ArrayRef, misfits: &mut Misfits) -> ArrayRef {
    let list = column.as_list::<i32>();
    let mut inside = Misfits::new();
    let items = convert(item, list.values(), &mut inside);
    refuse_null(item, &items, None, &mut inside);
    misfits.extend(of_lists(list.offsets(), inside));
    lists(ty, list.offsets(), list.nulls(), items)
}

fn map(ty: &Type, value: &Type, column: &ArrayRef, misfits: &mut Misfits) -> ArrayRef {
    let map = column.as_map();
    let mut inside = Misfits::new();
    let values = convert(value, map.values(), &mut inside);
    refuse_null(value, &values, None, &mut inside);
    misfits.extend(of_lists(map.offsets(), inside));
    let DataType::List(field) = layout(ty) else { unreachable!("a map lies in a list") };
    let DataType::Struct(pair) = field.data_type() else { unreachable!("a map is a list of pairs") };
    let pairs = StructArray::new(pair.clone(), vec![Arc::clone(map.keys()), values], None);
    lists(ty, map.offsets(), map.nulls(), Arc::new(pairs))
}

fn nested(schema: &Schema, column: &ArrayRef, misfits: &mut Misfits) -> ArrayRef {
    let rows = column.as_struct();
    let columns = schema.fields.iter().map(|field| match rows.column_by_name(&field.name) {
        Some(column) => {
            let column = convert(&field.ty, column, misfits);
            refuse_null(&field.ty, &column, rows.nulls(), misfits);
            column
        }
        None => new_null_array(&layout(&field.ty), rows.len()),
    });
    rows_of(schema, columns.collect(), rows.len(), rows.nulls().cloned())
}
