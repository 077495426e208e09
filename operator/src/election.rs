//! Owns leader election by a Lease, as client-go does it: one process works, others stand by. Must not know what the
//! leader does.
//!
//! Invariant: `evaluate` is pure; times of other processes are never compared with our clock, only their changes; a
//! process that could not renew in time is told so before another may take over, and exits.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;

/// Another process may take over this long after the last renewal it saw.
const DURATION: Duration = Duration::from_secs(15);
/// The leader gives up this long after its last renewal: well before another may take over.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts.
const RETRY: Duration = Duration::from_secs(2);

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make it: there is none.
    Create,
    /// Take it: it is free, or its holder has not renewed it.
    Acquire,
    /// Renew it: it is ours.
    Renew,
    /// Stand by: it is another's.
    Yield,
}

/// A lease as it was seen, and when it was first seen so, by our own clock.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    record: Option<(String, Option<MicroTime>)>,
    since: Option<Instant>,
}

impl Seen {
    /// Takes note of a lease.
    pub fn note(&mut self, lease: Option<&Lease>, now: Instant) {
        let record = lease
            .and_then(|lease| lease.spec.as_ref())
            .map(|spec| (spec.holder_identity.clone().unwrap_or_default(), spec.renew_time.clone()));
        if record != self.record || self.since.is_none() {
            self.record = record;
            self.since = Some(now);
        }
    }
}

/// What to do about a lease, seen so since some time.
#[must_use]
pub fn evaluate(seen: &Seen, me: &str, now: Instant) -> Verdict {
    match (&seen.record, seen.since) {
        (None, _) => Verdict::Create,
        (Some((holder, _)), _) if holder == me => Verdict::Renew,
        (Some((holder, _)), _) if holder.is_empty() => Verdict::Acquire,
        (Some(_), Some(since)) if now.duration_since(since) > DURATION => Verdict::Acquire,
        _ => Verdict::Yield,
    }
}

/// Whether this process leads, as known to everyone in it.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// Whether it leads now: looked at before every step that takes something down.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds_at(Instant::now())
    }

    fn holds_at(&self, now: Instant) -> bool {
        let renewed = *self.0.lock().expect("no holder of this lock panics");
        renewed.is_some_and(|renewed| now.saturating_duration_since(renewed) < DEADLINE)
    }

    /// Leads without a lease: for tests and for a single process out of a cluster.
    pub fn assume(&self) {
        // Far in the future, so that it never lapses.
        *self.0.lock().expect("no holder of this lock panics") =
            Some(Instant::now() + Duration::from_secs(100 * 365 * 86_400));
    }

    fn renewed(&self, at: Instant) {
        *self.0.lock().expect("no holder of this lock panics") = Some(at);
    }
}

/// The lease and who asks for it.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    leadership: Leadership,
    seen: Seen,
}

impl Elector {
    /// An elector for the lease `name`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, me: &str, leadership: Leadership) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), me: me.to_owned(), leadership, seen: Seen::default() }
    }

    /// Returns when this process leads.
    pub async fn acquire(&mut self) {
        loop {
            if self.attempt().await {
                tracing::info!(lease = self.name, me = self.me, "leading");
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews until the lease is lost; then it returns, and the process must exit.
    pub async fn keep(&mut self) {
        loop {
            tokio::time::sleep(RETRY).await;
            let renewed = tokio::time::timeout(DEADLINE / 2, self.attempt()).await.unwrap_or(false);
            if !renewed && (!self.leadership.holds() || self.is_taken()) {
                tracing::error!(lease = self.name, "the lease is lost");
                return;
            }
        }
    }

    /// Gives the lease back, so that another process need not wait.
    pub async fn release(&mut self) {
        let Ok(Some(lease)) = self.api.get_opt(&self.name).await else { return };
        self.seen.note(Some(&lease), Instant::now());
        if evaluate(&self.seen, &self.me, Instant::now()) == Verdict::Renew {
            let mut lease = lease;
            lease.spec.get_or_insert_default().holder_identity = None;
            if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
                tracing::warn!(%error, "the lease was not given back");
            }
        }
    }

    fn is_taken(&self) -> bool {
        self.seen.record.as_ref().is_some_and(|(holder, _)| holder != &self.me)
    }

    async fn attempt(&mut self) -> bool {
        // Taken before the request: the promise to others runs from when the server stamps it, which is later.
        let begun = Instant::now();
        match self.try_once(begun).await {
            Ok(true) => {
                self.leadership.renewed(begun);
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, lease = self.name, "the lease could not be read or written");
                false
            }
        }
    }

    async fn try_once(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        self.seen.note(lease.as_ref(), now);
        let verdict = evaluate(&self.seen, &self.me, now);
        let written = match verdict {
            Verdict::Yield => return Ok(false),
            Verdict::Create => {
                let fresh = claim(None, &self.name, &self.me, verdict);
                self.api.create(&PostParams::default(), &fresh).await
            }
            Verdict::Acquire | Verdict::Renew => {
                // The resource version in it makes the server refuse if another process was faster.
                let claimed = claim(lease, &self.name, &self.me, verdict);
                self.api.replace(&self.name, &PostParams::default(), &claimed).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen.note(Some(&lease), now);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn claim(lease: Option<Lease>, name: &str, me: &str, verdict: Verdict) -> Lease {
    let now = MicroTime(Timestamp::now());
    let mut lease = lease.unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec::default()),
    });
    let spec = lease.spec.get_or_insert_default();
    if verdict != Verdict::Renew {
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions =
            Some(spec.lease_transitions.unwrap_or_default() + i32::from(verdict == Verdict::Acquire));
    }
    spec.holder_identity = Some(me.to_owned());
    spec.lease_duration_seconds = Some(i32::try_from(DURATION.as_secs()).expect("fifteen"));
    spec.renew_time = Some(now);
    debug_assert_eq!(lease.name_any(), name);
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, second: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            renew_time: Some(MicroTime(Timestamp::from_second(second).expect("a time"))),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_is_taken_only_when_its_holder_was_not_seen_to_renew() {
        let start = Instant::now();
        let mut seen = Seen::default();
        assert_eq!(evaluate(&seen, "a", start), Verdict::Create);
        seen.note(Some(&lease("b", 1)), start);
        assert_eq!(evaluate(&seen, "a", start + DURATION), Verdict::Yield);
        // A renewal, whatever time it claims, starts the wait anew.
        seen.note(Some(&lease("b", 0)), start + DURATION);
        assert_eq!(evaluate(&seen, "a", start + DURATION + Duration::from_secs(1)), Verdict::Yield);
        assert_eq!(evaluate(&seen, "a", start + DURATION * 2 + Duration::from_secs(1)), Verdict::Acquire);
        assert_eq!(evaluate(&seen, "b", start + DURATION * 9), Verdict::Renew);
        seen.note(Some(&lease("", 3)), start);
        assert_eq!(evaluate(&seen, "a", start), Verdict::Acquire);
    }

    #[test]
    fn leadership_lapses_before_another_may_take_over() {
        let (leadership, start) = (Leadership::default(), Instant::now());
        assert!(!leadership.holds());
        leadership.renewed(start);
        assert!(leadership.holds_at(start));
        assert!(!leadership.holds_at(start + DEADLINE));
        const { assert!(DEADLINE.as_secs() < DURATION.as_secs()) };
    }
}
