//! The state for members that lack what is trimmed.
//!
//! Owns a transfer in both directions: who is sent what, what has come, and when it takes effect. Must not
//! know the store. Invariants: a state that came takes effect whole, once the store has flushed it, and
//! nothing is applied in between; no client of the state before is answered from the state after; what a
//! member is being sent, the log of the sender goes on from.

use crate::founding::Founding;
use crate::io::{CloseReason, Output, PersistBatch, PersistRows};
use crate::peer_msg::{PeerError, PeerMsg};
use crate::registry::Registry;
use crate::replica::{FOUNDING_KEY, Leadership, OWN_PREFIX, REGISTRY_KEY, Replica};
use crate::rows::{installed_row, is_of_state, put_row, read_rows};
use crate::wire::{Reader, WireError};
use bytes::Bytes;
use pharos_paxos::{Ballot, MemberId, Millis, Slot};
use pharos_znode::State;
use std::collections::BTreeSet;

/// The own row that says which state was installed last, by its slot.
pub(crate) const INSTALLED_KEY: &[u8] = b"\xffinstalled";
/// Bytes of rows in one frame, in production.
const PART_BYTES: usize = 256 << 10;
/// Parts on the way at once.
const WINDOW: usize = 4;
/// Milliseconds without an answer after which a transfer is given up, to begin anew.
const PATIENCE_MS: u64 = 10_000;

type Rows = Vec<(Bytes, Bytes)>;

/// The rows of a store as they are sent. Made by the driver, from the store, in the order of the keys.
#[derive(Debug)]
pub struct Snapshot {
    parts: Vec<Bytes>,
    part: Vec<u8>,
    part_bytes: usize,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::in_parts_of(PART_BYTES)
    }
}

impl Snapshot {
    /// In parts of about so many bytes.
    #[must_use]
    pub fn in_parts_of(part_bytes: usize) -> Self {
        Self { parts: Vec::new(), part: Vec::new(), part_bytes }
    }

    /// Whether there is more than one part.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.parts.len() + usize::from(!self.part.is_empty()) > 1
    }

    /// Adds a row; of the replica's own only those that are the same on every member.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        if !is_of_state(key) {
            return;
        }
        put_row(&mut self.part, key, value);
        if self.part.len() >= self.part_bytes {
            self.parts.push(std::mem::take(&mut self.part).into());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.part.is_empty() {
            self.parts.push(self.part.into());
        }
        self.parts
    }
}

/// Both directions.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    outgoing: Option<Outgoing>,
    /// Whom there is a connection to.
    connected: BTreeSet<MemberId>,
    /// Who was sent a state last: the others come first.
    last: Option<MemberId>,
    /// The driver has been asked and has not answered.
    asked: bool,
    incoming: Option<Incoming>,
    install: Option<Install>,
    installed: u64,
    installed_upto: Slot,
}

/// A transfer to a member.
#[derive(Debug)]
struct Outgoing {
    to: MemberId,
    ballot: Ballot,
    /// Entries above are kept.
    upto: Slot,
    /// None until the driver has read them.
    parts: Option<Vec<Bytes>>,
    sent: usize,
    acknowledged: usize,
    progress_at: Millis,
}

/// A transfer from the leader.
#[derive(Debug)]
struct Incoming {
    ballot: Ballot,
    upto: Slot,
    next: u32,
    rows: Rows,
}

/// A state that has come whole.
struct Install {
    upto: Slot,
    /// The leader's ballot, if its own first entry is in the state.
    complete: Option<Ballot>,
    state: State,
    founding: Founding,
    registry: Registry,
    /// None once they are with the driver.
    rows: Option<Rows>,
}

impl Install {
    /// Of all rows that came; those of the replica are sorted out.
    fn new(upto: Slot, complete: Option<Ballot>, rows: Rows) -> Result<Self, PeerError> {
        let (own, rows): (Rows, Rows) =
            rows.into_iter().partition(|(key, _)| key.first() == Some(&OWN_PREFIX));
        let find = |wanted: &[u8], field| {
            let row = own.iter().find(|(key, _)| key == wanted);
            row.map(|(_, value)| value.clone()).ok_or(WireError::Truncated { field })
        };
        let founding = Founding::decode(find(FOUNDING_KEY, "founding")?)?;
        let registry = Registry::decode(find(REGISTRY_KEY, "registry")?)?;
        let state = State::from_rows(rows.iter().cloned()).map_err(PeerError::Rows)?;
        Ok(Self { upto, complete, state, founding, registry, rows: Some(rows) })
    }
}

impl std::fmt::Debug for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Install").field("upto", &self.upto).finish_non_exhaustive()
    }
}

