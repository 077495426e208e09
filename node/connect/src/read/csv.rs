//! CSV files: a header, then records.
//!
//! Owns: quoting (RFC 4180, through the `csv` crate), comments, the header, cells to values.
//! Must not know: windows.
//! Invariant: as in pandas, an empty cell is null and columns are told apart by their header; a
//! record with another number of cells, or a cell that is not of its column's type, is no row.

use std::collections::BTreeMap;
use std::io::SeekFrom;

use arrow_array::ArrayRef;
use csv::{Position, Reader, ReaderBuilder, StringRecord};
use pharos_beam::schema::{Schema, Type, Value};
use pharos_stream::column::build;
use pharos_stream::io::{BadRecord, ConnectError, Offset, Records, Split};

use super::bytes::ByteSource;

/// A CSV file.
pub(crate) struct CsvSplit {
    name: String,
    bytes: Option<u64>,
    reader: Reader<ByteSource>,
    delimiter: char,
    schema: Schema,
    /// For each field, the column it is in; none: the file's name.
    columns: Vec<Option<usize>>,
    width: usize,
    texts: BTreeMap<u64, StringRecord>,
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
        let (name, bytes) = (source.name().to_owned(), source.size());
        let mut reader = reader(source, delimiter, comment);
        let mut header = StringRecord::new();
        let read = reader.read_record(&mut header);
        let read = read.map_err(|error| ConnectError::user(format!("`{name}`: header: {error}")))?;
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
                        "`{name}`:1: the header has no column `{}`",
                        field.name
                    ))),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            bytes,
            reader,
            delimiter,
            schema: schema.clone(),
            columns,
            width: header.len(),
            texts: BTreeMap::new(),
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
        self.bytes
    }

    fn seek(&mut self, offset: Offset) -> Result<(), ConnectError> {
        let mut position = Position::new();
        position.set_byte(offset.byte).set_line(offset.line + 1);
        self.reader
            .seek_raw(SeekFrom::Start(offset.byte), position)
            .map_err(|error| ConnectError::environment(format!("`{}`: {error}", self.name)))
    }

    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        let mut rows: Vec<Vec<Value>> = Vec::with_capacity(records);
        let mut lines = Vec::with_capacity(records);
        let mut positions = Vec::with_capacity(records);
        let mut bad = Vec::new();
        let mut end = false;
        self.texts.clear();
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
                            lines.push(line);
                            positions.push(at as u32);
                            self.texts.insert(line, record);
                        }
                        Err(message) => bad.push(BadRecord {
                            place: format!("{}:{line}", self.name),
                            text: self.text(&record),
                            message,
                        }),
                    }
                }
                Err(error) => match error.kind() {
                    csv::ErrorKind::Utf8 { pos, err } => bad.push(BadRecord {
                        place: format!("{}:{}", self.name, pos.as_ref().map_or(0, Position::line)),
                        text: String::new(),
                        message: format!("the record is not utf-8: {err}"),
                    }),
                    _ => return Err(ConnectError::environment(format!("`{}`: {error}", self.name))),
                },
            }
        }
        let column = |(position, field): (usize, &pharos_beam::schema::Field)| {
            build(&field.ty, &rows.iter().map(|row| &row[position]).collect::<Vec<_>>())
        };
        let columns: Vec<ArrayRef> = self.schema.fields.iter().enumerate().map(column).collect();
        Ok(Records { columns, rows: rows.len(), lines, positions, bad, end })
    }

    fn record_text(&self, line: u64) -> String {
        self.texts.get(&line).map(|record| self.text(record)).unwrap_or_default()
    }
}
