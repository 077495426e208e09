//! What broken ensembles do to writes when leaders change.

use std::collections::BTreeSet;

use pharos_znode::{Command, Op};

use super::log::{Asked, Log};
use pharos_crowd::JOB;
use pharos_crowd::Rng;

/// Of writes that would have changed something, at one change of leaders:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// One that was answered is not in the state any more.
    Lost,
    /// One whose answer was lost is carried out twice.
    Twice,
    /// Two of one connection, whose answers were lost, change places.
    Swapped,
    /// One is left out although a later one of its connection is not.
    Gap,
}

/// A flaw that happens once, as soon as it can.
pub(super) struct Plan {
    pub(super) flaw: Flaw,
    /// Only to creations of sequential znodes that stay: each is seen sooner or later, and no other write could have
    /// done the same.
    pub(super) plain: bool,
    /// How many changes of leaders come before.
    pub(super) spares: u64,
}

/// Writes on their way into the log, with who asked for them.
pub(super) type Tail = Vec<(Asked, Command)>;

impl Plan {
    /// Breaks what is in the log, or what is still to be executed; says whether it could.
    pub(super) fn happens(
        &mut self,
        log: &mut Log,
        told: &BTreeSet<Asked>,
        tail: &mut Tail,
        rng: &mut Rng,
    ) -> bool {
        if self.spares > 0 {
            self.spares -= 1;
            return false;
        }
        if self.flaw == Flaw::Lost {
            let answered = log.changes().filter(|(_, asked, op)| told.contains(asked) && self.suits(op));
            let lost = one_of(&answered.map(|(index, ..)| index).collect::<Vec<_>>(), rng);
            lost.into_iter().for_each(|index| log.forget(index));
            return lost.is_some();
        }
        let commands: Vec<Command> = tail.iter().map(|(_, command)| command.clone()).collect();
        let changing = log.changing(&commands);
        let suited: Vec<usize> =
            (0..tail.len()).filter(|index| changing[*index] && self.suits(&commands[*index].op)).collect();
        if self.flaw == Flaw::Twice {
            let Some(index) = one_of(&suited, rng) else { return false };
            let later = index + 1 + rng.below((tail.len() - index) as u64) as usize;
            tail.insert(later, tail[index].clone());
            return true;
        }
        let link = |index: usize| tail[index].0.0;
        let pairs = suited.iter().flat_map(|first| suited.iter().map(move |second| (*first, *second)));
        let pairs: Vec<_> =
            pairs.filter(|(first, second)| first < second && link(*first) == link(*second)).collect();
        let Some((first, second)) = one_of(&pairs, rng) else { return false };
        if self.flaw == Flaw::Swapped {
            tail.swap(first, second);
        } else {
            tail.remove(first);
        }
        true
    }

    fn suits(&self, op: &Op) -> bool {
        !self.plain || matches!(op, Op::Create { path, .. } if path == JOB)
    }
}

fn one_of<T: Copy>(items: &[T], rng: &mut Rng) -> Option<T> {
    (!items.is_empty()).then(|| rng.pick(items))
}
