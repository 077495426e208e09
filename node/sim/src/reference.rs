//! What is chosen, once for all members, and what follows from it.
//!
//! Owns the one log that every member must agree with, a state that carries it out, and what each
//! command's client must be told. Invariant checked here: agreement on every slot, equal digests after
//! each, equal lists of members, and no command carried out twice.

use crate::roll::Roll;
use crate::violation::Violation;
use bytes::{BufMut, BytesMut};
use pharos_jute::ReplyHeader;
use pharos_paxos::{ConfigNo, Entry, EntryKind, MemberId, Membership, Slot};
use pharos_replica::{Change, Founding, NewGeneration, Replica, config_command};
use pharos_znode::{Applied, Batch, Command, ErrorCode, Op, SessionEvent, SessionId, State};
use std::collections::BTreeMap;

/// Who gave a command to the log: member, boot nonce, request key.
pub(crate) type CommandKey = (u32, u64, u64);

/// A node's data as of a zxid; none when it did not exist.
type Version = (i64, Option<(Vec<u8>, i32)>);

/// How far a generation stays ahead of the one before.
const GENERATION_EPOCHS: i64 = 65_536;

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
    /// Of what the levels brought.
    pub(crate) told: Told,
    /// The list of members after each slot that changed it.
    rolls: Vec<(Slot, Roll)>,
    /// Seals that were chosen; the world looks at them and clears the list.
    pub(crate) sealed: Vec<Sealed>,
}

/// One configuration ended, the next may begin.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) seal: Entry,
    pub(crate) old: Membership,
    pub(crate) new: Membership,
}

/// What was carried out that not every level has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) levels_raised: u64,
    pub(crate) ttl_nodes: u64,
    pub(crate) ttl_nodes_refused: u64,
    pub(crate) nodes_swept: u64,
}

/// What of a member the reference has compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) slot: Slot,
    /// Which of the lists of members, from one.
    roll: usize,
}

impl Seen {
    pub(crate) fn from(slot: Slot) -> Self {
        Self { slot, roll: 0 }
    }
}

impl Reference {
    pub(crate) fn new(founding: &Founding) -> Self {
        Self {
            state: State::new(),
            log: Vec::new(),
            digests: Vec::new(),
            answers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            expired: Vec::new(),
            epochs: 0,
            told: Told::default(),
            rolls: vec![(Slot::ZERO, Roll::founding(founding))],
            sealed: Vec::new(),
        }
    }

    /// Compares everything a member has newly applied with what is chosen; the first to apply a slot
    /// says what is. True if the member took over a state instead of applying what led to it.
    pub(crate) fn observe(&mut self, seen: &mut Seen, replica: &Replica) -> Result<bool, Violation> {
        let (applied, digest) = replica.digest();
        let installed = replica.installed_upto();
        let jumped = installed > seen.slot;
        let before = seen.slot;
        if jumped {
            if installed > self.end() {
                return Err(Violation::new(format!("a state of slot {installed}, which nobody has applied")));
            }
            *seen = Seen::from(installed);
        }
        // Of a slot that is half-way, clients have been answered.
        let begun = if replica.is_between_slots() { applied } else { applied.next() };
        while seen.slot < begun {
            let slot = seen.slot.next();
            let entry =
                replica.chosen(slot).ok_or_else(|| Violation::new("an applied slot is not in the log"))?;
            match self.log.get(slot.0 as usize - 1) {
                Some(chosen) if chosen == entry => {}
                Some(_) => return Err(Violation::new(format!("agreement: slot {slot} holds two entries"))),
                None => self.choose(entry.clone())?,
            }
            seen.slot = slot;
        }
        let wrong = |digest| self.digests[applied.0 as usize - 1] != digest;
        if applied > Slot::ZERO && digest.is_some_and(wrong) {
            return Err(Violation::new(format!("digest: members differ after slot {applied}")));
        }
        if seen.roll == 0 || seen.slot > before {
            self.compare_roll(seen, replica)?;
        }
        Ok(jumped)
    }

    fn compare_roll(&self, seen: &mut Seen, replica: &Replica) -> Result<(), Violation> {
        let count = self.rolls.partition_point(|(since, _)| *since <= seen.slot);
        if count != seen.roll {
            self.rolls[count - 1].1.compare(replica.registry(), seen.slot)?;
            seen.roll = count;
        }
        Ok(())
    }

    /// The list of members after the last slot that some member has applied.
    pub(crate) fn roll(&self) -> &Roll {
        &self.rolls.last().expect("the founding list is there").1
    }

    /// The newest configuration in which something is chosen.
    pub(crate) fn settled(&self) -> ConfigNo {
        self.log.last().map_or(ConfigNo(1), |last| last.ballot.config)
    }

