//! The real ZooKeeper: its jars from the Maven repository by `mvn`, pinned, cached; one standalone server per value.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::command::Running;
use crate::local::{free_ports, mode};
use crate::netns::Host;

pub(crate) const VERSION: &str = "3.9.4";
/// What the server's jar does not bring along itself.
const DEPENDENCIES: [(&str, &str, &str); 7] = [
    ("org.apache.zookeeper", "zookeeper", VERSION),
    ("org.xerial.snappy", "snappy-java", "1.1.10.7"),
    ("io.dropwizard.metrics", "metrics-core", "4.2.33"),
    ("org.eclipse.jetty", "jetty-server", "9.4.57.v20241219"),
    ("org.eclipse.jetty", "jetty-servlet", "9.4.57.v20241219"),
    ("commons-cli", "commons-cli", "1.9.0"),
    ("com.fasterxml.jackson.core", "jackson-databind", "2.18.0"),
];
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct RealZooKeeper {
    process: Running,
    address: SocketAddr,
    dir: TempDir,
}

impl RealZooKeeper {
    /// Starts a standalone server on a free port of the loopback, in a temporary directory; it has nodes with a time to
    /// live, as ours from the second feature level on.
    pub fn start() -> Result<Self> {
        let jars = jars()?;
        let [port] = free_ports()?;
        let dir = tempfile::Builder::new().prefix("zookeeper-").tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = dir.path().join("zoo.cfg");
        fs::write(&config, zoo_cfg(dir.path(), address.port()))?;
        let log = fs::File::create(dir.path().join("log"))?;
        let options = ["-Xmx256m", "-Dzookeeper.forceSync=no", "-Dzookeeper.extendedTypesEnabled=true"];
        let mut command = server(&Host::loopback(), &jars, &options, &config);
        let process = Running::start(command.stdout(log.try_clone()?).stderr(log))?;
        let mut server = Self { process, address, dir };
        server.wait()?;
        Ok(server)
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.serves() {
            if let Some(status) = self.process.try_wait()? {
                bail!("zookeeper ended with {status}: {}", self.log());
            }
            ensure!(start.elapsed() < START_PATIENCE, "zookeeper does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn serves(&self) -> bool {
        mode(self.address).is_some()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A server that ends with the thread that starts it.
pub(crate) fn server(host: &Host, jars: &Path, options: &[&str], config: &Path) -> Command {
    let mut command = host.command("java");
    command.args(options).arg("-Dzookeeper.admin.enableServer=false");
    command.arg("-cp").arg(format!("{}/*", jars.display()));
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn zoo_cfg(dir: &Path, port: u16) -> String {
    format!(
        "tickTime=2000\nclientPort={port}\nclientPortAddress=127.0.0.1\ndataDir={}\nmaxClientCnxns=0\n",
        dir.join("data").display()
    )
}

/// The directory of the jars; fetched on the first call of a machine. Others may be fetching too: each into a directory
/// of its own, and the first to finish gives it its name.
pub(crate) fn jars() -> Result<PathBuf> {
    let home = cache_home()?.join("pharos").join(format!("zookeeper-{VERSION}"));
    let jars = home.join("lib");
    if jars.is_dir() {
        return Ok(jars);
    }
    fs::create_dir_all(&home)?;
    let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(&home)?;
    fs::write(work.path().join("pom.xml"), pom())?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"])
        .current_dir(work.path())
        .output()
        .context("running mvn; is it installed?")?;
    ensure!(output.status.success(), "mvn failed: {}", String::from_utf8_lossy(&output.stdout));
    if let Err(e) = fs::rename(work.path().join("lib"), &jars)
        && !jars.is_dir()
    {
        return Err(e).with_context(|| format!("moving the jars to {}", jars.display()));
    }
    Ok(jars)
}

fn cache_home() -> Result<PathBuf> {
    match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => Ok(dir.into()),
        _ => Ok(PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache")),
    }
}

fn pom() -> String {
    let dependency = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>pharos</groupId><artifactId>zookeeper</artifactId>\
         <version>1</version><packaging>pom</packaging><dependencies>{}</dependencies></project>",
        DEPENDENCIES.map(dependency).concat()
    )
}
