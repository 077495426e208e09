//! Rule 4: writes whose answer was lost.

use pharos_history::{Body, ErrorCode, EventKind, Limits, Request, Rule, View, check};

use crate::script::{Script, create, created, data, data_of, delete, get, new, parent, set, stat, watch};

fn lost(request: Request) -> (Script, usize) {
    let mut script = Script::default();
    let (one, two) = (script.session(), script.session());
    script.say(one, create("/a", "x"), 1, created("/a", stat(1, 1, 0, "x")));
    script.lose(one, request);
    (script, two)
}

#[test]
fn a_lost_write_may_have_happened_or_not() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, get("/a"), 5, data("x", stat(1, 1, 0, "x")));
    script.assert_right();
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, get("/a"), 5, data("y", stat(1, 2, 1, "y")));
    script.assert_right();
}

#[test]
fn a_write_that_nobody_asked_for_is_found() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, get("/a"), 5, data("other", stat(1, 2, 1, "other")));
    assert!(script.broken().contains(&Rule::Unknown));
}

#[test]
fn a_lost_write_does_not_come_and_go() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, get("/a"), 5, data("y", stat(1, 2, 1, "y")));
    script.say(two, get("/a"), 6, data("x", stat(1, 1, 0, "x")));
    assert_eq!(script.broken(), [Rule::Reads]);
}

#[test]
fn a_lost_write_happens_once() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, get("/a"), 5, data("y", stat(1, 2, 1, "y")));
    script.say(two, set("/a", "z"), 7, Ok(Body::Stat(stat(1, 7, 3, "z"))));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn a_lost_write_that_was_written_over_is_assumed() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, set("/a", "z"), 7, Ok(Body::Stat(stat(1, 7, 2, "z"))));
    script.assert_right();
    let report = check(&script.history, Limits { contact_lag: 0 });
    assert_eq!((report.assumed, report.placed, report.unseen), (1, 0, 0));
}

#[test]
fn a_lost_write_is_not_assumed_where_no_zxid_is_left() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, set("/a", "z"), 2, Ok(Body::Stat(stat(1, 2, 2, "z"))));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn a_lost_write_cannot_have_happened_before_it_was_asked() {
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, create("/b", ""), 9, created("/b", stat(9, 9, 0, "")));
    let three = script.session();
    script.lose(three, set("/b", "y"));
    script.say(two, get("/b"), 12, data("y", stat(9, 11, 1, "y")));
    script.assert_right();
    let (mut script, two) = lost(set("/a", "y"));
    script.say(two, create("/b", ""), 9, created("/b", stat(9, 9, 0, "")));
    script.say(two, create("/c", ""), 20, created("/c", stat(20, 20, 0, "")));
    let three = script.session();
    script.lose(three, set("/b", "y"));
    script.say(two, get("/b"), 21, data("y", stat(9, 11, 1, "y")));
    assert!(script.broken().contains(&Rule::Unknown));
}

#[test]
fn a_lost_write_does_not_happen_after_its_session_has_moved() {
    let story = |zxid: i64| {
        let (mut script, two) = lost(set("/a", "y"));
        script.connect(0);
        script.say(0, Request::Ping, 4, Ok(Body::Empty));
        script.say(two, get("/a"), 9, data("y", stat(1, zxid, 1, "y")));
        script
    };
    story(3).assert_right();
    assert!(story(7).broken().contains(&Rule::Unknown));
}

#[test]
fn lost_writes_of_one_connection_happen_in_their_order() {
    let story = |first: i64, second: i64| {
        let (mut script, two) = lost(create("/b", "1"));
        script.lose(0, create("/c", "2"));
        script.say(two, get("/b"), 9, data("1", stat(first, first, 0, "1")));
        script.say(two, get("/c"), 9, data("2", stat(second, second, 0, "2")));
        script
    };
    story(5, 6).assert_right();
    assert!(story(6, 5).broken().contains(&Rule::Unknown));
}

#[test]
fn no_lost_write_is_passed_by() {
    let story = |first: Result<Body, ErrorCode>| {
        let (mut script, two) = lost(create("/b", "1"));
        script.lose(0, create("/c", "2"));
        script.say(two, get("/c"), 9, data("2", stat(6, 6, 0, "2")));
        script.say(two, get("/b"), 9, first);
        script
    };
    story(data("1", stat(5, 5, 0, "1"))).assert_right();
    assert_eq!(story(Err(ErrorCode::NO_NODE)).broken(), [Rule::Reads]);
}

/// Two lost the deletion of a child each, and a Stat shows that one of them happened.
#[test]
fn what_later_answers_contradict_is_explained_anew() {
    let story = |left: &[&str]| {
        let mut script = Script::default();
        let (one, two, three) = (script.session(), script.session(), script.session());
        script.say(one, create("/p", ""), 1, created("/p", stat(1, 1, 0, "")));
        script.say(one, create("/p/a", ""), 2, created("/p/a", stat(2, 2, 0, "")));
        script.say(one, create("/p/b", ""), 3, created("/p/b", stat(3, 3, 0, "")));
        script.lose(one, delete("/p/a"));
        script.lose(two, delete("/p/b"));
        let exists = Request::Read { view: View::Stat, path: "/p".into(), watch: false };
        script.say(three, exists, 5, Ok(Body::Stat(parent(stat(1, 1, 0, ""), 5, 2, 1))));
        for child in left {
            let czxid = if *child == "a" { 2 } else { 3 };
            let shown = data("", stat(czxid, czxid, 0, ""));
            script.say(three, get(&format!("/p/{child}")), 5, shown);
        }
        script
    };
    story(&["a"]).assert_right();
    story(&["b"]).assert_right();
    assert_eq!(story(&["a", "b"]).broken(), [Rule::Reads]);
}

#[test]
fn a_lost_multi_happens_as_a_whole() {
    let multi = || Request::Multi(vec![new("/m", "1"), data_of("/a", "y", -1)]);
    let (mut script, two) = lost(multi());
    script.say(two, get("/m"), 4, data("1", stat(3, 3, 0, "1")));
    script.say(two, get("/a"), 4, data("y", stat(1, 3, 1, "y")));
    script.assert_right();
    let (mut script, two) = lost(multi());
    script.say(two, get("/m"), 4, data("1", stat(3, 3, 0, "1")));
    script.say(two, get("/a"), 4, data("x", stat(1, 1, 0, "x")));
    assert_eq!(script.broken(), [Rule::Reads]);
}

#[test]
fn a_lost_write_is_told_by_the_list_of_children_alone() {
    let (mut script, two) = lost(create("/a/b", ""));
    let children = Request::Read { view: View::Children, path: "/a".into(), watch: false };
    let seen = Ok(Body::Children(vec!["b".into()], parent(stat(1, 1, 0, "x"), 3, 1, 1)));
    script.say(two, children, 5, seen);
    script.say(two, delete("/a"), 6, Err(ErrorCode::NOT_EMPTY));
    script.assert_right();
}

#[test]
fn a_lost_write_is_told_by_a_watch_event_alone() {
    let story = |kind: EventKind| {
        let (mut script, two) = lost(set("/a", "y"));
        script.say(two, watch(View::Data, "/a"), 1, data("x", stat(1, 1, 0, "x")));
        script.hear(two, 3, kind, "/a");
        script.say(two, set("/a", "z"), 7, Ok(Body::Stat(stat(1, 7, 2, "z"))));
        script
    };
    story(EventKind::NodeDataChanged).assert_right();
    assert!(story(EventKind::NodeDeleted).broken().contains(&Rule::Unknown));
}
