//! Owns the question whether a changed document may take the place of the one before it: whether it is to take over
//! its state, and whether it can. Pure. Must not know what a checkpoint holds.
//!
//! Invariant: what is refused here has stopped no worker. What only the data tells is not refused here; the worker,
//! which knows the data, compares again.

use k8s_openapi::api::apps::v1::StatefulSet;
use pharos_beam::state::Incompatible;
use pharos_crds::names::ANNOTATION_DOCUMENT_HASH;
use pharos_crds::{CompletedRun, PipelineStatus, UpgradeMode};

use super::check::check;
use super::validate::Validated;
use crate::admin::{WorkerState, WorkerStatus};
use crate::pods;

/// What the template of the workers names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Hash of the document.
    pub hash: String,
    /// The run.
    pub run_id: i64,
    /// Whether there are checkpoints.
    pub keeps_state: bool,
}

/// What the template of a StatefulSet names.
#[must_use]
pub fn running(set: &StatefulSet) -> Option<Running> {
    let template = &set.spec.as_ref()?.template;
    let hash = template.metadata.as_ref()?.annotations.as_ref()?.get(ANNOTATION_DOCUMENT_HASH)?;
    let containers = &template.spec.as_ref()?.containers;
    let command = containers.iter().find(|one| one.name == pods::CONTAINER)?.command.as_ref()?;
    let after = |flag: &str| command.iter().skip_while(|word| *word != flag).nth(1);
    Some(Running {
        hash: hash.clone(),
        run_id: after("--run-id")?.parse().ok()?,
        keeps_state: after("--checkpoint").is_some(),
    })
}

impl Running {
    /// Whether the state of its run is for `wanted` to take over. A completed run is over, and leaves none.
    #[must_use]
    pub fn is_followed_by(&self, wanted: &Validated, completed: Option<&CompletedRun>) -> bool {
        let is_over = completed.is_some_and(|run| {
            run.uid == wanted.uid && run.document_hash == self.hash && run.run_id == self.run_id
        });
        wanted.spec.upgrade_mode == UpgradeMode::LastState
            && self.hash != wanted.hash
            && self.run_id == wanted.spec.run_id
            && self.keeps_state
            && wanted.checkpoint.is_some()
            && !is_over
    }

    /// Whether it is known to have state of its own, by what was seen or what a worker says now. One that never had
    /// a checkpoint has taken nothing over: then what is to be gone on from is of a document before it.
    #[must_use]
    pub fn has_state<'a>(
        &self,
        seen: &PipelineStatus,
        mut said: impl Iterator<Item = &'a WorkerStatus>,
    ) -> bool {
        let same = seen.document_hash.as_deref() == Some(&self.hash) && seen.run_id == Some(self.run_id);
        (same && seen.epoch.is_some())
            || said.any(|said| said.is_of(&self.hash, self.run_id) && said.epoch.is_some())
    }

    /// Whether a worker says that its run is completed.
    #[must_use]
    pub fn has_completed(&self, said: &WorkerStatus) -> bool {
        said.is_of(&self.hash, self.run_id) && said.state == WorkerState::Completed
    }
}

/// Compares with the document before, of which everything is known that it says itself.
///
/// # Errors
/// What `wanted` cannot take over.
pub fn compare(before: &str, wanted: &Validated) -> Result<(), Incompatible> {
    // An operator that cannot read it any more leaves the question to the worker.
    let Ok(before) = check(before, "the document before") else { return Ok(()) };
    before.taken_over_by(&wanted.state).map(drop)
}

/// What a condition says.
#[must_use]
pub fn message(refused: &Incompatible) -> String {
    format!(
        "the state of the document before cannot be taken over, so that one stays: {refused}; go back to it, or set \
         upgradeMode to Stateless to start anew"
    )
}
