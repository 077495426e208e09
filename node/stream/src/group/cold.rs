//! Keys that are on disk, because all of them together do not fit in memory.
//!
//! Owns: the layers of sorted files that hold them, which version of a key counts, which keys are to be looked at, what
//! they hold back, how layers are merged.
//! Must not know: windows and values. Of a key it knows bytes, and three times.
//! Invariant: of the versions of a key that of the newest layer counts, unless the key is in memory, which only its owner
//! knows. A version that is over counts for nothing, whatever layer it is in: windows leave a key by being over or by
//! merging into longer ones, so where nothing is left of a key all its versions are over. Thus nobody notes that a key
//! is gone, and a file all of whose timers have passed can go.

use std::ops::RangeInclusive;
use std::sync::Arc;

use pharos_window::{Timestamp, Watermark};
use rocksdb::DB;

use super::merge::{Merge, Source};
use crate::codec::{CodecError, Reader};
use crate::key::KeyHash;
use crate::spill::{List, RunReader, RunWriter, Scoped, Share, SpillError};

/// More layers than so many are merged, for each is asked for a key that is looked for.
const LAYERS: usize = 8;
/// So many bytes of keys that are due are looked for one by one: an eighth of the memory, and not less than this. Where
/// there are more all files are read.
const DUE_BYTES: usize = if cfg!(test) { 200 } else { 256 << 10 };
/// What a key that is due takes beside its bytes.
const BESIDE: usize = size_of::<Key>() + 16;

/// A key: hash and bytes.
pub(super) type Key = (KeyHash, Box<[u8]>);

/// The times of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyTimes {
    /// Once this has passed nothing is left of it.
    pub over: Timestamp,
    /// Once this has passed it is to be looked at.
    pub timer: Timestamp,
    /// The timestamp that its panes to come hold.
    pub hold: Option<Timestamp>,
}

impl KeyTimes {
    /// Appends them; what the key holds comes after.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        let Self { over, timer, hold } = self;
        [over, timer].iter().for_each(|time| out.extend_from_slice(&time.micros().to_le_bytes()));
        out.push(u8::from(hold.is_some()));
        hold.iter().for_each(|time| out.extend_from_slice(&time.micros().to_le_bytes()));
    }

    /// Reads them.
    ///
    /// # Errors
    /// If the bytes are none.
    pub(super) fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let time = |input: &mut Reader<'_>| input.i64().map(Timestamp::from_micros);
        let (over, timer) = (time(input)?, time(input)?);
        let hold = if input.bool()? { Some(time(input)?) } else { None };
        Ok(Self { over, timer, hold })
    }
}

/// Writes the version of a key.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(
    to: &mut RunWriter<'_>,
    (hash, key): (KeyHash, &[u8]),
    times: KeyTimes,
    bytes: &[u8],
) -> Result<(), SpillError> {
    to.put(hash, key, bytes, false)?;
    to.enter(List::Timers, times.timer, hash, key);
    times.hold.into_iter().for_each(|hold| to.enter(List::Holds, hold, hash, key));
    Ok(())
}

/// A file of a layer.
#[derive(Debug)]
struct ColdFile {
    file: Scoped,
    hashes: RangeInclusive<KeyHash>,
    /// The first timer that has not been told of; none: all have.
    timer: Option<Timestamp>,
    /// The first hold that may count, and when it was found to, by [`Cold::changes`].
    hold: Option<(Timestamp, Key, Option<u64>)>,
}

impl ColdFile {
    /// A file of which nothing was told; none if it has no key.
    fn open(file: Scoped, db: &DB) -> Result<Option<Self>, SpillError> {
        let Some(hashes) = file.hashes(db)? else { return Ok(None) };
        let timer = file.list(db, List::Timers, Timestamp::MIN).entry()?.map(|(at, ..)| at);
        let mut holds = file.list(db, List::Holds, Timestamp::MIN);
        let hold = holds.entry()?.map(|(at, hash, key)| (at, (hash, Box::from(key)), None));
        Ok(Some(Self { hashes, timer, hold, file }))
    }

