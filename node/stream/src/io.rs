//! What the engine asks of sources and sinks.
//!
//! Owns: the traits between the engine and `pharos-connect`.
//! Must not know: any format, any store.
//! Invariant: reading is a function of the offset, and committing what was prepared is idempotent,
//! whichever worker does it.

use std::sync::Arc;

use arrow_array::ArrayRef;
use pharos_beam::plan::{ReadSpec, WriteSpec};
use pharos_beam::schema::Schema;
use serde::{Deserialize, Serialize};

use crate::column::Batch;

/// Whose fault an error is: it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The pipeline or its data must change.
    User,
    /// Trying again may help.
    Environment,
    /// There is no room: the user must make some, then trying again helps.
    FullDisk,
}

/// Why a source or sink could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// Whose fault.
    pub fault: Fault,
    /// What happened, naming the file or object.
    pub message: String,
}

impl ConnectError {
    /// An error that the user must mend.
    pub fn user(message: impl Into<String>) -> Self {
        Self { fault: Fault::User, message: message.into() }
    }

    /// An error of the surroundings.
    pub fn environment(message: impl Into<String>) -> Self {
        Self { fault: Fault::Environment, message: message.into() }
    }
}

/// Where in a split reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offset {
    /// The byte.
    pub byte: u64,
    /// How many lines lie before it.
    pub line: u64,
}

/// A record that is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// File and line.
    pub place: String,
    /// The record as it stands there.
    pub text: String,
    /// Why it is no row.
    pub message: String,
}

/// Records that were read.
#[derive(Debug, Clone)]
pub struct Records {
    /// The rows, one array for each field of the schema.
    pub columns: Vec<ArrayRef>,
    /// How many rows.
    pub rows: usize,
    /// The line of each row, for messages.
    pub lines: Vec<u64>,
    /// The place of each row among the records read now, bad and empty ones counted.
    pub positions: Vec<u32>,
    /// The records that are no rows. They count as read.
    pub bad: Vec<BadRecord>,
    /// Whether the split ends here.
    pub end: bool,
}

/// A part of a source with an order of its own.
pub trait Split: Send {
    /// The file, for messages.
    fn name(&self) -> &str;

    /// Where the next read starts.
    fn offset(&self) -> Offset;

    /// How many bytes there were when it was opened, if that can be known: what [`Split::offset`] will come to.
    fn bytes(&self) -> Option<u64>;

    /// Goes to where an earlier read would have started.
    ///
    /// # Errors
    /// If the split does not reach so far any more.
    fn seek(&mut self, offset: Offset) -> Result<(), ConnectError>;

    /// The next `records` records, fewer only at the end. How many come does not depend on timing.
    ///
    /// # Errors
    /// If the bytes cannot be read.
    fn read(&mut self, records: usize) -> Result<Records, ConnectError>;

    /// The text of the record on a line of the last read, for a dead letter.
    fn record_text(&self, line: u64) -> String;
}

/// Rows to bytes. Several threads do it at once.
pub trait Encode: Send + Sync {
    /// The bytes of a batch.
    ///
    /// # Errors
    /// If a row cannot be written in this format.
    fn encode(&self, batch: &Batch) -> Result<Vec<u8>, ConnectError>;
}

/// What takes the bytes of one output.
pub trait Sink: Send {
    /// Takes the bytes of rows that belong together, however many threads made them.
    ///
    /// # Errors
    /// If they cannot be written.
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), ConnectError>;

    /// Makes what was taken durable but not yet visible, and says how to go on from here (and, if
    /// `last`, how to make it visible).
    ///
    /// # Errors
    /// If it cannot be made durable.
    fn prepare(&mut self, last: Last) -> Result<String, ConnectError>;
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// More may come.
    No,
    /// This was all.
    Yes,
}

/// All sources and sinks.
pub trait Connectors: Send + Sync {
    /// The splits of a read, always the same in the same order for the same files.
    ///
    /// # Errors
    /// If there is nothing to read.
    fn splits(&self, read: &ReadSpec, schema: &Schema) -> Result<Vec<Box<dyn Split>>, ConnectError>;

    /// The encoder of a write.
    ///
    /// # Errors
    /// If the rows do not suit the format.
    fn encoder(&self, write: &WriteSpec, schema: &Schema) -> Result<Arc<dyn Encode>, ConnectError>;

    /// The sink of a write. `run` names the run; `prepared` is what the last checkpoint kept.
    ///
    /// # Errors
    /// If it cannot be opened, or what was prepared is gone.
    fn sink(
        &self,
        write: &WriteSpec,
        schema: &Schema,
        run: &str,
        prepared: Option<&str>,
    ) -> Result<Box<dyn Sink>, ConnectError>;

    /// Makes visible what `prepare(Last::Yes)` prepared, and names it. Doing it again is harmless.
    ///
    /// # Errors
    /// If it cannot be done.
    fn commit(&self, write: &WriteSpec, prepared: &str) -> Result<Vec<String>, ConnectError>;
}
