//! Schemas read from data.
//!
//! Owns: what the first records of a read say about its fields.
//! Must not know: pipelines.
//! Invariant: the schema is a function of the files; it is sampled from the first
//! [`SAMPLE_RECORDS`] records of the first files that match. A later record that does not fit is a
//! malformed one, so data that varies more than its beginning needs a declared `schema`.
//!
//! In JSON, integers and other numbers in one field make it a number; a field that is null or
//! missing anywhere may be null; values of different kinds make it `any`. In CSV a column is
//! integer, number, boolean (`True`, `False`) or string, by all its cells; an empty cell is null. A Parquet file has a
//! schema: that of the first file counts.

use std::cell::Cell;
use std::io::{BufRead, BufReader};

use pharos_beam::SchemaSource;
use pharos_beam::plan::{ReadFormat, ReadSpec};
use pharos_beam::schema::{Field, Schema, Type, Value};
use pharos_stream::io::{ConnectError, Fault};

use crate::Files;
use crate::place::Place;
use crate::read::{ByteSource, csv_reader, failed, json, of_csv, parquet_schema, unreadable};

/// How much a sampled file reads ahead, in bytes.
const AHEAD: usize = 1 << 20;

/// How many records are looked at.
pub(crate) const SAMPLE_RECORDS: usize = 10_000;

/// Samples files for their schemas.
#[derive(Debug)]
pub struct Sampler<'a> {
    files: &'a Files,
    fault: Cell<Option<Fault>>,
}

impl<'a> Sampler<'a> {
    /// A sampler of these files.
    #[must_use]
    pub fn new(files: &'a Files) -> Self {
        Self { files, fault: Cell::new(None) }
    }

    /// Whose fault it is that a document does not compile: the user's, unless a sample failed for a reason that may
    /// pass, such as a store that did not answer.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault.get().unwrap_or(Fault::User)
    }
}

impl SchemaSource for Sampler<'_> {
    fn sample(&self, read: &ReadSpec) -> Result<Schema, String> {
        self.schema(read).map_err(|error| {
            self.fault.set(Some(error.fault));
            error.message
        })
    }
}

impl Sampler<'_> {
    fn schema(&self, read: &ReadSpec) -> Result<Schema, ConnectError> {
        let files = self.files.place(&read.path)?.find()?;
        match &read.format {
            ReadFormat::Text => Ok(Schema::new([("line", Type::String)])),
            ReadFormat::Json => sample_json(&files),
            // It has a schema; whether the other files have the same shows when they are opened.
            ReadFormat::Parquet => parquet_schema(ByteSource::open(&files[0], AHEAD)?),
            ReadFormat::Csv { delimiter, comment, filename_column } => {
                let mut schema = sample_csv(&files, *delimiter, *comment)?;
                schema.fields.extend(
                    filename_column.iter().map(|name| Field { name: name.clone(), ty: Type::String }),
                );
                Ok(schema)
            }
        }
    }
}

