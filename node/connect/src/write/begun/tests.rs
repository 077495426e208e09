//! What dead attempts leave in an object store, and what is not touched.

use std::collections::VecDeque;

use pharos_stream::io::AttemptId;

use super::super::upload::{ObjectShard, PreparedUpload, commit};
use crate::object::tests::{Failure, Server};

const KEY: &str = "out/results";

fn opened(server: &Server, run: &str, generation: u64, kept: Option<&PreparedUpload>) -> ObjectShard {
    ObjectShard::open(server.bucket(), KEY.to_owned(), AttemptId { run, generation }, kept).unwrap()
}

/// An attempt that has uploaded a part, and some more bytes.
fn attempt(server: &Server, run: &str, generation: u64, kept: Option<&PreparedUpload>) -> ObjectShard {
    let mut shard = opened(server, run, generation, kept);
    shard.append(&vec![b'x'; 6 << 20]).unwrap();
    shard
}

fn uploads(server: &Server) -> Vec<String> {
    server.held().uploads.keys().cloned().collect()
}

fn objects(server: &Server) -> Vec<String> {
    server.held().objects.keys().cloned().collect()
}

#[test]
fn what_an_attempt_began_and_no_checkpoint_holds_is_given_up_by_the_next_one() {
    let server = Server::start();
    attempt(&server, "run", 1, None);
    assert_eq!(objects(&server), ["out/.results.run.uploads/1"]);
    let second = attempt(&server, "run", 2, None);
    assert_eq!(uploads(&server), ["upload-2"]);
    // The second's checkpoint counts: those after it go on with its upload.
    let kept = second.prepare();
    let third = attempt(&server, "run", 3, Some(&kept));
    assert_eq!(uploads(&server), ["upload-2"]);
    commit(&server.bucket(), KEY, &third.prepare()).unwrap();
    commit(&server.bucket(), KEY, &third.prepare()).unwrap();
    assert_eq!((uploads(&server), objects(&server)), (vec![], vec![KEY.to_owned()]));
    assert_eq!(server.held().objects[KEY].0.len(), 12 << 20);
}

#[test]
fn what_a_later_attempt_began_or_another_run_is_not_touched() {
    let server = Server::start();
    attempt(&server, "other", 1, None);
    let later = attempt(&server, "run", 5, None);
    // One that was paused while it opened its sink wakes up.
    attempt(&server, "run", 4, None);
    assert_eq!(uploads(&server), ["upload-1", "upload-2", "upload-3"]);
    // The run is done: what the one that woke up began is of no use any more.
    commit(&server.bucket(), KEY, &later.prepare()).unwrap();
    assert_eq!(uploads(&server), ["upload-1"]);
    assert_eq!(objects(&server), ["out/.results.other.uploads/1", KEY]);
}

#[test]
fn an_attempt_whose_upload_was_given_up_meets_an_error_that_may_pass() {
    let server = Server::start();
    let mut first = attempt(&server, "run", 1, None);
    opened(&server, "run", 2, None);
    let error = first.append(&vec![b'x'; 5 << 20]).unwrap_err();
    assert_eq!(error.fault, pharos_stream::io::Fault::Environment);
    assert!(error.message.contains("is gone"), "{error}");
}

#[test]
fn credentials_that_may_not_list_leave_what_was_begun_and_go_on() {
    let server = Server::start();
    attempt(&server, "run", 1, None);
    server.held().failures = VecDeque::from([Failure::Status(403, "AccessDenied")]);
    opened(&server, "run", 2, None);
    assert_eq!(uploads(&server), ["upload-1"]);
}

#[test]
fn a_checkpoint_of_an_earlier_build_is_gone_on_from() {
    let server = Server::start();
    let kept = serde_json::to_value(attempt(&server, "run", 1, None).prepare()).unwrap();
    let mut kept = kept.as_object().unwrap().clone();
    kept.remove("run");
    let kept: PreparedUpload = serde_json::from_value(kept.into()).unwrap();
    commit(&server.bucket(), KEY, &kept).unwrap();
    assert_eq!(server.held().objects[KEY].0.len(), 6 << 20);
}
