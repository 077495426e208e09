//! Disks that are full or read-only: file systems in memory, in a mount namespace of their own.
//!
//! Where mounting is not permitted the test says so, and a file that has no room for any byte, or a file
//! system that takes no files, stands in.

use crate::kit::{Ended, ended, names, program, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Ends by itself, and the member beneath with it. The input may be mended.
const DOCUMENT: &str = "pipeline:
  type: chain
  transforms:
    - {type: ReadFromText, config: {path: in.txt}}
    - {type: MapToFields, config: {language: python, fields: {n: int(line)}}}
    - {type: WriteToJson, config: {path: out}}
";
/// Runs the document with all that is kept of it on the disk, and prints the exit code.
const NODE: &str = r#"node() {
  code=0
  "$PROGRAM" local -f p.yaml --data-dir disk/data --client-addr 127.0.0.1:0 >&2 || code=$?
  echo $code
}"#;

fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    fs::write(dir.path().join("in.txt"), "1\n").unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    dir
}

fn local(dir: &Path, data: &str) -> Ended {
    run(dir, ["local", "-f", "p.yaml", "--data-dir", data, "--client-addr", "127.0.0.1:0"])
}

/// Runs a script that may mount something on `disk`.
fn with_mounts(dir: &Path, script: &str) -> Option<Ended> {
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "timeout", "--kill-after=1", "120", "sh", "-c", script]);
        ended(command.env("PROGRAM", program()), dir)
    };
    let permitted = run("mount -t tmpfs none disk");
    if permitted.code != Some(0) {
        println!("mounting is not permitted here: {}", permitted.stderr);
        return None;
    }
    let ended = run(&format!("set -e\n{NODE}\n{script}"));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    Some(ended)
}

#[track_caller]
fn codes(ended: &Ended, codes: &str, said: &[&str]) {
    assert_eq!(ended.stdout, codes, "{}", ended.stderr);
    for text in said {
        assert!(ended.stderr.contains(text), "{text:?} is not in {}", ended.stderr);
    }
}

#[test]
fn a_full_disk_is_refused_by_name_and_nothing_is_to_be_repaired_once_there_is_room() {
    let dir = directory();
    let script = "mount -t tmpfs -o size=1m none disk
        node
        mount -o remount,size=300m disk
        node
        # With spare segments of the log a Pipeline that is done needs no room.
        find disk -name '000000000[2-9].wal' -delete
        cat /dev/zero >disk/fill || true
        node
        rm disk/fill
        node";
    if let Some(ended) = with_mounts(dir.path(), script) {
        let log = "cannot write the log in disk/data/ensembles/local: cannot create 0000000001.wal of 33554432 bytes: No space left on device";
        let member = "the disk of Ensemble local is full: make room";
        return codes(&ended, "2\n0\n2\n0\n", &[log, member]);
    }
    let volume = dir.path().join("disk/data/ensembles/local");
    fs::create_dir_all(&volume).unwrap();
    symlink("/dev/full", volume.join("pharos.superblock.new")).unwrap();
    local(dir.path(), "disk/data").is_refused(&[
        "cannot write the superblock of data directory disk/data/ensembles/local: No space left on device",
    ]);
    fs::remove_file(volume.join("pharos.superblock.new")).unwrap();
    assert_eq!(local(dir.path(), "disk/data").code, Some(0));
}

#[test]
fn a_read_only_disk_is_refused_by_name_and_nothing_is_to_be_repaired_once_it_can_be_written() {
    let dir = directory();
    let script = "mount -t tmpfs -o size=300m,ro none disk
        node
        mount -o remount,rw disk
        node
        mount -o remount,ro disk
        node
        mount -o remount,rw disk
        node";
    if let Some(ended) = with_mounts(dir.path(), script) {
        let new = "cannot create data directory disk/data/ensembles/local: Read-only file system";
        let used = "cannot lock data directory disk/data/ensembles/local: Read-only file system";
        return codes(&ended, "2\n0\n2\n0\n", &[new, used]);
    }
    local(dir.path(), "/proc/pharos")
        .is_refused(&["cannot create data directory /proc/pharos/ensembles/local"]);
}

#[test]
fn an_output_for_which_the_disk_has_no_room_is_refused_by_name_and_stays_invisible() {
    let dir = directory();
    fs::write(dir.path().join("in.txt"), "one\n").unwrap();
    local(dir.path(), "disk/data").is_refused(&["transform `MapToFields`: "]);
    // Where the same run writes again: no byte fits into this.
    let part = names(dir.path()).into_iter().find(|name| name.ends_with(".part")).unwrap();
    fs::remove_file(dir.path().join(&part)).unwrap();
    symlink("/dev/full", dir.path().join(&part)).unwrap();
    fs::write(dir.path().join("in.txt"), "1\n").unwrap();
    let expected = format!("transform `WriteToJson`: `./{part}`: No space left on device");
    local(dir.path(), "disk/data").is_refused(&[&expected]);
    fs::remove_file(dir.path().join(&part)).unwrap();
    assert_eq!(local(dir.path(), "disk/data").code, Some(0));
    assert_eq!(fs::read_to_string(dir.path().join("out-00000-of-00001")).unwrap(), "{\"n\":1}\n");
}
