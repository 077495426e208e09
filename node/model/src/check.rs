//! Checking one configuration.
//!
//! Owns what is reported of it. Invariant: a report says "exhausted" only if no state was left out.

use crate::bounds::Bounds;
use crate::model::{Action, PaxosModel};
use crate::properties::{properties, situation_names};
use crate::world::World;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// What came of a configuration.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub unique: usize,
    /// Steps that led to a state, new or not.
    pub steps: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Every state within the bounds was visited.
    pub exhausted: bool,
    /// The first broken property, with a shortest way to it.
    pub broken: Option<Counterexample>,
    /// The situations met.
    pub met: Vec<&'static str>,
}

/// A way to a state in which something does not hold.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// What does not hold.
    pub property: &'static str,
    /// What happened, in order.
    pub actions: Vec<Action>,
    /// What the last step found, if a step did.
    pub found: String,
}

/// Visits every state of the configuration, or as many as `limit` steps lead to.
#[must_use]
pub fn check(bounds: Bounds, limit: usize) -> Report {
    let model = PaxosModel { bounds };
    let failures = HasDiscoveries::AnyFailures;
    let checker = model.checker().finish_when(failures).target_state_count(limit).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let rules: Vec<_> = properties().into_iter().filter(|p| p.expectation == Expectation::Always).collect();
    let broken = rules.iter().find_map(|p| Some(counterexample(p.name, discoveries.get(p.name)?.clone())));
    Report {
        unique: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        exhausted: broken.is_none() && checker.state_count() < limit,
        broken,
        met: situation_names().into_iter().filter(|name| discoveries.contains_key(name)).collect(),
    }
}

fn counterexample(property: &'static str, path: Path<World, Action>) -> Counterexample {
    let found = path.last_state().broken.as_ref().map(|b| format!("{b:?}")).unwrap_or_default();
    Counterexample { property, actions: path.into_actions(), found }
}

impl Report {
    /// What the configuration should have met and did not.
    #[must_use]
    pub fn missing(&self, bounds: &Bounds) -> Vec<&'static str> {
        bounds.meets.iter().copied().filter(|name| !self.met.contains(name)).collect()
    }
}
