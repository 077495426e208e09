//! An Ensemble whose majority is lost for good goes on from a survivor, and one that is lost altogether from a backup.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::{Session, Terms, Wire};

use crate::members::{count_on, create, write};

const PATIENCE: Duration = Duration::from_secs(60);
const TERMS: Terms = Terms { timeout_ms: 40_000, patience: Duration::from_secs(6) };

#[test]
fn an_ensemble_that_lost_its_majority_goes_on_from_a_survivor_and_turns_the_others_away() {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let mut wire = Wire::connect(ensemble.address(1).unwrap(), &Session::default(), TERMS).unwrap();
    (0..500).for_each(|number| create(&mut wire, number).unwrap());
    let (session, before) = (wire.session(), wire.session().last_zxid());
    (0..3).for_each(|index| ensemble.kill(index).unwrap());

    let shown = ensemble.recover(1, &[]).unwrap();
    assert!(shown.contains("member 2 of the ensemble") && shown.contains("nothing was changed"), "{shown}");
    assert!(shown.contains("without it: voter 1") && shown.contains("without it: voter 3"), "{shown}");
    let refused = ensemble.recover(1, &["--accept-lost-writes", "--generation", "1"]).unwrap_err();
    assert!(format!("{refused:#}").contains("generation 1 already; the next is 2"), "{refused:#}");
    let begun = ensemble.recover(1, &["--accept-lost-writes"]).unwrap();
    assert!(begun.contains("generation 2 begins with member 2 alone"), "{begun}");

    ensemble.start(1).unwrap();
    ensemble.wait_serving(1).unwrap();
    assert_eq!(count_on(ensemble.address(1).unwrap()), 500);
    // The client that was there goes on in its session, and sees no zxid again.
    let mut wire = Wire::connect(ensemble.address(1).unwrap(), &session, TERMS).unwrap();
    assert_eq!(wire.session().id(), session.id());
    create(&mut wire, 500).unwrap();
    let after = wire.session().last_zxid();
    assert!(after >> 32 > (before >> 32) + 65_535, "{after:x} after {before:x}");

    // One that comes back with what it had is told why it does not belong, and harms nobody.
    ensemble.start(2).unwrap();
    wait_until("the old member to be turned away", PATIENCE, || {
        let told = "member 3 is of generation 1 of the ensemble, this member of 2";
        Ok((ensemble.log_of(2)?.contains(told)).then_some(()))
    })
    .unwrap();
    wait_until("the old member to run", PATIENCE, || Ok((ensemble.role(2)? != "founding").then_some(())))
        .unwrap();
    assert_eq!(ensemble.role(2).unwrap(), "candidate");
    create(&mut wire, 501).unwrap();
    ensemble.kill(2).unwrap();

    // New volumes take the places of the lost ones; the survivor may then be lost as any other.
    ensemble.renew(0).unwrap();
    ensemble.renew(2).unwrap();
    ensemble.switch(&[0, 1, 2]).unwrap();
    ensemble.replace(1).unwrap();
    for index in 0..3 {
        assert_eq!(count_on(ensemble.address(index).unwrap()), 502, "member {index}");
        ensemble.kill(index).unwrap();
        ensemble.start(index).unwrap();
        ensemble.wait_serving(index).unwrap();
    }
}

#[test]
fn a_backup_made_under_writes_has_all_that_was_acknowledged_and_an_ensemble_goes_on_from_it() {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let place = tempfile::tempdir().unwrap();
    let addresses = Mutex::new((0..3).map(|index| ensemble.address(index).unwrap()).collect::<Vec<_>>());
    let (stop, leader) = (AtomicBool::new(false), ensemble.leader().unwrap());
    let (before, backup, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&addresses, &stop));
        let backed_up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let some = || Ok(Some(count_on(addresses.lock().unwrap()[leader])).filter(|count| *count > 300));
            let before = wait_until("some writes", PATIENCE, some).unwrap();
            (before, ensemble.backup(place.path()).unwrap())
        }));
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        let (before, backup) = backed_up.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (before, backup, written)
    });
    let mut wire = Wire::connect(ensemble.address(leader).unwrap(), &Session::default(), TERMS).unwrap();
    create(&mut wire, written).unwrap();
    let last = wire.session().last_zxid();
    (0..3).for_each(|index| ensemble.kill(index).unwrap());

    let refused = format!("{:#}", ensemble.restore(0, &backup).unwrap_err());
    assert!(refused.contains("belongs to an ensemble: a backup is restored to"), "{refused}");
    (0..3).for_each(|index| ensemble.lose(index).unwrap());
    let part = backup.join("part-000000");
    let right = std::fs::read(&part).unwrap();
    std::fs::write(&part, &right[1..]).unwrap();
    let refused = format!("{:#}", ensemble.restore(0, &backup).unwrap_err());
    assert!(refused.contains("part-000000 is not as it was written"), "{refused}");
    std::fs::write(&part, &right).unwrap();
    let none = format!("{:#}", ensemble.restore(0, place.path()).unwrap_err());
    assert!(none.contains("there is no manifest.json, so there is no whole backup"), "{none}");
    let said = ensemble.restore(0, &backup).unwrap();
    assert!(said.contains("member 4 of generation 2, alone"), "{said}");
    // Whoever did not hear that asks again, and is told what there is.
    let again = ensemble.restore(0, &backup).unwrap_err();
    assert!(format!("{again:#}").contains("belongs to an ensemble"), "{again:#}");
    let report = ensemble.restore_again(0, &backup).unwrap();
    assert_eq!((&report["generation"], &report["member"]["memberId"]), (&2.into(), &4.into()), "{report}");
    assert_eq!(ensemble.restore_again(1, &backup).unwrap()["clusterId"], report["clusterId"]);
    ensemble.lose(1).unwrap();

    ensemble.start(0).unwrap();
    ensemble.wait_serving(0).unwrap();
    let restored = count_on(ensemble.address(0).unwrap());
    assert!((before..=written).contains(&restored), "{restored} of {written}, {before} before the backup");
    // To clients that were ahead of the backup time does not go back.
    let mut wire = Wire::connect(ensemble.address(0).unwrap(), &wire.session(), TERMS)
        .or_else(|_| Wire::connect(ensemble.address(0).unwrap(), &Session::default(), TERMS))
        .unwrap();
    create(&mut wire, written + 1).unwrap();
    assert!(wire.session().last_zxid() >> 32 > (last >> 32) + 60_000);
    for index in [1, 2] {
        ensemble.enlist(index).unwrap();
    }
    ensemble.switch(&[0, 1, 2]).unwrap();
    for index in 0..3 {
        assert_eq!(count_on(ensemble.address(index).unwrap()), restored + 1, "member {index}");
    }
}
