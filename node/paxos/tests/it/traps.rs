//! The known traps of this protocol, one story each.

use crate::net::{FOUNDING, Flight, Net};
use pharos_paxos::{Ballot, ConfigNo, LogOp, MemberId, Message, Role, Slot};

fn ballot(round: u64, member: u32) -> Ballot {
    Ballot { config: ConfigNo(1), round, member: MemberId(member) }
}

fn is_promise(f: &Flight) -> bool {
    matches!(f.msg, Message::Promise { .. })
}

fn is_prepare(f: &Flight) -> bool {
    matches!(f.msg, Message::Prepare { .. })
}

fn is_sync(f: &Flight) -> bool {
    matches!(f.msg, Message::AcceptSync { .. })
}

fn is_accepted(f: &Flight) -> bool {
    matches!(f.msg, Message::Accepted { .. })
}

/// Three members, led by 1 in round 1, with entries `a` and `b` chosen everywhere.
fn settled() -> Net {
    let mut net = Net::new(3);
    net.elect(1);
    for payload in ["a", "b"] {
        net.propose(1, payload).expect("it leads");
    }
    net.settle();
    assert_eq!(net.core(1).ballot(), ballot(1, 1));
    net
}

/// Lets time pass for `id` alone until it has canvassed and opened a ballot; others' canvasses are lost.
fn stand(net: &mut Net, id: u32) {
    for _ in 0..300 {
        net.tick(10);
        net.wire.retain(|f| f.from == id || !matches!(f.msg, Message::Canvass { .. }));
        net.deliver_all(|f| matches!(f.msg, Message::Canvass { .. } | Message::CanvassReply { .. }));
        if net.core(id).role() == Role::Candidate {
            return;
        }
    }
    panic!("member {id} does not stand");
}

#[test]
fn a_member_that_promised_and_crashed_before_the_sync_comes_back_with_its_old_accepted_ballot() {
    let mut net = settled();
    net.isolate(1);
    stand(&mut net, 2);
    net.sync_all(2);
    net.deliver_all(is_prepare);
    net.sync_all(3);
    net.deliver_all(is_promise);
    net.deliver_all(is_sync);
    assert_eq!(net.core(3).status().accepted, ballot(2, 2));
    net.restart(3);
    let status = net.core(3).status();
    assert_eq!((status.promised, status.accepted), (ballot(2, 2), ballot(1, 1)));
    net.run(500);
    assert_eq!(net.core(3).status().accepted, ballot(2, 2));
}

#[test]
fn cut_appends_and_stamp_are_one_write() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(1);
    net.propose(1, "x").expect("it leads");
    net.sync_all(1);
    net.elect(2);
    net.heal();
    for _ in 0..200 {
        net.tick(10);
        net.deliver_all(|_| true);
        net.sync_all(2);
        net.sync_all(3);
        let stamp = net.disk(1).pending.iter().find(|(_, ops)| ops.contains(&LogOp::Accepted(ballot(2, 2))));
        if let Some((_, ops)) = stamp {
            assert_eq!(ops[0], LogOp::Truncate { from: Slot(3) });
            return;
        }
        let promises_only =
            net.disk(1).pending.iter().all(|(_, ops)| matches!(ops[..], [LogOp::Promised(_)]));
        assert!(promises_only, "nothing else touches the log");
        net.sync_all(1);
    }
    panic!("member 1 is not synced");
}

#[test]
fn a_completion_after_a_higher_promise_acknowledges_nothing_and_the_promise_covers_it() {
    let mut net = settled();
    net.propose(1, "late").expect("it leads");
    net.deliver_all(|f| f.to == 3);
    assert_eq!(net.disk(3).pending.len(), 1, "the append is under way");
    net.wire.clear();
    net.isolate(1);
    stand(&mut net, 2);
    net.sync_all(2);
    net.deliver_all(is_prepare);
    net.heal();
    net.sync(3, 1);
    assert!(!net.wire.iter().any(|f| is_accepted(f) || is_promise(f)), "the append alone is durable");
    net.sync(3, 1);
    let promise = net.wire.iter().find(|f| is_promise(f)).expect("the promise is durable");
    assert!(matches!(&promise.msg, Message::Promise { end: Slot(5), entries, .. } if entries.len() == 1));
    assert!(!net.wire.iter().any(is_accepted));
}

