//! The two paths of a grouping against each other, and either against itself with little memory and after checkpoints.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_array::Int64Array;
use pharos_beam::expr::ir::{Expr, ExprKind};
use pharos_beam::plan::{AggregateFunction, Aggregation, NodeKind, Plan};
use pharos_beam::schema::{Type, Value};
use pharos_beam::{NoSchemas, SourceName, compile};
use pharos_window::{
    Accumulation, Gather, KeyedWindows, Lateness, Pane, Span, Timestamp, TimestampCombiner, Watermark,
    WindowFn, WindowingStrategy,
};
use proptest::prelude::*;

use super::*;
use crate::assignment::Assignment;
use crate::checkpoint::collector::TaskId;
use crate::checkpoint::keeper::{Keeper, restore};
use crate::checkpoint::manifest::{Manifest, PieceKind};
use crate::checkpoint::part::PartWriter;
use crate::checkpoint::{BlobError, Blobs};
use crate::column::{Panes, Steps, value_at};
use crate::exec::task::TaskState;
use crate::key::KeyGroup;
use crate::spill::{Disk, RunId, Share};

fn spec(strategy: WindowingStrategy) -> Arc<GroupSpec> {
    let value = Expr { ty: Type::Int64, kind: ExprKind::Field(0) };
    let aggregation =
        |function, output| Aggregation { name: "a".to_owned(), function, value: value.clone(), output };
    Arc::new(GroupSpec {
        strategy,
        keys: Arc::from([Type::Int64]),
        aggregations: Arc::from([
            aggregation(AggregateFunction::Sum, Type::Int64),
            aggregation(AggregateFunction::Count, Type::Int64),
            aggregation(AggregateFunction::Max, Type::Int64),
        ]),
        explicit_windows: false,
    })
}

fn batch(rows: &[Row], function: WindowFn) -> KeyedBatch {
    let keys = Int64Array::from_iter_values(rows.iter().map(|(_, key, _)| *key));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, value)| *value)));
    let times = Times::Each(rows.iter().map(|(at, _, _)| *at).collect());
    let windows = match function {
        WindowFn::Global => Windows::All(Window::Global),
        function => Windows::Assigned { function, at: times.clone() },
    };
    KeyedBatch {
        keys: Keys::of(&[&Type::Int64], &[&keys], rows.len()),
        values: vec![Arc::clone(&values), Arc::clone(&values), values],
        times,
        windows,
        steps: Steps::All(0),
        originals: None,
    }
}

/// The positions of all its rows.
fn all(batch: &KeyedBatch) -> Vec<u32> {
    (0..batch.keys.len() as u32).collect()
}

/// Results as (key, window, time, pane, sum, count, max), sorted.
fn told(fired: Vec<Fired>) -> Vec<String> {
    let mut rows = Vec::new();
    for Fired { batch, .. } in fired {
        for row in 0..batch.rows {
            let pane = match &batch.panes {
                Panes::All(pane) => pane.expect("results have a pane"),
                Panes::Each(panes) => panes[row],
            };
            let cells: Vec<_> =
                batch.columns.iter().map(|column| value_at(&Type::Int64, column, row)).collect();
            rows.push(format!("{:?} {:?} {} {pane:?}", cells, batch.windows.at(row), batch.times.at(row)));
        }
    }
    rows.sort();
    rows
}

fn advance(grouping: &mut Grouping, before: Watermark, after: Watermark) -> Vec<Fired> {
    let mut fired = Vec::new();
    let mut out = |one| {
        fired.push(one);
        Ok(())
    };
    grouping.advance(before, after, &mut out).unwrap();
    fired
}

/// Blobs in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Blobs for Memory {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError> {
        self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn create(&self, _: &str, _: &[u8]) -> Result<bool, BlobError> {
        unreachable!("whose the place is is not in question")
    }
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }
    fn range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Option<Bytes>, BlobError> {
        let part = |blob: &Vec<u8>| {
            Bytes::copy_from_slice(&blob[range.start as usize..blob.len().min(range.end as usize)])
        };
        Ok(self.0.lock().unwrap().get(name).map(part))
    }
    fn list(&self) -> Result<Vec<String>, BlobError> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }
    fn delete(&self, name: &str) -> Result<(), BlobError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
}

/// The checkpoints of one grouping, written and read as workers do.
struct Checkpoints {
    plan: Plan,
    blobs: Arc<Memory>,
    generation: u64,
    epoch: u64,
    threads: usize,
    keeper: Keeper,
    writer: PartWriter,
}

impl Checkpoints {
    fn new(threads: usize) -> Self {
        let document = "
pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{key: 1}]}}
    - {type: Combine, config: {group_by: key, combine: {count: {value: key, fn: count}}}}
    - {type: WriteToJson, config: {path: out}}
