//! Random histories of an Ensemble that goes on from a backup because a person declared it: a new one, one that serves, and
//! one whose volumes are lost.

use proptest::prelude::*;

use super::hands::Death;
use super::histories::{Fault, fault};
use super::recoveries::Loss;
use super::*;
use crate::ensemble::permit::PermitMember;

const GOOD: &str = "s3://backups/good";

fn order(from: &str, generation: Option<u64>) -> RestoreOrder {
    RestoreOrder { from: from.into(), generation, credentials: None }
}

impl World {
    /// Pods with empty volumes, which have founded nothing.
    fn unfounded(size: usize) -> Self {
        let mut world = Self::new(size, false);
        world.disks.clear();
        world.registry.members.clear();
        (world.permit, world.cluster, world.leader) = (None, None, None);
        world.pods.values_mut().for_each(|pod| (pod.permit, pod.was_ready) = (None, false));
        world.with_backup(CLUSTER, 1)
    }

    fn with_backup(mut self, cluster: &'static str, generation: u64) -> Self {
        self.backups.insert(GOOD.into(), Backup { cluster, generation, next_id: 50 });
        self
    }

    /// Time passes for the pod that fills a volume.
    pub(super) fn volume_is_filled(&mut self) {
        let Some(filler) = &mut self.filler else { return };
        match filler.leaving {
            Some(0) => {
                let volume = filler.volume;
                self.filler = None;
                if self.leaving.remove(&volume) {
                    self.claims.retain(|_, claim| *claim != volume);
                    self.disks.remove(&volume);
                }
            }
            Some(left) => filler.leaving = Some(left - 1),
            None if filler.runs > 0 => filler.runs -= 1,
            None => {
                let place =
                    self.claims.iter().find(|(_, volume)| **volume == filler.volume).map(|one| *one.0);
                let backup = self.backups.get(&filler.order.from);
                filler.state = match (place, backup) {
                    (Some(place), Some(backup)) => {
                        RestoreState::Restored(restored(&mut self.disks, filler, backup, place))
                    }
                    _ => RestoreState::Stuck("there is no whole backup".into()),
                };
            }
        }
    }

    /// The member on the volume that was filled goes on when its pod starts for the first time.
    pub(super) fn restored_generation_begins(&mut self, ordinal: usize) {
        let Pod { volume, permit: Some(permit), .. } = &self.pods[&ordinal] else { return };
        let (volume, id) = (*volume, permit.founders[0].member_id);
        let begins = self.restore_note.as_ref().and_then(|note| note.restored.as_ref());
        let begins = begins.is_some_and(|restored| restored.member.volume == name(volume));
        let begins = |disk: &&Disk| begins && disk.id == id && disk.generation > self.generation;
        let Some(disk) = self.disks.get(&volume).filter(begins) else { return };
        assert_eq!(permit.cluster_id, disk.cluster, "a permit of another cluster is refused");
        (self.generation, self.leader, self.sealed) = (disk.generation, None, None);
        (self.commit, self.changed_at) = (disk.applied + 1, disk.applied + 1);
        // What the backup was made of may have been younger than what is given up.
        self.registry = Registry { config: 1, next_id: id + 1, members: vec![(id, volume, ordinal, true)] };
        (self.before, self.epoch) = (self.registry.clone(), 7);
        self.taken.clear();
    }

    pub(super) fn note_restore(&mut self, note: Option<&RestoreNote>) {
        if let Some(restored) = note.and_then(|note| note.restored.as_ref()) {
            let disk = &self.disks[&number(&restored.member.volume)];
            assert_eq!((disk.id, disk.generation), (restored.member.member_id, restored.generation));
            (self.note, self.switch) = (None, None);
        } else if let Some(before) = self.restore_note.as_ref().and_then(|note| note.restored.as_ref()) {
            let filled = self.disks.contains_key(&number(&before.member.volume));
            assert!(
                !filled || self.generation >= before.generation,
                "what others were given up for is dropped"
            );
        }
        self.restore_note = note.cloned();
    }

    /// The claim is made, then the pod.
    pub(super) fn fill(&mut self, order: &RestoreOrder, place: usize, death: Option<Death>) {
        assert!(place >= self.set, "the place is a pod's");
        let (uid, volume) = (self.fresh(), self.fresh());
        let made = *self.claims.entry(place).or_insert(volume);
        if made == volume {
            self.made_for.insert(volume, order.clone());
        }
        if death.is_none() && self.filler.is_none() {
            let (order, state) = (order.clone(), RestoreState::Runs("it is read".into()));
            self.filler = Some(Filler { uid, order, volume: made, runs: 3, leaving: None, state });
        }
    }

