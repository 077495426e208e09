//! The controller of Pipelines: one visit is `dereference → validate → build → apply → plan → carry out → status`.
//!
//! Owns the order of these steps and what becomes of their errors. Must not know what any of them does.
//!
//! Invariant: every visit ends with a status, whatever failed, and asks for the next one.

pub mod apply;
pub mod build;
pub mod check;
pub mod dereference;
pub mod load;
pub mod plan;
pub mod status;
pub mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pharos_crds::names::{condition, reason};
use pharos_crds::{Pipeline, PipelineStatus};

use crate::apply::{Applier, ApplyError, owner_reference};
use crate::context::{Context, requeue};
use crate::ensemble::apply::StepError;
use crate::ensemble::dereference::DereferenceError;
use crate::ensemble::status::Blocked;
use crate::status_writer;
use plan::{Step, Wanted};

/// Name of the controller in metrics and logs.
pub const CONTROLLER: &str = "pipeline";

/// Why a visit failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What exists could not be read.
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    /// A step could not be carried out.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The status could not be written.
    #[error("status: {0}")]
    Status(#[source] Box<kube::Error>),
}

impl Error {
    /// Name of the error in metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(_) => "Dereference",
            Self::Step(_) => "Step",
            Self::Status(_) => "Status",
        }
    }
}

/// One visit to a Pipeline.
///
/// # Errors
/// When the API server or a node does not do as asked; the next visit begins anew.
pub async fn reconcile(
    guard: Arc<DeserializeGuard<Pipeline>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = tokio::time::Instant::now();
    let key =
        format!("{CONTROLLER} {}/{}", guard.meta().namespace.as_deref().unwrap_or(""), guard.name_any());
    let visit = context.progress.begin(&key);
    let outcome = if guard.meta().deletion_timestamp.is_some() {
        context.progress.forget(&key);
        Ok(Action::await_change())
    } else {
        match &guard.0 {
            Ok(pipeline) => visit_one(pipeline, &context).await,
            Err(invalid) => {
                let old =
                    status_writer::read::<Pipeline, PipelineStatus>(&context.client, &invalid.metadata).await;
                let old = old.map_err(|error| Error::Status(Box::new(error)))?;
                let blocked =
                    Blocked { reason: reason::INVALID_SPEC, message: invalid.error.clone(), stalled: true };
                conclude_blocked(&*guard, &old, &blocked, &context).await
            }
        }
    };
    drop(visit);
    context.metrics.visited(CONTROLLER, started.elapsed().as_secs_f64());
    outcome
}

async fn visit_one(pipeline: &Pipeline, context: &Context) -> Result<Action, Error> {
    // The store may lag behind our own status, and a completion on record decides whether a worker starts.
    let fresh = status_writer::read::<Pipeline, PipelineStatus>(&context.client, &pipeline.metadata).await;
    let old = fresh.map_err(|error| Error::Status(Box::new(error)))?;
    let pipeline = &Pipeline { status: Some(old.clone()), ..pipeline.clone() };
    let existing = dereference::dereference(&context.client, pipeline).await?;
    let validated = validate::validate(
        pipeline,
        existing.document.as_deref(),
        existing.stateful_set.as_ref(),
        &context.default_image,
    );
    let validated = match validated {
        Ok(validated) => validated,
        Err(invalid) => {
            let blocked =
                Blocked { reason: invalid.reason(), message: invalid.to_string(), stalled: invalid.lasts() };
            return conclude_blocked(pipeline, &old, &blocked, context).await;
        }
    };
    let wanted = Wanted {
        uid: validated.uid.clone(),
        hash: validated.hash.clone(),
        run_id: validated.spec.run_id,
        // The schema's bounds, which the API server holds.
        replicas: u32::try_from(validated.spec.replicas.clamp(1, 256)).expect("it is above zero"),
        suspend: validated.spec.suspend,
    };
    let existing = match write_objects(&validated, &wanted, pipeline, existing, context).await {
        Ok(existing) => existing,
        Err(error) => return conclude_blocked(pipeline, &old, &blocked_by(&error), context).await,
    };
    let observed = dereference::observe(&context.nodes, pipeline, &existing).await;
    let step = plan::plan(&wanted, &observed);
    let carried = carry_out(&validated, &step, context).await;
    let new = status::status(&old, &validated, &observed, &step, context.now());
    announce(pipeline, &old, &new, context).await;
    let written = status_writer::write::<Pipeline, _>(&context.client, pipeline.meta(), &old, &new).await;
    written.map_err(|error| Error::Status(Box::new(error)))?;
    carried?;
    Ok(Action::requeue(match step {
        Step::Running | Step::Failed { .. } => requeue::STEADY,
        Step::Completed | Step::Suspended => requeue::IDLE,
        Step::Wait { .. } | Step::Replace { .. } | Step::RecordCompletion | Step::Leaving => requeue::SOON,
    }))
}

