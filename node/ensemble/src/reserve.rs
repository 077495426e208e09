//! Room on the disk that is kept back for the moment when it is full.
//!
//! Owns one file of the data directory that holds nothing. Must not know who needs the room. Invariant: the file has all
//! of its room, or is not there.

use crate::os;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "reserve";

/// See the module.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(crate) fn of(data_dir: &Path, bytes: u64) -> Self {
        Self { path: data_dir.join(FILE), bytes }
    }

    /// Gives the room to whoever needs it now.
    pub(crate) fn give_up(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %self.path.display(), "cannot remove the reserve of disk space");
        }
    }

    /// Takes the room again, as far as it is not there.
    ///
    /// # Errors
    /// If there is not enough.
    pub(crate) fn take(&self) -> io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes) {
            return Ok(());
        }
        let taken = File::create(&self.path).and_then(|file| os::allocate(&file, self.bytes));
        if taken.is_err() {
            self.give_up();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_room_is_really_taken_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path(), 1 << 20);
        reserve.take().unwrap();
        reserve.take().unwrap();
        let file = std::fs::metadata(dir.path().join(FILE)).unwrap();
        assert!(file.blocks() * 512 >= 1 << 20, "{}", file.blocks());
        reserve.give_up();
        reserve.give_up();
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        Reserve::of(dir.path(), 1 << 60).take().unwrap_err();
        assert!(!dir.path().join(FILE).exists());
    }
}