    pub(super) fn clear_restore(
        &mut self,
        pod: Option<&str>,
        claim: Option<&(usize, String)>,
        death: Option<Death>,
    ) {
        if let Some((place, uid)) = claim
            && let Some(volume) = self.claims.get(place).copied().filter(|volume| volume.to_string() == *uid)
        {
            assert!(self.registry.members.iter().all(|member| member.1 != volume), "a member's volume goes");
            let kept = self.restore_note.as_ref().is_some_and(|note| note.restored.is_some());
            assert!(!kept || *place >= self.set, "what was restored goes");
            if self.filler.as_ref().is_some_and(|filler| filler.volume == volume) {
                self.leaving.insert(volume);
            } else {
                self.claims.remove(place);
                self.disks.remove(&volume);
            }
        }
        let ours = |filler: &&mut Filler| pod.is_some_and(|uid| filler.uid.to_string() == uid);
        if let Some(filler) = self.filler.as_mut().filter(ours)
            && death.is_none()
        {
            filler.leaving.get_or_insert(1);
        }
    }

    /// What is given up could come back, and nothing may be that was not declared to be given up.
    pub(super) fn may_go_on(&self, permit: &Permit) {
        let note = self.restore_note.as_ref().expect("it is noted");
        let restored = note.restored.as_ref().expect("the volume is filled");
        assert_eq!(permit.founders, std::slice::from_ref(&restored.member));
        let stays = number(&restored.member.volume);
        assert!(self.disks.contains_key(&stays), "what was restored is there");
        assert!(note.order.generation.is_some() || note.claims.is_empty(), "nothing was acknowledged");
        // Volumes that stayed of members that went have no pod, and are deleted if they get one.
        let claimed = self.claims.iter().filter(|(ordinal, _)| **ordinal < self.set).map(|claim| *claim.1);
        let in_reach = claimed.chain(self.pods.values().map(|pod| pod.volume));
        let left: Vec<u32> =
            in_reach.filter(|volume| *volume != stays && self.disks.contains_key(volume)).collect();
        assert_eq!(left, [0; 0], "volumes that hold data are left to pods");
    }

    fn went_on_from_backup(&mut self, generation: u64) -> bool {
        let settles = self.settles();
        let backup = &self.backups[GOOD];
        let ours = |id: &i64| *id >= backup.next_id;
        let cluster = self.pods.values().all(|pod| self.disks[&pod.volume].cluster == backup.cluster);
        settles && cluster && self.generation == generation && self.registry.voters().iter().all(ours)
    }
}

/// What `pharos-node restore` makes of a backup; repeated, it makes nothing.
fn restored(disks: &mut BTreeMap<u32, Disk>, filler: &Filler, backup: &Backup, place: usize) -> Restored {
    let generation = filler.order.generation.unwrap_or(backup.generation + 1);
    let (id, cluster) = (backup.next_id, backup.cluster);
    disks.entry(filler.volume).or_insert(Disk { id, cluster, generation, joining: 0, applied: 4 });
    let host = format!("main-ensemble-{place}.main-ensemble-peers.ns.svc");
    let volume = name(filler.volume);
    let member = PermitMember { member_id: id, volume, host, peer_port: 2888, client_port: 2181 };
    Restored { cluster_id: cluster.into(), generation, member }
}

#[test]
fn a_new_ensemble_begins_with_the_backup_and_never_founds_an_empty_one() {
    for size in [1, 3, 5] {
        let mut world = World::unfounded(size);
        world.restore = Some(order(GOOD, None));
        assert!(world.went_on_from_backup(2), "{world:?}");
        // What stays declared has no effect.
        let next_id = world.registry.next_id;
        (0..50).for_each(|_| assert_eq!(world.visit(&Fault::None), Step::Done, "{world:?}"));
        assert_eq!((world.registry.next_id, world.generation), (next_id, 2));
    }
}

#[test]
fn an_ensemble_that_serves_is_given_up_only_for_a_generation_that_was_acknowledged() {
    let mut world = World::new(3, false).with_backup(OTHER, 4);
    world.restore = Some(order(GOOD, None));
    for _ in 0..50 {
        let step = world.visit(&Fault::None);
        assert!(matches!(step, Step::Stall { reason: reason::RESTORE_REFUSED, .. }), "{step:?}");
    }
    assert_eq!(world.disks.len(), 3);
    world.restore = Some(order(GOOD, Some(7)));
    assert!(world.went_on_from_backup(7), "{world:?}");
}

