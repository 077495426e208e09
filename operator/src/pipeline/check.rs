//! Owns the one question the operator asks of a document: is it a pipeline that can run? Must not know Beam.
//!
//! Invariant: a problem names its line and column inside the document, as the user wrote it.

use std::fmt;

/// Where documents come from, as users read it in messages.
pub const SOURCE: &str = "spec.pipeline";

/// A mistake in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the document, from 1.
    pub line: u32,
    /// Column in the line, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Checks documents.
pub trait Checker: Send + Sync {
    /// All mistakes of a document; none if it can run.
    fn check(&self, document: &str) -> Vec<Problem>;
}

/// Checks that a document is YAML with a `pipeline` in it, and no more.
pub struct Syntax;

impl Checker for Syntax {
    fn check(&self, document: &str) -> Vec<Problem> {
        let at = |line, column, message: String| vec![Problem { line, column, message }];
        match serde_yaml::from_str::<serde_yaml::Value>(document) {
            Ok(value) if value.get("pipeline").is_some() => Vec::new(),
            Ok(_) => at(1, 1, "the document has no key `pipeline`".into()),
            Err(error) => {
                let place = error.location().map(|place| (place.line(), place.column())).unwrap_or((1, 1));
                let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
                at(number(place.0), number(place.1), error.to_string())
            }
        }
    }
}
