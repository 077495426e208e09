//! Owns the order in which the objects of a Pipeline are written, and the carrying out of a step. Must not know why.
//!
//! Invariant: a new kind of object does not compile until someone decides its place here; nothing is taken down by a
//! process that no longer leads.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::{Client, ResourceExt};
use pharos_crds::names::{self, COMPONENT_PIPELINE};

use super::build::Desired;
use super::plan::Outdated;
use super::validate::Validated;
use crate::apply::{Applier, ApplyError, is_controlled_by};
use crate::election::Leadership;
use crate::ensemble::apply::StepError;
use crate::pods;

/// Writes everything a Pipeline is made of, or nothing if a name is taken.
///
/// # Errors
/// `NameConflict`, or what the API server says.
pub async fn apply(applier: &Applier, desired: &Desired) -> Result<StatefulSet, ApplyError> {
    // No `..`: a new field must find its place.
    let Desired { document, service_account, service, network_policy, stateful_set } = desired;
    applier.claim(service_account).await?;
    applier.claim(service).await?;
    applier.claim(network_policy).await?;
    applier.claim(stateful_set).await?;

    applier.create_once(document).await?;
    applier.apply(service_account).await?;
    applier.apply(service).await?;
    applier.apply(network_policy).await?;
    applier.apply(stateful_set).await
}

/// Asks a worker that was made from an older template to go.
///
/// # Errors
/// What the API server says.
pub async fn replace(
    client: &Client,
    leadership: &Leadership,
    namespace: &str,
    outdated: &Outdated,
) -> Result<(), StepError> {
    let Outdated { pod, uid } = outdated;
    if !leadership.holds() {
        return Err(StepError::NotLeading);
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(pod, &params).await {
        Ok(_) => Ok(()),
        // Gone, or another pod has its name already: either is what was wanted.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(StepError::Pod { pod: pod.clone(), source: Box::new(source) }),
    }
}

/// Takes away the documents that no worker runs any more.
///
/// # Errors
/// What the API server says.
pub async fn sweep_documents(client: &Client, pipeline: &Validated) -> Result<(), ApplyError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &pipeline.namespace);
    let selector = pods::selector_text(&pipeline.name, COMPONENT_PIPELINE);
    let failed = |name: String| {
        move |source| ApplyError::Api { kind: "ConfigMap".into(), name, source: Box::new(source) }
    };
    let found = api.list(&ListParams::default().labels(&selector)).await.map_err(failed("list".into()))?;
    let current = names::pipeline::document(&pipeline.name, &pipeline.hash);
    for old in found.items {
        let name = old.name_any();
        if name == current || !is_controlled_by(&old.metadata, &pipeline.uid) {
            continue;
        }
        let preconditions = Preconditions { uid: old.metadata.uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(failed(name)(source)),
        }
    }
    Ok(())
}
