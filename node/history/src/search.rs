//! The reference and who of unknown outcome has changed it.
//!
//! Owns what is placed, and takes it back. Must not know what has to be explained. Invariant: what is placed of one
//! connection is a beginning of what was lost there, in its order: a member never passes a request by and takes a later
//! one of the same client.

use std::collections::BTreeSet;

use crate::record::{Request, Write};
use crate::shown::Shown;
use crate::suspects::Suspects;
use crate::tree::{self, Applied, Transaction, Tree, parent_of};

/// How many writes of unknown outcome are assumed at most to explain one answer, beside those that they follow.
pub const MOST_ASSUMED: usize = 12;
/// How many combinations are tried for one answer.
const MOST_TRIED: usize = 20_000;
/// Of how many that were placed last it is seen to that each can have a zxid of its own.
const MOST_CROWDED: usize = 1_000;
/// How many that may have failed are singled out.
const MOST_SINGLED_OUT: usize = 6;
/// How many are tried in all.
const MOST_TRIED_IN_ALL: usize = 200_000;

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

/// When something happened that nobody acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this zxid, as something shows.
    Seen(i64),
    /// At a zxid from the first to the last, both included, that nothing is known of.
    Within(i64, i64),
}

impl Place {
    pub(crate) fn first(self) -> i64 {
        match self {
            Self::Seen(zxid) => zxid,
            Self::Within(first, _) => first,
        }
    }
}

/// What was placed, in the order in which it was.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) suspect: usize,
    pub(crate) place: Place,
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
    shown: Shown,
    tried: usize,
    tried_in_all: usize,
}

