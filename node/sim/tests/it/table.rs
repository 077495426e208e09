//! `docs/planted-bugs.md` and the bugs that can be planted say the same.

use crate::planted::TRIED;
use pharos_sim::{CorePlant, LogPlant, Plant};
use std::collections::BTreeSet;

/// Columns behind the bug, what it is and where it is known from: one for each checker.
const CHECKERS: usize = 4;

/// The rows: the bug, and what each checker has to say of it.
fn rows() -> Vec<(String, Vec<String>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/planted-bugs.md");
    let text = std::fs::read_to_string(path).expect("the table is there");
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.map(|mut row| (row[0].trim_matches('`').to_owned(), row.split_off(row.len() - CHECKERS))).collect()
}

#[test]
fn every_bug_that_can_be_planted_stands_in_the_table_once_and_nothing_else_does() {
    let core = CorePlant::ALL.iter().map(|plant| format!("{plant:?}"));
    let own = Plant::OWN.iter().map(|plant| format!("{plant:?}"));
    let log = LogPlant::ALL.iter().map(|plant| format!("{plant:?}"));
    let mut planted: Vec<_> = core.chain(own).chain(log).collect();
    let mut told: Vec<_> = rows().into_iter().map(|(bug, _)| bug).collect();
    planted.sort();
    told.sort();
    assert_eq!(told, planted);
    assert!(told.len() >= 25, "{}", told.len());
}

#[test]
fn every_bug_is_found_by_a_checker() {
    for (bug, checkers) in rows() {
        let seen = |cell: &String| cell.chars().any(|c| c.is_ascii_digit());
        assert!(checkers.iter().any(seen), "{bug} is found by nobody");
    }
}

#[test]
fn the_simulator_tries_what_the_table_says_and_every_bug_of_a_member() {
    let name = |plant: &Plant| match plant {
        Plant::Core(core) => format!("{core:?}"),
        own => format!("{own:?}"),
    };
    let tried: BTreeSet<_> = TRIED.iter().map(name).collect();
    let told: BTreeSet<_> = rows().into_iter().filter(|(_, c)| c[0] != "-").map(|(bug, _)| bug).collect();
    assert_eq!(tried, told);
    assert!(Plant::OWN.iter().all(|plant| TRIED.contains(plant)));
}
