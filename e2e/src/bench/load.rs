//! Closed loops: so many connections, each with so many requests outstanding.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::client::{Client, Protocol};
use super::servers::{Heap, Servers, Side};
use super::table::{Figures, Pick, Table};
use super::{Effort, MEMBERS, median};
use crate::local::Place;
use crate::wire::Session;

/// Bytes of a value.
const VALUE: usize = 128;
const WARM_UP: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
const HEAP: Heap = Heap { mebibytes: 512 };

const SHAPES: [Shape; 2] =
    [Shape { connections: 1, outstanding: 1 }, Shape { connections: 16, outstanding: 16 }];

#[derive(Clone, Copy)]
struct Shape {
    connections: usize,
    outstanding: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.outstanding)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// Sets the value of the connection's own entry.
    Write,
    /// Reads the same.
    Read,
}

/// One load on one side.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// All servers' time per request.
    cpu_us: f64,
    /// Requests for each time that a server made its log durable.
    per_sync: f64,
}

/// What of a sample is shown, and when.
const SHOWN: [(&str, bool, Pick<Sample>); 5] = [
    ("a second", true, |sample| sample.per_second),
    ("p50, µs", true, |sample| sample.p50_us),
    ("p99, µs", true, |sample| sample.p99_us),
    ("CPU of all servers, µs each", true, |sample| sample.cpu_us),
    ("for each fsync of a server", false, |sample| sample.per_sync),
];

/// Writes and reads, in turn on all sides, which are up together and idle while another is measured.
pub(super) fn measure(effort: &Effort, table: &mut Table) -> anyhow::Result<()> {
    let start = |side: &Side| side.start(vec![Place::loopback(); MEMBERS], HEAP);
    let sides: Vec<_> = effort.sides.iter().map(start).collect::<anyhow::Result<_>>()?;
    table.part(&format!(
        "{MEMBERS} servers each on one disk, values of {VALUE} bytes, {:?} a load, median of {}. CxO: C connections, O \
         requests outstanding on each. Reads are answered by the server that is asked (etcd: serializable)",
        effort.load, effort.rounds
    ))?;
    for operation in [Operation::Write, Operation::Read] {
        for shape in SHAPES {
            let mut samples = vec![Vec::new(); sides.len()];
            for _ in 0..effort.rounds {
                for (samples, servers) in samples.iter_mut().zip(&sides) {
                    samples.push(run(servers.as_ref(), shape, operation, effort.load)?);
                }
            }
            let name = if operation == Operation::Write { "writes" } else { "reads" };
            for (what, of_reads, pick) in SHOWN {
                if of_reads || operation == Operation::Write {
                    let of = |samples: &Vec<Sample>| Some(median(samples.iter().map(pick).collect()));
                    table.row(&format!("{name} {shape}, {what}"), Figures(samples.iter().map(of).collect()));
                }
            }
        }
    }
    Ok(())
}

/// Connections go to the servers in turn. What is answered within `length` after the warm-up counts.
fn run(
    servers: &dyn Servers,
    shape: Shape,
    operation: Operation,
    length: Duration,
) -> anyhow::Result<Sample> {
    let (addresses, protocol) = (servers.addresses()?, servers.protocol());
    let ready = Barrier::new(shape.connections + 1);
    std::thread::scope(|scope| {
        let ready = &ready;
        let connection = |index: usize| {
            let address = addresses[index % addresses.len()];
            scope.spawn(move || {
                let client = prepare(protocol, address, index);
                ready.wait();
                drive(client?, index, shape.outstanding, operation, length)
            })
        };
        let loops: Vec<_> = (0..shape.connections).map(connection).collect();
        ready.wait();
        std::thread::sleep(WARM_UP);
        let before = (servers.cpu_time()?, servers.all_syncs()?);
        std::thread::sleep(length);
        let (cpu, syncs) = (servers.cpu_time()? - before.0, servers.all_syncs()? - before.1);
        let mut latencies = Vec::new();
        for each in loops {
            latencies.extend(each.join().expect("a load does not panic")?);
        }
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        let at = |share: f64| latencies.get((count * share) as usize).copied().unwrap_or_default();
        Ok(Sample {
            per_second: count / length.as_secs_f64(),
            p50_us: f64::from(at(0.5)),
            p99_us: f64::from(at(0.99)),
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
            per_sync: count * servers.size() as f64 / syncs as f64,
        })
    })
}

fn path(index: usize) -> String {
    format!("/load-{index}")
}

fn prepare(protocol: Protocol, address: SocketAddr, index: usize) -> anyhow::Result<Client> {
    let mut client = Client::connect(protocol, address, &Session::default(), PATIENCE)?;
    client.create(&path(index), &[b'.'; VALUE])?;
    Ok(client)
}

/// Latencies in µs of what was answered in the time that counts.
fn drive(
    mut client: Client,
    index: usize,
    outstanding: usize,
    operation: Operation,
    length: Duration,
) -> anyhow::Result<Vec<u32>> {
    let (path, data) = (path(index), [b'.'; VALUE]);
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    let mut sent = VecDeque::with_capacity(outstanding);
    let mut latencies = Vec::new();
    loop {
        let mut now = Instant::now();
        while sent.len() < outstanding && now < end {
            sent.push_back(now);
            match operation {
                Operation::Write => client.ask_write(&path, &data)?,
                Operation::Read => client.ask_read(&path)?,
            }
            now = Instant::now();
        }
        let Some(since) = sent.pop_front() else { break };
        let bytes = client.answered().context("a request of the load")?;
        ensure!(operation == Operation::Write || bytes >= VALUE, "a read is answered without the value");
        let now = Instant::now();
        if now >= begin && now < end {
            latencies.push(u32::try_from((now - since).as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok(latencies)
}
