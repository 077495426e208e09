//! Everything by zxid on the reference: rules 1, 3, 4 and the state part of 7.
//!
//! Owns which transaction of unknown outcome is placed where. Must not know time, beyond what bounds a suspect's zxids.
//! Invariant: what is assumed is the least that explains what was answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::Report;
use crate::evidence::{Evidence, Facts, collect, differing};
use crate::record::{Body, ErrorCode, History, Incoming, OpRef, Rearm, Request, WatchEvent};
use crate::record::{EventKind, Stat, View, Write};
use crate::suspects::Suspects;
use crate::timeline::Timeline;
use crate::tree::{Transaction, Tree, parent_of};
use crate::violation::{Rule, Violation};

/// How many writes of unknown outcome are assumed at most to explain one answer.
pub const MOST_ASSUMED: usize = 12;
/// How many writes of unknown outcome a violation names.
const MOST_TOLD: usize = 4;
/// How many combinations are tried for one answer.
const MOST_TRIED: usize = 20_000;

/// What a `setWatches` left armed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) data: Vec<String>,
    pub(crate) child: Vec<String>,
}

/// The end of a session that nobody acknowledged.
pub(crate) struct End {
    pub(crate) session: i64,
    /// The first zxid that shows it.
    pub(crate) shown_at: i64,
    /// It may be a close whose answer was lost.
    pub(crate) asked: bool,
}

#[derive(Default)]
pub(crate) struct Replayed {
    /// What happened, in the order in which watches fire. What was assumed at a guessed zxid is left out.
    pub(crate) changes: Vec<WatchEvent>,
    pub(crate) armed: BTreeMap<OpRef, Armed>,
    pub(crate) ends: Vec<(End, Option<crate::record::Micros>)>,
    /// Writes of unknown outcome, by the zxid that evidence gives them.
    pub(crate) placed: BTreeMap<i64, OpRef>,
}

/// Where suspects are assumed.
#[derive(Clone, Copy)]
struct Before {
    zxid: i64,
    /// The zxid of the answer that shows them.
    shown_at: i64,
}

impl Before {
    /// Before a transaction.
    fn transaction(zxid: i64) -> Self {
        Self { zxid, shown_at: zxid }
    }

    /// Before a read, and whatever it shows has happened, that of its own zxid included.
    fn read(zxid: i64) -> Self {
        Self { zxid: zxid + 1, shown_at: zxid }
    }
}

/// What a suspect must have made true.
type Goal<'g, 'a> = dyn FnMut(&mut Tree, &Suspects<'a>) -> bool + 'g;

struct Replay<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    tree: Tree,
    suspects: Suspects<'a>,
    free: BTreeSet<i64>,
    changes: Vec<WatchEvent>,
    ends: Vec<End>,
    tried: usize,
}

pub(crate) fn replay(history: &History, timeline: &Timeline, report: &mut Report) -> Replayed {
    let evidence = collect(history, timeline);
    let free = timeline.free.iter().copied().filter(|zxid| !evidence.contains_key(zxid)).collect();
    let mut replay = Replay {
        history,
        timeline,
        tree: Tree::new(),
        suspects: Suspects::of(history),
        free,
        changes: Vec::new(),
        ends: Vec::new(),
        tried: 0,
    };
    let mut replayed = Replayed::default();
    replay.run(&evidence, &mut replayed, report);
    for suspect in replay.suspects.all() {
        match (suspect.placed, suspect.operation) {
            (None, Some(_)) => report.unseen += 1,
            (Some(zxid), Some(at)) if evidence.contains_key(&zxid) => {
                replayed.placed.insert(zxid, at);
            }
            _ => {}
        }
    }
    let seen = |end: End| {
        let by = timeline.seen_by(end.shown_at);
        (end, by)
    };
    replayed.ends = replay.ends.into_iter().map(seen).collect();
    replayed.changes = replay.changes;
    replayed
}

