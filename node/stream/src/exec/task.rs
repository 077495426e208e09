//! The tasks of a thread: sources, groupings, sinks, assertions.
//!
//! Owns: what each does with a round, and its state at a barrier.
//! Must not know: when it is called, where its state is kept.
//! Invariant: a task that has ended has sent `end` to all its targets and reported its last state.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, StringArray};
use arrow_select::concat::concat;
use pharos_beam::plan::{Node, NodeId, NodeKind, OutputRef, ReadSpec};
use pharos_beam::schema::Value;
use pharos_window::{Span, SplitState, SplitWatermarks, Timestamp, Watermark, Window};
use serde::{Deserialize, Serialize};

use super::channel::{Epoch, Gathered, Inbox, Label, Payload, Round};
use super::fragment::{Outbox, Steps, batch_of, dead_letters, letters, values_of};
use super::outlet::{Outlet, States};
use super::{ROUND_RECORDS, ROUND_STEPS, STEP_RECORDS};
use crate::assertion;
use crate::column::{Batch, Steps as RowSteps, Times, Windows, take_columns};
use crate::error::StreamError;
use crate::event::Event;
use crate::group::{AdvanceError, Fired, Frozen, Grouping, KeyedBatch};
use crate::io::{BadRecord, Last, Offset, PreparedOutput, Records, Sink, Split, Version};
use crate::kernel::evaluate;
use crate::key::KeyHash;
use crate::meter::{SplitMeter, Wait};
use crate::plant;

/// Where a split stands, in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SplitProgress {
    /// Its place among the read's splits.
    pub index: u32,
    /// Its file, and which part of it.
    pub name: String,
    /// Where reading goes on.
    pub offset: Offset,
    /// What the file was when it was first opened; earlier builds did not keep it.
    #[serde(default)]
    pub version: Option<Version>,
    /// The highest event time, in microseconds.
    pub highest: Option<i64>,
    /// Whether it has ended.
    pub ended: bool,
}

/// The state of a task at a barrier.
#[derive(Debug, Clone)]
pub(crate) enum TaskState {
    /// Its splits.
    Read(Vec<SplitProgress>),
    /// Whether its rows are out.
    Create(Done),
    /// What it has gathered, and its input watermark.
    Group(Watermark, Frozen),
    /// What its sink prepared.
    Sink(PreparedOutput),
    /// The rows so far, as tagged bytes.
    Assert(Vec<Vec<u8>>),
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Done {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// What a task tells the coordinator.
#[derive(Debug)]
pub(crate) struct TaskReport {
    /// Which node.
    pub node: NodeId,
    /// On which thread, of those of all workers.
    pub thread: usize,
    /// At which barrier and in which round; none: the task has ended and stays like this.
    pub barrier: Option<(Epoch, Round)>,
    /// Its state.
    pub state: TaskState,
}

/// What a task needs from its thread.
pub(crate) struct Context<'a> {
    /// The plan's steps.
    pub steps: &'a Steps,
    /// Which thread, of those of all workers.
    pub thread: usize,
    /// Those of this worker.
    pub here: Range<usize>,
    /// Whether a source may begin a round, and the checkpoint to take at the end of it.
    pub barrier: &'a dyn Fn(Round) -> Begin,
    /// To the coordinator.
    pub report: &'a dyn Fn(TaskReport),
    /// How long the task that is called took to set its state aside, if it did.
    pub set_aside: &'a Cell<Option<Duration>>,
}

impl Context<'_> {
    /// What a task keeps at a barrier, or at its end.
    fn set_aside<T>(&self, state: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let state = state();
        self.set_aside.set(Some(begun.elapsed()));
        state
    }
}

/// Whether a source may begin a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It may, and at its end stands the barrier of this checkpoint, if any.
    Now(Option<Epoch>),
    /// Not before it is decided where the next barrier stands.
    Later,
}

/// What came of calling a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    /// It did a round, and its time has come so far.
    Worked(Watermark),
    /// It must wait.
    Waiting(Wait),
    /// It has ended.
    Ended,
}

/// A split and how far its time is.
pub(crate) struct OpenSplit {
    /// Its place among the read's splits.
    pub index: u32,
    /// The split.
    pub split: Box<dyn Split>,
    /// The highest event time so far.
    pub highest: Option<Timestamp>,
    /// Whether it has ended.
    pub ended: bool,
    /// Where all can see how far it is.
    pub meter: Arc<SplitMeter>,
}

