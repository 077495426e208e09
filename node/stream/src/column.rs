//! Columns: how Beam's types lie in Arrow arrays.
//!
//! Owns: the physical layout of each type, and the way between single values and columns, which
//! only rare expressions and tests take.
//! Must not know: windows, time, exchange.
//! Invariant: a column has the layout [`layout`] gives for its type. Event times are `Int64`
//! microseconds; an `Any` is tagged bytes, and null is Arrow's null in every type.

mod any;
mod batch;

pub use any::{
    AnyError, decode as decode_any, decode_column as decode_any_column, encode as encode_any,
    encode_cell_into as encode_any_cell_into, encode_into as encode_any_into,
};
pub use batch::{Batch, Panes, Steps, Times, Windows, take_columns};

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields};
use pharos_beam::schema::{Micros, Schema, Type, Value};

/// The Arrow type in which values of `ty` lie.
#[must_use]
pub fn layout(ty: &Type) -> DataType {
    match ty {
        Type::Boolean => DataType::Boolean,
        Type::Int64 | Type::Timestamp => DataType::Int64,
        Type::Float64 => DataType::Float64,
        Type::String => DataType::Utf8,
        Type::Bytes | Type::Any => DataType::Binary,
        Type::Nullable(inner) => layout(inner),
        Type::Array(item) => DataType::List(item_field(item)),
        Type::Map(value) => {
            DataType::List(Arc::new(Field::new("item", DataType::Struct(entry_fields(value)), true)))
        }
        Type::Row(schema) => DataType::Struct(row_fields(schema)),
    }
}

fn item_field(item: &Type) -> Arc<Field> {
    Arc::new(Field::new("item", layout(item), true))
}

fn entry_fields(value: &Type) -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", layout(value), true)])
}

fn row_fields(schema: &Schema) -> Fields {
    schema.fields.iter().map(|field| Arc::new(Field::new(&field.name, layout(&field.ty), true))).collect()
}

/// The column of `values`, all of type `ty` or null.
#[must_use]
pub fn build(ty: &Type, values: &[&Value]) -> ArrayRef {
    match ty.non_null() {
        Type::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(values.len());
            values.iter().for_each(|value| builder.append_option(as_bool(value)));
            Arc::new(builder.finish())
        }
        Type::Int64 | Type::Timestamp => {
            let mut builder = Int64Builder::with_capacity(values.len());
            values.iter().for_each(|value| builder.append_option(as_int(value)));
            Arc::new(builder.finish())
        }
        Type::Float64 => {
            let mut builder = Float64Builder::with_capacity(values.len());
            values.iter().for_each(|value| builder.append_option(as_float(value)));
            Arc::new(builder.finish())
        }
        Type::String => {
            let mut builder = StringBuilder::with_capacity(values.len(), 0);
            values.iter().for_each(|value| {
                builder.append_option(match value {
                    Value::String(text) => Some(text.as_str()),
                    _ => None,
                });
            });
            Arc::new(builder.finish())
        }
        Type::Bytes => {
            let mut builder = BinaryBuilder::with_capacity(values.len(), 0);
            values.iter().for_each(|value| {
                builder.append_option(match value {
                    Value::Bytes(bytes) => Some(bytes.as_slice()),
                    _ => None,
                });
            });
            Arc::new(builder.finish())
        }
        Type::Any => {
            let mut builder = BinaryBuilder::with_capacity(values.len(), 0);
            values.iter().for_each(|value| match value {
                Value::Null => builder.append_null(),
                value => builder.append_value(encode_any(value)),
            });
            Arc::new(builder.finish())
        }
        Type::Nullable(inner) => build(inner, values),
        Type::Array(item) => build_lists(item, values),
        Type::Map(item) => build_maps(item, values),
        Type::Row(schema) => build_rows(schema, values),
    }
}

fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(value) => Some(*value),
        _ => None,
    }
}

fn as_int(value: &Value) -> Option<i64> {
    match value {
        Value::Int64(value) | Value::Timestamp(Micros(value)) => Some(*value),
        Value::Boolean(value) => Some(i64::from(*value)),
        _ => None,
    }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float64(value) => Some(*value),
        Value::Int64(value) => Some(*value as f64),
        _ => None,
    }
}

fn present(values: &[&Value]) -> Option<NullBuffer> {
    let nulls = NullBuffer::from_iter(values.iter().map(|value| !matches!(value, Value::Null)));
    (nulls.null_count() > 0).then_some(nulls)
}

fn build_lists(item: &Type, values: &[&Value]) -> ArrayRef {
    let items = |value: &Value| match value {
        Value::Array(items) => items.len(),
        _ => 0,
    };
    let offsets = OffsetBuffer::from_lengths(values.iter().map(|value| items(value)));
    let flat: Vec<&Value> = values
        .iter()
        .flat_map(|value| match value {
            Value::Array(items) => items.as_slice(),
            _ => &[],
        })
        .collect();
    Arc::new(ListArray::new(item_field(item), offsets, build(item, &flat), present(values)))
}

