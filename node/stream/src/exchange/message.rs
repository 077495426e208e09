//! A round's message as bytes.
//!
//! Owns: version 2 of the layout of messages, labels, batches on their way to a target.
//! Must not know: connections, who is at the other end.
//! Invariant: what is read is what was written. Of the rows for an assertion only the columns travel,
//! for only these are compared; a grouping's rows travel with all that their groups depend on.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::DataType;
use pharos_beam::plan::{Aggregation, NodeKind};
use pharos_window::{IntervalWindow, Span, SplitState, Timestamp, Watermark, Window, WindowFn};

use super::arrays::{put_array, read_array};
use crate::codec::{CodecError, Reader, put_bytes, put_len};
use crate::column::{Batch, Steps, Times, Windows, layout};
use crate::exec::ROUND_STEPS;
use crate::exec::channel::{Label, Message, Payload};
use crate::graph::Graph;
use crate::group::{KeyedBatch, Partials};
use crate::key::Keys;

/// What a grouping is sent: rows, or what was added up of them.
const ROWS: u8 = 0;
const PARTIALS: u8 = 1;

/// The types of what a target is sent: with the plan both sides have them, so they do not travel.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Keyed rows.
    Keyed {
        /// What is computed of them.
        aggregations: Arc<[Aggregation]>,
        /// The types of its arguments.
        values: Vec<DataType>,
        /// Those of the rows themselves, if late ones are wanted.
        originals: Option<Vec<DataType>>,
    },
    /// Rows of these columns.
    Rows(Vec<DataType>),
    /// Encoded rows.
    Bytes,
}

impl Shape {
    /// What the target `node` of `graph` is sent.
    #[must_use]
    pub(crate) fn of(graph: &Graph, node: pharos_beam::plan::NodeId) -> Self {
        let node = graph.node(node);
        let input = || graph.input_schema(node, 0).fields.iter().map(|field| layout(&field.ty)).collect();
        match &node.kind {
            NodeKind::Combine { aggregations, .. } => {
                let values = aggregations.iter().map(|aggregation| layout(&aggregation.value.ty)).collect();
                Self::Keyed {
                    aggregations: Arc::clone(&graph.groups[&node.id].aggregations),
                    values,
                    originals: node.error_output.map(|_| input()),
                }
            }
            NodeKind::Write(_) => Self::Bytes,
            _ => Self::Rows(input()),
        }
    }
}

/// Appends a message.
pub(crate) fn put_message(message: &Message, out: &mut Vec<u8>) {
    out.extend_from_slice(&message.round.to_le_bytes());
    out.push(u8::from(message.end));
    out.extend_from_slice(&message.barrier.map_or(0, |epoch| epoch + 1).to_le_bytes());
    for run in message.states.chunk_by(|one, next| one == next) {
        let (tag, at) = match run[0] {
            SplitState::Active(watermark) => (0, watermark.timestamp().micros()),
            SplitState::Idle => (1, 0),
            SplitState::Finished => (2, 0),
        };
        out.extend_from_slice(&[run.len() as u8, tag]);
        out.extend_from_slice(&i64::to_le_bytes(at));
    }
    put_len(out, message.parts.len());
    for (label, payload) in &message.parts {
        put_label(label, out);
        match payload {
            Payload::Keyed(batch) => {
                out.push(ROWS);
                put_keyed(batch, out);
            }
            Payload::Partials(partials) => {
                out.push(PARTIALS);
                partials.put(out);
            }
            Payload::Rows(batch) => {
                put_len(out, batch.rows);
                batch.columns.iter().for_each(|column| put_array(&**column, out));
            }
            Payload::Bytes(bytes, rows) => {
                put_len(out, *rows);
                put_bytes(out, bytes);
            }
        }
    }
}

