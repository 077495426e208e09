//! What a violation says: the rule and the evidence.

use std::fmt;

/// The rules, as the crate's description counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A write's result is that of the reference, and its zxid its own.
    Writes,
    /// A write that was invoked after another had completed has the larger zxid; nothing is seen before it was asked.
    RealTime,
    /// A read equals the reference at its zxid.
    Reads,
    /// A session's zxids never go back, across connections either.
    Monotone,
    /// What follows a sync sees everything that anyone had been shown before it.
    Sync,
    /// An effect has a write that explains it.
    Unknown,
    /// Answers come in the order of the questions, and a session's writes have rising zxids in that order.
    Fifo,
    /// Watch events: exactly those due, in order, before any answer that shows a newer state.
    Watches,
    /// Sessions end when they are closed or have expired, with their ephemeral znodes, and not early.
    Sessions,
    /// Wall-clock times of one zxid are equal, and never go back.
    Times,
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is broken.
    pub rule: Rule,
    /// The operations involved.
    pub evidence: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, evidence: impl Into<String>) -> Self {
        Self { rule, evidence: evidence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.evidence)
    }
}