fn build_maps(item: &Type, values: &[&Value]) -> ArrayRef {
    fn entries(value: &Value) -> &[(String, Value)] {
        match value {
            Value::Map(entries) => entries.as_slice(),
            _ => &[],
        }
    }
    let offsets = OffsetBuffer::from_lengths(values.iter().map(|value| entries(value).len()));
    let mut keys = StringBuilder::new();
    let mut flat = Vec::new();
    for (key, value) in values.iter().flat_map(|value| entries(value)) {
        keys.append_value(key);
        flat.push(value);
    }
    let fields = entry_fields(item);
    let pairs = StructArray::new(fields.clone(), vec![Arc::new(keys.finish()), build(item, &flat)], None);
    let field = Arc::new(Field::new("item", DataType::Struct(fields), true));
    Arc::new(ListArray::new(field, offsets, Arc::new(pairs), present(values)))
}

fn build_rows(schema: &Schema, values: &[&Value]) -> ArrayRef {
    let columns = schema.fields.iter().enumerate().map(|(position, field)| {
        let column: Vec<&Value> = values
            .iter()
            .map(|value| match value {
                Value::Row(cells) => cells.get(position).unwrap_or(&Value::Null),
                _ => &Value::Null,
            })
            .collect();
        build(&field.ty, &column)
    });
    rows_of(schema, columns.collect(), values.len(), present(values))
}

/// The nested rows whose fields are `columns`.
#[must_use]
pub fn rows_of(schema: &Schema, columns: Vec<ArrayRef>, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    if columns.is_empty() {
        return Arc::new(StructArray::new_empty_fields(rows, nulls));
    }
    Arc::new(StructArray::new(row_fields(schema), columns, nulls))
}

/// The value at `row` of a column of type `ty`.
#[must_use]
pub fn value_at(ty: &Type, column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match ty {
        Type::Boolean => Value::Boolean(column.as_boolean().value(row)),
        Type::Int64 => Value::Int64(column.as_primitive::<Int64Type>().value(row)),
        Type::Timestamp => Value::Timestamp(Micros(column.as_primitive::<Int64Type>().value(row))),
        Type::Float64 => Value::Float64(column.as_primitive::<Float64Type>().value(row)),
        Type::String => Value::String(column.as_string::<i32>().value(row).to_owned()),
        Type::Bytes => Value::Bytes(column.as_binary::<i32>().value(row).to_vec()),
        Type::Any => {
            decode_any(column.as_binary::<i32>().value(row)).expect("this crate wrote the tagged bytes")
        }
        Type::Nullable(inner) => value_at(inner, column, row),
        Type::Array(item) => {
            let items = column.as_list::<i32>().value(row);
            Value::Array((0..items.len()).map(|at| value_at(item, &items, at)).collect())
        }
        Type::Map(item) => {
            let entries = column.as_list::<i32>().value(row);
            let entries = entries.as_struct();
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            let pair = |at| (keys.value(at).to_owned(), value_at(item, values, at));
            Value::Map((0..entries.len()).map(pair).collect())
        }
        Type::Row(schema) => {
            let cells = column.as_struct();
            let cell = |(at, field): (usize, &pharos_beam::schema::Field)| {
                value_at(&field.ty, cells.column(at), row)
            };
            Value::Row(schema.fields.iter().enumerate().map(cell).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_type_survive_the_way_through_a_column() {
        let row = Schema::new([("a", Type::Int64), ("b", Type::String.nullable())]);
        let cases = [
            (Type::Boolean, Value::Boolean(true)),
            (Type::Int64, Value::Int64(-7)),
            (Type::Float64, Value::Float64(0.5)),
            (Type::String, Value::String("ä".to_owned())),
            (Type::Bytes, Value::Bytes(vec![0, 255])),
            (Type::Timestamp, Value::Timestamp(Micros(12))),
            (Type::Any, Value::Array(vec![Value::Int64(1), Value::Null, Value::Boolean(false)])),
            (Type::Array(Box::new(Type::String)), Value::Array(vec![Value::String("x".to_owned())])),
            (Type::Map(Box::new(Type::Int64)), Value::Map(vec![("k".to_owned(), Value::Int64(3))])),
            (Type::Row(row), Value::Row(vec![Value::Int64(1), Value::Null])),
        ];
        for (ty, value) in cases {
            let ty = ty.nullable();
            let column = build(&ty, &[&Value::Null, &value]);
            assert_eq!(column.data_type(), &layout(&ty));
            assert_eq!(value_at(&ty, &column, 0), Value::Null);
            assert_eq!(value_at(&ty, &column, 1), value);
        }
    }
}
