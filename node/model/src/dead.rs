//! Messages that nobody will ever heed.
//!
//! Owns which those are. To take them off the network is to lose them, and since to deliver one would change
//! nothing now or later, no behaviour is lost with them. It rests on two things that the model checks by
//! itself: a ballot is opened once, and a durable promise never falls.

use crate::member::Member;
use pharos_paxos::{Ballot, Message, Role};

/// Whether the member, and whatever process follows it on its disk, ignores the message.
pub(crate) fn is_dead(member: &Member, msg: &Message) -> bool {
    let promised = member.disk.hard.promised;
    match msg {
        Message::Promise { ballot, .. }
        | Message::Fetched { ballot, .. }
        | Message::Accepted { ballot, .. }
        | Message::Have { ballot, .. }
        | Message::HeartbeatAck { ballot, .. } => !in_office(member, *ballot),
        // Anybody learns from it which ballots there are.
        Message::Reject { ballot, promised: theirs } => !in_office(member, *ballot) && promised >= *theirs,
        Message::Commit { ballot, .. } | Message::TransferNow { ballot } => promised > *ballot,
        _ => false,
    }
}

/// Whether the member stands or leads in its ballot. Who has left office opens a higher one next time.
fn in_office(member: &Member, ballot: Ballot) -> bool {
    member.core.ballot() == ballot && !matches!(member.core.role(), Role::Follower { .. })
}
