//! Known bugs are found: `cargo test -p pharos-log --features planted-bugs`.

use crate::crash::{Coverage, lives};
use crate::damage::flip_bits;
use crate::kit::CONFIG;
use crate::repair;
use pharos_log::Plant;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of the crash tests within which a bug must show.
const SEEDS: u64 = 1000;

fn found_by_crashes(plant: Plant) -> Option<u64> {
    (0..SEEDS).find(|seed| catch_unwind(|| lives(*seed, CONFIG, plant, &mut Coverage::default())).is_err())
}

fn found_by_repairs(plant: Plant) -> Option<u64> {
    let mut runs = repair::Runs::default();
    (0..SEEDS).find(|seed| catch_unwind(AssertUnwindSafe(|| repair::run(*seed, plant, &mut runs))).is_err())
}

#[test]
fn every_planted_bug_is_found() {
    for &plant in Plant::ALL {
        if plant == Plant::CutsCorruptTail {
            assert!(catch_unwind(|| flip_bits(plant)).is_err(), "{plant:?} is not found");
        } else {
            let by_repairs = || found_by_repairs(plant);
            let seed = found_by_crashes(plant).or_else(by_repairs);
            println!("{plant:?}: seed {seed:?}");
            assert!(seed.is_some(), "{plant:?} is not found");
        }
    }
}
