//! What one worker keeps of a checkpoint.
//!
//! Owns: the worker's state files (a header, then the pieces end to end), what the manifest will say of
//! them, and that outputs are durable before it is told.
//! Must not know: other workers, when a checkpoint counts.
//! Invariant: of tables only what changed is written, until that is much, and each sorted file once; the rest stays where
//! earlier checkpoints put it.
//! The names of files carry the generation and the worker, so nobody overwrites what another wrote.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pharos_beam::plan::Plan;
use serde::{Deserialize, Serialize};

use super::collector::TaskId;
use super::coordinator::WorkerId;
use super::manifest::{GroupState, Piece, PieceKind};
use super::{BlobError, Blobs};
use crate::assignment::Assignment;
use crate::error::StreamError;
use crate::exec::task::{Done, SplitProgress, TaskState};
use crate::group::{Earlier, Encoded, Frozen, FrozenSlice, FrozenState, Layer, Written};
use crate::io::Settle;
use crate::key::KeyGroup;
use crate::plant;
use crate::spill::Scoped;

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

/// So many outputs are made durable at the same time.
const SETTLING: usize = 16;

/// Makes outputs durable, each of its transform.
fn settle(unsettled: &[(String, Settle)]) -> Result<(), StreamError> {
    let settle = |(name, settle): &(String, Settle)| {
        settle().map_err(|source| StreamError::Connect { transform: name.clone(), source })
    };
    if let [one] = unsettled {
        return settle(one);
    }
    unsettled.chunks(SETTLING).try_for_each(|some| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|one| scope.spawn(move || settle(one))).collect();
            let join =
                |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("it does not panic");
            threads.into_iter().try_for_each(join)
        })
    })
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
    /// Where each table was written.
    tables: BTreeMap<PieceKey, Written<Piece>>,
    /// The sorted files of the last two parts, of which one is of the checkpoint that counts: they stay on this worker's
    /// disk, which need not read them again if it has to go on from there.
    files: [Vec<Scoped>; 2],
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
            tables: BTreeMap::new(),
            files: [Vec::new(), Vec::new()],
        }
    }

    /// Writes what the tasks kept. `of` says of which checkpoint, or that it is the end.
    ///
    /// # Errors
    /// If the store refuses, or what a sink prepared cannot be made durable.
    pub(crate) fn write(
        &mut self,
        of: &str,
        states: BTreeMap<TaskId, TaskState>,
    ) -> Result<Part, StreamError> {
        let mut part = Part::default();
        let (mut tables, mut files) = (BTreeMap::new(), Vec::new());
        let mut unsettled = Vec::new();
        let mut file =
            StateFile { name: state_name(self.generation, of, self.worker), bytes: HEADER.to_vec() };
        for (task, state) in states {
            let name = self.names[task.node as usize].clone();
            match state {
                TaskState::Read(splits) => part.reads.entry(name).or_default().extend(splits),
                TaskState::Create(done) => {
                    part.creates.insert(name, done);
                }
                TaskState::Sink(prepared) => {
                    unsettled.extend(prepared.settle.into_iter().map(|settle| (name.clone(), settle)));
                    part.sinks.insert(name, prepared.handle);
                }
                TaskState::Assert(rows) => {
                    part.asserts.insert(name, rows);
                }
                TaskState::Group(watermark, frozen) => {
                    if let Some(blobs) = &self.blobs {
                        let mut writer = GroupWriter {
                            name: &name,
                            thread: task.thread,
                            groups: self.groups_of(task.thread),
                            before: &self.tables,
                            now: &mut tables,
                            files: &mut files,
                            blobs: &**blobs,
                            written: &mut part.written,
                        };
                        let pieces = writer.write(frozen, &mut file)?;
                        let group = part.groups.entry(name).or_default();
                        group.watermark = watermark.timestamp().micros();
                        group.pieces.extend(pieces);
                    }
                }
            }
        }
        settle(&unsettled)?;
        self.tables = tables;
        self.files = [files, std::mem::take(&mut self.files[0])];
        if let Some(blobs) = self.blobs.as_ref().filter(|_| file.bytes.len() > HEADER.len()) {
            blobs.put(&file.name, &file.bytes).map_err(failed)?;
            part.written += file.bytes.len() as u64;
        }
        Ok(part)
    }

    /// The key groups of a thread.
    fn groups_of(&self, thread: u32) -> (u32, u32) {
        let thread = thread as usize;
        let groups = KeyGroup::of_owners(&(thread..thread + 1), self.threads);
        (groups.start, groups.end)
    }
}