async fn write_objects(
    validated: &validate::Validated,
    wanted: &Wanted,
    pipeline: &Pipeline,
    existing: dereference::Existing,
    context: &Context,
) -> Result<dereference::Existing, ApplyError> {
    // Only what the API server says: the workers are asked after the objects are written.
    let known = plan::Observed {
        ensemble: existing.ensemble,
        exists: existing.stateful_set.is_some(),
        revision_known: false,
        workers: Vec::new(),
        completed: pipeline.status.as_ref().and_then(|status| status.completed.clone()),
    };
    let Some(workers) = plan::workers(wanted, &known) else { return Ok(existing) };
    let owner = owner_reference::<Pipeline>(&validated.name, &validated.uid);
    let applier = Applier::new(context.client.clone(), &validated.namespace, owner);
    let set = apply::apply(&applier, &build::build(validated, workers)).await?;
    Ok(dereference::Existing { stateful_set: Some(set), ..existing })
}

async fn carry_out(validated: &validate::Validated, step: &Step, context: &Context) -> Result<(), Error> {
    match step {
        Step::Replace { pods } => {
            for pod in pods {
                let namespace = &validated.namespace;
                apply::replace(&context.client, &context.leadership, namespace, pod).await?;
            }
            Ok(())
        }
        Step::Running | Step::Completed => {
            let swept = apply::sweep_documents(&context.client, validated).await;
            Ok(swept.map_err(StepError::from)?)
        }
        Step::Wait { .. }
        | Step::RecordCompletion
        | Step::Leaving
        | Step::Suspended
        | Step::Failed { .. } => Ok(()),
    }
}

fn blocked_by(error: &ApplyError) -> Blocked {
    let (reason, stalled) = match error {
        ApplyError::NameConflict { .. } => (reason::NAME_CONFLICT, true),
        ApplyError::Leaving { .. } => (reason::WAITING_FOR_DELETION, false),
        ApplyError::Api { source, .. } => {
            let lasting =
                matches!(&**source, kube::Error::Api(status) if status.is_invalid() || status.is_forbidden());
            (reason::APPLY_FAILED, lasting)
        }
    };
    Blocked { reason, message: error.to_string(), stalled }
}

async fn conclude_blocked<K>(
    object: &K,
    old: &PipelineStatus,
    blocked: &Blocked,
    context: &Context,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()>,
{
    let new = status::blocked(old, blocked, object.meta().generation, context.now());
    context.metrics.failed(CONTROLLER, blocked.reason);
    if status_writer::changed(&old.conditions, &new.conditions) {
        let about = object.object_ref(&());
        let kind = if blocked.stalled { EventType::Warning } else { EventType::Normal };
        context.event(&about, kind, blocked.reason, "Reconcile", &blocked.message).await;
    }
    let written = status_writer::write::<Pipeline, _>(&context.client, object.meta(), old, &new).await;
    written.map_err(|error| Error::Status(Box::new(error)))?;
    Ok(Action::requeue(if blocked.stalled { requeue::LATER } else { requeue::SOON }))
}

/// One Event for each change of what `Ready` says.
async fn announce(pipeline: &Pipeline, old: &PipelineStatus, new: &PipelineStatus, context: &Context) {
    let said = |status: &PipelineStatus| {
        let found = status.conditions.iter().find(|one| one.type_ == condition::READY);
        found.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
    };
    let (before, now) = (said(old), said(new));
    if let (true, Some((_, why, message))) = (before != now, now) {
        let bad = matches!(why.as_str(), reason::PIPELINE_FAILED | reason::WORKER_CRASHING);
        let kind = if bad { EventType::Warning } else { EventType::Normal };
        context.event(&pipeline.object_ref(&()), kind, &why, "Reconcile", &message).await;
    }
}

/// The Pipeline that a pod belongs to, by its labels.
#[must_use]
pub fn owner_of(pod: &Pod) -> Option<ObjectRef<DeserializeGuard<Pipeline>>> {
    let instance = crate::pods::instance_of(pod, pharos_crds::names::COMPONENT_PIPELINE)?;
    Some(ObjectRef::new(&instance).within(&pod.namespace()?))
}
