//! A store's rows: what is not what a state has written is refused, and what is read back is that state.

use crate::compare::{Store, assert_same};
use crate::history::{Step, steps};
use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use pharos_znode::{Applied, Batch, RowError, State};

pub(crate) type Rows = Vec<(Bytes, Bytes)>;

pub(crate) fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(damages) = damages(&mut u) else { return };
    let (written, mut rows) = history(&mut u);
    damages.into_iter().for_each(|damage| damage.inflict(&mut rows));
    if is_slow(&rows) {
        return;
    }
    match State::from_rows(rows.iter().cloned()) {
        Ok(state) => assert_same(&written, &state),
        // Let what the digest alone has refused be read, and used, nevertheless.
        Err(RowError::Digest { found, .. }) => {
            let meta = rows.iter_mut().find(|(key, _)| key.len() == 1).expect("there was a digest");
            let mut value = meta.1.to_vec();
            let at = value.len() - 8;
            value[at..].copy_from_slice(&found.to_be_bytes());
            meta.1 = value.into();
            let state = State::from_rows(rows).expect("nothing else was wrong");
            assert_eq!(state.digest(), state.recompute_digest());
        }
        Err(_) => {}
    }
}

/// A state with a history, and its rows in their order.
fn history(u: &mut Unstructured<'_>) -> (State, Rows) {
    let (mut state, mut out) = (State::new(), Applied::new());
    for step in steps(u) {
        match step {
            Step::EpochStart => state.epoch_start(),
            Step::Commands(payload) => {
                let Ok(batch) = Batch::decode(&payload) else { continue };
                batch.commands.iter().for_each(|command| state.apply(command, batch.time_ms, &mut out));
            }
            Step::Members(_) | Step::Restore => {}
        }
    }
    let mut store = Store::default();
    store.flush(&mut state);
    (state, store.0.into_iter().collect())
}

/// Whether a list's place is so far off that the table grows to hundreds of megabytes: such inputs are slow, and alike.
pub(crate) fn is_slow(rows: &Rows) -> bool {
    rows.iter().any(|(key, _)| matches!(key[..], [2, 0, high, ..] if key.len() == 5 && high > 0))
}

/// What befalls rows on their way.
#[derive(Debug)]
pub(crate) enum Damage {
    Key { row: usize, at: usize, byte: u8 },
    Value { row: usize, at: usize, byte: u8 },
    Shortened { row: usize, length: usize },
    Lost { row: usize },
    Repeated { row: usize, at: usize },
    Swapped { row: usize, other: usize },
    Strange { at: usize, key: Vec<u8>, value: Vec<u8> },
}

/// None up to three.
pub(crate) fn damages(u: &mut Unstructured<'_>) -> Result<Vec<Damage>> {
    (0..u.int_in_range(0..=3)?).map(|_| Damage::new(u)).collect()
}

impl Damage {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let row = u.arbitrary::<u8>()?.into();
        let at = u.arbitrary::<u8>()?.into();
        Ok(match u.int_in_range(0..=6)? {
            0 => Self::Key { row, at, byte: u.arbitrary()? },
            1 => Self::Value { row, at, byte: u.arbitrary()? },
            2 => Self::Shortened { row, length: at },
            3 => Self::Lost { row },
            4 => Self::Repeated { row, at },
            5 => Self::Swapped { row, other: at },
            _ => Self::Strange { at, key: some(u)?, value: some(u)? },
        })
    }

    pub(crate) fn inflict(self, rows: &mut Rows) {
        if rows.is_empty() {
            return;
        }
        let count = rows.len();
        match self {
            Self::Key { row, at, byte } => replace(&mut rows[row % count].0, at, byte),
            Self::Value { row, at, byte } => replace(&mut rows[row % count].1, at, byte),
            Self::Shortened { row, length } => rows[row % count].1.truncate(length),
            Self::Lost { row } => drop(rows.remove(row % count)),
            Self::Repeated { row, at } => rows.insert(at % count, rows[row % count].clone()),
            Self::Swapped { row, other } => rows.swap(row % count, other % count),
            Self::Strange { at, key, value } => rows.insert(at % count, (key.into(), value.into())),
        }
    }
}

fn some(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = u.int_in_range(0..=80)?.min(u.len());
    Ok(u.bytes(length)?.to_vec())
}

fn replace(bytes: &mut Bytes, at: usize, byte: u8) {
    if !bytes.is_empty() {
        let mut changed = bytes.to_vec();
        let at = at % changed.len();
        changed[at] = byte;
        *bytes = changed.into();
    }
}
