//! Making checkpoints of what workers kept, and reading them back.
//!
//! Owns: the manifests of a run, and which blobs are still needed.
//! Must not know: when.
//! Invariant: the names of blobs carry the generation, so a process that was fenced off cannot
//! overwrite what its successor writes; what the checkpoint that counts needs is never deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use pharos_beam::plan::Plan;
use pharos_beam::state::TakeOver;
use pharos_window::{Timestamp, Watermark};

use super::coordinator::WorkerId;
use super::manifest::{Manifest, Piece, PieceKind};
use super::part::{HEADER, Part, failed};
use super::{Blobs, CheckpointSize};
use crate::assemble::Restored;
use crate::coordination::Pointer;
use crate::error::StreamError;
use crate::exec::channel::{Epoch, Round};
use crate::group::KeptState;
use crate::key::KeyGroup;
use crate::plant;
use crate::spill::{Disk, Kept, RunId, Scoped};

/// So many bytes of a state file that nobody wants are read rather than asking once more for what comes after them.
const GAP: u64 = 1 << 20;

/// The blobs of one run.
pub(crate) struct Keeper {
    blobs: Arc<dyn Blobs>,
    plan: Plan,
    run: String,
    generation: u64,
    /// The checkpoint that counts, and its blob.
    last: Option<(String, Manifest)>,
    /// The checkpoint being written, and its blob.
    next: Option<(String, Manifest, u32)>,
}

impl Keeper {
    /// A keeper of the run `run` whose last checkpoint is the one that `pointer` names; it may be of another
    /// document.
    ///
    /// # Errors
    /// If that checkpoint cannot be read, or the plan cannot go on from it.
    pub(crate) fn open(
        blobs: Arc<dyn Blobs>,
        plan: &Plan,
        run: &str,
        generation: u64,
        pointer: Option<&Pointer>,
    ) -> Result<Self, StreamError> {
        let last = match pointer {
            None => None,
            Some(pointer) => Some((pointer.manifest.clone(), read_manifest(&*blobs, plan, run, pointer)?)),
        };
        Ok(Self { blobs, plan: plan.clone(), run: run.to_owned(), generation, last, next: None })
    }

    /// The checkpoint that counts.
    #[must_use]
    pub(crate) fn last(&self) -> Option<&Manifest> {
        self.last.as_ref().map(|(_, manifest)| manifest)
    }

    /// What the plan takes over from the checkpoint that counts, if that is of another plan.
    #[must_use]
    pub(crate) fn taken_over(&self) -> Option<TakeOver> {
        let (name, manifest) = self.last.as_ref()?;
        manifest.taken_over_by(name, &self.plan, &self.run).ok()?
    }

    /// Writes the manifest of a checkpoint, and says how large it is.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn write(
        &mut self,
        epoch: Epoch,
        round: Option<Round>,
        parts: BTreeMap<WorkerId, Part>,
    ) -> Result<CheckpointSize, StreamError> {
        let mut manifest = Manifest::new(&self.plan, &self.run, epoch, round);
        let written: u64 = parts.values().map(|part| part.written).sum();
        parts.into_values().for_each(|part| manifest.take_in(part));
        let (bytes, crc) = manifest.write();
        let name = manifest_name(self.generation, epoch);
        self.blobs.put(&name, &bytes).map_err(failed)?;
        let length = bytes.len() as u64;
        let size = CheckpointSize { written: written + length, whole: manifest.state_bytes() + length };
        self.next = Some((name, manifest, crc));
        Ok(size)
    }

    /// Deletes what earlier generations left: what they wrote and never published, and what no longer
    /// counts. None of them can publish any more.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn sweep(&self) -> Result<(), StreamError> {
        let needed = self.needed();
        let earlier = |name: &str| {
            let generation = name.split_once('-').and_then(|(generation, _)| generation.parse::<u64>().ok());
            generation.is_some_and(|generation| generation < self.generation)
        };
        let names = self.blobs.list().map_err(failed)?;
        let over = names.iter().filter(|name| earlier(name) && !needed.contains(name.as_str()));
        over.into_iter().try_for_each(|name| self.blobs.delete(name)).map_err(failed)
    }

    /// The blobs of the checkpoint that counts.
    fn needed(&self) -> BTreeSet<&str> {
        self.last.iter().flat_map(|(name, manifest)| manifest.blobs().chain([name.as_str()])).collect()
    }

    /// What to publish.
    #[must_use]
    pub(crate) fn pointer(&self) -> Option<Pointer> {
        let (name, manifest, crc) = self.next.as_ref()?;
        Some(Pointer::new(manifest.epoch, self.generation, name.clone(), *crc))
    }

    /// Notes that the checkpoint just written counts, and deletes what only the one before needed.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn clean(&mut self) -> Result<(), StreamError> {
        let Some((name, manifest, _)) = self.next.take() else { return Ok(()) };
        let needed: BTreeSet<&str> = manifest.blobs().collect();
        if let Some((old_name, old)) = &self.last {
            let over: BTreeSet<&str> =
                old.blobs().filter(|blob| !needed.contains(blob) || plant::cleans_live()).collect();
            over.into_iter()
                .chain([old_name.as_str()])
                .try_for_each(|blob| self.blobs.delete(blob))
                .map_err(failed)?;
        }
        self.last = Some((name, manifest));
        Ok(())
    }
}

