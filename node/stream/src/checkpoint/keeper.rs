//! Writing checkpoints and reading them back.
//!
//! Owns: the blobs of a run: state files (a header, then the pieces end to end) and manifests.
//! Must not know: when.
//! Invariant: the names of blobs carry the generation, so a process that was fenced off cannot
//! overwrite what its successor writes. Only changed tables are written; the others stay where an
//! earlier checkpoint put them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pharos_beam::plan::{NodeId, Plan};
use pharos_window::{Timestamp, Watermark};

use super::coordinator::TaskId;
use super::manifest::{GroupState, Manifest, Piece};
use super::{BlobError, Blobs};
use crate::assemble::Restored;
use crate::coordination::Pointer;
use crate::error::StreamError;
use crate::exec::channel::{Epoch, Round};
use crate::exec::task::TaskState;
use crate::group::Frozen;

/// What a state file starts with: magic and version.
const HEADER: &[u8; 8] = b"PHST\x01\0\0\0";

/// Of how many processes before this one the remains are looked for.
const SWEPT: u64 = 64;

/// The blobs of one run.
pub(crate) struct Keeper {
    blobs: Arc<dyn Blobs>,
    plan: Plan,
    generation: u64,
    /// The checkpoint that counts, and its blob.
    last: Option<(String, Manifest)>,
    /// The checkpoint being written, and its blob.
    next: Option<(String, Manifest, u32)>,
}

/// A piece of state by the node it belongs to, the thread that wrote it, and its slice.
type PieceKey = (String, u32, i64);

impl Keeper {
    /// A keeper whose last checkpoint is the one that `pointer` names.
    ///
    /// # Errors
    /// If that checkpoint cannot be read.
    pub(crate) fn open(
        blobs: Arc<dyn Blobs>,
        plan: &Plan,
        generation: u64,
        pointer: Option<&Pointer>,
    ) -> Result<Self, StreamError> {
        let last = match pointer {
            None => None,
            Some(pointer) => {
                let bytes = get(&*blobs, &pointer.manifest)?;
                let manifest = Manifest::read(&pointer.manifest, &bytes, pointer.crc, plan)?;
                Some((pointer.manifest.clone(), manifest))
            }
        };
        Ok(Self { blobs, plan: plan.clone(), generation, last, next: None })
    }

    /// The checkpoint that counts.
    #[must_use]
    pub(crate) fn last(&self) -> Option<&Manifest> {
        self.last.as_ref().map(|(_, manifest)| manifest)
    }

    /// Writes a checkpoint, and says how many bytes that were.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn write(
        &mut self,
        epoch: Epoch,
        round: Option<Round>,
        parts: BTreeMap<TaskId, TaskState>,
    ) -> Result<u64, StreamError> {
        let mut manifest = Manifest::new(&self.plan, epoch, round);
        manifest.previous = self.last.as_ref().map(|(name, _)| name.clone());
        let mut file = HEADER.to_vec();
        let blob = state_name(self.generation, epoch);
        let kept = self.pieces();
        for (task, state) in parts {
            let name = self.name(NodeId(task.node));
            match state {
                TaskState::Read(splits) => manifest.reads.entry(name).or_default().extend(splits),
                TaskState::Create(done) => {
                    manifest.creates.insert(name, done);
                }
                TaskState::Sink(prepared) => {
                    manifest.sinks.insert(name, prepared);
                }
                TaskState::Assert(rows) => {
                    manifest.asserts.insert(name, rows);
                }
                TaskState::Group(watermark, frozen) => {
                    let pieces = write_group(&name, task.thread, frozen, &kept, &blob, &mut file)?;
                    let group = manifest.groups.entry(name).or_default();
                    group.watermark = watermark.timestamp().micros();
                    group.pieces.extend(pieces);
                }
            }
        }
        let mut written = 0;
        if file.len() > HEADER.len() {
            self.blobs.put(&blob, &file).map_err(failed)?;
            written += file.len() as u64;
        }
        let (bytes, crc) = manifest.write();
        let name = manifest_name(self.generation, epoch);
        self.blobs.put(&name, &bytes).map_err(failed)?;
        self.next = Some((name, manifest, crc));
        Ok(written + bytes.len() as u64)
    }

    /// Deletes what processes before this one left when they died: a checkpoint that was written but
    /// never counted, and one that no longer counts but was not deleted yet.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn sweep(&self, pointer: Option<&Pointer>) -> Result<(), StreamError> {
        let (since, epoch) = pointer.map_or((1, 0), |pointer| (pointer.generation, pointer.epoch));
        // Each process has at most one checkpoint under way, that after the one that counts.
        for generation in since.max(self.generation.saturating_sub(SWEPT))..self.generation {
            self.blobs.delete(&state_name(generation, epoch + 1)).map_err(failed)?;
            self.blobs.delete(&manifest_name(generation, epoch + 1)).map_err(failed)?;
        }
        let Some((_, last)) = &self.last else { return Ok(()) };
        let Some(previous) = &last.previous else { return Ok(()) };
        let Some(bytes) = self.blobs.get(previous).map_err(failed)? else { return Ok(()) };
        if let Ok(old) = serde_json::from_slice::<Manifest>(&bytes) {
            let needed: BTreeSet<&str> = last.blobs().collect();
            let over: BTreeSet<&str> = old.blobs().filter(|blob| !needed.contains(blob)).collect();
            over.into_iter().try_for_each(|blob| self.blobs.delete(blob)).map_err(failed)?;
        }
        self.blobs.delete(previous).map_err(failed)
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
            let over: BTreeSet<&str> = old.blobs().filter(|blob| !needed.contains(blob)).collect();
            over.into_iter()
                .chain([old_name.as_str()])
                .try_for_each(|blob| self.blobs.delete(blob))
                .map_err(failed)?;
        }
        self.last = Some((name, manifest));
        Ok(())
    }

    /// The state of the checkpoint that counts.
    ///
    /// # Errors
    /// If a piece of it is missing or damaged.
    pub(crate) fn restore(&self) -> Result<Restored, StreamError> {
        let Some((_, manifest)) = &self.last else { return Ok(Restored::default()) };
        let mut restored =
            Restored { round: manifest.round.map_or(0, |round| round + 1), ..Restored::default() };
        let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for blob in manifest.blobs() {
            if !files.contains_key(blob) {
                let bytes = get(&*self.blobs, blob)?;
                if !bytes.starts_with(HEADER) {
                    return Err(StreamError::Checkpoint(format!("`{blob}` is no state file of version 1")));
                }
                files.insert(blob, bytes);
            }
        }
        for node in &self.plan.nodes {
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
                let pieces =
                    group.pieces.iter().map(|piece| read_piece(piece, &files)).collect::<Result<_, _>>()?;
                let watermark = Watermark::at(Timestamp::from_micros(group.watermark));
                restored.groups.insert(id, (watermark, pieces));
            }
        }
        Ok(restored)
    }

    /// What each sink prepared last, by node.
    #[must_use]
    pub(crate) fn prepared(&self) -> BTreeMap<NodeId, String> {
        let Some((_, manifest)) = &self.last else { return BTreeMap::new() };
        let prepared = |node: &pharos_beam::plan::Node| {
            manifest.sinks.get(&node.name).map(|prepared| (node.id, prepared.clone()))
        };
        self.plan.nodes.iter().filter_map(prepared).collect()
    }

    fn name(&self, node: NodeId) -> String {
        self.plan.nodes[node.0 as usize].name.clone()
    }

    fn pieces(&self) -> BTreeMap<PieceKey, Piece> {
        let groups = self.last.iter().flat_map(|(_, manifest)| &manifest.groups);
        groups
            .flat_map(|(name, group): (&String, &GroupState)| {
                group.pieces.iter().map(|piece| ((name.clone(), piece.thread, piece.slice), piece.clone()))
            })
            .collect()
    }
}

