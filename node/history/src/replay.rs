//! Everything by zxid on the reference: rules 1, 3, 4 and the state part of 7.
//!
//! Owns which explanation of what was seen is taken. Must not know time, beyond what bounds a suspect's zxids.
//! Invariant: what is assumed is little, and an explanation that later things contradict gives way to the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::evidence::{Evidence, Facts, collect, differing};
use crate::record::{Body, ErrorCode, EventKind, History, Incoming, Micros, OpRef, Rearm, Request};
use crate::record::{View, WatchEvent};
use crate::search::{Before, End, Mark, Place, World, concerned};
use crate::shown::Shown;
use crate::suspects::Suspects;
use crate::timeline::Timeline;
use crate::tree::{Applied, Transaction, Tree};
use crate::violation::{Rule, Violation};
use crate::{Limits, Report};

/// How many writes of unknown outcome a violation names.
const MOST_TOLD: usize = 4;
/// After how many answers an explanation that was not contradicted is taken for true.
const REACH: usize = 100_000;
/// How often another explanation is tried before something is called a violation.
const MOST_RETURNS: usize = 1_000;

/// What a `setWatches` left armed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) data: Vec<String>,
    pub(crate) child: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Replayed {
    /// What happened, in the order in which watches fire. What was assumed at a guessed zxid is left out.
    pub(crate) changes: Vec<WatchEvent>,
    pub(crate) armed: BTreeMap<OpRef, Armed>,
    pub(crate) ends: Vec<(End, Option<Micros>)>,
    /// Writes of unknown outcome, by the zxid that evidence gives them.
    pub(crate) placed: BTreeMap<i64, OpRef>,
}

/// One thing that was seen.
#[derive(Clone, Copy)]
enum Step {
    /// An acknowledged write.
    Write(i64, OpRef),
    /// What was seen of a zxid that no acknowledged write has.
    Unacknowledged(i64),
    /// Any other answer.
    Read(OpRef),
}

/// A step that was explained by what nobody acknowledged, and may have had another explanation.
struct Choice {
    step: usize,
    /// How many explanations were taken before this one.
    skipped: usize,
    mark: Mark,
    changes: usize,
}

struct Replay<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    evidence: &'a Evidence,
    world: World<'a>,
    changes: Vec<WatchEvent>,
    armed: BTreeMap<OpRef, Armed>,
}

/// Replays a run. The first thing that has no explanation ends it: what follows would be its consequences.
pub(crate) fn replay(
    history: &History,
    timeline: &Timeline,
    limits: Limits,
    report: &mut Report,
) -> Result<Replayed, Violation> {
    let evidence = collect(history);
    let free = timeline.free.iter().copied().filter(|zxid| !evidence.contains_key(zxid)).collect();
    let steps = steps(timeline, &evidence);
    report.writes = timeline.writes.len();
    report.reads = steps
        .iter()
        .filter(|step| matches!(step, Step::Read(at) if matches!(history.operation(*at).request, Request::Read { .. })))
        .count();
    let mut suspects = Suspects::of(history, limits);
    suspects.recognise(history, &evidence);
    let world = World::new(suspects, free, Shown::of(history));
    let mut replay =
        Replay { history, timeline, evidence: &evidence, world, changes: Vec::new(), armed: BTreeMap::new() };
    replay.run(&steps)?;
    Ok(replay.finish(report))
}

fn steps(timeline: &Timeline, evidence: &Evidence) -> Vec<Step> {
    let mut reads = timeline.reads.iter().peekable();
    let mut zxids: BTreeSet<i64> = timeline.writes.keys().copied().collect();
    zxids.extend(evidence.keys());
    let mut steps = Vec::new();
    for zxid in zxids {
        while let Some((_, at)) = reads.next_if(|(shown, _)| *shown < zxid) {
            steps.push(Step::Read(*at));
        }
        steps
            .push(timeline.writes.get(&zxid).map_or(Step::Unacknowledged(zxid), |at| Step::Write(zxid, *at)));
    }
    steps.extend(reads.map(|(_, at)| Step::Read(*at)));
    steps
}