#[test]
fn a_backup_that_cannot_be_read_costs_nothing_and_members_are_looked_after_meanwhile() {
    let mut world = World::new(3, false).with_backup(CLUSTER, 1);
    world.restore = Some(order("s3://backups/bad", Some(2)));
    let stuck = |step: &Step| matches!(step, Step::Stall { reason: reason::RESTORE_FAILED, .. });
    assert!((0..20).any(|_| stuck(&world.visit(&Fault::None))), "{world:?}");
    world.visit(&Fault::Lost(1));
    assert!((0..100).any(|_| stuck(&world.visit(&Fault::None)) && world.registry.voters() == [1, 3, 4]));
    // Taken away again, nothing of it is left; the right one is then restored.
    world.restore = None;
    assert!(world.settles(), "{world:?}");
    assert_eq!((world.claims.len(), world.filler.is_none(), &world.restore_note), (3, true, &None));
    world.restore = Some(order("s3://backups/bad", Some(2)));
    (0..20).for_each(|_| drop(world.visit(&Fault::None)));
    world.restore = Some(order(GOOD, Some(2)));
    assert!(world.went_on_from_backup(2), "{world:?}");
}

#[test]
fn an_ensemble_whose_volumes_are_all_lost_goes_on_from_a_backup() {
    let mut world = World::new(3, false).with_backup(CLUSTER, 1);
    (0..3).for_each(|ordinal| world.lose_for_good(ordinal, Loss::Volume));
    (0..10).for_each(|_| drop(world.observe_only()));
    world.restore = Some(order(GOOD, Some(2)));
    assert!(world.went_on_from_backup(2), "{world:?}");
}

impl World {
    /// A visit that finds nothing that could be done.
    fn observe_only(&mut self) -> Step {
        let step = next(&self.observe(None, None));
        assert!(matches!(step, Step::Stall { .. } | Step::Wait(_)), "{step:?}");
        self.pass();
        step
    }
}

/// The operator dies at every single call on the way.
#[test]
fn the_operator_may_die_before_and_after_each_call_of_a_restore() {
    for death in [Death::BeforeTheCall, Death::BeforeTheAnswer] {
        for at in 0..80 {
            let begins = [World::unfounded(3), World::new(3, true).with_backup(OTHER, 1)];
            for (mut world, generation) in begins.into_iter().zip([None, Some(2)]) {
                world.restore = Some(order(GOOD, generation));
                (0..at).for_each(|_| drop(world.visit(&Fault::None)));
                world.visit(&Fault::Dies(death));
                assert!(world.went_on_from_backup(2), "{death:?} at visit {at}: {world:?}");
            }
        }
    }
}

#[test]
fn a_restored_volume_that_is_lost_before_it_went_on_is_filled_again() {
    let mut world = World::new(3, false).with_backup(CLUSTER, 1);
    world.restore = Some(order(GOOD, Some(2)));
    let scales = |step: &Step| matches!(step, Step::Scale { pods: 4, .. });
    assert!((0..100).any(|_| scales(&world.visit(&Fault::None))), "{world:?}");
    let volume = world.claims[&3];
    world.pods.remove(&3);
    world.claims.remove(&3);
    world.disks.remove(&volume);
    assert!(world.went_on_from_backup(2), "{world:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// `carry_out` asserts that nothing is given up before the backup is on its volume, nor without an acknowledgement, and
    /// that nothing is left of the others when that volume is permitted to go on.
    #[test]
    fn an_ensemble_goes_on_from_a_backup_whatever_befalls_it_on_the_way(
        size in prop_oneof![Just(1usize), Just(3), Just(5), Just(7)],
        lost in 0..8usize,
        foreign in any::<bool>(),
        retain in any::<bool>(),
        before in proptest::collection::vec(fault(), 0..20),
        faults in proptest::collection::vec(fault(), 0..120),
    ) {
        // What stayed of another cluster is for a person to look at.
        let cluster = if foreign && !retain { OTHER } else { CLUSTER };
        let mut world = World::new(size, retain).with_backup(cluster, 1);
        for fault in &before {
            world.visit(fault);
        }
        for ordinal in 0..lost {
            if world.claims.contains_key(&ordinal) && world.pods.contains_key(&ordinal) {
                world.lose_for_good(ordinal, Loss::Volume);
            }
        }
        world.pass();
        world.restore = Some(order(GOOD, Some(2)));
        for fault in &faults {
            world.visit(fault);
        }
        prop_assert!(world.went_on_from_backup(2), "it does not end: {:?} {world:?}", world.clone().visit(&Fault::None));
    }

    #[test]
    fn a_new_ensemble_begins_with_a_backup_whatever_befalls_it_on_the_way(
        size in prop_oneof![Just(1usize), Just(3), Just(5), Just(7)],
        faults in proptest::collection::vec(fault(), 0..120),
    ) {
        let mut world = World::unfounded(size);
        world.restore = Some(order(GOOD, None));
        for fault in &faults {
            world.visit(fault);
        }
        prop_assert!(world.went_on_from_backup(2), "it does not end: {:?} {world:?}", world.clone().visit(&Fault::None));
    }
}