impl<'a> Replay<'a> {
    fn run(&mut self, evidence: &Evidence, replayed: &mut Replayed, report: &mut Report) {
        let mut reads = self.timeline.reads.iter().peekable();
        let mut zxids: BTreeSet<i64> = self.timeline.writes.keys().copied().collect();
        zxids.extend(evidence.keys());
        zxids.insert(i64::MAX);
        for zxid in zxids {
            while let Some((_, at)) = reads.next_if(|(shown, _)| *shown < zxid) {
                self.read(*at, replayed, report);
            }
            let found = match (self.timeline.writes.get(&zxid), evidence.get(&zxid)) {
                (Some(at), _) => self.write(*at, zxid, report),
                (None, Some(facts)) => self.unacknowledged(zxid, facts, report),
                (None, None) => Ok(()),
            };
            report.violations.extend(found.err());
            self.tree.settle();
        }
    }

    /// An acknowledged write has its result.
    fn write(&mut self, at: OpRef, zxid: i64, report: &mut Report) -> Result<(), Violation> {
        report.writes += 1;
        let op = self.history.operation(at);
        let Some(answer) = op.answer() else { return Ok(()) };
        let by = Transaction { request: &op.request, session: self.history.sessions[at.session].id, zxid };
        let seen = answer.result.as_ref().map(Body::timeless).map_err(|code| *code);
        let mut changes = Vec::new();
        let paths = concerned(&op.request);
        let focus = |_: &Tree| paths.clone();
        let explained = self.explain(Before::transaction(zxid), &focus, report, &mut |tree, _| {
            let applied = tree.apply(by);
            changes = applied.changes;
            applied.result == seen
        });
        if !explained {
            let others = self.unplaced(&paths);
            let expected = self.tree.apply(by);
            changes = expected.changes;
            let text = format!("{} should be {:x?}; {others}", self.history.tell(at), expected.result);
            self.changes.extend(changes);
            return Err(Violation::new(Rule::Writes, text));
        }
        self.changes.extend(changes);
        Ok(())
    }

    /// Someone of unknown outcome did what was seen at a zxid that nobody has.
    fn unacknowledged(&mut self, zxid: i64, facts: &Facts, report: &mut Report) -> Result<(), Violation> {
        let focus = |tree: &Tree| facts.facts.iter().flat_map(|fact| fact.focus(tree)).collect::<Vec<_>>();
        let mut found = None;
        let explained = self.explain(Before::transaction(zxid), &focus, report, &mut |tree, suspects| {
            found = culprit(zxid, facts, &focus(tree), tree, suspects);
            found.is_some()
        });
        let (Some((index, changes)), true) = (found, explained) else {
            let (told_by, others) = (&facts.told_by, self.unplaced(&focus(&self.tree)));
            let text =
                format!("nobody can have done {:?} at {zxid:#x}, told by {told_by}; {others}", facts.facts);
            return Err(Violation::new(Rule::Unknown, text));
        };
        report.placed += 1;
        self.place(index, zxid, zxid);
        self.changes.extend(changes);
        Ok(())
    }

    /// A read shows the reference.
    fn read(&mut self, at: OpRef, replayed: &mut Replayed, report: &mut Report) {
        let op = self.history.operation(at);
        let Some(answer) = op.answer() else { return };
        let found = match &op.request {
            Request::Read { view, path, .. } => {
                report.reads += 1;
                let seen = answer.result.as_ref().map(Body::timeless).map_err(|code| *code);
                self.compare(at, (*view, path), answer.zxid, report, &seen)
            }
            Request::SetWatches(lists) => self.catch_up(at, lists, answer.zxid, replayed, report),
            _ => Ok(()),
        };
        self.tree.settle();
        report.violations.extend(found.err());
    }

