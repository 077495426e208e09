//! The exchange by itself, for a benchmark: no file, no plan, no coordinator.
//!
//! Owns: rows that are the same in every run, and the two threads.
//! Must not know: clocks.
//! Invariant: rows take the way that they take between two workers, or two threads: channel, frames and connection as in
//! the engine, into the tables of a grouping.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::DataType;
use pharos_beam::expr::ir::{Expr, ExprKind};
use pharos_beam::plan::{AggregateFunction, Aggregation, NodeId};
use pharos_beam::schema::Type;
use pharos_window::{Span, SplitState, Timestamp, Watermark, WindowFn, WindowingStrategy};

use crate::column::{Steps, Times, Windows};
use crate::exchange::link::{Handler, Link, Wire};
use crate::exchange::message::Shape;
use crate::exec::ROUND_STEPS;
use crate::exec::channel::{Channel, Inbox, Label, Message, Payload};
use crate::group::{Fired, GroupSpec, Grouping, KeyedBatch};
use crate::key::Keys;

const KEYS: i64 = 1_000;
/// Event time between two rows, in microseconds.
const PACE: i64 = 100;

/// Which way rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From one thread to another.
    Threads,
    /// Over a connection of this machine to itself.
    Workers,
}

/// Wakes one thread that waits for another.
#[derive(Default)]
struct Bell(Mutex<bool>, Condvar);

