//! Making checkpoints of what workers kept, and reading them back.
//!
//! Owns: the manifests of a run, and which blobs are still needed.
//! Must not know: when.
//! Invariant: the names of blobs carry the generation, so a process that was fenced off cannot
//! overwrite what its successor writes; what the checkpoint that counts needs is never deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use pharos_beam::plan::Plan;
use pharos_beam::state::TakeOver;
use pharos_window::{Timestamp, Watermark};

use super::Blobs;
use super::coordinator::WorkerId;
use super::manifest::{Manifest, Piece, PieceKind};
use super::part::{HEADER, Part, failed};
use crate::assemble::Restored;
use crate::coordination::Pointer;
use crate::error::StreamError;
use crate::exec::channel::{Epoch, Round};
use crate::group::{Earlier, KeptState};
use crate::key::KeyGroup;
use crate::plant;
use crate::spill::{Disk, Kept, RunId, Scoped};

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

    /// Writes the manifest of a checkpoint, and says how many bytes the whole came to.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn write(
        &mut self,
        epoch: Epoch,
        round: Option<Round>,
        parts: BTreeMap<WorkerId, Part>,
    ) -> Result<u64, StreamError> {
        let mut manifest = Manifest::new(&self.plan, &self.run, epoch, round);
        let written: u64 = parts.values().map(|part| part.written).sum();
        parts.into_values().for_each(|part| manifest.take_in(part));
        let (bytes, crc) = manifest.write();
        let name = manifest_name(self.generation, epoch);
        self.blobs.put(&name, &bytes).map_err(failed)?;
        self.next = Some((name, manifest, crc));
        Ok(written + bytes.len() as u64)
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
    let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let pieces = || manifest.groups.values().flat_map(|group| &group.pieces);
    for blob in pieces().filter(|piece| !piece.is_file()).map(|piece| piece.blob.as_str()) {
        if !files.contains_key(blob) {
            let bytes = get(blobs, blob)?;
            if !bytes.starts_with(HEADER) {
                return Err(StreamError::Damaged(format!("`{blob}` is no state file of version 1")));
            }
            files.insert(blob, bytes);
        }
    }
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
            let pieces = group.pieces.iter().map(read).collect::<Result<_, _>>()?;
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
    // One that was taken for the leader's while another took over may meet this, too: trying again tells.
    bytes.ok_or_else(|| {
        StreamError::Checkpoint(format!("`{name}` is missing: put it back, or begin a new run"))
    })
}

fn damaged(piece: &Piece) -> StreamError {
    StreamError::Damaged(format!("`{}` is damaged at byte {}", piece.blob, piece.offset))
}

fn read_piece(
    piece: &Piece,
    files: &BTreeMap<&str, Vec<u8>>,
    blobs: &dyn Blobs,
    disk: Option<&Arc<Disk>>,
) -> Result<(i64, KeptState), StreamError> {
    let earlier = match piece.kind {
        PieceKind::Table => Earlier::Here,
        PieceKind::TableAfterFiles => Earlier::InFiles,
        PieceKind::File { id, fresh } => {
            let file = read_file(piece, id, fresh, blobs, disk)?;
            return Ok((piece.slice, KeptState::File(file)));
        }
    };
    let file = files.get(piece.blob.as_str()).ok_or_else(|| damaged(piece))?;
    let (start, end) = (piece.offset as usize, piece.offset.saturating_add(piece.length) as usize);
    let bytes = file.get(start..end).ok_or_else(|| damaged(piece))?;
    if crc32c::crc32c(bytes) != piece.crc {
        return Err(damaged(piece));
    }
    Ok((piece.slice, KeptState::Table(earlier, bytes.to_vec())))
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
    let run = disk.adopt(id, kept, || {
        let bytes = get(blobs, &piece.blob)?;
        if bytes.len() as u64 != piece.length || crc32c::crc32c(&bytes) != piece.crc {
            return Err(damaged(piece));
        }
        Ok(bytes)
    })?;
    let (first, end) = piece.groups.unwrap_or((0, KeyGroup::COUNT));
    Ok(Scoped { run, groups: first..end, fresh })
}
