//! Why a store refuses. Every message names the directory.

use std::io;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it, or another part of this one.
    #[error("store {dir} is in use by another process")]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// Written by a newer version.
    #[error(
        "store {dir} has format {format} and needs a reader of format {min_reader} or later; this build reads {reads}"
    )]
    UnknownFormat {
        /// The store's directory.
        dir: PathBuf,
        /// The format it was written in.
        format: u16,
        /// The oldest format whose reader may read it.
        min_reader: u16,
        /// What this build reads.
        reads: u16,
    },
    /// Not a store of ours, or a damaged one.
    #[error("{dir} is not a store of ours: {what}")]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It was closed to be opened again, which did not succeed yet.
    #[error("store {dir} is not open again after the disk was full")]
    Closed {
        /// The store's directory.
        dir: PathBuf,
    },
    /// RocksDB refuses.
    #[error("cannot {what} store {dir}")]
    Rocks {
        /// What was tried.
        what: &'static str,
        /// The store's directory.
        dir: PathBuf,
        /// The reason.
        source: rocksdb::Error,
    },
    /// The file system refuses.
    #[error("cannot {what} store {dir}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The store's directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether whoever started the process can put it right: another process, another version, or a disk
    /// that is full or cannot be written.
    #[must_use]
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::UnknownFormat { .. } | Self::Io { .. } | Self::Closed { .. } => true,
            Self::Rocks { source, .. } => source.kind() == rocksdb::ErrorKind::IOError,
            Self::NotAStore { .. } => false,
        }
    }

    /// Whether what is there is not what was written. A disk that does not answer may answer again.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Rocks { source, .. } => {
                let message = source.as_ref();
                let file = [".sst", ".blob"].iter().any(|kind| message.contains(kind));
                let lost_file = message.contains("No such file") && file;
                source.kind() == rocksdb::ErrorKind::Corruption || lost_file
            }
            Self::InUse { .. }
            | Self::UnknownFormat { .. }
            | Self::NotAStore { .. }
            | Self::Closed { .. }
            | Self::Io { .. } => false,
        }
    }

    /// Whether the disk is full, so that trying again later may help.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Rocks { source, .. } => source.as_ref().contains("No space left"),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Closed { .. } => true,
            Self::InUse { .. } | Self::UnknownFormat { .. } | Self::NotAStore { .. } => false,
        }
    }

    pub(crate) fn rocks(what: &'static str, dir: &Path) -> impl FnOnce(rocksdb::Error) -> Self {
        move |source| Self::Rocks { what, dir: dir.to_owned(), source }
    }

    pub(crate) fn io(what: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, dir: dir.to_owned(), source }
    }

    pub(crate) fn not_ours(dir: &Path, what: impl Into<String>) -> Self {
        Self::NotAStore { dir: dir.to_owned(), what: what.into() }
    }
}
