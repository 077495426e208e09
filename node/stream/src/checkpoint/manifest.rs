//! The manifest of a checkpoint: everything that is needed to go on from it.
//!
//! Owns: the format, version 1, or 2 if it names sorted files, in JSON; what of a plan must be the same for it to be taken up.
//! Must not know: stores, the Ensemble.
//! Invariant: a manifest names every byte it needs by blob, place, length and CRC-32C. State is
//! named by the full names of transforms, never by their numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use pharos_beam::plan::Plan;
use serde::{Deserialize, Serialize};

use super::part::Part;
use crate::error::StreamError;
use crate::exec::channel::{Epoch, Round};
use crate::exec::task::{Done, SplitProgress};
use crate::exec::{ROUND_STEPS, STEP_RECORDS};
use crate::key::KEY_VERSION;
use crate::spill::RunId;

/// The latest version, which this build writes for state that lies in sorted files.
const VERSION: u32 = 2;
/// The version of a manifest that names none: earlier builds read it.
const WITHOUT_FILES: u32 = 1;

/// Why a manifest cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It is no manifest.
    #[error("manifest `{0}` cannot be read: {1}")]
    Unreadable(String, String),
    /// Its checksum does not match.
    #[error("manifest `{0}` is damaged: its checksum does not match")]
    Damaged(String),
    /// It is of another version.
    #[error("manifest `{name}` has {what} {found}, this build reads {known}")]
    Version {
        /// Which manifest.
        name: String,
        /// Which version.
        what: &'static str,
        /// What it has.
        found: u64,
        /// What is known.
        known: u64,
    },
    /// It is of another plan.
    #[error(
        "manifest `{name}` is of another plan, {found}, and this one is {ours}: the pipeline has changed, or the \
         columns or types that its input was found to have; give the read a `schema`, or start anew"
    )]
    OtherPlan {
        /// Which manifest.
        name: String,
        /// The hash of its plan.
        found: String,
        /// The hash of the plan that was to go on from it.
        ours: String,
    },
}

impl From<ManifestError> for StreamError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::OtherPlan { .. } => Self::OtherPlan(error.to_string()),
            ManifestError::Unreadable(..) | ManifestError::Damaged(_) => Self::Damaged(error.to_string()),
            ManifestError::Version { .. } => Self::Checkpoint(error.to_string()),
        }
    }
}

/// A piece of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// The thread that wrote it.
    pub thread: u32,
    /// The start of the slice.
    pub slice: i64,
    /// The key groups that it may hold, from the first to before the second; all, if it does not say.
    #[serde(default)]
    pub groups: Option<(u32, u32)>,
    /// The blob.
    pub blob: String,
    /// Where in it.
    pub offset: u64,
    /// How long.
    pub length: u64,
    /// CRC-32C of the bytes.
    pub crc: u32,
    /// What the bytes are.
    #[serde(default, skip_serializing_if = "PieceKind::is_table")]
    pub kind: PieceKind,
}

/// What the bytes of a piece are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum PieceKind {
    /// A table that is all there is of its slice, or what the general path holds.
    #[default]
    Table,
    /// A table that comes after the files of its slice.
    TableAfterFiles,
    /// A sorted file; only what it has of the piece's key groups counts.
    File {
        /// Its name.
        id: RunId,
        /// Whether it holds anything that came since the last pane.
        fresh: bool,
    },
}

impl PieceKind {
    /// Whether it is the one that every version knows.
    fn is_table(&self) -> bool {
        *self == Self::Table
    }
}

impl Piece {
    /// Whether it is a sorted file.
    #[must_use]
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, PieceKind::File { .. })
    }

    /// Whether it may hold some of these key groups.
    #[must_use]
    pub(crate) fn concerns(&self, groups: &Range<u32>) -> bool {
        self.groups.is_none_or(|(first, end)| first < groups.end && groups.start < end)
    }
}

