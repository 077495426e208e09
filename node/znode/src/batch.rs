//! The form of commands in the log: one batch is the payload of one slot.
//!
//! The first byte is the version: 2 if the batch raises the feature level, which versions that know of no levels must
//! refuse by name, and else 1, which they read. Integers are big-endian, strings and lists have their length before them, as
//! in jute.

use bytes::{BufMut, Bytes};
use pharos_jute::{
    Acl, CreateMode, DecodeError, ErrorCode, Id, Reader, put_bool, put_buffer, put_string, put_vector_len,
};

use crate::{BatchError, Command, EncodedOp, Level, Op, SessionId, Settings, Zxid};

/// The version of batches that do not raise the level.
const VERSION: u8 = 1;
/// The version of those that do: the newest that this crate reads.
pub(crate) const RAISES: u8 = 2;

type Result<T> = std::result::Result<T, BatchError>;

/// The payload of one slot of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The leader's clock when it made the batch, ms since 1970. Applied as the greatest seen so far.
    pub time_ms: i64,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

impl Batch {
    /// Appends the payload.
    pub fn encode(&self, out: &mut impl BufMut) {
        let raises = self.raises_to().is_some();
        put_header(if raises { RAISES } else { VERSION }, self.time_ms, self.commands.len(), out);
        self.commands.iter().for_each(|command| encode_command(command, out));
    }

    /// Appends what stands before `count` commands that do not raise the level, for a leader that has the commands
    /// encoded already.
    pub fn put_header(time_ms: i64, count: usize, out: &mut impl BufMut) {
        put_header(VERSION, time_ms, count, out);
    }

    /// Reads a payload. Node data share its memory.
    pub fn decode(payload: &Bytes) -> Result<Self> {
        let mut decoder = BatchDecoder::new(payload.clone())?;
        let mut steps = usize::MAX;
        let done = decoder.go_on(&mut steps)?;
        assert!(done, "nothing is left of a payload without a limit");
        Ok(decoder.finish())
    }

    /// The level that the state has after the batch, if it raises it.
    pub fn raises_to(&self) -> Option<Level> {
        let level = |command: &Command| if let Op::SetLevel(level) = command.op { Some(level) } else { None };
        self.commands.iter().filter_map(level).max()
    }

    /// The level to which a payload raises the state; of most its first byte says that they do not.
    pub fn level_in(payload: &Bytes) -> Result<Option<Level>> {
        match payload.first() {
            Some(&VERSION) => Ok(None),
            _ => Self::decode(payload).map(|batch| batch.raises_to()),
        }
    }
}

/// Reads a payload in slices, for it may be large.
#[derive(Debug)]
pub struct BatchDecoder {
    version: u8,
    payload: Bytes,
    /// What is before is read.
    at: usize,
    batch: Batch,
    /// Commands to come.
    commands: usize,
    /// Operations to come of the last command, a multi.
    ops: usize,
}

impl BatchDecoder {
    /// Begins with what stands before the commands.
    pub fn new(payload: Bytes) -> Result<Self> {
        let mut d = Decoder::new(&payload)?;
        let time_ms = d.r.i64("time")?;
        let commands = d.count("commands")?;
        let (version, at) = (d.version, d.at());
        let batch = Batch { time_ms, commands: Vec::new() };
        Ok(Self { version, payload, at, batch, commands, ops: 0 })
    }

    /// Reads at most so many commands and operations of multis; true when nothing is left.
    pub fn go_on(&mut self, steps: &mut usize) -> Result<bool> {
        let r = Reader::new(&self.payload[self.at..]);
        let mut d = Decoder { version: self.version, payload: &self.payload, r };
        while (self.ops > 0 || self.commands > 0) && *steps > 0 {
            *steps -= 1;
            if self.ops > 0 {
                let op = d.op_of_multi()?;
                self.ops -= 1;
                if let Some(Command { op: Op::Multi(ops), .. }) = self.batch.commands.last_mut() {
                    ops.push(op);
                }
            } else {
                let (command, ops) = d.command()?;
                self.batch.commands.push(command);
                self.commands -= 1;
                self.ops = ops;
            }
        }
        self.at = d.at();
        let done = self.ops == 0 && self.commands == 0;
        if done {
            d.end()?;
        }
        Ok(done)
    }

    /// What was read.
    pub fn finish(self) -> Batch {
        self.batch
    }
}

fn put_header(version: u8, time_ms: i64, count: usize, out: &mut impl BufMut) {
    out.put_u8(version);
    out.put_i64(time_ms);
    put_vector_len(out, count);
}

impl Command {
    /// Appends the command as it stands in a batch, for [`Batch::put_header`] to stand before.
    pub fn encode(&self, out: &mut impl BufMut) {
        encode_command(self, out);
    }

    /// The same with another operation in the place of its own.
    pub fn encode_with(&self, op: &EncodedOp, out: &mut impl BufMut) {
        encode_head(self, out);
        out.put_slice(op.bytes());
    }
}