/// A state file in the making.
struct StateFile {
    name: String,
    bytes: Vec<u8>,
}

fn state_name(generation: u64, of: &str, worker: WorkerId) -> String {
    let generation = if plant::shares_names() { 0 } else { generation };
    format!("{generation}-{of}-{worker}.state")
}

/// An error of the store as one of the run.
pub(super) fn failed(error: BlobError) -> StreamError {
    StreamError::Store(error)
}

/// Writes one thread's share of a grouping.
struct GroupWriter<'a> {
    name: &'a str,
    thread: u32,
    groups: (u32, u32),
    before: &'a BTreeMap<PieceKey, Written<Piece>>,
    now: &'a mut BTreeMap<PieceKey, Written<Piece>>,
    files: &'a mut Vec<Scoped>,
    blobs: &'a dyn Blobs,
    written: &'a mut u64,
}

impl GroupWriter<'_> {
    fn write(&mut self, frozen: Frozen, file: &mut StateFile) -> Result<Vec<Piece>, StreamError> {
        let slices = match frozen {
            Frozen::General(files, state) => {
                let keyed = |file: &Scoped| PieceKind::Keyed { id: file.run.id() };
                let files = files.iter().map(|file| self.file(0, file, keyed(file)));
                let mut pieces = files.collect::<Result<Vec<_>, _>>()?;
                pieces.extend(self.table(0, state, file, |Encoded { bytes, parts }, _, out| {
                    let start = out.len();
                    out.extend_from_slice(&bytes);
                    (Earlier::Here, parts.into_iter().map(|(groups, end)| (groups, start + end)).collect())
                })?);
                return Ok(pieces);
            }
            Frozen::Slices(slices) => slices,
        };
        let mut pieces = Vec::new();
        for FrozenSlice { start, files, table } in slices {
            for sorted in &files {
                let kind = PieceKind::File { id: sorted.run.id(), fresh: sorted.fresh };
                pieces.push(self.file(start, sorted, kind)?);
            }
            pieces.extend(self.table(start, table, file, |table, groups, out| {
                (table.earlier(), table.write(groups, out))
            })?);
        }
        Ok(pieces)
    }

    /// The pieces of a table, of which `write` appends what changed: where what came before it is, and its parts.
    fn table<T>(
        &mut self,
        slice: i64,
        state: FrozenState<T>,
        file: &mut StateFile,
        write: impl FnOnce(T, Range<u32>, &mut Vec<u8>) -> (Earlier, Vec<(Range<u32>, usize)>),
    ) -> Result<Vec<Piece>, StreamError> {
        let key = (self.name.to_owned(), self.thread, slice);
        let before = self.before.get(&key).cloned();
        let never = || {
            let name = self.name;
            StreamError::Checkpoint(format!(
                "transform `{name}`: a table of which nothing was kept comes without its base"
            ))
        };
        let written = match state {
            FrozenState::Empty => return Ok(Vec::new()),
            FrozenState::Unchanged if plant::drops_unchanged() => return Ok(Vec::new()),
            FrozenState::Unchanged => before.ok_or_else(never)?,
            FrozenState::Changed(layer, state) => {
                let mut written = match layer {
                    Layer::Base => Written::default(),
                    Layer::Update { .. } => before.ok_or_else(never)?,
                };
                let mut from = file.bytes.len();
                let (earlier, parts) = write(state, self.groups.0..self.groups.1, &mut file.bytes);
                let kind = PieceKind::of(earlier, layer.kind());
                let piece = |(groups, end): (Range<u32>, usize)| {
                    // The general path does not know which key groups are this thread's.
                    let groups = (groups.start.max(self.groups.0), groups.end.min(self.groups.1));
                    let piece = self.piece(slice, groups, kind, file, from..end);
                    from = end;
                    piece
                };
                written.add(layer, parts.into_iter().map(piece).collect());
                written
            }
        };
        let pieces = written.pieces().cloned().collect();
        self.now.insert(key, written);
        Ok(pieces)
    }

    fn piece(
        &self,
        slice: i64,
        groups: (u32, u32),
        kind: PieceKind,
        file: &StateFile,
        at: Range<usize>,
    ) -> Piece {
        let offset = at.start as u64;
        let bytes = &file.bytes[at];
        Piece {
            thread: self.thread,
            slice,
            groups: Some(groups),
            blob: file.name.clone(),
            offset,
            length: bytes.len() as u64,
            crc: crc32c::crc32c(bytes),
            kind,
        }
    }

    /// A sorted file is kept once, by whichever worker wrote it.
    fn file(&mut self, slice: i64, file: &Scoped, kind: PieceKind) -> Result<Piece, StreamError> {
        let (blobs, written) = (self.blobs, &mut *self.written);
        self.files.push(file.clone());
        let kept = file.run.keep(|name, bytes| -> Result<(), StreamError> {
            blobs.put(name, bytes).map_err(failed)?;
            *written += bytes.len() as u64;
            Ok(())
        })?;
        Ok(Piece {
            thread: self.thread,
            slice,
            groups: Some((file.groups.start, file.groups.end)),
            blob: kept.blob,
            offset: 0,
            length: kept.length,
            crc: kept.crc,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pharos_beam::{NoSchemas, SourceName, compile};

    use super::*;
    use crate::coordination::Member;
    use crate::io::{ConnectError, PreparedOutput};

    #[test]
    fn a_part_is_told_only_once_all_outputs_are_durable() {
        let document = "
pipeline:
  transforms:
    - {type: Create, name: Rows, config: {elements: [{a: 1}]}}
    - {type: WriteToJson, name: One, input: Rows, config: {path: one}}
    - {type: WriteToJson, name: Other, input: Rows, config: {path: other}}
";
        let plan = compile(document, SourceName::new("test.yaml"), &NoSchemas).unwrap();
        let me = Member::new("p".to_owned(), "w".to_owned(), "w:1".to_owned(), 1);
        let assignment = Assignment { generation: 1, workers: vec![me], me: 0 };
        let mut writer = PartWriter::new(None, &plan, &assignment);
        let settled = Arc::new(AtomicUsize::new(0));
        let good: Settle = {
            let settled = Arc::clone(&settled);
            Arc::new(move || {
                settled.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        let bad: Settle = Arc::new(|| Err(ConnectError::environment("the disk is gone")));
        let mut write = |other: &Settle| {
            let sink = |settle: &[&Settle]| {
                let settle = settle.iter().map(|settle| Arc::clone(settle)).collect();
                TaskState::Sink(PreparedOutput { handle: "so far".to_owned(), settle })
            };
            let task = |node| TaskId { node, thread: 0 };
            writer.write("1", BTreeMap::from([(task(1), sink(&[&good, &good])), (task(2), sink(&[other]))]))
        };
        let part = write(&good).unwrap();
        assert_eq!((part.sinks["Other"].as_str(), settled.load(Ordering::SeqCst)), ("so far", 3));
        let error = write(&bad).unwrap_err().to_string();
        assert!(error.contains("`Other`: the disk is gone"), "{error}");
    }
}
