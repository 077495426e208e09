//! The one-time permit that turns blank disks into an ensemble.
//!
//! Owns the permit's JSON and what a founder makes of it. Must not know how the file arrives.
//!
//! Invariant: two founders that read the same permit and the same secret write the same founding entry,
//! byte for byte; a permit that does not name this member's volume is no permit (DESIGN 3.1).

use crate::hello::Id128;
use pharos_log::Home;
use pharos_paxos::MemberId;
use pharos_replica::{Founding, Member, NewGeneration};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The version of the permit's layout.
const VERSION: u32 = 1;
/// The most founders an ensemble can have.
const MAX_FOUNDERS: usize = 7;
/// Separates this use of the token from every other.
const SECRET_CONTEXT: &[u8] = b"pharos session passwords v1\0";

/// The file that the operator, or `pharos-node permit`, writes once every founder's disk is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// 1.
    pub version: u32,
    /// The new ensemble's id.
    pub cluster_id: HexId,
    /// 1, the default, for an ensemble that was never recovered by force.
    #[serde(default = "first_generation")]
    pub generation: u32,
    /// The key of session passwords, for members that have no token file to derive it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<HexId>,
    /// The first voters.
    pub founders: Vec<PermitFounder>,
    /// The ensemble goes on from the volume of the only founder, a member of an earlier generation, without all other
    /// members: what only those hold is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovers: bool,
    /// Learners that may begin: what the ensemble has registered, and their volumes. They found nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joiners: Vec<PermitFounder>,
    /// Where a joiner finds the ensemble: its members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PermitFounder>,
    /// What members of the ensemble tell each other of its founding: every member's status has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding_digest: Option<HexId>,
}

fn first_generation() -> u32 {
    1
}

/// One member in a permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PermitFounder {
    /// The id it gets, never used again for another disk.
    pub member_id: u32,
    /// The volume that it reported while blank.
    pub volume: HexId,
    /// The name or address that its peers dial.
    pub host: String,
    /// The port that its peers dial.
    pub peer_port: u16,
    /// The port that its clients dial.
    pub client_port: u16,
}

/// An [`Id128`] as 32 hexadecimal digits in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HexId(pub Id128);

impl TryFrom<String> for HexId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut id = [0; 16];
        hex::decode_to_slice(&text, &mut id).map_err(|_| format!("{text:?} is not 32 hexadecimal digits"))?;
        Ok(Self(Id128(id)))
    }
}

impl From<HexId> for String {
    fn from(id: HexId) -> Self {
        id.0.to_string()
    }
}

/// Why a permit cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PermitError {
    /// Not the permit's JSON.
    #[error("the permit is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written for a later build.
    #[error("the permit has version {0}, which this version does not know (it knows {VERSION})")]
    UnknownVersion(u32),
    /// Names no founders, or too many.
    #[error("the permit names {0} founders, outside 1 to {MAX_FOUNDERS}")]
    Founders(usize),
    /// Two founders share what must be theirs alone.
    #[error("the permit names {0} twice")]
    Twice(String),
    /// Id 0 stands for nobody.
    #[error("the permit gives a founder the id 0")]
    IdZero,
    /// A joiner would not know whom to believe.
    #[error("the permit names a joiner but not {0}")]
    Lacks(&'static str),
    /// A generation that goes on from a volume goes on from one.
    #[error("the permit recovers from {0} volumes in generation {1}: it needs one, and a generation above 1")]
    Recovers(usize, u32),
    /// There is nothing to go on from.
    #[error("the permit recovers the ensemble from this volume, which is blank")]
    RecoversBlank,
    /// Neither source of the session secret is there.
    #[error("the permit has no secret and this member has no admin token file to derive one from")]
    NoSecret,
}

impl Permit {
    /// Reads and checks a permit.
    pub fn parse(text: &[u8]) -> Result<Self, PermitError> {
        let mut permit: Self = serde_json::from_slice(text)?;
        if permit.version != VERSION {
            return Err(PermitError::UnknownVersion(permit.version));
        }
        if permit.founders.is_empty() || permit.founders.len() > MAX_FOUNDERS {
            return Err(PermitError::Founders(permit.founders.len()));
        }
        permit.founders.sort_by_key(|founder| founder.member_id);
        let (mut ids, mut volumes) = (BTreeSet::new(), BTreeSet::new());
        for founder in permit.founders.iter().chain(&permit.joiners) {
            if founder.member_id == 0 {
                return Err(PermitError::IdZero);
            }
            if !ids.insert(founder.member_id) {
                return Err(PermitError::Twice(format!("member {}", founder.member_id)));
            }
            if !volumes.insert(founder.volume) {
                return Err(PermitError::Twice(format!("volume {}", founder.volume.0)));
            }
        }
        if permit.recovers && (permit.founders.len() != 1 || permit.generation < 2) {
            return Err(PermitError::Recovers(permit.founders.len(), permit.generation));
        }
        if !permit.joiners.is_empty() && permit.members.is_empty() {
            return Err(PermitError::Lacks("the members"));
        }
        if !permit.joiners.is_empty() && permit.founding_digest.is_none() {
            return Err(PermitError::Lacks("the founding digest"));
        }
        Ok(permit)
    }

