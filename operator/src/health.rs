//! Owns what `/livez`, `/readyz` and `/metrics` answer. Must not know what a reconcile does.
//!
//! Invariant: `/livez` fails when visits begin and do not end, or when there are resources and none is visited:
//! a wedged watch is repaired by a restart, not hidden by a green probe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::time::Instant;

use crate::context::Context;

/// A visit may take this long.
const LONGEST_VISIT: Duration = Duration::from_secs(120);
/// A resource is visited at least this often, since each visit asks for the next one.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// The progress of visits.
#[derive(Debug, Default)]
pub struct Progress {
    visits: Mutex<Visits>,
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct Visits {
    next: u64,
    under_way: BTreeMap<u64, Instant>,
    /// When each resource is to have been visited again.
    due: BTreeMap<String, Instant>,
}

/// A visit under way.
pub struct Visit<'a> {
    progress: &'a Progress,
    number: u64,
}

impl Progress {
    /// A visit to a resource begins.
    pub fn begin(&self, resource: &str) -> Visit<'_> {
        let now = Instant::now();
        let mut visits = self.visits.lock().expect("no holder of this lock panics");
        visits.next += 1;
        let number = visits.next;
        visits.under_way.insert(number, now);
        visits.due.insert(resource.to_owned(), now + LONGEST_SILENCE);
        Visit { progress: self, number }
    }

    /// A resource is gone and will not be visited again.
    pub fn forget(&self, resource: &str) {
        self.visits.lock().expect("no holder of this lock panics").due.remove(resource);
    }

    /// Resources with this prefix that are not among these are gone: no watch reports it where only changes of specs
    /// are looked at.
    pub fn retain(&self, prefix: &str, resources: &[String]) {
        let mut visits = self.visits.lock().expect("no holder of this lock panics");
        visits.due.retain(|key, _| !key.starts_with(prefix) || resources.contains(key));
    }

    /// This process has what it needs to work.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    fn stuck(&self, now: Instant) -> Option<String> {
        let visits = self.visits.lock().expect("no holder of this lock panics");
        if visits.under_way.values().any(|begun| now.duration_since(*begun) > LONGEST_VISIT) {
            return Some("a visit does not end".into());
        }
        visits
            .due
            .iter()
            .find(|(_, due)| now > **due)
            .map(|(resource, _)| format!("{resource} is not visited"))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut visits = self.progress.visits.lock().expect("no holder of this lock panics");
        visits.under_way.remove(&self.number);
    }
}

/// The routes of the operator's own port.
pub fn routes(context: Arc<Context>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async |State(context): State<Arc<Context>>| context.metrics.text()))
        .with_state(context)
}

async fn livez(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    match context.progress.stuck(Instant::now()) {
        None => (StatusCode::OK, "ok\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn readyz(State(context): State<Arc<Context>>) -> (StatusCode, &'static str) {
    if context.progress.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered yet\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_that_does_not_end_and_a_resource_not_visited_are_seen() {
        let progress = Progress::default();
        let start = Instant::now();
        let visit = progress.begin("ensemble a/b");
        assert_eq!(progress.stuck(start), None);
        let later = Instant::now() + LONGEST_VISIT + Duration::from_secs(1);
        assert_eq!(progress.stuck(later).as_deref(), Some("a visit does not end"));
        drop(visit);
        assert_eq!(progress.stuck(later), None);
        let much_later = later + LONGEST_SILENCE;
        assert_eq!(progress.stuck(much_later).as_deref(), Some("ensemble a/b is not visited"));
        progress.retain("pipeline", &[]);
        assert!(progress.stuck(much_later).is_some());
        progress.retain("ensemble", &[]);
        assert_eq!(progress.stuck(much_later), None);
    }
}