impl OpenSplit {
    /// Shows how far it is.
    pub(crate) fn show(&self) {
        self.meter.stands(self.split.done(), self.highest, self.ended);
    }
}

/// One thread's splits of a read.
pub(crate) struct ReadTask {
    node: Node,
    spec: ReadSpec,
    splits: Vec<OpenSplit>,
    watermarks: SplitWatermarks,
    outlet: Outlet,
    round: Round,
    ended: bool,
}

impl ReadTask {
    /// A task that goes on in `round`.
    #[must_use]
    pub(crate) fn new(
        node: &Node,
        spec: &ReadSpec,
        splits: Vec<OpenSplit>,
        outlet: Outlet,
        round: Round,
    ) -> Self {
        let watermarks = SplitWatermarks::new(splits.len());
        Self { node: node.clone(), spec: spec.clone(), splits, watermarks, outlet, round, ended: false }
    }

    /// Reads a round of every split.
    ///
    /// # Errors
    /// If a split cannot be read, or a record fails and there are no dead letters.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Result<Polled, StreamError> {
        if self.ended {
            return Ok(Polled::Ended);
        }
        if !self.outlet.has_room() {
            return Ok(Polled::Waiting(Wait::Room));
        }
        let round = self.round;
        let Begin::Now(barrier) = (context.barrier)(round) else { return Ok(Polled::Waiting(Wait::Barrier)) };
        let mut outbox = Outbox::new();
        let mut read = Vec::with_capacity(self.splits.len());
        for position in 0..self.splits.len() {
            read.push(if self.splits[position].ended {
                [SplitState::Finished; ROUND_STEPS]
            } else {
                self.read(position, context.steps, &mut outbox)?
            });
        }
        let states = std::array::from_fn(|step| {
            read.iter()
                .enumerate()
                .for_each(|(position, states)| self.watermarks.update(position, states[step]));
            match self.watermarks.combined() {
                Watermark::POS_INF => SplitState::Finished,
                combined if !self.splits.is_empty() => SplitState::Active(combined),
                _ => SplitState::Finished,
            }
        });
        self.ended = self.splits.iter().all(|split| split.ended);
        self.outlet.send(outbox, round, states, self.ended, barrier);
        self.round += 1;
        self.report(context, round, barrier);
        let reached = if self.ended { Watermark::POS_INF } else { self.watermarks.combined() };
        Ok(Polled::Worked(reached))
    }

    fn report(&self, context: &Context<'_>, round: Round, barrier: Option<Epoch>) {
        if barrier.is_none() && !self.ended {
            return;
        }
        let progress = |open: &OpenSplit| SplitProgress {
            index: open.index,
            name: open.split.name().to_owned(),
            offset: if plant::offset_ahead_of_state() {
                Offset { byte: open.split.offset().byte + ROUND_RECORDS as u64, ..open.split.offset() }
            } else {
                open.split.offset()
            },
            version: Some(open.split.version()),
            highest: open.highest.map(Timestamp::micros),
            ended: open.ended,
        };
        let state = TaskState::Read(self.splits.iter().map(progress).collect());
        send_report(context, self.node.id, round, barrier, self.ended, &state);
    }

    /// Reads a round of a split and says how far its time is after each step.
    fn read(&mut self, position: usize, steps: &Steps, outbox: &mut Outbox) -> Result<States, StreamError> {
        let open = &mut self.splits[position];
        let failed = |source| StreamError::Connect { transform: self.node.name.clone(), source };
        let from = open.split.done();
        let records = open.split.read(ROUND_RECORDS).map_err(failed)?;
        let bytes = open.split.done().saturating_sub(from);
        open.ended = records.end;
        let label = Label::new(self.node.id, 0, open.index);
        steps.events.read(&self.node.name, (records.rows + records.bad.len()) as u64, bytes);
        let mut bad = records.bad.clone();
        let last = records.positions.last().map_or(0, |last| *last as usize / STEP_RECORDS);
        let batch = timed(&self.spec, open, records, &mut bad);
        let states = self.advance(position, &batch, last);
        self.splits[position].show();
        if !bad.is_empty() {
            self.dead_letters(bad, label, steps, outbox)?;
        }
        steps.carry(OutputRef { node: self.node.id, output: 0 }, label, batch, outbox)?;
        Ok(states)
    }

    /// Moves a split's time through the steps of a batch, of which `last` is the last with a record.
    fn advance(&mut self, position: usize, batch: &Batch, last: usize) -> States {
        let open = &mut self.splits[position];
        std::array::from_fn(|step| {
            if let Times::Each(micros) = &batch.times {
                let rows = batch.steps.rows(step as u8, batch.rows);
                let highest = micros[rows].iter().copied().max().map(Timestamp::from_micros);
                open.highest = open.highest.max(highest);
            }
            match (&self.spec.watermark, open.highest) {
                _ if open.ended && step >= last => SplitState::Finished,
                (Some(spec), Some(highest)) => {
                    SplitState::Active(Watermark::behind(highest, Span::from_micros(spec.max_delay.0)))
                }
                _ if plant::idle_ends_time() => SplitState::Idle,
                _ => SplitState::Active(Watermark::NEG_INF),
            }
        })
    }

    fn dead_letters(
        &self,
        bad: Vec<BadRecord>,
        label: Label,
        steps: &Steps,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        let Some(output) = self.node.error_output else {
            let BadRecord { place, text, message } = bad.into_iter().next().expect("there is a bad record");
            return Err(StreamError::Record { transform: self.node.name.clone(), place, message, text });
        };
        let rows = Batch::untimed(Vec::new(), bad.len());
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values(bad.iter().map(|record| record.text.as_str())));
        let messages = bad.iter().map(|record| format!("{}: {}", record.place, record.message)).collect();
        steps.events.send(Event::DeadLetters { transform: self.node.name.clone(), rows: bad.len() as u64 });
        let output = OutputRef { node: self.node.id, output };
        steps.carry(output, label, letters(texts, &rows, messages), outbox)
    }
}

