//! What this checker accepts, a search over all orders accepts too: random small histories of one register, against
//! stateright's tester, which knows no zxids.

use pharos_history::{Body, History, Request};
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use crate::script::{Script, broken, create, created, data, get, set, stat};
use pharos_crowd::Rng;

#[derive(Clone, Copy)]
struct Step {
    session: usize,
    invoked: u64,
    completed: u64,
    /// The value written; `None` is a read after a sync.
    writes: Option<usize>,
    /// How many writes had happened by then, this one included.
    at: usize,
}

/// Operations of three sessions that take effect at a random moment between invocation and completion; then, perhaps,
/// one read goes back to an older state, or one write's place is taken by another's.
fn steps(rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    for session in 0..3 {
        let mut now = 1000 + rng.below(50);
        for _ in 0..3 {
            let (invoked, completed) = (now, now + 2 + rng.below(100));
            now = completed + 1 + rng.below(30);
            steps.push((invoked + rng.below(completed - invoked), session, invoked, completed));
        }
    }
    steps.sort_unstable();
    let mut writes = 0;
    let mut made: Vec<Step> = Vec::new();
    for (_, session, invoked, completed) in steps {
        let written = rng.below(2) == 0;
        writes += usize::from(written);
        made.push(Step { session, invoked, completed, writes: written.then_some(writes), at: writes });
    }
    match rng.below(3) {
        0 => {}
        1 => make_stale(&mut made, rng),
        _ => swap_writes(&mut made, rng),
    }
    made
}

fn make_stale(steps: &mut [Step], rng: &mut Rng) {
    let read = rng.below(steps.len() as u64) as usize;
    if steps[read].writes.is_none() {
        steps[read].at = rng.below(steps[read].at as u64 + 1) as usize;
    }
}

/// Two writes exchange zxid and effect with each other.
fn swap_writes(steps: &mut [Step], rng: &mut Rng) {
    let writes: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].writes.is_some()).collect();
    if writes.len() >= 2 {
        let pick = |rng: &mut Rng| writes[rng.below(writes.len() as u64) as usize];
        let (one, two) = (pick(rng), pick(rng));
        let place = (steps[one].writes, steps[one].at);
        (steps[one].writes, steps[one].at) = (steps[two].writes, steps[two].at);
        (steps[two].writes, steps[two].at) = place;
    }
}

fn history(steps: &[Step]) -> History {
    let mut script = Script::default();
    for _ in 0..3 {
        script.session();
    }
    let setup = script.session();
    script.say(setup, create("/r", "0"), 1, created("/r", stat(1, 1, 0, "0")));
    let mut by_time = steps.to_vec();
    by_time.sort_by_key(|step| step.invoked);
    for step in by_time {
        let zxid = step.at as i64 + 1;
        let times = (step.invoked, step.completed);
        let value = step.at.to_string();
        let shown = stat(1, zxid, step.at as i32, &value);
        if step.writes.is_some() {
            script.say_at(step.session, times, set("/r", &value), zxid, Ok(Body::Stat(shown)));
        } else {
            // The sync's own zxid says nothing; it is the read that must be new enough.
            script.say_at(step.session, times, Request::Sync, zxid, Ok(Body::Empty));
            script.say_at(step.session, times, get("/r"), zxid, data(&value, shown));
        }
    }
    script.history
}

fn is_linearizable(steps: &[Step]) -> bool {
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        moments.push((step.invoked, false, index));
        moments.push((step.completed, true, index));
    }
    moments.sort_unstable();
    let mut tester = LinearizabilityTester::new(Register(0_usize));
    for (_, returns, index) in moments {
        let step = steps[index];
        let op = step.writes.map_or(RegisterOp::Read, RegisterOp::Write);
        let ret = if step.writes.is_some() { RegisterRet::WriteOk } else { RegisterRet::ReadOk(step.at) };
        if returns {
            tester.on_return(step.session, ret).unwrap();
        } else {
            tester.on_invoke(step.session, op).unwrap();
        }
    }
    tester.is_consistent()
}

#[test]
fn what_is_accepted_is_linearizable_and_what_is_not_linearizable_is_found() {
    let mut rng = Rng::new(1);
    let (mut both, mut neither, mut stricter) = (0, 0, 0);
    for round in 0..3000 {
        let steps = steps(&mut rng);
        let (accepted, linearizable) = (broken(&history(&steps)).is_empty(), is_linearizable(&steps));
        match (accepted, linearizable) {
            (true, true) => both += 1,
            (false, false) => neither += 1,
            // The zxids say which order it was, and that order was not possible, though another may be.
            (false, true) => stricter += 1,
            (true, false) => panic!("round {round}: accepted, but not linearizable"),
        }
    }
    assert!(both > 1000 && neither > 300 && stricter > 0, "{both} {neither} {stricter}");
}

#[test]
fn what_took_effect_between_question_and_answer_is_accepted() {
    let mut rng = Rng::new(2);
    let mut untouched = 0;
    for _ in 0..1000 {
        let mut ours = Rng::new(rng.below(u64::MAX));
        let steps = steps(&mut ours);
        let in_order = steps.windows(2).all(|pair| match pair {
            [one, two] => two.at == one.at + usize::from(two.writes.is_some()),
            _ => true,
        });
        if in_order {
            untouched += 1;
            assert_eq!(broken(&history(&steps)), []);
        }
    }
    assert!(untouched > 300, "{untouched}");
}
