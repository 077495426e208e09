//! Stories of lost volumes.

use super::*;

pub(super) fn lose(observed: &mut Observed, ordinal: usize, volume: &str) {
    let pod = at(observed, ordinal);
    (pod.serving, pod.ready, pod.health) = (false, false, Health::NeverReady);
    pod.identity = Some(disk(DiskState::Blank, volume, None));
    pod.status = Some(node(0, Role::Blank, 0));
}

#[test]
fn an_empty_volume_in_a_voters_place_is_registered_as_another_member() {
    let mut observed = three();
    lose(&mut observed, 1, "new");
    let (leader, joiners) = ("main-ensemble-0".into(), vec![(1, "new".into())]);
    assert_eq!(next(&observed), Step::Register { leader, joiners });
    assert_eq!((observed.serving(), observed.quorum()), (2, 2));
}

#[test]
fn the_new_member_takes_the_place_of_the_old_one_once_it_has_caught_up() {
    let mut observed = three();
    lose(&mut observed, 1, "new");
    let entries = [THREE.as_slice(), &[(4, "new", 1, false)]].concat();
    let known = membership(1, &entries);
    let mut observed = agreed(observed, &known);
    observed.permit = Some(permit(&[]).amended(&known));
    assert_eq!(waits_for(&observed), Some(Predicate::PermitSeen));
    let pod = at(&mut observed, 1);
    pod.identity = Some(Identity { member_id: Some(4), ..disk(DiskState::Member, "new", Some(CLUSTER)) });
    let status = pod.status.as_mut().expect("it answers");
    (status.role, status.member_id) = (Role::Learner, Some(4));
    assert_eq!(waits_for(&observed), Some(Predicate::LearnersCaughtUp));
    at(&mut observed, 0).status.as_mut().expect("it answers").peers =
        vec![PeerStatus { member_id: 4, caught_up: true }];
    let Step::Switch(switch) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!((switch.voters, switch.reason), (vec![1, 3, 4], reason::REPLACING_MEMBER));

    // It does not wait for members that are wanted too and do not come.
    observed.wanted = 5;
    observed.members.extend([None, None]);
    assert!(matches!(next(&observed), Step::Switch(switch) if switch.voters == [1, 3, 4]));
}

#[test]
fn voters_change_only_to_a_set_of_which_a_quorum_serves() {
    let roles = [Role::Leader, Role::Follower, Role::Follower, Role::Follower, Role::Learner];
    let members = roles.into_iter().enumerate().map(|(ordinal, role)| Some(member(ordinal, role)));
    let mut observed = of(members.collect(), 5);
    let new = disk(DiskState::Member, "new", Some(CLUSTER));
    at(&mut observed, 4).identity = Some(Identity { member_id: Some(6), ..new });
    let known = membership(1, &[five().as_slice(), &[(6, "new", 4, false)]].concat());
    let mut observed = agreed(observed, &known);
    observed.permit = Some(permit(&[]).amended(&known));
    at(&mut observed, 0).status.as_mut().expect("it answers").peers =
        vec![PeerStatus { member_id: 6, caught_up: true }];
    let Step::Switch(switch) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(switch.voters, [1, 2, 3, 4, 6]);
    // The others follow the leader still, but serve nobody.
    (1..4).for_each(|ordinal| at(&mut observed, ordinal).serving = false);
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
}

#[test]
fn a_learner_whose_volume_is_lost_too_is_struck_off() {
    let mut observed = three();
    lose(&mut observed, 1, "newer");
    let entries = [THREE.as_slice(), &[(4, "new", 1, false)]].concat();
    let observed = agreed(observed, &membership(1, &entries));
    let leader = "main-ensemble-0".to_owned();
    assert_eq!(next(&observed), Step::Deregister { leader, id: 4 });
}

#[test]
fn without_a_majority_of_the_volumes_nobody_can_be_replaced() {
    let mut observed = three();
    says(at(&mut observed, 0), Role::Candidate, 100);
    at(&mut observed, 0).serving = false;
    lose(&mut observed, 1, "new");
    // The third may come back.
    observed.members[2].as_mut().expect("there is a pod").identity = None;
    let third = at(&mut observed, 2);
    (third.status, third.serving) = (None, false);
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    lose(&mut observed, 2, "newer");
    let Step::Stall { reason, message } = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(reason, reason::LOST_VOLUME);
    assert!(message.starts_with("2 of 3 voters have lost their volumes (main-ensemble-1, main-ensemble-2)"));
    let advice = "declare spec.recovery with generation 2, the survivor to go on from (main-ensemble-0 has accepted \
                  1.1.1 and slots up to 100) and acknowledge: AcceptLostWrites";
    assert!(message.ends_with(advice), "{message}");
}

#[test]
fn when_no_volume_holds_data_it_is_said_and_nothing_is_founded() {
    let mut observed = three();
    (0..3).for_each(|ordinal| lose(&mut observed, ordinal, &format!("n{ordinal}")));
    observed.permit = Some(permit(&[disk(DiskState::Blank, "v0", None)]));
    assert!(matches!(next(&observed), Step::Stall { reason: reason::LOST_VOLUME, .. }));
}
