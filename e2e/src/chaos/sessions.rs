//! What each thread of the workload does with its client: ask, break connections, close and abandon sessions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pharos_history::{Answer, Body, EventKind, Incoming, Request, Session, View, WatchEvent};

use super::client::{Client, Clock, Connected};
use pharos_crowd::{ROOT, Rng, Workload, effects, look};

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
const TIMEOUTS_MS: [i32; 3] = [4_000, 6_000, 10_000];
const OBSERVER_TIMEOUT_MS: i32 = 10_000;

/// What all threads share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) addresses: &'a [SocketAddr],
    pub(super) clock: Clock,
    /// The longest pause between two batches.
    pub(super) pause: Duration,
}

/// Writes, reads and watches at random until it is told to stop. Then it closes its session, or leaves it to expire.
pub(super) fn work(shared: Shared<'_>, number: usize, seed: u64, stop: &AtomicBool) -> Vec<Session> {
    let mut client = Client::new(shared.clock);
    let mut load = Workload::new(number, Rng::new(seed));
    let mut timeout_ms = load.rng().pick(&TIMEOUTS_MS);
    let mut doubtful = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if !client.is_connected() {
            let address = load.rng().pick(shared.addresses);
            match client.connect(address, timeout_ms) {
                Ok(Connected::New | Connected::Resumed) => {
                    let _ = client.ask(std::mem::take(&mut doubtful));
                }
                Ok(Connected::Expired) => timeout_ms = load.rng().pick(&TIMEOUTS_MS),
                Err(_) => std::thread::sleep(PAUSE),
            }
            continue;
        }
        doubtful.extend(ask_batch(&mut client, &mut load));
        match load.rng().index(1500) {
            0..4 => client.disconnect(),
            4 => client.close(),
            5 => client.forget(),
            _ => {}
        }
        let longest = usize::try_from(shared.pause.as_micros()).unwrap_or(0);
        std::thread::sleep(Duration::from_micros(load.rng().index(longest + 1) as u64));
    }
    if load.rng().one_in(2) {
        client.close();
    }
    client.into_record()
}

/// If the connection breaks, gives what shows what became of the requests.
fn ask_batch(client: &mut Client, load: &mut Workload) -> Vec<Request> {
    let batch = load.batch();
    match client.ask(batch.clone()) {
        Ok(answers) => {
            batch.iter().zip(&answers).for_each(|(request, answer)| load.answered(request, answer));
            Vec::new()
        }
        Err(_) => batch.iter().flat_map(effects).collect(),
    }
}

/// Watches everything on one member, and reads what has changed: what writes without an answer did is then seen.
pub(super) fn observe(shared: Shared<'_>, member: usize, stop: &AtomicBool) -> Vec<Session> {
    let mut client = Client::new(shared.clock);
    let mut read = 0;
    while !stop.load(Ordering::Relaxed) {
        if !client.is_connected() {
            read = 0;
            match client.connect(shared.addresses[member], OBSERVER_TIMEOUT_MS) {
                Ok(Connected::New) => {
                    let _ = client.ask(vec![Request::AddWatch { path: ROOT.to_owned(), recursive: true }]);
                }
                Ok(_) => {}
                Err(_) => std::thread::sleep(PAUSE),
            }
            if client.is_connected() {
                let _ = look_at_all(&mut client);
            }
            continue;
        }
        let mut batch = written(&client.incoming()[read..]);
        read = client.incoming().len();
        batch.push(look(View::Stat, ROOT));
        let _ = client.ask(batch);
        std::thread::sleep(PAUSE);
    }
    client.close();
    client.into_record()
}

/// Reads all there is, for nobody may have heard what happened when the connection was lost.
pub(super) fn look_at_all(client: &mut Client) -> anyhow::Result<Vec<(String, Answer)>> {
    let (mut seen, mut left) = (Vec::new(), vec![ROOT.to_owned()]);
    while !left.is_empty() {
        let batch: Vec<Request> =
            left.iter().flat_map(|path| [look(View::Children, path), look(View::Data, path)]).collect();
        let answers = client.ask(batch)?;
        let mut below = Vec::new();
        for (path, pair) in left.iter().zip(answers.chunks(2)) {
            below.extend(pair.iter().flat_map(names).map(|name| format!("{path}/{name}")));
            seen.extend(pair.last().map(|answer| (path.clone(), answer.clone())));
        }
        left = below;
    }
    Ok(seen)
}

pub(super) fn names(answer: &Answer) -> &[String] {
    match &answer.result {
        Ok(Body::Children(names, _)) => names,
        _ => &[],
    }
}

/// Reads of the znodes that events say were created or written.
fn written(incoming: &[Incoming]) -> Vec<Request> {
    let mut paths: Vec<&str> = incoming
        .iter()
        .filter_map(|one| match one {
            Incoming::Event(WatchEvent {
                kind: EventKind::NodeCreated | EventKind::NodeDataChanged,
                path,
                ..
            }) => Some(path.as_str()),
            _ => None,
        })
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(|path| look(View::Data, path)).collect()
}
