//! Owns which volumes go, and in which order, before an Ensemble goes on from one that stays: a survivor's, or one that a
//! backup was put on. Must not know which of the two it is, nor what lets it go on.
//!
//! Invariant: it is over only when no other volume is left to a pod but such as are known to be empty, or were made after
//! it began.

use std::collections::BTreeSet;

use super::{Observed, Predicate, Step, wait};
use crate::admin::DiskState;

/// A pod's claim of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its UID.
    pub uid: String,
    /// Whether it was asked to go.
    pub leaving: bool,
    /// The restore of this Ensemble that it was made for, if it was made for one.
    pub restores: Option<super::RestoreOrder>,
}

/// What is to be done before no other volume is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GivingUp {
    /// All claims that are given up are to be noted first.
    Note(Vec<String>),
    /// The next step.
    Step(Step),
}

/// What must go before the Ensemble goes on from the volume of the place that `stays`; `noted` are the claims that are
/// given up so far, none if it has not begun.
pub(super) fn give_up(
    observed: &Observed,
    noted: Option<&[String]>,
    stays: usize,
    during: &'static str,
) -> Option<GivingUp> {
    let others = || (0..observed.members.len()).filter(|ordinal| *ordinal != stays);
    let pod = |ordinal: usize| observed.members[ordinal].as_ref();
    let state = |ordinal: usize| Some(pod(ordinal)?.identity.as_ref()?.state);
    let holds = |ordinal: &usize| match state(*ordinal) {
        Some(DiskState::Blank) => false,
        Some(_) => true,
        None => noted.is_none(),
    };
    let mut given_up: BTreeSet<&str> = noted.iter().copied().flatten().map(String::as_str).collect();
    let before = given_up.len();
    given_up.extend(
        others().filter(holds).filter_map(|ordinal| observed.claim(ordinal)).map(|claim| &*claim.uid),
    );
    if noted.is_none() || given_up.len() > before {
        return Some(GivingUp::Note(given_up.into_iter().map(str::to_owned).collect()));
    }
    others().find_map(|ordinal| {
        let (pod, claim) = (pod(ordinal), observed.claim(ordinal));
        // One that was asked to go takes with it what its pod may have by then.
        if state(ordinal) == Some(DiskState::Blank) && claim.is_some_and(|claim| !claim.leaving) {
            return None;
        }
        let old = claim.is_some_and(|claim| given_up.contains(claim.uid.as_str()));
        let leaves = claim.is_none_or(|claim| claim.leaving);
        let step = match pod {
            // A claim that was made since: its volume is empty.
            _ if claim.is_some() && !old && !leaves => return None,
            None if claim.is_none() => return None,
            None => wait(Predicate::PodExists, format!("ordinal {ordinal}, to give its volume up")),
            Some(pod) if pod.terminating && leaves => wait(Predicate::PodGone, pod.pod.clone()),
            Some(pod) => Step::GiveUp { pod: pod.pod.clone(), uid: pod.uid.clone(), during },
        };
        Some(GivingUp::Step(step))
    })
}

impl Observed {
    /// The claim of a place.
    pub(super) fn claim(&self, ordinal: usize) -> Option<&Claim> {
        self.claims.get(ordinal)?.as_ref()
    }
}
