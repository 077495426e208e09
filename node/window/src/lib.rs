//! pharos-window.
