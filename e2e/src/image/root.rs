//! The root file system below our programs: the libraries they are linked to, certificate authorities, time zones.
//!
//! All of it from Debian packages of this machine's own release, unpacked beside it and kept in the cache: what the
//! program was linked against is what it runs with, and nothing of the machine's own state gets in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command::output;
use crate::environment::cache;
use crate::image::oci::Layer;

const PACKAGES: [&str; 5] = ["ca-certificates", "libc6", "libgcc-s1", "libstdc++6", "tzdata"];

const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\npharos:x:65532:65532:pharos:/:/sbin/nologin\n"),
    ("etc/group", "root:x:0:\npharos:x:65532:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

/// The layer that `program` needs below it.
pub(super) fn layer(program: &Path) -> anyhow::Result<Layer> {
    let unpacked = packages()?;
    let mut layer = Layer::new();
    for directory in ["etc/ssl/certs", "usr/lib", "usr/lib64", "usr/share"] {
        layer.directory(directory)?;
    }
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("bin", "usr/bin")] {
        layer.link(link, target)?;
    }
    for (path, content) in FILES {
        layer.file(path, 0o644, content.as_bytes())?;
    }
    for library in libraries(program)? {
        let from = find(&unpacked, &library)?;
        let content = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let merged = library.strip_prefix("/usr").unwrap_or(&library);
        let path = Path::new("usr").join(merged.strip_prefix("/").unwrap_or(merged));
        let directory = path.parent().context("a library has a directory")?;
        layer.directory(&directory.to_string_lossy())?;
        layer.file(&path.to_string_lossy(), 0o755, &content)?;
    }
    layer.file("etc/ssl/certs/ca-certificates.crt", 0o644, &certificate_authorities(&unpacked)?)?;
    tree(&mut layer, &unpacked, Path::new("usr/share/zoneinfo"))?;
    Ok(layer)
}

/// Debian's packages, unpacked into one directory.
fn packages() -> anyhow::Result<PathBuf> {
    let release = fs::read_to_string("/etc/debian_version")
        .context("images are made of Debian's packages, and this machine is not Debian")?;
    let home =
        cache()?.join(format!("debian-{}-{}", release.trim().replace('/', "-"), std::env::consts::ARCH));
    let complete = home.join("complete");
    let root = home.join("root");
    if complete.exists() {
        return Ok(root);
    }
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let mut download = Command::new("apt-get");
    download.current_dir(&home).args(["download", "-qq"]).args(PACKAGES);
    if output(&mut download).is_err() {
        // The package lists may be missing or old.
        output(Command::new("apt-get").args(["update", "-qq"]))?;
        output(&mut download)?;
    }
    for entry in fs::read_dir(&home).with_context(|| format!("cannot list {}", home.display()))?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&root))?;
            fs::remove_file(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(root)
}

/// The libraries of a program and its loader, where the loader finds them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = output(Command::new("ldd").arg(program))?;
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), missing.trim());
    }
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or for the loader its path alone.
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}

fn find(root: &Path, library: &Path) -> anyhow::Result<PathBuf> {
    let relative = library.strip_prefix("/").unwrap_or(library);
    let merged = relative.strip_prefix("usr").unwrap_or(relative);
    let found =
        [root.join(merged), root.join("usr").join(merged)].into_iter().find_map(|path| real(root, &path));
    found.with_context(|| format!("{} is in none of the packages {}", library.display(), PACKAGES.join(", ")))
}

/// Follows a package's links, which are meant relative to its root.
fn real(root: &Path, path: &Path) -> Option<PathBuf> {
    let Ok(target) = fs::read_link(path) else { return path.is_file().then(|| path.to_path_buf()) };
    let next = match target.strip_prefix("/") {
        Ok(absolute) => root.join(absolute),
        Err(_) => path.parent()?.join(target),
    };
    real(root, &next)
}

fn certificate_authorities(root: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bundle = Vec::new();
    for path in sorted(&root.join("usr/share/ca-certificates/mozilla"))? {
        bundle.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(bundle)
}

fn tree(layer: &mut Layer, root: &Path, directory: &Path) -> anyhow::Result<()> {
    layer.directory(&directory.to_string_lossy())?;
    for path in sorted(&root.join(directory))? {
        let name = path.strip_prefix(root).context("a file is below its root")?;
        let text = name.to_string_lossy();
        if path.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
            layer.link(&text, &target.to_string_lossy())?;
        } else if path.is_dir() {
            tree(layer, root, name)?;
        } else {
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            layer.file(&text, 0o644, &content)?;
        }
    }
    Ok(())
}

fn sorted(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}
