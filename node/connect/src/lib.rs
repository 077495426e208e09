//! pharos-connect.