/// The rows with their event times and steps. A record without an event time joins the bad ones.
fn timed(spec: &ReadSpec, open: &OpenSplit, records: Records, bad: &mut Vec<BadRecord>) -> Batch {
    let Records { columns, rows, positions, .. } = records;
    let steps = positions.iter().map(|position| (*position as usize / STEP_RECORDS) as u8).collect();
    let batch = Batch { steps: RowSteps::Each(steps), ..Batch::untimed(columns, rows) };
    let Some(watermark) = &spec.watermark else { return batch };
    let times = evaluate(&watermark.timestamp, &batch.columns, rows);
    let micros = times.column.as_primitive::<Int64Type>().values().clone();
    let batch = Batch { times: Times::Each(micros), ..batch };
    if times.errors.is_empty() {
        return batch;
    }
    bad.extend(times.errors.iter().map(|(row, error)| {
        let (place, text) = open.split.record(positions[*row as usize]);
        BadRecord { place, text, message: error.to_string() }
    }));
    let failed = |row: &u32| times.errors.binary_search_by_key(row, |(failed, _)| *failed).is_ok();
    batch.take(&(0..rows as u32).filter(|row| !failed(row)).collect::<Vec<_>>())
}

fn gather(inbox: &mut Inbox, node: &Node) -> Result<Option<Gathered>, StreamError> {
    inbox.gather().map_err(|source| StreamError::Exchange(format!("transform `{}`: {source}", node.name)))
}

fn send_report(
    context: &Context<'_>,
    node: NodeId,
    round: Round,
    barrier: Option<Epoch>,
    ended: bool,
    state: &TaskState,
) {
    let thread = context.thread;
    if let Some(epoch) = barrier {
        (context.report)(TaskReport { node, thread, barrier: Some((epoch, round)), state: state.clone() });
    }
    if ended {
        (context.report)(TaskReport { node, thread, barrier: None, state: state.clone() });
    }
}

/// The literal rows of a Create, all in one round on the first thread.
pub(crate) struct CreateTask {
    node: Node,
    rows: Vec<Vec<Value>>,
    outlet: Outlet,
    round: Round,
    ended: bool,
}

impl CreateTask {
    /// A task that gives these rows in `round`.
    #[must_use]
    pub(crate) fn new(node: &Node, rows: Vec<Vec<Value>>, outlet: Outlet, round: Round) -> Self {
        Self { node: node.clone(), rows, outlet, round, ended: false }
    }

