//! The plan as the engine runs it.
//!
//! Owns: which nodes start rounds (origins), which wait for them (targets), and what lies between.
//! Must not know: threads, files.
//! Invariant: between an origin and its targets lie only steps without state, so one call carries a
//! batch from the one to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pharos_beam::plan::{self, Node, NodeId, NodeKind, OutputRef, PLAN_VERSION, Plan, WindowFunction};
use pharos_beam::schema::Schema;
use pharos_beam::state::windows_are_given;
use pharos_window::{Accumulation, Lateness, Span, TimestampCombiner, WindowFn, WindowingStrategy};

use crate::error::StreamError;
use crate::group::GroupSpec;

/// A plan with its edges turned round.
#[derive(Debug)]
pub(crate) struct Graph {
    /// The steps.
    pub nodes: Vec<Node>,
    consumers: BTreeMap<OutputRef, Vec<Consumer>>,
    branches: BTreeMap<OutputRef, u64>,
    /// For each origin, the targets it reaches, in order.
    pub reach: BTreeMap<NodeId, Vec<NodeId>>,
    /// What each Combine does.
    pub groups: BTreeMap<NodeId, Arc<GroupSpec>>,
}

/// Who reads an output.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// The step.
    pub node: NodeId,
    /// As which of its inputs.
    pub input: usize,
    /// How many ways to targets begin with the consumers before it.
    pub branch: u64,
}

impl Graph {
    /// The graph of `plan`.
    ///
    /// # Errors
    /// If the plan is of another version.
    pub(crate) fn new(plan: &Plan) -> Result<Self, StreamError> {
        if plan.version != PLAN_VERSION {
            return Err(StreamError::PlanVersion(plan.version));
        }
        let mut consumers: BTreeMap<OutputRef, Vec<Consumer>> = BTreeMap::new();
        for node in &plan.nodes {
            for (input, output) in node.inputs.iter().enumerate() {
                consumers.entry(*output).or_default().push(Consumer { node: node.id, input, branch: 0 });
            }
        }
        let mut graph = Self {
            nodes: plan.nodes.clone(),
            consumers,
            branches: BTreeMap::new(),
            reach: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        graph.number_ways();
        for node in &plan.nodes {
            if is_origin(&node.kind) {
                let mut found = BTreeSet::new();
                graph.outputs(node.id).for_each(|output| graph.explore(output, &mut found));
                graph.reach.insert(node.id, found.into_iter().collect());
            }
            if let NodeKind::Combine { .. } = &node.kind {
                let spec = Arc::new(graph.group_spec(node));
                graph.groups.insert(node.id, spec);
            }
        }
        Ok(graph)
    }

    /// The node of that number.
    #[must_use]
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Who reads an output.
    #[must_use]
    pub(crate) fn consumers(&self, of: OutputRef) -> &[Consumer] {
        self.consumers.get(&of).map_or(&[], Vec::as_slice)
    }

    /// How many ways to targets begin with the outputs of the same node before this one, or with
    /// the node itself.
    #[must_use]
    pub(crate) fn branch(&self, of: OutputRef) -> u64 {
        self.branches.get(&of).copied().unwrap_or(0)
    }

    /// Numbers the ways from each node to targets, so that each has a number of its own. A node
    /// comes after those it reads from.
    fn number_ways(&mut self) {
        let mut ways_from: BTreeMap<NodeId, u64> = BTreeMap::new();
        for node in self.nodes.iter().rev() {
            let mut ways = u64::from(is_target(&node.kind));
            for output in 0..node.outputs.len() as u32 {
                let output = OutputRef { node: node.id, output };
                self.branches.insert(output, ways);
                let mut before = 0_u64;
                for consumer in self.consumers.get_mut(&output).into_iter().flatten() {
                    consumer.branch = before;
                    before = before.saturating_add(ways_from[&consumer.node]);
                }
                ways = ways.saturating_add(before);
            }
            ways_from.insert(node.id, ways);
        }
    }

    /// The fields of an output.
    #[must_use]
    pub(crate) fn schema(&self, of: OutputRef) -> &Schema {
        &self.node(of.node).outputs[of.output as usize].schema
    }

    /// The fields of a node's first input.
    #[must_use]
    pub(crate) fn input_schema(&self, of: &Node, input: usize) -> &Schema {
        self.schema(of.inputs[input])
    }

    /// The nodes that wait for rounds.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| is_target(&node.kind))
    }

