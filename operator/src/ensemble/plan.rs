//! Owns the decision: what was seen and what is wanted go in, the next safe step comes out. Must not know Kubernetes,
//! HTTP, a clock or what was decided before.
//!
//! Invariant: a step never takes a serving voter down while another one is down, never leaves fewer than a quorum
//! serving, takes no pod or volume of a member away unless a recovery by force or a restore is declared, and repeated steps
//! end as soon as members come up again (property tests below prove all four).

mod founding;
mod membership;
mod predicate;
mod recovery;
mod registry;
mod restore;
mod roll;
mod seats;
mod volumes;

use super::permit::Permit;
use crate::admin::{DiskState, Identity, NodeStatus, Role};

pub use founding::{Founding, founding};
pub use predicate::{Predicate, Wait};
pub use recovery::{Declared, RecoveryNote};
pub use restore::{RestoreNote, RestoreOrder, RestorePod, RestoreState, Restored};
pub use volumes::Claim;

/// What was seen of an Ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether the StatefulSet controller has seen the latest template, so that revisions can be compared.
    pub revision_known: bool,
    /// Its members by ordinal, as many as the StatefulSet has pods; `None` where there is no pod.
    pub members: Vec<Option<Member>>,
    /// Number of voters wanted.
    pub wanted: usize,
    /// The permit, once written.
    pub permit: Option<Permit>,
    /// The cluster that the status names, from an earlier visit.
    pub cluster_id: Option<String>,
    /// The latest generation that the status names, from an earlier visit.
    pub known_generation: Option<u64>,
    /// The recovery that the spec declares.
    pub recovery: Option<Declared>,
    /// What was noted when a recovery was begun.
    pub recovery_note: Option<RecoveryNote>,
    /// The restore that the spec declares.
    pub restore: Option<RestoreOrder>,
    /// What was noted when a restore was begun.
    pub restore_note: Option<RestoreNote>,
    /// The pod that fills a volume from a backup.
    pub restore_pod: Option<RestorePod>,
    /// Claims of the pods and of a place more, by ordinal: known only where a recovery or a restore may have to do with
    /// them.
    pub claims: Vec<Option<Claim>>,
    /// What was noted at the last restart that the operator asked for.
    pub note: Option<RollNote>,
    /// What was noted at the last change of voters that the operator asked for.
    pub switch: Option<SwitchNote>,
}

/// What was seen of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Whether it was made from the latest template.
    pub up_to_date: bool,
    /// Whether it was asked to go.
    pub terminating: bool,
    /// Whether its container runs.
    pub running: bool,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
    /// Whether it serves clients: its readiness and its own word.
    pub serving: bool,
    /// Whether and how it fails to run.
    pub health: Health,
    /// Why its container does not run or its pod finds no node, for people.
    pub trouble: Option<String>,
    /// What it says about its disk.
    pub identity: Option<Identity>,
    /// What it says about itself.
    pub status: Option<NodeStatus>,
}

/// Whether a pod does what its template says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It was ready at some time since it was made.
    WasReady,
    /// It was never ready since it was made.
    NeverReady,
    /// Its container does not start, or starts and ends again and again.
    Crashed,
}

/// What is noted when a serving pod is asked to go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RollNote {
    /// The pod.
    pub pod: String,
    /// Its UID at that time.
    pub uid: String,
    /// The leader's commit index at that time.
    pub commit: u64,
}

/// What is noted when the leader is asked for other voters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SwitchNote {
    /// The configuration that is to end.
    pub config: u64,
    /// The leader's epoch at that time.
    pub epoch: u64,
    /// The last slot that the leader had applied then.
    pub applied: u64,
    /// The members at that time, learners among them.
    pub registered: Vec<i64>,
}

impl SwitchNote {
    /// Whether what was asked then may still come to pass, by what a leader says now. Nothing follows the end of a
    /// configuration in its log: so a later epoch in it, or another list of members at a later slot, proves that it was
    /// not ended by then, and it never will be by that call.
    fn may_come_to_pass(&self, now: &Self) -> bool {
        let same_members = now.applied < self.applied || now.registered == self.registered;
        now.config < self.config || (now.config == self.config && now.epoch <= self.epoch && same_members)
    }
}

/// The next safe step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Done,
    /// Not now, and why.
    Wait(Wait),
    /// Write the founding permit.
    WritePermit(Permit),
    /// A person must repair something.
    Stall {
        /// Reason of the condition.
        reason: &'static str,
        /// What is wrong and what can be done.
        message: String,
    },
    /// Delete a pod that serves nobody.
    Delete {
        /// The pod.
        pod: String,
        /// Its UID: another pod of this name is left alone.
        uid: String,
        /// Why it may be replaced.
        why: String,
    },
    /// Hand the leadership over, asking the leader.
    Transfer {
        /// Pod of the leader.
        leader: String,
        /// Member that takes over.
        to: i64,
        /// What it is a part of: a reason of conditions.
        during: &'static str,
    },
    /// Evict a serving pod.
    Evict(RollNote),
    /// Have another number of pods.
    Scale {
        /// How many.
        pods: usize,
        /// Why: a reason of conditions.
        reason: &'static str,
    },
    /// Ask the leader to put volumes on its list of members, as learners.
    Register {
        /// Pod of the leader.
        leader: String,
        /// The ordinals and their volumes.
        joiners: Vec<(usize, String)>,
    },
    /// Ask the leader to strike a learner off its list.
    Deregister {
        /// Pod of the leader.
        leader: String,
        /// The learner.
        id: i64,
    },
    /// Name those who join in the permit, or those who joined no more.
    AmendPermit(Permit),
    /// Ask the leader for other voters.
    Switch(Switch),
    /// Delete the volume of a member that was removed, and its pod.
    Discard {
        /// The pod.
        pod: String,
        /// Its UID: the volume of another pod of this name is left alone.
        uid: String,
        /// The member that was removed.
        id: i64,
    },
    /// Note that a recovery begins, and which volumes are given up.
    NoteRecovery(RecoveryNote),
    /// Delete the volume of a member that a recovery or a restore does without, and its pod.
    GiveUp {
        /// The pod.
        pod: String,
        /// Its UID: the volume of another pod of this name is left alone.
        uid: String,
        /// What it is a part of: a reason of conditions.
        during: &'static str,
    },
    /// Note that a restore begins, how far it is, or that there is none any more.
    NoteRestore(Option<RestoreNote>),
    /// Make a claim for this place, and a pod that fills its volume from the backup.
    Restore {
        /// What is restored.
        order: RestoreOrder,
        /// Ordinal of the place.
        place: usize,
    },
    /// Delete the pod that fills a volume, or the claim that was made for it.
    ClearRestore {
        /// UID of the pod, if it is to go.
        pod: Option<String>,
        /// Ordinal and UID of the claim, if it is to go.
        claim: Option<(usize, String)>,
    },
    /// Write the permit of an Ensemble that goes on from the volume that was filled.
    PermitRestored(Permit),
}

