//! From a plan to the tasks of each thread of a worker.
//!
//! Owns: who runs what, the channels between them, and where restored state goes.
//! Must not know: how state was kept.
//! Invariant: splits, key groups and sinks are divided by number alone, so any number of threads can
//! take up what another number left; all workers number the channels in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use pharos_beam::plan::{Node, NodeId, NodeKind};
use pharos_window::{Timestamp, Watermark};

use crate::assignment::Assignment;
use crate::checkpoint::collector::TaskId;
use crate::checkpoint::coordinator::WorkerId;
use crate::error::StreamError;
use crate::event::{Event, Events};
use crate::exchange::link::Wire;
use crate::exchange::message::Shape;
use crate::exec::channel::{Channel, Inbox, Round};
use crate::exec::outlet::{Outlet, Route};
use crate::exec::task::{
    AssertTask, CreateTask, Done, GroupTask, OpenSplit, ReadTask, SinkTask, SplitProgress,
};
use crate::exec::worker::{Kind, Task};
use crate::graph::Graph;
use crate::group::{Combiner, Grouping, KeptState, RestoreError};
use crate::io::{AttemptId, ConnectError, Connectors, Split};
use crate::key::{KeyGroup, KeyHash};
use crate::meter::SplitMeter;
use crate::plant;
use crate::spill::{RunId, Share, StateBounds};
use crate::wanted::wanted;

/// What to do about an input that is not what the checkpoint knows.
const AS_IT_WAS: &str = "put the files back as they were and start the worker again, or begin a new run";

/// A piece of state: the key groups that it may hold, the start of its slice, and itself.
pub(crate) type Kept = (Range<u32>, (i64, KeptState));

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

/// Builds the tasks of each thread of a worker.
pub(crate) struct Assembly<'a> {
    /// The plan.
    pub graph: &'a Graph,
    /// Sources and sinks.
    pub connectors: &'a dyn Connectors,
    /// Who works on it.
    pub assignment: &'a Assignment,
    /// The connections to the other workers.
    pub links: &'a BTreeMap<WorkerId, Arc<dyn Wire>>,
    /// The name of the run, for files in the making.
    pub run: &'a str,
    /// Where to go on.
    pub restored: Restored,
    /// How much memory keyed state may take.
    pub state: Option<&'a StateBounds>,
    /// Who hears what there is to read.
    pub events: &'a Events,
}

/// What a worker runs.
pub(crate) struct Assembled {
    /// The tasks of each of its threads, in the order of the plan.
    pub tasks: Vec<Vec<Task>>,
    /// The channels to and from other workers, by number.
    pub channels: BTreeMap<u32, Arc<Channel>>,
}

/// A channel by origin, its thread, target and its thread.
type Place = (NodeId, usize, NodeId, usize);

/// A grouping by its node, and one of its threads.
type GroupPlace = (NodeId, usize);

/// A thread's share of a grouping, and how far its input's time has come.
type Regrouped = (Grouping, Watermark);

#[derive(Default)]
struct Channels {
    all: BTreeMap<Place, Arc<Channel>>,
    by_number: BTreeMap<u32, Arc<Channel>>,
}

