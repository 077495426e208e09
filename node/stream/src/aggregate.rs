//! Aggregations: typed accumulators, side by side, one slot for each group.
//!
//! Owns: what each function of a Combine keeps and how two halves of a group join.
//! Must not know: keys, windows, tables.
//! Invariant: sums of integers, counts, extremes and truth values do not depend on order; sums of
//! floats are added in the order given, which the engine keeps the same in every run. Two sums of
//! floats cannot be joined without a trace, so a half whose start is elsewhere keeps its addends.

mod gather;

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::DataType;
use pharos_beam::plan::{AggregateFunction, Aggregation};
use pharos_beam::schema::{Type, Value};

use gather::Gathered;

use crate::codec::{CodecError, Reader, put_bytes, put_len};
use crate::column::{decode_any_column, layout, value_at};

/// So many bytes of gathered values, and no more, fit in one column.
const MOST_GATHERED: usize = if cfg!(test) { 1 << 20 } else { i32::MAX as usize };

/// Why a group has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// The sum needs more than 64 bits.
    #[error("the sum `{0}` is outside the range of 64-bit integers")]
    Overflow(String),
    /// What was gathered does not fit in one column.
    #[error("the values gathered as `{0}` for what closes at once take more than 2 GiB")]
    TooLarge(String),
}

/// The accumulators of one aggregation.
#[derive(Debug, Clone, PartialEq)]
enum Column {
    SumInt(Vec<i128>),
    SumFloat(Vec<f64>),
    Count(Vec<i64>),
    MeanInt(Vec<(i128, i64)>),
    MeanFloat(Vec<(f64, i64)>),
    /// Of a sum or mean of floats, where what came before is elsewhere.
    Addends(Vec<Addends>),
    Any(Vec<bool>),
    All(Vec<bool>),
    Ints {
        best: Vec<Option<i64>>,
        order: Order,
    },
    Floats {
        best: Vec<Option<f64>>,
        order: Order,
    },
    Bytes {
        best: Vec<Option<Box<[u8]>>>,
        order: Order,
    },
    Gather {
        items: Gathered,
        spread: Spread,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Max,
    Min,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// Each value is an item.
    Whole,
    /// Each item of a list value is one.
    Items,
    /// Each value that is not null is an item.
    Present,
}

/// What is to be added to a sum of floats, in order: first `sum`, which stands for `count` values,
/// then one value after the other.
#[derive(Debug, Clone, PartialEq, Default)]
struct Addends {
    sum: f64,
    count: i64,
    rest: Vec<f64>,
}

impl Addends {
    fn append(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
        self.rest.extend_from_slice(&other.rest);
    }

