//! The clients' connections.
//!
//! Owns accepting, reading, writing and closing them, and the limits on all four. Must not know the
//! protocol beyond where a frame ends: frames go to the replica, and what it leaves in a connection's
//! buffer goes out.
//!
//! Invariants: one read and one write per connection and turn; a connection whose output is not read is
//! not read either; what was promised as last words is written before the close.

use crate::frames::{ClientFrameError, ClientFrames};
use crate::slab::Slab;
use crate::status::Counters;
use crate::view::View;
use crate::words::{self, ClientLine, Word};
use bytes::{Buf, Bytes, BytesMut};
use hashbrown::HashMap;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use pharos_replica::{ConnId, Replica};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

/// Tokens of clients begin here.
pub(crate) const FIRST_TOKEN: usize = 1 << 32;
/// What is read at once. Many pipelined requests fit.
const READ_BYTES: usize = 64 << 10;
/// Clients accepted in one turn, so that a flood does not delay heartbeats.
const ACCEPTS_PER_TURN: usize = 64;
/// Bytes read from clients in one turn.
const READ_BUDGET: usize = 1 << 20;
/// A connection with more unread output than this is closed: answers wait for room, watch events come unasked.
const OUTPUT_LIMIT: usize = 256 << 20;
const LINGER_MS: u64 = 1_000;

/// How many clients there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_frame: usize,
    /// Of one address; 0 for no limit.
    pub(crate) per_ip: u32,
    /// In all; 0 for no limit.
    pub(crate) total: u32,
    /// Milliseconds from the connection to the end of the handshake's first frame.
    pub(crate) speak_within_ms: u64,
}

/// What a connection needs of its surroundings in a turn.
pub(crate) struct Turn<'a> {
    pub(crate) replica: &'a mut Replica,
    pub(crate) counters: &'a mut Counters,
    pub(crate) now_ms: u64,
    pub(crate) now_us: u64,
    pub(crate) view: &'a View,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing but a few bytes has come: it may be a four-letter word.
    Silent,
    /// The replica knows it.
    Open,
    /// Only our last words are still to be written, or the client's end to be awaited.
    Closing,
}

struct Client {
    id: ConnId,
    socket: TcpStream,
    address: SocketAddr,
    phase: Phase,
    frames: ClientFrames,
    /// Last words; the replica's buffer is gone.
    last_words: BytesMut,
    shut: bool,
    writable: bool,
    /// There may be bytes to read.
    readable: bool,
    /// The other side has ended; the bytes before that may not have been read.
    ended: bool,
    /// Waits in the ready queue.
    queued: bool,
    received: u64,
    /// When the request was read whose reply is awaited for the latency sample.
    sampled_us: Option<u64>,
    /// Bytes of the frame that was written in part.
    unfinished: usize,
}

/// All clients of this member.
pub(crate) struct Clients {
    listener: Option<TcpListener>,
    limits: Limits,
    table: Slab<Client>,
    /// Connections are numbered through; places are used again.
    places: HashMap<ConnId, usize>,
    per_ip: BTreeMap<IpAddr, u32>,
    opened: u64,
    ready: VecDeque<ConnId>,
    acceptable: bool,
    /// After a failed accept, such as for want of descriptors.
    accept_after_ms: u64,
    /// Who has to speak, or to hang up, until when; in order of the deadline each.
    to_speak: VecDeque<(u64, ConnId)>,
    to_hang_up: VecDeque<(u64, ConnId)>,
    scratch: Vec<u8>,
}