    /// Who votes in that configuration, unless nobody has applied its seal.
    pub(crate) fn voters_in(&self, config: ConfigNo) -> Option<&[MemberId]> {
        let of = |(_, roll): &&(Slot, Roll)| roll.membership().config == config;
        self.rolls.iter().rev().find(of).map(|(_, roll)| &roll.membership().voters[..])
    }

    /// The last chosen slot that some member has applied.
    pub(crate) fn end(&self) -> Slot {
        Slot(self.log.len() as u64)
    }

    /// What the client of a command must be told.
    pub(crate) fn answer(&self, key: CommandKey) -> Option<&(i64, Vec<u8>)> {
        self.answers.get(&key)
    }

    /// Whether the session has been opened and has not ended.
    pub(crate) fn lives(&self, session: i64) -> bool {
        self.state.session(SessionId(session)).is_some()
    }

    /// A node's data and version as of a zxid.
    pub(crate) fn node_at(&self, path: &str, zxid: i64) -> Option<&(Vec<u8>, i32)> {
        let versions = self.nodes.get(path)?;
        let next = versions.partition_point(|(at, _)| *at <= zxid);
        versions[..next].last()?.1.as_ref()
    }

    /// How often the node of a row of the store was written so far.
    pub(crate) fn times_written(&self, row: &[u8]) -> usize {
        let path = row.get(3..).and_then(|path| std::str::from_utf8(path).ok());
        path.and_then(|path| self.nodes.get(path)).map_or(0, Vec::len)
    }

    fn choose(&mut self, entry: Entry) -> Result<(), Violation> {
        let begun = NewGeneration::of(&entry).map_err(|e| Violation::new(e.to_string()))?;
        let config = self.roll().membership().config;
        if entry.ballot.config != config && begun.is_none() {
            let (slot, own) = (entry.slot, entry.ballot);
            return Err(Violation::new(format!(
                "configuration: slot {slot} of {own} stands in {}",
                config.0
            )));
        }
        match entry.kind {
            EntryKind::Founding => self.write_config(entry.slot),
            EntryKind::Seal => {
                let mut roll = self.roll().clone();
                if let Some(begun) = &begun {
                    roll.begin_generation(begun, &entry)?;
                    self.state.jump_epoch(self.state.zxid().epoch() + GENERATION_EPOCHS);
                } else {
                    let old = roll.membership().clone();
                    roll.enter(&entry)?;
                    let new = roll.membership().clone();
                    self.sealed.push(Sealed { seal: entry.clone(), old, new });
                }
                self.rolls.push((entry.slot, roll));
                self.write_config(entry.slot);
            }
            EntryKind::Members => {
                let change =
                    Change::decode(entry.payload.clone()).map_err(|e| Violation::new(e.to_string()))?;
                let mut roll = self.roll().clone();
                roll.change(change);
                self.rolls.push((entry.slot, roll));
                self.write_config(entry.slot);
            }
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

    fn write_config(&mut self, slot: Slot) {
        let roll = self.roll();
        let command = config_command(&self.state, roll.membership(), roll.members(), slot);
        let time_ms = self.state.time_ms();
        self.state.apply(&command, time_ms, &mut Applied::new());
    }

    fn carry_out(&mut self, command: &Command, time_ms: i64) -> Result<(), Violation> {
        let mut out = Applied::new();
        let (before, level) = (self.state.zxid(), self.state.level());
        self.state.apply(command, time_ms, &mut out);
        self.told.levels_raised += u64::from(self.state.level() > level);
        self.tell(command, &out);
        if self.state.zxid() < before {
            return Err(Violation::new("zxid: the state's zxid went back"));
        }
        for event in out.tree_events() {
            let now = self.state.get_data(event.path, &[pharos_znode::Id::new("super", "")]).ok();
            let version =
                now.map(|n| (n.data.here().map(<[u8]>::to_vec).unwrap_or_default(), n.stat.version));
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

impl Reference {
    fn tell(&mut self, command: &Command, out: &Applied) {
        let done = u64::from(out.result.is_ok());
        match &command.op {
            Op::Create { mode, .. } if mode.is_ttl() => {
                self.told.ttl_nodes += done;
                self.told.ttl_nodes_refused += u64::from(out.result == Err(ErrorCode::UNIMPLEMENTED));
            }
            Op::DeleteContainer { .. } => self.told.nodes_swept += done,
            _ => {}
        }
    }
}

/// The part of an answer that the reference knows: the error and the body.
pub(crate) fn answer_tail(frame: &[u8]) -> &[u8] {
    &frame[ReplyHeader::LEN - 4..]
}
