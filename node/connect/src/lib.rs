//! Sources and sinks: text, CSV, JSON and Parquet files, on local disks and in object stores.
//!
//! Owns: paths and globs, formats, how an output becomes visible, the sampling of schemas.
//! Must not know: windows, keys, checkpoints (it is told what to prepare and to commit).
//! Invariant: the splits of the same files are always the same, and each is read in order; an output file appears
//! once, whole.

mod blob;
mod object;
mod place;
mod read;
mod sample;
mod write;

use std::sync::Arc;

use pharos_beam::plan::{ReadSpec, WriteSpec};
use pharos_beam::schema::Schema;
use pharos_stream::io::{AttemptId, ConnectError, Connectors, Encode, Sink, Split};

pub use blob::open_blobs;
pub use place::Place;
pub use read::Division;
pub use sample::Sampler;

/// The files of this machine and of object stores.
#[derive(Debug, Clone)]
pub struct Files {
    base: std::path::PathBuf,
    division: Division,
}

impl Files {
    /// Files whose relative paths start at `base`.
    #[must_use]
    pub fn new(base: impl Into<std::path::PathBuf>) -> Self {
        Self { base: base.into(), division: Division::USUAL }
    }

    /// The same files, large ones divided in another way.
    #[must_use]
    pub fn divided(self, division: Division) -> Self {
        Self { division, ..self }
    }

    fn place(&self, path: &str) -> Result<Place, ConnectError> {
        Place::parse(path, &self.base)
    }
}

impl Connectors for Files {
    fn splits(
        &self,
        read: &ReadSpec,
        schema: &Schema,
        wanted: &[bool],
    ) -> Result<Vec<Box<dyn Split>>, ConnectError> {
        let place = self.place(&read.path)?;
        let files = place.find()?;
        let mut splits = Vec::with_capacity(files.len());
        for file in &files {
            splits.extend(read::open(file, files.len(), &self.division, &read.format, schema, wanted)?);
        }
        Ok(splits)
    }

    fn encoder(&self, write: &WriteSpec, schema: &Schema) -> Result<Arc<dyn Encode>, ConnectError> {
        Ok(write::encoder(&write.format, schema))
    }

    fn sink(
        &self,
        write: &WriteSpec,
        schema: &Schema,
        attempt: AttemptId<'_>,
        prepared: Option<&str>,
    ) -> Result<Box<dyn Sink>, ConnectError> {
        write::sink(&self.place(&write.path)?, write, schema, attempt, prepared)
    }

    fn commit(&self, write: &WriteSpec, prepared: &str) -> Result<Vec<String>, ConnectError> {
        write::commit(&self.place(&write.path)?, prepared)
    }
}
