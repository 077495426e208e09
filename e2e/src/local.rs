//! Members of an Ensemble as processes on this machine, as a user starts them without Kubernetes.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::command::{Running, output, wait_until};
use crate::environment::our_binaries;
use crate::netns::Host;

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

/// Where a server runs, and where its data is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// A directory for what is to be kept there, such as a disk of its own; if there is none, one that goes with the
    /// ensemble.
    pub volume: Option<PathBuf>,
}

impl Place {
    /// On the loopback.
    #[must_use]
    pub const fn loopback() -> Self {
        Self { host: Host::loopback(), volume: None }
    }
}

pub(crate) struct Member {
    pub(crate) place: Place,
    pub(crate) client: u16,
    pub(crate) peer: u16,
    pub(crate) admin: u16,
    metrics: u16,
    process: Option<Running>,
    /// What it runs.
    pub(crate) program: PathBuf,
    pub(crate) options: Vec<String>,
}

impl Member {
    pub(crate) fn new(place: Place, program: &Path) -> anyhow::Result<Self> {
        let [client, peer, admin, metrics] = free_ports()?;
        let (program, options) = (program.to_owned(), Vec::new());
        Ok(Self { place, client, peer, admin, metrics, process: None, program, options })
    }

    /// `host:port`.
    fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.place.host.address())
    }

    /// The URL of its admin port.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.at(self.admin))
    }
}

impl LocalEnsemble {
    /// Founds an Ensemble of `size` members; all serve when this returns.
    ///
    /// # Errors
    /// If a member does not start.
    pub fn found(size: usize) -> anyhow::Result<Self> {
        Self::found_on(vec![Place::loopback(); size])
    }

    /// Founds an Ensemble with a member at each of these places; all serve when this returns.
    ///
    /// # Errors
    /// If a member does not start.
    pub fn found_on(places: Vec<Place>) -> anyhow::Result<Self> {
        let program = our_binaries()?.join("pharos-node");
        let members = places.into_iter().map(|place| Member::new(place, &program));
        Self::found_with(members, Vec::new())
    }

    /// Founds an Ensemble of members that each run their own version; all serve when this returns.
    ///
    /// # Errors
    /// If a member does not start.
    pub fn found_by(programs: &[PathBuf]) -> anyhow::Result<Self> {
        let members = programs.iter().map(|program| Member::new(Place::loopback(), program));
        Self::found_with(members, Vec::new())
    }

    /// Founds an Ensemble of one member whose process is started by a program: its name and first arguments.
    ///
    /// # Errors
    /// If the member does not start.
    pub(crate) fn found_one_under(starter: Vec<OsString>) -> anyhow::Result<Self> {
        let program = our_binaries()?.join("pharos-node");
        Self::found_with(std::iter::once(Member::new(Place::loopback(), &program)), starter)
    }

