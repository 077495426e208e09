//! How large a model is.
//!
//! Owns the numbers that make the state space finite, and what each configuration must have met. Knows no
//! state.

use crate::net::Order;
use pharos_paxos::Plant;

/// Where a model begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Every member has the founding entry, and nobody has spoken.
    Founded,
    /// Member 1 leads the first ballot: these members have heard it, synced all and know all that is
    /// committed; everything said to the others is lost.
    Led {
        /// The members, by their ids; 1 is among them.
        heard: &'static [u32],
        /// How many values were proposed and committed.
        values: u8,
    },
}

/// Who is asked before a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canvassing {
    /// A member may stand at any time, as if a majority had just answered that it may. More than what can
    /// happen, and safety does not rest on canvasses.
    Granted,
    /// By the messages of the protocol.
    Asked,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What it is called.
    pub name: &'static str,
    /// How many members.
    pub members: u32,
    /// How often a member's election timeout ends, over all members: each opens a ballot at most.
    pub timeouts: u8,
    /// How many values are proposed.
    pub values: u8,
    /// How often a member crashes, over all members.
    pub crashes: u8,
    /// How often a leader or candidate acts on passing time, over all members. At most two: a candidate's
    /// own deadline must stay out of reach.
    pub beats: u8,
    /// Whether heartbeats and their answers arrive; else all are lost.
    pub heartbeats: bool,
    /// How many reads are asked.
    pub reads: u8,
    /// How often a member flushes its store and trims its log.
    pub trims: u8,
    /// How often a leader is told to hand over.
    pub transfers: u8,
    /// A leader or candidate may step down at any time, as if it heard nobody.
    pub steps_down: bool,
    /// Messages carry one entry each, instead of all.
    pub chunks: bool,
    /// Who may time out, by id; nobody named is everybody.
    pub stand: &'static [u32],
    /// Whether messages overtake each other.
    pub order: Order,
    /// How often a message arrives that will arrive again.
    pub repeats: u8,
    /// Where it begins.
    pub start: Start,
    /// How a member comes to stand.
    pub canvassing: Canvassing,
    /// The known bug the cores have.
    pub plant: Plant,
    /// The situations that must be met.
    pub meets: &'static [&'static str],
}

impl Bounds {
    /// Three founded members, nothing of anything; configurations say what they add.
    pub const NOTHING: Self = Self {
        name: "",
        members: 3,
        timeouts: 0,
        values: 0,
        crashes: 0,
        beats: 0,
        heartbeats: false,
        reads: 0,
        trims: 0,
        transfers: 0,
        steps_down: false,
        chunks: false,
        stand: &[],
        order: Order::Any,
        repeats: 0,
        start: Start::Founded,
        canvassing: Canvassing::Granted,
        plant: Plant::None,
        meets: &[],
    };
}
