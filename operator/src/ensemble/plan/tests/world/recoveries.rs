//! Random histories of an Ensemble whose majority is lost for good, and that a person lets go on from a survivor.

use proptest::prelude::*;

use super::hands::Death;
use super::histories::{Fault, fault};
use super::*;

/// How a member is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its volume is gone, and its pod comes back with an empty one.
    Volume,
    /// Its pod cannot start, and would have its volume if it did.
    Node,
}

impl World {
    pub(super) fn lose_for_good(&mut self, ordinal: usize, loss: Loss) {
        let volume = self.claims[&ordinal];
        let pod = self.pods.get_mut(&ordinal).expect("there is a pod");
        match loss {
            Loss::Volume => {
                (pod.leaving, pod.starting) = (Some(0), 9);
                self.claims.remove(&ordinal);
                self.disks.remove(&volume);
            }
            Loss::Node => {
                pod.starting = 2;
                self.stuck.insert(volume);
            }
        }
    }

    /// All but the survivor and as many as cannot be a quorum with it are lost.
    fn bereft(size: usize, survivor: usize, losses: &[Loss]) -> Self {
        let mut world = Self::new(size, false);
        let others = (0..size).filter(|ordinal| *ordinal != survivor);
        for (ordinal, loss) in others.zip(losses).take(size - size / 2) {
            world.lose_for_good(ordinal, *loss);
        }
        world.pass();
        world
    }

    fn went_on(&mut self) -> bool {
        self.settles() && self.generation == 2 && self.permit.as_ref().is_some_and(|permit| !permit.recovers)
    }
}

#[test]
fn without_a_declaration_nothing_is_given_up() {
    let mut world = World::bereft(3, 1, &[Loss::Node, Loss::Node]);
    let waits = |world: &mut World| matches!(world.visit(&Fault::None), Step::Wait(_));
    assert!((0..50).all(|_| waits(&mut world)), "{world:?}");
    assert_eq!(world.disks.len(), 3);
}

#[test]
fn an_ensemble_goes_on_from_the_survivor_and_new_members_take_the_other_places() {
    let mut world = World::bereft(3, 1, &[Loss::Volume, Loss::Node]);
    world.declared = Some((2, 1));
    assert!(world.went_on(), "{world:?}");
    assert_eq!(world.registry.voters(), [2, 4, 5]);
    // What stays declared has no effect, even when the next majority is lost.
    (0..2).for_each(|ordinal| world.lose_for_good(ordinal, Loss::Node));
    let declared = |step: &Step| matches!(step, Step::NoteRecovery(_) | Step::GiveUp { .. });
    assert!((0..50).all(|_| !declared(&world.visit(&Fault::None))), "{world:?}");
}

#[test]
fn what_is_declared_while_a_quorum_serves_has_no_effect_when_it_is_lost() {
    let mut world = World::new(3, false);
    world.declared = Some((2, 1));
    let step = next(&world.observe(None, None));
    assert!(matches!(step, Step::Stall { reason: reason::RECOVERY_REFUSED, .. }), "{step:?}");
    world.status.1 = world.observe(None, None).declines_recovery();
    [0, 2].into_iter().for_each(|ordinal| world.lose_for_good(ordinal, Loss::Node));
    world.pass();
    let step = next(&world.observe(None, None));
    assert!(matches!(step, Step::Stall { reason: reason::RECOVERY_REFUSED, .. }), "{step:?}");
}

/// The operator dies at every single call on the way.
#[test]
fn the_operator_may_die_before_and_after_each_call_of_a_recovery() {
    for death in [Death::BeforeTheCall, Death::BeforeTheAnswer] {
        for losses in [[Loss::Volume, Loss::Volume], [Loss::Node, Loss::Node], [Loss::Volume, Loss::Node]] {
            for at in 0..60 {
                let mut world = World::bereft(3, 2, &losses);
                world.declared = Some((2, 2));
                (0..at).for_each(|_| drop(world.visit(&Fault::None)));
                world.visit(&Fault::Dies(death));
                assert!(world.went_on(), "{death:?} at visit {at}: {world:?}");
                assert_eq!(world.registry.voters()[0], 3);
            }
        }
    }
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![Just(Loss::Volume), Just(Loss::Node)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// `carry_out` asserts that the survivor is permitted to go on only when no other volume of its generation is left.
    #[test]
    fn an_ensemble_goes_on_from_its_survivor_whatever_befalls_it_on_the_way(
        size in prop_oneof![Just(3usize), Just(5), Just(7)],
        survivor in 0..7usize,
        losses in proptest::collection::vec(loss(), 4),
        faults in proptest::collection::vec(fault(), 0..120),
    ) {
        let survivor = survivor % size;
        let mut world = World::bereft(size, survivor, &losses);
        world.declared = Some((2, survivor));
        for fault in &faults {
            world.visit(fault);
        }
        prop_assert!(world.went_on(), "it does not end: {:?} {world:?}", world.clone().visit(&Fault::None));
    }
}
