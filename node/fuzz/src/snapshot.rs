//! A state on its way to a member that lacks it: what arrives damaged is refused, what is taken over is the sender's.

use crate::entries::is_of_later_version;
use crate::history::{Step, steps};
use crate::machine::{Machine, founding, member};
use crate::rows::{Damage, damages, is_slow};
use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use pharos_paxos::{EntryKind, MemberId, Slot};
use pharos_replica::{Change, Levels, OWN_PREFIX, Output, SnapshotStep};
use pharos_znode::State;

const LEADER: MemberId = MemberId(1);
const JOINER: MemberId = MemberId(2);
const ROUNDS: usize = 100;

pub(crate) fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok((damages, bytes)) = damage(&mut u) else { return };
    let intact = damages.is_empty() && bytes.is_empty();
    let mut leader = leader(&steps(&mut u));
    let mut joiner = Machine::join(JOINER.0, &founding(1));
    joiner.start();
    leader.replica().peer_up(JOINER, 1, Levels::KNOWN);
    joiner.replica().peer_up(LEADER, 1, Levels::KNOWN);
    let mut transfer = Transfer { damages, bytes, sent: None, given: Vec::new(), rows: 0 };
    let Some(()) = transfer.run(&mut leader, &mut joiner) else {
        assert!(!intact, "an intact state is taken");
        return;
    };
    let taken = joiner.replica().digest();
    assert_eq!(Some(taken), transfer.sent, "it is the sender's state");
    // The store has it too.
    joiner.stop();
    joiner.start();
    assert_eq!(joiner.replica().digest(), taken);
}

/// Bytes by their places.
type Strays = Vec<(u16, u8)>;

/// What befalls the rows, and the bytes of the frames that carry them.
fn damage(u: &mut Unstructured<'_>) -> Result<(Vec<Damage>, Strays)> {
    let damages = damages(u)?;
    let bytes = (0..u.int_in_range(0..=3)?).map(|_| u.arbitrary()).collect::<Result<_>>()?;
    Ok((damages, bytes))
}

/// A member that leads alone, has applied the history and flushed it, and feeds a second one.
fn leader(steps: &[Step]) -> Machine {
    let mut leader = Machine::found(LEADER.0, &founding(1));
    let entry = |step: &Step| match step {
        Step::EpochStart => Some((EntryKind::EpochStart, Bytes::new())),
        Step::Commands(payload) if is_of_later_version(payload) => None,
        Step::Commands(payload) => Some((EntryKind::Commands, payload.clone())),
        Step::Members(_) | Step::Restore => None,
    };
    leader.choose(&steps.iter().filter_map(entry).collect::<Vec<_>>());
    leader.start();
    leader.lead();
    leader.replica().change_members(&Change::Add(member(JOINER.0))).expect("there is room");
    leader.turn(2_000);
    leader
}

struct Transfer {
    damages: Vec<Damage>,
    bytes: Strays,
    /// Of which slot the state is, and its digest.
    sent: Option<(Slot, Option<u64>)>,
    /// The rows as they are sent, and their bytes.
    given: Vec<(Bytes, Bytes)>,
    rows: usize,
}

impl Transfer {
    /// Until the state is taken over, or refused.
    fn run(&mut self, leader: &mut Machine, joiner: &mut Machine) -> Option<()> {
        for _ in 0..ROUNDS {
            for output in leader.turn(10) {
                match output {
                    Output::Snapshot { transfer, step } => self.give(leader, transfer, step),
                    Output::Peer { frame, .. } => {
                        let frame = self.damaged(frame);
                        joiner.replica().peer_frame(LEADER, frame).ok()?;
                    }
                    _ => {}
                }
            }
            for output in joiner.turn(10) {
                if let Output::Peer { frame, .. } = output {
                    leader.replica().peer_frame(JOINER, frame).expect("an intact frame");
                }
            }
            if joiner.refused {
                return None;
            }
            if joiner.replica().status().installed > 0 {
                return Some(());
            }
        }
        None
    }

    fn give(&mut self, leader: &mut Machine, transfer: u64, step: SnapshotStep) {
        if step == SnapshotStep::Open {
            self.open(leader);
        }
        leader.give(transfer, step, &mut self.given);
    }

    fn open(&mut self, leader: &Machine) {
        let (slot, mut rows) = leader.rows();
        let state = rows.iter().filter(|(key, _)| key[0] != OWN_PREFIX).cloned();
        let state = State::from_rows(state).expect("a state reads its own rows back");
        self.sent = Some((slot, Some(state.digest())));
        self.damages.drain(..).for_each(|damage| damage.inflict(&mut rows));
        if is_slow(&rows) {
            rows.clear();
        }
        self.rows = rows.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
        self.given = rows;
    }

    /// Only the rows: what comes before them in the frame has the checksum of the frame alone.
    fn damaged(&mut self, frame: Bytes) -> Bytes {
        if self.rows == 0 || frame.len() < self.rows {
            return frame;
        }
        let mut frame = frame.to_vec();
        let from = frame.len() - self.rows;
        for (at, byte) in self.bytes.drain(..) {
            frame[from + usize::from(at) % self.rows] = byte;
        }
        frame.into()
    }
}
