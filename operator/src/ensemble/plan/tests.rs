//! Stories of single decisions, and random histories of a small world that the plan must bring to its end.

use proptest::prelude::*;

use super::*;

const CLUSTER: &str = "c1";

fn disk(state: DiskState, volume: &str, cluster: Option<&str>) -> Identity {
    Identity { state, volume: volume.into(), member_id: None, cluster_id: cluster.map(Into::into) }
}

fn node(id: i64, role: Role, applied: u64) -> NodeStatus {
    let serving = matches!(role, Role::Leader | Role::Follower);
    NodeStatus {
        member_id: Some(id),
        role,
        leader: None,
        applied,
        committed: applied,
        serving,
        version: None,
    }
}

fn member(ordinal: usize, role: Role) -> Member {
    let id = i64::try_from(ordinal).expect("small") + 1;
    Member {
        pod: format!("main-ensemble-{ordinal}"),
        uid: format!("uid-{ordinal}"),
        up_to_date: true,
        terminating: false,
        ready: matches!(role, Role::Leader | Role::Follower),
        serving: matches!(role, Role::Leader | Role::Follower),
        health: Health::WasReady,
        trouble: None,
        identity: Some(disk(DiskState::Member, &format!("v{ordinal}"), Some(CLUSTER))),
        status: Some(node(id, role, 100)),
    }
}

fn three() -> Observed {
    Observed {
        revision_known: true,
        members: vec![
            Some(member(0, Role::Leader)),
            Some(member(1, Role::Follower)),
            Some(member(2, Role::Follower)),
        ],
        permit: None,
        cluster_id: Some(CLUSTER.into()),
        note: None,
    }
}

fn permit(disks: &[Identity]) -> Permit {
    Permit::new("main", "ns", CLUSTER.into(), disks)
}

fn next(observed: &Observed) -> Step {
    plan(observed, permit)
}

fn waits_for(observed: &Observed) -> Option<Predicate> {
    match next(observed) {
        Step::Wait(wait) => Some(wait.predicate),
        _ => None,
    }
}

fn at(observed: &mut Observed, ordinal: usize) -> &mut Member {
    observed.members[ordinal].as_mut().expect("there is a pod")
}

#[test]
fn nothing_is_done_when_all_serve_and_are_up_to_date() {
    assert_eq!(next(&three()), Step::Done);
}

#[test]
fn followers_go_first_and_the_commit_index_is_noted() {
    let mut observed = three();
    observed.members.iter_mut().flatten().for_each(|member| member.up_to_date = false);
    let note = RollNote { pod: "main-ensemble-1".into(), uid: "uid-1".into(), commit: 100 };
    assert_eq!(next(&observed), Step::Evict(note));
}

#[test]
fn the_leader_hands_over_to_the_member_that_has_applied_most_before_it_goes() {
    let mut observed = three();
    at(&mut observed, 0).up_to_date = false;
    at(&mut observed, 2).status = Some(node(3, Role::Follower, 101));
    assert_eq!(next(&observed), Step::Transfer { leader: "main-ensemble-0".into(), to: 3 });
}

#[test]
fn a_single_member_is_restarted_without_a_hand_over() {
    let mut observed = three();
    observed.members.truncate(1);
    at(&mut observed, 0).up_to_date = false;
    assert!(matches!(next(&observed), Step::Evict(_)));
}

#[test]
fn the_next_member_waits_until_the_last_one_serves_and_has_caught_up() {
    let mut observed = three();
    at(&mut observed, 2).up_to_date = false;
    observed.note = Some(RollNote { pod: "main-ensemble-1".into(), uid: "old".into(), commit: 120 });
    assert_eq!(waits_for(&observed), Some(Predicate::MemberCaughtUp));
    at(&mut observed, 1).serving = false;
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    observed.members[1] = None;
    assert_eq!(waits_for(&observed), Some(Predicate::PodExists));
}

