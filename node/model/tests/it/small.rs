//! The configurations themselves; `./x model` exhausts all of them.

use pharos_model::{Bounds, LARGE, SMALL, check};
use std::collections::BTreeSet;

fn named(name: &str) -> Bounds {
    *SMALL.iter().find(|b| b.name == name).expect("the list has it")
}

#[test]
fn quick_configurations_are_exhausted_and_meet_what_they_should() {
    for name in ["one member", "a leader wins back who lags or crashed"] {
        let bounds = named(name);
        let report = check(bounds, 1_000_000);
        assert!(report.exhausted, "{name}: {:?}", report.broken);
        assert_eq!(report.missing(&bounds), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_configuration_has_the_same_states_each_time() {
    let sizes = || {
        let report = check(named("a leader wins back who lags or crashed"), 1_000_000);
        (report.unique, report.steps, report.depth)
    };
    assert_eq!(sizes(), sizes());
}

#[test]
fn a_configuration_that_is_cut_off_is_not_exhausted() {
    assert!(!check(named("rivals"), 5_000).exhausted);
}

#[test]
fn every_configuration_has_a_name_of_its_own_and_must_meet_something() {
    let all: Vec<_> = SMALL.iter().chain(LARGE).collect();
    assert_eq!(all.iter().map(|b| b.name).collect::<BTreeSet<_>>().len(), all.len());
    assert!(all.iter().all(|b| !b.meets.is_empty() && b.beats <= 2));
}