    /// Sends the rows.
    ///
    /// # Errors
    /// If a row fails on its way.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Result<Polled, StreamError> {
        if self.ended {
            return Ok(Polled::Ended);
        }
        let Begin::Now(barrier) = (context.barrier)(self.round) else {
            return Ok(Polled::Waiting(Wait::Barrier));
        };
        let mut outbox = Outbox::new();
        let batch = Batch::untimed(batch_of(&self.node.outputs[0].schema, &self.rows), self.rows.len());
        let label = Label::new(self.node.id, 0, 0);
        context.steps.events.read(&self.node.name, batch.rows as u64, 0);
        context.steps.carry(OutputRef { node: self.node.id, output: 0 }, label, batch, &mut outbox)?;
        self.outlet.send(outbox, self.round, [SplitState::Finished; ROUND_STEPS], true, barrier);
        self.ended = true;
        let state = TaskState::Create(Done::Yes);
        send_report(context, self.node.id, self.round, barrier, true, &state);
        Ok(Polled::Worked(Watermark::POS_INF))
    }
}

/// One thread's share of a Combine.
pub(crate) struct GroupTask {
    node: Node,
    grouping: Grouping,
    inbox: Inbox,
    outlet: Outlet,
    ended: bool,
}

impl GroupTask {
    /// A task that goes on with `grouping`.
    #[must_use]
    pub(crate) fn new(node: &Node, grouping: Grouping, inbox: Inbox, outlet: Outlet) -> Self {
        Self { node: node.clone(), grouping, inbox, outlet, ended: false }
    }

