//! The place where checkpoints are kept.
//!
//! Owns: a directory or a bucket's prefix as a store of named blobs.
//! Must not know: what is in them.
//! Invariant: a blob that was put is durable and whole; on a local disk it is written beside its
//! place, synced, and renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pharos_stream::checkpoint::{BlobError, Blobs};
use pharos_stream::io::ConnectError;

use crate::object::Bucket;
use crate::place::Place;

/// The blobs under a path or URL.
///
/// # Errors
/// If the URL is of an unknown kind, or the directory cannot be made.
pub fn open_blobs(location: &str, base: &Path) -> Result<Arc<dyn Blobs>, ConnectError> {
    match Place::parse(location, base)? {
        Place::Local(directory) => {
            fs::create_dir_all(&directory)
                .map_err(|error| ConnectError::environment(format!("`{}`: {error}", directory.display())))?;
            Ok(Arc::new(Directory { directory }))
        }
        Place::Object { bucket, key } => {
            Ok(Arc::new(Prefix { bucket, prefix: key.trim_end_matches('/').to_owned() }))
        }
    }
}

struct Directory {
    directory: PathBuf,
}

impl Directory {
    fn failed(path: &Path) -> impl Fn(std::io::Error) -> BlobError {
        move |error| BlobError(format!("`{}`: {error}", path.display()))
    }
}

impl Blobs for Directory {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError> {
        let path = self.directory.join(name);
        let failed = Self::failed(&path);
        let parent = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).map_err(&failed)?;
        let beside = path.with_extension("tmp");
        let mut file = File::create(&beside).map_err(&failed)?;
        file.write_all(bytes).map_err(&failed)?;
        file.sync_all().map_err(&failed)?;
        fs::rename(&beside, &path).map_err(&failed)?;
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(&failed)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::failed(&path)(error)),
        }
    }

    fn list(&self) -> Result<Vec<String>, BlobError> {
        let failed = Self::failed(&self.directory);
        let names = fs::read_dir(&self.directory).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        });
        names.map_err(failed)
    }

    fn delete(&self, name: &str) -> Result<(), BlobError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Self::failed(&path)(error)),
            _ => Ok(()),
        }
    }
}

struct Prefix {
    bucket: Bucket,
    prefix: String,
}

impl Prefix {
    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }
}

impl Blobs for Prefix {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError> {
        self.bucket.put(&self.key(name), bytes.to_vec()).map_err(|error| BlobError(error.message))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError> {
        let got = self.bucket.get(&self.key(name)).map_err(|error| BlobError(error.message))?;
        Ok(got.map(Into::into))
    }

    fn list(&self) -> Result<Vec<String>, BlobError> {
        let keys = self.bucket.list(&self.prefix).map_err(|error| BlobError(error.message))?;
        let start = self.key("");
        Ok(keys.iter().filter_map(|key| key.strip_prefix(&start)).map(str::to_owned).collect())
    }

    fn delete(&self, name: &str) -> Result<(), BlobError> {
        self.bucket.delete(&self.key(name)).map_err(|error| BlobError(error.message))
    }
}
