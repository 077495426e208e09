//! The founding entry: slot 1 of every log, the same bytes on each founder.
//!
//! Owns the ensemble's identity, the founders and the key of session passwords. Must not know how a
//! permit reaches a member. Invariant: a founder writes it once, on a disk that has never voted; an
//! empty disk that holds no permit never does (DESIGN 3.1, bootstrap).

use crate::registry::Member;
use crate::wire::{Reader, WireError};
use bytes::Bytes;
use pharos_paxos::{Ballot, Entry, EntryKind, LogOp, Membership, Slot};

const VERSION: u8 = 1;

/// An ensemble's identity and first configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The ensemble, for ever.
    pub cluster: [u8; 16],
    /// Raised by restore and forced recovery; members of another generation are turned away.
    pub generation: u32,
    /// The key of session passwords.
    pub secret: [u8; 16],
    /// The voters of configuration 1, sorted by id.
    pub members: Vec<Member>,
}

impl Founding {
    /// The founding ballot: below every ballot a member can open.
    pub const BALLOT: Ballot = Ballot::FOUNDING;

    /// What a founder's empty log is given, in one group, before the member starts.
    #[must_use]
    pub fn first_group(&self) -> Vec<LogOp> {
        let payload = Bytes::from(self.encode());
        let entry = Entry { slot: Slot(1), ballot: Self::BALLOT, kind: EntryKind::Founding, payload };
        vec![
            LogOp::Append(entry),
            LogOp::Accepted(Self::BALLOT),
            LogOp::Promised(Self::BALLOT),
            LogOp::Committed(Slot(1)),
        ]
    }

    /// Who votes in configuration 1.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership::founding(self.members.iter().map(|m| m.id).collect())
    }

    /// The entry's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.secret);
        out.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        self.members.iter().for_each(|member| member.put(&mut out));
        out
    }

    /// Reads a payload back.
    ///
    /// # Errors
    /// When the bytes are not a founding of a version this program knows.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let version = r.u8("founding version")?;
        if version != VERSION {
            return Err(WireError::Invalid { field: "founding version", value: u64::from(version) });
        }
        let (cluster, generation, secret) = (r.array("cluster")?, r.u32("generation")?, r.array("secret")?);
        let members = Member::get_all(&mut r)?;
        r.end()?;
        Ok(Self { cluster, generation, secret, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_paxos::MemberId;

    fn founding() -> Founding {
        let member = |id: u32| Member {
            id: MemberId(id),
            volume: [id as u8; 16],
            host: format!("main-{id}"),
            peer_port: 2888,
            client_port: 2181,
        };
        Founding { cluster: [7; 16], generation: 1, secret: [9; 16], members: vec![member(1), member(2)] }
    }

    #[test]
    fn a_founding_reads_back_as_written() {
        assert_eq!(Founding::decode(founding().encode().into()), Ok(founding()));
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let mut bytes = founding().encode();
        bytes[0] = 9;
        let error = Founding::decode(bytes.into()).unwrap_err();
        assert_eq!(error.to_string(), "invalid founding version: 9");
    }

    #[test]
    fn a_shortened_founding_is_refused_and_never_panics() {
        let bytes = founding().encode();
        for len in 0..bytes.len() {
            assert!(Founding::decode(Bytes::copy_from_slice(&bytes[..len])).is_err(), "length {len}");
        }
    }
}
