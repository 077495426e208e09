//! Why a row failed.
//!
//! Owns the error of one row, in Python's words. Must not know where the row goes then.

use std::borrow::Cow;
use std::fmt;

/// The error of one row, printed as Python's `repr` of the exception, which is what Beam puts into
/// `msg` of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Python's class of the exception.
    pub class: &'static str,
    /// The message.
    pub message: Cow<'static, str>,
}

impl RowError {
    /// An error of a class with a message.
    pub fn new(class: &'static str, message: impl Into<Cow<'static, str>>) -> RowError {
        RowError { class, message: message.into() }
    }

    pub(crate) fn type_error(message: impl Into<Cow<'static, str>>) -> RowError {
        RowError::new("TypeError", message)
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.class, super::text::quoted(&self.message))
    }
}

impl std::error::Error for RowError {}