pub(crate) mod kind {
    pub(super) const CREATE: u8 = 1;
    pub(super) const DELETE: u8 = 2;
    pub(super) const DELETE_CONTAINER: u8 = 3;
    pub(super) const SET_DATA: u8 = 4;
    pub(super) const SET_ACL: u8 = 5;
    pub(super) const CHECK: u8 = 6;
    pub(crate) const MULTI: u8 = 7;
    pub(super) const CREATE_SESSION: u8 = 8;
    pub(super) const ATTACH_SESSION: u8 = 9;
    pub(super) const CLOSE_SESSION: u8 = 10;
    pub(super) const EXPIRE: u8 = 11;
    pub(super) const SET_CONFIG: u8 = 12;
    pub(super) const CONFIGURE: u8 = 13;
    pub(super) const NOP: u8 = 14;
    pub(super) const SET_LEVEL: u8 = 15;
}

fn encode_command(command: &Command, out: &mut impl BufMut) {
    encode_head(command, out);
    encode_op(&command.op, out);
}

/// What stands before the operation.
fn encode_head(command: &Command, out: &mut impl BufMut) {
    let Command { origin, boot, request, session, attach, cxid, auth, zxid, op: _ } = command;
    out.put_u32(*origin);
    out.put_u64(*boot);
    out.put_u64(*request);
    out.put_i64(session.0);
    out.put_u32(*attach);
    out.put_i32(*cxid);
    put_vector_len(out, auth.len());
    for id in auth {
        encode_id(id, out);
    }
    put_bool(out, zxid.is_some());
    if let Some(zxid) = zxid {
        out.put_i64(zxid.0);
    }
}

pub(crate) fn encode_op(op: &Op, out: &mut impl BufMut) {
    match op {
        Op::Create { path, data, acl, mode, ttl, with_stat } => {
            put_path(kind::CREATE, path, out);
            put_buffer(out, data.as_deref());
            encode_acl(acl, out);
            out.put_i32(mode.as_i32());
            out.put_i64(*ttl);
            put_bool(out, *with_stat);
        }
        Op::Delete { path, version } => put_path_version(kind::DELETE, path, *version, out),
        Op::DeleteContainer { path } => put_path(kind::DELETE_CONTAINER, path, out),
        Op::SetData { path, data, version } => {
            put_path_version(kind::SET_DATA, path, *version, out);
            put_buffer(out, data.as_deref());
        }
        Op::SetAcl { path, acl, version } => {
            put_path_version(kind::SET_ACL, path, *version, out);
            encode_acl(acl, out);
        }
        Op::Check { path, version } => put_path_version(kind::CHECK, path, *version, out),
        Op::Multi(ops) => {
            out.put_u8(kind::MULTI);
            put_vector_len(out, ops.len());
            for op in ops {
                encode_op(op, out);
            }
        }
        Op::CreateSession { timeout_ms } => put_number(kind::CREATE_SESSION, *timeout_ms, out),
        Op::AttachSession { timeout_ms } => put_number(kind::ATTACH_SESSION, *timeout_ms, out),
        Op::CloseSession => out.put_u8(kind::CLOSE_SESSION),
        Op::Expire { session, attach } => {
            out.put_u8(kind::EXPIRE);
            out.put_i64(session.0);
            out.put_u32(*attach);
        }
        Op::SetConfig { data } => {
            out.put_u8(kind::SET_CONFIG);
            put_buffer(out, Some(data));
        }
        Op::Configure(Settings { sasl, x509 }) => {
            out.put_u8(kind::CONFIGURE);
            put_bool(out, *sasl);
            put_bool(out, *x509);
        }
        Op::SetLevel(Level(level)) => put_number(kind::SET_LEVEL, i32::from(*level), out),
        Op::Nop { error } => put_number(kind::NOP, error.0, out),
    }
}

fn put_path(kind: u8, path: &str, out: &mut impl BufMut) {
    out.put_u8(kind);
    put_string(out, Some(path));
}

fn put_path_version(kind: u8, path: &str, version: i32, out: &mut impl BufMut) {
    put_path(kind, path, out);
    out.put_i32(version);
}

fn put_number(kind: u8, number: i32, out: &mut impl BufMut) {
    out.put_u8(kind);
    out.put_i32(number);
}

pub(crate) fn encode_acl(acl: &[Acl], out: &mut impl BufMut) {
    put_vector_len(out, acl.len());
    for entry in acl {
        out.put_i32(entry.perms);
        encode_id(&entry.id, out);
    }
}

fn encode_id(id: &Id, out: &mut impl BufMut) {
    put_string(out, Some(&id.scheme));
    put_string(out, Some(&id.id));
}

struct Decoder<'a> {
    version: u8,
    payload: &'a Bytes,
    r: Reader<'a>,
}

impl<'a> Decoder<'a> {
    /// Starts after the version, which must be known.
    fn new(payload: &'a Bytes) -> Result<Self> {
        match payload.split_first() {
            None => Err(BatchError::Empty),
            Some((&version @ (VERSION | RAISES), rest)) => {
                Ok(Self { version, payload, r: Reader::new(rest) })
            }
            Some((&other, _)) => Err(BatchError::Version(other)),
        }
    }

