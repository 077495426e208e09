//! A whole member: whatever entries the log holds, members that apply them agree, also when one of them was restarted
//! from its store in the middle.

use crate::history::{Step, steps};
use crate::machine::{Machine, founding};
use arbitrary::Unstructured;
use bytes::Bytes;
use pharos_paxos::EntryKind;
use pharos_replica::{Levels, Output};
use pharos_znode::{Batch, BatchError};

/// Members that know each other, so that none of them comes to lead alone.
const FOUNDERS: u32 = 3;

pub(crate) fn run(data: &[u8]) {
    let steps = steps(&mut Unstructured::new(data));
    let all: Vec<_> = steps.iter().filter_map(entry).collect();
    let mut straight = Machine::found(1, &founding(FOUNDERS));
    straight.choose(&all);
    let fatal = live(&mut straight);

    let mut restarted = Machine::found(2, &founding(FOUNDERS));
    let mut fatal_too = Vec::new();
    for life in steps.split(|step| matches!(step, Step::Restore)) {
        restarted.stop();
        restarted.choose(&life.iter().filter_map(entry).collect::<Vec<_>>());
        fatal_too.extend(live(&mut restarted));
    }
    assert_eq!(fatal, fatal_too, "both find the same entries to be none");
    assert_eq!(straight.replica().digest(), restarted.replica().digest());
    assert_eq!(straight.replica().digest().0.0, 1 + all.len() as u64, "all of it was applied");
    assert_eq!(straight.replica().registry(), restarted.replica().registry());
}

fn entry(step: &Step) -> Option<(EntryKind, Bytes)> {
    match step {
        Step::EpochStart => Some((EntryKind::EpochStart, Bytes::new())),
        Step::Commands(payload) if is_of_later_version(payload) => None,
        Step::Commands(payload) => Some((EntryKind::Commands, payload.clone())),
        Step::Members(payload) => Some((EntryKind::Members, payload.clone())),
        Step::Restore => None,
    }
}

/// With these in its log a member does not start.
pub(crate) fn is_of_later_version(payload: &Bytes) -> bool {
    match Batch::level_in(payload) {
        Ok(level) => level.is_some_and(|level| !Levels::KNOWN.include(level)),
        Err(error) => matches!(error, BatchError::Version(_)),
    }
}

/// Starts the member, lets it apply what its log holds, and write its state to its store.
fn live(machine: &mut Machine) -> Vec<String> {
    machine.start();
    let said = [machine.turn(0), machine.turn(2_000)].into_iter().flatten();
    let fatal = said.filter_map(|output| match output {
        Output::Fatal { reason } => Some(reason),
        _ => None,
    });
    fatal.collect()
}
