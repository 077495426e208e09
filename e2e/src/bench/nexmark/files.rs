//! The data on the disk: Parquet for our engine, and a file for each column for the others.
//!
//! Owns the format. Must not know what is asked of the data. Invariant: both hold the same rows in the order of events,
//! and a directory with the final name is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterProperties;

use super::events::{Auction, Bid, Event, Person, event};

/// Changes when the rules of the data do, so that what a cache has is not taken for it.
const VERSION: u32 = 1;
const ROW_GROUP: usize = 128 << 10;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    /// Milliseconds since 1970.
    Instant,
    Text,
    /// A text that no query reads, in Parquet alone.
    Ballast,
}

/// A table's name, and its columns in order.
type Shape = (&'static str, &'static [(&'static str, Kind)]);

const PERSON: Shape = (
    "person",
    &[
        ("id", Kind::Integer),
        ("name", Kind::Text),
        ("city", Kind::Ballast),
        ("state", Kind::Ballast),
        ("ts", Kind::Instant),
        ("extra", Kind::Ballast),
    ],
);
const AUCTION: Shape = (
    "auction",
    &[
        ("id", Kind::Integer),
        ("itemname", Kind::Ballast),
        ("initialbid", Kind::Integer),
        ("reserve", Kind::Integer),
        ("ts", Kind::Instant),
        ("expires", Kind::Instant),
        ("seller", Kind::Integer),
        ("category", Kind::Integer),
        ("extra", Kind::Ballast),
    ],
);
const BID: Shape = (
    "bid",
    &[
        ("auction", Kind::Integer),
        ("bidder", Kind::Integer),
        ("price", Kind::Integer),
        ("ts", Kind::Instant),
        ("extra", Kind::Ballast),
    ],
);

/// The tables' names.
pub(super) const TABLES: [&str; 3] = [PERSON.0, AUCTION.0, BID.0];

/// The directory with so many events by this seed, below `cache`; they are made on the first call of a machine.
pub(super) fn prepared(cache: &Path, events: u64, seed: u64) -> anyhow::Result<PathBuf> {
    let path = cache.join(format!("nexmark-{VERSION}-{events}-{seed}"));
    if path.exists() {
        return Ok(path);
    }
    eprintln!("preparing {}", path.display());
    let part = path.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    write(&part, events, seed)?;
    fs::rename(&part, &path).with_context(|| format!("cannot rename {}", part.display()))?;
    Ok(path)
}

/// Writes the events to a directory that is not there yet.
pub(super) fn write(directory: &Path, events: u64, seed: u64) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut persons = Table::create(directory, PERSON)?;
    let mut auctions = Table::create(directory, AUCTION)?;
    let mut bids = Table::create(directory, BID)?;
    for number in 0..events {
        match event(seed, number) {
            Event::Person(person) => persons.push(person_row(person))?,
            Event::Auction(auction) => auctions.push(auction_row(auction))?,
            Event::Bid(bid) => bids.push(bid_row(bid))?,
        }
    }
    persons.close()?;
    auctions.close()?;
    bids.close()
}

enum Cell {
    Number(i64),
    Text(String),
}

fn person_row(person: Person) -> [Cell; 6] {
    let Person { id, name, city, state, ts, extra } = person;
    [
        Cell::Number(id),
        Cell::Text(name),
        Cell::Text(city.to_owned()),
        Cell::Text(state.to_owned()),
        Cell::Number(ts),
        Cell::Text(extra),
    ]
}

fn auction_row(auction: Auction) -> [Cell; 9] {
    let Auction { id, item_name, initial_bid, reserve, ts, expires, seller, category, extra } = auction;
    [
        Cell::Number(id),
        Cell::Text(item_name),
        Cell::Number(initial_bid),
        Cell::Number(reserve),
        Cell::Number(ts),
        Cell::Number(expires),
        Cell::Number(seller),
        Cell::Number(category),
        Cell::Text(extra),
    ]
}

fn bid_row(bid: Bid) -> [Cell; 5] {
    let Bid { auction, bidder, price, ts, extra } = bid;
    [Cell::Number(auction), Cell::Number(bidder), Cell::Number(price), Cell::Number(ts), Cell::Text(extra)]
}

/// A table that is being written.
struct Table {
    schema: Arc<Schema>,
    parquet: ArrowWriter<File>,
    columns: Vec<Column>,
    /// Those of the row group that is not written yet.
    rows: usize,
}

impl Table {
    fn create(directory: &Path, (name, columns): Shape) -> anyhow::Result<Self> {
        let fields: Vec<Field> =
            columns.iter().map(|(column, kind)| Field::new(*column, kind.data_type(), false)).collect();
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::PLAIN)
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .build();
        let file = create(&directory.join(format!("{name}.parquet")))?;
        let parquet = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
            .context("cannot begin a Parquet file")?;
        let columns = columns
            .iter()
            .map(|(column, kind)| Column::create(&directory.join(format!("{name}.{column}")), *kind))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { schema, parquet, columns, rows: 0 })
    }

    fn push<const N: usize>(&mut self, cells: [Cell; N]) -> anyhow::Result<()> {
        ensure!(N == self.columns.len(), "a row has {N} cells instead of {}", self.columns.len());
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell)?;
        }
        self.rows += 1;
        if self.rows == ROW_GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Column::take).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).context("columns differ")?;
        self.parquet.write(&batch).context("cannot write a Parquet file")
    }

    fn close(mut self) -> anyhow::Result<()> {
        self.flush()?;
        self.parquet.close().context("cannot end a Parquet file")?;
        self.columns.into_iter().try_for_each(Column::close)
    }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Integer => DataType::Int64,
            Self::Instant => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Text | Self::Ballast => DataType::Utf8,
        }
    }
}

