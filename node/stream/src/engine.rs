//! What a worker runs in an attempt: its tasks, and what of them is kept.
//!
//! Owns: opening sources and sinks, the tasks until they are started, gathering what they keep and
//! writing it.
//! Must not know: threads, connections, when anything is done.
//! Invariant: what is kept of a checkpoint is whole: of every task of this worker, at one barrier.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pharos_beam::plan::{NodeId, NodeKind, Plan};

use crate::assemble::{Assembly, Restored, task_ids};
use crate::assignment::Assignment;
use crate::checkpoint::Blobs;
use crate::checkpoint::collector::{Collector, TaskId, Whole};
use crate::checkpoint::coordinator::WorkerId;
use crate::checkpoint::part::{Part, PartWriter};
use crate::error::StreamError;
use crate::event::{Event, Events};
use crate::exchange::link::Wire;
use crate::exec::channel::{Channel, Epoch, Round};
use crate::exec::fragment::Steps;
use crate::exec::task::{TaskReport, TaskState};
use crate::exec::worker::{Shared, Task};
use crate::graph::Graph;
use crate::io::{Connectors, Encode};
use crate::spill::StateBounds;

/// What an engine is made of.
pub(crate) struct Parts<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Sources and sinks.
    pub connectors: &'a dyn Connectors,
    /// Who hears of progress.
    pub events: &'a Events,
    /// The name of the run, for files in the making.
    pub run: &'a str,
    /// Who works on it.
    pub assignment: &'a Assignment,
    /// The connections to the other workers.
    pub links: &'a BTreeMap<WorkerId, Arc<dyn Wire>>,
    /// Where to go on.
    pub restored: Restored,
    /// How much memory keyed state may take.
    pub state: Option<&'a StateBounds>,
    /// Where state is kept.
    pub blobs: Option<Arc<dyn Blobs>>,
}

/// What is to be told of this worker's tasks.
#[derive(Debug)]
pub(crate) enum Told {
    /// What all kept at a barrier.
    Kept(Epoch, Round, Box<Part>),
    /// What all left at their end.
    Ended(Box<Part>),
}

/// The tasks of one worker in one attempt.
pub(crate) struct Engine {
    /// What its threads share.
    pub shared: Arc<Shared>,
    /// The channels to and from other workers, by number.
    pub channels: BTreeMap<u32, Arc<Channel>>,
    /// The tasks of its threads, until they are started.
    pub tasks: Vec<Vec<Task>>,
    /// Those threads, of those of all workers.
    pub here: Range<usize>,
    collector: Collector<TaskState>,
    writer: PartWriter,
}

impl Engine {
    /// Prepares the tasks.
    ///
    /// # Errors
    /// If a source or sink cannot be opened, or restored state cannot be read.
    pub(crate) fn new(parts: Parts<'_>) -> Result<Self, StreamError> {
        let Parts { plan, connectors, events, run, assignment, links, restored, state, blobs } = parts;
        let graph = Graph::new(plan)?;
        let assembly =
            Assembly { graph: &graph, connectors, assignment, links, run, restored, state, events };
        let assembled = assembly.assemble()?;
        let encoders = encoders(&graph, connectors)?;
        let collector = Collector::new(task_ids(&graph, assignment.threads(), &assignment.here()));
        let shared = Arc::new(Shared::new(Steps::new(graph, encoders, events.clone())));
        let writer = PartWriter::new(blobs, plan, assignment);
        let here = assignment.here();
        Ok(Self { shared, channels: assembled.channels, tasks: assembled.tasks, here, collector, writer })
    }

    /// The channels over one of its links.
    pub(crate) fn channels_over(&self, link: &Arc<dyn Wire>) -> BTreeMap<u32, Arc<Channel>> {
        let over = self.channels.iter().filter(|(_, channel)| channel.is_over(link));
        over.map(|(number, channel)| (*number, Arc::clone(channel))).collect()
    }

    /// Takes in what a task keeps, and writes what is whole.
    ///
    /// # Errors
    /// If the store refuses, or an output cannot be made durable.
    pub(crate) fn report(&mut self, report: TaskReport) -> Result<Vec<Told>, StreamError> {
        let id = TaskId { node: report.node.0, thread: report.thread as u32 };
        let whole = match report.barrier {
            Some((epoch, round)) => self.collector.kept(id, epoch, round, report.state),
            None => self.collector.ended(id, report.state),
        };
        let write = |whole| {
            Ok(match whole {
                Whole::Kept(epoch, round, states) => {
                    Told::Kept(epoch, round, Box::new(self.writer.write(&epoch.to_string(), states)?))
                }
                Whole::Ended(states) => Told::Ended(Box::new(self.writer.write("end", states)?)),
            })
        };
        whole.into_iter().map(write).collect()
    }
}

fn encoders(
    graph: &Graph,
    connectors: &dyn Connectors,
) -> Result<BTreeMap<NodeId, Arc<dyn Encode>>, StreamError> {
    let mut encoders = BTreeMap::new();
    for node in graph.targets() {
        if let NodeKind::Write(spec) = &node.kind {
            let encoder = connectors
                .encoder(spec, graph.input_schema(node, 0))
                .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
            encoders.insert(node.id, encoder);
        }
    }
    Ok(encoders)
}

/// Makes visible what sinks prepared.
///
/// # Errors
/// If it cannot be done; doing it again is harmless.
pub(crate) fn commit(
    graph: &Graph,
    connectors: &dyn Connectors,
    events: &Events,
    sinks: &BTreeMap<String, String>,
) -> Result<(), StreamError> {
    for node in &graph.nodes {
        let (NodeKind::Write(spec), Some(prepared)) = (&node.kind, sinks.get(&node.name)) else { continue };
        let files = connectors
            .commit(spec, prepared)
            .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
        events.send(Event::Written { transform: node.name.clone(), files });
    }
    Ok(())
}
