//! How long a writer waits when something happens to the leader: one write at a time, and on to the next server as soon
//! as a connection breaks or an answer takes too long.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;

use super::client::{Client, Protocol};
use super::servers::{Heap, PATIENCE, Servers, Side};
use super::table::{Figures, Table};
use super::{Effort, MEMBERS, median};
use crate::command::{output, wait_until};
use crate::local::Place;
use crate::netns::{self, Network};
use crate::volume::{Hung, Volume};
use crate::wire::{Expired, Session};

/// How long the servers are left in peace before each fault.
const PEACE: Duration = Duration::from_secs(1);
/// How long a fault lasts at least; if nothing is acknowledged then, until something is.
const LENGTH: Duration = Duration::from_secs(3);
/// An answer that takes longer is given up, and another server is asked.
const IMPATIENCE: Duration = Duration::from_millis(200);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(5);
const PATH: &str = "/failover";
const VOLUME_MEBIBYTES: u64 = 4096;
const HEAP: Heap = Heap { mebibytes: 512 };

/// What happens to the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Hang,
    Mute,
    Deaf,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Kill, Self::Stop, Self::Hang, Self::Mute, Self::Deaf];

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stop => "SIGSTOP",
            Self::Hang => "its disk hangs",
            Self::Mute => "nobody hears it, it hears the others",
            Self::Deaf => "it hears nobody, the others hear it",
        }
    }

    /// Whether it takes hosts and disks of the servers' own.
    const fn is_of_the_machine(self) -> bool {
        matches!(self, Self::Hang | Self::Mute | Self::Deaf)
    }
}

/// All faults on all sides, one side after the other.
pub(super) fn measure(effort: &Effort, table: &mut Table) -> anyhow::Result<()> {
    let isolated = netns::is_allowed();
    let where_they_are = if isolated {
        "each server on a host and a disk of its own (network namespaces, ext4 on loop devices)"
    } else {
        "on the loopback: without root no disk can hang, and no direction be cut"
    };
    table.part(&format!(
        "ms without an acknowledged write of one closed-loop writer, when something happens to the leader; {} times \
         each, {where_they_are}. The writer begins at another server and moves on when a connection breaks, or after {} ms \
         without an answer; it is cut off from nobody",
        effort.repetitions,
        IMPATIENCE.as_millis()
    ))?;
    let everything = || {
        let network = Network::new(MEMBERS)?;
        each_side(effort, Some(&network))
    };
    let gaps = if isolated { netns::isolated(everything)? } else { each_side(effort, None)? };
    let count = gaps.first().map_or(0, Vec::len);
    for (index, fault) in Fault::ALL.into_iter().take(count).enumerate() {
        let of =
            |pick: fn(&[f64]) -> f64| Figures(gaps.iter().map(|side| Some(pick(&side[index]))).collect());
        table.row(&format!("{}, median", fault.name()), of(|gaps| median(gaps.to_vec())));
        table.row(&format!("{}, worst", fault.name()), of(|gaps| gaps.iter().copied().fold(0.0, f64::max)));
    }
    Ok(())
}

/// Of each side, of each fault, every gap in ms.
fn each_side(effort: &Effort, network: Option<&Network>) -> anyhow::Result<Vec<Vec<Vec<f64>>>> {
    let one = |side: &Side| {
        let mut lab = Lab::new(network)?;
        let mut servers = side.start(std::mem::take(&mut lab.places), HEAP)?;
        let faults = Fault::ALL.into_iter().filter(|fault| network.is_some() || !fault.is_of_the_machine());
        let gaps_of = |fault: Fault| {
            let one = |_| lab.gap(servers.as_mut(), fault).map(|gap| gap.as_secs_f64() * 1e3);
            let gaps: Vec<f64> = (0..effort.repetitions)
                .map(one)
                .collect::<anyhow::Result<_>>()
                .with_context(|| format!("{}, {}", side.name(), fault.name()))?;
            eprintln!("{}, {}: {gaps:.0?} ms", side.name(), fault.name());
            Ok(gaps)
        };
        faults.map(gaps_of).collect()
    };
    effort.sides.iter().map(one).collect()
}

/// What the servers of one side run on.
struct Lab<'a> {
    network: Option<&'a Network>,
    volumes: Vec<Volume>,
    places: Vec<Place>,
    _directory: TempDir,
}

