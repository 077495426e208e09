//! Owns the restore: an Ensemble goes on from a backup, in a new generation, because a person declared it. A volume more
//! than there are pods is filled first, while all else goes on; then all others are given up and the pod of that volume
//! comes. Must not know how a volume is filled, nor how members join the one that goes on (`membership`).
//!
//! Invariant: no volume is given up before the backup is whole and durable on the new one, nor without an acknowledgement
//! if any holds data; what is given up cannot come back when the new generation begins; and from the note that the volume
//! is filled on, the restore is not taken back.

use std::fmt;

use pharos_crds::names::reason;
use serde::{Deserialize, Serialize};

use super::founding::{self, Founding, founding};
use super::volumes::{self, GivingUp};
use super::{Observed, Predicate, Step, replace_broken, wait};
use crate::admin::DiskState;
use crate::ensemble::permit::{Permit, PermitMember};

/// A restore that the spec declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOrder {
    /// Where the backup is.
    pub from: String,
    /// The generation that is to begin, acknowledged; none for an Ensemble that holds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The Secret with what opens the place of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

/// What is noted of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreNote {
    /// What was declared when it began.
    pub order: RestoreOrder,
    /// Ordinal of the new volume.
    pub place: usize,
    /// What is on the new volume, once it is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// UIDs of the claims that are given up: a pod without one of these has an empty volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<String>,
}

/// What a backup became, in the words of `pharos-node restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The cluster that the backup is of.
    pub cluster_id: String,
    /// The generation that begins.
    pub generation: u64,
    /// Its only member.
    pub member: PermitMember,
}

/// The pod that fills a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePod {
    /// Its UID.
    pub uid: String,
    /// What it was made for; none if it does not say.
    pub order: Option<RestoreOrder>,
    /// Whether it was asked to go.
    pub terminating: bool,
    /// How far it is.
    pub state: RestoreState,
}

/// How far a volume is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreState {
    /// It is under way, or about to be.
    Runs(String),
    /// It failed, and is tried again.
    Fails(String),
    /// It fails until a person changes something.
    Stuck(String),
    /// The backup is on the volume.
    Restored(Restored),
}

impl RestoreNote {
    fn new(observed: &Observed, order: &RestoreOrder) -> Self {
        let (order, place) = (order.clone(), observed.members.len());
        Self { order, place, restored: None, claims: Vec::new() }
    }
}

impl fmt::Display for RestoreNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, volumes) = (&self.order.from, self.claims.len());
        match &self.restored {
            None => {
                write!(f, "{from} is restored to a new volume; nothing is given up before it is whole there")
            }
            Some(restored) => write!(
                f,
                "generation {} begins with what was restored from {from}; {volumes} other volumes are given up",
                restored.generation
            ),
        }
    }
}

/// The next step, given the one that would be taken if nothing were to be restored.
pub(super) fn restore(observed: &Observed, otherwise: impl FnOnce() -> Step) -> Step {
    let note = observed.restore_note.as_ref().filter(|note| !is_over(observed, note));
    if let Some((note, restored)) = note.and_then(|note| Some((note, note.restored.as_ref()?))) {
        return go_on(observed, note, restored);
    }
    match (note, ahead(observed)) {
        (None, None) => remark(observed, otherwise()),
        (None, Some(order)) => begin(observed, order, otherwise),
        (Some(note), Some(order)) if note.order == *order => meanwhile(fill(observed, note), otherwise),
        (Some(note), _) => abandon(observed, note),
    }
}

/// Whether the generation of a restore has begun.
fn is_over(observed: &Observed, note: &RestoreNote) -> bool {
    note.restored.as_ref().is_some_and(|restored| {
        let ours = observed.permit.as_ref().is_some_and(|permit| permit.cluster_id == restored.cluster_id);
        ours && observed.generation() >= Some(restored.generation)
    })
}

