//! Owns the operator's metrics and their names. Must not know what is counted.
//!
//! Invariant: every metric carries its unit in its name.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of reconcile metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reconcile {
    /// Which controller.
    pub controller: &'static str,
}

/// Labels of error metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    /// Which controller.
    pub controller: &'static str,
    /// Name of the error.
    pub reason: &'static str,
}

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    durations: Family<Reconcile, Histogram, fn() -> Histogram>,
    errors: Family<Failure, Counter>,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations: Family<Reconcile, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14)));
        let errors = Family::default();
        let leader = Gauge::default();
        let mut registry = Registry::with_prefix("pharos");
        registry.register("reconcile_duration_seconds", "Time of a visit to a resource", durations.clone());
        registry.register("reconcile_errors", "Visits that failed", errors.clone());
        registry.register("operator_leader", "1 while this process leads", leader.clone());
        Self { registry, durations, errors, leader }
    }
}

impl Metrics {
    /// A visit ended.
    pub fn visited(&self, controller: &'static str, seconds: f64) {
        self.durations.get_or_create(&Reconcile { controller }).observe(seconds);
    }

    /// A visit failed.
    pub fn failed(&self, controller: &'static str, reason: &'static str) {
        self.errors.get_or_create(&Failure { controller, reason }).inc();
    }

    /// This process leads.
    pub fn leads(&self) {
        self.leader.set(1);
    }

    /// All metrics as Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}
