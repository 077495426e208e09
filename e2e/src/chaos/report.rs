//! What a run comes to, for people and for a test.
//!
//! Must not know how it came about.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pharos_history::{History, Outcome, Report, Request, View, Write};

use super::faults::{Fault, Span};
use super::{Options, Window};

/// How many operations of one kind ended how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcomes {
    /// Answered with success.
    pub acknowledged: usize,
    /// Answered with an error.
    pub failed: usize,
    /// The connection was lost first.
    pub unknown: usize,
}

/// What a kind of fault cost, in milliseconds without an acknowledged write each time it happened.
#[derive(Clone, Debug, Default)]
struct Toll(Vec<u64>);

impl Toll {
    fn median(&self) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn worst(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or_default()
    }
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Verdict {
    seed: u64,
    members: usize,
    /// Histories that were checked.
    pub windows: usize,
    operations: BTreeMap<&'static str, Outcomes>,
    faults: BTreeMap<Fault, Toll>,
    /// What the checker has found, but for the violations.
    pub checked: Report,
    /// In words, each with its window.
    violations: Vec<String>,
    sessions: (usize, usize),
    evidence: Option<PathBuf>,
}

impl Verdict {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            seed: options.seed,
            members: options.members,
            windows: 0,
            operations: BTreeMap::new(),
            faults: BTreeMap::new(),
            checked: Report::default(),
            violations: Vec::new(),
            sessions: (0, 0),
            evidence: None,
        }
    }

    /// Takes the next window, with where its evidence was kept if that was needed.
    pub(super) fn add(&mut self, history: &History, window: Window, evidence: Option<PathBuf>) {
        let Window { spans, checked, differences } = window;
        for (_, op) in history.operations() {
            let outcomes = self.operations.entry(kind(&op.request)).or_default();
            match &op.outcome {
                Outcome::Unknown => outcomes.unknown += 1,
                Outcome::Answered(answer) if answer.result.is_ok() => outcomes.acknowledged += 1,
                Outcome::Answered(_) => outcomes.failed += 1,
            }
        }
        let acknowledged = acknowledged(history);
        for span in spans {
            self.faults.entry(span.fault).or_default().0.extend(longest_gap(&acknowledged, span));
        }
        let Report { writes, reads, events, placed, assumed, unseen, expired, violations } = checked;
        self.checked.writes += writes;
        self.checked.reads += reads;
        self.checked.events += events;
        self.checked.placed += placed;
        self.checked.assumed += assumed;
        self.checked.unseen += unseen;
        self.checked.expired += expired;
        let number = self.windows;
        let differences =
            differences.into_iter().map(|one| format!("members differ at the end of window {number}: {one}"));
        let violations = violations.iter().map(|one| format!("violation in window {number} of {one}"));
        self.violations.extend(differences.chain(violations));
        self.sessions.0 += history.sessions.len();
        self.sessions.1 += history.connections().count();
        self.windows += 1;
        self.evidence = evidence.or(self.evidence.take());
    }

    /// Whether nothing is broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// How many kinds of faults there were.
    #[must_use]
    pub fn kinds(&self) -> usize {
        self.faults.len()
    }

    /// The sum over all kinds.
    #[must_use]
    pub fn all_operations(&self) -> Outcomes {
        self.operations.values().fold(Outcomes::default(), |sum, of_kind| Outcomes {
            acknowledged: sum.acknowledged + of_kind.acknowledged,
            failed: sum.failed + of_kind.failed,
            unknown: sum.unknown + of_kind.unknown,
        })
    }
}

/// When writes were acknowledged, in microseconds, in order.
fn acknowledged(history: &History) -> Vec<u64> {
    let writes =
        history.operations().filter(|(_, op)| matches!(op.request, Request::Write(_) | Request::Multi(_)));
    let answers = writes.filter_map(|(_, op)| op.answer());
    let mut times: Vec<u64> =
        answers.filter(|answer| answer.result.is_ok()).map(|answer| answer.completed.0).collect();
    times.sort_unstable();
    times
}

/// The longest time without an acknowledged write that has a part in the span, in milliseconds.
fn longest_gap(acknowledged: &[u64], span: Span) -> Option<u64> {
    let pairs = acknowledged.windows(2).map(|pair| (pair[0], pair[1]));
    let within = pairs.filter(|(before, after)| *after > span.from.0 && *before < span.until.0);
    within.map(|(before, after)| (after - before) / 1000).max()
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Write(Write::Create { sequential: true, .. }) => "create, sequential",
        Request::Write(Write::Create { ephemeral: true, .. }) => "create, ephemeral",
        Request::Write(Write::Create { .. }) => "create",
        Request::Write(Write::Delete { .. }) => "delete",
        Request::Write(Write::SetData { .. } | Write::Check { .. }) => "setData",
        Request::Multi(_) => "multi",
        Request::Close => "closeSession",
        Request::Read { watch: true, .. } => "read with a watch",
        Request::Read { view: View::Data, .. } => "getData",
        Request::Read { view: View::Stat, .. } => "exists",
        Request::Read { view: View::Children, .. } => "getChildren",
        Request::AddWatch { .. } => "addWatch",
        Request::SetWatches(_) => "setWatches",
        Request::Sync => "sync",
        Request::Ping => "ping",
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sessions, connections) = self.sessions;
        let (seed, members, windows) = (self.seed, self.members, self.windows);
        writeln!(
            f,
            "seed {seed}, {members} members, {windows} windows, {sessions} sessions over {connections} connections\n"
        )?;
        writeln!(f, "{:<22}{:>14}{:>10}{:>10}", "operations", "acknowledged", "failed", "unknown")?;
        for (kind, one) in
            self.operations.iter().map(|(k, o)| (*k, *o)).chain([("all", self.all_operations())])
        {
            writeln!(f, "{kind:<22}{:>14}{:>10}{:>10}", one.acknowledged, one.failed, one.unknown)?;
        }
        writeln!(f, "\n{:<30}{:>6}  ms without an acknowledged write: median, worst", "faults", "times")?;
        for (fault, toll) in &self.faults {
            writeln!(
                f,
                "{:<30}{:>6}{:>10}{:>8}",
                fault.to_string(),
                toll.0.len(),
                toll.median(),
                toll.worst()
            )?;
        }
        let Report { writes, reads, events, placed, assumed, unseen, expired, .. } = &self.checked;
        writeln!(
            f,
            "\nchecked: {writes} writes, {reads} reads, {events} watch events, {expired} expired sessions"
        )?;
        writeln!(
            f,
            "transactions without an answer: {placed} placed by what was seen of them, {assumed} assumed, {unseen} never seen"
        )?;
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        if let Some(place) = &self.evidence {
            writeln!(f, "the history, the members' logs and their volumes are in {}", place.display())?;
        }
        write!(f, "{} violations", self.violations.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_history::Micros;

    #[test]
    fn the_longest_gap_is_one_that_touches_the_span() {
        let span = Span { fault: Fault::Kill, from: Micros(5_000), until: Micros(9_000) };
        let times = [0, 4_000, 6_000, 8_500, 30_000, 90_000];
        assert_eq!(longest_gap(&times, span), Some(21));
        assert_eq!(longest_gap(&times[..3], span), Some(2));
        assert_eq!(longest_gap(&times[..2], span), None);
    }
}
