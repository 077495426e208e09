//! The fuzzer: libFuzzer around the target that `PHAROS_FUZZ_TARGET` names. `./x fuzz` builds and runs it.
#![no_main]

use std::sync::OnceLock;

use pharos_fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("PHAROS_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.into_iter().find(|target| target.name == name);
        TARGET.set(target.expect("PHAROS_FUZZ_TARGET names a target")).expect("set once");
    },
    |data: &[u8]| {
        (TARGET.get().expect("set before the first input").run)(data);
    }
);
