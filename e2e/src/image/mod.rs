//! Container images, written without a container engine or a registry.
//!
//! Owns what is in our images. An image is an OCI archive that `ctr images import` takes; its tag is a hash of its
//! content, so that the same tag is always the same program.

mod oci;
mod root;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::command::output;
use crate::environment::our_binaries;
use oci::{Image, Layer};

/// An archive, and the name it has once it is imported.
pub struct Archive {
    /// The image's repository.
    pub repository: String,
    /// A hash of the content.
    pub tag: String,
    /// The file.
    pub path: PathBuf,
}

/// The user that our images run as.
const USER: &str = "65532:65532";

/// Builds the images of the node and of the operator in `out`.
///
/// # Errors
/// If a binary, a Debian package or a library is missing.
pub fn ours(out: &Path) -> anyhow::Result<Vec<Archive>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let binaries = our_binaries()?;
    ["pharos-node", "pharos-operator"]
        .iter()
        .map(|name| of_program(name, &binaries.join(name), out))
        .collect()
}

/// Builds an image that runs one program and has the libraries that it is linked to.
///
/// # Errors
/// If a Debian package or a library is missing.
pub fn of_program(name: &str, program: &Path, out: &Path) -> anyhow::Result<Archive> {
    let stripped = out.join(format!("{name}.stripped"));
    output(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(program))?;
    let mut layer = Layer::new();
    layer.directory("usr/bin")?;
    layer.file(&format!("usr/bin/{name}"), 0o755, &read(&stripped)?)?;
    std::fs::remove_file(&stripped).with_context(|| format!("cannot remove {}", stripped.display()))?;
    // Two layers: what changes with each build comes last and alone.
    let layers = vec![root::layer(program)?.finish()?, layer.finish()?];
    let image = Image { entrypoint: format!("/usr/bin/{name}"), user: USER, layers };
    let repository = format!("pharos.local/{name}");
    let tag = image.tag();
    let path = out.join(format!("{name}.tar"));
    image.write(&path, &format!("{repository}:{tag}"))?;
    Ok(Archive { repository, tag, path })
}

/// Builds the image that holds a pod's namespaces.
pub(crate) fn pause(out: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (out.join("pause.c"), out.join("pause"));
    std::fs::write(&source, include_str!("pause.c")).context("cannot write pause.c")?;
    output(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).args([&program, &source]))?;
    let mut layer = Layer::new();
    layer.file("pause", 0o755, &read(&program)?)?;
    let image = Image { entrypoint: "/pause".to_owned(), user: USER, layers: vec![layer.finish()?] };
    let path = out.join("pause.tar");
    image.write(&path, crate::kubebox::PAUSE_IMAGE)?;
    Ok(path)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
