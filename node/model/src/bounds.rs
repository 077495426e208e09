//! How large a model is.
//!
//! Owns the numbers that make the state space finite, and what each configuration must have met. Knows no
//! state.

use crate::net::Order;
use pharos_paxos::{MemberId, Plant};
use std::fmt;

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

/// Which heartbeats can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeats {
    /// None.
    Lost,
    /// Those of a leader's rounds after its first: the ones that beats and reads cause.
    Later,
    /// All.
    All,
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
    /// How many of them, the last ones, found nothing: they come with an empty disk and learn.
    pub joiners: u32,
    /// How often a member's election timeout ends, over all members: each opens a ballot at most.
    pub timeouts: u8,
    /// How many values are proposed.
    pub values: u8,
    /// How often a member crashes, over all members.
    pub crashes: u8,
    /// How often a leader or candidate acts on passing time, over all members. At most two: a candidate's
    /// own deadline must stay out of reach.
    pub beats: u8,
    /// Which heartbeats, and answers to them, can arrive.
    pub heartbeats: Heartbeats,
    /// How many reads are asked.
    pub reads: u8,
    /// How often a member flushes its store and trims its log.
    pub trims: u8,
    /// How often a leader is told to hand over.
    pub transfers: u8,
    /// How often a leader is asked for other voters.
    pub reconfigures: u8,
    /// For which voters, by id.
    pub wanted: &'static [&'static [u32]],
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
    /// Messages that nobody will ever heed stay on the way: for the proof that nothing is missed without.
    pub keeps_dead: bool,
    /// How a member comes to stand.
    pub canvassing: Canvassing,
    /// The known bug the cores have.
    pub plant: Plant,
    /// The situations that must be met.
    pub meets: &'static [&'static str],
}

impl Heartbeats {
    /// Whether those of that round can arrive.
    pub(crate) fn arrive(self, round: u64) -> bool {
        match self {
            Self::Lost => false,
            Self::Later => round > 1,
            Self::All => true,
        }
    }
}

impl Bounds {
    /// Who founds.
    pub(crate) fn founders(&self) -> Vec<MemberId> {
        (1..=self.members - self.joiners).map(MemberId).collect()
    }

    /// Who comes later.
    pub(crate) fn learners(&self) -> impl Iterator<Item = MemberId> {
        (self.members - self.joiners + 1..=self.members).map(MemberId)
    }

    /// Three founded members, nothing of anything; configurations say what they add.
    pub const NOTHING: Self = Self {
        name: "",
        members: 3,
        joiners: 0,
        timeouts: 0,
        values: 0,
        crashes: 0,
        beats: 0,
        heartbeats: Heartbeats::Lost,
        reads: 0,
        trims: 0,
        transfers: 0,
        reconfigures: 0,
        wanted: &[],
        steps_down: false,
        chunks: false,
        stand: &[],
        order: Order::Any,
        repeats: 0,
        keeps_dead: false,
        start: Start::Founded,
        canvassing: Canvassing::Granted,
        plant: Plant::None,
        meets: &[],
    };
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = [
            (self.timeouts, "timeouts"),
            (self.values, "values"),
            (self.crashes, "crashes"),
            (self.repeats, "repeated messages"),
            (self.beats, "beats"),
            (self.reads, "reads"),
            (self.trims, "trims"),
            (self.transfers, "hand-overs"),
            (self.reconfigures, "changes of voters"),
        ];
        write!(f, "members {}", self.members)?;
        if self.joiners > 0 {
            write!(f, ", of whom the last {} join", self.joiners)?;
        }
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {what} {count}")?;
        }
        let order = match self.order {
            Order::Any => "any loss and order",
            Order::Lanes => "any loss, order kept",
        };
        let rest = [
            (self.heartbeats == Heartbeats::All, "heartbeats"),
            (self.heartbeats == Heartbeats::Later, "heartbeats but a leader's first"),
            (self.steps_down, "leaders step down"),
            (self.chunks, "one entry a message"),
            (self.canvassing == Canvassing::Asked, "canvasses"),
        ];
        write!(f, "; {order}")?;
        for (_, what) in rest.into_iter().filter(|(is, _)| *is) {
            write!(f, ", {what}")?;
        }
        if !self.wanted.is_empty() {
            write!(f, "; voters wanted {:?}", self.wanted)?;
        }
        if !self.stand.is_empty() {
            write!(f, "; only {:?} stand", self.stand)?;
        }
        match self.start {
            Start::Founded => Ok(()),
            Start::Led { heard, values } => {
                write!(f, "; from 1 leading {heard:?}, values chosen {values}")
            }
        }
    }
}
