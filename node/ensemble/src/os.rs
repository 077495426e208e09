//! The few things that only the operating system's C interface offers.
//!
//! Owns the unsafe calls. Must not know what they are for.

#![allow(unsafe_code)] // Thread priority, descriptor limits and room on a disk have no safe interface in std.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Lowers the calling thread's priority by `by`.
pub(crate) fn lower_thread_priority(by: i32) -> io::Result<()> {
    // SAFETY: the call takes plain integers; on Linux, 0 names the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, by) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the limit of open descriptors as far as the process may, and returns it.
///
/// # Errors
/// If the system refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call, which writes to nothing else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` lives through the call, which only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Gives an empty file its room on the disk, filled with zeros or as good as that.
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and no memory is passed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The memory that the process may use: that of the machine, or less where a control group says so. None if neither can
/// be told.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let limits = group_files(&groups).into_iter().filter_map(|path| read(&path)?.trim().parse().ok());
    limits.chain(total_memory(&meminfo)).min()
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Where the limits of a process in these groups stand: of its own group and of all above it, which in a container are
/// mounted as if they were the first. A limit that is not set is not a number, or larger than any machine.
fn group_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            all if all.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(root).join(group.trim_start_matches('/'));
        files.extend(own.ancestors().take_while(|dir| dir.starts_with(root)).map(|dir| dir.join(file)));
    }
    files
}

/// Unguessable bytes.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// How many descriptors the process has open.
pub(crate) fn open_descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_group_and_of_those_above_it_count() {
        let files = |groups| group_files(groups).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            files("0::/pods/one\n"),
            [
                "/sys/fs/cgroup/pods/one/memory.max",
                "/sys/fs/cgroup/pods/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        let first =
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files("5:cpu,cpuacct:/x\n4:memory:/a\n"), first);
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
        assert_eq!(total_memory("MemTotal:       24 kB\nMemFree: 1 kB\n"), Some(24 << 10));
        assert!(memory_limit().is_some_and(|limit| limit > 1 << 20));
    }
}
