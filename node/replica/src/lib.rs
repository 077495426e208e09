//! pharos-replica.