/// The state of the checkpoint that `pointer` names, for any number of threads of the run `run`; of the
/// groupings at least that of the key groups `groups`. If it is of another document, transforms of the same
/// names take it over, and those that it does not know begin without. Sorted files go to
/// `disk`.
///
/// # Errors
/// If it cannot be read or taken over, or a piece of it is missing or damaged.
pub(crate) fn restore(
    blobs: &dyn Blobs,
    plan: &Plan,
    run: &str,
    pointer: &Pointer,
    groups: &Range<u32>,
    disk: Option<&Arc<Disk>>,
) -> Result<Restored, StreamError> {
    let mut manifest = read_manifest(blobs, plan, run, pointer)?;
    manifest.groups.values_mut().for_each(|group| group.pieces.retain(|piece| piece.concerns(groups)));
    let mut restored = Restored { round: manifest.round.map_or(0, |round| round + 1), ..Restored::default() };
    let mut wanted: BTreeMap<&str, Vec<Range<u64>>> = BTreeMap::new();
    let tables = manifest.groups.values().flat_map(|group| &group.pieces).filter(|piece| !piece.is_file());
    for piece in tables {
        let end = piece.offset.saturating_add(piece.length);
        wanted.entry(&piece.blob).or_default().push(piece.offset..end);
    }
    let files: BTreeMap<&str, StateBytes> = wanted
        .into_iter()
        .map(|(blob, wanted)| Ok((blob, StateBytes::read(blobs, blob, wanted)?)))
        .collect::<Result<_, StreamError>>()?;
    for node in &plan.nodes {
        let (id, name) = (node.id, node.name.as_str());
        if let Some(splits) = manifest.reads.get(name) {
            restored.reads.insert(id, splits.iter().map(|split| (split.index, split.clone())).collect());
        }
        if let Some(done) = manifest.creates.get(name) {
            restored.creates.insert(id, *done);
        }
        if let Some(prepared) = manifest.sinks.get(name) {
            restored.sinks.insert(id, prepared.clone());
        }
        if let Some(rows) = manifest.asserts.get(name) {
            restored.asserts.insert(id, rows.clone());
        }
        if let Some(group) = manifest.groups.get(name) {
            let read = |piece| read_piece(piece, &files, blobs, disk);
            let pieces = group.pieces.iter().map(|piece| read(piece).map(|kept| (groups_of(piece), kept)));
            let pieces = pieces.collect::<Result<_, _>>()?;
            let watermark = Watermark::at(Timestamp::from_micros(group.watermark));
            restored.groups.insert(id, (watermark, pieces));
        }
    }
    Ok(restored)
}

fn read_manifest(
    blobs: &dyn Blobs,
    plan: &Plan,
    run: &str,
    pointer: &Pointer,
) -> Result<Manifest, StreamError> {
    let bytes = get(blobs, &pointer.manifest)?;
    let manifest = Manifest::read(&pointer.manifest, &bytes, pointer.crc)?;
    manifest.taken_over_by(&pointer.manifest, plan, run)?;
    Ok(manifest)
}

