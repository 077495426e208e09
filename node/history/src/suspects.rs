//! Transactions of unknown outcome: who may have had a zxid that nobody acknowledged.
//!
//! Owns what is known of each: the zxids it may have had, and those it was given. Must not know what it does. Invariant:
//! writes of one connection are placed in their order, and none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::Limits;
use crate::evidence::{Evidence, Fact};
use crate::expiry;
use crate::record::{History, Micros, OpRef, Outcome, Request, Write};
use crate::search::Place;
use crate::tree::{Tree, parent_of};

static END: Request = Request::Close;

/// One of them.
pub(crate) struct Suspect<'a> {
    pub(crate) request: &'a Request,
    pub(crate) session: i64,
    /// The operation; an expiry is nobody's.
    pub(crate) operation: Option<OpRef>,
    /// It came after this zxid,
    after: i64,
    /// and not after this one.
    upto: i64,
    invoked: Micros,
    /// The zxid at which a value was seen that it alone wrote.
    known: Option<i64>,
    /// The end of a session by its timeout comes after this zxid.
    due: i64,
    pub(crate) placed: Option<Place>,
}

pub(crate) struct Suspects<'a> {
    all: Vec<Suspect<'a>>,
    by_path: BTreeMap<String, Vec<usize>>,
    by_parent: BTreeMap<String, Vec<usize>>,
    ends: BTreeMap<i64, Vec<usize>>,
    by_connection: BTreeMap<(usize, usize), Vec<usize>>,
}

impl<'a> Suspects<'a> {
    pub(crate) fn of(history: &'a History, limits: Limits) -> Self {
        let mut this = Self {
            all: Vec::new(),
            by_path: BTreeMap::new(),
            by_parent: BTreeMap::new(),
            ends: BTreeMap::new(),
            by_connection: BTreeMap::new(),
        };
        let floors = Floors::of(history);
        for session in 0..history.sessions.len() {
            this.add_session(history, session, &floors, limits);
        }
        this
    }

    fn add_session(&mut self, history: &'a History, index: usize, floors: &Floors, limits: Limits) {
        let session = &history.sessions[index];
        let mut last_seen = 0;
        let mut closing = false;
        for (connection, link) in session.connections.iter().enumerate() {
            let later = session.connections.iter().skip(connection + 1);
            // What was in flight when the session moved is refused from then on.
            let upto = later
                .flat_map(|link| link.operations.iter().filter_map(|op| op.answer()))
                .next()
                .map_or(i64::MAX, |answer| answer.zxid);
            for (operation, op) in link.operations.iter().enumerate() {
                match &op.outcome {
                    Outcome::Answered(answer) => {
                        last_seen = last_seen.max(answer.zxid);
                        closing |= op.request == Request::Close;
                    }
                    Outcome::Unknown if op.request.is_write() => self.add(Suspect {
                        request: &op.request,
                        session: session.id,
                        operation: Some(OpRef { session: index, connection, operation }),
                        after: last_seen.max(floors.at(op.invoked)),
                        upto,
                        invoked: op.invoked,
                        known: None,
                        due: 0,
                        placed: None,
                    }),
                    Outcome::Unknown => {}
                }
            }
        }
        if !closing {
            let invoked = session.connections.last().map_or(Micros(0), |link| link.opened);
            let operation = None;
            let ends = session;
            let (session, after, upto) = (session.id, last_seen, i64::MAX);
            self.add(Suspect {
                request: &END,
                session,
                operation,
                after,
                upto,
                invoked,
                known: None,
                due: floors.at(expiry::earliest_end(ends, limits)),
                placed: None,
            });
        }
    }

    fn add(&mut self, suspect: Suspect<'a>) {
        let index = self.all.len();
        if *suspect.request == Request::Close {
            self.ends.entry(suspect.session).or_default().push(index);
        }
        for path in suspect.request.paths() {
            self.by_path.entry(path.to_owned()).or_default().push(index);
            self.by_parent.entry(parent_of(path).to_owned()).or_default().push(index);
        }
        if let Some(at) = suspect.operation {
            self.by_connection.entry((at.session, at.connection)).or_default().push(index);
        }
        self.all.push(suspect);
    }

    /// Finds out who wrote what was seen, where only one can have.
    pub(crate) fn recognise(&mut self, history: &History, evidence: &Evidence) {
        let mut writers: BTreeMap<&[u8], Vec<Option<usize>>> = BTreeMap::new();
        for (index, suspect) in self.all.iter().enumerate() {
            suspect
                .request
                .values()
                .for_each(|(_, value)| writers.entry(value).or_default().push(Some(index)));
        }
        for (_, op) in history.operations().filter(|(_, op)| op.answer().is_some()) {
            op.request.values().for_each(|(_, value)| writers.entry(value).or_default().push(None));
        }
        for (zxid, facts) in evidence {
            for (path, value) in facts.facts.iter().filter_map(Fact::value) {
                let Some([Some(index)]) = writers.get(value).map(Vec::as_slice) else { continue };
                let suspect = &mut self.all[*index];
                if suspect.request.values().any(|(own, _)| path.starts_with(own)) {
                    suspect.known = Some(*zxid);
                }
            }
        }
    }