/// Reads a message for a target that is sent what `shape` says.
///
/// # Errors
/// If the bytes are none.
pub(crate) fn read_message(shape: &Shape, bytes: &[u8]) -> Result<Message, CodecError> {
    let mut input = Reader::new(bytes);
    let (round, end) = (input.u64()?, input.bool()?);
    let barrier = input.u64()?.checked_sub(1);
    let mut states = [SplitState::Finished; ROUND_STEPS];
    let mut step = 0;
    while step < ROUND_STEPS {
        let (run, tag, at) = (usize::from(input.u8()?), input.u8()?, input.i64()?);
        if run == 0 || step + run > ROUND_STEPS {
            return Err(input.error("as many steps as a round has"));
        }
        states[step..step + run].fill(match tag {
            0 => SplitState::Active(Watermark::at(Timestamp::from_micros(at))),
            1 => SplitState::Idle,
            2 => SplitState::Finished,
            _ => return Err(input.error("a state of an origin")),
        });
        step += run;
    }
    let count = input.u32()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let label = read_label(&mut input)?;
        parts.push((label, read_payload(shape, &mut input)?));
    }
    if input.is_done() {
        Ok(Message { round, states, end, barrier, parts })
    } else {
        Err(input.error("the end"))
    }
}

fn put_label(label: &Label, out: &mut Vec<u8>) {
    let Label { origin, step, major, minor, branch, part } = *label;
    out.extend_from_slice(&origin.to_le_bytes());
    out.push(step);
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&minor.to_le_bytes());
    out.extend_from_slice(&branch.to_le_bytes());
    out.extend_from_slice(&part.to_le_bytes());
}

fn read_label(input: &mut Reader<'_>) -> Result<Label, CodecError> {
    Ok(Label {
        origin: input.u32()?,
        step: input.u8()?,
        major: input.i64()?,
        minor: input.i64()?,
        branch: input.u64()?,
        part: input.u32()?,
    })
}

fn read_payload(shape: &Shape, input: &mut Reader<'_>) -> Result<Payload, CodecError> {
    Ok(match shape {
        Shape::Keyed { aggregations, values, originals } => match input.u8()? {
            ROWS => Payload::Keyed(read_keyed(values, originals.as_deref(), input)?),
            PARTIALS => Payload::Partials(Partials::read(aggregations, input)?),
            _ => return Err(input.error("a kind of keyed rows")),
        },
        Shape::Rows(types) => {
            let rows = input.u32()? as usize;
            Payload::Rows(Batch::untimed(read_columns(types, rows, input)?, rows))
        }
        Shape::Bytes => {
            let rows = input.u32()? as usize;
            Payload::Bytes(input.bytes()?.to_vec(), rows)
        }
    })
}

fn read_columns(
    types: &[DataType],
    rows: usize,
    input: &mut Reader<'_>,
) -> Result<Vec<ArrayRef>, CodecError> {
    let column = |ty: &DataType| {
        let column = read_array(ty, input)?;
        if column.len() == rows { Ok(column) } else { Err(input.error("as many values as rows")) }
    };
    types.iter().map(column).collect()
}

fn put_keyed(batch: &KeyedBatch, out: &mut Vec<u8>) {
    batch.keys.put(out);
    batch.values.iter().for_each(|column| put_array(&**column, out));
    put_times(&batch.times, out);
    put_windows(&batch.windows, &batch.times, out);
    match &batch.steps {
        Steps::All(step) => out.extend_from_slice(&[0, *step]),
        Steps::Each(steps) => {
            out.push(1);
            out.extend_from_slice(steps);
        }
    }
    batch.originals.iter().flatten().for_each(|column| put_array(&**column, out));
}

fn read_keyed(
    values: &[DataType],
    originals: Option<&[DataType]>,
    input: &mut Reader<'_>,
) -> Result<KeyedBatch, CodecError> {
    let keys = Keys::read(input)?;
    let rows = keys.len();
    let values = read_columns(values, rows, input)?;
    let times = read_times(rows, input)?;
    let windows = read_windows(rows, &times, input)?;
    let steps = match input.u8()? {
        0 => Steps::All(input.u8()?),
        1 => Steps::Each(input.take(rows)?.into()),
        _ => return Err(input.error("a kind of steps")),
    };
    let originals = originals.map(|types| read_columns(types, rows, input)).transpose()?;
    Ok(KeyedBatch { keys, values, times, windows, steps, originals })
}

fn put_times(times: &Times, out: &mut Vec<u8>) {
    match times {
        Times::All(time) => {
            out.push(0);
            out.extend_from_slice(&time.micros().to_le_bytes());
        }
        Times::Each(times) => {
            out.push(1);
            out.extend_from_slice(times.inner().as_slice());
        }
    }
}