fn manifest_name(generation: u64, epoch: Epoch) -> String {
    format!("{generation}-{epoch}.manifest")
}

fn get(blobs: &dyn Blobs, name: &str) -> Result<Vec<u8>, StreamError> {
    let bytes = blobs.get(name).map_err(failed)?;
    bytes.ok_or_else(|| missing(name))
}

/// One that was taken for the leader's while another took over may meet this, too: trying again tells.
fn missing(name: &str) -> StreamError {
    StreamError::Checkpoint(format!("`{name}` is missing: put it back, or begin a new run"))
}

/// The key groups that a piece may hold.
fn groups_of(piece: &Piece) -> Range<u32> {
    let (first, end) = piece.groups.unwrap_or((0, KeyGroup::COUNT));
    first..end
}

/// What is wanted of a state file: its parts, in order.
struct StateBytes(Vec<(u64, Bytes)>);

impl StateBytes {
    /// Reads the parts `wanted` of a state file, and what lies between them where that is less than it costs to ask twice.
    fn read(blobs: &dyn Blobs, blob: &str, mut wanted: Vec<Range<u64>>) -> Result<Self, StreamError> {
        wanted.push(0..HEADER.len() as u64);
        wanted.sort_unstable_by_key(|part| part.start);
        let mut parts: Vec<Range<u64>> = Vec::new();
        for part in wanted {
            match parts.last_mut().filter(|last| part.start <= last.end.saturating_add(GAP)) {
                Some(last) => last.end = last.end.max(part.end),
                None => parts.push(part),
            }
        }
        let read = |part: Range<u64>| {
            let start = part.start;
            let bytes = blobs.range(blob, part).map_err(failed)?.ok_or_else(|| missing(blob))?;
            Ok((start, bytes))
        };
        let parts: Vec<(u64, Bytes)> = parts.into_iter().map(read).collect::<Result<_, StreamError>>()?;
        if !parts.first().is_some_and(|(_, bytes)| bytes.starts_with(HEADER)) {
            return Err(StreamError::Damaged(format!("`{blob}` is no state file of version 1")));
        }
        Ok(Self(parts))
    }

    /// The bytes of a piece, if they are there and right.
    fn piece(&self, piece: &Piece) -> Option<Bytes> {
        let after = self.0.partition_point(|(start, _)| *start <= piece.offset);
        let (start, bytes) = &self.0[after.checked_sub(1)?];
        let first = usize::try_from(piece.offset - start).ok()?;
        let end = first.checked_add(usize::try_from(piece.length).ok()?)?;
        let bytes = (end <= bytes.len()).then(|| bytes.slice(first..end))?;
        (crc32c::crc32c(&bytes) == piece.crc).then_some(bytes)
    }
}

fn damaged(piece: &Piece) -> StreamError {
    StreamError::Damaged(format!("`{}` is damaged at byte {}", piece.blob, piece.offset))
}

fn read_piece(
    piece: &Piece,
    files: &BTreeMap<&str, StateBytes>,
    blobs: &dyn Blobs,
    disk: Option<&Arc<Disk>>,
) -> Result<(i64, KeptState), StreamError> {
    let kept = match piece.kind {
        PieceKind::File { id, fresh } => KeptState::File(read_file(piece, id, fresh, blobs, disk)?),
        PieceKind::Keyed { id } => KeptState::Keyed(read_file(piece, id, false, blobs, disk)?),
        kind => {
            let (earlier, kind) = kind.entries().expect("what is no sorted file has entries");
            let file = files.get(piece.blob.as_str());
            let bytes = file.and_then(|file| file.piece(piece)).ok_or_else(|| damaged(piece))?;
            KeptState::Entries(earlier, kind, bytes)
        }
    };
    Ok((piece.slice, kept))
}

