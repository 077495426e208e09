//! Random histories of an Ensemble that grows, shrinks and loses volumes while members and the operator die.

use proptest::prelude::*;

use super::hands::Death;
use super::*;

#[derive(Clone, Debug)]
pub(super) enum Fault {
    None,
    Wanted(usize),
    /// A process ends and starts again.
    Restart(usize),
    /// A pod is deleted by someone else.
    Deleted(usize),
    /// A pod and its volume are lost.
    Lost(usize),
    /// A member finds its volume damaged when it starts, and gives its identity up: the volume is an empty one.
    GivesUp(usize),
    /// A member does not answer the operator in this visit.
    Silent(usize),
    /// A member says what was true before the last change.
    Lags(usize),
    /// Another member leads: what the last one sealed is taken over or cut off.
    Elected(usize, bool),
    /// The operator dies before what it asks for, or before it knows the answer.
    Dies(Death),
    /// From now on a permit takes that many visits.
    Slow(u8),
    /// A new template.
    Template,
}

impl World {
    /// What the status says after a visit.
    fn see_status(&mut self, observed: &Observed) {
        let founded = if let Founding::Founded(cluster) = founding(observed) { Some(cluster) } else { None };
        let generation = founded.as_ref().and_then(|_| observed.generation());
        self.status = (generation.or(self.status.0), observed.declines_recovery());
        let permitted = self.permit.as_ref().map(|permit| permit.cluster_id.clone());
        self.cluster = permitted.or(founded).or_else(|| self.cluster.take());
    }

    fn strike(&mut self, fault: &Fault) {
        let size = self.set;
        match fault {
            Fault::Wanted(wanted) => self.wanted = *wanted,
            Fault::Restart(ordinal) => {
                if let Some(pod) = self.pods.get_mut(&(ordinal % size)) {
                    pod.starting = 2;
                }
            }
            Fault::Deleted(ordinal) => {
                // The last place is never taken: the pod that fills a volume stands for it.
                if *ordinal == 6 {
                    self.filler = None;
                }
                if let Some(pod) = self.pods.get_mut(&(ordinal % size)) {
                    pod.leaving.get_or_insert(1);
                }
            }
            Fault::Lost(ordinal) => self.lose(ordinal % size),
            Fault::GivesUp(ordinal) => self.blank(ordinal % size),
            Fault::Elected(choice, takes_over) => {
                let able: Vec<i64> =
                    self.registry.voters().into_iter().filter(|id| self.serves(*id)).collect();
                if !able.is_empty() {
                    self.elect(Some(able[choice % able.len()]), *takes_over);
                }
            }
            Fault::Slow(visits) => self.slow = *visits,
            Fault::Template => self.template += 1,
            Fault::None | Fault::Silent(_) | Fault::Lags(_) | Fault::Dies(_) => {}
        }
    }

    /// The volume of that ordinal, if enough others are left for the Ensemble to survive its loss.
    fn can_spare(&self, ordinal: usize) -> Option<u32> {
        let lost = self.claims.get(&ordinal).copied()?;
        let survives = |voters: &[i64]| {
            let has_volume = |id: &&i64| {
                self.registry.members.iter().any(|member| {
                    let there = self.claims.values().any(|one| *one == member.1);
                    member.0 == **id && member.1 != lost && there && !self.stuck.contains(&member.1)
                })
            };
            voters.iter().filter(has_volume).count() > voters.len() / 2
        };
        let sealed = self.sealed.as_ref().is_none_or(|(voters, _)| survives(voters));
        (survives(&self.registry.voters()) && sealed).then_some(lost)
    }

    fn lose(&mut self, ordinal: usize) {
        let Some(lost) = self.can_spare(ordinal) else { return };
        self.claims.remove(&ordinal);
        self.disks.remove(&lost);
        // A volume that nobody needs may belong to no pod.
        if let Some(pod) = self.pods.get_mut(&ordinal) {
            (pod.leaving, pod.starting) = (Some(0), 9);
        }
    }

    fn blank(&mut self, ordinal: usize) {
        let (Some(lost), new) = (self.can_spare(ordinal), self.fresh()) else { return };
        let Some(pod) = self.pods.get_mut(&ordinal).filter(|pod| pod.leaving.is_none()) else { return };
        (pod.volume, pod.starting) = (new, 2);
        self.claims.insert(ordinal, new);
        self.disks.remove(&lost);
    }

    pub(super) fn visit(&mut self, fault: &Fault) -> Step {
        self.strike(fault);
        let silent = if let Fault::Silent(ordinal) = fault { Some(*ordinal) } else { None };
        let lags = if let Fault::Lags(ordinal) = fault { Some(*ordinal) } else { None };
        let observed = self.observe(silent, lags);
        let step = next(&observed);
        self.see_status(&observed);
        let death = if let Fault::Dies(death) = fault { Some(*death) } else { None };
        self.carry_out(&step, death);
        self.visits += 1;
        self.pass();
        step
    }

