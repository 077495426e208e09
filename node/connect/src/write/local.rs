//! An output file on a local disk.
//!
//! Owns: the file in the making and its last step, the rename.
//! Must not know: formats.
//! Invariant: what was prepared and settled is on the disk (synced). Nothing is cut off before the last step: a
//! worker that was given up and is not dead yet, or wakes up later, may hold the same file, and writes
//! at each place what its successor writes there, for the bytes of an output depend on the data alone.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pharos_stream::io::{ConnectError, Fault, Settle};
use serde::{Deserialize, Serialize};

/// A file that is not visible yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PreparedFile {
    /// Its name in the making, within the directory of the final one.
    part: String,
    /// How many bytes of it count.
    length: u64,
    /// Files of runs of other documents, from which it goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<String>,
}

/// A file in the making.
pub(super) struct LocalShard {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
    earlier: Vec<String>,
}

/// Where the file for `path` is in the making.
fn part_of(path: &Path, run: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{run}.part"))
}

/// An error of a disk that is written to.
pub(crate) fn failed(path: &Path) -> impl Fn(std::io::Error) -> ConnectError {
    move |error| {
        let message = format!("`{}`: {error}", path.display());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ConnectError { fault: Fault::FullDisk, message }
            }
            ErrorKind::AlreadyExists
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem => ConnectError::user(message),
            _ => ConnectError::environment(message),
        }
    }
}

impl LocalShard {
    /// A new file for `path`. What an earlier try of the same run left is written over.
    ///
    /// # Errors
    /// If the directory or the file cannot be made.
    pub(super) fn create(path: &str, run: &str) -> Result<Self, ConnectError> {
        let path = Path::new(path);
        let part = part_of(path, run);
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(failed(directory))?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&part);
        let file = file.map_err(failed(&part))?;
        Ok(Self { path: part, file: BufWriter::new(file), length: 0, earlier: Vec::new() })
    }

    /// The file that was prepared for `path`, as far as it was. What the run of another document prepared is
    /// copied: a worker of that one may not be dead yet, and would write other bytes than its successor.
    ///
    /// # Errors
    /// If it is gone or too short. If it has become visible already there is nothing to go on with,
    /// so that is an error too; the caller commits instead.
    pub(super) fn reopen(path: &str, run: &str, prepared: &PreparedFile) -> Result<Self, ConnectError> {
        let kept = Path::new(path).with_file_name(&prepared.part);
        let mut kept_file = OpenOptions::new().read(true).write(true).open(&kept).map_err(failed(&kept))?;
        let found = kept_file.metadata().map_err(failed(&kept))?.len();
        if found < prepared.length {
            let message = format!(
                "`{}`: has {found} bytes, the checkpoint counts on {}",
                kept.display(),
                prepared.length
            );
            return Err(ConnectError::environment(message));
        }
        let part = part_of(Path::new(path), run);
        let mut earlier = prepared.earlier.clone();
        if part == kept {
            kept_file.seek(SeekFrom::Start(prepared.length)).map_err(failed(&kept))?;
            return Ok(Self {
                path: part,
                file: BufWriter::new(kept_file),
                length: prepared.length,
                earlier,
            });
        }
        let own = part.file_name().map(|name| name.to_string_lossy().into_owned());
        earlier.push(prepared.part.clone());
        // Going back to a document goes back to its file.
        earlier.retain(|name| Some(name) != own.as_ref());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&part);
        let mut file = file.map_err(failed(&part))?;
        std::io::copy(&mut kept_file.take(prepared.length), &mut file).map_err(failed(&part))?;
        Ok(Self { path: part, file: BufWriter::new(file), length: prepared.length, earlier })
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes).map_err(failed(&self.path))
    }

    /// How far the file is, and what syncs it that far.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(super) fn prepare(&mut self) -> Result<(PreparedFile, Settle), ConnectError> {
        self.file.flush().map_err(failed(&self.path))?;
        let (file, path) = (self.file.get_ref().try_clone().map_err(failed(&self.path))?, self.path.clone());
        let part = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let prepared = PreparedFile { part, length: self.length, earlier: self.earlier.clone() };
        Ok((prepared, Arc::new(move || file.sync_data().map_err(failed(&path)))))
    }
}

fn cut(part: &Path, length: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(part)?;
    if file.metadata()?.len() > length {
        file.set_len(length)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Gives the file its name, and removes those from which it went on. If it has it already there is nothing
/// to do.
///
/// # Errors
/// If it has neither name, or the rename fails.
pub(super) fn commit(path: &str, prepared: &PreparedFile) -> Result<(), ConnectError> {
    let path = Path::new(path);
    let part = path.with_file_name(&prepared.part);
    let named = name(path, &part, prepared);
    for earlier in prepared.earlier.iter().filter(|_| named.is_ok()) {
        let earlier = path.with_file_name(earlier);
        match fs::remove_file(&earlier) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&earlier)(error)),
            _ => {}
        }
    }
    named
}

fn name(path: &Path, part: &Path, prepared: &PreparedFile) -> Result<(), ConnectError> {
    match cut(part, prepared.length).and_then(|()| fs::rename(part, path)) {
        Ok(()) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(path))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The process may have died between the rename and its note that it was done.
            let size = fs::metadata(path).map(|meta| meta.len());
            if size.is_ok_and(|size| size == prepared.length) { Ok(()) } else { Err(failed(part)(error)) }
        }
        Err(error) => Err(failed(path)(error)),
    }
}