impl Assembly<'_> {
    /// The tasks of each thread, in the order of the plan.
    ///
    /// # Errors
    /// If a source or sink cannot be opened, or restored state cannot be read.
    pub(crate) fn assemble(mut self) -> Result<Assembled, StreamError> {
        self.events.meters().begin();
        self.show_peers();
        let channels = self.channels();
        let here = self.assignment.here();
        let mut groupings = self.groupings()?;
        let mut tasks: Vec<Vec<Task>> = here.clone().map(|_| Vec::new()).collect();
        for node in &self.graph.nodes {
            let mut splits = self.splits(node)?;
            for (thread, tasks) in here.clone().zip(&mut tasks) {
                let mine = splits.remove(&thread).unwrap_or_default();
                let kind = self.task(node, thread, mine, groupings.remove(&(node.id, thread)), &channels)?;
                let meter = || self.events.meters().task(&node.name, thread - here.start);
                tasks.extend(kind.map(|kind| Task::new(kind, meter())));
            }
        }
        Ok(Assembled { tasks, channels: channels.by_number })
    }

    fn show_peers(&self) {
        for (worker, link) in self.links {
            let name = &self.assignment.workers[*worker as usize].name;
            self.events.meters().peer(name, &link.traffic());
        }
    }

    /// The threads on which a target runs: all for a grouping, one for a sink.
    fn threads_of(&self, target: NodeId) -> Vec<usize> {
        threads_of(self.graph.node(target), self.assignment.threads())
    }

    /// The channels with an end on this worker. All are numbered, also those of others.
    fn channels(&self) -> Channels {
        let mut channels = Channels::default();
        let mut number = 0;
        for (origin, targets) in &self.graph.reach {
            for target in targets {
                let shape = Arc::new(Shape::of(self.graph, *target));
                for to in self.threads_of(*target) {
                    for from in 0..self.assignment.threads() {
                        if let Some(channel) = self.channel(from, to, number, &shape) {
                            let name = |node: &NodeId| &self.graph.node(*node).name;
                            self.events.meters().queue(name(origin), name(target), &channel);
                            channels.by_number.insert(number, Arc::clone(&channel));
                            channels.all.insert((*origin, from, *target, to), channel);
                        }
                        number += 1;
                    }
                }
            }
        }
        channels
    }

    fn channel(&self, from: usize, to: usize, number: u32, shape: &Arc<Shape>) -> Option<Arc<Channel>> {
        let here = self.assignment.here();
        let link = |thread| Arc::clone(&self.links[&self.assignment.worker_of(thread)]);
        Some(Arc::new(match (here.contains(&from), here.contains(&to)) {
            (true, true) => Channel::default(),
            (true, false) => Channel::out(link(to), number),
            (false, true) => Channel::incoming(link(from), number, Arc::clone(shape)),
            (false, false) => return None,
        }))
    }

    fn outlet(&self, node: &Node, thread: usize, channels: &Channels) -> Outlet {
        let route = |target: &NodeId| Route {
            target: *target,
            channels: self
                .threads_of(*target)
                .into_iter()
                .map(|to| Arc::clone(&channels.all[&(node.id, thread, *target, to)]))
                .collect(),
            combiner: self.combiner(*target),
        };
        Outlet::new(self.graph.reach[&node.id].iter().map(route).collect())
    }

    fn combiner(&self, target: NodeId) -> Option<Combiner> {
        let spec = self.graph.groups.get(&target)?;
        let floor = self.restored.groups.get(&target).map_or(Watermark::NEG_INF, |(watermark, _)| *watermark);
        Combiner::new(spec, self.assignment.threads(), floor)
    }

    fn inbox(&self, node: &Node, thread: usize, channels: &Channels, watermark: Watermark) -> Inbox {
        let incoming = channels
            .all
            .iter()
            .filter(|((_, _, target, to), _)| *target == node.id && *to == thread)
            .map(|(_, channel)| Arc::clone(channel));
        Inbox::new(incoming.collect(), watermark)
    }

    /// This worker's splits of a read, by thread.
    fn splits(&self, node: &Node) -> Result<BTreeMap<usize, Vec<OpenSplit>>, StreamError> {
        let mut by_thread: BTreeMap<usize, Vec<OpenSplit>> = BTreeMap::new();
        let NodeKind::Read(spec) = &node.kind else { return Ok(by_thread) };
        let schema = &node.outputs[0].schema;
        let failed = |source| StreamError::Connect { transform: node.name.clone(), source };
        let splits = self.connectors.splits(spec, schema, &wanted(self.graph, node)).map_err(failed)?;
        let names: Vec<&str> = splits.iter().map(|split| split.name()).collect();
        let progress = self.restored.reads.get(&node.id);
        let mut progress =
            progress.map_or(Ok(BTreeMap::new()), |kept| places(kept, &names)).map_err(failed)?;
        let (here, threads) = (self.assignment.here(), self.assignment.threads());
        let (mut bytes, mut done, mut count) = (Some(0), 0, 0);
        for (index, split) in splits.into_iter().enumerate() {
            if !here.contains(&(index % threads)) {
                continue;
            }
            let open = open(index as u32, split, progress.remove(&index)).map_err(failed)?;
            self.events.meters().split(&node.name, &open.meter);
            bytes = bytes.zip(open.split.bytes()).map(|(sum, bytes): (u64, u64)| sum + bytes);
            done += open.split.bytes().filter(|_| open.ended).unwrap_or_else(|| open.split.done());
            count += 1;
            by_thread.entry(index % threads).or_default().push(open);
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
        grouping: Option<Regrouped>,
        channels: &Channels,
    ) -> Result<Option<Kind>, StreamError> {
        let failed = |source| StreamError::Connect { transform: node.name.clone(), source };
        let round = self.restored.round;
        let mine = self.threads_of(node.id).contains(&thread);
        Ok(match &node.kind {
            NodeKind::Read(spec) => {
                let outlet = self.outlet(node, thread, channels);
                Some(Kind::Read(Box::new(ReadTask::new(node, spec, splits, outlet, round))))
            }
            NodeKind::Create { rows } => {
                let out = self.restored.creates.get(&node.id) == Some(&Done::Yes);
                let rows = if thread == 0 && !out { rows.clone() } else { Vec::new() };
                let outlet = self.outlet(node, thread, channels);
                Some(Kind::Create(Box::new(CreateTask::new(node, rows, outlet, round))))
            }
            NodeKind::Combine { .. } => {
                let (grouping, watermark) =
                    grouping.expect("every grouping of this worker's threads was made");
                let inbox = self.inbox(node, thread, channels, watermark);
                let outlet = self.outlet(node, thread, channels);
                Some(Kind::Group(Box::new(GroupTask::new(node, grouping, inbox, outlet))))
            }
            NodeKind::Write(spec) if mine => {
                let inbox = self.inbox(node, thread, channels, Watermark::NEG_INF);
                let prepared = self.restored.sinks.get(&node.id).map(String::as_str);
                let schema = self.graph.input_schema(node, 0);
                let attempt = AttemptId { run: self.run, generation: self.assignment.generation };
                let sink = self.connectors.sink(spec, schema, attempt, prepared).map_err(failed)?;
                Some(Kind::Sink(Box::new(SinkTask::new(node, sink, inbox))))
            }
            NodeKind::AssertEqual { .. } if mine => {
                let inbox = self.inbox(node, thread, channels, Watermark::NEG_INF);
                let rows = self.restored.asserts.remove(&node.id).unwrap_or_default();
                Some(Kind::Assert(Box::new(AssertTask::new(node, rows, inbox))))
            }
            _ => None,
        })
    }

    /// The groupings of this worker's threads, with what a checkpoint kept for them. That may be much, so each thread's are
    /// restored by one of their own.
    fn groupings(&self) -> Result<BTreeMap<GroupPlace, Regrouped>, StreamError> {
        let restoring = Restoring {
            graph: self.graph,
            assignment: self.assignment,
            state: self.state,
            kept: &self.restored.groups,
            all: plant::groups_owned_twice(),
        };
        let here = self.assignment.here();
        if here.len() == 1 || self.restored.groups.is_empty() {
            let made: Result<Vec<_>, StreamError> = here.map(|thread| restoring.groupings(thread)).collect();
            return Ok(made?.into_iter().flatten().collect());
        }
        let made: Result<Vec<_>, StreamError> = std::thread::scope(|scope| {
            let restoring = &restoring;
            let threads: Vec<_> =
                here.map(|thread| scope.spawn(move || restoring.groupings(thread))).collect();
            threads.into_iter().map(|made| made.join().expect("it does not panic")).collect()
        });
        Ok(made?.into_iter().flatten().collect())
    }
}

