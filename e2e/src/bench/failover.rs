//! How long a writer waits when the leader is killed: one session, one write at a time, on to the next server as soon
//! as a connection breaks.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use pharos_jute::{AclRef, Create, Request, SetData};

use super::servers::Servers;
use crate::command::wait_until;
use crate::wire::{Session, Wire};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long the servers are left in peace before each kill.
const PEACE: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(5);
const PATH: &str = "/failover";

/// The longest time between two acknowledged writes around each kill.
pub(super) fn gaps(servers: &mut impl Servers, kills: usize) -> anyhow::Result<Vec<Duration>> {
    let addresses = servers.addresses()?;
    let (acknowledged, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&addresses, &acknowledged, &stop));
        let gaps = (0..kills).map(|_| one(servers, &acknowledged)).collect();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic");
        gaps
    })
}

fn one(servers: &mut impl Servers, acknowledged: &Mutex<Vec<Instant>>) -> anyhow::Result<Duration> {
    let last = || acknowledged.lock().expect("nobody panics").last().copied();
    let writes_for = |time: Duration, since: Instant| {
        wait_until("the writer", PATIENCE, || Ok(last().is_some_and(|at| at > since + time).then_some(())))
    };
    writes_for(PEACE, Instant::now())?;
    let leader = servers.leader()?;
    let killed = Instant::now();
    servers.kill(leader)?;
    writes_for(PEACE, killed)?;
    servers.start(leader)?;
    let acknowledged = acknowledged.lock().expect("nobody panics");
    let from = acknowledged.partition_point(|at| *at < killed).saturating_sub(1);
    let to = acknowledged.partition_point(|at| *at < killed + PEACE) + 1;
    let around = &acknowledged[from..to.min(acknowledged.len())];
    around.windows(2).map(|pair| pair[1] - pair[0]).max().context("no write was acknowledged")
}

fn write_until(addresses: &[SocketAddr], acknowledged: &Mutex<Vec<Instant>>, stop: &AtomicBool) {
    let mut session = Session::default();
    for address in addresses.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match Wire::resume(*address, &session) {
            Ok(mut wire) => {
                // The end of a connection is what this measures.
                let _ = write_on(&mut wire, acknowledged, stop);
                session = wire.session();
            }
            Err(error) if error.to_string().contains("expired") => session = Session::default(),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn write_on(wire: &mut Wire, acknowledged: &Mutex<Vec<Instant>>, stop: &AtomicBool) -> anyhow::Result<()> {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    wire.ask(0, &Request::Create(Create { path: Some(PATH), data: None, acl: Some(acl), flags: 0 }));
    wire.header()?;
    while !stop.load(Ordering::Relaxed) {
        wire.ask(1, &Request::SetData(SetData { path: Some(PATH), data: Some(b"value"), version: -1 }));
        wire.answered(1)?;
        acknowledged.lock().expect("nobody panics").push(Instant::now());
    }
    Ok(())
}
