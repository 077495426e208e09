//! Configurations that end and begin, as stories.

use crate::net::Net;
use pharos_paxos::{ConfigNo, MemberId, Message, ReconfigError, Slot};

/// A group of `founders`, led by the first, and learners that have caught up.
fn grown(founders: u32, learners: std::ops::RangeInclusive<u32>) -> Net {
    let mut net = Net::new(founders);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.settle();
    learners.for_each(|id| net.join(id));
    for _ in 0..4 {
        net.run(100);
        net.install_all();
    }
    net
}

fn voters(net: &Net, id: u32) -> (u32, Vec<u32>) {
    let membership = net.core(id).membership();
    (membership.config.0, membership.voters.iter().map(|voter| voter.0).collect())
}

#[test]
fn one_becomes_three_and_the_leader_stays() {
    let mut net = grown(1, 2..=3);
    net.reconfigure(1, &[1, 2, 3]).expect("both have caught up");
    net.run(100);
    assert_eq!(net.leaders(), [1]);
    for id in [1, 2, 3] {
        assert_eq!(voters(&net, id), (2, vec![1, 2, 3]));
    }
    net.propose(1, "b").expect("it leads the next configuration");
    net.settle();
    net.isolate(1);
    net.elect(2);
    assert_eq!(net.core(2).ballot().config, ConfigNo(2));
    assert!(net.log(2).contains('b'), "what was chosen by the new majority is there: {}", net.log(2));
}

#[test]
fn a_learner_is_counted_by_nobody() {
    let mut net = grown(2, 3..=3);
    net.isolate(2);
    let before = net.core(1).committed();
    net.propose(1, "b").expect("it leads");
    net.settle();
    assert_eq!(net.core(3).last_slot(), before.next(), "the learner has it");
    assert_eq!(
        net.core(1).committed(),
        before,
        "half of the voters choose nothing, whatever a learner holds"
    );
    net.heal();
    net.run(300);
    assert_eq!(net.core(1).committed(), before.next());
}

#[test]
fn a_leader_that_leaves_hands_on_to_a_new_voter() {
    let mut net = grown(3, 4..=4);
    net.reconfigure(1, &[2, 3, 4]).expect("all have caught up");
    net.run(2000);
    let [leader] = net.leaders()[..] else { panic!("one leads") };
    assert!(leader != 1, "the one that left does not lead");
    assert_eq!(voters(&net, 1), (2, vec![2, 3, 4]), "it knows that it left");
    net.propose(leader, "b").expect("it leads");
    net.settle();
    assert_eq!(net.core(4).committed(), net.core(leader).committed());
}

#[test]
fn all_members_are_replaced_at_once() {
    let mut net = grown(3, 4..=6);
    net.reconfigure(1, &[4, 5, 6]).expect("all have caught up");
    net.run(2000);
    let [leader] = net.leaders()[..] else { panic!("one leads") };
    (1..=3).for_each(|id| net.isolate(id));
    net.propose(leader, "b").expect("it leads");
    net.run(1000);
    assert_eq!(net.leaders(), [leader], "the old ones are not missed");
    assert_eq!(net.core(leader).committed(), net.core(leader).last_slot());
}

#[test]
fn a_seal_is_not_chosen_before_half_of_the_new_voters_hold_it() {
    let mut net = grown(1, 2..=3);
    let seal = net.reconfigure(1, &[1, 2, 3]).expect("both have caught up");
    net.isolate(1);
    net.settle();
    assert!(net.core(1).committed() < seal, "the old majority alone would leave nobody who could go on");
    assert!(!net.core(1).can_propose(), "and nothing follows the seal");
    net.heal();
    net.run(2000);
    assert_eq!(voters(&net, 3), (2, vec![1, 2, 3]));
    assert_eq!(net.leaders().len(), 1);
}

#[test]
fn the_next_leader_of_the_old_configuration_goes_on_with_its_seal() {
    let mut net = grown(3, 4..=4);
    net.reconfigure(1, &[1, 2, 4]).expect("all have caught up");
    // It reaches the others, and no answer comes back.
    for id in [2, 3, 4] {
        net.cut.insert((id, 1));
    }
    net.settle();
    net.crash(1, 0);
    net.run(3000);
    assert_eq!(voters(&net, 2), (2, vec![1, 2, 4]));
    let [leader] = net.leaders()[..] else { panic!("one leads") };
    assert!([2, 4].contains(&leader));
}

#[test]
fn a_lost_hand_over_is_made_up_for_by_who_knows() {
    let mut net = grown(1, 2..=2);
    net.reconfigure(1, &[2]).expect("it has caught up");
    // The one that left knows; the new voter hears neither of that nor of the hand-over.
    let tells = |msg: &Message| {
        matches!(msg, Message::Chosen { .. } | Message::TransferNow { .. } | Message::Commit { .. })
    };
    for _ in 0..10 {
        net.sync_all(1);
        net.sync_all(2);
        net.deliver_all(|flight| !tells(&flight.msg));
    }
    net.wire.clear();
    assert_eq!((voters(&net, 1).0, net.leaders()), (2, vec![]));
    net.run(2000);
    assert_eq!(net.leaders(), [2]);
}

