//! Parquet files: their types, their groups of rows, and what is wrong with them.

use std::fs;
use std::path::Path;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{Int96, Int96Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use pharos_beam::plan::ReadFormat;
use pharos_beam::schema::{Micros, Type, Value};
use pharos_stream::column::value_at;
use pharos_stream::io::Fault;
use proptest::prelude::*;

use super::*;
use crate::object::tests::Server;
use crate::place::Place;
use crate::read::{self, Division};

fn bytes_of(columns: Vec<(&str, ArrayRef)>, properties: WriterPropertiesBuilder) -> Vec<u8> {
    // Columns are nullable as far as they hold null, and none is if its name ends with `!`.
    let fields = columns.iter().map(|(name, column)| {
        arrow_schema::Field::new(name.trim_end_matches('!'), column.data_type().clone(), !name.ends_with('!'))
    });
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn written(directory: &Path, columns: Vec<(&str, ArrayRef)>, properties: WriterPropertiesBuilder) -> Place {
    fs::write(directory.join("in.parquet"), bytes_of(columns, properties)).unwrap();
    Place::parse("in.parquet", directory).unwrap()
}

fn schema_at(place: &Place) -> Result<Schema, ConnectError> {
    super::schema(ByteSource::open(place, 1 << 20)?)
}

const WHOLE: Division = Division { whole: u64::MAX, stripe: 1, lanes: 1, all: 1 };

fn divided(lanes: u64) -> Division {
    Division { whole: 0, stripe: 1, lanes, all: 1024 }
}

fn open_as(place: &Place, division: &Division, schema: &Schema) -> Result<Vec<Box<dyn Split>>, ConnectError> {
    read::open(place, 1, division, &ReadFormat::Parquet, schema, &vec![true; schema.fields.len()])
}

/// Numbers from `from`, text that goes with them, and one that nobody wants, in groups of so many rows.
fn numbered(
    from: i64,
    rows: usize,
    group: usize,
) -> (Vec<(&'static str, ArrayRef)>, WriterPropertiesBuilder) {
    let numbers = from..from + rows as i64;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n!", Arc::new(Int64Array::from_iter_values(numbers.clone()))),
        ("unwanted", Arc::new(StringArray::from_iter_values(numbers.clone().map(|n| format!("{n:>40}"))))),
        ("s!", Arc::new(StringArray::from_iter_values(numbers.map(|n| format!("s{n}"))))),
    ];
    let small = WriterProperties::builder().set_data_page_row_count_limit(7).set_write_batch_size(7);
    (columns, small.set_max_row_group_row_count(Some(group)))
}

fn numbered_schema() -> Schema {
    Schema::new([("s", Type::String), ("n", Type::Int64)])
}

/// The numbers of the next records, which must have the text that goes with them, and whether the split ends.
fn next(split: &mut dyn Split, records: usize) -> (Vec<i64>, bool) {
    let read = split.read(records).unwrap();
    let (texts, numbers) = (read.columns[0].as_string::<i32>(), read.columns[1].as_primitive::<Int64Type>());
    assert_eq!(read.rows, numbers.len());
    assert_eq!(read.positions, (0..read.rows as u32).collect::<Vec<_>>());
    let numbers = numbers.values().to_vec();
    assert!(numbers.iter().zip(texts).all(|(n, text)| text == Some(&format!("s{n}"))));
    (numbers, read.end)
}

fn rest(split: &mut dyn Split, records: usize) -> Vec<i64> {
    let mut all = Vec::new();
    loop {
        let before = split.done();
        let (numbers, end) = next(split, records);
        assert!(end || numbers.len() == records, "only at the end are there fewer");
        assert!(before <= split.done() && split.done() <= split.bytes().unwrap());
        all.extend(numbers);
        if end {
            assert_eq!(Some(split.done()), split.bytes());
            return all;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each row is in one split, in the order of the file, and a split goes on wherever it was left.
    #[test]
    fn the_splits_together_have_the_rows_once_and_go_on_where_they_were_left(
        rows in 0usize..120, group in 1usize..50, lanes in 1u64..6, at_once in 1usize..20, left in 0usize..8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (columns, properties) = numbered(0, rows, group);
        let place = written(directory.path(), columns, properties);
        let open = || open_as(&place, &divided(lanes), &numbered_schema()).unwrap();
        let count = open().len();
        let mut all = Vec::new();
        for lane in 0..count {
            let expected: Vec<i64> = (0..rows).filter(|row| row / group % count == lane).map(|row| row as i64).collect();
            let mut split = open().swap_remove(lane);
            let mut read = Vec::new();
            for _ in 0..left {
                read.extend(next(&mut *split, at_once).0);
            }
            let mut again = open().swap_remove(lane);
            again.seek(split.offset(), Some(&split.version())).unwrap();
            prop_assert_eq!(again.done(), split.done());
            prop_assert_eq!(again.offset(), split.offset());
            read.extend(rest(&mut *again, at_once));
            prop_assert_eq!(&read, &expected);
            all.extend(read);
        }
        all.sort_unstable();
        prop_assert_eq!(all, (0..rows as i64).collect::<Vec<_>>());
    }
}

/// The columns of `every_type`, the type that each has here, and its first value; the second is null.
fn every_type() -> Vec<(&'static str, ArrayRef, Type, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let time = |micros| Value::Timestamp(Micros(micros));
    let mut list = ListBuilder::new(Int32Builder::new());
    list.append_value([Some(1), None]);
    list.append_null();
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(7);
    map.append(true).unwrap();
    map.append(false).unwrap();
    let inner = arrow_schema::Fields::from(vec![arrow_schema::Field::new("a", DataType::Int32, true)]);
    let nested: ArrayRef = Arc::new(StructArray::new(
        inner,
        vec![Arc::new(Int32Array::from(vec![Some(3), None]))],
        Some(vec![true, false].into()),
    ));
    let decimal = Decimal128Array::from(vec![Some(-12_345), None]).with_precision_and_scale(10, 2).unwrap();
    let fixed = vec![Some(&[1u8, 2][..]), None];
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed.into_iter(), 2).unwrap();
    let row = Schema::new([("a", Type::Int64.nullable())]);
    vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None])), Type::Boolean, Value::Boolean(true)),
        ("i8", Arc::new(Int8Array::from(vec![Some(-8), None])), Type::Int64, Value::Int64(-8)),
        (
            "u32",
            Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
            Type::Int64,
            Value::Int64(u32::MAX.into()),
        ),
        ("u64", Arc::new(UInt64Array::from(vec![Some(9), None])), Type::Int64, Value::Int64(9)),
        ("f32", Arc::new(Float32Array::from(vec![Some(0.5), None])), Type::Float64, Value::Float64(0.5)),
        ("f64", Arc::new(Float64Array::from(vec![Some(0.1), None])), Type::Float64, Value::Float64(0.1)),
        ("s", Arc::new(StringArray::from(vec![Some("ä"), None])), Type::String, text("ä")),
        ("d", Arc::new(decimal), Type::String, text("-123.45")),
        (
            "y",
            Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), None])),
            Type::Bytes,
            Value::Bytes(vec![0, 255]),
        ),
        ("fy", Arc::new(fixed), Type::Bytes, Value::Bytes(vec![1, 2])),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None])), Type::Timestamp, time(-86_400_000_000)),
        (
            "ms",
            Arc::new(TimestampMillisecondArray::from(vec![Some(-5), None])),
            Type::Timestamp,
            time(-5_000),
        ),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![Some(-1), None])), Type::Timestamp, time(-1)),
        (
            "l",
            Arc::new(list.finish()),
            Type::Array(Box::new(Type::Int64.nullable())),
            Value::Array(vec![Value::Int64(1), Value::Null]),
        ),
        (
            "m",
            Arc::new(map.finish()),
            Type::Map(Box::new(Type::Int64.nullable())),
            Value::Map(vec![("k".to_owned(), Value::Int64(7))]),
        ),
        ("r", nested, Type::Row(row), Value::Row(vec![Value::Int64(3)])),
    ]
}

