//! The log on real files, the data directory's lock and its superblock: the only I/O of this crate.
//!
//! Every failed write or sync is returned, and the caller must end the process: after a failed fsync the kernel
//! holds pages for clean that the disk never got. For the same reason reads go past the page cache: with
//! `O_DIRECT`, for which the kernel first writes back what is dirty and then asks the disk. Where a file
//! system has no direct I/O (tmpfs before Linux 6.6), the file is synced and its clean pages are dropped
//! (`POSIX_FADV_DONTNEED`) before it is read; that is as good as the file system allows.

use crate::disk::{BLOCK, DiskOp, DiskRead, FileName};
use crate::superblock::{Superblock, SuperblockError};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "LOCK";
const SUPERBLOCK: &str = "pharos.superblock";
const SUPERBLOCK_NEW: &str = "pharos.superblock.new";
const CHUNK: usize = 1 << 20;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {dir} is in use by another process ({holder})")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote into the lock file.
        holder: String,
    },
    /// Its superblock is refused.
    #[error("data directory {dir}: {source}")]
    Superblock {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: SuperblockError,
    },
    /// The file system refuses.
    #[error("cannot {what} data directory {dir}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A data directory that no other process has, until this value is dropped or the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |what| move |source| DataDirError::Io { what, dir: path.to_owned(), source };
        create_durably(path).map_err(io("create"))?;
        let mut options = OpenOptions::new();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(io("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = lock.read_to_string(&mut holder);
                let holder = if read.is_ok() && !holder.is_empty() { holder } else { "unknown".to_owned() };
                return Err(DataDirError::InUse {
                    dir: path.to_owned(),
                    holder: holder.trim_end().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        write_holder(&mut lock).map_err(io("lock"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The superblock, or none in a directory that was never formatted.
    pub fn superblock(&self) -> Result<Option<Superblock>, DataDirError> {
        let bytes = match std::fs::read(self.path.join(SUPERBLOCK)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.error("read the superblock of")(source)),
        };
        let superblock = Superblock::decode(&bytes);
        superblock.map(Some).map_err(|source| DataDirError::Superblock { dir: self.path.clone(), source })
    }

    /// Replaces the superblock, durably: the old or the new one is there at any moment.
    pub fn write_superblock(&self, superblock: &Superblock) -> Result<(), DataDirError> {
        self.replace_superblock(&superblock.encode()).map_err(self.error("write the superblock of"))
    }

    /// The log's files, in a directory of their own below this one.
    pub fn log_disk(&self) -> Result<FileDisk, DataDirError> {
        FileDisk::open(&self.path.join("log")).map_err(self.error("open the log of"))
    }

    fn replace_superblock(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.join(SUPERBLOCK_NEW);
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, self.path.join(SUPERBLOCK))?;
        sync_dir(&self.path)
    }

    fn error(&self, what: &'static str) -> impl FnOnce(io::Error) -> DataDirError {
        let dir = self.path.clone();
        move |source| DataDirError::Io { what, dir, source }
    }
}

/// The log's directory. Segments stay open. Spares may be created by a second value on another thread, so
/// that filling them does not hold up the log.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    open: BTreeMap<FileName, File>,
}

impl FileDisk {
    /// Makes the directory if need be. The caller holds the [`DataDir`] it lies in.
    pub fn open(dir: &Path) -> io::Result<Self> {
        create_durably(dir)?;
        Ok(Self { dir: dir.to_owned(), open: BTreeMap::new() })
    }

    /// Executes the operations in order. Of two syncs of a file with nothing but syncs between, the
    /// first is left out. After an error the state of the files is unknown: the caller ends the process.
    pub fn execute(&mut self, ops: &[DiskOp]) -> io::Result<()> {
        for (index, op) in ops.iter().enumerate() {
            if !is_repeated(op, &ops[index + 1..]) {
                self.execute_one(op)?;
            }
        }
        Ok(())
    }

    fn execute_one(&mut self, op: &DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Create { file, size } => self.create(*file, *size),
            DiskOp::Write { file, offset, data } => self.file(*file)?.write_all_at(data, *offset),
            DiskOp::Sync { file } => self.file(*file)?.sync_data(),
            DiskOp::Remove { file } => {
                self.open.remove(file);
                std::fs::remove_file(self.path(*file))?;
                sync_dir(&self.dir)
            }
        }
    }

    /// A file that cannot be filled is removed again, for on a full disk it is tried again and again.
    fn create(&mut self, name: FileName, size: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).open(self.path(name))?;
        if let Err(error) = fill(&mut file, size).and_then(|()| sync_dir(&self.dir)) {
            let _ = std::fs::remove_file(self.path(name));
            return Err(error);
        }
        self.open.insert(name, file);
        Ok(())
    }

    fn file(&mut self, name: FileName) -> io::Result<&File> {
        let path = self.path(name);
        Ok(match self.open.entry(name) {
            std::collections::btree_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(OpenOptions::new().read(true).write(true).open(path)?)
            }
        })
    }

    fn path(&self, file: FileName) -> PathBuf {
        self.dir.join(file.to_string())
    }
}

impl DiskRead for FileDisk {
    fn list(&self) -> io::Result<Vec<FileName>> {
        let names = std::fs::read_dir(&self.dir)?.map(|entry| entry.map(|entry| entry.file_name()));
        names
            .filter_map(|name| name.map(|name| FileName::parse(&name.to_string_lossy())).transpose())
            .collect()
    }

    fn len(&self, file: FileName) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path(file))?.len())
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let path = self.path(file);
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
        match direct.and_then(|file| read_direct(&file, offset, buf)) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                read_dropping_cache(&path, offset, buf)
            }
            Err(error) => Err(error),
        }
    }
}

/// Writing the zeros, instead of reserving the space, spares each later sync the change of an extent.
fn fill(file: &mut File, size: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut left = size as usize;
    while left > 0 {
        let length = left.min(zeros.len());
        file.write_all(&zeros[..length])?;
        left -= length;
    }
    file.sync_all()
}

/// Direct I/O wants memory, offset and length aligned; callers need not.
fn read_direct(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let mut memory = vec![0_u8; CHUNK + 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let memory = &mut memory[start..start + CHUNK + BLOCK];
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let skip = (at % BLOCK as u64) as usize;
        let want = (skip + buf.len() - done).next_multiple_of(BLOCK).min(memory.len());
        let got = file.read_at(&mut memory[..want], at - skip as u64)?;
        let useful = got.saturating_sub(skip).min(buf.len() - done);
        if useful == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf[done..done + useful].copy_from_slice(&memory[skip..skip + useful]);
        done += useful;
    }
    Ok(())
}

fn read_dropping_cache(path: &Path, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.sync_data()?;
    drop_cache(&file)?;
    file.read_exact_at(buf, offset)
}

#[allow(unsafe_code, reason = "the standard library has no fadvise")]
fn drop_cache(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and no memory is passed.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Whether a sync is followed by another one of the same file, with nothing but syncs in between.
fn is_repeated(op: &DiskOp, rest: &[DiskOp]) -> bool {
    let DiskOp::Sync { file } = op else { return false };
    let mut syncs = rest.iter().map_while(|op| match op {
        DiskOp::Sync { file } => Some(file),
        _ => None,
    });
    syncs.any(|other| other == file)
}

fn create_durably(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "process {}", std::process::id())
}
