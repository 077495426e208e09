//! A state on its way out of an ensemble: as a member streams it, and as it is kept.
//!
//! Owns the stream's frames, the manifest and the checks of both. Must not know where a backup is kept, nor how an
//! ensemble goes on from one.
//!
//! Invariant: a stream or a backup that was cut short or altered anywhere is refused, never taken for a smaller state.
//!
//! The rows are those of the store, which have a version of their own; parts are at most a few MiB, so that neither side
//! ever holds the whole.

use crate::config::ServerError;
use crate::frames::{PEER_HEADER, PeerFrames, peer_header};
use crate::permit::HexId;
use crate::state_store::{OpenStore, StateStore};
use crate::status::VERSION;
use bytes::Bytes;
use pharos_paxos::Slot;
use pharos_replica::{is_of_state, put_row, read_rows};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::Sender;

/// The layout of stream and manifest.
const FORMAT: u32 = 1;
/// Bytes of rows in one part, but for the last row.
const PART_BYTES: usize = 4 << 20;
/// The longest part that is read: one row may be as long as the longest request.
const MAX_PART_BYTES: usize = 64 << 20;
const READ_BYTES: usize = 256 << 10;

/// What a backup says of itself. It is written last: without it there is no backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupManifest {
    /// 1.
    pub format: u32,
    /// The ensemble.
    pub cluster_id: HexId,
    /// Its generation.
    pub generation: u32,
    /// The slot of the log whose state it is.
    pub slot: u64,
    /// The build that made it.
    pub version: String,
    /// All rows, in this order.
    pub parts: Vec<BackupPart>,
}

/// A part of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPart {
    /// Its name, beside the manifest.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// CRC-32C of it.
    pub crc32c: u32,
}

/// What is wrong with a backup, or with the stream of one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The connection broke.
    #[error("the member's stream broke")]
    Read(#[from] std::io::Error),
    /// It ended before its end.
    #[error("the member's stream ended before its end: the member has ended or failed")]
    CutShort,
    /// Not what a member sends.
    #[error("the member's stream is malformed: {0}")]
    Stream(String),
    /// The manifest is none.
    #[error("the backup's manifest is malformed: {0}")]
    Manifest(serde_json::Error),
    /// Made by a later build.
    #[error("the backup has format {0}, which this version does not know (it knows {FORMAT})")]
    UnknownFormat(u32),
    /// Manifest and parts are of different backups.
    #[error("the backup's manifest and its parts are of different ensembles or generations")]
    Mixed,
    /// Not what was written.
    #[error("{name} is not as it was written: {what}")]
    Part {
        /// Which part.
        name: String,
        /// How it differs.
        what: String,
    },
}

/// The first frame of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    cluster_id: HexId,
    generation: u32,
    slot: u64,
    version: String,
}

/// The last frame, after an empty one.
#[derive(Debug, Serialize, Deserialize)]
struct Tail {
    parts: usize,
}

impl BackupManifest {
    /// The name under which it is kept.
    pub const NAME: &'static str = "manifest.json";

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none, or of a later build.
    pub fn parse(text: &[u8]) -> Result<Self, BackupError> {
        let manifest: Self = serde_json::from_slice(text).map_err(BackupError::Manifest)?;
        if manifest.format != FORMAT {
            return Err(BackupError::UnknownFormat(manifest.format));
        }
        Ok(manifest)
    }

    /// A name for the backup: the ensemble's, and higher for later ones.
    #[must_use]
    pub fn title(&self) -> String {
        let cluster = String::from(self.cluster_id);
        format!("{}-g{:04}-{:016}", &cluster[..8], self.generation, self.slot)
    }

    /// Takes note of the next part and gives its name.
    pub fn add(&mut self, part: &[u8]) -> String {
        let name = format!("part-{:06}", self.parts.len());
        let (bytes, crc32c) = (part.len() as u64, crc32c::crc32c(part));
        self.parts.push(BackupPart { name: name.clone(), bytes, crc32c });
        name
    }
}