impl Clients {
    pub(crate) fn new(listener: TcpListener, limits: Limits) -> Self {
        Self {
            listener: Some(listener),
            limits,
            table: Slab::new(),
            places: HashMap::new(),
            per_ip: BTreeMap::new(),
            opened: 0,
            ready: VecDeque::new(),
            acceptable: true,
            accept_after_ms: 0,
            to_speak: VecDeque::new(),
            to_hang_up: VecDeque::new(),
            scratch: vec![0; READ_BYTES],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The listener has news.
    pub(crate) fn on_acceptable(&mut self) {
        self.acceptable = true;
    }

    /// A client's socket has news.
    pub(crate) fn on_ready(&mut self, event: &Event) -> Option<ConnId> {
        let client = self.table.get_mut(event.token().0 - FIRST_TOKEN)?;
        client.ended |= event.is_read_closed() || event.is_error();
        client.readable |= event.is_readable() || client.ended;
        client.writable |= event.is_writable();
        let (id, readable) = (client.id, client.readable);
        if readable {
            self.enqueue(id);
        }
        event.is_writable().then_some(id)
    }

    /// No more clients are taken.
    pub(crate) fn stop_accepting(&mut self) {
        self.listener = None;
    }

    /// Whether the next turn has work without waiting for the sockets.
    pub(crate) fn has_work(&self, now_ms: u64) -> bool {
        !self.ready.is_empty()
            || (self.acceptable && self.listener.is_some() && now_ms >= self.accept_after_ms)
    }

    /// Accepts those who wait.
    pub(crate) fn accept(&mut self, registry: &Registry, turn: &mut Turn<'_>) {
        if !self.acceptable || turn.now_ms < self.accept_after_ms {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, address)) => self.admit(registry, turn, socket, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptable = false;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept clients for 100 ms");
                    self.accept_after_ms = turn.now_ms + 100;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, registry: &Registry, turn: &mut Turn<'_>, socket: TcpStream, address: SocketAddr) {
        let ip = address.ip().to_canonical();
        let of_ip = self.per_ip.get(&ip).copied().unwrap_or(0);
        let full = |limit: u32, count: usize| limit > 0 && count >= limit as usize;
        if full(self.limits.per_ip, of_ip as usize) || full(self.limits.total, self.table.len()) {
            turn.counters.rejected += 1;
            tracing::debug!(%address, "too many connections, turned away");
            return;
        }
        if let Err(error) = self.register(registry, socket, address, turn.now_ms) {
            tracing::debug!(%address, %error, "the client is gone already");
            return;
        }
        turn.counters.accepted += 1;
        *self.per_ip.entry(ip).or_insert(0) += 1;
    }

    fn register(
        &mut self,
        registry: &Registry,
        mut socket: TcpStream,
        address: SocketAddr,
        now_ms: u64,
    ) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let token = Token(FIRST_TOKEN + self.table.next_place());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.opened += 1;
        let id = ConnId(self.opened);
        let place = self.table.insert(Client {
            id,
            socket,
            address,
            phase: Phase::Silent,
            frames: ClientFrames::new(self.limits.max_frame),
            last_words: BytesMut::new(),
            shut: false,
            writable: true,
            readable: true,
            ended: false,
            queued: false,
            received: 0,
            sampled_us: None,
            unfinished: 0,
        });
        self.places.insert(id, place);
        self.to_speak.push_back((now_ms + self.limits.speak_within_ms, id));
        self.enqueue(id);
        Ok(())
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Client> {
        self.table.get_mut(*self.places.get(&id)?)
    }

    fn enqueue(&mut self, id: ConnId) {
        if let Some(client) = self.get(id)
            && !client.queued
        {
            client.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Reads once from each connection that has something, within the turn's budget.
    pub(crate) fn read(&mut self, turn: &mut Turn<'_>) {
        let mut budget = READ_BUDGET;
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { return };
            if budget == 0 {
                self.ready.push_front(id);
                return;
            }
            let Some(client) = self.get(id) else { continue };
            client.queued = false;
            budget = budget.saturating_sub(self.read_one(turn, id));
        }
    }

    /// Returns how many bytes it read.
    fn read_one(&mut self, turn: &mut Turn<'_>, id: ConnId) -> usize {
        let Some(place) = self.places.get(&id) else { return 0 };
        let Some(client) = self.table.get_mut(*place) else { return 0 };
        let mut scratch = std::mem::take(&mut self.scratch);
        let held_back = turn.replica.holds_back(id);
        let result = if !client.readable || held_back {
            Err(io::Error::from(io::ErrorKind::WouldBlock))
        } else {
            client.socket.read(&mut scratch)
        };
        let read = match result {
            Ok(0) => {
                self.gone(turn, id);
                0
            }
            Ok(read) => {
                turn.counters.bytes_received += read as u64;
                self.take(turn, id, &scratch[..read]);
                // A short read has emptied the socket, and the next bytes raise a new event; an end that
                // has been announced does not raise another.
                if let Some(client) = self.get(id) {
                    client.readable = read == scratch.len() || client.ended;
                    if client.readable {
                        self.enqueue(id);
                    }
                }
                read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !held_back {
                    client.readable = false;
                }
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.enqueue(id);
                0
            }
            Err(_) => {
                self.gone(turn, id);
                0
            }
        };
        self.scratch = scratch;
        read
    }

    fn take(&mut self, turn: &mut Turn<'_>, id: ConnId, data: &[u8]) {
        let Some(client) = self.get(id) else { return };
        match client.phase {
            Phase::Closing => return,
            Phase::Open => {}
            Phase::Silent => {
                let head: Vec<u8> = client.frames.pending().iter().chain(data).take(4).copied().collect();
                if let Some(head) = head.first_chunk::<4>() {
                    if let Some(word) = Word::parse(*head) {
                        return self.answer_word(turn, id, word);
                    }
                    client.phase = Phase::Open;
                    turn.replica.client_open(id, client.address.ip().to_canonical());
                }
            }
        }
        let (mut frames, now_us) = (0, turn.now_us);
        let replica = &mut *turn.replica;
        let fed = client.frames.feed(data, |frame| {
            frames += 1;
            replica.client_frame(id, frame);
        });
        client.received += frames;
        turn.counters.packets_received += frames;
        if frames > 0 && client.sampled_us.is_none() {
            client.sampled_us = Some(now_us);
        }
        if let Err(error) = fed {
            self.not_a_frame(turn, id, error);
        }
    }

    /// As `ZooKeeper` does: no reply, the connection is closed.
    fn not_a_frame(&mut self, turn: &mut Turn<'_>, id: ConnId, error: ClientFrameError) {
        match error {
            ClientFrameError::Oversized { .. } => turn.counters.oversized += 1,
            ClientFrameError::Negative(_) => turn.counters.malformed += 1,
        }
        if let Some(client) = self.get(id) {
            tracing::warn!(address = %client.address, %error, "closing the client");
        }
        self.gone(turn, id);
    }

    fn answer_word(&mut self, turn: &mut Turn<'_>, id: ConnId, word: Word) {
        let clients: Vec<ClientLine> = match word {
            Word::Stat => self.lines(turn.replica),
            _ => Vec::new(),
        };
        let snapshot = turn.view.snapshot(turn.replica, turn.counters, self.table.len());
        let text = words::answer(word, &snapshot, &turn.view.settings(), &clients);
        self.close(turn, id, Bytes::from(text));
    }

    fn lines(&self, replica: &mut Replica) -> Vec<ClientLine> {
        let line = |client: &Client| ClientLine {
            address: client.address,
            received: client.received,
            queued: replica.buffer(client.id).map_or(0, |buffer| buffer.len()),
        };
        self.table.iter().map(|(_, client)| client).map(line).collect()
    }

    /// Writes the last words, then closes. The replica has forgotten the connection, or never knew it.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>, id: ConnId, last_words: Bytes) {
        let deadline = turn.now_ms + LINGER_MS;
        let Some(client) = self.get(id) else { return };
        client.phase = Phase::Closing;
        client.last_words.extend_from_slice(&last_words);
        self.to_hang_up.push_back((deadline, id));
        self.write(turn, id);
    }

    /// Writes once what waits for the client.
    pub(crate) fn write(&mut self, turn: &mut Turn<'_>, id: ConnId) {
        let Some(client) = self.get(id) else { return };
        let outcome = match client.phase {
            Phase::Silent => return,
            Phase::Closing => client.write_last_words(turn.counters),
            Phase::Open => {
                let Some(buffer) = turn.replica.buffer(id) else { return };
                let outcome = client.write_from(buffer, turn.counters);
                let unread = buffer.len();
                turn.replica.written(id);
                if let Some(since) = client.sampled_us.take_if(|_| client.writable || unread == 0) {
                    turn.counters.latency.record(turn.now_us.saturating_sub(since));
                }
                if unread > OUTPUT_LIMIT {
                    turn.counters.too_slow += 1;
                    tracing::warn!(address = %client.address, unread, "closing a client that does not read");
                    Outcome::Gone
                } else {
                    outcome
                }
            }
        };
        match outcome {
            Outcome::Kept => {
                if client.readable {
                    self.enqueue(id);
                }
            }
            Outcome::Gone => self.gone(turn, id),
        }
    }

    /// The socket is of no more use.
    fn gone(&mut self, turn: &mut Turn<'_>, id: ConnId) {
        let Some(client) = self.places.remove(&id).and_then(|place| self.table.remove(place)) else { return };
        if client.phase == Phase::Open {
            turn.replica.client_closed(id);
        }
        let ip = client.address.ip().to_canonical();
        if let Some(count) = self.per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }

    /// Drops those who did not speak or hang up in time.
    pub(crate) fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some((_, id)) = self.to_speak.pop_front_if(|(deadline, _)| *deadline <= turn.now_ms) {
            let silent = self.get(id).is_some_and(|client| client.phase == Phase::Silent);
            if silent || turn.replica.awaits_handshake(id) {
                self.gone(turn, id);
            }
        }
        while let Some((_, id)) = self.to_hang_up.pop_front_if(|(deadline, _)| *deadline <= turn.now_ms) {
            if self.get(id).is_some_and(|client| client.phase == Phase::Closing) {
                self.gone(turn, id);
            }
        }
    }

    /// Writes once more to everyone; the end of the server.
    pub(crate) fn flush_all(&mut self, turn: &mut Turn<'_>) {
        let all: Vec<ConnId> = self.table.iter().map(|(_, client)| client.id).collect();
        for id in all {
            self.write(turn, id);
        }
    }
}

enum Outcome {
    Kept,
    Gone,
}

impl Client {
    fn write_from(&mut self, buffer: &mut BytesMut, counters: &mut Counters) -> Outcome {
        if !self.writable || buffer.is_empty() {
            return Outcome::Kept;
        }
        match self.socket.write(buffer) {
            Ok(written) => {
                counters.bytes_sent += written as u64;
                // A short write has filled the socket; room raises a new event.
                self.writable = written == buffer.len();
                counters.packets_sent += frames_ended(buffer, written, &mut self.unfinished);
                buffer.advance(written);
                Outcome::Kept
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Outcome::Kept
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Outcome::Kept,
            Err(_) => Outcome::Gone,
        }
    }

    /// Closing a socket with unread input resets it, and the client would lose our last words. So we end
    /// our side, and wait a little for the client to end its own.
    fn write_last_words(&mut self, counters: &mut Counters) -> Outcome {
        let mut words = std::mem::take(&mut self.last_words);
        let outcome = self.write_from(&mut words, counters);
        self.last_words = words;
        if matches!(outcome, Outcome::Kept) && self.last_words.is_empty() && !self.shut {
            self.shut = true;
            if self.socket.shutdown(Shutdown::Write).is_err() {
                return Outcome::Gone;
            }
        }
        outcome
    }
}

/// How many frames end within the first `written` bytes of a buffer of whole frames, the first of which
/// may have been written in part before.
fn frames_ended(buffer: &[u8], written: usize, unfinished: &mut usize) -> u64 {
    let (mut end, mut count) = (*unfinished, u64::from(*unfinished > 0 && *unfinished <= written));
    while end < written {
        let Some(head) = buffer[end..].first_chunk::<4>() else { break };
        end += 4 + u32::from_be_bytes(*head) as usize;
        count += u64::from(end <= written);
    }
    *unfinished = end.saturating_sub(written);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_once_however_they_are_written() {
        let wire = [0, 0, 0, 2, 8, 8, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for first in 0..=wire.len() {
            let mut unfinished = 0;
            let count = frames_ended(&wire, first, &mut unfinished);
            let rest = frames_ended(&wire[first..], wire.len() - first, &mut unfinished);
            assert_eq!((count + rest, unfinished), (3, 0), "cut at {first}");
        }
    }
}