impl Bell {
    fn ring(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let rung = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *self.1.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// One end of the channel, and who waits there.
struct End {
    channel: Arc<Channel>,
    bell: Arc<Bell>,
}

impl End {
    fn on(&self, act: impl FnOnce(&Channel)) -> bool {
        act(&self.channel);
        self.bell.ring();
        true
    }
}

impl Handler for End {
    fn data(&self, _: u32, frame: Vec<u8>) -> bool {
        self.on(|channel| channel.arrive(frame))
    }
    fn credit(&self, _: u32, bytes: usize, rounds: usize) -> bool {
        self.on(|channel| channel.credit(bytes, rounds))
    }
    fn control(&self, _: &[u8]) {}
    fn lost(&self, _: &str) {}
}

/// The two ends of a channel, and the connection if there is one.
struct Path {
    sender: End,
    receiver: End,
    links: Vec<Arc<Link>>,
}

fn path(way: Way, spec: &GroupSpec) -> std::io::Result<Path> {
    let [here, there] = [(); 2].map(|()| Arc::new(Bell::default()));
    if way == Way::Threads {
        let channel = Arc::new(Channel::default());
        let end = |bell| End { channel: Arc::clone(&channel), bell };
        return Ok(Path { sender: end(here), receiver: end(there), links: Vec::new() });
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let out = Link::new(TcpStream::connect(listener.local_addr()?)?)?;
    let incoming = Link::new(listener.accept()?.0)?;
    let shape = Shape::Keyed {
        aggregations: Arc::clone(&spec.aggregations),
        values: vec![DataType::Int64; spec.aggregations.len()],
        originals: None,
    };
    let sender = Arc::new(Channel::out(Arc::clone(&out) as Arc<dyn Wire>, 0));
    let receiver = Arc::new(Channel::incoming(Arc::clone(&incoming) as Arc<dyn Wire>, 0, Arc::new(shape)));
    let end = |channel: &Arc<Channel>, bell: &Arc<Bell>| End {
        channel: Arc::clone(channel),
        bell: Arc::clone(bell),
    };
    out.start(Arc::new(end(&sender, &here)))?;
    incoming.start(Arc::new(end(&receiver, &there)))?;
    Ok(Path { sender: end(&sender, &here), receiver: end(&receiver, &there), links: vec![out, incoming] })
}

fn spec() -> Arc<GroupSpec> {
    let value = Expr { ty: Type::Int64, kind: ExprKind::Field(0) };
    let aggregation =
        |function| Aggregation { name: "a".to_owned(), function, value: value.clone(), output: Type::Int64 };
    let function = WindowFn::fixed(Span::from_micros(1_000_000), Span::ZERO).expect("a window has a length");
    Arc::new(GroupSpec {
        strategy: WindowingStrategy::with_defaults(function),
        keys: Arc::from([Type::Int64]),
        aggregations: Arc::from([aggregation(AggregateFunction::Sum), aggregation(AggregateFunction::Count)]),
        explicit_windows: false,
    })
}

/// Rows that come one after the other, from the one with the number `first` on.
fn batch(spec: &GroupSpec, first: i64, rows: usize) -> KeyedBatch {
    let numbers = first..first + rows as i64;
    let keys = Int64Array::from_iter_values(numbers.clone().map(|number| number.wrapping_mul(7_919) % KEYS));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone()));
    let times = Times::Each(numbers.map(|number| number * PACE).collect());
    KeyedBatch {
        keys: Keys::of(&[&Type::Int64], &[&keys], rows),
        values: vec![Arc::clone(&values), values],
        windows: Windows::Assigned { function: spec.strategy.window_fn, at: times.clone() },
        times,
        steps: Steps::All(0),
        originals: None,
    }
}

/// Sends `rows` rows in batches of `size`, one a round, and groups them at the other end by a thousand keys and windows of
/// ten thousand rows. Returns how many rows its results count.
///
/// # Errors
/// If this machine cannot connect to itself.
///
/// # Panics
/// If a thread does.
pub fn exchange(way: Way, rows: usize, size: usize) -> std::io::Result<i64> {
    let spec = spec();
    let Path { sender, receiver, links } = path(way, &spec)?;
    let (waits, heard) = (Arc::clone(&sender.bell), Arc::clone(&receiver.bell));
    let rounds = rows.div_ceil(size);
    let to_send = Arc::clone(&spec);
    let sends = std::thread::spawn(move || {
        for round in 0..rounds {
            while !sender.channel.has_room() {
                sender.bell.wait();
            }
            let first = (round * size) as i64;
            let batch = batch(&to_send, first, size);
            let reached = Watermark::at(Timestamp::from_micros(first * PACE));
            let states = [SplitState::Active(reached); ROUND_STEPS];
            let parts = vec![(Label::new(NodeId(0), 0, 0), Payload::Keyed(batch))];
            let end = round + 1 == rounds;
            sender.channel.send(Message { round: round as u64, states, end, barrier: None, parts });
            // Over a connection the other end hears of it by itself.
            heard.ring();
        }
    });
    let counted = receive(spec, &receiver, &waits);
    sends.join().expect("the sender does not panic");
    links.iter().for_each(|link| link.close());
    Ok(counted)
}

fn receive(spec: Arc<GroupSpec>, receiver: &End, sender: &Bell) -> i64 {
    let mut grouping = Grouping::new(spec, None);
    let mut inbox = Inbox::new(vec![Arc::clone(&receiver.channel)], Watermark::NEG_INF);
    let mut counted = 0;
    loop {
        let Some(gathered) = inbox.gather().expect("the messages are whole") else {
            receiver.bell.wait();
            continue;
        };
        sender.ring();
        let (before, reached) = (gathered.watermarks[0].0, gathered.reached());
        for (_, payload) in &gathered.parts {
            let Payload::Keyed(batch) = payload else { continue };
            grouping.add_ahead(batch, reached).expect("all stays in memory");
        }
        let after = if gathered.end { Watermark::POS_INF } else { reached };
        let mut out = |fired: Fired| {
            let counts = fired.batch.columns[2].as_primitive::<Int64Type>().values();
            counted += counts.iter().sum::<i64>();
            Ok(())
        };
        grouping.advance(before, after, &mut out).expect("sums of few numbers fit");
        if gathered.end {
            return counted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_arrive_on_either_way() {
        for way in [Way::Threads, Way::Workers] {
            assert_eq!(exchange(way, 30_000, 64).unwrap(), 30_016, "{way:?}");
        }
    }
}
