//! Files of lines: text, and one JSON object on each line.
//!
//! Owns: lines, and where they stand.
//! Must not know: windows.
//! Invariant: every line counts as a record, also an empty one and one that is no row, so that where
//! a round ends depends on the file alone. A line ends with LF or CR LF; the last one may lack it. A line
//! belongs to the lane in which its first byte is, and is read to its end, wherever that is.
//!
//! In a file that is divided nobody knows how many lines stand before a place but who reads all of it, so records
//! are named by their first byte there.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use pharos_beam::schema::Schema;
use pharos_stream::io::{BadRecord, ConnectError, Offset, Records, Split, Version};

use super::bytes::{ByteSource, failed};
use super::json::JsonRows;
use super::lane::Lane;

const BUFFER: usize = 256 << 10;

enum Decoder {
    Text,
    Json(JsonRows),
}

/// The lines of a file that belong to one lane.
pub(crate) struct LineSplit {
    name: String,
    file: String,
    lane: Lane,
    reader: BufReader<ByteSource>,
    /// The stripe being read.
    stripe: Range<u64>,
    offset: Offset,
    ended: bool,
    decoder: Decoder,
    chunk: Chunk,
}

/// The lines of the last read.
#[derive(Default)]
struct Chunk {
    /// The number of the first line.
    first: u64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Where in the file lines stand that do not follow the line before: position, and byte.
    jumps: Vec<(usize, u64)>,
}

impl Chunk {
    fn start(&mut self, at: Offset) {
        self.first = at.line + 1;
        self.bytes.clear();
        self.ends.clear();
        self.jumps.clear();
        self.jumps.push((0, at.byte));
    }

    fn start_of(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.ends[at - 1] }
    }

    fn line(&self, at: usize) -> &[u8] {
        let line = &self.bytes[self.start_of(at)..self.ends[at]];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// The byte of the file at which a line starts.
    fn byte(&self, at: usize) -> u64 {
        let jump = self.jumps.partition_point(|(position, _)| *position <= at) - 1;
        let (position, byte) = self.jumps[jump];
        byte + (self.start_of(at) - self.start_of(position)) as u64
    }
}

impl LineSplit {
    /// A file whose rows are its lines.
    #[must_use]
    pub(crate) fn text(source: ByteSource, lane: Lane) -> Self {
        Self::new(source, lane, Decoder::Text)
    }

    /// A file with one JSON object on each line. Of the fields that are not `wanted` no column is made.
    #[must_use]
    pub(crate) fn json(source: ByteSource, lane: Lane, schema: &Schema, wanted: &[bool]) -> Self {
        Self::new(source, lane, Decoder::Json(JsonRows::new(schema, wanted)))
    }

    fn new(mut source: ByteSource, lane: Lane, decoder: Decoder) -> Self {
        let file = source.name().to_owned();
        source.want(lane.first().end);
        // Before its first stripe, if that is not the beginning of the file: the first line is still to be found.
        let start = lane.first().start;
        Self {
            name: format!("{file}{lane}"),
            file,
            lane,
            reader: BufReader::with_capacity(BUFFER.min(source.ahead()), source),
            stripe: if start == 0 { lane.first() } else { 0..0 },
            offset: Offset::default(),
            ended: false,
            decoder,
            chunk: Chunk::default(),
        }
    }

    fn failed(&self, error: &std::io::Error) -> ConnectError {
        failed(&self.file, error)
    }

    fn size(&self) -> u64 {
        self.reader.get_ref().version().bytes.unwrap_or(u64::MAX)
    }

    fn go(&mut self, byte: u64, stripe: Range<u64>) -> Result<(), ConnectError> {
        self.reader.get_mut().want(stripe.end);
        self.reader.seek(SeekFrom::Start(byte)).map_err(|error| self.failed(&error))?;
        self.stripe = stripe;
        Ok(())
    }

    /// Goes to the next line that starts in a stripe of this lane; false if there is none.
    fn jump(&mut self) -> Result<bool, ConnectError> {
        let mut next =
            if self.stripe.is_empty() { Some(self.lane.first()) } else { self.lane.after(self.stripe.start) };
        while let Some(stripe) = next.filter(|stripe| stripe.start < self.size()) {
            if let Some(byte) = self.first_line(stripe.clone())? {
                self.offset.byte = byte;
                self.chunk.jumps.push((self.chunk.ends.len(), byte));
                return Ok(true);
            }
            next = self.lane.after(stripe.start);
        }
        self.ended = true;
        Ok(false)
    }

