//! Machines of their own for servers: network namespaces on one bridge, between which packets are lost at will.
//!
//! Owns namespaces, addresses and what is dropped. Must not know who runs there. Invariant: all of it hangs on one thread
//! and on the processes started from there, so nothing on the machine changes, and what a killed run leaves goes with its
//! processes.

#![allow(unsafe_code)] // The standard library cannot leave a namespace.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::command::output;

/// Where the hosts reach the machine that they hang on. From the range set aside for benchmarks (RFC 2544): nothing real is
/// hidden by it.
pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 254);
const MOST_HOSTS: usize = 200;

const BEGIN: &str = r#"
set -e
mount --make-rprivate /
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip link add hosts type bridge
ip address add "$1/24" dev hosts
ip link set hosts up
"#;

const ADD: &str = r#"
set -e
ip netns add "$1"
ip link add "$1" type veth peer name eth0 netns "$1"
ip link set "$1" master hosts up
ip -n "$1" address add "$2/24" dev eth0
ip -n "$1" link set lo up
ip -n "$1" link set eth0 up
"#;

/// Runs `work` on a thread in network and mount namespaces of its own, which all that it starts are in, too. Whoever is
/// to reach the hosts of a [`Network`] has to be started from there.
///
/// # Errors
/// If there can be no namespaces, which need root, or `work` fails.
///
/// # Panics
/// If `work` does.
pub fn isolated<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let inside = || {
        leave().context("cannot make namespaces, which needs root")?;
        output(Command::new("sh").args(["-c", BEGIN, "network"]).arg(BRIDGE.to_string()))?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Whether this process may make namespaces.
#[must_use]
pub fn is_allowed() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn leave() -> io::Result<()> {
    // SAFETY: the call takes a plain integer and changes the calling thread alone.
    match unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Hosts on one bridge. This thread and those it starts reach all of them, whatever is lost between them.
#[derive(Debug, Default)]
pub struct Network {
    hosts: Vec<Host>,
}

impl Network {
    /// So many hosts. There is one network for each [`isolated`].
    ///
    /// # Errors
    /// If this thread is not isolated.
    pub fn new(size: usize) -> anyhow::Result<Self> {
        let mut this = Self::default();
        (0..size).try_for_each(|_| this.add().map(drop))?;
        Ok(this)
    }

    /// One more host.
    ///
    /// # Errors
    /// If this thread is not isolated, or there are too many.
    pub fn add(&mut self) -> anyhow::Result<Host> {
        let number = self.hosts.len();
        ensure!(number < MOST_HOSTS, "there are {MOST_HOSTS} hosts already");
        let address = Ipv4Addr::new(198, 18, 0, u8::try_from(number + 1).context("a host's number")?);
        let host = Host { namespace: Some(format!("host{number}")), address };
        let name = host.namespace.as_deref().unwrap_or_default();
        output(Command::new("sh").args(["-c", ADD, "host", name]).arg(address.to_string()))?;
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// The hosts, in the order in which they were made.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// From here on nothing that `from` sends reaches `to`. The other direction is as it was.
    ///
    /// # Errors
    /// If there are no such hosts.
    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let source = self.host(from)?.address.to_string();
        // Where it arrives, so that the sender is told nothing.
        let mut drop_all = self.host(to)?.command("iptables");
        output(drop_all.args(["-w", "-A", "INPUT", "-s", &source, "-j", "DROP"])).map(drop)
    }

    /// From here on whoever connects to that port of the machine that the hosts hang on is refused, and connections that
    /// there are break.
    ///
    /// # Errors
    /// If this thread is not isolated.
    pub fn refuse(&self, port: u16) -> anyhow::Result<()> {
        rejects("-A", port)
    }

    /// The port serves again.
    ///
    /// # Errors
    /// If it was not refused.
    pub fn serve(&self, port: u16) -> anyhow::Result<()> {
        rejects("-D", port)
    }

    /// Everything arrives again.
    ///
    /// # Errors
    /// If the rules cannot be removed.
    pub fn heal(&self) -> anyhow::Result<()> {
        for host in &self.hosts {
            output(host.command("iptables").args(["-w", "-F", "INPUT"]))?;
        }
        Ok(())
    }

    fn host(&self, index: usize) -> anyhow::Result<&Host> {
        self.hosts.get(index).with_context(|| format!("there is no host {index}"))
    }
}

fn rejects(change: &str, port: u16) -> anyhow::Result<()> {
    let mut rule = Command::new("iptables");
    rule.args(["-w", change, "INPUT", "-p", "tcp", "--dport", &port.to_string()]);
    output(rule.args(["-j", "REJECT", "--reject-with", "tcp-reset"])).map(drop)
}

/// Where a server runs.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Option<String>,
    address: Ipv4Addr,
}

impl Host {
    /// This machine's own loopback.
    #[must_use]
    pub const fn loopback() -> Self {
        Self { namespace: None, address: Ipv4Addr::LOCALHOST }
    }

    /// Where its servers are reached.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program to run there. It ends with the thread that starts it, should that be killed.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(namespace) = &self.namespace {
            command.args(["nsenter", &format!("--net=/run/netns/{namespace}"), "--"]);
        }
        command.arg(program.as_ref());
        command
    }
}
