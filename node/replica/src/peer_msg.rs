//! What members say to each other.
//!
//! Owns the frame that wraps the core's messages, forwarded commands and touch reports. Must not know
//! connections. Invariant: every frame carries its version first; a reader refuses what it does not know.

use crate::io::Lane;
use crate::wire::{Reader, WireError};
use bytes::Bytes;
use pharos_paxos::{Ballot, ConfigNo, MemberId, Message, Slot};
use pharos_znode::SessionId;
use thiserror::Error;

const VERSION: u8 = 1;

/// Why a peer's frame could not be read.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The envelope is malformed.
    #[error("malformed peer frame: {0}")]
    Wire(#[from] WireError),
    /// The rows of a state make no state.
    #[error("snapshot: {0}")]
    Rows(pharos_znode::RowError),
    /// The core's message is malformed.
    #[error("malformed consensus message: {0}")]
    Message(#[from] pharos_paxos::DecodeError),
}

/// A frame between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerMsg {
    /// A message of the consensus core.
    Paxos(Message),
    /// Commands of the sender's clients, for the leader of this ballot.
    Forward { ballot: Ballot, stream: u64, seq: u64, count: u32, commands: Bytes },
    /// The stream has a gap or came to the wrong member; nothing of it is taken any more.
    ForwardBroken { stream: u64 },
    /// The sessions whose clients have spoken since the last report.
    Touch { report: u64, sessions: Vec<SessionId> },
    /// A quorum confirmed the leader after it had received the report; it has forwarded frames of the
    /// stream below `received`.
    TouchAck { report: u64, stream: u64, received: u64 },
    /// A part of the state as of `upto`, for a follower that lacks what the leader has trimmed; complete if
    /// it includes the leader's own first entry. `parts` is how many there are, in the last one at least; in
    /// others it may be 0.
    Snapshot { ballot: Ballot, upto: Slot, complete: bool, part: u32, parts: u32, rows: Bytes },
    /// The parts below `next` have come.
    SnapshotAck { upto: Slot, next: u32 },
    /// The digest of the sender's state after the slot, for the leader.
    Digest { slot: Slot, version: u8, digest: u64 },
    /// The leader says that the receiver's digest of that slot was not that of a majority.
    Diverged { slot: Slot },
    /// The sender's state is wrong: it needs that of the leader, not older than what it has applied.
    NeedState { applied: Slot },
    /// The sender's disk is full: it is no heir.
    Full,
}

impl PeerMsg {
    /// The connection it travels on.
    pub(crate) fn lane(&self) -> Lane {
        match self {
            Self::Paxos(message) if message.is_bulk() => Lane::Bulk,
            Self::Forward { .. } | Self::Snapshot { .. } => Lane::Bulk,
            _ => Lane::Control,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, self.tag()];
        match self {
            Self::Paxos(message) => message.encode(&mut out),
            Self::Forward { ballot, stream, seq, count, commands } => {
                put_ballot(&mut out, *ballot);
                put_u64s(&mut out, &[*stream, *seq]);
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(commands);
            }
            Self::ForwardBroken { stream } => put_u64s(&mut out, &[*stream]),
            Self::Touch { report, sessions } => {
                put_u64s(&mut out, &[*report]);
                out.extend_from_slice(&(sessions.len() as u32).to_le_bytes());
                sessions.iter().for_each(|s| out.extend_from_slice(&s.0.to_le_bytes()));
            }
            Self::TouchAck { report, stream, received } => put_u64s(&mut out, &[*report, *stream, *received]),
            Self::Snapshot { ballot, upto, complete, part, parts, rows } => {
                put_ballot(&mut out, *ballot);
                put_u64s(&mut out, &[upto.0]);
                out.push(u8::from(*complete));
                out.extend_from_slice(&part.to_le_bytes());
                out.extend_from_slice(&parts.to_le_bytes());
                out.extend_from_slice(rows);
            }
            Self::SnapshotAck { upto, next } => {
                put_u64s(&mut out, &[upto.0]);
                out.extend_from_slice(&next.to_le_bytes());
            }
            Self::Digest { slot, version, digest } => {
                put_u64s(&mut out, &[slot.0]);
                out.push(*version);
                put_u64s(&mut out, &[*digest]);
            }
            Self::Diverged { slot } => put_u64s(&mut out, &[slot.0]),
            Self::NeedState { applied } => put_u64s(&mut out, &[applied.0]),
            Self::Full => {}
        }
        out.into()
    }

