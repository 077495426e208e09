//! Real members under a workload and faults, and the history of it checked.
//!
//! Owns the run: windows of workload and faults, healing, the last look at every member, the verdict. Must not know the
//! inside of a member, nor the rules, which `pharos-history` has. Invariant: one seed gives one workload and one schedule
//! of faults; what the members make of it is up to the machine. A window's history begins with an empty tree and is
//! forgotten once it is checked, so a run may last as long as one likes.

mod archive;
mod client;
mod damage;
mod evidence;
mod faults;
mod report;
mod sessions;
mod strike;
mod translate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pharos_history::{Body, ErrorCode, History, Limits, Report, Request, Session, Stat, View, Write};

use crate::command::wait_until;
use crate::netns::isolated;
use client::{Client, Clock};
use faults::{Schedule, Span};
use pharos_crowd::{ROOT, Rng, look};
use sessions::{Shared, look_at_all, names};
use strike::Field;

pub use evidence::recheck;
pub use faults::Fault;
pub use report::{Outcomes, Verdict};

/// A member may tell the leader up to a third of a session's timeout late that it has heard of it.
const LIMITS: Limits = Limits { contact_lag: 3 };
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT_MS: i32 = 10_000;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many members the ensemble has.
    pub members: usize,
    /// How many clients there are beside the observers.
    pub clients: usize,
    /// Which faults there are.
    pub faults: Vec<Fault>,
    /// How long there are faults.
    pub length: Duration,
    /// How long until a history is checked and another one begins.
    pub window: Duration,
    /// The longest pause of a client between two batches of requests.
    pub pause: Duration,
    /// What workload and faults follow from.
    pub seed: u64,
    /// Where the evidence goes if something is wrong.
    pub keep: PathBuf,
}

/// Runs it, in namespaces of its own. A violation is in the verdict and ends the run; an error is something
/// that kept the run from its end. Of both the evidence is kept.
///
/// # Errors
/// If members do not start, do not serve again after the faults, or do not let ephemeral znodes go.
pub fn run(options: &Options) -> anyhow::Result<Verdict> {
    isolated(|| run_isolated(options))
}

fn run_isolated(options: &Options) -> anyhow::Result<Verdict> {
    let mut field = Field::found(options.members)?;
    let mut schedule = Schedule::of(field.can(&options.faults));
    let mut verdict = Verdict::new(options);
    let start = Instant::now();
    while let Some(left) = options.length.checked_sub(start.elapsed()) {
        let number = verdict.windows;
        let mut history = History::default();
        let ended =
            window(&mut field, &mut schedule, options, number, left.min(options.window), &mut history);
        let good = match &ended {
            Ok(ended) => ended.checked.violations.is_empty() && ended.differences.is_empty(),
            Err(_) => false,
        };
        let kept = if good { None } else { Some(evidence::keep(options, number, &history, &mut field)) };
        let place = kept.transpose()?;
        let ended = ended.with_context(|| {
            format!("window {number}; see {}", place.clone().unwrap_or_default().display())
        })?;
        verdict.add(&history, ended, place);
        if !good {
            break;
        }
    }
    Ok(verdict)
}

/// What a window comes to.
struct Window {
    spans: Vec<Span>,
    checked: Report,
    differences: Vec<String>,
}

fn window(
    field: &mut Field,
    schedule: &mut Schedule,
    options: &Options,
    number: usize,
    length: Duration,
    history: &mut History,
) -> anyhow::Result<Window> {
    let addresses: Vec<SocketAddr> =
        (0..options.members).map(|member| field.ensemble.address(member)).collect::<anyhow::Result<_>>()?;
    let clock = Clock::start();
    history.sessions = prepare(clock, addresses[0])?;
    let (stop, blind) = (AtomicBool::new(false), AtomicBool::new(false));
    let (stop, blind) = (&stop, &blind);
    let shared = Shared { addresses: &addresses, clock, pause: options.pause };
    let mut rng = Rng::new(options.seed.wrapping_add(number as u64 * 1_000_003));
    let spans = std::thread::scope(|scope| {
        let observe = |member| scope.spawn(move || sessions::observe(shared, member, blind));
        let observers: Vec<_> = (0..options.members).map(observe).collect();
        let mut work = |client| {
            let seed = rng.index(usize::MAX) as u64;
            scope.spawn(move || sessions::work(shared, client, seed, stop))
        };
        let workers: Vec<_> = (0..options.clients).map(&mut work).collect();
        let spans = schedule.inject(field, &mut rng, clock, length);
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            history.sessions.extend(worker.join().expect("a client does not panic"));
        }
        // The observers see the sessions end that were left alone.
        let waited = spans.and_then(|spans| Ok((spans, wait_for_ephemerals(clock, addresses[0])?)));
        blind.store(true, Ordering::Relaxed);
        for observer in observers {
            history.sessions.extend(observer.join().expect("an observer does not panic"));
        }
        let (spans, waiting) = waited?;
        history.sessions.extend(waiting);
        anyhow::Ok(spans)
    })?;
    let differences = last_look(clock, &addresses, history)?;
    let checked = pharos_history::check(history, LIMITS);
    if checked.violations.is_empty() && differences.is_empty() {
        clear(addresses[0])?;
    }
    Ok(Window { spans, checked, differences })
}

