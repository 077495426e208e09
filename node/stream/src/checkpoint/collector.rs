//! What the tasks of one worker keep, until it is whole.
//!
//! Owns: the gathering of task states at a barrier, and at the end.
//! Must not know: other workers, files.
//! Invariant: what a task reports at one barrier is never mixed with what it reports at another; of a
//! task that ended before a barrier what it left is kept there.

use std::collections::{BTreeMap, BTreeSet};

use crate::exec::channel::{Epoch, Round};
use crate::plant;

/// One task of the plan on one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId {
    /// The node.
    pub node: u32,
    /// The thread, of those of all workers.
    pub thread: u32,
}

/// What is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whole<S> {
    /// Of every task, what it kept at the barrier of a checkpoint or left when it ended before.
    Kept(Epoch, Round, BTreeMap<TaskId, S>),
    /// Of every task, what it left when it ended.
    Ended(BTreeMap<TaskId, S>),
}

/// Gathers what the tasks of a worker keep.
#[derive(Debug, Clone)]
pub(crate) struct Collector<S> {
    tasks: BTreeSet<TaskId>,
    ended: BTreeMap<TaskId, S>,
    kept: Option<(Epoch, Round, BTreeMap<TaskId, S>)>,
}

impl<S: Clone> Collector<S> {
    /// Nothing is kept yet.
    #[must_use]
    pub(crate) fn new(tasks: BTreeSet<TaskId>) -> Self {
        Self { tasks, ended: BTreeMap::new(), kept: None }
    }

    /// A task kept this at the barrier of a checkpoint.
    pub(crate) fn kept(&mut self, task: TaskId, epoch: Epoch, round: Round, state: S) -> Vec<Whole<S>> {
        let (of, at, parts) = self.kept.get_or_insert_with(|| (epoch, round, BTreeMap::new()));
        assert!(
            *of == epoch && *at == round,
            "one checkpoint is under way, and its barrier stands in one round"
        );
        parts.insert(task, state);
        self.whole()
    }

    /// A task has ended and leaves this.
    pub(crate) fn ended(&mut self, task: TaskId, state: S) -> Vec<Whole<S>> {
        self.ended.insert(task, state);
        self.whole()
    }

    fn whole(&mut self) -> Vec<Whole<S>> {
        let mut whole = Vec::new();
        if let Some((epoch, round, parts)) = &mut self.kept
            && self.tasks.iter().all(|task| parts.contains_key(task) || self.ended.contains_key(task))
        {
            let mut all = self.ended.clone();
            if plant::forgets_ended() {
                all.clear();
            }
            all.append(parts);
            whole.push(Whole::Kept(*epoch, *round, all));
            self.kept = None;
        }
        if self.kept.is_none() && self.ended.len() == self.tasks.len() {
            whole.push(Whole::Ended(self.ended.clone()));
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TaskId = TaskId { node: 0, thread: 0 };
    const B: TaskId = TaskId { node: 1, thread: 0 };

    fn collector() -> Collector<&'static str> {
        Collector::new(BTreeSet::from([A, B]))
    }

    #[test]
    fn a_barrier_is_whole_once_every_task_has_kept_something_or_ended_before() {
        let mut of = collector();
        assert_eq!(of.kept(A, 1, 7, "a"), []);
        assert_eq!(of.kept(B, 1, 7, "b"), [Whole::Kept(1, 7, BTreeMap::from([(A, "a"), (B, "b")]))]);
        assert_eq!(of.ended(A, "end"), []);
        assert_eq!(of.kept(B, 2, 9, "b"), [Whole::Kept(2, 9, BTreeMap::from([(A, "end"), (B, "b")]))]);
    }

    #[test]
    fn who_ends_at_a_barrier_is_in_it_as_it_was_and_then_at_its_end() {
        let mut of = collector();
        of.ended(A, "end");
        assert_eq!(of.kept(B, 1, 7, "b"), [Whole::Kept(1, 7, BTreeMap::from([(A, "end"), (B, "b")]))]);
        assert_eq!(of.ended(B, "over"), [Whole::Ended(BTreeMap::from([(A, "end"), (B, "over")]))]);
        let mut of = collector();
        of.kept(A, 1, 7, "a");
        assert_eq!(of.ended(A, "end"), []);
        assert_eq!(
            of.ended(B, "before"),
            [
                Whole::Kept(1, 7, BTreeMap::from([(A, "a"), (B, "before")])),
                Whole::Ended(BTreeMap::from([(A, "end"), (B, "before")]))
            ]
        );
    }
}
