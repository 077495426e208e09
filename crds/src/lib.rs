//! pharos-crds.
