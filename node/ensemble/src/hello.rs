//! The first frame on every connection between two members, and whether to believe it.
//!
//! Owns the greeting's bytes and the pure check. Must not know sockets or who dialled.
//!
//! Invariant: no frame of the protocol is read from a connection whose hello did not pass [`Roster::check`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pharos_paxos::{ConfigNo, MemberId};
use pharos_replica::{Lane, Level, LevelError, Levels};
use std::collections::BTreeMap;
use std::fmt;

/// The layout of the greeting itself. Fields may be added at its end under the same number; a reader
/// ignores what follows the fields that it knows.
const FORMAT: u8 = 1;
/// The first byte of a refusal, which takes the place of the answering hello.
const REFUSED: u8 = 0;
/// The fields that every hello of format 1 has.
const HELLO_BYTES: usize = 1 + 2 + 2 + 16 + 4 + 16 + 4 + 4 + 16 + 8 + 8 + 1;
/// The longest refusal that is sent.
const MAX_REFUSAL_BYTES: usize = 512;

/// The protocol versions between members that this build speaks.
pub(crate) const VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };

/// The versions of the protocol that a member speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl VersionRange {
    /// The newest version that both speak.
    #[must_use]
    pub(crate) fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.min, self.max)
    }
}

/// A random 128-bit name: of a cluster or of a volume. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id128(pub [u8; 16]);

impl fmt::Display for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a member says of itself before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The protocol versions it speaks.
    pub versions: VersionRange,
    /// Its ensemble.
    pub cluster: Id128,
    /// The ensemble's generation: forced recovery starts a new one.
    pub generation: u32,
    /// A digest of the founding entry, so that founders that read different permits find out.
    pub founding: Id128,
    /// The newest configuration it knows. Members may differ in it for a while.
    pub config: ConfigNo,
    /// Its id.
    pub member: MemberId,
    /// Its disk.
    pub volume: Id128,
    /// Random, new with every start of the process.
    pub boot: u64,
    /// Chosen by the dialling side, the same on both lanes of one link.
    pub link: u64,
    /// What this connection is for.
    pub lane: Lane,
    /// Whom it is for: another may have the address by now, and must not take it for its own link. 0 where a version
    /// does not say.
    pub meant: MemberId,
    /// The feature levels that it can carry out.
    pub levels: Levels,
    /// The one in force, as far as it knows. None where it has no state yet, or a version does not say.
    pub level: Option<Level>,
}

/// The first frame in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Who speaks.
    Hello(Hello),
    /// The other side does not believe our hello, and why.
    Refused(String),
}

/// Why a greeting cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GreetingError {
    /// It ends too early.
    #[error("the greeting has {0} bytes, fewer than it needs")]
    Short(usize),
    /// Written by a version that this one does not know.
    #[error("the greeting has format {0}, which this version does not know (it knows {FORMAT})")]
    UnknownFormat(u8),
    /// A lane that this version does not have.
    #[error("the greeting names lane {0}, which does not exist")]
    UnknownLane(u8),
}

impl Greeting {
    /// The frame's body.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HELLO_BYTES);
        match self {
            Self::Hello(hello) => hello.put(&mut out),
            Self::Refused(why) => {
                out.put_u8(REFUSED);
                out.put_slice(&why.as_bytes()[..why.len().min(MAX_REFUSAL_BYTES)]);
            }
        }
        out.freeze()
    }

    /// Reads a frame's body.
    pub(crate) fn decode(mut body: &[u8]) -> Result<Self, GreetingError> {
        match body.first() {
            None => Err(GreetingError::Short(0)),
            Some(&REFUSED) => {
                body.advance(1);
                Ok(Self::Refused(String::from_utf8_lossy(&body[..body.len().min(MAX_REFUSAL_BYTES)]).into()))
            }
            Some(&FORMAT) => Hello::get(body).map(Self::Hello),
            Some(&other) => Err(GreetingError::UnknownFormat(other)),
        }
    }
}