impl Snapshots {
    /// The log is kept from here on while a member is sent the state.
    pub(crate) fn hold(&self) -> Option<Slot> {
        self.outgoing.as_ref().map(|outgoing| outgoing.upto)
    }

    /// A state is coming or waits for the store: nobody is served from the one before.
    pub(crate) fn comes(&self) -> bool {
        self.incoming.is_some() || self.install.is_some()
    }

    /// Nothing is applied to a state that is about to be replaced.
    pub(crate) fn waits(&self) -> bool {
        self.install.is_some()
    }

    /// How many states were installed in this process.
    pub(crate) fn installed(&self) -> u64 {
        self.installed
    }

    /// So much is applied: an older state is not waited for.
    pub(crate) fn reached(&mut self, applied: Slot) {
        self.incoming.take_if(|incoming| incoming.upto <= applied);
    }

    /// The leader has changed: what the old one sends, or was sent by this member as leader, ends here.
    pub(crate) fn leader_changed(&mut self, ballot: Ballot) {
        self.incoming.take_if(|incoming| incoming.ballot != ballot);
        self.outgoing = None;
    }

    pub(crate) fn connected(&mut self, peer: MemberId) {
        self.connected.insert(peer);
        self.outgoing.take_if(|outgoing| outgoing.to == peer);
    }

    /// The connection broke.
    pub(crate) fn lost(&mut self, peer: MemberId) {
        self.connected.remove(&peer);
        self.outgoing.take_if(|outgoing| outgoing.to == peer);
    }

    pub(crate) fn acknowledged(&mut self, from: MemberId, upto: Slot, next: u32, now: Millis) {
        let current = self.outgoing.as_mut().filter(|o| (o.to, o.upto) == (from, upto));
        if let Some(outgoing) = current
            && next as usize > outgoing.acknowledged
            && next as usize <= outgoing.sent
        {
            outgoing.acknowledged = next as usize;
            outgoing.progress_at = now;
        }
    }
}

impl Replica {
    /// The slot of the state that this process took over last; zero if it took none.
    #[must_use]
    pub fn installed_upto(&self) -> Slot {
        self.snapshots.installed_upto
    }

    /// The rows that [`Output::Snapshot`] asked for, as the store holds them after `upto`.
    pub fn snapshot_read(&mut self, upto: Slot, snapshot: Snapshot) {
        self.snapshots.asked = false;
        if let Some(outgoing) = &mut self.snapshots.outgoing
            && outgoing.parts.is_none()
        {
            assert!(upto >= outgoing.upto, "the store does not go back");
            outgoing.upto = upto;
            outgoing.parts = Some(snapshot.finish());
            outgoing.progress_at = self.now.mono;
        }
    }

    /// Begins, goes on with and ends the transfer to a member that is behind; one at a time.
    pub(crate) fn send_snapshots(&mut self) {
        let now = self.now.mono;
        let given_up = |o: &Outgoing| o.parts.is_some() && now.0 - o.progress_at.0 >= PATIENCE_MS;
        let done = |o: &Outgoing| {
            let sent = o.parts.as_ref().is_some_and(|parts| o.acknowledged == parts.len());
            let behind = || self.paxos.behind().any(|member| member == o.to);
            if self.digests.is_asking(o.to) { sent } else { !behind() }
        };
        if let Some(over) = self.snapshots.outgoing.take_if(|o| given_up(o) || done(o)) {
            self.digests.answered(over.to);
        }
        if self.snapshots.outgoing.is_none() && !self.snapshots.asked {
            self.begin_transfer();
        }
        let Some(outgoing) = &mut self.snapshots.outgoing else { return };
        let (to, ballot, upto) = (outgoing.to, outgoing.ballot, outgoing.upto);
        let complete = self.paxos.epoch_start().is_some_and(|start| start <= upto);
        let mut messages = Vec::new();
        if let Some(parts) = &outgoing.parts {
            while outgoing.sent < parts.len().min(outgoing.acknowledged + WINDOW) {
                let (part, parts) = (outgoing.sent as u32, parts.len() as u32);
                let rows = outgoing.parts.as_ref().expect("just seen")[outgoing.sent].clone();
                messages.push(PeerMsg::Snapshot { ballot, upto, complete, part, parts, rows });
                outgoing.sent += 1;
            }
        }
        messages.iter().for_each(|message| self.send(to, message));
    }

