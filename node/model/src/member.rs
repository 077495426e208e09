//! A member: the shipped core, its disk, and a state on its way into the store.
//!
//! Owns how a core is started and what time is to it. Must not know the other members. Invariant: between
//! two steps of the model the core has nothing left to say, and has forgotten what has no say.

use crate::bounds::{Bounds, Canvassing};
use crate::disk::Disk;
use bytes::Bytes;
use pharos_paxos::{Ballot, Config, EntryKind, MemberId, Membership, Millis, Paxos, Role, Slot};

/// What a core is told that is neither a message nor a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nudge {
    /// Time passes beyond every deadline.
    Timeout,
    /// Time passes for which a leader beats its heart and loses its patience, and keeps its office.
    Beat,
    /// A value is proposed.
    Propose(u8),
    /// A read is asked.
    Read(u64),
    /// Leadership is to be handed over.
    Transfer(MemberId),
}

/// A state from the leader that waits for this member's store.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Arriving {
    pub(crate) upto: Slot,
    pub(crate) complete: Option<Ballot>,
    pub(crate) voters: Membership,
    /// The store has been given it: what was promised for its sake is durable.
    pub(crate) given: bool,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Member {
    pub(crate) core: Paxos,
    pub(crate) disk: Disk,
    pub(crate) arriving: Option<Arriving>,
    /// Starts of the process, where the numbers of its requests matter.
    starts: u64,
}

const HEARTBEAT: Millis = Millis(50);
const ELECTION: Millis = Millis(500);
/// Four heartbeats at least, after which what was sent is taken as lost, and less than an election timeout.
const BEAT: u64 = 250;

fn config(bounds: &Bounds, place: usize, membership: Membership, seed: u64) -> Config {
    let mut config = Config::new(id(place), membership, seed);
    config.heartbeat = HEARTBEAT;
    config.election = ELECTION;
    config.plant = bounds.plant;
    if bounds.chunks {
        config.chunk_bytes = 1;
    }
    config
}

/// As `Replica::start`.
fn start(bounds: &Bounds, place: usize, disk: &Disk, seed: u64) -> Paxos {
    let founding = Membership::founding(bounds.founders());
    let (recovered, voters, install) = disk.recovered(founding);
    let mut core = Paxos::new(config(bounds, place, voters, seed), recovered, Millis(0));
    if let Some(upto) = install {
        core.install(upto, None, &disk.voters);
    }
    core.set_learners(bounds.learners());
    core
}

/// The id of the member at that place.
pub(crate) fn id(place: usize) -> MemberId {
    MemberId(place as u32 + 1)
}

/// The place of the member with that id.
pub(crate) fn place(id: MemberId) -> usize {
    id.0 as usize - 1
}

impl Member {
    pub(crate) fn founded(bounds: &Bounds, place: usize) -> Self {
        let founders = Membership::founding(bounds.founders());
        let founds = founders.has(id(place));
        let disk = if founds { Disk::founded(founders) } else { Disk::blank(founders) };
        let core = start(bounds, place, &disk, 0);
        Self { core, disk, arriving: None, starts: 0 }
    }

    /// The process dies and starts again from what its disk holds. A member that stays down for a while is
    /// one that nobody hears and that hears nobody meanwhile.
    pub(crate) fn crash(&mut self, bounds: &Bounds, place: usize, survive: usize) {
        self.disk.crash(survive);
        self.arriving = None;
        if bounds.reads > 0 {
            self.starts += 1;
        }
        self.core = start(bounds, place, &self.disk, self.starts);
    }

    /// Whether a core would take the nudge.
    pub(crate) fn takes(&self, nudge: Nudge) -> bool {
        match nudge {
            Nudge::Timeout => true,
            Nudge::Beat => !matches!(self.core.role(), Role::Follower { .. }),
            Nudge::Propose(_) | Nudge::Transfer(_) => self.core.can_propose(),
            Nudge::Read(_) => self.core.leader().is_some(),
        }
    }

    pub(crate) fn nudge(&mut self, nudge: Nudge) {
        let now = self.core.now().0;
        match nudge {
            Nudge::Timeout => self.core.tick(Millis(now + 2 * ELECTION.0)),
            Nudge::Beat => self.core.tick(Millis(now + BEAT)),
            Nudge::Propose(value) => {
                let payload = Bytes::copy_from_slice(&[b'a' + value]);
                self.core.propose(EntryKind::Commands, payload).expect("it was asked whether it can");
            }
            Nudge::Read(ctx) => self.core.read_index(ctx),
            Nudge::Transfer(to) => self.core.transfer(to),
        }
    }

    /// What can be flushed, and then trimmed: what is chosen and durable here.
    pub(crate) fn flushable(&self) -> Slot {
        self.core.committed().min(self.core.durable())
    }

    /// Whether that is news to a store that waits for no other state.
    pub(crate) fn trims(&self) -> bool {
        let upto = self.flushable();
        self.arriving.is_none() && upto >= self.disk.stored && upto > self.disk.trimmed
    }

    /// Forgets what has no say in what the core does next. Sound, because time moves by [`Nudge`] alone: no
    /// follower's clock ever stands between now and its deadline, and no candidate's comes near its own;
    /// and because no canvass asks who was heard when, unless members are asked.
    pub(crate) fn forget(&mut self, bounds: &Bounds) {
        self.core.forget();
        if bounds.canvassing == Canvassing::Granted {
            self.core.forget_contacts();
        }
    }
}
