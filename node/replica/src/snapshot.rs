//! The state that comes to a member that lacks what is trimmed.
//!
//! Owns what has come, and when it takes effect. Must not know the store, to which the parts go as they come. Invariants:
//! a state that came takes effect whole, once the store has flushed it, and nothing is applied in between; no client of
//! the state before is answered from the state after; neither its rows nor the work of making it a tree are here.

use crate::arrival::Arrived;
use crate::io::{CloseReason, Output, PersistBatch, PersistRows};
use crate::peer_msg::PeerMsg;
use crate::replica::{FOUNDING_KEY, REGISTRY_KEY, Replica};
use crate::rows::installed_row;
use crate::wire::{Reader, WireError};
use bytes::Bytes;
use pharos_paxos::{Ballot, MemberId, Slot};

/// The own row that says which state was installed last, by its slot.
pub(crate) const INSTALLED_KEY: &[u8] = b"\xffinstalled";

/// What comes and what has come.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    incoming: Option<Incoming>,
    install: Option<Install>,
    arrivals: u64,
    installed: u64,
    installed_upto: Slot,
}

/// A transfer from the leader.
#[derive(Debug)]
struct Incoming {
    arrival: u64,
    from: MemberId,
    ballot: Ballot,
    upto: Slot,
    /// The leader's own first entry is in the state.
    complete: bool,
    next: u32,
    /// Parts below are in the store.
    stored: u32,
}

/// A state that has come whole.
struct Install {
    upto: Slot,
    /// The leader's ballot, if its own first entry is in the state.
    complete: Option<Ballot>,
    arrived: Box<Arrived>,
    /// The store was told to take it.
    told: bool,
}

impl std::fmt::Debug for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Install").field("upto", &self.upto).finish_non_exhaustive()
    }
}

impl Snapshots {
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
    pub(crate) fn reached(&mut self, applied: Slot) -> Option<Output> {
        self.incoming.take_if(|incoming| incoming.upto <= applied).map(|_| Output::Abandon)
    }

    /// The leader has changed: what the old one sends ends here.
    pub(crate) fn leader_changed(&mut self, ballot: Ballot) -> Option<Output> {
        self.incoming.take_if(|incoming| incoming.ballot != ballot).map(|_| Output::Abandon)
    }
}

impl Replica {
    /// The slot of the state that this process took over last; zero if it took none.
    #[must_use]
    pub fn installed_upto(&self) -> Slot {
        self.snapshots.installed_upto
    }

    /// A part of a state came.
    pub(crate) fn take_snapshot(
        &mut self,
        from: MemberId,
        (ballot, upto, complete): (Ballot, Slot, bool),
        (part, parts): (u32, u32),
        rows: Bytes,
    ) {
        let applied = self.applier.applied();
        let wanted = upto > applied || (upto == applied && self.digests.is_wrong());
        let of_use = wanted || self.cfg.plant.takes_old_state();
        if self.snapshots.install.is_some() || !of_use || !self.expects(from, ballot) {
            return;
        }
        let mixes = self.cfg.plant.mixes_states();
        let first = part == 0 && !(mixes && self.snapshots.incoming.is_some());
        if first {
            self.snapshots.arrivals += 1;
            let arrival = self.snapshots.arrivals;
            self.snapshots.incoming =
                Some(Incoming { arrival, from, ballot, upto, complete, next: 0, stored: 0 });
            self.close_all(CloseReason::NotServing);
        }
        let Some(incoming) = &mut self.snapshots.incoming else { return };
        let same = (incoming.ballot, incoming.upto) == (ballot, upto) || mixes;
        if same && part < incoming.stored {
            // It was sent again, since the acknowledgement was lost.
            let next = incoming.stored;
            return self.send(from, &PeerMsg::SnapshotAck { upto, next });
        }
        if !same || incoming.next != part {
            return;
        }
        incoming.next += 1;
        (incoming.upto, incoming.complete) = (upto, complete);
        let last = incoming.next == parts;
        let arrival = incoming.arrival;
        self.outputs.push_back(Output::Store { arrival, first, last, rows });
    }

    /// The part of an [`Output::Store`] is in the store; the state, if it was the last one.
    pub fn part_stored(&mut self, arrival: u64, arrived: Option<Box<Arrived>>) {
        let Some(incoming) = self.snapshots.incoming.as_mut().filter(|one| one.arrival == arrival) else {
            return;
        };
        incoming.stored += 1;
        let Incoming { from, ballot, upto, complete, stored: next, .. } = *incoming;
        if let Some(arrived) = arrived {
            self.snapshots.incoming = None;
            if !self.can_take(arrived.state.level()) {
                return;
            }
            let complete = complete.then_some(ballot);
            self.snapshots.install = Some(Install { upto, complete, arrived, told: false });
        }
        self.send(from, &PeerMsg::SnapshotAck { upto, next });
    }

    /// What came makes no state, or found no room: the leader will send it again.
    pub fn part_refused(&mut self, arrival: u64) {
        self.snapshots.incoming.take_if(|incoming| incoming.arrival == arrival);
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
        let install = self.snapshots.install.as_mut().filter(|install| !install.told)?;
        install.told = true;
        let row = |key, value: Vec<u8>| (Bytes::from_static(key), Bytes::from(value));
        let mark = if self.cfg.plant.state_without_mark() { Slot::ZERO } else { install.upto };
        let own = vec![
            row(FOUNDING_KEY, install.arrived.founding.encode()),
            installed_row(mark),
            row(REGISTRY_KEY, install.arrived.registry.encode()),
        ];
        Some(PersistBatch { rows: PersistRows::Arrived, own, applied: install.upto })
    }

    /// The store holds it: from here on it is this member's state.
    pub(crate) fn finish_install(&mut self, applied: Slot) -> bool {
        let Some(Install { upto, complete, arrived, .. }) =
            self.snapshots.install.take_if(|install| install.told)
        else {
            return false;
        };
        let Arrived { state, founding, registry } = *arrived;
        assert_eq!(upto, applied, "the store says what it was given");
        self.close_all(CloseReason::NotServing);
        self.digests.installed();
        self.snapshots.installed += 1;
        self.snapshots.installed_upto = upto;
        let before = std::mem::replace(&mut self.state, state);
        self.outputs.push_back(Output::Discard { state: Box::new(before) });
        self.cold.forget();
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