#[test]
fn every_type_is_read_by_every_compression() {
    let directory = tempfile::tempdir().unwrap();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::BROTLI(parquet::basic::BrotliLevel::default()),
    ] {
        let columns = every_type().into_iter().map(|(name, column, ..)| (name, column)).collect();
        let properties = WriterProperties::builder().set_compression(compression);
        let place = written(directory.path(), columns, properties);
        let schema = schema_at(&place).unwrap();
        let read = open_as(&place, &WHOLE, &schema).unwrap()[0].read(10).unwrap();
        assert!(read.end && read.rows == 2 && read.bad.is_empty(), "{:?}", read.bad);
        for ((name, _, ty, value), (field, column)) in
            every_type().iter().zip(schema.fields.iter().zip(&read.columns))
        {
            assert_eq!((&field.name[..], &field.ty), (*name, &ty.clone().nullable()));
            assert_eq!(column.data_type(), &layout(ty), "{name}");
            assert_eq!(value_at(&field.ty, column, 0), *value, "{name}");
            assert_eq!(value_at(&field.ty, column, 1), Value::Null, "{name}");
        }
    }
}

#[test]
fn an_old_timestamp_is_read_whatever_its_year() {
    // 1970-01-01 and 9999-12-31 by their Julian days, a second and a half after midnight.
    let days = [2_440_588, 5_373_484];
    let nanos = 1_500_000_000u32;
    let message =
        parse_message_type("message m { required int96 t; optional group g { required int96 u; } }").unwrap();
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(message), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values = days.map(|day| {
        let mut value = Int96::new();
        value.set_data(nanos, 0, day);
        value
    });
    for levels in [None, Some(&[1, 1][..])] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int96Type>().write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in.parquet"), bytes).unwrap();
    let place = Place::parse("in.parquet", directory.path()).unwrap();
    let schema = schema_at(&place).unwrap();
    let read = open_as(&place, &WHOLE, &schema).unwrap()[0].read(10).unwrap();
    for (row, seconds) in [(0, 0), (1, 253_402_214_400)] {
        let time = Value::Timestamp(Micros(seconds * 1_000_000 + 1_500_000));
        assert_eq!(value_at(&schema.fields[0].ty, &read.columns[0], row), time);
        assert_eq!(value_at(&schema.fields[1].ty, &read.columns[1], row), Value::Row(vec![time]));
    }
}

