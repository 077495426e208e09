//! When a checkpoint is taken, and when it counts.
//!
//! Owns: the order of events of a run's checkpoints: hold the sources, put the barrier where none of
//! them has been, gather what every worker kept, write it, publish it, commit the sinks, note that the
//! run is done.
//! Must not know: files, znodes, threads, connections, clocks. Commands go out, events come in.
//! Invariant: sinks are committed only after the last checkpoint is published; what a worker reports
//! at one barrier is never mixed with what it reports at another; at most one checkpoint is under way.

use std::collections::{BTreeMap, BTreeSet};

use crate::exec::channel::{Epoch, Round};
use crate::plant;

/// A worker, by its place in the assignment.
pub(crate) type WorkerId = u32;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input<S> {
    /// It is time for a checkpoint.
    Due,
    /// The sources of a worker are held for a checkpoint; this is the latest round that one has begun.
    Held(WorkerId, Epoch, Option<Round>),
    /// A worker kept this at the barrier of a checkpoint.
    Kept(WorkerId, Epoch, Round, S),
    /// All of a worker has ended, and leaves this at whatever barrier follows.
    Ended(WorkerId, S),
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
    /// Have every worker hold its sources.
    Hold(Epoch),
    /// Have every worker put a barrier at the end of a round, and let its sources go on.
    Place(Epoch, Round),
    /// Write what the workers kept.
    Write {
        /// The checkpoint.
        epoch: Epoch,
        /// The round of the barrier; none: the input has ended.
        round: Option<Round>,
        /// What each worker kept.
        parts: BTreeMap<WorkerId, S>,
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
    Holding { epoch: Epoch, held: BTreeMap<WorkerId, Option<Round>> },
    Gathering { epoch: Epoch, round: Round, parts: BTreeMap<WorkerId, S> },
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
    workers: BTreeSet<WorkerId>,
    ended: BTreeMap<WorkerId, S>,
    next: Epoch,
    /// The round that the run goes on in: no barrier stands before it.
    first: Round,
    phase: Phase<S>,
}

impl<S: Clone> Coordinator<S> {
    /// A coordinator of these workers, who go on in the round `first`, and whose first checkpoint is `next`.
    #[must_use]
    pub(crate) fn new(workers: BTreeSet<WorkerId>, first: Round, next: Epoch) -> Self {
        Self { workers, ended: BTreeMap::new(), next, first, phase: Phase::Idle }
    }

    /// Whether the run is done.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether the input has ended, so that no other checkpoint comes.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.len() == self.workers.len()
    }

    /// Takes in what happened and says what to do.
    pub(crate) fn handle(&mut self, input: Input<S>) -> Vec<Command<S>> {
        match input {
            Input::Due => self.due(),
            Input::Held(worker, epoch, begun) => self.held(worker, epoch, begun),
            Input::Kept(worker, epoch, round, state) => self.kept(worker, epoch, round, state),
            Input::Ended(worker, state) => {
                self.ended.insert(worker, state);
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
        self.phase = Phase::Holding { epoch, held: BTreeMap::new() };
        vec![Command::Hold(epoch)]
    }

    fn take_epoch(&mut self) -> Epoch {
        self.next += 1;
        self.next - 1
    }

    fn held(&mut self, worker: WorkerId, of: Epoch, begun: Option<Round>) -> Vec<Command<S>> {
        let Phase::Holding { epoch, held } = &mut self.phase else { return Vec::new() };
        if *epoch != of {
            return Vec::new();
        }
        held.insert(worker, begun);
        if held.len() < self.workers.len() && !plant::places_early() {
            return Vec::new();
        }
        let latest = held.values().filter_map(|begun| *begun).max();
        let (epoch, round) = (*epoch, latest.map_or(self.first, |latest| latest + 1));
        self.phase = Phase::Gathering { epoch, round, parts: BTreeMap::new() };
        let mut commands = vec![Command::Place(epoch, round)];
        commands.extend(self.proceed());
        commands
    }

    fn kept(&mut self, worker: WorkerId, of: Epoch, at: Round, state: S) -> Vec<Command<S>> {
        if let Phase::Gathering { epoch, round, parts } = &mut self.phase
            && *epoch == of
        {
            assert!(*round == at, "a barrier stands in one round");
            parts.insert(worker, state);
        }
        self.proceed()
    }

    /// Goes on to writing, once every worker has something to be kept.
    fn proceed(&mut self) -> Vec<Command<S>> {
        let all_ended = self.has_ended();
        match &mut self.phase {
            Phase::Gathering { epoch, round, parts } if !parts.is_empty() => {
                let missing =
                    |worker: &WorkerId| !parts.contains_key(worker) && !self.ended.contains_key(worker);
                if self.workers.iter().any(missing) {
                    return Vec::new();
                }
                let (epoch, round) = (*epoch, Some(*round));
                let mut whole = self.ended.clone();
                whole.append(parts);
                self.phase = Phase::Writing { epoch, last: Last::No };
                vec![Command::Write { epoch, round, parts: whole }]
            }
            // The barrier came too late for any source, or nothing is under way.
            Phase::Gathering { .. } | Phase::Idle if all_ended => {
                let epoch = self.take_epoch();
                if plant::no_final_epoch() {
                    self.phase = Phase::Committing;
                    return vec![Command::Commit];
                }
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

    fn coordinator() -> Coordinator<&'static str> {
        Coordinator::new(BTreeSet::from([0, 1]), 4, 1)
    }

    fn place(of: &mut Coordinator<&'static str>, epoch: Epoch, begun: [Option<Round>; 2]) -> Round {
        assert_eq!(of.handle(Input::Due), [Command::Hold(epoch)]);
        assert_eq!(of.handle(Input::Due), []);
        assert_eq!(of.handle(Input::Held(0, epoch, begun[0])), []);
        let placed = of.handle(Input::Held(1, epoch, begun[1]));
        let [Command::Place(of, round)] = placed[..] else { panic!("{placed:?}") };
        assert_eq!(of, epoch);
        round
    }

    #[test]
    fn a_barrier_stands_after_every_round_that_was_begun() {
        assert_eq!(place(&mut coordinator(), 1, [Some(9), Some(17)]), 18);
        assert_eq!(place(&mut coordinator(), 1, [None, Some(5)]), 6);
        assert_eq!(place(&mut coordinator(), 1, [None, None]), 4);
    }

    #[test]
    fn a_checkpoint_counts_once_every_worker_has_kept_something() {
        let mut of = coordinator();
        assert_eq!(place(&mut of, 1, [Some(6), None]), 7);
        assert_eq!(of.handle(Input::Kept(0, 1, 7, "a")), []);
        let parts = BTreeMap::from([(0, "a"), (1, "b")]);
        assert_eq!(
            of.handle(Input::Kept(1, 1, 7, "b")),
            [Command::Write { epoch: 1, round: Some(7), parts }]
        );
        assert_eq!(of.handle(Input::Written(1)), [Command::Publish(1)]);
        assert_eq!(of.handle(Input::Published(1)), [Command::Clean(1)]);
        assert_eq!(of.handle(Input::Due), [Command::Hold(2)]);
    }

    #[test]
    fn workers_that_have_ended_stay_in_the_checkpoint() {
        let mut of = coordinator();
        of.handle(Input::Ended(0, "end"));
        place(&mut of, 1, [Some(6), Some(8)]);
        let parts = BTreeMap::from([(0, "end"), (1, "b")]);
        assert_eq!(
            of.handle(Input::Kept(1, 1, 9, "b")),
            [Command::Write { epoch: 1, round: Some(9), parts }]
        );
    }

    #[test]
    fn the_end_of_input_takes_a_last_checkpoint_and_only_then_commits() {
        let mut of = coordinator();
        place(&mut of, 1, [Some(6), Some(8)]);
        of.handle(Input::Ended(0, "a"));
        let parts = BTreeMap::from([(0, "a"), (1, "b")]);
        assert_eq!(of.handle(Input::Ended(1, "b")), [Command::Write { epoch: 2, round: None, parts }]);
        of.handle(Input::Written(2));
        assert_eq!(of.handle(Input::Published(2)), [Command::Clean(2), Command::Commit]);
        assert_eq!(of.handle(Input::Committed), [Command::Note]);
        of.handle(Input::Noted);
        assert!(of.is_done());
    }

    #[test]
    fn an_input_that_ends_while_sources_are_held_ends_the_run() {
        let mut of = coordinator();
        of.handle(Input::Due);
        of.handle(Input::Ended(0, "a"));
        of.handle(Input::Ended(1, "b"));
        of.handle(Input::Held(0, 1, Some(3)));
        let commands = of.handle(Input::Held(1, 1, Some(3)));
        let parts = BTreeMap::from([(0, "a"), (1, "b")]);
        assert_eq!(commands, [Command::Place(1, 4), Command::Write { epoch: 2, round: None, parts }]);
    }

    proptest! {
        /// Whatever the order in which workers hold, pass barriers and end, and whenever checkpoints are
        /// due, each checkpoint holds, of each worker, what it kept at that barrier, or its end if it ended
        /// before; no barrier stands in a round that a worker has begun; and the run is done in the end.
        #[test]
        fn no_checkpoint_mixes_barriers(order in prop::collection::vec((0usize..3, 0u8..6), 0..300)) {
            let mut of = Coordinator::new((0..3).collect(), 0, 1);
            let mut rounds = [0u64; 3];
            let mut held: [Option<Epoch>; 3] = [None; 3];
            let mut holds: [Vec<Epoch>; 3] = Default::default();
            let mut barrier: [Option<(Epoch, Round)>; 3] = [None; 3];
            let mut ended = [false; 3];
            let mut committed = false;
            let mut queue: Vec<Input<(u32, Epoch)>> = Vec::new();
            let finish = (0..400).map(|at| (at % 3, if at < 390 { 1 } else { 9 }));
            for (worker, what) in order.into_iter().chain(finish.clone()).chain(finish) {
                let id = worker as u32;
                match what {
                    0 => queue.push(Input::Due),
                    // A worker hears that it is to hold, however late.
                    1 | 2 => if let Some(epoch) = holds[worker].pop() {
                        held[worker] = Some(epoch);
                        queue.push(Input::Held(id, epoch, rounds[worker].checked_sub(1)));
                    },
                    // It does a round.
                    3 | 4 if !ended[worker] && held[worker].is_none() => {
                        if let Some((epoch, _)) = barrier[worker].take_if(|(_, at)| *at == rounds[worker]) {
                            queue.push(Input::Kept(id, epoch, rounds[worker], (id, epoch)));
                        }
                        rounds[worker] += 1;
                    }
                    9 if !ended[worker] && held[worker].is_none() && holds[worker].is_empty() => {
                        if let Some((epoch, at)) = barrier[worker].take() {
                            rounds[worker] = at + 1;
                            queue.push(Input::Kept(id, epoch, at, (id, epoch)));
                        }
                        ended[worker] = true;
                        queue.push(Input::Ended(id, (id, 0)));
                    }
                    _ => {}
                }
                while let Some(input) = queue.pop() {
                    for command in of.handle(input) {
                        match command {
                            Command::Hold(epoch) => holds.iter_mut().for_each(|to| to.push(epoch)),
                            Command::Place(epoch, round) => for worker in 0..3 {
                                prop_assert!(rounds[worker] <= round, "worker {worker} has been there");
                                held[worker] = None;
                                if !ended[worker] {
                                    barrier[worker] = Some((epoch, round));
                                }
                            },
                            Command::Write { epoch, parts, .. } => {
                                prop_assert_eq!(parts.len(), 3);
                                for (worker, (of_worker, kept)) in parts {
                                    prop_assert_eq!(worker, of_worker);
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
