//! What the engine asks of sources and sinks.
//!
//! Owns: the traits between the engine and `pharos-connect`.
//! Must not know: any format, any store.
//! Invariant: reading is a function of the offset, and committing what was prepared is idempotent,
//! whichever worker does it.

use std::fmt;
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
    /// The store lets nobody in with these credentials: the user must mend them, then trying again helps.
    Denied,
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
    /// The byte, of the whole file.
    pub byte: u64,
    /// How many lines lie before it; of a part of a file, how many of them this split has read.
    pub line: u64,
}

/// What a split's file was when the run first opened it. Reading goes on only in the same file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Version {
    /// How many bytes it had, if that can be known.
    pub bytes: Option<u64>,
    /// What its store calls this content: the ETag of an object.
    pub tag: Option<String>,
}

/// A record that is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// The file, and the line or, in a part of a file, the byte.
    pub place: String,
    /// The record as it stands there.
    pub text: String,
    /// Why it is no row.
    pub message: String,
}

/// Records that were read.
#[derive(Debug, Clone)]
pub struct Records {
    /// The rows, one array for each field of the schema, in the layout of its type or, if nobody looks at it, of type
    /// `Null`.
    pub columns: Vec<ArrayRef>,
    /// How many rows.
    pub rows: usize,
    /// The place of each row among the records read now, bad and empty ones counted.
    pub positions: Vec<u32>,
    /// The records that are no rows. They count as read.
    pub bad: Vec<BadRecord>,
    /// Whether the split ends here.
    pub end: bool,
}

/// A part of a source with an order of its own.
pub trait Split: Send {
    /// The file and, if it is divided, which part of it and of how many: no two splits of a read share it.
    fn name(&self) -> &str;

    /// Where the next read starts.
    fn offset(&self) -> Offset;

    /// How many bytes are its own, if that can be known: what [`Split::done`] will come to.
    fn bytes(&self) -> Option<u64>;

    /// How many of its bytes lie before [`Split::offset`].
    fn done(&self) -> u64;

    /// What its file was when the run first opened it.
    fn version(&self) -> Version;

    /// Goes to where an earlier read would have started, in what was then this version of the file; of
    /// checkpoints of earlier builds that is not known.
    ///
    /// # Errors
    /// If the file is another one now, or does not reach so far any more.
    fn seek(&mut self, offset: Offset, version: Option<&Version>) -> Result<(), ConnectError>;

    /// The next `records` records, fewer only at the end. How many come does not depend on timing.
    ///
    /// # Errors
    /// If the bytes cannot be read.
    fn read(&mut self, records: usize) -> Result<Records, ConnectError>;

    /// The record at a position of the last read, for a dead letter: its place and its text.
    fn record(&self, position: u32) -> (String, String);
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

    /// Says how to go on from what was taken so far (and, if `last`, how to make it visible), and what has to be done until
    /// it is durable. Rows wait for this call, but not for that.
    ///
    /// # Errors
    /// If it cannot be set aside.
    fn prepare(&mut self, last: Last) -> Result<PreparedOutput, ConnectError>;
}

/// Makes something durable. Doing it again is harmless.
pub type Settle = Arc<dyn Fn() -> Result<(), ConnectError> + Send + Sync>;

/// What a sink prepared: durable, once it is settled, and not yet visible.
#[derive(Clone)]
pub struct PreparedOutput {
    /// How to go on from here, or to make it visible.
    pub handle: String,
    /// What has to be done before a checkpoint may count on it.
    pub settle: Vec<Settle>,
}

impl fmt::Debug for PreparedOutput {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("PreparedOutput").field(&self.handle).finish()
    }
}

impl From<String> for PreparedOutput {
    /// Nothing is left to be done.
    fn from(handle: String) -> Self {
        Self { handle, settle: Vec::new() }
    }
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// More may come.
    No,
    /// This was all.
    Yes,
}

/// An attempt at a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptId<'a> {
    /// The name of the run, for what is in the making.
    pub run: &'a str,
    /// Later attempts have higher numbers. One that has begun keeps all before it from publishing anything.
    pub generation: u64,
}

/// All sources and sinks.
pub trait Connectors: Send + Sync {
    /// The splits of a read, always the same in the same order for the same files. `wanted` says of each field of the
    /// schema whether anybody looks at it: the column of another one may be of Arrow's type `Null`.
    ///
    /// # Errors
    /// If there is nothing to read.
    fn splits(
        &self,
        read: &ReadSpec,
        schema: &Schema,
        wanted: &[bool],
    ) -> Result<Vec<Box<dyn Split>>, ConnectError>;

    /// The encoder of a write.
    ///
    /// # Errors
    /// If the rows do not suit the format.
    fn encoder(&self, write: &WriteSpec, schema: &Schema) -> Result<Arc<dyn Encode>, ConnectError>;

    /// The sink of a write. `prepared` is what the checkpoint kept that this attempt goes on from. What attempts
    /// before this one began, and that checkpoint does not go on with, is removed.
    ///
    /// # Errors
    /// If it cannot be opened, or what was prepared is gone.
    fn sink(
        &self,
        write: &WriteSpec,
        schema: &Schema,
        attempt: AttemptId<'_>,
        prepared: Option<&str>,
    ) -> Result<Box<dyn Sink>, ConnectError>;

    /// Makes visible what `prepare(Last::Yes)` prepared, and names it. Doing it again is harmless.
    ///
    /// # Errors
    /// If it cannot be done.
    fn commit(&self, write: &WriteSpec, prepared: &str) -> Result<Vec<String>, ConnectError>;
}
