//! What a member may not say or do.
//!
//! Owns the rules that are about one step: what was promised to the outside, what is said of the own disk.
//! Rules about a whole state are in `properties`.

use crate::disk::Disk;
use pharos_paxos::{Ballot, Message, Paxos, Slot, Standing};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// Two members have told different entries to be chosen for this slot.
    Agreement(Slot),
    /// Something not durable was claimed to be.
    Claim(String),
    /// A ballot was led twice.
    LedTwice(Ballot),
    /// A read was answered with a slot below what was chosen before it was asked.
    StaleRead(Slot),
    /// Something of a configuration that had not begun, or was over.
    Seal(String),
    /// A core has stopped.
    Fatal(&'static str),
    /// An assertion of the core, or of the disk, failed.
    Panic(String),
}

/// What the speaker must have on its disk to say this.
pub(crate) fn check_claim(core: &Paxos, disk: &Disk, msg: &Message) -> Result<(), Broken> {
    let fine = match msg {
        Message::Promise { ballot, accepted, end, .. } => {
            disk.hard.promised == *ballot && disk.hard.accepted == *accepted && disk.end() == *end
        }
        Message::Accepted { ballot, upto } => holds(core, disk, *ballot, *upto),
        Message::Have { standing, .. } | Message::HeartbeatAck { standing, .. } => {
            stands(core, disk, standing)
        }
        Message::Prepare { ballot, .. }
        | Message::AcceptSync { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Heartbeat { ballot, .. }
        | Message::Commit { ballot, .. } => disk.hard.promised >= *ballot,
        _ => true,
    };
    if fine { Ok(()) } else { Err(Broken::Claim(format!("{msg:?} by a member with {disk:?}"))) }
}

fn stands(core: &Paxos, disk: &Disk, standing: &Standing) -> bool {
    standing.durable == Slot::ZERO || holds(core, disk, standing.accepted, standing.durable)
}

/// The disk has the log of that ballot's leader up to there, as the core has it.
fn holds(core: &Paxos, disk: &Disk, ballot: Ballot, upto: Slot) -> bool {
    let same = |slot| match (core.entry(Slot(slot)), disk.entry(Slot(slot))) {
        (Some(a), Some(b)) => a == b,
        _ => true, // Trimmed at one or the other.
    };
    disk.hard.accepted == ballot && disk.end() >= upto && (disk.trimmed.0 + 1..=upto.0).all(same)
}
