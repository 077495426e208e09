//! The protocol as stories: three members, a wire and disks moved by hand.

use crate::net::{FOUNDING, Net};
use pharos_paxos::{
    Config, EntryKind, HardState, MemberId, Membership, Message, Millis, NotLeader, Output, Paxos, PeerPhase,
    Plant, Recovered, Role, Slot,
};

const ALL: [u32; 3] = [1, 2, 3];

#[test]
fn an_elected_leader_replicates_to_all() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.propose(1, "b").expect("it leads");
    net.settle();
    for id in ALL {
        assert_eq!(net.log(id), ".*ab");
        assert_eq!((net.core(id).committed(), net.core(id).durable()), (Slot(4), Slot(4)));
    }
    assert_eq!(net.core(2).leader(), Some(MemberId(1)));
    assert_eq!(net.core(1).min_match(), Slot(4));
}

#[test]
fn what_comes_between_two_drains_shares_one_write_and_one_message() {
    let mut net = Net::new(3);
    net.elect(1);
    let core = net.core_mut(1);
    for payload in ["a", "b", "c"] {
        core.propose(EntryKind::Commands, payload.into()).expect("it leads");
    }
    net.collect(1);
    assert_eq!(net.disk(1).pending.len(), 1);
    assert_eq!(net.wire.len(), 2);
    assert!(matches!(&net.wire[0].msg, Message::Accept { entries, .. } if entries.len() == 3));
}

#[test]
fn a_quorum_of_followers_commits_while_the_leaders_own_disk_is_late() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.deliver_all(|_| true);
    assert_eq!(net.core(1).committed(), Slot(2));
    for id in [2, 3] {
        net.sync_all(id);
        net.deliver_all(|_| true);
    }
    assert_eq!(net.core(1).committed(), Slot(3));
    assert_eq!(net.core(1).durable(), Slot(2));
}

#[test]
fn a_commit_is_told_at_once_when_nothing_else_carries_it() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.sync_all(1);
    net.deliver_first(|f| f.to == 2);
    net.sync_all(2);
    net.wire.retain(|f| f.to == 1);
    net.deliver_first(|f| f.to == 1);
    let upto = Slot(3);
    let told: Vec<_> =
        net.wire.iter().filter(|f| matches!(f.msg, Message::Commit { upto: u, .. } if u == upto)).collect();
    assert_eq!(told.iter().map(|f| f.to).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_lost_entry_is_sent_again_after_heartbeats_without_progress() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.wire.retain(|f| f.to != 2);
    net.settle();
    assert_eq!(net.log(2), ".*");
    net.run(300);
    assert_eq!(net.log(2), ".*a");
}

#[test]
fn a_gap_is_reported_and_filled_at_once() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.wire.retain(|f| f.to != 2);
    net.propose(1, "b").expect("it leads");
    net.settle();
    assert_eq!(net.log(2), ".*ab");
}

#[test]
fn a_broken_transport_rewinds_the_stream() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.wire.retain(|f| f.to != 2);
    net.core_mut(1).peer_lost(MemberId(2));
    net.collect(1);
    net.settle();
    assert_eq!(net.log(2), ".*a");
}

#[test]
fn a_follower_that_lost_unsynced_entries_is_caught_up_in_the_same_ballot() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.deliver_all(|f| f.to == 2);
    net.restart(2);
    assert_eq!(net.log(2), ".*");
    net.run(400);
    assert_eq!(net.log(2), ".*a");
    assert_eq!(net.leaders(), [1]);
    assert_eq!(net.core(1).status().elections, 1);
}

#[test]
fn a_restarted_leader_is_succeeded_and_its_unchosen_tail_replaced() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(1);
    net.propose(1, "x").expect("it leads");
    net.sync_all(1);
    net.restart(1);
    assert_eq!(net.log(1), ".*x");
    net.elect(2);
    net.propose(2, "b").expect("it leads");
    net.heal();
    net.run(300);
    assert_eq!(net.log(1), ".**b");
    assert_eq!(net.core(1).committed(), Slot(4));
}

