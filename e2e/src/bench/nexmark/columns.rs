//! The columns that queries read, in memory, for the kernels.

use std::fs;
use std::path::Path;

use anyhow::Context;

pub(super) struct Columns {
    pub(super) persons: Persons,
    pub(super) auctions: Auctions,
    pub(super) bids: Bids,
}

pub(super) struct Persons {
    pub(super) id: Vec<i64>,
    pub(super) name: Texts,
    pub(super) ts: Vec<i64>,
}

pub(super) struct Auctions {
    pub(super) id: Vec<i64>,
    pub(super) ts: Vec<i64>,
    pub(super) expires: Vec<i64>,
    pub(super) seller: Vec<i64>,
    pub(super) category: Vec<i64>,
}

pub(super) struct Bids {
    pub(super) auction: Vec<i64>,
    pub(super) bidder: Vec<i64>,
    pub(super) price: Vec<i64>,
    pub(super) ts: Vec<i64>,
}

/// Texts one after the other.
pub(super) struct Texts {
    bytes: String,
    /// Where each begins and the last one ends.
    offsets: Vec<u32>,
}

impl Texts {
    pub(super) fn get(&self, row: usize) -> &str {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

impl Columns {
    /// Reads them from the directory of the data.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let numbers = |name: &str| numbers(&directory.join(format!("{name}.i64")));
        Ok(Self {
            persons: Persons {
                id: numbers("person.id")?,
                name: texts(directory, "person.name")?,
                ts: numbers("person.ts")?,
            },
            auctions: Auctions {
                id: numbers("auction.id")?,
                ts: numbers("auction.ts")?,
                expires: numbers("auction.expires")?,
                seller: numbers("auction.seller")?,
                category: numbers("auction.category")?,
            },
            bids: Bids {
                auction: numbers("bid.auction")?,
                bidder: numbers("bid.bidder")?,
                price: numbers("bid.price")?,
                ts: numbers("bid.ts")?,
            },
        })
    }
}

fn numbers(path: &Path) -> anyhow::Result<Vec<i64>> {
    let bytes = read(path)?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}

fn texts(directory: &Path, name: &str) -> anyhow::Result<Texts> {
    let bytes = String::from_utf8(read(&directory.join(format!("{name}.dat")))?);
    let offsets = read(&directory.join(format!("{name}.off")))?;
    Ok(Texts {
        bytes: bytes.with_context(|| format!("{name} is not UTF-8"))?,
        offsets: offsets.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
