//! The object store and the files of a simulated run.
//!
//! Owns: checkpoints' blobs, the input, outputs in the making and visible ones, and what must hold of them
//! at every moment.
//! Must not know: how workers work.
//! Invariant: nothing that the checkpoint that counts needs is ever deleted, and no output is visible
//! before the checkpoint that holds all of it counts.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::ArrayRef;
use bytes::Bytes;
use pharos_beam::plan::{ReadSpec, WriteSpec};
use pharos_beam::schema::{Schema, Value};

use super::data::Row;
use super::world::{Op, Proc, op, with};
use crate::checkpoint::{BlobError, Blobs};
use crate::column::{Batch, build};
use crate::io::{
    AttemptId, ConnectError, Connectors, Encode, Last, Offset, PreparedOutput, Records, Sink, Split, Version,
};
use crate::json;

/// The store, as one process sees it.
pub(super) struct SimBlobs(pub(super) Proc);

fn dead() -> BlobError {
    ConnectError::environment("killed").into()
}

impl Blobs for SimBlobs {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError> {
        let put = || {
            with(|world| {
                let before = world.blobs.insert(name.to_owned(), bytes.to_vec());
                // Whether the checkpoint that counts needs it is a matter of luck.
                if before.is_some_and(|before| before != bytes) {
                    world.violate(format!("`{name}` is overwritten with other bytes"));
                }
            });
        };
        op(self.0, Op::Store, put).ok_or_else(dead)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError> {
        let create = || {
            with(|world| {
                let free = !world.blobs.contains_key(name);
                if free {
                    world.blobs.insert(name.to_owned(), bytes.to_vec());
                }
                free
            })
        };
        op(self.0, Op::Store, create).ok_or_else(dead)
    }

    fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
        let part = |blob: &Vec<u8>| {
            let end = blob.len().min(range.end as usize);
            Bytes::copy_from_slice(&blob[(range.start as usize).min(end)..end])
        };
        op(self.0, Op::Store, || with(|world| world.blobs.get(name).map(part))).ok_or_else(dead)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError> {
        op(self.0, Op::Store, || with(|world| world.blobs.get(name).cloned())).ok_or_else(dead)
    }

    fn list(&self) -> Result<Vec<String>, BlobError> {
        op(self.0, Op::Store, || with(|world| world.blobs.keys().cloned().collect())).ok_or_else(dead)
    }

    fn delete(&self, name: &str) -> Result<(), BlobError> {
        let delete = || {
            with(|world| {
                world.blobs.remove(name);
                if world.needed().contains(name) {
                    world.violate(format!("`{name}` is deleted, and the checkpoint that counts needs it"));
                }
            });
        };
        op(self.0, Op::Store, delete).ok_or_else(dead)
    }
}

/// The input and the outputs, as one process sees them.
pub(super) struct SimFiles(pub(super) Proc);

struct SimSplit {
    name: String,
    rows: Arc<Vec<Row>>,
    records: u64,
    schema: Schema,
    at: Offset,
}

impl Split for SimSplit {
    fn name(&self) -> &str {
        &self.name
    }
    fn offset(&self) -> Offset {
        self.at
    }
    fn bytes(&self) -> Option<u64> {
        Some(self.records)
    }
    fn done(&self) -> u64 {
        self.at.byte
    }
    fn version(&self) -> Version {
        Version::default()
    }
    fn seek(&mut self, offset: Offset, _: Option<&Version>) -> Result<(), ConnectError> {
        self.at = offset;
        Ok(())
    }
    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        let (from, until) = (self.at.byte, (self.at.byte + records as u64).min(self.records));
        let rows: Vec<&Row> = self.rows.iter().filter(|row| (from..until).contains(&row.position)).collect();
        let cell = |name: &str, row: &Row| match name {
            "at" => Value::Int64(row.at),
            "key" => Value::String(row.key.clone()),
            _ => Value::Int64(row.value),
        };
        let column = |field: &pharos_beam::schema::Field| -> ArrayRef {
            let cells: Vec<Value> = rows.iter().map(|row| cell(&field.name, row)).collect();
            build(&field.ty, &cells.iter().collect::<Vec<_>>())
        };
        self.at = Offset { byte: until, line: until };
        Ok(Records {
            columns: self.schema.fields.iter().map(column).collect(),
            rows: rows.len(),
            positions: rows.iter().map(|row| (row.position - from) as u32).collect(),
            bad: Vec::new(),
            end: until == self.records,
        })
    }
    fn record(&self, position: u32) -> (String, String) {
        (self.name.clone(), format!("record {position}"))
    }
}