impl Hello {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(FORMAT);
        out.put_u16(self.versions.min);
        out.put_u16(self.versions.max);
        out.put_slice(&self.cluster.0);
        out.put_u32(self.generation);
        out.put_slice(&self.founding.0);
        out.put_u32(self.config.0);
        out.put_u32(self.member.0);
        out.put_slice(&self.volume.0);
        out.put_u64(self.boot);
        out.put_u64(self.link);
        out.put_u8(lane_number(self.lane));
        out.put_u32(self.meant.0);
        out.put_u16(self.levels.min.0);
        out.put_u16(self.levels.max.0);
        out.put_u16(self.level.map_or(0, |level| level.0));
    }

    fn get(mut body: &[u8]) -> Result<Self, GreetingError> {
        if body.len() < HELLO_BYTES {
            return Err(GreetingError::Short(body.len()));
        }
        body.advance(1);
        Ok(Self {
            versions: VersionRange { min: body.get_u16(), max: body.get_u16() },
            cluster: get_id(&mut body),
            generation: body.get_u32(),
            founding: get_id(&mut body),
            config: ConfigNo(body.get_u32()),
            member: MemberId(body.get_u32()),
            volume: get_id(&mut body),
            boot: body.get_u64(),
            link: body.get_u64(),
            lane: lane_of(body.get_u8())?,
            meant: MemberId(body.try_get_u32().unwrap_or(0)),
            levels: get_levels(&mut body).unwrap_or(Levels::UNSAID),
            level: body.try_get_u16().ok().filter(|level| *level > 0).map(Level),
        })
    }
}

fn get_levels(body: &mut &[u8]) -> Option<Levels> {
    Some(Levels { min: Level(body.try_get_u16().ok()?), max: Level(body.try_get_u16().ok()?) })
}

fn get_id(body: &mut &[u8]) -> Id128 {
    let mut id = [0; 16];
    body.copy_to_slice(&mut id);
    Id128(id)
}

fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 1,
        Lane::Bulk => 2,
    }
}

fn lane_of(number: u8) -> Result<Lane, GreetingError> {
    match number {
        1 => Ok(Lane::Control),
        2 => Ok(Lane::Bulk),
        other => Err(GreetingError::UnknownLane(other)),
    }
}

/// Why a member is turned away. The text names both sides' view, for the one who has to repair it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nothing in common.
    #[error("member {member} speaks protocol versions {theirs}, this member {ours}")]
    VersionsDisjoint {
        /// Who asked.
        member: MemberId,
        /// What it speaks.
        theirs: VersionRange,
        /// What this member speaks.
        ours: VersionRange,
    },
    /// A member of something else.
    #[error("member {member} belongs to the ensemble {theirs}, this member to {ours}")]
    WrongCluster {
        /// Who asked.
        member: MemberId,
        /// Its ensemble.
        theirs: Id128,
        /// Ours.
        ours: Id128,
    },
    /// A member from before or after a forced recovery.
    #[error("member {member} is of generation {theirs} of the ensemble, this member of {ours}")]
    WrongGeneration {
        /// Who asked.
        member: MemberId,
        /// Its generation.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It was in an earlier configuration.
    #[error("member {0} was removed from this ensemble")]
    Removed(MemberId),
    /// This member's own id, from another process.
    #[error("member {0} has this member's own id")]
    OwnId(MemberId),
    /// An id on a disk that it was not given to.
    #[error("member {member} speaks from the volume {theirs}, but its volume is {ours}")]
    WrongVolume {
        /// Who asked.
        member: MemberId,
        /// The disk it has.
        theirs: Id128,
        /// The disk that the id belongs to.
        ours: Id128,
    },
    /// The founders did not read the same permit or secret.
    #[error("member {0} was founded by a different permit or secret")]
    FoundingDiffers(MemberId),
    /// It cannot carry out what this member holds.
    #[error("member {member} cannot be one now: {why}", why = LevelError { level: *.level, can: *.can })]
    LevelTooHigh {
        /// Who asked.
        member: MemberId,
        /// What it can do.
        can: Levels,
        /// The level in force here.
        level: Level,
    },
    /// This member cannot carry out what the other holds.
    #[error("member {member} holds more than this member can carry out: {why}", why = LevelError { level: *.level, can: *.can })]
    LevelTooHighHere {
        /// Who asked.
        member: MemberId,
        /// What this member can do.
        can: Levels,
        /// The level in force there.
        level: Level,
    },
    /// Another member answered than the one that was dialled.
    #[error("member {answered} answered at the address of member {dialled}")]
    NotTheDialled {
        /// Who answered.
        answered: MemberId,
        /// Who was meant.
        dialled: MemberId,
    },
}

