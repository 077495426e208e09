//! pharos-ensemble.