/// A column of it: the values of a row group, and the files of its own that get them all.
enum Column {
    Numbers { values: Vec<i64>, file: BufWriter<File>, kind: Kind },
    Texts { values: Vec<String>, files: Option<TextFiles> },
}

struct TextFiles {
    bytes: BufWriter<File>,
    /// Where each text begins and the last one ends.
    offsets: BufWriter<File>,
    end: u32,
}

impl Column {
    /// With files that begin with `path`.
    fn create(path: &Path, kind: Kind) -> anyhow::Result<Self> {
        let file = |extension: &str| {
            let name = format!("{}.{extension}", path.display());
            create(Path::new(&name)).map(BufWriter::new)
        };
        match kind {
            Kind::Integer | Kind::Instant => {
                Ok(Self::Numbers { values: Vec::new(), file: file("i64")?, kind })
            }
            Kind::Ballast => Ok(Self::Texts { values: Vec::new(), files: None }),
            Kind::Text => {
                let mut files = TextFiles { bytes: file("dat")?, offsets: file("off")?, end: 0 };
                files.offsets.write_all(&0_u32.to_le_bytes()).context("cannot write a column")?;
                Ok(Self::Texts { values: Vec::new(), files: Some(files) })
            }
        }
    }

    fn push(&mut self, cell: Cell) -> anyhow::Result<()> {
        match (self, cell) {
            (Self::Numbers { values, file, .. }, Cell::Number(number)) => {
                values.push(number);
                file.write_all(&number.to_le_bytes()).context("cannot write a column")
            }
            (Self::Texts { values, files }, Cell::Text(text)) => {
                if let Some(files) = files {
                    files.push(&text).context("cannot write a column")?;
                }
                values.push(text);
                Ok(())
            }
            _ => anyhow::bail!("a cell is of another kind than its column"),
        }
    }

    /// The values of a row group, which begins anew.
    fn take(&mut self) -> ArrayRef {
        match self {
            Self::Numbers { values, kind: Kind::Instant, .. } => {
                Arc::new(TimestampMillisecondArray::from(std::mem::take(values)).with_timezone("UTC"))
            }
            Self::Numbers { values, .. } => Arc::new(Int64Array::from(std::mem::take(values))),
            Self::Texts { values, .. } => Arc::new(StringArray::from(std::mem::take(values))),
        }
    }

    fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Numbers { mut file, .. } => file.flush(),
            Self::Texts { files: None, .. } => Ok(()),
            Self::Texts { files: Some(mut files), .. } => files.bytes.flush().and(files.offsets.flush()),
        }
        .context("cannot write a column")
    }
}

impl TextFiles {
    fn push(&mut self, text: &str) -> std::io::Result<()> {
        self.bytes.write_all(text.as_bytes())?;
        self.end += u32::try_from(text.len()).expect("texts are short");
        self.offsets.write_all(&self.end.to_le_bytes())
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))
}
