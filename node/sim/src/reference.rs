//! What is chosen, once for all members, and what follows from it.
//!
//! Owns the one log that every member must agree with, a state that carries it out, and what each
//! command's client must be told. Invariant checked here: agreement on every slot, equal digests after
//! each, and no command carried out twice.

use crate::violation::Violation;
use bytes::{BufMut, BytesMut};
use pharos_jute::ReplyHeader;
use pharos_paxos::{Entry, EntryKind, Slot};
use pharos_replica::Replica;
use pharos_znode::{Applied, Batch, Command, Op, SessionEvent, SessionId, State};
use std::collections::BTreeMap;

/// Who gave a command to the log: member, boot nonce, request key.
pub(crate) type CommandKey = (u32, u64, u64);

/// A node's data as of a zxid; none when it did not exist.
type Version = (i64, Option<(Vec<u8>, i32)>);

pub(crate) struct Reference {
    state: State,
    log: Vec<Entry>,
    digests: Vec<u64>,
    /// The answer's zxid and body, without the client's own number.
    answers: BTreeMap<CommandKey, (i64, Vec<u8>)>,
    nodes: BTreeMap<String, Vec<Version>>,
    /// Sessions that the leader ended, newest last; the world looks at them and clears the list.
    pub(crate) expired: Vec<SessionId>,
    pub(crate) epochs: u64,
}

impl Reference {
    pub(crate) fn new() -> Self {
        Self {
            state: State::new(),
            log: Vec::new(),
            digests: Vec::new(),
            answers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            expired: Vec::new(),
            epochs: 0,
        }
    }

    /// Compares everything a member has newly applied with what is chosen; the first to apply a slot
    /// says what is. True if the member took over a state instead of applying what led to it.
    pub(crate) fn observe(&mut self, seen: &mut Slot, replica: &Replica) -> Result<bool, Violation> {
        let (applied, digest) = replica.digest();
        let installed = replica.installed_upto();
        let jumped = installed > *seen;
        if jumped {
            if installed > self.end() {
                return Err(Violation::new(format!("a state of slot {installed}, which nobody has applied")));
            }
            *seen = installed;
        }
        while *seen < applied {
            let slot = seen.next();
            let entry =
                replica.chosen(slot).ok_or_else(|| Violation::new("an applied slot is not in the log"))?;
            match self.log.get(slot.0 as usize - 1) {
                Some(chosen) if chosen == entry => {}
                Some(_) => return Err(Violation::new(format!("agreement: slot {slot} holds two entries"))),
                None => self.choose(entry.clone())?,
            }
            *seen = slot;
        }
        if applied > Slot::ZERO && self.digests[applied.0 as usize - 1] != digest {
            return Err(Violation::new(format!("digest: members differ after slot {applied}")));
        }
        Ok(jumped)
    }

    /// The last chosen slot that some member has applied.
    pub(crate) fn end(&self) -> Slot {
        Slot(self.log.len() as u64)
    }

    /// What the client of a command must be told.
    pub(crate) fn answer(&self, key: CommandKey) -> Option<&(i64, Vec<u8>)> {
        self.answers.get(&key)
    }

    /// A node's data and version as of a zxid.
    pub(crate) fn node_at(&self, path: &str, zxid: i64) -> Option<&(Vec<u8>, i32)> {
        let versions = self.nodes.get(path)?;
        let next = versions.partition_point(|(at, _)| *at <= zxid);
        versions[..next].last()?.1.as_ref()
    }

    fn choose(&mut self, entry: Entry) -> Result<(), Violation> {
        match entry.kind {
            EntryKind::Founding | EntryKind::Seal | EntryKind::Members => {}
            EntryKind::EpochStart => {
                self.state.epoch_start();
                self.epochs += 1;
            }
            EntryKind::Commands => {
                let batch = Batch::decode(&entry.payload).map_err(|e| Violation::new(e.to_string()))?;
                for command in &batch.commands {
                    self.carry_out(command, batch.time_ms)?;
                }
            }
        }
        self.log.push(entry);
        self.digests.push(self.state.digest());
        Ok(())
    }

    fn carry_out(&mut self, command: &Command, time_ms: i64) -> Result<(), Violation> {
        let mut out = Applied::new();
        let before = self.state.zxid();
        self.state.apply(command, time_ms, &mut out);
        if self.state.zxid() < before {
            return Err(Violation::new("zxid: the state's zxid went back"));
        }
        for event in out.tree_events() {
            let now = self.state.get_data(event.path, &[pharos_znode::Id::new("super", "")]).ok();
            let version = now.map(|n| (n.data.map(|d| d.to_vec()).unwrap_or_default(), n.stat.version));
            self.nodes.entry(event.path.to_owned()).or_default().push((out.zxid.0, version));
        }
        for event in &out.session_events {
            if let (SessionEvent::Closed { session, expired: true, .. }, Op::Expire { .. }) =
                (event, &command.op)
            {
                self.expired.push(*session);
            }
        }
        if command.request == 0 {
            return Ok(());
        }
        let mut body = BytesMut::new();
        match out.response() {
            Ok(response) => {
                body.put_i32(0);
                response.encode(&mut body);
            }
            Err(code) => body.put_i32(code.0),
        }
        let key = (command.origin, command.boot, command.request);
        if self.answers.insert(key, (out.zxid.0, body.to_vec())).is_some() {
            return Err(Violation::new(format!("a command was carried out twice: {key:?}")));
        }
        Ok(())
    }
}

/// The part of an answer that the reference knows: the error and the body.
pub(crate) fn answer_tail(frame: &[u8]) -> &[u8] {
    &frame[ReplyHeader::LEN - 4..]
}
