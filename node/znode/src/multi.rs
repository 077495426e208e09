//! Multis, in slices: one request may have a hundred thousand operations.
//!
//! Owns how far a multi has come, and that it happens whole or not at all. Must not know how long a slice may last.
//! Invariant: state, result and events are the same whatever the slices; nothing is told before it is decided.

use pharos_jute::ErrorCode;

use crate::state::Half;
use crate::{Applied, Command, Op, Progress, Reply, State, Zxid};

/// A multi that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Multi {
    /// What clients are told until the command is carried out.
    pub(crate) before: Zxid,
    results: Vec<Result<Reply, ErrorCode>>,
    /// Why it is taken back.
    failed: Option<ErrorCode>,
}

impl State {
    pub(crate) fn begin_multi(&mut self, before: Zxid) {
        self.tree.begin();
        self.half = Some(Half::Multi(Multi { before, results: Vec::new(), failed: None }));
    }

    /// Goes on with a multi. Its operations see the changes of those before them.
    pub(crate) fn go_on_multi(
        &mut self,
        mut multi: Multi,
        command: &Command,
        steps: &mut usize,
        out: &mut Applied,
    ) -> Progress {
        let ops = if let Op::Multi(ops) = &command.op { &ops[..] } else { &[] };
        while multi.failed.is_none()
            && let Some(op) = ops.get(multi.results.len())
        {
            if *steps == 0 {
                break;
            }
            *steps -= 1;
            let allowed = op.allowed_in_multi();
            match if allowed { self.write(op, command, out) } else { Err(ErrorCode::UNIMPLEMENTED) } {
                Ok(reply) => multi.results.push(Ok(reply)),
                Err(code) => multi.failed = Some(code),
            }
        }
        let settled = match multi.failed {
            Some(_) => self.tree.roll_back(steps),
            None => multi.results.len() == ops.len() && self.tree.commit(steps),
        };
        if !settled {
            self.half = Some(Half::Multi(multi));
            return Progress::Undecided;
        }
        if let Some(code) = multi.failed {
            out.clear();
            multi.results = failed_results(multi.results.len(), code, ops.len());
        }
        out.result = Ok(Reply::Multi(multi.results));
        Progress::Done
    }
}

/// The results of a multi of `len` operations whose operation `at` failed.
fn failed_results(at: usize, code: ErrorCode, len: usize) -> Vec<Result<Reply, ErrorCode>> {
    (0..len)
        .map(|index| match index.cmp(&at) {
            std::cmp::Ordering::Less => Err(ErrorCode::OK),
            std::cmp::Ordering::Equal => Err(code),
            std::cmp::Ordering::Greater => Err(ErrorCode::RUNTIME_INCONSISTENCY),
        })
        .collect()
}
