//! The bytes of a file, local or in an object store, as a stream with a position.
//!
//! Owns: reading ahead; whether the file is still the one that was opened.
//! Must not know: lines.
//! Invariant: the position is that of the next byte given; there are as many bytes as the file had when the run first
//! opened it, and a file that has become shorter, or another one, is an error.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use pharos_stream::io::{ConnectError, Version};

use crate::object::Bucket;
use crate::place::Place;

/// What all splits of a read together may read ahead, in bytes.
const AHEAD: usize = 256 << 20;
/// How much is asked for at once beyond what is known to be wanted: the end of a line.
const BEYOND: u64 = 64 << 10;
/// What to do about an input that has changed.
pub(crate) const UNCHANGED: &str =
    "files must not change while they are read; put it back as it was and start again, or begin a new run";

/// How much each of so many splits that are read at once reads ahead, in bytes.
#[must_use]
pub(crate) fn ahead(splits: usize) -> usize {
    (AHEAD / splits.max(1)).clamp(32 << 10, 4 << 20)
}

#[derive(Clone)]
enum Inner {
    Regular(Arc<File>),
    /// A pipe or the like: nobody knows its size, and it is read from front to back.
    Stream(Arc<File>),
    Object {
        bucket: Bucket,
        key: String,
        block: Bytes,
    },
}

/// A file being read. Clones read the same file, each at a place of its own.
#[derive(Clone)]
pub(crate) struct ByteSource {
    name: Arc<str>,
    position: u64,
    ahead: usize,
    /// Up to here all bytes are wanted.
    wanted: u64,
    version: Version,
    inner: Inner,
}

/// An error of reading as one that says whose fault it is.
#[must_use]
pub(crate) fn failed(name: &str, error: &io::Error) -> ConnectError {
    let known = error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectError>());
    known.cloned().unwrap_or_else(|| ConnectError::environment(format!("`{name}`: {error}")))
}

impl ByteSource {
    /// Opens a file, of which `ahead` bytes are fetched at once if it lies in an object store.
    ///
    /// # Errors
    /// If there is none or it cannot be read.
    pub(crate) fn open(place: &Place, ahead: usize) -> Result<Self, ConnectError> {
        let name = place.name();
        let (inner, version) = match place {
            Place::Local(path) => {
                let opened = File::open(path).and_then(|file| file.metadata().map(|data| (file, data)));
                let (file, data) = opened.map_err(|error| {
                    let message = format!("`{name}`: {error}");
                    match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                            ConnectError::user(message)
                        }
                        _ => ConnectError::environment(message),
                    }
                })?;
                let file = Arc::new(file);
                if data.is_file() {
                    (Inner::Regular(file), Version { bytes: Some(data.len()), tag: None })
                } else {
                    (Inner::Stream(file), Version::default())
                }
            }
            Place::Object { bucket, key } => {
                let version = bucket.version(key)?;
                (Inner::Object { bucket: bucket.clone(), key: key.clone(), block: Bytes::new() }, version)
            }
        };
        Ok(Self { name: Arc::from(name), position: 0, ahead, wanted: u64::MAX, version, inner })
    }

    /// How many bytes are worth asking for at once.
    #[must_use]
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    /// The same, where so many bytes are worth asking for at once.
    #[must_use]
    pub(crate) fn with_ahead(self, ahead: usize) -> Self {
        Self { ahead, ..self }
    }

    /// What the file was when the run first opened it; of a pipe nobody knows.
    #[must_use]
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// The file's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether bytes cost no more when they are asked for one by one.
    #[must_use]
    pub(crate) fn is_near(&self) -> bool {
        !matches!(self.inner, Inner::Object { .. })
    }

    /// The bytes of a part of the file, wherever it stands.
    ///
    /// # Errors
    /// If it is no file, has become shorter or another one, or cannot be read.
    pub(crate) fn range(&self, range: Range<u64>) -> Result<Bytes, ConnectError> {
        match &self.inner {
            Inner::Regular(file) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                match file.read_exact_at(&mut bytes, range.start) {
                    Ok(()) => Ok(bytes.into()),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        let is = file.metadata().map_err(|error| failed(&self.name, &error))?.len();
                        Err(self.shorter(self.version.bytes.unwrap_or_default(), is))
                    }
                    Err(error) => Err(failed(&self.name, &error)),
                }
            }
            Inner::Stream(_) => Err(ConnectError::user(format!(
                "`{}` is no file: it cannot be read from any place",
                self.name
            ))),
            Inner::Object { bucket, key, .. } => {
                let wanted = range.end - range.start;
                let bytes = bucket.read(key, range, self.version.tag.clone())?;
                if bytes.len() as u64 == wanted {
                    Ok(bytes)
                } else {
                    Err(ConnectError::environment(format!(
                        "`{}`: the store gave {} bytes of the {wanted} that were asked for",
                        self.name,
                        bytes.len()
                    )))
                }
            }
        }
    }

    /// Says up to where all bytes are wanted; beyond that, little is fetched at once.
    pub(crate) fn want(&mut self, end: u64) {
        self.wanted = end;
    }

    /// Goes on as an earlier process did, which had read up to the byte `from` of this version of the file.
    ///
    /// # Errors
    /// If the file is another one now, or shorter.
    pub(crate) fn resume(&mut self, from: u64, version: Option<&Version>) -> Result<(), ConnectError> {
        let was = version.and_then(|version| version.bytes).unwrap_or(from).max(from);
        if let Some(bytes) = self.version.bytes.filter(|bytes| *bytes < was) {
            return Err(self.shorter(was, bytes));
        }
        let Some(version) = version else { return Ok(()) };
        if version.tag.is_some() && version.tag != self.version.tag {
            return Err(ConnectError::user(format!("`{}` has been replaced: {UNCHANGED}", self.name)));
        }
        // What was appended since is no more read than it would have been without the break.
        self.version.bytes = version.bytes;
        Ok(())
    }

    fn shorter(&self, was: u64, is: u64) -> ConnectError {
        ConnectError::user(format!("`{}` had {was} bytes and has {is} now: {UNCHANGED}", self.name))
    }

    /// Up to where the next block of an object goes.
    fn block_end(&self, bytes: u64) -> u64 {
        let ahead = self.position + self.ahead as u64;
        let end = if self.position < self.wanted { ahead.min(self.wanted) } else { self.position + BEYOND };
        end.min(bytes)
    }
}

impl Read for ByteSource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.version.bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(self.position));
        let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let into = &mut into[..most];
        let block_end = self.block_end(self.version.bytes.unwrap_or(u64::MAX));
        let count = match &mut self.inner {
            Inner::Regular(file) => match file.read_at(into, self.position)? {
                0 => {
                    let is = file.metadata()?.len();
                    let was = self.version.bytes.unwrap_or_default();
                    return Err(io::Error::other(self.shorter(was, is)));
                }
                count => count,
            },
            Inner::Stream(file) => (&**file).read(into)?,
            Inner::Object { bucket, key, block } => {
                if block.is_empty() {
                    let tag = self.version.tag.clone();
                    *block = bucket.read(key, self.position..block_end, tag).map_err(io::Error::other)?;
                    if block.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                let count = into.len().min(block.len());
                block.split_to(count).copy_to_slice(&mut into[..count]);
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for ByteSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(position) = to else {
            return Err(io::Error::other("a file is sought from its start only"));
        };
        match &mut self.inner {
            Inner::Regular(_) => {}
            Inner::Stream(file) => drop((&**file).seek(to)?),
            Inner::Object { block, .. } => *block = Bytes::new(),
        }
        self.position = position;
        Ok(position)
    }
}
