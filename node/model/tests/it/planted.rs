//! Known bugs are found: `cargo test -p pharos-model --features planted-bugs`.

use pharos_model::{Bounds, Order, Plant, Start, check};

fn try_it(plant: Plant, bounds: Bounds) {
    let t = std::time::Instant::now();
    let r = check(Bounds { plant, ..bounds }, 3_000_000);
    match r.broken {
        Some(c) => println!("FOUND {plant:?} {} in {} steps, {} unique, {:?}: {} | {}", bounds.name, c.actions.len(), r.unique, t.elapsed(), c.property, c.found.chars().take(150).collect::<String>()),
        None => println!("NOT {plant:?} {} {} {}", bounds.name, r.unique, r.exhausted),
    }
}

#[test]
fn all() {
    let lag = Start::Led { heard: &[1, 2], values: 1 };
    let all = Start::Led { heard: &[1, 2, 3], values: 0 };
    let a = Bounds { name: "a", timeouts: 2, values: 0, order: Order::Lanes, ..Bounds::NOTHING };
    let c = Bounds { name: "c", timeouts: 2, crashes: 1, order: Order::Lanes, ..Bounds::NOTHING };
    let e = Bounds { name: "e", timeouts: 2, chunks: true, order: Order::Lanes, start: lag, ..Bounds::NOTHING };
    let t = Bounds { name: "t", timeouts: 1, values: 1, repeats: 1, order: Order::Lanes, ..Bounds::NOTHING };
    let r = Bounds { name: "r", timeouts: 1, reads: 1, order: Order::Lanes, start: all, ..Bounds::NOTHING };
    for (p, b) in [
        (Plant::AckBeforeFsync, a),
        (Plant::EarlyRestamp, e),
        (Plant::LateCompletion, a),
        (Plant::BallotReuse, c),
        (Plant::DoubleCount, a),
        (Plant::TruncateCommitted, t),
        (Plant::PromiseForgets, c),
        (Plant::ReadIndexUnconfirmed, r),
    ] { try_it(p, b); }
}