struct Lines(Schema);

impl Encode for Lines {
    fn encode(&self, batch: &Batch) -> Result<Vec<u8>, ConnectError> {
        let mut text = String::new();
        for row in 0..batch.rows {
            json::write_row(&self.0, &batch.columns, row, &mut text);
            text.push('\n');
        }
        Ok(text.into_bytes())
    }
}

/// A file in the making.
struct SimSink {
    proc: Proc,
    path: String,
    at: usize,
}

impl Sink for SimSink {
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), ConnectError> {
        with(|world| {
            world.live(self.proc).ok_or_else(|| ConnectError::environment("killed"))?;
            for bytes in pieces {
                let file = world.making.entry(self.path.clone()).or_default();
                let known = file.len().saturating_sub(self.at).min(bytes.len());
                if self.at > file.len() || file[self.at..self.at + known] != bytes[..known] {
                    let why = format!("`{}` is overwritten with other bytes at {}", self.path, self.at);
                    world.violate(why);
                    return Ok(());
                }
                file.extend_from_slice(&bytes[known..]);
                self.at += bytes.len();
            }
            Ok(())
        })
    }

    fn prepare(&mut self, _: Last) -> Result<PreparedOutput, ConnectError> {
        with(|world| world.live(self.proc).map(drop)).ok_or_else(|| ConnectError::environment("killed"))?;
        Ok(self.at.to_string().into())
    }
}

impl Connectors for SimFiles {
    fn splits(&self, _: &ReadSpec, schema: &Schema, _: &[bool]) -> Result<Vec<Box<dyn Split>>, ConnectError> {
        let split = |(number, (rows, records)): (usize, &(Arc<Vec<Row>>, u64))| -> Box<dyn Split> {
            let (name, rows) = (format!("in-{number}"), Arc::clone(rows));
            Box::new(SimSplit {
                name,
                rows,
                records: *records,
                schema: schema.clone(),
                at: Offset::default(),
            })
        };
        Ok(with(|world| world.input.iter().enumerate().map(split).collect()))
    }

    fn encoder(&self, _: &WriteSpec, schema: &Schema) -> Result<Arc<dyn Encode>, ConnectError> {
        Ok(Arc::new(Lines(schema.clone())))
    }

    fn sink(
        &self,
        write: &WriteSpec,
        _: &Schema,
        _: AttemptId<'_>,
        prepared: Option<&str>,
    ) -> Result<Box<dyn Sink>, ConnectError> {
        let at = prepared.map_or(0, |prepared| prepared.parse().expect("it is a number"));
        let path = write.path.clone();
        with(|world| {
            let there = world.making.get(&path).map_or(0, Vec::len);
            if there < at {
                world.violate(format!("`{path}` has {there} bytes, of which {at} were prepared"));
            }
        });
        Ok(Box::new(SimSink { proc: self.0, path, at }))
    }

    fn commit(&self, write: &WriteSpec, prepared: &str) -> Result<Vec<String>, ConnectError> {
        let length: usize = prepared.parse().expect("it is a number");
        let commit = || {
            with(|world| {
                let path = write.path.clone();
                let bytes = world.making.get(&path).and_then(|file| file.get(..length)).map(<[u8]>::to_vec);
                let bytes = bytes.unwrap_or_default();
                let last = world.manifest();
                if last.as_ref().is_none_or(|last| last.round.is_some()) {
                    world.violate(format!("`{path}` is visible, and no last checkpoint counts"));
                } else if !last.is_some_and(|last| last.sinks.values().any(|kept| kept == prepared)) {
                    world.violate(format!(
                        "`{path}` is visible with {length} bytes, which no checkpoint says"
                    ));
                }
                if world.visible.insert(path.clone(), bytes.clone()).is_some_and(|before| before != bytes) {
                    world.violate(format!("`{path}` changes after it was visible"));
                }
                vec![path]
            })
        };
        op(self.0, Op::Store, commit).ok_or_else(|| ConnectError::environment("killed"))
    }
}