#[test]
fn the_completion_of_a_write_that_was_cut_since_counts_for_nothing() {
    let mut net = settled();
    for payload in ["x", "y"] {
        net.propose(1, payload).expect("it leads");
        net.deliver_all(|f| f.to == 3);
    }
    assert_eq!((net.disk(3).pending.len(), net.core(3).last_slot()), (2, Slot(6)));
    net.wire.clear();
    let new = ballot(2, 2);
    let prepare = Message::Prepare {
        ballot: new,
        accepted: ballot(1, 1),
        end: Slot(4),
        committed: Slot(4),
        since: Slot(1),
        by: FOUNDING,
        runs: vec![],
    };
    net.hand(2, 3, prepare);
    let sync = Message::AcceptSync {
        ballot: new,
        base: Slot(4),
        sync_point: Slot(4),
        from: Slot(5),
        entries: vec![],
        commit: Slot(4),
    };
    net.hand(2, 3, sync); // A majority without 3 elected 2; 3 promised late.
    assert_eq!(net.core(3).last_slot(), Slot(4));
    net.sync(3, 2);
    assert_eq!(net.core(3).durable(), Slot(4), "what reached the disk at 5 and 6 is about to be cut");
    assert!(!net.wire.iter().any(is_accepted));
}

#[test]
fn a_new_ballot_is_accepted_only_when_its_whole_prefix_has_come() {
    let mut net = Net::with(3, |cfg| cfg.chunk_bytes = 1);
    net.elect(1);
    net.isolate(3);
    for payload in ["a", "b", "c"] {
        net.propose(1, payload).expect("it leads");
        net.settle();
    }
    net.heal();
    net.isolate(1);
    stand(&mut net, 2);
    net.sync_all(2);
    net.deliver_all(is_prepare);
    net.sync_all(3);
    net.deliver_all(is_promise);
    for _ in 0..3 {
        assert_eq!((net.log(3).as_str(), net.core(3).status().accepted), (".*", ballot(1, 1)));
        assert!(net.deliver_first(is_sync));
    }
    assert_eq!(net.core(3).status().accepted, ballot(2, 2));
    assert_eq!(&net.log(3)[..5], ".*abc");
}

#[test]
fn an_old_sync_cuts_nothing_that_was_committed_since() {
    let mut net = Net::new(3);
    net.elect(1);
    net.isolate(1);
    stand(&mut net, 2);
    let mut old = vec![];
    while net.leaders() != [2] || net.core(2).committed() < Slot(3) {
        old.extend(net.wire.iter().filter(|f| is_sync(f) && f.to == 3).cloned());
        net.sync_all(2);
        net.sync_all(3);
        net.deliver_first(|_| true);
    }
    net.propose(2, "a").expect("it leads");
    net.settle();
    assert!(!old.is_empty());
    for f in old {
        net.hand(2, 3, f.msg);
    }
    assert_eq!((net.log(3).as_str(), net.core(3).committed()), (".**a", Slot(4)));
}

#[test]
#[should_panic(expected = "what is committed is never cut")]
fn a_sync_that_would_cut_committed_entries_stops_the_member() {
    let mut net = settled();
    let new = ballot(2, 2);
    let prepare = Message::Prepare {
        ballot: new,
        accepted: FOUNDING,
        end: Slot(1),
        committed: Slot(1),
        since: Slot(1),
        by: FOUNDING,
        runs: vec![],
    };
    net.hand(2, 3, prepare);
    let sync = Message::AcceptSync {
        ballot: new,
        base: Slot(1),
        sync_point: Slot(1),
        from: Slot(2),
        entries: vec![],
        commit: Slot(1),
    };
    net.hand(2, 3, sync);
}