/// What this member knows of its ensemble.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    /// What this member says of itself; lane and link are filled in per connection.
    pub own: Hello,
    /// Every member's volume.
    pub volumes: BTreeMap<MemberId, Id128>,
    /// Ids below this one were given: whoever has one and is not here was removed. Others may have been given since, and
    /// may be the only ones who are left to say so.
    pub next_id: MemberId,
}

impl Roster {
    /// This member's hello for one connection.
    #[must_use]
    pub(crate) fn hello(&self, lane: Lane, link: u64, meant: MemberId) -> Hello {
        Hello { lane, link, meant, ..self.own }
    }

    /// The protocol version to speak with the sender of `theirs`, or why not at all.
    pub(crate) fn check(&self, theirs: &Hello) -> Result<u16, Refusal> {
        let (own, member) = (&self.own, theirs.member);
        let version = own.versions.common(theirs.versions).ok_or(Refusal::VersionsDisjoint {
            member,
            theirs: theirs.versions,
            ours: own.versions,
        })?;
        if theirs.cluster != own.cluster {
            return Err(Refusal::WrongCluster { member, theirs: theirs.cluster, ours: own.cluster });
        }
        if theirs.generation != own.generation {
            return Err(Refusal::WrongGeneration { member, theirs: theirs.generation, ours: own.generation });
        }
        if member == own.member {
            return Err(Refusal::OwnId(member));
        }
        if ![MemberId(0), own.member].contains(&theirs.meant) {
            return Err(Refusal::NotTheDialled { answered: own.member, dialled: theirs.meant });
        }
        match self.volumes.get(&member) {
            Some(ours) if theirs.volume != *ours => {
                return Err(Refusal::WrongVolume { member, theirs: theirs.volume, ours: *ours });
            }
            None if member < self.next_id => return Err(Refusal::Removed(member)),
            Some(_) | None => {}
        }
        if theirs.founding != own.founding {
            return Err(Refusal::FoundingDiffers(member));
        }
        self.check_levels(theirs)?;
        Ok(version)
    }

