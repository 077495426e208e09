//! Unmodified clients (kazoo) of three members, while members are killed with kill -9.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use pharos_e2e::command::{Running, wait_until};
use pharos_e2e::environment::Environment;
use pharos_e2e::local::LocalEnsemble;

/// How often the leader is killed under each recipe.
const LEADERS: usize = 2;
/// How many members are killed under the pipelined writers.
const KILLS: usize = 50;
/// How long a program may take to end once it was told to.
const PATIENCE: Duration = Duration::from_secs(300);

/// A Python program that works until its standard input is closed.
struct Client(Running);

impl Client {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(Environment::read().unwrap().python);
        command.args(["-c", program]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Running::start(&mut command).unwrap())
    }

    /// Lets it end and gives the number that it prints.
    fn finish(mut self) -> u64 {
        drop(self.0.stdin.take());
        let status = wait_until("the end of the client", PATIENCE, || Ok(self.0.try_wait()?)).unwrap();
        let (mut said, mut complained) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut complained).unwrap();
        assert!(status.success(), "{said}{complained}");
        said.trim().parse().unwrap()
    }
}

fn works_while_leaders_are_killed(recipe: &str) {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let client = Client::start(include_str!("recipes.py"), &[recipe, &ensemble.hosts()]);
    for _ in 0..LEADERS {
        let leader = ensemble.leader().unwrap();
        ensemble.kill(leader).unwrap();
        // Another leads before the killed one is back.
        ensemble.leader().unwrap();
        ensemble.start(leader).unwrap();
        ensemble.wait_serving(leader).unwrap();
    }
    assert!(client.finish() >= 1);
}

#[test]
fn the_example_program_of_a_user_runs_as_it_is() {
    let ensemble = LocalEnsemble::found(3).unwrap();
    assert!(Client::start(include_str!("recipes.py"), &["example", &ensemble.hosts()]).finish() >= 1);
}

#[test]
fn a_lock_is_held_by_one_while_leaders_are_killed() {
    works_while_leaders_are_killed("lock");
}

#[test]
fn an_election_has_one_winner_at_a_time_while_leaders_are_killed() {
    works_while_leaders_are_killed("election");
}

#[test]
fn a_barrier_keeps_all_together_while_leaders_are_killed() {
    works_while_leaders_are_killed("barrier");
}

#[test]
fn a_counter_misses_no_addition_while_leaders_are_killed() {
    works_while_leaders_are_killed("counter");
}

#[test]
fn a_queue_loses_no_entry_while_leaders_are_killed() {
    works_while_leaders_are_killed("queue");
}

#[test]
fn a_party_knows_its_members_while_leaders_are_killed() {
    works_while_leaders_are_killed("party");
}

#[test]
fn a_data_watch_never_goes_back_while_leaders_are_killed() {
    works_while_leaders_are_killed("data_watch");
}

#[test]
fn a_children_watch_sees_all_children_while_leaders_are_killed() {
    works_while_leaders_are_killed("children_watch");
}

#[test]
fn every_acknowledged_write_is_there_once_and_in_order_after_fifty_kills() {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let client = Client::start(include_str!("pipelined.py"), &[&ensemble.hosts(), "4"]);
    for round in 0..KILLS {
        // Leaders and followers alike: any member, at any moment of its recovery from the last kill.
        let victim = if round % 3 == 0 { ensemble.leader().unwrap() } else { random(ensemble.size()) };
        ensemble.kill(victim).unwrap();
        if round % 2 == 0 {
            ensemble.leader().unwrap();
        }
        ensemble.start(victim).unwrap();
        if round % 4 != 0 {
            ensemble.wait_serving(victim).unwrap();
        }
    }
    for index in 0..ensemble.size() {
        ensemble.wait_serving(index).unwrap();
    }
    assert!(client.finish() > 1000);
}

/// Below `limit`; the moments at which processes are killed cannot be repeated, so neither is this.
fn random(limit: usize) -> usize {
    usize::try_from(RandomState::new().build_hasher().finish() % limit as u64).unwrap()
}
