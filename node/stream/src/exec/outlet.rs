//! The outgoing side of a task: what its round has for each thread of each target.
//!
//! Owns: the division of rows among the threads of a target, and whether they travel as they are.
//! Must not know: what made the rows, who is on the other side of a channel.
//! Invariant: every thread of every target is sent every round, be there rows for it or not.

use std::sync::Arc;

use pharos_beam::plan::NodeId;
use pharos_window::SplitState;

use super::ROUND_STEPS;
use super::channel::{Channel, Epoch, Label, Message, Payload, Round};
use super::fragment::Outbox;
use crate::group::{Combiner, KeyedBatch};

/// How far time is after each step of a round.
pub(super) type States = [SplitState; ROUND_STEPS];

/// The channels to one target, one for each of its threads.
#[derive(Debug)]
pub(crate) struct Route {
    /// The target.
    pub target: NodeId,
    /// Its threads' queues.
    pub channels: Vec<Arc<Channel>>,
    /// Adds up what goes to a grouping, where that changes nothing.
    pub combiner: Option<Combiner>,
}

impl Route {
    /// What each of the target's threads is sent of `parts` in a round after which the origin's time is `state`.
    fn divide(&mut self, parts: Vec<(Label, Payload)>, state: SplitState) -> Vec<Vec<(Label, Payload)>> {
        let owners = self.channels.len();
        if owners == 1 {
            return vec![parts];
        }
        let reached = match state {
            SplitState::Active(watermark) => Some(watermark),
            SplitState::Finished => None,
            SplitState::Idle => {
                // The target's time goes on without this origin's, and may be ahead of it when that goes on.
                self.combiner = None;
                None
            }
        };
        let label = parts.first().map(|(label, _)| *label);
        let mut divided: Vec<Vec<(Label, Payload)>> = (0..owners).map(|_| Vec::new()).collect();
        let mut combiner = self.combiner.as_mut().and_then(|one| one.begin(reached).then_some(one));
        for (label, payload) in parts {
            let batch = keyed(payload);
            let whole = |batch: KeyedBatch| (batch.keys.len() > 0).then_some(batch);
            let others = match &mut combiner {
                None => whole(batch),
                Some(combiner) => {
                    let others = combiner.add(&batch);
                    if others.len() == batch.keys.len() { whole(batch) } else { whole(batch.take(&others)) }
                }
            };
            others.into_iter().for_each(|batch| scatter(label, &batch, &mut divided));
        }
        for (combiner, label) in combiner.into_iter().zip(label) {
            for (parts, partials) in divided.iter_mut().zip(combiner.finish()) {
                if !partials.slices.is_empty() {
                    parts.push((label, Payload::Partials(partials)));
                }
            }
        }
        divided
    }
}

/// Divides rows among the owners of their keys' groups.
fn scatter(label: Label, batch: &KeyedBatch, divided: &mut [Vec<(Label, Payload)>]) {
    let owners = divided.len();
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); owners];
    (0..batch.keys.len()).for_each(|row| rows[batch.keys.hash(row).group().owner(owners)].push(row as u32));
    for (parts, rows) in divided.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
        parts.push((label, Payload::Keyed(batch.take(&rows))));
    }
}

fn keyed(payload: Payload) -> KeyedBatch {
    match payload {
        Payload::Keyed(batch) => batch,
        Payload::Partials(_) | Payload::Rows(_) | Payload::Bytes(..) => {
            unreachable!("only keyed rows go to several threads")
        }
    }
}

/// The outgoing side of an origin.
#[derive(Debug)]
pub(crate) struct Outlet {
    routes: Vec<Route>,
}

impl Outlet {
    /// An outlet to these targets.
    #[must_use]
    pub(crate) fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// Whether another round may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.routes.iter().flat_map(|route| &route.channels).all(|channel| channel.has_room())
    }

    /// Sends a round to all of them.
    pub(super) fn send(
        &mut self,
        mut outbox: Outbox,
        round: Round,
        states: States,
        end: bool,
        barrier: Option<Epoch>,
    ) {
        for route in &mut self.routes {
            let parts = outbox.remove(&route.target).unwrap_or_default();
            let divided = route.divide(parts, states[ROUND_STEPS - 1]);
            for (channel, parts) in route.channels.iter().zip(divided) {
                channel.send(Message { round, states, end, barrier, parts });
            }
        }
        assert!(outbox.is_empty(), "an origin sends only to targets it reaches");
    }
}
