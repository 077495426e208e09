//! What one worker keeps of a checkpoint.
//!
//! Owns: the worker's state files (a header, then the pieces end to end) and what the manifest will
//! say of them.
//! Must not know: other workers, when a checkpoint counts.
//! Invariant: only changed tables are written; the others stay where an earlier checkpoint put them.
//! The names of files carry the generation and the worker, so nobody overwrites what another wrote.

use std::collections::BTreeMap;
use std::sync::Arc;

use pharos_beam::plan::Plan;
use serde::{Deserialize, Serialize};

use super::collector::TaskId;
use super::coordinator::WorkerId;
use super::manifest::{GroupState, Piece};
use super::{BlobError, Blobs};
use crate::assignment::Assignment;
use crate::error::StreamError;
use crate::exec::task::{Done, SplitProgress, TaskState};
use crate::group::Frozen;
use crate::key::KeyGroup;
use crate::plant;

/// What a state file starts with: magic and version.
pub(super) const HEADER: &[u8; 8] = b"PHST\x01\0\0\0";

/// One worker's share of a checkpoint, by the names of transforms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The splits of each read.
    pub reads: BTreeMap<String, Vec<SplitProgress>>,
    /// Whether the rows of each Create are out.
    pub creates: BTreeMap<String, Done>,
    /// The groupings.
    pub groups: BTreeMap<String, GroupState>,
    /// What each sink prepared.
    pub sinks: BTreeMap<String, String>,
    /// The rows each assertion has seen, as tagged bytes.
    pub asserts: BTreeMap<String, Vec<Vec<u8>>>,
    /// How many bytes of state were written for it.
    pub written: u64,
}

/// A piece of state by the node it belongs to, the thread that wrote it, and its slice.
type PieceKey = (String, u32, i64);

/// Writes a worker's state.
pub(crate) struct PartWriter {
    blobs: Option<Arc<dyn Blobs>>,
    names: Vec<String>,
    generation: u64,
    worker: WorkerId,
    /// How many threads all workers have.
    threads: usize,
    /// Where each table was written last.
    pieces: BTreeMap<PieceKey, Piece>,
}

impl PartWriter {
    /// A writer for the run of `plan`; without `blobs` no state is kept, only what sinks prepared.
    #[must_use]
    pub(crate) fn new(blobs: Option<Arc<dyn Blobs>>, plan: &Plan, assignment: &Assignment) -> Self {
        let names = plan.nodes.iter().map(|node| node.name.clone()).collect();
        Self {
            blobs,
            names,
            generation: assignment.generation,
            worker: assignment.me,
            threads: assignment.threads(),
            pieces: BTreeMap::new(),
        }
    }

    /// Writes what the tasks kept. `of` says of which checkpoint, or that it is the end.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) fn write(
        &mut self,
        of: &str,
        states: BTreeMap<TaskId, TaskState>,
    ) -> Result<Part, StreamError> {
        let mut part = Part::default();
        let mut file = HEADER.to_vec();
        let blob = state_name(self.generation, of, self.worker);
        for (task, state) in states {
            let name = self.names[task.node as usize].clone();
            match state {
                TaskState::Read(splits) => part.reads.entry(name).or_default().extend(splits),
                TaskState::Create(done) => {
                    part.creates.insert(name, done);
                }
                TaskState::Sink(prepared) => {
                    part.sinks.insert(name, prepared);
                }
                TaskState::Assert(rows) => {
                    part.asserts.insert(name, rows);
                }
                TaskState::Group(watermark, frozen) => {
                    if self.blobs.is_some() {
                        let pieces = write_group(&name, task.thread, frozen, &self.pieces, &blob, &mut file)?;
                        let group = part.groups.entry(name).or_default();
                        group.watermark = watermark.timestamp().micros();
                        group.pieces.extend(pieces);
                    }
                }
            }
        }
        for piece in part.groups.values_mut().flat_map(|group| &mut group.pieces) {
            let thread = piece.thread as usize;
            let groups = KeyGroup::of_owners(&(thread..thread + 1), self.threads);
            piece.groups = Some((groups.start, groups.end));
        }
        let all =
            part.groups.iter().flat_map(|(name, group)| group.pieces.iter().map(move |piece| (name, piece)));
        self.pieces =
            all.map(|(name, piece)| ((name.clone(), piece.thread, piece.slice), piece.clone())).collect();
        if let Some(blobs) = self.blobs.as_ref().filter(|_| file.len() > HEADER.len()) {
            blobs.put(&blob, &file).map_err(failed)?;
            part.written = file.len() as u64;
        }
        Ok(part)
    }
}

fn state_name(generation: u64, of: &str, worker: WorkerId) -> String {
    let generation = if plant::shares_names() { 0 } else { generation };
    format!("{generation}-{of}-{worker}.state")
}

/// An error of the store as one of the run.
pub(super) fn failed(error: BlobError) -> StreamError {
    StreamError::Store(error)
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
            groups: None,
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
            .filter(|(_, table)| table.is_some() || !plant::drops_unchanged())
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
