//! Stories of recoveries by force.

use super::replacing::lose;
use super::*;

/// Of three members the first is left; the second has an empty volume, the third does not answer.
fn bereft() -> Observed {
    let mut observed = three();
    says(at(&mut observed, 0), Role::Candidate, 100);
    at(&mut observed, 0).serving = false;
    lose(&mut observed, 1, "new");
    let third = at(&mut observed, 2);
    (third.status, third.identity, third.serving) = (None, None, false);
    observed.recovery = Some(declared(2, "main-ensemble-0"));
    observed.claims = (0..8).map(|ordinal| claim(&format!("claim-{ordinal}"))).collect();
    observed
}

fn declared(generation: u64, survivor: &str) -> Declared {
    Declared { generation, survivor: survivor.into(), declined: false }
}

fn refused(observed: &Observed) -> String {
    match next(observed) {
        Step::Stall { reason: reason::RECOVERY_REFUSED, message } => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_known_to_be_empty_is_given_up_before_the_survivor_is_permitted_to_go_on() {
    let mut observed = bereft();
    let Step::NoteRecovery(note) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(
        note.to_string(),
        "generation 2 begins with main-ensemble-0 alone; 1 other volumes are given up"
    );
    assert_eq!(note.claims, ["claim-2"]);
    observed.recovery_note = Some(note);
    let (pod, uid) = ("main-ensemble-2".to_owned(), "uid-2".to_owned());
    assert_eq!(next(&observed), Step::GiveUp { pod, uid, during: reason::RECOVERING });
    observed.claims[2].as_mut().expect("a claim").leaving = true;
    at(&mut observed, 2).terminating = true;
    assert_eq!(waits_for(&observed), Some(Predicate::PodGone));
    // Another pod has another claim: it need not run for the survivor to go on.
    observed.claims[2] = claim("claim-2b");
    at(&mut observed, 2).terminating = false;
    let Step::AmendPermit(permit) = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!((permit.recovers, permit.generation, permit.founders.len()), (true, Some(2), 1));
    assert_eq!((permit.founders[0].volume.as_str(), permit.cluster_id.as_str()), ("v0", CLUSTER));
    // Unless it says that it holds data.
    let back = disk(DiskState::Member, "v2", Some(CLUSTER));
    at(&mut observed, 2).identity = Some(back);
    let refusal = "2 of 3 voters answer and have their volumes: they are a quorum, and lose nothing";
    assert_eq!(refused(&observed), refusal);
}

#[test]
fn the_survivor_is_restarted_until_it_has_begun_whatever_is_declared_by_then() {
    let mut observed = bereft();
    let survivor = membership(1, &THREE).members[0].clone();
    observed.permit = Some(Permit::of_a_survivor(CLUSTER, 2, &survivor));
    observed.recovery = None;
    let Step::Delete { pod, why, .. } = next(&observed) else { panic!("{:?}", next(&observed)) };
    assert_eq!(
        (pod.as_str(), why.as_str()),
        ("main-ensemble-0", "it is permitted to go on alone in generation 2")
    );
    // It reads its log.
    at(&mut observed, 0).status = Some(node(0, Role::Founding, 0));
    assert_eq!(waits_for(&observed), Some(Predicate::SurvivorAnswers));
    at(&mut observed, 0).identity = None;
    assert_eq!(waits_for(&observed), Some(Predicate::SurvivorAnswers));
    // It has begun: now it is as any other Ensemble.
    let begun = at(&mut observed, 0);
    begun.identity = Some(Identity { generation: Some(2), ..disk(DiskState::Member, "v0", Some(CLUSTER)) });
    (begun.status, begun.serving) = (Some(node(1, Role::Leader, 101)), true);
    let observed = agreed(observed, &membership(2, &THREE[..1]));
    let joiners = vec![(1, "new".to_owned())];
    assert_eq!(next(&observed), Step::Register { leader: "main-ensemble-0".into(), joiners });
}

#[test]
fn an_ensemble_goes_on_only_from_a_member_that_holds_what_its_generation_wrote() {
    let named = |survivor: &str| Observed { recovery: Some(declared(2, survivor)), ..bereft() };
    assert_eq!(
        refused(&named("main-ensemble-1")),
        "the volume of main-ensemble-1 is empty: it is no survivor"
    );
    assert_eq!(refused(&named("main-ensemble-5")), "there is no pod main-ensemble-5");
    assert_eq!(waits_for(&named("main-ensemble-2")), Some(Predicate::SurvivorAnswers));
    let older =
        Observed { known_generation: Some(2), recovery: Some(declared(3, "main-ensemble-0")), ..bereft() };
    let refusal = "the volume of main-ensemble-0 is of an earlier generation: it is no survivor of this one";
    assert_eq!(refused(&older), refusal);
    let mut removed = bereft();
    says(at(&mut removed, 0), Role::Removed, 100);
    assert_eq!(refused(&removed), "main-ensemble-0 was removed from the Ensemble: it is no survivor");
}

#[test]
fn only_the_next_generation_begins_and_what_has_begun_says_nothing() {
    let mut observed = Observed { recovery: Some(declared(5, "main-ensemble-0")), ..bereft() };
    let refusal = "spec.recovery names generation 5, but the Ensemble is of generation 1: the next is 2";
    assert_eq!(refused(&observed), refusal);
    observed.recovery = Some(declared(1, "main-ensemble-0"));
    assert_eq!(waits_for(&observed), Some(Predicate::MemberServes));
    let done = Observed { recovery: Some(declared(1, "main-ensemble-0")), ..three() };
    assert_eq!(next(&done), Step::Done);
}

#[test]
fn a_declaration_without_need_is_refused_and_hinders_nothing() {
    let mut observed = Observed { recovery: Some(declared(2, "main-ensemble-0")), ..three() };
    assert!(
        refused(&observed).starts_with("the recovery in generation 2 is without effect: a quorum serves")
    );
    assert!(observed.declines_recovery());
    at(&mut observed, 1).up_to_date = false;
    assert!(matches!(next(&observed), Step::Evict(_)));
    let declined = Declared { declined: true, ..declared(2, "main-ensemble-0") };
    let observed = Observed { recovery: Some(declined), ..bereft() };
    assert!(refused(&observed).contains("it was declared while a quorum served"));
}

#[test]
fn a_volume_of_a_generation_that_was_given_up_is_deleted_with_its_pod() {
    let mut observed = three();
    for ordinal in 0..2 {
        let disk = at(&mut observed, ordinal).identity.as_mut().expect("it answered");
        disk.generation = Some(2);
    }
    // Its identity may be one that the survivor never heard of, and gave to another.
    let old = disk(DiskState::Member, "old", Some(CLUSTER));
    at(&mut observed, 2).identity = Some(Identity { member_id: Some(9), ..old });
    let (pod, uid) = ("main-ensemble-2".to_owned(), "uid-2".to_owned());
    assert_eq!(next(&observed), Step::Discard { pod, uid, id: 9 });
}
