//! Why a run ended without a result.
//!
//! Owns: the engine's one error type and whose fault each error is.
//! Must not know: exit codes.
//! Invariant: a message names the transform, and the file where there is one.

use crate::aggregate::AggregateError;
use crate::checkpoint::BlobError;
use crate::codec::CodecError;
use crate::io::{ConnectError, Fault};
use crate::spill::SpillError;

/// Why a run ended without a result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// A row failed and the transform has no `error_handling`.
    #[error("transform `{transform}`: {message} in row {row}")]
    Row {
        /// The transform.
        transform: String,
        /// What went wrong.
        message: String,
        /// The row as JSON, or the record.
        row: String,
    },
    /// A record of a source is malformed and the read has no `error_handling`.
    #[error("transform `{transform}`: {place}: {message}: {text}")]
    Record {
        /// The transform.
        transform: String,
        /// File and line.
        place: String,
        /// What went wrong.
        message: String,
        /// The record.
        text: String,
    },
    /// A source or sink failed.
    #[error("transform `{transform}`: {source}")]
    Connect {
        /// The transform.
        transform: String,
        /// Why.
        source: ConnectError,
    },
    /// A result does not fit.
    #[error("transform `{transform}`: {source}")]
    Aggregate {
        /// The transform.
        transform: String,
        /// Why.
        source: AggregateError,
    },
    /// AssertEqual found other rows.
    #[error("transform `{transform}`: {message}")]
    Assertion {
        /// The transform.
        transform: String,
        /// What differs.
        message: String,
    },
    /// A plan of another version.
    #[error("the plan has version {0}, this engine runs version {expected}", expected = pharos_beam::plan::PLAN_VERSION)]
    PlanVersion(u32),
    /// State that cannot be read.
    #[error("checkpoint: {what}: {source}")]
    State {
        /// Which file or operator.
        what: String,
        /// Why.
        source: CodecError,
    },
    /// A checkpoint could not be written, read or committed.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// The store of checkpoints did not do what it was asked.
    #[error("checkpoint: {0}")]
    Store(BlobError),
    /// What the store of checkpoints holds is not what was put there.
    #[error("checkpoint: {0}; put back what the store held, or begin a new run")]
    Damaged(String),
    /// The checkpoint is of another plan: the document, or what was found out about its input, has changed.
    #[error("checkpoint: {0}")]
    OtherPlan(String),
    /// State that does not fit in memory could not be put on the local disk or read from there.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// What came from another worker cannot be read, or it was lost.
    #[error("exchange: {0}")]
    Exchange(String),
    /// Another worker cannot go on.
    #[error("{message}")]
    Elsewhere {
        /// Whose fault.
        fault: Fault,
        /// What it says.
        message: String,
    },
    /// Another worker has taken over.
    #[error("another coordinator has taken over this pipeline")]
    Fenced,
    /// The run was asked to stop.
    #[error("stopped")]
    Stopped,
}

impl StreamError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Row { .. }
            | Self::Record { .. }
            | Self::Aggregate { .. }
            | Self::Assertion { .. }
            | Self::Damaged(_)
            | Self::OtherPlan(_) => Fault::User,
            Self::Store(source) => source.fault,
            Self::Connect { source, .. } => source.fault,
            Self::Elsewhere { fault, .. } => *fault,
            Self::PlanVersion(_)
            | Self::State { .. }
            | Self::Checkpoint(_)
            | Self::Spill(_)
            | Self::Exchange(_)
            | Self::Fenced
            | Self::Stopped => Fault::Environment,
        }
    }
}
