//! An exhaustive model check of the shipped consensus core.
//!
//! Owns disks, a network, crashes and time around `pharos-paxos`, which it runs exactly as it ships, and
//! lets every one of their choices be made in every order. Must not know a replica, a socket or a file.
//! Invariant: a configuration is exhausted or the report says that it is not.
//!
//! # What keeps it small, and why nothing is missed by it
//!
//! - *The network is a set.* A message that is never delivered is a lost one; any message overtakes any other
//!   ([`Order::Any`]), or any but those of its connection ([`Order::Lanes`]), which is what production has. A
//!   message arrives twice as often as [`Bounds::repeats`] allows.
//! - *Messages that nobody will ever heed are lost at once* (`dead`), which changes what no member does. A test
//!   there compares all states of the members with and without.
//! - *Time is two steps* (`member::Nudge`). A timeout lies beyond every deadline that a core can have; a beat
//!   lies beyond every wait of a leader or candidate short of one. So a core's deadline, and how old exactly
//!   what it remembers is, decide nothing, and the core forgets them after each step
//!   (`pharos_paxos::Paxos::forget`), with the count of its writes and draws. They are put to fixed values in
//!   the state itself, not only in its fingerprint: what runs is what was hashed. A test walks a core that
//!   forgets beside one that remembers.
//! - *A canvass is granted* ([`Canvassing::Granted`]), but for the configuration that asks: a member may stand
//!   at any time, which is more than the protocol lets it do. In that configuration every canvass of a process
//!   has the same number, which again is more: an old answer counts for a new one.
//! - *A crash and the restart are one step*: a member that is down is one that hears nobody for a while.
//! - *Each input is drained before the next.* Production drains after a turn with several inputs, which then
//!   share one write and one message. That is left to the simulator.
//!
//! Members are not interchangeable, for a ballot's order and the choice among equals depend on their ids: there
//! is no symmetry to reduce by. Where only some members may time out, the others are simply slower.

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