/// A sorted file goes to the local disk, not to memory.
fn read_file(
    piece: &Piece,
    id: RunId,
    fresh: bool,
    blobs: &dyn Blobs,
    disk: Option<&Arc<Disk>>,
) -> Result<Scoped, StreamError> {
    let disk = disk.ok_or_else(|| {
        StreamError::Checkpoint(format!(
            "`{}` is a sorted file of state, and this run has no directory for such files",
            piece.blob
        ))
    })?;
    let kept = Kept { blob: piece.blob.clone(), length: piece.length, crc: piece.crc };
    let run = disk.adopt(id, kept.clone(), || {
        let bytes = get(blobs, &piece.blob)?;
        if kept.is(&bytes) { Ok(bytes) } else { Err(damaged(piece)) }
    })?;
    Ok(Scoped { run, groups: groups_of(piece), fresh })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::checkpoint::BlobError;

    /// One blob, and the parts of it that were asked for.
    struct One(Vec<u8>, Mutex<Vec<Range<u64>>>);

    impl Blobs for One {
        fn put(&self, _: &str, _: &[u8]) -> Result<(), BlobError> {
            unreachable!("nothing is written")
        }
        fn create(&self, _: &str, _: &[u8]) -> Result<bool, BlobError> {
            unreachable!("nothing is written")
        }
        fn get(&self, _: &str) -> Result<Option<Vec<u8>>, BlobError> {
            unreachable!("only parts are read")
        }
        fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
            self.1.lock().unwrap().push(range.clone());
            let end = self.0.len().min(range.end as usize);
            Ok((name == "state").then(|| Bytes::copy_from_slice(&self.0[range.start as usize..end])))
        }
        fn list(&self) -> Result<Vec<String>, BlobError> {
            unreachable!("nothing is listed")
        }
        fn delete(&self, _: &str) -> Result<(), BlobError> {
            unreachable!("nothing is deleted")
        }
    }

    fn piece(bytes: &[u8], at: Range<usize>) -> Piece {
        Piece {
            thread: 0,
            slice: 0,
            groups: None,
            blob: "state".to_owned(),
            offset: at.start as u64,
            length: at.len() as u64,
            crc: crc32c::crc32c(&bytes[at]),
            kind: PieceKind::Table,
        }
    }

    #[test]
    fn of_a_state_file_little_more_is_read_than_what_is_wanted_and_what_is_damaged_is_seen() {
        let mut bytes = HEADER.to_vec();
        bytes.extend((0..10u32 << 20).map(|at| (at % 251) as u8));
        let wanted = [9_000_000..9_000_500, 100..300, 9_000_500..9_001_000, 5_000_000..5_000_001];
        let parts = || wanted.iter().map(|part| part.start as u64..part.end as u64).collect();
        let blobs = One(bytes.clone(), Mutex::default());
        let read = StateBytes::read(&blobs, "state", parts()).unwrap();
        assert_eq!(*blobs.1.lock().unwrap(), [0..300, 5_000_000..5_000_001, 9_000_000..9_001_000]);
        for part in &wanted {
            assert_eq!(read.piece(&piece(&bytes, part.clone())).unwrap(), bytes[part.clone()]);
        }
        // Beyond what was read, and with another checksum.
        assert_eq!(read.piece(&piece(&bytes, 8_000_000..8_000_001)), None);
        assert_eq!(read.piece(&piece(&bytes, 9_000_900..9_001_001)), None);
        assert_eq!(read.piece(&Piece { crc: 1, ..piece(&bytes, 100..300) }), None);

        let other = StateBytes::read(&blobs, "other", parts()).err().unwrap();
        assert!(other.to_string().contains("`other` is missing"), "{other}");
        bytes[4] = 2;
        let later = StateBytes::read(&One(bytes.clone(), Mutex::default()), "state", parts()).err().unwrap();
        assert!(later.to_string().contains("`state` is no state file of version 1"), "{later}");
        // It ends where the last piece should begin.
        bytes[4] = 1;
        let short = One(bytes[..9_000_500].to_vec(), Mutex::default());
        let read = StateBytes::read(&short, "state", parts()).unwrap();
        assert_eq!(read.piece(&piece(&bytes, wanted[2].clone())), None);
    }
}
