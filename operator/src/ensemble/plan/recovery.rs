//! Owns the recovery by force: an Ensemble whose majority is lost for good goes on from one survivor, in a new generation,
//! because a person declared it. Must not know how members join the survivor afterwards (`membership`).
//!
//! Invariant: nothing is given up without a declaration that names the next generation and was not made while a quorum
//! served; the survivor is permitted to go on only when no other volume of its generation is left to a pod, so that the
//! others cannot become a majority again; from then on it is not taken back.

use std::fmt;

use pharos_crds::names::{self, reason};

use super::volumes::{self, GivingUp};
use super::{Member, Observed, Predicate, Step, wait};
use crate::admin::{DiskState, Registered, Role};
use crate::ensemble::permit::Permit;

/// A recovery that the spec declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The generation that is to begin.
    pub generation: u64,
    /// Pod of the member to go on from.
    pub survivor: String,
    /// Whether it was declared when a quorum served.
    pub declined: bool,
}

/// What is noted when a recovery begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecoveryNote {
    /// The generation that is to begin.
    pub generation: u64,
    /// Pod of the member to go on from.
    pub survivor: String,
    /// UIDs of the claims that are given up: a pod without one of these has an empty volume.
    pub claims: Vec<String>,
}

impl fmt::Display for RecoveryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, survivor, volumes) = (self.generation, &self.survivor, self.claims.len());
        write!(
            f,
            "generation {generation} begins with {survivor} alone; {volumes} other volumes are given up"
        )
    }
}

impl Observed {
    /// The latest generation that a volume or the status names.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        let cluster = self.permit.as_ref().map(|permit| &permit.cluster_id).or(self.cluster_id.as_ref());
        let disks = self.present().filter_map(|member| member.identity.as_ref());
        let ours = disks.filter(|disk| {
            disk.state == DiskState::Member && (cluster.is_none() || disk.cluster_id.as_ref() == cluster)
        });
        ours.filter_map(|disk| disk.generation).max().max(self.known_generation)
    }

    /// Whether a recovery is declared that must not happen, since a quorum serves or served when it was declared.
    #[must_use]
    pub fn declines_recovery(&self) -> bool {
        self.ahead().is_some_and(|declared| declared.declined || self.settled().is_some())
    }

    /// The recovery that is declared, if it is not over.
    fn ahead(&self) -> Option<&Declared> {
        let current = self.generation()?;
        self.recovery.as_ref().filter(|declared| declared.generation > current)
    }
}

/// The next step of a recovery that is declared or was permitted; `None` if there is none.
pub(super) fn recover(observed: &Observed) -> Option<Step> {
    let current = observed.generation();
    let to_come = |permit: &&Permit| permit.recovers && (current.is_none() || permit.generation > current);
    if let Some(permit) = observed.permit.as_ref().filter(to_come) {
        return Some(begin(observed, permit));
    }
    let declared = observed.ahead().filter(|_| !observed.declines_recovery())?;
    let refused = |message| Step::Stall { reason: reason::RECOVERY_REFUSED, message };
    Some(prepare(observed, declared, current?).unwrap_or_else(refused))
}

/// A recovery that is declined is told where nothing else is to be done.
pub(super) fn remark(observed: &Observed, step: Step) -> Step {
    let Some(declared) = observed.ahead().filter(|_| observed.declines_recovery()) else { return step };
    let message = match (&step, observed.settled()) {
        (Step::Done, Some(_)) => "a quorum serves, so nothing is to be recovered",
        (Step::Done | Step::Wait(_) | Step::Stall { .. }, None) => "it was declared while a quorum served",
        _ => return step,
    };
    let message = format!(
        "the recovery in generation {} is without effect: {message}; take spec.recovery away, and declare it when it is \
         needed",
        declared.generation
    );
    Step::Stall { reason: reason::RECOVERY_REFUSED, message }
}

/// What a person can do without a quorum.
pub(super) fn advice(observed: &Observed) -> String {
    let knows = |member: &Member| {
        let status = member.status.as_ref().filter(|_| member.id().is_some())?;
        let (accepted, durable) = (status.accepted.as_deref()?, status.durable?);
        Some(format!("{} has accepted {accepted} and slots up to {durable}", member.pod))
    };
    let known: Vec<String> = observed.present().filter_map(knows).collect();
    format!(
        "declare spec.recovery with generation {}, the survivor to go on from ({}) and acknowledge: AcceptLostWrites",
        observed.generation().unwrap_or(1) + 1,
        known.join("; ")
    )
}

