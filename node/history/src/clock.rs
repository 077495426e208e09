//! Wall-clock times in Stats: one per zxid, and rising with it.

use std::collections::BTreeMap;

use crate::record::{History, OpRef};
use crate::violation::{Rule, Violation};

pub(crate) fn check(history: &History) -> Option<Violation> {
    let mut times: BTreeMap<i64, (i64, OpRef)> = BTreeMap::new();
    for (at, op) in history.operations() {
        let Some(Ok(body)) = op.answer().map(|answer| &answer.result) else { continue };
        for (path, stat, _) in body.stats(&op.request) {
            for (zxid, time) in [(stat.czxid, stat.ctime), (stat.mzxid, stat.mtime)] {
                let (known, by) = *times.entry(zxid).or_insert((time, at));
                if known != time && path != "/" {
                    let (one, other) = (history.tell(by), history.tell(at));
                    let text = format!("{zxid:#x} was at {known} ms and at {time} ms: {one} and {other}");
                    return Some(Violation::new(Rule::Times, text));
                }
            }
        }
    }
    let mut pairs = times.iter().zip(times.iter().skip(1));
    pairs.find(|((_, (earlier, _)), (_, (later, _)))| later < earlier).map(|((a, (s, by)), (b, (t, at)))| {
        let (one, other) = (history.tell(*by), history.tell(*at));
        Violation::new(Rule::Times, format!("{a:#x} was at {s} ms, {b:#x} at {t} ms: {one} and {other}"))
    })
}