    /// Each side can carry out what the other holds. If none has a state yet, the leader that brings one decides.
    fn check_levels(&self, theirs: &Hello) -> Result<(), Refusal> {
        let member = theirs.member;
        if let Some(level) = self.own.level.filter(|level| !theirs.levels.include(*level)) {
            return Err(Refusal::LevelTooHigh { member, can: theirs.levels, level });
        }
        if let Some(level) = theirs.level.filter(|level| !self.own.levels.include(*level)) {
            return Err(Refusal::LevelTooHighHere { member, can: self.own.levels, level });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEVELS: Levels = Levels { min: Level(1), max: Level(3) };

    fn hello(member: u32) -> Hello {
        Hello {
            versions: VersionRange { min: 1, max: 3 },
            cluster: Id128([7; 16]),
            generation: 2,
            founding: Id128([9; 16]),
            config: ConfigNo(1),
            member: MemberId(member),
            volume: Id128([member as u8; 16]),
            boot: 11,
            link: 12,
            lane: Lane::Bulk,
            meant: MemberId(1),
            levels: LEVELS,
            level: Some(Level(2)),
        }
    }

    fn roster() -> Roster {
        let volumes = (1..=3).map(|id| (MemberId(id), Id128([id as u8; 16]))).collect();
        Roster { own: hello(1), volumes, next_id: MemberId(5) }
    }

    #[test]
    fn a_greeting_survives_the_wire_and_ignores_fields_added_later() {
        for greeting in [Greeting::Hello(hello(2)), Greeting::Refused("member 9 is not a member".into())] {
            assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        }
        let mut longer = BytesMut::from(&Greeting::Hello(hello(2)).encode()[..]);
        longer.put_u64(99);
        assert_eq!(Greeting::decode(&longer), Ok(Greeting::Hello(hello(2))));
        let older = Hello { levels: Levels::UNSAID, level: None, ..hello(2) };
        assert_eq!(Greeting::decode(&longer[..HELLO_BYTES + 4]), Ok(Greeting::Hello(older)));
        let older = Hello { meant: MemberId(0), ..older };
        assert_eq!(Greeting::decode(&longer[..HELLO_BYTES]), Ok(Greeting::Hello(older)));
    }

    #[test]
    fn a_greeting_of_another_format_is_refused_by_number() {
        let mut bytes = BytesMut::from(&Greeting::Hello(hello(2)).encode()[..]);
        bytes[0] = 77;
        assert_eq!(Greeting::decode(&bytes), Err(GreetingError::UnknownFormat(77)));
        bytes[0] = FORMAT;
        bytes[HELLO_BYTES - 1] = 5;
        assert_eq!(Greeting::decode(&bytes), Err(GreetingError::UnknownLane(5)));
        assert_eq!(Greeting::decode(&bytes[..20]), Err(GreetingError::Short(20)));
        assert_eq!(Greeting::decode(&[]), Err(GreetingError::Short(0)));
    }

    #[test]
    fn a_member_of_the_same_ensemble_is_believed() {
        assert_eq!(roster().check(&hello(2)), Ok(3));
        let older = Hello { versions: VersionRange { min: 0, max: 1 }, ..hello(3) };
        assert_eq!(roster().check(&older), Ok(1));
        let ahead = Hello { config: ConfigNo(9), boot: 5, ..hello(3) };
        assert_eq!(roster().check(&ahead), Ok(3));
    }

    #[test]
    fn a_member_whose_id_was_given_later_than_this_list_is_believed() {
        assert_eq!(roster().check(&hello(5)), Ok(3));
        let stranger = Hello { founding: Id128([1; 16]), ..hello(5) };
        assert_eq!(roster().check(&stranger), Err(Refusal::FoundingDiffers(MemberId(5))));
    }

    #[test]
    fn members_take_each_other_only_if_each_can_carry_out_what_the_other_holds() {
        let can = |max| Levels { min: Level(1), max: Level(max) };
        let member = MemberId(2);
        let blank = Hello { levels: can(2), level: None, ..hello(2) };
        assert_eq!(roster().check(&blank), Ok(3));
        let old = Hello { levels: Levels::UNSAID, level: None, ..hello(2) };
        let refusal = Refusal::LevelTooHigh { member, can: can(1), level: Level(2) };
        assert_eq!(roster().check(&old), Err(refusal.clone()));
        assert_eq!(
            refusal.to_string(),
            "member 2 cannot be one now: the ensemble is at feature level 2 and this member can do levels 1 to 1: run a \
             version that knows level 2, and without a lower --max-feature-level"
        );
        let ahead = Hello { levels: can(9), level: Some(Level(4)), ..hello(2) };
        let refusal = Refusal::LevelTooHighHere { member, can: can(3), level: Level(4) };
        assert_eq!(roster().check(&ahead), Err(refusal));
        // Below the first level in force everybody that says nothing is taken.
        let first = Roster { own: Hello { level: Some(Level(1)), ..hello(1) }, ..roster() };
        assert_eq!(first.check(&old), Ok(3));
    }

    #[test]
    fn every_stranger_is_refused_by_name() {
        let member = MemberId(2);
        let versions = VersionRange { min: 4, max: 5 };
        let (other, ours) = (Id128([1; 16]), hello(2));
        let matrix = [
            (
                Hello { versions, ..ours },
                Refusal::VersionsDisjoint { member, theirs: versions, ours: ours.versions },
            ),
            (
                Hello { cluster: other, ..ours },
                Refusal::WrongCluster { member, theirs: other, ours: ours.cluster },
            ),
            (Hello { generation: 1, ..ours }, Refusal::WrongGeneration { member, theirs: 1, ours: 2 }),
            (Hello { member: MemberId(1), ..ours }, Refusal::OwnId(MemberId(1))),
            (Hello { member: MemberId(4), ..ours }, Refusal::Removed(MemberId(4))),
            (
                Hello { volume: other, ..ours },
                Refusal::WrongVolume { member, theirs: other, ours: ours.volume },
            ),
            (Hello { founding: other, ..ours }, Refusal::FoundingDiffers(member)),
            (
                Hello { meant: MemberId(3), ..ours },
                Refusal::NotTheDialled { answered: MemberId(1), dialled: MemberId(3) },
            ),
        ];
        for (hello, refusal) in matrix {
            assert_eq!(roster().check(&hello), Err(refusal));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Greeting::decode(&bytes);
        }
    }
}
