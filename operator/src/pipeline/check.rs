//! Owns the one question the operator asks of a document: is it a pipeline that can run, and what does it keep? Must not know Beam; the crate
//! `pharos-beam` does.
//!
//! Invariant: a problem names its line and column inside the document, as the user wrote it; no document can end the
//! operator.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pharos_beam::{SourceName, StateSchema};

/// What state a document's pipeline keeps, as far as the document tells.
///
/// # Errors
/// All its mistakes, each as `source:line:column: message`.
pub fn check(document: &str, source: &str) -> Result<StateSchema, Vec<String>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| pharos_beam::check(document, SourceName::new(source))));
    match outcome {
        Ok(Ok(checked)) => Ok(checked.state().clone()),
        Ok(Err(found)) => Err(found.as_slice().iter().map(pharos_beam::Diagnostic::summary).collect()),
        Err(_) => {
            Err(vec![format!("{source}:1:1: the check of this document failed; this is a mistake of ours")])
        }
    }
}
