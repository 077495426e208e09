//! pharos-stream.