    /// Goes to the first line that starts in a stripe that is not the first of the file.
    fn first_line(&mut self, stripe: Range<u64>) -> Result<Option<u64>, ConnectError> {
        // A line starts at the stripe's first byte if the byte before ends one.
        let mut at = stripe.start - 1;
        let last = stripe.end - 1;
        self.go(at, stripe)?;
        while at < last {
            let buffer = self.reader.fill_buf().map_err(|error| failed(&self.file, &error))?;
            let seen = buffer.len().min(usize::try_from(last - at).unwrap_or(usize::MAX));
            match buffer[..seen].iter().position(|byte| *byte == b'\n') {
                Some(position) => {
                    self.reader.consume(position + 1);
                    let byte = at + position as u64 + 1;
                    return Ok(Some(byte).filter(|byte| *byte < self.size()));
                }
                None if seen == 0 => return Ok(None),
                None => self.reader.consume(seen),
            }
            at += seen as u64;
        }
        Ok(None)
    }

    fn fill(&mut self, records: usize) -> Result<(), ConnectError> {
        self.chunk.start(self.offset);
        while self.chunk.ends.len() < records && !self.ended {
            if self.offset.byte >= self.stripe.end && !self.jump()? {
                break;
            }
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

    /// Whether no line is left. If one is, the offset is where it starts.
    fn is_over(&mut self) -> Result<bool, ConnectError> {
        if !self.ended && self.offset.byte >= self.stripe.end {
            return Ok(!self.jump()?);
        }
        if !self.ended {
            self.ended = self.reader.fill_buf().map_err(|error| failed(&self.file, &error))?.is_empty();
        }
        Ok(self.ended)
    }

    fn place(&self, at: usize) -> String {
        if self.lane.is_whole() {
            return format!("{}:{}", self.file, self.chunk.first + at as u64);
        }
        format!("{} at byte {}", self.file, self.chunk.byte(at))
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
        self.version().bytes.map(|bytes| self.lane.own(bytes))
    }

    fn done(&self) -> u64 {
        match self.bytes() {
            Some(bytes) if self.ended => bytes,
            // The end of the last line of a stripe may stand in another lane's.
            _ => self.lane.own(self.offset.byte.min(self.stripe.end)),
        }
    }

    fn version(&self) -> Version {
        self.reader.get_ref().version().clone()
    }

    fn seek(&mut self, offset: Offset, version: Option<&Version>) -> Result<(), ConnectError> {
        self.reader.get_mut().resume(offset.byte, version)?;
        self.offset = offset;
        if offset == Offset::default() {
            // Nothing was read yet.
            return Ok(());
        }
        let stripe = self.lane.at(offset.byte).ok_or_else(|| {
            let message = format!(
                "`{}`: the checkpoint goes on at byte {}, which is another part",
                self.name, offset.byte
            );
            ConnectError::user(message)
        })?;
        self.go(offset.byte, stripe)
    }

    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        self.fill(records)?;
        let lines = self.chunk.ends.len();
        let mut positions = Vec::with_capacity(lines);
        let mut bad = Vec::new();
        let mut texts = Vec::new();
        for at in 0..lines {
            let line = self.chunk.line(at);
            let row = match &mut self.decoder {
                Decoder::Json(_) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Decoder::Json(rows) => rows.push(line),
                Decoder::Text => std::str::from_utf8(line)
                    .map(|text| texts.push(text))
                    .map_err(|error| format!("the line is not utf-8: {error}")),
            };
            match row {
                Ok(()) => positions.push(at as u32),
                Err(message) => bad.push(BadRecord {
                    place: self.place(at),
                    text: String::from_utf8_lossy(line).into_owned(),
                    message,
                }),
            }
        }
        let columns = match &mut self.decoder {
            Decoder::Json(rows) => rows.finish(),
            Decoder::Text => vec![Arc::new(StringArray::from(texts)) as ArrayRef],
        };
        let end = self.is_over()?;
        Ok(Records { columns, rows: positions.len(), positions, bad, end })
    }

    fn record(&self, position: u32) -> (String, String) {
        let at = position as usize;
        (self.place(at), String::from_utf8_lossy(self.chunk.line(at)).into_owned())
    }
}