/// What it takes to make a thread's groupings.
struct Restoring<'a> {
    graph: &'a Graph,
    assignment: &'a Assignment,
    state: Option<&'a StateBounds>,
    kept: &'a BTreeMap<NodeId, (Watermark, Vec<Kept>)>,
    /// Whether a thread takes up what is not its own; see [`plant`].
    all: bool,
}

impl Restoring<'_> {
    fn groupings(&self, thread: usize) -> Result<Vec<(GroupPlace, Regrouped)>, StreamError> {
        let made = |node: &NodeId| Ok(((*node, thread), self.grouping(self.graph.node(*node), thread)?));
        self.graph.groups.keys().map(made).collect()
    }

    fn groups(&self, thread: usize) -> Range<u32> {
        KeyGroup::of_owners(&(thread..thread + 1), self.assignment.threads())
    }

    /// The memory is divided evenly: who needs more than others would have it cannot be known.
    fn share(&self, state: &StateBounds, node: &Node, thread: usize) -> Share {
        let shares = self.graph.groups.len() * self.assignment.here().len();
        let first = RunId {
            generation: self.assignment.generation,
            thread: thread as u32,
            node: node.id.0,
            number: 0,
        };
        Share::new(Arc::clone(&state.disk), state.bytes / shares.max(1), self.groups(thread), first)
    }

    fn grouping(&self, node: &Node, thread: usize) -> Result<(Grouping, Watermark), StreamError> {
        let share = self.state.map(|state| self.share(state, node, thread));
        let mut grouping = Grouping::new(Arc::clone(&self.graph.groups[&node.id]), share);
        let Some((watermark, pieces)) = self.kept.get(&node.id) else {
            return Ok((grouping, Watermark::NEG_INF));
        };
        let own = self.groups(thread);
        let mine = |hash: KeyHash| own.contains(&hash.group().number()) || self.all;
        for (groups, (slice, kept)) in pieces {
            if !self.all && (groups.end <= own.start || own.end <= groups.start) {
                continue;
            }
            grouping.restore(*slice, kept, mine).map_err(|error| match error {
                RestoreError::Codec(source) => {
                    StreamError::State { what: format!("transform `{}`", node.name), source }
                }
                RestoreError::Spill(error) => error.into(),
            })?;
        }
        Ok((grouping, *watermark))
    }
}

