//! The state on its way to members that lack what is trimmed.
//!
//! Owns who is sent what, how fast, and what happens when a connection breaks in between. Must not know the store, which
//! is read part by part beside everything else. Invariants: few parts of a transfer are in memory; what a member is being
//! sent, the log of the sender goes on from; a broken connection costs only the parts that were under way.

use crate::io::{Output, SnapshotStep};
use crate::peer_msg::PeerMsg;
use crate::replica::{Leadership, Replica};
use bytes::Bytes;
use pharos_paxos::{Ballot, MemberId, Millis, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Parts of a transfer that are in memory: read, and not acknowledged.
const WINDOW: usize = 8;
/// Milliseconds without an answer after which what is not acknowledged is sent again.
const RESEND_MS: u64 = 3_000;
/// The same after which a transfer is given up, to begin anew.
const PATIENCE_MS: u64 = 10_000;
/// The same while there is no connection.
const ABSENCE_MS: u64 = 60_000;
/// The rate's share of a second that may be sent at once.
const BURST: u64 = 20;

/// What has happened to transfers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Those that went on where they stood, after a connection had broken.
    pub resumed: u64,
    /// How often a part had to wait for the rate.
    pub held_back: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Sending {
    transfers: BTreeMap<MemberId, Outgoing>,
    next: u64,
    /// Whom there is a connection to.
    connected: BTreeSet<MemberId>,
    /// Whose part went last: the others come first.
    last: Option<MemberId>,
    /// Bytes that may be sent; below zero after a large part.
    credit: i64,
    credit_at: Millis,
    /// A part waits for credit.
    short: bool,
    counts: Transfers,
}

/// A transfer to a member.
#[derive(Debug)]
struct Outgoing {
    transfer: u64,
    ballot: Ballot,
    /// The process that it is for.
    boot: Option<u64>,
    /// Entries above are kept.
    upto: Slot,
    /// The store is being read.
    open: bool,
    /// A part is being read.
    reading: bool,
    /// All parts are read.
    ended: bool,
    /// Parts from number `acknowledged` on.
    window: VecDeque<Bytes>,
    acknowledged: u32,
    sent: u32,
    /// Part number `acknowledged` was sent: it is the receiver's turn, and not that of the store or of the rate.
    awaited: bool,
    /// When that began, or the connection stood.
    progress_at: Millis,
    resent_at: Millis,
}

impl Outgoing {
    fn read(&self) -> u32 {
        self.acknowledged + self.window.len() as u32
    }
}

impl Sending {
    /// The log is kept from here on while members are sent the state.
    pub(crate) fn hold(&self) -> Option<Slot> {
        self.transfers.values().map(|outgoing| outgoing.upto).min()
    }

    pub(crate) fn counts(&self) -> Transfers {
        self.counts
    }

    /// A connection to the process stands. What it was being sent goes on, unless it has ended since.
    pub(crate) fn connected(&mut self, peer: MemberId, boot: u64, now: Millis) -> Option<Output> {
        self.connected.insert(peer);
        let outgoing = self.transfers.get_mut(&peer)?;
        if outgoing.boot.is_some_and(|known| known != boot) {
            return self.end(peer);
        }
        self.counts.resumed += u64::from(outgoing.acknowledged > 0);
        outgoing.boot = Some(boot);
        (outgoing.sent, outgoing.awaited) = (outgoing.acknowledged, false);
        (outgoing.progress_at, outgoing.resent_at) = (now, now);
        None
    }

    /// The connection broke.
    pub(crate) fn lost(&mut self, peer: MemberId) {
        self.connected.remove(&peer);
    }

    /// Parts below `next` have arrived.
    pub(crate) fn acknowledged(&mut self, from: MemberId, upto: Slot, next: u32, now: Millis) {
        let current = self.transfers.get_mut(&from).filter(|o| o.upto == upto && o.open);
        if let Some(outgoing) = current
            && next > outgoing.acknowledged
            && next <= outgoing.sent
        {
            outgoing.window.drain(..(next - outgoing.acknowledged) as usize);
            outgoing.acknowledged = next;
            outgoing.awaited = next < outgoing.sent;
            (outgoing.progress_at, outgoing.resent_at) = (now, now);
        }
    }

    /// Ends a transfer; what the driver has to hear of it.
    fn end(&mut self, to: MemberId) -> Option<Output> {
        let Outgoing { transfer, .. } = self.transfers.remove(&to)?;
        Some(Output::Snapshot { transfer, step: SnapshotStep::Close })
    }

    fn earn(&mut self, rate: u64, now: Millis) {
        let since = now.0.saturating_sub(self.credit_at.0).min(1_000);
        let most = (rate / BURST).max(1).cast_signed();
        let earned = (rate.saturating_mul(since) / 1_000).cast_signed();
        self.credit = self.credit.saturating_add(earned).min(most);
        self.credit_at = now;
    }
}

impl Replica {
    /// What has happened to the transfers of this process.
    #[must_use]
    pub fn transfers(&self) -> Transfers {
        self.sending.counts()
    }

    /// The store is open for the transfer, as it is after `upto`.
    pub fn snapshot_opened(&mut self, transfer: u64, upto: Slot) {
        let now = self.now.mono;
        if let Some(outgoing) = self.sending.transfers.values_mut().find(|o| o.transfer == transfer) {
            assert!(upto >= outgoing.upto, "the store does not go back");
            (outgoing.upto, outgoing.open) = (upto, true);
            (outgoing.progress_at, outgoing.resent_at) = (now, now);
        }
    }

    /// The next part of a transfer was read: rows as [`crate::put_row`] writes them, or none when there are no more.
    pub fn snapshot_part(&mut self, transfer: u64, rows: Option<Bytes>) {
        if let Some(outgoing) = self.sending.transfers.values_mut().find(|o| o.transfer == transfer) {
            outgoing.reading = false;
            outgoing.ended = rows.is_none();
            // The last part has no rows: that there are no more is known when all were read.
            outgoing.window.push_back(rows.unwrap_or_default());
        }
    }

    /// The store cannot be read on as it was when the transfer began, which begins anew.
    pub fn snapshot_lost(&mut self, transfer: u64) {
        let all = &self.sending.transfers;
        let to = all.iter().find(|(_, outgoing)| outgoing.transfer == transfer).map(|(to, _)| *to);
        let closed = to.and_then(|to| self.sending.end(to));
        self.outputs.extend(closed);
    }

    /// Begins, goes on with and ends the transfers to members that are behind.
    pub(crate) fn send_snapshots(&mut self) {
        self.end_transfers();
        self.begin_transfers();
        for outgoing in self.sending.transfers.values_mut() {
            if outgoing.open && !outgoing.reading && !outgoing.ended && outgoing.window.len() < WINDOW {
                outgoing.reading = true;
                let (transfer, step) = (outgoing.transfer, SnapshotStep::Next);
                self.outputs.push_back(Output::Snapshot { transfer, step });
            }
        }
        self.sending.earn(self.cfg.transfer_bytes_per_s, self.now.mono);
        while let Some(to) = self.next_to_send() {
            self.send_part(to);
        }
    }

    fn end_transfers(&mut self) {
        let now = self.now.mono.0;
        let over = |(to, o): (&MemberId, &Outgoing)| {
            let here = self.sending.connected.contains(to);
            let patience = if here { PATIENCE_MS } else { ABSENCE_MS };
            let given_up = o.open && (o.awaited || !here) && now - o.progress_at.0 >= patience;
            let arrived = o.ended && o.window.is_empty();
            let asks = self.digests.is_asking(*to);
            let done = if asks { arrived } else { !self.paxos.behind().any(|member| member == *to) };
            (given_up || done).then_some(*to)
        };
        let over: Vec<MemberId> = self.sending.transfers.iter().filter_map(over).collect();
        for to in over {
            let closed = self.sending.end(to);
            self.outputs.extend(closed);
            self.digests.answered(to);
        }
        for (to, outgoing) in &mut self.sending.transfers {
            if self.sending.connected.contains(to) && now - outgoing.resent_at.0 >= RESEND_MS {
                outgoing.sent = outgoing.acknowledged;
                outgoing.resent_at = self.now.mono;
            }
        }
    }

    fn begin_transfers(&mut self) {
        let Leadership::Leads { ballot } = self.leadership else { return };
        let upto = self.persist.flushed();
        // Of the state before the last change of the voters a member would learn of an ensemble that is over.
        if upto < self.registry.membership().since {
            return;
        }
        let lacks =
            |to: &MemberId| self.sending.connected.contains(to) && !self.sending.transfers.contains_key(to);
        let needy: Vec<MemberId> =
            self.paxos.behind().chain(self.digests.asking(upto)).filter(lacks).collect();
        for to in needy {
            if self.sending.transfers.contains_key(&to) {
                continue;
            }
            self.sending.next += 1;
            let (transfer, now) = (self.sending.next, self.now.mono);
            let outgoing = Outgoing {
                transfer,
                ballot,
                boot: self.peers.get(&to).copied(),
                upto,
                open: false,
                reading: false,
                ended: false,
                window: VecDeque::new(),
                acknowledged: 0,
                sent: 0,
                awaited: false,
                progress_at: now,
                resent_at: now,
            };
            self.sending.transfers.insert(to, outgoing);
            self.outputs.push_back(Output::Snapshot { transfer, step: SnapshotStep::Open });
        }
    }

    /// Whose turn it is, of those for whom a part is there; nobody's while there is no credit.
    fn next_to_send(&mut self) -> Option<MemberId> {
        let Sending { transfers, connected, last, credit, short, counts, .. } = &mut self.sending;
        let ready = |(to, o): &(&MemberId, &Outgoing)| connected.contains(*to) && o.sent < o.read();
        let mut all = transfers.iter().filter(ready).map(|(to, _)| *to);
        let to = all.clone().find(|to| Some(*to) > *last).or_else(|| all.next())?;
        let held = *credit <= 0;
        counts.held_back += u64::from(held && !*short);
        *short = held;
        (!held).then_some(to)
    }

    fn send_part(&mut self, to: MemberId) {
        let complete = self.paxos.epoch_start();
        let Some(outgoing) = self.sending.transfers.get_mut(&to) else { return };
        let (ballot, upto, part) = (outgoing.ballot, outgoing.upto, outgoing.sent);
        let rows = outgoing.window[(part - outgoing.acknowledged) as usize].clone();
        outgoing.sent += 1;
        if !std::mem::replace(&mut outgoing.awaited, true) {
            (outgoing.progress_at, outgoing.resent_at) = (self.now.mono, self.now.mono);
        }
        let last = outgoing.ended && outgoing.sent == outgoing.read();
        // Their number is known at the end; until then it is said to be none.
        let parts = if last { part + 1 } else { 0 };
        self.sending.last = Some(to);
        self.sending.credit -= (rows.len() as i64).max(1);
        let complete = complete.is_some_and(|start| start <= upto);
        self.send(to, &PeerMsg::Snapshot { ballot, upto, complete, part, parts, rows });
    }

    /// The leader has changed: what this member sent as leader ends here.
    pub(crate) fn stop_sending(&mut self) {
        let all: Vec<MemberId> = self.sending.transfers.keys().copied().collect();
        for to in all {
            let closed = self.sending.end(to);
            self.outputs.extend(closed);
        }
    }
}
