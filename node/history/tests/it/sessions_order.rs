//! Rules 3 and 5: reads, syncs, and a session's own order.

use pharos_history::{Body, Incoming, Request, Rule};

use crate::script::{Script, create, created, data, get, set, stat};

fn two_writes() -> (Script, usize) {
    let mut script = Script::default();
    let one = script.session();
    script.say(one, create("/a", "x"), 1, created("/a", stat(1, 1, 0, "x")));
    script.say(one, set("/a", "y"), 2, Ok(Body::Stat(stat(1, 2, 1, "y"))));
    (script, one)
}

#[test]
fn a_read_may_be_old_but_must_be_what_was_at_its_zxid() {
    let (mut script, _) = two_writes();
    let two = script.session();
    script.say(two, get("/a"), 1, data("x", stat(1, 1, 0, "x")));
    script.say(two, get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.assert_right();
    for wrong in [data("y", stat(1, 1, 0, "y")), data("x", stat(1, 2, 1, "x"))] {
        let (mut script, _) = two_writes();
        let two = script.session();
        script.say(two, get("/a"), 2, wrong);
        assert_eq!(script.broken(), [Rule::Reads]);
    }
}

#[test]
fn a_read_of_a_state_after_its_zxid_is_found() {
    let (mut script, _) = two_writes();
    let two = script.session();
    script.say(two, get("/a"), 1, data("y", stat(1, 2, 1, "y")));
    assert_eq!(script.broken(), [Rule::Reads]);
}

#[test]
fn a_session_never_goes_back_on_a_new_connection_either() {
    let (mut script, _) = two_writes();
    let two = script.session();
    script.say(two, get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.connect(two);
    script.say(two, get("/a"), 1, data("x", stat(1, 1, 0, "x")));
    assert_eq!(script.broken(), [Rule::Monotone]);
}

#[test]
fn what_follows_a_sync_sees_what_had_completed() {
    let after_sync = |zxid: i64, seen| {
        let (mut script, _) = two_writes();
        let two = script.session();
        script.say(two, Request::Sync, 1, Ok(Body::Empty));
        script.say(two, get("/a"), zxid, seen);
        script
    };
    after_sync(2, data("y", stat(1, 2, 1, "y"))).assert_right();
    assert_eq!(after_sync(1, data("x", stat(1, 1, 0, "x"))).broken(), [Rule::Sync]);
}

#[test]
fn a_sync_owes_nothing_of_writes_that_were_still_going_on() {
    let (mut script, one) = two_writes();
    let two = script.session();
    script.say_at(one, (1000, 1100), set("/a", "z"), 3, Ok(Body::Stat(stat(1, 3, 2, "z"))));
    script.say_at(two, (1050, 1200), Request::Sync, 2, Ok(Body::Empty));
    script.say_at(two, (1300, 1400), get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.assert_right();
}

#[test]
fn writes_of_one_session_have_zxids_in_their_order() {
    let (mut script, one) = two_writes();
    let now = script.now + 100;
    // Both are in flight at once, so real time says nothing.
    script.say_at(one, (now, now + 50), set("/a", "later"), 4, Ok(Body::Stat(stat(1, 4, 3, "later"))));
    script.say_at(one, (now, now + 50), set("/a", "first"), 3, Ok(Body::Stat(stat(1, 3, 2, "first"))));
    assert!(script.broken().iter().all(|rule| [Rule::Fifo, Rule::Monotone].contains(rule)));
    assert!(!script.broken().is_empty());
}

#[test]
fn a_write_is_after_what_its_session_had_read() {
    let (mut script, one) = two_writes();
    let two = script.session();
    let now = script.now + 100;
    script.say_at(two, (now, now + 50), get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.say_at(two, (now, now + 50), set("/a", "z"), 2, Ok(Body::Stat(stat(1, 2, 1, "z"))));
    script.history.sessions[one].connections[0].operations.pop();
    script.history.sessions[one].connections[0].incoming.pop();
    assert!(script.broken().contains(&Rule::Fifo));
}

#[test]
fn answers_come_in_the_order_of_the_questions() {
    let (mut script, one) = two_writes();
    script.say(one, get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.say(one, get("/a"), 2, data("y", stat(1, 2, 1, "y")));
    script.assert_right();
    let incoming = &mut script.history.sessions[one].connections[0].incoming;
    incoming.swap(2, 3);
    assert_eq!(incoming[2], Incoming::Reply(3));
    assert_eq!(script.broken(), [Rule::Fifo]);
}

#[test]
fn what_follows_a_sync_sees_what_anyone_had_read() {
    let story = |invoked: u64| {
        let (mut script, one) = two_writes();
        let (two, three) = (script.session(), script.session());
        script.say_at(one, (1000, 2000), set("/a", "z"), 3, Ok(Body::Stat(stat(1, 3, 2, "z"))));
        script.say_at(two, (1000, 1100), get("/a"), 3, data("z", stat(1, 3, 2, "z")));
        script.say_at(three, (invoked, 1200), Request::Sync, 2, Ok(Body::Empty));
        script.say_at(three, (1300, 1400), get("/a"), 2, data("y", stat(1, 2, 1, "y")));
        script
    };
    story(1050).assert_right();
    assert_eq!(story(1150).broken(), [Rule::Sync]);
}