impl BackupPart {
    /// The part's rows.
    pub(crate) fn rows(&self, bytes: Bytes) -> Result<Vec<(Bytes, Bytes)>, BackupError> {
        let wrong = |what: String| BackupError::Part { name: self.name.clone(), what };
        if bytes.len() as u64 != self.bytes {
            return Err(wrong(format!("it has {} bytes, not {}", bytes.len(), self.bytes)));
        }
        if crc32c::crc32c(&bytes) != self.crc32c {
            return Err(wrong("its checksum differs".to_owned()));
        }
        read_rows(bytes).map_err(|error| wrong(error.to_string()))
    }
}

/// A backup as it comes from a member.
pub struct BackupStream<R> {
    from: R,
    frames: PeerFrames,
    scratch: Vec<u8>,
    parts: usize,
}

impl<R: Read> BackupStream<R> {
    /// Reads the beginning: a manifest that lists no parts yet.
    ///
    /// # Errors
    /// When it is not a member's.
    pub fn open(from: R) -> Result<(Self, BackupManifest), BackupError> {
        let frames = PeerFrames::default();
        let mut this = Self { from, frames, scratch: vec![0; READ_BYTES], parts: 0 };
        let head: Head = json(&this.frame()?)?;
        if head.format != FORMAT {
            return Err(BackupError::UnknownFormat(head.format));
        }
        let Head { format, cluster_id, generation, slot, version } = head;
        Ok((this, BackupManifest { format, cluster_id, generation, slot, version, parts: Vec::new() }))
    }

