//! The bytes of a message: version, tag, fields in order, all integers little-endian.
//!
//! Owns the wire format. The decoder is total: it neither panics nor allocates more than a small multiple
//! of what it was given, whatever that is; and what it accepts is well-formed (entries contiguous).

use crate::message::{MAX_RUNS, Message, Run, Standing};
use crate::types::{Ballot, ConfigNo, Entry, EntryKind, MAX_ENTRY_BYTES, MemberId, Slot};
use bytes::Bytes;
use thiserror::Error;

/// The format below. A reader refuses any other.
const VERSION: u8 = 2;

/// What an entry takes at least: slot, ballot, kind, length.
const MIN_ENTRY_BYTES: usize = 8 + 16 + 1 + 4;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("message ends in the middle of a field")]
    Short,
    /// It goes on after its last field.
    #[error("message has {0} bytes after its last field")]
    Trailing(usize),
    /// A version from the future, or no message at all.
    #[error("message has version {0}, this member reads {VERSION}")]
    Version(u8),
    /// A kind of message this member does not know.
    #[error("message has unknown tag {0}")]
    Tag(u8),
    /// A kind of entry this member does not know.
    #[error("entry has unknown kind {0}")]
    Kind(u8),
    /// A truth value that is neither.
    #[error("flag has value {0}")]
    Flag(u8),
    /// A count or length above its limit.
    #[error("{what} is {len}, above its limit")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// As claimed.
        len: usize,
    },
    /// A seal that names no voters, or was written by a later program.
    #[error("the seal at slot {0} cannot be read")]
    Seal(Slot),
    /// Entries that do not follow each other from the message's first slot.
    #[error("entries are not contiguous at slot {0}")]
    NotContiguous(Slot),
}

impl Message {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        self.put(out);
    }

    /// Reads one message that fills `buf`; payloads are copied.
    ///
    /// # Errors
    /// When `buf` is not exactly one message of this version.
    pub fn decode(buf: &[u8]) -> Result<Self, DecodeError> {
        Self::read(Reader { rest: buf, owner: None })
    }

    /// As [`Message::decode`], but payloads share `buf`.
    ///
    /// # Errors
    /// When `buf` is not exactly one message of this version.
    pub fn decode_shared(buf: &Bytes) -> Result<Self, DecodeError> {
        Self::read(Reader { rest: buf, owner: Some(buf) })
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let version = u8::get(&mut reader)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let message = Self::get(&mut reader)?;
        if !reader.rest.is_empty() {
            return Err(DecodeError::Trailing(reader.rest.len()));
        }
        message.check_contiguous()?;
        Ok(message)
    }

    fn check_contiguous(&self) -> Result<(), DecodeError> {
        let (first, entries) = match self {
            Self::Promise { base, entries, .. } => (base.0.wrapping_add(1), entries),
            Self::AcceptSync { from, entries, .. }
            | Self::Accept { from, entries, .. }
            | Self::Fetched { from, entries, .. } => (from.0, entries),
            _ => return Ok(()),
        };
        for (i, entry) in entries.iter().enumerate() {
            if first.checked_add(i as u64) != Some(entry.slot.0) {
                return Err(DecodeError::NotContiguous(entry.slot));
            }
        }
        Ok(())
    }
}

/// What is left to read.
struct Reader<'a> {
    rest: &'a [u8],
    owner: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn bytes(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        let head = self.take(n)?;
        Ok(self.owner.map_or_else(|| Bytes::copy_from_slice(head), |owner| owner.slice_ref(head)))
    }
}

/// A field.
trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

macro_rules! wire_int {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(<$t>::from_le_bytes(r.array()?))
            }
        }
    )*};
}
wire_int!(u8, u32, u64);

macro_rules! wire_struct {
    ($($t:ident { $($field:tt),* })*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok($t { $($field: Wire::get(r)?),* })
            }
        }
    )*};
}
wire_struct! {
    Slot { 0 }
    MemberId { 0 }
    ConfigNo { 0 }
    Ballot { config, round, member }
    Run { ballot, last }
    Standing { promised, accepted, end, durable, staged }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(r)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Flag(other)),
        }
    }
}

impl Wire for Option<Slot> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(slot) = self {
            slot.put(out);
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::get(r)? { Some(Slot::get(r)?) } else { None })
    }
}

impl Wire for Vec<Run> {
    fn put(&self, out: &mut Vec<u8>) {
        debug_assert!(self.len() <= MAX_RUNS);
        out.push(self.len() as u8);
        self.iter().for_each(|run| run.put(out));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = usize::from(u8::get(r)?);
        if len > MAX_RUNS {
            return Err(DecodeError::TooMany { what: "the number of runs", len });
        }
        (0..len).map(|_| Run::get(r)).collect()
    }
}

impl Wire for Entry {
    fn put(&self, out: &mut Vec<u8>) {
        self.slot.put(out);
        self.ballot.put(out);
        out.push(self.kind as u8);
        (self.payload.len() as u32).put(out);
        out.extend_from_slice(&self.payload);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let slot = Slot::get(r)?;
        let ballot = Ballot::get(r)?;
        let number = u8::get(r)?;
        let kind = EntryKind::from_u8(number).ok_or(DecodeError::Kind(number))?;
        let len = u32::get(r)? as usize;
        if len > MAX_ENTRY_BYTES {
            return Err(DecodeError::TooMany { what: "the length of an entry", len });
        }
        let entry = Self { slot, ballot, kind, payload: r.bytes(len)? };
        if kind == EntryKind::Seal && entry.seals().is_none() {
            return Err(DecodeError::Seal(slot));
        }
        Ok(entry)
    }
}

impl Wire for Vec<Entry> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        self.iter().for_each(|entry| entry.put(out));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = u32::get(r)? as usize;
        if len > r.rest.len() / MIN_ENTRY_BYTES {
            return Err(DecodeError::TooMany { what: "the number of entries", len });
        }
        let mut entries = Vec::with_capacity(len);
        for _ in 0..len {
            entries.push(Entry::get(r)?);
        }
        Ok(entries)
    }
}

macro_rules! wire_messages {
    ($($tag:literal $name:ident { $($field:ident),* })*) => {
        impl Wire for Message {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Message::$name { $($field),* } => {
                        out.push($tag);
                        $($field.put(out);)*
                    })*
                }
            }
            fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match u8::get(r)? {
                    $($tag => Ok(Message::$name { $($field: Wire::get(r)?),* }),)*
                    other => Err(DecodeError::Tag(other)),
                }
            }
        }
    };
}
wire_messages! {
    1 Canvass { nonce, config, accepted, end }
    2 CanvassReply { nonce, willing, accepted, end, trimmed, connected, promised }
    3 Prepare { ballot, accepted, end, committed, since, by, runs }
    4 Promise { ballot, accepted, end, committed, trimmed, runs, base, entries }
    5 Fetch { ballot, from }
    6 Fetched { ballot, from, entries }
    7 AcceptSync { ballot, base, sync_point, from, entries, commit }
    8 Accept { ballot, from, entries, commit }
    9 Accepted { ballot, upto }
    10 Have { ballot, gap, standing }
    11 Heartbeat { ballot, seq, commit }
    12 HeartbeatAck { ballot, seq, standing }
    13 Commit { ballot, upto }
    14 Reject { ballot, promised }
    15 ReadRequest { id }
    16 ReadReply { id, slot }
    17 TransferNow { ballot }
    18 Chosen { slot, ballot }
    19 Lacks { ballot }
}