    fn outputs(&self, node: NodeId) -> impl Iterator<Item = OutputRef> + use<> {
        (0..self.node(node).outputs.len() as u32).map(move |output| OutputRef { node, output })
    }

    fn explore(&self, from: OutputRef, found: &mut BTreeSet<NodeId>) {
        for Consumer { node: id, .. } in self.consumers(from) {
            let node = self.node(*id);
            if is_target(&node.kind) && !found.insert(*id) {
                continue;
            }
            match node.kind {
                // The dead letters of a Combine's expressions are written by those who feed it.
                NodeKind::Combine { .. } => node
                    .error_output
                    .into_iter()
                    .for_each(|output| self.explore(OutputRef { node: *id, output }, found)),
                _ => self.outputs(*id).for_each(|output| self.explore(output, found)),
            }
        }
    }

    fn group_spec(&self, node: &Node) -> GroupSpec {
        let NodeKind::Combine { keys, aggregations } = &node.kind else {
            unreachable!("only a Combine has a group spec")
        };
        let input = node.inputs[0];
        let schema = self.schema(input);
        GroupSpec {
            strategy: strategy(&self.node(input.node).outputs[input.output as usize].windowing),
            keys: keys.iter().map(|key| schema.fields[*key].ty.clone()).collect(),
            aggregations: aggregations.iter().cloned().collect(),
            explicit_windows: windows_are_given(&self.nodes, input),
        }
    }
}

fn is_origin(kind: &NodeKind) -> bool {
    matches!(kind, NodeKind::Read(_) | NodeKind::Create { .. } | NodeKind::Combine { .. })
}

fn is_target(kind: &NodeKind) -> bool {
    matches!(kind, NodeKind::Combine { .. } | NodeKind::Write(_) | NodeKind::AssertEqual { .. })
}

/// The windowing of a plan in the terms of `pharos-window`.
#[must_use]
pub(crate) fn strategy(windowing: &plan::Windowing) -> WindowingStrategy {
    let plan::Windowing { function, trigger: plan::Trigger::Default, .. } = windowing;
    WindowingStrategy {
        window_fn: window_fn(*function),
        allowed_lateness: Lateness(Span::from_micros(windowing.allowed_lateness.0)),
        timestamp_combiner: match windowing.timestamp_combiner {
            plan::TimestampCombiner::EndOfWindow => TimestampCombiner::EndOfWindow,
            plan::TimestampCombiner::Earliest => TimestampCombiner::Earliest,
            plan::TimestampCombiner::Latest => TimestampCombiner::Latest,
        },
        accumulation: match windowing.accumulation {
            plan::Accumulation::Discarding => Accumulation::Discarding,
            plan::Accumulation::Accumulating => Accumulation::Accumulating,
        },
    }
}

/// The window function of a plan in the terms of `pharos-window`.
#[must_use]
pub(crate) fn window_fn(function: WindowFunction) -> WindowFn {
    let span = |micros: pharos_beam::schema::Micros| Span::from_micros(micros.0);
    match function {
        WindowFunction::Global => Ok(WindowFn::Global),
        WindowFunction::Fixed { size, offset } => WindowFn::fixed(span(size), span(offset)),
        WindowFunction::Sliding { size, period, offset } => {
            WindowFn::sliding(span(size), span(period), span(offset))
        }
        WindowFunction::Sessions { gap } => WindowFn::sessions(span(gap)),
    }
    .expect("a plan holds only valid windows")
}
