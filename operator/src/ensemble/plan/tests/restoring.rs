//! Stories of restores.

use super::*;
use crate::ensemble::permit::PermitMember;

fn order(generation: Option<u64>) -> RestoreOrder {
    RestoreOrder { from: "s3://b/x".into(), generation, credentials: Some("keys".into()) }
}

fn restored(cluster: &str) -> Restored {
    let (volume, host) = ("v3".into(), "main-ensemble-3.main-ensemble-peers.ns.svc".into());
    let member = PermitMember { member_id: 9, volume, host, peer_port: 2888, client_port: 2181 };
    Restored { cluster_id: cluster.into(), generation: 2, member }
}

fn pod(state: RestoreState) -> Option<RestorePod> {
    Some(RestorePod { uid: "uid-r".into(), order: Some(order(Some(2))), terminating: false, state })
}

/// A restore of three members that serve, while its volume is filled.
fn filling(state: RestoreState) -> Observed {
    let note = RestoreNote { order: order(Some(2)), place: 3, restored: None, claims: Vec::new() };
    let mut claims: Vec<_> = (0..3).map(|ordinal| claim(&format!("claim-{ordinal}"))).collect();
    claims.push(Some(Claim { restores: Some(order(Some(2))), ..claim("claim-3").expect("a claim") }));
    let (restore, restore_note) = (Some(order(Some(2))), Some(note));
    Observed { restore, restore_note, claims, restore_pod: pod(state), ..three() }
}

fn noted(observed: &Observed) -> RestoreNote {
    match next(observed) {
        Step::NoteRestore(Some(note)) => note,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_volume_is_filled_before_any_other_is_given_up() {
    let mut observed = three();
    observed.restore = Some(order(Some(2)));
    observed.restore_note = Some(noted(&observed));
    assert_eq!(next(&observed), Step::Restore { order: order(Some(2)), place: 3 });
    let observed = filling(RestoreState::Runs("it is read".into()));
    let Step::Wait(said) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(said.to_string(), "waiting for backup_restored (s3://b/x: it is read)");

    let mut observed = filling(RestoreState::Restored(restored(CLUSTER)));
    let note = noted(&observed);
    assert_eq!(note.claims, ["claim-0", "claim-1", "claim-2"]);
    assert_eq!(
        note.to_string(),
        "generation 2 begins with what was restored from s3://b/x; 3 other volumes are given up"
    );
    observed.restore_note = Some(note);
    let (pod, uid) = ("main-ensemble-0".to_owned(), "uid-0".to_owned());
    assert_eq!(next(&observed), Step::GiveUp { pod, uid, during: reason::RESTORING });
    // From here on it does not matter what is declared.
    observed.restore = None;
    assert!(matches!(next(&observed), Step::GiveUp { .. }));
}

#[test]
fn the_member_with_the_backup_comes_when_all_others_are_gone() {
    let mut observed = filling(RestoreState::Restored(restored("c2")));
    observed.restore_note = Some(noted(&observed));
    for ordinal in 0..3 {
        let again = at(&mut observed, ordinal);
        (again.serving, again.status) = (false, Some(node(0, Role::Blank, 0)));
        again.identity = Some(disk(DiskState::Blank, &format!("new-{ordinal}"), None));
        observed.claims[ordinal] = claim(&format!("new-claim-{ordinal}"));
    }
    let Step::PermitRestored(permit) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!((permit.cluster_id.as_str(), permit.generation, permit.recovers), ("c2", Some(2), false));
    assert!(permit.names_volume("v3") && !permit.names_volume("new-0"));
    observed.permit = Some(permit);
    assert_eq!(next(&observed), Step::ClearRestore { pod: Some("uid-r".into()), claim: None });
    observed.restore_pod = None;
    assert_eq!(next(&observed), Step::Scale { pods: 4, reason: reason::RESTORING });
    let mut begins = member(3, Role::Leader);
    (begins.serving, begins.identity, begins.status) = (false, None, None);
    observed.members.push(Some(begins.clone()));
    assert_eq!(waits_for(&observed), Some(Predicate::RestoredAnswers));
    // Now it is as any other Ensemble.
    begins.serving = true;
    let generation = Some(2);
    begins.identity = Some(Identity { generation, ..disk(DiskState::Member, "v3", Some("c2")) });
    begins.status = Some(node(9, Role::Leader, 100));
    observed.members[3] = Some(begins);
    let observed = agreed(observed, &membership(1, &[(9, "v3", 3, true)]));
    let joiners = (0..3).map(|ordinal| (ordinal, format!("new-{ordinal}"))).collect();
    assert_eq!(next(&observed), Step::Register { leader: "main-ensemble-3".into(), joiners });
}

#[test]
fn a_backup_that_cannot_be_restored_is_told_and_roll_outs_go_on() {
    let mut observed = filling(RestoreState::Stuck("s3://b/x: there is no whole backup".into()));
    let message = "s3://b/x: there is no whole backup".to_owned();
    assert_eq!(next(&observed), Step::Stall { reason: reason::RESTORE_FAILED, message });
    at(&mut observed, 1).up_to_date = false;
    assert!(matches!(next(&observed), Step::Evict(_)));
    at(&mut observed, 1).up_to_date = true;
    observed.restore_pod = pod(RestoreState::Fails("OOMKilled, exit code 137".into()));
    assert_eq!(waits_for(&observed), Some(Predicate::BackupRestored));
    // Its place is not taken from it.
    observed.wanted = 5;
    assert_eq!(waits_for(&observed), Some(Predicate::BackupRestored));
}

#[test]
fn what_is_declared_no_more_is_cleared_away_and_another_backup_is_begun_anew() {
    let mut observed = filling(RestoreState::Runs(String::new()));
    let cleared = Step::ClearRestore { pod: Some("uid-r".into()), claim: Some((3, "claim-3".into())) };
    observed.restore = Some(RestoreOrder { from: "s3://b/y".into(), ..order(Some(2)) });
    assert_eq!(next(&observed), cleared);
    observed.restore = None;
    assert_eq!(next(&observed), cleared);
    observed.restore_pod = None;
    observed.claims[3] = None;
    assert_eq!(next(&observed), Step::NoteRestore(None));
}

#[test]
fn a_volume_that_nobody_declared_to_be_given_up_is_left_alone() {
    let mut observed = blank();
    observed.restore = Some(order(None));
    observed.restore_note = Some(noted(&observed));
    observed.claims = (0..4).map(|ordinal| claim(&format!("claim-{ordinal}"))).collect();
    let Step::Stall { reason, message } = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(reason, reason::RESTORE_REFUSED);
    assert!(message.contains("stays on ordinal 3") && message.ends_with("delete its claim"), "{message}");
    // Acknowledged, it goes.
    observed.restore = Some(order(Some(2)));
    observed.restore_note = None;
    observed.restore_note = Some(noted(&observed));
    assert_eq!(next(&observed), Step::ClearRestore { pod: None, claim: Some((3, "claim-3".into())) });
}
