//! An Ensemble of processes grows and shrinks while a client writes.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::{Expired, Session, Terms, Wire};
use pharos_jute::{AclRef, Create, ErrorCode, OpCode, PathWatch, Request, Response};

const PATIENCE: Duration = Duration::from_secs(60);
const TERMS: Terms = Terms { timeout_ms: 10_000, patience: Duration::from_secs(6) };

/// Creates `/a0`, `/a1` and so on, each again until it is known to be there; gives how many there are.
pub(crate) fn write(addresses: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) -> usize {
    let mut session = Session::default();
    let mut count = 0;
    for attempt in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let address = {
            let known = addresses.lock().unwrap();
            known[attempt % known.len()]
        };
        let mut wire = match Wire::connect(address, &session, TERMS) {
            Ok(wire) => wire,
            Err(error) => {
                if error.is::<Expired>() {
                    session = Session::default();
                }
                continue;
            }
        };
        while !stop.load(Ordering::Relaxed) && create(&mut wire, count).is_ok() {
            count += 1;
        }
        session = wire.session();
    }
    count
}

pub(crate) fn create(wire: &mut Wire, number: usize) -> anyhow::Result<()> {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    let path = format!("/a{number}");
    wire.ask(1, &Request::Create(Create { path: Some(&path), data: Some(b"x"), acl: Some(acl), flags: 0 }));
    wire.flush()?;
    let (header, _) = wire.message()?;
    // One whose answer was lost may be there already.
    assert!([ErrorCode::OK, ErrorCode::NODE_EXISTS].contains(&header.err), "{header:?}");
    Ok(())
}

pub(crate) fn count_on(address: SocketAddr) -> usize {
    let mut wire = wait_until("a session", PATIENCE, || Wire::open(address).map(Some)).unwrap();
    wire.ask(1, &Request::Sync(Some("/")));
    wire.answered(1).unwrap();
    wire.ask(2, &Request::GetChildren(PathWatch { path: Some("/"), watch: false }));
    let Ok(Response::Names(names)) = Response::decode(OpCode::GetChildren, wire.answered(2).unwrap()) else {
        panic!("no children");
    };
    names.len() - 1
}

/// As ZooKeeper's clients read who votes.
fn voters_of(address: SocketAddr) -> usize {
    let mut wire = wait_until("a session", PATIENCE, || Wire::open(address).map(Some)).unwrap();
    wire.ask(1, &Request::GetData(PathWatch { path: Some("/zookeeper/config"), watch: false }));
    let Ok(Response::Data { data: Some(data), .. }) =
        Response::decode(OpCode::GetData, wire.answered(1).unwrap())
    else {
        panic!("no data");
    };
    let text = str::from_utf8(data).unwrap();
    text.lines().filter(|line| line.starts_with("server.") && line.contains(":participant;")).count()
}

#[test]
fn an_ensemble_grows_from_one_to_five_and_shrinks_back_while_a_client_writes() {
    let mut ensemble = LocalEnsemble::found(1).unwrap();
    let addresses = Mutex::new(vec![ensemble.address(0).unwrap()]);
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&addresses, &stop));
        let resized = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for size in [3, 5, 3, 1] {
                while ensemble.size() < size {
                    let index = ensemble.add().unwrap();
                    addresses.lock().unwrap().push(ensemble.address(index).unwrap());
                }
                ensemble.switch(&(0..size).collect::<Vec<_>>()).unwrap();
                assert_eq!(voters_of(ensemble.address(0).unwrap()), size);
                for index in (size..ensemble.size()).rev() {
                    wait_until("a removed member to know it", PATIENCE, || {
                        Ok((ensemble.role(index)? == "removed").then_some(()))
                    })
                    .unwrap();
                    addresses.lock().unwrap().truncate(index);
                    ensemble.retire(index).unwrap();
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        resized.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    });
    assert!(written > 100, "{written}");
    assert_eq!(count_on(ensemble.address(0).unwrap()), written);
}

#[test]
fn lost_volumes_are_replaced_one_after_the_other_until_no_founder_is_left() {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let mut wire = Wire::open(ensemble.address(0).unwrap()).unwrap();
    (0..100).for_each(|number| create(&mut wire, number).unwrap());
    drop(wire);
    for index in 0..3 {
        ensemble.replace(index).unwrap();
    }
    for index in 0..3 {
        assert_eq!(count_on(ensemble.address(index).unwrap()), 100, "member {index}");
    }
}
