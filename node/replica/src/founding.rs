//! The founding entry: slot 1 of every log, the same bytes on each founder.
//!
//! Owns the ensemble's identity, the founders and the key of session passwords. Must not know how a
//! permit reaches a member. Invariant: a founder writes it once, on a disk that has never voted; an
//! empty disk that holds no permit never does (DESIGN 3.1, bootstrap).

use crate::wire::{Reader, WireError, put_bytes};
use bytes::Bytes;
use pharos_paxos::{Ballot, Entry, EntryKind, LogOp, MemberId, Membership, Slot};

const VERSION: u8 = 1;

/// One founding voter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its id, never used again for another disk.
    pub id: MemberId,
    /// The id its volume was given when it was formatted.
    pub volume: [u8; 16],
    /// The name or address its peers dial.
    pub host: String,
    /// The port its peers dial.
    pub peer_port: u16,
    /// The port its clients dial.
    pub client_port: u16,
}

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
    pub members: Vec<Founder>,
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

    /// The founder with this id.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Founder> {
        self.members.iter().find(|m| m.id == id)
    }

    /// The entry's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.secret);
        out.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        for member in &self.members {
            out.extend_from_slice(&member.id.0.to_le_bytes());
            out.extend_from_slice(&member.volume);
            put_bytes(&mut out, member.host.as_bytes());
            out.extend_from_slice(&member.peer_port.to_le_bytes());
            out.extend_from_slice(&member.client_port.to_le_bytes());
        }
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
        let count = r.count("founders", 28)?;
        let members = (0..count).map(|_| read_founder(&mut r)).collect::<Result<Vec<_>, _>>()?;
        r.end()?;
        if members.is_empty() || !members.is_sorted_by(|a, b| a.id < b.id) {
            return Err(WireError::Invalid { field: "founders", value: count as u64 });
        }
        Ok(Self { cluster, generation, secret, members })
    }
}

fn read_founder(r: &mut Reader) -> Result<Founder, WireError> {
    Ok(Founder {
        id: MemberId(r.u32("member id")?),
        volume: r.array("volume")?,
        host: r.string("host")?,
        peer_port: r.u16("peer port")?,
        client_port: r.u16("client port")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founding() -> Founding {
        let member = |id: u32| Founder {
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
