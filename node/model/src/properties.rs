//! What must hold in every state, and what must be met in some.
//!
//! Owns the names that reports use. Rules about single steps are checked where the step is taken (`broken`,
//! `story`); here they only get their names.

use crate::broken::Broken;
use crate::member::{Member, id, place};
use crate::model::PaxosModel;
use crate::net::Speech;
use crate::world::World;
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, LogOp, Membership, Message, Role, Slot};
use stateright::Property;

pub(crate) fn properties() -> Vec<Property<PaxosModel>> {
    let mut all = rules();
    all.extend(situations());
    all
}

fn rules() -> Vec<Property<PaxosModel>> {
    vec![
        Property::always("members agree on every slot", |_, w: &World| {
            !broken(w, |b| matches!(b, Broken::Agreement(_)))
        }),
        Property::always("nothing is claimed that is not durable", |_, w: &World| {
            !broken(w, |b| matches!(b, Broken::Claim(_)))
        }),
        Property::always("a ballot is led once", |_, w: &World| {
            !broken(w, |b| matches!(b, Broken::LedTwice(_)))
        }),
        Property::always("a read is not stale", |_, w: &World| {
            !broken(w, |b| matches!(b, Broken::StaleRead(_)))
        }),
        Property::always(
            "a configuration begins after its seal is chosen, and ends with the next",
            |_, w: &World| !broken(w, |b| matches!(b, Broken::Seal(_))),
        ),
        Property::always("no core stops", |_, w: &World| !broken(w, |b| matches!(b, Broken::Fatal(_)))),
        Property::always("no assertion fails", |_, w: &World| !broken(w, |b| matches!(b, Broken::Panic(_)))),
        Property::always("what is chosen is on a majority of disks", |_, w: &World| chosen_is_durable(w)),
        Property::always(
            "who accepts in a configuration has the log through the seal before",
            |_, w: &World| w.members.iter().all(|m| holds_its_seal(w, m)),
        ),
        Property::always("who accepts a ballot has all that its leader adopted", |_, w: &World| {
            w.members.iter().all(|m| holds_the_prefix(w, m))
        }),
        Property::always("what a core takes for durable is on its disk", |_, w: &World| {
            w.members.iter().all(|m| knows_its_disk(m))
        }),
        Property::always("the newest leader has all that is chosen", |_, w: &World| {
            newest_leader_is_whole(w)
        }),
        Property::always("logs with an entry in common have all before it in common", |_, w: &World| {
            logs_match(w)
        }),
        Property::always("a log is a prefix of the log of the leader it accepted", |_, w: &World| {
            prefixes(w)
        }),
    ]
}

fn broken(world: &World, which: impl FnOnce(&Broken) -> bool) -> bool {
    world.broken.as_ref().is_some_and(|b| which(b))
}

/// Whether the entry, which is chosen, is on a member's disk, in the log or in the state.
fn holds(member: &Member, slot: Slot, same: impl Fn(&Entry) -> bool) -> bool {
    let disk = &member.disk;
    slot <= disk.trimmed || slot <= disk.stored || disk.entry(slot).is_some_and(same)
}

/// Of those who vote where it was chosen, and of those who vote now: half of these hold a seal before it is chosen.
fn chosen_is_durable(world: &World) -> bool {
    let current = world.story.current();
    world.story.chosen.iter().all(|e| {
        let on_majority = |of: &Membership| {
            let voters = of.voters.iter().map(|voter| &world.members[place(*voter)]);
            voters.filter(|m| holds(m, e.slot, |held| held == e)).count() >= of.majority()
        };
        let own = world.story.configuration(e.ballot.config);
        on_majority(current) && own.is_some_and(on_majority)
    })
}

fn holds_its_seal(world: &World, member: &Member) -> bool {
    let accepted = member.disk.hard.accepted.config;
    if accepted <= ConfigNo(1) {
        return true;
    }
    let begun = world.story.configuration(accepted);
    begun.is_some_and(|c| holds(member, c.since, |e| e.ballot == c.by))
}

