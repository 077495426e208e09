//! Clients and their connections.
//!
//! Owns how frames travel between a client and its member: in order, as TCP does, and lost only
//! together with the connection.

use super::{Event, Result, Wire, World};
use crate::client::Link;
use crate::violation::Violation;
use pharos_replica::ConnId;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

/// Requests a client keeps in flight at most.
const WINDOW: usize = 4;

impl World {
    pub(super) fn client_wakes(&mut self, client: usize) -> Result<()> {
        let third = self.clients[client].timeout_ms as u64 * 1000 / 3;
        let pause = self.rng.between(500, 40_000).min(third);
        self.at(pause, Event::ClientWakes { client });
        match self.conn_of[client] {
            None => self.dial(client),
            Some(conn) => self.use_connection(client, conn),
        }
        Ok(())
    }

    fn dial(&mut self, client: usize) {
        let member = self.rng.below(self.members.len() as u64) as usize;
        let m = &self.members[member];
        let Some(process) = &m.process else { return };
        let (life, boot) = (m.life, process.boot);
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let now = self.now;
        self.wires.insert(
            conn,
            Wire {
                client,
                member,
                life,
                boot,
                last_in: now,
                last_out: now,
                unread: VecDeque::new(),
                opened: false,
            },
        );
        self.conn_of[client] = Some(conn);
        self.clients[client].heard_at = now;
        let frame = self.clients[client].hello();
        self.deliver(conn, frame);
    }

    fn use_connection(&mut self, client: usize, conn: ConnId) {
        let silent = self.now - self.clients[client].heard_at;
        let patience = self.clients[client].timeout_ms as u64 * 1000 * 2 / 3;
        if silent > patience || (self.storm && self.rng.per_mille(4)) {
            return self.hang_up(client, conn);
        }
        if self.clients[client].link != Link::Up {
            return;
        }
        let mut asked = false;
        while self.clients[client].outstanding() < WINDOW && self.rng.per_mille(600) {
            let frame = self.clients[client].ask(&mut self.rng, self.written, self.versions.asks_for_more());
            self.deliver(conn, frame);
            asked = true;
        }
        if !asked && self.rng.per_mille(300) {
            let frame = self.clients[client].ping();
            self.deliver(conn, frame);
        }
    }

    /// The client gives its connection up; the member hears of it later.
    fn hang_up(&mut self, client: usize, conn: ConnId) {
        self.clients[client].disconnected();
        self.conn_of[client] = None;
        let delay = self.rng.between(100, 50_000);
        self.at(delay, Event::ClientGone { conn });
    }

    fn deliver(&mut self, conn: ConnId, frame: Vec<u8>) {
        let delay = self.rng.between(20, 800);
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        wire.last_in = wire.last_in.max(self.now + delay);
        let delay = wire.last_in - self.now;
        self.at(delay, Event::ToMember { conn, frame });
    }

    pub(super) fn at_member(&mut self, conn: ConnId, frame: Vec<u8>) -> Result<()> {
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.unread.push_back(frame);
        }
        self.read_on(conn)
    }

    pub(super) fn read_on(&mut self, conn: ConnId) -> Result<()> {
        while let Some(wire) = self.wires.get_mut(&conn).filter(|wire| !wire.unread.is_empty()) {
            let paused = self.members[wire.member].paused_until;
            if paused > self.now {
                self.at(paused - self.now, Event::ReadOn { conn });
                return Ok(());
            }
            let frame = wire.unread.pop_front().expect("it was just seen");
            self.read_frame(conn, &frame)?;
        }
        Ok(())
    }

    fn read_frame(&mut self, conn: ConnId, frame: &[u8]) -> Result<()> {
        let Some(wire) = self.wires.get_mut(&conn) else { return Ok(()) };
        let (member, life, client) = (wire.member, wire.life, wire.client);
        let first = !std::mem::replace(&mut wire.opened, true);
        if self.clients[client].link == Link::Up && self.conn_of[client] == Some(conn) {
            self.clock.spoke(self.clients[client].session, self.clients[client].timeout_ms, self.now);
        }
        self.turn_of(member, life, |r| {
            if first {
                r.client_open(conn, IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            r.client_frame(conn, frame);
        })
    }

    /// Takes what the member has written for its clients.
    pub(super) fn flush_clients(&mut self, member: usize) -> Result<()> {
        loop {
            let Some(process) = &mut self.members[member].process else { return Ok(()) };
            let Some(conn) = process.replica.next_dirty() else { return Ok(()) };
            let Some(buffer) = process.replica.buffer(conn) else { continue };
            let bytes = buffer.split();
            if !bytes.is_empty() && process.replica.was_removed() {
                return Err(Violation::new("a member that knows that it was removed answers a client"));
            }
            process.replica.written(conn);
            let votes = process.replica.registry().membership().has(process.replica.me());
            self.coverage.learners_answered += u64::from(!votes && !bytes.is_empty());
            self.say(member, conn, &bytes);
        }
    }

    /// Sends frames, each with its length before it, to a client.
    pub(super) fn say(&mut self, member: usize, conn: ConnId, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let (frame, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
            rest = tail;
            let delay = self.rng.between(20, 800);
            let Some(wire) = self.wires.get_mut(&conn) else { return };
            assert_eq!(wire.member, member, "a member writes to its own clients");
            wire.last_out = wire.last_out.max(self.now + delay);
            let (delay, client) = (wire.last_out - self.now, wire.client);
            if self.clients[client].link == Link::Up && self.conn_of[client] == Some(conn) {
                self.clock.answered(self.clients[client].session, self.now);
            }
            self.at(delay, Event::ToClient { conn, frame: frame.to_vec() });
        }
    }

    pub(super) fn at_client(&mut self, conn: ConnId, frame: &[u8]) -> Result<()> {
        let Some(wire) = self.wires.get(&conn) else { return Ok(()) };
        let (client, origin, boot) = (wire.client, self.members[wire.member].id.0, wire.boot);
        if self.conn_of[client] != Some(conn) {
            return Ok(());
        }
        let key = |serial: u32| (origin, boot, conn.0 << 24 | u64::from(serial));
        self.clients[client].heard_at = self.now;
        let seen = self.clients[client].hear(frame, key, &self.reference)?;
        self.coverage.acknowledged += seen.acknowledged;
        self.coverage.watch_events += seen.events;
        self.coverage.syncs += seen.syncs;
        self.coverage.sessions_resumed += seen.resumed;
        self.written = self.written.max(seen.written.unwrap_or(0));
        Ok(())
    }

    /// The member closed the connection: what it wrote last arrives first.
    pub(super) fn closed_by_member(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.get(&conn) {
            let delay = wire.last_out.max(self.now) - self.now + 1;
            self.at(delay, Event::MemberGone { conn });
        }
    }

    pub(super) fn drop_wire(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.remove(&conn)
            && self.conn_of[wire.client] == Some(conn)
        {
            self.clients[wire.client].disconnected();
            self.conn_of[wire.client] = None;
        }
    }

    pub(super) fn client_gone(&mut self, conn: ConnId) -> Result<()> {
        let Some(wire) = self.wires.remove(&conn) else { return Ok(()) };
        self.turn_of(wire.member, wire.life, |r| r.client_closed(conn))
    }

    pub(super) fn close_wires_of(&mut self, member: usize) {
        let gone: Vec<_> = self.wires.iter().filter(|(_, w)| w.member == member).map(|(id, _)| *id).collect();
        for conn in gone {
            let delay = self.rng.between(100, 20_000);
            self.at(delay, Event::MemberGone { conn });
        }
    }
}
