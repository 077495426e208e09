//! Who works on what.
//!
//! Owns: the workers of one generation of a run and the numbering of their threads.
//! Must not know: connections, tasks.
//! Invariant: threads are numbered without gaps over all workers, in the order of the assignment; the
//! first worker is the coordinator. Splits, key groups and sinks are divided by those numbers alone.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::checkpoint::coordinator::WorkerId;
use crate::coordination::Member;

/// The workers of one generation, as one of them sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// The generation, that of the coordinator's tenure.
    pub generation: u64,
    /// The workers by place; the first one coordinates.
    pub workers: Vec<Member>,
    /// The place of this worker.
    pub me: WorkerId,
}

impl Assignment {
    /// A worker alone.
    #[must_use]
    pub(crate) fn alone(generation: u64, threads: usize) -> Self {
        let threads = threads.max(1) as u32;
        let me = Member::new(String::new(), String::new(), String::new(), threads);
        Self { generation, workers: vec![me], me: 0 }
    }

    /// Whether this worker coordinates.
    #[must_use]
    pub(crate) fn leads(&self) -> bool {
        self.me == 0
    }

    /// The places of the other workers.
    pub(crate) fn others(&self) -> impl Iterator<Item = WorkerId> + use<> {
        let me = self.me;
        (0..self.workers.len() as WorkerId).filter(move |place| *place != me)
    }

    /// How many threads there are.
    #[must_use]
    pub(crate) fn threads(&self) -> usize {
        self.workers.iter().map(|worker| worker.threads as usize).sum()
    }

    /// The threads of a worker.
    #[must_use]
    pub(crate) fn threads_of(&self, worker: WorkerId) -> Range<usize> {
        let count = |worker: &Member| worker.threads as usize;
        let first = self.workers[..worker as usize].iter().map(count).sum();
        first..first + count(&self.workers[worker as usize])
    }

    /// The threads of this worker.
    #[must_use]
    pub(crate) fn here(&self) -> Range<usize> {
        self.threads_of(self.me)
    }

    /// The worker that has a thread.
    #[must_use]
    pub(crate) fn worker_of(&self, thread: usize) -> WorkerId {
        let has = |worker: &WorkerId| self.threads_of(*worker).contains(&thread);
        (0..self.workers.len() as WorkerId).find(has).expect("every thread has a worker")
    }
}
