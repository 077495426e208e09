//! Members of two versions: what the later one can do more begins when all can, and there is no way back.

use std::net::SocketAddr;

use pharos_e2e::environment::{earlier_node, our_binaries};
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::Wire;
use pharos_jute::{AclRef, Create, CreateTtl, ErrorCode, PathVersion, PathWatch, Request};

const DAY_MS: i64 = 86_400_000;

fn ask(address: SocketAddr, request: &Request<'_>) -> ErrorCode {
    let mut wire = Wire::open(address).unwrap();
    wire.ask(1, request);
    wire.flush().unwrap();
    let (header, _) = wire.message().unwrap();
    header.err
}

fn create_ttl(address: SocketAddr, path: &str) -> ErrorCode {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    let create = Create { path: Some(path), data: Some(b"x"), acl: Some(acl), flags: 5 };
    ask(address, &Request::CreateTtl(CreateTtl { create, ttl_ms: DAY_MS }))
}

#[test]
fn a_level_rises_when_the_last_member_of_an_earlier_version_is_upgraded_and_bars_that_version() {
    let (earlier, present) = (earlier_node().unwrap(), our_binaries().unwrap().join("pharos-node"));
    let mut ensemble = LocalEnsemble::found_by(&[earlier.clone(), present.clone(), present.clone()]).unwrap();
    let address = |index: usize| ensemble.address(index).unwrap();
    let addresses = [0, 1, 2].map(address);
    for (index, address) in addresses.into_iter().enumerate() {
        assert_eq!(create_ttl(address, "/t"), ErrorCode::UNIMPLEMENTED, "member {index}");
    }
    // All have been linked, so that a level that rises although one is of the earlier version would have risen.
    ensemble.wait_level(1, 1).unwrap();
    ensemble.wait_level(2, 1).unwrap();

    ensemble.kill(0).unwrap();
    ensemble.install(0, &present, &[]).unwrap();
    ensemble.start(0).unwrap();
    (0..3).for_each(|index| ensemble.wait_level(index, 2).unwrap());
    assert_eq!(create_ttl(addresses[0], "/t"), ErrorCode::OK);
    let exists = Request::Exists(PathWatch { path: Some("/t"), watch: false });
    let sync = Request::Sync(Some("/t"));
    assert_eq!((ask(addresses[2], &sync), ask(addresses[2], &exists)), (ErrorCode::OK, ErrorCode::OK));

    ensemble.kill(0).unwrap();
    ensemble.install(0, &earlier, &[]).unwrap();
    ensemble.start(0).unwrap();
    let why = ensemble.wait_ended(0).unwrap();
    assert!(why.contains("has version 2, this member knows"), "{why}");

    // Nor does the present version go below what it once took part in; and what it says is what to do.
    ensemble.install(0, &present, &["--max-feature-level", "1"]).unwrap();
    ensemble.start(0).unwrap();
    let why = ensemble.wait_ended(0).unwrap();
    assert!(why.contains("at feature level 2") && why.contains("--max-feature-level"), "{why}");

    ensemble.install(0, &present, &[]).unwrap();
    ensemble.start(0).unwrap();
    ensemble.wait_serving(0).unwrap();
    let delete = Request::Delete(PathVersion { path: Some("/t"), version: -1 });
    assert_eq!(ask(addresses[0], &delete), ErrorCode::OK);
}
