//! Debian packages, each with the file that shows it is there.
//!
//! The probe is a file and not dpkg's database, so that a machine that has the program from elsewhere is left alone.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::shell::{run_quietly, say};

/// A package, and what it brings: a program's name, or an absolute path in which `*` stands for one directory.
pub(crate) type Package = (&'static str, &'static str);

pub(crate) const CPP: &[Package] = &[
    ("g++", "g++"),
    ("clang", "clang"),
    ("libclang-dev", "/usr/lib/*/lib/libclang.so"),
    ("ccache", "ccache"),
    ("make", "make"),
];

pub(crate) const KUBERNETES: &[Package] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    ("ethtool", "ethtool"),
    ("kmod", "modprobe"),
    ("iproute2", "ip"),
    ("procps", "sysctl"),
    ("util-linux", "nsenter"),
    ("openssl", "openssl"),
    ("binutils", "strip"),
    ("mount", "mount"),
];

pub(crate) const NETWORKS: &[Package] = &[
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("util-linux", "unshare"),
    ("mount", "mount"),
    ("e2fsprogs", "mkfs.ext4"),
];

pub(crate) const CLOCKS: &[Package] = &[("libfaketime", "/usr/lib/*/faketime/libfaketime.so.1")];

pub(crate) const PYTHON_INTERPRETER: &[Package] = &[("python3", "python3")];

// ensurepip comes with Debian's python3-venv alone; other Pythons have it built in.
pub(crate) const PYTHON: &[Package] =
    &[("python3", "python3"), ("python3-venv", "python3 -c import ensurepip, venv")];

pub(crate) const NPM: &[Package] = &[("npm", "npm")];

pub(crate) const JAVA: &[Package] = &[("default-jre-headless", "java"), ("maven", "mvn")];

pub(crate) const JDK: &[Package] = &[("default-jdk-headless", "javac")];

/// Installs those of `packages` that are missing.
pub(crate) fn ensure(packages: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, probe)| !present(probe)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !on_path("apt-get") {
        bail!("missing on this machine, which has no apt-get to install it with: {list}");
    }
    let sudo = match (is_root(), on_path("sudo")) {
        (true, _) => None,
        (false, true) => Some("sudo"),
        (false, false) => bail!("not root, and no sudo; as root: apt-get install {list}"),
    };
    say(&format!("installing {list}"));
    if install(sudo, &missing).is_err() {
        // The package lists may be missing or old.
        run_quietly(&mut apt_get(sudo, &["update", "-qq"]))?;
        install(sudo, &missing)?;
    }
    Ok(())
}

fn install(sudo: Option<&str>, packages: &[&str]) -> anyhow::Result<()> {
    let mut command = apt_get(sudo, &["install", "-y", "-qq", "--no-install-recommends"]);
    run_quietly(command.args(packages))
}

fn apt_get(sudo: Option<&str>, args: &[&str]) -> Command {
    let mut command = match sudo {
        Some(sudo) => {
            let mut command = Command::new(sudo);
            command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        }
        None => Command::new("apt-get"),
    };
    command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    command
}

fn present(probe: &str) -> bool {
    if let Some((program, args)) = probe.split_once(" -c ") {
        return on_path(program)
            && Command::new(program).args(["-c", args]).output().is_ok_and(|out| out.status.success());
    }
    match probe.split_once("/*/") {
        Some((before, after)) => std::fs::read_dir(before)
            .is_ok_and(|dirs| dirs.flatten().any(|dir| dir.path().join(after).exists())),
        None if probe.starts_with('/') => Path::new(probe).exists(),
        None => on_path(probe),
    }
}

/// Whether a program is found on PATH.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}
