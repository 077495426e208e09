//! Who may do what: matching identities against access control lists, and checking lists that clients send.
//!
//! Pure functions. The rules are ZooKeeper 3.9's, down to how it splits strings.

use base64::Engine as _;
use pharos_jute::{Acl, AclRef, ErrorCode, Id};
use sha1::{Digest as _, Sha1};

use crate::Settings;
use std::collections::BTreeSet;

/// Whether a connection with these identities has one of the wanted permissions. An empty list allows everything.
pub fn allowed(acl: &[Acl], wanted: i32, auth: &[Id]) -> bool {
    acl.is_empty()
        || is_super(auth)
        || acl.iter().any(|entry| entry.perms & wanted != 0 && matches_any(&entry.id, auth))
}

/// Whether one of the identities is the super user's.
pub fn is_super(auth: &[Id]) -> bool {
    auth.iter().any(|id| id.scheme == "super")
}

/// The identity that the `digest` scheme makes of `user:password`.
pub fn digest_auth(credentials: &[u8]) -> Id {
    let text = String::from_utf8_lossy(credentials);
    let user = text.split(':').next().unwrap_or_default();
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(text.as_bytes()));
    Id::new("digest", format!("{user}:{hash}"))
}

/// The user an identity names, without what proves it, as `whoAmI` and audit logs show it.
pub fn user_name(id: &Id) -> &str {
    match id.scheme.as_str() {
        "digest" => id.id.split(':').next().unwrap_or_default(),
        "super" => "",
        _ => &id.id,
    }
}

/// An ACL as it is shown to those who may read but not administer it: without the digests of passwords.
pub fn redacted(acl: &[Acl]) -> Vec<Acl> {
    acl.iter()
        .map(|entry| match entry.id.id.split_once(':') {
            Some((user, _)) if entry.id.scheme == "digest" => {
                Acl::new(entry.perms, "digest", format!("{user}:x"))
            }
            _ => entry.clone(),
        })
        .collect()
}

/// Borrowed entries of a list, as they go on the wire.
pub(crate) fn wire(acl: &[Acl]) -> Vec<AclRef<'_>> {
    acl.iter().map(Acl::as_ref).collect()
}

fn matches_any(entry: &Id, auth: &[Id]) -> bool {
    match entry.scheme.as_str() {
        "world" => entry.id == "anyone",
        "ip" => auth.iter().any(|id| id.scheme == "ip" && ip_matches(&id.id, &entry.id)),
        "sasl" => auth.iter().any(|id| id.scheme == "sasl" && (id.id == entry.id || id.id == "super")),
        "digest" | "x509" => auth.contains(entry),
        _ => false,
    }
}

/// `auth` entries in one list, each of which grows to all identities: there are 31 sets of permissions.
const MAX_EXPANSIONS: usize = 31;

/// The list to store for a list that a client sent: duplicates dropped, `auth` expanded to the connection's
/// authenticated identities, everything else checked.
pub(crate) fn fix_up(acl: &[Acl], auth: &[Id], settings: Settings) -> Result<Vec<Acl>, ErrorCode> {
    let mut fixed = Vec::new();
    let (mut seen, mut expansions) = (BTreeSet::new(), 0);
    for entry in acl {
        if !seen.insert(entry) {
            continue;
        }
        match entry.id.scheme.as_str() {
            "auth" if expansions == MAX_EXPANSIONS => return Err(ErrorCode::INVALID_ACL),
            "auth" => {
                expansions += 1;
                expand_auth(entry.perms, auth, &mut fixed)?;
            }
            _ if is_valid(&entry.id, settings) => fixed.push(entry.clone()),
            _ => return Err(ErrorCode::INVALID_ACL),
        }
    }
    if fixed.is_empty() { Err(ErrorCode::INVALID_ACL) } else { Ok(fixed) }
}

fn expand_auth(perms: i32, auth: &[Id], fixed: &mut Vec<Acl>) -> Result<(), ErrorCode> {
    let before = fixed.len();
    let authenticated = auth.iter().filter(|id| matches!(id.scheme.as_str(), "digest" | "sasl" | "x509"));
    fixed.extend(authenticated.map(|id| Acl { perms, id: id.clone() }));
    if fixed.len() == before { Err(ErrorCode::INVALID_ACL) } else { Ok(()) }
}