";
        let plan = compile(document, SourceName::new("t"), &NoSchemas).unwrap();
        let blobs = Arc::new(Memory::default());
        let (keeper, writer) = Self::open(&plan, &blobs, 1, threads);
        Self { plan, blobs, generation: 1, epoch: 0, threads, keeper, writer }
    }

    fn open(plan: &Plan, blobs: &Arc<Memory>, generation: u64, threads: usize) -> (Keeper, PartWriter) {
        let blobs: Arc<dyn Blobs> = blobs.clone();
        let keeper = Keeper::open(Arc::clone(&blobs), plan, "run", generation, None).unwrap();
        (keeper, PartWriter::new(Some(blobs), plan, &Assignment::alone(generation, threads)))
    }

    fn node(&self) -> u32 {
        let grouping = self.plan.nodes.iter().find(|node| matches!(node.kind, NodeKind::Combine { .. }));
        grouping.expect("there is one grouping").id.0
    }

    /// Takes a checkpoint of what the threads have, and says how many bytes of state were written.
    fn take<'g>(&mut self, groupings: impl Iterator<Item = &'g mut Grouping>) -> u64 {
        self.epoch += 1;
        let node = self.node();
        let state = |(thread, grouping): (u32, &mut Grouping)| {
            (TaskId { node, thread }, TaskState::Group(Watermark::NEG_INF, grouping.freeze()))
        };
        let part =
            self.writer.write(&self.epoch.to_string(), (0..).zip(groupings).map(state).collect()).unwrap();
        let written = part.written;
        self.keeper.write(self.epoch, Some(self.epoch), BTreeMap::from([(0, part)])).unwrap();
        written
    }

    fn manifest(&self) -> &Manifest {
        self.keeper.last().expect("a checkpoint was taken")
    }

    /// Lets the last checkpoint count, and has `threads` new threads take it up.
    fn take_up(&mut self, groupings: &mut [Grouping], disk: Option<&Arc<Disk>>) {
        let pointer = self.keeper.pointer().expect("a checkpoint was taken");
        let all = 0..KeyGroup::COUNT;
        let restored = restore(&*self.blobs, &self.plan, "run", &pointer, &all, disk).unwrap();
        let (_, pieces) = restored.groups.into_values().next().expect("there is one grouping");
        self.threads = groupings.len();
        for (thread, grouping) in groupings.iter_mut().enumerate() {
            let mine = |hash: KeyHash| hash.group().owner(self.threads) == thread;
            pieces.iter().for_each(|(_, (slice, kept))| grouping.restore(*slice, kept, mine).unwrap());
        }
        self.generation += 1;
        (self.keeper, self.writer) = Self::open(&self.plan, &self.blobs, self.generation, self.threads);
    }

    /// Lets the last checkpoint count, and deletes what it does not need.
    fn count(&mut self) {
        self.keeper.clean().unwrap();
    }
}

/// Event time, key, value.
type Row = (i64, i64, i64);

/// Rows of several bundles, each followed by a watermark.
fn any_story() -> impl Strategy<Value = Vec<(Vec<Row>, i64)>> {
    let row = (-30i64..200, 0i64..5, -9i64..9);
    prop::collection::vec((prop::collection::vec(row, 0..20), 0i64..40), 0..12)
}

fn any_function() -> impl Strategy<Value = (WindowFn, i64)> {
    let span = |range: std::ops::Range<i64>| range.prop_map(Span::from_micros);
    prop_oneof![
        Just((WindowFn::Global, 0)),
        (span(1..40), span(-9..9), 0i64..30)
            .prop_map(|(size, offset, late)| (WindowFn::fixed(size, offset).unwrap(), late)),
        (span(1..40), span(1..20), span(-9..9))
            .prop_map(|(size, period, offset)| (WindowFn::sliding(size, period, offset).unwrap(), 0)),
    ]
}

fn strategy(function: WindowFn, late: i64, accumulating: bool) -> WindowingStrategy {
    let mut strategy = WindowingStrategy::with_defaults(function);
    strategy.allowed_lateness = Lateness(Span::from_micros(late));
    strategy.accumulation = if accumulating { Accumulation::Accumulating } else { Accumulation::Discarding };
    strategy
}

/// The watermark once that much time has passed; it begins shortly before the first rows.
fn later(before: Watermark, passed: i64) -> Watermark {
    before.max(Watermark::at(Timestamp::from_micros(before.timestamp().micros().max(-40) + passed)))
}

proptest! {
    #[test]
    fn slices_and_the_general_path_give_the_same_panes_and_drop_the_same_rows(
        story in any_story(), (function, late) in any_function(), accumulating in any::<bool>(), restart in 0usize..12,
    ) {
        let spec = spec(strategy(function, late, accumulating));
        let new = || (Grouping::Slices(Slices::new(Arc::clone(&spec), None)), Grouping::General(Box::new(General::new(Arc::clone(&spec), None))));
        let (mut slices, mut general) = new();
        let mut checkpoints = [(); 2].map(|()| Checkpoints::new(1));
        let mut before = Watermark::NEG_INF;
        let steps = story.len();
        for (step, (rows, passed)) in story.into_iter().enumerate() {
            let batch = batch(&rows, function);
            let mut one = slices.add(&batch, &all(&batch), before).unwrap();
            let mut other = general.add(&batch, &all(&batch), before).unwrap();
            one.sort();
            other.sort();
            prop_assert_eq!(one, other);
            let mut after = later(before, passed);
            if step + 1 == steps {
                after = Watermark::POS_INF;
            }
            prop_assert_eq!(told(advance(&mut slices, before, after)), told(advance(&mut general, before, after)));
            before = after;
            // A checkpoint after each step, one of them taken up, changes nothing.
            for (checkpoints, grouping) in checkpoints.iter_mut().zip([&mut slices, &mut general]) {
                checkpoints.take(std::iter::once(grouping));
            }
            if step == restart {
                (slices, general) = new();
                for (checkpoints, grouping) in checkpoints.iter_mut().zip([&mut slices, &mut general]) {
                    checkpoints.take_up(std::slice::from_mut(grouping), None);
                }
            } else {
                checkpoints.iter_mut().for_each(Checkpoints::count);
            }
        }
    }
}

