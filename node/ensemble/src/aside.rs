//! What a volume held before it gave its identity up, or before its log was cut: kept beside it, in `damaged`.
//!
//! Owns the order of the steps on disk, so that whatever was interrupted is finished or undone at the next start. Must not
//! know what is damaged.
//!
//! Invariants: nothing is moved before the superblock says that the volume is another one, or before what takes its place
//! is durable; it is removed only when somebody votes in its place; of several, only the newest that holds something is
//! kept.
//!
//! ```text
//! damaged.new/record.json   what is about to be set aside, and why
//! damaged.new/{log,state*}  moved there; then the directory becomes `damaged`
//! log.new                   a log that takes the place of a damaged one; then it becomes `log`
//! damaged.old               is being removed
//! ```

use crate::permit::HexId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
const KEPT: &str = "damaged";
const COMING: &str = "damaged.new";
const GOING: &str = "damaged.old";
const RECORD: &str = "record.json";
const LOG: &str = "log";
const NEW_LOG: &str = "log.new";
const STATE: &str = "state";
/// The mark that a state beside the store counts, and that state: see `arriving`.
const ARRIVED: &str = "state.arrived";
const ARRIVING: &str = "state.arriving";

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    version: u32,
    /// The volume's id then.
    pub(crate) volume: HexId,
    /// Its ensemble.
    pub(crate) cluster_id: HexId,
    /// Its member.
    pub(crate) member_id: u32,
    /// What was damaged, and where.
    pub(crate) why: String,
    /// Whether it held anything.
    holds: bool,
}

impl Record {
    pub(crate) fn new(
        volume: HexId,
        (cluster_id, member_id): (HexId, u32),
        why: String,
        holds: bool,
    ) -> Self {
        Self { version: VERSION, volume, cluster_id, member_id, why, holds }
    }
}

/// Where the data of the volume in this directory is kept.
pub(crate) fn kept(dir: &Path) -> PathBuf {
    dir.join(KEPT)
}

/// Where the log is made that takes the place of a damaged one.
pub(crate) fn new_log(dir: &Path) -> PathBuf {
    dir.join(NEW_LOG)
}

/// Notes what is about to be set aside. Until the superblock changes, or a new log takes the place of the damaged one,
/// nothing has happened.
pub(crate) fn prepare(dir: &Path, record: &Record) -> io::Result<()> {
    let coming = dir.join(COMING);
    remove(&coming)?;
    fs::create_dir(&coming)?;
    let mut file = File::create(coming.join(RECORD))?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    sync(&coming)?;
    sync(dir)
}

/// The new log is durable: it takes the place of the damaged one.
pub(crate) fn change_logs(dir: &Path) -> io::Result<()> {
    take(dir, LOG)?;
    fs::rename(dir.join(NEW_LOG), dir.join(LOG))?;
    sync(dir)?;
    keep(dir)
}

/// Finishes or undoes what was interrupted, and says what is kept. Whoever `has_home` has not given its identity up.
pub(crate) fn settle(dir: &Path, has_home: bool) -> io::Result<Option<Record>> {
    remove(&dir.join(GOING))?;
    if has_home && dir.join(NEW_LOG).try_exists()? && !dir.join(LOG).try_exists()? {
        fs::rename(dir.join(NEW_LOG), dir.join(LOG))?;
        sync(dir)?;
    }
    remove(&dir.join(NEW_LOG))?;
    if dir.join(COMING).try_exists()? {
        if !has_home {
            take(dir, LOG)?;
            [STATE, ARRIVED, ARRIVING].into_iter().try_for_each(|part| take(dir, part))?;
            keep(dir)?;
        } else if dir.join(COMING).join(LOG).try_exists()? {
            keep(dir)?;
        } else {
            remove(&dir.join(COMING))?;
        }
    }
    Ok(read(&dir.join(KEPT)))
}

/// Removes the store, and what has come to take its place. It is there whole or not at all, whenever that is interrupted.
pub(crate) fn discard_store(dir: &Path) -> io::Result<()> {
    let going = dir.join(GOING);
    for part in [STATE, ARRIVING] {
        remove(&going)?;
        if dir.join(part).try_exists()? {
            fs::rename(dir.join(part), &going)?;
            sync(dir)?;
        }
    }
    // Last, for without it what is left of a store that was to be replaced would count.
    if dir.join(ARRIVED).try_exists()? {
        fs::remove_file(dir.join(ARRIVED))?;
        sync(dir)?;
    }
    remove(&going)
}

/// Begins to remove what is kept; whoever it was of is not needed any more.
pub(crate) fn let_go(dir: &Path) -> io::Result<()> {
    let going = dir.join(GOING);
    remove(&going)?;
    fs::rename(dir.join(KEPT), &going)?;
    sync(dir)?;
    // It may be much, and whoever asks must not wait. What is left when the process ends is removed at the next start.
    std::thread::Builder::new().name("pharos-remove".to_owned()).spawn(move || {
        if let Err(error) = remove(&going) {
            tracing::warn!(%error, dir = %going.display(), "cannot remove what was damaged");
        }
    })?;
    Ok(())
}

/// Moves a part of the volume there, unless it is there.
fn take(dir: &Path, part: &str) -> io::Result<()> {
    let (from, to) = (dir.join(part), dir.join(COMING).join(part));
    if from.try_exists()? && !to.try_exists()? {
        fs::rename(from, to)?;
        sync(&dir.join(COMING))?;
        sync(dir)?;
    }
    Ok(())
}

