//! `/zookeeper/config`: the list of members as ZooKeeper's clients read it.
//!
//! Owns the text (`QuorumMaj.toString` of ZooKeeper, `server.` lines and a version). Must not know who changes the list.
//! Invariant: it takes no zxid of its own, so that clients see the numbers that ZooKeeper would give.

use crate::registry::Member;
use crate::replica::Replica;
use pharos_paxos::{Membership, Slot};
use pharos_znode::{Command, Op, State};
use std::fmt::Write;

/// The command that writes the list, as of the slot that changed it.
#[must_use]
pub fn config_command<'m>(
    state: &State,
    membership: &Membership,
    members: impl IntoIterator<Item = &'m Member>,
    slot: Slot,
) -> Command {
    let mut text = String::new();
    for Member { id, host, peer_port, client_port, .. } in members {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let role = if membership.has(*id) { "participant" } else { "observer" };
        let line = writeln!(text, "server.{id}={host}:{peer_port}:{peer_port}:{role};0.0.0.0:{client_port}");
        line.expect("a string takes everything");
    }
    write!(text, "version={:x}", slot.0).expect("a string takes everything");
    let op = Op::SetConfig { data: text.into() };
    Command { zxid: Some(state.zxid()), ..Command::of_ensemble(op) }
}

impl Replica {
    /// Writes the list after the slot that changed it, and tells those who watch it.
    pub(crate) fn write_config(&mut self, slot: Slot) {
        let (membership, members) = (self.registry.membership(), self.registry.members());
        let command = config_command(&self.state, membership, members, slot);
        let mut budget = usize::MAX;
        let done = self.apply_command(&command, self.state.time_ms(), &mut budget);
        assert!(done, "a single node is written in one step");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_paxos::MemberId;
    use pharos_znode::{Applied, Value};

    #[test]
    fn the_list_is_read_as_zookeepers_clients_expect_it() {
        let member = |id: u32, host: &str| Member {
            id: MemberId(id),
            volume: [id as u8; 16],
            host: host.to_owned(),
            peer_port: 2888,
            client_port: 2181,
        };
        let members = [member(1, "main-0.main"), member(7, "::1")];
        let mut state = State::new();
        let command = config_command(&state, &Membership::founding(vec![MemberId(1)]), &members, Slot(300));
        let before = state.zxid();
        state.apply(&command, 0, &mut Applied::new());
        let text = "server.1=main-0.main:2888:2888:participant;0.0.0.0:2181\n\
                    server.7=[::1]:2888:2888:observer;0.0.0.0:2181\nversion=12c";
        let read = state.get_data("/zookeeper/config", &[]).unwrap();
        assert_eq!((read.data, state.zxid()), (Value::Here(text.as_bytes()), before));
    }
}
