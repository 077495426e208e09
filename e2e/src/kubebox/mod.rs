//! A one-node Kubernetes in namespaces of its own.
//!
//! Owns the order of the bring-up and the take-down. Everything runs below one process that is pid 1 of its own pid,
//! mount and network namespaces: no port, route, firewall rule or mount touches the machine, and killing that one
//! process ends the whole cluster, containers included. What remains then are a data directory and cgroups of a random
//! name, which `down` and `sweep` remove.

mod certificates;
mod cgroup;
mod control_plane;
mod dns;
mod namespace;
mod network;
mod node;
mod object_store;
mod volumes;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::command::{output, output_with_input};
use crate::environment::{self, Environment};
pub use namespace::Lifetime;
pub(crate) use node::PAUSE_IMAGE;
pub(crate) use object_store::make_bucket;
pub use object_store::{BUCKET, ENDPOINT};

const PREFIX: &str = "pharos-box-";

/// A box that is up.
pub struct KubeBox {
    dir: PathBuf,
    init: u32,
    tools: Environment,
}

impl KubeBox {
    /// Brings a box up; it has a Ready node when this returns.
    ///
    /// # Errors
    /// If any part does not come up; the box is taken down again then.
    pub fn up(tools: Environment, lifetime: Lifetime) -> anyhow::Result<Self> {
        sweep();
        let dir =
            tempfile::Builder::new().prefix(PREFIX).tempdir().context("cannot make a directory")?.keep();
        let init = namespace::start(&dir, lifetime)?;
        let this = Self { dir, init, tools };
        match this.bring_up() {
            Ok(()) => Ok(this),
            Err(error) => {
                let logs = this.log_tails();
                // Kept for inspection would be kind, but what nobody removes fills the disk.
                this.down().context("cannot take the failed box down")?;
                Err(error.context(format!("the box does not come up\n{logs}")))
            }
        }
    }

    fn bring_up(&self) -> anyhow::Result<()> {
        let cgroup = cgroup::create(&self.dir)?;
        network::configure(self)?;
        certificates::make(&self.dir.join("pki"))?;
        object_store::start(self)?;
        node::start_containerd(self)?;
        control_plane::start(self)?;
        node::start_kubelet(self, &cgroup)?;
        node::start_proxy(self)?;
        self.import(&crate::image::pause(&self.dir)?)?;
        dns::start(self)?;
        volumes::create(self)?;
        node::wait_ready(self)?;
        object_store::make_own_bucket(self)
    }

    /// The box that `./x box up` left, if it is still up.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn current(tools: Environment) -> anyhow::Result<Option<Self>> {
        Ok(current()?.map(|(dir, init)| Self { dir, init, tools }))
    }

    /// Makes this the box that `current` finds.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn make_current(&self) -> anyhow::Result<()> {
        let file = current_file()?;
        std::fs::write(&file, self.dir.to_string_lossy().as_bytes())
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Kills everything in the box and removes what it left.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn down(self) -> anyhow::Result<()> {
        take_down(&self.dir, self.init)
    }

    /// A program in the box's namespaces, with kubectl and helm on PATH and configured.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = namespace::enter(self.init);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.tools.kube_bin.display()))
            .env("KUBECONFIG", self.kubeconfig("admin"))
            .env("HELM_CACHE_HOME", self.dir.join("helm"))
            .env("HELM_CONFIG_HOME", self.dir.join("helm"))
            .env("HELM_DATA_HOME", self.dir.join("helm"))
            .arg(program);
        command
    }

    /// Imports an OCI archive into the node's image store.
    ///
    /// # Errors
    /// If containerd refuses it.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let mut command = self.command("ctr");
        command.arg("-a").arg(self.containerd_socket()).args(["-n", "k8s.io", "images", "import"]);
        output(command.arg(archive)).map(drop)
    }

    /// Makes local volumes whose claims are gone anew, empty.
    ///
    /// # Errors
    /// If the API server or the file system refuses.
    pub fn recycle_volumes(&self) -> anyhow::Result<()> {
        volumes::recycle(self)
    }

    /// The directory with the logs of the control plane and the node.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn containerd_socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join("pki").join(format!("{user}.kubeconfig"))
    }

    fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        output(self.command("kubectl").args(args))
    }

    fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        let mut command = self.command("kubectl");
        output_with_input(command.args(["apply", "--server-side", "-f", "-"]), manifests).map(drop)
    }

    /// Starts a program that stays, its output going to a log of its name.
    fn daemon(&self, name: &str, args: &[String]) -> anyhow::Result<()> {
        self.daemon_at(name, Path::new(name), args)
    }

    fn daemon_at(&self, name: &str, program: &Path, args: &[String]) -> anyhow::Result<()> {
        let log = self.logs().join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let errors = file.try_clone().context("cannot share a log file")?;
        self.command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            // Of its own, or the terminal's Ctrl-C would reach it.
            .process_group(0)
            .spawn()
            .map(drop)
            .with_context(|| format!("cannot start {name}"))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn log_tails(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.logs()).into_iter().flatten().flatten() {
            let log = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
            text += &format!("--- {}\n{}\n", entry.file_name().to_string_lossy(), tail.join("\n"));
        }
        text
    }
}

/// Takes the box down that `./x box up` left, if it is up, and removes what it and killed ones left.
///
/// # Errors
/// If something cannot be removed.
pub fn down_current() -> anyhow::Result<()> {
    if let Some((dir, init)) = current()? {
        take_down(&dir, init)?;
    }
    sweep();
    Ok(())
}

fn current() -> anyhow::Result<Option<(PathBuf, u32)>> {
    let Ok(dir) = std::fs::read_to_string(current_file()?) else { return Ok(None) };
    let dir = PathBuf::from(dir);
    Ok(namespace::alive(&dir).map(|init| (dir, init)))
}

fn take_down(dir: &Path, init: u32) -> anyhow::Result<()> {
    namespace::kill(init)?;
    clean(dir)
}

/// Removes what boxes left whose processes are gone.
pub fn sweep() {
    let entries = std::fs::read_dir(std::env::temp_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let dir = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // A box without a file of its pid is one that is just being made.
        if ours && namespace::was_started(&dir) && namespace::alive(&dir).is_none() {
            let _ = clean(&dir);
        }
    }
}

fn clean(dir: &Path) -> anyhow::Result<()> {
    cgroup::remove(dir)?;
    std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

fn current_file() -> anyhow::Result<PathBuf> {
    Ok(environment::cache()?.join("box"))
}

/// How long any part of the bring-up may take: it takes seconds on an idle machine, and machines are not idle.
const PATIENCE: Duration = Duration::from_secs(180);
