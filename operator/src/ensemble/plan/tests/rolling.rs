//! Random histories of roll-outs: pods that start, serve, crash and go; templates good and bad; a cluster that commits.

use proptest::prelude::*;

use super::*;

fn member_id(ordinal: usize) -> i64 {
    i64::try_from(ordinal).expect("small") + 1
}

/// A small world whose members stay.
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
            let mut status = node(member_id(ordinal), role, pod.applied);
            status.committed = self.commit;
            member.status = answers.then_some(status);
            member.identity = member.identity.filter(|_| answers);
            Some(member)
        });
        let size = self.pods.len();
        let volumes: Vec<String> = (0..size).map(|ordinal| format!("v{ordinal}")).collect();
        let entry = |ordinal: usize| (member_id(ordinal), volumes[ordinal].as_str(), ordinal, true);
        let entries: Vec<Entry<'_>> = (0..size).map(entry).collect();
        let mut observed = of(members.collect(), size);
        observed.note = self.note.clone();
        for status in observed.members.iter_mut().flatten().filter_map(|member| member.status.as_mut()) {
            (status.leader, status.membership) = (self.leader.map(member_id), Some(membership(1, &entries)));
        }
        observed
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
            _ => panic!("nobody comes or goes, and a founded cluster is not founded again: {step:?}"),
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
