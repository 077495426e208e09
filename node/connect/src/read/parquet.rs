//! Parquet files: columns, in groups of rows.
//!
//! Owns: which groups of rows a split has; how a record is named and shown.
//! Must not know: windows.
//! Invariant: a split gives the rows of its groups in the order of the file, and where a read ends depends on how many
//! records were asked for alone.
//!
//! A large file is divided by its groups, which are dealt to lanes in turn as stripes are elsewhere: the lanes are read
//! side by side, near to each other in the file. Only the columns that somebody looks at are read.

mod chunks;
mod convert;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_schema::DataType;
use arrow_select::concat::concat;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use pharos_beam::schema::Schema;
use pharos_stream::column::{layout, take_columns};
use pharos_stream::io::{BadRecord, ConnectError, Offset, Records, Split, Version};
use pharos_stream::json;

use super::bytes::{ByteSource, UNCHANGED};
use super::lane::Division;
use chunks::Chunks;
use convert::{Misfits, convert, fits, in_micros, refuse_null};

/// How many reads the reader's batches last for: what it costs to begin one is paid for by so many.
const READS_AT_ONCE: usize = 4;

/// What a file says of itself.
struct Table {
    metadata: ArrowReaderMetadata,
    source: ByteSource,
    size: u64,
}

impl Table {
    fn open(source: ByteSource) -> Result<Self, ConnectError> {
        let name = source.name().to_owned();
        let Some(size) = source.version().bytes else {
            return Err(ConnectError::user(format!("`{name}` is no file: Parquet is read from its end")));
        };
        let chunks = Chunks::new(source.clone(), size, 1, Vec::new());
        let options = ArrowReaderOptions::new()
            // What the file says of its types is all there is to know; a hint by its writer is of use to that one alone.
            .with_skip_arrow_metadata(true)
            .with_page_index_policy(PageIndexPolicy::Skip);
        let unreadable = |error: &dyn fmt::Display| {
            let error = || ConnectError::user(format!("`{name}` cannot be read as Parquet: {error}"));
            chunks.failure().unwrap_or_else(error)
        };
        let metadata =
            ArrowReaderMetadata::load(&chunks, options.clone()).map_err(|error| unreadable(&error))?;
        check(metadata.metadata(), size).map_err(|what| unreadable(&what))?;
        let old: Vec<bool> = metadata
            .parquet_schema()
            .columns()
            .iter()
            .map(|column| column.physical_type() == PhysicalType::INT96)
            .collect();
        if !old.contains(&true) {
            return Ok(Self { metadata, source, size });
        }
        let schema = arrow_schema::Schema::new(in_micros(metadata.schema().fields(), &mut old.into_iter()));
        let options = options.with_schema(Arc::new(schema));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options);
        Ok(Self { metadata: metadata.map_err(|error| unreadable(&error))?, source, size })
    }

    fn fields(&self) -> &arrow_schema::Fields {
        self.metadata.schema().fields()
    }
}

/// Checks what a file says of where its columns are: it has no checksum.
fn check(metadata: &ParquetMetaData, size: u64) -> Result<(), String> {
    for (number, group) in metadata.row_groups().iter().enumerate() {
        if group.num_rows() < 0 {
            return Err(format!("row group {number} has {} rows", group.num_rows()));
        }
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size()).and_then(|end| u64::try_from(end).ok());
            if start < 0 || column.compressed_size() < 0 || end.is_none_or(|end| end > size) {
                let path = column.column_path().string();
                return Err(format!("row group {number}: column `{path}` is not within the file"));
            }
        }
    }
    Ok(())
}

/// The schema that a file gives its rows.
///
/// # Errors
/// If it cannot be read, or a column has a type that there is none for here.
pub(crate) fn schema(source: ByteSource) -> Result<Schema, ConnectError> {
    let name = source.name().to_owned();
    let table = Table::open(source)?;
    convert::schema_of(table.fields()).map_err(|(column, ty)| {
        ConnectError::user(format!(
            "`{name}`: column `{column}` is of type {ty}, which rows have none for: name the columns to read by `schema`"
        ))
    })
}

