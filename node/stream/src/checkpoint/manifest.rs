//! The manifest of a checkpoint: everything that is needed to go on from it.
//!
//! Owns: the format, version 4 if it names sorted files of sessions and the like, else 3 if it names updates, else 2 if it
//! names other sorted files, else 1, in JSON; which plan may take it up. (The first builds that wrote version 1 had no
//! `run` and no `state`; they read one that has.)
//! Must not know: stores, the Ensemble.
//! Invariant: a manifest names every byte it needs by blob, place, length and CRC-32C. State is
//! named by the full names of transforms, never by their numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use pharos_beam::plan::Plan;
use pharos_beam::state::{Incompatible, STATE_VERSION, StateSchema, TakeOver};
use serde::{Deserialize, Serialize};

use super::part::{HEADER, Part};
use crate::error::StreamError;
use crate::exec::channel::{Epoch, Round};
use crate::exec::task::{Done, SplitProgress};
use crate::exec::{ROUND_STEPS, STEP_RECORDS};
use crate::group::{Earlier, LayerKind};
use crate::key::KEY_VERSION;
use crate::spill::RunId;

/// The latest version, which this build writes for state of keys with their windows that is on disk.
const VERSION: u32 = 4;
/// The version of a manifest that names none, but updates: earlier builds read it.
const WITH_UPDATES: u32 = 3;
/// The version of a manifest that names neither, but sorted files of tables: still earlier builds read it.
const WITH_FILES: u32 = 2;
/// The version of a manifest that names nothing of these.
const PLAIN: u32 = 1;

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
    /// It is of another document, whose state this one cannot take over.
    #[error(
        "the state of the document before cannot be taken over: {0}; go back to that document, which goes on from \
         there, or start anew with `upgradeMode: Stateless`"
    )]
    Incompatible(Incompatible),
}

impl From<ManifestError> for StreamError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::OtherPlan { .. } | ManifestError::Incompatible(_) => {
                Self::OtherPlan(error.to_string())
            }
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
    /// Entries of a table, or of what the general path holds, instead of what earlier pieces have for their keys.
    Update,
    /// The same of a table that comes after files.
    UpdateAfterFiles,
    /// A sorted file of a table; only what it has of the piece's key groups counts.
    File {
        /// Its name.
        id: RunId,
        /// Whether it holds anything that came since the last pane.
        fresh: bool,
    },
    /// A sorted file of keys with their windows; of several that have a key the last one counts.
    Keyed {
        /// Its name.
        id: RunId,
    },
}

impl PieceKind {
    /// Whether it is the one that every version knows.
    fn is_table(&self) -> bool {
        *self == Self::Table
    }

    /// The first version that knows it.
    fn version(self) -> u32 {
        match self {
            Self::Table => PLAIN,
            Self::TableAfterFiles | Self::File { .. } => WITH_FILES,
            Self::Update | Self::UpdateAfterFiles => WITH_UPDATES,
            Self::Keyed { .. } => VERSION,
        }
    }

    /// Of entries.
    #[must_use]
    pub(crate) const fn of(earlier: Earlier, layer: LayerKind) -> Self {
        match (earlier, layer) {
            (Earlier::Here, LayerKind::Base) => Self::Table,
            (Earlier::InFiles, LayerKind::Base) => Self::TableAfterFiles,
            (Earlier::Here, LayerKind::Update) => Self::Update,
            (Earlier::InFiles, LayerKind::Update) => Self::UpdateAfterFiles,
        }
    }

    /// What the entries are, unless they are in a sorted file.
    #[must_use]
    pub(crate) const fn entries(self) -> Option<(Earlier, LayerKind)> {
        match self {
            Self::Table => Some((Earlier::Here, LayerKind::Base)),
            Self::TableAfterFiles => Some((Earlier::InFiles, LayerKind::Base)),
            Self::Update => Some((Earlier::Here, LayerKind::Update)),
            Self::UpdateAfterFiles => Some((Earlier::InFiles, LayerKind::Update)),
            Self::File { .. } | Self::Keyed { .. } => None,
        }
    }
}

