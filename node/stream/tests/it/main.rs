//! The engine with the real files of `pharos-connect`.

mod by_hand;