#[test]
fn a_configuration_that_could_not_go_on_is_refused() {
    let mut net = grown(3, 4..=4);
    net.join(5);
    net.isolate(5);
    let refused = |net: &mut Net, voters: &[u32]| net.reconfigure(1, voters).expect_err("it is refused");
    assert_eq!(refused(&mut net, &[1, 2, 5]), ReconfigError::Behind(MemberId(5)));
    assert_eq!(refused(&mut net, &[1, 2, 9]), ReconfigError::Behind(MemberId(9)));
    assert_eq!(refused(&mut net, &[]), ReconfigError::NoVoters);
    assert_eq!(refused(&mut net, &[3, 2, 1]), ReconfigError::Unchanged);
    net.reconfigure(1, &[1, 2, 4]).expect("all have caught up");
    assert_eq!(refused(&mut net, &[1, 2, 3]), ReconfigError::Busy);
    assert_eq!(net.reconfigure(2, &[1, 2]), Err(ReconfigError::NotLeading));
}

#[test]
fn a_member_that_missed_the_seal_catches_up_and_then_votes() {
    let mut net = grown(3, 4..=4);
    net.isolate(3);
    net.reconfigure(1, &[1, 2, 3, 4]).expect("three of four go on");
    net.run(200);
    let end = net.core(1).committed();
    assert_eq!((voters(&net, 1).0, voters(&net, 3).0), (2, 1));
    net.heal();
    for _ in 0..20 {
        net.run(100);
        net.install_all();
    }
    assert_eq!(voters(&net, 3), (2, vec![1, 2, 3, 4]));
    assert!(net.core(3).committed() >= end && end > Slot(1));
    net.crash(1, 0);
    net.crash(2, 0);
    net.boot(2);
    net.run(3000);
    assert_eq!(net.leaders().len(), 1, "with its vote three of four are a majority");
}

#[test]
fn a_voter_that_missed_the_seal_votes_for_one_that_has_it() {
    let mut net = grown(3, 4..=4);
    net.isolate(2);
    net.reconfigure(1, &[2, 3, 4]).expect("two of three go on");
    net.run(2000);
    assert_eq!((voters(&net, 4), voters(&net, 2).0), ((2, vec![2, 3, 4]), 1));
    // Two of three voters are left, and one of them has never heard of the configuration that is to go on.
    net.crash(1, 0);
    net.crash(3, 0);
    net.heal();
    for _ in 0..20 {
        net.run(100);
        net.install_all();
    }
    assert_eq!((net.leaders(), voters(&net, 2)), (vec![4], (2, vec![2, 3, 4])));
    net.propose(4, "b").expect("it leads");
    net.run(200);
    assert_eq!(net.core(2).committed(), net.core(4).last_slot());
}

#[test]
fn a_promise_in_the_next_configuration_makes_no_seal_of_ones_own_a_chosen_one() {
    let mut net = grown(3, 4..=5);
    net.isolate(1);
    net.reconfigure(1, &[1, 2, 4]).expect("it still believes to lead");
    net.sync_all(1);
    net.elect(2);
    net.run(500);
    net.reconfigure(2, &[1, 2, 5]).expect("all have caught up");
    net.run(500);
    assert_eq!((voters(&net, 2), voters(&net, 1).0), ((2, vec![1, 2, 5]), 1));
    net.heal();
    while net.core(1).ballot().config == ConfigNo(1) {
        net.tick(20);
        (2..=5).for_each(|id| net.sync_all(id));
        assert!(net.deliver_first(|flight| !matches!(flight.msg, Message::Promise { .. })), "it is asked");
    }
    // The promise is durable, and nothing that came after it.
    net.sync(1, 1);
    net.crash(1, 0);
    net.wire.clear();
    net.boot(1);
    assert_eq!(voters(&net, 1).0, 1, "its seal is not the one that was chosen");
    net.run(2000);
    assert_eq!(voters(&net, 1), (2, vec![1, 2, 5]));
    net.check();
}

#[test]
fn a_leader_that_took_a_seal_over_and_is_not_heard_of_its_choice_stands_in_nobodys_way() {
    let mut net = grown(3, 4..=4);
    net.reconfigure(1, &[1, 4]).expect("all have caught up");
    // All have it and say so; what the leader says then is lost.
    for _ in 0..10 {
        (1..=4).for_each(|id| net.sync_all(id));
        net.deliver_all(|flight| !matches!(flight.msg, Message::Chosen { .. } | Message::Prepare { .. }));
        if voters(&net, 1).0 == 2 {
            net.isolate(1);
        }
    }
    net.wire.clear();
    net.elect(2);
    net.run(500);
    assert_eq!((voters(&net, 1).0, voters(&net, 4).0, net.leaders()), (2, 1, vec![2]));
    // Whoever knows that a member was removed has no connection to it.
    for from in [1, 4] {
        net.cut.remove(&(from, 5 - from));
    }
    net.run(3000);
    assert_eq!((voters(&net, 4).0, voters(&net, 2).0), (2, 2));
    let [leader] = net.leaders()[..] else { panic!("one leads") };
    assert!([1, 4].contains(&leader));
}
