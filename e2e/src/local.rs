//! Members of an Ensemble as processes on this machine, as a user starts them without Kubernetes.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::command::{Running, output, wait_until};
use crate::environment::our_binaries;

/// How long a member may take to serve again after it was started.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An Ensemble; its processes end and its data is removed when this is dropped.
pub struct LocalEnsemble {
    pub(crate) members: Vec<Member>,
    pub(crate) directory: TempDir,
    pub(crate) program: PathBuf,
    /// What the members' processes are started by, in the place of a plain start.
    pub(crate) starter: Vec<OsString>,
}

pub(crate) struct Member {
    pub(crate) client: u16,
    pub(crate) peer: u16,
    pub(crate) admin: u16,
    metrics: u16,
    process: Option<Running>,
}

impl Member {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let [client, peer, admin, metrics] = free_ports()?;
        Ok(Self { client, peer, admin, metrics, process: None })
    }
}

impl LocalEnsemble {
    /// Founds an Ensemble of `size` members; all serve when this returns.
    ///
    /// # Errors
    /// If a member does not start.
    pub fn found(size: usize) -> anyhow::Result<Self> {
        Self::found_by(size, Vec::new())
    }

    /// The same, with members whose processes are started by a program: its name and first arguments.
    ///
    /// # Errors
    /// If a member does not start.
    pub(crate) fn found_by(size: usize, starter: Vec<OsString>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let program = our_binaries()?.join("pharos-node");
        let mut members = Vec::new();
        for _ in 0..size {
            members.push(Member::new()?);
        }
        let mut this = Self { members, directory, program, starter };
        std::fs::write(this.directory.path().join("token"), "a token for tests")
            .context("cannot write a token")?;
        for index in 0..size {
            this.start(index)?;
        }
        let mut permit = Command::new(&this.program);
        permit.arg("permit").arg("--out").arg(this.directory.path().join("permit.json"));
        for member in &this.members {
            permit.args(["--founder", &format!("http://127.0.0.1:{}", member.admin)]);
        }
        wait_until("the permit", PATIENCE, || output(&mut permit).map(Some))?;
        for index in 0..size {
            this.wait_serving(index)?;
        }
        Ok(this)
    }

    /// What clients connect to.
    #[must_use]
    pub fn hosts(&self) -> String {
        let addresses = self.members.iter().map(|member| format!("127.0.0.1:{}", member.client));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Where clients of one member connect.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        let member = self.members.get(index).context("there is no such member")?;
        Ok(SocketAddr::from(([127, 0, 0, 1], member.client)))
    }

    /// Starts a member on the data that it has.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let directory = self.directory.path();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{index}.log")))
            .context("cannot open a log")?;
        let member = self.members.get_mut(index).context("there is no such member")?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        // Ends with this thread, should it be killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(&self.starter).arg(&self.program).arg("ensemble");
        command.arg("--data-dir").arg(directory.join(index.to_string()));
        command.args(["--client-addr", &address(member.client), "--peer-addr", &address(member.peer)]);
        command.args(["--admin-addr", &address(member.admin), "--metrics-addr", &address(member.metrics)]);
        command.arg("--permit-file").arg(directory.join("permit.json"));
        command.arg("--admin-token-file").arg(directory.join("token"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        member.process = Some(Running::start(&mut command)?);
        Ok(())
    }

    /// Kills a member as kill -9 does.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        member.process.take().context("the member does not run")?.kill()
    }

    /// Waits until a member serves clients; it then leads or follows a leader.
    ///
    /// # Errors
    /// If it does not in time; what it logged last is in the error.
    pub fn wait_serving(&self, index: usize) -> anyhow::Result<()> {
        self.wait_serving_for(index, PATIENCE)
    }

    /// The same, for so long.
    ///
    /// # Errors
    /// If it does not in time.
    pub(crate) fn wait_serving_for(&self, index: usize, patience: Duration) -> anyhow::Result<()> {
        wait_until(&format!("member {index} to serve"), patience, || Ok(self.mode(index).map(drop)))
            .with_context(|| {
                let log = self.directory.path().join(format!("{index}.log"));
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(20).collect();
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            })
    }

    /// The member that says it leads.
    ///
    /// # Errors
    /// If none says so in time.
    pub fn leader(&self) -> anyhow::Result<usize> {
        wait_until("a leader", PATIENCE, || {
            Ok((0..self.members.len()).find(|index| self.mode(*index).is_some_and(|mode| mode == "leader")))
        })
    }

    /// What a member's admin port answers to a GET.
    ///
    /// # Errors
    /// If it does not answer, or not with success.
    pub fn get(&self, index: usize, path: &str) -> anyhow::Result<String> {
        let member = self.members.get(index).context("there is no such member")?;
        let mut stream =
            TcpStream::connect(("127.0.0.1", member.admin)).context("cannot reach the admin port")?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .context("cannot ask the admin port")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("cannot read from the admin port")?;
        let (head, body) = text.split_once("\r\n\r\n").context("an answer has a head")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "GET {path}: {head}");
        Ok(body.to_owned())
    }

    /// How many bytes a member's log takes on the disk, spare segments included.
    ///
    /// # Errors
    /// If the data directory cannot be read.
    pub fn log_bytes(&self, index: usize) -> anyhow::Result<u64> {
        let log = self.directory.path().join(index.to_string()).join("log");
        let entries = std::fs::read_dir(&log).with_context(|| format!("cannot list {}", log.display()))?;
        entries.map(|entry| Ok(entry?.metadata()?.len())).sum()
    }

    /// How many members there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    fn mode(&self, index: usize) -> Option<String> {
        mode(self.address(index).ok()?)
    }

    /// The process of a member.
    #[must_use]
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.members.get(index)?.process.as_ref().map(|process| process.id())
    }
}

/// What the command `srvr` says of a server that serves: `leader`, `follower` or `standalone`.
pub(crate) fn mode(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
}

/// Ports that nothing listens on, below those that the system gives to outgoing connections: a client of another test
/// could take one of those at any time, also while its member is down.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let span = first_of_clients()?.checked_sub(FIRST_PORT).context("there are no ports for servers")?;
    // Each is given once in this process; another process most likely began elsewhere.
    let begin = u64::from(std::process::id()) * 7919;
    let mut ports = [0; N];
    for port in &mut ports {
        *port = (0..span)
            .map(|_| NEXT_PORT.fetch_add(1, Ordering::Relaxed))
            .map(|number| FIRST_PORT + u16::try_from((begin + number) % u64::from(span)).unwrap_or_default())
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .context("cannot find a free port")?;
    }
    Ok(ports)
}

const FIRST_PORT: u16 = 12_000;
static NEXT_PORT: AtomicU64 = AtomicU64::new(0);

fn first_of_clients() -> anyhow::Result<u16> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.with_context(|| format!("{path} says {text}"))
}