    /// Adds them to a sum of so many values.
    fn add_to(&self, sum: &mut f64, count: &mut i64) {
        *sum += self.sum;
        *count += self.count + self.rest.len() as i64;
        self.rest.iter().for_each(|value| *sum += value);
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_addends(self.sum, self.count, &self.rest, out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (sum, count, len) = (input.f64()?, input.i64()?, input.u32()?);
        let rest = (0..len).map(|_| input.f64()).collect::<Result<_, _>>()?;
        Ok(Self { sum, count, rest })
    }
}

fn put_addends(sum: f64, count: i64, rest: &[f64], out: &mut Vec<u8>) {
    out.extend_from_slice(&sum.to_bits().to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    put_len(out, rest.len());
    rest.iter().for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
}

impl Order {
    fn prefers<T: PartialOrd + ?Sized>(self, new: &T, old: &T) -> bool {
        match self {
            Self::Max => new > old,
            Self::Min => new < old,
        }
    }

    /// A number beats NaN, and 0.0 is more than -0.0, so that the result does not depend on the order of the rows.
    fn prefers_float(self, new: f64, old: f64) -> bool {
        let better = match self {
            Self::Max => new.total_cmp(&old).is_gt(),
            Self::Min => new.total_cmp(&old).is_lt(),
        };
        old.is_nan() || (better && !new.is_nan())
    }
}

impl Column {
    fn new(aggregation: &Aggregation) -> Self {
        let input = aggregation.value.ty.non_null();
        let extreme = |order| match input {
            Type::Float64 => Self::Floats { best: Vec::new(), order },
            Type::String | Type::Bytes => Self::Bytes { best: Vec::new(), order },
            _ => Self::Ints { best: Vec::new(), order },
        };
        match aggregation.function {
            AggregateFunction::Sum if *input == Type::Float64 => Self::SumFloat(Vec::new()),
            AggregateFunction::Sum => Self::SumInt(Vec::new()),
            AggregateFunction::Mean if *input == Type::Float64 => Self::MeanFloat(Vec::new()),
            AggregateFunction::Mean => Self::MeanInt(Vec::new()),
            AggregateFunction::Count => Self::Count(Vec::new()),
            AggregateFunction::Any => Self::Any(Vec::new()),
            AggregateFunction::All => Self::All(Vec::new()),
            AggregateFunction::Max => extreme(Order::Max),
            AggregateFunction::Min => extreme(Order::Min),
            AggregateFunction::Group => Self::Gather { items: Gathered::default(), spread: Spread::Whole },
            AggregateFunction::Concat => Self::Gather { items: Gathered::default(), spread: Spread::Items },
            AggregateFunction::Present => {
                Self::Gather { items: Gathered::default(), spread: Spread::Present }
            }
        }
    }

    /// Whether two halves of a group join to what the whole would be, whichever comes first.
    const fn joins_exactly(&self) -> bool {
        match self {
            Self::SumFloat(_) | Self::MeanFloat(_) | Self::Addends(_) | Self::Gather { .. } => false,
            Self::SumInt(_)
            | Self::Count(_)
            | Self::MeanInt(_)
            | Self::Any(_)
            | Self::All(_)
            | Self::Ints { .. }
            | Self::Floats { .. }
            | Self::Bytes { .. } => true,
        }
    }

    /// The same where what came before is elsewhere.
    fn apart(aggregation: &Aggregation) -> Self {
        match Self::new(aggregation) {
            Self::SumFloat(_) | Self::MeanFloat(_) => Self::Addends(Vec::new()),
            other => other,
        }
    }

    fn push(&mut self) {
        match self {
            Self::Addends(items) => items.push(Addends::default()),
            Self::SumInt(sums) => sums.push(0),
            Self::SumFloat(sums) => sums.push(0.0),
            Self::Count(counts) => counts.push(0),
            Self::MeanInt(means) => means.push((0, 0)),
            Self::MeanFloat(means) => means.push((0.0, 0)),
            Self::Any(any) => any.push(false),
            Self::All(all) => all.push(true),
            Self::Ints { best, .. } => best.push(None),
            Self::Floats { best, .. } => best.push(None),
            Self::Bytes { best, .. } => best.push(None),
            Self::Gather { items, .. } => items.open(),
        }
    }

    /// Closes all slots.
    fn reset(&mut self) {
        match self {
            Self::Addends(items) => items.clear(),
            Self::SumInt(sums) => sums.clear(),
            Self::SumFloat(sums) => sums.clear(),
            Self::Count(counts) => counts.clear(),
            Self::MeanInt(means) => means.clear(),
            Self::MeanFloat(means) => means.clear(),
            Self::Any(flags) | Self::All(flags) => flags.clear(),
            Self::Ints { best, .. } => best.clear(),
            Self::Floats { best, .. } => best.clear(),
            Self::Bytes { best, .. } => best.clear(),
            Self::Gather { items, .. } => items.reset(),
        }
    }

    /// For how many slots there is room, and how many bytes each takes, without what it points to.
    fn room(&self) -> (usize, usize) {
        const fn of<T>(slots: &Vec<T>) -> (usize, usize) {
            (slots.capacity(), size_of::<T>())
        }
        match self {
            Self::Addends(items) => of(items),
            Self::SumInt(sums) => of(sums),
            Self::SumFloat(sums) => of(sums),
            Self::Count(counts) => of(counts),
            Self::MeanInt(means) => of(means),
            Self::MeanFloat(means) => of(means),
            Self::Any(flags) | Self::All(flags) => of(flags),
            Self::Ints { best, .. } => of(best),
            Self::Floats { best, .. } => of(best),
            Self::Bytes { best, .. } => of(best),
            Self::Gather { items, .. } => items.room(),
        }
    }

    /// How many bytes a slot points to.
    fn heap_bytes(&self, slot: usize) -> usize {
        match self {
            Self::Addends(items) => items[slot].rest.len() * size_of::<f64>(),
            Self::Bytes { best, .. } => best[slot].as_ref().map_or(0, |best| best.len()),
            Self::Gather { items, .. } => items.heap_bytes(slot),
            _ => 0,
        }
    }

    fn clear(&mut self, slot: usize) {
        match self {
            Self::Addends(items) => items[slot] = Addends::default(),
            Self::SumInt(sums) => sums[slot] = 0,
            Self::SumFloat(sums) => sums[slot] = 0.0,
            Self::Count(counts) => counts[slot] = 0,
            Self::MeanInt(means) => means[slot] = (0, 0),
            Self::MeanFloat(means) => means[slot] = (0.0, 0),
            Self::Any(any) => any[slot] = false,
            Self::All(all) => all[slot] = true,
            Self::Ints { best, .. } => best[slot] = None,
            Self::Floats { best, .. } => best[slot] = None,
            Self::Bytes { best, .. } => best[slot] = None,
            Self::Gather { items, .. } => items.clear(slot),
        }
    }

    /// The slots `slots` alone.
    fn take(&self, slots: &[u32]) -> Self {
        fn of<T: Clone>(all: &[T], slots: &[u32]) -> Vec<T> {
            slots.iter().map(|slot| all[*slot as usize].clone()).collect()
        }
        match self {
            Self::Addends(items) => Self::Addends(of(items, slots)),
            Self::SumInt(sums) => Self::SumInt(of(sums, slots)),
            Self::SumFloat(sums) => Self::SumFloat(of(sums, slots)),
            Self::Count(counts) => Self::Count(of(counts, slots)),
            Self::MeanInt(means) => Self::MeanInt(of(means, slots)),
            Self::MeanFloat(means) => Self::MeanFloat(of(means, slots)),
            Self::Any(flags) => Self::Any(of(flags, slots)),
            Self::All(flags) => Self::All(of(flags, slots)),
            Self::Ints { best, order } => Self::Ints { best: of(best, slots), order: *order },
            Self::Floats { best, order } => Self::Floats { best: of(best, slots), order: *order },
            Self::Bytes { best, order } => Self::Bytes { best: of(best, slots), order: *order },
            Self::Gather { items, spread } => Self::Gather { items: items.take(slots), spread: *spread },
        }
    }

    /// Adds the values at `rows` to the accumulators at `slots`; returns by how many bytes what they
    /// point to has grown.
    fn update(&mut self, slots: &[u32], rows: &[u32], values: &ArrayRef, ty: &Type) -> isize {
        let mut grown = 0;
        let pairs = slots.iter().zip(rows).map(|(slot, row)| (*slot as usize, *row as usize));
        if let Self::Count(counts) = self {
            pairs.for_each(|(slot, _)| counts[slot] += 1);
            return grown;
        }
        if let Self::Gather { items, spread } = self {
            pairs.for_each(|(slot, row)| {
                let before = items.heap_bytes(slot);
                gather(items, slot, *spread, ty, values, row);
                grown += (items.heap_bytes(slot) - before) as isize;
            });
            return grown;
        }
        let pairs = pairs.filter(|(_, row)| values.is_valid(*row));
        match self {
            Self::Addends(items) => {
                let values = values.as_primitive::<Float64Type>().values();
                pairs.for_each(|(slot, row)| {
                    items[slot].rest.push(values[row]);
                    grown += size_of::<f64>() as isize;
                });
            }
            Self::SumInt(sums) => {
                let values = values.as_primitive::<Int64Type>().values();
                pairs.for_each(|(slot, row)| sums[slot] += i128::from(values[row]));
            }
            Self::SumFloat(sums) => {
                let values = values.as_primitive::<Float64Type>().values();
                pairs.for_each(|(slot, row)| sums[slot] += values[row]);
            }
            Self::MeanInt(means) => {
                let values = values.as_primitive::<Int64Type>().values();
                pairs.for_each(|(slot, row)| {
                    means[slot].0 += i128::from(values[row]);
                    means[slot].1 += 1;
                });
            }
            Self::MeanFloat(means) => {
                let values = values.as_primitive::<Float64Type>().values();
                pairs.for_each(|(slot, row)| {
                    means[slot].0 += values[row];
                    means[slot].1 += 1;
                });
            }
            Self::Any(any) => pairs.for_each(|(slot, row)| any[slot] |= values.as_boolean().value(row)),
            Self::All(all) => pairs.for_each(|(slot, row)| all[slot] &= values.as_boolean().value(row)),
            Self::Ints { best, order } => pairs.for_each(|(slot, row)| {
                let new = match ty.non_null() {
                    Type::Boolean => i64::from(values.as_boolean().value(row)),
                    _ => values.as_primitive::<Int64Type>().value(row),
                };
                better_int(&mut best[slot], *order, new);
            }),
            Self::Floats { best, order } => {
                let values = values.as_primitive::<Float64Type>().values();
                pairs.for_each(|(slot, row)| better_float(&mut best[slot], *order, values[row]));
            }
            Self::Bytes { best, order } => pairs.for_each(|(slot, row)| {
                let new = match ty.non_null() {
                    Type::String => values.as_string::<i32>().value(row).as_bytes(),
                    _ => values.as_binary::<i32>().value(row),
                };
                let length = |best: &Option<Box<[u8]>>| best.as_ref().map_or(0, |best| best.len() as isize);
                grown -= length(&best[slot]);
                better_bytes(&mut best[slot], *order, new);
                grown += length(&best[slot]);
            }),
            Self::Count(_) | Self::Gather { .. } => {}
        }
        grown
    }

    /// Adds slot `from` of `other` to slot `to`.
    fn merge(&mut self, to: usize, other: &Self, from: usize) {
        match (self, other) {
            (Self::SumInt(sums), Self::SumInt(others)) => sums[to] += others[from],
            (Self::SumFloat(sums), Self::SumFloat(others)) => sums[to] += others[from],
            (Self::Count(counts), Self::Count(others)) => counts[to] += others[from],
            (Self::MeanInt(means), Self::MeanInt(others)) => {
                means[to].0 += others[from].0;
                means[to].1 += others[from].1;
            }
            (Self::MeanFloat(means), Self::MeanFloat(others)) => {
                means[to].0 += others[from].0;
                means[to].1 += others[from].1;
            }
            (Self::Any(any), Self::Any(others)) => any[to] |= others[from],
            (Self::All(all), Self::All(others)) => all[to] &= others[from],
            (Self::Ints { best, order }, Self::Ints { best: others, .. }) => {
                others[from].into_iter().for_each(|new| better_int(&mut best[to], *order, new));
            }
            (Self::Floats { best, order }, Self::Floats { best: others, .. }) => {
                others[from].into_iter().for_each(|new| better_float(&mut best[to], *order, new));
            }
            (Self::Bytes { best, order }, Self::Bytes { best: others, .. }) => {
                others[from].iter().for_each(|new| better_bytes(&mut best[to], *order, new));
            }
            (Self::Gather { items, .. }, Self::Gather { items: others, .. }) => {
                items.append(to, others, from);
            }
            (Self::Addends(items), Self::Addends(others)) => items[to].append(&others[from]),
            (Self::Addends(items), Self::SumFloat(others)) => items[to].sum += others[from],
            (Self::Addends(items), Self::MeanFloat(others)) => {
                items[to].sum += others[from].0;
                items[to].count += others[from].1;
            }
            (Self::SumFloat(sums), Self::Addends(others)) => others[from].add_to(&mut sums[to], &mut 0),
            (Self::MeanFloat(means), Self::Addends(others)) => {
                let (sum, count) = &mut means[to];
                others[from].add_to(sum, count);
            }
            (mine, theirs) => unreachable!("accumulators of one plan are alike: {mine:?}, {theirs:?}"),
        }
    }

    fn finish(&self, slots: &[u32], aggregation: &Aggregation) -> Result<ArrayRef, AggregateError> {
        let slots = slots.iter().map(|slot| *slot as usize);
        Ok(match self {
            Self::Addends(_) => unreachable!("addends are added to a sum before it is a result"),
            Self::SumInt(sums) => {
                let narrow = |slot| i64::try_from(sums[slot]);
                let sums = slots.map(narrow).collect::<Result<Vec<i64>, _>>();
                Arc::new(Int64Array::from(
                    sums.map_err(|_| AggregateError::Overflow(aggregation.name.clone()))?,
                ))
            }
            Self::SumFloat(sums) => Arc::new(Float64Array::from_iter_values(slots.map(|slot| sums[slot]))),
            Self::Count(counts) => Arc::new(Int64Array::from_iter_values(slots.map(|slot| counts[slot]))),
            Self::MeanInt(means) => {
                let mean =
                    |slot: usize| (means[slot].1 > 0).then(|| means[slot].0 as f64 / means[slot].1 as f64);
                Arc::new(slots.map(mean).collect::<Float64Array>())
            }
            Self::MeanFloat(means) => {
                let mean = |slot: usize| (means[slot].1 > 0).then(|| means[slot].0 / means[slot].1 as f64);
                Arc::new(slots.map(mean).collect::<Float64Array>())
            }
            Self::Any(flags) | Self::All(flags) => {
                Arc::new(slots.map(|slot| Some(flags[slot])).collect::<BooleanArray>())
            }
            Self::Ints { best, .. } if *aggregation.output.non_null() == Type::Boolean => {
                Arc::new(slots.map(|slot| best[slot].map(|bit| bit != 0)).collect::<BooleanArray>())
            }
            Self::Ints { best, .. } => Arc::new(slots.map(|slot| best[slot]).collect::<Int64Array>()),
            Self::Floats { best, .. } => Arc::new(slots.map(|slot| best[slot]).collect::<Float64Array>()),
            Self::Bytes { best, .. } if *aggregation.output.non_null() == Type::String => {
                let mut texts = StringBuilder::new();
                slots.for_each(|slot| {
                    texts.append_option(
                        best[slot].as_deref().map(|text| {
                            std::str::from_utf8(text).expect("the best of several texts is a text")
                        }),
                    );
                });
                Arc::new(texts.finish())
            }
            Self::Bytes { best, .. } => {
                Arc::new(slots.map(|slot| best[slot].as_deref()).collect::<BinaryArray>())
            }
            Self::Gather { items, .. } => {
                let slots: Vec<usize> = slots.collect();
                let (Type::Array(item), DataType::List(field)) =
                    (aggregation.output.non_null(), layout(&aggregation.output))
                else {
                    unreachable!("what is gathered is an array")
                };
                let bytes: usize = slots.iter().map(|slot| items.heap_bytes(*slot)).sum();
                if bytes > MOST_GATHERED {
                    return Err(AggregateError::TooLarge(aggregation.name.clone()));
                }
                let offsets = OffsetBuffer::from_lengths(slots.iter().map(|slot| items.count(*slot)));
                let items = decode_any_column(item, slots.iter().flat_map(|slot| items.items(*slot)))
                    .expect("this crate wrote the tagged bytes");
                Arc::new(ListArray::new(field, offsets, items, None))
            }
        })
    }

    /// Appends the bytes of a slot as [`Self::apart`] reads them.
    fn write_apart(&self, slot: usize, out: &mut Vec<u8>) {
        match self {
            Self::SumFloat(sums) => put_addends(sums[slot], 0, &[], out),
            Self::MeanFloat(means) => put_addends(means[slot].0, means[slot].1, &[], out),
            other => other.write(slot, out),
        }
    }

    fn write(&self, slot: usize, out: &mut Vec<u8>) {
        match self {
            Self::Addends(items) => items[slot].write(out),
            Self::SumInt(sums) => out.extend_from_slice(&sums[slot].to_le_bytes()),
            Self::SumFloat(sums) => out.extend_from_slice(&sums[slot].to_bits().to_le_bytes()),
            Self::Count(counts) => out.extend_from_slice(&counts[slot].to_le_bytes()),
            Self::MeanInt(means) => {
                out.extend_from_slice(&means[slot].0.to_le_bytes());
                out.extend_from_slice(&means[slot].1.to_le_bytes());
            }
            Self::MeanFloat(means) => {
                out.extend_from_slice(&means[slot].0.to_bits().to_le_bytes());
                out.extend_from_slice(&means[slot].1.to_le_bytes());
            }
            Self::Any(flags) | Self::All(flags) => out.push(u8::from(flags[slot])),
            Self::Ints { best, .. } => {
                out.push(u8::from(best[slot].is_some()));
                best[slot].iter().for_each(|best| out.extend_from_slice(&best.to_le_bytes()));
            }
            Self::Floats { best, .. } => {
                out.push(u8::from(best[slot].is_some()));
                best[slot].iter().for_each(|best| out.extend_from_slice(&best.to_bits().to_le_bytes()));
            }
            Self::Bytes { best, .. } => {
                out.push(u8::from(best[slot].is_some()));
                best[slot].iter().for_each(|best| put_bytes(out, best));
            }
            Self::Gather { items, .. } => items.write(slot, out),
        }
    }

    /// Appends a slot read from `input`.
    fn read(&mut self, input: &mut Reader<'_>) -> Result<(), CodecError> {
        match self {
            Self::Addends(items) => items.push(Addends::read(input)?),
            Self::SumInt(sums) => sums.push(input.i128()?),
            Self::SumFloat(sums) => sums.push(input.f64()?),
            Self::Count(counts) => counts.push(input.i64()?),
            Self::MeanInt(means) => means.push((input.i128()?, input.i64()?)),
            Self::MeanFloat(means) => means.push((input.f64()?, input.i64()?)),
            Self::Any(flags) | Self::All(flags) => flags.push(input.bool()?),
            Self::Ints { best, .. } => best.push(if input.bool()? { Some(input.i64()?) } else { None }),
            Self::Floats { best, .. } => best.push(if input.bool()? { Some(input.f64()?) } else { None }),
            Self::Bytes { best, .. } => {
                best.push(if input.bool()? { Some(Box::from(input.bytes()?)) } else { None });
            }
            Self::Gather { items, .. } => items.read(input)?,
        }
        Ok(())
    }
}

fn gather(into: &mut Gathered, slot: usize, spread: Spread, ty: &Type, values: &ArrayRef, row: usize) {
    match spread {
        Spread::Present if values.is_null(row) => {}
        Spread::Whole | Spread::Present => into.push_cell(slot, ty, values, row),
        Spread::Items => {
            if let Value::Array(items) = value_at(ty, values, row) {
                items.iter().for_each(|item| into.push(slot, item));
            }
        }
    }
}

fn better_int(best: &mut Option<i64>, order: Order, new: i64) {
    if best.is_none_or(|old| order.prefers(&new, &old)) {
        *best = Some(new);
    }
}

fn better_float(best: &mut Option<f64>, order: Order, new: f64) {
    if best.is_none_or(|old| order.prefers_float(new, old)) {
        // All that are no number are the same, or which one stays would depend on the order of the rows.
        *best = Some(if new.is_nan() { f64::NAN } else { new });
    }
}

fn better_bytes(best: &mut Option<Box<[u8]>>, order: Order, new: &[u8]) {
    if best.as_deref().is_none_or(|old| order.prefers(new, old)) {
        *best = Some(Box::from(new));
    }
}

/// The accumulators of several aggregations, one slot for each group.
#[derive(Debug, Clone)]
pub(crate) struct Accumulators {
    aggregations: Arc<[Aggregation]>,
    columns: Vec<Column>,
    slots: u32,
    /// How many bytes the slots point to, roughly.
    heap: usize,
}

impl Accumulators {
    /// No slot yet.
    #[must_use]
    pub(crate) fn new(aggregations: &Arc<[Aggregation]>) -> Self {
        let columns = aggregations.iter().map(Column::new).collect();
        Self { aggregations: Arc::clone(aggregations), columns, slots: 0, heap: 0 }
    }

    /// Whether halves of a group, accumulated apart, join to what the whole would be, whichever comes first.
    #[must_use]
    pub(crate) fn join_exactly(aggregation: &Aggregation) -> bool {
        Column::new(aggregation).joins_exactly()
    }

    /// No slot yet; what slots gather comes after something that is elsewhere.
    #[must_use]
    pub(crate) fn apart(aggregations: &Arc<[Aggregation]>) -> Self {
        let columns = aggregations.iter().map(Column::apart).collect();
        Self { columns, ..Self::new(aggregations) }
    }

    /// What they accumulate.
    #[must_use]
    pub(crate) const fn aggregations(&self) -> &Arc<[Aggregation]> {
        &self.aggregations
    }

    /// How many bytes they take, roughly.
    #[must_use]
    pub(crate) fn memory(&self) -> usize {
        let inline = self.columns.iter().map(Column::room).map(|(slots, bytes)| slots * bytes);
        inline.sum::<usize>() + self.heap * 3 / 2
    }

    /// How many bytes it would be if there were so many slots, and all others were empty.
    #[must_use]
    pub(crate) fn memory_of(&self, slots: usize) -> usize {
        let slot: usize = self.columns.iter().map(|column| column.room().1).sum();
        slot * slots + self.heap * 3 / 2
    }

    /// Closes all slots.
    pub(crate) fn reset(&mut self) {
        self.columns.iter_mut().for_each(Column::reset);
        (self.slots, self.heap) = (0, 0);
    }

    /// Opens a slot.
    pub(crate) fn push(&mut self) -> u32 {
        self.columns.iter_mut().for_each(Column::push);
        self.slots += 1;
        self.slots - 1
    }

    /// How many slots there are.
    #[must_use]
    pub(crate) const fn len(&self) -> u32 {
        self.slots
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Adds row `rows[i]` of `values` (one array for each aggregation) to slot `slots[i]`, in order.
    pub(crate) fn update(&mut self, slots: &[u32], rows: &[u32], values: &[ArrayRef]) {
        for ((column, values), aggregation) in
            self.columns.iter_mut().zip(values).zip(self.aggregations.iter())
        {
            let grown = column.update(slots, rows, values, &aggregation.value.ty);
            self.heap = self.heap.saturating_add_signed(grown);
        }
    }

    /// Adds slot `from` of `other` to slot `to`.
    pub(crate) fn merge(&mut self, to: u32, other: &Self, from: u32) {
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            let before = mine.heap_bytes(to as usize);
            mine.merge(to as usize, theirs, from as usize);
            self.heap = (self.heap + mine.heap_bytes(to as usize)).saturating_sub(before);
        }
    }

    /// Adds slot `later` to slot `earlier`.
    pub(crate) fn join(&mut self, earlier: u32, later: u32) {
        let later = self.take(&[later]);
        self.merge(earlier, &later, 0);
    }

    /// How many bytes what all slots point to takes, roughly.
    #[must_use]
    pub(crate) const fn heap(&self) -> usize {
        self.heap
    }

    /// How many bytes what a slot points to takes.
    #[must_use]
    pub(crate) fn heap_bytes(&self, slot: u32) -> usize {
        self.columns.iter().map(|column| column.heap_bytes(slot as usize)).sum()
    }

    /// Empties a slot.
    pub(crate) fn clear(&mut self, slot: u32) {
        for column in &mut self.columns {
            self.heap = self.heap.saturating_sub(column.heap_bytes(slot as usize));
            column.clear(slot as usize);
        }
    }

    /// The slots `slots` alone.
    #[must_use]
    pub(crate) fn take(&self, slots: &[u32]) -> Self {
        Self {
            aggregations: Arc::clone(&self.aggregations),
            columns: self.columns.iter().map(|column| column.take(slots)).collect(),
            slots: slots.len() as u32,
            heap: slots.iter().map(|slot| self.heap_bytes(*slot)).sum(),
        }
    }

    /// The results of `slots`, one array for each aggregation.
    ///
    /// # Errors
    /// If a sum does not fit.
    pub(crate) fn finish(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, AggregateError> {
        self.columns
            .iter()
            .zip(self.aggregations.iter())
            .map(|(column, of)| column.finish(slots, of))
            .collect()
    }

    /// Appends the bytes of a slot.
    pub(crate) fn write(&self, slot: u32, out: &mut Vec<u8>) {
        self.columns.iter().for_each(|column| column.write(slot as usize, out));
    }

    /// Appends the bytes of a slot as accumulators read them that are [`Self::apart`].
    pub(crate) fn write_apart(&self, slot: u32, out: &mut Vec<u8>) {
        self.columns.iter().for_each(|column| column.write_apart(slot as usize, out));
    }

    /// Opens a slot with what `input` holds.
    ///
    /// # Errors
    /// If the bytes are not such a slot.
    pub(crate) fn read(&mut self, input: &mut Reader<'_>) -> Result<u32, CodecError> {
        let slot = self.slots;
        for (column, aggregation) in self.columns.iter_mut().zip(self.aggregations.iter()) {
            column.read(input)?;
            let is_text = *aggregation.output.non_null() == Type::String;
            if let (Column::Bytes { best, .. }, true) = (&*column, is_text)
                && best[slot as usize].as_deref().is_some_and(|best| std::str::from_utf8(best).is_err())
            {
                return Err(input.error("a text"));
            }
        }
        self.heap += self.columns.iter().map(|column| column.heap_bytes(slot as usize)).sum::<usize>();
        self.slots += 1;
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use pharos_beam::expr::ir::{Expr, ExprKind};

    use super::*;

    fn of(ty: Type, function: AggregateFunction) -> Arc<[Aggregation]> {
        let (value, output) = (Expr { ty: ty.clone(), kind: ExprKind::Field(0) }, ty.nullable());
        Arc::from([Aggregation { name: "a".to_owned(), function, value, output }])
    }

    /// The bits of the extreme of these numbers, added in this order.
    fn extreme(function: AggregateFunction, numbers: &[f64]) -> u64 {
        let mut all = Accumulators::new(&of(Type::Float64, function));
        all.push();
        let rows: Vec<u32> = (0..numbers.len() as u32).collect();
        all.update(&vec![0; rows.len()], &rows, &[Arc::new(Float64Array::from(numbers.to_vec()))]);
        all.finish(&[0]).unwrap()[0].as_primitive::<Float64Type>().value(0).to_bits()
    }

    #[test]
    fn extremes_of_floats_do_not_depend_on_order_to_the_last_bit() {
        use AggregateFunction::{Max, Min};
        let (none, other) = (f64::NAN, f64::from_bits(f64::NAN.to_bits() ^ 1 << 63 ^ 1));
        for (function, numbers, expected) in [
            (Max, [0.0, -0.0, none], 0.0),
            (Min, [0.0, -0.0, other], -0.0),
            (Max, [other, 1.0, none], 1.0),
            (Min, [other, none, other], f64::NAN),
        ] {
            let [a, b, c] = numbers;
            for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
                assert_eq!(extreme(function, &order), expected.to_bits(), "{function:?} of {order:?}");
            }
        }
    }

    #[test]
    fn more_gathered_values_than_a_column_holds_are_an_error_that_names_them() {
        let wide: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["x".repeat(600_000)]));
        let aggregations: Arc<[Aggregation]> = Arc::from([Aggregation {
            output: Type::Array(Box::new(Type::String)),
            ..of(Type::String, AggregateFunction::Present)[0].clone()
        }]);
        let mut all = Accumulators::new(&aggregations);
        all.push();
        all.update(&[0], &[0], &[Arc::clone(&wide)]);
        assert_eq!(all.finish(&[0]).unwrap()[0].len(), 1);
        all.update(&[0], &[0], &[wide]);
        assert_eq!(all.finish(&[0]).unwrap_err(), AggregateError::TooLarge("a".to_owned()));
    }

    #[test]
    fn what_is_read_for_a_text_and_is_none_is_refused() {
        let mut bytes = vec![1];
        put_bytes(&mut bytes, &[0xFF]);
        for (ty, taken) in [(Type::String, false), (Type::Bytes, true)] {
            let mut all = Accumulators::new(&of(ty, AggregateFunction::Max));
            assert_eq!(all.read(&mut Reader::new(&bytes)).is_ok(), taken);
        }
    }
}
