//! A small world: pods and claims as a StatefulSet makes them, members that join as the node does, and a leader who seals
//! its configuration. What befalls it is in `histories`.

mod hands;
mod histories;
mod recoveries;
mod restores;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The cluster of a backup that is of another one.
const OTHER: &str = "c2";

/// A small world whose members come and go.
#[derive(Clone, Debug)]
struct World {
    wanted: usize,
    /// Pods that the StatefulSet has.
    set: usize,
    /// Whether claims stay when pods go for good.
    retain: bool,
    pods: BTreeMap<usize, Pod>,
    /// Volumes by ordinal.
    claims: BTreeMap<usize, u32>,
    /// What is on a volume: nothing, if it is not here.
    disks: BTreeMap<u32, Disk>,
    registry: Registry,
    /// The registry before its last change: what a member knows that lags behind.
    before: Registry,
    /// When that was.
    changed_at: u64,
    /// The voters of a configuration that is sealed, and the visits until the seal can be chosen.
    sealed: Option<(Vec<i64>, u8)>,
    /// What the leader has taken and not applied.
    taken: Vec<Change>,
    leader: Option<i64>,
    epoch: u64,
    commit: u64,
    permit: Option<Permit>,
    /// Visits until a pod sees a new permit.
    slow: u8,
    note: Option<RollNote>,
    switch: Option<SwitchNote>,
    generation: u64,
    /// The generation and the ordinal of the survivor that a person declares.
    declared: Option<(u64, usize)>,
    recovery_note: Option<RecoveryNote>,
    /// The restore that a person declares.
    restore: Option<RestoreOrder>,
    restore_note: Option<RestoreNote>,
    filler: Option<Filler>,
    /// Claims that were made for a restore, by their volumes.
    made_for: BTreeMap<u32, RestoreOrder>,
    /// Where backups are, and what they are of.
    backups: BTreeMap<String, Backup>,
    /// What the status says of generations, of what was declared and of the cluster.
    status: (Option<u64>, bool),
    cluster: Option<String>,
    /// Volumes that go with their pods, since their claims were deleted.
    leaving: BTreeSet<u32>,
    /// Volumes whose pods never start, as when their nodes are gone.
    stuck: BTreeSet<u32>,
    template: u32,
    next: u32,
    visits: u32,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: u32,
    volume: u32,
    template: u32,
    /// Visits until it is gone, if it was asked to go.
    leaving: Option<u8>,
    /// Visits until it runs.
    starting: u8,
    was_ready: bool,
    permit: Option<Permit>,
    /// Visits until it sees the newest permit.
    sees_in: u8,
}

/// The pod that fills a volume.
#[derive(Clone, Debug)]
struct Filler {
    uid: u32,
    order: RestoreOrder,
    volume: u32,
    /// Visits until it is done, or fails.
    runs: u8,
    leaving: Option<u8>,
    state: RestoreState,
}

/// A backup: the cluster, its generation and the id that its next member gets.
#[derive(Clone, Debug)]
struct Backup {
    cluster: &'static str,
    generation: u64,
    next_id: i64,
}

#[derive(Clone, Debug)]
struct Disk {
    id: i64,
    cluster: &'static str,
    generation: u64,
    /// Visits until it has the state.
    joining: u8,
    applied: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registry {
    config: u64,
    next_id: i64,
    /// Id, volume, ordinal, whether it votes.
    members: Vec<(i64, u32, usize, bool)>,
}

#[derive(Clone, Debug)]
enum Change {
    Register(usize, u32),
    Deregister(i64),
}

fn name(volume: u32) -> String {
    format!("vol{volume}")
}

fn number(volume: &str) -> u32 {
    volume.strip_prefix("vol").and_then(|digits| digits.parse().ok()).expect("a volume of this world")
}

impl Registry {
    fn said(&self) -> Membership {
        let names: Vec<String> = self.members.iter().map(|member| name(member.1)).collect();
        let entries: Vec<Entry<'_>> = self
            .members
            .iter()
            .zip(&names)
            .map(|((id, _, ordinal, voter), volume)| (*id, volume.as_str(), *ordinal, *voter))
            .collect();
        Membership { next_member_id: self.next_id, ..membership(self.config, &entries) }
    }

    fn voters(&self) -> Vec<i64> {
        self.members.iter().filter(|member| member.3).map(|member| member.0).collect()
    }

    fn votes(&self, id: i64) -> bool {
        self.voters().contains(&id)
    }