    /// Takes in a round and fires what is due.
    ///
    /// # Errors
    /// If a result does not fit, or a row fails on its way on.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Result<Polled, StreamError> {
        if self.ended {
            return Ok(Polled::Ended);
        }
        if !self.outlet.has_room() {
            return Ok(Polled::Waiting(Wait::Room));
        }
        let Some(gathered) = gather(&mut self.inbox, &self.node)? else {
            return Ok(Polled::Waiting(Wait::Input));
        };
        let early = plant::barrier_before_data() && gathered.barrier.is_some();
        let early = early.then(|| self.grouping.freeze());
        let mut outbox = Outbox::new();
        let mut states = [SplitState::Finished; ROUND_STEPS];
        let reached = gathered.reached();
        let mut parts = Vec::with_capacity(gathered.parts.len());
        for (_, payload) in gathered.parts {
            match payload {
                Payload::Partials(partials) => self.grouping.add_partials(&partials)?,
                Payload::Keyed(batch) => parts.push(batch),
                Payload::Rows(_) | Payload::Bytes(..) => unreachable!("a grouping is sent keyed rows"),
            }
        }
        let ahead = |batch| self.grouping.add_ahead(batch, reached);
        let others: Vec<Vec<u32>> = parts.iter().map(ahead).collect::<Result<_, _>>()?;
        for (step, (before, after)) in gathered.watermarks.into_iter().enumerate() {
            self.take_in(&parts, &others, step as u8, before, context, &mut outbox)?;
            self.fire(step as u8, before, after, context, &mut outbox)?;
            states[step] = if gathered.idle {
                SplitState::Idle
            } else {
                SplitState::Active(self.grouping.output(after))
            };
        }
        self.ended = gathered.end;
        self.outlet.send(outbox, gathered.round, states, gathered.end, gathered.barrier);
        if gathered.barrier.is_some() || gathered.end {
            let frozen = context.set_aside(|| early.unwrap_or_else(|| self.grouping.freeze()));
            let state = TaskState::Group(reached, frozen);
            send_report(context, self.node.id, gathered.round, gathered.barrier, gathered.end, &state);
        }
        Ok(Polled::Worked(reached))
    }

    /// Takes in what of `others`, some rows of each part, is of a step.
    fn take_in(
        &mut self,
        parts: &[KeyedBatch],
        others: &[Vec<u32>],
        step: u8,
        watermark: Watermark,
        context: &Context<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        let mut late = Late::default();
        for (batch, others) in parts.iter().zip(others) {
            let rows = batch.steps.rows(step, batch.keys.len());
            let before = |end: usize| others.partition_point(|row| (*row as usize) < end);
            let rows = &others[before(rows.start)..before(rows.end)];
            if !rows.is_empty() {
                let dropped = self.grouping.add(batch, rows, watermark)?;
                late.add(batch, &dropped);
            }
        }
        if late.rows > 0 {
            context.steps.events.late(&self.node.name, late.rows);
            if let Some(output) = self.node.error_output {
                self.late_letters(
                    OutputRef { node: self.node.id, output },
                    late,
                    step,
                    watermark,
                    context,
                    outbox,
                )?;
            }
        }
        Ok(())
    }

    /// Late rows leave ordered by key group, so that the order does not depend on the threads.
    fn late_letters(
        &self,
        output: OutputRef,
        late: Late,
        step: u8,
        watermark: Watermark,
        context: &Context<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        let schema = context.steps.graph.input_schema(&self.node, 0);
        let mut order: Vec<u32> = (0..late.hashes.len() as u32).collect();
        order.sort_by_key(|row| late.hashes[*row as usize].group());
        let columns: Vec<ArrayRef> = (0..schema.fields.len())
            .map(|field| {
                let pieces: Vec<_> = late.columns.iter().map(|columns| &*columns[field]).collect();
                concat(&pieces).expect("the pieces are of one type")
            })
            .collect();
        let messages = order.iter().map(|row| {
            let window = late.windows[*row as usize];
            format!("late: window {window} had closed, the watermark stood at {watermark}")
        });
        let messages = messages.collect();
        let micros: Vec<i64> = order.iter().map(|row| late.times[*row as usize].micros()).collect();
        let rows = Batch {
            rows: order.len(),
            times: Times::Each(micros.into()),
            steps: RowSteps::All(step),
            ..Batch::untimed(take_columns(&columns, &order), order.len())
        };
        let rows = Batch {
            windows: Windows::Assigned {
                function: context.steps.graph.groups[&self.node.id].strategy.window_fn,
                at: rows.times.clone(),
            },
            ..rows
        };
        let label = Label::new(self.node.id, step, context.thread as u32);
        context.steps.carry(output, label, dead_letters(schema, &rows, messages), outbox)
    }

    fn fire(
        &mut self,
        step: u8,
        before: Watermark,
        after: Watermark,
        context: &Context<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        let mut counts: BTreeMap<Window, u64> = BTreeMap::new();
        let Self { node, grouping, .. } = self;
        let mut out = |one: Fired| {
            let (major, minor) = match one.window {
                Some(Window::Interval(window)) => (window.end.micros(), window.start.micros()),
                Some(Window::Global) => (i64::MAX, 0),
                None => (i64::MIN + 1, 0),
            };
            let label = Label { major, minor, ..Label::new(node.id, step, context.thread as u32) };
            match one.window {
                Some(window) => *counts.entry(window).or_default() += one.batch.rows as u64,
                None => (0..one.batch.rows).flat_map(|row| one.batch.windows.at(row)).for_each(|window| {
                    *counts.entry(window).or_default() += 1;
                }),
            }
            let batch = Batch { steps: RowSteps::All(step), ..one.batch };
            context.steps.carry(OutputRef { node: node.id, output: 0 }, label, batch, outbox)
        };
        grouping.advance(before, after, &mut out).map_err(|error| match error {
            AdvanceError::Aggregate(source) => {
                StreamError::Aggregate { transform: self.node.name.clone(), source }
            }
            AdvanceError::Spill(error) => error.into(),
            AdvanceError::Out(error) => error,
        })?;
        let counts: Vec<(Window, u64)> = counts.into_iter().collect();
        if counts.is_empty() && before == after {
            return Ok(());
        }
        let here = context.here.clone();
        context.steps.events.advanced(
            &self.node.name,
            context.thread - here.start,
            here.len(),
            after,
            &counts,
        );
        Ok(())
    }
}

/// The rows of a step that came too late, once for each window they missed.
#[derive(Default)]
struct Late {
    rows: u64,
    columns: Vec<Vec<ArrayRef>>,
    hashes: Vec<KeyHash>,
    times: Vec<Timestamp>,
    windows: Vec<Window>,
}

