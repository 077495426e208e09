//! pharos-beam.
