//! The superblock: which volume this is, and whose.
//!
//! Owns the format; reading and writing the file is [`crate::file`]'s.

use crate::error::Volume;
use bytes::{Buf, BufMut};
use pharos_paxos::MemberId;

/// The format this build writes.
pub const SUPERBLOCK_FORMAT: u16 = 1;
const MAGIC: &[u8; 8] = b"PHAROSSB";
const LENGTH: usize = 8 + 2 + 2 + 16 + 1 + 16 + 8 + 4 + 4;

/// Made when a volume is formatted, and completed when the member is founded or joins. A volume without a
/// home has an empty log and never votes (DESIGN 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Random, made by formatting, never used again: a new disk is a new member.
    pub volume: [u8; 16],
    /// Where the volume belongs, once it does.
    pub home: Option<Home>,
}

/// A member's place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// Raised by restore and forced recovery, which turn away members of the older one.
    pub generation: u64,
    /// Never used twice in a cluster.
    pub member: MemberId,
}

/// Why a superblock is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Not a superblock, or a damaged one.
    #[error("the superblock is damaged")]
    Damaged,
    /// Written by a newer version.
    #[error(
        "the superblock has format {format} and needs a reader of format {min_reader} or later; this build reads {reads}"
    )]
    UnknownFormat {
        /// The format it was written in.
        format: u16,
        /// The oldest format whose reader may read it.
        min_reader: u16,
        /// What this build reads.
        reads: u16,
    },
    /// The data of another cluster.
    #[error("the volume belongs to cluster {found}, not to {expected}")]
    ForeignCluster {
        /// The cluster on the volume.
        found: Volume,
        /// The cluster asked for.
        expected: Volume,
    },
    /// The data of another generation of the cluster.
    #[error("the volume belongs to generation {found} of its cluster, not to {expected}")]
    ForeignGeneration {
        /// The generation on the volume.
        found: u64,
        /// The generation asked for.
        expected: u64,
    },
    /// The data of another member.
    #[error("the volume belongs to member {found}, not to {expected}")]
    ForeignMember {
        /// The member on the volume.
        found: MemberId,
        /// The member asked for.
        expected: MemberId,
    },
}

impl Superblock {
    /// The bytes of the file. Magic, format and minimum reader keep their places in every future format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.put_slice(MAGIC);
        out.put_u16_le(SUPERBLOCK_FORMAT);
        out.put_u16_le(SUPERBLOCK_FORMAT);
        out.put_slice(&self.volume);
        out.put_u8(u8::from(self.home.is_some()));
        let home = self.home.unwrap_or(Home { cluster: [0; 16], generation: 0, member: MemberId(0) });
        out.put_slice(&home.cluster);
        out.put_u64_le(home.generation);
        out.put_u32_le(home.member.0);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// Reads what [`Superblock::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let mut body = bytes.strip_prefix(MAGIC).ok_or(SuperblockError::Damaged)?;
        let (body, format, min_reader) = match (body.try_get_u16_le(), body.try_get_u16_le()) {
            (Ok(format), Ok(min_reader)) => (body, format, min_reader),
            _ => return Err(SuperblockError::Damaged),
        };
        if min_reader > SUPERBLOCK_FORMAT {
            let reads = SUPERBLOCK_FORMAT;
            return Err(SuperblockError::UnknownFormat { format, min_reader, reads });
        }
        // A later format that this reader may read is longer, and has its checksum after what is read here.
        if bytes.len() < LENGTH {
            return Err(SuperblockError::Damaged);
        }
        let (checked, crc) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(checked).to_le_bytes() != crc {
            return Err(SuperblockError::Damaged);
        }
        Ok(read_body(body))
    }

    /// Refuses a volume of another cluster, generation or member. A volume without a home is nobody's.
    pub fn check(&self, expected: Home) -> Result<(), SuperblockError> {
        let Some(home) = self.home else { return Ok(()) };
        if home.cluster != expected.cluster {
            let (found, expected) = (Volume(home.cluster), Volume(expected.cluster));
            return Err(SuperblockError::ForeignCluster { found, expected });
        }
        if home.generation != expected.generation {
            let (found, expected) = (home.generation, expected.generation);
            return Err(SuperblockError::ForeignGeneration { found, expected });
        }
        if home.member != expected.member {
            let (found, expected) = (home.member, expected.member);
            return Err(SuperblockError::ForeignMember { found, expected });
        }
        Ok(())
    }
}

/// The body's length was checked.
fn read_body(mut body: &[u8]) -> Superblock {
    let (mut volume, mut cluster) = ([0; 16], [0; 16]);
    body.copy_to_slice(&mut volume);
    let has_home = body.get_u8() == 1;
    body.copy_to_slice(&mut cluster);
    let home = Home { cluster, generation: body.get_u64_le(), member: MemberId(body.get_u32_le()) };
    Superblock { volume, home: has_home.then_some(home) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home { cluster: [2; 16], generation: 3, member: MemberId(4) };
    const FOUNDED: Superblock = Superblock { volume: [1; 16], home: Some(HOME) };

    #[test]
    fn a_superblock_reads_back_and_every_flipped_bit_is_found() {
        for superblock in [FOUNDED, Superblock { home: None, ..FOUNDED }] {
            let bytes = superblock.encode();
            assert_eq!((bytes.len(), Superblock::decode(&bytes)), (LENGTH, Ok(superblock)));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Superblock::decode(&flipped).is_err(), "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert_eq!(Superblock::decode(&bytes[..length]), Err(SuperblockError::Damaged), "{length}");
            }
        }
    }

    #[test]
    fn a_superblock_of_a_newer_format_is_refused_by_name() {
        let mut bytes = FOUNDED.encode();
        bytes[8..12].copy_from_slice(&[7, 0, 6, 0]);
        let error = Superblock::decode(&bytes).unwrap_err();
        let message =
            "the superblock has format 7 and needs a reader of format 6 or later; this build reads 1";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_foreign_volume_is_refused_by_name() {
        assert_eq!(FOUNDED.check(HOME), Ok(()));
        let refusals = [
            Home { cluster: [9; 16], ..HOME },
            Home { generation: 9, ..HOME },
            Home { member: MemberId(9), ..HOME },
        ]
        .map(|expected| FOUNDED.check(expected).unwrap_err().to_string());
        assert_eq!(
            refusals,
            [
                "the volume belongs to cluster 02020202020202020202020202020202, not to 09090909090909090909090909090909",
                "the volume belongs to generation 3 of its cluster, not to 9",
                "the volume belongs to member 4, not to 9",
            ]
        );
    }
}
