//! Answers with values that only the store has.
//!
//! Owns the reads of such values that are under way. Must not know the store. Invariants: a read is carried out at its
//! turn, as any other: its zxid, its Stat and its watch are of that moment, and only the bytes of the value come later;
//! what overwrites a value in the store is given to it after all reads of that value were answered, so that the bytes
//! are those of that moment too.

use crate::answers::framed;
use crate::io::{ConnId, Output};
use crate::replica::Replica;
use bytes::BytesMut;
use pharos_jute::{MultiResult, ReplyHeader, Response, Stat};
use pharos_znode::{ColdValue, State};
use std::collections::BTreeMap;

/// The reads under way, by their numbers, which rise.
#[derive(Debug, Default)]
pub(crate) struct ColdReads {
    last: u64,
    asked: BTreeMap<u64, Asked>,
}

/// One read.
#[derive(Debug)]
struct Asked {
    path: Box<str>,
    value: ColdValue,
    conn: ConnId,
}

/// A value that is missing in an answer: its node, and where the value ends in the answer's frame.
pub(crate) struct Missing<'a> {
    pub(crate) path: &'a str,
    pub(crate) value: ColdValue,
    pub(crate) end: usize,
}

impl ColdReads {
    /// The number of the last read: how many there were since the start.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether all reads up to this one are answered.
    pub(crate) fn done(&self, upto: u64) -> bool {
        self.asked.first_key_value().is_none_or(|(first, _)| *first > upto)
    }

    /// Nobody waits any more.
    pub(crate) fn forget(&mut self) {
        self.asked.clear();
    }
}

impl Replica {
    /// Answers a `getData` whose value the store has.
    pub(crate) fn answer_cold(
        &mut self,
        conn: ConnId,
        xid: i32,
        (path, stat): (&str, Stat),
        value: ColdValue,
    ) {
        let zeros = vec![0; value.len()];
        let frame = frame_of(&Response::Data { data: Some(&zeros), stat }, xid, self.state.zxid().0);
        let end = frame.len() - Stat::LEN;
        self.answer_gapped(conn, &frame, [Missing { path, value, end }]);
    }

    /// Answers reads of several nodes, in which zeros stand for what is missing. Gaps are in the order of the results.
    pub(crate) fn answer_gapped<'a>(
        &mut self,
        conn: ConnId,
        frame: &[u8],
        missing: impl IntoIterator<Item = Missing<'a>>,
    ) {
        let Some(own) = self.clients.get_mut(conn) else { return };
        let (reads, outputs) = (&mut self.cold, &mut self.outputs);
        let gaps = missing.into_iter().map(|Missing { path, value, end }| {
            reads.last += 1;
            let read = reads.last;
            reads.asked.insert(read, Asked { path: path.into(), value, conn });
            outputs.push_back(Output::ReadValue { read, key: State::data_row(path) });
            (read, end - value.len(), value.len())
        });
        own.out.put_gapped(frame, gaps);
    }

    /// The row that [`Output::ReadValue`] asked for; none if the store has no such row.
    pub fn value_read(&mut self, read: u64, row: Option<&[u8]>) {
        let Some(Asked { path, value, conn }) = self.cold.asked.remove(&read) else { return };
        let Some(own) = self.clients.get_mut(conn) else { return };
        let Some(data) = row.and_then(|row| value.in_row(row)) else {
            let reason = format!("the store does not hold the value of {path} that was written to it");
            return self.outputs.push_back(Output::Fatal { reason });
        };
        own.out.fill(read, data);
        self.state.warm(&path, &value, data);
        self.clients.mark_dirty(conn);
        if self.clients.get(conn).is_some_and(|own| own.out.gaps() == 0) {
            self.drive(conn);
        }
    }
}

/// An answer's whole frame.
pub(crate) fn frame_of(response: &Response<'_>, xid: i32, zxid: i64) -> BytesMut {
    let mut frame = BytesMut::new();
    framed(&mut frame, |out| response.encode_message(xid, zxid, out));
    frame
}

/// Where each result ends in a frame of many.
pub(crate) fn ends(results: &[MultiResult<'_>]) -> impl Iterator<Item = usize> {
    results.iter().scan(4 + ReplyHeader::LEN, |end, result| {
        *end += result.encoded_len();
        Some(*end)
    })
}

#[cfg(test)]
mod tests;
