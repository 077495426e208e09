//! The pairs of a Join.
//!
//! Owns: which rows of a group stand together, and which stand alone.
//! Must not know: how groups are gathered.
//! Invariant: each pair of a group comes once, the left row varying slowest; a row that is in no pair comes once if its
//! side is kept, and else never.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_select::take::take;
use pharos_beam::plan::{JoinField, Outer, Side};

use crate::column::Batch;

/// So many rows come at once, and not many more: a group of n and m rows has n times m pairs.
const AT_ONCE: usize = 1 << 16;

/// The rows of groups that are still to come.
pub(super) struct Pairs<'a> {
    groups: &'a Batch,
    keys: usize,
    outer: Outer,
    group: usize,
    /// How many left rows of the group have come.
    left: usize,
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
        Self { groups, keys, outer, group: 0, left: 0 }
    }

    fn items(&self, side: Side) -> std::ops::Range<usize> {
        let lists = self.column(side).as_list::<i32>();
        let start = lists.value_offsets()[self.group] as usize;
        start..start + lists.value_length(self.group) as usize
    }

    fn column(&self, side: Side) -> &'a ArrayRef {
        &self.groups.columns[self.keys + usize::from(side == Side::Right)]
    }

    /// The next rows, some tens of thousands at most unless a single row has more partners.
    pub(super) fn next(&mut self, fields: &[JoinField]) -> Option<Batch> {
        let mut picks = Picks::default();
        while self.group < self.groups.rows && picks.groups.len() < AT_ONCE {
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

    /// Adds rows of the group, all or as many as there is room for, and goes on to what comes next.
    fn pick(&mut self, picks: &mut Picks) {
        let (left, right) = (self.items(Side::Left), self.items(Side::Right));
        let null = self.groups.columns[..self.keys].iter().any(|key| key.is_null(self.group));
        if null || left.is_empty() || right.is_empty() {
            if self.outer.keeps(Side::Left) {
                left.for_each(|item| picks.push(self.group, Some(item), None));
            }
            if self.outer.keeps(Side::Right) {
                right.for_each(|item| picks.push(self.group, None, Some(item)));
            }
        } else {
            let mut rest = left.skip(self.left);
            while picks.groups.len() < AT_ONCE {
                let Some(item) = rest.next() else { break };
                right.clone().for_each(|other| picks.push(self.group, Some(item), Some(other)));
                self.left += 1;
            }
            if rest.next().is_some() {
                return;
            }
        }
        (self.group, self.left) = (self.group + 1, 0);
    }
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
}