    fn compare(
        &mut self,
        at: OpRef,
        (view, path): (View, &str),
        zxid: i64,
        report: &mut Report,
        seen: &Result<Body, ErrorCode>,
    ) -> Result<(), Violation> {
        let focus = |tree: &Tree| match seen {
            Ok(Body::Children(names, _)) => differing(path, &tree.children(path), names),
            _ => vec![path.to_owned()],
        };
        if self.explain(Before::read(zxid), &focus, report, &mut |tree, _| tree.read(view, path) == *seen) {
            return Ok(());
        }
        let (expected, others) = (self.tree.read(view, path), self.unplaced(&focus(&self.tree)));
        let text = format!("{} should be {expected:x?}; {others}", self.history.tell(at));
        Err(Violation::new(Rule::Reads, text))
    }

    /// What came before the answer is what had changed; the rest is armed.
    fn catch_up(
        &mut self,
        at: OpRef,
        lists: &Rearm,
        zxid: i64,
        replayed: &mut Replayed,
        report: &mut Report,
    ) -> Result<(), Violation> {
        let seen = caught_up(self.history, at);
        let focus = |tree: &Tree| {
            let (events, _) = rearm(tree, lists);
            let differ = |(_, path): &&(EventKind, String)| {
                seen.iter().chain(&events).filter(|(_, p)| p == path).count() != 2
            };
            let own =
                events.iter().chain(&seen).filter(differ).map(|(_, path)| path.clone()).collect::<Vec<_>>();
            if own.is_empty() { events.iter().map(|(_, path)| path.clone()).collect() } else { own }
        };
        let mut armed = Armed::default();
        let explained = self.explain(Before::read(zxid), &focus, report, &mut |tree, _| {
            let (events, rest) = rearm(tree, lists);
            armed = rest;
            events == seen
        });
        replayed.armed.insert(at, armed);
        if explained {
            return Ok(());
        }
        let (expected, _) = rearm(&self.tree, lists);
        let text = format!("{} was told {seen:?} instead of {expected:?}", self.history.tell(at));
        Err(Violation::new(Rule::Watches, text))
    }

