//! Crowds of clients with many writes in flight whenever leaders change, as `./x chaos` makes them.
//!
//! What a correct ensemble could have shown them, by seed, with the product's own state machine as the ensemble: nothing
//! of it may be called a violation.

mod client;
mod load;
mod world;

use pharos_history::{History, Limits, check};

use crate::rng::Rng;
use client::Client;
use world::World;

const SEEDS: u64 = 100;
const WORKERS: usize = 12;
const OBSERVERS: usize = 3;
const EPOCHS: usize = 12;

struct Run {
    rng: Rng,
    world: World,
    clients: Vec<Client>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let world = World::new(Rng(rng.below(u64::MAX)));
        Self { rng, world, clients: Vec::new() }
    }

    fn history(mut self) -> History {
        self.until_gone(Client::script(load::fixtures()));
        for number in 0..WORKERS {
            let rng = self.split();
            self.clients.push(Client::worker(number, rng));
        }
        for _ in 0..OBSERVERS {
            let rng = self.split();
            self.clients.push(Client::observer(rng));
        }
        for _ in 0..EPOCHS {
            self.epoch();
        }
        // The observers see the sessions end that were left alone.
        self.stop(WORKERS, OBSERVERS);
        self.stop(OBSERVERS, 0);
        self.until_gone(Client::witness());
        History { sessions: self.clients.into_iter().flat_map(|client| client.record).collect() }
    }

    /// The next clients end, and so many sessions are left.
    fn stop(&mut self, count: usize, left: usize) {
        let lasting = self.clients.iter_mut().filter(|client| !client.stops);
        lasting.take(count).for_each(|client| client.stops = true);
        while self.world.session_count() > left {
            self.tick(20_000);
        }
    }

    fn split(&mut self) -> Rng {
        Rng(self.rng.below(u64::MAX))
    }

    fn until_gone(&mut self, client: Client) {
        self.clients.push(client);
        while !self.clients.last().is_some_and(Client::is_gone) {
            self.tick(50);
        }
    }

    /// Work under one leader, a short one now and then, and its loss.
    fn epoch(&mut self) {
        let least = if self.rng.one_in(3) { 5 } else { 30 };
        for _ in 0..least + self.rng.below(6 * least) {
            self.tick(100);
            if self.rng.one_in(80) {
                self.world.cut_one();
            }
        }
        self.world.change_leader();
        self.world.now += 50_000 + self.rng.below(1_500_000);
        self.world.begin_epoch();
    }

    fn tick(&mut self, longest: u64) {
        self.world.now += 1 + self.rng.below(longest);
        let first = self.rng.below(self.clients.len() as u64) as usize;
        let (before, after) = self.clients.split_at_mut(first);
        after.iter_mut().chain(before).for_each(|client| client.poll(&mut self.world));
        self.world.expire();
        self.world.step();
    }
}

#[test]
fn what_a_correct_ensemble_shows_is_no_violation() {
    for seed in 0..SEEDS {
        let report = check(&Run::new(seed).history(), Limits { contact_lag: 0 });
        let first = report.violations.first().map(ToString::to_string);
        assert!(first.is_none(), "seed {seed}: {}", first.unwrap_or_default());
    }
}