/// The survivor reads its permit when it starts.
fn begin(observed: &Observed, permit: &Permit) -> Step {
    let survivor = observed.present().find(|member| {
        let disk = member.identity.as_ref();
        disk.is_some_and(|disk| permit.founders.iter().any(|founder| founder.volume == disk.volume))
    });
    let Some(survivor) = survivor else {
        return wait(Predicate::SurvivorAnswers, "it is to read its permit".into());
    };
    if survivor.terminating {
        return wait(Predicate::PodGone, survivor.pod.clone());
    }
    let generation = permit.generation.unwrap_or_default();
    match survivor.role() {
        // It has read what permit it had, and goes on as before.
        Some(Role::Leader | Role::Follower | Role::Candidate | Role::Learner) => Step::Delete {
            pod: survivor.pod.clone(),
            uid: survivor.uid.clone(),
            why: format!("it is permitted to go on alone in generation {generation}"),
        },
        _ => wait(Predicate::SurvivorAnswers, format!("{} begins generation {generation}", survivor.pod)),
    }
}

/// Makes sure that no other member of the generation runs, now or later; then permits the survivor to go on. The error is
/// why not.
fn prepare(observed: &Observed, declared: &Declared, current: u64) -> Result<Step, String> {
    if declared.generation != current + 1 {
        return Err(format!(
            "spec.recovery names generation {}, but the Ensemble is of generation {current}: the next is {}",
            declared.generation,
            current + 1
        ));
    }
    let place = names::ensemble::ordinal(&declared.survivor).filter(|place| *place < observed.members.len());
    let Some(place) = place else { return Err(format!("there is no pod {}", declared.survivor)) };
    let Some(survivor) = &observed.members[place] else {
        return Ok(wait(Predicate::PodExists, declared.survivor.clone()));
    };
    if survivor.terminating {
        return Ok(wait(Predicate::PodGone, survivor.pod.clone()));
    }
    let Some(registered) = can_go_on(survivor, current)? else {
        return Ok(wait(Predicate::SurvivorAnswers, survivor.pod.clone()));
    };
    is_no_quorum(observed)?;
    let note = observed.recovery_note.as_ref().filter(|note| {
        (note.generation, note.survivor.as_str()) == (declared.generation, declared.survivor.as_str())
    });
    let noted = note.map(|note| note.claims.as_slice());
    match volumes::give_up(observed, noted, place, reason::RECOVERING) {
        Some(GivingUp::Note(claims)) => {
            let (generation, survivor) = (declared.generation, declared.survivor.clone());
            return Ok(Step::NoteRecovery(RecoveryNote { generation, survivor, claims }));
        }
        Some(GivingUp::Step(step)) => return Ok(step),
        None => {}
    }
    let cluster = survivor.identity.as_ref().and_then(|disk| disk.cluster_id.as_deref());
    let cluster = cluster.ok_or_else(|| format!("{} does not say which cluster it is of", survivor.pod))?;
    Ok(Step::AmendPermit(Permit::of_a_survivor(cluster, declared.generation, registered)))
}

/// The survivor as it knows itself; `None` if it does not say yet. The error is why the Ensemble cannot go on from it.
fn can_go_on(survivor: &Member, current: u64) -> Result<Option<&Registered>, String> {
    let Some(disk) = &survivor.identity else { return Ok(None) };
    let pod = &survivor.pod;
    match disk.state {
        DiskState::Blank => return Err(format!("the volume of {pod} is empty: it is no survivor")),
        DiskState::Joining => {
            return Err(format!("{pod} joined and was never sent the state: it is no survivor"));
        }
        DiskState::Founding => return Ok(None),
        DiskState::Member => {}
    }
    if disk.generation.is_some_and(|generation| generation != current) {
        return Err(format!(
            "the volume of {pod} is of an earlier generation: it is no survivor of this one"
        ));
    }
    match survivor.role() {
        None | Some(Role::Founding | Role::Blank | Role::Joining) => return Ok(None),
        Some(Role::Removed) => return Err(format!("{pod} was removed from the Ensemble: it is no survivor")),
        Some(Role::Leader | Role::Follower | Role::Candidate | Role::Learner) => {}
    }
    let Some(membership) = survivor.membership() else { return Ok(None) };
    membership
        .with_volume(&disk.volume)
        .map(Some)
        .ok_or_else(|| format!("{pod} is no member of the Ensemble"))
}

fn is_no_quorum(observed: &Observed) -> Result<(), String> {
    let Some(membership) = observed.membership() else { return Ok(()) };
    let has_volume = |voter: &&Registered| {
        observed.present().any(|member| member.identity.is_some() && !member.terminating && member.is(voter))
    };
    let (there, voters) = (membership.voters().filter(has_volume).count(), membership.voters().count());
    if there < membership.quorum() {
        return Ok(());
    }
    Err(format!(
        "{there} of {voters} voters answer and have their volumes: they are a quorum, and lose nothing"
    ))
}