    /// A permit for these founders.
    #[must_use]
    pub fn new(cluster: Id128, secret: Id128, founders: Vec<PermitFounder>) -> Self {
        let (cluster_id, secret) = (HexId(cluster), Some(HexId(secret)));
        let (joiners, members, founding_digest) = (Vec::new(), Vec::new(), None);
        Self {
            version: VERSION,
            cluster_id,
            generation: 1,
            secret,
            founders,
            recovers: false,
            joiners,
            members,
            founding_digest,
        }
    }

    /// The permit of an ensemble of one, whose member founds it by itself.
    #[must_use]
    pub fn alone(cluster: Id128, volume: Id128, secret: Id128, peer_port: u16, client_port: u16) -> Self {
        let host = "127.0.0.1".to_owned();
        let founder = PermitFounder { member_id: 1, volume: HexId(volume), host, peer_port, client_port };
        Self::new(cluster, secret, vec![founder])
    }

    /// The id that the permit gives to the member with this volume.
    #[must_use]
    pub fn member_of(&self, volume: Id128) -> Option<MemberId> {
        let mut all = self.founders.iter().chain(&self.joiners);
        let member = all.find(|member| member.volume.0 == volume)?;
        Some(MemberId(member.member_id))
    }

    /// What the volume with this home begins by the permit, which otherwise is for another one.
    pub(crate) fn begins(&self, home: Home) -> Option<NewGeneration> {
        let survivor = Member::from(self.founders.first()?);
        let allowed = self.recovers && self.cluster_id.0.0 == home.cluster && survivor.id == home.member;
        let generation = self.generation;
        (allowed && u64::from(generation) > home.generation).then_some(NewGeneration { generation, survivor })
    }

    /// As what the member with this volume joins; none if it does not.
    #[must_use]
    pub(crate) fn joining(&self, volume: Id128) -> Option<Joining> {
        let joins = self.joiners.iter().any(|joiner| joiner.volume.0 == volume);
        let (true, Some(digest)) = (joins, self.founding_digest) else { return None };
        // Its state brings the secret.
        let founding = self.with_secret([0; 16]);
        Some(Joining { founding, digest: digest.0, members: self.members.iter().map(Into::into).collect() })
    }

    /// The founding entry. The token outranks the permit's own secret, since it is kept from the eyes
    /// of those who may read a ConfigMap.
    pub fn founding(&self, token: Option<&str>) -> Result<Founding, PermitError> {
        let secret = match (token, self.secret) {
            (Some(token), _) => self.derive_secret(token),
            (None, Some(secret)) => secret.0.0,
            (None, None) => return Err(PermitError::NoSecret),
        };
        Ok(self.with_secret(secret))
    }

    fn with_secret(&self, secret: [u8; 16]) -> Founding {
        let members = self.founders.iter().map(Into::into).collect();
        Founding { cluster: self.cluster_id.0.0, generation: self.generation, secret, members }
    }

    fn derive_secret(&self, token: &str) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(SECRET_CONTEXT);
        hash.update(self.cluster_id.0.0);
        hash.update(token.as_bytes());
        first_16(&hash.finalize())
    }
}

/// What a blank member knows of the ensemble that it joins.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    /// Its founding, but for the secret.
    pub(crate) founding: Founding,
    /// What its members say of their founding.
    pub(crate) digest: Id128,
    /// Where they are.
    pub(crate) members: Vec<Member>,
}

impl From<&PermitFounder> for Member {
    fn from(named: &PermitFounder) -> Self {
        Self {
            id: MemberId(named.member_id),
            volume: named.volume.0.0,
            host: named.host.clone(),
            peer_port: named.peer_port,
            client_port: named.client_port,
        }
    }
}

/// What members compare to find out that they were founded alike. It reveals nothing of the secret that
/// a peer does not have.
#[must_use]
pub(crate) fn founding_digest(founding: &Founding) -> Id128 {
    Id128(first_16(&Sha256::digest(founding.encode())))
}

