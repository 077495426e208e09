//! Stamped sectors: how a group lies on the disk, and how a sector that was never written is told from one
//! that was written and is damaged.
//!
//! A sector begins and ends with a stamp word: the number of the segment's present use, and a checksum over
//! that number, the volume and the place. The word is self-verifying, so each end of a sector is, on its own,
//! provably new, provably old (zero, or of an earlier use of the file), or garbage. A torn write leaves at
//! least one end old, since sectors tear once and words of eight bytes do not tear. A flipped bit never makes
//! a word old. So: an old end = never fully written = never acknowledged; anything else that does not check =
//! damage to a byte that may have been acknowledged.
//!
//! ```text
//! 0..8   stamp         8..12  crc of the rest   12..20 group   20..24 index   24..28 count
//! 28..32 chain before  32..36 chain after       36..504 payload               504..512 stamp again
//! ```

use crate::disk::{BLOCK, SECTOR};
use bytes::{Bytes, BytesMut};

/// The number of one use of a segment file; it rises by one and is never used twice. 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentNo(pub(crate) u32);

/// The number of a group; it rises by one through all segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupNo(pub(crate) u64);

/// The checksum over everything before a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) u32);

impl Chain {
    /// The chain after one more group.
    pub(crate) fn then(self, payload: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, payload))
    }
}

const STAMP: usize = 8;
const PAYLOAD_AT: usize = 36;
const PAYLOAD_END: usize = SECTOR - STAMP;
/// Payload bytes of one sector.
pub(crate) const PAYLOAD: usize = PAYLOAD_END - PAYLOAD_AT;

/// Makes and checks the stamps of one use of one segment file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamper {
    seed: u32,
    pub(crate) segment: SegmentNo,
}

/// What the word at one end of a sector proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Zero,
    Earlier,
    Current,
    Later,
    Garbage,
}

/// What a sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector<'a> {
    /// Written in this use of the segment, and intact.
    Whole(Part<'a>),
    /// Not, or not fully, written in this use of the segment.
    Unwritten,
    /// Neither: written and no longer what was written.
    Damaged,
    /// Stamped by a later use of the file than its header knows of.
    Later,
}

/// An intact sector of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) group: GroupNo,
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) before: Chain,
    /// Tells this group from another one of the same number, of which it may have been the remains.
    pub(crate) after: Chain,
    pub(crate) payload: &'a [u8],
}

/// How many sectors a payload takes.
pub(crate) fn sectors_for(payload: usize) -> usize {
    payload.div_ceil(PAYLOAD)
}

/// How many bytes a group of so many sectors takes, padding to the block included.
pub(crate) fn padded(sectors: usize) -> usize {
    (sectors * SECTOR).next_multiple_of(BLOCK)
}

impl Stamper {
    pub(crate) fn new(identity: [u8; 16], segment: SegmentNo) -> Self {
        Self { seed: crc32c::crc32c(&identity), segment }
    }

