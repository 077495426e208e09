//! What a worker does next, step by step.

use std::time::Duration;

use pharos_beam::{NoSchemas, SourceName, compile};

use super::*;
use crate::assignment::Assignment;

fn member(name: &str) -> Member {
    Member::new(name.to_owned(), name.to_owned(), format!("{name}:1"), 1)
}

fn control(name: &str) -> Control {
    let document = "
pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{a: 1}]}}
    - {type: WriteToJson, config: {path: out}}
";
    let plan = compile(document, SourceName::new("test.yaml"), &NoSchemas).unwrap();
    let setup = Setup { me: member(name), plan, interval: Some(Duration::from_secs(1)), alone: false };
    Control::new(setup, Duration::ZERO)
}

fn view(names: &[&str]) -> Input {
    Input::View(View { members: names.iter().map(|name| member(name)).collect(), completed: false })
}

fn at(of: &mut Control, millis: u64, input: Input) -> Vec<String> {
    let commands = of.handle(Duration::from_millis(millis), input);
    let short = |command: &Command| match command {
        Command::Dial { generation, from, first, members } => {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            format!("dial {} in {generation} from {from}, the first to {first}", names.join(" "))
        }
        Command::Say(who, Say::Start(start)) => {
            let names: Vec<&str> =
                start.assignment.workers.iter().map(|worker| worker.name.as_str()).collect();
            format!("start {who} of {}", names.join(" "))
        }
        Command::Assemble(start) => format!("assemble as {}", start.assignment.me),
        Command::Tell(Event::Interrupted { why }) => format!("interrupted: {why}"),
        Command::Tell(_) => "tell".to_owned(),
        other => format!("{other:?}"),
    };
    commands.iter().map(short).collect()
}

fn leads(generation: u64) -> Input {
    Input::TookOver(Took::Leads { generation, latest: None, next: 1 })
}

#[test]
fn the_first_on_the_roster_waits_for_others_and_begins_with_those_that_answer() {
    let mut a = control("a");
    assert_eq!(at(&mut a, 0, view(&["a", "b", "c"])), [""; 0]);
    assert_eq!(at(&mut a, 1_400, Input::Tick), [""; 0], "others may still come");
    assert_eq!(at(&mut a, 1_600, Input::Tick), ["TakeOver"]);
    assert_eq!(at(&mut a, 1_600, leads(7)), ["Enter(7)", "dial b c in 7 from 0, the first to 1"]);
    let dialled = Input::Dialled(7, vec![Err("it is gone".to_owned()), Ok(())]);
    assert_eq!(
        at(&mut a, 1_700, dialled),
        ["interrupted: worker `b` takes no part: it is gone", "Survey"],
        "who comes next takes the place"
    );
    assert_eq!(at(&mut a, 1_800, Input::Surveyed(Inputs::new())), ["start 1 of a c", "assemble as 0"]);
}

#[test]
fn one_that_was_called_begins_once_those_before_it_are_there_and_those_after_it_reached() {
    let mut b = control("b");
    at(&mut b, 0, view(&["a", "b", "c", "d"]));
    assert_eq!(at(&mut b, 10, Input::Called(7, 0)), ["Enter(7)"]);
    let workers = ["a", "c", "b", "d"].map(member).to_vec();
    let assignment = Assignment { generation: 7, workers, me: 2 };
    let start = Start { assignment, plan: b.setup.plan.clone(), latest: None, inputs: None };
    assert_eq!(at(&mut b, 20, Input::Said(7, 0, Say::Start(Box::new(start)))), [""; 0]);
    assert_eq!(at(&mut b, 30, Input::Called(7, 1)), ["dial d in 7 from 2, the first to 3"]);
    assert_eq!(at(&mut b, 40, Input::Dialled(7, vec![Ok(())])), ["assemble as 2"]);
}

#[test]
fn a_worker_follows_the_highest_generation_that_called_it() {
    let mut b = control("b");
    at(&mut b, 0, Input::Called(7, 0));
    assert_eq!(at(&mut b, 1, Input::Called(6, 0)), [""; 0], "it is over");
    assert_eq!(at(&mut b, 2, Input::Lost(6, 0, "closed".to_owned())), [""; 0]);
    assert_eq!(at(&mut b, 3, Input::Called(9, 0)), ["End", "Enter(9)"]);
    assert_eq!(at(&mut b, 4, Input::Said(7, 0, Say::Completed)), [""; 0], "of an attempt that is over");
}

#[test]
fn whoever_is_fenced_tries_again_later_and_later() {
    let mut a = control("a");
    at(&mut a, 0, view(&["a"]));
    assert_eq!(at(&mut a, 2_000, Input::Tick), ["TakeOver"]);
    let fenced = format!("interrupted: {}", StreamError::Fenced);
    assert_eq!(at(&mut a, 2_000, Input::Failed(StreamError::Fenced)), ["End", fenced.as_str()]);
    assert_eq!(at(&mut a, 2_150, Input::Tick), [""; 0]);
    assert_eq!(at(&mut a, 2_210, Input::Tick), ["TakeOver"]);
    at(&mut a, 2_210, Input::Failed(StreamError::Fenced));
    assert_eq!(at(&mut a, 2_550, Input::Tick), [""; 0]);
    assert_eq!(at(&mut a, 2_620, Input::Tick), ["TakeOver"]);
}

#[test]
fn an_error_is_told_to_all_before_the_connections_end() {
    let mut a = control("a");
    at(&mut a, 0, view(&["a", "b"]));
    at(&mut a, 2_000, Input::Tick);
    at(&mut a, 2_000, leads(3));
    at(&mut a, 2_000, Input::Dialled(3, vec![Ok(())]));
    let failed = at(&mut a, 2_100, Input::Failed(StreamError::OtherPlan("another".to_owned())));
    assert!(failed[0].starts_with("SayAll(Failed(User") && failed[1] == "End", "{failed:?}");
    assert!(failed[2].starts_with("Exit(Err(OtherPlan"), "{failed:?}");
    assert_eq!(at(&mut a, 2_200, Input::Tick), [""; 0], "it is over");
}
