//! The steps between an origin and its targets.
//!
//! Owns: the work of every step without state, dead letters, and the outbox of a round.
//! Must not know: threads, queues, state.
//! Invariant: a step's output is a function of its input batch; a row that fails goes to the dead
//! letters of the step, or ends the run if it has none.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray, UInt32Array};
use arrow_select::take::take;
use pharos_beam::expr::error::RowError;
use pharos_beam::expr::ir::Expr;
use pharos_beam::plan::{Aggregation, Node, NodeId, NodeKind, OutputRef};
use pharos_beam::schema::{Schema, Type, Value};
use pharos_window::{Window, WindowFn};

use super::channel::{Label, Payload};
use super::pairs::Pairs;
use crate::column::{Batch, Windows, build, rows_of, take_columns, value_at};
use crate::error::StreamError;
use crate::event::{Event, Events};
use crate::graph::{Graph, window_fn};
use crate::group::KeyedBatch;
use crate::io::Encode;
use crate::json;
use crate::kernel::{RowErrors, evaluate, join_errors};
use crate::key::Keys;
use crate::meter::FlowMeter;

/// What a round has for each target.
pub(crate) type Outbox = BTreeMap<NodeId, Vec<(Label, Payload)>>;

/// The steps of a plan, shared by all threads.
pub(crate) struct Steps {
    /// The plan.
    pub graph: Graph,
    /// The encoders of the writes.
    pub encoders: BTreeMap<NodeId, Arc<dyn Encode>>,
    /// Where events go.
    pub events: Events,
    /// The rows of each node.
    flows: Vec<Arc<FlowMeter>>,
}

impl Steps {
    /// The steps of a plan.
    #[must_use]
    pub(crate) fn new(graph: Graph, encoders: BTreeMap<NodeId, Arc<dyn Encode>>, events: Events) -> Self {
        let flows = graph.nodes.iter().map(|node| events.meters().flow(&node.name)).collect();
        Self { graph, encoders, events, flows }
    }

    /// The counters of a node.
    #[must_use]
    pub(crate) fn flow(&self, node: NodeId) -> &FlowMeter {
        &self.flows[node.0 as usize]
    }

    /// Carries a batch from an output to the targets it reaches.
    ///
    /// # Errors
    /// If a row fails in a step without dead letters.
    pub(crate) fn carry(
        &self,
        from: OutputRef,
        label: Label,
        batch: Batch,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        if batch.rows == 0 {
            return Ok(());
        }
        self.flow(from.node).gives(batch.rows);
        let label = label.along(self.graph.branch(from));
        for consumer in self.graph.consumers(from) {
            let node = self.graph.node(consumer.node);
            self.step(node, consumer.input, label.along(consumer.branch), &batch, outbox)?;
        }
        Ok(())
    }

    fn step(
        &self,
        node: &Node,
        input: usize,
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        self.flow(node.id).takes(batch.rows);
        let done = match &node.kind {
            NodeKind::Map { fields } => self.project(node, input, fields, label, batch, outbox)?,
            NodeKind::Flatten { projections } => {
                self.project(node, input, &projections[input], label, batch, outbox)?
            }
            NodeKind::Filter { keep } => self.filter(node, keep, label, batch, outbox)?,
            NodeKind::Explode { fields, cross_product } => {
                self.explode(node, fields, *cross_product, label, batch, outbox)?
            }
            NodeKind::AssignTimestamps { timestamp } => {
                let (values, batch) = self.values(node, input, &[timestamp], label, batch, outbox)?;
                let times = values[0].as_primitive::<arrow_array::types::Int64Type>().values().clone();
                Batch { times: crate::column::Times::Each(times), ..batch }
            }
            NodeKind::WindowInto => {
                let function = window_fn(node.outputs[0].windowing.function);
                let windows = match function {
                    WindowFn::Global => Windows::All(Window::Global),
                    function => Windows::Assigned { function, at: batch.times.clone() },
                };
                Batch { windows, ..batch.clone() }
            }
            NodeKind::Log { level, prefix } => {
                self.log(node, *level, prefix, batch);
                batch.clone()
            }
            NodeKind::Combine { keys, aggregations } => {
                return self.key(node, keys, aggregations, label, batch, outbox);
            }
            NodeKind::Write(_) => {
                let encoder = self.encoders.get(&node.id).expect("every write has an encoder");
                let bytes = encoder
                    .encode(batch)
                    .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
                outbox.entry(node.id).or_default().push((label, Payload::Bytes(bytes, batch.rows)));
                return Ok(());
            }
            NodeKind::AssertEqual { .. } => {
                outbox.entry(node.id).or_default().push((label, Payload::Rows(batch.clone())));
                return Ok(());
            }
            NodeKind::Join { keys, outer, fields } => {
                let from = OutputRef { node: node.id, output: 0 };
                let mut pairs = Pairs::new(batch, *keys, *outer);
                while let Some(rows) = pairs.next(fields) {
                    self.carry(from, label, rows, outbox)?;
                }
                return Ok(());
            }
            NodeKind::Read(_) | NodeKind::Create { .. } => unreachable!("an origin has no input"),
        };
        self.carry(OutputRef { node: node.id, output: 0 }, label, done, outbox)
    }

