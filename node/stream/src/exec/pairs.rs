//! The pairs of a Join.
//!
//! Owns: which rows of a group stand together, and which stand alone.
//! Must not know: how groups are gathered.
//! Invariant: each pair of a group comes once, the left row varying slowest; a row that is in no pair comes once if its
//! side is kept, and else never.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StructArray, UInt32Array};
use arrow_schema::DataType;
use arrow_select::take::take;
use pharos_beam::plan::{JoinField, Outer, Side};

use crate::column::Batch;

/// So many rows come at once at most: a group of n and m rows has n times m pairs.
const AT_ONCE: usize = 1 << 16;
/// Fewer if a column of them could come to more bytes: one column's must not be counted by more than 31 bits.
const BYTES_AT_ONCE: usize = if cfg!(test) { 1 << 16 } else { 256 << 20 };

/// The rows of groups that are still to come.
pub(super) struct Pairs<'a> {
    groups: &'a Batch,
    keys: usize,
    outer: Outer,
    group: usize,
    /// How many rows of the group have come.
    at: usize,
    at_once: usize,
}

/// Rows by the group and the items they are made of.
#[derive(Default)]
struct Picks {
    groups: Vec<u32>,
    left: Vec<Option<u32>>,
    right: Vec<Option<u32>>,
}

impl Picks {
    fn push(&mut self, group: usize, left: Option<usize>, right: Option<usize>) {
        self.groups.push(group as u32);
        self.left.push(left.map(|item| item as u32));
        self.right.push(right.map(|item| item as u32));
    }
}

impl<'a> Pairs<'a> {
    /// The pairs of groups whose last two columns, after `keys` others, are arrays of left and right rows.
    #[must_use]
    pub(super) fn new(groups: &'a Batch, keys: usize, outer: Outer) -> Self {
        let widest =
            groups.columns[keys..].iter().map(|rows| widest(rows.as_list::<i32>().values().as_struct()));
        let at_once = AT_ONCE.min(BYTES_AT_ONCE / widest.max().unwrap_or(0).max(1)).max(1);
        Self { groups, keys, outer, group: 0, at: 0, at_once }
    }

    fn items(&self, side: Side) -> Range<usize> {
        let lists = self.column(side).as_list::<i32>();
        let start = lists.value_offsets()[self.group] as usize;
        start..start + lists.value_length(self.group) as usize
    }

    fn column(&self, side: Side) -> &'a ArrayRef {
        &self.groups.columns[self.keys + usize::from(side == Side::Right)]
    }

    /// The next rows, some tens of thousands at most.
    pub(super) fn next(&mut self, fields: &[JoinField]) -> Option<Batch> {
        let mut picks = Picks::default();
        while self.group < self.groups.rows && picks.groups.len() < self.at_once {
            self.pick(&mut picks);
        }
        if picks.groups.is_empty() {
            return None;
        }
        let column = |field: &JoinField| {
            let rows = self.column(field.side).as_list::<i32>().values().as_struct();
            let items = match field.side {
                Side::Left => &picks.left,
                Side::Right => &picks.right,
            };
            let items = items.iter().copied().collect::<UInt32Array>();
            take(rows.column(field.position), &items, None).expect("the items lie within the lists")
        };
        let columns = fields.iter().map(column).collect();
        let groups = self.groups.with_columns(Vec::new()).take(&picks.groups);
        Some(Batch { columns, ..groups })
    }

    /// Adds rows of the group, as many as there is room for, and goes on to the next group when it has no more.
    fn pick(&mut self, picks: &mut Picks) {
        let (left, right) = (self.items(Side::Left), self.items(Side::Right));
        let null = self.groups.columns[..self.keys].iter().any(|key| key.is_null(self.group));
        let paired = !(null || left.is_empty() || right.is_empty());
        let alone = |side, items: &Range<usize>| if self.outer.keeps(side) { items.len() } else { 0 };
        let (alone_left, alone_right) = (alone(Side::Left, &left), alone(Side::Right, &right));
        let rows = if paired { left.len() * right.len() } else { alone_left + alone_right };
        while self.at < rows && picks.groups.len() < self.at_once {
            let at = self.at;
            match paired {
                true => {
                    let (one, other) = (left.start + at / right.len(), right.start + at % right.len());
                    picks.push(self.group, Some(one), Some(other));
                }
                false if at < alone_left => picks.push(self.group, Some(left.start + at), None),
                false => picks.push(self.group, None, Some(right.start + at - alone_left)),
            }
            self.at += 1;
        }
        if self.at >= rows {
            (self.group, self.at) = (self.group + 1, 0);
        }
    }
}