    /// The bytes of a group to be written at an offset of the segment: stamped sectors, then zeros up to
    /// the block, so that a write never has to read a page first.
    pub(crate) fn seal(self, offset: u64, group: GroupNo, before: Chain, payload: &[u8]) -> Bytes {
        let count = sectors_for(payload.len());
        let after = before.then(payload);
        let mut out = BytesMut::zeroed(padded(count));
        for (index, (sector, chunk)) in out.chunks_mut(SECTOR).zip(payload.chunks(PAYLOAD)).enumerate() {
            let stamp = self.word(sector_no(offset) + index as u32);
            sector[..STAMP].copy_from_slice(&stamp);
            sector[12..20].copy_from_slice(&group.0.to_le_bytes());
            sector[20..24].copy_from_slice(&(index as u32).to_le_bytes());
            sector[24..28].copy_from_slice(&(count as u32).to_le_bytes());
            sector[28..32].copy_from_slice(&before.0.to_le_bytes());
            sector[32..36].copy_from_slice(&after.0.to_le_bytes());
            sector[PAYLOAD_AT..PAYLOAD_AT + chunk.len()].copy_from_slice(chunk);
            sector[PAYLOAD_END..].copy_from_slice(&stamp);
            let crc = self.crc(sector);
            sector[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        out.freeze()
    }

    /// What the sector at the offset is.
    pub(crate) fn classify(self, offset: u64, sector: &[u8]) -> Sector<'_> {
        let no = sector_no(offset);
        let head = self.read_word(&sector[..STAMP], no);
        let tail = self.read_word(&sector[PAYLOAD_END..], no);
        match (head, tail) {
            (Word::Later, _) | (_, Word::Later) => Sector::Later,
            (Word::Zero | Word::Earlier, _) | (_, Word::Zero | Word::Earlier) => Sector::Unwritten,
            (Word::Current, Word::Current) if le32(&sector[8..12]) == self.crc(sector) => {
                Sector::Whole(part(sector))
            }
            _ => Sector::Damaged,
        }
    }

    /// Whether a write of this use of the segment, or damage, left something in a sector that holds no part
    /// of a kept group.
    pub(crate) fn is_debris(self, offset: u64, sector: &[u8]) -> bool {
        let no = sector_no(offset);
        [&sector[..STAMP], &sector[PAYLOAD_END..]]
            .iter()
            .any(|word| matches!(self.read_word(word, no), Word::Current | Word::Garbage | Word::Later))
    }

    /// The use that a sector was intactly written in, whichever it was: for files without a readable header.
    pub(crate) fn any_use(self, offset: u64, sector: &[u8]) -> Option<SegmentNo> {
        let found = Self { segment: SegmentNo(le32(&sector[..4])), ..self };
        matches!(found.classify(offset, sector), Sector::Whole(_)).then_some(found.segment)
    }

    fn word(self, no: u32) -> [u8; STAMP] {
        let mut word = [0; STAMP];
        word[..4].copy_from_slice(&self.segment.0.to_le_bytes());
        let check = crc32c::crc32c_append(crc32c::crc32c_append(self.seed, &word[..4]), &no.to_le_bytes());
        word[4..].copy_from_slice(&check.to_le_bytes());
        word
    }

    fn read_word(self, word: &[u8], no: u32) -> Word {
        if word.iter().all(|byte| *byte == 0) {
            return Word::Zero;
        }
        let found = SegmentNo(le32(&word[..4]));
        if (Self { segment: found, ..self }).word(no) != word {
            return Word::Garbage;
        }
        match found.cmp(&self.segment) {
            std::cmp::Ordering::Less => Word::Earlier,
            std::cmp::Ordering::Equal => Word::Current,
            std::cmp::Ordering::Greater => Word::Later,
        }
    }

    fn crc(self, sector: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.seed, &sector[..8]), &sector[12..])
    }
}

fn part(sector: &[u8]) -> Part<'_> {
    Part {
        group: GroupNo(le64(&sector[12..20])),
        index: le32(&sector[20..24]),
        count: le32(&sector[24..28]),
        before: Chain(le32(&sector[28..32])),
        after: Chain(le32(&sector[32..36])),
        payload: &sector[PAYLOAD_AT..PAYLOAD_END],
    }
}

fn sector_no(offset: u64) -> u32 {
    u32::try_from(offset / SECTOR as u64).expect("a segment is shorter than 2 TiB")
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

fn le64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMPER: Stamper = Stamper { seed: 7, segment: SegmentNo(5) };

    fn one_sector() -> Vec<u8> {
        STAMPER.seal(4096, GroupNo(9), Chain(3), &[0xab; 400])[..SECTOR].to_vec()
    }

    #[test]
    fn a_flipped_bit_of_a_written_sector_is_damage_and_never_looks_unwritten() {
        let sector = one_sector();
        assert!(matches!(STAMPER.classify(4096, &sector), Sector::Whole(_)));
        for bit in 0..SECTOR * 8 {
            let mut flipped = sector.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(STAMPER.classify(4096, &flipped), Sector::Damaged | Sector::Later), "bit {bit}");
        }
    }

    #[test]
    fn a_flipped_bit_of_an_unwritten_sector_is_harmless() {
        let earlier = Stamper { segment: SegmentNo(2), ..STAMPER };
        for old in [vec![0; SECTOR], earlier.seal(4096, GroupNo(1), Chain(0), &[1; 400])[..SECTOR].to_vec()] {
            for bit in 0..SECTOR * 8 {
                let mut flipped = old.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(STAMPER.classify(4096, &flipped), Sector::Unwritten, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_sector_torn_at_any_word_over_zeros_or_an_earlier_use_is_unwritten() {
        let new = one_sector();
        let earlier = Stamper { segment: SegmentNo(2), ..STAMPER };
        for old in [vec![0; SECTOR], earlier.seal(4096, GroupNo(1), Chain(0), &[1; 472])[..SECTOR].to_vec()] {
            for at in (8..SECTOR).step_by(8) {
                let forward = [&new[..at], &old[at..]].concat();
                let backward = [&old[..at], &new[at..]].concat();
                assert_eq!(STAMPER.classify(4096, &forward), Sector::Unwritten, "forward at {at}");
                assert_eq!(STAMPER.classify(4096, &backward), Sector::Unwritten, "backward at {at}");
            }
        }
    }

    #[test]
    fn a_sector_of_another_place_or_volume_is_not_whole() {
        let sector = one_sector();
        assert_eq!(STAMPER.classify(8192, &sector), Sector::Damaged);
        assert_eq!(Stamper { seed: 8, ..STAMPER }.classify(4096, &sector), Sector::Damaged);
    }
}