#[test]
fn a_pod_that_crashed_is_replaced_by_a_newer_template_even_without_a_quorum() {
    let mut observed = three();
    for ordinal in [1, 2] {
        let down = at(&mut observed, ordinal);
        (down.serving, down.status, down.identity) = (false, None, None);
    }
    let crashed = at(&mut observed, 2);
    (crashed.up_to_date, crashed.health) = (false, Health::Crashed);
    assert!(matches!(next(&observed), Step::Delete { pod, .. } if pod == "main-ensemble-2"));
}

#[test]
fn a_member_that_misses_one_question_is_not_replaced_while_the_kubelet_finds_it_ready() {
    let mut observed = three();
    let quiet = at(&mut observed, 2);
    (quiet.serving, quiet.up_to_date) = (false, false);
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    at(&mut observed, 2).ready = false;
    assert!(matches!(next(&observed), Step::Delete { pod, .. } if pod == "main-ensemble-2"));
}

#[test]
fn a_voter_that_merely_lacks_a_leader_waits() {
    let mut observed = three();
    for member in observed.members.iter_mut().flatten() {
        (member.serving, member.up_to_date) = (false, false);
        member.status = Some(node(1, Role::Candidate, 100));
    }
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
}

#[test]
fn nothing_is_judged_before_the_revision_is_known() {
    let mut observed = three();
    observed.revision_known = false;
    at(&mut observed, 1).health = Health::Crashed;
    at(&mut observed, 1).serving = false;
    assert_eq!(waits_for(&observed), Some(Predicate::StatefulSetObserved));
}

fn blank() -> Observed {
    let mut observed = three();
    observed.cluster_id = None;
    for (ordinal, member) in observed.members.iter_mut().flatten().enumerate() {
        (member.serving, member.health) = (false, Health::NeverReady);
        member.status = Some(node(0, Role::Blank, 0));
        member.identity = Some(disk(DiskState::Blank, &format!("v{ordinal}"), None));
    }
    observed
}

#[test]
fn the_permit_is_written_when_every_founder_has_reported_an_empty_volume_of_its_own() {
    let mut observed = blank();
    let Step::WritePermit(permit) = next(&observed) else { panic!("{:?}", next(&observed)) };
    let founders: Vec<(i64, &str)> =
        permit.founders.iter().map(|founder| (founder.member_id, founder.volume.as_str())).collect();
    assert_eq!(founders, [(1, "v0"), (2, "v1"), (3, "v2")]);
    assert_eq!(permit.founders[0].host, "main-ensemble-0.main-ensemble-peers.ns.svc");

    at(&mut observed, 1).identity = None;
    assert_eq!(waits_for(&observed), Some(Predicate::FoundersReport));
    at(&mut observed, 1).identity = Some(disk(DiskState::Blank, "v0", None));
    assert!(matches!(next(&observed), Step::Stall { reason: reason::STALE_DISK, .. }));
}

#[test]
fn a_permit_is_never_written_twice() {
    let mut observed = blank();
    let disks: Vec<Identity> = observed.present().filter_map(|member| member.identity.clone()).collect();
    observed.permit = Some(permit(&disks));
    assert_eq!(waits_for(&observed), Some(Predicate::ClusterFounded));
    assert_eq!(observed.unread().len(), 3);

    // The permit was taken away, but the status still names a cluster.
    observed.permit = None;
    observed.cluster_id = Some(CLUSTER.into());
    assert!(matches!(next(&observed), Step::Stall { reason: reason::LOST_VOLUME, .. }));
}

#[test]
fn an_empty_volume_beside_members_is_a_lost_one() {
    let mut observed = three();
    observed.permit = Some(permit(&[disk(DiskState::Blank, "v0", None)]));
    at(&mut observed, 1).identity = Some(disk(DiskState::Blank, "new", None));
    assert!(matches!(next(&observed), Step::Stall { reason: reason::LOST_VOLUME, .. }));
}

#[test]
fn a_volume_of_another_cluster_is_named() {
    let mut observed = three();
    at(&mut observed, 2).identity = Some(disk(DiskState::Member, "v2", Some("other")));
    let Step::Stall { reason, message } = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(reason, reason::STALE_DISK);
    assert_eq!(message, "the volume of main-ensemble-2 belongs to cluster other, not to c1");
}

