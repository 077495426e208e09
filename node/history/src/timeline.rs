//! Who had which zxid.
//!
//! Owns the order of everything that was answered, by zxid. Must not know what a write does. Invariant: a zxid is of one
//! acknowledged write, or free.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Answer, History, Micros, OpRef};
use crate::violation::{Rule, Violation};

/// How many writes without an answer may have followed the last known zxid of an epoch.
const TAIL: i64 = 256;

pub(crate) struct Timeline {
    /// The acknowledged write of each zxid.
    pub(crate) writes: BTreeMap<i64, OpRef>,
    /// Everything else that was answered, by the zxid that it shows.
    pub(crate) reads: Vec<(i64, OpRef)>,
    /// Zxids that no acknowledged write has, and some other transaction may have had.
    pub(crate) free: BTreeSet<i64>,
    /// For each zxid in an answer, the first moment at which it or a later one had been seen.
    seen: Vec<(i64, Micros)>,
}

impl Timeline {
    pub(crate) fn of(history: &History, violations: &mut Vec<Violation>) -> Self {
        let mut writes = BTreeMap::new();
        let (mut reads, mut seen) = (Vec::new(), Vec::new());
        for (at, op) in history.operations() {
            let Some(Answer { zxid, completed, .. }) = op.answer() else { continue };
            seen.push((*zxid, *completed));
            if !op.request.is_write() {
                reads.push((*zxid, at));
            } else if let Some(other) = writes.insert(*zxid, at) {
                let both = format!("{} and {}", history.tell(other), history.tell(at));
                violations.push(Violation::new(Rule::Writes, format!("two writes at {zxid:#x}: {both}")));
            }
        }
        reads.sort_unstable();
        let free = free(&writes, &reads);
        Self { writes, reads, free, seen: earliest(seen) }
    }

    /// By when something at the zxid, or after it, had been answered.
    pub(crate) fn seen_by(&self, zxid: i64) -> Option<Micros> {
        let at = self.seen.partition_point(|(seen, _)| *seen < zxid);
        self.seen.get(at).map(|(_, by)| *by)
    }
}

/// By zxid, each with the earliest moment of its own and of those after it.
fn earliest(mut seen: Vec<(i64, Micros)>) -> Vec<(i64, Micros)> {
    seen.sort_unstable();
    let mut least = Micros(u64::MAX);
    for (_, by) in seen.iter_mut().rev() {
        least = least.min(*by);
        *by = least;
    }
    seen
}

fn free(writes: &BTreeMap<i64, OpRef>, reads: &[(i64, OpRef)]) -> BTreeSet<i64> {
    let mut last_of_epoch = BTreeMap::new();
    for zxid in writes.keys().copied().chain(reads.iter().map(|(zxid, _)| *zxid)) {
        let last = last_of_epoch.entry(zxid >> 32).or_insert(zxid);
        *last = zxid.max(*last);
    }
    let mut free = BTreeSet::new();
    for (epoch, last) in last_of_epoch {
        let all = (epoch << 32) + 1..=last + TAIL;
        free.extend(all.filter(|zxid| !writes.contains_key(zxid)));
    }
    free
}