    pub(crate) fn decode(frame: Bytes) -> Result<Self, PeerError> {
        let mut r = Reader::new(frame);
        let version = r.u8("peer frame version")?;
        if version != VERSION {
            return Err(WireError::Invalid { field: "peer frame version", value: u64::from(version) }.into());
        }
        let tag = r.u8("peer frame kind")?;
        let message = match tag {
            1 => return Ok(Self::Paxos(Message::decode(&r.rest())?)),
            2 => return Ok(read_forward(r)?),
            3 => Self::ForwardBroken { stream: r.u64("stream")? },
            4 => read_touch(&mut r)?,
            5 => Self::TouchAck {
                report: r.u64("report")?,
                stream: r.u64("stream")?,
                received: r.u64("received")?,
            },
            6 => Self::Snapshot {
                ballot: read_ballot(&mut r)?,
                upto: Slot(r.u64("slot")?),
                complete: read_flag(&mut r, "complete")?,
                part: r.u32("part")?,
                parts: r.u32("parts")?,
                rows: r.rest(),
            },
            7 => Self::SnapshotAck { upto: Slot(r.u64("slot")?), next: r.u32("part")? },
            8 => Self::Digest {
                slot: Slot(r.u64("slot")?),
                version: r.u8("digest version")?,
                digest: r.u64("digest")?,
            },
            9 => Self::Diverged { slot: Slot(r.u64("slot")?) },
            10 => Self::NeedState { applied: Slot(r.u64("slot")?) },
            11 => Self::Full,
            _ => return Err(WireError::Invalid { field: "peer frame kind", value: u64::from(tag) }.into()),
        };
        r.end()?;
        Ok(message)
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Paxos(_) => 1,
            Self::Forward { .. } => 2,
            Self::ForwardBroken { .. } => 3,
            Self::Touch { .. } => 4,
            Self::TouchAck { .. } => 5,
            Self::Snapshot { .. } => 6,
            Self::SnapshotAck { .. } => 7,
            Self::Digest { .. } => 8,
            Self::Diverged { .. } => 9,
            Self::NeedState { .. } => 10,
            Self::Full => 11,
        }
    }
}

/// Reads a frame and writes it again: it comes out as it came in, or is refused.
///
/// # Errors
/// When it is no frame between members.
pub fn reread(frame: Bytes) -> Result<Bytes, PeerError> {
    PeerMsg::decode(frame).map(|message| message.encode())
}

fn read_forward(mut r: Reader) -> Result<PeerMsg, WireError> {
    let ballot = read_ballot(&mut r)?;
    let (stream, seq, count) = (r.u64("stream")?, r.u64("seq")?, r.u32("count")?);
    Ok(PeerMsg::Forward { ballot, stream, seq, count, commands: r.rest() })
}

fn read_flag(r: &mut Reader, field: &'static str) -> Result<bool, WireError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(WireError::Invalid { field, value: u64::from(other) }),
    }
}

fn read_ballot(r: &mut Reader) -> Result<Ballot, WireError> {
    Ok(Ballot {
        config: ConfigNo(r.u32("ballot")?),
        round: r.u64("ballot")?,
        member: MemberId(r.u32("ballot")?),
    })
}

fn read_touch(r: &mut Reader) -> Result<PeerMsg, WireError> {
    let report = r.u64("report")?;
    let count = r.count("sessions", 8)?;
    let sessions =
        (0..count).map(|_| Ok(SessionId(r.u64("session")? as i64))).collect::<Result<_, WireError>>()?;
    Ok(PeerMsg::Touch { report, sessions })
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.extend_from_slice(&ballot.config.0.to_le_bytes());
    out.extend_from_slice(&ballot.round.to_le_bytes());
    out.extend_from_slice(&ballot.member.0.to_le_bytes());
}

fn put_u64s(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}
