//! Owns the writing of a status. Must not know what is in it.
//!
//! Invariant: nothing is written when nothing changed, and never anything but the status.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource};
use pharos_crds::names;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Writes the status of an object, if it changed.
///
/// # Errors
/// What the API server says.
pub async fn write<K, S>(client: &Client, metadata: &ObjectMeta, old: &S, new: &S) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    S: Serialize + PartialEq,
{
    if old == new {
        return Ok(());
    }
    let resource = ApiResource::erase::<K>(&());
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    // Untyped: the object may be one whose spec cannot be read.
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let name = metadata.name.as_deref().unwrap_or_default();
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        // With the UID in it a new object of this name is not given the status of the old one.
        "metadata": {"name": name, "uid": metadata.uid},
        "status": new,
    });
    let params = PatchParams::apply(names::STATUS_FIELD_MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile: there is nobody to tell.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads the status of an object whose spec cannot be read.
///
/// # Errors
/// What the API server says.
pub async fn read<K, S>(client: &Client, metadata: &ObjectMeta) -> Result<S, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    S: DeserializeOwned + Default,
{
    let resource = ApiResource::erase::<K>(&());
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = api.get_opt(metadata.name.as_deref().unwrap_or_default()).await?;
    let status = found.and_then(|object| object.data.get("status").cloned());
    Ok(status.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default())
}

/// Whether conditions differ in what users read.
#[must_use]
pub fn changed(old: &[Condition], new: &[Condition]) -> bool {
    let read =
        |one: &Condition| (one.type_.clone(), one.status.clone(), one.reason.clone(), one.message.clone());
    old.iter().map(read).ne(new.iter().map(read))
}