impl<'a> Lab<'a> {
    fn new(network: Option<&'a Network>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let (mut volumes, mut places) = (Vec::new(), Vec::new());
        for index in 0..MEMBERS {
            let Some(network) = network else {
                places.push(Place::loopback());
                continue;
            };
            let volume = Volume::make(directory.path(), &format!("disk{index}"), VOLUME_MEBIBYTES)?;
            let host = network.hosts()[index].clone();
            places.push(Place { host, volume: Some(volume.path().to_owned()) });
            volumes.push(volume);
        }
        Ok(Self { network, volumes, places, _directory: directory })
    }

    /// The longest time between two acknowledged writes around one fault.
    fn gap(&self, servers: &mut dyn Servers, fault: Fault) -> anyhow::Result<Duration> {
        let leader = servers.leader()?;
        let mut addresses = servers.addresses()?;
        addresses.rotate_left((leader + 1) % MEMBERS);
        let writer = Writer {
            protocol: servers.protocol(),
            addresses,
            acknowledged: Mutex::default(),
            stop: AtomicBool::default(),
        };
        let began = std::thread::scope(|scope| {
            scope.spawn(|| writer.run());
            let began = writer.writes_for(PEACE).and_then(|()| {
                let began = Instant::now();
                let hung = self.begin(servers, leader, fault)?;
                let went_on = writer.writes_for(LENGTH);
                drop(hung);
                self.end(servers, leader, fault)?;
                went_on.map(|()| began)
            });
            writer.stop.store(true, Ordering::Relaxed);
            began
        })?;
        let acknowledged = writer.acknowledged.into_inner().expect("nobody panics");
        let from = acknowledged.partition_point(|at| *at < began).saturating_sub(1);
        let pairs = acknowledged[from..].windows(2);
        pairs.map(|pair| pair[1] - pair[0]).max().context("no write was acknowledged")
    }

    fn begin(&self, servers: &mut dyn Servers, leader: usize, fault: Fault) -> anyhow::Result<Option<Hung>> {
        let others = (0..MEMBERS).filter(|index| *index != leader);
        let network = || self.network.context("there is no network");
        match fault {
            Fault::Kill => servers.kill(leader)?,
            Fault::Stop => signal(servers, leader, "-STOP")?,
            Fault::Hang => {
                return self.volumes.get(leader).context("there is no disk")?.hang().map(Some);
            }
            Fault::Mute => others.into_iter().try_for_each(|other| network()?.cut(leader, other))?,
            Fault::Deaf => others.into_iter().try_for_each(|other| network()?.cut(other, leader))?,
        }
        Ok(None)
    }

    fn end(&self, servers: &mut dyn Servers, leader: usize, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => servers.launch(leader),
            Fault::Stop => signal(servers, leader, "-CONT"),
            Fault::Hang => Ok(()),
            Fault::Mute | Fault::Deaf => self.network.context("there is no network")?.heal(),
        }
    }
}

fn signal(servers: &dyn Servers, index: usize, signal: &str) -> anyhow::Result<()> {
    let pid = servers.pid(index).context("the server does not run")?.to_string();
    output(Command::new("kill").args([signal, &pid])).map(drop)
}

/// One write at a time, and when each was acknowledged.
struct Writer {
    protocol: Protocol,
    addresses: Vec<SocketAddr>,
    acknowledged: Mutex<Vec<Instant>>,
    stop: AtomicBool,
}

impl Writer {
    /// Waits until a write is acknowledged so long from now.
    fn writes_for(&self, time: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        let last = || self.acknowledged.lock().expect("nobody panics").last().copied();
        wait_until("the writer", PATIENCE, || Ok(last().filter(|at| *at > since + time).map(drop)))
    }

    fn run(&self) {
        let mut session = Session::default();
        for address in self.addresses.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match Client::connect(self.protocol, *address, &session, IMPATIENCE) {
                Ok(mut client) => {
                    // The end of a connection is what this measures.
                    let _ = self.write_on(&mut client);
                    session = client.session();
                }
                Err(error) if error.is::<Expired>() => session = Session::default(),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn write_on(&self, client: &mut Client) -> anyhow::Result<()> {
        client.create(PATH, b"value")?;
        while !self.stop.load(Ordering::Relaxed) {
            client.ask_write(PATH, b"value")?;
            client.answered()?;
            self.acknowledged.lock().expect("nobody panics").push(Instant::now());
        }
        Ok(())
    }
}
