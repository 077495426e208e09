//! From a plan to the tasks of each thread.
//!
//! Owns: who runs what, the channels between them, and where restored state goes.
//! Must not know: how state was kept.
//! Invariant: splits, key groups and sinks are divided by number alone, so any number of threads can
//! take up what another number left.

use std::collections::BTreeMap;
use std::sync::Arc;

use pharos_beam::plan::{Node, NodeId, NodeKind};
use pharos_window::{Timestamp, Watermark};

use crate::error::StreamError;
use crate::event::{Event, Events};
use crate::exec::channel::{Channel, Inbox, Round};
use crate::exec::task::{
    AssertTask, CreateTask, Done, GroupTask, OpenSplit, Outlet, ReadTask, Route, SinkTask, SplitProgress,
};
use crate::exec::worker::Task;
use crate::graph::Graph;
use crate::group::Grouping;
use crate::io::{ConnectError, Connectors, Split};

/// The bytes of a table, and the start of its slice.
pub(crate) type Kept = (i64, Vec<u8>);

/// What a checkpoint kept, ready for any number of threads.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The round to go on in.
    pub round: Round,
    /// The splits of each read.
    pub reads: BTreeMap<NodeId, BTreeMap<u32, SplitProgress>>,
    /// The Creates whose rows are out.
    pub creates: BTreeMap<NodeId, Done>,
    /// The input watermark and the pieces of state of each grouping.
    pub groups: BTreeMap<NodeId, (Watermark, Vec<Kept>)>,
    /// What each sink had prepared.
    pub sinks: BTreeMap<NodeId, String>,
    /// The rows each assertion had seen.
    pub asserts: BTreeMap<NodeId, Vec<Vec<u8>>>,
}

/// Builds the tasks of each thread.
pub(crate) struct Assembly<'a> {
    /// The plan.
    pub graph: &'a Graph,
    /// Sources and sinks.
    pub connectors: &'a dyn Connectors,
    /// How many threads.
    pub threads: usize,
    /// The name of the run, for files in the making.
    pub run: &'a str,
    /// Where to go on.
    pub restored: Restored,
    /// Who hears what there is to read.
    pub events: &'a Events,
}

/// The channels by origin, its thread, target and its thread.
type Channels = BTreeMap<(NodeId, usize, NodeId, usize), Arc<Channel>>;

