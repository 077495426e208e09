//! The log as this member sees it: everything issued to the disk, durable or not, above the trim point.
//!
//! Owns the entries and what can be asked of their order. Knows no ballots' meaning and no disk. Slots are
//! contiguous from `trimmed + 1`, and ballots never fall along them.

use crate::message::{MAX_RUNS, Run};
use crate::types::{Ballot, Entry, Slot};
use std::collections::VecDeque;

/// What an entry takes in a message beside its payload, rounded up.
const ENTRY_OVERHEAD: usize = 32;

#[derive(Clone, Debug, Hash)]
pub(crate) struct LogView {
    trimmed: Slot,
    entries: VecDeque<Entry>,
    /// For each entry, the bytes of all payloads up to and with it.
    bytes: VecDeque<u64>,
    /// The bytes up to the trim point.
    bytes_trimmed: u64,
    /// The stretches of equal ballots, by their last slot.
    runs: VecDeque<Run>,
}

impl LogView {
    pub(crate) fn new(trimmed: Slot, entries: Vec<Entry>) -> Self {
        let mut log = Self {
            trimmed,
            entries: VecDeque::new(),
            bytes: VecDeque::new(),
            bytes_trimmed: 0,
            runs: VecDeque::new(),
        };
        entries.into_iter().for_each(|e| log.append(e));
        log
    }

    pub(crate) fn trimmed(&self) -> Slot {
        self.trimmed
    }

    pub(crate) fn end(&self) -> Slot {
        Slot(self.trimmed.0 + self.entries.len() as u64)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.0.checked_sub(self.trimmed.0 + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.slot, self.end().next(), "an entry is appended at the end");
        match self.runs.back_mut() {
            Some(run) if run.ballot == entry.ballot => run.last = entry.slot,
            last => {
                assert!(last.is_none_or(|run| run.ballot < entry.ballot), "ballots never fall along a log");
                self.runs.push_back(Run { ballot: entry.ballot, last: entry.slot });
            }
        }
        self.bytes.push_back(self.bytes_upto(self.end()) + entry.payload.len() as u64);
        self.entries.push_back(entry);
    }

    /// Drops `from` and everything above it.
    pub(crate) fn truncate(&mut self, from: Slot) {
        assert!(from > self.trimmed, "what is trimmed is committed and never cut");
        let keep = (from.0 - self.trimmed.0 - 1) as usize;
        self.entries.truncate(keep);
        self.bytes.truncate(keep);
        while let Some(run) = self.runs.pop_back() {
            let before = self.runs.back().map_or(self.trimmed, |r| r.last);
            if before < self.end() {
                self.runs.push_back(Run { last: run.last.min(self.end()), ..run });
                break;
            }
        }
    }

    /// Forgets everything up to `upto`.
    pub(crate) fn trim(&mut self, upto: Slot) {
        assert!(upto <= self.end(), "only what is there is trimmed");
        if upto <= self.trimmed {
            return;
        }
        self.bytes_trimmed = self.bytes_upto(upto);
        let gone = (upto.0 - self.trimmed.0) as usize;
        self.entries.drain(..gone);
        self.bytes.drain(..gone);
        self.trimmed = upto;
        while self.runs.front().is_some_and(|run| run.last <= upto) {
            self.runs.pop_front();
        }
    }

    /// The entries from `from` (above the trim point) to `upto`: at least one if there is one, and no more
    /// once `bytes` are reached or `count` are taken.
    pub(crate) fn chunk(&self, from: Slot, upto: Slot, bytes: usize, count: usize) -> Vec<Entry> {
        assert!(from > self.trimmed, "what is trimmed cannot be sent");
        let mut chunk = Vec::new();
        let mut size = 0;
        let mut slot = from;
        while let Some(entry) = self.get(slot) {
            size += entry.payload.len() + ENTRY_OVERHEAD;
            if slot > upto || chunk.len() >= count || (!chunk.is_empty() && size > bytes) {
                break;
            }
            chunk.push(entry.clone());
            slot = slot.next();
        }
        chunk
    }

    /// The bytes of the payloads above `after` up to and with `upto`.
    pub(crate) fn bytes_between(&self, after: Slot, upto: Slot) -> u64 {
        self.bytes_upto(upto.min(self.end())).saturating_sub(self.bytes_upto(after.min(self.end())))
    }

    /// The last runs, oldest first.
    pub(crate) fn last_runs(&self) -> Vec<Run> {
        self.runs.iter().skip(self.runs.len().saturating_sub(MAX_RUNS)).copied().collect()
    }

    /// The highest slot up to which both logs are surely equal, as far as their runs tell.
    pub(crate) fn common_prefix(&self, theirs: &[Run]) -> Slot {
        theirs
            .iter()
            .filter_map(|their| {
                let mine = self.runs.iter().rev().find(|run| run.ballot == their.ballot)?;
                Some(mine.last.min(their.last))
            })
            .max()
            .unwrap_or(Slot::ZERO)
    }

    fn bytes_upto(&self, slot: Slot) -> u64 {
        if slot <= self.trimmed {
            return self.bytes_trimmed;
        }
        let index = (slot.0 - self.trimmed.0 - 1) as usize;
        *self.bytes.get(index).expect("asked within the log")
    }

    /// Whether the log's entry at that slot is the one of that ballot; what is trimmed is taken as equal,
    /// for it is chosen.
    pub(crate) fn matches(&self, slot: Slot, ballot: Ballot) -> bool {
        slot <= self.trimmed || self.get(slot).is_some_and(|e| e.ballot == ballot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ConfigNo, EntryKind, MemberId};
    use bytes::Bytes;

    fn ballot(round: u64) -> Ballot {
        Ballot { config: ConfigNo(1), round, member: MemberId(1) }
    }

    fn log(rounds: &[u64]) -> LogView {
        let entries = rounds.iter().zip(1..).map(|(&round, slot)| Entry {
            slot: Slot(slot),
            ballot: ballot(round),
            kind: EntryKind::Commands,
            payload: Bytes::from(vec![0; 10]),
        });
        LogView::new(Slot::ZERO, entries.collect())
    }

    #[test]
    fn runs_follow_appends_cuts_and_trims() {
        let mut l = log(&[1, 1, 2, 4, 4]);
        l.truncate(Slot(5));
        l.trim(Slot(2));
        let run = |round, last| Run { ballot: ballot(round), last: Slot(last) };
        assert_eq!(l.last_runs(), vec![run(2, 3), run(4, 4)]);
        l.truncate(Slot(3));
        assert_eq!(l.last_runs(), vec![]);
        assert_eq!(l.end(), Slot(2));
    }

    #[test]
    fn the_common_prefix_is_found_from_runs() {
        let mine = log(&[1, 1, 2, 4, 4]);
        assert_eq!(mine.common_prefix(&log(&[1, 1, 1, 3]).last_runs()), Slot(2));
        assert_eq!(mine.common_prefix(&log(&[1, 1, 2, 4, 4, 4]).last_runs()), Slot(5));
        assert_eq!(mine.common_prefix(&log(&[3]).last_runs()), Slot::ZERO);
    }

    #[test]
    fn bytes_are_counted_across_a_trim() {
        let mut l = log(&[1, 1, 2, 4, 4]);
        l.trim(Slot(2));
        assert_eq!(l.bytes_between(Slot(2), Slot(5)), 30);
        assert_eq!(l.bytes_between(Slot(3), Slot(4)), 10);
        assert_eq!(l.chunk(Slot(3), Slot(5), 84, 9).len(), 2);
        assert_eq!(l.chunk(Slot(3), Slot(5), 1, 9).len(), 1);
    }
}
