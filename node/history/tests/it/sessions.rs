//! Rule 7: ends of sessions.

use pharos_history::{Body, ErrorCode, Limits, Request, Rule, check};

use crate::script::{Script, TIMEOUT, created, data, ephemeral, get, id, owned, stat};

/// One has an ephemeral znode at zxid 2; the other will look.
fn with_ephemeral() -> (Script, usize, usize) {
    let mut script = Script::default();
    let (one, two) = (script.session(), script.session());
    script.say(one, ephemeral("/e"), 2, created("/e", owned(stat(2, 2, 0, ""), one)));
    (script, one, two)
}

#[test]
fn an_ephemeral_znode_goes_with_the_close_of_its_session() {
    let (mut script, one, two) = with_ephemeral();
    script.say(one, Request::Close, 3, Ok(Body::Empty));
    script.say(two, get("/e"), 2, data("", owned(stat(2, 2, 0, ""), one)));
    script.say(two, get("/e"), 3, Err(ErrorCode::NO_NODE));
    script.assert_right();
}

#[test]
fn an_ephemeral_znode_that_outlives_the_close_is_found() {
    let (mut script, one, two) = with_ephemeral();
    script.say(one, Request::Close, 3, Ok(Body::Empty));
    script.say(two, get("/e"), 4, data("", owned(stat(2, 2, 0, ""), one)));
    assert_eq!(script.broken(), [Rule::Reads]);
}

#[test]
fn a_session_ends_by_itself_only_after_its_timeout() {
    let gone_after = |micros: u64| {
        let (mut script, _, two) = with_ephemeral();
        script.pass(micros);
        script.say(two, get("/e"), 5, Err(ErrorCode::NO_NODE));
        script
    };
    gone_after(TIMEOUT).assert_right();
    assert_eq!(check(&gone_after(TIMEOUT).history, Limits { contact_lag: 0 }).expired, 1);
    assert_eq!(gone_after(TIMEOUT / 2).broken(), [Rule::Sessions]);
    // Half of it may have been the leader's ignorance.
    let lax = check(&gone_after(TIMEOUT / 2).history, Limits { contact_lag: 2 });
    assert_eq!(lax.violations, []);
}

#[test]
fn a_session_is_refused_only_after_its_timeout() {
    let refused_after = |micros: u64| {
        let (mut script, one, _) = with_ephemeral();
        script.pass(micros);
        script.told_expired(one);
        script
    };
    refused_after(TIMEOUT).assert_right();
    assert_eq!(refused_after(TIMEOUT / 2).broken(), [Rule::Sessions]);
}

#[test]
fn an_ephemeral_znode_that_outlives_an_expired_session_is_found() {
    let (mut script, one, two) = with_ephemeral();
    script.pass(TIMEOUT);
    script.told_expired(one);
    script.pass(10);
    script.say(two, get("/e"), 4, data("", owned(stat(2, 2, 0, ""), one)));
    script.assert_right();
    script.say(two, Request::Sync, 4, Ok(Body::Empty));
    script.say(two, get("/e"), 4, data("", owned(stat(2, 2, 0, ""), one)));
    assert_eq!(script.broken(), [Rule::Sessions]);
}

#[test]
fn a_live_session_keeps_its_ephemeral_znodes() {
    let (mut script, one, two) = with_ephemeral();
    script.pass(2 * TIMEOUT);
    script.say(one, Request::Ping, 3, Ok(Body::Empty));
    script.say(two, get("/e"), 3, Err(ErrorCode::NO_NODE));
    assert_eq!(script.broken(), [Rule::Reads]);
}

#[test]
fn an_ephemeral_znode_has_the_session_that_made_it_for_its_owner() {
    let mut script = Script::default();
    let one = script.session();
    let owner = pharos_history::Stat { ephemeral_owner: id(7), ..stat(2, 2, 0, "") };
    script.say(one, ephemeral("/e"), 2, created("/e", owner));
    assert_eq!(script.broken(), [Rule::Writes]);
}

#[test]
fn a_close_whose_answer_was_lost_may_end_the_session_at_once() {
    let (mut script, one, two) = with_ephemeral();
    script.lose(one, Request::Close);
    script.say(two, get("/e"), 4, Err(ErrorCode::NO_NODE));
    script.assert_right();
}
