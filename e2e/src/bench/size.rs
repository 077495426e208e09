//! What a million entries take in memory and on the disk, and how long a server that holds them takes to serve again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::client::{Client, Protocol};
use super::servers::{Heap, PATIENCE, Servers, Side, disk_used, glance};
use super::table::{Figures, Pick, Table};
use super::{Effort, MEMBERS, cpu_time, resident};
use crate::local::Place;
use crate::wire::Session;

/// Enough for a million entries: with 512 MiB the real ZooKeeper collects garbage and does nothing else.
const HEAP: Heap = Heap { mebibytes: 1536 };
const CONNECTIONS: usize = 3;
const OUTSTANDING: usize = 8;
/// Entries of one transaction, below what etcd takes at most.
const TRANSACTION: usize = 100;
const CHILDREN: usize = 1000;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);
const FILL_PATIENCE: Duration = Duration::from_secs(1800);
/// What is written while a server is killed.
const REWRITTEN: usize = 200_000;
const REWRITES_OUTSTANDING: usize = 256;

/// What the entries are like.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Of all directories but the last, of the last, and of the entry.
    above: &'static str,
    directory: usize,
    leaf: usize,
    value: usize,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "values of 100 bytes at paths of 16", above: "", directory: 6, leaf: 8, value: 100 },
    // What a large installation was seen to hold (ClickHouse PR 106270).
    Shape {
        name: "values of 46 bytes at paths of 115",
        above: "/a-directory-of-an-application-near/one-of-its-tables-or-its-topics-x",
        directory: 20,
        leaf: 24,
        value: 46,
    },
];

impl Shape {
    fn directory(&self, index: usize) -> String {
        format!("{}/{:0width$}", self.above, index / CHILDREN, width = self.directory)
    }

    fn path(&self, index: usize) -> String {
        format!("{}/{index:0width$}", self.directory(index), width = self.leaf)
    }

    /// Every directory, those above first.
    fn directories(&self, entries: usize) -> Vec<String> {
        let above = self.above.match_indices('/').skip(1).map(|(end, _)| self.above[..end].to_owned());
        let whole = Some(self.above.to_owned()).filter(|above| !above.is_empty());
        above.chain(whole).chain((0..entries).step_by(CHILDREN).map(|index| self.directory(index))).collect()
    }
}

/// What one side took for one shape.
struct Sample {
    created_per_second: f64,
    resident_mib: f64,
    bytes_each: f64,
    disk_mib: f64,
    clean: Restart,
    restarted_mib: f64,
    bytes_each_restarted: f64,
    killed: Restart,
}

/// From the start of the process until it serves.
struct Restart {
    took: Duration,
    /// Its own time, which says more than the clock where others use the machine.
    cpu: Duration,
}

const SHOWN: [(&str, Pick<Sample>); 10] = [
    ("made a second", |sample| sample.created_per_second),
    ("resident, MiB", |sample| sample.resident_mib),
    ("resident for each entry, bytes", |sample| sample.bytes_each),
    ("resident after a restart, MiB", |sample| sample.restarted_mib),
    ("resident after a restart for each entry, bytes", |sample| sample.bytes_each_restarted),
    ("on the disk, MiB", |sample| sample.disk_mib),
    ("start to serving, after SIGTERM, s", |sample| sample.clean.took.as_secs_f64()),
    ("CPU of that, s", |sample| sample.clean.cpu.as_secs_f64()),
    ("start to serving, after kill -9 under load, s", |sample| sample.killed.took.as_secs_f64()),
    ("CPU of that, s", |sample| sample.killed.cpu.as_secs_f64()),
];

pub(super) fn measure(effort: &Effort, table: &mut Table) -> anyhow::Result<()> {
    for shape in SHAPES {
        table.part(&format!(
            "{} entries, {}, made in transactions of {TRANSACTION}; of one of {MEMBERS} servers. ZooKeeper with a heap of {} \
             MiB; etcd's resident memory has its mapped file in it",
            effort.entries, shape.name, HEAP.mebibytes
        ))?;
        let one = |side: &Side| sample(*side, shape, effort.entries).with_context(|| side.name());
        let samples: Vec<Sample> = effort.sides.iter().map(one).collect::<anyhow::Result<_>>()?;
        for (name, pick) in SHOWN {
            table.row(name, Figures(samples.iter().map(|sample| Some(pick(sample))).collect()));
        }
    }
    Ok(())
}

