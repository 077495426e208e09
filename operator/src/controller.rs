//! Owns the wiring of watches to visits. Must not know what a visit does.
//!
//! Invariant: a status write never causes a visit (the spec's generation does), and every failed visit is tried again.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Client, Resource, ResourceExt};
use pharos_crds::{Ensemble, Pipeline};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, requeue};
use crate::{ensemble, pipeline};

/// Where the operator looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    All,
    /// In one namespace.
    Namespace(String),
}

impl Scope {
    /// What the keys of its resources begin with in `Progress`.
    fn prefix(&self, controller: &str) -> String {
        match self {
            Self::All => format!("{controller} "),
            Self::Namespace(namespace) => format!("{controller} {namespace}/"),
        }
    }

    /// An API of this scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// Runs the controller of Ensembles until asked to stop.
pub async fn ensembles(context: Arc<Context>, scope: Scope, stop: CancellationToken) {
    let client = &context.client;
    let (reader, stream) = watched::<DeserializeGuard<Ensemble>>(scope.api(client));
    let owned = watcher::Config::default().labels(&managed());
    let controller = Controller::for_stream(stream, reader.clone())
        .with_config(config())
        .owns(scope.api::<StatefulSet>(client), owned)
        .watches(scope.api::<Pod>(client), pods(), |pod| ensemble::owner_of(&pod))
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    let visits = controller.run(ensemble::reconcile, on_ensemble_error, context.clone());
    let keys = keys(reader, ensemble::CONTROLLER);
    run(visits, context, &scope.prefix(ensemble::CONTROLLER), keys, stop).await;
}

fn on_ensemble_error(
    object: Arc<DeserializeGuard<Ensemble>>,
    error: &ensemble::Error,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(%error, ensemble = object.name_any(), namespace = object.namespace(), "the visit failed");
    context.metrics.failed(ensemble::CONTROLLER, error.reason());
    Action::requeue(requeue::LATER / 2)
}

/// Runs the controller of Pipelines until asked to stop.
pub async fn pipelines(context: Arc<Context>, scope: Scope, stop: CancellationToken) {
    let client = &context.client;
    let (reader, stream) = watched::<DeserializeGuard<Pipeline>>(scope.api(client));
    let owned = watcher::Config::default().labels(&managed());
    let (by_ensemble, by_document) = (reader.clone(), reader.clone());
    let controller = Controller::for_stream(stream, reader.clone())
        .with_config(config())
        .owns(scope.api::<StatefulSet>(client), owned)
        .watches(scope.api::<Pod>(client), pods(), |pod| pipeline::owner_of(&pod))
        // The status of an Ensemble says when a Pipeline may start.
        .watches(
            scope.api::<DeserializeGuard<Ensemble>>(client),
            watcher::Config::default(),
            move |ensemble| {
                let name = ensemble.name_any();
                refer(&by_ensemble, ensemble.meta(), move |one| one.spec.ensemble_ref.name == name)
            },
        )
        .watches(scope.api::<PartialObjectMeta<ConfigMap>>(client), watcher::Config::default(), move |map| {
            let name = map.name_any();
            refer(&by_document, map.meta(), move |one| {
                one.spec.pipeline_from.as_ref().is_some_and(|from| from.config_map_key_ref.name == name)
            })
        })
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    let visits = controller.run(pipeline::reconcile, on_pipeline_error, context.clone());
    let keys = keys(reader, pipeline::CONTROLLER);
    run(visits, context, &scope.prefix(pipeline::CONTROLLER), keys, stop).await;
}

fn on_pipeline_error(
    object: Arc<DeserializeGuard<Pipeline>>,
    error: &pipeline::Error,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(%error, pipeline = object.name_any(), namespace = object.namespace(), "the visit failed");
    context.metrics.failed(pipeline::CONTROLLER, error.reason());
    Action::requeue(requeue::LATER / 2)
}

/// The Pipelines in the namespace of an object that refer to it.
fn refer(
    store: &Store<DeserializeGuard<Pipeline>>,
    object: &ObjectMeta,
    refers: impl Fn(&Pipeline) -> bool,
) -> Vec<ObjectRef<DeserializeGuard<Pipeline>>> {
    let near = |one: &Arc<DeserializeGuard<Pipeline>>| one.meta().namespace == object.namespace;
    let found = store.state().into_iter().filter(near);
    found.filter(|one| one.0.as_ref().is_ok_and(&refers)).map(|one| ObjectRef::from_obj(&*one)).collect()
}

/// A store of a kind, and the stream of changes to its specs.
fn watched<K>(api: Api<K>) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    (reader, stream)
}

fn config() -> Config {
    // Bounded, for the default is not; debounced, for a pod's start is a burst of changes.
    Config::default().concurrency(8).debounce(Duration::from_millis(250))
}

fn managed() -> String {
    format!("{}={}", pharos_crds::names::LABEL_MANAGED_BY, pharos_crds::names::FIELD_MANAGER)
}

fn pods() -> watcher::Config {
    watcher::Config::default().labels(&managed())
}

/// The resources there are, as `Progress` names them.
fn keys<K>(reader: Store<K>, controller: &'static str) -> impl Fn() -> Vec<String> + Send
where
    K: kube::Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    move || {
        let name = |object: &Arc<K>| {
            format!("{controller} {}/{}", object.namespace().unwrap_or_default(), object.name_any())
        };
        reader.state().iter().map(name).collect()
    }
}

async fn run<O, E: std::fmt::Display>(
    visits: impl Stream<Item = Result<O, E>>,
    context: Arc<Context>,
    prefix: &str,
    keys: impl Fn() -> Vec<String> + Send,
    stop: CancellationToken,
) {
    let mut visits = std::pin::pin!(visits);
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            visit = visits.next() => match visit {
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(%error, prefix, "the controller reports"),
                None => break,
            },
            _ = minute.tick() => context.progress.retain(prefix, &keys()),
        }
    }
    if !stop.is_cancelled() {
        tracing::error!(prefix, "the controller ended by itself");
        stop.cancel();
    }
}
