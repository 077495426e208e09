//! Stories of an Ensemble that grows and shrinks.

use super::*;

fn pod(ordinal: usize, state: DiskState, volume: &str, id: Option<i64>, role: Role) -> Member {
    let mut pod = member(ordinal, role);
    let cluster = (state == DiskState::Member).then_some(CLUSTER);
    pod.identity = Some(Identity { member_id: id, ..disk(state, volume, cluster) });
    pod.status = Some(node(id.unwrap_or(0), role, 100));
    pod.health = Health::NeverReady;
    pod
}

fn blank_pod(ordinal: usize, volume: &str) -> Option<Member> {
    Some(pod(ordinal, DiskState::Blank, volume, None, Role::Blank))
}

fn learner(ordinal: usize, volume: &str, id: i64) -> Option<Member> {
    Some(pod(ordinal, DiskState::Member, volume, Some(id), Role::Learner))
}

fn voter(ordinal: usize, role: Role) -> Option<Member> {
    let mut voter = member(ordinal, role);
    voter.identity.as_mut().expect("it answers").member_id = voter.id();
    Some(voter)
}

/// One voter, two learners and `caught_up` of them.
fn one_to_three(caught_up: &[i64]) -> Observed {
    let mut members = vec![voter(0, Role::Leader), learner(1, "n1", 2), learner(2, "n2", 3)];
    let leader = members[0].as_mut().and_then(|member| member.status.as_mut()).expect("it answers");
    leader.peers = caught_up.iter().map(|id| PeerStatus { member_id: *id, caught_up: true }).collect();
    let entries = [(1, "v0", 0, true), (2, "n1", 1, false), (3, "n2", 2, false)];
    let known = membership(1, &entries);
    let mut observed = agreed(of(members, 3), &known);
    observed.permit = Some(permit(&[disk(DiskState::Blank, "v0", None)]).amended(&known));
    observed
}

#[test]
fn pods_come_first_and_are_registered_when_they_report_an_empty_volume() {
    let alone = membership(1, &[(1, "v0", 0, true)]);
    let mut observed = agreed(of(vec![voter(0, Role::Leader)], 3), &alone);
    assert_eq!(next(&observed), Step::Scale { pods: 3, reason: reason::SCALING_UP });

    observed.members.extend([None, blank_pod(2, "n2")]);
    let observed = agreed(observed, &alone);
    let leader = "main-ensemble-0".to_owned();
    assert_eq!(next(&observed), Step::Register { leader, joiners: vec![(2, "n2".into())] });
}

#[test]
fn those_registered_are_named_in_the_permit_and_the_kubelet_is_asked_to_look() {
    let known = membership(1, &[(1, "v0", 0, true), (4, "n1", 1, false)]);
    let members = vec![voter(0, Role::Leader), blank_pod(1, "n1"), None];
    let mut observed = agreed(of(members, 3), &known);
    let founded = permit(&[disk(DiskState::Blank, "v0", None)]);
    observed.permit = Some(founded.clone());
    let Step::AmendPermit(amended) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(amended.founders, founded.founders);
    assert_eq!((amended.members.len(), amended.joiners[0].member_id), (2, 4));

    observed.permit = Some(amended);
    assert_eq!(observed.unread(), ["main-ensemble-1"]);
    assert_eq!(waits_for(&observed), Some(Predicate::PermitSeen));

    // After the Ensemble was deleted and applied again there is none; nobody founds anything by the new one.
    observed.permit = None;
    let Step::AmendPermit(anew) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!((anew.cluster_id.as_str(), anew.generation), (CLUSTER, Some(1)));
    assert_eq!(anew.founders[0].volume, "v0");
}

#[test]
fn voters_change_once_when_all_that_are_to_vote_have_caught_up() {
    assert_eq!(waits_for(&one_to_three(&[])), Some(Predicate::LearnersCaughtUp));
    assert_eq!(waits_for(&one_to_three(&[3])), Some(Predicate::LearnersCaughtUp));
    let Step::Switch(switch) = next(&one_to_three(&[2, 3])) else { panic!("no switch") };
    assert_eq!((switch.voters, switch.note.config), (vec![1, 2, 3], 1));
    assert_eq!(switch.note, SwitchNote { config: 1, epoch: 1, applied: 100, registered: vec![1, 2, 3] });
    assert!(!switch.asked_before);
}

#[test]
fn a_learner_that_the_leader_saw_last_and_that_is_gone_does_not_count() {
    let mut observed = one_to_three(&[2, 3]);
    at(&mut observed, 2).status = None;
    assert_eq!(waits_for(&observed), Some(Predicate::LearnersCaughtUp));
    observed.members[2] = None;
    assert_eq!(waits_for(&observed), Some(Predicate::PodExists));
}

#[test]
fn a_leader_is_not_believed_alone() {
    // Its followers know of a later configuration, or follow another.
    let mut observed = three();
    observed.wanted = 1;
    let later = membership(2, &[(1, "v0", 0, true), (2, "v1", 1, true), (4, "n", 2, true)]);
    at(&mut observed, 1).status.as_mut().expect("it answers").membership = Some(later);
    assert_eq!(waits_for(&observed), Some(Predicate::LeaderKnown));

    let mut observed = three();
    observed.wanted = 1;
    for ordinal in [1, 2] {
        at(&mut observed, ordinal).status.as_mut().expect("it answers").leader = Some(2);
    }
    assert_eq!(waits_for(&observed), Some(Predicate::LeaderKnown));

    // It leads a configuration whose beginning it has not applied.
    let mut observed = three();
    observed.wanted = 1;
    at(&mut observed, 0).status.as_mut().expect("it answers").ballot = "2.1.1".into();
    assert_eq!(waits_for(&observed), Some(Predicate::LeaderKnown));
}

