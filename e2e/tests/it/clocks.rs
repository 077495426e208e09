//! A member whose wall clock is a year off: it is named, and nothing else comes of it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use pharos_e2e::command::wait_until;
use pharos_e2e::environment::our_binaries;
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::Wire;
use pharos_jute::{AclRef, Create, ErrorCode, PathWatch, Request, SetData};

const PATIENCE: Duration = Duration::from_secs(60);
const YEAR_MS: i64 = 365 * 86_400_000;
const EPHEMERAL: i32 = 1;
const PATH: &str = "/owner";

/// The node, on a host whose clock is a year ahead; the monotonic clock is right, as it is there.
fn a_year_ahead(directory: &Path, node: &Path) -> PathBuf {
    let lib = std::fs::read_dir("/usr/lib")
        .unwrap()
        .flatten()
        .map(|at| at.path().join("faketime/libfaketime.so.1"));
    let lib = lib.into_iter().find(|lib| lib.exists()).unwrap();
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} FAKETIME=+365d FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\nexec {} \"$@\"\n",
        lib.display(),
        node.display()
    );
    let program = directory.join("node-a-year-ahead");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn ahead_ms(ensemble: &LocalEnsemble, member: usize) -> anyhow::Result<Option<i64>> {
    let status: serde_json::Value = serde_json::from_str(&ensemble.get(member, "/v1/status")?)?;
    Ok(status["leaderClockAheadMs"].as_i64())
}

/// Asks once; the session stays alive by it.
fn ask(wire: &mut Wire, request: &Request<'_>) -> anyhow::Result<ErrorCode> {
    wire.ask(1, request);
    wire.flush()?;
    Ok(wire.message()?.0.err)
}

/// Writes until the member says by how much the clock of its leader is ahead.
fn write_until_seen(ensemble: &LocalEnsemble, wire: &mut Wire, member: usize) -> i64 {
    wait_until(&format!("member {member} to compare clocks"), PATIENCE, || {
        let set = SetData { path: Some(PATH), data: Some(b"x"), version: -1 };
        anyhow::ensure!(ask(wire, &Request::SetData(set))? == ErrorCode::OK, "a write failed");
        ahead_ms(ensemble, member)
    })
    .unwrap()
}

#[test]
fn a_clock_a_year_ahead_is_named_and_ends_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let present = our_binaries().unwrap().join("pharos-node");
    let wrong = a_year_ahead(directory.path(), &present);
    let mut ensemble = LocalEnsemble::found_by(&[wrong, present.clone(), present]).unwrap();
    let leader = ensemble.leader().unwrap();
    let witness = (1..3).find(|index| *index != leader).unwrap();

    let mut wire = Wire::open(ensemble.address(witness).unwrap()).unwrap();
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    let create = Create { path: Some(PATH), data: Some(b"x"), acl: Some(acl), flags: EPHEMERAL };
    assert_eq!(ask(&mut wire, &Request::Create(create)).unwrap(), ErrorCode::OK);

    // The member with the wrong clock sees it from its own side.
    let (member, expected) = if leader == 0 { (witness, YEAR_MS) } else { (0, -YEAR_MS) };
    let ahead = write_until_seen(&ensemble, &mut wire, member);
    assert!((ahead - expected).abs() < 60_000, "{ahead} ms and not {expected}");

    // The next leader may have the other clock: the session lives on by the monotonic one.
    let session = wire.session();
    ensemble.kill(leader).unwrap();
    wait_until("the session to go on", PATIENCE, || {
        let resumed = Wire::resume(ensemble.address(witness)?, &session);
        let Ok(mut wire) = resumed else { return Ok(None) };
        let exists = Request::Exists(PathWatch { path: Some(PATH), watch: false });
        let code = ask(&mut wire, &exists).context("no answer")?;
        anyhow::ensure!(code == ErrorCode::OK, "the ephemeral is gone: {code:?}");
        Ok(Some(()))
    })
    .unwrap();
}