fn sample(side: Side, shape: Shape, entries: usize) -> anyhow::Result<Sample> {
    const MIB: f64 = (1 << 20) as f64;
    let mut servers = side.start(vec![Place::loopback(); MEMBERS], HEAP)?;
    let empty = servers.resident()?;
    let start = Instant::now();
    fill(servers.as_ref(), shape, entries)?;
    let took = start.elapsed();
    let member = (servers.leader()? + 1) % MEMBERS;
    holds(servers.as_ref(), member, entries)?;
    glance("the disk to have all", || servers.is_settled(member).ok().filter(|settled| *settled))?;
    let full = servers.resident()?;
    let disk = disk_used(&servers.data_dir(member)?)?;
    servers.stop(member)?;
    let clean = restart(servers.as_mut(), member)?;
    holds(servers.as_ref(), member, entries)?;
    let restarted = resident(servers.pid(member).context("the server runs")?)?;
    let killed = kill_under_load(servers.as_mut(), shape, member, entries)?;
    eprintln!("{}, {}: measured", side.name(), shape.name);
    Ok(Sample {
        created_per_second: entries as f64 / took.as_secs_f64(),
        resident_mib: full as f64 / MIB,
        bytes_each: full.saturating_sub(empty) as f64 / entries as f64,
        disk_mib: disk as f64 / MIB,
        clean,
        restarted_mib: restarted as f64 / MIB,
        bytes_each_restarted: restarted.saturating_sub(empty) as f64 / entries as f64,
        killed,
    })
}

fn holds(servers: &dyn Servers, member: usize, entries: usize) -> anyhow::Result<()> {
    glance("all entries", || servers.entries(member).ok().filter(|held| *held >= entries as u64)).map(drop)
}

fn restart(servers: &mut dyn Servers, member: usize) -> anyhow::Result<Restart> {
    let start = Instant::now();
    servers.launch(member)?;
    servers.wait_serving(member)?;
    let took = start.elapsed();
    Ok(Restart { took, cpu: cpu_time(servers.pid(member).context("the server runs")?)? })
}

/// Many entries are written once more, and in the middle of that a server is killed.
fn kill_under_load(
    servers: &mut dyn Servers,
    shape: Shape,
    member: usize,
    entries: usize,
) -> anyhow::Result<Restart> {
    let address = servers.address((member + 1) % MEMBERS)?;
    let rewrite = |client: &mut Client| {
        let value = vec![b'+'; shape.value];
        for index in 0..entries.min(REWRITTEN) {
            if index >= REWRITES_OUTSTANDING {
                client.answered()?;
            }
            client.ask_write(&shape.path(index), &value)?;
        }
        // The last are still on their way.
        anyhow::Ok(())
    };
    let mut client = Client::connect(servers.protocol(), address, &Session::default(), PATIENCE)?;
    if let Err(error) = rewrite(&mut client) {
        eprintln!("less is to be replayed: {error:#}");
    }
    servers.kill(member)?;
    restart(servers, member)
}

/// Makes all entries, on several connections at once.
fn fill(servers: &dyn Servers, shape: Shape, entries: usize) -> anyhow::Result<()> {
    let (protocol, addresses) = (servers.protocol(), servers.addresses()?);
    let mut first = Client::connect(protocol, addresses[0], &Session::default(), PATIENCE)?;
    for directory in shape.directories(entries) {
        first.create(&directory, b"")?;
    }
    let share = entries.div_ceil(CONNECTIONS);
    std::thread::scope(|scope| {
        let one = |connection: usize| {
            let mut addresses = addresses.clone();
            addresses.rotate_left(connection % MEMBERS);
            let end = entries.min((connection + 1) * share);
            let begins = (connection * share..end).step_by(TRANSACTION);
            let left = begins.map(|begin| begin..end.min(begin + TRANSACTION)).collect();
            scope.spawn(move || fill_part(protocol, &addresses, shape, left))
        };
        let parts: Vec<_> = (0..CONNECTIONS).map(one).collect();
        parts.into_iter().try_for_each(|part| part.join().expect("a load does not panic"))
    })
}

/// Goes on with the next server when a connection is lost: on a busy machine a leader may be.
fn fill_part(
    protocol: Protocol,
    addresses: &[SocketAddr],
    shape: Shape,
    mut left: VecDeque<Range<usize>>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    for address in addresses.iter().cycle() {
        let client = Client::connect(protocol, *address, &Session::default(), PATIENCE);
        match client.and_then(|mut client| fill_on(&mut client, shape, &mut left)) {
            Err(_) if start.elapsed() < FILL_PATIENCE => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    Ok(())
}

fn fill_on(client: &mut Client, shape: Shape, left: &mut VecDeque<Range<usize>>) -> anyhow::Result<()> {
    let value = vec![b'.'; shape.value];
    let mut sent = 0;
    while !left.is_empty() {
        if sent < left.len().min(OUTSTANDING) {
            let paths: Vec<String> = left[sent].clone().map(|index| shape.path(index)).collect();
            client.ask_all(paths.iter().map(|path| (path.as_str(), value.as_slice())))?;
            sent += 1;
        } else {
            // One that was under way on a lost connection may be there already.
            client.settled()?;
            left.pop_front();
            sent -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_values_are_as_long_as_is_said() {
        assert_eq!(SHAPES[0].path(999_999).len(), 16);
        assert_eq!(SHAPES[1].path(999_999).len(), 115);
        assert!(SHAPES.iter().all(|shape| shape.path(1).starts_with(&shape.directory(1))));
    }

    #[test]
    fn each_directory_comes_after_the_one_above_it() {
        for shape in SHAPES {
            let mut made = vec![String::new()];
            for directory in shape.directories(2500) {
                let (above, _) = directory.rsplit_once('/').unwrap();
                assert!(made.iter().any(|one| one == above), "{directory}");
                made.push(directory);
            }
        }
    }
}
