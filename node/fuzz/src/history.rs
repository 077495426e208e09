//! A history of slots made of bytes: commands by ZooKeeper's rules and against them, and bytes that are no command.
//!
//! Owns which paths, sessions and identities there are: few, so that commands meet.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use pharos_znode::{
    Acl, Batch, Command, CreateMode, ErrorCode, Id, Level, Op, SessionId, Settings, Zxid, perms,
};

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A leader begins.
    EpochStart,
    /// Commands, or bytes that are none.
    Commands(Bytes),
    /// A change of the list of members, or bytes that are none.
    Members(Bytes),
    /// One of the two that are compared is restored from what it has written.
    Restore,
}

const MAX_STEPS: usize = 48;

const PATHS: [&str; 18] = [
    "/a",
    "/a/b",
    "/a/b/c",
    "/b",
    "/b/n-",
    "/c",
    "/c/é",
    "/",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/zookeeper/quota/a",
    "",
    "a",
    "/a/",
    "/a//b",
    "/a/../b",
    "/a/\0",
];

/// Reads steps until the bytes are used up.
pub(crate) fn steps(u: &mut Unstructured<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    while !u.is_empty() && steps.len() < MAX_STEPS {
        let Ok(step) = step(u) else { break };
        steps.push(step);
    }
    steps
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match u.int_in_range(0..=15)? {
        0 => Step::EpochStart,
        1 => Step::Restore,
        2 => Step::Commands(raw(u)?),
        3 => {
            let mut bytes = batch(u)?.to_vec();
            let at = u.choose_index(bytes.len())?;
            bytes[at] = u.arbitrary()?;
            Step::Commands(bytes.into())
        }
        4 => Step::Members(raw(u)?),
        5 => Step::Members(member(u)?),
        _ => Step::Commands(batch(u)?),
    })
}

fn raw(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let length = u.int_in_range(0..=200)?.min(u.len());
    u.bytes(length).map(Bytes::copy_from_slice)
}

/// A change of the list of members, in the form in which the log holds it.
fn member(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let mut out = vec![1, u.int_in_range(1..=2)?];
    out.extend(u.int_in_range(0..=6_u32)?.to_le_bytes());
    if out[1] == 1 {
        out.extend([u.int_in_range(1..=6)?; 16]);
        let host = u.choose(&["main-1", "", "é"])?;
        out.extend((host.len() as u32).to_le_bytes());
        out.extend(host.as_bytes());
        out.extend([0, 1, 2, 3]);
    }
    Ok(out.into())
}

fn batch(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let time_ms = if u.ratio(1, 16)? { u.arbitrary()? } else { i64::from(u.arbitrary::<u8>()?) };
    let count = u.int_in_range(0..=3)?;
    let commands = (0..count).map(|_| command(u)).collect::<Result<_>>()?;
    let mut out = Vec::new();
    Batch { time_ms, commands }.encode(&mut out);
    Ok(out.into())
}

fn command(u: &mut Unstructured<'_>) -> Result<Command> {
    Ok(Command {
        origin: u.int_in_range(1..=2)?,
        boot: 1,
        request: 0,
        session: SessionId(u.int_in_range(0..=3)?),
        attach: u.int_in_range(0..=3)?,
        cxid: 0,
        auth: auth(u)?,
        zxid: if u.ratio(1, 32)? { Some(zxid(u)?) } else { None },
        op: op(u)?,
    })
}

/// Around the ends of what there is, and in between.
fn zxid(u: &mut Unstructured<'_>) -> Result<Zxid> {
    let edge = *u.choose(&[0, 1 << 32, 1 << 62, i64::MAX, i64::MIN])?;
    Ok(Zxid(if u.arbitrary()? { edge.wrapping_add(u.arbitrary::<i8>()?.into()) } else { u.arbitrary()? }))
}

fn auth(u: &mut Unstructured<'_>) -> Result<Vec<Id>> {
    let ids = [("ip", "10.0.0.1"), ("digest", "a:x"), ("digest", "b:y"), ("super", ""), ("sasl", "s")];
    let chosen: u8 = u.arbitrary()?;
    let chosen = ids.iter().enumerate().filter(|(bit, _)| chosen & 1 << bit != 0);
    Ok(chosen.map(|(_, (scheme, id))| Id::new(*scheme, *id)).collect())
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match u.int_in_range(0..=19)? {
        0 => Op::Multi((0..u.int_in_range(0..=5)?).map(|_| single(u)).collect::<Result<_>>()?),
        1 => Op::CreateSession { timeout_ms: u.arbitrary()? },
        2 => Op::AttachSession { timeout_ms: u.arbitrary()? },
        3 => Op::CloseSession,
        4 => Op::Expire { session: SessionId(u.int_in_range(0..=3)?), attach: u.int_in_range(0..=3)? },
        5 => Op::SetConfig { data: raw(u)? },
        6 => Op::Configure(Settings { sasl: u.arbitrary()?, x509: u.arbitrary()? }),
        7 => Op::SetLevel(Level::NEWEST),
        _ => single(u)?,
    })
}

fn single(u: &mut Unstructured<'_>) -> Result<Op> {
    let path = path(u)?;
    Ok(match u.int_in_range(0..=11)? {
        0 => Op::Delete { path, version: version(u)? },
        1 => Op::DeleteContainer { path },
        2 | 3 => Op::SetData { path, data: data(u)?, version: version(u)? },
        4 => Op::SetAcl { path, acl: acl(u)?, version: version(u)? },
        5 => Op::Check { path, version: version(u)? },
        6 => Op::Nop { error: ErrorCode(u.arbitrary()?) },
        _ => Op::Create {
            path,
            data: data(u)?,
            acl: acl(u)?,
            mode: *u.choose(CreateMode::ALL)?,
            ttl: if u.ratio(3, 4)? { -1 } else { u.arbitrary::<i16>()?.into() },
            with_stat: u.arbitrary()?,
        },
    })
}

fn path(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 16)? {
        let bytes = raw(u)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok((*u.choose(&PATHS)?).to_owned())
}

fn version(u: &mut Unstructured<'_>) -> Result<i32> {
    Ok(if u.ratio(1, 16)? { u.arbitrary()? } else { u.int_in_range(-1..=2)? })
}

fn data(u: &mut Unstructured<'_>) -> Result<Option<Bytes>> {
    Ok(match u.int_in_range(0..=3)? {
        0 => None,
        1 => Some(Bytes::new()),
        _ => Some(raw(u)?),
    })
}

fn acl(u: &mut Unstructured<'_>) -> Result<Vec<Acl>> {
    let one = |perms, scheme: &str, id: &str| vec![Acl::new(perms, scheme, id)];
    Ok(match u.int_in_range(0..=9)? {
        0 => Vec::new(),
        1 => one(perms::READ, "world", "anyone"),
        2 => one(perms::ALL, "auth", ""),
        3 => one(perms::ALL, "digest", "a:x"),
        4 => one(u.arbitrary()?, "ip", "10.0.0.0/8"),
        5 => one(perms::ALL, "sasl", "s"),
        6 => {
            let (scheme, id) = (raw(u)?, raw(u)?);
            one(u.arbitrary()?, &String::from_utf8_lossy(&scheme), &String::from_utf8_lossy(&id))
        }
        _ => vec![Acl::open()],
    })
}