#[test]
fn an_ensemble_applied_again_finds_its_data_without_a_permit() {
    let mut observed = three();
    observed.cluster_id = None;
    assert_eq!(founding(&observed), Founding::Founded(CLUSTER.into()));
    assert_eq!(next(&observed), Step::Done);
}

/// A small world: pods that start, serve, crash and go; templates good and bad; a cluster that commits.
#[derive(Clone, Debug)]
struct World {
    pods: Vec<Pod>,
    template: usize,
    good: Vec<bool>,
    commit: u64,
    leader: Option<usize>,
    note: Option<RollNote>,
    next_uid: u32,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: u32,
    template: usize,
    /// Visits until it is gone, if it was asked to go.
    leaving: Option<u8>,
    /// Visits until it runs.
    starting: u8,
    was_ready: bool,
    applied: u64,
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    /// A new template, good or bad.
    Template(bool),
    /// A process ends and starts again.
    Restart(usize),
    /// A pod is deleted by someone else.
    Deleted(usize),
    /// A member does not answer the operator in this visit.
    Silent(usize),
}

impl World {
    fn new(size: usize) -> Self {
        let pod = |uid| Pod { uid, template: 0, leaving: None, starting: 0, was_ready: true, applied: 10 };
        Self {
            pods: (0..u32::try_from(size).expect("small")).map(pod).collect(),
            template: 0,
            good: vec![true],
            commit: 10,
            leader: Some(0),
            note: None,
            next_uid: 100,
        }
    }

    fn runs(&self, ordinal: usize) -> bool {
        let pod = &self.pods[ordinal];
        pod.leaving.is_none() && pod.starting == 0 && self.good[pod.template]
    }

    fn has_quorum(&self) -> bool {
        (0..self.pods.len()).filter(|ordinal| self.runs(*ordinal)).count() > self.pods.len() / 2
    }

    fn serves(&self, ordinal: usize) -> bool {
        self.runs(ordinal) && self.has_quorum()
    }

    fn serving(&self) -> usize {
        (0..self.pods.len()).filter(|ordinal| self.serves(*ordinal)).count()
    }

    /// Time passes: pods go and come, a leader is found, entries are committed and applied.
    fn pass(&mut self) {
        for ordinal in 0..self.pods.len() {
            let (template, uid) = (self.template, self.next_uid);
            let pod = &mut self.pods[ordinal];
            match pod.leaving {
                Some(0) => {
                    let applied = pod.applied;
                    *pod = Pod { uid, template, leaving: None, starting: 2, was_ready: false, applied };
                    self.next_uid += 1;
                }
                Some(left) => pod.leaving = Some(left - 1),
                None => pod.starting = pod.starting.saturating_sub(1),
            }
        }
        if !self.has_quorum() {
            self.leader = None;
            return;
        }
        self.commit += 1;
        if !self.leader.is_some_and(|leader| self.runs(leader)) {
            self.leader = (0..self.pods.len()).find(|ordinal| self.runs(*ordinal));
        }
        for ordinal in 0..self.pods.len() {
            if self.serves(ordinal) {
                let commit = self.commit;
                let pod = &mut self.pods[ordinal];
                pod.was_ready = true;
                // A member that was away catches up over several visits.
                pod.applied = commit.min(pod.applied + 3);
            }
        }
    }

    fn strike(&mut self, fault: &Fault) -> Option<usize> {
        let size = self.pods.len();
        match fault {
            Fault::None => {}
            Fault::Template(good) => {
                self.good.push(*good);
                self.template = self.good.len() - 1;
            }
            Fault::Restart(ordinal) => self.pods[ordinal % size].starting = 2,
            Fault::Deleted(ordinal) => {
                self.pods[ordinal % size].leaving.get_or_insert(1);
            }
            Fault::Silent(ordinal) => return Some(ordinal % size),
        }
        None
    }

