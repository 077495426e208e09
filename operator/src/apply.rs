//! Owns the writing of objects: server-side apply under one field manager, strict, and never over what is not ours.
//! Must not know which objects a kind is made of.
//!
//! Invariant: an object is written only if it does not exist, or is controlled by the resource it is written for.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Client, Resource, ResourceExt};
use pharos_crds::names;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of this name belongs to someone else.
    #[error(
        "{kind} {name} exists and is not controlled by this resource: it is left untouched; rename one of the two"
    )]
    NameConflict {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// The object of an earlier resource of the same name is still there; garbage collection takes it away.
    #[error("{kind} {name} is of a deleted resource of the same name and leaves")]
    Leaving {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// The API server refused.
    #[error("{kind} {name}: {source}")]
    Api {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// A kind of object that the operator writes.
pub trait Owned:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Owned for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

/// The writer of objects for one resource.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    namespace: String,
    owner: OwnerReference,
}

impl Applier {
    /// A writer for the resource that this reference names.
    #[must_use]
    pub fn new(client: Client, namespace: &str, owner: OwnerReference) -> Self {
        Self { client, namespace: namespace.to_owned(), owner }
    }

    /// Fails if an object of this name exists that is not ours.
    ///
    /// # Errors
    /// `NameConflict`, or what the API server says.
    pub async fn claim<K: Owned>(&self, object: &K) -> Result<Option<ObjectMeta>, ApplyError> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let found =
            api.get_metadata_opt(&object.name_any()).await.map_err(|source| refused(object, source))?;
        let metadata = found.map(|found| found.metadata);
        match &metadata {
            Some(found) if self.was_of_a_namesake(found) => Err(leaving(object)),
            Some(found) if !is_controlled_by(found, &self.owner.uid) => Err(conflict(object)),
            Some(found) if found.deletion_timestamp.is_some() => Err(leaving(object)),
            _ => Ok(metadata),
        }
    }

    fn was_of_a_namesake(&self, found: &ObjectMeta) -> bool {
        let owners = found.owner_references.as_deref().unwrap_or_default();
        owners.iter().any(|one| {
            one.controller == Some(true)
                && (&one.api_version, &one.kind, &one.name)
                    == (&self.owner.api_version, &self.owner.kind, &self.owner.name)
                && one.uid != self.owner.uid
        })
    }

    /// Writes an object as it should be.
    ///
    /// # Errors
    /// `NameConflict`, or what the API server says.
    pub async fn apply<K: Owned>(&self, object: &K) -> Result<K, ApplyError> {
        let found = self.claim(object).await?;
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut object = object.clone();
        let mut params = PatchParams::apply(names::FIELD_MANAGER).validation(ValidationDirective::Strict);
        match found {
            // With the UID in it the server refuses if another object has taken the name meanwhile.
            Some(found) => {
                object.meta_mut().uid = found.uid;
                params = params.force();
            }
            // Without force a foreign object made a moment ago is a conflict rather than ours.
            None => params.force = false,
        }
        let written = api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await;
        written.map_err(|source| refused(&object, source))
    }

    /// Writes an object once and leaves it as it is for ever after.
    ///
    /// # Errors
    /// `NameConflict`, or what the API server says.
    pub async fn create_once<K: Owned>(&self, object: &K) -> Result<(), ApplyError> {
        if self.claim(object).await?.is_some() {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let params =
            PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, object).await {
            Ok(_) => Ok(()),
            // The next visit finds it and looks at its owner.
            Err(source) => Err(refused(object, source)),
        }
    }
}

/// Whether the controller of an object is the resource with this UID.
#[must_use]
pub fn is_controlled_by(metadata: &ObjectMeta, owner: &str) -> bool {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|one| one.controller == Some(true) && one.uid == owner)
}