impl Piece {
    /// Whether it is a sorted file.
    #[must_use]
    pub(crate) fn is_file(&self) -> bool {
        self.kind.entries().is_none()
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
    /// The name of the run, which tells documents from each other.
    #[serde(default)]
    pub run: Option<String>,
    /// What state it is of.
    #[serde(default)]
    pub state: Option<StateSchema>,
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
    /// An empty manifest of a plan in the run `run`.
    #[must_use]
    pub(crate) fn new(plan: &Plan, run: &str, epoch: Epoch, round: Option<Round>) -> Self {
        Self {
            version: PLAIN,
            plan: plan.hash().to_string(),
            run: Some(run.to_owned()),
            state: Some(StateSchema::of(plan)),
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
            self.version = pieces.iter().map(|piece| piece.kind.version()).fold(self.version, u32::max);
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

    /// Reads a manifest.
    ///
    /// # Errors
    /// If it is damaged or of another version.
    pub(crate) fn read(name: &str, bytes: &[u8], crc: u32) -> Result<Self, ManifestError> {
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
        if !(1..=VERSION).contains(&found.version) {
            version("version", found.version.into(), VERSION.into())?;
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        version("key version", manifest.key_version.into(), KEY_VERSION.into())?;
        version("a step length of", manifest.step_records, STEP_RECORDS as u64)?;
        version("a round length of", manifest.round_steps, ROUND_STEPS as u64)?;
        if let Some(state) = &manifest.state {
            version("a description of state of version", state.version.into(), STATE_VERSION.into())?;
        }
        Ok(manifest)
    }

    /// What `plan` takes over from it as the run `run`; none if it is its own.
    ///
    /// # Errors
    /// If the plan cannot go on from it. Where the document is the same and the plan is not, it is the
    /// input that was found to be different: what was read of it before may not be where it was.
    pub(crate) fn taken_over_by(
        &self,
        name: &str,
        plan: &Plan,
        run: &str,
    ) -> Result<Option<TakeOver>, ManifestError> {
        let hash = plan.hash().to_string();
        if self.plan == hash {
            return Ok(None);
        }
        let ours = StateSchema::of(plan);
        match &self.state {
            Some(state) if self.run.as_deref() != Some(run) || state.has_input_of(&ours) => {
                state.taken_over_by(&ours).map(Some).map_err(ManifestError::Incompatible)
            }
            _ => {
                let found = self.plan.clone();
                Err(ManifestError::OtherPlan { name: name.to_owned(), found, ours: hash })
            }
        }
    }

    /// How many bytes of state it is made of: headers of files with tables, and sorted files as a whole, too.
    pub(crate) fn state_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut blobs = BTreeMap::new();
        for piece in self.groups.values().flat_map(|group| &group.pieces) {
            if piece.is_file() {
                blobs.insert(&piece.blob, piece.length);
            } else {
                blobs.insert(&piece.blob, HEADER.len() as u64);
                bytes += piece.length;
            }
        }
        bytes + blobs.into_values().sum::<u64>()
    }

    /// The blobs it needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &str> {
        self.groups.values().flat_map(|group| &group.pieces).map(|piece| piece.blob.as_str())
    }
}

#[cfg(test)]
mod tests {
    use pharos_beam::{NoSchemas, SourceName, compile};

    use super::*;

    fn plan(rows: &str) -> Plan {
        let document = format!(
            "pipeline: {{type: chain, transforms: [{{type: Create, name: C, config: {{elements: [{rows}]}}}}, {{type: \
             WriteToJson, name: W, config: {{path: out}}}}]}}"
        );
        compile(&document, SourceName::new("p"), &NoSchemas).unwrap()
    }

    fn read(json: &serde_json::Value) -> Result<Manifest, ManifestError> {
        let bytes = serde_json::to_vec(json).unwrap();
        Manifest::read("m", &bytes, crc32c::crc32c(&bytes))
    }

    #[test]
    fn a_manifest_of_the_first_version_is_read_and_serves_its_own_plan_alone() {
        let mut json = serde_json::to_value(Manifest::new(&plan("1"), "a", 3, Some(4))).unwrap();
        for later in ["run", "state"] {
            json.as_object_mut().unwrap().remove(later);
        }
        json["version"] = 1.into();
        let manifest = read(&json).unwrap();
        assert_eq!(manifest.taken_over_by("m", &plan("1"), "b"), Ok(None));
        let other = manifest.taken_over_by("m", &plan("2"), "b").unwrap_err();
        assert!(matches!(other, ManifestError::OtherPlan { .. }), "{other}");
        json["version"] = 5.into();
        assert_eq!(read(&json).unwrap_err().to_string(), "manifest `m` has version 5, this build reads 4");
    }

    #[test]
    fn a_table_is_written_and_read_as_in_version_1() {
        let old =
            r#"{"thread":1,"slice":-5,"groups":[0,512],"blob":"1-1-0.state","offset":8,"length":9,"crc":7}"#;
        let piece: Piece = serde_json::from_str(old).unwrap();
        assert_eq!((piece.kind, piece.groups), (PieceKind::Table, Some((0, 512))));
        assert_eq!(serde_json::to_string(&piece).unwrap(), old);
    }

    #[test]
    fn a_manifest_has_the_first_version_that_knows_all_that_it_names() {
        let piece = |kind| {
            let blob = "1-1-0.state".to_owned();
            Piece { thread: 0, slice: 0, groups: None, blob, offset: 8, length: 9, crc: 7, kind }
        };
        let id = RunId { generation: 1, thread: 0, node: 2, number: 3 };
        let file = PieceKind::File { id, fresh: true };
        for (kinds, version) in [
            (vec![], 1),
            (vec![PieceKind::Table], 1),
            (vec![file, PieceKind::TableAfterFiles], 2),
            (vec![PieceKind::Update, PieceKind::Table], 3),
            (vec![PieceKind::UpdateAfterFiles], 3),
            (vec![PieceKind::Keyed { id }, PieceKind::Table], 4),
        ] {
            let mut manifest = Manifest::new(&plan("1"), "a", 3, Some(4));
            for kind in kinds {
                let state = GroupState { watermark: 0, pieces: vec![piece(kind)] };
                manifest
                    .take_in(Part { groups: BTreeMap::from([("G".to_owned(), state)]), ..Part::default() });
            }
            assert_eq!(manifest.version, version);
            let (bytes, crc) = manifest.write();
            assert_eq!(Manifest::read("m", &bytes, crc), Ok(manifest));
        }
    }

    #[test]
    fn another_document_takes_over_what_it_can_and_is_refused_by_name() {
        let mut json = serde_json::to_value(Manifest::new(&plan("1"), "a", 3, Some(4))).unwrap();
        let refused = read(&json).unwrap().taken_over_by("m", &plan("2"), "b").unwrap_err().to_string();
        assert!(refused.contains("transform `C`: its rows are out, and are others now"), "{refused}");
        json["state"]["version"] = 9.into();
        let later = read(&json).unwrap_err().to_string();
        assert_eq!(later, "manifest `m` has a description of state of version 9, this build reads 1");
    }
}