    fn end(&self) -> Result<()> {
        match self.r.rest().len() {
            0 => Ok(()),
            trailing => Err(BatchError::Trailing(trailing)),
        }
    }

    fn at(&self) -> usize {
        self.payload.len() - self.r.rest().len()
    }

    /// A command, and how many operations are to come if it is a multi.
    fn command(&mut self) -> Result<(Command, usize)> {
        let mut command = Command {
            origin: self.u32("origin")?,
            boot: self.u64("boot")?,
            request: self.u64("request")?,
            session: SessionId(self.r.i64("session")?),
            attach: self.u32("attach")?,
            cxid: self.r.i32("cxid")?,
            auth: self.list("auth", Self::id)?,
            zxid: if self.r.bool("zxid")? { Some(Zxid(self.r.i64("zxid")?)) } else { None },
            op: Op::Multi(Vec::new()),
        };
        match self.r.u8("kind")? {
            kind::MULTI => Ok((command, self.count("ops")?)),
            kind => {
                command.op = self.single_op(kind)?;
                Ok((command, 0))
            }
        }
    }

    fn op_of_multi(&mut self) -> Result<Op> {
        match self.r.u8("kind")? {
            kind::MULTI => Err(BatchError::Nested),
            kind => self.single_op(kind),
        }
    }

    fn single_op(&mut self, kind: u8) -> Result<Op> {
        Ok(match kind {
            kind::CREATE => Op::Create {
                path: self.string("path")?,
                data: self.data("data")?,
                acl: self.list("acl", Self::acl)?,
                mode: self.mode()?,
                ttl: self.r.i64("ttl")?,
                with_stat: self.r.bool("with_stat")?,
            },
            kind::DELETE => Op::Delete { path: self.string("path")?, version: self.r.i32("version")? },
            kind::DELETE_CONTAINER => Op::DeleteContainer { path: self.string("path")? },
            kind::SET_DATA => Op::SetData {
                path: self.string("path")?,
                version: self.r.i32("version")?,
                data: self.data("data")?,
            },
            kind::SET_ACL => Op::SetAcl {
                path: self.string("path")?,
                version: self.r.i32("version")?,
                acl: self.list("acl", Self::acl)?,
            },
            kind::CHECK => Op::Check { path: self.string("path")?, version: self.r.i32("version")? },
            kind::CREATE_SESSION => Op::CreateSession { timeout_ms: self.r.i32("timeout")? },
            kind::ATTACH_SESSION => Op::AttachSession { timeout_ms: self.r.i32("timeout")? },
            kind::CLOSE_SESSION => Op::CloseSession,
            kind::EXPIRE => {
                Op::Expire { session: SessionId(self.r.i64("session")?), attach: self.u32("attach")? }
            }
            kind::SET_CONFIG => Op::SetConfig { data: self.data("data")?.ok_or(BatchError::Null("data"))? },
            kind::CONFIGURE => {
                Op::Configure(Settings { sasl: self.r.bool("sasl")?, x509: self.r.bool("x509")? })
            }
            kind::SET_LEVEL if self.version == RAISES => Op::SetLevel(self.level()?),
            kind::NOP => Op::Nop { error: ErrorCode(self.r.i32("error")?) },
            other => return Err(BatchError::Kind(other)),
        })
    }

    fn level(&mut self) -> Result<Level> {
        let value = self.r.i32("level")?;
        let level = u16::try_from(value).map_err(|_| DecodeError::Value { field: "level", value })?;
        Ok(Level(level))
    }

    fn mode(&mut self) -> Result<CreateMode> {
        let value = self.r.i32("mode")?;
        CreateMode::from_i32(value).ok_or(BatchError::Field(DecodeError::Value { field: "mode", value }))
    }

    fn acl(&mut self) -> Result<Acl> {
        Ok(Acl { perms: self.r.i32("acl.perms")?, id: self.id()? })
    }

    fn id(&mut self) -> Result<Id> {
        Ok(Id { scheme: self.string("id.scheme")?, id: self.string("id.id")? })
    }

    fn string(&mut self, field: &'static str) -> Result<String> {
        self.r.string(field)?.map(str::to_owned).ok_or(BatchError::Null(field))
    }

    fn data(&mut self, field: &'static str) -> Result<Option<Bytes>> {
        Ok(self.r.buffer(field)?.map(|bytes| self.payload.slice_ref(bytes)))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32> {
        Ok(self.r.i32(field)?.cast_unsigned())
    }

    fn u64(&mut self, field: &'static str) -> Result<u64> {
        Ok(self.r.i64(field)?.cast_unsigned())
    }

    /// How many elements follow, each of at least a byte.
    fn count(&mut self, field: &'static str) -> Result<usize> {
        let len = self.r.i32(field)?;
        let count = usize::try_from(len).ok().filter(|n| *n <= self.r.rest().len());
        Ok(count.ok_or(DecodeError::Length { field, len })?)
    }

    /// Memory grows with the elements really read.
    fn list<T>(
        &mut self,
        field: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.count(field)?;
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(element(self)?);
        }
        Ok(out)
    }
}