#[test]
fn nobody_hears_of_a_ballot_before_its_owners_promise_is_durable_so_no_restart_opens_it_again() {
    let mut net = settled();
    net.isolate(1);
    stand(&mut net, 2);
    assert_eq!(net.core(2).ballot(), ballot(2, 2));
    assert!(!net.wire.iter().any(is_prepare));
    net.restart(2); // The promise is lost, and nobody has seen it.
    stand(&mut net, 2);
    net.sync_all(2);
    assert!(net.wire.iter().any(is_prepare));
    net.restart(2);
    stand(&mut net, 2);
    assert_eq!(net.core(2).ballot(), ballot(3, 2));
}

#[test]
fn a_restarted_leader_opens_a_higher_ballot() {
    let mut net = settled();
    net.restart(1);
    net.elect(1);
    assert!(net.core(1).ballot() > ballot(1, 1));
    assert_eq!(net.log(1), ".*ab*");
}

#[test]
fn a_promise_is_sent_only_when_durable_and_covers_every_earlier_write() {
    let mut net = settled();
    net.propose(1, "c").expect("it leads");
    net.deliver_all(|f| f.to == 3);
    let new = ballot(9, 2);
    let prepare = Message::Prepare {
        ballot: new,
        accepted: ballot(1, 1),
        end: Slot(4),
        committed: Slot(4),
        since: Slot(1),
        by: FOUNDING,
        runs: vec![],
    };
    net.wire.clear();
    net.hand(2, 3, prepare);
    assert!(!net.wire.iter().any(is_promise));
    net.sync(3, 1);
    assert!(!net.wire.iter().any(is_promise), "the entry is durable, the promise is not");
    net.sync(3, 1);
    assert!(net.wire.iter().any(|f| matches!(f.msg, Message::Promise { end: Slot(5), .. })));
}

#[test]
fn a_late_or_repeated_promise_starts_a_sync_and_no_second_adoption() {
    let mut net = Net::new(5);
    net.elect(1);
    net.isolate(5);
    net.propose(1, "a").expect("it leads");
    net.settle();
    let leader = net.core(1).ballot();
    let promise = Message::Promise {
        ballot: leader,
        accepted: FOUNDING,
        end: Slot(9),
        committed: Slot(1),
        trimmed: Slot(0),
        runs: vec![],
        base: Slot(0),
        entries: vec![],
    };
    net.heal();
    for _ in 0..2 {
        net.hand(5, 1, promise.clone()); // As long as it likes to be: the leader has adopted already.
    }
    net.settle();
    assert_eq!(net.log(1), ".*a");
    net.run(300);
    assert_eq!(net.log(5), ".*a");
}

#[test]
fn one_member_promising_twice_is_one_promise() {
    let mut net = Net::new(5);
    stand(&mut net, 1);
    net.sync_all(1);
    net.deliver_all(|f| is_prepare(f) && f.to == 2);
    net.sync_all(2);
    let again = net.wire.iter().find(|f| is_promise(f)).cloned().expect("2 has promised");
    net.deliver_all(is_promise);
    net.hand(2, 1, again.msg);
    assert_eq!(net.core(1).role(), Role::Candidate);
}

#[test]
fn an_even_group_needs_more_than_half() {
    let mut net = Net::new(4);
    net.elect(1);
    net.propose(1, "a").expect("it leads");
    net.deliver_all(|_| true);
    net.sync_all(1);
    net.sync_all(2);
    net.deliver_all(|_| true);
    assert_eq!(net.core(1).committed(), Slot(2), "two of four hold it");
    net.sync_all(3);
    net.deliver_all(|_| true);
    assert_eq!(net.core(1).committed(), Slot(3));
}

#[test]
fn the_leader_counts_itself_only_when_its_own_disk_is_done() {
    let mut net = settled();
    net.propose(1, "c").expect("it leads");
    net.deliver_all(|_| true);
    net.sync_all(2);
    net.deliver_all(|_| true);
    assert_eq!(net.core(1).committed(), Slot(4));
    net.sync_all(1);
    assert_eq!(net.core(1).committed(), Slot(5));
}