/// Where the values of a field come from.
#[derive(Clone, Copy)]
enum Origin {
    /// This one of the columns that are read.
    Column(usize),
    /// The file has no such column, and the field may be null.
    Missing,
    /// Nobody looks at it.
    Unwanted,
}

/// A group of rows.
#[derive(Clone)]
struct Group {
    number: usize,
    /// How many rows of the file lie before it.
    before: u64,
    rows: u64,
    /// The bytes of the columns that are read.
    bytes: u64,
}

/// The groups of a file that belong to one lane.
pub(crate) struct ParquetSplit {
    name: String,
    table: Arc<Table>,
    chunks: Chunks,
    schema: Schema,
    origins: Vec<Origin>,
    mask: ProjectionMask,
    groups: Vec<Group>,
    /// How many rows of its own were read.
    read: u64,
    /// How many of them the reader has given, or passed over.
    given: u64,
    reader: Option<ParquetRecordBatchReader>,
    ahead: Ahead,
    /// The rows of the last read.
    last: Vec<ArrayRef>,
    last_rows: usize,
}

/// Rows that the reader has given and nobody has asked for yet.
#[derive(Default)]
struct Ahead {
    columns: Vec<ArrayRef>,
    misfits: Misfits,
    at: usize,
    rows: usize,
}

/// The splits of one file of `files` that are read at once. Of the fields that are not `wanted` nothing is read.
///
/// # Errors
/// If it is no Parquet file, or lacks a field of the schema.
pub(crate) fn open(
    source: ByteSource,
    files: usize,
    division: &Division,
    schema: &Schema,
    wanted: &[bool],
) -> Result<Vec<Box<dyn Split>>, ConnectError> {
    let table = Table::open(source)?;
    let (origins, roots) = origins(&table, schema, wanted)?;
    let descriptor = table.metadata.parquet_schema();
    let mask = ProjectionMask::roots(descriptor, roots);
    let columns = (0..descriptor.num_columns()).filter(|leaf| mask.leaf_included(*leaf)).count();
    let mut parts = Vec::new();
    let mut groups = Vec::new();
    let mut before = 0;
    for (number, group) in table.metadata.metadata().row_groups().iter().enumerate() {
        let leaves = (0..group.num_columns()).filter(|leaf| mask.leaf_included(*leaf));
        let ranges = leaves.map(|leaf| group.column(leaf).byte_range());
        let ranges: Vec<Range<u64>> =
            ranges.map(|(start, length)| start..start.saturating_add(length)).collect();
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        let rows = group.num_rows() as u64;
        groups.push(Group { number, before, rows, bytes });
        parts.push(ranges);
        before += rows;
    }
    let lanes = division.lanes(Some(table.size), files).len().min(groups.len()).max(1);
    let table = Arc::new(table);
    let split = |lane: usize| -> Box<dyn Split> {
        let mine = |number: &usize| number % lanes == lane;
        let parts = (0..groups.len()).filter(mine).flat_map(|number| parts[number].clone()).collect();
        let name = table.source.name();
        Box::new(ParquetSplit {
            name: if lanes == 1 { name.to_owned() } else { format!("{name}#{lane}/{lanes}") },
            chunks: Chunks::new(table.source.clone(), table.size, columns, parts),
            table: Arc::clone(&table),
            schema: schema.clone(),
            origins: origins.clone(),
            mask: mask.clone(),
            groups: groups.iter().filter(|group| mine(&group.number)).cloned().collect(),
            read: 0,
            given: 0,
            reader: None,
            ahead: Ahead::default(),
            last: Vec::new(),
            last_rows: 0,
        })
    };
    Ok((0..lanes).map(split).collect())
}

