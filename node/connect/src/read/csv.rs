//! CSV files: a header, then records.
//!
//! Owns: quoting (RFC 4180, through the `csv` crate), comments, the header, cells to values.
//! Must not know: windows.
//! Invariant: as in pandas, an empty cell is null and columns are told apart by their header; a
//! record with another number of cells, or a cell that is not of its column's type, is no row.

use std::io::SeekFrom;

use arrow_array::ArrayRef;
use csv::{Position, Reader, ReaderBuilder, StringRecord};
use pharos_beam::schema::{Schema, Type, Value};
use pharos_stream::column::build;
use pharos_stream::io::{BadRecord, ConnectError, Offset, Records, Split, Version};

use super::bytes::{ByteSource, failed};

/// A CSV file.
pub(crate) struct CsvSplit {
    name: String,
    reader: Reader<ByteSource>,
    delimiter: char,
    schema: Schema,
    /// For each field, the column it is in; none: the file's name.
    columns: Vec<Option<usize>>,
    width: usize,
    /// The records of the last read, with their lines.
    last: Vec<(u64, StringRecord)>,
}

/// A reader as Beam's options say.
#[must_use]
pub(crate) fn reader(source: ByteSource, delimiter: char, comment: Option<char>) -> Reader<ByteSource> {
    ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter as u8)
        .comment(comment.map(|comment| comment as u8))
        .from_reader(source)
}

impl CsvSplit {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// If the header lacks a field of the schema, or cannot be read.
    pub(crate) fn open(
        source: ByteSource,
        delimiter: char,
        comment: Option<char>,
        filename_column: Option<&str>,
        schema: &Schema,
    ) -> Result<Self, ConnectError> {
        let name = source.name().to_owned();
        let mut reader = reader(source, delimiter, comment);
        let mut header = StringRecord::new();
        let read = reader.read_record(&mut header);
        let read = read.map_err(|error| {
            of_csv(&name, error, |error| ConnectError::user(format!("`{name}`: header: {error}")))
        })?;
        let columns = schema
            .fields
            .iter()
            .map(|field| {
                if filename_column == Some(field.name.as_str()) {
                    return Ok(None);
                }
                match header.iter().position(|column| column == field.name) {
                    Some(position) => Ok(Some(position)),
                    None if !read => Ok(Some(0)),
                    None => Err(ConnectError::user(format!(
                        "`{name}`:1: the header has no column `{}`: all files of a read must have the columns of \
                         its schema; leave this file out, or read it by a transform of its own",
                        field.name
                    ))),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            reader,
            delimiter,
            schema: schema.clone(),
            columns,
            width: header.len(),
            last: Vec::new(),
        })
    }

    fn row(&self, record: &StringRecord) -> Result<Vec<Value>, String> {
        if record.len() != self.width {
            return Err(format!("expected {} cells, found {}", self.width, record.len()));
        }
        self.schema
            .fields
            .iter()
            .zip(&self.columns)
            .map(|(field, column)| match column {
                Some(column) => cell(&record[*column], &field.ty)
                    .map_err(|what| format!("column `{}`: {what}", field.name)),
                None => Ok(Value::String(self.name.clone())),
            })
            .collect()
    }

    fn text(&self, record: &StringRecord) -> String {
        record.iter().collect::<Vec<_>>().join(&self.delimiter.to_string())
    }
}

/// An error of the parser, which is one of its source's or else `other`.
pub(crate) fn of_csv(
    name: &str,
    error: csv::Error,
    other: impl FnOnce(csv::Error) -> ConnectError,
) -> ConnectError {
    match error.kind() {
        csv::ErrorKind::Io(error) => failed(name, error),
        _ => other(error),
    }
}

/// An error of the parser where all that it can say is that the bytes cannot be read.
pub(crate) fn unreadable(name: &str, error: csv::Error) -> ConnectError {
    of_csv(name, error, |error| ConnectError::environment(format!("`{name}`: {error}")))
}

/// A cell as a value of type `ty`.
fn cell(text: &str, ty: &Type) -> Result<Value, String> {
    if text.is_empty() && ty.admits_null() {
        return Ok(Value::Null);
    }
    let wrong = || format!("expected {}, found `{text}`", ty.non_null());
    match ty.non_null() {
        Type::Boolean => match text {
            "True" | "true" | "TRUE" => Ok(Value::Boolean(true)),
            "False" | "false" | "FALSE" => Ok(Value::Boolean(false)),
            _ => Err(wrong()),
        },
        Type::Int64 => text.trim().parse().map(Value::Int64).map_err(|_| wrong()),
        Type::Float64 => text.trim().parse().map(Value::Float64).map_err(|_| wrong()),
        Type::String | Type::Any => Ok(Value::String(text.to_owned())),
        _ => Err(wrong()),
    }
}

impl Split for CsvSplit {
    fn name(&self) -> &str {
        &self.name
    }

    fn offset(&self) -> Offset {
        let position = self.reader.position();
        Offset { byte: position.byte(), line: position.line() - 1 }
    }

    fn bytes(&self) -> Option<u64> {
        self.version().bytes
    }

    fn done(&self) -> u64 {
        self.offset().byte
    }

    fn version(&self) -> Version {
        self.reader.get_ref().version().clone()
    }

    fn seek(&mut self, offset: Offset, version: Option<&Version>) -> Result<(), ConnectError> {
        self.reader.get_mut().resume(offset.byte, version)?;
        let mut position = Position::new();
        position.set_byte(offset.byte).set_line(offset.line + 1);
        self.reader
            .seek_raw(SeekFrom::Start(offset.byte), position)
            .map_err(|error| unreadable(&self.name, error))
    }

    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        let mut rows: Vec<Vec<Value>> = Vec::with_capacity(records);
        let mut positions = Vec::with_capacity(records);
        let mut bad = Vec::new();
        let mut end = false;
        self.last.clear();
        for at in 0..records {
            let mut record = StringRecord::new();
            match self.reader.read_record(&mut record) {
                Ok(false) => {
                    end = true;
                    break;
                }
                Ok(true) => {
                    let line = record.position().map_or(0, Position::line);
                    match self.row(&record) {
                        Ok(row) => {
                            rows.push(row);
                            positions.push(at as u32);
                        }
                        Err(message) => bad.push(BadRecord {
                            place: format!("{}:{line}", self.name),
                            text: self.text(&record),
                            message,
                        }),
                    }
                    self.last.push((line, record));
                }
                Err(error) => match error.kind() {
                    csv::ErrorKind::Utf8 { pos, err } => {
                        let line = pos.as_ref().map_or(0, Position::line);
                        bad.push(BadRecord {
                            place: format!("{}:{line}", self.name),
                            text: String::new(),
                            message: format!("the record is not utf-8: {err}"),
                        });
                        self.last.push((line, StringRecord::new()));
                    }
                    _ => return Err(unreadable(&self.name, error)),
                },
            }
        }
        let column = |(position, field): (usize, &pharos_beam::schema::Field)| {
            build(&field.ty, &rows.iter().map(|row| &row[position]).collect::<Vec<_>>())
        };
        let columns: Vec<ArrayRef> = self.schema.fields.iter().enumerate().map(column).collect();
        Ok(Records { columns, rows: rows.len(), positions, bad, end })
    }

    fn record(&self, position: u32) -> (String, String) {
        let (line, record) = &self.last[position as usize];
        (format!("{}:{line}", self.name), self.text(record))
    }
}
