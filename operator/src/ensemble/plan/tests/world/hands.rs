//! What the operator does in a small world, each step after a check that it is safe.

use super::*;

/// When the operator dies in the middle of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Before what it asks for.
    BeforeTheCall,
    /// Before it knows the answer.
    BeforeTheAnswer,
}

impl World {
    fn index(&self, uid: &str) -> Option<usize> {
        self.pods.iter().find(|(_, pod)| pod.uid.to_string() == uid).map(|(ordinal, _)| *ordinal)
    }

    /// Carries a step out, after checking that it is safe.
    pub(super) fn carry_out(&mut self, step: &Step, death: Option<Death>) {
        if death == Some(Death::BeforeTheCall) && !matches!(step, Step::Switch(_)) {
            return;
        }
        match step {
            Step::Done | Step::Wait(_) => {}
            Step::Stall { reason: reason::RESTORE_FAILED | reason::RESTORE_REFUSED, .. } => {
                assert!(self.restore.is_some(), "nothing is declared to be restored");
            }
            Step::WritePermit(_) | Step::Stall { .. } => {
                panic!("a quorum of the volumes is there, and the cluster is founded: {step:?}")
            }
            Step::Scale { pods, .. } => {
                for ordinal in *pods..self.set {
                    let needed = self.claims.get(&ordinal).is_some_and(|volume| self.is_needed(*volume));
                    assert!(!needed, "a pod goes that votes or will vote");
                }
                self.set = *pods;
            }
            Step::Register { joiners, .. } => {
                for (ordinal, volume) in joiners {
                    self.ask(Change::Register(*ordinal, number(volume)));
                }
            }
            Step::Deregister { id, .. } => {
                assert!(!self.registry.votes(*id), "a voter is struck off");
                self.ask(Change::Deregister(*id));
            }
            Step::AmendPermit(permit) => {
                if permit.recovers {
                    self.may_recover(permit);
                } else {
                    let founders = self.permit.as_ref().map(|before| &before.founders);
                    assert_eq!(Some(&permit.founders), founders, "the founders stay as they were");
                }
                self.write_permit(permit);
            }
            Step::PermitRestored(permit) => {
                self.may_go_on(permit);
                self.write_permit(permit);
            }
            Step::NoteRestore(note) => self.note_restore(note.as_ref()),
            Step::Restore { order, place } => self.fill(order, *place, death),
            Step::ClearRestore { pod, claim } => self.clear_restore(pod.as_deref(), claim.as_ref(), death),
            Step::Switch(switch) => self.switch_voters(switch, death),
            Step::Discard { uid, .. } => self.discard(uid),
            Step::NoteRecovery(note) => (self.recovery_note, self.note) = (Some(note.clone()), None),
            Step::GiveUp { uid, .. } => self.give_up(uid, death),
            Step::Delete { uid, .. } => {
                let Some(ordinal) = self.index(uid) else { return };
                let others = self.registry.voters();
                assert!(!self.serves_at(ordinal) || self.up(&others) - 1 > others.len() / 2);
                let volume = self.pods[&ordinal].volume;
                let switches = self.sealed.is_some() && self.leader.is_some();
                assert!(!switches || !self.is_needed(volume) || !self.runs_at(ordinal));
                self.pods.entry(ordinal).and_modify(|pod| pod.leaving = Some(1));
            }
            Step::Evict(note) => self.evict(note),
            Step::Transfer { to, .. } => {
                assert!(self.serves(*to), "the heir serves");
                // A leader that has sealed its configuration hands nothing over.
                if self.sealed.is_none() {
                    self.elect(Some(*to), false);
                }
            }
        }
    }

    fn write_permit(&mut self, permit: &Permit) {
        self.permit = Some(permit.clone());
        self.pods.values_mut().for_each(|pod| pod.sees_in = self.slow);
    }

    fn serves_at(&self, ordinal: usize) -> bool {
        self.disks.get(&self.pods[&ordinal].volume).is_some_and(|disk| self.serves(disk.id))
    }

