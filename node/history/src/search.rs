//! The reference and who of unknown outcome has changed it.
//!
//! Owns what is placed, and takes it back. Must not know what has to be explained. Invariant: what is placed of one
//! connection is a beginning of what was lost there, in its order: a member never passes a request by and takes a later
//! one of the same client.

use std::collections::BTreeSet;

use crate::record::{Request, Write};
use crate::suspects::Suspects;
use crate::tree::{self, Applied, Transaction, Tree, parent_of};

/// How many writes of unknown outcome are assumed at most to explain one answer, beside those that they follow.
pub const MOST_ASSUMED: usize = 12;
/// How many combinations are tried for one answer.
const MOST_TRIED: usize = 20_000;
/// How many are tried in all.
const MOST_TRIED_IN_ALL: usize = 4_000_000;

/// The end of a session that nobody acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) session: i64,
    /// The first zxid that shows it.
    pub(crate) shown_at: i64,
    /// It may be a close whose answer was lost.
    pub(crate) asked: bool,
}

/// Where suspects are placed.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    zxid: i64,
    /// The zxid of the answer that shows them.
    shown_at: i64,
}

impl Before {
    /// Before a transaction.
    pub(crate) fn transaction(zxid: i64) -> Self {
        Self { zxid, shown_at: zxid }
    }

    /// Before a read, and whatever it shows has happened, that of its own zxid included.
    pub(crate) fn read(zxid: i64) -> Self {
        Self { zxid: zxid + 1, shown_at: zxid }
    }
}

/// What was placed, in the order in which it was.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) suspect: usize,
    pub(crate) zxid: i64,
    /// The zxid is a guess, since nobody has seen it.
    pub(crate) guessed: bool,
}

/// A moment to go back to.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) tree: tree::Mark,
    placed: usize,
    ends: usize,
}

impl Mark {
    /// Whether anything was placed between the other moment and this one.
    pub(crate) fn has_placed_since(&self, other: &Self) -> bool {
        self.placed > other.placed
    }
}

pub(crate) struct World<'a> {
    pub(crate) tree: Tree,
    pub(crate) suspects: Suspects<'a>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) ends: Vec<End>,
    /// Zxids of which nothing is known.
    free: BTreeSet<i64>,
    tried: usize,
    tried_in_all: usize,
}

/// What must come true.
pub(crate) type Goal<'g, 'a> = dyn FnMut(&mut World<'a>) -> bool + 'g;

impl<'a> World<'a> {
    pub(crate) fn new(suspects: Suspects<'a>, free: BTreeSet<i64>) -> Self {
        let (placed, ends) = (Vec::new(), Vec::new());
        Self { tree: Tree::new(), suspects, placed, ends, free, tried: 0, tried_in_all: 0 }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { tree: self.tree.mark(), placed: self.placed.len(), ends: self.ends.len() }
    }

    pub(crate) fn roll_back(&mut self, mark: &Mark) {
        self.tree.roll_back(mark.tree);
        self.ends.truncate(mark.ends);
        for Placed { suspect, zxid, guessed } in self.placed.drain(mark.placed..) {
            self.suspects.place(suspect, None);
            if guessed {
                self.free.insert(zxid);
            }
        }
    }

    /// Whether there is no use in looking for another explanation.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.tried_in_all > MOST_TRIED_IN_ALL
    }

    /// Tries whether `goal` is met, alone or after as few suspects as possible of those that `focus` names. What was
    /// tried in vain is taken back.
    pub(crate) fn explain(
        &mut self,
        before: Before,
        focus: &dyn Fn(&Tree) -> Vec<String>,
        goal: &mut Goal<'_, 'a>,
    ) -> bool {
        self.tried = 0;
        for depth in 0..=MOST_ASSUMED {
            if self.search(before, focus, depth, goal) {
                return true;
            }
            if self.tried > MOST_TRIED || self.suspects.touching(&focus(&self.tree), &self.tree).is_empty() {
                return false;
            }
        }
        false
    }

    fn search(
        &mut self,
        before: Before,
        focus: &dyn Fn(&Tree) -> Vec<String>,
        depth: usize,
        goal: &mut Goal<'_, 'a>,
    ) -> bool {
        self.tried += 1;
        self.tried_in_all += 1;
        let mark = self.mark();
        if depth == 0 {
            let met = goal(self);
            if !met {
                self.roll_back(&mark);
            }
            return met;
        }
        for suspect in self.suspects.touching(&focus(&self.tree), &self.tree) {
            for zxid in self.guesses(suspect, before.zxid) {
                if self.tried > MOST_TRIED || self.is_exhausted() {
                    return false;
                }
                let applied = self.carry_out(suspect, zxid, before.shown_at);
                let changed = applied.is_some_and(|applied| !applied.changes.is_empty());
                if changed && self.search(before, focus, depth - 1, goal) {
                    return true;
                }
                self.roll_back(&mark);
            }
        }
        false
    }

    /// Carries a suspect out at a zxid, and before it what its connection lost earlier; `None`, with nothing done, if
    /// there is no room for that.
    pub(crate) fn carry_out(&mut self, suspect: usize, zxid: i64, shown_at: i64) -> Option<Applied> {
        if !self.suspects.room(suspect).contains(&zxid) {
            return None;
        }
        let earlier = self.suspects.unplaced_before(suspect);
        let mut zxids = Vec::with_capacity(earlier.len());
        let mut next = zxid;
        for sibling in earlier.iter().rev() {
            next = self.free.range(..next).next_back().copied()?;
            if !self.suspects.room(*sibling).contains(&next) {
                return None;
            }
            zxids.push(next);
        }
        for (sibling, zxid) in earlier.into_iter().zip(zxids.into_iter().rev()) {
            self.place(sibling, zxid, shown_at);
        }
        Some(self.place(suspect, zxid, shown_at))
    }

    fn place(&mut self, suspect: usize, zxid: i64, shown_at: i64) -> Applied {
        self.suspects.place(suspect, Some(zxid));
        let guessed = self.free.remove(&zxid);
        self.placed.push(Placed { suspect, zxid, guessed });
        let one = self.suspects.get(suspect);
        let (session, asked) = (one.session, one.operation.is_some());
        if *one.request == Request::Close {
            self.ends.push(End { session, shown_at, asked });
        }
        self.tree.apply(Transaction { request: one.request, session, zxid })
    }

    /// Zxids that it may have had without anyone having seen it: after all that is known of its paths, and before.
    fn guesses(&self, suspect: usize, zxid: i64) -> Vec<i64> {
        let paths = concerned(self.suspects.get(suspect).request);
        let known =
            paths.iter().map(|path| self.tree.changed_at(path).max(self.tree.changed_at(parent_of(path))));
        let known = known.max().unwrap_or(0);
        let (first, last) = self.suspects.room(suspect).into_inner();
        let last = |limit: i64| {
            let end = limit.min(last.saturating_add(1));
            if first < end { self.free.range(first..end).next_back().copied() } else { None }
        };
        let mut guesses: Vec<i64> = last(zxid).into_iter().chain(last(known.min(zxid))).collect();
        guesses.dedup();
        guesses
    }
}

/// The paths that decide what a write answers.
pub(crate) fn concerned(request: &Request) -> Vec<String> {
    let writes = match request {
        Request::Write(write) => std::slice::from_ref(write),
        Request::Multi(writes) => writes,
        _ => &[],
    };
    let mut paths = Vec::new();
    for write in writes {
        paths.push(write.path().to_owned());
        if matches!(write, Write::Create { .. }) {
            paths.push(parent_of(write.path()).to_owned());
        }
    }
    paths
}
