//! A quorum of real ZooKeeper servers with ZooKeeper's defaults: `tickTime` 2000, `syncLimit` 5, `forceSync` on.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tempfile::TempDir;

use super::client::Protocol;
use super::servers::{Heap, PATIENCE, Role, Servers, converse, number, role_of};
use crate::command::Running;
use crate::local::{Place, free_ports};
use crate::real_zookeeper::{jars, server};

pub(super) struct RealEnsemble {
    servers: Vec<Server>,
    jars: PathBuf,
    dir: TempDir,
    heap: Heap,
}

struct Server {
    place: Place,
    client: u16,
    peer: u16,
    election: u16,
    process: Option<Running>,
}

impl RealEnsemble {
    pub(super) fn start(places: Vec<Place>, heap: Heap) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("zookeeper-").tempdir().context("cannot make a directory")?;
        let mut this = Self { servers: Vec::new(), jars: jars()?, dir, heap };
        for place in places {
            let [client, peer, election] = free_ports()?;
            this.servers.push(Server { place, client, peer, election, process: None });
        }
        let size = this.servers.len();
        (0..size).try_for_each(|index| this.configure(index))?;
        (0..size).try_for_each(|index| this.launch(index))?;
        let servers: &dyn Servers = &this;
        servers.leader()?;
        Ok(this)
    }

    fn configure(&self, index: usize) -> anyhow::Result<()> {
        let data = self.data_dir(index)?;
        fs::create_dir(&data).context("cannot make a directory")?;
        fs::write(data.join("myid"), index.to_string()).context("cannot write a server's number")?;
        let mut config = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nclientPort={}\n\
             clientPortAddress={}\ndataDir={}\n4lw.commands.whitelist=srvr,mntr\n",
            self.servers[index].client,
            self.servers[index].place.host.address(),
            data.display()
        );
        for (number, server) in self.servers.iter().enumerate() {
            let host = server.place.host.address();
            config += &format!("server.{number}={host}:{}:{}\n", server.peer, server.election);
        }
        fs::write(self.dir.path().join(format!("{index}.cfg")), config)
            .context("cannot write a configuration")
    }

    fn server(&self, index: usize) -> anyhow::Result<&Server> {
        self.servers.get(index).context("there is no such server")
    }

    fn take(&mut self, index: usize) -> anyhow::Result<Running> {
        self.servers[index].process.take().context("the server does not run")
    }

    /// The four-letter command `mntr`.
    fn numbers(&self, index: usize) -> anyhow::Result<String> {
        converse(self.address(index)?, b"mntr")
    }
}

impl Servers for RealEnsemble {
    fn size(&self) -> usize {
        self.servers.len()
    }

    fn protocol(&self) -> Protocol {
        Protocol::ZooKeeper
    }

    fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        let server = self.server(index)?;
        Ok(SocketAddr::from((server.place.host.address(), server.client)))
    }

    fn pid(&self, index: usize) -> Option<u32> {
        self.servers.get(index)?.process.as_ref().map(|process| process.id())
    }

    fn data_dir(&self, index: usize) -> anyhow::Result<PathBuf> {
        let of_its_own = || self.dir.path().join(index.to_string());
        Ok(self.server(index)?.place.volume.as_ref().map_or_else(of_its_own, |volume| volume.join("data")))
    }

    fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        self.take(index)?.kill()
    }

    fn stop(&mut self, index: usize) -> anyhow::Result<()> {
        self.take(index)?.stop(PATIENCE)
    }

    fn launch(&mut self, index: usize) -> anyhow::Result<()> {
        let log = self.dir.path().join(format!("{index}.log"));
        let log = fs::File::options().create(true).append(true).open(log).context("cannot open a log")?;
        let config = self.dir.path().join(format!("{index}.cfg"));
        let heap = format!("-Xmx{}m", self.heap.mebibytes);
        let one = &mut self.servers[index];
        let mut command = server(&one.place.host, &self.jars, &[&heap], &config);
        one.process = Some(Running::start(command.stderr(log))?);
        Ok(())
    }

    fn role(&self, index: usize) -> Option<Role> {
        role_of(self.address(index).ok()?)
    }

    fn syncs(&self, index: usize) -> anyhow::Result<u64> {
        number(&self.numbers(index)?, "zk_cnt_fsynctime")
    }

    fn entries(&self, index: usize) -> anyhow::Result<u64> {
        number(&self.numbers(index)?, "zk_znode_count")
    }

    fn is_settled(&self, _: usize) -> anyhow::Result<bool> {
        Ok(true)
    }
}