impl<'a> Replay<'a> {
    fn run(&mut self, steps: &[Step]) -> Result<(), Violation> {
        let mut choices: VecDeque<Choice> = VecDeque::new();
        let mut furthest: Option<(usize, Violation)> = None;
        let (mut at, mut skip, mut returns) = (0, 0, 0);
        while let Some(step) = steps.get(at) {
            let mark = self.world.mark();
            let changes = self.changes.len();
            let Err(violation) = self.take(*step, skip) else {
                if self.world.mark().has_placed_since(&mark) {
                    choices.push_back(Choice { step: at, skipped: skip, mark, changes });
                }
                (at, skip) = (at + 1, 0);
                while choices.front().is_some_and(|choice| choice.step + REACH < at) {
                    choices.pop_front();
                }
                let kept = choices.front().map_or_else(|| self.world.mark(), |choice| choice.mark);
                self.world.tree.forget(kept.tree);
                continue;
            };
            if furthest.as_ref().is_none_or(|(step, _)| *step < at) {
                furthest = Some((at, violation));
            }
            returns += 1;
            let Some(choice) =
                choices.pop_back().filter(|_| returns <= MOST_RETURNS && !self.world.is_exhausted())
            else {
                break;
            };
            self.world.roll_back(&choice.mark);
            self.changes.truncate(choice.changes);
            (at, skip) = (choice.step, choice.skipped + 1);
        }
        match furthest {
            Some((_, violation)) if at < steps.len() => Err(violation),
            _ => Ok(()),
        }
    }

    /// Explains one step, not in one of the first `skip` ways that take more than what was acknowledged.
    fn take(&mut self, step: Step, skip: usize) -> Result<(), Violation> {
        match step {
            Step::Write(zxid, at) => self.write(at, zxid, skip),
            Step::Unacknowledged(zxid) => self.unacknowledged(zxid, &self.evidence[&zxid], skip),
            Step::Read(at) => self.read(at, skip),
        }
    }

    fn finish(self, report: &mut Report) -> Replayed {
        let mut replayed = Replayed { changes: self.changes, armed: self.armed, ..Replayed::default() };
        for placed in &self.world.placed {
            let Place::Seen(zxid) = placed.place else {
                report.assumed += 1;
                continue;
            };
            report.placed += 1;
            let operation = self.world.suspects.get(placed.suspect).operation;
            replayed.placed.extend(operation.map(|at| (zxid, at)));
        }
        let lost = self.world.suspects.all().iter().filter(|one| one.operation.is_some());
        report.unseen = lost.filter(|one| one.placed.is_none()).count();
        let seen = |end: End| (end, self.timeline.seen_by(end.shown_at));
        replayed.ends = self.world.ends.into_iter().map(seen).collect();
        replayed
    }

    /// An acknowledged write has its result.
    fn write(&mut self, at: OpRef, zxid: i64, skip: usize) -> Result<(), Violation> {
        let op = self.history.operation(at);
        let Some(answer) = op.answer() else { return Ok(()) };
        let nothing = Facts::default();
        let facts = self.evidence.get(&zxid).unwrap_or(&nothing);
        let by = Transaction {
            request: &op.request,
            session: self.history.sessions[at.session].id,
            zxid,
            unseen: false,
        };
        let seen = answer.result.as_ref().map(Body::timeless).map_err(|code| *code);
        let mut changes = Vec::new();
        let mut left = skip;
        let paths = concerned(&op.request);
        let focus = |tree: &Tree| {
            let shown = facts.facts.iter().filter(|fact| fact.is_counted()).flat_map(|fact| fact.focus(tree));
            paths.iter().cloned().chain(shown).collect::<Vec<_>>()
        };
        let mut answers = false;
        let explained = self.world.explain(Before::transaction(zxid), &focus, &mut |world| {
            let applied = world.tree.apply(by);
            let right = applied.result == seen;
            answers |= right;
            let fits = right && facts.facts.iter().all(|fact| fact.holds(zxid, &world.tree, &applied));
            changes = applied.changes;
            fits && pass(&mut left)
        });
        if explained {
            self.changes.extend(changes);
            return Ok(());
        }
        if answers && skip == 0 {
            let (told_by, others) = (&facts.told_by, self.unplaced(&focus(&self.world.tree)));
            let text = format!("{told_by} shows {:?} at {zxid:#x}; {others}", facts.facts);
            return Err(Violation::new(Rule::Reads, text));
        }
        let others = self.unplaced(&paths);
        let mark = self.world.mark();
        let expected = self.world.tree.apply(by).result;
        self.world.roll_back(&mark);
        let text = format!("{} should be {expected:x?}; {others}", self.history.tell(at));
        Err(Violation::new(Rule::Writes, text))
    }

    /// Someone of unknown outcome did what was seen at a zxid that nobody has.
    fn unacknowledged(&mut self, zxid: i64, facts: &Facts, skip: usize) -> Result<(), Violation> {
        let focus = |tree: &Tree| facts.facts.iter().flat_map(|fact| fact.focus(tree)).collect::<Vec<_>>();
        let mut found = None;
        let mut left = skip;
        let explained = self.world.explain(Before::transaction(zxid), &focus, &mut |world| {
            found = culprit(zxid, facts, &focus(&world.tree), world, &mut left);
            found.is_some()
        });
        if let (Some(changes), true) = (found, explained) {
            self.changes.extend(changes);
            return Ok(());
        }
        let (told_by, others) = (&facts.told_by, self.unplaced(&focus(&self.world.tree)));
        let text =
            format!("nobody can have done {:?} at {zxid:#x}, told by {told_by}; {others}", facts.facts);
        Err(Violation::new(Rule::Unknown, text))
    }