#[test]
fn who_goes_stops_voting_first_and_hands_the_leadership_over_before() {
    let mut observed = three();
    observed.wanted = 1;
    let Step::Switch(switch) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!((switch.voters, switch.reason), (vec![1], reason::SCALING_DOWN));

    says(at(&mut observed, 0), Role::Follower, 100);
    says(at(&mut observed, 2), Role::Leader, 100);
    let observed = agreed(observed, &membership(1, &THREE));
    let during = reason::SCALING_DOWN;
    assert_eq!(next(&observed), Step::Transfer { leader: "main-ensemble-2".into(), to: 1, during });
}

#[test]
fn pods_go_only_when_the_leader_has_nobody_on_them() {
    let mut observed = three();
    observed.wanted = 1;
    let observed = agreed(observed, &membership(2, &THREE[..1]));
    assert_eq!(next(&observed), Step::Scale { pods: 1, reason: reason::SCALING_DOWN });
    assert_eq!(observed.sizes().voters, Some(1));
    assert_eq!((observed.serving(), observed.expected()), (1, 1));
}

#[test]
fn nobody_stops_voting_while_one_that_stays_is_down() {
    let members =
        (0..5).map(|ordinal| voter(ordinal, if ordinal == 0 { Role::Leader } else { Role::Follower }));
    let five = five();
    let mut observed = agreed(of(members.collect(), 3), &membership(1, &five));
    at(&mut observed, 1).serving = false;
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    // One that goes may be down: the sooner it votes no more.
    at(&mut observed, 1).serving = true;
    at(&mut observed, 4).serving = false;
    assert!(matches!(next(&observed), Step::Switch(switch) if switch.voters == [1, 2, 3]));
}

#[test]
fn learners_that_are_not_wanted_any_more_are_struck_off_before_their_pods_go() {
    let mut observed = one_to_three(&[2, 3]);
    observed.wanted = 1;
    let leader = "main-ensemble-0".to_owned();
    assert_eq!(next(&observed), Step::Deregister { leader, id: 2 });
    let alone = membership(1, &[(1, "v0", 0, true)]);
    let mut observed = agreed(observed, &alone);
    let Step::AmendPermit(permit) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert!(permit.joiners.is_empty());
    observed.permit = Some(permit);
    assert_eq!(next(&observed), Step::Scale { pods: 1, reason: reason::SCALING_DOWN });
}

#[test]
fn a_volume_of_a_removed_member_is_deleted_if_it_says_nothing_that_the_leader_does_not_know() {
    let removed = |id, cluster: Option<&str>, generation| {
        let mut members = vec![voter(0, Role::Leader), learner(1, "old", id), blank_pod(2, "n2")];
        let identity = members[1].as_mut().and_then(|member| member.identity.as_mut()).expect("it answers");
        (identity.cluster_id, identity.generation) = (cluster.map(Into::into), generation);
        agreed(of(members, 3), &membership(3, &[(1, "v0", 0, true)]))
    };
    let (pod, uid) = ("main-ensemble-1".into(), "uid-1".into());
    assert_eq!(next(&removed(3, Some(CLUSTER), Some(1))), Step::Discard { pod, uid, id: 3 });
    // One that joins need not say of which cluster it is to be.
    let mut joined = removed(3, None, None);
    at(&mut joined, 1).identity.as_mut().expect("it answers").state = DiskState::Joining;
    assert!(matches!(next(&joined), Step::Discard { id: 3, .. }));
    let refused = [
        removed(3, Some("other"), Some(1)),
        removed(3, Some(CLUSTER), Some(2)),
        removed(1, Some(CLUSTER), Some(1)),
    ];
    for observed in refused {
        assert!(matches!(next(&observed), Step::Stall { reason: reason::STALE_DISK, .. }), "{observed:?}");
    }
    assert_eq!(waits_for(&removed(9, Some(CLUSTER), Some(1))), Some(Predicate::MembersRegistered));
}

#[test]
fn no_pod_is_rolled_while_a_change_of_voters_that_was_taken_back_may_be_under_way() {
    let mut observed = three();
    at(&mut observed, 1).up_to_date = false;
    let asked = SwitchNote { config: 1, epoch: 1, applied: 90, registered: vec![1, 2, 3] };
    observed.switch = Some(asked.clone());
    // Whoever leads next knows, whatever became of it.
    assert!(matches!(next(&observed), Step::Transfer { .. }));
    let another = vec![1, 2, 3, 4];
    // A leader that lags behind knows other members and proves nothing by it.
    observed.switch = Some(SwitchNote { applied: 110, registered: another.clone(), ..asked.clone() });
    assert!(matches!(next(&observed), Step::Transfer { .. }));
    for settled in [
        SwitchNote { config: 0, ..asked.clone() },
        SwitchNote { epoch: 0, ..asked.clone() },
        SwitchNote { registered: another, ..asked },
    ] {
        observed.switch = Some(settled);
        assert!(matches!(next(&observed), Step::Evict(_)));
    }
}

#[test]
fn an_ensemble_applied_again_with_fewer_members_gets_pods_for_its_quorum_first() {
    let five = five();
    let mut observed = of(vec![voter(0, Role::Candidate)], 1);
    observed.cluster_id = None;
    let observed = agreed(observed, &membership(1, &five));
    assert_eq!(next(&observed), Step::Scale { pods: 5, reason: reason::SCALING_UP });
}