/// The threads, of `threads`, on which a node runs.
fn threads_of(node: &Node, threads: usize) -> Vec<usize> {
    match node.kind {
        NodeKind::Read(_) | NodeKind::Create { .. } | NodeKind::Combine { .. } => (0..threads).collect(),
        NodeKind::Write(_) | NodeKind::AssertEqual { .. } => vec![node.id.0 as usize % threads],
        _ => Vec::new(),
    }
}

/// Every task that reports, of the threads `here` of `threads`.
pub(crate) fn task_ids(graph: &Graph, threads: usize, here: &Range<usize>) -> BTreeSet<TaskId> {
    let of = |node: &Node| {
        let mine = threads_of(node, threads).into_iter().filter(|thread| here.contains(thread));
        mine.map(|thread| TaskId { node: node.id.0, thread: thread as u32 }).collect::<Vec<_>>()
    };
    graph.nodes.iter().flat_map(of).collect()
}

/// What tells the files of each read from others: all workers must find the same.
///
/// # Errors
/// If they cannot be listed.
pub(crate) fn inputs(
    graph: &Graph,
    connectors: &dyn Connectors,
) -> Result<BTreeMap<String, u32>, StreamError> {
    let mut inputs = BTreeMap::new();
    for node in &graph.nodes {
        let NodeKind::Read(spec) = &node.kind else { continue };
        let splits = connectors
            .splits(spec, &node.outputs[0].schema, &wanted(graph, node))
            .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
        let names = splits.iter().map(|split| format!("{}\n", split.name()));
        let crc = names.fold(0, |crc, name| crc32c::crc32c_append(crc, name.as_bytes()));
        inputs.insert(node.name.clone(), crc);
    }
    Ok(inputs)
}

/// How far each split was read, by its place now: files may have come since, and those are read from their start.
fn places(
    kept: &BTreeMap<u32, SplitProgress>,
    names: &[&str],
) -> Result<BTreeMap<usize, SplitProgress>, ConnectError> {
    let mut places: BTreeMap<usize, SplitProgress> = BTreeMap::new();
    for progress in kept.values() {
        // Mostly nothing has changed.
        let same = |place: &usize| names.get(*place).is_some_and(|name| *name == progress.name);
        let place = Some(progress.index as usize).filter(same);
        let place = place.or_else(|| names.iter().position(|name| *name == progress.name));
        let place = place.ok_or_else(|| gone(progress, kept, names))?;
        places.insert(place, progress.clone());
    }
    Ok(places)
}

/// No split has the name of one that was being read: its file is gone, or is divided in another way.
fn gone(progress: &SplitProgress, kept: &BTreeMap<u32, SplitProgress>, names: &[&str]) -> ConnectError {
    let was = &progress.name;
    let known = |name: &str| kept.values().any(|kept| kept.name == name);
    ConnectError::user(match names.get(progress.index as usize).filter(|name| !known(name)) {
        Some(is) => format!("`{was}` was being read, now `{is}` stands in its place: {AS_IT_WAS}"),
        None => format!("`{was}` was being read and is gone: {AS_IT_WAS}"),
    })
}

fn open(
    index: u32,
    mut split: Box<dyn Split>,
    kept: Option<SplitProgress>,
) -> Result<OpenSplit, ConnectError> {
    let meter = SplitMeter::new(index, split.name(), split.bytes());
    let Some(kept) = kept else { return Ok(OpenSplit { index, split, highest: None, ended: false, meter }) };
    if !kept.ended {
        split.seek(kept.offset, kept.version.as_ref())?;
    }
    let highest = kept.highest.map(Timestamp::from_micros);
    let open = OpenSplit { index, split, highest, ended: kept.ended, meter };
    open.show();
    Ok(open)
}
