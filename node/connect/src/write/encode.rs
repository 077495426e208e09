//! Rows to bytes: text, CSV, JSON lines.
//!
//! Owns: how each type is written in each format.
//! Must not know: files.
//! Invariant: the bytes of two batches, one after the other, are those of both together.
//!
//! CSV follows pandas' `to_csv`: a header, cells quoted where needed, null as nothing, `True` and
//! `False`, `2.0`. JSON is one object on each line. Text is the only field, a line for each row.

use std::sync::Arc;

use pharos_beam::expr::text;
use pharos_beam::plan::WriteFormat;
use pharos_beam::schema::{Schema, Type, Value};
use pharos_stream::column::{Batch, value_at};
use pharos_stream::io::{ConnectError, Encode};
use pharos_stream::json;

struct Encoder {
    format: WriteFormat,
    schema: Schema,
}

/// The encoder of a format.
#[must_use]
pub(super) fn encoder(format: &WriteFormat, schema: &Schema) -> Arc<dyn Encode> {
    Arc::new(Encoder { format: format.clone(), schema: schema.clone() })
}

/// What a file starts with.
#[must_use]
pub(super) fn header(format: &WriteFormat, schema: &Schema) -> Vec<u8> {
    match format {
        WriteFormat::Csv { delimiter } => record(*delimiter, schema.names().map(str::to_owned)),
        WriteFormat::Text | WriteFormat::Json => Vec::new(),
    }
}

impl Encode for Encoder {
    fn encode(&self, batch: &Batch) -> Result<Vec<u8>, ConnectError> {
        let mut out = String::new();
        for row in 0..batch.rows {
            match &self.format {
                WriteFormat::Json => json::write_row(&self.schema, &batch.columns, row, &mut out),
                WriteFormat::Text => {
                    let (field, column) = (&self.schema.fields[0], &batch.columns[0]);
                    out.push_str(&plain(&field.ty, &value_at(&field.ty, column, row)));
                }
                WriteFormat::Csv { .. } => continue,
            }
            out.push('\n');
        }
        let mut out = out.into_bytes();
        if let WriteFormat::Csv { delimiter } = self.format {
            for row in 0..batch.rows {
                let cells = self.schema.fields.iter().zip(&batch.columns);
                let cells = cells.map(|(field, column)| match value_at(&field.ty, column, row) {
                    Value::Null => String::new(),
                    value => plain(&field.ty, &value),
                });
                out.extend(record(delimiter, cells));
            }
        }
        Ok(out)
    }
}

fn record(delimiter: char, cells: impl Iterator<Item = String>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter as u8).from_writer(Vec::new());
    writer.write_record(cells).expect("a vector takes everything");
    writer.into_inner().expect("a vector takes everything")
}

fn plain(ty: &Type, value: &Value) -> String {
    match value {
        Value::Timestamp(micros) => pharos_window::Timestamp::from_micros(micros.0).to_string(),
        value => text::str(value, ty),
    }
}