/// What must come true.
pub(crate) type Goal<'g, 'a> = dyn FnMut(&mut World<'a>) -> bool + 'g;

impl<'a> World<'a> {
    pub(crate) fn new(suspects: Suspects<'a>, free: BTreeSet<i64>, shown: Shown) -> Self {
        let (placed, ends) = (Vec::new(), Vec::new());
        Self { tree: Tree::new(), suspects, placed, ends, free, shown, tried: 0, tried_in_all: 0 }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { tree: self.tree.mark(), placed: self.placed.len(), ends: self.ends.len() }
    }

    pub(crate) fn roll_back(&mut self, mark: &Mark) {
        self.tree.roll_back(mark.tree);
        self.ends.truncate(mark.ends);
        for Placed { suspect, .. } in self.placed.drain(mark.placed..) {
            self.suspects.place(suspect, None);
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
            if self.tried > MOST_TRIED
                || self.suspects.touching(&focus(&self.tree), &self.tree, before.zxid).is_empty()
            {
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
        for suspect in self.suspects.touching(&focus(&self.tree), &self.tree, before.zxid) {
            let first = *self.suspects.room(suspect).start();
            let lasts = [before.zxid - 1, self.known(suspect, before.zxid) - 1];
            let ways = self.ways(suspect);
            for (last, idle) in lasts.iter().flat_map(|last| ways.iter().map(move |idle| (*last, idle))) {
                if self.tried > MOST_TRIED || self.is_exhausted() {
                    return false;
                }
                let applied = self.carry_out(suspect, Place::Within(first, last), idle, before.shown_at);
                let changed = applied.is_some_and(|applied| !applied.changes.is_empty());
                if changed && self.search(before, focus, depth - 1, goal) {
                    return true;
                }
                self.roll_back(&mark);
            }
        }
        false
    }

    /// All ways to carry a suspect out at a zxid; `found` takes one, and it stays.
    pub(crate) fn convict(
        &mut self,
        suspect: usize,
        zxid: i64,
        mut found: impl FnMut(&mut Self, &Applied) -> bool,
    ) -> Option<Applied> {
        let mark = self.mark();
        for idle in self.ways(suspect) {
            if let Some(applied) = self.carry_out(suspect, Place::Seen(zxid), &idle, zxid)
                && found(self, &applied)
            {
                return Some(applied);
            }
            self.roll_back(&mark);
        }
        None
    }

    /// Of what a connection lost before a suspect, what may have failed when it was carried out, although it would not
    /// now: none of it, all, or one.
    fn ways(&self, suspect: usize) -> Vec<Vec<usize>> {
        let mut earlier = self.suspects.unplaced_before(suspect);
        earlier.retain(|sibling| self.suspects.may_have_failed(*sibling));
        let mut ways = vec![Vec::new()];
        if earlier.len() > 1 {
            ways.push(earlier.clone());
        }
        ways.extend(earlier.into_iter().take(MOST_SINGLED_OUT).map(|sibling| vec![sibling]));
        ways
    }

    /// Carries a suspect out, and before it what its connection lost earlier; `None` if there is no room for that, or
    /// later reads contradict it.
    fn carry_out(&mut self, suspect: usize, place: Place, idle: &[usize], shown_at: i64) -> Option<Applied> {
        let (first, last) = self.suspects.room(suspect).into_inner();
        let (place, limit) = match place {
            Place::Seen(zxid) if (first..=last).contains(&zxid) => (place, zxid),
            Place::Within(_, end) if first <= end.min(last) => {
                (Place::Within(first, end.min(last)), end.min(last))
            }
            _ => return None,
        };
        for sibling in self.suspects.unplaced_before(suspect) {
            let first = *self.suspects.room(sibling).start();
            let place = Place::Within(first, (limit - 1).max(first));
            let mark = self.mark();
            if idle.contains(&sibling) || self.place(sibling, place, shown_at).is_none() {
                if !self.suspects.may_have_failed(sibling) {
                    return None;
                }
                self.roll_back(&mark);
                self.note(sibling, place);
            }
        }
        let applied = self.place(suspect, place, shown_at)?;
        self.has_room(first).then_some(applied)
    }

    fn note(&mut self, suspect: usize, place: Place) {
        self.suspects.place(suspect, Some(place));
        self.placed.push(Placed { suspect, place });
    }

    /// `None` if the next read contradicts it.
    fn place(&mut self, suspect: usize, place: Place, shown_at: i64) -> Option<Applied> {
        self.note(suspect, place);
        let one = self.suspects.get(suspect);
        let (session, asked) = (one.session, one.operation.is_some());
        if *one.request == Request::Close {
            self.ends.push(End { session, shown_at, asked });
        }
        let (zxid, unseen) = match place {
            Place::Seen(zxid) => (zxid, false),
            Place::Within(_, zxid) => (zxid, true),
        };
        let applied = self.tree.apply(Transaction { request: one.request, session, zxid, unseen });
        let contradicted =
            unseen && applied.changes.iter().any(|change| self.shown.contradicts(change, zxid));
        (!contradicted).then_some(applied)
    }

    /// Whether all that is placed somewhere from there on can have a zxid of its own: of those that may have one, it is
    /// given to the one that has to have it first.
    fn has_room(&self, from: i64) -> bool {
        let mut places: Vec<(i64, i64)> = self
            .placed
            .iter()
            .rev()
            .take(MOST_CROWDED)
            .filter_map(|placed| match placed.place {
                Place::Within(first, last) if last >= from => Some((last, first)),
                _ => None,
            })
            .collect();
        places.sort_unstable();
        let mut taken = BTreeSet::new();
        places.into_iter().all(|(last, first)| {
            first <= last
                && self
                    .free
                    .range(first..=last)
                    .copied()
                    .find(|zxid| !taken.contains(zxid))
                    .is_some_and(|zxid| taken.insert(zxid))
        })
    }

    /// The last zxid before the limit at which one of its paths is known to have changed.
    fn known(&self, suspect: usize, limit: i64) -> i64 {
        let paths = concerned(self.suspects.get(suspect).request);
        let known =
            paths.iter().map(|path| self.tree.changed_at(path).max(self.tree.changed_at(parent_of(path))));
        known.max().unwrap_or(0).min(limit)
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