/// Where each field comes from, and which of the file's columns are read.
fn origins(
    table: &Table,
    schema: &Schema,
    wanted: &[bool],
) -> Result<(Vec<Origin>, Vec<usize>), ConnectError> {
    let name = table.source.name();
    let found: Vec<Option<usize>> = schema
        .fields
        .iter()
        .map(|field| {
            let Some((position, column)) = table.fields().find(&field.name) else {
                return match field.ty.admits_null() {
                    true => Ok(None),
                    false => Err(ConnectError::user(format!(
                        "`{name}` has no column `{}`: all files of a read must have the columns of its schema that may \
                         not be null; leave this file out, or read it by a transform of its own",
                        field.name
                    ))),
                };
            };
            match convert::type_of(column) {
                Ok(ty) if fits(&field.ty, &ty) => Ok(Some(position)),
                ty => {
                    let ty = ty.map_or_else(|none| none.to_string(), |ty| ty.to_string());
                    let message = format!("`{name}`: column `{}` is {ty}, not {}", field.name, field.ty);
                    Err(ConnectError::user(message))
                }
            }
        })
        .collect::<Result<_, _>>()?;
    let mut roots: Vec<usize> =
        found.iter().zip(wanted).filter(|(_, wanted)| **wanted).filter_map(|(found, _)| *found).collect();
    roots.sort_unstable();
    let origin = |(found, wanted): (&Option<usize>, &bool)| match (found, wanted) {
        (_, false) => Origin::Unwanted,
        (None, true) => Origin::Missing,
        (Some(root), true) => Origin::Column(roots.partition_point(|other| other < root)),
    };
    Ok((found.iter().zip(wanted).map(origin).collect(), roots))
}

impl ParquetSplit {
    fn failed(&self, error: &dyn fmt::Display) -> ConnectError {
        self.chunks.failure().unwrap_or_else(|| {
            let name = self.table.source.name();
            let message = match self.given {
                0 => format!("`{name}`: {error}"),
                given => format!("`{name}`: after row {}: {error}", self.number(given - 1)),
            };
            ConnectError::user(message)
        })
    }

    /// The number of one of its rows in the file, from 1.
    fn number(&self, row: u64) -> u64 {
        let mut left = row;
        for group in &self.groups {
            if left < group.rows {
                return group.before + left + 1;
            }
            left -= group.rows;
        }
        row + 1
    }

    fn place(&self, row: u64) -> String {
        format!("{} row {}", self.table.source.name(), self.number(row))
    }

    /// A reader of what is left.
    fn begin(&self, batch: usize) -> Result<ParquetRecordBatchReader, ConnectError> {
        let mut skip = self.read;
        let mut left = self.groups.as_slice();
        while let [group, rest @ ..] = left
            && group.rows <= skip
        {
            skip -= group.rows;
            left = rest;
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.chunks.clone(),
            self.table.metadata.clone(),
        )
        .with_batch_size(batch)
        .with_projection(self.mask.clone())
        .with_row_groups(left.iter().map(|group| group.number).collect());
        let builder = if skip > 0 { builder.with_offset(skip as usize) } else { builder };
        builder.build().map_err(|error| self.failed(&error))
    }

    /// Takes the next batch of the reader; whether there was one.
    fn fill(&mut self, records: usize) -> Result<bool, ConnectError> {
        if self.reader.is_none() {
            self.given = self.read;
            self.reader = Some(self.begin(records * READS_AT_ONCE)?);
        }
        let Some(batch) = self.reader.as_mut().and_then(Iterator::next) else { return Ok(false) };
        let batch = batch.map_err(|error| self.failed(&error))?;
        self.given += batch.num_rows() as u64;
        self.ahead = self.converted(&batch);
        Ok(true)
    }

    fn converted(&self, batch: &RecordBatch) -> Ahead {
        let rows = batch.num_rows();
        let mut misfits = Misfits::new();
        let mut columns = Vec::with_capacity(self.origins.len());
        for (field, origin) in self.schema.fields.iter().zip(&self.origins) {
            let mut inside = Misfits::new();
            let column = match origin {
                Origin::Column(position) => convert(&field.ty, batch.column(*position), &mut inside),
                Origin::Missing => new_null_array(&layout(&field.ty), rows),
                Origin::Unwanted => new_null_array(&DataType::Null, rows),
            };
            refuse_null(&field.ty, &column, None, &mut inside);
            misfits
                .extend(inside.into_iter().map(|(row, why)| (row, format!("field `{}`: {why}", field.name))));
            columns.push(column);
        }
        // The first reason of each row.
        misfits.sort_by_key(|(row, _)| *row);
        misfits.dedup_by_key(|(row, _)| *row);
        Ahead { columns, misfits, at: 0, rows }
    }