    fn runs_at(&self, ordinal: usize) -> bool {
        self.disks.get(&self.pods[&ordinal].volume).is_some_and(|disk| self.running(disk.id).is_some())
    }

    fn ask(&mut self, change: Change) {
        if self.leader.is_some() && self.sealed.is_none() {
            self.taken.push(change);
        }
    }

    fn switch_voters(&mut self, switch: &Switch, death: Option<Death>) {
        for id in &switch.voters {
            assert!(self.registry.votes(*id) || self.caught_up(*id), "member {id} lacks what was written");
        }
        assert!(self.has_quorum(&switch.voters), "no quorum of the new voters is up");
        if !switch.asked_before {
            self.switch = Some(switch.note.clone());
        }
        if death == Some(Death::BeforeTheCall) {
            return;
        }
        let current = switch.note.config == self.registry.config && self.leader.is_some();
        let behind = switch.voters.iter().any(|id| !self.registry.has(*id));
        if current && self.sealed.is_none() && !behind && !self.visits.is_multiple_of(7) {
            self.taken.clear();
            self.sealed = Some((switch.voters.clone(), u8::from(self.visits.is_multiple_of(2)) * 3));
        } else if death.is_none() && !switch.asked_before {
            self.switch = None;
        }
    }

    fn discard(&mut self, uid: &str) {
        let Some(ordinal) = self.index(uid) else { return };
        let volume = self.pods[&ordinal].volume;
        let member = self.registry.members.iter().find(|member| member.1 == volume);
        assert_eq!(member, None, "the volume is of a member");
        self.claims.remove(&ordinal);
        self.disks.remove(&volume);
        self.pods.entry(ordinal).and_modify(|pod| (pod.leaving, pod.starting) = (Some(1), 9));
    }

    /// The claim goes with its pod: the operator may die before it has asked for that too.
    fn give_up(&mut self, uid: &str, death: Option<Death>) {
        let Some(ordinal) = self.index(uid) else { return };
        match self.restore_note.as_ref().filter(|note| note.restored.is_some()) {
            Some(note) => assert_ne!(ordinal, note.place, "what was restored is given up"),
            None => {
                let (_, survivor) = self.declared.expect("a recovery is declared");
                assert_ne!(ordinal, survivor, "the survivor is given up");
                assert!(!self.has_quorum(&self.registry.voters()), "a quorum serves");
            }
        }
        let volume = self.pods[&ordinal].volume;
        if self.claims.get(&ordinal) == Some(&volume) {
            self.leaving.insert(volume);
        }
        if death.is_none() {
            self.pods.entry(ordinal).and_modify(|pod| pod.leaving = pod.leaving.or(Some(1)));
        }
    }

    /// A member that came back with its volume could make up a majority of the generation before.
    fn may_recover(&self, permit: &Permit) {
        let (generation, survivor) = self.declared.expect("a recovery is declared");
        assert_eq!((permit.generation, generation), (Some(generation), self.generation + 1));
        let survivor = self.claims[&survivor];
        assert_eq!(permit.founders[0].volume, name(survivor));
        let in_reach = self.claims.values().copied().chain(self.pods.values().map(|pod| pod.volume));
        let left: Vec<u32> =
            in_reach.filter(|volume| *volume != survivor && self.disks.contains_key(volume)).collect();
        assert_eq!(left, [0; 0], "volumes that hold data are left to pods");
    }

    fn evict(&mut self, note: &RollNote) {
        let ordinal = self.index(&note.uid).expect("the plan names a pod it was shown");
        let voters = self.registry.voters();
        assert_eq!(self.up(&voters), voters.len(), "a second voter is taken down");
        assert!(self.sealed.is_none(), "a voter is taken down while voters change");
        assert!(voters.len() == 1 || self.up(&voters) - 1 > voters.len() / 2, "no quorum is left");
        self.note = Some(note.clone());
        self.pods.entry(ordinal).and_modify(|pod| pod.leaving = Some(1));
    }
}