#[test]
fn a_value_that_does_not_fit_is_a_bad_record_with_its_row() {
    let directory = tempfile::tempdir().unwrap();
    let mut list = ListBuilder::new(arrow_array::builder::UInt64Builder::new());
    for row in 0..5u64 {
        list.append_value([Some(1), Some(if row == 4 { u64::MAX } else { row }).filter(|_| row != 0)]);
    }
    let inner = arrow_schema::Fields::from(vec![arrow_schema::Field::new("a", DataType::Int32, true)]);
    // Where the row itself is null, its field need not be there.
    let nested = StructArray::new(
        inner,
        vec![Arc::new(Int32Array::from(vec![Some(0), Some(1), Some(2), Some(3), None]))],
        Some(vec![true, true, true, true, false].into()),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("u", Arc::new(UInt64Array::from(vec![0, u64::MAX, 2, 3, 4]))),
        ("t", Arc::new(TimestampMillisecondArray::from(vec![0, i64::MAX, 2, i64::MIN, 4]))),
        ("l", Arc::new(list.finish())),
        ("r", Arc::new(nested)),
        ("may", Arc::new(Int32Array::from(vec![Some(0), Some(1), None, Some(3), Some(4)]))),
    ];
    let place =
        written(directory.path(), columns, WriterProperties::builder().set_max_row_group_row_count(Some(2)));
    let types = [
        ("u", Type::Int64),
        ("t", Type::Timestamp),
        ("l", Type::Array(Box::new(Type::Int64))),
        ("r", Type::Row(Schema::new([("a", Type::Int64)])).nullable()),
        // The file lets it be null, and it is.
        ("may", Type::Int64),
    ];
    let mut split = open_as(&place, &WHOLE, &Schema::new(types)).unwrap().remove(0);
    let first = split.read(1).unwrap().bad;
    assert_eq!(first[0].message, "field `l`: expected integer, found null");
    let read = split.read(9).unwrap();
    assert_eq!((read.rows, &read.positions[..], read.end), (0, &[][..], true));
    let said: Vec<(String, &str)> = read
        .bad
        .iter()
        .map(|bad| (bad.place.rsplit_once('/').unwrap().1.to_owned(), bad.message.as_str()))
        .collect();
    let place = |row: u64| format!("in.parquet row {row}");
    assert_eq!(
        said,
        [
            (place(2), "field `u`: 18446744073709551615 of type UInt64 is outside the range"),
            (place(3), "field `may`: expected integer, found null"),
            (place(4), "field `t`: -9223372036854775808 of type Timestamp(ms) is outside the range"),
            (place(5), "field `l`: 18446744073709551615 of type UInt64 is outside the range"),
        ]
    );
    assert_eq!(
        read.bad[1].text,
        r#"{"u":2,"t":"1970-01-01T00:00:00.002000Z","l":[1,2],"r":{"a":2},"may":null}"#
    );
}

