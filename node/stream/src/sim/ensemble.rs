//! The simulated Ensemble: znodes, the roster, answers that are lost.
//!
//! Owns: the znodes of a run, who is on its roster, what must hold of what they say.
//! Must not know: why anything is written.
//! Invariant: writes are atomic and in one order; what is read without `sync` may be old; a client whose
//! answer was lost does not know whether its write happened.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use zookeeper_client::{Error, MultiWriteError};

use super::world::{Event, Op, Proc, SESSION, World, elapse, op, with};
use crate::coordination::zookeeper::{Reach, Write, Znodes};
use crate::coordination::{Member, Paths, Pointer, Submission, Upgrade, View};
use crate::driver::News;

/// A znode, and what it was before its last change.
struct Znode {
    data: Vec<u8>,
    version: i32,
    before: Option<(Vec<u8>, i32)>,
    /// The number of the last change.
    changed: u64,
}

#[derive(Default)]
pub(super) struct Ensemble {
    znodes: BTreeMap<String, Znode>,
    /// How many changes there were.
    changes: u64,
    /// Those that are on the roster, in the order in which they came.
    members: Vec<(Proc, Member)>,
}

pub(super) fn paths() -> Paths {
    Paths::new("/pharos", "uid", "document", 1)
}

/// What all processes work on.
pub(super) fn submission() -> Submission {
    Submission {
        root: "/pharos".to_owned(),
        uid: "uid".to_owned(),
        document: "document".to_owned(),
        run_id: 1,
        upgrade: Upgrade::LastState,
    }
}

impl Ensemble {
    pub(super) fn latest(&self) -> Option<Pointer> {
        serde_json::from_slice(&self.znodes.get(&paths().latest())?.data).ok()
    }

    pub(super) fn is_completed(&self) -> bool {
        self.znodes.contains_key(&paths().completed())
    }

    pub(super) fn leave(&mut self, proc: Proc) {
        self.members.retain(|(of, _)| *of != proc);
    }

    fn view(&self) -> View {
        let members = self.members.iter().map(|(_, member)| member.clone()).collect();
        View { members, completed: self.is_completed() }
    }
}

/// A client of a process.
#[derive(Clone)]
pub(super) struct SimClient {
    proc: Proc,
    /// The number of the change up to which it sees all: that of its last `sync`.
    synced: Arc<Mutex<u64>>,
}

impl SimClient {
    /// A request: it may not reach the Ensemble, and its answer may not come back.
    fn request<T>(&self, effect: impl FnOnce(&mut World) -> T) -> Result<T, Error> {
        let (lost, unclear) = with(|world| {
            let wild = world.wild;
            (wild && world.rng.per_million(15_000), wild && world.rng.per_million(25_000))
        });
        let reached = || {
            with(|world| {
                if lost || !world.reaches_ensemble(self.proc) {
                    world.counts.count("request lost");
                    return None;
                }
                Some(effect(world))
            })
        };
        let answer = op(self.proc, Op::Ensemble, reached).flatten().ok_or(Error::ConnectionLoss)?;
        if unclear {
            with(|world| world.counts.count("answer lost"));
            return Err(Error::ConnectionLoss);
        }
        Ok(answer)
    }

    fn read(&self, path: &str) -> Result<Option<(Vec<u8>, i32)>, Error> {
        let synced = *self.synced.lock().expect("nothing panics with it");
        self.request(|world| {
            let Znode { changed, .. } = *world.ensemble.znodes.get(path)?;
            let old = changed > synced && world.wild && world.rng.per_million(300_000);
            let Znode { data, version, before, .. } = &world.ensemble.znodes[path];
            Some(before.clone().filter(|_| old).unwrap_or((data.clone(), *version)))
        })
    }
}

fn create(world: &mut World, path: &str, data: &[u8]) -> Result<(), Error> {
    if world.ensemble.znodes.contains_key(path) {
        return Err(Error::NodeExists);
    }
    put(world, path, data, 0, None);
    Ok(())
}

fn put(world: &mut World, path: &str, data: &[u8], version: i32, before: Option<(Vec<u8>, i32)>) {
    let ensemble = &mut world.ensemble;
    ensemble.changes += 1;
    let znode = Znode { data: data.to_owned(), version, before, changed: ensemble.changes };
    ensemble.znodes.insert(path.to_owned(), znode);
}

/// Whether a znode is there, and has this version.
fn is_at(world: &World, path: &str, version: Option<i32>) -> Result<(), Error> {
    match world.ensemble.znodes.get(path) {
        None => Err(Error::NoNode),
        Some(znode) if version.is_some_and(|version| version != znode.version) => Err(Error::BadVersion),
        Some(_) => Ok(()),
    }
}

fn set(world: &mut World, path: &str, data: &[u8]) -> i32 {
    let before = world.ensemble.znodes.get(path).map(|znode| (znode.data.clone(), znode.version));
    let version = before.as_ref().map_or(0, |(_, version)| version + 1);
    let last = world.ensemble.latest();
    put(world, path, data, version, before);
    if path == paths().latest() {
        check(world, last.as_ref());
    }
    version
}

/// What must hold when a checkpoint begins to count.
fn check(world: &mut World, before: Option<&Pointer>) {
    world.counts.checkpoints += 1;
    let Some(pointer) = world.ensemble.latest() else {
        return world.violate("`latest` says nothing".to_owned());
    };
    if before.is_some_and(|before| (before.generation, before.epoch) >= (pointer.generation, pointer.epoch)) {
        world.violate(format!("{pointer:?} counts after {before:?}"));
    }
    let generation = world.ensemble.znodes.get(&paths().generation()).map_or(0, |znode| znode.version);
    if u64::from(generation.unsigned_abs()) != pointer.generation {
        world.violate(format!("{pointer:?} counts, and generation {generation} has begun"));
    }
    if world.ensemble.is_completed() {
        world.violate(format!("{pointer:?} counts, and the run is done"));
    }
    let missing = world.needed().into_iter().find(|name| !world.blobs.contains_key(name));
    if let Some(missing) = missing {
        world.violate(format!("{pointer:?} counts, and `{missing}` is missing"));
    }
}