    /// How many bytes of it count, roughly.
    fn bytes(&self) -> u64 {
        let (first, last) = (self.hashes.start().group().number(), self.hashes.end().group().number());
        let mine = self.file.groups.end.min(last + 1).saturating_sub(self.file.groups.start.max(first));
        self.file.run.bytes() * u64::from(mine) / u64::from(last + 1 - first)
    }

    fn is_due(&self, now: Watermark) -> bool {
        self.timer.is_some_and(|timer| now.has_passed(timer))
    }
}

/// Files none of which has hashes among those of another.
#[derive(Debug)]
struct ColdLayer {
    files: Vec<ColdFile>,
}

impl ColdLayer {
    fn bytes(&self) -> u64 {
        self.files.iter().map(ColdFile::bytes).sum()
    }
}

/// What is to be looked at.
#[derive(Debug)]
pub(super) enum Due {
    /// These keys, in order, some of which may be over or in memory.
    Keys(Vec<Key>),
    /// Too many to name: whoever reads all sees which.
    Many,
}

/// One thread's keys on disk.
#[derive(Debug)]
pub(super) struct Cold {
    share: Share,
    /// The oldest first.
    layers: Vec<ColdLayer>,
    /// How often a key came or was taken.
    changes: u64,
}

impl Cold {
    /// No keys yet.
    #[must_use]
    pub(super) const fn new(share: Share) -> Self {
        Self { share, layers: Vec::new(), changes: 0 }
    }

    /// How many bytes the keys that are in memory may take.
    #[must_use]
    pub(super) const fn bound(&self) -> usize {
        self.share.bytes
    }

    /// Whether there is none.
    #[must_use]
    pub(super) const fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// All files, in an order in which the later of two that have a key counts.
    pub(super) fn files(&self) -> impl Iterator<Item = &Scoped> {
        self.layers.iter().flat_map(|layer| layer.files.iter().map(|file| &file.file))
    }

