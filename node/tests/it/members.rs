//! Ports and data directories that a member cannot have.

use crate::kit::{MEMBER, Member, names, run};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

const OTHER_CLUSTER: &str = "0123456789abcdef0123456789abcdef";

/// The arguments with another value for a flag.
fn with<'a>(args: &[&'a str], flag: &str, value: &'a str) -> Vec<&'a str> {
    let mut args = args.to_vec();
    let at = args.iter().position(|arg| *arg == flag).unwrap();
    args[at + 1] = value;
    args
}

/// Writes the permit of a blank member.
fn permit(dir: &Path, member: &Member) {
    let founder = format!("http://{}", member.admin);
    let ended = run(dir, ["permit", "--founder", &founder, "--out", "permit.json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

fn change_permit(dir: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let file = dir.join("permit.json");
    let mut permit = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut permit);
    fs::write(&file, serde_json::to_vec(&permit).unwrap()).unwrap();
}

#[test]
fn a_busy_port_is_named_whoever_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    for (flag, what) in [
        ("--client-addr", "clients"),
        ("--peer-addr", "peers"),
        ("--admin-addr", "the admin endpoints"),
        ("--metrics-addr", "metrics"),
    ] {
        let ended = run(dir.path(), with(&MEMBER, flag, &address));
        ended.is_refused(&[&format!("cannot listen for {what} on {address}: Address already in use")]);
    }
    fs::write(dir.path().join("p.yaml"), "pipeline: {type: chain, transforms: []}\n").unwrap();
    let worker = ["worker", "--pipeline-file", "p.yaml", "--pipeline-uid", "u", "--name", "n"];
    let worker = [&worker[..], &["--document-hash", "00", "--ensemble", "127.0.0.1:1"]].concat();
    let worker = [&worker[..], &["--admin-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"]].concat();
    for flag in ["--admin-addr", "--metrics-addr"] {
        let ended = run(dir.path(), with(&worker, flag, &address));
        ended.is_refused(&[&format!("cannot listen on {address}: Address already in use")]);
    }
}

#[test]
fn a_local_run_whose_port_is_busy_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let ensemble =
        "apiVersion: pharos.dev/v1alpha1\nkind: Ensemble\nmetadata: {name: main}\nspec: {replicas: 1}\n";
    fs::write(dir.path().join("e.yaml"), ensemble).unwrap();
    let ended = run(dir.path(), ["local", "-f", "e.yaml", "--client-addr", &address]);
    ended.is_refused(&[&format!("cannot listen for clients on {address}: Address already in use")]);
    assert_eq!(names(dir.path()), ["e.yaml"]);
}

#[test]
fn a_second_process_on_one_data_directory_is_refused_with_the_id_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Member::start(dir.path());
    let holder = format!("data directory data is in use by another process (process {})", first.id());
    run(dir.path(), MEMBER).is_refused(&[&holder]);
}

#[test]
fn a_data_directory_of_another_ensemble_or_member_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::start(dir.path());
    permit(dir.path(), &member);
    member.wait_for(" founded ");
    drop(member);
    change_permit(dir.path(), |permit| permit["founders"][0]["memberId"] = 2.into());
    let ended = run(dir.path(), MEMBER);
    ended.is_refused(&["data directory data belongs to member 1 of", "permit.json is for member 2 of"]);
    change_permit(dir.path(), |permit| {
        permit["founders"][0]["memberId"] = 1.into();
        permit["clusterId"] = OTHER_CLUSTER.into();
    });
    let ended = run(dir.path(), MEMBER);
    let expected = format!("is for member 1 of the ensemble {OTHER_CLUSTER}");
    ended.is_refused(&["data directory data belongs to member 1 of the ensemble ", &expected]);
}

#[test]
fn a_blank_data_directory_without_a_permit_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let args: Vec<&str> = MEMBER.into_iter().filter(|arg| !arg.contains("permit")).collect();
    run(dir.path(), args).is_refused(&["data directory data is blank, and no permit file is given"]);
}