fn keep(dir: &Path) -> io::Result<()> {
    let (coming, kept) = (dir.join(COMING), dir.join(KEPT));
    let holds = read(&coming).is_none_or(|record| record.holds);
    if !holds && kept.try_exists()? {
        return remove(&coming);
    }
    remove(&kept)?;
    fs::rename(coming, kept)?;
    sync(dir)
}

fn read(dir: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
    (record.version == VERSION).then_some(record)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::Id128;

    fn record(volume: u8, holds: bool) -> Record {
        let id = |byte| HexId(Id128([byte; 16]));
        Record::new(id(volume), (id(9), 3), "rot".to_owned(), holds)
    }

    /// A directory with a log and a store that say whose they are, and with a state that was to take the store's place.
    fn volume(dir: &Path, of: &str) {
        for part in [LOG, STATE, ARRIVING] {
            fs::create_dir_all(dir.join(part)).unwrap();
            fs::write(dir.join(part).join("of"), of).unwrap();
        }
        fs::write(dir.join(ARRIVED), of).unwrap();
    }

    fn is_there(dir: &Path, part: &str) -> bool {
        dir.join(part).exists()
    }

    fn of(dir: &Path, part: &str) -> Option<String> {
        fs::read_to_string(dir.join(part).join("of")).ok()
    }

    #[test]
    fn what_was_only_noted_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        volume(dir.path(), "one");
        prepare(dir.path(), &record(1, true)).unwrap();
        fs::create_dir(dir.path().join(NEW_LOG)).unwrap();
        assert_eq!(settle(dir.path(), true).unwrap(), None);
        assert_eq!(of(dir.path(), LOG).as_deref(), Some("one"));
        assert!(!dir.path().join(COMING).exists() && !dir.path().join(NEW_LOG).exists());
    }

    /// Stops after each step once the superblock says that the volume is another one.
    #[test]
    fn an_identity_that_was_given_up_is_set_aside_wherever_that_was_interrupted() {
        let steps: [fn(&Path); 5] = [
            |_| (),
            |dir| take(dir, LOG).unwrap(),
            |dir| take(dir, STATE).unwrap(),
            |dir| take(dir, ARRIVED).unwrap(),
            |dir| {
                let _ = fs::remove_dir_all(dir.join(KEPT));
            },
        ];
        for stop in 0..=steps.len() {
            let dir = tempfile::tempdir().unwrap();
            volume(dir.path(), "one");
            prepare(dir.path(), &record(1, true)).unwrap();
            steps[..stop].iter().for_each(|step| step(dir.path()));
            assert_eq!(settle(dir.path(), false).unwrap(), Some(record(1, true)), "{stop}");
            assert_eq!(settle(dir.path(), false).unwrap(), Some(record(1, true)), "{stop}, twice");
            assert!([LOG, STATE, ARRIVED, ARRIVING].iter().all(|part| !is_there(dir.path(), part)));
            assert_eq!(of(&kept(dir.path()), LOG).as_deref(), Some("one"));
            assert_eq!(of(&kept(dir.path()), STATE).as_deref(), Some("one"));
            assert!(is_there(&kept(dir.path()), ARRIVED));
        }
    }

    #[test]
    fn a_store_that_is_discarded_takes_along_what_was_to_take_its_place() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            volume(dir.path(), "one");
            discard_store(dir.path()).unwrap();
            assert!([STATE, ARRIVED, ARRIVING, GOING].iter().all(|part| !is_there(dir.path(), part)));
        }
        assert_eq!(of(dir.path(), LOG).as_deref(), Some("one"));
        discard_store(dir.path()).unwrap();
    }

    #[test]
    fn the_newest_that_holds_something_is_kept_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        for (name, record) in [("one", record(1, true)), ("two", record(2, true)), ("none", record(3, false))]
        {
            volume(dir.path(), name);
            prepare(dir.path(), &record).unwrap();
            settle(dir.path(), false).unwrap();
        }
        assert_eq!(settle(dir.path(), true).unwrap(), Some(record(2, true)));
        assert_eq!(of(&kept(dir.path()), STATE).as_deref(), Some("two"));
        let_go(dir.path()).unwrap();
        assert_eq!(settle(dir.path(), true).unwrap(), None);
        assert!(!kept(dir.path()).exists());
    }

    #[test]
    fn a_log_is_changed_for_another_wherever_that_was_interrupted() {
        let steps: [fn(&Path); 3] = [
            |dir| take(dir, LOG).unwrap(),
            |dir| fs::rename(dir.join(NEW_LOG), dir.join(LOG)).unwrap(),
            |dir| keep(dir).unwrap(),
        ];
        for stop in 1..=steps.len() {
            let dir = tempfile::tempdir().unwrap();
            volume(dir.path(), "one");
            prepare(dir.path(), &record(1, true)).unwrap();
            fs::create_dir(new_log(dir.path())).unwrap();
            fs::write(new_log(dir.path()).join("of"), "cut").unwrap();
            steps[..stop].iter().for_each(|step| step(dir.path()));
            assert_eq!(settle(dir.path(), true).unwrap(), Some(record(1, true)), "{stop}");
            assert_eq!(of(dir.path(), LOG).as_deref(), Some("cut"));
            assert_eq!(of(dir.path(), STATE).as_deref(), Some("one"));
            assert_eq!(of(&kept(dir.path()), LOG).as_deref(), Some("one"));
        }
    }
}