/// The restore that is declared, if it is not over: without a generation only while no volume holds anything.
fn ahead(observed: &Observed) -> Option<&RestoreOrder> {
    let unfounded = matches!(founding(observed), Founding::Reporting(_) | Founding::Ready);
    let current = observed.generation().unwrap_or(1);
    let later = |order: &&RestoreOrder| order.generation.is_some_and(|generation| generation > current);
    observed.restore.as_ref().filter(|order| unfounded || later(order))
}

/// An Ensemble that holds nothing begins to restore when that is known of all its volumes.
fn begin(observed: &Observed, order: &RestoreOrder, otherwise: impl FnOnce() -> Step) -> Step {
    match founding(observed) {
        Founding::Reporting(_) | Founding::UnderWay(_) => return otherwise(),
        Founding::Ready if founding::resize(observed).is_some() => return otherwise(),
        Founding::Ready | Founding::Founded(_) | Founding::Broken { .. } => {}
    }
    Step::NoteRestore(Some(RestoreNote::new(observed, order)))
}

/// While a volume is filled, members are looked after as ever. But none comes, for its place may be the new volume's, and
/// nothing is founded beside what is restored.
fn meanwhile(own: Step, otherwise: impl FnOnce() -> Step) -> Step {
    if !matches!(own, Step::Wait(_) | Step::Stall { .. }) {
        return own;
    }
    match otherwise() {
        Step::Done | Step::Wait(_) | Step::Stall { .. } | Step::Scale { .. } | Step::WritePermit(_) => own,
        step => step,
    }
}

/// Fills a new volume.
fn fill(observed: &Observed, note: &RestoreNote) -> Step {
    let order = &note.order;
    let claim = observed.claim(note.place);
    if let Some(step) = claim.and_then(|claim| clear_place(claim, note)) {
        return step;
    }
    let Some(pod) = &observed.restore_pod else {
        return Step::Restore { order: order.clone(), place: note.place };
    };
    if pod.terminating {
        return wait(Predicate::PodGone, "the one that restores".into());
    }
    // Of an attempt before, or its claim was taken away.
    if pod.order.as_ref() != Some(order) || claim.is_none() {
        return Step::ClearRestore { pod: Some(pod.uid.clone()), claim: None };
    }
    match &pod.state {
        RestoreState::Runs(what) => wait(Predicate::BackupRestored, format!("{}: {what}", order.from)),
        RestoreState::Fails(why) => wait(Predicate::BackupRestored, format!("it is tried again: {why}")),
        RestoreState::Stuck(why) => Step::Stall { reason: reason::RESTORE_FAILED, message: why.clone() },
        RestoreState::Restored(restored) => commit(observed, note, restored),
    }
}

/// A claim of the new volume's name that was not made for it.
fn clear_place(claim: &volumes::Claim, note: &RestoreNote) -> Option<Step> {
    let (place, uid) = (note.place, claim.uid.clone());
    if claim.leaving {
        let what = format!("the claim of ordinal {place}, whose name the new volume is to have");
        return Some(wait(Predicate::PodGone, what));
    }
    if claim.restores.as_ref() == Some(&note.order) {
        return None;
    }
    // What it holds nobody has looked at.
    if claim.restores.is_none() && note.order.generation.is_none() {
        let message = format!(
            "a volume of an earlier Ensemble stays on ordinal {place}, where the backup is to be restored: delete its claim"
        );
        return Some(Step::Stall { reason: reason::RESTORE_REFUSED, message });
    }
    Some(Step::ClearRestore { pod: None, claim: Some((place, uid)) })
}

/// The volume is filled: from this note on the others are given up.
fn commit(observed: &Observed, note: &RestoreNote, restored: &Restored) -> Step {
    if note.order.generation.is_none() && founding(observed) != Founding::Ready {
        return wait(Predicate::FoundersReport, "all volumes must be known to be empty".into());
    }
    let claims = match volumes::give_up(observed, None, note.place, reason::RESTORING) {
        Some(GivingUp::Note(claims)) => claims,
        _ => Vec::new(),
    };
    Step::NoteRestore(Some(RestoreNote { restored: Some(restored.clone()), claims, ..note.clone() }))
}