#[test]
fn a_commit_index_heard_before_the_log_covers_it_is_not_told() {
    let mut net = settled();
    let leader = ballot(1, 1);
    net.hand(1, 3, Message::Commit { ballot: leader, upto: Slot(99) });
    assert_eq!(net.core(3).committed(), Slot(4));
    let new = ballot(2, 2);
    net.hand(
        2,
        3,
        Message::Prepare {
            ballot: new,
            accepted: leader,
            end: Slot(9),
            committed: Slot(9),
            since: Slot(1),
            by: FOUNDING,
            runs: vec![],
        },
    );
    net.hand(2, 3, Message::Heartbeat { ballot: new, seq: 1, commit: Slot(9) });
    net.hand(2, 3, Message::Commit { ballot: new, upto: Slot(9) });
    net.sync_all(3);
    assert_eq!(net.core(3).committed(), Slot(4), "promised, not accepted");
}

#[test]
fn a_read_waits_for_a_round_started_after_it() {
    let mut net = settled();
    net.tick(50);
    assert!(net.wire.iter().any(|f| matches!(f.msg, Message::Heartbeat { .. })), "a round is under way");
    net.deliver_all(|f| f.from == 1);
    let ctx = net.read(1);
    net.deliver_all(|f| matches!(f.msg, Message::HeartbeatAck { .. }));
    assert_eq!(net.answer(1, ctx), None, "that round began before the request");
    net.settle();
    assert_eq!(net.answer(1, ctx), Some(Some(Slot(4))));
}

#[test]
fn a_deposed_leader_answers_no_read() {
    let mut net = settled();
    net.isolate(1);
    net.elect(2);
    net.propose(2, "c").expect("it leads");
    net.settle();
    assert_eq!(net.leaders(), [2]);
    let mut net = settled();
    net.isolate(1);
    let ctx = net.read(1);
    for _ in 0..60 {
        net.tick(10);
        net.deliver_all(|_| true);
    }
    assert_eq!(net.answer(1, ctx), Some(None));
}

#[test]
fn a_new_leader_answers_reads_only_when_its_own_epoch_start_is_committed() {
    let mut net = settled();
    net.isolate(1);
    stand(&mut net, 2);
    while net.leaders() != [2] {
        net.sync_all(2);
        net.sync_all(3);
        net.deliver_first(|_| true);
    }
    let ctx = net.read(2);
    for _ in 0..5 {
        net.tick(20);
        net.deliver_all(|f| !is_sync(f) && !is_accepted(f) && !matches!(f.msg, Message::Accept { .. }));
    }
    assert_eq!(net.answer(2, ctx), None, "confirmed by rounds, but its EpochStart is not committed");
    net.settle();
    assert_eq!(net.answer(2, ctx), Some(Some(Slot(5))));
}

#[test]
fn a_voter_stuck_above_the_leaders_ballot_is_won_back() {
    let mut net = settled();
    let higher = ballot(5, 2);
    let prepare = Message::Prepare {
        ballot: higher,
        accepted: ballot(1, 1),
        end: Slot(4),
        committed: Slot(4),
        since: Slot(1),
        by: FOUNDING,
        runs: vec![],
    };
    net.hand(2, 3, prepare); // Member 2 opened it and died before anyone else heard.
    net.settle();
    net.wire.clear();
    net.run(1000);
    assert_eq!(net.leaders().len(), 1);
    assert_eq!(net.core(3).status().accepted, net.core(net.leaders()[0]).ballot());
    assert!(net.core(3).ballot() > higher);
}

#[test]
fn a_commit_hint_rides_on_writes_and_is_never_one_of_its_own() {
    let mut net = settled();
    net.run(200);
    for id in net.ids() {
        assert!(net.disk(id).pending.is_empty());
        assert_eq!(
            net.disk(id).hard.committed,
            Slot(2),
            "written with `b`, when only the epoch start was chosen"
        );
    }
}
