//! pharos-e2e.
