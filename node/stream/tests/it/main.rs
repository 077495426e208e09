//! The engine with the real files of `pharos-connect`.

mod by_hand;
mod recovery;
mod support;
mod yaml;
