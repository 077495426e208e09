//! Rows to files.
//!
//! Owns: the formats of output, shards and their names, and how a file becomes visible.
//! Must not know: when checkpoints happen.
//! Invariant: an output file is either absent or whole. While it is being written it has another
//! name (`.NAME.RUN.part`, in the same directory), or is an upload in parts that nobody sees.
//!
//! Names are Beam's: `PATH-SSSSS-of-NNNNN`, one shard unless the write asks for more. All windows go
//! to the same files. Rows are dealt to shards in turn, as many at a time as the engine says belong together.

mod begun;
mod encode;
mod local;
mod upload;

use std::sync::Arc;

use pharos_beam::plan::{WriteFormat, WriteSpec};
use pharos_beam::schema::Schema;
use pharos_stream::io::{AttemptId, ConnectError, Encode, Last, PreparedOutput, Settle, Sink};
use serde::{Deserialize, Serialize};

use crate::place::Place;

pub(crate) use local::failed as disk_failed;

/// The encoder of a format.
#[must_use]
pub(crate) fn encoder(format: &WriteFormat, schema: &Schema) -> Arc<dyn Encode> {
    encode::encoder(format, schema)
}

/// What was prepared, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Prepared {
    version: u32,
    /// The next shard to write to.
    next: usize,
    shards: Vec<Shard>,
}

/// How far a shard is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Shard {
    /// A local file that is not visible yet.
    Local(local::PreparedFile),
    /// An object that is not visible yet.
    Object(upload::PreparedUpload),
}

enum Open {
    Local(local::LocalShard),
    Object(upload::ObjectShard),
}

impl Open {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        match self {
            Self::Local(shard) => shard.append(bytes),
            Self::Object(shard) => shard.append(bytes),
        }
    }

    fn prepare(&mut self) -> Result<(Shard, Option<Settle>), ConnectError> {
        Ok(match self {
            Self::Local(shard) => {
                let (prepared, settle) = shard.prepare()?;
                (Shard::Local(prepared), Some(settle))
            }
            Self::Object(shard) => (Shard::Object(shard.prepare()), None),
        })
    }
}

struct FileSink {
    shards: Vec<Open>,
    next: usize,
}

impl Sink for FileSink {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), ConnectError> {
        let shard = self.next % self.shards.len();
        self.next = shard + 1;
        pieces.iter().try_for_each(|bytes| self.shards[shard].append(bytes))
    }

    fn prepare(&mut self, _last: Last) -> Result<PreparedOutput, ConnectError> {
        let prepared = self.shards.iter_mut().map(Open::prepare).collect::<Result<Vec<_>, _>>()?;
        let (shards, settle): (Vec<Shard>, Vec<Option<Settle>>) = prepared.into_iter().unzip();
        let prepared = Prepared { version: 1, next: self.next, shards };
        let handle = serde_json::to_string(&prepared).expect("plain data becomes JSON");
        Ok(PreparedOutput { handle, settle: settle.into_iter().flatten().collect() })
    }
}

fn parse(prepared: &str) -> Result<Prepared, ConnectError> {
    let prepared: Prepared = serde_json::from_str(prepared)
        .map_err(|error| ConnectError::environment(format!("what the checkpoint kept of a sink: {error}")))?;
    if prepared.version != 1 {
        let message =
            format!("what the checkpoint kept of a sink has version {}, known is 1", prepared.version);
        return Err(ConnectError::environment(message));
    }
    Ok(prepared)
}

/// The name of a shard.
fn shard_path(path: &str, shard: usize, of: usize) -> String {
    format!("{path}-{shard:05}-of-{of:05}")
}

/// The sink of a write.
///
/// # Errors
/// If it cannot be opened, or what was prepared is gone.
pub(crate) fn sink(
    place: &Place,
    write: &WriteSpec,
    schema: &Schema,
    attempt: AttemptId<'_>,
    prepared: Option<&str>,
) -> Result<Box<dyn Sink>, ConnectError> {
    let prepared = prepared.map(parse).transpose()?;
    let count = write.shards.unwrap_or(1).max(1) as usize;
    let header = encode::header(&write.format, schema);
    let mut shards = Vec::with_capacity(count);
    for shard in 0..count {
        let kept = prepared.as_ref().and_then(|prepared| prepared.shards.get(shard));
        let mut open = match (place, kept) {
            (Place::Local(path), Some(Shard::Local(kept))) => Open::Local(local::LocalShard::reopen(
                &shard_path(&path.to_string_lossy(), shard, count),
                attempt.run,
                kept,
            )?),
            (Place::Local(path), _) => Open::Local(local::LocalShard::create(
                &shard_path(&path.to_string_lossy(), shard, count),
                attempt.run,
            )?),
            (Place::Object { bucket, key }, kept) => {
                let kept = match kept {
                    Some(Shard::Object(kept)) => Some(kept),
                    _ => None,
                };
                let key = shard_path(key, shard, count);
                Open::Object(upload::ObjectShard::open(bucket.clone(), key, attempt, kept)?)
            }
        };
        if kept.is_none() && !header.is_empty() {
            open.append(&header)?;
        }
        shards.push(open);
    }
    Ok(Box::new(FileSink { shards, next: prepared.map_or(0, |prepared| prepared.next) }))
}

/// Makes visible what was prepared.
///
/// # Errors
/// If it cannot be done.
pub(crate) fn commit(place: &Place, prepared: &str) -> Result<Vec<String>, ConnectError> {
    let prepared = parse(prepared)?;
    let count = prepared.shards.len();
    let mut names = Vec::with_capacity(count);
    for (shard, kept) in prepared.shards.iter().enumerate() {
        match (place, kept) {
            (Place::Local(path), Shard::Local(kept)) => {
                let path = shard_path(&path.to_string_lossy(), shard, count);
                local::commit(&path, kept)?;
                names.push(path);
            }
            (Place::Object { bucket, key }, Shard::Object(kept)) => {
                let key = shard_path(key, shard, count);
                upload::commit(bucket, &key, kept)?;
                names.push(format!("s3://{}/{key}", bucket.name()));
            }
            _ => {
                let message = format!("`{}`: the checkpoint kept another kind of file", place.name());
                return Err(ConnectError::environment(message));
            }
        }
    }
    Ok(names)
}
