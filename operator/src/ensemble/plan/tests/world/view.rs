//! What the operator sees of a small world.

use super::*;

impl World {
    /// What is seen while this member is silent, or lags behind.
    pub(super) fn observe(&self, silent: Option<usize>, lags: Option<usize>) -> Observed {
        let is = |which: Option<usize>, ordinal: usize| which.is_some_and(|one| one % self.set == ordinal);
        let members = (0..self.set).map(|ordinal| {
            let pod = self.pods.get(&ordinal)?;
            let answers = pod.starting == 0 && !is(silent, ordinal);
            Some(self.see(ordinal, pod, answers, is(lags, ordinal)))
        });
        let mut observed = of(members.collect(), self.wanted);
        (observed.note, observed.switch) = (self.note.clone(), self.switch.clone());
        (observed.permit, observed.cluster_id) = (self.permit.clone(), self.cluster.clone());
        let declined;
        (observed.known_generation, declined) = self.status;
        observed.recovery_note = self.recovery_note.clone();
        observed.recovery = self.declared.map(|(generation, survivor)| {
            let survivor = format!("main-ensemble-{survivor}");
            Declared { generation, survivor, declined }
        });
        (observed.restore, observed.restore_note) = (self.restore.clone(), self.restore_note.clone());
        observed.restore_pod = self.filler.as_ref().map(|filler| RestorePod {
            uid: filler.uid.to_string(),
            order: Some(filler.order.clone()),
            terminating: filler.leaving.is_some(),
            state: filler.state.clone(),
        });
        let claim = |ordinal| {
            let volume = self.claims.get(&ordinal)?;
            let (uid, leaving) = (volume.to_string(), self.leaving.contains(volume));
            Some(Claim { uid, leaving, restores: self.made_for.get(volume).cloned() })
        };
        observed.claims = (0..=self.set.max(7)).map(claim).collect();
        observed
    }

    fn see(&self, ordinal: usize, pod: &Pod, answers: bool, lags: bool) -> Member {
        let disk = self.disks.get(&pod.volume);
        let id = disk.map(|disk| disk.id).filter(|_| disk.is_some_and(|disk| disk.joining == 0));
        let role = match (disk, id) {
            (None, _) => Role::Blank,
            (Some(_), None) => Role::Joining,
            (Some(_), Some(id)) if !self.registry.has(id) => Role::Removed,
            (Some(_), Some(id)) if !self.registry.votes(id) => Role::Learner,
            (Some(_), Some(id)) if self.leader == Some(id) => Role::Leader,
            (Some(_), Some(id)) if self.serves(id) => Role::Follower,
            (Some(_), Some(_)) => Role::Candidate,
        };
        let mut member = member(ordinal, role);
        (member.uid, member.up_to_date) = (pod.uid.to_string(), pod.template == self.template);
        member.terminating = pod.leaving.is_some();
        member.ready = id.is_some_and(|id| self.serves(id));
        (member.serving, member.running) = (member.ready && answers, pod.starting == 0);
        member.health = if pod.was_ready { Health::WasReady } else { Health::NeverReady };
        let state = match (disk, id) {
            (None, _) => DiskState::Blank,
            (Some(_), None) => DiskState::Joining,
            (Some(_), Some(_)) => DiskState::Member,
        };
        let generation = disk.map(|disk| disk.generation).filter(|_| id.is_some());
        let identity = Identity {
            member_id: id,
            generation,
            ..super::disk(state, &name(pod.volume), disk.filter(|_| id.is_some()).map(|disk| disk.cluster))
        };
        member.identity = answers.then_some(identity);
        member.status = answers.then(|| self.status_of(id, role, lags, disk.map_or(0, |disk| disk.applied)));
        member
    }

    fn status_of(&self, id: Option<i64>, role: Role, lags: bool, applied: u64) -> NodeStatus {
        let (known, applied) = match lags {
            true => (&self.before, applied.min(self.changed_at - 1)),
            false => (&self.registry, applied),
        };
        let fed = matches!(role, Role::Leader | Role::Follower | Role::Learner);
        let peers = self.registry.members.iter().filter(|_| role == Role::Leader);
        NodeStatus {
            leader: self.leader.filter(|_| fed),
            committed: self.commit,
            ballot: format!("{}.{}.1", self.registry.config, self.epoch),
            zxid: format!("{:#x}", self.epoch << 32),
            peers: peers
                .map(|member| PeerStatus { member_id: member.0, caught_up: self.caught_up(member.0) })
                .collect(),
            membership: id.map(|_| known.said()),
            ..node(id.unwrap_or(0), role, applied)
        }
    }
}
