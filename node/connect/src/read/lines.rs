//! Files of lines: text, and one JSON object on each line.
//!
//! Owns: lines and their numbers.
//! Must not know: windows.
//! Invariant: every line counts as a record, also an empty one and one that is no row, so that where
//! a round ends depends on the file alone. A line ends with LF or CR LF; the last one may lack it.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use pharos_beam::schema::Schema;
use pharos_stream::io::{BadRecord, ConnectError, Offset, Records, Split};

use super::bytes::ByteSource;
use super::json::JsonRows;

const BUFFER: usize = 256 << 10;

enum Decoder {
    Text,
    Json(JsonRows),
}

/// A file of lines.
pub(crate) struct LineSplit {
    name: String,
    bytes: Option<u64>,
    reader: BufReader<ByteSource>,
    offset: Offset,
    decoder: Decoder,
    chunk: Chunk,
}

/// The lines of the last read.
#[derive(Default)]
struct Chunk {
    first: u64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunk {
    fn line(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        let line = &self.bytes[start..self.ends[at]];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

impl LineSplit {
    /// A file whose rows are its lines.
    #[must_use]
    pub(crate) fn text(source: ByteSource) -> Self {
        Self::new(source, Decoder::Text)
    }

    /// A file with one JSON object on each line.
    #[must_use]
    pub(crate) fn json(source: ByteSource, schema: &Schema) -> Self {
        Self::new(source, Decoder::Json(JsonRows::new(schema)))
    }

    fn new(source: ByteSource, decoder: Decoder) -> Self {
        Self {
            name: source.name().to_owned(),
            bytes: source.size(),
            reader: BufReader::with_capacity(BUFFER.min(source.ahead()), source),
            offset: Offset::default(),
            decoder,
            chunk: Chunk::default(),
        }
    }

    fn failed(&self, error: &std::io::Error) -> ConnectError {
        ConnectError::environment(format!("`{}`: {error}", self.name))
    }

    fn fill(&mut self, records: usize) -> Result<(), ConnectError> {
        self.chunk.first = self.offset.line + 1;
        self.chunk.bytes.clear();
        self.chunk.ends.clear();
        while self.chunk.ends.len() < records {
            match self.reader.read_until(b'\n', &mut self.chunk.bytes) {
                Ok(0) => break,
                Ok(count) => {
                    self.offset.byte += count as u64;
                    self.offset.line += 1;
                    self.chunk.ends.push(self.chunk.bytes.len());
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(())
    }
}

impl Split for LineSplit {
    fn name(&self) -> &str {
        &self.name
    }

    fn offset(&self) -> Offset {
        self.offset
    }

    fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    fn seek(&mut self, offset: Offset) -> Result<(), ConnectError> {
        self.reader.seek(SeekFrom::Start(offset.byte)).map_err(|error| self.failed(&error))?;
        self.offset = offset;
        Ok(())
    }

    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        self.fill(records)?;
        let end = match self.reader.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => return Err(self.failed(&error)),
        };
        let mut lines = Vec::with_capacity(self.chunk.ends.len());
        let mut positions = Vec::with_capacity(self.chunk.ends.len());
        let mut bad = Vec::new();
        let mut texts = Vec::new();
        for at in 0..self.chunk.ends.len() {
            let (line, number) = (self.chunk.line(at), self.chunk.first + at as u64);
            let row = match &mut self.decoder {
                Decoder::Json(_) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Decoder::Json(rows) => rows.push(line),
                Decoder::Text => std::str::from_utf8(line)
                    .map(|text| texts.push(text))
                    .map_err(|error| format!("the line is not utf-8: {error}")),
            };
            match row {
                Ok(()) => {
                    lines.push(number);
                    positions.push(at as u32);
                }
                Err(message) => bad.push(BadRecord {
                    place: format!("{}:{number}", self.name),
                    text: String::from_utf8_lossy(line).into_owned(),
                    message,
                }),
            }
        }
        let columns = match &mut self.decoder {
            Decoder::Json(rows) => rows.finish(),
            Decoder::Text => vec![Arc::new(StringArray::from(texts)) as ArrayRef],
        };
        Ok(Records { columns, rows: lines.len(), lines, positions, bad, end })
    }

    fn record_text(&self, line: u64) -> String {
        let at = (line - self.chunk.first) as usize;
        String::from_utf8_lossy(self.chunk.line(at)).into_owned()
    }
}
