//! pharos-jute.