    /// A read shows the reference.
    fn read(&mut self, at: OpRef, skip: usize) -> Result<(), Violation> {
        let op = self.history.operation(at);
        let Some(answer) = op.answer() else { return Ok(()) };
        match &op.request {
            Request::Read { view, path, .. } => {
                let seen = answer.result.as_ref().map(Body::timeless).map_err(|code| *code);
                self.compare(at, (*view, path), answer.zxid, &seen, skip)
            }
            Request::SetWatches(lists) => self.catch_up(at, lists, answer.zxid, skip),
            _ => Ok(()),
        }
    }

    fn compare(
        &mut self,
        at: OpRef,
        (view, path): (View, &str),
        zxid: i64,
        seen: &Result<Body, ErrorCode>,
        skip: usize,
    ) -> Result<(), Violation> {
        let focus = |tree: &Tree| match seen {
            Ok(Body::Children(names, _)) => differing(path, &tree.children(path), names),
            _ => vec![path.to_owned()],
        };
        let mut left = skip;
        let explained = self.world.explain(Before::read(zxid), &focus, &mut |world| {
            world.tree.read(view, path) == *seen && pass(&mut left)
        });
        if explained {
            return Ok(());
        }
        let (expected, others) = (self.world.tree.read(view, path), self.unplaced(&focus(&self.world.tree)));
        let text = format!("{} should be {expected:x?}; {others}", self.history.tell(at));
        Err(Violation::new(Rule::Reads, text))
    }

    /// What came before the answer is what had changed; the rest is armed.
    fn catch_up(&mut self, at: OpRef, lists: &Rearm, zxid: i64, skip: usize) -> Result<(), Violation> {
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
        let mut left = skip;
        let explained = self.world.explain(Before::read(zxid), &focus, &mut |world| {
            let (events, rest) = rearm(&world.tree, lists);
            armed = rest;
            events == seen && pass(&mut left)
        });
        self.armed.insert(at, armed);
        if explained {
            return Ok(());
        }
        let (expected, _) = rearm(&self.world.tree, lists);
        let text = format!("{} was told {seen:?} instead of {expected:?}", self.history.tell(at));
        Err(Violation::new(Rule::Watches, text))
    }

    /// Who might have had to do with these paths, for the evidence of a violation.
    fn unplaced(&self, paths: &[String]) -> String {
        let suspects = self.world.suspects.touching(paths, &self.world.tree, i64::MAX);
        let tell = |index: &usize| match self.world.suspects.get(*index).operation {
            Some(at) => format!("{} within {:x?}", self.history.tell(at), self.world.suspects.room(*index)),
            None => format!("[the end of session {:#x}]", self.world.suspects.get(*index).session),
        };
        let told: Vec<String> = suspects.iter().take(MOST_TOLD).map(tell).collect();
        format!("of unknown outcome there: {} {}", suspects.len(), told.join(" "))
    }
}

/// Whether this one is to be taken.
fn pass(left: &mut usize) -> bool {
    let taken = *left == 0;
    *left = left.saturating_sub(1);
    taken
}

/// What the suspect changes that does all that was seen at the zxid; its changes are in the tree then.
fn culprit(
    zxid: i64,
    facts: &Facts,
    paths: &[String],
    world: &mut World<'_>,
    left: &mut usize,
) -> Option<Vec<WatchEvent>> {
    for suspect in world.suspects.touching(paths, &world.tree, zxid) {
        let fits = |world: &mut World<'_>, applied: &Applied| {
            facts.facts.iter().all(|fact| fact.holds(zxid, &world.tree, applied)) && pass(left)
        };
        if let Some(applied) = world.convict(suspect, zxid, fits) {
            return Some(applied.changes);
        }
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
    let changed = |(data, children): (i64, i64), of: EventKind| {
        let last = if of == EventKind::NodeDataChanged { data } else { children };
        (last > lists.since).then_some(of)
    };
    let told =
        |path: &String, of| tree.changes(path).map_or(Some(EventKind::NodeDeleted), |last| changed(last, of));
    for path in &lists.data {
        match told(path, EventKind::NodeDataChanged) {
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
        match told(path, EventKind::NodeChildrenChanged) {
            Some(kind) => events.push((kind, path.clone())),
            None => armed.child.push(path.clone()),
        }
    }
    (events, armed)
}