/// The windows of each key by themselves, and how many rows each holds.
#[derive(Default)]
struct Naive {
    keys: BTreeMap<i64, KeyedWindows<usize>>,
    counts: Counts,
}

#[derive(Default)]
struct Counts(Vec<i64>);

impl Gather for Counts {
    type Place = usize;
    fn open(&mut self) -> usize {
        self.0.push(0);
        self.0.len() - 1
    }
    fn join(&mut self, earlier: usize, later: usize) {
        self.0[earlier] += self.0[later];
    }
    fn close(&mut self, _: usize) {}
}

proptest! {
    #[test]
    fn the_general_path_gives_what_the_windows_of_each_key_do_also_after_checkpoints(
        story in any_story(), (fixed, late) in any_function(), gap in 0i64..30, accumulating in any::<bool>(),
        restart in 0usize..12,
        combiner in prop::sample::select(&[
            TimestampCombiner::Earliest, TimestampCombiner::Latest, TimestampCombiner::EndOfWindow,
        ]),
    ) {
        let function = if gap == 0 { fixed } else { WindowFn::sessions(Span::from_micros(gap)).unwrap() };
        let mut strategy = strategy(function, late, accumulating);
        strategy.timestamp_combiner = combiner;
        let spec = spec(strategy);
        let new = || Grouping::General(Box::new(General::new(Arc::clone(&spec), None)));
        let (mut threads, mut checkpoints) = (vec![new()], Checkpoints::new(1));
        let mut naive = Naive::default();
        let mut before = Watermark::NEG_INF;
        let steps = story.len();
        for (step, (rows, passed)) in story.into_iter().enumerate() {
            let batch = batch(&rows, function);
            let after = if step + 1 == steps { Watermark::POS_INF } else { later(before, passed) };
            let (mut dropped, mut fired, mut output) = (0, Vec::new(), after);
            let owners = threads.len();
            for (thread, general) in threads.iter_mut().enumerate() {
                let mine = |row: &u32| batch.keys.hash(*row as usize).group().owner(owners) == thread;
                let mine: Vec<u32> = all(&batch).into_iter().filter(mine).collect();
                dropped += general.add(&batch, &mine, before).unwrap().len();
                for Fired { batch, .. } in advance(general, before, after) {
                    let Panes::Each(panes) = &batch.panes else { unreachable!("each has a pane of its own") };
                    for row in 0..batch.rows {
                        let [key, count] = [0, 2].map(|column| value_at(&Type::Int64, &batch.columns[column], row));
                        let (window, at) = (batch.windows.at(row), batch.times.at(row));
                        fired.push(format!("{key:?} {:?} {at} {:?} {count:?}", window[0], panes[row]));
                    }
                }
                output = output.min(general.output(after));
            }
            let mut expected = 0;
            for (row, (_, key, _)) in rows.iter().enumerate() {
                let Naive { keys, counts } = &mut naive;
                for window in batch.windows.at(row) {
                    let windows = keys.entry(*key).or_default();
                    match windows.add(&strategy, window, batch.times.at(row), before, counts) {
                        Some(place) => counts.0[place] += 1,
                        None => expected += 1,
                    }
                }
            }
            prop_assert_eq!(dropped, expected);
            let mut expected = Vec::new();
            for (key, windows) in &mut naive.keys {
                let mut panes = Vec::new();
                windows.advance(&strategy, before, after, &mut naive.counts, |pane| panes.push(pane));
                for Pane { window, timestamp, info, value, .. } in panes {
                    let (key, count) = (Value::Int64(*key), Value::Int64(naive.counts.0[value]));
                    expected.push(format!("{key:?} {window:?} {timestamp} {info:?} {count:?}"));
                }
            }
            fired.sort();
            expected.sort();
            prop_assert_eq!(fired, expected);
            if combiner != TimestampCombiner::EndOfWindow {
                let held = naive.keys.values().filter(|windows| !windows.is_empty()).map(KeyedWindows::output).min();
                prop_assert_eq!(output, held.map_or(after, |held| held.min(after)));
            }
            before = after;
            // Checkpoints, of which others take up one, change nothing.
            checkpoints.take(threads.iter_mut());
            if step == restart {
                threads = vec![new(), new()];
                checkpoints.take_up(&mut threads, None);
            } else {
                checkpoints.count();
            }
        }
        let over = |grouping: &Grouping| matches!(grouping, Grouping::General(general) if general.is_empty());
        prop_assert!(steps == 0 || threads.iter().all(over));
    }
}

