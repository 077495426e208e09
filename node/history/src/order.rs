//! Orders: of a session, of real time, and what a sync promises. Rules 2, 3 and 5, without any state.

use std::collections::BTreeMap;

use crate::record::{Answer, Connection, History, Incoming, Micros, OpRef, Request};
use crate::suspects::Floors;
use crate::timeline::Timeline;
use crate::violation::{Rule, Violation};

/// Rules that a session keeps by itself.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for session in 0..history.sessions.len() {
        let mut zxids = Zxids::default();
        for connection in 0..history.sessions[session].connections.len() {
            violations.extend(one_connection(history, session, connection, &mut zxids).err());
        }
    }
    violations
}

/// The highest zxids that a session was told.
#[derive(Default)]
struct Zxids {
    answered: i64,
    any: i64,
}

fn one_connection(
    history: &History,
    session: usize,
    connection: usize,
    zxids: &mut Zxids,
) -> Result<(), Violation> {
    let link = &history.sessions[session].connections[connection];
    let mut next = 0;
    for incoming in &link.incoming {
        match incoming {
            Incoming::Event(event) if event.zxid == -1 => {}
            Incoming::Event(event) => {
                let what = || format!("[session {session} connection {connection}: {event:x?}]");
                zxids.advance(event.zxid, what)?;
            }
            Incoming::Reply(operation) => {
                let at = OpRef { session, connection, operation: *operation };
                if *operation != next {
                    let text = format!("{} was answered before operation {next}", history.tell(at));
                    return Err(Violation::new(Rule::Fifo, text));
                }
                next += 1;
                answered(history, at, link, zxids)?;
            }
        }
    }
    Ok(())
}

fn answered(history: &History, at: OpRef, link: &Connection, zxids: &mut Zxids) -> Result<(), Violation> {
    let op = &link.operations[at.operation];
    let Some(answer) = op.answer() else { return Ok(()) };
    zxids.advance(answer.zxid, || history.tell(at))?;
    if op.request.is_write() && answer.zxid <= zxids.answered {
        let text = format!("{} is not after {:#x}, answered before", history.tell(at), zxids.answered);
        return Err(Violation::new(Rule::Fifo, text));
    }
    zxids.answered = zxids.answered.max(answer.zxid);
    Ok(())
}

impl Zxids {
    fn advance(&mut self, zxid: i64, what: impl Fn() -> String) -> Result<(), Violation> {
        if zxid < self.any {
            let text = format!("{} although its session had seen {:#x}", what(), self.any);
            return Err(Violation::new(Rule::Monotone, text));
        }
        self.any = zxid;
        Ok(())
    }
}

/// Real time and syncs. `placed` are the writes of unknown outcome whose zxid is known.
pub(crate) fn real_time(
    history: &History,
    timeline: &Timeline,
    placed: &BTreeMap<i64, OpRef>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut all: Vec<(i64, bool, OpRef)> = Vec::new();
    all.extend(timeline.writes.iter().chain(placed).map(|(zxid, at)| (*zxid, false, *at)));
    all.extend(timeline.reads.iter().map(|(zxid, at)| (*zxid, true, *at)));
    all.sort_unstable();
    let mut latest: Option<(Micros, OpRef)> = None;
    for (_, is_read, at) in all {
        let op = history.operation(at);
        if let (Some(answer), Some((invoked, other))) = (op.answer(), latest)
            && answer.completed < invoked
        {
            let (one, other) = (history.tell(at), history.tell(other));
            let text =
                format!("{other} was invoked after {one} had completed, which shows it or comes after it");
            violations.push(Violation::new(Rule::RealTime, text));
        }
        if !is_read {
            latest = latest.max(Some((op.invoked, at)));
        }
    }
    violations.extend(syncs(history, &Floors::of(history)));
    violations
}

fn syncs(history: &History, floors: &Floors) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (session, connection, link) in history.connections() {
        for (operation, pair) in link.operations.windows(2).enumerate() {
            let [sync, next] = pair else { continue };
            if sync.request != Request::Sync || sync.answer().is_none() {
                continue;
            }
            let floor = floors.at(sync.invoked);
            if next.answer().is_some_and(|Answer { zxid, .. }| *zxid < floor) {
                let after = OpRef { session, connection, operation: operation + 1 };
                let text = format!(
                    "{} follows a sync invoked at {} µs, when {floor:#x} had been answered",
                    history.tell(after),
                    sync.invoked.0
                );
                violations.push(Violation::new(Rule::Sync, text));
            }
        }
    }
    violations
}