#[test]
fn proposals_stop_at_the_window_and_go_on_after_a_commit() {
    let mut net = Net::with(3, |cfg| cfg.window_slots = 2);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.propose(1, "b").expect("it leads");
    assert_eq!(net.propose(1, "c"), Err(NotLeader::WindowFull));
    assert!(!net.core(1).can_propose());
    net.settle();
    assert_eq!(net.propose(1, "c"), Ok(Slot(5)));
    assert_eq!(net.propose(2, "d"), Err(NotLeader::NotLeading { leader: Some(MemberId(1)) }));
}

#[test]
fn the_window_counts_bytes_but_always_lets_one_entry_through() {
    let mut net = Net::with(3, |cfg| cfg.window_bytes = 10);
    net.elect(1);
    net.propose(1, &"x".repeat(100)).expect("one entry is always allowed");
    assert_eq!(net.propose(1, "y"), Err(NotLeader::WindowFull));
    net.settle();
    assert_eq!(net.core(3).committed(), Slot(3));
}

#[test]
fn a_leader_cut_off_from_its_quorum_steps_down_after_one_election_timeout() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(1);
    net.run(450);
    assert_eq!(net.leaders(), [1]);
    net.run(150);
    assert!(!net.leaders().contains(&1));
}

#[test]
fn a_leader_whose_connections_break_is_succeeded_before_the_election_timeout() {
    let mut net = Net::new(3);
    net.elect(1);
    net.crash(1, 0);
    for id in [2, 3] {
        net.core_mut(id).peer_lost(MemberId(1));
        net.collect(id);
    }
    net.run(400);
    assert_eq!(net.leaders().len(), 1);
}

#[test]
fn a_broken_connection_alone_unseats_nobody() {
    let mut net = Net::new(3);
    net.elect(1);
    let ballot = net.core(1).ballot();
    for _ in 0..20 {
        net.core_mut(3).peer_lost(MemberId(1));
        net.collect(3);
        net.cut.extend([(1, 3), (3, 1)]);
        net.run(300);
        net.heal();
        net.run(50);
    }
    assert_eq!(net.core(1).role(), Role::Leader { ballot });
}

#[test]
fn a_member_that_returns_does_not_disturb_a_happy_leader() {
    let mut net = Net::new(3);
    net.elect(1);
    let ballot = net.core(1).ballot();
    net.isolate(3);
    net.run(3000);
    net.heal();
    net.run(2000);
    assert_eq!(net.core(1).role(), Role::Leader { ballot });
    assert_eq!(net.core(3).leader(), Some(MemberId(1)));
}

#[test]
fn a_one_way_partition_does_not_unseat_the_leader() {
    let mut net = Net::new(3);
    net.elect(1);
    let ballot = net.core(1).ballot();
    net.cut.insert((1, 3)); // 3 hears nothing of the leader and canvasses for ever, in vain.
    net.run(5000);
    assert_eq!(net.core(1).role(), Role::Leader { ballot });
}

#[test]
fn the_only_connected_member_leads_although_another_is_fresher() {
    let mut net = Net::new(5);
    net.elect(1);
    net.isolate(3);
    net.propose(1, "a").expect("it leads");
    net.settle();
    net.heal();
    for (a, b) in [(1, 2), (1, 4), (1, 5), (2, 4), (2, 5), (4, 5)] {
        net.cut.extend([(a, b), (b, a)]); // Only 3, which lacks `a`, reaches a majority.
    }
    net.run(4000);
    assert_eq!(net.leaders(), [3]);
    assert_eq!(net.log(3), ".*a*");
}

#[test]
fn leadership_is_handed_over_without_a_timeout() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.core_mut(1).transfer(MemberId(3));
    assert_eq!(net.propose(1, "b"), Err(NotLeader::Transferring));
    net.settle();
    assert_eq!(net.leaders(), [3]);
    assert_eq!(net.log(2), ".*a*");
}

#[test]
fn a_hand_over_to_a_dead_member_ends_by_itself() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(3);
    net.propose(1, "a").expect("it leads");
    net.core_mut(1).transfer(MemberId(3));
    net.run(300);
    assert!(!net.core(1).can_propose());
    net.run(300);
    assert_eq!((net.leaders(), net.core(1).can_propose()), (vec![1], true));
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_to_one_whose_disk_does_not() {
    let mut net = Net::new(3);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    for _ in 0..80 {
        net.tick(10);
        for id in [2, 3] {
            net.sync_all(id);
        }
        net.deliver_all(|_| true);
    }
    assert!(matches!(net.leaders()[..], [2] | [3]), "{:?}", net.leaders());
}