#[test]
fn files_of_one_read_may_lack_what_may_be_null_and_need_the_types() {
    let directory = tempfile::tempdir().unwrap();
    let (columns, properties) = numbered(0, 3, 10);
    let place = written(directory.path(), columns, properties);
    let wider = Schema::new([("n", Type::Float64), ("new", Type::Int64.nullable())]);
    let read = open_as(&place, &WHOLE, &wider).unwrap()[0].read(9).unwrap();
    assert_eq!(value_at(&Type::Float64, &read.columns[0], 2), Value::Float64(2.0));
    assert_eq!(read.columns[1].null_count(), 3);
    for (schema, expected) in [
        (Schema::new([("new", Type::Int64)]), "in.parquet` has no column `new`"),
        (Schema::new([("s", Type::Int64)]), "in.parquet`: column `s` is string, not integer"),
    ] {
        let error = open_as(&place, &WHOLE, &schema).err().unwrap();
        assert_eq!(error.fault, Fault::User);
        assert!(error.message.contains(expected), "{error}");
    }
}

#[test]
fn a_column_without_a_type_here_is_named_and_can_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![1]))),
        ("clock", Arc::new(Time64MicrosecondArray::from(vec![1]))),
    ];
    let place = written(directory.path(), columns, WriterProperties::builder());
    let error = schema_at(&place).unwrap_err();
    assert_eq!(error.fault, Fault::User);
    let said = "in.parquet`: column `clock` is of type Time64(µs), which rows have none for: name the columns to read";
    assert!(error.message.contains(said), "{error}");
    let schema = Schema::new([("n", Type::Int64.nullable())]);
    assert_eq!(open_as(&place, &WHOLE, &schema).unwrap()[0].read(9).unwrap().rows, 1);
}

