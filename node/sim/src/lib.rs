//! pharos-sim.
