//! Starting the program.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// Free ports for a member. Its permit may appear in `permit.json`.
pub(crate) const MEMBER: [&str; 13] = [
    "ensemble",
    "--data-dir",
    "data",
    "--permit-file",
    "permit.json",
    "--client-addr",
    "127.0.0.1:0",
    "--peer-addr",
    "127.0.0.1:0",
    "--admin-addr",
    "127.0.0.1:0",
    "--metrics-addr",
    "127.0.0.1:0",
];

/// The program, or this run's copy of it.
pub(crate) fn program() -> PathBuf {
    match std::env::var_os("PHAROS_BIN_DIR") {
        Some(dir) => Path::new(&dir).join("pharos-node"),
        None => PathBuf::from(env!("CARGO_BIN_EXE_pharos-node")),
    }
}

/// A run that has ended by itself.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Ended with exit code 2, and said each of these.
    #[track_caller]
    pub(crate) fn is_refused(&self, said: &[&str]) {
        assert_eq!(self.code, Some(2), "{}{}", self.stdout, self.stderr);
        for text in said {
            assert!(self.stderr.contains(text), "{text:?} is not in {}", self.stderr);
        }
    }
}

/// Runs the program in a directory to its end; one that does not end is killed, and its code is 124.
pub(crate) fn run<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Ended {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "60"]).arg(program()).args(args);
    ended(&mut command, dir)
}

/// Runs a command in a directory, which is also where it makes temporary files.
pub(crate) fn ended(command: &mut Command, dir: &Path) -> Ended {
    let Output { status, stdout, stderr } =
        command.current_dir(dir).env("TMPDIR", dir).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// The names in a directory, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A member that runs until this is dropped.
pub(crate) struct Member {
    child: Child,
    log: BufReader<ChildStderr>,
    pub(crate) admin: SocketAddr,
}

impl Member {
    /// Starts it and waits until it listens.
    pub(crate) fn start(dir: &Path) -> Self {
        // Ends with this thread, should it be killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program()).args(MEMBER).current_dir(dir);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = line_with(&mut log, " listening ");
        let (_, admin) = line.trim_end().rsplit_once("admin=").unwrap();
        Self { child, log, admin: admin.parse().unwrap() }
    }

    /// Waits until its log says this.
    pub(crate) fn wait_for(&mut self, text: &str) {
        line_with(&mut self.log, text);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn line_with(log: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        assert!(log.read_line(&mut seen).unwrap() > 0, "ended without {text:?}: {seen}");
        if seen[start..].contains(text) {
            return seen.split_off(start);
        }
    }
}
