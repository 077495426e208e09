//! The threads that write to the disk, the log's, the spare segments' and the store's, and those that read values.
//!
//! Owns what is reported when, and what a failure means. Must not know what is in a group or a row.
//!
//! Invariants: a log request is reported done only after all of its operations, and those of every request
//! before it, have returned; a failed operation is never tried again, nothing after it is reported, and
//! the server ends (DESIGN 3.2). A cut of the state is reported only when the store has flushed it whole. The reserve is
//! given up before the store is tried again on a full disk.

use crate::command::{Command, Commands, Copied};
use crate::os;
use crate::reserve::Reserve;
use crate::worker::Worker;
use bytes::Bytes;
use pharos_log::DiskOp;
use pharos_paxos::{IoId, Slot};
use pharos_replica::{Arrived, PersistBatch, SnapshotStep};
use pharos_znode::State;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the persister leaves to the other threads.
const NICE: i32 = 10;
/// Between two tries of a flush for which the disk had no room.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);

/// What executes the log's operations: files, or a test's memory.
pub(crate) trait LogDisk: Send + 'static {
    /// Carries out one operation, synchronously.
    fn execute(&mut self, op: &DiskOp) -> io::Result<()>;
}

impl LogDisk for pharos_log::file::FileDisk {
    fn execute(&mut self, op: &DiskOp) -> io::Result<()> {
        Self::execute(self, std::slice::from_ref(op))
    }
}

/// Where cuts of the state go.
pub(crate) trait Sink: Send + 'static {
    /// Writes and flushes.
    fn persist(&mut self, batch: &PersistBatch) -> Result<(), PersistError>;

    /// Makes it fit to be written again after a full disk; only what was flushed is there then, and nothing is read on for
    /// transfers.
    fn recover(&mut self) -> Result<(), PersistError>;

    /// Makes a copy of the store, as of the last flush, that opens as one of its own.
    fn copy(&mut self, dir: &Path) -> Result<Slot, String>;

    /// Begins to read all rows for a transfer, as of the last flush, and says of which slot that is.
    fn open_snapshot(&mut self, transfer: u64) -> Result<Slot, String>;

    /// The next rows for a transfer; no rows when there are no more, and nothing if it cannot be gone on with.
    fn next_part(&mut self, transfer: u64) -> Option<Result<Option<Bytes>, String>>;

    /// Nothing more is read for a transfer.
    fn close_snapshot(&mut self, transfer: u64);

    /// Takes a part of a state that comes, perhaps the first, perhaps the last; gives the state with the last one. The
    /// inner error is about what came.
    fn store_part(
        &mut self,
        ends: (bool, bool),
        rows: Bytes,
    ) -> Result<Result<Option<Box<Arrived>>, String>, String>;

    /// Forgets what has come of a state.
    fn abandon(&mut self) -> Result<(), String>;
}

/// Why a cut is not in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PersistError {
    /// The disk has no room now.
    Full(String),
    /// And that is that.
    Broken(String),
}

/// Groups of the log, with what to report for each.
pub(crate) type LogWorker = Worker<(IoId, Vec<DiskOp>)>;
/// Segments to create ahead of need.
pub(crate) type SpareWorker = Worker<DiskOp>;
/// Cuts of the state, and readings of all of it.
pub(crate) type Persister = Worker<StoreJob>;

/// Single rows that clients wait for, by the number of the read.
pub(crate) type ReadWorker = Worker<(u64, Bytes)>;

/// Reads rows of a store beside the persister.
pub(crate) trait Rows: Send + 'static {
    /// The row with this key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, String>;
}

/// What the persister does.
#[derive(Debug)]
pub(crate) enum StoreJob {
    /// Writes and flushes a cut.
    Persist(PersistBatch),
    /// Takes back the room that a full disk leaves.
    TakeReserve,
    /// Reads everything part by part, for the transfer to a member that is behind.
    Snapshot(u64, SnapshotStep),
    /// Puts a part of a state that comes aside.
    Store {
        /// Of which state.
        arrival: u64,
        /// Whether it is the first, and whether it is the last.
        ends: (bool, bool),
        /// Its rows.
        rows: Bytes,
    },
    /// Forgets what has come of a state.
    Abandon,
    /// Frees a state that is of no more use.
    Discard(Box<State>),
    /// Makes a copy there, for a backup, and says of which slot.
    Copy(PathBuf, Copied),
}