/// Aggregations whose result depends on the order of rows, and others.
fn ordered_spec(strategy: WindowingStrategy) -> Arc<GroupSpec> {
    let of = |ty: Type, function, output| Aggregation {
        name: "a".to_owned(),
        function,
        value: Expr { ty, kind: ExprKind::Field(0) },
        output,
    };
    Arc::new(GroupSpec {
        strategy,
        keys: Arc::from([Type::Int64]),
        aggregations: Arc::from([
            of(Type::Float64, AggregateFunction::Sum, Type::Float64),
            of(Type::Float64, AggregateFunction::Mean, Type::Float64.nullable()),
            of(Type::Float64, AggregateFunction::Min, Type::Float64.nullable()),
            of(Type::Int64, AggregateFunction::Mean, Type::Float64.nullable()),
            of(Type::Int64, AggregateFunction::Count, Type::Int64),
            of(Type::Int64, AggregateFunction::Group, Type::Array(Box::new(Type::Int64))),
        ]),
        explicit_windows: false,
    })
}

fn ordered_batch(rows: &[Row], function: WindowFn) -> KeyedBatch {
    let whole = batch(rows, function);
    // Sums of such values depend on the order in which they are added.
    let floats = rows.iter().map(|(at, _, value)| *value as f64 / 3.0 * 10f64.powi((*at % 17) as i32));
    let (floats, ints): (ArrayRef, _) =
        (Arc::new(arrow_array::Float64Array::from_iter_values(floats)), Arc::clone(&whole.values[0]));
    let [sum, mean, min] = [0; 3].map(|_| Arc::clone(&floats));
    KeyedBatch { values: vec![sum, mean, min, Arc::clone(&ints), Arc::clone(&ints), ints], ..whole }
}

/// Results in the order in which they come, bit by bit, with the window that orders them, if one does.
fn in_order(spec: &GroupSpec, fired: Vec<Fired>) -> Vec<(Option<Window>, String)> {
    let mut rows = Vec::new();
    for Fired { batch, window } in fired {
        for row in 0..batch.rows {
            let pane = match &batch.panes {
                Panes::All(pane) => pane.expect("results have a pane"),
                Panes::Each(panes) => panes[row],
            };
            let types = spec.keys.iter().chain(spec.aggregations.iter().map(|of| &of.output));
            let cells: Vec<_> = types
                .zip(&batch.columns)
                .map(|(ty, column)| match value_at(ty, column, row) {
                    Value::Float64(value) => format!("{:016x}", value.to_bits()),
                    other => format!("{other:?}"),
                })
                .collect();
            let (windows, at) = (batch.windows.at(row), batch.times.at(row));
            rows.push((window, format!("{cells:?} {windows:?} {at} {pane:?}")));
        }
    }
    rows
}

/// A grouping on several threads with little memory each, and their checkpoints.
struct Spilling {
    spec: Arc<GroupSpec>,
    disk: Arc<Disk>,
    bound: usize,
    checkpoints: Checkpoints,
    threads: Vec<Grouping>,
}

impl Spilling {
    fn new(spec: &Arc<GroupSpec>, directory: &std::path::Path, bound: usize) -> Self {
        let (disk, checkpoints) = (Disk::new(&directory.join("state"), bound), Checkpoints::new(1));
        let mut new = Self { spec: Arc::clone(spec), disk, bound, checkpoints, threads: Vec::new() };
        new.threads = new.open(0, 1);
        new
    }

    fn open(&self, generation: u64, threads: usize) -> Vec<Grouping> {
        let share = |thread: usize| {
            let first = RunId { generation, thread: thread as u32, node: 0, number: 0 };
            let groups = KeyGroup::of_owners(&(thread..thread + 1), threads);
            Share::new(Arc::clone(&self.disk), self.bound, groups, first)
        };
        (0..threads).map(|thread| Grouping::new(Arc::clone(&self.spec), Some(share(thread)))).collect()
    }

    /// Takes a checkpoint that counts.
    fn keep(&mut self) {
        self.checkpoints.take(self.threads.iter_mut());
        self.checkpoints.count();
    }

    /// Takes a checkpoint and goes on from it with so many threads.
    fn rescale(&mut self, threads: usize) {
        self.checkpoints.take(self.threads.iter_mut());
        self.threads = self.open(self.checkpoints.generation, threads);
        self.checkpoints.take_up(&mut self.threads, Some(&self.disk));
    }

    fn step(
        &mut self,
        batch: &KeyedBatch,
        before: Watermark,
        after: Watermark,
    ) -> (usize, Vec<(Option<Window>, String)>) {
        let (mut dropped, mut rows) = (0, Vec::new());
        let threads = self.threads.len();
        for (thread, grouping) in self.threads.iter_mut().enumerate() {
            let mine = |row: &u32| batch.keys.hash(*row as usize).group().owner(threads) == thread;
            let mine = batch.take(&(0..batch.keys.len() as u32).filter(mine).collect::<Vec<_>>());
            dropped += grouping.add(&mine, &all(&mine), before).unwrap().len();
            rows.extend(in_order(&self.spec, advance(grouping, before, after)));
            if let Grouping::General(general) = grouping {
                assert!(general.memory() <= self.bound, "{} of {}", general.memory(), self.bound);
            }
        }
        rows.sort_by_key(|(window, _)| *window);
        (dropped, rows)
    }
}

