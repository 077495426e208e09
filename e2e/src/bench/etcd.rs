//! A cluster of real etcd servers with etcd's defaults (heartbeats of 100 ms, elections after 1000 ms), but for the quota,
//! which a million keys come near to.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::client::Protocol;
use super::servers::{PATIENCE, Role, Servers, converse, number};
use crate::command::Running;
use crate::environment::etcd;
use crate::local::{Place, free_ports};

/// The one that `e2e/go/etcd` requires.
pub(super) const VERSION: &str = "3.6.8";
const QUOTA_BYTES: u64 = 8 << 30;

pub(super) struct EtcdCluster {
    servers: Vec<Server>,
    program: PathBuf,
    dir: TempDir,
}

struct Server {
    place: Place,
    client: u16,
    peer: u16,
    process: Option<Running>,
}

impl Server {
    fn url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.place.host.address())
    }
}

impl EtcdCluster {
    pub(super) fn start(places: Vec<Place>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("etcd-").tempdir().context("cannot make a directory")?;
        let mut this = Self { servers: Vec::new(), program: etcd()?, dir };
        for place in places {
            let [client, peer] = free_ports()?;
            this.servers.push(Server { place, client, peer, process: None });
        }
        (0..this.servers.len()).try_for_each(|index| this.launch(index))?;
        let servers: &dyn Servers = &this;
        servers.leader()?;
        Ok(this)
    }

    fn server(&self, index: usize) -> anyhow::Result<&Server> {
        self.servers.get(index).context("there is no such server")
    }

    fn take(&mut self, index: usize) -> anyhow::Result<Running> {
        self.servers[index].process.take().context("the server does not run")
    }

    fn metrics(&self, index: usize) -> anyhow::Result<String> {
        let request = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
        let text = converse(self.address(index)?, request)?;
        ensure!(text.lines().next().is_some_and(|line| line.contains(" 200 ")), "GET /metrics: {text}");
        Ok(text)
    }
}

impl Servers for EtcdCluster {
    fn size(&self) -> usize {
        self.servers.len()
    }

    fn protocol(&self) -> Protocol {
        Protocol::Etcd
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
        let all = self.servers.iter().enumerate();
        let all: Vec<_> = all.map(|(number, one)| format!("s{number}={}", one.url(one.peer))).collect();
        let data = self.data_dir(index)?;
        let one = &mut self.servers[index];
        let mut command = one.place.host.command(&self.program);
        command.args(["--name", &format!("s{index}"), "--log-level", "warn", "--data-dir"]).arg(data);
        command.args(["--listen-client-urls", &one.url(one.client)]);
        command.args(["--advertise-client-urls", &one.url(one.client)]);
        command.args(["--listen-peer-urls", &one.url(one.peer)]);
        command.args(["--initial-advertise-peer-urls", &one.url(one.peer)]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()]);
        let command = command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        one.process = Some(Running::start(command)?);
        Ok(())
    }

    fn role(&self, index: usize) -> Option<Role> {
        let metrics = self.metrics(index).ok()?;
        let is = |name| number(&metrics, name).is_ok_and(|value| value == 1);
        match (is("etcd_server_has_leader "), is("etcd_server_is_leader ")) {
            (false, _) => None,
            (true, true) => Some(Role::Leader),
            (true, false) => Some(Role::Follower),
        }
    }

    fn syncs(&self, index: usize) -> anyhow::Result<u64> {
        number(&self.metrics(index)?, "etcd_disk_wal_fsync_duration_seconds_count ")
    }

    fn entries(&self, index: usize) -> anyhow::Result<u64> {
        number(&self.metrics(index)?, "etcd_debugging_mvcc_keys_total ")
    }

    fn is_settled(&self, _: usize) -> anyhow::Result<bool> {
        Ok(true)
    }
}
