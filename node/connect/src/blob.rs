//! The place where checkpoints are kept.
//!
//! Owns: a directory or a bucket's prefix as a store of named blobs.
//! Must not know: what is in them.
//! Invariant: a blob that was put is durable and whole; on a local disk it is written beside its
//! place, synced, and renamed.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use pharos_stream::checkpoint::{BlobError, Blobs};
use pharos_stream::io::ConnectError;

use crate::object::Bucket;
use crate::place::Place;
use crate::write::disk_failed;

/// The blobs under a path or URL.
///
/// # Errors
/// If the URL is of an unknown kind, or the directory cannot be made.
pub fn open_blobs(location: &str, base: &Path) -> Result<Arc<dyn Blobs>, ConnectError> {
    match Place::parse(location, base)? {
        Place::Local(directory) => {
            fs::create_dir_all(&directory).map_err(disk_failed(&directory))?;
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
        move |error| disk_failed(path)(error).into()
    }

    /// Writes the file of that name beside its place.
    fn write(&self, path: &Path, beside: &Path, bytes: &[u8]) -> Result<(), BlobError> {
        let failed = Self::failed(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.directory)).map_err(&failed)?;
        let mut file = File::create(beside).map_err(&failed)?;
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
        self.write(&path, &beside, bytes)?;
        fs::rename(&beside, &path).map_err(Self::failed(&path))?;
        self.sync(&path)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError> {
        let path = self.directory.join(name);
        // Nobody else has a file of that name, and a link is made at once or not at all.
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        self.write(&path, &beside, bytes)?;
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

    fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
        let path = self.directory.join(name);
        let read = || -> std::io::Result<Bytes> {
            let file = File::open(&path)?;
            let end = range.end.min(file.metadata()?.len());
            let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes.into())
        };
        match read() {
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
        self.bucket.put(&self.key(name), bytes.to_vec()).map_err(BlobError::from)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError> {
        self.bucket.create(&self.key(name), bytes.to_vec()).map_err(BlobError::from)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError> {
        let got = self.bucket.get(&self.key(name)).map_err(BlobError::from)?;
        Ok(got.map(Into::into))
    }

    fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
        self.bucket.part(&self.key(name), range).map_err(BlobError::from)
    }

    fn list(&self) -> Result<Vec<String>, BlobError> {
        let keys = self.bucket.list(&self.prefix).map_err(BlobError::from)?;
        let start = self.key("");
        Ok(keys.iter().filter_map(|key| key.strip_prefix(&start)).map(str::to_owned).collect())
    }

    fn delete(&self, name: &str) -> Result<(), BlobError> {
        self.bucket.delete(&self.key(name)).map_err(BlobError::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pharos_stream::checkpoint::Owner;
    use pharos_stream::io::Fault;

    use super::*;
    use crate::object::tests::{Failure, Server};

    #[test]
    fn a_full_disk_is_the_users_to_mend_and_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = open_blobs("kept", directory.path()).unwrap();
        // No byte fits into this.
        std::os::unix::fs::symlink("/dev/full", directory.path().join("kept/1-2.tmp")).unwrap();
        let error = blobs.put("1-2.state", b"state").unwrap_err();
        assert_eq!(error.fault, Fault::FullDisk);
        assert!(error.message.contains("kept/1-2.state`: No space left on device"), "{error}");
        assert_eq!(blobs.get("1-2.state"), Ok(None));
        let error = open_blobs("/proc/kept", directory.path()).err().unwrap();
        assert!(error.message.starts_with("`/proc/kept`: "), "{error}");
    }

    #[test]
    fn whose_fault_it_is_that_a_bucket_keeps_nothing_is_told() {
        let server = Server::start();
        let blobs = Prefix { bucket: server.bucket(), prefix: "kept".to_owned() };
        blobs.put("1-2.state", b"state").unwrap();
        assert_eq!(blobs.list(), Ok(vec!["1-2.state".to_owned()]));
        let refusals = [
            (Failure::Status(403, "AccessDenied"), Fault::Denied),
            (Failure::Status(404, "NoSuchBucket"), Fault::User),
            (Failure::Status(400, "EntityTooLarge"), Fault::Environment),
        ];
        for (failure, fault) in refusals {
            server.held().failures = VecDeque::from([failure]);
            let error = blobs.put("1-2.state", b"other").unwrap_err();
            assert_eq!(error.fault, fault, "{error}");
            assert!(error.message.starts_with("`s3://b/kept/1-2.state`: "), "{error}");
        }
        assert_eq!(blobs.get("1-2.state"), Ok(Some(b"state".to_vec())));
    }

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