    fn has(&self, id: i64) -> bool {
        self.members.iter().any(|member| member.0 == id)
    }
}

impl World {
    fn new(size: usize, retain: bool) -> Self {
        let count = u32::try_from(size).expect("small");
        let identities: Vec<Identity> =
            (0..count).map(|volume| disk(DiskState::Blank, &name(volume), None)).collect();
        let founded = permit(&identities);
        let member = |volume: u32| (i64::from(volume) + 1, volume, volume as usize, true);
        let members: Vec<_> = (0..count).map(member).collect();
        let registry = Registry { config: 1, next_id: i64::from(count) + 1, members };
        let pod = |volume: u32| Pod {
            uid: volume,
            volume,
            template: 0,
            leaving: None,
            starting: 0,
            was_ready: true,
            permit: Some(founded.clone()),
            sees_in: 0,
        };
        let id = |volume: u32| i64::from(volume) + 1;
        let disk = |volume| Disk { id: id(volume), cluster: CLUSTER, generation: 1, joining: 0, applied: 10 };
        Self {
            wanted: size,
            set: size,
            retain,
            pods: (0..count).map(|volume| (volume as usize, pod(volume))).collect(),
            claims: (0..count).map(|volume| (volume as usize, volume)).collect(),
            disks: (0..count).map(|volume| (volume, disk(volume))).collect(),
            before: registry.clone(),
            changed_at: 10,
            registry,
            sealed: None,
            taken: Vec::new(),
            leader: Some(1),
            epoch: 1,
            commit: 10,
            permit: Some(founded),
            slow: 0,
            note: None,
            switch: None,
            generation: 1,
            declared: None,
            recovery_note: None,
            restore: None,
            restore_note: None,
            filler: None,
            made_for: BTreeMap::new(),
            backups: BTreeMap::new(),
            status: (None, false),
            cluster: Some(CLUSTER.into()),
            leaving: BTreeSet::new(),
            stuck: BTreeSet::new(),
            template: 0,
            next: 100,
            visits: 0,
        }
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The pod of a member that runs.
    fn running(&self, id: i64) -> Option<(usize, &Pod)> {
        let is =
            |pod: &Pod| self.disks.get(&pod.volume).is_some_and(|disk| disk.id == id && disk.joining == 0);
        let mut pods = self.pods.iter().map(|(ordinal, pod)| (*ordinal, pod));
        pods.find(|(_, pod)| pod.leaving.is_none() && pod.starting == 0 && is(pod))
    }

    fn up(&self, voters: &[i64]) -> usize {
        voters.iter().filter(|id| self.running(**id).is_some()).count()
    }

    fn has_quorum(&self, voters: &[i64]) -> bool {
        self.up(voters) > voters.len() / 2
    }

    fn serves(&self, id: i64) -> bool {
        let voters = self.registry.voters();
        voters.contains(&id) && self.has_quorum(&voters) && self.running(id).is_some()
    }

    fn caught_up(&self, id: i64) -> bool {
        let applied = self.running(id).map(|(_, pod)| self.disks[&pod.volume].applied);
        applied.is_some_and(|applied| applied + 3 >= self.commit)
    }

    /// Whether a volume is of someone who votes, or will if the seal is chosen.
    fn is_needed(&self, volume: u32) -> bool {
        let sealed = self.sealed.iter().flat_map(|(voters, _)| voters);
        let needed: Vec<i64> = self.registry.voters().into_iter().chain(sealed.copied()).collect();
        self.registry.members.iter().any(|member| member.1 == volume && needed.contains(&member.0))
    }

    /// Time passes.
    fn pass(&mut self) {
        self.pods_come_and_go();
        self.volume_is_filled();
        self.permits_are_read();
        let voters = self.registry.voters();
        if !self.has_quorum(&voters) {
            self.leader = None;
            return;
        }
        let leads = self.leader.is_some_and(|id| self.serves(id));
        if !leads {
            let heir = voters.iter().copied().find(|id| self.serves(*id));
            self.elect(heir, self.visits.is_multiple_of(2));
        }
        self.seal_is_chosen();
        if self.sealed.is_none() {
            self.changes_are_applied();
            self.commit += 1;
        }
        self.members_catch_up();
    }

    fn pods_come_and_go(&mut self) {
        for ordinal in 0..self.set.max(self.pods.keys().max().map_or(0, |last| last + 1)) {
            let (uid, volume) = (self.fresh(), self.fresh());
            let wanted = ordinal < self.set;
            let Some(pod) = self.pods.get_mut(&ordinal) else {
                if wanted {
                    let volume = *self.claims.entry(ordinal).or_insert(volume);
                    let (template, permit) = (self.template, self.permit.clone());
                    let (leaving, was_ready) = (None, false);
                    let pod =
                        Pod { uid, volume, template, leaving, starting: 2, was_ready, permit, sees_in: 0 };
                    self.pods.insert(ordinal, pod);
                }
                continue;
            };
            if !wanted {
                pod.leaving.get_or_insert(1);
            }
            match pod.leaving {
                Some(0) => {
                    let volume = pod.volume;
                    self.pods.remove(&ordinal);
                    if (!wanted && !self.retain) || self.leaving.remove(&volume) {
                        self.claims.remove(&ordinal);
                        self.disks.remove(&volume);
                    }
                }
                Some(left) => pod.leaving = Some(left - 1),
                None if self.stuck.contains(&pod.volume) => pod.starting = 2,
                None if pod.starting == 1 => {
                    pod.starting = 0;
                    self.generation_begins(ordinal);
                    self.restored_generation_begins(ordinal);
                }
                None => pod.starting = pod.starting.saturating_sub(1),
            }
        }
    }

    /// A member reads its permit when it starts.
    fn generation_begins(&mut self, ordinal: usize) {
        let Pod { volume, permit: Some(permit), .. } = &self.pods[&ordinal] else { return };
        let begun =
            permit.generation.filter(|_| permit.recovers && permit.founders[0].volume == name(*volume));
        let (Some(begun), Some(disk)) = (begun, self.disks.get_mut(volume)) else { return };
        if begun > disk.generation {
            (disk.generation, self.generation) = (begun, begun);
            (self.commit, self.changed_at, self.leader) = (disk.applied + 1, disk.applied + 1, None);
            self.registry.config += 1;
            self.registry.members = vec![(disk.id, *volume, ordinal, true)];
            (self.before, self.sealed) = (self.registry.clone(), None);
            self.taken.clear();
            self.epoch += 1 << 16;
        }
    }

    fn permits_are_read(&mut self) {
        for pod in self.pods.values_mut() {
            if pod.permit != self.permit {
                match pod.sees_in {
                    0 => pod.permit = self.permit.clone(),
                    _ => pod.sees_in -= 1,
                }
            }
            if pod.starting > 0 || pod.leaving.is_some() {
                continue;
            }
            let Some(permit) = &pod.permit else { continue };
            let named = permit.joiners.iter().find(|joiner| joiner.volume == name(pod.volume));
            if let Some(named) = named {
                assert!(!permit.recovers, "nobody joins by the permit of a survivor");
                let generation = permit.generation.unwrap_or(1);
                let cluster = if permit.cluster_id == CLUSTER { CLUSTER } else { OTHER };
                let joining = Disk { id: named.member_id, cluster, generation, joining: 2, applied: 0 };
                let disk = self.disks.entry(pod.volume).or_insert(joining);
                if disk.joining > 0 {
                    disk.id = named.member_id;
                }
            }
        }
    }

    fn elect(&mut self, heir: Option<i64>, takes_over: bool) {
        if heir == self.leader {
            return;
        }
        self.leader = heir;
        // What was not applied may be lost with the leader that took it.
        self.taken.clear();
        if self.sealed.is_some() && takes_over {
            return;
        }
        self.sealed = None;
        self.epoch += 1;
    }

    fn seal_is_chosen(&mut self) {
        let Some((voters, delay)) = &mut self.sealed else { return };
        if *delay > 0 {
            *delay -= 1;
            return;
        }
        let voters = voters.clone();
        if self.up(&voters) * 2 < voters.len() {
            return;
        }
        self.sealed = None;
        (self.before, self.changed_at) = (self.registry.clone(), self.commit);
        self.registry.config += 1;
        self.registry.members.retain(|member| !member.3 || voters.contains(&member.0));
        for member in &mut self.registry.members {
            member.3 = voters.contains(&member.0);
        }
        self.epoch += 1;
        if !self.leader.is_some_and(|id| self.serves(id)) {
            self.leader = voters.into_iter().find(|id| self.serves(*id));
        }
    }

    fn changes_are_applied(&mut self) {
        if self.leader.is_none() {
            return;
        }
        for change in std::mem::take(&mut self.taken) {
            (self.before, self.changed_at) = (self.registry.clone(), self.commit);
            match change {
                Change::Register(ordinal, volume) => {
                    let id = self.registry.next_id;
                    if self.registry.members.iter().all(|member| member.1 != volume) {
                        self.registry.next_id += 1;
                        self.registry.members.push((id, volume, ordinal, false));
                    }
                }
                Change::Deregister(id) => {
                    self.registry.members.retain(|member| member.0 != id || member.3);
                }
            }
        }
    }

    fn members_catch_up(&mut self) {
        let (commit, leads) = (self.commit, self.leader.is_some());
        let known: Vec<i64> = self.registry.members.iter().map(|member| member.0).collect();
        for pod in self.pods.values_mut().filter(|pod| pod.starting == 0 && pod.leaving.is_none()) {
            let Some(disk) = self.disks.get_mut(&pod.volume).filter(|disk| known.contains(&disk.id)) else {
                continue;
            };
            if disk.joining > 0 {
                disk.joining -= u8::from(leads);
            } else if leads {
                disk.applied = commit.min(disk.applied + 10);
                pod.was_ready |= self.registry.members.iter().any(|member| member.0 == disk.id && member.3);
            }
        }
    }
}
