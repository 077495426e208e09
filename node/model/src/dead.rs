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
        | Message::Lacks { ballot }
        | Message::HeartbeatAck { ballot, .. } => !in_office(member, *ballot),
        // Anybody learns from it which ballots there are.
        Message::Reject { ballot, promised: theirs } => !in_office(member, *ballot) && promised >= *theirs,
        // What a restart takes for chosen.
        Message::Chosen { slot, .. } => member.disk.hard.committed >= *slot,
        Message::Commit { ballot, .. } | Message::TransferNow { ballot } => promised > *ballot,
        _ => false,
    }
}

/// Whether the member stands or leads in its ballot. Who has left office opens a higher one next time.
fn in_office(member: &Member, ballot: Ballot) -> bool {
    member.core.ballot() == ballot && !matches!(member.core.role(), Role::Follower { .. })
}

#[cfg(test)]
mod tests {
    use crate::bounds::{Bounds, Start};
    use crate::model::PaxosModel;
    use crate::world::World;
    use stateright::Model;
    use std::collections::BTreeSet;
    use std::hash::{DefaultHasher, Hash, Hasher};

    /// Everything about a state but what is on the way.
    type Picture = (Vec<u64>, u64, u64);

    fn hash(value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }

    fn picture(world: &World) -> Picture {
        (world.members.iter().map(|m| m.key()).collect(), world.story.key(), hash(&world.left))
    }

    /// The pictures of all states, and how many states there are.
    fn pictures(bounds: Bounds) -> (BTreeSet<Picture>, usize) {
        let model = PaxosModel { bounds };
        let mut open = model.init_states();
        let mut known: BTreeSet<u64> = open.iter().map(hash).collect();
        let mut pictures = BTreeSet::new();
        while let Some(world) = open.pop() {
            pictures.insert(picture(&world));
            open.extend(model.next_states(&world).into_iter().filter(|next| known.insert(hash(next))));
        }
        (pictures, known.len())
    }

    fn assert_nothing_is_missed(bounds: Bounds) {
        let (swept, fewer) = pictures(bounds);
        let (kept, more) = pictures(Bounds { keeps_dead: true, ..bounds });
        assert_eq!(swept.len(), kept.len());
        assert!(swept == kept, "the members come to the same states");
        assert!(fewer < more, "{fewer} states instead of {more}");
    }

    #[test]
    fn without_dead_messages_two_rivals_come_to_the_same_states() {
        assert_nothing_is_missed(Bounds { members: 2, timeouts: 2, crashes: 1, ..Bounds::NOTHING });
    }

    #[test]
    fn without_dead_messages_two_that_become_one_come_to_the_same_states() {
        let start = Start::Led { heard: &[1, 2], values: 0 };
        let wanted: &[&[u32]] = &[&[1], &[2]];
        let bounds =
            Bounds { members: 2, timeouts: 1, crashes: 1, reconfigures: 1, wanted, ..Bounds::NOTHING };
        assert_nothing_is_missed(Bounds { start, ..bounds });
    }

    #[test]
    fn without_dead_messages_a_succession_comes_to_the_same_states() {
        let start = Start::Led { heard: &[1, 2], values: 1 };
        assert_nothing_is_missed(Bounds { timeouts: 1, crashes: 1, start, ..Bounds::NOTHING });
    }
}
