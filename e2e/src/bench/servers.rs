//! What is compared: members of ours, and servers of its peers, behind one face.
//!
//! Owns what every side can be asked and told. Must not know what is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::client::Protocol;
use super::etcd::EtcdCluster;
use super::zookeeper::RealEnsemble;
use crate::local::{LocalEnsemble, Place, mode};

pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at whether a server serves, when it is timed.
const GLANCE: Duration = Duration::from_millis(2);

/// A side of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// Ours.
    Pharos,
    /// Apache ZooKeeper.
    #[value(name = "zookeeper")]
    ZooKeeper,
    /// etcd.
    Etcd,
}

impl Side {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Pharos, Self::ZooKeeper, Self::Etcd];

    pub(super) fn name(self) -> String {
        match self {
            Self::Pharos => "Pharos".to_owned(),
            Self::ZooKeeper => format!("ZooKeeper {}", crate::real_zookeeper::VERSION),
            Self::Etcd => format!("etcd {}", super::etcd::VERSION),
        }
    }

    /// Starts a server at each of these places; all serve when this returns.
    pub(super) fn start(self, places: Vec<Place>, heap: Heap) -> anyhow::Result<Box<dyn Servers>> {
        Ok(match self {
            Self::Pharos => Box::new(LocalEnsemble::found_on(places)?),
            Self::ZooKeeper => Box::new(RealEnsemble::start(places, heap)?),
            Self::Etcd => Box::new(EtcdCluster::start(places)?),
        })
    }
}

/// How much memory a Java machine may take for its objects.
#[derive(Clone, Copy)]
pub(super) struct Heap {
    pub(super) mebibytes: u32,
}

/// Servers that the same client can be pointed at.
pub(super) trait Servers: Sync {
    fn size(&self) -> usize;
    fn protocol(&self) -> Protocol;
    fn address(&self, index: usize) -> anyhow::Result<SocketAddr>;
    fn pid(&self, index: usize) -> Option<u32>;
    fn data_dir(&self, index: usize) -> anyhow::Result<PathBuf>;
    /// As kill -9 does.
    fn kill(&mut self, index: usize) -> anyhow::Result<()>;
    /// As SIGTERM does; the server has ended when this returns.
    fn stop(&mut self, index: usize) -> anyhow::Result<()>;
    /// Starts a server that does not run.
    fn launch(&mut self, index: usize) -> anyhow::Result<()>;
    /// Whether it answers clients, and leads.
    fn role(&self, index: usize) -> Option<Role>;
    /// How often it has made its log durable since its start.
    fn syncs(&self, index: usize) -> anyhow::Result<u64>;
    /// How many entries clients have made.
    fn entries(&self, index: usize) -> anyhow::Result<u64>;
    /// Whether all of it is where a restart would read it, if that comes later than the answer.
    fn is_settled(&self, index: usize) -> anyhow::Result<bool>;
}

/// What a server that answers clients is to the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Follower,
}

impl dyn Servers + '_ {
    pub(super) fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        (0..self.size()).map(|index| self.address(index)).collect()
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        (0..self.size()).filter_map(|index| self.pid(index))
    }

    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        self.pids().map(super::cpu_time).sum()
    }

    /// Of one server, on average, in bytes.
    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        let total: u64 = self.pids().map(super::resident).sum::<anyhow::Result<_>>()?;
        Ok(total / self.size() as u64)
    }

    pub(super) fn all_syncs(&self) -> anyhow::Result<u64> {
        (0..self.size()).map(|index| self.syncs(index)).sum()
    }

    /// The one that leads, once all serve and agree on it.
    pub(super) fn leader(&self) -> anyhow::Result<usize> {
        glance("all servers to serve", || {
            let roles: Option<Vec<Role>> = (0..self.size()).map(|index| self.role(index)).collect();
            let roles = roles.unwrap_or_default();
            let mut leaders = (0..roles.len()).filter(|index| roles[*index] == Role::Leader);
            leaders.next().filter(|_| leaders.next().is_none())
        })
    }

    pub(super) fn wait_serving(&self, index: usize) -> anyhow::Result<()> {
        glance(&format!("server {index} to serve"), || self.role(index).map(drop))
    }
}

/// Looks often, for what is timed.
pub(super) fn glance<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        ensure!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(GLANCE);
    }
}

/// Says that on a connection of its own, and gives all that comes back until the server closes it.
pub(super) fn converse(address: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).context("cannot set up a socket")?;
    stream.write_all(request).context("cannot send")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("cannot receive")?;
    Ok(text)
}

/// What the four-letter command `srvr` says.
pub(super) fn role_of(address: SocketAddr) -> Option<Role> {
    mode(address).map(|mode| if mode == "leader" { Role::Leader } else { Role::Follower })
}

/// The number after a name at the beginning of a line.
pub(super) fn number(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let value: f64 = value.with_context(|| format!("nothing is said of {name}"))?.parse()?;
    Ok(value as u64)
}

/// What a directory takes on the disk, in bytes.
pub(super) fn disk_used(directory: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let entries = std::fs::read_dir(directory);
    for entry in entries.with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        // A file may go while this looks.
        let Ok(meta) = entry.metadata() else { continue };
        total += if meta.is_dir() { disk_used(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(total)
}

impl Servers for LocalEnsemble {
    fn size(&self) -> usize {
        self.size()
    }

    fn protocol(&self) -> Protocol {
        Protocol::ZooKeeper
    }

    fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        self.address(index)
    }

    fn pid(&self, index: usize) -> Option<u32> {
        self.pid(index)
    }

    fn data_dir(&self, index: usize) -> anyhow::Result<PathBuf> {
        self.data_dir(index)
    }

    fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        self.kill(index)
    }

    fn stop(&mut self, index: usize) -> anyhow::Result<()> {
        self.stop(index)
    }

    fn launch(&mut self, index: usize) -> anyhow::Result<()> {
        self.start(index)
    }

    fn role(&self, index: usize) -> Option<Role> {
        role_of(self.address(index).ok()?)
    }

    fn syncs(&self, index: usize) -> anyhow::Result<u64> {
        number(&self.get(index, "/metrics")?, "pharos_log_groups_total ")
    }

    fn entries(&self, index: usize) -> anyhow::Result<u64> {
        number(&self.get(index, "/metrics")?, "znode_count ")
    }

    fn is_settled(&self, index: usize) -> anyhow::Result<bool> {
        let metrics = self.get(index, "/metrics")?;
        Ok(number(&metrics, "pharos_flushed_slot ")? >= number(&metrics, "pharos_applied_slot ")?)
    }
}