proptest! {
    // A case writes some hundred files, and the disk makes each of them durable.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn with_little_memory_results_have_the_same_bits_in_the_same_order(
        story in any_story(), (function, late) in any_function(), accumulating in any::<bool>(),
        bound in 1usize..3000, rescale in 0usize..12,
    ) {
        let spec = ordered_spec(strategy(function, late, accumulating));
        let directory = tempfile::tempdir().unwrap();
        let mut plain = Grouping::Slices(Slices::new(Arc::clone(&spec), None));
        let mut spilling = Spilling::new(&spec, directory.path(), bound);
        let mut before = Watermark::NEG_INF;
        let steps = story.len();
        for (step, (rows, passed)) in story.into_iter().enumerate() {
            let batch = ordered_batch(&rows, function);
            let mut after = later(before, passed);
            if step + 1 == steps {
                after = Watermark::POS_INF;
            }
            let dropped = plain.add(&batch, &all(&batch), before).unwrap().len();
            let mut expected = in_order(&spec, advance(&mut plain, before, after));
            expected.sort_by_key(|(window, _)| *window);
            prop_assert_eq!(spilling.step(&batch, before, after), (dropped, expected));
            before = after;
            if step == rescale {
                spilling.rescale(3);
            } else if step == rescale + 3 {
                spilling.rescale(2);
            } else if step % 4 != 3 {
                spilling.keep();
            }
        }
    }
}

/// As [`any_story`], of more keys.
fn story_of_many_keys() -> impl Strategy<Value = Vec<(Vec<Row>, i64)>> {
    let row = (-30i64..200, 0i64..40, -9i64..9);
    prop::collection::vec((prop::collection::vec(row, 0..20), 0i64..40), 0..16)
}

proptest! {
    // As above.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn with_little_memory_the_general_path_gives_the_same_bits_in_the_same_order(
        story in story_of_many_keys(), (fixed, late) in any_function(), gap in 0i64..40, accumulating in any::<bool>(),
        bound in prop_oneof![1usize..20_000, 1usize..3000], rescale in 0usize..12,
        combiner in prop::sample::select(&[
            TimestampCombiner::Earliest, TimestampCombiner::Latest, TimestampCombiner::EndOfWindow,
        ]),
    ) {
        let function = if gap == 0 { fixed } else { WindowFn::sessions(Span::from_micros(gap)).unwrap() };
        let mut strategy = strategy(function, late, accumulating);
        strategy.timestamp_combiner = combiner;
        let spec = ordered_spec(strategy);
        prop_assume!(!spec.slices_serve());
        let directory = tempfile::tempdir().unwrap();
        let mut plain = Grouping::General(Box::new(General::new(Arc::clone(&spec), None)));
        let mut spilling = Spilling::new(&spec, directory.path(), bound);
        let mut before = Watermark::NEG_INF;
        let steps = story.len();
        for (step, (rows, passed)) in story.into_iter().enumerate() {
            let batch = ordered_batch(&rows, function);
            let after = if step + 1 == steps { Watermark::POS_INF } else { later(before, passed) };
            let dropped = plain.add(&batch, &all(&batch), before).unwrap().len();
            let expected = in_order(&spec, advance(&mut plain, before, after));
            prop_assert_eq!(spilling.step(&batch, before, after), (dropped, expected));
            let output = spilling.threads.iter().map(|general| general.output(after)).min().unwrap();
            prop_assert_eq!(output, plain.output(after));
            before = after;
            if step == rescale {
                spilling.rescale(3);
            } else if step == rescale + 3 {
                spilling.rescale(2);
            } else if step % 4 != 3 {
                spilling.keep();
            }
        }
        let over = |grouping: &Grouping| matches!(grouping, Grouping::General(general) if general.is_empty());
        prop_assert!(steps == 0 || spilling.threads.iter().all(over));
    }
}