#[test]
fn of_an_object_only_the_columns_that_are_wanted_are_fetched_and_once() {
    let server = Server::start();
    let (columns, properties) = numbered(0, 60_000, 20_000);
    let bytes = bytes_of(columns, properties.set_dictionary_enabled(false));
    server.put("in.parquet", &bytes);
    let place = Place::Object { bucket: server.bucket(), key: "in.parquet".to_owned() };
    let schema = numbered_schema();
    let mut splits = open_as(&place, &divided(2), &schema).unwrap();
    let footer = server.held().requests.len();
    assert!(footer <= 3, "{footer} requests for the size and the end of the file");
    let mut all: Vec<i64> = splits.iter_mut().flat_map(|split| rest(&mut **split, 512)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..60_000).collect::<Vec<_>>());
    // Three groups of two columns, each less than what is fetched at once.
    let requests = server.held().requests.len() - footer;
    assert!(requests <= 12, "{requests} requests: {:#?}", &server.held().requests[footer..]);
    let bytes: u64 = splits.iter().map(|split| split.bytes().unwrap()).sum();
    assert!(bytes < 60_000 * 30, "{bytes} bytes of the columns that are wanted");

    let mut none = read::open(&place, 1, &WHOLE, &ReadFormat::Parquet, &schema, &[false, true]).unwrap();
    let read = none[0].read(10).unwrap();
    assert_eq!((read.rows, read.columns[0].data_type()), (10, &DataType::Null));
    assert_eq!(none[0].record(2).1, r#"{"n":2}"#);
}

#[test]
fn a_file_that_is_none_is_broken_or_changes_is_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (columns, properties) = numbered(0, 20_000, 5_000);
    let place = written(directory.path(), columns, properties);
    let path = directory.path().join("in.parquet");
    let good = fs::read(&path).unwrap();
    let schema = numbered_schema();
    let refused = |expected: &str, error: ConnectError| {
        assert_eq!(error.fault, Fault::User, "{error}");
        assert!(error.message.contains(expected), "{error}");
    };

    for bytes in [&b"n,s\n1,2\n"[..], &[], &good[..good.len() - 9]] {
        fs::write(&path, bytes).unwrap();
        refused("in.parquet` cannot be read as Parquet", open_as(&place, &WHOLE, &schema).err().unwrap());
    }
    fs::write(&path, &good).unwrap();
    // Its end says that there is more than there is.
    let table = Table::open(ByteSource::open(&place, 1 << 20).unwrap()).unwrap();
    assert_eq!(check(table.metadata.metadata(), good.len() as u64), Ok(()));
    let error = check(table.metadata.metadata(), good.len() as u64 / 2).unwrap_err();
    assert_eq!(error, "row group 2: column `unwanted` is not within the file");
    // The pages of the third group are damaged.
    let mut bad = good.clone();
    let (at, _) = table.metadata.metadata().row_group(2).column(0).byte_range();
    bad[at as usize..][..3000].fill(0xEE);
    fs::write(&path, &bad).unwrap();
    let mut split = open_as(&place, &WHOLE, &schema).unwrap().remove(0);
    let error = (0..100).find_map(|_| split.read(512).err()).unwrap();
    refused("in.parquet`: after row ", error);

    fs::write(&path, &good).unwrap();
    let mut split = open_as(&place, &WHOLE, &schema).unwrap().remove(0);
    next(&mut *split, 10);
    let (offset, version) = (split.offset(), split.version());
    fs::write(&path, &good[..100]).unwrap();
    let error = (0..100).find_map(|_| split.read(512).err()).unwrap();
    refused(&format!("in.parquet` had {} bytes and has 100 now", good.len()), error);

    let (columns, properties) = numbered(0, 20_001, 5_000);
    let place = written(directory.path(), columns, properties);
    let error = open_as(&place, &WHOLE, &schema).unwrap()[0].seek(offset, Some(&version)).unwrap_err();
    refused("in.parquet` has been replaced: files must not change", error);
}

#[test]
fn a_store_that_does_not_answer_is_not_the_files_fault() {
    let server = Server::start();
    let (columns, properties) = numbered(0, 2_000, 1_000);
    server.put("in.parquet", &bytes_of(columns, properties));
    let place = Place::Object { bucket: server.bucket(), key: "in.parquet".to_owned() };
    let mut split = open_as(&place, &WHOLE, &numbered_schema()).unwrap().remove(0);
    let refusal = crate::object::tests::Failure::Status(403, "AccessDenied");
    server.held().failures.extend([refusal; 4]);
    assert_eq!(split.read(512).unwrap_err().fault, Fault::Denied);
}