fn read_micros(rows: usize, input: &mut Reader<'_>) -> Result<ScalarBuffer<i64>, CodecError> {
    let bytes = rows.checked_mul(8).ok_or_else(|| input.error("a length that fits"))?;
    Ok(ScalarBuffer::new(Buffer::from(input.take(bytes)?), 0, rows))
}

fn read_times(rows: usize, input: &mut Reader<'_>) -> Result<Times, CodecError> {
    match input.u8()? {
        0 => Ok(Times::All(Timestamp::from_micros(input.i64()?))),
        1 => Ok(Times::Each(read_micros(rows, input)?)),
        _ => Err(input.error("a kind of times")),
    }
}

fn put_windows(windows: &Windows, times: &Times, out: &mut Vec<u8>) {
    match windows {
        Windows::All(Window::Global) => out.push(0),
        Windows::All(Window::Interval(window)) => {
            out.push(1);
            out.extend_from_slice(&window.start.micros().to_le_bytes());
            out.extend_from_slice(&window.end.micros().to_le_bytes());
        }
        // Nearly always the windows are those of the event times: these need not travel twice.
        Windows::Assigned { function, at } if at == times => {
            out.push(2);
            put_function(*function, out);
        }
        Windows::Assigned { function, at } => {
            out.push(3);
            put_function(*function, out);
            put_times(at, out);
        }
        Windows::Each { starts, ends } => {
            out.push(4);
            out.extend_from_slice(starts.inner().as_slice());
            out.extend_from_slice(ends.inner().as_slice());
        }
    }
}

fn read_windows(rows: usize, times: &Times, input: &mut Reader<'_>) -> Result<Windows, CodecError> {
    Ok(match input.u8()? {
        0 => Windows::All(Window::Global),
        1 => {
            let (start, end) = (Timestamp::from_micros(input.i64()?), Timestamp::from_micros(input.i64()?));
            if start > end {
                return Err(input.error("a window that ends no earlier than it starts"));
            }
            Windows::All(Window::Interval(IntervalWindow::new(start, end)))
        }
        2 => Windows::Assigned { function: read_function(input)?, at: times.clone() },
        3 => Windows::Assigned { function: read_function(input)?, at: read_times(rows, input)? },
        4 => {
            let (starts, ends) = (read_micros(rows, input)?, read_micros(rows, input)?);
            if starts.iter().zip(ends.iter()).any(|(start, end)| start > end) {
                return Err(input.error("windows that end no earlier than they start"));
            }
            Windows::Each { starts, ends }
        }
        _ => return Err(input.error("a kind of windows")),
    })
}

fn put_function(function: WindowFn, out: &mut Vec<u8>) {
    let (tag, spans) = match function {
        WindowFn::Global => (0, [Span::ZERO; 3]),
        WindowFn::Fixed { size, offset } => (1, [size, offset, Span::ZERO]),
        WindowFn::Sliding { size, period, offset } => (2, [size, period, offset]),
        WindowFn::Sessions { gap } => (3, [gap, Span::ZERO, Span::ZERO]),
    };
    out.push(tag);
    spans.iter().for_each(|span| out.extend_from_slice(&span.micros().to_le_bytes()));
}