proptest! {
    #[test]
    fn what_is_added_ahead_of_its_step_is_not_missed_and_changes_nothing(
        story in any_story(), (function, late) in any_function(), accumulating in any::<bool>(), steps in 1usize..5,
    ) {
        let spec = ordered_spec(strategy(function, late, accumulating));
        let [mut plain, mut quick] = [(); 2].map(|()| Grouping::Slices(Slices::new(Arc::clone(&spec), None)));
        let mut before = Watermark::NEG_INF;
        for round in story.chunks(steps) {
            let whole: Vec<Row> = round.iter().flat_map(|(rows, _)| rows.clone()).collect();
            let of = round.iter().enumerate().flat_map(|(step, (rows, _))| vec![step as u8; rows.len()]);
            let whole = KeyedBatch { steps: Steps::Each(of.collect()), ..ordered_batch(&whole, function) };
            let mut watermarks = vec![before];
            for (_, passed) in round {
                watermarks.push(later(*watermarks.last().unwrap(), *passed));
            }
            let others = quick.add_ahead(&whole, *watermarks.last().unwrap()).unwrap();
            for (step, (rows, _)) in round.iter().enumerate() {
                let (before, after) = (watermarks[step], watermarks[step + 1]);
                let batch = ordered_batch(rows, function);
                let dropped = plain.add(&batch, &all(&batch), before).unwrap().len();
                let range = whole.steps.rows(step as u8, whole.keys.len());
                let mine: Vec<u32> = others.iter().copied().filter(|row| range.contains(&(*row as usize))).collect();
                prop_assert_eq!(quick.add(&whole, &mine, before).unwrap().len(), dropped);
                prop_assert_eq!(
                    in_order(&spec, advance(&mut quick, before, after)),
                    in_order(&spec, advance(&mut plain, before, after))
                );
            }
            before = watermarks[round.len()];
        }
        prop_assert_eq!(
            in_order(&spec, advance(&mut quick, before, Watermark::POS_INF)),
            in_order(&spec, advance(&mut plain, before, Watermark::POS_INF))
        );
    }
}

/// An origin of a grouping on two threads.
struct Origin {
    combiner: Combiner,
    watermark: Watermark,
}

impl Origin {
    fn new(spec: &Arc<GroupSpec>, floor: Watermark) -> Self {
        let combiner = Combiner::new(spec, 2, floor).expect("the functions join exactly");
        Self { combiner, watermark: Watermark::NEG_INF }
    }

    /// The watermarks before and after each step.
    fn pass(&mut self, round: &[(Vec<Row>, i64)]) -> Vec<Watermark> {
        let first = [self.watermark];
        let after = round.iter().map(|(_, passed)| {
            self.watermark = later(self.watermark, *passed);
            self.watermark
        });
        first.into_iter().chain(after).collect()
    }
}

/// The rows of a round.
fn round_of(round: &[(Vec<Row>, i64)], function: WindowFn) -> KeyedBatch {
    let rows: Vec<Row> = round.iter().flat_map(|(rows, _)| rows.clone()).collect();
    let steps = round.iter().enumerate().flat_map(|(step, (rows, _))| vec![step as u8; rows.len()]);
    KeyedBatch { steps: Steps::Each(steps.collect()), ..batch(&rows, function) }
}

proptest! {
    #[test]
    fn what_origins_add_up_of_their_rows_changes_nothing(
        stories in [any_story(), any_story()], (function, late) in any_function(), accumulating in any::<bool>(),
        steps in 1usize..5, restart in 0usize..8,
    ) {
        let spec = spec(strategy(function, late, accumulating));
        let mut plain = Grouping::Slices(Slices::new(Arc::clone(&spec), None));
        let mut owners = [(); 2].map(|()| Grouping::Slices(Slices::new(Arc::clone(&spec), None)));
        let mut origins = [(); 2].map(|()| Origin::new(&spec, Watermark::NEG_INF));
        let mut before = Watermark::NEG_INF;
        let rounds = stories.iter().map(|story| story.len().div_ceil(steps)).max().unwrap_or(0);
        for number in 0..rounds {
            if number == restart {
                // Whoever goes on from a checkpoint may be asked to read what nobody has read yet.
                origins = [(); 2].map(|()| Origin::new(&spec, before));
            }
            let nothing: Vec<(Vec<Row>, i64)> = vec![(Vec::new(), 0); steps];
            let of = |story: &Vec<(Vec<Row>, i64)>| {
                let round = story.chunks(steps).nth(number).unwrap_or(&nothing).iter().cloned();
                round.chain(nothing.iter().cloned()).take(steps).collect::<Vec<_>>()
            };
            let rounds: Vec<_> = stories.iter().map(of).collect();
            let watermarks: Vec<_> = origins.iter_mut().zip(&rounds).map(|(origin, round)| origin.pass(round)).collect();
            let mut others = Vec::new();
            for (origin, round) in origins.iter_mut().zip(&rounds) {
                let whole = round_of(round, function);
                origin.combiner.insist();
                let rows = if origin.combiner.begin(Some(origin.watermark)) {
                    let rows = origin.combiner.add(&whole);
                    for (owner, partials) in owners.iter_mut().zip(origin.combiner.finish()) {
                        let mut bytes = Vec::new();
                        partials.put(&mut bytes);
                        let partials = Partials::read(&spec.aggregations, &mut Reader::new(&bytes)).unwrap();
                        owner.add_partials(&partials).unwrap();
                    }
                    rows
                } else {
                    all(&whole)
                };
                others.push(whole.take(&rows));
            }
            for step in 0..steps {
                let after = before.max(watermarks[0][step + 1].min(watermarks[1][step + 1]));
                let (mut dropped, mut expected) = (0, 0);
                for (whole, round) in others.iter().zip(&rounds) {
                    let batch = batch(&round[step].0, function);
                    expected += plain.add(&batch, &all(&batch), before).unwrap().len();
                    let rows: Vec<u32> = whole.steps.rows(step as u8, whole.keys.len()).map(|row| row as u32).collect();
                    for (thread, owner) in owners.iter_mut().enumerate() {
                        let mine = |row: &&u32| whole.keys.hash(**row as usize).group().owner(2) == thread;
                        let mine: Vec<u32> = rows.iter().filter(mine).copied().collect();
                        dropped += owner.add(whole, &mine, before).unwrap().len();
                    }
                }
                prop_assert_eq!(dropped, expected);
                let fired = owners.iter_mut().flat_map(|owner| advance(owner, before, after)).collect();
                prop_assert_eq!(told(fired), told(advance(&mut plain, before, after)));
                before = after;
            }
        }
        let fired = owners.iter_mut().flat_map(|owner| advance(owner, before, Watermark::POS_INF)).collect();
        prop_assert_eq!(told(fired), told(advance(&mut plain, before, Watermark::POS_INF)));
    }
}