fn holds_the_prefix(world: &World, member: &Member) -> bool {
    let adopted = world.story.led.get(&member.disk.hard.accepted);
    adopted.is_none_or(|end| *end <= member.disk.end() || *end <= member.disk.stored)
}

fn knows_its_disk(member: &Member) -> bool {
    let (core, disk) = (&member.core, &member.disk);
    let same = |slot| match (core.entry(slot), disk.entry(slot)) {
        (Some(a), Some(b)) => a == b,
        _ => true, // Trimmed at one or the other.
    };
    disk.end() >= core.durable() && (1..=core.durable().0).map(Slot).all(same)
}

fn leads_in(member: &Member) -> Option<Ballot> {
    if let Role::Leader { ballot } = member.core.role() { Some(ballot) } else { None }
}

fn newest_leader_is_whole(world: &World) -> bool {
    let newest = world.story.led.keys().next_back().copied();
    let leader = world.members.iter().find(|m| newest.is_some() && leads_in(m) == newest);
    let Some(leader) = leader else { return true };
    let trimmed = leader.core.status().trimmed;
    world.story.chosen.iter().all(|e| e.slot <= trimmed || leader.core.entry(e.slot) == Some(e))
}

/// The entries of a log, by slot; of a core or of a disk.
type Log<'a> = Box<dyn Fn(Slot) -> Option<&'a Entry> + 'a>;

fn logs(world: &World) -> Vec<(Slot, Log<'_>)> {
    let cores = world.members.iter().map(|m| {
        let log: Log<'_> = Box::new(|slot| m.core.entry(slot));
        (m.core.last_slot(), log)
    });
    let disks = world.members.iter().map(|m| {
        let log: Log<'_> = Box::new(|slot| m.disk.entry(slot));
        (m.disk.end(), log)
    });
    cores.chain(disks).collect()
}

fn logs_match(world: &World) -> bool {
    let logs = logs(world);
    let pairs = logs.iter().enumerate().flat_map(|(i, a)| logs[i + 1..].iter().map(move |b| (a, b)));
    pairs.into_iter().all(|(a, b)| match_each_other(a, b))
}

fn match_each_other(a: &(Slot, Log<'_>), b: &(Slot, Log<'_>)) -> bool {
    let mut common = false;
    for slot in (1..=a.0.min(b.0).0).rev().map(Slot) {
        let (Some(x), Some(y)) = (a.1(slot), b.1(slot)) else { continue };
        common |= x.ballot == y.ballot;
        if common && x != y {
            return false;
        }
    }
    true
}

fn prefixes(world: &World) -> bool {
    let status: Vec<_> = world.members.iter().map(|m| (m.core.status().accepted, m)).collect();
    let pairs = status.iter().enumerate().flat_map(|(i, a)| status[i + 1..].iter().map(move |b| (a, b)));
    pairs.into_iter().filter(|(a, b)| a.0 == b.0).all(|((_, a), (_, b))| {
        let end = a.core.last_slot().min(b.core.last_slot());
        match (a.core.entry(end), b.core.entry(end)) {
            (Some(x), Some(y)) => x == y,
            _ => true, // Trimmed at one of them, so chosen.
        }
    })
}