impl Znodes for SimClient {
    async fn ensure(&self, path: &str) -> Result<(), Error> {
        // That it is there is no error.
        self.request(|world| drop(create(world, path, b"")))
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), Error> {
        self.request(|world| create(world, path, data))?
    }

    async fn set(&self, path: &str, data: &[u8], version: Option<i32>) -> Result<i32, Error> {
        self.request(|world| {
            is_at(world, path, version)?;
            Ok(set(world, path, data))
        })?
    }

    async fn sync(&self, _: &str) -> Result<(), Error> {
        let changes = self.request(|world| world.ensemble.changes)?;
        *self.synced.lock().expect("nothing panics with it") = changes;
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<(Vec<u8>, i32), Error> {
        self.read(path)?.ok_or(Error::NoNode)
    }

    async fn exists(&self, path: &str) -> Result<bool, Error> {
        self.request(|world| world.ensemble.znodes.contains_key(path))
    }

    async fn multi(&self, writes: Vec<Write>) -> Result<(), MultiWriteError> {
        self.request(|world| {
            for (index, write) in writes.iter().enumerate() {
                let possible = match write {
                    Write::Check(path, version) | Write::Set(path, _, version) => {
                        is_at(world, path, Some(*version))
                    }
                    Write::Create(path, _) if world.ensemble.znodes.contains_key(path) => {
                        Err(Error::NodeExists)
                    }
                    Write::Create(..) => Ok(()),
                };
                possible.map_err(|source| MultiWriteError::OperationFailed { index, source })?;
            }
            for write in &writes {
                match write {
                    Write::Check(..) => {}
                    Write::Set(path, data, _) => drop(set(world, path, data)),
                    Write::Create(path, data) => {
                        drop(create(world, path, data));
                        if *path == paths().completed() {
                            completed(world);
                        }
                    }
                }
            }
            let plan = format!("{}/plan-{}", paths().run(), submission().document);
            if world.ensemble.latest().is_some() && !world.ensemble.znodes.contains_key(&plan) {
                world.violate("a checkpoint counts, and no plan is kept".to_owned());
            }
            Ok(())
        })?
    }
}

/// What must hold when the run is noted as done.
fn completed(world: &mut World) {
    let manifest = world.manifest();
    if manifest.is_none_or(|manifest| manifest.round.is_some()) {
        world.violate("the run is noted as done, and no last checkpoint counts".to_owned());
    }
    for path in ["fixed", "sliding", "sessions", "growing"] {
        if !world.visible.contains_key(path) {
            world.violate(format!("the run is noted as done, and `{path}` is not visible"));
        }
    }
}

/// The Ensemble as a process reaches it.
pub(super) struct SimReach(pub(super) Proc);

impl Reach for SimReach {
    type Client = SimClient;

    fn address(&self) -> &str {
        "ensemble"
    }

    fn connect(&self) -> Result<SimClient, Error> {
        let client = SimClient { proc: self.0, synced: Arc::default() };
        client.request(|_| ())?;
        Ok(client)
    }

    /// Everything is done when it is asked for, so there is nothing to wait for.
    fn wait<T: Send + 'static>(&self, step: impl Future<Output = T> + Send + 'static) -> T {
        match std::pin::pin!(step).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("a simulated step does not wait"),
        }
    }

    fn pause(&self, time: Duration) {
        // Who is killed meanwhile finds that out at its next step.
        let _ = elapse(self.0, time);
    }
}

/// A process hears from the roster, once a second and whenever that has changed.
pub(super) fn roster(proc: Proc) {
    with(|world| {
        let (now, reached) = (world.now, world.reaches_ensemble(proc));
        let Some(process) = world.live(proc) else { return };
        let (member, sender) = (process.member.clone(), process.sender.clone());
        let silent = *process.silent.get_or_insert(now);
        if reached {
            process.silent = None;
        }
        let gone = !reached && now.saturating_sub(silent) > SESSION;
        let on = world.ensemble.members.iter().any(|(of, _)| *of == proc);
        if gone && on {
            world.counts.count("session over");
            world.ensemble.leave(proc);
            tell(world);
        }
        if gone {
            // It hears of it once it does anything again.
            let _ = sender.send(News::View(View::default()));
        } else if reached && !on {
            // The one before it under its name is taken off.
            world.ensemble.members.retain(|(_, other)| other.name != member.name);
            world.ensemble.members.push((proc, member));
            tell(world);
        } else if reached {
            let _ = sender.send(News::View(world.ensemble.view()));
        }
        let delay = world.rng.between(500_000, 1_000_000);
        world.after(delay, Event::Roster(proc));
    });
}

/// Everyone hears of a change soon.
fn tell(world: &mut World) {
    let view = world.ensemble.view();
    let reached: Vec<Proc> =
        world.processes.keys().copied().filter(|proc| world.reaches_ensemble(*proc)).collect();
    for proc in reached {
        if let Some(process) = world.processes.get(&proc) {
            let _ = process.sender.send(News::View(view.clone()));
        }
    }
}

/// The session of a process that died is over.
pub(super) fn expired(proc: Proc) {
    with(|world| {
        world.ensemble.leave(proc);
        tell(world);
    });
}