#[test]
fn rows_are_added_up_only_where_that_is_worth_it_and_changes_nothing() {
    let fixed = WindowFn::fixed(Span::from_micros(10), Span::ZERO).unwrap();
    let exact = spec(WindowingStrategy::with_defaults(fixed));
    let ordered = ordered_spec(WindowingStrategy::with_defaults(fixed));
    let sessions = spec(WindowingStrategy::with_defaults(WindowFn::sessions(Span::from_micros(9)).unwrap()));
    assert!(Combiner::new(&ordered, 2, Watermark::NEG_INF).is_none());
    assert!(Combiner::new(&sessions, 2, Watermark::NEG_INF).is_none());
    assert!(Combiner::new(&exact, 1, Watermark::NEG_INF).is_none());
    let mut combiner = Combiner::new(&exact, 2, Watermark::NEG_INF).unwrap();
    // Nobody knows when a time that is not held back is over.
    assert!(!combiner.begin(None));
    let [few, many] =
        [3, 100].map(|keys| batch(&(0..100).map(|at| (at, at % keys, 1)).collect::<Vec<_>>(), fixed));
    let passed = Watermark::at(Timestamp::from_micros(25));
    assert!(combiner.begin(Some(passed)));
    // The windows until 20 are over, that until 30 is not.
    assert_eq!(combiner.add(&few), (0..20).collect::<Vec<_>>());
    assert_eq!(combiner.finish().iter().map(|partials| partials.slices.len()).sum::<usize>(), 8 * 3);
    assert!(combiner.begin(Some(passed)));
    assert_eq!(combiner.add(&many), (0..20).collect::<Vec<_>>());
    assert_eq!(combiner.finish().iter().map(|partials| partials.slices.len()).sum::<usize>(), 80);
    let tries = (0..100).filter(|_| combiner.begin(Some(passed))).count();
    assert_eq!(tries, 69);
}

#[test]
fn many_layers_of_files_become_one_and_what_is_over_leaves_nothing_behind() {
    let spec = ordered_spec(WindowingStrategy::with_defaults(
        WindowFn::fixed(Span::from_micros(1_000_000), Span::ZERO).unwrap(),
    ));
    let directory = tempfile::tempdir().unwrap();
    let mut plain = Grouping::Slices(Slices::new(Arc::clone(&spec), None));
    let mut spilling = Spilling::new(&spec, directory.path(), 1);
    let files = |below: &str, kind: &str| {
        let entries = std::fs::read_dir(directory.path().join(below)).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|of| of == kind))
            .count()
    };
    let at = Watermark::at(Timestamp::from_micros(0));
    let mut most = 0;
    for round in 0..100 {
        let rows: Vec<Row> = (0..50).map(|row| (row, row * round % 70, row)).collect();
        let batch = ordered_batch(&rows, spec.strategy.window_fn);
        plain.add(&batch, &all(&batch), at).unwrap();
        assert_eq!(spilling.step(&batch, at, at), (0, Vec::new()));
        most = most.max(files("state", "run"));
    }
    assert!((20..40).contains(&most), "{most} files at a time");
    let none = ordered_batch(&[], spec.strategy.window_fn);
    let (_, rows) = spilling.step(&none, at, Watermark::POS_INF);
    assert_eq!(rows, in_order(&spec, advance(&mut plain, at, Watermark::POS_INF)));
    assert_eq!(rows.len(), 70);
    // Neither under their own names nor under those that the database gave them.
    assert_eq!((files("state", "run"), files("state/db", "sst")), (0, 0));
}

#[test]
fn keys_that_are_looked_at_in_each_step_stay_in_memory() {
    let function = WindowFn::sessions(Span::from_micros(1_000_000)).unwrap();
    let spec = ordered_spec(WindowingStrategy::with_defaults(function));
    let directory = tempfile::tempdir().unwrap();
    let mut spilling = Spilling::new(&spec, directory.path(), 20_000);
    let at = Watermark::at(Timestamp::from_micros(0));
    for round in 0..40 {
        let rows: Vec<Row> = (0..5).chain(5 + round * 20..25 + round * 20).map(|key| (1, key, 1)).collect();
        let batch = ordered_batch(&rows, function);
        spilling.step(&batch, at, at);
        let Grouping::General(general) = &spilling.threads[0] else { unreachable!("they are sessions") };
        let in_memory = |rows: std::ops::Range<usize>| {
            rows.filter(|row| general.is_in_memory(batch.keys.bytes(*row))).count()
        };
        assert_eq!(in_memory(0..5), 5, "round {round}");
        assert_eq!(general.files().is_empty(), round < 2, "round {round}");
    }
}