/// Starts the log's thread.
pub(crate) fn log_worker(mut disk: impl LogDisk, commands: Commands) -> io::Result<LogWorker> {
    Worker::start("pharos-log", commands.clone(), move |(io, ops): (IoId, Vec<DiskOp>)| {
        for op in &ops {
            if let Err(error) = disk.execute(op) {
                commands.send(Command::Failed(format!("the log cannot {}: {error}", describe(op))));
                return ControlFlow::Break(());
            }
        }
        commands.send(Command::LogDone(io));
        ControlFlow::Continue(())
    })
}

/// Starts the thread that zero-fills segments. A full disk is met here, and waited for.
pub(crate) fn spare_worker(mut disk: impl LogDisk, commands: Commands) -> io::Result<SpareWorker> {
    let mut failed = false;
    Worker::start("pharos-spare", commands.clone(), move |op| {
        match disk.execute(&op) {
            Ok(()) => {
                failed = false;
                commands.send(Command::SpareCreated(op));
            }
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(%error, "cannot {}, trying again every second", describe(&op));
                }
                commands.send(Command::SpareFailed);
            }
        }
        ControlFlow::Continue(())
    })
}

/// Starts the thread that writes to the store. It waits for room on a full disk, and ends the server when it fails
/// otherwise, since the log would grow without end.
pub(crate) fn persister(mut sink: impl Sink, reserve: Reserve, commands: Commands) -> io::Result<Persister> {
    let mut polite = false;
    Worker::start("pharos-persist", commands.clone(), move |job: StoreJob| {
        if !polite && let Err(error) = os::lower_thread_priority(NICE) {
            tracing::warn!(%error, "the persister runs at full priority");
        }
        polite = true;
        match carry_out(&mut sink, job, &reserve, &commands) {
            Ok(Some(command)) => {
                commands.send(command);
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(why) => {
                commands.send(Command::Failed(why));
                ControlFlow::Break(())
            }
        }
    })
}

/// What is to be told of the job when it is done.
fn carry_out(
    sink: &mut impl Sink,
    job: StoreJob,
    reserve: &Reserve,
    commands: &Commands,
) -> Result<Option<Command>, String> {
    let unread = |error| format!("cannot read the store: {error}");
    let unwritten = |error| format!("cannot write the state to the store: {error}");
    Ok(match job {
        StoreJob::Copy(dir, reply) => {
            // Without it there is no backup, which harms nobody but the one who asked; who may have gone.
            let _ = reply.send(sink.copy(&dir));
            None
        }
        StoreJob::Persist(batch) => {
            persist(sink, &batch, reserve, commands).map_err(unwritten)?;
            Some(Command::Persisted(batch.applied))
        }
        StoreJob::TakeReserve => Some(match reserve.take() {
            Ok(()) => Command::StoreHasRoom,
            Err(_) => Command::StoreFull,
        }),
        StoreJob::Snapshot(transfer, SnapshotStep::Open) => {
            Some(Command::SnapshotOpened(transfer, sink.open_snapshot(transfer).map_err(unread)?))
        }
        StoreJob::Snapshot(transfer, SnapshotStep::Next) => Some(match sink.next_part(transfer) {
            Some(part) => Command::SnapshotPart(transfer, part.map_err(unread)?),
            None => Command::SnapshotLost(transfer),
        }),
        StoreJob::Snapshot(transfer, SnapshotStep::Close) => {
            sink.close_snapshot(transfer);
            None
        }
        StoreJob::Store { arrival, ends, rows } => {
            Some(Command::PartStored(arrival, sink.store_part(ends, rows).map_err(unwritten)?))
        }
        StoreJob::Abandon => {
            sink.abandon().map_err(unwritten)?;
            None
        }
        StoreJob::Discard(state) => {
            drop(state);
            None
        }
    })
}

/// Waits for room as long as it takes; the store begins anew from its last flush before every try.
fn persist(
    sink: &mut impl Sink,
    batch: &PersistBatch,
    reserve: &Reserve,
    commands: &Commands,
) -> Result<(), String> {
    let mut tries = 0;
    loop {
        let done =
            if tries == 0 { sink.persist(batch) } else { sink.recover().and_then(|()| sink.persist(batch)) };
        match done {
            Ok(()) => return Ok(()),
            Err(PersistError::Broken(why)) => return Err(why),
            Err(PersistError::Full(why)) => {
                if tries == 0 {
                    tracing::warn!(%why, "the store finds no room on the disk and waits for some");
                    reserve.give_up();
                    commands.send(Command::StoreFull);
                } else {
                    std::thread::sleep(FULL_DISK_RETRY);
                }
                tries += 1;
            }
        }
    }
}

/// Starts a thread that reads rows. It ends the server when the store cannot be read.
pub(crate) fn read_worker(rows: Box<dyn Rows>, commands: Commands) -> io::Result<ReadWorker> {
    Worker::start("pharos-read", commands.clone(), move |(read, key): (u64, Bytes)| match rows.get(&key) {
        Ok(row) => {
            commands.send(Command::ValueRead(read, row));
            ControlFlow::Continue(())
        }
        Err(why) => {
            commands.send(Command::Failed(format!("cannot read a value from the store: {why}")));
            ControlFlow::Break(())
        }
    })
}

/// The operation in an error's words.
pub(crate) fn describe(op: &DiskOp) -> String {
    match op {
        DiskOp::Create { file, size } => format!("create {file} of {size} bytes"),
        DiskOp::Write { file, offset, data } => {
            format!("write {} bytes to {file} at {offset}", data.len())
        }
        DiskOp::Sync { file } => format!("sync {file}"),
        DiskOp::Remove { file } => format!("remove {file}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_log::FileName;
    use std::sync::mpsc::Receiver;

    struct FailsAfter(usize);

    impl LogDisk for FailsAfter {
        fn execute(&mut self, _: &DiskOp) -> io::Result<()> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
            Ok(())
        }
    }

    fn commands() -> (mio::Poll, Commands, Receiver<Command>) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (commands, received) = Commands::new(waker);
        (poll, commands, received)
    }

    #[test]
    fn after_a_failed_operation_nothing_is_reported_done_any_more() {
        let (_poll, commands, received) = commands();
        let log = log_worker(FailsAfter(2), commands).unwrap();
        let sync = || DiskOp::Sync { file: FileName(7) };
        log.submit((IoId(1), vec![sync()]));
        log.submit((IoId(2), vec![sync(), sync()]));
        log.submit((IoId(3), vec![sync()]));
        drop(log);
        let seen: Vec<_> = received.try_iter().collect();
        let [Command::LogDone(IoId(1)), Command::Failed(why)] = &seen[..] else { panic!("{seen:?}") };
        assert!(why.starts_with("the log cannot sync 0000000007.wal: "), "{why}");
    }

    /// A store on a disk that is full as long as the reserve is there.
    struct Full {
        reserve: PathBuf,
        recovered: bool,
    }

    impl Sink for Full {
        fn persist(&mut self, _: &PersistBatch) -> Result<(), PersistError> {
            if self.reserve.exists() {
                return Err(PersistError::Full("no room".to_owned()));
            }
            if self.recovered { Ok(()) } else { Err(PersistError::Broken("not recovered".to_owned())) }
        }

        fn recover(&mut self) -> Result<(), PersistError> {
            self.recovered = true;
            Ok(())
        }

        fn copy(&mut self, _: &Path) -> Result<Slot, String> {
            Err("there is nothing to copy".to_owned())
        }

        fn open_snapshot(&mut self, _: u64) -> Result<Slot, String> {
            Err("there is nothing to read".to_owned())
        }

        fn next_part(&mut self, _: u64) -> Option<Result<Option<Bytes>, String>> {
            None
        }

        fn close_snapshot(&mut self, _: u64) {}

        fn store_part(
            &mut self,
            _: (bool, bool),
            _: Bytes,
        ) -> Result<Result<Option<Box<Arrived>>, String>, String> {
            Err("nothing comes".to_owned())
        }

        fn abandon(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn a_store_without_room_is_given_the_reserve_and_written_again() {
        let (_poll, commands, received) = commands();
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path(), 4096);
        reserve.take().unwrap();
        let store = Full { reserve: dir.path().join("reserve"), recovered: false };
        let persister = persister(store, reserve, commands).unwrap();
        let rows = pharos_replica::PersistRows::Arrived;
        persister.submit(StoreJob::Persist(PersistBatch { rows, own: Vec::new(), applied: Slot(9) }));
        persister.submit(StoreJob::TakeReserve);
        drop(persister);
        let seen: Vec<_> = received.try_iter().collect();
        let [Command::StoreFull, Command::Persisted(Slot(9)), Command::StoreHasRoom] = &seen[..] else {
            panic!("{seen:?}")
        };
    }

    #[test]
    fn a_spare_that_does_not_fit_is_told() {
        let (_poll, commands, received) = commands();
        let spares = spare_worker(FailsAfter(0), commands).unwrap();
        let create = DiskOp::Create { file: FileName(3), size: 8192 };
        spares.submit(create);
        drop(spares);
        let seen: Vec<_> = received.try_iter().collect();
        let [Command::SpareFailed] = &seen[..] else { panic!("{seen:?}") };
    }
}