/// The length of the longest text or bytes among the fields of rows.
fn widest(rows: &StructArray) -> usize {
    fn longest(offsets: &[i32]) -> usize {
        offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0)
    }
    let of = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => longest(column.as_string::<i32>().value_offsets()),
        DataType::Binary => longest(column.as_binary::<i32>().value_offsets()),
        _ => 0,
    };
    rows.columns().iter().map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use pharos_beam::schema::{Schema, Type, Value};

    use super::*;
    use crate::column::build;
    use crate::exec::fragment::values_of;

    fn row(number: i64) -> Value {
        Value::Row(vec![Value::Int64(number)])
    }

    /// Groups by their key and how many left and right rows they have, numbered.
    fn groups(of: &[(Option<i64>, i64, i64)]) -> Batch {
        let ty = Type::Array(Box::new(Type::Row(Schema::new([("n", Type::Int64)]))));
        let keys: Vec<Value> = of.iter().map(|(key, ..)| key.map_or(Value::Null, Value::Int64)).collect();
        let rows = |count: i64| Value::Array((0..count).map(row).collect());
        let left: Vec<Value> = of.iter().map(|(_, left, _)| rows(*left)).collect();
        let right: Vec<Value> = of.iter().map(|(.., right)| rows(*right)).collect();
        let column = |ty: &Type, values: &[Value]| build(ty, &values.iter().collect::<Vec<_>>());
        let columns = vec![column(&Type::Int64.nullable(), &keys), column(&ty, &left), column(&ty, &right)];
        Batch::untimed(columns, of.len())
    }

    const FIELDS: [JoinField; 2] =
        [JoinField { side: Side::Left, position: 0 }, JoinField { side: Side::Right, position: 0 }];

    fn pairs(of: &[(Option<i64>, i64, i64)], outer: Outer) -> Vec<(Option<i64>, Option<i64>)> {
        let groups = groups(of);
        let mut pairs = Pairs::new(&groups, 1, outer);
        let schema = Schema::new([("l", Type::Int64.nullable()), ("r", Type::Int64.nullable())]);
        let mut found = Vec::new();
        while let Some(batch) = pairs.next(&FIELDS) {
            found.extend(values_of(&schema, &batch).into_iter().map(|cells| {
                let number = |cell: &Value| match cell {
                    Value::Int64(number) => Some(*number),
                    _ => None,
                };
                (number(&cells[0]), number(&cells[1]))
            }));
        }
        found
    }

    #[test]
    fn a_group_gives_its_pairs_and_null_agrees_with_nothing() {
        let of = [(Some(1), 2, 2), (Some(2), 1, 0), (Some(3), 0, 1), (None, 1, 1)];
        let both = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(l, r)| (Some(l), Some(r)));
        let (left, right) = ((Some(0), None), (None, Some(0)));
        for (outer, alone) in [
            (Outer::None, vec![]),
            (Outer::Left, vec![left, left]),
            (Outer::Right, vec![right, right]),
            (Outer::Both, vec![left, right, left, right]),
        ] {
            assert_eq!(pairs(&of, outer), [both.to_vec(), alone].concat(), "{outer:?}");
        }
    }

    #[test]
    fn many_pairs_come_in_parts_and_each_once() {
        let found = pairs(&[(Some(1), 900, 300), (Some(2), 3, 1)], Outer::None);
        assert_eq!(found.len(), 900 * 300 + 3);
        assert!(
            found[..900 * 300]
                .iter()
                .enumerate()
                .all(|(at, pair)| { *pair == (Some(at as i64 / 300), Some(at as i64 % 300)) })
        );
    }

    #[test]
    fn wide_rows_come_fewer_at_once() {
        let row = Schema::new([("t", Type::String)]);
        let text = |count: usize| {
            Value::Array((0..count).map(|_| Value::Row(vec![Value::String("x".repeat(20_000))])).collect())
        };
        let ty = Type::Array(Box::new(Type::Row(row)));
        let columns =
            vec![build(&Type::Int64, &[&Value::Int64(1)]), build(&ty, &[&text(1)]), build(&ty, &[&text(10)])];
        let groups = Batch::untimed(columns, 1);
        let mut pairs = Pairs::new(&groups, 1, Outer::None);
        let rows: Vec<usize> = std::iter::from_fn(|| pairs.next(&FIELDS)).map(|batch| batch.rows).collect();
        assert_eq!(rows, [3, 3, 3, 1]);
    }
}