#[test]
fn of_sessions_on_disk_few_files_are_left_while_they_go_on_and_none_when_they_are_over() {
    let gap = 1000;
    let function = WindowFn::sessions(Span::from_micros(gap)).unwrap();
    let spec = ordered_spec(WindowingStrategy::with_defaults(function));
    let directory = tempfile::tempdir().unwrap();
    let mut plain = Grouping::General(Box::new(General::new(Arc::clone(&spec), None)));
    let mut spilling = Spilling::new(&spec, directory.path(), 4000);
    let files = || {
        let entries = std::fs::read_dir(directory.path().join("state")).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|of| of == "run"))
            .count()
    };
    let (mut before, mut most) = (Watermark::NEG_INF, 0);
    for round in 0..80 {
        // Keys that never come again, and some that do.
        let row = |row| (round * 100 + row, if row % 5 == 0 { row } else { round * 50 + row }, row);
        let batch = ordered_batch(&(0..50).map(row).collect::<Vec<_>>(), function);
        let after = Watermark::at(Timestamp::from_micros(round * 100 - 200));
        let dropped = plain.add(&batch, &all(&batch), before).unwrap().len();
        let expected = in_order(&spec, advance(&mut plain, before, after));
        assert_eq!(spilling.step(&batch, before, after), (dropped, expected));
        before = after;
        if round > 0 {
            most = most.max(files());
        }
    }
    assert!((2..12).contains(&most), "{most} files at a time");
    // Half of them come once more, after their sessions are over.
    let rows: Vec<Row> = (0..2000).map(|key| (80 * 100 + gap, key * 2, key)).collect();
    let batch = ordered_batch(&rows, function);
    for (batch, after) in [(ordered_batch(&[], function), 80 * 100 + gap), (batch, 80 * 100 + gap)] {
        let after = Watermark::at(Timestamp::from_micros(after));
        let dropped = plain.add(&batch, &all(&batch), before).unwrap().len();
        let expected = in_order(&spec, advance(&mut plain, before, after));
        assert_eq!(spilling.step(&batch, before, after), (dropped, expected));
        before = after;
    }
    let none = ordered_batch(&[], function);
    let expected = in_order(&spec, advance(&mut plain, before, Watermark::POS_INF));
    assert_eq!(expected.len(), 2000);
    assert_eq!(spilling.step(&none, before, Watermark::POS_INF), (0, expected));
    assert_eq!(files(), 0);
}

#[test]
fn a_growing_window_and_growing_sessions_are_written_by_what_changes() {
    let fixed = WindowFn::fixed(Span::from_micros(1_000_000), Span::ZERO).unwrap();
    let sessions = WindowFn::sessions(Span::from_micros(1000)).unwrap();
    for function in [fixed, sessions] {
        let spec = spec(WindowingStrategy::with_defaults(function));
        let mut grouping = Grouping::new(Arc::clone(&spec), None);
        let mut plain = Grouping::new(Arc::clone(&spec), None);
        let mut checkpoints = Checkpoints::new(1);
        let (begin, end) = (Watermark::at(Timestamp::from_micros(0)), Watermark::POS_INF);
        let mut written = Vec::new();
        for round in 0..40 {
            // First a thousand keys, then ten of them again in each round.
            let keys = if round == 0 { 0..1000 } else { round * 10..round * 10 + 10 };
            let rows: Vec<Row> = keys.map(|key| (500 + key / 1000, key % 1000, round)).collect();
            let batch = batch(&rows, function);
            for grouping in [&mut grouping, &mut plain] {
                grouping.add(&batch, &all(&batch), begin).unwrap();
                assert_eq!(advance(grouping, begin, begin).len(), 0);
            }
            written.push(checkpoints.take(std::iter::once(&mut grouping)));
            checkpoints.count();
        }
        let updates = &checkpoints.manifest().groups.values().next().unwrap().pieces;
        let updates = updates.iter().filter(|piece| piece.kind == PieceKind::Update).count();
        let whole = written[0];
        let later: u64 = written[1..].iter().sum();
        assert!(updates > 0 && later < whole * 2, "{updates} updates, {written:?}");
        // Nothing has changed: nothing is written.
        assert_eq!(checkpoints.take(std::iter::once(&mut grouping)), 0);
        // Taken up, it gives the same; and the next checkpoint is whole.
        let mut again = Grouping::new(Arc::clone(&spec), None);
        checkpoints.take_up(std::slice::from_mut(&mut again), None);
        assert!(checkpoints.take(std::iter::once(&mut again)) >= whole);
        let expected = told(advance(&mut plain, begin, end));
        assert_eq!(told(advance(&mut again, begin, end)), expected);
        assert_eq!((told(advance(&mut grouping, begin, end)), expected.len()), (expected, 1000));
    }
}
