//! Whether two answers say the same, given what the servers may choose freely: zxids, times, session ids, orders that
//! ZooKeeper leaves open.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use pharos_jute::{MultiResult, OpCode, Response, Stat};

use super::client::{Answer, Event, Reply};

/// What has been seen of the two servers' free choices so far.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    zxids: BTreeMap<i64, i64>,
    zxids_back: BTreeMap<i64, i64>,
    sessions: BTreeMap<i64, i64>,
}

impl Comparison {
    /// Notes that these are the same session.
    pub(crate) fn session(&mut self, left: i64, right: i64) {
        self.sessions.insert(left, right);
    }

    /// Compares all that was said to one request. Events of a session's end come in no promised order.
    pub(crate) fn answers(&mut self, op: OpCode, left: &Answer, right: &Answer) -> Result<()> {
        ensure!(left.closed == right.closed, "closed: {} and {}", left.closed, right.closed);
        self.events(&left.events, &right.events, op == OpCode::CloseSession)?;
        match (&left.reply, &right.reply) {
            (Some(left), Some(right)) => self.replies(op, left, right),
            (None, None) => Ok(()),
            _ => bail!("one server closed the connection without a reply"),
        }
    }

    /// Compares events of one connection.
    pub(crate) fn events(&mut self, left: &[Event], right: &[Event], any_order: bool) -> Result<()> {
        let (mut left, mut right) = (left.to_vec(), right.to_vec());
        if any_order {
            let key = |e: &Event| (e.path.clone(), e.kind, e.zxid);
            left.sort_by_key(key);
            right.sort_by_key(key);
        }
        let shape = |events: &[Event]| -> Vec<(i32, i32, String)> {
            events.iter().map(|e| (e.kind, e.state, e.path.clone())).collect()
        };
        equal("events", &shape(&left), &shape(&right))?;
        for (left, right) in left.iter().zip(&right) {
            self.zxid("event's zxid", left.zxid, right.zxid)?;
        }
        Ok(())
    }

    fn replies(&mut self, op: OpCode, left: &Reply, right: &Reply) -> Result<()> {
        equal("error", &left.header.err, &right.header.err)?;
        // Auth is answered without regard to what was applied.
        if !matches!(op, OpCode::Auth | OpCode::Error | OpCode::Check) {
            self.zxid("reply's zxid", left.header.zxid, right.header.zxid)?;
        }
        if !left.header.err.is_ok() || op == OpCode::Error {
            return equal("body of an error", &left.body, &right.body);
        }
        equal("length of the body", &left.body.len(), &right.body.len())?;
        self.responses(&Response::decode(op, &left.body)?, &Response::decode(op, &right.body)?)
    }

    fn responses(&mut self, left: &Response<'_>, right: &Response<'_>) -> Result<()> {
        use Response::{Acl, Children, Created, Data, Multi, Names, WhoAmI};
        match (left, right) {
            (Response::Stat(l), Response::Stat(r)) => self.stats(l, r),
            (Created { path: lp, stat: l }, Created { path: rp, stat: r }) => {
                equal("path", lp, rp)?;
                self.stats(l, r)
            }
            (Data { data: ld, stat: l }, Data { data: rd, stat: r }) => {
                equal("data", ld, rd)?;
                self.stats(l, r)
            }
            (Names(l), Names(r)) => equal("names", &sorted(l), &sorted(r)),
            (Children { names: ln, stat: l }, Children { names: rn, stat: r }) => {
                equal("children", &sorted(ln), &sorted(rn))?;
                self.stats(l, r)
            }
            (Acl { acl: la, stat: l }, Acl { acl: ra, stat: r }) => {
                // The identities that `auth` becomes come in no promised order.
                let order = |acl: &[pharos_jute::AclRef<'_>]| {
                    let mut list: Vec<String> = acl.iter().map(|entry| format!("{entry:?}")).collect();
                    list.sort();
                    list
                };
                equal("acl", &order(la), &order(ra))?;
                self.stats(l, r)
            }
            (Multi(l), Multi(r)) => self.multis(l, r),
            (WhoAmI(l), WhoAmI(r)) => {
                let order = |infos: &[pharos_jute::ClientInfo<'_>]| {
                    let mut list: Vec<String> = infos.iter().map(|info| format!("{info:?}")).collect();
                    list.sort();
                    list
                };
                equal("identities", &order(l), &order(r))
            }
            _ => equal("response", left, right),
        }
    }

    fn multis(&mut self, left: &[MultiResult<'_>], right: &[MultiResult<'_>]) -> Result<()> {
        use MultiResult::{Children, Create2, Data, SetData};
        equal("number of results", &left.len(), &right.len())?;
        for (left, right) in left.iter().zip(right) {
            match (left, right) {
                (Create2 { path: lp, stat: l }, Create2 { path: rp, stat: r }) => {
                    equal("path", lp, rp)?;
                    self.stats(l, r)?;
                }
                (SetData(l), SetData(r)) => self.stats(l, r)?,
                (Children(l), Children(r)) => equal("children", &sorted(l), &sorted(r))?,
                (Data { data: ld, stat: l }, Data { data: rd, stat: r }) => {
                    equal("data", ld, rd)?;
                    self.stats(l, r)?;
                }
                _ => equal("result", left, right)?,
            }
        }
        Ok(())
    }

    fn stats(&mut self, left: &Stat, right: &Stat) -> Result<()> {
        let numbers =
            |s: &Stat| Stat { czxid: 0, mzxid: 0, pzxid: 0, ctime: 0, mtime: 0, ephemeral_owner: 0, ..*s };
        equal("stat", &numbers(left), &numbers(right))?;
        for (name, left, right) in [
            ("czxid", left.czxid, right.czxid),
            ("mzxid", left.mzxid, right.mzxid),
            ("pzxid", left.pzxid, right.pzxid),
        ] {
            self.zxid(name, left, right)?;
        }
        // Clocks differ; what one transaction wrote has one time on either side.
        for stat in [left, right] {
            ensure!(
                stat.mtime >= stat.ctime && (stat.czxid != stat.mzxid || stat.ctime == stat.mtime),
                "times do not fit their transactions: {stat:?}"
            );
        }
        equal("ctime is set", &(left.ctime != 0), &(right.ctime != 0))?;
        let owner = self.sessions.get(&left.ephemeral_owner).copied();
        equal("ephemeralOwner", &owner.unwrap_or(left.ephemeral_owner), &right.ephemeral_owner)
    }

    /// Zxids stand for one another one to one, and in the same order; 0 and -1 for themselves.
    fn zxid(&mut self, name: &str, left: i64, right: i64) -> Result<()> {
        if left <= 0 || right <= 0 {
            return equal(name, &left, &right);
        }
        match (self.zxids.get(&left), self.zxids_back.get(&right)) {
            (Some(known), _) if *known == right => return Ok(()),
            (None, None) => {}
            _ => bail!("{name}: 0x{left:x} and 0x{right:x} were not the same transaction before"),
        }
        let before = self.zxids.range(..left).next_back();
        let after = self.zxids.range(left..).next();
        if before.is_some_and(|(_, r)| *r > right) || after.is_some_and(|(_, r)| *r < right) {
            bail!("{name}: 0x{left:x} and 0x{right:x} stand at different places among the transactions");
        }
        self.zxids.insert(left, right);
        self.zxids_back.insert(right, left);
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, left: &T, right: &T) -> Result<()> {
    ensure!(left == right, "{what}: {left:?} and {right:?}");
    Ok(())
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}
