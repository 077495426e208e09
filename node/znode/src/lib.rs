//! pharos-znode.
