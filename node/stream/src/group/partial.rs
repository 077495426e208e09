//! Partial aggregation: what a round has for a grouping is added up where the rows are, and only the sums travel.
//!
//! Owns: which rows may be added up, the tables in which that is done, when it is worth it.
//! Must not know: channels, threads, who receives.
//! Invariant: a grouping that is given the sums holds, bit for bit, what it would hold had it been given the rows. So a
//! row is added up only if nothing depends on its place among the others: every function of the grouping joins exactly
//! (no sum of floats, nothing gathered in order), and no watermark that the receiver has by the end of the round is past
//! a window of the row, so that nothing fires of it meanwhile, and it is not late.

use std::sync::Arc;

use hashbrown::HashTable;
use pharos_beam::plan::Aggregation;
use pharos_window::Watermark;

use super::{GroupSpec, KeyedBatch};
use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader};
use crate::key::{KeyHash, Keys};

/// Where not even so many rows, on average, make one sum, they travel as they are.
const WORTH: usize = 2;
/// After a round in which it was not worth it, it is tried again so many rounds later.
const PAUSE: u32 = 32;

/// Rows of a round, added up by slice and key.
#[derive(Debug, Clone)]
pub(crate) struct Partials {
    /// The start of the slice of each sum.
    pub slices: Vec<i64>,
    /// Its key.
    pub keys: Keys,
    /// The sums, by number.
    pub accumulators: Accumulators,
}

impl Partials {
    fn new(aggregations: &Arc<[Aggregation]>) -> Self {
        Self { slices: Vec::new(), keys: Keys::default(), accumulators: Accumulators::new(aggregations) }
    }

    /// How many bytes it holds on to, roughly.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.slices.capacity() * 8 + self.keys.memory() + self.accumulators.memory()
    }

    /// Appends the sums.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.keys.put(out);
        self.slices.iter().for_each(|slice| out.extend_from_slice(&slice.to_le_bytes()));
        (0..self.accumulators.len()).for_each(|sum| self.accumulators.write(sum, out));
    }

    /// Reads what `put` wrote.
    ///
    /// # Errors
    /// If the bytes are no sums of these aggregations.
    pub(crate) fn read(
        aggregations: &Arc<[Aggregation]>,
        input: &mut Reader<'_>,
    ) -> Result<Self, CodecError> {
        let keys = Keys::read(input)?;
        let slices = (0..keys.len()).map(|_| input.i64()).collect::<Result<_, _>>()?;
        let mut accumulators = Accumulators::new(aggregations);
        for _ in 0..keys.len() {
            accumulators.read(input)?;
        }
        Ok(Self { slices, keys, accumulators })
    }
}

/// Where a key of a slice is looked for: not where the same key of other slices is.
fn place_of(hash: KeyHash, slice: i64) -> u64 {
    hash.0 ^ slice.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The sums for one receiver, in the making.
#[derive(Debug)]
struct Table {
    index: HashTable<u32>,
    partials: Partials,
    /// The rows of a batch that are added to it, and where, between calls empty.
    rows: Vec<u32>,
    sums: Vec<u32>,
}

impl Table {
    fn new(aggregations: &Arc<[Aggregation]>) -> Self {
        let partials = Partials::new(aggregations);
        Self { index: HashTable::new(), partials, rows: Vec::new(), sums: Vec::new() }
    }

    fn place(&mut self, slice: i64, keys: &Keys, row: u32) {
        let Self { index, partials: Partials { slices, keys: own, accumulators }, rows, sums } = self;
        let (key, hash) = (keys.bytes(row as usize), keys.hash(row as usize));
        let same = |sum: &u32| {
            let at = *sum as usize;
            own.hash(at) == hash && slices[at] == slice && own.bytes(at) == key
        };
        let sum = index.find(place_of(hash, slice), same).copied().unwrap_or_else(|| {
            let sum = accumulators.push();
            slices.push(slice);
            own.push(key, hash);
            let place = |sum: &u32| place_of(own.hash(*sum as usize), slices[*sum as usize]);
            index.insert_unique(place_of(hash, slice), sum, place);
            sum
        });
        rows.push(row);
        sums.push(sum);
    }
}

/// Adds up what an origin has for one grouping.
#[derive(Debug)]
pub(crate) struct Combiner {
    spec: Arc<GroupSpec>,
    /// One for each thread of the grouping.
    tables: Vec<Table>,
    /// The least watermark that the grouping has had from its beginning on.
    floor: Watermark,
    /// Where the origin's own watermark is at the end of the round, or the floor.
    reached: Watermark,
    /// The slice of the row before, and whether its rows may be added up.
    slice: Option<(i64, bool)>,
    /// How many rows were added up in this round.
    rows: usize,
    /// How many rounds from now rows are added up again.
    pause: u32,
}

impl Combiner {
    /// One for a grouping on `owners` threads, which goes on from the watermark `floor`; none if rows for it must
    /// travel as they are, or there is nowhere to travel to.
    #[must_use]
    pub(crate) fn new(spec: &Arc<GroupSpec>, owners: usize, floor: Watermark) -> Option<Self> {
        let exact = spec.aggregations.iter().all(Accumulators::join_exactly);
        (owners > 1 && exact && spec.slices_serve()).then(|| Self {
            spec: Arc::clone(spec),
            tables: (0..owners).map(|_| Table::new(&spec.aggregations)).collect(),
            floor,
            reached: floor,
            slice: None,
            rows: 0,
            pause: 0,
        })
    }

    /// Tries again in the next round, whether it was worth it or not.
    #[cfg(test)]
    pub(super) fn insist(&mut self) {
        self.pause = 0;
    }

    /// Begins a round at the end of which the origin's watermark is `reached`; none: it holds back no time.
    pub(crate) fn begin(&mut self, reached: Option<Watermark>) -> bool {
        self.slice = None;
        self.pause = self.pause.saturating_sub(1);
        let Some(reached) = reached.filter(|_| self.pause == 0) else { return false };
        self.reached = reached.max(self.floor);
        true
    }

    /// Adds rows up, and returns those that must travel as they are.
    pub(crate) fn add(&mut self, batch: &KeyedBatch) -> Vec<u32> {
        let Self { spec, tables, reached, slice: last, .. } = self;
        let owners = tables.len();
        let mut others = Vec::new();
        for row in 0..batch.keys.len() as u32 {
            let slice = spec.slice_of(batch, row as usize);
            let ahead = match *last {
                Some((of, ahead)) if of == slice => ahead,
                _ => spec.is_ahead(slice, *reached),
            };
            *last = Some((slice, ahead));
            if ahead {
                let owner = batch.keys.hash(row as usize).group().owner(owners);
                tables[owner].place(slice, &batch.keys, row);
            } else {
                others.push(row);
            }
        }
        for table in tables {
            table.partials.accumulators.update(&table.sums, &table.rows, &batch.values);
            table.rows.clear();
            table.sums.clear();
        }
        self.rows += batch.keys.len() - others.len();
        others
    }

    /// The sums of the round for each thread of the grouping.
    pub(crate) fn finish(&mut self) -> Vec<Partials> {
        let finish = |table: &mut Table| {
            table.index.clear();
            std::mem::replace(&mut table.partials, Partials::new(&self.spec.aggregations))
        };
        let partials: Vec<Partials> = self.tables.iter_mut().map(finish).collect();
        let sums: usize = partials.iter().map(|partials| partials.slices.len()).sum();
        if sums * WORTH > std::mem::take(&mut self.rows) {
            self.pause = PAUSE;
        }
        partials
    }
}
