//! When sessions end: not before their timeout, and with everything they own.

use std::collections::BTreeMap;

use crate::Limits;
use crate::record::{Connection, History, Incoming, Micros, OpRef, Request, Session};
use crate::search::End;
use crate::violation::{Rule, Violation};

pub(crate) fn check(
    history: &History,
    limits: Limits,
    ends: &[(End, Option<Micros>)],
    expired: &mut usize,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let by_id: BTreeMap<i64, &Session> = history.sessions.iter().map(|own| (own.id, own)).collect();
    for (end, seen_by) in ends.iter().filter(|(end, _)| !end.asked) {
        *expired += 1;
        if let (Some(session), Some(seen_by)) = (by_id.get(&end.session), seen_by) {
            let what = format!("its end was seen at {:#x} by {} µs", end.shown_at, seen_by.0);
            violations.extend(early(session, *seen_by, limits, &what));
        }
    }
    for session in &history.sessions {
        if let Some(told) = session.told_expired.filter(|_| !asked_to_close(session)) {
            violations.extend(early(session, told, limits, &format!("it was refused at {} µs", told.0)));
        }
    }
    violations.extend(lingering(history));
    violations
}

fn early(session: &Session, at: Micros, limits: Limits, what: &str) -> Option<Violation> {
    let contact = last_contact(session);
    (at < earliest_end(session, limits)).then(|| {
        let text = format!(
            "session {:#x} had contact at {} µs and a timeout of {} µs, but {what}",
            session.id, contact.0, session.timeout.0
        );
        Violation::new(Rule::Sessions, text)
    })
}

/// When the session may end by its timeout.
pub(crate) fn earliest_end(session: &Session, limits: Limits) -> Micros {
    let lag = session.timeout.0.checked_div(limits.contact_lag).unwrap_or(0);
    Micros(last_contact(session).0 + session.timeout.0 - lag)
}

/// When the last request that was answered was sent.
fn last_contact(session: &Session) -> Micros {
    let answered = |link: &Connection| {
        let ops = link.operations.iter().filter(|op| op.answer().is_some());
        ops.map(|op| op.invoked).max().unwrap_or(link.asked).max(link.asked)
    };
    session.connections.iter().map(answered).max().unwrap_or_default()
}

fn asked_to_close(session: &Session) -> bool {
    session.connections.iter().flat_map(|link| &link.operations).any(|op| op.request == Request::Close)
}

/// Ephemeral znodes that were still there after their session's end was known, and a sync.
fn lingering(history: &History) -> Vec<Violation> {
    let ended: BTreeMap<i64, Micros> =
        history.sessions.iter().filter_map(|session| Some((session.id, ended_by(session)?))).collect();
    let mut violations = Vec::new();
    for (session, connection, link) in history.connections() {
        let mut synced = Micros(0);
        for incoming in &link.incoming {
            let Incoming::Reply(operation) = *incoming else { continue };
            let op = &link.operations[operation];
            if op.request == Request::Sync {
                synced = op.invoked;
            }
            let Some(Ok(body)) = op.answer().map(|answer| &answer.result) else { continue };
            for (path, stat, _) in body.stats(&op.request) {
                if ended.get(&stat.ephemeral_owner).is_some_and(|by| *by < synced) {
                    let at = OpRef { session, connection, operation };
                    let text = format!("{path} outlived its session: {}", history.tell(at));
                    violations.push(Violation::new(Rule::Sessions, text));
                }
            }
        }
    }
    violations
}

fn ended_by(session: &Session) -> Option<Micros> {
    let closes = session.connections.iter().flat_map(|link| &link.operations);
    let closed = closes.filter(|op| op.request == Request::Close).filter_map(|op| op.answer());
    closed.map(|answer| answer.completed).chain(session.told_expired).min()
}
