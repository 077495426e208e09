//! Rule 6: watch events.

use pharos_history::{Body, EventKind, Incoming, Rearm, Request, Rule, View};

use crate::script::{Script, create, created, data, delete, get, new, parent, set, stat, watch};

const CHANGED: EventKind = EventKind::NodeDataChanged;

/// One writes, the other watches `/a`, which is then written at 2 and 3.
fn watched(hear: impl FnOnce(&mut Script, usize)) -> Script {
    let mut script = Script::default();
    let (one, two) = (script.session(), script.session());
    script.say(one, create("/a", "x"), 1, created("/a", stat(1, 1, 0, "x")));
    script.say(two, watch(View::Data, "/a"), 1, data("x", stat(1, 1, 0, "x")));
    script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    script.say(one, set("/a", "z"), 3, Ok(Body::Stat(stat(1, 3, 2, "z"))));
    hear(&mut script, two);
    script
}

fn read(script: &mut Script, two: usize) {
    script.say(two, get("/a"), 3, data("z", stat(1, 3, 2, "z")));
}

#[test]
fn a_one_shot_watch_fires_once_before_the_newer_state() {
    let right = watched(|script, two| {
        script.hear(two, 2, CHANGED, "/a");
        read(script, two);
    });
    right.assert_right();
}

#[test]
fn an_event_after_the_newer_state_is_found() {
    let late = watched(|script, two| {
        read(script, two);
        script.hear(two, 2, CHANGED, "/a");
    });
    assert!(late.broken().contains(&Rule::Watches));
}

#[test]
fn a_missing_event_is_found() {
    assert_eq!(watched(read).broken(), [Rule::Watches]);
    // Who hears nothing any more has missed nothing.
    watched(|_, _| {}).assert_right();
}

#[test]
fn a_second_event_of_a_one_shot_watch_is_found() {
    let twice = watched(|script, two| {
        script.hear(two, 2, CHANGED, "/a");
        script.hear(two, 3, CHANGED, "/a");
        read(script, two);
    });
    assert_eq!(twice.broken(), [Rule::Watches]);
}

#[test]
fn an_event_of_the_second_change_instead_of_the_first_is_found() {
    let second = watched(|script, two| {
        script.hear(two, 3, CHANGED, "/a");
        read(script, two);
    });
    assert_eq!(second.broken(), [Rule::Watches]);
}

#[test]
fn a_watch_set_twice_fires_once() {
    let set_twice = |times: usize| {
        let mut script = Script::default();
        let one = script.session();
        script.say(one, create("/a", "x"), 1, created("/a", stat(1, 1, 0, "x")));
        script.say(one, watch(View::Data, "/a"), 1, data("x", stat(1, 1, 0, "x")));
        script.say(one, watch(View::Data, "/a"), 1, data("x", stat(1, 1, 0, "x")));
        (0..times).for_each(|_| script.hear(one, 2, CHANGED, "/a"));
        script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
        script
    };
    set_twice(1).assert_right();
    assert_eq!(set_twice(2).broken(), [Rule::Watches]);
}

#[test]
fn a_deletion_is_one_event_for_data_and_children_and_the_parent_hears_after() {
    let story = |events: &[(EventKind, &str)]| {
        let mut script = Script::default();
        let one = script.session();
        script.say(one, create("/a", ""), 1, created("/a", stat(1, 1, 0, "")));
        script.say(one, create("/a/b", ""), 2, created("/a/b", stat(2, 2, 0, "")));
        let of_parent = Ok(Body::Children(vec!["b".into()], parent(stat(1, 1, 0, ""), 2, 1, 1)));
        script.say(one, watch(View::Children, "/a"), 2, of_parent);
        script.say(one, watch(View::Data, "/a/b"), 2, data("", stat(2, 2, 0, "")));
        script.say(one, watch(View::Children, "/a/b"), 2, Ok(Body::Children(vec![], stat(2, 2, 0, ""))));
        events.iter().for_each(|(kind, path)| script.hear(one, 3, *kind, path));
        script.say(one, delete("/a/b"), 3, Ok(Body::Empty));
        script
    };
    let (deleted, children) = ((EventKind::NodeDeleted, "/a/b"), (EventKind::NodeChildrenChanged, "/a"));
    story(&[deleted, children]).assert_right();
    assert_eq!(story(&[deleted, deleted, children]).broken(), [Rule::Watches]);
    assert_eq!(story(&[deleted]).broken(), [Rule::Watches]);
}

#[test]
fn a_watch_on_what_is_not_there_hears_of_its_creation() {
    let story = |heard: bool| {
        let mut script = Script::default();
        let one = script.session();
        let missing = Err(pharos_history::ErrorCode::NO_NODE);
        script.say(one, watch(View::Stat, "/a"), 1, missing.clone());
        // A read of what is not there leaves no watch.
        script.say(one, watch(View::Data, "/b"), 1, missing);
        if heard {
            script.hear(one, 2, EventKind::NodeCreated, "/a");
        }
        script.say(one, create("/a", ""), 2, created("/a", stat(2, 2, 0, "")));
        script.say(one, create("/b", ""), 3, created("/b", stat(3, 3, 0, "")));
        script
    };
    story(true).assert_right();
    assert_eq!(story(false).broken(), [Rule::Watches]);
}