/// Two members lead at once, in different ballots.
pub(crate) const TWO_LEADERS: &str = "two leaders at once";
/// A write under way cuts the log.
pub(crate) const CUT: &str = "an unchosen suffix is cut";
/// A leader has adopted entries that nobody has told to be chosen.
pub(crate) const ADOPTED: &str = "an unchosen entry is adopted";
/// A member that may crash has writes under way with entries or stamps.
pub(crate) const UNSYNCED_TAIL: &str = "a crash can lose an unsynced tail";
/// A promise waits for the disk behind another write.
pub(crate) const PROMISE_WAITS: &str = "a promise is made while entries are being written";
/// A leader has told something to be chosen that its own disk lacks.
pub(crate) const AHEAD_OF_OWN_DISK: &str = "a commit without the leader's own disk";
/// A member has taken over a state.
pub(crate) const INSTALLED: &str = "a state is installed";
/// A leader sends a follower the state instead of entries.
pub(crate) const BEHIND: &str = "a follower lacks what is trimmed";
/// A value was chosen.
pub(crate) const VALUE_CHOSEN: &str = "a value is chosen";
/// A later leader has an entry of an earlier one, and one of its own was chosen.
pub(crate) const SUCCESSION: &str = "entries of two leaders are chosen";
/// A part of a sync waits for the rest.
pub(crate) const STAGED: &str = "a sync is staged";

/// The log of a leader ends with a seal that nobody has told to be chosen.
pub(crate) const SEALED: &str = "a configuration is sealed";
/// A write under way cuts a seal.
pub(crate) const SEAL_CUT: &str = "an unchosen seal is cut";
/// The leader of a configuration did not seal it: its log ends with the seal of another.
pub(crate) const SEAL_ADOPTED: &str = "a seal is adopted";
/// An entry is chosen by those who vote after a seal.
pub(crate) const GOES_ON: &str = "the next configuration goes on";
/// Whoever led the old configuration leads it still, while another leads the next.
pub(crate) const OUTLIVED: &str = "a leader outlives its configuration";
/// The log of a leader ends with a seal that does not name it.
pub(crate) const SEAL_WITHOUT_LEADER: &str = "a leader's seal leaves it out";
/// A member that came with an empty disk has accepted a ballot in which it votes.
pub(crate) const JOINED: &str = "a joiner votes";
/// A promise waits that was made for the sake of a state.
pub(crate) const AWAITED: &str = "a state waits for a promise";
/// One who votes after a seal has promised in its configuration and lacks the seal.
pub(crate) const LACKS_SEAL: &str = "a voter promises without the seal";

/// A read was answered.
pub(crate) const READ_ANSWERED: &str = "a read is answered";