#[test]
fn one_round_answers_all_reads_that_wait() {
    let mut net = Net::new(3);
    net.elect(1);
    let ctxs: Vec<u64> = (0..10).map(|_| net.oracle.ask()).collect();
    ctxs.iter().for_each(|&ctx| net.core_mut(1).read_index(ctx));
    net.collect(1);
    assert_eq!(net.wire.len(), 2, "one heartbeat each");
    net.settle();
    assert!(ctxs.iter().all(|&ctx| net.answer(1, ctx) == Some(Some(Slot(2)))));
}

#[test]
fn a_follower_reads_through_the_leader_and_fails_without_one() {
    let mut net = Net::new(3);
    let early = net.read(2);
    assert_eq!(net.answer(2, early), Some(None));
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.settle();
    let ctx = net.read(2);
    net.settle();
    assert_eq!(net.answer(2, ctx), Some(Some(Slot(3))));
    let lost = net.read(2);
    net.core_mut(2).peer_lost(MemberId(1));
    net.collect(2);
    assert_eq!(net.answer(2, lost), Some(None));
}

#[test]
fn a_request_in_a_void_fails_after_an_election_timeout() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(2);
    let ctx = net.read(2);
    net.run(490);
    assert_eq!(net.answer(2, ctx), None);
    net.run(20);
    assert_eq!(net.answer(2, ctx), Some(None));
}

#[test]
fn a_single_member_leads_commits_and_reads_alone() {
    let mut net = Net::new(1);
    net.run(10);
    assert_eq!(net.leaders(), [1]);
    let slot = net.propose(1, "a").expect("it leads");
    assert_eq!(net.core(1).committed(), Slot(2));
    net.sync_all(1);
    assert_eq!(net.core(1).committed(), slot);
    let ctx = net.read(1);
    assert_eq!(net.answer(1, ctx), Some(Some(slot)));
    assert_eq!(net.core(1).min_match(), slot);
    net.restart(1);
    net.run(20);
    assert_eq!(net.log(1), ".*a*");
}

#[test]
fn a_long_log_is_taken_over_and_synced_in_chunks() {
    let mut net = Net::with(3, |cfg| cfg.chunk_bytes = 100);
    net.elect(1);
    net.isolate(2);
    for _ in 0..20 {
        net.propose(1, "abc").expect("it leads");
        net.settle();
    }
    net.heal();
    net.isolate(1);
    net.elect(2);
    assert_eq!(net.log(2), format!(".*{}*", "abc".repeat(20)));
    net.heal();
    net.run(300);
    assert_eq!(net.log(1), net.log(2));
}

#[test]
fn a_member_behind_the_trim_point_waits_for_a_snapshot_and_says_so() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(3);
    for _ in 0..5 {
        net.propose(1, "a").expect("it leads");
        net.settle();
    }
    net.core_mut(1).trim(Slot(6));
    net.core_mut(2).trim(Slot(6));
    net.heal();
    net.run(500);
    let peers = net.core(1).status().peers;
    assert_eq!(peers.iter().map(|p| p.phase).collect::<Vec<_>>(), [PeerPhase::Streaming, PeerPhase::Behind]);
    net.isolate(1);
    net.run(2000);
    assert_eq!(net.leaders(), [2], "the two of them still elect the one that can lead");
    assert_eq!(net.core(3).last_slot(), Slot(2));
}

#[test]
fn an_empty_log_never_votes() {
    let membership = Membership::founding(vec![MemberId(1), MemberId(2)]);
    let cfg = Config { plant: Plant::None, ..Config::new(MemberId(1), membership, 1) };
    let empty = Recovered { hard: HardState::EMPTY, trimmed: Slot::ZERO, entries: vec![] };
    let mut core = Paxos::new(cfg, empty, Millis(0));
    assert!(matches!(core.next_output(), Some(Output::Fatal { .. })));
    let prepare = Message::Prepare {
        ballot: pharos_paxos::Ballot { round: 9, member: MemberId(2), ..FOUNDING },
        accepted: FOUNDING,
        end: Slot(1),
        committed: Slot(1),
        since: pharos_paxos::Slot(1),
        by: FOUNDING,
        runs: vec![],
    };
    core.recv(MemberId(2), prepare);
    core.tick(Millis(100_000));
    assert_eq!(core.next_output(), None);
}