    pub(crate) fn get(&self, index: usize) -> &Suspect<'a> {
        &self.all[index]
    }

    pub(crate) fn all(&self) -> &[Suspect<'a>] {
        &self.all
    }

    pub(crate) fn place(&mut self, index: usize, place: Option<Place>) {
        self.all[index].placed = place;
    }

    /// Those that may have touched one of the paths, its children or its siblings before the zxid, the likeliest first.
    pub(crate) fn touching(&self, paths: &[String], tree: &Tree, before: i64) -> Vec<usize> {
        let mut found = BTreeSet::new();
        for path in paths {
            let unnumbered = path.char_indices().nth_back(9).map_or("", |(at, _)| &path[..at]);
            for key in [path.as_str(), unnumbered] {
                found.extend(self.by_path.get(key).into_iter().flatten().copied());
            }
            found.extend(self.by_parent.get(path).into_iter().flatten().copied());
            for owner in tree.owners_at(path) {
                found.extend(self.ends.get(&owner).into_iter().flatten().copied());
            }
        }
        let mut found: Vec<usize> =
            found.into_iter().filter(|index| self.all[*index].placed.is_none()).collect();
        found.sort_by_key(|index| self.doubt(*index, before));
        found
    }

    /// Orders suspects: those that nothing has to come before; single writes, multis, what nobody asked for; the
    /// earliest asked; last of all ends of sessions before their time.
    fn doubt(&self, index: usize, before: i64) -> (bool, usize, u8, Micros, usize) {
        let suspect = &self.all[index];
        let rank = match (suspect.operation, suspect.request) {
            (None, _) => 2,
            (Some(_), Request::Multi(_)) => 1,
            _ => 0,
        };
        (suspect.due >= before, self.unplaced_before(index).len(), rank, suspect.invoked, index)
    }

    /// Whether what others lost may have been in its way.
    pub(crate) fn may_have_failed(&self, index: usize) -> bool {
        let others =
            |path: &str| self.by_path.get(path).into_iter().flatten().filter(move |other| **other != index);
        let comes_or_goes = |path: &str| {
            let plain =
                |other: &&usize| matches!(self.all[**other].request, Request::Write(Write::SetData { .. }));
            !others(path).all(|other| plain(&other))
        };
        let one = |write: &Write| match write {
            Write::Create { path, sequential: true, .. } => comes_or_goes(parent_of(path)),
            Write::Create { path, .. } => comes_or_goes(path) || comes_or_goes(parent_of(path)),
            Write::SetData { path, version: -1, .. } => comes_or_goes(path),
            Write::Delete { path, .. } | Write::SetData { path, .. } | Write::Check { path, .. } => {
                others(path).next().is_some() || self.by_parent.contains_key(path)
            }
        };
        match self.all[index].request {
            Request::Write(write) => one(write),
            Request::Multi(writes) => writes.iter().any(one),
            _ => false,
        }
    }

    /// What its connection lost earlier and is not placed, in its order.
    pub(crate) fn unplaced_before(&self, index: usize) -> Vec<usize> {
        self.earlier(index).filter(|other| self.all[*other].placed.is_none()).collect()
    }

    fn earlier(&self, index: usize) -> impl Iterator<Item = usize> {
        self.siblings(index).take_while(move |other| *other < index)
    }

    fn siblings(&self, index: usize) -> impl DoubleEndedIterator<Item = usize> {
        let key = self.all[index].operation.map(|at| (at.session, at.connection));
        key.and_then(|key| self.by_connection.get(&key)).into_iter().flatten().copied()
    }

    /// The zxids that it may have had: after what it was asked after, not after its session had moved on, and between
    /// what is known of its connection.
    pub(crate) fn room(&self, index: usize) -> RangeInclusive<i64> {
        let suspect = &self.all[index];
        let placed = self.earlier(index).filter_map(|other| self.all[other].placed.map(Place::first));
        let known = self.earlier(index).filter_map(|other| self.all[other].known);
        let next = self.siblings(index).rev().take_while(|other| *other > index);
        let next = next.filter_map(|other| self.all[other].known).min();
        let first = placed.chain(known).chain([suspect.after]).max().unwrap_or(0) + 1;
        let last = next.map_or(suspect.upto, |next| suspect.upto.min(next - 1));
        match suspect.known {
            Some(zxid) => first.max(zxid)..=last.min(zxid),
            None => first..=last,
        }
    }
}

/// The highest zxid in any answer that had been received, at each moment.
pub(crate) struct Floors(Vec<(Micros, i64)>);

impl Floors {
    pub(crate) fn of(history: &History) -> Self {
        let answers = history.operations().filter_map(|(_, op)| op.answer());
        let mut all: Vec<(Micros, i64)> = answers.map(|answer| (answer.completed, answer.zxid)).collect();
        all.sort_unstable();
        let mut highest = 0;
        for (_, zxid) in &mut all {
            highest = highest.max(*zxid);
            *zxid = highest;
        }
        Self(all)
    }

    /// Of answers received before this moment.
    pub(crate) fn at(&self, moment: Micros) -> i64 {
        let count = self.0.partition_point(|(completed, _)| *completed < moment);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
