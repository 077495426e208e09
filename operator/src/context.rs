//! Owns what every reconcile needs: the API client, the node client, Events, metrics, progress, the defaults. Must not
//! know any kind.
//!
//! Invariant: it holds no state of a resource; each visit begins from what is observed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::admin::AdminClient;
use crate::election::Leadership;
use crate::health::Progress;
use crate::metrics::Metrics;
use crate::pods::Image;
use pharos_crds::names;

/// What every reconcile needs.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Client of the nodes' admin ports.
    pub nodes: AdminClient,
    /// Image of nodes whose resource names none and that do not run yet.
    pub default_image: Image,
    /// Metrics.
    pub metrics: Metrics,
    /// Progress that `/livez` looks at.
    pub progress: Progress,
    /// Whether this process leads.
    pub leadership: Leadership,
    recorder: Recorder,
}

impl Context {
    /// A context for a process.
    #[must_use]
    pub fn new(
        client: Client,
        nodes: AdminClient,
        default_image: Image,
        leadership: Leadership,
        instance: String,
    ) -> Self {
        let reporter = Reporter { controller: names::FIELD_MANAGER.into(), instance: Some(instance) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            nodes,
            default_image,
            metrics: Metrics::default(),
            progress: Progress::default(),
            leadership,
        }
    }

    /// The time, for conditions.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Tells users what happens. A lost Event changes nothing, so failures are only logged.
    pub async fn event(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(%error, reason, "an Event was not published");
        }
    }
}

/// How long until a resource is visited again.
pub mod requeue {
    use super::Duration;

    /// While something is under way that no watch reports.
    pub const SOON: Duration = Duration::from_secs(2);
    /// After an error, or when a person must act.
    pub const LATER: Duration = Duration::from_secs(10);
    /// When all is well: leaders and progress are read from nodes, not watched.
    pub const STEADY: Duration = Duration::from_secs(10);
    /// When nothing runs.
    pub const IDLE: Duration = Duration::from_secs(300);
}
