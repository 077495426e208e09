//! The controller of Ensembles: one visit is `dereference → observe → validate → build → apply → plan → carry out → status`.
//!
//! Owns the order of these steps and what becomes of their errors. Must not know what any of them does.
//!
//! Invariant: every visit ends with a status, whatever failed, and asks for the next one.

pub mod apply;
pub mod build;
pub mod dereference;
pub mod permit;
pub mod plan;
pub mod status;
pub mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use pharos_crds::names::{condition, reason};
use pharos_crds::{Ensemble, EnsembleStatus};

use crate::apply::{Applier, ApplyError, owner_reference};
use crate::context::{Context, requeue};
use crate::status_writer;
use permit::Permit;
use plan::Step;
use status::Blocked;

/// Name of the controller in metrics and logs.
pub const CONTROLLER: &str = "ensemble";

/// Why a visit failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What exists could not be read.
    #[error(transparent)]
    Dereference(#[from] dereference::DereferenceError),
    /// A step could not be carried out.
    #[error(transparent)]
    Step(#[from] apply::StepError),
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

/// One visit to an Ensemble.
///
/// # Errors
/// When the API server or a node does not do as asked; the next visit begins anew.
pub async fn reconcile(
    guard: Arc<DeserializeGuard<Ensemble>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = tokio::time::Instant::now();
    let key =
        format!("{CONTROLLER} {}/{}", guard.meta().namespace.as_deref().unwrap_or(""), guard.name_any());
    let visit = context.progress.begin(&key);
    let outcome = if guard.meta().deletion_timestamp.is_some() {
        // Everything goes by its owner reference; there is nothing to clean outside the API server.
        context.progress.forget(&key);
        Ok(Action::await_change())
    } else {
        match &guard.0 {
            Ok(ensemble) => visit_one(ensemble, &context).await,
            Err(invalid) => {
                let blocked = stalled(reason::INVALID_SPEC, invalid.error.clone());
                // Its status is read apart, or each visit would write a new transition time.
                let old =
                    status_writer::read::<Ensemble, EnsembleStatus>(&context.client, &invalid.metadata).await;
                let old = old.map_err(|error| Error::Status(Box::new(error)))?;
                conclude_blocked(&*guard, &old, &blocked, None, &context).await
            }
        }
    };
    drop(visit);
    context.metrics.visited(CONTROLLER, started.elapsed().as_secs_f64());
    outcome
}

async fn visit_one(ensemble: &Ensemble, context: &Context) -> Result<Action, Error> {
    let old = ensemble.status.clone().unwrap_or_default();
    let existing = dereference::dereference(&context.client, ensemble).await?;
    let observed = dereference::observe(&context.nodes, ensemble, &existing).await;
    // What is not there yet is not judged.
    let seen = existing.stateful_set.is_some().then_some(&observed);
    let validated = match validate::validate(ensemble, existing.stateful_set.as_ref(), &context.default_image)
    {
        Ok(validated) => validated,
        Err(invalid) => {
            let blocked = stalled(reason::INVALID_SPEC, invalid.to_string());
            return conclude_blocked(ensemble, &old, &blocked, seen, context).await;
        }
    };
    let owner = owner_reference::<Ensemble>(&validated.name, &validated.uid);
    let applier = Applier::new(context.client.clone(), &validated.namespace, owner);
    let sizes = observed.sizes();
    let set = match write_objects(&applier, &validated, sizes, &existing).await {
        Ok(set) => set,
        Err(error) => {
            return conclude_blocked(ensemble, &old, &blocked_by(&error), seen, context).await;
        }
    };
    let observed = dereference::compare(observed, &set, &existing.pods);
    let step = plan::plan(&observed, |disks| {
        Permit::new(&validated.name, &validated.namespace, crate::random::hex(16), disks)
    });
    let hands = apply::Hands {
        client: &context.client,
        nodes: &context.nodes,
        applier: &applier,
        leadership: &context.leadership,
        ensemble: &validated,
        pods: &existing.pods,
        token: existing.token.as_deref(),
        permit: existing.permit.as_ref(),
    };
    // A volume that cannot grow is told, and keeps nobody from looking after the members.
    let step = match (step, apply::grow_volumes(&context.client, &validated, sizes.pods).await) {
        (Step::Done, Err(error)) => Step::Stall { reason: reason::APPLY_FAILED, message: error.to_string() },
        (step, _) => step,
    };
    let mark = format!("{}", context.now().as_second() / 5);
    apply::nudge(&context.client, &validated.namespace, &observed.unread(), &mark).await?;
    tell_of_loss(ensemble, &step);
    let carried = apply::carry_out(&hands, step.clone()).await;
    let (shown, failed) = match carried {
        Ok(shown) => (shown, None),
        Err(error) => (step, Some(error)),
    };
    let shown = &shown;
    let new = status::status(&old, &validated, &observed, shown, &set, context.now());
    announce(ensemble, &old, &new, shown, context).await;
    let written = status_writer::write::<Ensemble, _>(&context.client, ensemble.meta(), &old, &new).await;
    written.map_err(|error| Error::Status(Box::new(error)))?;
    failed.map_or(Ok(()), Err)?;
    Ok(Action::requeue(match shown {
        Step::Done => requeue::STEADY,
        Step::Stall { .. } => requeue::LATER,
        _ => requeue::SOON,
    }))
}

async fn write_objects(
    applier: &Applier,
    validated: &validate::Validated,
    sizes: build::Sizes,
    existing: &dereference::Existing,
) -> Result<StatefulSet, ApplyError> {
    let desired = build::build(validated, sizes);
    apply::claim(applier, &desired).await?;
    if existing.token.is_none() {
        applier.create_once(&build::token(validated, crate::random::hex(32))).await?;
    }
    apply::apply(applier, &desired).await
}

fn stalled(reason: &'static str, message: String) -> Blocked {
    Blocked { reason, message, stalled: true }
}

fn blocked_by(error: &ApplyError) -> Blocked {
    match error {
        ApplyError::NameConflict { .. } => stalled(reason::NAME_CONFLICT, error.to_string()),
        ApplyError::Leaving { .. } => {
            Blocked { reason: reason::WAITING_FOR_DELETION, message: error.to_string(), stalled: false }
        }
        ApplyError::Api { source, .. } => {
            // What the server finds invalid or forbidden stays so until a person changes it.
            let lasting =
                matches!(&**source, kube::Error::Api(status) if status.is_invalid() || status.is_forbidden());
            Blocked { reason: reason::APPLY_FAILED, message: error.to_string(), stalled: lasting }
        }
    }
}

async fn conclude_blocked<K>(
    object: &K,
    old: &EnsembleStatus,
    blocked: &Blocked,
    seen: Option<&plan::Observed>,
    context: &Context,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()>,
{
    let new = status::blocked(old, blocked, seen, object.meta().generation, context.now());
    context.metrics.failed(CONTROLLER, blocked.reason);
    if status_writer::changed(&old.conditions, &new.conditions) {
        let about = object.object_ref(&());
        context.event(&about, EventType::Warning, blocked.reason, "Reconcile", &blocked.message).await;
    }
    let written = status_writer::write::<Ensemble, _>(&context.client, object.meta(), old, &new).await;
    written.map_err(|error| Error::Status(Box::new(error)))?;
    Ok(Action::requeue(if blocked.stalled { requeue::LATER } else { requeue::SOON }))
}

/// One Event for each decision and each wait: none while nothing changes.
async fn announce(
    ensemble: &Ensemble,
    old: &EnsembleStatus,
    new: &EnsembleStatus,
    step: &Step,
    context: &Context,
) {
    let said = |status: &EnsembleStatus, wanted: &str| {
        let found = status.conditions.iter().find(|one| one.type_ == wanted);
        found.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
    };
    let about = ensemble.object_ref(&());
    let shown = if matches!(step, Step::Stall { .. }) { condition::STALLED } else { condition::RECONCILING };
    let (before, now) = (said(old, shown), said(new, shown));
    if let (true, Some((_, reason, message))) = (before != now, &now) {
        let declared = declaration(step);
        let grave = shown == condition::STALLED || declared.is_some();
        let kind = if grave { EventType::Warning } else { EventType::Normal };
        let by = declared.map(|field| format!(", as {} declared", declared_by(ensemble, field)));
        let by = by.unwrap_or_default();
        context.event(&about, kind, reason, action(step), &format!("{message}{by}")).await;
    }
    let (before, now) = (said(old, condition::READY), said(new, condition::READY));
    if before.as_ref().map(|one| &one.0) != now.as_ref().map(|one| &one.0)
        && let Some((status, reason, message)) = now
    {
        // At first it is only on its way; what served and does not is a warning.
        let kind = if status == "True" || before.is_none() { EventType::Normal } else { EventType::Warning };
        context.event(&about, kind, &reason, "Observe", &message).await;
    }
}

/// The field whose declaration alone lets a step be taken that gives something up.
fn declaration(step: &Step) -> Option<&'static str> {
    match step {
        Step::NoteRecovery(_) => Some("recovery"),
        Step::AmendPermit(permit) if permit.recovers => Some("recovery"),
        Step::GiveUp { during: reason::RESTORING, .. } | Step::PermitRestored(_) => Some("restore"),
        Step::GiveUp { .. } => Some("recovery"),
        Step::NoteRestore(Some(note)) if note.restored.is_some() => Some("restore"),
        _ => None,
    }
}

/// Before it is carried out: what is lost by it must be found in the log, whatever becomes of this process.
fn tell_of_loss(ensemble: &Ensemble, step: &Step) {
    if let Some(field) = declaration(step) {
        let (name, by) = (ensemble.name_any(), declared_by(ensemble, field));
        let (recovery, restore) = (&ensemble.spec.recovery, &ensemble.spec.restore);
        tracing::warn!(
            name,
            field,
            ?recovery,
            ?restore,
            by,
            ?step,
            "gives up what members hold, as declared"
        );
    }
}

/// The field manager that wrote a declaration: the API server does not say more of who it was.
fn declared_by<'a>(ensemble: &'a Ensemble, field: &str) -> &'a str {
    let path = format!("/f:spec/f:{field}");
    let wrote = |fields: &FieldsV1| fields.0.pointer(&path).is_some();
    let entries = ensemble.metadata.managed_fields.iter().flatten();
    let mut writers = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(wrote));
    writers.find_map(|entry| entry.manager.as_deref()).unwrap_or("an unknown manager")
}

