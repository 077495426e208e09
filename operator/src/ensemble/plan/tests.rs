//! Stories of single decisions of founding and of roll-outs, and what all stories begin with. Those of members that
//! come and go, and random histories of small worlds that the plan must bring to its end, are below.

mod joining;
mod recovering;
mod replacing;
mod restoring;
mod rolling;
mod world;

use pharos_crds::names::reason;

use super::*;
use crate::admin::{Membership, PeerStatus, Registered};

const CLUSTER: &str = "c1";

fn disk(state: DiskState, volume: &str, cluster: Option<&str>) -> Identity {
    let cluster_id = cluster.map(Into::into);
    let (volume, generation) = (volume.into(), cluster.map(|_| 1));
    Identity { state, volume, member_id: None, cluster_id, generation, feature_levels: None }
}

fn node(id: i64, role: Role, applied: u64) -> NodeStatus {
    let serving = matches!(role, Role::Leader | Role::Follower);
    NodeStatus {
        member_id: Some(id),
        role,
        leader: None,
        applied,
        committed: applied,
        serving,
        version: None,
        feature_level: None,
        ballot: String::new(),
        accepted: Some("1.1.1".into()),
        durable: Some(applied),
        zxid: "0x100000001".into(),
        peers: Vec::new(),
        membership: None,
    }
}

/// A member on record: its id, its volume, its ordinal, whether it votes.
type Entry<'a> = (i64, &'a str, usize, bool);

