//! Rule 1 (results on the reference), 2 (real time) and the times in Stats.

use pharos_history::{Body, ErrorCode, Request, Rule, Stat, Write};

use crate::script::{
    Script, create, created, data, data_of, delete, get, new, parent, sequential, set, stat,
};

fn register() -> (Script, usize) {
    let mut script = Script::default();
    let one = script.session();
    script.say(one, create("/a", "x"), 1, created("/a", stat(1, 1, 0, "x")));
    (script, one)
}

#[test]
fn writes_with_the_results_of_the_reference_are_right() {
    let (mut script, one) = register();
    script.say(one, set("/a", "yy"), 3, Ok(Body::Stat(stat(1, 3, 1, "yy"))));
    script.say(one, create("/a", ""), 4, Err(ErrorCode::NODE_EXISTS));
    script.say(one, create("/b/c", ""), 5, Err(ErrorCode::NO_NODE));
    script.say(one, create("/a/b", ""), 6, created("/a/b", stat(6, 6, 0, "")));
    script.say(one, delete("/a"), 7, Err(ErrorCode::NOT_EMPTY));
    script.say(one, get("/a"), 7, data("yy", parent(stat(1, 3, 1, "yy"), 6, 1, 1)));
    script.say(one, delete("/a/b"), 8, Ok(Body::Empty));
    script.say(one, get("/a"), 8, data("yy", parent(stat(1, 3, 1, "yy"), 8, 1, 0)));
    script.say(one, delete("/a"), 9, Ok(Body::Empty));
    script.say(one, get("/a"), 9, Err(ErrorCode::NO_NODE));
    script.assert_right();
}

#[test]
fn a_wrong_version_in_a_result_is_found() {
    let (mut script, one) = register();
    script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 2, "y"))));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn a_lost_write_is_found_by_the_version_after_it() {
    let (mut script, one) = register();
    script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    script.say(one, set("/a", "z"), 3, Ok(Body::Stat(stat(1, 3, 1, "z"))));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn an_error_that_the_reference_does_not_give_is_found() {
    let (mut script, one) = register();
    script.say(one, set("/a", "y"), 2, Err(ErrorCode::BAD_VERSION));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn a_condition_that_is_not_kept_is_found() {
    let (mut script, one) = register();
    let conditional = Request::Write(data_of("/a", "y", 5));
    script.say(one, conditional, 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn two_writes_of_one_zxid_are_found() {
    let (mut script, one) = register();
    let two = script.session();
    script.say_at(one, (100, 200), set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    script.say_at(two, (100, 200), set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn a_write_before_another_that_had_completed_is_found() {
    let (mut script, one) = register();
    let two = script.session();
    let stats = [stat(1, 2, 1, "y"), stat(1, 3, 2, "z")];
    let mut overlapping = |first: (u64, u64), second: (u64, u64)| {
        script.say_at(one, first, set("/a", "z"), 3, Ok(Body::Stat(stats[1])));
        script.say_at(two, second, set("/a", "y"), 2, Ok(Body::Stat(stats[0])));
        let broken = script.broken();
        for session in [one, two] {
            let link = &mut script.history.sessions[session].connections[0];
            link.operations.pop();
            link.incoming.pop();
        }
        broken
    };
    assert_eq!(overlapping((100, 200), (150, 250)), []);
    assert_eq!(overlapping((100, 200), (201, 250)), [Rule::RealTime]);
}

#[test]
fn a_read_of_what_was_not_asked_yet_is_found() {
    let (mut script, one) = register();
    let two = script.session();
    script.say_at(two, (100, 200), get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.say_at(one, (201, 300), set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    assert_eq!(script.broken(), [Rule::RealTime]);
}

#[test]
fn a_multi_is_all_or_nothing() {
    let multi = || Request::Multi(vec![new("/m", "1"), data_of("/a", "y", 7)]);
    let failed = Body::Multi(vec![Err(ErrorCode::OK), Err(ErrorCode::BAD_VERSION)]);
    let (mut script, one) = register();
    script.say(one, multi(), 2, Ok(failed.clone()));
    script.say(one, get("/m"), 2, Err(ErrorCode::NO_NODE));
    script.assert_right();
    // Half of it happened.
    let (mut script, one) = register();
    script.say(one, multi(), 2, Ok(failed));
    script.say(one, get("/m"), 2, data("1", stat(2, 2, 0, "1")));
    assert_eq!(script.broken(), [Rule::Reads]);
}

#[test]
fn operations_of_a_multi_share_its_zxid() {
    let multi = Request::Multi(vec![new("/m", "1"), Write::Check { path: "/a".into(), version: 0 }]);
    let result = |zxid| {
        let created = Ok(Body::Created("/m".into(), stat(zxid, zxid, 0, "1")));
        Ok(Body::Multi(vec![created, Ok(Body::Empty)]))
    };
    let (mut script, one) = register();
    script.say(one, multi.clone(), 3, result(3));
    script.assert_right();
    let (mut script, one) = register();
    script.say(one, multi, 3, result(2));
    assert_eq!(script.broken(), [Rule::Unknown]);
}

#[test]
fn sequential_names_rise_and_are_never_given_twice() {
    let story = |second: &str, number: i64| {
        let (mut script, one) = register();
        let first = format!("/a/s{:010}", 0);
        script.say(one, sequential("/a/s"), 2, created(&first, stat(2, 2, 0, "")));
        script.say(one, delete(&first), 3, Ok(Body::Empty));
        let at = 3 + number;
        script.say(one, sequential("/a/s"), at, created(second, stat(at, at, 0, "")));
        script
    };
    story("/a/s0000000001", 1).assert_right();
    assert_eq!(story("/a/s0000000000", 1).broken(), [Rule::Writes]);
    assert_eq!(story("/a/s0000000002", 1).broken(), [Rule::Writes]);
}

#[test]
fn one_zxid_has_one_time_and_times_never_go_back() {
    let at = |mtime: i64| {
        let (mut script, one) = register();
        script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
        script.say(one, get("/a"), 2, data("y", Stat { mtime, ..stat(1, 2, 1, "y") }));
        script
    };
    at(2000).assert_right();
    assert_eq!(at(2001).broken(), [Rule::Times]);
    let (mut script, one) = register();
    script.say(one, set("/a", "y"), 2, Ok(Body::Stat(Stat { mtime: 999, ..stat(1, 2, 1, "y") })));
    assert_eq!(script.broken(), [Rule::Times]);
}

#[test]
fn a_znode_written_twice_in_one_multi_has_the_second_value() {
    let multi = Request::Multi(vec![data_of("/a", "y", -1), data_of("/a", "z", -1)]);
    let results = [stat(1, 2, 1, "y"), stat(1, 2, 2, "z")].map(|stat| Ok(Body::Stat(stat)));
    let (mut script, one) = register();
    script.say(one, multi, 2, Ok(Body::Multi(results.to_vec())));
    script.say(one, get("/a"), 2, data("z", stat(1, 2, 2, "z")));
    script.assert_right();
}
