//! What a member does without when its disk is full, and how it gets back.
//!
//! Owns who is known to be full, and since when entries pass this member by. Must not know files. Invariants: while it
//! is full a member proposes nothing and ends no session, so nothing is acknowledged that depends on its disk; while
//! its log is short of segments it takes no entries but the few that a leader needs to be followed, for which a segment
//! is left; promises, heartbeats and reads go on.

use crate::peer_msg::PeerMsg;
use crate::replica::{Leadership, Replica};
use pharos_paxos::{Entry, EntryKind, MemberId, Message, Millis};
use pharos_znode::Level;
use std::collections::BTreeMap;

/// A peer that has not said for this long that its disk is full has room: it says so with every report.
const SAID_LATELY_MS: u64 = 1_000;
/// Bytes of entries that are taken into a short log with a new leader's prefix.
const LEFT_FOR_LEADERS: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Room {
    /// The store could not flush, or the room that is kept for it is not there.
    store_is_full: bool,
    /// When the first entry was refused that the others may go on with.
    passed_by: Option<Millis>,
    /// When each peer said last that its disk is full.
    full_peers: BTreeMap<MemberId, Millis>,
    /// The next try to hand leadership on.
    hand_over_after: Millis,
    /// The disk was full in the last turn.
    was_full: bool,
}

impl Room {
    /// May a session with this timeout be served? What this member shows gets old while others go on.
    pub(crate) fn serves(&self, timeout_ms: u64, now: Millis) -> bool {
        self.passed_by.is_none_or(|at| (now.0 - at.0) * 3 <= timeout_ms)
    }

    fn has_room(&self, peer: MemberId, now: Millis) -> bool {
        self.full_peers.get(&peer).is_none_or(|at| now.0 - at.0 > SAID_LATELY_MS)
    }
}

impl Replica {
    /// The disk has no room for what the store has to flush. Until [`Replica::store_has_room`] nothing is proposed.
    pub fn store_is_full(&mut self) {
        self.room.store_is_full = true;
    }

    /// The store has room again, and what is kept in reserve for it is there.
    pub fn store_has_room(&mut self) {
        self.room.store_is_full = false;
    }

    /// The spare segment of an [`crate::Output::Spare`] does not fit onto the disk; it is asked for again later.
    pub fn spare_failed(&mut self) {
        self.group.spare_failed(self.now.mono);
    }

    /// Whether the disk is full, as far as this member can tell.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room.store_is_full || self.group.is_short()
    }

    /// A peer says that its disk is full.
    pub(crate) fn take_full(&mut self, peer: MemberId) {
        self.room.full_peers.insert(peer, self.now.mono);
    }

    /// Told with each report to the leader, who then does not hand over to this member. One of a version that knows no
    /// such message would break the link.
    pub(crate) fn report_full(&mut self) {
        if let Leadership::Follows { leader, .. } = self.leadership
            && self.is_full()
            && self.levels.knows(leader, Level::TTL)
        {
            self.send(leader, &PeerMsg::Full);
        }
    }

    /// Whether a message has to be treated as lost, since the log has no room for what is in it.
    pub(crate) fn passes_by(&mut self, message: &Message) -> bool {
        let entries = match message {
            Message::Accept { entries, .. } | Message::AcceptSync { entries, .. } => entries,
            _ => return false,
        };
        if !self.group.is_short() || entries.is_empty() {
            return false;
        }
        let is_sync = matches!(message, Message::AcceptSync { .. });
        let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
        let of_leader = |entry: &Entry| entry.kind != EntryKind::Commands;
        if bytes <= LEFT_FOR_LEADERS && (is_sync || entries.iter().all(of_leader)) {
            return false;
        }
        self.room.passed_by.get_or_insert(self.now.mono);
        true
    }

    /// With every turn: notices that there is room again, and hands leadership on to a member that has some.
    pub(crate) fn spare_full_disk(&mut self) {
        if !self.group.is_short() {
            self.room.passed_by = None;
        }
        let is_full = self.is_full();
        if std::mem::replace(&mut self.room.was_full, is_full) && !is_full && self.leads() {
            // No client could attach its session anew meanwhile.
            self.grant_full_timeouts();
        }
        let now = self.now.mono;
        if !is_full || !self.leads() || now < self.room.hand_over_after {
            return;
        }
        let votes = |peer: MemberId| self.registry.membership().has(peer);
        let status = self.paxos.status();
        let heirs = status.peers.iter().filter(|peer| votes(peer.member) && peer.keeps_up);
        let heirs = heirs.filter(|peer| self.room.has_room(peer.member, now));
        if let Some(heir) = heirs.max_by_key(|peer| peer.matched).map(|peer| peer.member) {
            self.paxos.transfer(heir);
        }
        // A try takes an election timeout at most, and asking is not free.
        self.room.hand_over_after = Millis(now.0 + 2 * self.cfg.election.0);
    }
}