fn action(step: &Step) -> &'static str {
    match step {
        Step::Done => "Settle",
        Step::Wait(_) => "Wait",
        Step::WritePermit(_) => "Found",
        Step::Stall { .. } => "Stall",
        Step::Delete { .. } => "Replace",
        Step::Transfer { .. } => "Transfer",
        Step::Evict(_) => "Evict",
        Step::Scale { .. } => "Scale",
        Step::Register { .. } => "Register",
        Step::Deregister { .. } => "Deregister",
        Step::AmendPermit(_) => "Permit",
        Step::Switch(_) => "Switch",
        Step::Discard { .. } => "Discard",
        Step::NoteRecovery(_) | Step::GiveUp { .. } => "Recover",
        Step::NoteRestore(_) | Step::Restore { .. } | Step::ClearRestore { .. } | Step::PermitRestored(_) => {
            "Restore"
        }
    }
}

/// The Ensemble that a pod belongs to, by its labels.
#[must_use]
pub fn owner_of(pod: &Pod) -> Option<kube::runtime::reflector::ObjectRef<DeserializeGuard<Ensemble>>> {
    use pharos_crds::names::{COMPONENT_ENSEMBLE, COMPONENT_RESTORE};
    let of = |component| crate::pods::instance_of(pod, component);
    let instance = of(COMPONENT_ENSEMBLE).or_else(|| of(COMPONENT_RESTORE))?;
    Some(kube::runtime::reflector::ObjectRef::new(&instance).within(&pod.namespace()?))
}
