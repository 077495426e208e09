//! pharos-store.