    fn is_as_wanted(&self) -> bool {
        let mut ordinals: Vec<usize> =
            self.registry.members.iter().filter(|member| member.3).map(|member| member.2).collect();
        ordinals.sort_unstable();
        ordinals == (0..self.wanted).collect::<Vec<_>>()
            && self.registry.members.iter().all(|member| member.3 && self.serves(member.0))
            && self.set == self.wanted
            && self.permit.as_ref().is_some_and(|permit| permit.joiners.is_empty())
            && self.pods.values().all(|pod| pod.template == self.template)
    }

    pub(super) fn settles(&mut self) -> bool {
        (0..1000).any(|_| self.visit(&Fault::None) == Step::Done && self.is_as_wanted())
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), Just(3), Just(5), Just(7)]
}

pub(super) fn fault() -> impl Strategy<Value = Fault> {
    let ordinal = 0..7usize;
    prop_oneof![
        24 => Just(Fault::None),
        3 => size().prop_map(Fault::Wanted),
        1 => ordinal.clone().prop_map(Fault::Restart),
        1 => ordinal.clone().prop_map(Fault::Deleted),
        2 => ordinal.clone().prop_map(Fault::Lost),
        2 => ordinal.clone().prop_map(Fault::GivesUp),
        3 => ordinal.clone().prop_map(Fault::Silent),
        3 => ordinal.clone().prop_map(Fault::Lags),
        2 => (ordinal, any::<bool>()).prop_map(|(choice, takes_over)| Fault::Elected(choice, takes_over)),
        3 => Just(Fault::Dies(Death::BeforeTheCall)),
        3 => Just(Fault::Dies(Death::BeforeTheAnswer)),
        1 => (0..8u8).prop_map(Fault::Slow),
        1 => Just(Fault::Template),
    ]
}

#[test]
fn an_ensemble_grows_and_shrinks_step_by_step() {
    let mut world = World::new(1, false);
    for wanted in [3, 5, 3, 1, 7, 1] {
        world.wanted = wanted;
        assert!(world.settles(), "{world:?}");
    }
    // Each change of size was one change of voters, and no id was given twice.
    assert_eq!(world.registry.config, 7);
    assert_eq!(world.registry.next_id, 12);
}

#[test]
fn volumes_that_stayed_of_members_that_went_are_in_nobodys_way() {
    let mut world = World::new(5, true);
    for wanted in [1, 5] {
        world.wanted = wanted;
        assert!(world.settles(), "{world:?}");
    }
    assert_eq!(world.registry.voters(), [1, 6, 7, 8, 9]);
}

#[test]
fn a_volume_that_is_lost_is_replaced_by_a_new_member() {
    let mut world = World::new(3, false);
    world.visit(&Fault::Lost(1));
    assert!(world.settles(), "{world:?}");
    assert_eq!(world.registry.voters(), [1, 3, 4]);
}

/// A member whose log is damaged sets it aside and reports an empty volume with an id of its own, on the same claim.
#[test]
fn a_volume_that_was_set_aside_is_replaced_and_its_claim_stays() {
    let mut world = World::new(3, false);
    let (before, new) = (world.claims[&1], world.fresh());
    world.disks.remove(&before);
    world.claims.insert(1, new);
    world.pods.entry(1).and_modify(|pod| (pod.volume, pod.starting) = (new, 2));
    assert!(world.settles(), "{world:?}");
    assert_eq!((world.registry.voters(), world.claims[&1]), (vec![1, 3, 4], new));
}

#[test]
fn a_volume_that_gave_its_identity_up_is_a_new_member_in_the_same_pod() {
    let mut world = World::new(3, false);
    let before = world.pods[&1].uid;
    world.visit(&Fault::GivesUp(1));
    assert!(world.settles(), "{world:?}");
    assert_eq!((world.registry.voters(), world.pods[&1].uid), (vec![1, 3, 4], before));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// `carry_out` asserts before every step that nobody who votes or will vote loses its pod or volume, that whoever
    /// is to vote has caught up, and that a quorum is left.
    #[test]
    fn members_come_and_go_safely_at_every_step_and_it_ends_when_faults_end(
        first in size(),
        retain in any::<bool>(),
        faults in proptest::collection::vec(fault(), 0..120),
    ) {
        let mut world = World::new(first, retain);
        for fault in &faults {
            world.visit(fault);
        }
        prop_assert!(world.settles(), "it does not end: {:?} {world:?}", world.clone().visit(&Fault::None));
    }
}