fn membership(config: u64, entries: &[Entry<'_>]) -> Membership {
    let members = entries.iter().map(|(id, volume, ordinal, voter)| Registered {
        member_id: *id,
        volume: (*volume).into(),
        host: format!("main-ensemble-{ordinal}.main-ensemble-peers.ns.svc"),
        peer_port: 2888,
        client_port: 2181,
        voter: *voter,
    });
    let next_member_id = entries.iter().map(|entry| entry.0).max().unwrap_or(0).max(3) + 1;
    Membership { config, next_member_id, founding_digest: "dd".into(), members: members.collect() }
}

/// All members that answer follow the leader and say the same of who belongs to the cluster.
fn agreed(mut observed: Observed, membership: &Membership) -> Observed {
    let leader = observed.leader().and_then(Member::id);
    for status in observed.members.iter_mut().flatten().filter_map(|member| member.status.as_mut()) {
        (status.leader, status.membership) = (leader, Some(membership.clone()));
    }
    observed
}

fn member(ordinal: usize, role: Role) -> Member {
    let id = i64::try_from(ordinal).expect("small") + 1;
    Member {
        pod: format!("main-ensemble-{ordinal}"),
        uid: format!("uid-{ordinal}"),
        up_to_date: true,
        terminating: false,
        running: true,
        ready: matches!(role, Role::Leader | Role::Follower),
        serving: matches!(role, Role::Leader | Role::Follower),
        health: Health::WasReady,
        trouble: None,
        identity: Some(disk(DiskState::Member, &format!("v{ordinal}"), Some(CLUSTER))),
        status: Some(node(id, role, 100)),
    }
}

fn three() -> Observed {
    let members =
        vec![Some(member(0, Role::Leader)), Some(member(1, Role::Follower)), Some(member(2, Role::Follower))];
    agreed(of(members, 3), &membership(1, &THREE))
}

const THREE: [Entry<'static>; 3] = [(1, "v0", 0, true), (2, "v1", 1, true), (3, "v2", 2, true)];

fn five() -> Vec<Entry<'static>> {
    [THREE.as_slice(), &[(4, "v3", 3, true), (5, "v4", 4, true)]].concat()
}

fn claim(uid: &str) -> Option<Claim> {
    Some(Claim { uid: uid.into(), leaving: false, restores: None })
}

fn of(members: Vec<Option<Member>>, wanted: usize) -> Observed {
    Observed {
        revision_known: true,
        members,
        wanted,
        cluster_id: Some(CLUSTER.into()),
        ..Observed::default()
    }
}

/// A member's own words, with what it said of the others before.
fn says(member: &mut Member, role: Role, applied: u64) {
    let before = member.status.clone().expect("it answered");
    let id = before.member_id.expect("it is a member");
    let now = node(id, role, applied);
    member.status = Some(NodeStatus { leader: before.leader, membership: before.membership, ..now });
}

fn permit(disks: &[Identity]) -> Permit {
    Permit::new("main", "ns", CLUSTER.into(), disks)
}

fn next(observed: &Observed) -> Step {
    plan(observed, permit)
}

fn waits_for(observed: &Observed) -> Option<Predicate> {
    match next(observed) {
        Step::Wait(wait) => Some(wait.predicate),
        _ => None,
    }
}

fn at(observed: &mut Observed, ordinal: usize) -> &mut Member {
    observed.members[ordinal].as_mut().expect("there is a pod")
}

#[test]
fn nothing_is_done_when_all_serve_and_are_up_to_date() {
    assert_eq!(next(&three()), Step::Done);
}

#[test]
fn followers_go_first_and_the_commit_index_is_noted() {
    let mut observed = three();
    observed.members.iter_mut().flatten().for_each(|member| member.up_to_date = false);
    let note = RollNote { pod: "main-ensemble-1".into(), uid: "uid-1".into(), commit: 100 };
    assert_eq!(next(&observed), Step::Evict(note));
}

#[test]
fn the_leader_hands_over_to_the_member_that_has_applied_most_before_it_goes() {
    let mut observed = three();
    at(&mut observed, 0).up_to_date = false;
    says(at(&mut observed, 2), Role::Follower, 101);
    let during = reason::ROLLING_UPDATE;
    assert_eq!(next(&observed), Step::Transfer { leader: "main-ensemble-0".into(), to: 3, during });
}

#[test]
fn a_single_member_is_restarted_without_a_hand_over() {
    let alone = membership(1, &THREE[..1]);
    let mut observed = agreed(of(vec![Some(member(0, Role::Leader))], 1), &alone);
    at(&mut observed, 0).up_to_date = false;
    assert!(matches!(next(&observed), Step::Evict(_)));
}

#[test]
fn the_next_member_waits_until_the_last_one_serves_and_has_caught_up() {
    let mut observed = three();
    at(&mut observed, 2).up_to_date = false;
    observed.note = Some(RollNote { pod: "main-ensemble-1".into(), uid: "old".into(), commit: 120 });
    assert_eq!(waits_for(&observed), Some(Predicate::MemberCaughtUp));
    at(&mut observed, 1).serving = false;
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    observed.members[1] = None;
    assert_eq!(waits_for(&observed), Some(Predicate::PodExists));
}

#[test]
fn a_pod_that_crashed_is_replaced_by_a_newer_template_even_without_a_quorum() {
    let mut observed = three();
    for ordinal in [1, 2] {
        let down = at(&mut observed, ordinal);
        (down.serving, down.status, down.identity) = (false, None, None);
    }
    let crashed = at(&mut observed, 2);
    (crashed.up_to_date, crashed.health) = (false, Health::Crashed);
    assert!(matches!(next(&observed), Step::Delete { pod, .. } if pod == "main-ensemble-2"));
}

#[test]
fn a_member_that_misses_one_question_is_not_replaced_while_the_kubelet_finds_it_ready() {
    let mut observed = three();
    let quiet = at(&mut observed, 2);
    (quiet.serving, quiet.up_to_date) = (false, false);
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    at(&mut observed, 2).ready = false;
    assert!(matches!(next(&observed), Step::Delete { pod, .. } if pod == "main-ensemble-2"));
}

#[test]
fn a_voter_that_merely_lacks_a_leader_waits() {
    let mut observed = three();
    for member in observed.members.iter_mut().flatten() {
        (member.serving, member.up_to_date) = (false, false);
        says(member, Role::Candidate, 100);
    }
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
}

#[test]
fn nothing_is_judged_before_the_revision_is_known() {
    let mut observed = three();
    observed.revision_known = false;
    at(&mut observed, 1).health = Health::Crashed;
    at(&mut observed, 1).serving = false;
    assert_eq!(waits_for(&observed), Some(Predicate::StatefulSetObserved));
}

fn blank() -> Observed {
    let mut observed = three();
    observed.cluster_id = None;
    for (ordinal, member) in observed.members.iter_mut().flatten().enumerate() {
        (member.serving, member.health) = (false, Health::NeverReady);
        member.status = Some(node(0, Role::Blank, 0));
        member.identity = Some(disk(DiskState::Blank, &format!("v{ordinal}"), None));
    }
    observed
}

#[test]
fn the_permit_is_written_when_every_founder_has_reported_an_empty_volume_of_its_own() {
    let mut observed = blank();
    let Step::WritePermit(permit) = next(&observed) else { panic!("{:?}", next(&observed)) };
    let founders: Vec<(i64, &str)> =
        permit.founders.iter().map(|founder| (founder.member_id, founder.volume.as_str())).collect();
    assert_eq!(founders, [(1, "v0"), (2, "v1"), (3, "v2")]);
    assert_eq!(permit.founders[0].host, "main-ensemble-0.main-ensemble-peers.ns.svc");

    at(&mut observed, 1).identity = None;
    assert_eq!(waits_for(&observed), Some(Predicate::FoundersReport));
    at(&mut observed, 1).identity = Some(disk(DiskState::Blank, "v0", None));
    assert!(matches!(next(&observed), Step::Stall { reason: reason::STALE_DISK, .. }));
}

#[test]
fn a_permit_is_never_written_twice() {
    let mut observed = blank();
    let disks: Vec<Identity> = observed.present().filter_map(|member| member.identity.clone()).collect();
    observed.permit = Some(permit(&disks));
    assert_eq!(waits_for(&observed), Some(Predicate::ClusterFounded));
    assert_eq!(observed.unread().len(), 3);

    // The permit was taken away, but the status still names a cluster: it is not founded a second time.
    observed.permit = None;
    observed.cluster_id = Some(CLUSTER.into());
    assert!(matches!(next(&observed), Step::Stall { reason: reason::LOST_VOLUME, .. }));
}

#[test]
fn a_volume_of_another_cluster_is_named() {
    let mut observed = three();
    at(&mut observed, 2).identity = Some(disk(DiskState::Member, "v2", Some("other")));
    let Step::Stall { reason, message } = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(reason, reason::STALE_DISK);
    assert_eq!(message, "the volume of main-ensemble-2 belongs to cluster other, not to c1");
}

#[test]
fn as_many_members_as_are_wanted_found_a_cluster_and_fewer_only_if_those_have_reported() {
    let mut observed = blank();
    observed.wanted = 5;
    assert_eq!(next(&observed), Step::Scale { pods: 5, reason: reason::SCALING_UP });
    observed.wanted = 1;
    // The third pod finds no node; whoever wants one member must not wait for it.
    at(&mut observed, 2).identity = None;
    assert_eq!(next(&observed), Step::Scale { pods: 1, reason: reason::SCALING_DOWN });
    at(&mut observed, 0).identity = None;
    assert_eq!(waits_for(&observed), Some(Predicate::FoundersReport));
}

#[test]
fn members_of_an_older_version_are_rolled_and_their_number_stays() {
    let mut observed = three();
    for status in observed.members.iter_mut().flatten().filter_map(|member| member.status.as_mut()) {
        (status.membership, status.leader) = (None, None);
    }
    at(&mut observed, 1).up_to_date = false;
    assert!(matches!(next(&observed), Step::Evict(note) if note.pod == "main-ensemble-1"));
    observed.wanted = 5;
    assert_eq!(waits_for(&observed), Some(Predicate::LeaderKnown));
}

#[test]
fn an_ensemble_applied_again_finds_its_data_without_a_permit() {
    let mut observed = three();
    observed.cluster_id = None;
    assert_eq!(founding(&observed), Founding::Founded(CLUSTER.into()));
    assert_eq!(next(&observed), Step::Done);
}