/// The state of a grouping.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct GroupState {
    /// Its input watermark, in microseconds.
    pub watermark: i64,
    /// Its tables.
    pub pieces: Vec<Piece>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of this record.
    pub version: u32,
    /// The hash of the plan.
    pub plan: String,
    /// The version of key bytes and key hashes.
    pub key_version: u32,
    /// How many records make a step.
    pub step_records: u64,
    /// How many steps make a round: it decides the order of rows that no grouping has put in order.
    pub round_steps: u64,
    /// Its number.
    pub epoch: Epoch,
    /// The round of its barrier; none: the input has ended.
    pub round: Option<Round>,
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
}

impl Manifest {
    /// An empty manifest of a plan.
    #[must_use]
    pub(crate) fn new(plan: &Plan, epoch: Epoch, round: Option<Round>) -> Self {
        Self {
            version: WITHOUT_FILES,
            plan: plan.hash().to_string(),
            key_version: KEY_VERSION,
            step_records: STEP_RECORDS as u64,
            round_steps: ROUND_STEPS as u64,
            epoch,
            round,
            reads: BTreeMap::new(),
            creates: BTreeMap::new(),
            groups: BTreeMap::new(),
            sinks: BTreeMap::new(),
            asserts: BTreeMap::new(),
        }
    }

    /// Adds what a worker kept.
    pub(crate) fn take_in(&mut self, part: Part) {
        let Part { reads, creates, groups, sinks, asserts, written: _ } = part;
        reads.into_iter().for_each(|(name, splits)| self.reads.entry(name).or_default().extend(splits));
        self.creates.extend(creates);
        for (name, GroupState { watermark, pieces }) in groups {
            let group = self.groups.entry(name).or_default();
            group.watermark = watermark;
            if !pieces.iter().all(|piece| piece.kind.is_table()) {
                self.version = VERSION;
            }
            group.pieces.extend(pieces);
        }
        self.sinks.extend(sinks);
        self.asserts.extend(asserts);
    }

    /// The bytes and their checksum.
    #[must_use]
    pub(crate) fn write(&self) -> (Vec<u8>, u32) {
        let bytes = serde_json::to_vec(self).expect("plain data becomes JSON");
        let crc = crc32c::crc32c(&bytes);
        (bytes, crc)
    }

    /// Reads a manifest of `plan`.
    ///
    /// # Errors
    /// If it is damaged, of another version, or of another plan.
    pub(crate) fn read(name: &str, bytes: &[u8], crc: u32, plan: &Plan) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if crc32c::crc32c(bytes) != crc {
            return Err(ManifestError::Damaged(name.to_owned()));
        }
        let unreadable =
            |error: serde_json::Error| ManifestError::Unreadable(name.to_owned(), error.to_string());
        let version = |what, found: u64, known: u64| {
            if found == known {
                return Ok(());
            }
            Err(ManifestError::Version { name: name.to_owned(), what, found, known })
        };
        // A later version may look different altogether, so its number is read alone first.
        let found: Versioned = serde_json::from_slice(bytes).map_err(unreadable)?;
        if found.version != WITHOUT_FILES {
            version("version", found.version.into(), VERSION.into())?;
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        version("key version", manifest.key_version.into(), KEY_VERSION.into())?;
        version("a step length of", manifest.step_records, STEP_RECORDS as u64)?;
        version("a round length of", manifest.round_steps, ROUND_STEPS as u64)?;
        let hash = plan.hash().to_string();
        if manifest.plan != hash {
            return Err(ManifestError::OtherPlan { name: name.to_owned(), found: manifest.plan, ours: hash });
        }
        Ok(manifest)
    }

    /// The blobs it needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &str> {
        self.groups.values().flat_map(|group| &group.pieces).map(|piece| piece.blob.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_and_read_as_in_version_1() {
        let old =
            r#"{"thread":1,"slice":-5,"groups":[0,512],"blob":"1-1-0.state","offset":8,"length":9,"crc":7}"#;
        let piece: Piece = serde_json::from_str(old).unwrap();
        assert_eq!((piece.kind, piece.groups), (PieceKind::Table, Some((0, 512))));
        assert_eq!(serde_json::to_string(&piece).unwrap(), old);
    }
}
