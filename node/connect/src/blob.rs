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

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), BlobError> {
        let failed = Self::failed(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.directory)).map_err(&failed)?;
        let mut file = File::create(path).map_err(&failed)?;
        file.write_all(bytes).map_err(&failed)?;
        file.sync_all().map_err(&failed)
    }

    /// Makes the name of a file durable.
    fn sync(&self, path: &Path) -> Result<(), BlobError> {
        let parent = path.parent().unwrap_or(&self.directory);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(Self::failed(path))
    }
}

impl Blobs for Directory {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError> {
        let path = self.directory.join(name);
        let beside = path.with_extension("tmp");
        self.write(&beside, bytes)?;
        fs::rename(&beside, &path).map_err(Self::failed(&path))?;
        self.sync(&path)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError> {
        let path = self.directory.join(name);
        // Nobody else has a file of that name, and a link is made at once or not at all.
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        self.write(&beside, bytes)?;
        let linked = fs::hard_link(&beside, &path);
        fs::remove_file(&beside).map_err(Self::failed(&beside))?;
        match linked {
            Ok(()) => self.sync(&path).map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Self::failed(&path)(error)),
        }
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

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError> {
        self.bucket.create(&self.key(name), bytes.to_vec()).map_err(|error| BlobError(error.message))
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

#[cfg(test)]
mod tests {
    use pharos_stream::checkpoint::Owner;

    use super::*;

    #[test]
    fn a_location_is_that_of_the_pipeline_that_came_first_whoever_comes_later_is_told_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = open_blobs("place", directory.path()).unwrap();
        let (first, second) = (Owner::new("1", "ns", "a"), Owner::new("2", "ns", "b"));
        first.claim(&*blobs, "place").unwrap();
        first.claim(&*blobs, "place").unwrap();
        let refused = second.claim(&*blobs, "place").unwrap_err().to_string();
        assert!(refused.starts_with("checkpoint location `place` is that of Pipeline ns/a"), "{refused}");
        // It was deleted, and made anew under the same name.
        Owner::new("3", "ns", "a").claim(&*blobs, "place").unwrap();
        assert!(blobs.get("owner.json").unwrap().unwrap().windows(3).any(|bytes| bytes == b"\"3\""));
        blobs.delete("owner.json").unwrap();
        second.claim(&*blobs, "place").unwrap();
        assert_eq!(blobs.list().unwrap(), ["owner.json"]);
    }
}