    /// The next part; none at the end, if the stream is whole.
    ///
    /// # Errors
    /// When it is not.
    pub fn part(&mut self) -> Result<Option<Bytes>, BackupError> {
        let frame = self.frame()?;
        if !frame.is_empty() {
            self.parts += 1;
            return Ok(Some(frame));
        }
        let Tail { parts } = json(&self.frame()?)?;
        if parts != self.parts {
            return Err(BackupError::Stream(format!("it has {} parts and says {parts}", self.parts)));
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Bytes, BackupError> {
        loop {
            let next = self.frames.next_frame(MAX_PART_BYTES);
            if let Some(frame) = next.map_err(|error| BackupError::Stream(error.to_string()))? {
                return Ok(frame);
            }
            match self.from.read(&mut self.scratch)? {
                0 => return Err(BackupError::CutShort),
                read => self.frames.extend(&self.scratch[..read]),
            }
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(frame: &[u8]) -> Result<T, BackupError> {
    serde_json::from_slice(frame).map_err(|error| BackupError::Stream(error.to_string()))
}

/// The copies of a store that backups are made of.
#[derive(Debug)]
pub(crate) struct Copies {
    data_dir: PathBuf,
    made: AtomicU64,
}

impl Copies {
    const PREFIX: &'static str = "backup-";

    /// Beside the store, so that files can be linked. What a process that was killed left there is removed.
    pub(crate) fn beside(data_dir: &Path) -> Self {
        for entry in std::fs::read_dir(data_dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(Self::PREFIX) {
                drop(Copy(entry.path()));
            }
        }
        Self { data_dir: data_dir.to_owned(), made: AtomicU64::new(0) }
    }

    /// Where the next one is to be made.
    pub(crate) fn next(&self) -> Copy {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Copy(self.data_dir.join(format!("{}{number}", Self::PREFIX)))
    }
}

/// A copy of a store, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Copy(pub(crate) PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends a copy of a store, which is of this slot. Ends early when nobody takes it any more.
pub(crate) fn stream<S: StateStore>(
    open_store: OpenStore<S>,
    copy: &Copy,
    (cluster_id, generation, Slot(slot)): (HexId, u32, Slot),
    to: &Sender<Bytes>,
) -> Result<(), ServerError> {
    let mut store = open_store(&copy.0)?;
    let send = |body: &[u8]| to.blocking_send([&peer_header(body)[..], body].concat().into()).is_ok();
    let text = |value: serde_json::Result<Vec<u8>>| value.expect("numbers and texts can be written");
    let version = VERSION.to_owned();
    send(&text(serde_json::to_vec(&Head { format: FORMAT, cluster_id, generation, slot, version })));
    let (mut part, mut parts, mut taken) = (Vec::with_capacity(PART_BYTES + PEER_HEADER), 0, true);
    store.each_row(&mut |key, value| {
        if taken && is_of_state(key) {
            put_row(&mut part, key, value);
        }
        if part.len() >= PART_BYTES {
            taken = send(&part);
            parts += 1;
            part.clear();
        }
    })?;
    if !part.is_empty() {
        taken = send(&part);
        parts += 1;
    }
    if taken {
        send(&[]);
        send(&text(serde_json::to_vec(&Tail { parts })));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Id128;
    use crate::state_store::OnStore;
    use pharos_store::{MemStore, Store, WriteBatch};

    fn store(_: &Path) -> Result<OnStore<MemStore>, ServerError> {
        let mut store = MemStore::new();
        let row = |key: u32| (Bytes::from(format!("k{key:04}")), Bytes::from(vec![7; 10_000]));
        let own = (Bytes::from_static(b"\xffown"), Bytes::from_static(b"not part of the state"));
        store
            .write(WriteBatch { puts: (0..1000).map(row).chain([own]).collect(), deletes: vec![] }, 9)
            .unwrap();
        Ok(OnStore::new(store, Path::new("memory")))
    }

    fn streamed() -> Vec<u8> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
        let of = (HexId(Id128([5; 16])), 3, Slot(9));
        stream(store, &Copy(PathBuf::from("/nowhere/at/all")), of, &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).flatten().collect()
    }

    fn read(bytes: &[u8]) -> Result<(BackupManifest, Vec<Bytes>), BackupError> {
        let (mut stream, mut manifest) = BackupStream::open(bytes)?;
        let mut parts = Vec::new();
        while let Some(part) = stream.part()? {
            manifest.add(&part);
            parts.push(part);
        }
        Ok((manifest, parts))
    }

    #[test]
    fn what_is_streamed_comes_whole_without_what_is_the_members_own() {
        let (manifest, parts) = read(&streamed()).unwrap();
        assert_eq!((manifest.slot, manifest.generation, parts.len()), (9, 3, 3));
        assert_eq!(manifest.title(), "05050505-g0003-0000000000000009");
        let rows: Vec<_> =
            manifest.parts.iter().zip(parts).flat_map(|(part, bytes)| part.rows(bytes).unwrap()).collect();
        assert_eq!(rows.len(), 1000);
        assert!(rows.is_sorted() && rows[999].0 == "k0999" && rows[999].1.len() == 10_000);
        let text = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(BackupManifest::parse(&text).unwrap(), manifest);
        let later = String::from_utf8(text).unwrap().replace(r#""format":1"#, r#""format":2"#);
        let error = BackupManifest::parse(later.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "the backup has format 2, which this version does not know (it knows 1)");
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_or_altered_is_refused() {
        let bytes = streamed();
        for len in (0..bytes.len()).step_by(100_003).chain([bytes.len() - 1, bytes.len() - 12]) {
            assert!(matches!(read(&bytes[..len]), Err(BackupError::CutShort)), "length {len}");
        }
        for at in (0..bytes.len()).step_by(1_000_003) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(read(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_part_that_is_not_as_it_was_written_is_named() {
        let (manifest, parts) = read(&streamed()).unwrap();
        let mut altered = parts[1].to_vec();
        altered[77] ^= 1;
        let error = manifest.parts[1].rows(altered.into()).unwrap_err().to_string();
        assert_eq!(error, "part-000001 is not as it was written: its checksum differs");
        let error = manifest.parts[1].rows(parts[1].slice(1..)).unwrap_err().to_string();
        assert!(error.ends_with(&format!("not {}", parts[1].len())), "{error}");
    }
}
