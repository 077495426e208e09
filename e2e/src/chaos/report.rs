//! What a run comes to, for people and for a test.

use std::collections::BTreeMap;
use std::fmt;

use pharos_history::{History, Outcome, Report, Request, View, Write};

use super::Options;
use super::faults::{Counts, Fault};

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

/// The outcome of a run.
#[derive(Debug)]
pub struct Verdict {
    options: Options,
    /// By kind of operation.
    pub operations: BTreeMap<&'static str, Outcomes>,
    /// How often each fault happened.
    pub faults: BTreeMap<Fault, usize>,
    /// What the checker says.
    pub checked: Report,
    /// Where the members differ in the end.
    pub differences: Vec<String>,
    /// How many sessions and connections there were.
    pub sessions: (usize, usize),
}

impl Verdict {
    pub(super) fn new(
        options: Options,
        history: &History,
        faults: Counts,
        checked: Report,
        differences: Vec<String>,
    ) -> Self {
        let mut operations: BTreeMap<&'static str, Outcomes> = BTreeMap::new();
        for (_, op) in history.operations() {
            let outcomes = operations.entry(kind(&op.request)).or_default();
            match &op.outcome {
                Outcome::Unknown => outcomes.unknown += 1,
                Outcome::Answered(answer) if answer.result.is_ok() => outcomes.acknowledged += 1,
                Outcome::Answered(_) => outcomes.failed += 1,
            }
        }
        let sessions = (history.sessions.len(), history.connections().count());
        Self { options, operations, faults, checked, differences, sessions }
    }

    /// Whether nothing is broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.checked.violations.is_empty() && self.differences.is_empty()
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
        let Options { members, seed, .. } = self.options;
        let (sessions, connections) = self.sessions;
        writeln!(f, "seed {seed}, {members} members, {sessions} sessions over {connections} connections\n")?;
        writeln!(f, "{:<22}{:>14}{:>10}{:>10}", "operations", "acknowledged", "failed", "unknown")?;
        for (kind, one) in
            self.operations.iter().map(|(k, o)| (*k, *o)).chain([("all", self.all_operations())])
        {
            writeln!(f, "{kind:<22}{:>14}{:>10}{:>10}", one.acknowledged, one.failed, one.unknown)?;
        }
        writeln!(f)?;
        for (fault, count) in &self.faults {
            writeln!(f, "{:<22}{count:>4}", fault.to_string())?;
        }
        let Report { writes, reads, events, placed, assumed, unseen, expired, violations } = &self.checked;
        writeln!(
            f,
            "\nchecked: {writes} writes, {reads} reads, {events} watch events, {expired} expired sessions"
        )?;
        writeln!(
            f,
            "transactions without an answer: {placed} placed by what was seen of them, {assumed} assumed, {unseen} never seen"
        )?;
        for difference in &self.differences {
            writeln!(f, "members differ at the end: {difference}")?;
        }
        for violation in violations {
            writeln!(f, "violation of {violation}")?;
        }
        let count = violations.len() + self.differences.len();
        write!(f, "{count} violations")
    }
}
