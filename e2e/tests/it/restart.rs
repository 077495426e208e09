//! What a member keeps, and what it has to do again, when it is killed after much was written.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::Wire;
use pharos_jute::{AclRef, Create, OpCode, PathWatch, Request, Response, SetData};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITES: usize = 200_000;
const NODES: usize = 500;
const IN_FLIGHT: usize = 1_000;
/// Large enough that the log outgrows what is kept of it for members that were away.
const VALUE: usize = 1_700;

fn path(node: usize) -> String {
    format!("/n{node}")
}

fn value(write: usize) -> Vec<u8> {
    let mut value = vec![b'.'; VALUE];
    value[..8].copy_from_slice(&(write as u64).to_be_bytes());
    value
}

fn write_all(wire: &mut Wire) {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    for node in 0..NODES {
        let (path, data) = (path(node), value(0));
        let create = Create { path: Some(&path), data: Some(&data), acl: Some(acl.clone()), flags: 0 };
        wire.ask(node as i32, &Request::Create(create));
    }
    for node in 0..NODES {
        wire.answered(node as i32).unwrap();
    }
    for write in 0..WRITES {
        let (path, data) = (path(write % NODES), value(write));
        let set = SetData { path: Some(&path), data: Some(&data), version: -1 };
        wire.ask(write as i32, &Request::SetData(set));
        if write >= IN_FLIGHT {
            wire.answered((write - IN_FLIGHT) as i32).unwrap();
        }
    }
    for write in WRITES - IN_FLIGHT..WRITES {
        wire.answered(write as i32).unwrap();
    }
}

fn metrics(ensemble: &LocalEnsemble, member: usize) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = ensemble.get(member, "/metrics")?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

/// The member holds the last write of each znode.
fn holds_all(ensemble: &LocalEnsemble, member: usize) {
    let address = ensemble.address(member).unwrap();
    let mut wire = wait_until("a session", PATIENCE, || Wire::open(address).map(Some)).unwrap();
    for node in 0..NODES {
        let path = path(node);
        wire.ask(1, &Request::GetData(PathWatch { path: Some(&path), watch: false }));
        let body = wire.answered(1).unwrap();
        let Ok(Response::Data { data, .. }) = Response::decode(OpCode::GetData, body) else {
            panic!("no data");
        };
        assert_eq!(data, Some(value(WRITES - NODES + node).as_slice()), "{path}");
    }
}

/// The last write once more: what comes after it trims the log behind the store.
fn last_write() -> Request<'static> {
    static PATH: LazyLock<String> = LazyLock::new(|| path((WRITES - 1) % NODES));
    static DATA: LazyLock<Vec<u8>> = LazyLock::new(|| value(WRITES - 1));
    Request::SetData(SetData { path: Some(&PATH), data: Some(&DATA), version: -1 })
}

#[test]
fn a_restart_replays_only_what_the_store_did_not_hold_and_old_segments_are_gone() {
    let mut ensemble = LocalEnsemble::found(1).unwrap();
    let mut wire = Wire::open(ensemble.address(0).unwrap()).unwrap();
    write_all(&mut wire);
    // The log is trimmed behind the store, with the writes that come after.
    let written = (WRITES * VALUE) as u64;
    // The greeting is a packet too.
    let mut asked = 1 + NODES + WRITES;
    wait_until("the log to be trimmed", PATIENCE, || {
        wire.ask(0, &last_write());
        wire.answered(0)?;
        asked += 1;
        Ok((ensemble.log_bytes(0)? < written * 3 / 4).then_some(()))
    })
    .unwrap();
    // What the member publishes lags behind what it answers.
    let before = wait_until("the metrics to show every request", PATIENCE, || {
        let now = metrics(&ensemble, 0)?;
        Ok((now["packets_received"] == asked as u64).then_some(now))
    })
    .unwrap();
    let flushed = before["pharos_flushed_slot"];
    assert!(flushed > 0, "nothing was flushed");
    ensemble.kill(0).unwrap();
    ensemble.start(0).unwrap();

    let after = wait_until("the log to be replayed", PATIENCE, || {
        let now = metrics(&ensemble, 0)?;
        let done = now["pharos_serving"] == 1 && now["pharos_applied_slot"] >= before["pharos_applied_slot"];
        Ok(done.then_some(now))
    })
    .unwrap();
    assert!(after["pharos_flushed_slot"] >= flushed, "the store went back: {before:?}\n{after:?}");
    // The member may have flushed once more before it was killed, and applies an entry of its own.
    let replayed = after["pharos_replayed_slots"];
    assert!(replayed <= after["pharos_applied_slot"] - flushed, "replayed {replayed}: {before:?}\n{after:?}");
    holds_all(&ensemble, 0);
}

#[test]
fn a_member_that_was_away_for_longer_than_the_log_reaches_is_sent_the_state() {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let leader = ensemble.leader().unwrap();
    let away = (leader + 1) % 3;
    ensemble.kill(away).unwrap();
    let mut wire = Wire::open(ensemble.address(leader).unwrap()).unwrap();
    write_all(&mut wire);
    wait_until("the log to be trimmed", PATIENCE, || {
        wire.ask(0, &last_write());
        wire.answered(0)?;
        // The newest 64 MiB stay, in whole segments of 32 MiB, and there are two spare ones.
        Ok((ensemble.log_bytes(leader)? < (WRITES * VALUE) as u64 * 3 / 4).then_some(()))
    })
    .unwrap();
    ensemble.start(away).unwrap();
    let caught_up = |ensemble: &LocalEnsemble| {
        let (of_leader, of_away) = (metrics(ensemble, leader)?, metrics(ensemble, away)?);
        let equal = of_away["pharos_applied_slot"] >= of_leader["pharos_applied_slot"];
        Ok((equal && of_away["pharos_serving"] == 1).then_some(of_away))
    };
    let after = wait_until("the member to catch up", PATIENCE, || caught_up(&ensemble)).unwrap();
    assert_eq!(after["pharos_installed_states_total"], 1, "{after:?}");
    holds_all(&ensemble, away);
    // What it took over is its own: it leads with it, alone with the one that was never away.
    ensemble.kill(away).unwrap();
    ensemble.start(away).unwrap();
    wait_until("the member to catch up again", PATIENCE, || caught_up(&ensemble)).unwrap();
    ensemble.kill(leader).unwrap();
    holds_all(&ensemble, away);
}