    fn begin_transfer(&mut self) {
        let Leadership::Leads { ballot } = self.leadership else { return };
        let upto = self.persist.flushed();
        // Of the state before the last change of the voters a member would learn of an ensemble that is over.
        if upto < self.registry.membership().since {
            return;
        }
        let needy = || self.paxos.behind().chain(self.digests.asking(upto));
        let reachable = || needy().filter(|member| self.snapshots.connected.contains(member));
        let next = reachable().find(|member| Some(*member) > self.snapshots.last);
        let Some(to) = next.or_else(|| reachable().next()) else { return };
        self.snapshots.last = Some(to);
        let progress_at = self.now.mono;
        self.snapshots.outgoing =
            Some(Outgoing { to, ballot, upto, parts: None, sent: 0, acknowledged: 0, progress_at });
        self.snapshots.asked = true;
        self.outputs.push_back(Output::Snapshot);
    }

    /// A part of a state came.
    pub(crate) fn take_snapshot(
        &mut self,
        from: MemberId,
        (ballot, upto, complete): (Ballot, Slot, bool),
        (part, parts): (u32, u32),
        rows: Bytes,
    ) -> Result<(), PeerError> {
        let applied = self.applier.applied();
        let wanted = upto > applied || (upto == applied && self.digests.is_wrong());
        let of_use = wanted || self.cfg.plant.takes_old_state();
        if self.snapshots.install.is_some() || !of_use || !self.expects(from, ballot) {
            return Ok(());
        }
        let mixes = self.cfg.plant.mixes_states();
        if part == 0 && !(mixes && self.snapshots.incoming.is_some()) {
            self.snapshots.incoming = Some(Incoming { ballot, upto, next: 0, rows: Vec::new() });
            self.close_all(CloseReason::NotServing);
        }
        let Some(incoming) = &mut self.snapshots.incoming else { return Ok(()) };
        let same = (incoming.ballot, incoming.upto) == (ballot, upto) || mixes;
        if !same || incoming.next != part {
            return Ok(());
        }
        incoming.rows.extend(read_rows(rows)?);
        incoming.next += 1;
        let next = incoming.next;
        if next == parts
            && let Some(Incoming { rows, .. }) = self.snapshots.incoming.take()
        {
            let install = Install::new(upto, complete.then_some(ballot), rows)?;
            if !self.can_take(install.state.level()) {
                return Ok(());
            }
            self.snapshots.install = Some(install);
        }
        self.send(from, &PeerMsg::SnapshotAck { upto, next });
        Ok(())
    }

    /// Whether a state may come from there: from the leader of the ballot promised, or of a higher one, whose
    /// Prepare this member could not answer since its log holds nothing.
    fn expects(&mut self, from: MemberId, ballot: Ballot) -> bool {
        self.paxos.await_state(ballot);
        self.take_core_outputs();
        ballot.member == from && ballot == self.paxos.ballot() && !self.leads()
    }

    /// What the store has to hold instead of everything it holds, once a state has come whole.
    pub(crate) fn take_install(&mut self) -> Option<PersistBatch> {
        let install = self.snapshots.install.as_mut()?;
        let rows = install.rows.take()?;
        let row = |key, value: Vec<u8>| (Bytes::from_static(key), Bytes::from(value));
        let mark = if self.cfg.plant.state_without_mark() { Slot::ZERO } else { install.upto };
        let own = vec![
            row(FOUNDING_KEY, install.founding.encode()),
            installed_row(mark),
            row(REGISTRY_KEY, install.registry.encode()),
        ];
        Some(PersistBatch { rows: PersistRows::All(rows), own, applied: install.upto })
    }

    /// The store holds it: from here on it is this member's state.
    pub(crate) fn finish_install(&mut self, applied: Slot) -> bool {
        let Some(Install { upto, complete, state, founding, registry, .. }) =
            self.snapshots.install.take_if(|install| install.rows.is_none())
        else {
            return false;
        };
        assert_eq!(upto, applied, "the store says what it was given");
        self.close_all(CloseReason::NotServing);
        self.digests.installed();
        self.snapshots.installed += 1;
        self.snapshots.installed_upto = upto;
        self.state = state;
        self.applier.jump(upto);
        self.persist.installed(upto, self.now.mono);
        self.founding = founding;
        self.paxos.install(upto, complete, registry.membership());
        if !self.cfg.plant.registry_not_in_state() {
            self.registry = registry;
        }
        self.members_changed();
        if self.leads() {
            self.grant_full_timeouts();
        }
        true
    }
}

/// Which state was installed last.
pub(crate) fn installed(own: &[(Bytes, Bytes)]) -> Result<Slot, WireError> {
    let Some((_, value)) = own.iter().find(|(key, _)| key == INSTALLED_KEY) else { return Ok(Slot::ZERO) };
    let mut r = Reader::new(value.clone());
    let upto = Slot(r.u64("installed slot")?);
    r.end()?;
    Ok(upto)
}
