//! Changes of who belongs to the ensemble.
//!
//! Owns what a change means for this member: whom it feeds, whom it is connected to, whether it still belongs. Must not
//! know how a configuration ends, which the core does. Invariant: the list changes at the same slot on every member.

use crate::io::{CloseReason, Output};
use crate::registry::{Change, ChangeError, Member};
use crate::replica::Replica;
use crate::wire::WireError;
use bytes::Bytes;
use pharos_paxos::{ConfigNo, Entry, EntryKind, MemberId, Membership, NotLeader, Slot};

impl Replica {
    /// Asks for a change that leaves the voters as they are. It has happened when the list shows it.
    ///
    /// # Errors
    /// When this member cannot ask for it, or it would change nothing.
    pub fn change_members(&mut self, change: &Change) -> Result<(), ChangeError> {
        if !self.leads() {
            return Err(ChangeError::NotLeader);
        }
        self.registry.check(change)?;
        let proposed = self.paxos.propose(EntryKind::Members, change.encode());
        self.take_core_outputs();
        proposed.map(drop).map_err(|why| match why {
            NotLeader::NotLeading { .. } => ChangeError::NotLeader,
            NotLeader::WindowFull => ChangeError::Busy("too much is on its way"),
            NotLeader::Transferring => ChangeError::Busy("leadership is being handed over"),
            NotLeader::Sealed => ChangeError::Busy("the voters are being changed"),
            NotLeader::TooLarge => ChangeError::Busy("the change is too large"),
        })
    }

    /// Ends configuration `config`: the next has these voters. It has begun when the list says so.
    ///
    /// # Errors
    /// When this member cannot ask for it, or the voters could not go on by themselves.
    pub fn change_voters(&mut self, config: ConfigNo, voters: &[MemberId]) -> Result<(), ChangeError> {
        if !self.leads() {
            return Err(ChangeError::NotLeader);
        }
        // What stands in the log and is not carried out yet could take a voter out of the list, or end the configuration.
        let changes = |entry: &Entry| matches!(entry.kind, EntryKind::Members | EntryKind::Seal);
        if self.ahead().any(changes) && !self.cfg.plant.voters_over_members() {
            return Err(ChangeError::Busy("the members are being changed"));
        }
        let current = self.registry.membership().config;
        if config != current {
            return Err(ChangeError::OtherConfig(config.0, current.0));
        }
        if let Some(unknown) = voters.iter().find(|voter| self.registry.member(**voter).is_none()) {
            return Err(ChangeError::Unknown(*unknown));
        }
        let sealed = self.paxos.reconfigure(voters, &[]);
        self.take_core_outputs();
        Ok(sealed.map(drop)?)
    }

    /// Whom to be connected to: all in the list, and those that the log adds where it is not known yet what of it is
    /// chosen, for they may be the ones who tell.
    #[must_use]
    pub fn peers(&self) -> Vec<Member> {
        let mut ahead = self.registry.clone();
        for entry in self.ahead().filter(|entry| entry.kind == EntryKind::Members) {
            if let Ok(change @ Change::Add(_)) = Change::decode(entry.payload.clone()) {
                ahead.apply(change);
            }
        }
        ahead.members().iter().filter(|member| member.id != self.cfg.me).cloned().collect()
    }

    /// What stands in the log and is not carried out.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = &Entry> {
        let first = self.applier.applied().0 + 1;
        (first..).map_while(|slot| self.paxos.entry(Slot(slot)))
    }

    /// Whether this member belonged to the ensemble and does not any more.
    #[must_use]
    pub fn was_removed(&self) -> bool {
        self.registry.was_removed(self.cfg.me)
    }

    /// Whether the list names this member.
    pub(crate) fn belongs(&self) -> bool {
        self.registry.member(self.cfg.me).is_some()
    }

    /// Whether this member's log ends with a change of the voters that is not known to be chosen.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.paxos.is_sealed()
    }

    pub(crate) fn apply_change(&mut self, payload: Bytes) -> Result<(), WireError> {
        if self.cfg.plant.reuses_ids() {
            self.registry.forget_who_left();
        }
        self.registry.apply(Change::decode(payload)?);
        self.members_changed();
        Ok(())
    }

    pub(crate) fn enter_configuration(&mut self, next: Membership) {
        self.registry.enter(next);
        self.members_changed();
    }

    pub(crate) fn members_changed(&mut self) {
        self.paxos.set_learners(self.registry.learners());
        self.outputs.push_back(Output::Members);
        if self.was_removed() && !self.cfg.plant.removed_keeps_serving() {
            self.close_all(CloseReason::Removed);
        }
    }

    pub(crate) fn close_all(&mut self, reason: CloseReason) {
        for conn in self.clients.select(|_| true) {
            self.close(conn, reason);
        }
    }
}