/// What was declared is declared no more, and nothing was given up for it.
fn abandon(observed: &Observed, note: &RestoreNote) -> Step {
    let pod = observed.restore_pod.as_ref();
    if pod.is_some_and(|pod| pod.terminating) {
        return wait(Predicate::PodGone, "the one that restores what is declared no more".into());
    }
    let ours = |claim: &&volumes::Claim| claim.restores.is_some() && !claim.leaving;
    let claim = observed.claim(note.place).filter(ours).map(|claim| (note.place, claim.uid.clone()));
    let pod = pod.map(|pod| pod.uid.clone());
    if pod.is_none() && claim.is_none() { Step::NoteRestore(None) } else { Step::ClearRestore { pod, claim } }
}

/// Gives all other volumes up, then lets the pod of the new one come.
fn go_on(observed: &Observed, note: &RestoreNote, restored: &Restored) -> Step {
    match volumes::give_up(observed, Some(&note.claims), note.place, reason::RESTORING) {
        Some(GivingUp::Note(_)) if note.order.generation.is_none() => {
            let message =
                "a volume that was empty holds data now: nothing was declared to be given up".into();
            return Step::Stall { reason: reason::STALE_DISK, message };
        }
        Some(GivingUp::Note(claims)) => {
            return Step::NoteRestore(Some(RestoreNote { claims, ..note.clone() }));
        }
        Some(GivingUp::Step(step)) => return step,
        None => {}
    }
    let permit = Permit::of_a_backup(&restored.cluster_id, restored.generation, &restored.member);
    if observed.permit.as_ref() != Some(&permit) {
        return Step::PermitRestored(permit);
    }
    match &observed.restore_pod {
        // Its volume is to be mounted by another.
        Some(pod) if pod.terminating => return wait(Predicate::PodGone, "the one that restored".into()),
        Some(pod) => return Step::ClearRestore { pod: Some(pod.uid.clone()), claim: None },
        None => {}
    }
    if observed.members.len() <= note.place {
        return Step::Scale { pods: note.place + 1, reason: reason::RESTORING };
    }
    come(observed, note, restored)
}

/// The member on the new volume begins the generation.
fn come(observed: &Observed, note: &RestoreNote, restored: &Restored) -> Step {
    let Some(pod) = &observed.members[note.place] else {
        return wait(Predicate::PodExists, format!("ordinal {}", note.place));
    };
    if pod.terminating {
        return wait(Predicate::PodGone, pod.pod.clone());
    }
    match &pod.identity {
        // The new volume was lost before anybody else had what was on it: the backup is still there.
        Some(disk) if disk.volume != restored.member.volume && disk.state == DiskState::Blank => {
            Step::NoteRestore(Some(RestoreNote::new(observed, &note.order)))
        }
        Some(disk) if disk.volume != restored.member.volume => Step::Stall {
            reason: reason::STALE_DISK,
            message: format!("the volume of {} is not the one that was restored", pod.pod),
        },
        _ => replace_broken(observed).unwrap_or_else(|| {
            let what = pod.trouble.as_deref().unwrap_or("it starts");
            wait(Predicate::RestoredAnswers, format!("{}: {what}", pod.pod))
        }),
    }
}

/// A restore that says nothing of what exists is told where nothing else is to be done, unless it is how it began.
fn remark(observed: &Observed, step: Step) -> Step {
    let Some(order) = observed.restore.as_ref().filter(|order| order.generation.is_none()) else {
        return step;
    };
    let is_it = |note: &RestoreNote| note.restored.is_some() && note.order.from == order.from;
    if step != Step::Done || observed.restore_note.as_ref().is_some_and(is_it) {
        return step;
    }
    let current = observed.generation().unwrap_or(1);
    let message = format!(
        "spec.restore is without effect, for the volumes hold an Ensemble of generation {current}: name generation {} and \
         acknowledge: AcceptLostData to give up what they hold, or take it away",
        current + 1
    );
    Step::Stall { reason: reason::RESTORE_REFUSED, message }
}
