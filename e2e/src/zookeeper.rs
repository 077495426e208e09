//! An unmodified ZooKeeper client (kazoo) beside the members of an Ensemble.
//!
//! Owns how a test reaches a member: by the pod's address in the box, through a port-forward elsewhere.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::command::{Running, output, wait_until};
use crate::sandbox::Sandbox;

const CLIENT: &str = include_str!("zookeeper.py");

/// A way to one member.
pub struct Member {
    /// The pod.
    pub pod: String,
    address: String,
    /// Ends with this, if the way is a port-forward.
    _forward: Option<Running>,
}

/// Ways to all members of an Ensemble, by ordinal.
///
/// # Errors
/// If a pod has no address yet.
pub fn members(sandbox: &Sandbox<'_>, ensemble: &str) -> anyhow::Result<Vec<Member>> {
    let selector = format!("app.kubernetes.io/component=ensemble,app.kubernetes.io/instance={ensemble}");
    let mut pods = sandbox.list("pods", &selector)?;
    pods.sort_by_key(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    pods.iter()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if sandbox.cluster.reaches_pods() {
                let ip = pod["status"]["podIP"].as_str().with_context(|| format!("{name} has no address"))?;
                return Ok(Member { pod: name, address: format!("{ip}:2181"), _forward: None });
            }
            forward(sandbox, name)
        })
        .collect()
}

fn forward(sandbox: &Sandbox<'_>, pod: String) -> anyhow::Result<Member> {
    let mut command = sandbox.cluster.command("kubectl");
    command.args(["--namespace", &sandbox.name, "port-forward", &format!("pod/{pod}"), ":2181"]);
    let mut forward = Running::start(command.stdout(Stdio::piped()))?;
    let stdout = forward.stdout.take().context("kubectl's stdout is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("cannot read what kubectl says")?;
    // `Forwarding from 127.0.0.1:40123 -> 2181`
    let Some(address) = line.split_whitespace().nth(2) else { bail!("kubectl port-forward says: {line}") };
    Ok(Member { pod, address: address.to_owned(), _forward: Some(forward) })
}

/// Sets a znode's data, making it if need be.
///
/// # Errors
/// If the client gives up.
pub fn put(sandbox: &Sandbox<'_>, members: &[&Member], path: &str, data: &str) -> anyhow::Result<()> {
    output(&mut client(sandbox, members, &["put"], &[path, data])).map(drop)
}

/// Reads a znode's data after a `sync`.
///
/// # Errors
/// If the client gives up or there is no such znode.
pub fn get(sandbox: &Sandbox<'_>, members: &[&Member], path: &str) -> anyhow::Result<String> {
    Ok(output(&mut client(sandbox, members, &["get"], &[path]))?.trim_end().to_owned())
}

/// The paths of a znode's children after a `sync`, in order.
///
/// # Errors
/// If the client gives up or there is no such znode.
pub fn children(sandbox: &Sandbox<'_>, members: &[&Member], path: &str) -> anyhow::Result<Vec<String>> {
    let text = output(&mut client(sandbox, members, &["children"], &[path]))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// A client that creates znodes one after the other and notes which were acknowledged.
pub struct Writer {
    child: Running,
    path: String,
    log: tempfile::NamedTempFile,
}

impl Writer {
    /// Starts it; it stops by itself after `count`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(sandbox: &Sandbox<'_>, members: &[&Member], path: &str, count: u32) -> anyhow::Result<Self> {
        let log = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        let file = log.reopen().context("cannot open a temporary file")?;
        let mut command = client(sandbox, members, &["write"], &[path, &count.to_string()]);
        let child = Running::start(command.stdin(Stdio::null()).stdout(file))?;
        Ok(Self { child, path: path.to_owned(), log })
    }

    /// The paths acknowledged so far.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn acknowledged(&self) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.log.path()).context("cannot read the writer's log")?;
        // The last line may be half written.
        Ok(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect())
    }

    /// Waits until there are `count` more acknowledged writes than now.
    ///
    /// # Errors
    /// If there are none for a minute.
    pub fn goes_on(&self, count: usize) -> anyhow::Result<()> {
        let goal = self.acknowledged()?.len() + count;
        wait_until("more acknowledged writes", Duration::from_secs(60), || {
            Ok((self.acknowledged()?.len() >= goal).then_some(()))
        })
    }

    /// Tells it to end, by a znode beside its own, and gives what was acknowledged.
    ///
    /// # Errors
    /// If it failed or takes longer than `limit`.
    pub fn end(
        self,
        sandbox: &Sandbox<'_>,
        members: &[&Member],
        limit: Duration,
    ) -> anyhow::Result<Vec<String>> {
        put(sandbox, members, &format!("{}-end", self.path), "")?;
        self.finish(limit)
    }

    /// Waits for its end and gives what was acknowledged.
    ///
    /// # Errors
    /// If it failed or takes longer than `limit`.
    pub fn finish(mut self, limit: Duration) -> anyhow::Result<Vec<String>> {
        let status = wait_until("the end of the writer", limit, || {
            self.child.try_wait().context("cannot wait for the client")
        })?;
        anyhow::ensure!(status.success(), "the writer failed: {status}");
        self.acknowledged()
    }
}

fn client(sandbox: &Sandbox<'_>, members: &[&Member], command: &[&str], args: &[&str]) -> Command {
    let hosts = members.iter().map(|member| member.address.as_str()).collect::<Vec<_>>().join(",");
    let mut python = sandbox.cluster.python(CLIENT);
    python.args(command).arg(hosts).args(args);
    python
}