    /// Adds a file that a checkpoint kept, in that order, if it holds anything of this share.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn restore(&mut self, file: &Scoped) -> Result<(), SpillError> {
        let own = &self.share.groups;
        let groups = file.groups.start.max(own.start)..file.groups.end.min(own.end);
        if groups.is_empty() {
            return Ok(());
        }
        let db = self.share.db()?;
        let Some(file) = ColdFile::open(Scoped { groups, ..file.clone() }, &db)? else { return Ok(()) };
        let is_before = |last: &ColdFile| last.hashes.end() < file.hashes.start();
        match self.layers.last_mut().filter(|layer| layer.files.last().is_some_and(is_before)) {
            Some(layer) => layer.files.push(file),
            None => self.layers.push(ColdLayer { files: vec![file] }),
        }
        Ok(())
    }

    /// Begins a layer; see [`write()`] and [`Self::add`].
    #[must_use]
    pub(super) fn writer(&self) -> RunWriter<'_> {
        self.share.keyed_writer()
    }

    /// Adds a layer when the watermark stands at `now`. `in_memory` says which keys are.
    ///
    /// # Errors
    /// If it cannot be read, or layers cannot be merged.
    pub(super) fn add(
        &mut self,
        files: Vec<Scoped>,
        now: Watermark,
        in_memory: impl Fn(KeyHash, &[u8]) -> bool,
    ) -> Result<(), SpillError> {
        self.push(files)?;
        self.changes += 1;
        if self.layers.len() > LAYERS { self.merge(now, in_memory) } else { Ok(()) }
    }

    fn push(&mut self, files: Vec<Scoped>) -> Result<(), SpillError> {
        let db = self.share.db()?;
        let files = files.into_iter().filter_map(|file| ColdFile::open(file, &db).transpose());
        let files = files.collect::<Result<Vec<_>, _>>()?;
        if !files.is_empty() {
            self.layers.push(ColdLayer { files });
        }
        Ok(())
    }

    /// Merges the newest layers, from the oldest one on that is no larger than all that came after it.
    fn merge(
        &mut self,
        now: Watermark,
        in_memory: impl Fn(KeyHash, &[u8]) -> bool,
    ) -> Result<(), SpillError> {
        let (mut first, mut later) = (self.layers.len() - 1, 0);
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let bytes = layer.bytes();
            if bytes <= later {
                first = at;
            }
            later += bytes;
        }
        if first + 1 == self.layers.len() {
            return Ok(());
        }
        let all = Everything {
            files: self.layers[first..]
                .iter()
                .flat_map(|layer| &layer.files)
                .map(|file| file.file.clone())
                .collect(),
            db: self.share.db()?,
        };
        let mut writer = self.writer();
        all.each(now, |(hash, key), times, reader| {
            if in_memory(hash, key) {
                return Ok::<_, SpillError>(());
            }
            write(&mut writer, (hash, key), times, reader.value())
        })?;
        let files = writer.finish()?;
        self.layers.truncate(first);
        self.push(files)
    }

    /// What `read` makes of what counts of a key that is not in memory when the watermark stands at `now`: its times, and what
    /// comes after them. With a result it is in memory then.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn take<T>(
        &mut self,
        key: (KeyHash, &[u8]),
        now: Watermark,
        read: impl FnOnce(KeyTimes, &mut Reader<'_>) -> Result<Option<T>, CodecError>,
    ) -> Result<Option<T>, SpillError> {
        let db = self.share.db()?;
        let taken = newest(&self.layers, &db, key, |_, bytes| {
            let mut input = Reader::new(bytes);
            let times = KeyTimes::read(&mut input)?;
            if now.has_passed(times.over) { Ok(None) } else { read(times, &mut input) }
        })?;
        self.changes += u64::from(matches!(taken, Some(Some(_))));
        Ok(taken.flatten())
    }

    /// The keys whose timers have passed when the watermark stands at `now`. They are told of once.
    ///
    /// # Errors
    /// If files cannot be read.
    pub(super) fn due(&mut self, now: Watermark) -> Result<Due, SpillError> {
        let (mut keys, mut bytes): (Vec<Key>, usize) = (Vec::new(), 0);
        if !self.layers.iter().flat_map(|layer| &layer.files).any(|file| file.is_due(now)) {
            return Ok(Due::Keys(keys));
        }
        let db = self.share.db()?;
        let most = DUE_BYTES.max(self.share.bytes / 8);
        for file in self.layers.iter_mut().flat_map(|layer| &mut layer.files) {
            let Some(timer) = file.timer.filter(|timer| now.has_passed(*timer)) else { continue };
            let mut reader = file.file.list(&db, List::Timers, timer);
            file.timer = loop {
                match reader.entry()? {
                    Some((at, hash, key)) if now.has_passed(at) => {
                        if bytes > most {
                            reader.seek(now.timestamp());
                            break reader.entry()?.map(|(at, ..)| at);
                        }
                        bytes += BESIDE + key.len();
                        keys.push((hash, Box::from(key)));
                        reader.step();
                    }
                    next => break next.map(|(at, ..)| at),
                }
            };
        }
        if bytes > most {
            return Ok(Due::Many);
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Due::Keys(keys))
    }

    /// All that there is now, to be taken into memory.
    ///
    /// # Errors
    /// If the database cannot be opened.
    pub(super) fn everything(&mut self) -> Result<Everything, SpillError> {
        self.changes += 1;
        Ok(Everything { files: self.files().cloned().collect(), db: self.share.db()? })
    }

    /// Lets go of files of which nothing counts any more.
    pub(super) fn tidy(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.files.retain(|file| file.timer.is_some()));
        self.layers.retain(|layer| !layer.files.is_empty());
    }

    /// The earliest timestamp that a key holds, of `least` and those here, when the watermark stands at `now`.
    ///
    /// # Errors
    /// If files cannot be read.
    pub(super) fn held(
        &mut self,
        now: Watermark,
        mut least: Option<Timestamp>,
        in_memory: impl Fn(KeyHash, &[u8]) -> bool,
    ) -> Result<Option<Timestamp>, SpillError> {
        let places: Vec<(usize, usize)> = (self.layers.iter().enumerate())
            .flat_map(|(layer, of)| (0..of.files.len()).map(move |file| (layer, file)))
            .collect();
        for (layer, file) in places {
            let is_lower = |at: Timestamp| least.is_none_or(|least| at < least);
            let of = &self.layers[layer].files[file];
            let Some((at, key, counted)) = of.hold.as_ref().filter(|(at, ..)| is_lower(*at)) else {
                continue;
            };
            if *counted == Some(self.changes) {
                least = Some(*at);
                continue;
            }
            let db = self.share.db()?;
            let counts = |hash: KeyHash, key: &[u8]| -> Result<bool, SpillError> {
                let counts = |at, bytes: &[u8]| {
                    Ok(at == layer && !now.has_passed(KeyTimes::read(&mut Reader::new(bytes))?.over))
                };
                Ok(!in_memory(hash, key) && newest(&self.layers, &db, (hash, key), counts)? == Some(true))
            };
            let mut reader = of.file.list(&db, List::Holds, *at);
            reader.seek_key(*at, key.0, &key.1);
            let first = loop {
                match reader.entry()? {
                    Some((at, hash, key)) if is_lower(at) => {
                        if counts(hash, key)? {
                            break Some((at, (hash, Box::from(key)), Some(self.changes)));
                        }
                        reader.step();
                    }
                    next => break next.map(|(at, hash, key)| (at, (hash, Box::from(key)), None)),
                }
            };
            if let Some((at, _, Some(_))) = &first {
                least = Some(*at);
            }
            self.layers[layer].files[file].hold = first;
        }
        Ok(least)
    }
}

