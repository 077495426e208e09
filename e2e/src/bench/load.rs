//! Closed loops: so many connections, each with so many requests outstanding.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context;
use pharos_jute::{AclRef, Create, PathWatch, Request, SetData};

use super::servers::Servers;
use crate::wire::Wire;

/// Bytes of a value.
pub(super) const VALUE: usize = 128;
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) connections: usize,
    pub(super) outstanding: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.outstanding)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// `setData` of the connection's own znode.
    Write,
    /// `getData` of the same.
    Read,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// One load on one side.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// All servers' time per request.
    pub(super) cpu_us: f64,
}

/// Connections go to the members in turn. What is answered within `length` after the warm-up counts.
pub(super) fn run(
    servers: &impl Servers,
    shape: Shape,
    operation: Operation,
    length: Duration,
) -> anyhow::Result<Sample> {
    let addresses = servers.addresses()?;
    let ready = Barrier::new(shape.connections + 1);
    std::thread::scope(|scope| {
        let ready = &ready;
        let connection = |index: usize| {
            let address = addresses[index % addresses.len()];
            scope.spawn(move || {
                let connection = prepare(address, index);
                ready.wait();
                drive(connection?, index, shape.outstanding, operation, length)
            })
        };
        let loops: Vec<_> = (0..shape.connections).map(connection).collect();
        ready.wait();
        std::thread::sleep(WARM_UP);
        let before = servers.cpu_time()?;
        std::thread::sleep(length);
        let cpu = servers.cpu_time()? - before;
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
        })
    })
}

fn path(index: usize) -> String {
    format!("/load-{index}")
}

fn prepare(address: SocketAddr, index: usize) -> anyhow::Result<Wire> {
    let mut wire = Wire::open(address)?;
    let (path, data) = (path(index), [b'.'; VALUE]);
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    wire.ask(0, &Request::Create(Create { path: Some(&path), data: Some(&data), acl: Some(acl), flags: 0 }));
    // It may be there from the load before.
    wire.header()?;
    Ok(wire)
}

/// Latencies in µs of what was answered in the time that counts.
fn drive(
    mut wire: Wire,
    index: usize,
    outstanding: usize,
    operation: Operation,
    length: Duration,
) -> anyhow::Result<Vec<u32>> {
    let (path, data) = (path(index), [b'.'; VALUE]);
    let request = match operation {
        Operation::Write => Request::SetData(SetData { path: Some(&path), data: Some(&data), version: -1 }),
        Operation::Read => Request::GetData(PathWatch { path: Some(&path), watch: false }),
    };
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    let (mut asked, mut answered) = (0, 0);
    let mut sent = VecDeque::with_capacity(outstanding);
    let mut latencies = Vec::new();
    loop {
        let mut now = Instant::now();
        while sent.len() < outstanding && now < end {
            sent.push_back(now);
            asked += 1;
            wire.ask(asked, &request);
            now = Instant::now();
        }
        let Some(since) = sent.pop_front() else { break };
        answered += 1;
        wire.answered(answered).with_context(|| format!("{operation} {answered}"))?;
        let now = Instant::now();
        if now >= begin && now < end {
            latencies.push(u32::try_from((now - since).as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok(latencies)
}
