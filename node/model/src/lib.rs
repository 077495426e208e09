//! An exhaustive model check of the shipped consensus core.
//!
//! Owns disks, a network, crashes and time around `pharos-paxos`, which it runs exactly as it ships, and
//! lets every one of their choices be made in every order. Must not know a replica, a socket or a file.
//! Invariant: a configuration is exhausted or the report says that it is not.
//!
//! # What keeps it small, and why nothing is missed by it
//!
//! - *The network is a set* ([`Wire::Repeats`]): a message that was sent can arrive in every later state. A
//!   lost one never does; order and repetition are free. What a core says a second time adds no state.
//! - *Time is two steps* (`member::Nudge`). A timeout lies beyond every deadline that a core can have; a
//!   beat lies beyond every wait of a leader or candidate short of one. So a core's deadline, and how old
//!   exactly what it remembers is, decide nothing, and the core forgets them after each step
//!   (`Paxos::forget`), together with the count of its writes and its draws. What is forgotten is put to a
//!   fixed value in the state itself, not only in its fingerprint: what the checker runs is what it hashed.
//! - *A canvass is granted* ([`Canvassing::Granted`]), but for the configuration that asks: a member may
//!   stand at any time, which is more than the protocol lets it do.
//! - *A crash and the restart are one step*: a member that is down is one that hears nobody for a while.
//! - *Each input is drained before the next.* Production drains after a turn with several inputs; then
//!   several inputs share one write and one message. The simulator covers that.
//!
//! Members are not interchangeable: a ballot's order, and who is taken among equals, depend on the id. So
//! there is no symmetry to reduce by, but for configurations that begin with the first ballot led.

mod bounds;
mod broken;
mod check;
mod configurations;
mod dead;
mod disk;
mod member;
mod model;
mod net;
mod properties;
mod shared;
mod story;
mod world;

pub use bounds::{Bounds, Canvassing, Heartbeats, Start};
pub use broken::Broken;
pub use check::{Counterexample, Report, check};
pub use configurations::{LARGE, SMALL};
pub use model::{Action, PaxosModel};
pub use net::{Envelope, Order, Speech};
pub use pharos_paxos::Plant;
pub use shared::Shared;
pub use world::World;
