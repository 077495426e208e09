//! An Ensemble whose majority is lost for good goes on from a survivor.

use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::{Session, Terms, Wire};

use crate::members::{count_on, create};

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
