//! Disks of their own for servers: an ext4 file system in a file, which can be full, and which can be made to hang.
//!
//! Owns the file system, its mount and its thaw. Must not know what is on it. Invariant: a disk that hangs goes on when
//! its [`Hung`] is dropped, and also when this process is killed; one that is full has room again when its [`Full`] is
//! dropped.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::command::output;

/// Hangs as long as someone holds the other end of its input, and says once it does.
const HANG: &str = r#"
fsfreeze --freeze "$1" || exit 1
echo hangs
cat > /dev/null
fsfreeze --unfreeze "$1"
"#;

/// A mounted file system of its own. Whoever makes one should be isolated ([`crate::netns::isolated`]): then its mount
/// goes with the last process there, however that ends.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    mount: PathBuf,
    hangs: bool,
}

impl Volume {
    /// A file system of so many MiB in `directory`, which takes only what is written to it.
    ///
    /// # Errors
    /// If it cannot be made or mounted, which needs root.
    pub fn make(directory: &Path, name: &str, mebibytes: u64) -> anyhow::Result<Self> {
        let mut this =
            Self { image: directory.join(format!("{name}.img")), mount: directory.join(name), hangs: true };
        std::fs::create_dir(&this.mount).with_context(|| format!("cannot make {}", this.mount.display()))?;
        let file =
            File::create(&this.image).with_context(|| format!("cannot make {}", this.image.display()))?;
        file.set_len(mebibytes << 20).context("cannot give a file system its length")?;
        output(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&this.image))?;
        if output(Command::new("mount").args(["-o", "loop"]).args([&this.image, &this.mount])).is_err() {
            let size = format!("size={mebibytes}m");
            output(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&this.mount))?;
            this.hangs = false;
        }
        Ok(this)
    }

    /// Whether it can be made to hang. One in memory cannot, which is what there is without loop devices.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.hangs
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// From here on something else takes all the room that there is, and whatever is given up, until the answer is
    /// dropped.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn fill(&self) -> anyhow::Result<Full> {
        let ballast = self.mount.join("ballast");
        let mut file =
            File::create(&ballast).with_context(|| format!("cannot make {}", ballast.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        take_all(&mut file, &stop);
        let filler = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                take_all(&mut file, &stopped);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Full { ballast, stop, filler: Some(filler) })
    }

    /// From here on every write waits, and every fsync, until the answer is dropped. Reads go on.
    ///
    /// # Errors
    /// If it cannot be frozen.
    pub fn hang(&self) -> anyhow::Result<Hung> {
        let mut command = Command::new("sh");
        command.args(["-c", HANG, "hang"]).arg(&self.mount);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start sh")?;
        let held = child.stdin.take();
        let mut said = [0; 1];
        let says = child.stdout.take().context("the program's output is a pipe")?.read(&mut said);
        ensure!(says.is_ok_and(|length| length == 1), "cannot freeze {}", self.mount.display());
        Ok(Hung { child, held })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a process that was killed may be about to end. What this leaves goes with the namespace.
        let _ = output(Command::new("umount").arg("--lazy").arg(&self.mount));
        let _ = std::fs::remove_dir(&self.mount);
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A disk that hangs until this is dropped.
#[derive(Debug)]
pub struct Hung {
    child: Child,
    held: Option<ChildStdin>,
}

impl Drop for Hung {
    fn drop(&mut self) {
        drop(self.held.take());
        let _ = self.child.wait();
    }
}

/// A disk that is full until this is dropped.
#[derive(Debug)]
pub struct Full {
    ballast: PathBuf,
    stop: Arc<AtomicBool>,
    filler: Option<JoinHandle<()>>,
}

impl Drop for Full {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.filler.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.ballast);
    }
}

/// Writes until there is no room, in smaller and smaller pieces.
fn take_all(file: &mut File, stop: &AtomicBool) {
    let zeros = vec![0; 1 << 20];
    let mut piece = zeros.len();
    while piece >= 512 && !stop.load(Ordering::Relaxed) {
        if file.write_all(&zeros[..piece]).is_err() {
            piece /= 2;
        }
    }
}