/// What the newest of the layers that have a key has of it, and which that is, as `read` takes it.
fn newest<T>(
    layers: &[ColdLayer],
    db: &DB,
    (hash, key): (KeyHash, &[u8]),
    read: impl FnOnce(usize, &[u8]) -> Result<T, CodecError>,
) -> Result<Option<T>, SpillError> {
    for (at, layer) in layers.iter().enumerate().rev() {
        for file in layer.files.iter().filter(|file| file.hashes.contains(&hash)) {
            if let Some(bytes) = file.file.get(db, hash, key)? {
                return read(at, &bytes).map(Some).map_err(|error| file.file.damaged(error));
            }
        }
    }
    Ok(None)
}

/// All keys of some files.
pub(super) struct Everything {
    files: Vec<Scoped>,
    db: Arc<DB>,
}

impl Everything {
    /// Gives `each` the newest version of each key that is not over when the watermark stands at `now`, in order: its times, and
    /// who reads all its bytes.
    ///
    /// # Errors
    /// If files cannot be read; or as `each`.
    pub(super) fn each<E: From<SpillError>>(
        &self,
        now: Watermark,
        mut each: impl FnMut((KeyHash, &[u8]), KeyTimes, &RunReader<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let sources = self.files.iter().map(|file| (0, Source::Run(file.read(&self.db)))).collect();
        let mut merge = Merge::new(sources)?;
        while merge.next()? {
            let (Some(key), Some(reader)) = (merge.key()?, merge.newest()) else { continue };
            let times = KeyTimes::read(&mut Reader::new(reader.value()));
            let times = times.map_err(|error| reader.damaged(error))?;
            if !now.has_passed(times.over) {
                each(key, times, reader)?;
            }
        }
        Ok(())
    }
}
