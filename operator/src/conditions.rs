//! Owns the bookkeeping of conditions. Must not know what any condition means.
//!
//! Invariant: every condition of a kind is present after the first visit, with the generation it speaks of, and
//! `lastTransitionTime` changes only when `status` does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
}

impl Truth {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What is to be said of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Type of the condition.
    pub condition: &'static str,
    /// Its status.
    pub truth: Truth,
    /// Its reason, CamelCase.
    pub reason: &'static str,
    /// Its message, for people.
    pub message: String,
}

impl Verdict {
    /// A verdict on a condition.
    #[must_use]
    pub fn new(
        condition: &'static str,
        truth: impl Into<Truth>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { condition, truth: truth.into(), reason, message: message.into() }
    }
}

/// The conditions after this visit. Conditions of other types (another tool's) are kept behind ours.
#[must_use]
pub fn merge(
    old: &[Condition],
    verdicts: Vec<Verdict>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let foreign =
        old.iter().filter(|one| verdicts.iter().all(|verdict| verdict.condition != one.type_)).cloned();
    let foreign: Vec<Condition> = foreign.collect();
    let ours = verdicts.into_iter().map(|verdict| {
        let status = verdict.truth.as_str();
        let before = old.iter().find(|one| one.type_ == verdict.condition && one.status == status);
        Condition {
            type_: verdict.condition.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            // The API allows 32,768 characters; a status should stay far below.
            message: shorten(verdict.message, 2048),
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| Time(seconds(now)), |one| one.last_transition_time.clone()),
        }
    });
    ours.chain(foreign).collect()
}

/// Whether a condition is `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], condition: &str) -> bool {
    conditions.iter().any(|one| one.type_ == condition && one.status == "True")
}

/// The API keeps whole seconds; a fraction would make every status differ from what is stored.
fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).expect("a time without its fraction is a time")
}

fn shorten(text: String, most: usize) -> String {
    if text.chars().count() <= most { text } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// The rules of kstatus, by which Flux, Argo CD and `kubectl wait` users read an object.
#[cfg(test)]
pub(crate) mod kstatus {
    use super::{Condition, is_true};

    #[derive(Debug, PartialEq, Eq)]
    pub(crate) enum Verdict {
        InProgress,
        Failed,
        Current,
    }

    pub(crate) fn compute(generation: i64, observed: Option<i64>, conditions: &[Condition]) -> Verdict {
        if observed.is_some_and(|observed| observed != generation) {
            return Verdict::InProgress;
        }
        if is_true(conditions, "Stalled") {
            return Verdict::Failed;
        }
        if is_true(conditions, "Reconciling") {
            return Verdict::InProgress;
        }
        match conditions.iter().find(|one| one.type_ == "Ready") {
            Some(ready) if ready.status == "True" => Verdict::Current,
            Some(_) => Verdict::InProgress,
            None => Verdict::Current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let first = merge(&[], vec![Verdict::new("Ready", false, "Starting", "a")], Some(1), at(10));
        let second = merge(&first, vec![Verdict::new("Ready", false, "NoQuorum", "b")], Some(2), at(20));
        assert_eq!((second[0].last_transition_time.0, second[0].observed_generation), (at(10), Some(2)));
        let third = merge(&second, vec![Verdict::new("Ready", true, "Serving", "c")], Some(2), at(30));
        assert_eq!(third[0].last_transition_time.0, at(30));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let theirs = merge(&[], vec![Verdict::new("Audited", true, "Yes", "")], None, at(1));
        let both = merge(&theirs, vec![Verdict::new("Ready", true, "Serving", "")], Some(1), at(2));
        assert_eq!(both.iter().map(|one| one.type_.as_str()).collect::<Vec<_>>(), ["Ready", "Audited"]);
    }
}