    fn observe(&self, silent: Option<usize>) -> Observed {
        let members = (0..self.pods.len()).map(|ordinal| {
            let pod = &self.pods[ordinal];
            let answers = pod.starting == 0 && self.good[pod.template] && silent != Some(ordinal);
            let role = if self.leader == Some(ordinal) {
                Role::Leader
            } else if self.serves(ordinal) {
                Role::Follower
            } else {
                Role::Candidate
            };
            let mut member = member(ordinal, role);
            member.uid = pod.uid.to_string();
            member.up_to_date = pod.template == self.template;
            member.terminating = pod.leaving.is_some();
            member.serving = self.serves(ordinal) && answers;
            member.health = match (self.good[pod.template], pod.was_ready) {
                (false, _) if pod.starting == 0 => Health::Crashed,
                (_, true) => Health::WasReady,
                (_, false) => Health::NeverReady,
            };
            let mut status = node(i64::try_from(ordinal).expect("small") + 1, role, pod.applied);
            status.committed = self.commit;
            member.status = answers.then_some(status);
            member.identity = member.identity.filter(|_| answers);
            Some(member)
        });
        Observed {
            revision_known: true,
            members: members.collect(),
            permit: None,
            cluster_id: Some(CLUSTER.into()),
            note: self.note.clone(),
        }
    }

    fn index(&self, uid: &str) -> usize {
        self.pods
            .iter()
            .position(|pod| pod.uid.to_string() == uid)
            .expect("the plan names a pod it was shown")
    }

    /// Carries a step out, after checking that it is safe.
    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Done | Step::Wait(_) => {}
            Step::WritePermit(_) | Step::Stall { .. } => {
                panic!("a founded cluster is not founded again: {step:?}")
            }
            Step::Delete { uid, .. } => {
                let ordinal = self.index(uid);
                let others =
                    (0..self.pods.len()).filter(|other| *other != ordinal && self.serves(*other)).count();
                assert!(
                    !self.serves(ordinal) || others > self.pods.len() / 2,
                    "a serving voter is deleted and no quorum is left"
                );
                self.pods[ordinal].leaving.get_or_insert(1);
            }
            Step::Evict(note) => {
                let ordinal = self.index(&note.uid);
                assert_eq!(self.serving(), self.pods.len(), "a second voter is taken down");
                assert!(
                    self.pods.len() == 1 || self.serving() - 1 > self.pods.len() / 2,
                    "no quorum is left"
                );
                let behind = self
                    .note
                    .as_ref()
                    .is_some_and(|note| self.pods.iter().any(|pod| pod.applied < note.commit));
                assert!(!behind, "the member restarted last has not caught up");
                let outdated_followers = (0..self.pods.len()).filter(|other| {
                    Some(*other) != self.leader && self.pods[*other].template != self.template
                });
                assert!(
                    Some(ordinal) != self.leader || self.pods.len() == 1 || outdated_followers.count() > 0
                );
                self.note = Some(note.clone());
                self.pods[ordinal].leaving = Some(1);
            }
            Step::Transfer { to, .. } => {
                let to = usize::try_from(*to - 1).expect("a member");
                assert!(self.serves(to), "the heir serves");
                self.leader = Some(to);
            }
        }
    }

    fn visit(&mut self, fault: &Fault) -> Step {
        let silent = self.strike(fault);
        let step = next(&self.observe(silent));
        // A member that is silent to the operator may serve others: what is true decides what is safe.
        self.carry_out(&step);
        self.pass();
        step
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => any::<bool>().prop_map(Fault::Template),
        1 => (0..7usize).prop_map(Fault::Restart),
        1 => (0..7usize).prop_map(Fault::Deleted),
        2 => (0..7usize).prop_map(Fault::Silent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// `carry_out` asserts after every step that no second voter is taken down and that a quorum is left.
    #[test]
    fn a_roll_out_is_safe_at_every_step_and_ends_when_faults_end(
        size in prop_oneof![Just(1usize), Just(3), Just(5), Just(7)],
        faults in proptest::collection::vec(fault(), 0..60),
    ) {
        let mut world = World::new(size);
        for fault in &faults {
            world.visit(fault);
        }
        // Faults end with a good template, and the world is left alone.
        world.visit(&Fault::Template(true));
        let ended = (0..400).any(|_| world.visit(&Fault::None) == Step::Done);
        prop_assert!(ended, "it does not end: {world:?}");
        prop_assert!(world.pods.iter().all(|pod| pod.template == world.template));
        prop_assert_eq!(world.serving(), size);
    }
}