    /// Tries whether `goal` is met, alone or after as few suspects as possible of those that `focus` names. What was
    /// tried in vain is taken back.
    fn explain(
        &mut self,
        before: Before,
        focus: &dyn Fn(&Tree) -> Vec<String>,
        report: &mut Report,
        goal: &mut Goal<'_, 'a>,
    ) -> bool {
        self.tried = 0;
        for depth in 0..=MOST_ASSUMED {
            if self.search(before, focus, depth, goal) {
                report.assumed += depth;
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
        let mark = self.tree.mark();
        if depth == 0 {
            let met = goal(&mut self.tree, &self.suspects);
            if !met {
                self.tree.roll_back(&mark);
            }
            return met;
        }
        for index in self.suspects.touching(&focus(&self.tree), &self.tree) {
            for at in self.guesses(index, before.zxid) {
                if self.tried > MOST_TRIED {
                    return false;
                }
                let suspect = self.suspects.get(index);
                let by = Transaction { request: suspect.request, session: suspect.session, zxid: at };
                if !self.tree.apply(by).changes.is_empty() {
                    let ends = self.ends.len();
                    self.place(index, at, before.shown_at);
                    if self.search(before, focus, depth - 1, goal) {
                        return true;
                    }
                    self.ends.truncate(ends);
                    self.suspects.place(index, None);
                    self.free.insert(at);
                }
                self.tree.roll_back(&mark);
            }
        }
        false
    }

    /// Zxids that it may have had without anyone having seen it: after all that is known of its paths, and before.
    fn guesses(&self, index: usize, zxid: i64) -> Vec<i64> {
        let paths = concerned(self.suspects.get(index).request);
        let known =
            paths.iter().map(|path| self.tree.changed_at(path).max(self.tree.changed_at(parent_of(path))));
        let known = known.max().unwrap_or(0);
        let (first, last) = self.suspects.room(index).into_inner();
        let last = |limit: i64| {
            let end = limit.min(last.saturating_add(1));
            if first < end { self.free.range(first..end).next_back().copied() } else { None }
        };
        let mut guesses: Vec<i64> = last(zxid).into_iter().chain(last(known.min(zxid))).collect();
        guesses.dedup();
        guesses
    }

    /// Who might have had to do with these paths, for the evidence of a violation.
    fn unplaced(&self, paths: &[String]) -> String {
        let suspects = self.suspects.touching(paths, &self.tree);
        let tell = |index: &usize| match self.suspects.get(*index).operation {
            Some(at) => format!("{} within {:x?}", self.history.tell(at), self.suspects.room(*index)),
            None => format!("[the end of session {:#x}]", self.suspects.get(*index).session),
        };
        let told: Vec<String> = suspects.iter().take(MOST_TOLD).map(tell).collect();
        format!("of unknown outcome there: {} {}", suspects.len(), told.join(" "))
    }

    fn place(&mut self, index: usize, zxid: i64, shown_at: i64) {
        self.suspects.place(index, Some(zxid));
        self.free.remove(&zxid);
        let suspect = self.suspects.get(index);
        if *suspect.request == Request::Close {
            let (session, asked) = (suspect.session, suspect.operation.is_some());
            self.ends.push(End { session, shown_at, asked });
        }
    }
}

/// The paths that decide what a write answers.
fn concerned(request: &Request) -> Vec<String> {
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

/// The suspect that does all that was seen at the zxid, and what else it does; its changes are in the tree then.
fn culprit(
    zxid: i64,
    facts: &Facts,
    paths: &[String],
    tree: &mut Tree,
    suspects: &Suspects<'_>,
) -> Option<(usize, Vec<WatchEvent>)> {
    for index in suspects.touching(paths, tree) {
        if !suspects.room(index).contains(&zxid) {
            continue;
        }
        let suspect = suspects.get(index);
        let mark = tree.mark();
        let applied = tree.apply(Transaction { request: suspect.request, session: suspect.session, zxid });
        if facts.facts.iter().all(|fact| fact.holds(zxid, tree, &applied)) {
            return Some((index, applied.changes));
        }
        tree.roll_back(&mark);
    }
    None
}

/// The events without a zxid between the answer before and this one.
fn caught_up(history: &History, at: OpRef) -> Vec<(EventKind, String)> {
    let incoming = &history.sessions[at.session].connections[at.connection].incoming;
    let end = incoming.iter().position(|one| *one == Incoming::Reply(at.operation)).unwrap_or(0);
    let before = incoming[..end].iter().rev().take_while(|one| matches!(one, Incoming::Event(_)));
    let mut events: Vec<(EventKind, String)> = before
        .filter_map(|one| match one {
            Incoming::Event(event) if event.zxid == -1 => Some((event.kind, event.path.clone())),
            _ => None,
        })
        .collect();
    events.reverse();
    events
}

/// What `setWatches` tells at once, in the order of its lists, and what it arms.
fn rearm(tree: &Tree, lists: &Rearm) -> (Vec<(EventKind, String)>, Armed) {
    let (mut events, mut armed) = (Vec::new(), Armed::default());
    let changed = |stat: Option<Stat>, zxid: fn(&Stat) -> i64, kind: EventKind| match stat {
        None => Some(EventKind::NodeDeleted),
        Some(stat) => (zxid(&stat) > lists.since).then_some(kind),
    };
    for path in &lists.data {
        match changed(tree.stat(path), |stat| stat.mzxid, EventKind::NodeDataChanged) {
            Some(kind) => events.push((kind, path.clone())),
            None => armed.data.push(path.clone()),
        }
    }
    for path in &lists.exist {
        match tree.stat(path) {
            Some(_) => events.push((EventKind::NodeCreated, path.clone())),
            None => armed.data.push(path.clone()),
        }
    }
    for path in &lists.child {
        match changed(tree.stat(path), |stat| stat.pzxid, EventKind::NodeChildrenChanged) {
            Some(kind) => events.push((kind, path.clone())),
            None => armed.child.push(path.clone()),
        }
    }
    (events, armed)
}