    fn project(
        &self,
        node: &Node,
        input: usize,
        fields: &[Expr],
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<Batch, StreamError> {
        let (columns, batch) =
            self.values(node, input, &fields.iter().collect::<Vec<_>>(), label, batch, outbox)?;
        Ok(batch.with_columns(columns))
    }

    /// The values of `exprs` for the rows where all of them succeed, and those rows.
    fn values(
        &self,
        node: &Node,
        input: usize,
        exprs: &[&Expr],
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<(Vec<ArrayRef>, Batch), StreamError> {
        let mut errors = RowErrors::new();
        let mut columns = Vec::with_capacity(exprs.len());
        for expr in exprs {
            let evaluated = evaluate(expr, &batch.columns, batch.rows);
            errors = join_errors(errors, &evaluated.errors);
            columns.push(evaluated.column);
        }
        if errors.is_empty() {
            return Ok((columns, batch.clone()));
        }
        let good = self.divert(node, input, &errors, label, batch, outbox)?;
        Ok((take_columns(&columns, &good), batch.take(&good)))
    }

    /// Sends the rows that failed to the dead letters and returns the others.
    fn divert(
        &self,
        node: &Node,
        input: usize,
        errors: &RowErrors,
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<Vec<u32>, StreamError> {
        let schema = self.graph.input_schema(node, input);
        let Some(output) = node.error_output else {
            let (row, error) = &errors[0];
            return Err(StreamError::Row {
                transform: node.name.clone(),
                message: error.to_string(),
                row: json::row(schema, &batch.columns, *row as usize),
            });
        };
        let rows: Vec<u32> = errors.iter().map(|(row, _)| *row).collect();
        let messages = errors.iter().map(|(_, error)| error.to_string()).collect();
        let letters = dead_letters(schema, &batch.take(&rows), messages);
        self.events.send(Event::DeadLetters { transform: node.name.clone(), rows: rows.len() as u64 });
        self.carry(OutputRef { node: node.id, output }, label, letters, outbox)?;
        Ok((0..batch.rows as u32).filter(|row| rows.binary_search(row).is_err()).collect())
    }

    fn filter(
        &self,
        node: &Node,
        keep: &Expr,
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<Batch, StreamError> {
        let (values, batch) = self.values(node, 0, &[keep], label, batch, outbox)?;
        let keep = values[0].as_boolean();
        if keep.true_count() == batch.rows {
            return Ok(batch);
        }
        let rows: Vec<u32> = (0..batch.rows)
            .filter(|row| keep.is_valid(*row) && keep.value(*row))
            .map(|row| row as u32)
            .collect();
        Ok(batch.take(&rows))
    }

    fn explode(
        &self,
        node: &Node,
        fields: &[usize],
        cross_product: bool,
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<Batch, StreamError> {
        let mut errors = RowErrors::new();
        for field in fields {
            let nulls = (0..batch.rows).filter(|row| batch.columns[*field].is_null(*row));
            let failed: RowErrors = nulls
                .map(|row| (row as u32, RowError::new("TypeError", "'NoneType' object is not iterable")))
                .collect();
            errors = join_errors(errors, &failed);
        }
        let batch = if errors.is_empty() {
            batch.clone()
        } else {
            batch.take(&self.divert(node, 0, &errors, label, batch, outbox)?)
        };
        let mut parents = Vec::new();
        let mut picks: Vec<Vec<Option<u32>>> = vec![Vec::new(); fields.len()];
        for row in 0..batch.rows {
            let bounds: Vec<(i32, usize)> = fields
                .iter()
                .map(|field| {
                    let lists = batch.columns[*field].as_list::<i32>();
                    (lists.value_offsets()[row], lists.value_length(row) as usize)
                })
                .collect();
            for items in combinations(&bounds.iter().map(|(_, len)| *len).collect::<Vec<_>>(), cross_product)
            {
                parents.push(row as u32);
                for ((picks, item), (start, _)) in picks.iter_mut().zip(items).zip(&bounds) {
                    picks.push(item.map(|item| *start as u32 + item as u32));
                }
            }
        }
        let mut exploded = batch.take(&parents);
        for (field, picks) in fields.iter().zip(picks) {
            let items = batch.columns[*field].as_list::<i32>().values();
            exploded.columns[*field] =
                take(items, &UInt32Array::from(picks), None).expect("the items lie within the lists");
        }
        Ok(exploded)
    }

    fn key(
        &self,
        node: &Node,
        keys: &[usize],
        aggregations: &[Aggregation],
        label: Label,
        batch: &Batch,
        outbox: &mut Outbox,
    ) -> Result<(), StreamError> {
        let exprs: Vec<&Expr> = aggregations.iter().map(|aggregation| &aggregation.value).collect();
        let (values, batch) = self.values(node, 0, &exprs, label, batch, outbox)?;
        let schema = self.graph.input_schema(node, 0);
        let types: Vec<&Type> = keys.iter().map(|key| &schema.fields[*key].ty).collect();
        let columns: Vec<&dyn Array> = keys.iter().map(|key| &*batch.columns[*key]).collect();
        let keyed = KeyedBatch {
            keys: Keys::of(&types, &columns, batch.rows),
            values,
            times: batch.times.clone(),
            windows: batch.windows.clone(),
            steps: batch.steps.clone(),
            originals: node.error_output.map(|_| batch.columns.clone()),
        };
        outbox.entry(node.id).or_default().push((label, Payload::Keyed(keyed)));
        Ok(())
    }

    fn log(&self, node: &Node, level: pharos_beam::plan::LogLevel, prefix: &str, batch: &Batch) {
        let schema = &node.outputs[0].schema;
        for row in 0..batch.rows {
            let text = format!("{prefix}{}", json::row(schema, &batch.columns, row));
            self.events.send(Event::Log { transform: node.name.clone(), level, text });
        }
    }
}

/// Which items of lists of the given lengths stand together in a row: all combinations, the first
/// list varying slowest, or item by item with nothing where a list is over.
fn combinations(lengths: &[usize], cross_product: bool) -> Vec<Vec<Option<usize>>> {
    if !cross_product {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        return (0..longest)
            .map(|at| lengths.iter().map(|len| (at < *len).then_some(at)).collect())
            .collect();
    }
    lengths.iter().fold(vec![Vec::new()], |rows: Vec<Vec<Option<usize>>>, len| {
        rows.iter()
            .flat_map(|row| (0..*len).map(move |at| row.iter().copied().chain([Some(at)]).collect()))
            .collect()
    })
}

/// The dead letters of rows of `schema`.
#[must_use]
pub(crate) fn dead_letters(schema: &Schema, rows: &Batch, messages: Vec<String>) -> Batch {
    let element = rows_of(schema, rows.columns.clone(), rows.rows, None);
    letters(element, rows, messages)
}

/// The dead letters of records that are no rows.
#[must_use]
pub(crate) fn letters(element: ArrayRef, rows: &Batch, messages: Vec<String>) -> Batch {
    let stacks = StringArray::from(vec![""; rows.rows]);
    rows.with_columns(vec![element, Arc::new(StringArray::from(messages)), Arc::new(stacks)])
}

/// The values of a batch, row by row.
#[must_use]
pub(crate) fn values_of(schema: &Schema, batch: &Batch) -> Vec<Vec<Value>> {
    let cell = |row: usize| {
        move |(field, column): (&pharos_beam::schema::Field, &ArrayRef)| value_at(&field.ty, column, row)
    };
    (0..batch.rows).map(|row| schema.fields.iter().zip(&batch.columns).map(cell(row)).collect()).collect()
}

/// The batch of literal rows.
#[must_use]
pub(crate) fn batch_of(schema: &Schema, rows: &[Vec<Value>]) -> Vec<ArrayRef> {
    let column = |(position, field): (usize, &pharos_beam::schema::Field)| {
        let cells: Vec<&Value> = rows.iter().map(|row| &row[position]).collect();
        build(&field.ty, &cells)
    };
    schema.fields.iter().enumerate().map(column).collect()
}