fn first_16(digest: &[u8]) -> [u8; 16] {
    *digest.first_chunk().expect("a SHA-256 digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(founders: &str) -> String {
        let cluster = "0c".repeat(16);
        format!(r#"{{"version":1,"clusterId":"{cluster}","generation":1,"founders":[{founders}]}}"#)
    }

    fn founder(id: u32, volume: u8) -> String {
        let volume = hex::encode([volume; 16]);
        format!(
            r#"{{"memberId":{id},"volume":"{volume}","host":"m-{id}","peerPort":2888,"clientPort":2181}}"#
        )
    }

    fn parse(text: &str) -> Result<Permit, String> {
        Permit::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn founders_in_any_order_give_the_same_founding_entry() {
        let (one, two) = (founder(1, 0x11), founder(2, 0x22));
        let there = parse(&text(&format!("{one},{two}"))).unwrap();
        let back = parse(&text(&format!("{two},{one}"))).unwrap();
        let encoded = |permit: &Permit| permit.founding(Some("token")).unwrap().encode();
        assert_eq!(encoded(&there), encoded(&back));
    }

    #[test]
    fn a_permit_gives_an_id_only_to_the_volumes_it_names() {
        let permit = parse(&text(&founder(5, 0x11))).unwrap();
        assert_eq!(permit.member_of(Id128([0x11; 16])), Some(MemberId(5)));
        assert_eq!(permit.member_of(Id128([0x12; 16])), None);
    }

    #[test]
    fn the_session_secret_comes_from_the_token_or_else_from_the_permit() {
        let mut permit = parse(&text(&founder(1, 0x11))).unwrap();
        assert!(matches!(permit.founding(None), Err(PermitError::NoSecret)));
        let derived = permit.founding(Some("token")).unwrap().secret;
        assert_ne!(derived, permit.founding(Some("another")).unwrap().secret);
        permit.secret = Some(HexId(Id128([3; 16])));
        assert_eq!(permit.founding(None).unwrap().secret, [3; 16]);
        assert_eq!(permit.founding(Some("token")).unwrap().secret, derived);
    }

    #[test]
    fn what_a_permit_may_not_say_is_refused_by_name() {
        let (one, same_id, same_volume) = (founder(1, 0x11), founder(1, 0x22), founder(2, 0x11));
        let cases = [
            (text(""), "the permit names 0 founders, outside 1 to 7"),
            (text(&format!("{one},{same_id}")), "the permit names member 1 twice"),
            (
                text(&format!("{one},{same_volume}")),
                "the permit names volume 11111111111111111111111111111111 twice",
            ),
            (text(&founder(0, 0x11)), "the permit gives a founder the id 0"),
            (
                text(&one).replace(r#""version":1"#, r#""recovers":true,"version":1"#),
                "the permit recovers from 1 volumes in generation 1: it needs one, and a generation above 1",
            ),
            (
                text(&one).replace(r#""version":1"#, r#""version":2"#),
                "the permit has version 2, which this version does not know (it knows 1)",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(parse(&text).unwrap_err(), message);
        }
        let short = parse(&text(&one).replace("1111", "")).unwrap_err();
        assert!(short.contains("is not 32 hexadecimal digits"), "{short}");
    }

    #[test]
    fn a_joiner_is_told_whom_to_dial_and_what_they_say_of_their_founding() {
        let mut permit = parse(&text(&founder(1, 0x11))).unwrap();
        let joiner: PermitFounder = serde_json::from_str(&founder(4, 0x44)).unwrap();
        permit.joiners = vec![joiner.clone()];
        let refusal = |permit: &Permit| parse(&serde_json::to_string(permit).unwrap()).unwrap_err();
        assert_eq!(refusal(&permit), "the permit names a joiner but not the members");
        permit.members = vec![permit.founders[0].clone(), joiner];
        assert_eq!(refusal(&permit), "the permit names a joiner but not the founding digest");
        permit.founding_digest = Some(HexId(Id128([8; 16])));
        let permit = parse(&serde_json::to_string(&permit).unwrap()).unwrap();
        assert_eq!(permit.member_of(Id128([0x44; 16])), Some(MemberId(4)));
        let joining = permit.joining(Id128([0x44; 16])).unwrap();
        assert_eq!((joining.digest, joining.members.len()), (Id128([8; 16]), 2));
        assert!(permit.joining(Id128([0x11; 16])).is_none(), "a founder founds");
    }

    #[test]
    fn a_permit_survives_json() {
        let permit = Permit::alone(Id128([1; 16]), Id128([2; 16]), Id128([3; 16]), 2888, 2181);
        let json = serde_json::to_vec(&permit).unwrap();
        assert_eq!(Permit::parse(&json).unwrap(), permit);
    }
}
