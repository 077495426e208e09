//! Known bugs are found: `cargo test -p pharos-log --features planted-bugs`.

use crate::crash::{Coverage, lives};
use crate::damage::flip_bits;
use crate::kit::CONFIG;
use pharos_log::Plant;
use std::panic::catch_unwind;

/// Seeds of the crash tests within which a bug must show.
const SEEDS: u64 = 1000;

fn found_by_crashes(plant: Plant) -> Option<u64> {
    (0..SEEDS).find(|seed| catch_unwind(|| lives(*seed, CONFIG, plant, &mut Coverage::default())).is_err())
}

#[test]
fn every_planted_bug_is_found() {
    for &plant in Plant::ALL {
        if plant == Plant::CutsCorruptTail {
            assert!(catch_unwind(|| flip_bits(plant)).is_err(), "{plant:?} is not found");
        } else {
            let seed = found_by_crashes(plant);
            println!("{plant:?}: seed {seed:?}");
            assert!(seed.is_some(), "{plant:?} is not found");
        }
    }
}
