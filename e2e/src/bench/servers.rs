//! The two sides: members of ours, and a quorum of real ZooKeeper servers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::command::{Running, wait_until};
use crate::local::{self, LocalEnsemble};
use crate::real_zookeeper::{jars, server};

const PATIENCE: Duration = Duration::from_secs(60);

/// Servers that the same client can be pointed at.
pub(super) trait Servers {
    fn size(&self) -> usize;
    fn address(&self, index: usize) -> anyhow::Result<SocketAddr>;
    fn pid(&self, index: usize) -> Option<u32>;
    fn kill(&mut self, index: usize) -> anyhow::Result<()>;
    /// Starts a server that was killed, and waits until it serves.
    fn start(&mut self, index: usize) -> anyhow::Result<()>;

    fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        (0..self.size()).map(|index| self.address(index)).collect()
    }

    fn leader(&self) -> anyhow::Result<usize> {
        let addresses = self.addresses()?;
        let leads = |address: &SocketAddr| local::mode(*address).is_some_and(|mode| mode == "leader");
        wait_until("a leader", PATIENCE, || Ok(addresses.iter().position(leads)))
    }

    fn cpu_time(&self) -> anyhow::Result<Duration> {
        (0..self.size()).filter_map(|index| self.pid(index)).map(super::cpu_time).sum()
    }
}

impl Servers for LocalEnsemble {
    fn size(&self) -> usize {
        self.size()
    }

    fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        self.address(index)
    }

    fn pid(&self, index: usize) -> Option<u32> {
        self.pid(index)
    }

    fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        self.kill(index)
    }

    fn start(&mut self, index: usize) -> anyhow::Result<()> {
        self.start(index)?;
        self.wait_serving(index)
    }
}

/// ZooKeeper with its defaults: `tickTime` 2000, `forceSync` on, 512 MiB of heap each.
pub(super) struct RealEnsemble {
    servers: Vec<Server>,
    jars: PathBuf,
    dir: TempDir,
}

struct Server {
    client: u16,
    peer: u16,
    election: u16,
    process: Option<Running>,
}

impl RealEnsemble {
    pub(super) fn start(size: usize) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("zookeeper-").tempdir().context("cannot make a directory")?;
        let mut this = Self { servers: Vec::new(), jars: jars()?, dir };
        for _ in 0..size {
            let [client, peer, election] = local::free_ports()?;
            this.servers.push(Server { client, peer, election, process: None });
        }
        (0..size).try_for_each(|index| this.configure(index))?;
        (0..size).try_for_each(|index| this.spawn(index))?;
        (0..size).try_for_each(|index| this.wait_serving(index))?;
        Ok(this)
    }

    fn configure(&self, index: usize) -> anyhow::Result<()> {
        let data = self.dir.path().join(index.to_string());
        fs::create_dir(&data).context("cannot make a directory")?;
        fs::write(data.join("myid"), index.to_string()).context("cannot write a server's number")?;
        let mut config = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nclientPort={}\n\
             clientPortAddress=127.0.0.1\ndataDir={}\n",
            self.servers[index].client,
            data.display()
        );
        for (number, server) in self.servers.iter().enumerate() {
            config += &format!("server.{number}=127.0.0.1:{}:{}\n", server.peer, server.election);
        }
        fs::write(self.dir.path().join(format!("{index}.cfg")), config)
            .context("cannot write a configuration")
    }

    fn spawn(&mut self, index: usize) -> anyhow::Result<()> {
        let log = self.dir.path().join(format!("{index}.log"));
        let log = fs::File::options().create(true).append(true).open(log).context("cannot open a log")?;
        let config = self.dir.path().join(format!("{index}.cfg"));
        let mut command = server(&self.jars, &["-Xmx512m"], &config);
        self.servers[index].process = Some(Running::start(command.stderr(log))?);
        Ok(())
    }

    fn wait_serving(&self, index: usize) -> anyhow::Result<()> {
        let address = self.address(index)?;
        wait_until(&format!("ZooKeeper {index} to serve"), PATIENCE, || Ok(local::mode(address).map(drop)))
    }
}

impl Servers for RealEnsemble {
    fn size(&self) -> usize {
        self.servers.len()
    }

    fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        let server = self.servers.get(index).context("there is no such server")?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, server.client)))
    }

    fn pid(&self, index: usize) -> Option<u32> {
        self.servers.get(index)?.process.as_ref().map(|process| process.id())
    }

    fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        self.servers[index].process.take().context("the server does not run")?.kill()
    }

    fn start(&mut self, index: usize) -> anyhow::Result<()> {
        self.spawn(index)?;
        self.wait_serving(index)
    }
}