impl Late {
    fn add(&mut self, batch: &KeyedBatch, dropped: &[(u32, Window)]) {
        self.rows += dropped.len() as u64;
        let Some(originals) = batch.originals.as_ref().filter(|_| !dropped.is_empty()) else { return };
        let rows: Vec<u32> = dropped.iter().map(|(row, _)| *row).collect();
        self.columns.push(take_columns(originals, &rows));
        self.hashes.extend(rows.iter().map(|row| batch.keys.hash(*row as usize)));
        self.times.extend(rows.iter().map(|row| batch.times.at(*row as usize)));
        self.windows.extend(dropped.iter().map(|(_, window)| *window));
    }
}

/// A write, on the thread that owns it.
pub(crate) struct SinkTask {
    node: Node,
    sink: Box<dyn Sink>,
    inbox: Inbox,
    ended: bool,
}

impl SinkTask {
    /// A task that goes on with `sink`.
    #[must_use]
    pub(crate) fn new(node: &Node, sink: Box<dyn Sink>, inbox: Inbox) -> Self {
        Self { node: node.clone(), sink, inbox, ended: false }
    }

    /// Writes a round.
    ///
    /// # Errors
    /// If the sink fails.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Result<Polled, StreamError> {
        if self.ended {
            return Ok(Polled::Ended);
        }
        let Some(gathered) = gather(&mut self.inbox, &self.node)? else {
            return Ok(Polled::Waiting(Wait::Input));
        };
        let failed = |source| StreamError::Connect { transform: self.node.name.clone(), source };
        let mut written = 0;
        for whole in gathered.parts.chunk_by(|(one, _), (next, _)| one.whole() == next.whole()) {
            let mut pieces = Vec::with_capacity(whole.len());
            for (_, payload) in whole {
                let Payload::Bytes(bytes, rows) = payload else { unreachable!("a write is sent bytes") };
                pieces.push(bytes.as_slice());
                written += *rows as u64;
            }
            self.sink.append(&pieces).map_err(failed)?;
        }
        if written > 0 {
            context.steps.events.wrote(&self.node.name, written);
            context.steps.flow(self.node.id).gives(written as usize);
        }
        self.ended = gathered.end;
        if gathered.barrier.is_some() || gathered.end {
            let last = if gathered.end { Last::Yes } else { Last::No };
            let prepared = context.set_aside(|| self.sink.prepare(last)).map_err(failed)?;
            let state = TaskState::Sink(prepared);
            send_report(context, self.node.id, gathered.round, gathered.barrier, gathered.end, &state);
        }
        Ok(Polled::Worked(gathered.reached()))
    }
}

/// An AssertEqual, on the thread that owns it.
pub(crate) struct AssertTask {
    node: Node,
    rows: Vec<Vec<u8>>,
    inbox: Inbox,
    ended: bool,
}

impl AssertTask {
    /// A task that has seen `rows`.
    #[must_use]
    pub(crate) fn new(node: &Node, rows: Vec<Vec<u8>>, inbox: Inbox) -> Self {
        Self { node: node.clone(), rows, inbox, ended: false }
    }

    /// Takes in a round; at the end compares.
    ///
    /// # Errors
    /// If the rows are not those expected.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Result<Polled, StreamError> {
        if self.ended {
            return Ok(Polled::Ended);
        }
        let Some(gathered) = gather(&mut self.inbox, &self.node)? else {
            return Ok(Polled::Waiting(Wait::Input));
        };
        let schema = context.steps.graph.input_schema(&self.node, 0);
        for (_, payload) in &gathered.parts {
            let Payload::Rows(batch) = payload else { unreachable!("an assertion is sent rows") };
            let rows = values_of(schema, batch);
            self.rows.extend(rows.into_iter().map(|row| assertion::encode(schema, row)));
        }
        self.ended = gathered.end;
        if gathered.end {
            let NodeKind::AssertEqual { elements } = &self.node.kind else {
                unreachable!("the task is made for an assertion")
            };
            assertion::compare(elements, &self.rows)
                .map_err(|message| StreamError::Assertion { transform: self.node.name.clone(), message })?;
        }
        if gathered.barrier.is_some() || gathered.end {
            let state = TaskState::Assert(self.rows.clone());
            send_report(context, self.node.id, gathered.round, gathered.barrier, gathered.end, &state);
        }
        Ok(Polled::Worked(gathered.reached()))
    }
}
