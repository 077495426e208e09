//! Questions to the core about how far a quorum-confirmed leader has come.
//!
//! Owns what each question was asked for. Must not know how the core finds out. Invariant: all syncs
//! of one turn share one question, asked after the last of them arrived.

use crate::clients::Pending;
use crate::io::{CloseReason, ConnId};
use crate::peer_msg::PeerMsg;
use crate::replica::{Leadership, Replica};
use pharos_paxos::{MemberId, Slot};
use pharos_znode::SessionId;
use std::collections::BTreeMap;

/// Why a question was asked.
#[derive(Debug)]
enum Purpose {
    /// This member's own touch report, while it leads.
    Contact { report: u64 },
    /// A peer's touch report.
    PeerContact { peer: MemberId, report: u64 },
    /// Syncs of clients.
    Syncs { conns: Vec<ConnId> },
}

#[derive(Debug, Default)]
pub(crate) struct ReadIndexes {
    next: u64,
    asked: BTreeMap<u64, Purpose>,
    /// The question that this turn's syncs share.
    open: Option<(u64, Vec<ConnId>)>,
    /// Syncs whose slot is not applied yet.
    waiting: BTreeMap<Slot, Vec<ConnId>>,
}

impl ReadIndexes {
    /// A client syncs; returns the question it waits for.
    pub(crate) fn sync(&mut self, conn: ConnId) -> u64 {
        if self.open.is_none() {
            self.next += 1;
            self.open = Some((self.next, Vec::new()));
        }
        let (ctx, conns) = self.open.as_mut().expect("opened above");
        conns.push(conn);
        *ctx
    }

    fn ask(&mut self, purpose: Purpose) -> u64 {
        self.next += 1;
        self.asked.insert(self.next, purpose);
        self.next
    }

    /// Takes the syncs that wait for slots up to `applied`.
    pub(crate) fn take_reached(&mut self, applied: Slot) -> Vec<ConnId> {
        let mut reached = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > applied {
                break;
            }
            reached.extend(entry.remove());
        }
        reached
    }
}

impl Replica {
    /// Asks for the syncs of this turn.
    pub(crate) fn send_reads(&mut self) {
        if let Some((ctx, conns)) = self.reads.open.take() {
            self.reads.asked.insert(ctx, Purpose::Syncs { conns });
            self.paxos.read_index(ctx);
            self.take_core_outputs();
        }
    }

    /// Reports to the leader which clients have spoken, and thereby asks whether it is one.
    pub(crate) fn report_contact(&mut self) {
        match self.leadership {
            Leadership::None => {}
            Leadership::Leads { .. } => {
                let now = self.session_clock();
                for session in self.clients.take_touched() {
                    self.expiry.touch(session, now);
                }
                let report = self.contact.send(self.now.mono, std::iter::empty());
                let ctx = self.reads.ask(Purpose::Contact { report });
                self.paxos.read_index(ctx);
            }
            Leadership::Follows { leader, .. } => {
                let touched = self.clients.take_touched();
                let report = self.contact.send(self.now.mono, touched.into_iter());
                let sessions = self.contact.unconfirmed();
                self.send(leader, &PeerMsg::Touch { report, sessions });
                self.report_full();
            }
        }
        self.take_core_outputs();
    }

    /// A peer reports. The leader answers once a quorum has confirmed it after this moment.
    pub(crate) fn take_touch(&mut self, peer: MemberId, report: u64, sessions: &[SessionId]) {
        if !self.leads() {
            return;
        }
        let now = self.session_clock();
        for session in sessions {
            self.expiry.touch(*session, now);
        }
        let ctx = self.reads.ask(Purpose::PeerContact { peer, report });
        self.paxos.read_index(ctx);
    }

    pub(crate) fn read_ready(&mut self, ctx: u64, slot: Slot) {
        match self.reads.asked.remove(&ctx) {
            None => {}
            Some(Purpose::Contact { report }) => self.contact.acknowledged(report),
            Some(Purpose::PeerContact { peer, report }) => {
                let (stream, received) = self.incoming.received(peer);
                self.send(peer, &PeerMsg::TouchAck { report, stream, received });
            }
            Some(Purpose::Syncs { conns }) => self.syncs_ready(ctx, slot, &conns),
        }
    }

    pub(crate) fn read_failed(&mut self, ctx: u64) {
        if let Some(Purpose::Syncs { conns }) = self.reads.asked.remove(&ctx) {
            conns.into_iter().for_each(|conn| self.close(conn, CloseReason::LeaderLost));
        }
    }

    fn syncs_ready(&mut self, asked: u64, upto: Slot, conns: &[ConnId]) {
        for &id in conns {
            let Some(conn) = self.clients.get_mut(id) else { continue };
            for pending in &mut conn.pending {
                if let Pending::Sync { ctx, slot, .. } = pending
                    && *ctx == asked
                {
                    *slot = Some(upto);
                }
            }
        }
        if upto > self.applier.applied() {
            self.reads.waiting.entry(upto).or_default().extend_from_slice(conns);
        } else {
            conns.iter().for_each(|conn| self.drive(*conn));
        }
    }
}
