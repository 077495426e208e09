//! pharos-log.