fn is_valid(id: &Id, settings: Settings) -> bool {
    match id.scheme.as_str() {
        "world" => id.id == "anyone",
        "digest" => java_split_len(&id.id, ':') == 2,
        "ip" => Range::parse(&id.id).is_some(),
        "sasl" => settings.sasl && is_principal(&id.id),
        "x509" => settings.x509 && id.id.contains('='),
        _ => false,
    }
}

/// How many parts Java's `String.split` gives: trailing empty ones do not count.
fn java_split_len(text: &str, separator: char) -> usize {
    let trimmed = text.trim_end_matches(separator);
    if trimmed.is_empty() { usize::from(text.is_empty()) } else { trimmed.split(separator).count() }
}

/// A Kerberos principal: without `@` anything, else `name[/instance]@realm`.
fn is_principal(id: &str) -> bool {
    match id.split_once('@') {
        None => true,
        Some((name, realm)) => name.split('/').count() <= 2 && !realm.contains(['/', '@']),
    }
}

fn ip_matches(address: &str, range: &str) -> bool {
    match (Range::parse(range), parse_address(address)) {
        (Some(range), Some(address)) => range.contains(&address),
        _ => false,
    }
}

/// An address with the number of leading bits that count.
struct Range {
    address: Vec<u8>,
    bits: usize,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = parse_address(address)?;
        let all = address.len() * 8;
        let bits = match bits {
            Some(bits) => usize::try_from(java_int(bits, 10)?).ok().filter(|n| *n <= all)?,
            None => all,
        };
        Some(Self { address, bits })
    }

    fn contains(&self, other: &[u8]) -> bool {
        let whole = self.bits / 8;
        // No bit of the next byte counts when the range ends at a byte.
        let mask = !(0xff_u8 >> (self.bits % 8));
        self.address.len() == other.len()
            && self.address[..whole] == other[..whole]
            && self.address.get(whole).is_none_or(|byte| (byte ^ other[whole]) & mask == 0)
    }
}

fn parse_address(text: &str) -> Option<Vec<u8>> {
    if text.contains(':') {
        parse_v6(text)
    } else if text.contains('.') {
        parse_v4(text)
    } else {
        None
    }
}

fn parse_v4(text: &str) -> Option<Vec<u8>> {
    let bytes: Option<Vec<u8>> = text.split('.').map(|part| u8::try_from(java_int(part, 10)?).ok()).collect();
    bytes.filter(|b| b.len() == 4)
}

fn parse_v6(text: &str) -> Option<Vec<u8>> {
    let parts: Vec<&str> = text.split("::").collect();
    let segments = |part: &str| -> Option<Vec<u8>> {
        if part.is_empty() {
            return Some(Vec::new());
        }
        let words: Option<Vec<[u8; 2]>> = part.split(':').map(parse_segment).collect();
        words.map(|words| words.concat())
    };
    match parts.as_slice() {
        [whole] => segments(whole).filter(|b| b.len() == 16),
        [head, tail] => {
            let (head, tail) = (segments(head)?, segments(tail)?);
            let gap = 16_usize.checked_sub(head.len() + tail.len()).filter(|gap| *gap > 0)?;
            Some([head, vec![0; gap], tail].concat())
        }
        _ => None,
    }
}

fn parse_segment(segment: &str) -> Option<[u8; 2]> {
    if segment.is_empty() || segment.len() > 4 {
        return None;
    }
    // Java narrows, so that the sign it accepts only changes the bits.
    java_int(segment, 16).map(|value| (value as u16).to_be_bytes())
}

/// `Integer.parseInt`: a sign is allowed, nothing else but digits.
fn java_int(text: &str, radix: u32) -> Option<i32> {
    i32::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl { perms, id: Id::new(scheme, id) }
    }

    #[test]
    fn a_list_grows_by_its_identities_once_for_each_set_of_permissions() {
        let auth = [digest_auth(b"a:1"), digest_auth(b"b:2")];
        let list = |count| (1..=count).map(|perms| entry(perms, "auth", "")).collect::<Vec<_>>();
        assert_eq!(fix_up(&list(31), &auth, Settings::default()).unwrap().len(), 62);
        assert_eq!(fix_up(&list(32), &auth, Settings::default()), Err(ErrorCode::INVALID_ACL));
        let repeated = [list(1), list(1), vec![entry(1, "world", "anyone")]].concat();
        assert_eq!(fix_up(&repeated, &auth, Settings::default()).unwrap().len(), 3);
    }
}
