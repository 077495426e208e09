//! What is on the way between members.
//!
//! Owns loss and order. Must not know what a message means. A message that is never delivered is a lost
//! one, so loss needs no action of its own. Two equal messages on the way are one.

use crate::shared::Shared;
use pharos_paxos::{Ballot, Membership, Message, Slot};

/// What one member says to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Speech {
    /// What cores say.
    Core(Message),
    /// The state as of `upto`, whole; what replicas say (`node/replica/src/snapshot.rs`).
    Snapshot {
        /// The sender's ballot.
        ballot: Ballot,
        /// What the state holds.
        upto: Slot,
        /// It includes the sender's own first entry.
        complete: bool,
        /// Who votes, as of it.
        voters: Membership,
    },
}

/// A message on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The sender, by its place.
    pub from: usize,
    /// The addressee, by its place.
    pub to: usize,
    /// What is said.
    pub speech: Speech,
}

/// Whether messages overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any message overtakes any other, by any length of time.
    Any,
    /// None overtakes another of its lane: from one member to another, large ones apart from small ones. As
    /// over a connection, but that any message can get lost.
    Lanes,
}

/// Messages by lane. In a lane they stand in the order in which they were sent, if that is kept, or else in
/// the order of their hashes.
#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub(crate) struct Net(Vec<Shared<Envelope>>);

impl Envelope {
    fn lane(&self) -> (usize, usize, bool) {
        let bulk = match &self.speech {
            Speech::Core(msg) => msg.is_bulk(),
            Speech::Snapshot { .. } => true,
        };
        (self.from, self.to, bulk)
    }
}

impl Net {
    pub(crate) fn add(&mut self, envelope: Envelope, order: Order) {
        let envelope = Shared::new(envelope);
        let lane = envelope.lane();
        let place = match order {
            Order::Any => self.0.partition_point(|e| (e.lane(), e.key()) < (lane, envelope.key())),
            Order::Lanes => self.0.partition_point(|e| e.lane() <= lane),
        };
        let known = match order {
            Order::Any => self.0.get(place),
            Order::Lanes => self.0[..place].last(),
        };
        if known != Some(&envelope) {
            self.0.insert(place, envelope);
        }
    }

    /// It has arrived. What it has overtaken is lost, where order is kept.
    pub(crate) fn remove(&mut self, envelope: &Shared<Envelope>, order: Order) {
        let Some(place) = self.0.iter().position(|e| e == envelope) else { return };
        let first = match order {
            Order::Any => place,
            Order::Lanes => self.0.partition_point(|e| e.lane() < envelope.lane()),
        };
        self.0.drain(first..=place);
    }

    /// Loses what fits.
    pub(crate) fn lose(&mut self, fits: impl Fn(&Envelope) -> bool) {
        self.0.retain(|e| !fits(e));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<Envelope>> {
        self.0.iter()
    }
}
