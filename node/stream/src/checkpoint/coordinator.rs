//! When a checkpoint is taken, and when it counts.
//!
//! Owns: the order of events of a run's checkpoints: ask for a barrier, gather what every task
//! kept, write it, publish it, commit the sinks, note that the run is done.
//! Must not know: files, znodes, threads, clocks. Commands go out, events come in.
//! Invariant: sinks are committed only after the last checkpoint is published; what a task reports
//! at one barrier is never mixed with what it reports at another; at most one checkpoint is under way.

use std::collections::{BTreeMap, BTreeSet};

use crate::exec::channel::{Epoch, Round};

/// One task of the plan on one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId {
    /// The node.
    pub node: u32,
    /// The thread.
    pub thread: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input<S> {
    /// It is time for a checkpoint.
    Due,
    /// A task kept this at the barrier of an epoch.
    Kept(TaskId, Epoch, Round, S),
    /// A task has ended and leaves this, at whatever barrier follows.
    Ended(TaskId, S),
    /// The checkpoint is written.
    Written(Epoch),
    /// The checkpoint counts.
    Published(Epoch),
    /// The sinks are committed.
    Committed,
    /// The run is noted as done.
    Noted,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command<S> {
    /// Put a barrier before the sources.
    Inject(Epoch),
    /// Write what the tasks kept.
    Write {
        /// The checkpoint.
        epoch: Epoch,
        /// The round of the barrier; none: the input has ended.
        round: Option<Round>,
        /// What each task kept.
        parts: BTreeMap<TaskId, S>,
    },
    /// Make the checkpoint the one that counts.
    Publish(Epoch),
    /// Delete what only earlier checkpoints needed.
    Clean(Epoch),
    /// Make the outputs visible.
    Commit,
    /// Note that the run is done.
    Note,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase<S> {
    Idle,
    Gathering { epoch: Epoch, round: Option<Round>, parts: BTreeMap<TaskId, S> },
    Writing { epoch: Epoch, last: Last },
    Publishing { epoch: Epoch, last: Last },
    Committing,
    Noting,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// The coordinator of one run.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator<S> {
    tasks: BTreeSet<TaskId>,
    ended: BTreeMap<TaskId, S>,
    next: Epoch,
    phase: Phase<S>,
}

impl<S: Clone> Coordinator<S> {
    /// A coordinator of these tasks whose first checkpoint is `next`.
    #[must_use]
    pub(crate) fn new(tasks: BTreeSet<TaskId>, next: Epoch) -> Self {
        Self { tasks, ended: BTreeMap::new(), next, phase: Phase::Idle }
    }

    /// Whether the run is done.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Takes in what happened and says what to do.
    pub(crate) fn handle(&mut self, input: Input<S>) -> Vec<Command<S>> {
        match input {
            Input::Due => self.due(),
            Input::Kept(task, epoch, round, state) => self.kept(task, epoch, round, state),
            Input::Ended(task, state) => {
                self.ended.insert(task, state);
                self.proceed()
            }
            Input::Written(epoch) => match self.phase {
                Phase::Writing { epoch: writing, last } if writing == epoch => {
                    self.phase = Phase::Publishing { epoch, last };
                    vec![Command::Publish(epoch)]
                }
                _ => Vec::new(),
            },
            Input::Published(epoch) => match self.phase {
                Phase::Publishing { epoch: publishing, last } if publishing == epoch => {
                    self.published(epoch, last)
                }
                _ => Vec::new(),
            },
            Input::Committed if matches!(self.phase, Phase::Committing) => {
                self.phase = Phase::Noting;
                vec![Command::Note]
            }
            Input::Noted if matches!(self.phase, Phase::Noting) => {
                self.phase = Phase::Done;
                Vec::new()
            }
            Input::Committed | Input::Noted => Vec::new(),
        }
    }

    fn due(&mut self) -> Vec<Command<S>> {
        if !matches!(self.phase, Phase::Idle) {
            return Vec::new();
        }
        let epoch = self.take_epoch();
        self.phase = Phase::Gathering { epoch, round: None, parts: BTreeMap::new() };
        vec![Command::Inject(epoch)]
    }

    fn take_epoch(&mut self) -> Epoch {
        self.next += 1;
        self.next - 1
    }

    fn kept(&mut self, task: TaskId, of: Epoch, at: Round, state: S) -> Vec<Command<S>> {
        if let Phase::Gathering { epoch, round, parts } = &mut self.phase
            && *epoch == of
        {
            assert!(round.is_none_or(|round| round == at), "a barrier stands in one round");
            *round = Some(at);
            parts.insert(task, state);
        }
        self.proceed()
    }

    /// Goes on to writing, once every task has something to be kept.
    fn proceed(&mut self) -> Vec<Command<S>> {
        let all_ended = self.ended.len() == self.tasks.len();
        match &mut self.phase {
            Phase::Gathering { epoch, round, parts } if round.is_some() => {
                let missing = |task: &&TaskId| !parts.contains_key(task) && !self.ended.contains_key(task);
                if self.tasks.iter().any(|task| missing(&task)) {
                    return Vec::new();
                }
                let (epoch, round) = (*epoch, *round);
                let mut whole = self.ended.clone();
                whole.append(parts);
                self.phase = Phase::Writing { epoch, last: Last::No };
                vec![Command::Write { epoch, round, parts: whole }]
            }
            // The barrier came too late for any source, or nothing is under way.
            Phase::Gathering { .. } | Phase::Idle if all_ended => {
                let epoch = self.take_epoch();
                self.phase = Phase::Writing { epoch, last: Last::Yes };
                vec![Command::Write { epoch, round: None, parts: self.ended.clone() }]
            }
            _ => Vec::new(),
        }
    }

    fn published(&mut self, epoch: Epoch, last: Last) -> Vec<Command<S>> {
        let mut commands = vec![Command::Clean(epoch)];
        match last {
            Last::Yes => {
                self.phase = Phase::Committing;
                commands.push(Command::Commit);
            }
            Last::No => {
                self.phase = Phase::Idle;
                commands.extend(self.proceed());
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: TaskId = TaskId { node: 0, thread: 0 };
    const B: TaskId = TaskId { node: 1, thread: 0 };

    fn coordinator() -> Coordinator<&'static str> {
        Coordinator::new(BTreeSet::from([A, B]), 1)
    }

    #[test]
    fn a_checkpoint_counts_once_every_task_has_kept_something() {
        let mut of = coordinator();
        assert_eq!(of.handle(Input::Due), [Command::Inject(1)]);
        assert_eq!(of.handle(Input::Due), []);
        assert_eq!(of.handle(Input::Kept(A, 1, 7, "a")), []);
        let parts = BTreeMap::from([(A, "a"), (B, "b")]);
        assert_eq!(
            of.handle(Input::Kept(B, 1, 7, "b")),
            [Command::Write { epoch: 1, round: Some(7), parts }]
        );
        assert_eq!(of.handle(Input::Written(1)), [Command::Publish(1)]);
        assert_eq!(of.handle(Input::Published(1)), [Command::Clean(1)]);
        assert_eq!(of.handle(Input::Due), [Command::Inject(2)]);
    }

    #[test]
    fn tasks_that_have_ended_stay_in_the_checkpoint() {
        let mut of = coordinator();
        of.handle(Input::Ended(A, "end"));
        of.handle(Input::Due);
        let parts = BTreeMap::from([(A, "end"), (B, "b")]);
        assert_eq!(
            of.handle(Input::Kept(B, 1, 9, "b")),
            [Command::Write { epoch: 1, round: Some(9), parts }]
        );
    }

    #[test]
    fn the_end_of_input_takes_a_last_checkpoint_and_only_then_commits() {
        let mut of = coordinator();
        of.handle(Input::Due);
        of.handle(Input::Ended(A, "a"));
        let parts = BTreeMap::from([(A, "a"), (B, "b")]);
        assert_eq!(of.handle(Input::Ended(B, "b")), [Command::Write { epoch: 2, round: None, parts }]);
        of.handle(Input::Written(2));
        assert_eq!(of.handle(Input::Published(2)), [Command::Clean(2), Command::Commit]);
        assert_eq!(of.handle(Input::Committed), [Command::Note]);
        of.handle(Input::Noted);
        assert!(of.is_done());
    }

    proptest! {
        /// Whatever the order in which tasks pass barriers and end, and whenever checkpoints are due,
        /// each checkpoint holds, of each task, what it kept at that barrier, or its end if it ended
        /// before; and the run is done in the end.
        #[test]
        fn no_checkpoint_mixes_barriers(order in prop::collection::vec((0usize..3, 0u8..4), 0..200)) {
            let tasks: Vec<TaskId> = (0..3).map(|node| TaskId { node, thread: 0 }).collect();
            let mut of = Coordinator::new(tasks.iter().copied().collect(), 1);
            let mut injected: Vec<Epoch> = Vec::new();
            let mut passed = [0usize; 3];
            let mut ended = [false; 3];
            let mut committed = false;
            let mut queue: Vec<Input<(u32, Epoch)>> = Vec::new();
            let end = |task: usize, ended: &mut [bool; 3]| {
                ended[task] = true;
                Input::Ended(tasks[task], (task as u32, 0))
            };
            let plan = order.into_iter().chain((0..3).flat_map(|task| [(task, 9)].into_iter()));
            for (task, what) in plan {
                match what {
                    0 => queue.push(Input::Due),
                    9 if !ended[task] => {
                        while passed[task] < injected.len() {
                            let epoch = injected[passed[task]];
                            passed[task] += 1;
                            queue.push(Input::Kept(tasks[task], epoch, epoch * 10, (task as u32, epoch)));
                        }
                        queue.push(end(task, &mut ended));
                    }
                    _ if !ended[task] && passed[task] < injected.len() => {
                        let epoch = injected[passed[task]];
                        passed[task] += 1;
                        queue.push(Input::Kept(tasks[task], epoch, epoch * 10, (task as u32, epoch)));
                    }
                    _ => {}
                }
                while let Some(input) = queue.pop() {
                    for command in of.handle(input) {
                        match command {
                            Command::Inject(epoch) => injected.push(epoch),
                            Command::Write { epoch, parts, .. } => {
                                prop_assert_eq!(parts.len(), 3);
                                for (task, (of_task, kept)) in parts {
                                    prop_assert_eq!(task.node, of_task);
                                    prop_assert!(kept == epoch || kept == 0);
                                }
                                queue.push(Input::Written(epoch));
                            }
                            Command::Publish(epoch) => queue.push(Input::Published(epoch)),
                            Command::Clean(_) => {}
                            Command::Commit => {
                                prop_assert!(!committed && ended == [true; 3]);
                                committed = true;
                                queue.push(Input::Committed);
                            }
                            Command::Note => queue.push(Input::Noted),
                        }
                    }
                }
            }
            prop_assert!(of.is_done());
        }
    }
}