/// The reference by which everything of a resource goes with it.
#[must_use]
pub fn owner_reference<K: Resource<DynamicType = ()>>(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn conflict<K: Owned>(object: &K) -> ApplyError {
    ApplyError::NameConflict { kind: K::kind(&()).into_owned(), name: object.name_any() }
}

fn leaving<K: Owned>(object: &K) -> ApplyError {
    ApplyError::Leaving { kind: K::kind(&()).into_owned(), name: object.name_any() }
}

fn refused<K: Owned>(object: &K, source: kube::Error) -> ApplyError {
    ApplyError::Api { kind: K::kind(&()).into_owned(), name: object.name_any(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that holds one Service at most, and notes what it is asked.
    #[derive(Clone, Default)]
    struct Server {
        service: Arc<Mutex<Option<Value>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    async fn answer(State(server): State<Server>, request: Request) -> axum::response::Response {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let method = request.method().clone();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let forced = query.contains("force=true");
        let uid = body["metadata"]["uid"].as_str().unwrap_or("-").to_owned();
        server.asked.lock().expect("a lock").push(format!("{method} force={forced} uid={uid}"));
        let held = server.service.lock().expect("a lock").clone();
        match held {
            _ if method == "PATCH" => axum_json(StatusCode::OK, &body),
            Some(service) => axum_json(StatusCode::OK, &service),
            None => {
                let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                                     "reason": "NotFound", "message": "", "code": 404});
                axum_json(StatusCode::NOT_FOUND, &missing)
            }
        }
    }

    fn axum_json(code: StatusCode, value: &Value) -> axum::response::Response {
        (code, [("content-type", "application/json")], value.to_string()).into_response()
    }

    async fn applier(server: &Server) -> Applier {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let url = format!("http://{address}").parse().expect("a URL");
        let client = Client::try_from(kube::Config::new(url)).expect("a client");
        Applier::new(client, "ns", owner("u1"))
    }

    fn owner(uid: &str) -> OwnerReference {
        owner_reference::<pharos_crds::Ensemble>("main", uid)
    }

    fn held(owners: &[OwnerReference]) -> Server {
        let service = json!({"apiVersion": "v1", "kind": "Service",
                             "metadata": {"name": "s", "uid": "s1", "ownerReferences": owners}});
        Server { service: Arc::new(Mutex::new(Some(service))), asked: Arc::default() }
    }

    async fn outcome(server: &Server) -> (Result<Service, ApplyError>, Vec<String>) {
        let metadata = ObjectMeta { name: Some("s".into()), ..ObjectMeta::default() };
        let service = Service { metadata, ..Service::default() };
        let result = applier(server).await.apply(&service).await;
        let asked = server.asked.lock().expect("a lock").clone();
        (result, asked)
    }

    #[tokio::test]
    async fn an_object_of_someone_else_is_read_and_never_written() {
        for owners in [&[][..], &[OwnerReference { kind: "Other".into(), ..owner("u9") }]] {
            let (result, asked) = outcome(&held(owners)).await;
            assert!(matches!(result, Err(ApplyError::NameConflict { .. })), "{result:?}");
            assert_eq!(asked, ["GET force=false uid=-"]);
        }
    }

    #[tokio::test]
    async fn an_object_of_a_deleted_namesake_is_waited_for() {
        let (result, asked) = outcome(&held(&[owner("u0")])).await;
        assert!(matches!(result, Err(ApplyError::Leaving { .. })), "{result:?}");
        assert_eq!(asked, ["GET force=false uid=-"]);
    }

    #[tokio::test]
    async fn an_object_of_ours_is_written_by_force_and_by_uid_and_a_new_one_without() {
        let (result, asked) = outcome(&held(&[owner("u1")])).await;
        result.expect("it is ours");
        assert_eq!(asked, ["GET force=false uid=-", "PATCH force=true uid=s1"]);
        let (result, asked) = outcome(&Server::default()).await;
        result.expect("there was none");
        assert_eq!(asked, ["GET force=false uid=-", "PATCH force=false uid=-"]);
    }
}
