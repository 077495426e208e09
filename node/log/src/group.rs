//! The payload of a group: length-prefixed records.
//!
//! Owns the encoding of operations. The numbers here are on disk: they are never given another meaning.
//!
//! ```text
//! group  = length u32 of what follows, last slot before the group u64, records
//! record = length u32 of what follows, kind u8, body        (all numbers little endian)
//! ```

use crate::sector::{SegmentNo, sectors_for};
use bytes::{Buf, BufMut, Bytes};
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, HardState, LogOp, MAX_ENTRY_BYTES, MemberId, Slot};

const TRUNCATE: u8 = 1;
const APPEND: u8 = 2;
const ACCEPTED: u8 = 3;
const PROMISED: u8 = 4;
const COMMITTED: u8 = 5;
const FLOOR: u8 = 6;
const RESET: u8 = 7;

/// Everything of an appended entry but its payload.
const APPEND_HEAD: usize = 8 + BALLOT + 1;
const BALLOT: usize = 16;

/// One record of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// An operation of the caller.
    Op(LogOp),
    /// Segments below this one are no longer part of the log.
    Floor(SegmentNo),
}

/// Why an intact payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// A record or entry kind that this build does not know.
    Unknown(u8),
    /// Lengths that do not add up.
    Malformed,
}

/// The payload of a group of operations, after the log's present end.
pub(crate) fn encode(end: Slot, ops: &[LogOp]) -> Vec<u8> {
    let size: usize = 12 + ops.iter().map(size_of_op).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    out.put_u32_le(u32::try_from(size - 4).expect("a group is smaller than 4 GiB"));
    out.put_u64_le(end.0);
    for op in ops {
        put_op(&mut out, op);
    }
    debug_assert_eq!(out.len(), size);
    out
}

/// The payload of the group that gives up the segments below one.
pub(crate) fn encode_floor(end: Slot, floor: SegmentNo) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.put_u32_le(8 + 4 + 5);
    out.put_u64_le(end.0);
    out.put_u32_le(5);
    out.put_u8(FLOOR);
    out.put_u32_le(floor.0);
    out
}

/// The last slot before the group whose first sector has this payload.
pub(crate) fn end_before(first_sector: &[u8]) -> Slot {
    let mut bytes = first_sector.get(4..).unwrap_or_default();
    Slot(bytes.try_get_u64_le().unwrap_or_default())
}

/// Cuts the filler after the last record off the payloads of a group's sectors.
pub(crate) fn unpad(mut sectors: Bytes, count: usize) -> Option<Bytes> {
    let length = usize::try_from((&sectors[..]).try_get_u32_le().ok()?).ok()?.checked_add(4)?;
    if length < 12 || sectors_for(length) != count {
        return None;
    }
    sectors.truncate(length);
    Some(sectors)
}

/// The last slot before the group, and its records.
pub(crate) fn decode(mut payload: Bytes) -> Result<(Slot, Vec<Record>), Undecodable> {
    payload.try_get_u32_le().map_err(malformed)?;
    let end = Slot(payload.try_get_u64_le().map_err(malformed)?);
    let mut records = Vec::new();
    while payload.has_remaining() {
        let length = payload.try_get_u32_le().map_err(malformed)? as usize;
        if length > payload.remaining() {
            return Err(Undecodable::Malformed);
        }
        records.push(decode_record(payload.split_to(length))?);
    }
    Ok((end, records))
}

fn decode_record(mut body: Bytes) -> Result<Record, Undecodable> {
    let record = match body.try_get_u8().map_err(malformed)? {
        TRUNCATE => Record::Op(LogOp::Truncate { from: get_slot(&mut body)? }),
        APPEND => Record::Op(LogOp::Append(get_entry(&mut body)?)),
        ACCEPTED => Record::Op(LogOp::Accepted(get_ballot(&mut body)?)),
        PROMISED => Record::Op(LogOp::Promised(get_ballot(&mut body)?)),
        COMMITTED => Record::Op(LogOp::Committed(get_slot(&mut body)?)),
        RESET => Record::Op(LogOp::Reset { after: get_slot(&mut body)? }),
        FLOOR => Record::Floor(SegmentNo(body.try_get_u32_le().map_err(malformed)?)),
        kind => return Err(Undecodable::Unknown(kind)),
    };
    if body.has_remaining() { Err(Undecodable::Malformed) } else { Ok(record) }
}

fn size_of_op(op: &LogOp) -> usize {
    5 + match op {
        LogOp::Truncate { .. } | LogOp::Reset { .. } | LogOp::Committed(_) => 8,
        LogOp::Append(entry) => APPEND_HEAD + entry.payload.len(),
        LogOp::Accepted(_) | LogOp::Promised(_) => BALLOT,
    }
}

fn put_op(out: &mut Vec<u8>, op: &LogOp) {
    out.put_u32_le(u32::try_from(size_of_op(op) - 4).expect("a record is smaller than 4 GiB"));
    match op {
        LogOp::Truncate { from } => {
            out.put_u8(TRUNCATE);
            out.put_u64_le(from.0);
        }
        LogOp::Reset { after } => {
            out.put_u8(RESET);
            out.put_u64_le(after.0);
        }
        LogOp::Append(entry) => {
            out.put_u8(APPEND);
            out.put_u64_le(entry.slot.0);
            put_ballot(out, entry.ballot);
            out.put_u8(entry.kind as u8);
            out.put_slice(&entry.payload);
        }
        LogOp::Accepted(ballot) => {
            out.put_u8(ACCEPTED);
            put_ballot(out, *ballot);
        }
        LogOp::Promised(ballot) => {
            out.put_u8(PROMISED);
            put_ballot(out, *ballot);
        }
        LogOp::Committed(slot) => {
            out.put_u8(COMMITTED);
            out.put_u64_le(slot.0);
        }
    }
}

fn get_entry(body: &mut Bytes) -> Result<Entry, Undecodable> {
    let slot = get_slot(body)?;
    let ballot = get_ballot(body)?;
    let number = body.try_get_u8().map_err(malformed)?;
    let kind = EntryKind::from_u8(number).ok_or(Undecodable::Unknown(number))?;
    let payload = body.split_to(body.len());
    if payload.len() > MAX_ENTRY_BYTES {
        Err(Undecodable::Malformed)
    } else {
        Ok(Entry { slot, ballot, kind, payload })
    }
}

/// Writes a hard state; its length is fixed.
pub(crate) fn put_hard(out: &mut Vec<u8>, hard: &HardState) {
    put_ballot(out, hard.promised);
    put_ballot(out, hard.accepted);
    out.put_u64_le(hard.committed.0);
}

/// Reads what [`put_hard`] wrote.
pub(crate) fn get_hard(body: &mut impl Buf) -> Result<HardState, Undecodable> {
    Ok(HardState { promised: get_ballot(body)?, accepted: get_ballot(body)?, committed: get_slot(body)? })
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.put_u32_le(ballot.config.0);
    out.put_u64_le(ballot.round);
    out.put_u32_le(ballot.member.0);
}

fn get_ballot(body: &mut impl Buf) -> Result<Ballot, Undecodable> {
    Ok(Ballot {
        config: ConfigNo(body.try_get_u32_le().map_err(malformed)?),
        round: body.try_get_u64_le().map_err(malformed)?,
        member: MemberId(body.try_get_u32_le().map_err(malformed)?),
    })
}

fn get_slot(body: &mut impl Buf) -> Result<Slot, Undecodable> {
    body.try_get_u64_le().map(Slot).map_err(malformed)
}

fn malformed(_: bytes::TryGetError) -> Undecodable {
    Undecodable::Malformed
}