fn read_function(input: &mut Reader<'_>) -> Result<WindowFn, CodecError> {
    let tag = input.u8()?;
    let [first, second, third] = [input.i64()?, input.i64()?, input.i64()?].map(Span::from_micros);
    match tag {
        0 => Ok(WindowFn::Global),
        1 => WindowFn::fixed(first, second).map_err(|_| input.error("a window function")),
        2 => WindowFn::sliding(first, second, third).map_err(|_| input.error("a window function")),
        3 => WindowFn::sessions(first).map_err(|_| input.error("a window function")),
        _ => Err(input.error("a window function")),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, StringArray};

    use pharos_beam::expr::ir::{Expr, ExprKind};
    use pharos_beam::plan::AggregateFunction;
    use pharos_beam::schema::Type;

    use super::*;
    use crate::aggregate::Accumulators;
    use crate::key::KeyHash;

    fn keyed(windows: Windows, times: Times) -> KeyedBatch {
        let mut keys = Keys::default();
        [&b"one"[..], b"", b"three"].iter().for_each(|key| keys.push(key, KeyHash::of(key)));
        KeyedBatch {
            keys,
            values: vec![Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN)]))],
            times,
            windows,
            steps: Steps::Each(Arc::from([0, 3, 15])),
            originals: Some(vec![
                Arc::new(StringArray::from(vec![Some("a"), Some(""), None])),
                Arc::new(Int64Array::from(vec![1, 2, 3])),
            ]),
        }
    }

    fn partials(shape: &Shape) -> Partials {
        let Shape::Keyed { aggregations, .. } = shape else { unreachable!("a grouping is sent sums") };
        let keys = keyed(Windows::All(Window::Global), Times::All(Timestamp::MIN)).keys;
        let mut partials =
            Partials { slices: vec![i64::MIN, -6, 0], keys, accumulators: Accumulators::new(aggregations) };
        let values: [ArrayRef; 2] = [
            Arc::new(StringArray::from(vec![Some("more"), Some("most"), None])),
            Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(3)])),
        ];
        (0..3).for_each(|_| {
            partials.accumulators.push();
        });
        partials.accumulators.update(&[0, 0, 2], &[0, 1, 2], &values);
        partials
    }

    fn messages() -> Vec<(Shape, Message)> {
        let each = Times::Each(vec![5, -6, i64::MAX].into());
        let window = IntervalWindow::new(Timestamp::from_micros(1), Timestamp::from_micros(9));
        let sliding = WindowFn::sliding(Span::from_micros(10), Span::from_micros(3), Span::ZERO).unwrap();
        let aggregation = |ty: Type, function, output| Aggregation {
            name: "a".to_owned(),
            function,
            value: Expr { ty, kind: ExprKind::Field(0) },
            output,
        };
        let shape = Shape::Keyed {
            aggregations: Arc::from([
                aggregation(Type::String, AggregateFunction::Max, Type::String.nullable()),
                aggregation(Type::Int64, AggregateFunction::Mean, Type::Float64.nullable()),
            ]),
            values: vec![DataType::Float64],
            originals: Some(vec![DataType::Utf8, DataType::Int64]),
        };
        let mut states = [SplitState::Active(Watermark::NEG_INF); ROUND_STEPS];
        states[3..9].fill(SplitState::Idle);
        states[9..].fill(SplitState::Finished);
        let label = Label { origin: 7, step: 3, major: -1, minor: i64::MIN, branch: u64::MAX, part: 2 };
        let message = |payload| Message {
            round: u64::MAX - 1,
            states,
            end: true,
            barrier: Some(0),
            parts: vec![(label, payload)],
        };
        let mut all: Vec<(Shape, Message)> = [
            Windows::All(Window::Global),
            Windows::All(Window::Interval(window)),
            Windows::Assigned { function: sliding, at: each.clone() },
            Windows::Assigned { function: WindowFn::Global, at: Times::All(Timestamp::MIN) },
            Windows::Each { starts: vec![1, 2, 3].into(), ends: vec![4, 5, 6].into() },
        ]
        .into_iter()
        .map(|windows| (shape.clone(), message(Payload::Keyed(keyed(windows, each.clone())))))
        .collect();
        all.push((shape.clone(), message(Payload::Partials(partials(&shape)))));
        let rows = Batch::untimed(vec![Arc::new(Int64Array::from(vec![1, 2]))], 2);
        all.push((Shape::Rows(vec![DataType::Int64]), message(Payload::Rows(rows))));
        all.push((Shape::Bytes, message(Payload::Bytes(b"abc".to_vec(), 9))));
        all.push((Shape::Bytes, Message { round: 0, states, end: false, barrier: None, parts: Vec::new() }));
        all
    }

    #[test]
    fn a_message_comes_back_and_one_that_is_cut_or_changed_is_no_panic() {
        for (shape, message) in messages() {
            let mut bytes = Vec::new();
            put_message(&message, &mut bytes);
            let back = read_message(&shape, &bytes).unwrap();
            assert_eq!(format!("{back:?}"), format!("{message:?}"));
            for cut in 0..bytes.len() {
                assert!(read_message(&shape, &bytes[..cut]).is_err(), "cut at {cut}");
            }
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    bytes[at] ^= 1 << bit;
                    let _ = read_message(&shape, &bytes);
                    bytes[at] ^= 1 << bit;
                }
            }
        }
    }
}
