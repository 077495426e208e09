//! The rows of a state that comes in parts, as they become a tree.
//!
//! Owns what is checked of them and what of them the store gets. Must not know where they come from or go to; it is used
//! beside the replica, on a thread that may take its time. Invariant: what does not add up to a state is refused whole.

use crate::founding::Founding;
use crate::peer_msg::PeerError;
use crate::registry::Registry;
use crate::replica::{FOUNDING_KEY, OWN_PREFIX, REGISTRY_KEY};
use crate::rows::read_rows;
use crate::wire::WireError;
use bytes::Bytes;
use pharos_znode::{State, StateLoader};

/// A state that has come whole.
pub struct Arrived {
    pub(crate) state: State,
    pub(crate) founding: Founding,
    pub(crate) registry: Registry,
}

impl std::fmt::Debug for Arrived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrived").field("znodes", &self.state.node_count()).finish_non_exhaustive()
    }
}

/// A state that comes.
#[derive(Debug)]
pub struct Arrival {
    loader: StateLoader,
    own: Vec<(Bytes, Bytes)>,
}

impl Arrival {
    /// None of it has come yet. So many bytes of its values will stay in memory.
    #[must_use]
    pub fn keeping(values: u64) -> Self {
        Self { loader: StateLoader::keeping(values), own: Vec::new() }
    }

    /// Takes the next part; gives the rows that belong into the store.
    ///
    /// # Errors
    /// When they are no rows, or no rows of a state.
    pub fn part(&mut self, rows: Bytes) -> Result<Vec<(Bytes, Bytes)>, PeerError> {
        let mut rows = read_rows(rows)?;
        self.own.extend(rows.extract_if(.., |(key, _)| key.first() == Some(&OWN_PREFIX)));
        for (key, value) in &rows {
            self.loader.row(key, value).map_err(PeerError::Rows)?;
        }
        Ok(rows)
    }

    /// All parts have come.
    ///
    /// # Errors
    /// When they do not add up to a state.
    pub fn finish(self) -> Result<Box<Arrived>, PeerError> {
        let Self { loader, own } = self;
        let find = |wanted: &[u8], field| {
            let row = own.iter().find(|(key, _)| key == wanted);
            row.map(|(_, value)| value.clone()).ok_or(WireError::Truncated { field })
        };
        let founding = Founding::decode(find(FOUNDING_KEY, "founding")?)?;
        let registry = Registry::decode(find(REGISTRY_KEY, "registry")?)?;
        Ok(Box::new(Arrived { state: loader.finish().map_err(PeerError::Rows)?, founding, registry }))
    }
}