/// Leaves nothing to the next window, whose history begins with an empty tree.
fn clear(address: SocketAddr) -> anyhow::Result<()> {
    let mut client = open(Clock::start(), address)?;
    client.ask(vec![Request::Sync])?;
    let mut paths: Vec<String> = look_at_all(&mut client)?.into_iter().map(|(path, _)| path).collect();
    // What is below comes first.
    paths.sort_unstable_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
    ensure!(paths.last().is_some_and(|path| path == ROOT), "there is a tree");
    let delete = |path: String| Request::Write(Write::Delete { path, version: -1 });
    for answer in client.ask(paths.into_iter().map(delete).collect())? {
        let gone = answer.result.is_ok() || answer.result == Err(ErrorCode::NO_NODE);
        ensure!(gone, "cannot clear the tree: {:?}", answer.result);
    }
    client.close();
    Ok(())
}

/// Creates what the workload takes for granted.
fn prepare(clock: Clock, address: SocketAddr) -> anyhow::Result<Vec<Session>> {
    let mut client = open(clock, address)?;
    for request in pharos_crowd::fixtures() {
        let answers = client.ask(vec![request])?;
        ensure!(answers.iter().all(|answer| answer.result.is_ok()), "cannot prepare: {answers:?}");
    }
    client.close();
    Ok(client.into_record())
}

/// Every session is closed or left alone, so every ephemeral znode has to go.
fn wait_for_ephemerals(clock: Clock, address: SocketAddr) -> anyhow::Result<Vec<Session>> {
    let mut client = open(clock, address)?;
    wait_until("the last ephemeral znode to go", PATIENCE, || {
        let mut left = 0;
        for parent in pharos_crowd::ephemeral_parents() {
            let answers = client.ask(vec![Request::Sync, look(View::Children, &parent)])?;
            left += answers.iter().map(|answer| names(answer).len()).sum::<usize>();
        }
        Ok((left == 0).then_some(()))
    })?;
    client.close();
    Ok(client.into_record())
}

fn open(clock: Clock, address: SocketAddr) -> anyhow::Result<Client> {
    let mut client = Client::new(clock);
    wait_until("a session", PATIENCE, || client.connect(address, TIMEOUT_MS).map(Some))?;
    Ok(client)
}

/// A znode's data and Stat, by path.
type Dump = BTreeMap<String, (Vec<u8>, Stat)>;

/// Reads everything on every member; says where they differ.
fn last_look(clock: Clock, addresses: &[SocketAddr], history: &mut History) -> anyhow::Result<Vec<String>> {
    let mut dumps = Vec::new();
    for address in addresses {
        let mut client = open(clock, *address)?;
        dumps.push(dump(&mut client)?);
        client.close();
        history.sessions.extend(client.into_record());
    }
    let mut differences = Vec::new();
    let (first, others) = dumps.split_first().context("there are members")?;
    for (index, other) in others.iter().enumerate() {
        let paths = first.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>();
        for path in paths.into_iter().filter(|path| first.get(*path) != other.get(*path)) {
            let (one, two) = (first.get(path), other.get(path));
            differences.push(format!("{path}: {one:?} on member 0, {two:?} on member {}", index + 1));
        }
    }
    Ok(differences)
}

fn dump(client: &mut Client) -> anyhow::Result<Dump> {
    client.ask(vec![Request::Sync])?;
    let all = look_at_all(client)?.into_iter();
    Ok(all
        .filter_map(|(path, answer)| match answer.result {
            Ok(Body::Data(data, stat)) => Some((path, (data, stat))),
            _ => None,
        })
        .collect())
}
