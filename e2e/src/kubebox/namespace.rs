//! The namespaces a box lives in, and the process whose end is the box's end.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::command::wait_until;

/// How long a box lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until this process ends, however it ends.
    Process,
    /// Until it is taken down.
    Detached,
}

/// Pid 1 of the box. `/run/netns` holds the pods' network namespaces; kubelet needs shared mounts, which inside this
/// mount namespace are shared with nobody else. It reaps the orphans of containers.
const INIT: &str = r#"
mount --make-rprivate / && mount -t proc proc /proc && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns &&
mount --make-rshared / && : > "$1/started" || exit 1
trap 'exit 0' TERM
while :; do sleep 1 & wait $!; done
"#;

/// Starts the box's first process and gives its pid outside.
pub(super) fn start(dir: &Path, lifetime: Lifetime) -> anyhow::Result<u32> {
    std::fs::create_dir_all(dir.join("log")).with_context(|| format!("cannot make {}/log", dir.display()))?;
    let log = std::fs::File::create(dir.join("log/init.log")).context("cannot create init.log")?;
    let mut command = match lifetime {
        Lifetime::Process => {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "unshare"]);
            command
        }
        Lifetime::Detached => Command::new("unshare"),
    };
    command.args(["--pid", "--mount", "--net", "--fork", "--kill-child", "sh", "-c", INIT, "init"]).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let unshare = spawn_on_lasting_thread(command)?;
    let init = wait_until("the box's first process", Duration::from_secs(20), || {
        if !Path::new("/proc").join(unshare.to_string()).join("exe").exists() {
            let why = std::fs::read_to_string(dir.join("log/init.log")).unwrap_or_default();
            bail!("cannot make namespaces, which needs root: {}", why.trim());
        }
        Ok(dir.join("started").exists().then(|| only_child(unshare)).flatten())
    })?;
    std::fs::write(dir.join("pid"), format!("{init} {}", start_time(init).unwrap_or_default()))
        .context("cannot write the box's pid")?;
    Ok(init)
}

/// The kernel ties "when my parent dies" to the parent's thread, and a test's thread ends with the test.
fn spawn_on_lasting_thread(mut command: Command) -> anyhow::Result<u32> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let child = command.spawn();
        let _ = send.send(child.as_ref().map(Child::id).map_err(ToString::to_string));
        if let Ok(mut child) = child {
            let _ = child.wait();
        }
    });
    match receive.recv().context("the thread that starts the box is gone")? {
        Ok(pid) => Ok(pid),
        Err(error) => bail!("cannot start unshare: {error}"),
    }
}

fn only_child(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// When a process was started, which tells it from a later one of the same pid.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19).map(str::to_owned)
}

/// Whether the box in `dir` got as far as having a first process.
pub(super) fn was_started(dir: &Path) -> bool {
    dir.join("pid").exists()
}

/// The pid of the first process of the box in `dir`, if it still runs.
pub(super) fn alive(dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(dir.join("pid")).ok()?;
    let (pid, started) = text.split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid)? == started).then_some(pid)
}

/// A command that runs in the namespaces.
pub(super) fn enter(init: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &init.to_string(), "-m", "-p", "-n", "--"]);
    command
}

/// Kills the first process, and so all of them.
pub(super) fn kill(init: u32) -> anyhow::Result<()> {
    crate::command::raw_output(Command::new("kill").args(["-9", &init.to_string()]))?;
    wait_until("the end of the box", Duration::from_secs(30), || {
        Ok((!Path::new("/proc").join(init.to_string()).join("exe").exists()).then_some(()))
    })
}
