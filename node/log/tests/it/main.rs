//! The log on a disk in memory: crashes, damage, trimming, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod crash;
mod damage;
mod files;
mod kit;
mod layout;
#[cfg(feature = "planted-bugs")]
mod planted;
mod repair;
