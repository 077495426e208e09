//! The segment header: the first block of a segment, eight equal copies, one in each sector.
//!
//! A header holds everything that replay of its segment needs from earlier ones, hard state included, so that
//! trimming never copies anything. Magic, format, minimum reader and the checksum keep their places in every
//! future format.

use crate::disk::{BLOCK, SECTOR};
use crate::group::{get_hard, put_hard};
use crate::sector::{Chain, GroupNo, SegmentNo};
use bytes::{Buf, BufMut, Bytes};
use pharos_paxos::{HardState, Slot};

/// The format this build writes.
pub const FORMAT: u16 = 1;
const MAGIC: &[u8; 8] = b"PHAROSWL";
const CRC_AT: usize = SECTOR - 4;

/// The beginning of one use of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: [u8; 16],
    pub(crate) segment: SegmentNo,
    /// The oldest segment that was still part of the log.
    pub(crate) floor: SegmentNo,
    /// The first group of the segment, and the chain before it.
    pub(crate) first: GroupNo,
    pub(crate) before: Chain,
    /// The log's last slot and the hard state when the segment began.
    pub(crate) end: Slot,
    pub(crate) hard: HardState,
    /// The length of the file, in bytes: one that is shorter was cut. 0 from a build that did not say.
    pub(crate) length: u64,
}

/// What the first block of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A header; `healthy` when all copies agree.
    Header { header: Header, healthy: bool },
    /// Never used.
    Blank,
    /// Something else.
    Unreadable,
    /// An intact header of a format that this build must not read.
    Unknown { format: u16, min_reader: u16 },
    /// An intact header of another volume.
    Foreign { identity: [u8; 16] },
}

impl Header {
    pub(crate) fn encode(&self) -> Bytes {
        let mut copy = Vec::with_capacity(SECTOR);
        copy.put_slice(MAGIC);
        copy.put_u16_le(FORMAT);
        copy.put_u16_le(FORMAT); // The oldest reader that may read it.
        copy.put_slice(&self.identity);
        copy.put_u32_le(self.segment.0);
        copy.put_u32_le(self.floor.0);
        copy.put_u64_le(self.first.0);
        copy.put_u32_le(self.before.0);
        copy.put_u64_le(self.end.0);
        put_hard(&mut copy, &self.hard);
        copy.put_u64_le(self.length);
        copy.resize(CRC_AT, 0);
        copy.put_u32_le(crc32c::crc32c(&copy));
        Bytes::from(copy.repeat(BLOCK / SECTOR))
    }

    /// Reads a first block. A header that was being replaced when the machine stopped shows copies of two
    /// uses; the later one wins, for the earlier one was given up before the replacement began.
    pub(crate) fn read(block: &[u8], identity: [u8; 16]) -> Found {
        if block.iter().all(|byte| *byte == 0) {
            return Found::Blank;
        }
        let copies: Vec<Found> = block.chunks(SECTOR).map(|copy| read_copy(copy, identity)).collect();
        if let Some(refusal) =
            copies.iter().find(|copy| matches!(copy, Found::Unknown { .. } | Found::Foreign { .. }))
        {
            return refusal.clone();
        }
        let headers = copies.iter().filter_map(|copy| match copy {
            Found::Header { header, .. } => Some(*header),
            _ => None,
        });
        match headers.clone().max_by_key(|header| header.segment) {
            Some(header) => {
                let healthy = headers.filter(|copy| *copy == header).count() == BLOCK / SECTOR;
                Found::Header { header, healthy }
            }
            None => Found::Unreadable,
        }
    }
}

fn read_copy(copy: &[u8], identity: [u8; 16]) -> Found {
    let (body, crc) = copy.split_at(CRC_AT);
    if !body.starts_with(MAGIC) || crc32c::crc32c(body).to_le_bytes() != crc {
        return Found::Unreadable;
    }
    let mut body = &body[MAGIC.len()..];
    let (format, min_reader) = (body.get_u16_le(), body.get_u16_le());
    if min_reader > FORMAT {
        return Found::Unknown { format, min_reader };
    }
    let mut volume = [0; 16];
    body.copy_to_slice(&mut volume);
    if volume != identity {
        return Found::Foreign { identity: volume };
    }
    let header = Header {
        identity,
        segment: SegmentNo(body.get_u32_le()),
        floor: SegmentNo(body.get_u32_le()),
        first: GroupNo(body.get_u64_le()),
        before: Chain(body.get_u32_le()),
        end: Slot(body.get_u64_le()),
        hard: match get_hard(&mut body) {
            Ok(hard) => hard,
            Err(_) => return Found::Unreadable,
        },
        length: body.get_u64_le(),
    };
    Found::Header { header, healthy: true }
}
