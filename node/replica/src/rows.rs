//! Rows of a state outside of a store: one after the other, each with its key.
//!
//! Owns which rows make a state, and their bytes. Must not know where they go. Invariant: the rows of one member are the
//! state of any other that takes them.

use crate::replica::{FOUNDING_KEY, OWN_PREFIX, REGISTRY_KEY};
use crate::snapshot::INSTALLED_KEY;
use crate::wire::{Reader, WireError, put_bytes};
use bytes::Bytes;
use pharos_paxos::Slot;

/// Whether a row is part of the state: of the replica's own only those are that are the same on every member.
#[must_use]
pub fn is_of_state(key: &[u8]) -> bool {
    key.first() != Some(&OWN_PREFIX) || [FOUNDING_KEY, REGISTRY_KEY].contains(&key)
}

/// Adds a row.
pub fn put_row(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    put_bytes(out, key);
    put_bytes(out, value);
}

/// The rows of a part of a state that is sent: of the replica's own only those that are the same on every member.
#[must_use]
pub fn part_of(rows: &[(Bytes, Bytes)]) -> Bytes {
    let mut out = Vec::new();
    rows.iter().filter(|(key, _)| is_of_state(key)).for_each(|(key, value)| put_row(&mut out, key, value));
    out.into()
}

/// Reads rows back.
///
/// # Errors
/// When the bytes are not whole rows.
pub fn read_rows(bytes: Bytes) -> Result<Vec<(Bytes, Bytes)>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut rows = Vec::new();
    while !reader.is_empty() {
        let key = reader.bytes("row key")?;
        // Copied, so that no row keeps all of them alive.
        rows.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&reader.bytes("row")?)));
    }
    Ok(rows)
}

/// The row that a store needs beside a state that was put there, as of that slot.
#[must_use]
pub fn installed_row(upto: Slot) -> (Bytes, Bytes) {
    (Bytes::from_static(INSTALLED_KEY), Bytes::copy_from_slice(&upto.0.to_le_bytes()))
}
