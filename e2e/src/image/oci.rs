//! The OCI image layout in one tar file.
//!
//! Invariant: the same content gives the same bytes: no times, no owners but root, entries in the order they were
//! added.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A part of a root file system.
pub(super) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(super) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds a directory and those above it.
    pub(super) fn directory(&mut self, path: &str) -> anyhow::Result<()> {
        let mut so_far = String::new();
        for part in path.split('/') {
            so_far += part;
            so_far.push('/');
            self.add(&so_far, EntryType::Directory, 0o755, &[])?;
        }
        Ok(())
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.add(path, EntryType::Regular, mode, content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).with_context(|| format!("cannot add {path} to a layer"))
    }

    fn add(&mut self, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let mut header = header(kind, mode, content.len());
        self.0
            .append_data(&mut header, path, content)
            .with_context(|| format!("cannot add {path} to a layer"))
    }

    pub(super) fn finish(self) -> anyhow::Result<Vec<u8>> {
        self.0.into_inner().context("cannot finish a layer")
    }
}

/// An image for this machine's architecture.
pub(super) struct Image {
    pub(super) entrypoint: String,
    pub(super) user: &'static str,
    pub(super) layers: Vec<Vec<u8>>,
}

impl Image {
    /// A short hash of the content.
    pub(super) fn tag(&self) -> String {
        digest(&self.config()).chars().take(12).collect()
    }

    /// Writes the archive; importing it gives the image `name`.
    pub(super) fn write(&self, path: &Path, name: &str) -> anyhow::Result<()> {
        let config = self.config();
        let layers: Vec<_> = self.layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
        let manifest = to_bytes(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config), "layers": layers,
        }));
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        let index = to_bytes(&json!({"schemaVersion": 2, "manifests": [entry]}));

        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut archive = Builder::new(std::io::BufWriter::new(file));
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", &index)?;
        for blob in self.layers.iter().chain([&config, &manifest]) {
            append(&mut archive, &format!("blobs/sha256/{}", digest(blob)), blob)?;
        }
        archive
            .into_inner()
            .and_then(|mut file| file.flush())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn config(&self) -> Vec<u8> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let layers: Vec<_> = self.layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
        to_bytes(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [self.entrypoint],
                "Env": ["PATH=/usr/bin"],
                "User": self.user,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": layers},
        }))
    }
}

fn append<W: Write>(archive: &mut Builder<W>, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len());
    archive
        .append_data(&mut header, name, content)
        .with_context(|| format!("cannot add {name} to an archive"))
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", digest(blob)), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    hex::encode(Sha256::digest(blob))
}

fn to_bytes(value: &serde_json::Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(content: &[u8]) -> Image {
        let mut layer = Layer::new();
        layer.directory("usr/bin").unwrap();
        layer.file("usr/bin/p", 0o755, content).unwrap();
        layer.link("bin", "usr/bin").unwrap();
        Image { entrypoint: "/bin/p".to_owned(), user: "1:1", layers: vec![layer.finish().unwrap()] }
    }

    #[test]
    fn the_tag_changes_with_the_content_and_only_with_it() {
        assert_eq!(image(b"one").tag(), image(b"one").tag());
        assert_ne!(image(b"one").tag(), image(b"two").tag());
    }

    #[test]
    fn every_blob_that_the_index_leads_to_is_in_the_archive_under_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        image(b"one").write(&path, "example/p:1").unwrap();
        let mut blobs = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(&path).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            blobs.insert(name, content);
        }
        let blob = |descriptor: &serde_json::Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let blob = &blobs[&format!("blobs/sha256/{digest}")];
            assert_eq!(super::digest(blob), digest);
            assert_eq!(blob.len() as u64, descriptor["size"].as_u64().unwrap());
            blob.clone()
        };
        let index: serde_json::Value = serde_json::from_slice(&blobs["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "example/p:1");
        let manifest: serde_json::Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        blob(&manifest["layers"][0]);
    }
}
