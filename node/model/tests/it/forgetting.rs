//! `Paxos::forget` takes nothing away: two cores get the same inputs, one forgets after each, and both say
//! the same for ever.

use bytes::Bytes;
use pharos_paxos::{
    Ballot, Config, ConfigNo, Entry, EntryKind, HardState, IoId, LogOp, MemberId, Membership, Message,
    Millis, Output, Paxos, Recovered, Role, Slot,
};

const FOUNDING: Ballot = Ballot { config: ConfigNo(1), round: 0, member: MemberId(0) };

/// A core with a memory, its twin without, and what both have written.
struct Twins {
    id: MemberId,
    whole: Paxos,
    forgetful: Paxos,
    issued: u64,
    completed: u64,
    /// Beats since it was a follower: a candidate's deadline must stay out of reach.
    beats: u64,
}

/// What must be equal: all but the numbers of writes and canvasses.
#[derive(Debug, PartialEq)]
enum Said {
    Sent(MemberId, Message),
    Wrote(Vec<LogOp>),
    Other(Output),
}

impl Twins {
    fn founded(id: MemberId) -> Self {
        let voters = (1..=3).map(MemberId).collect();
        let config = Config::new(id, Membership::founding(voters), 7);
        let entry =
            Entry { slot: Slot(1), ballot: FOUNDING, kind: EntryKind::Founding, payload: Bytes::new() };
        let hard = HardState { promised: FOUNDING, accepted: FOUNDING, committed: Slot(1) };
        let recovered = Recovered { hard, trimmed: Slot::ZERO, entries: vec![entry] };
        let whole = Paxos::new(config, recovered, Millis(0));
        Self { id, forgetful: whole.clone(), whole, issued: 0, completed: 0, beats: 0 }
    }

    /// The same input to both; what they say to it.
    fn input(&mut self, whole: impl FnOnce(&mut Paxos), forgetful: impl FnOnce(&mut Paxos)) -> Vec<Said> {
        whole(&mut self.whole);
        forgetful(&mut self.forgetful);
        let said = drain(&mut self.whole);
        assert_eq!(drain(&mut self.forgetful), said, "member {} says the same", self.id);
        self.forgetful.forget();
        self.forgetful.forget_contacts();
        self.issued += said.iter().filter(|s| matches!(s, Said::Wrote(_))).count() as u64;
        said
    }

    fn same(&mut self, input: impl Fn(&mut Paxos)) -> Vec<Said> {
        self.input(&input, &input)
    }

    fn complete(&mut self) -> Vec<Said> {
        if self.completed == self.issued {
            return Vec::new();
        }
        self.completed += 1;
        let io = IoId(self.completed);
        self.input(|c| c.disk_done(io), |c| c.disk_done(IoId(1)))
    }

    fn pass(&mut self, ms: u64) -> Vec<Said> {
        self.same(|c| c.tick(Millis(c.now().0 + ms)))
    }

    fn propose(&mut self) -> Vec<Said> {
        self.same(|c| {
            let value = Bytes::from_static(b"v");
            let _ = c.propose(EntryKind::Commands, value); // Refused by both, or taken by both.
        })
    }

    fn reconfigure(&mut self, voters: &[MemberId]) -> Vec<Said> {
        self.same(|c| {
            let _ = c.reconfigure(voters, b""); // Refused by both, or taken by both.
        })
    }

    fn beat(&mut self) -> Vec<Said> {
        let follows = matches!(self.whole.role(), Role::Follower { .. });
        self.beats = if follows { 0 } else { self.beats + 1 };
        if follows || (self.whole.role() == Role::Candidate && self.beats > 2) {
            Vec::new()
        } else {
            self.pass(250)
        }
    }
}

/// What a core says; its canvass is granted on the spot.
fn drain(core: &mut Paxos) -> Vec<Said> {
    let mut said = Vec::new();
    while let Some(output) = core.next_output() {
        match output {
            Output::Send { to, msg: Message::Canvass { nonce, .. } } => core.recv(to, willing(nonce)),
            Output::Send { to, msg } => said.push(Said::Sent(to, msg)),
            Output::Write { ops, .. } => said.push(Said::Wrote(ops)),
            other => said.push(Said::Other(other)),
        }
    }
    said
}

fn willing(nonce: u64) -> Message {
    let (accepted, promised) = (Ballot::ZERO, Ballot::ZERO);
    let (end, trimmed) = (Slot::ZERO, Slot::ZERO);
    Message::CanvassReply { nonce, willing: true, accepted, end, trimmed, connected: false, promised }
}

/// Numbers below `n`, one after the other; the seed decides them.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Lets time, disks, messages and proposals come in the order that the seed gives; how often a leader rose.
fn walk(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let mut twins: Vec<_> = (1..=3).map(|id| Twins::founded(MemberId(id))).collect();
    let mut wire: Vec<(MemberId, MemberId, Message)> = Vec::new();
    let mut leaders = 0;
    for _ in 0..300 {
        let at = dice.below(3);
        let (mut by, mut said) = (at, Vec::new());
        match dice.below(40) {
            0 => said = twins[at].pass(1000),
            1 => said = twins[at].beat(),
            2 => said = twins[at].propose(),
            3 => said = twins[at].same(|c| c.read_index(7)),
            4 => {
                let voters = [[1, 2], [1, 3], [2, 3]][dice.below(3)].map(MemberId);
                said = twins[at].reconfigure(&voters);
            }
            5..20 => said = twins[at].complete(),
            _ if wire.is_empty() => {}
            kind => {
                let place = dice.below(wire.len());
                let (from, to, msg) = if kind == 20 { wire[place].clone() } else { wire.remove(place) };
                by = to.0 as usize - 1;
                said = twins[by].same(|c| c.recv(from, msg.clone()));
            }
        }
        for one in said {
            match one {
                Said::Sent(to, msg) => wire.push((twins[by].id, to, msg)),
                Said::Other(Output::Role(Role::Leader { .. })) => leaders += 1,
                _ => {}
            }
        }
    }
    leaders
}

#[test]
fn a_core_that_forgets_says_what_one_that_remembers_says() {
    let leaders: usize = (0..3000).map(walk).sum();
    assert!(leaders > 3000, "leaders rose only {leaders} times");
}
