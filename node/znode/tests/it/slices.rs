//! Commands that are carried out in slices.

use pharos_znode::{Applied, Command, CreateMode, Event, EventType, Op, Progress, Reply, SessionId, State};
use proptest::prelude::*;

use crate::random::commands;
use crate::world::{World, create_mode, delete};

/// What a command said, slice by slice.
#[derive(Debug, Default, PartialEq)]
struct Said {
    events: Vec<(EventType, String, pharos_znode::Acl)>,
    slices: usize,
}

/// Carries a command out in slices of so many steps; what was said last stays in `out`.
fn in_slices(state: &mut State, command: &Command, time: i64, steps: usize, out: &mut Applied) -> Said {
    let mut said = Said::default();
    let before = state.zxid();
    loop {
        let mut steps = steps;
        let progress = state.apply_some(command, time, &mut steps, out);
        let event = |e: Event<'_>| (e.kind, e.path.to_owned(), e.acl[0].clone());
        if progress != Progress::Undecided {
            said.events.extend(out.tree_events().map(event));
        }
        said.slices += 1;
        assert_eq!(progress == Progress::Done, state.is_whole());
        if state.is_whole() {
            return said;
        }
        assert!(out.session_events.is_empty(), "what follows for connections is said at the end");
        assert_eq!(state.zxid(), before, "what is half-way shows in no number");
    }
}

proptest! {
    #[test]
    fn state_answers_and_events_do_not_depend_on_slices(commands in commands(60), steps in 1..4_usize) {
        let (mut whole, mut sliced) = (State::new(), State::new());
        let (mut out, mut other) = (Applied::new(), Applied::new());
        for (command, time) in &commands {
            let at_once = in_slices(&mut whole, command, *time, usize::MAX, &mut out);
            let said = in_slices(&mut sliced, command, *time, steps, &mut other);
            prop_assert_eq!(at_once.slices, 1);
            prop_assert_eq!(at_once.events, said.events);
            prop_assert_eq!(out.response(), other.response());
            prop_assert_eq!((out.zxid, &out.session_events), (other.zxid, &other.session_events));
            prop_assert_eq!(whole.digest(), sliced.digest());
        }
        prop_assert_eq!(whole.take_dirty().to_pairs(), sliced.take_dirty().to_pairs());
    }
}

#[test]
fn the_end_of_a_session_takes_two_steps_for_each_of_its_nodes() {
    let mut world = World::new();
    for name in 0..10 {
        world.run(create_mode(&format!("/e{name}"), CreateMode::Ephemeral)).unwrap();
    }
    let end = world.command(crate::world::ALICE, 1, Op::CloseSession);
    let said = in_slices(&mut world.state, &end, world.now, 1, &mut world.out);
    assert_eq!((said.slices, said.events.len()), (20, 20));
    let (mut steps, mut rest) = (100, world.command(crate::world::BOB, 1, Op::CloseSession));
    let progress = world.state.apply_some(&rest, world.now, &mut steps, &mut world.out);
    assert_eq!(progress, Progress::Done);
    assert_eq!(steps, 100, "who owns nothing is gone at once");
    rest.session = SessionId::NONE;
    rest.op = delete("/e0");
    assert!(world.apply(&rest).is_err(), "it is deleted already");
}

#[test]
fn a_multi_is_told_when_all_of_it_is_done_or_taken_back() {
    let mut world = World::new();
    world.make(&["/kept"]);
    let before = world.state.digest();
    let ops = vec![delete("/kept"), create_mode("/a", CreateMode::Persistent), delete("/none")];
    let fails = world.command(crate::world::ALICE, 1, Op::Multi(ops.clone()));
    let said = in_slices(&mut world.state, &fails, world.now, 1, &mut world.out);
    assert!(said.slices > 4 && said.events.is_empty() && world.out.error().is_some());
    assert!(world.state.stat("/a").is_none() && world.state.stat("/kept").is_some());
    assert_ne!(world.state.digest(), before, "its zxid is taken");
    assert_eq!(world.state.digest(), world.state.recompute_digest());
    let done = world.command(crate::world::ALICE, 1, Op::Multi(ops[..2].to_vec()));
    let said = in_slices(&mut world.state, &done, world.now, 1, &mut world.out);
    assert_eq!((said.events.len(), world.out.error()), (4, None));
    assert!(world.state.stat("/a").is_some() && world.state.stat("/kept").is_none());
}

#[test]
fn a_session_that_ends_is_gone_only_when_its_nodes_are() {
    let mut world = World::new();
    world.run(create_mode("/a", CreateMode::Ephemeral)).unwrap();
    world.run(create_mode("/b", CreateMode::Ephemeral)).unwrap();
    let end = world.command(crate::world::ALICE, 1, Op::CloseSession);
    assert_eq!(world.state.apply_some(&end, world.now, &mut 3, &mut world.out), Progress::Half);
    assert_eq!(world.events()[0], (EventType::NodeDeleted, "/a".to_owned()));
    assert!(world.state.stat("/a").is_none() && world.state.session(crate::world::ALICE).is_some());
    assert_eq!(world.state.apply_some(&end, world.now, &mut 1, &mut world.out), Progress::Done);
    assert_eq!((world.out.result.clone(), world.events().len()), (Ok(Reply::Done), 2));
    assert!(world.state.session(crate::world::ALICE).is_none());
    assert_eq!(world.state.digest(), world.state.recompute_digest());
}
