//! Changes of who belongs to the ensemble.
//!
//! Owns what a change means for this member: whom it feeds, whom it is connected to, whether it still belongs. Must not
//! know how a configuration ends, which the core does. Invariant: the list changes at the same slot on every member.

use crate::io::{CloseReason, Output};
use crate::registry::{Change, ChangeError, Member};
use crate::replica::Replica;
use crate::wire::WireError;
use bytes::Bytes;
use pharos_paxos::{ConfigNo, EntryKind, MemberId, Membership, NotLeader};

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
        let mut slot = self.applier.applied().next();
        while let Some(entry) = self.paxos.entry(slot) {
            if entry.kind == EntryKind::Members
                && let Ok(change @ Change::Add(_)) = Change::decode(entry.payload.clone())
            {
                ahead.apply(change);
            }
            slot = slot.next();
        }
        ahead.members().iter().filter(|member| member.id != self.cfg.me).cloned().collect()
    }

    /// Whether this member belonged to the ensemble and does not any more.
    #[must_use]
    pub fn was_removed(&self) -> bool {
        self.registry.was_removed(self.cfg.me)
    }

    pub(crate) fn apply_change(&mut self, payload: Bytes) -> Result<(), WireError> {
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
        if self.was_removed() {
            self.close_all(CloseReason::Removed);
        }
    }

    pub(crate) fn close_all(&mut self, reason: CloseReason) {
        for conn in self.clients.select(|_| true) {
            self.close(conn, reason);
        }
    }
}