fn sample_json(files: &[Place]) -> Result<Schema, ConnectError> {
    let mut schema: Option<Schema> = None;
    let mut left = SAMPLE_RECORDS;
    let mut first_error = None;
    for file in files {
        let source = ByteSource::open(file, AHEAD)?;
        let name = source.name().to_owned();
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        let mut number = 0;
        while left > 0 {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            match read.map_err(|error| failed(&name, &error))? {
                0 => break,
                _ => number += 1,
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            left -= 1;
            match json::parse(&line) {
                Ok(Value::Map(entries)) => {
                    let row = row_schema(&entries);
                    schema = Some(schema.map_or(row.clone(), |schema| merge_rows(&schema, &row)));
                }
                // Malformed records are dealt with when they are read; here they say nothing.
                Ok(_) => drop(first_error.get_or_insert(format!("`{name}`:{number}: expected an object"))),
                Err(what) => drop(first_error.get_or_insert(format!("`{name}`:{number}: {what}"))),
            }
        }
    }
    let schema = schema.ok_or_else(|| {
        let names = files.first().map(Place::name).unwrap_or_default();
        ConnectError::user(
            first_error.unwrap_or_else(|| format!("`{names}` has no record to tell its fields by")),
        )
    })?;
    Ok(settled(schema))
}

fn row_schema(entries: &[(String, Value)]) -> Schema {
    let field = |(name, value): &(String, Value)| Field { name: name.clone(), ty: type_of(value) };
    Schema { fields: entries.iter().map(field).collect() }
}

/// The type that a single value shows. Null shows only that null occurs: that is spelt here as a
/// nullable row without fields, which no value has.
fn type_of(value: &Value) -> Type {
    match value {
        Value::Null => nothing_but_null(),
        Value::Boolean(_) => Type::Boolean,
        Value::Int64(_) => Type::Int64,
        Value::Float64(_) => Type::Float64,
        Value::Array(items) => {
            let item = items.iter().map(type_of).reduce(|one, other| merge(&one, &other));
            Type::Array(Box::new(item.unwrap_or_else(nothing_but_null)))
        }
        Value::Map(entries) => Type::Row(row_schema(entries)),
        _ => Type::String,
    }
}

fn nothing_but_null() -> Type {
    Type::Nullable(Box::new(Type::Row(Schema::default())))
}

fn merge(one: &Type, other: &Type) -> Type {
    let nothing = nothing_but_null();
    if *one == nothing {
        return other.clone().nullable();
    }
    if *other == nothing {
        return one.clone().nullable();
    }
    let merged = match (one.non_null(), other.non_null()) {
        (Type::Int64, Type::Float64) | (Type::Float64, Type::Int64) => Type::Float64,
        (Type::Array(one), Type::Array(other)) => Type::Array(Box::new(merge(one, other))),
        (Type::Row(one), Type::Row(other)) => Type::Row(merge_rows(one, other)),
        (one, other) if one == other => one.clone(),
        _ => return Type::Any,
    };
    if one.admits_null() || other.admits_null() { merged.nullable() } else { merged }
}

fn merge_rows(one: &Schema, other: &Schema) -> Schema {
    let mut fields: Vec<Field> = one
        .fields
        .iter()
        .map(|field| {
            let ty = match other.field(&field.name) {
                Some(there) => merge(&field.ty, &there.ty),
                None => field.ty.clone().nullable(),
            };
            Field { name: field.name.clone(), ty }
        })
        .collect();
    let new = other.fields.iter().filter(|field| one.index_of(&field.name).is_none());
    fields.extend(new.map(|field| Field { name: field.name.clone(), ty: field.ty.clone().nullable() }));
    Schema { fields }
}

/// The schema with fields that were never anything but null as text that may be null.
fn settled(schema: Schema) -> Schema {
    fn settle(ty: Type) -> Type {
        if ty == nothing_but_null() {
            return Type::String.nullable();
        }
        match ty {
            Type::Nullable(inner) => settle(*inner).nullable(),
            Type::Array(item) => Type::Array(Box::new(settle(*item))),
            Type::Row(schema) => Type::Row(settled(schema)),
            other => other,
        }
    }
    let field = |field: Field| Field { name: field.name, ty: settle(field.ty) };
    Schema { fields: schema.fields.into_iter().map(field).collect() }
}

fn sample_csv(files: &[Place], delimiter: char, comment: Option<char>) -> Result<Schema, ConnectError> {
    let Some(file) = files.first() else { return Ok(Schema::default()) };
    let source = ByteSource::open(file, AHEAD)?;
    let name = source.name().to_owned();
    let failed = |error| of_csv(&name, error, |error| ConnectError::user(format!("`{name}`: {error}")));
    let mut reader = csv_reader(source, delimiter, comment);
    let mut header = csv::StringRecord::new();
    if !reader.read_record(&mut header).map_err(failed)? {
        return Err(ConnectError::user(format!("`{name}` is empty: a CSV file starts with a header")));
    }
    let mut columns: Vec<Option<Type>> = vec![None; header.len()];
    let mut nulls = vec![false; header.len()];
    for record in reader.records().take(SAMPLE_RECORDS) {
        let record = match record {
            Ok(record) => record,
            Err(error) if error.is_io_error() => return Err(unreadable(&name, error)),
            // Malformed records are dealt with when they are read; here they say nothing.
            Err(_) => continue,
        };
        for (position, cell) in record.iter().enumerate().take(header.len()) {
            if cell.is_empty() {
                nulls[position] = true;
                continue;
            }
            let shown = cell_type(cell);
            columns[position] = Some(match columns[position].take() {
                None => shown,
                Some(known) => match merge(&known, &shown) {
                    Type::Any => Type::String,
                    merged => merged,
                },
            });
        }
    }
    let field = |((name, ty), null): ((&str, Option<Type>), bool)| {
        let ty = ty.unwrap_or(Type::String);
        Field { name: name.to_owned(), ty: if null { ty.nullable() } else { ty } }
    };
    Ok(Schema { fields: header.iter().zip(columns).zip(nulls).map(field).collect() })
}

fn cell_type(cell: &str) -> Type {
    if cell.trim().parse::<i64>().is_ok() {
        Type::Int64
    } else if cell.trim().parse::<f64>().is_ok() {
        Type::Float64
    } else if matches!(cell, "True" | "true" | "TRUE" | "False" | "false" | "FALSE") {
        Type::Boolean
    } else {
        Type::String
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(name: &str, text: &str, format: ReadFormat) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), text).unwrap();
        let files = Files::new(directory.path());
        let read = ReadSpec { path: name.to_owned(), format, schema: None, watermark: None, bounded: true };
        let schema = Sampler::new(&files).sample(&read);
        schema
            .map(|schema| schema.to_string())
            .map_err(|error| error.replace(&directory.path().display().to_string(), ""))
    }

    #[test]
    fn json_fields_take_the_least_type_that_holds_what_was_seen() {
        let text = r#"{"i":1,"f":1,"s":"x","n":null,"m":1,"o":{"a":1}}
            {"i":2,"f":1.5,"s":null,"n":null,"m":"x","o":{"b":2},"late":[1]}"#;
        assert_eq!(
            sampled("a.json", text, ReadFormat::Json).unwrap(),
            "row(i: integer, f: number, s: string or null, n: string or null, m: any, \
             o: row(a: integer or null, b: integer or null), late: array of integer or null)"
        );
    }

    #[test]
    fn csv_columns_are_typed_by_all_their_cells() {
        let format =
            ReadFormat::Csv { delimiter: ',', comment: None, filename_column: Some("file".to_owned()) };
        let text = "i,f,b,s,n\n1,1,True,x,\n2,1.5,False,3,4\n";
        assert_eq!(
            sampled("a.csv", text, format).unwrap(),
            "row(i: integer, f: number, b: boolean, s: string, n: integer or null, file: string)"
        );
    }

    #[test]
    fn a_file_without_a_row_is_named() {
        assert_eq!(
            sampled("a.json", "[1]\n", ReadFormat::Json),
            Err("`/a.json`:1: expected an object".to_owned())
        );
    }
}
