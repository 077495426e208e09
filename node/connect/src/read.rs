//! Files to rows.
//!
//! Owns: opening a file in its format.
//! Must not know: which thread reads.
//! Invariant: a file is read from front to back; a line that is no row is told, not skipped.

mod bytes;
mod csv;
pub(crate) mod json;
mod lines;

use pharos_beam::plan::ReadFormat;
use pharos_beam::schema::Schema;
use pharos_stream::io::{ConnectError, Split};

use crate::place::Place;

pub(crate) use bytes::{ByteSource, ahead};
pub(crate) use csv::{CsvSplit, reader as csv_reader};
pub(crate) use lines::LineSplit;

/// The split of one file of `files` that are read at once.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn open(
    file: &Place,
    files: usize,
    format: &ReadFormat,
    schema: &Schema,
) -> Result<Box<dyn Split>, ConnectError> {
    let source = ByteSource::open(file, ahead(files))?;
    Ok(match format {
        ReadFormat::Text => Box::new(LineSplit::text(source)),
        ReadFormat::Json => Box::new(LineSplit::json(source, schema)),
        ReadFormat::Csv { delimiter, comment, filename_column } => {
            Box::new(CsvSplit::open(source, *delimiter, *comment, filename_column.as_deref(), schema)?)
        }
    })
}
