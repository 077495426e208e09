//! Files to rows.
//!
//! Owns: opening a file in its format; which formats are divided.
//! Must not know: which thread reads.
//! Invariant: all splits of a file together give each of its records once; a line that is no row is told, not skipped.
//!
//! A line begins after any line break, so files of lines may be divided. A CSV file is not: a cell in quotes may hold
//! line breaks, so where a record begins can only be told from the file's beginning on. A Parquet file is divided by its
//! groups of rows.

mod bytes;
mod csv;
pub(crate) mod json;
mod lane;
mod lines;
mod parquet;

use pharos_beam::plan::ReadFormat;
use pharos_beam::schema::Schema;
use pharos_stream::io::{ConnectError, Split};

use crate::place::Place;

pub(crate) use bytes::{ByteSource, UNCHANGED, ahead, failed};
pub(crate) use csv::{CsvSplit, of_csv, reader as csv_reader, unreadable};
pub use lane::Division;
use lane::Lane;
pub(crate) use lines::LineSplit;
pub(crate) use parquet::schema as parquet_schema;

/// The splits of one file of `files` that are read at once. Of the fields that are not `wanted` nothing need be read.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn open(
    file: &Place,
    files: usize,
    division: &Division,
    format: &ReadFormat,
    schema: &Schema,
    wanted: &[bool],
) -> Result<Vec<Box<dyn Split>>, ConnectError> {
    let source = ByteSource::open(file, ahead(files))?;
    match format {
        ReadFormat::Parquet => parquet::open(source, files, division, schema, wanted),
        ReadFormat::Csv { delimiter, comment, filename_column } => {
            let split = CsvSplit::open(source, *delimiter, *comment, filename_column.as_deref(), schema)?;
            Ok(vec![Box::new(split)])
        }
        ReadFormat::Text => Ok(lines(source, files, division, LineSplit::text)),
        ReadFormat::Json => {
            let split = |source, lane| LineSplit::json(source, lane, schema, wanted);
            Ok(lines(source, files, division, split))
        }
    }
}

/// The lanes of a file of lines.
fn lines(
    source: ByteSource,
    files: usize,
    division: &Division,
    split: impl Fn(ByteSource, Lane) -> LineSplit,
) -> Vec<Box<dyn Split>> {
    let lanes = division.lanes(source.version().bytes, files);
    let source = source.with_ahead(ahead(files * lanes.len()));
    let boxed = |lane| -> Box<dyn Split> { Box::new(split(source.clone(), lane)) };
    lanes.into_iter().map(boxed).collect()
}

#[cfg(test)]
mod tests;