#[test]
fn persistent_and_recursive_watches_hear_every_change() {
    let story = |leave_out: Option<usize>| {
        let mut script = Script::default();
        let one = script.session();
        script.say(one, create("/a", ""), 1, created("/a", stat(1, 1, 0, "")));
        script.say(one, Request::AddWatch { path: "/a".into(), recursive: true }, 1, Ok(Body::Empty));
        script.say(one, Request::AddWatch { path: "/a/b".into(), recursive: false }, 1, Ok(Body::Empty));
        script.hear(one, 2, EventKind::NodeCreated, "/a/b");
        script.say(one, create("/a/b", ""), 2, created("/a/b", stat(2, 2, 0, "")));
        script.hear(one, 3, EventKind::NodeCreated, "/a/b/c");
        script.hear(one, 3, EventKind::NodeChildrenChanged, "/a/b");
        script.say(one, create("/a/b/c", ""), 3, created("/a/b/c", stat(3, 3, 0, "")));
        script.hear(one, 4, CHANGED, "/a");
        script.say(one, set("/a", "y"), 4, Ok(Body::Stat(parent(stat(1, 4, 1, "y"), 2, 1, 1))));
        if let Some(index) = leave_out {
            let incoming = &mut script.history.sessions[one].connections[0].incoming;
            let mut events = (0..incoming.len()).filter(|at| matches!(incoming[*at], Incoming::Event(_)));
            let at = events.nth(index).unwrap();
            incoming.remove(at);
        }
        script
    };
    story(None).assert_right();
    for index in 0..4 {
        assert_eq!(story(Some(index)).broken(), [Rule::Watches], "without event {index}");
    }
}

#[test]
fn events_of_one_multi_come_in_its_order_and_those_of_two_by_zxid() {
    let story = |swap: bool| {
        let mut script = Script::default();
        let one = script.session();
        script.say(one, Request::AddWatch { path: "/".into(), recursive: true }, 0, Ok(Body::Empty));
        let events = if swap { [(2, "/b"), (1, "/a")] } else { [(1, "/a"), (2, "/b")] };
        for (zxid, path) in events {
            script.hear(one, zxid, EventKind::NodeCreated, path);
        }
        let two = script.session();
        let made = |path: &str, at: i64| Ok(Body::Created(path.into(), stat(at, at, 0, "")));
        script.say(two, Request::Multi(vec![new("/a", "")]), 1, Ok(Body::Multi(vec![made("/a", 1)])));
        script.say(two, Request::Multi(vec![new("/b", "")]), 2, Ok(Body::Multi(vec![made("/b", 2)])));
        script
    };
    story(false).assert_right();
    assert!(story(true).broken().contains(&Rule::Watches));
}

/// `/a` is watched by a session whose connection is lost at zxid 1, and is written at 2; then it connects again.
fn rearmed(hear: impl FnOnce(&mut Script, usize), after: impl FnOnce(&mut Script, usize)) -> Script {
    let mut script = Script::default();
    let (one, two) = (script.session(), script.session());
    script.say(one, create("/a", "x"), 1, created("/a", stat(1, 1, 0, "x")));
    script.say(two, watch(View::Data, "/a"), 1, data("x", stat(1, 1, 0, "x")));
    script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    script.connect(two);
    hear(&mut script, two);
    let lists = Rearm { since: 1, data: vec!["/a".into()], exist: vec!["/b".into()], ..Rearm::default() };
    script.say(two, Request::SetWatches(lists), 2, Ok(Body::Empty));
    after(&mut script, two);
    script
}

#[test]
fn what_changed_while_a_session_was_away_is_told_by_set_watches() {
    rearmed(|script, two| script.hear(two, -1, CHANGED, "/a"), |_, _| {}).assert_right();
    assert_eq!(rearmed(|_, _| {}, |_, _| {}).broken(), [Rule::Watches]);
    let wrong = rearmed(|script, two| script.hear(two, -1, EventKind::NodeDeleted, "/a"), |_, _| {});
    assert_eq!(wrong.broken(), [Rule::Watches]);
}

#[test]
fn what_did_not_change_while_a_session_was_away_is_armed_again() {
    let story = |heard: bool| {
        rearmed(
            |script, two| script.hear(two, -1, CHANGED, "/a"),
            |script, two| {
                if heard {
                    script.hear(two, 3, EventKind::NodeCreated, "/b");
                }
                script.say(two, create("/b", ""), 3, created("/b", stat(3, 3, 0, "")));
                script.say(two, set("/a", "z"), 4, Ok(Body::Stat(stat(1, 4, 2, "z"))));
            },
        )
    };
    story(true).assert_right();
    assert_eq!(story(false).broken(), [Rule::Watches]);
}