fn state_name(generation: u64, epoch: Epoch) -> String {
    format!("{generation}-{epoch}.state")
}

fn manifest_name(generation: u64, epoch: Epoch) -> String {
    format!("{generation}-{epoch}.manifest")
}

fn failed(error: BlobError) -> StreamError {
    StreamError::Checkpoint(error.0)
}

fn get(blobs: &dyn Blobs, name: &str) -> Result<Vec<u8>, StreamError> {
    let bytes = blobs.get(name).map_err(failed)?;
    bytes.ok_or_else(|| StreamError::Checkpoint(format!("`{name}` is missing")))
}

fn write_group(
    name: &str,
    thread: u32,
    frozen: Frozen,
    kept: &BTreeMap<PieceKey, Piece>,
    blob: &str,
    file: &mut Vec<u8>,
) -> Result<Vec<Piece>, StreamError> {
    let mut piece = |slice: i64, write: &dyn Fn(&mut Vec<u8>)| {
        let offset = file.len();
        write(file);
        let bytes = &file[offset..];
        Piece {
            thread,
            slice,
            blob: blob.to_owned(),
            offset: offset as u64,
            length: bytes.len() as u64,
            crc: crc32c::crc32c(bytes),
        }
    };
    match frozen {
        Frozen::General(bytes) => Ok(vec![piece(0, &|file| file.extend_from_slice(&bytes))]),
        Frozen::Slices(tables) => tables
            .into_iter()
            .map(|(slice, table)| match table {
                Some(table) => Ok(piece(slice, &|file| table.write(file))),
                None => kept.get(&(name.to_owned(), thread, slice)).cloned().ok_or_else(|| {
                    StreamError::Checkpoint(format!(
                        "transform `{name}`: a table that did not change was never kept"
                    ))
                }),
            })
            .collect(),
    }
}

fn read_piece(piece: &Piece, files: &BTreeMap<&str, Vec<u8>>) -> Result<(i64, Vec<u8>), StreamError> {
    let damaged = || StreamError::Checkpoint(format!("`{}` is damaged at byte {}", piece.blob, piece.offset));
    let file = files.get(piece.blob.as_str()).ok_or_else(damaged)?;
    let (start, end) = (piece.offset as usize, piece.offset.saturating_add(piece.length) as usize);
    let bytes = file.get(start..end).ok_or_else(damaged)?;
    if crc32c::crc32c(bytes) != piece.crc {
        return Err(damaged());
    }
    Ok((piece.slice, bytes.to_vec()))
}