/// A change of voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Pod of the leader.
    pub leader: String,
    /// Who is to vote.
    pub voters: Vec<i64>,
    /// What is noted before the leader is asked.
    pub note: SwitchNote,
    /// Whether it was asked before, so that a refusal may mean that it is under way.
    pub asked_before: bool,
    /// What it is for: a reason of conditions.
    pub reason: &'static str,
}

impl Observed {
    /// Pods there are.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    /// Pods that have not read the permit yet: the kubelet is asked to look again.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let Some(permit) = &self.permit else { return Vec::new() };
        let unread = |member: &&Member| {
            let identity = member.identity.as_ref();
            identity.is_some_and(|disk| disk.state == DiskState::Blank && permit.names_volume(&disk.volume))
        };
        self.present().filter(unread).map(|member| member.pod.clone()).collect()
    }
}

impl Member {
    fn serves(&self) -> bool {
        self.serving && !self.terminating
    }

    fn role(&self) -> Option<Role> {
        self.status.as_ref().map(|status| status.role)
    }

    /// Its identity, once it is a member: until then it says 0.
    #[must_use]
    pub fn id(&self) -> Option<i64> {
        self.status.as_ref().and_then(|status| status.member_id).filter(|id| *id > 0)
    }

    fn applied(&self) -> u64 {
        self.status.as_ref().map_or(0, |status| status.applied)
    }
}

/// The next safe step.
#[must_use]
pub fn plan(observed: &Observed, new_permit: impl FnOnce(&[Identity]) -> Permit) -> Step {
    restore::restore(observed, || tend(observed, new_permit))
}

/// The next step where nothing is to be restored.
fn tend(observed: &Observed, new_permit: impl FnOnce(&[Identity]) -> Permit) -> Step {
    if let Some(step) = replace_broken(observed) {
        return step;
    }
    match founding(observed) {
        Founding::Broken { reason, message } => return Step::Stall { reason, message },
        Founding::Reporting(detail) => {
            let resized = founding::resize(observed);
            return resized.unwrap_or_else(|| wait(Predicate::FoundersReport, detail));
        }
        Founding::Ready => {
            let identities: Vec<Identity> =
                observed.present().filter_map(|member| member.identity.clone()).collect();
            let resized = founding::resize(observed);
            return resized.unwrap_or_else(|| Step::WritePermit(new_permit(&identities)));
        }
        Founding::UnderWay(detail) => return wait(Predicate::ClusterFounded, detail),
        Founding::Founded(_) => {}
    }
    let step = recovery::recover(observed).or_else(|| membership::settle(observed));
    recovery::remark(observed, step.unwrap_or_else(|| roll::roll(observed)))
}

/// A pod that crashes or was never ready may always be replaced by a newer template: it serves nobody, its disk is
/// durable, and a bad template that was taken back must not stick.
fn replace_broken(observed: &Observed) -> Option<Step> {
    if !observed.revision_known {
        return None;
    }
    let mut outdated =
        observed.present().filter(|member| !member.up_to_date && !member.terminating && !member.serving);
    let broken = outdated.find(|member| match member.health {
        Health::Crashed => true,
        Health::NeverReady => !is_fed(observed, member),
        Health::WasReady => false,
    })?;
    let why = match broken.health {
        Health::Crashed => "its container does not run",
        Health::NeverReady | Health::WasReady => "it was never ready",
    };
    Some(Step::Delete {
        pod: broken.pod.clone(),
        uid: broken.uid.clone(),
        why: format!("{why}, and its template is outdated"),
    })
}

/// Whether a leader feeds a member that votes or is about to: it is not ready since it was not asked to serve yet.
fn is_fed(observed: &Observed, member: &Member) -> bool {
    match member.role() {
        Some(Role::Follower | Role::Leader) => true,
        Some(Role::Learner | Role::Joining) => {
            let votes = observed.registered(member).is_some_and(|registered| registered.voter);
            votes || observed.switch_may_be_under_way()
        }
        // It may be about to vote, and one answer that did not come proves nothing.
        None => member.running && observed.switch_may_be_under_way(),
        Some(_) => false,
    }
}

fn wait(predicate: Predicate, detail: String) -> Step {
    Step::Wait(Wait { predicate, detail })
}

fn not_serving(member: &Member) -> Step {
    let role = member.role().map_or("unreachable", Role::as_str);
    let what = member.trouble.as_deref().unwrap_or(role);
    wait(Predicate::MemberServes, format!("{}: {what}", member.pod))
}

#[cfg(test)]
mod tests;
