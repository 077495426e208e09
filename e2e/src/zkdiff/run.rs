//! The run: the same steps to both servers, until they differ or the steps are done.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use pharos_jute::{ErrorCode, OpCode};

use super::client::{Answer, Client};
use super::compare::Comparison;
use super::generate::{Generator, Step};

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides every step.
    pub seed: u64,
    /// The number of steps.
    pub steps: usize,
    /// Sessions per server, whose steps interleave.
    pub connections: usize,
}

/// What a run without difference covered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Steps by request type.
    pub operations: BTreeMap<OpCode, usize>,
    /// Replies by error.
    pub errors: BTreeMap<ErrorCode, usize>,
    /// Watch events compared.
    pub events: usize,
    /// Sessions resumed on a new connection.
    pub resumed: usize,
}

/// The first place where the servers differ.
#[derive(Debug)]
pub struct Difference {
    options: Options,
    step: usize,
    history: Vec<String>,
    what: anyhow::Error,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, connections, .. } = self.options;
        writeln!(f, "seed {seed}, {connections} connections, step {}: {:#}", self.step, self.what)?;
        writeln!(f, "the last steps:")?;
        self.history.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl std::error::Error for Difference {}

const HISTORY: usize = 12;

/// Sends the same steps to both sides. A side is a server, or the members of an ensemble, to which its connections go in
/// turn. Both must be new: what a server was asked before shows.
pub fn run(left: &[SocketAddr], right: &[SocketAddr], options: Options) -> Result<Report, Difference> {
    let mut history = VecDeque::new();
    let mut step = 0;
    let mut pair = Pair::default();
    let result = (|| {
        pair.open(left, right, options.connections)?;
        let mut generator = Generator::new(options.seed, options.connections);
        while step < options.steps {
            let next = generator.step();
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(format!("{step}: {next:?}"));
            pair.step(&next)?;
            step += 1;
        }
        Ok(())
    })();
    match result {
        Ok(()) => Ok(pair.report),
        Err(what) => Err(Difference { options, step, history: history.into(), what }),
    }
}

/// The two servers' clients, pairwise.
#[derive(Debug, Default)]
struct Pair {
    clients: Vec<(Client, Client)>,
    comparison: Comparison,
    report: Report,
}

impl Pair {
    fn open(&mut self, left: &[SocketAddr], right: &[SocketAddr], connections: usize) -> Result<()> {
        for (left, right) in left.iter().cycle().zip(right.iter().cycle()).take(connections) {
            let clients = (Client::open(*left)?, Client::open(*right)?);
            self.comparison.session(clients.0.session, clients.1.session);
            self.clients.push(clients);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let (at, op) = match step {
            Step::Request(at, action) => (*at, action.op()),
            Step::Resume(at) => return self.resume(*at),
            Step::Renew(at) => (*at, OpCode::CloseSession),
        };
        let (left, right) = &mut self.clients[at];
        let (left, right) = match step {
            Step::Request(_, action) => {
                (left.ask(action).context("left")?, right.ask(action).context("right")?)
            }
            Step::Resume(_) | Step::Renew(_) => {
                (left.renew().context("left")?, right.renew().context("right")?)
            }
        };
        self.note(op, &left);
        self.comparison.answers(op, &left, &right).with_context(|| show(op, &left, &right))?;
        if op == OpCode::CloseSession {
            let (left, right) = &self.clients[at];
            self.comparison.session(left.session, right.session);
        } else if left.closed {
            self.resume(at)?;
        }
        self.catch_up(at, op == OpCode::CloseSession)
    }

    fn resume(&mut self, at: usize) -> Result<()> {
        let (left, right) = &mut self.clients[at];
        left.resume().context("left")?;
        right.resume().context("right")?;
        self.report.resumed += 1;
        Ok(())
    }

    /// The events that a step of one connection brought to the others.
    fn catch_up(&mut self, at: usize, any_order: bool) -> Result<()> {
        for (index, (left, right)) in self.clients.iter_mut().enumerate() {
            if index != at {
                let (left, right) = (left.catch_up().context("left")?, right.catch_up().context("right")?);
                self.report.events += left.len();
                self.comparison
                    .events(&left, &right, any_order)
                    .with_context(|| format!("on connection {index}: {left:?} and {right:?}"))?;
            }
        }
        Ok(())
    }

    fn note(&mut self, op: OpCode, answer: &Answer) {
        *self.report.operations.entry(op).or_default() += 1;
        self.report.events += answer.events.len();
        if let Some(reply) = &answer.reply {
            *self.report.errors.entry(reply.header.err).or_default() += 1;
        }
    }
}

fn show(op: OpCode, left: &Answer, right: &Answer) -> String {
    format!("\n  left:  {}\n  right: {}\n", left.show(op), right.show(op))
}