    /// Up to so many rows: their columns, and those of them that do not fit.
    fn next(&mut self, records: usize) -> Result<(Vec<ArrayRef>, usize, Misfits), ConnectError> {
        let mut pieces: Vec<Vec<ArrayRef>> = Vec::new();
        let mut misfits = Misfits::new();
        let mut rows = 0;
        while rows < records && (self.ahead.at < self.ahead.rows || self.fill(records)?) {
            let Ahead { columns, misfits: all, at, rows: there } = &mut self.ahead;
            let count = (records - rows).min(*there - *at);
            pieces.push(columns.iter().map(|column| column.slice(*at, count)).collect());
            let here = all.iter().filter(|(row, _)| (*at..*at + count).contains(row));
            misfits.extend(here.map(|(row, why)| (row - *at + rows, why.clone())));
            *at += count;
            rows += count;
        }
        let columns = match pieces.as_slice() {
            [] => self.schema.fields.iter().map(|field| new_null_array(&layout(&field.ty), 0)).collect(),
            [piece] => piece.clone(),
            several => (0..self.schema.fields.len())
                .map(|field| {
                    let parts: Vec<&dyn Array> = several.iter().map(|piece| &*piece[field]).collect();
                    concat(&parts).map_err(|error| self.failed(&error))
                })
                .collect::<Result<_, _>>()?,
        };
        Ok((columns, rows, misfits))
    }

    fn own(&self) -> u64 {
        self.groups.iter().map(|group| group.rows).sum()
    }

    fn text(&self, row: usize) -> String {
        json::row(&self.schema, &self.last, row)
    }
}

impl Split for ParquetSplit {
    fn name(&self) -> &str {
        &self.name
    }

    fn offset(&self) -> Offset {
        Offset { byte: self.done(), line: self.read }
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.groups.iter().map(|group| group.bytes).sum())
    }

    fn done(&self) -> u64 {
        let mut left = self.read;
        let mut done = 0;
        for group in &self.groups {
            let read = left.min(group.rows);
            left -= read;
            done += (u128::from(group.bytes) * u128::from(read) / u128::from(group.rows.max(1))) as u64;
        }
        done
    }

    fn version(&self) -> Version {
        self.table.source.version().clone()
    }

    fn seek(&mut self, offset: Offset, version: Option<&Version>) -> Result<(), ConnectError> {
        let now = self.version();
        if version.is_some_and(|version| *version != now) || offset.line > self.own() {
            let name = self.table.source.name();
            return Err(ConnectError::user(format!("`{name}` has been replaced: {UNCHANGED}")));
        }
        (self.read, self.reader, self.ahead) = (offset.line, None, Ahead::default());
        Ok(())
    }

    fn read(&mut self, records: usize) -> Result<Records, ConnectError> {
        let (columns, rows, misfits) = self.next(records)?;
        (self.last, self.last_rows) = (columns, rows);
        if rows < records && self.read + (rows as u64) < self.own() {
            return Err(self.failed(&"there are fewer rows than its end says"));
        }
        let is_good = |row: &u32| misfits.binary_search_by_key(&(*row as usize), |(row, _)| *row).is_err();
        let positions: Vec<u32> = (0..rows as u32).filter(is_good).collect();
        let bad = misfits.iter().map(|(row, message)| BadRecord {
            place: self.place(self.read + *row as u64),
            text: self.text(*row),
            message: message.clone(),
        });
        let bad: Vec<BadRecord> = bad.collect();
        let columns = if bad.is_empty() { self.last.clone() } else { take_columns(&self.last, &positions) };
        self.read += rows as u64;
        Ok(Records { columns, rows: positions.len(), positions, bad, end: self.read >= self.own() })
    }

    fn record(&self, position: u32) -> (String, String) {
        let first = self.read - self.last_rows as u64;
        (self.place(first + u64::from(position)), self.text(position as usize))
    }
}

#[cfg(test)]
mod tests;