fn situations() -> Vec<Property<PaxosModel>> {
    vec![
        Property::sometimes(TWO_LEADERS, |_, w: &World| {
            w.members.iter().filter_map(|m| leads_in(m)).count() > 1
        }),
        Property::sometimes(CUT, |_, w: &World| any_op(w, |op| matches!(op, LogOp::Truncate { .. }))),
        Property::sometimes(ADOPTED, |_, w: &World| {
            let unchosen =
                |m: &Member| m.core.epoch_start().is_some_and(|s| s > w.story.last_chosen().next());
            w.members.iter().any(|m| unchosen(m))
        }),
        Property::sometimes(UNSYNCED_TAIL, |_, w: &World| {
            w.left.crashes > 0 && any_op(w, |op| matches!(op, LogOp::Append(_)))
        }),
        Property::sometimes(PROMISE_WAITS, |_, w: &World| w.members.iter().any(|m| promise_waits(m))),
        Property::sometimes(AHEAD_OF_OWN_DISK, |_, w: &World| {
            w.members.iter().any(|m| leads_in(m).is_some() && m.core.committed() > m.disk.end())
        }),
        Property::sometimes(INSTALLED, |_, w: &World| w.members.iter().any(|m| m.disk.was_installed())),
        Property::sometimes(BEHIND, |_, w: &World| {
            w.members.iter().any(|m| m.core.behind().next().is_some())
        }),
        Property::sometimes(VALUE_CHOSEN, |_, w: &World| {
            w.story.chosen.iter().any(|e| e.kind == EntryKind::Commands)
        }),
        Property::sometimes(SUCCESSION, |_, w: &World| {
            let mut ballots: Vec<_> = w.story.chosen.iter().skip(1).map(|e| e.ballot).collect();
            ballots.dedup();
            ballots.len() > 1
        }),
        Property::sometimes(SEALED, |_, w: &World| w.members.iter().any(|m| seals(m))),
        Property::sometimes(SEAL_CUT, |_, w: &World| w.members.iter().any(|m| cuts_seal(m))),
        Property::sometimes(SEAL_ADOPTED, |_, w: &World| {
            let adopted = |m: &Member| m.core.entry(m.core.last_slot()).map(|e| e.ballot) != leads_in(m);
            w.members.iter().any(|m| seals(m) && adopted(m))
        }),
        Property::sometimes(GOES_ON, |_, w: &World| {
            w.story.chosen.iter().any(|e| e.ballot.config > ConfigNo(1))
        }),
        Property::sometimes(OUTLIVED, |_, w: &World| {
            let leads: Vec<_> = w.members.iter().filter_map(|m| leads_in(m)).map(|b| b.config).collect();
            leads.iter().any(|one| leads.iter().any(|other| one < other))
        }),
        Property::sometimes(SEAL_WITHOUT_LEADER, |_, w: &World| {
            w.members.iter().enumerate().any(|(at, m)| {
                let last = m.core.entry(m.core.last_slot()).and_then(Entry::seals);
                seals(m) && last.is_some_and(|(next, _)| !next.has(id(at)))
            })
        }),
        Property::sometimes(JOINED, |model, w: &World| {
            model.bounds.learners().any(|one| {
                let accepted = w.members[place(one)].disk.hard.accepted.config;
                w.story.configuration(accepted).is_some_and(|c| c.has(one))
            })
        }),
        Property::sometimes(AWAITED, |_, w: &World| {
            w.members.iter().any(|m| m.arriving.as_ref().is_some_and(|a| !a.given))
        }),
        Property::sometimes(LACKS_SEAL, |_, w: &World| {
            w.members.iter().enumerate().any(|(at, m)| {
                let promised = m.disk.hard.promised.config;
                let c = w.story.configuration(promised).filter(|c| c.config > ConfigNo(1) && c.has(id(at)));
                c.is_some_and(|c| !holds(m, c.since, |e| e.ballot == c.by))
            })
        }),
        Property::sometimes(READ_ANSWERED, |_, w: &World| w.story.answered),
        Property::sometimes(STAGED, |_, w: &World| w.net.iter().any(|e| stages(&e.speech))),
    ]
}

fn seals(member: &Member) -> bool {
    leads_in(member).is_some() && member.core.is_sealed()
}

fn cuts_seal(member: &Member) -> bool {
    let cut = |op: &LogOp| match op {
        LogOp::Truncate { from } => Some(*from),
        _ => None,
    };
    let seal_from = |from: Slot| {
        let above = (from.0..=member.disk.end().0).filter_map(|slot| member.disk.entry(Slot(slot)));
        above.into_iter().any(|e| e.seals().is_some())
    };
    member.disk.pending.front().into_iter().flatten().filter_map(cut).any(seal_from)
}

fn any_op(world: &World, which: impl Fn(&LogOp) -> bool) -> bool {
    world.members.iter().any(|m| m.disk.pending.iter().flatten().any(&which))
}

fn stages(speech: &Speech) -> bool {
    matches!(speech, Speech::Core(Message::Have { standing, .. }) if standing.staged > Slot::ZERO)
}

fn promise_waits(member: &Member) -> bool {
    let mut appends =
        member.disk.pending.iter().map(|ops| ops.iter().any(|op| matches!(op, LogOp::Append(_))));
    let promised = |ops: &Vec<LogOp>| ops.iter().any(|op| matches!(op, LogOp::Promised(_)));
    appends.any(|a| a) && member.disk.pending.iter().any(promised)
}

/// The names of all situations.
pub(crate) fn situation_names() -> Vec<&'static str> {
    situations().iter().map(|p| p.name).collect()
}