    fn found_with(
        members: impl Iterator<Item = anyhow::Result<Member>>,
        starter: Vec<OsString>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let program = our_binaries()?.join("pharos-node");
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        let size = members.len();
        let mut this = Self { members, directory, program, starter };
        std::fs::write(this.directory.path().join("token"), "a token for tests")
            .context("cannot write a token")?;
        for index in 0..size {
            this.start(index)?;
        }
        let mut permit = Command::new(&this.program);
        permit.arg("permit").arg("--out").arg(this.directory.path().join("permit.json"));
        for member in &this.members {
            permit.args(["--founder", &member.url()]);
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
        let addresses = self.members.iter().map(|member| member.at(member.client));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Where clients of one member connect.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        let member = self.members.get(index).context("there is no such member")?;
        Ok(SocketAddr::from((member.place.host.address(), member.client)))
    }

    /// Starts a member on the data that it has.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let (directory, data) = (self.directory.path(), self.data_dir(index)?);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{index}.log")))
            .context("cannot open a log")?;
        let member = self.members.get_mut(index).context("there is no such member")?;
        let program = Path::new(&member.program).as_os_str();
        let mut line = self.starter.iter().map(OsString::as_os_str).chain([program]);
        let mut command = member.place.host.command(line.next().context("there is a program")?);
        command.args(line).arg("ensemble").args(&member.options).arg("--data-dir").arg(data);
        command.args(["--client-addr", &member.at(member.client), "--peer-addr", &member.at(member.peer)]);
        command.args(["--admin-addr", &member.at(member.admin)]);
        command.args(["--metrics-addr", &member.at(member.metrics)]);
        command.arg("--permit-file").arg(directory.join("permit.json"));
        command.arg("--admin-token-file").arg(directory.join("token"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        member.process = Some(Running::start(&mut command)?);
        Ok(())
    }

    /// From its next start on a member runs this, with these options more.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn install(&mut self, index: usize, program: &Path, options: &[&str]) -> anyhow::Result<()> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        member.program = program.to_owned();
        member.options = options.iter().map(|option| (*option).to_owned()).collect();
        Ok(())
    }

    /// Waits until a member's process has ended by itself; gives what it logged last.
    ///
    /// # Errors
    /// If it does not end in time, or ends well.
    pub fn wait_ended(&mut self, index: usize) -> anyhow::Result<String> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        let process = member.process.as_mut().context("the member does not run")?;
        let status = wait_until("a member to end", PATIENCE, || Ok(process.try_wait()?))?;
        member.process = None;
        anyhow::ensure!(!status.success(), "member {index} has ended well");
        let text = self.log_of(index)?;
        let last = text.lines().count().saturating_sub(5);
        Ok(text.lines().skip(last).collect::<Vec<_>>().join("\n"))
    }

    /// Waits until a member carries out commands by the rules of this feature level.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn wait_level(&self, index: usize, level: u64) -> anyhow::Result<()> {
        wait_until(&format!("member {index} at feature level {level}"), PATIENCE, || {
            let status: serde_json::Value = serde_json::from_str(&self.get(index, "/v1/status")?)?;
            Ok((status["featureLevel"] == level).then_some(()))
        })
    }

    /// Kills a member as kill -9 does.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        member.process.take().context("the member does not run")?.kill()
    }

    /// Ends a member in good order, as SIGTERM does.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn stop(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        member.process.take().context("the member does not run")?.stop(PATIENCE)
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
        get(SocketAddr::from((member.place.host.address(), member.admin)), path, PATIENCE)
    }

    /// How many bytes a member's log takes on the disk, spare segments included.
    ///
    /// # Errors
    /// If the data directory cannot be read.
    pub fn log_bytes(&self, index: usize) -> anyhow::Result<u64> {
        let log = self.data_dir(index)?.join("log");
        let entries = std::fs::read_dir(&log).with_context(|| format!("cannot list {}", log.display()))?;
        entries.map(|entry| Ok(entry?.metadata()?.len())).sum()
    }

    /// Where a member keeps its data.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn data_dir(&self, index: usize) -> anyhow::Result<PathBuf> {
        let member = self.members.get(index).context("there is no such member")?;
        Ok(match &member.place.volume {
            // Not its root, where a file system keeps things of its own.
            Some(volume) => volume.join("data"),
            None => self.directory.path().join(index.to_string()),
        })
    }

    /// How many members there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Whether a member serves clients now.
    #[must_use]
    pub fn serves(&self, index: usize) -> bool {
        self.mode(index).is_some()
    }

    /// Whether a member's process has ended by itself.
    ///
    /// # Errors
    /// If it was not started.
    pub fn has_ended(&mut self, index: usize) -> anyhow::Result<bool> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        let process = member.process.as_mut().context("the member does not run")?;
        Ok(process.try_wait().context("cannot ask for a process")?.is_some())
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

/// What a server answers to a GET, in that time.
///
/// # Errors
/// If it does not answer, or not with success.
pub(crate) fn get(address: SocketAddr, path: &str, patience: Duration) -> anyhow::Result<String> {
    let stream = TcpStream::connect_timeout(&address, patience);
    let mut stream = stream.with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(patience)).context("cannot set a limit")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .with_context(|| format!("cannot ask {address}"))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("cannot read from {address}"))?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer has a head")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "GET {path}: {head}");
    Ok(body.to_owned())
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