impl Assembly<'_> {
    /// The tasks of each thread, in the order of the plan.
    ///
    /// # Errors
    /// If a source or sink cannot be opened, or restored state cannot be read.
    pub(crate) fn tasks(mut self) -> Result<Vec<Vec<Task>>, StreamError> {
        let channels = self.channels();
        let mut tasks: Vec<Vec<Task>> = (0..self.threads).map(|_| Vec::new()).collect();
        for node in &self.graph.nodes {
            let mut splits = self.splits(node)?;
            for (thread, tasks) in tasks.iter_mut().enumerate() {
                let mine = std::mem::take(&mut splits[thread]);
                tasks.extend(self.task(node, thread, mine, &channels)?);
            }
        }
        Ok(tasks)
    }

    /// The threads on which a target runs: all for a grouping, one for a sink.
    fn threads_of(&self, target: NodeId) -> Vec<usize> {
        match self.graph.node(target).kind {
            NodeKind::Combine { .. } => (0..self.threads).collect(),
            _ => vec![target.0 as usize % self.threads],
        }
    }

    fn channels(&self) -> Channels {
        let mut channels = Channels::new();
        for (origin, targets) in &self.graph.reach {
            for target in targets {
                for to in self.threads_of(*target) {
                    for from in 0..self.threads {
                        channels.insert((*origin, from, *target, to), Arc::default());
                    }
                }
            }
        }
        channels
    }

    fn outlet(&self, node: &Node, thread: usize, channels: &Channels) -> Outlet {
        let route = |target: &NodeId| Route {
            target: *target,
            channels: self
                .threads_of(*target)
                .into_iter()
                .map(|to| Arc::clone(&channels[&(node.id, thread, *target, to)]))
                .collect(),
        };
        Outlet::new(self.graph.reach[&node.id].iter().map(route).collect())
    }

    fn inbox(&self, node: &Node, thread: usize, channels: &Channels, watermark: Watermark) -> Inbox {
        let incoming = channels
            .iter()
            .filter(|((_, _, target, to), _)| *target == node.id && *to == thread)
            .map(|(_, channel)| Arc::clone(channel));
        Inbox::new(incoming.collect(), watermark)
    }

    /// The splits of a read by thread.
    fn splits(&self, node: &Node) -> Result<Vec<Vec<OpenSplit>>, StreamError> {
        let mut by_thread: Vec<Vec<OpenSplit>> = (0..self.threads).map(|_| Vec::new()).collect();
        let NodeKind::Read(spec) = &node.kind else { return Ok(by_thread) };
        let schema = &node.outputs[0].schema;
        let failed = |source| StreamError::Connect { transform: node.name.clone(), source };
        let splits = self.connectors.splits(spec, schema).map_err(failed)?;
        let progress = self.restored.reads.get(&node.id);
        if let Some(missing) =
            progress.and_then(|kept| kept.values().find(|kept| kept.index as usize >= splits.len()))
        {
            let gone = format!("`{}` was being read and is gone", missing.name);
            return Err(failed(ConnectError::user(gone)));
        }
        let (mut bytes, mut done, count) = (Some(0), 0, splits.len() as u64);
        for (index, split) in splits.into_iter().enumerate() {
            let open = open(index as u32, split, progress.and_then(|kept| kept.get(&(index as u32))));
            let open = open.map_err(failed)?;
            bytes = bytes.zip(open.split.bytes()).map(|(sum, bytes): (u64, u64)| sum + bytes);
            done += open.split.offset().byte;
            by_thread[index % self.threads].push(open);
        }
        let transform = node.name.clone();
        self.events.send(Event::Input { transform, splits: count, bytes, done });
        Ok(by_thread)
    }

    fn task(
        &mut self,
        node: &Node,
        thread: usize,
        splits: Vec<OpenSplit>,
        channels: &Channels,
    ) -> Result<Option<Task>, StreamError> {
        let failed = |source| StreamError::Connect { transform: node.name.clone(), source };
        let round = self.restored.round;
        let mine = self.threads_of(node.id).contains(&thread);
        Ok(match &node.kind {
            NodeKind::Read(spec) => {
                let outlet = self.outlet(node, thread, channels);
                Some(Task::Read(Box::new(ReadTask::new(node, spec, splits, outlet, round))))
            }
            NodeKind::Create { rows } => {
                let out = self.restored.creates.get(&node.id) == Some(&Done::Yes);
                let rows = if thread == 0 && !out { rows.clone() } else { Vec::new() };
                let outlet = self.outlet(node, thread, channels);
                Some(Task::Create(Box::new(CreateTask::new(node, rows, outlet, round))))
            }
            NodeKind::Combine { .. } => {
                let (grouping, watermark) = self.grouping(node, thread)?;
                let inbox = self.inbox(node, thread, channels, watermark);
                let outlet = self.outlet(node, thread, channels);
                Some(Task::Group(Box::new(GroupTask::new(node, grouping, inbox, outlet))))
            }
            NodeKind::Write(spec) if mine => {
                let inbox = self.inbox(node, thread, channels, Watermark::NEG_INF);
                let prepared = self.restored.sinks.get(&node.id).map(String::as_str);
                let schema = self.graph.input_schema(node, 0);
                let sink = self.connectors.sink(spec, schema, self.run, prepared).map_err(failed)?;
                Some(Task::Sink(Box::new(SinkTask::new(node, sink, inbox))))
            }
            NodeKind::AssertEqual { .. } if mine => {
                let inbox = self.inbox(node, thread, channels, Watermark::NEG_INF);
                let rows = self.restored.asserts.remove(&node.id).unwrap_or_default();
                Some(Task::Assert(Box::new(AssertTask::new(node, rows, inbox))))
            }
            _ => None,
        })
    }

    fn grouping(&self, node: &Node, thread: usize) -> Result<(Grouping, Watermark), StreamError> {
        let mut grouping = Grouping::new(Arc::clone(&self.graph.groups[&node.id]));
        let Some((watermark, pieces)) = self.restored.groups.get(&node.id) else {
            return Ok((grouping, Watermark::NEG_INF));
        };
        for (slice, bytes) in pieces {
            let mine = |hash: crate::key::KeyHash| hash.group().owner(self.threads) == thread;
            grouping.restore(*slice, bytes, mine).map_err(|source| StreamError::State {
                what: format!("transform `{}`", node.name),
                source,
            })?;
        }
        Ok((grouping, *watermark))
    }
}

fn open(
    index: u32,
    mut split: Box<dyn Split>,
    kept: Option<&SplitProgress>,
) -> Result<OpenSplit, ConnectError> {
    let Some(kept) = kept else { return Ok(OpenSplit { index, split, highest: None, ended: false }) };
    if kept.name != split.name() {
        let changed = format!("`{}` was being read, now `{}` stands in its place", kept.name, split.name());
        return Err(ConnectError::user(changed));
    }
    split.seek(kept.offset)?;
    Ok(OpenSplit { index, split, highest: kept.highest.map(Timestamp::from_micros), ended: kept.ended })
}
