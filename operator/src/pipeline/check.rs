//! Owns the one question the operator asks of a document: is it a pipeline that can run? Must not know Beam; the crate
//! `pharos-beam` does.
//!
//! Invariant: a problem names its line and column inside the document, as the user wrote it; no document can end the
//! operator.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pharos_beam::SourceName;

/// All mistakes of a document, each as `source:line:column: message`; none if it can run.
#[must_use]
pub fn check(document: &str, source: &str) -> Vec<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| pharos_beam::check(document, SourceName::new(source))));
    match outcome {
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(found)) => found.as_slice().iter().map(pharos_beam::Diagnostic::summary).collect(),
        Err(_) => vec![format!("{source}:1:1: the check of this document failed; this is a mistake of ours")],
    }
}
