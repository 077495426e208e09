//! The connections between this member and its peers.
//!
//! Owns the pairing of two lanes into a link, the hellos, the queues of frames and the link's liveness.
//! Must not know what is in a frame. Of two members, the one with the higher id dials.
//!
//! Invariants: a frame leaves [`Links`] only between its link's `Up` and `Down`; one broken lane breaks
//! both; control frames never wait behind bulk ones.

use crate::dial::{Dialler, LastLink, Telephone};
use crate::frames::{MAX_GREETING, MAX_PEER_FRAME, PEER_HEADER, PeerFrames, peer_header};
use crate::hello::{Greeting, Hello, Id128, Refusal, Roster};
use crate::slab::Slab;
use crate::status::Counters;
use bytes::{Buf, Bytes, BytesMut};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use pharos_paxos::MemberId;
use pharos_replica::{Lane, Level, Levels, Member};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;

/// Tokens of peers begin here and end where those of clients begin.
pub(crate) const FIRST_TOKEN: usize = 1 << 16;
const READ_BYTES: usize = 256 << 10;
/// Reads of one lane in a turn.
const READS_PER_TURN: usize = 4;
/// Connections that have not shown a valid hello; more are turned away.
const MAX_STRANGERS: usize = 64;
/// From the connection to both hellos.
const GREET_WITHIN_MS: u64 = 3_000;
/// Silence after which an empty frame is sent on the control lane.
const KEEPALIVE_MS: u64 = 500;
/// Silence after which a link is broken, since a vanished machine closes nothing.
const SILENCE_MS: u64 = 3_000;
/// Unsent bytes after which a link is broken.
const CONTROL_LIMIT: usize = 16 << 20;
const BULK_LIMIT: usize = 256 << 20;
/// Bodies up to this size are copied behind the frames before them, so that one write takes many.
const COPY_BYTES: usize = 4 << 10;
const SLICES: usize = 64;

/// What the replica has to hear, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// Both lanes are there.
    Up {
        peer: MemberId,
        boot: u64,
        levels: Levels,
    },
    Down(MemberId),
    Frame(MemberId, Bytes),
}

#[derive(Clone, Copy, Debug)]
enum Who {
    /// Accepted; its hello will say.
    Stranger,
    /// Dialled; its hello has to say the same.
    Dialled { peer: MemberId },
    /// Its hello was believed.
    Known { peer: MemberId },
}

struct Conn {
    socket: TcpStream,
    address: SocketAddr,
    who: Who,
    incoming: PeerFrames,
    outgoing: Outgoing,
    readable: bool,
    ended: bool,
    writable: bool,
    deadline_ms: u64,
}

/// Frames on their way out. Large bodies are not copied.
#[derive(Default)]
struct Outgoing {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Outgoing {
    fn push(&mut self, body: Bytes) {
        self.bytes += PEER_HEADER + body.len();
        self.tail.extend_from_slice(&peer_header(&body));
        if body.len() <= COPY_BYTES {
            self.tail.extend_from_slice(&body);
        } else {
            self.seal();
            self.sealed.push_back(body);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed.push_back(self.tail.split().freeze());
        }
    }

    /// One vectored write; how much is left decides whether there will be another.
    fn write(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.seal();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.sealed) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let mut written = socket.write_vectored(&slices[..count])?;
        self.bytes -= written;
        while let Some(front) = self.sealed.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            self.sealed.pop_front();
        }
        Ok(())
    }
}

/// A pair of lanes, whole or on the way.
struct Link {
    id: u64,
    boot: u64,
    /// What the peer can carry out.
    levels: Levels,
    control: Option<usize>,
    bulk: Option<usize>,
    /// Lanes whose hello was believed.
    greeted: [bool; 2],
    up: bool,
    heard_ms: u64,
    sent_ms: u64,
}

impl Link {
    fn new(id: u64, boot: u64, now_ms: u64) -> Self {
        let (levels, control, bulk, greeted) = (Levels::UNSAID, None, None, [false; 2]);
        Self { id, boot, levels, control, bulk, greeted, up: false, heard_ms: now_ms, sent_ms: now_ms }
    }

    fn lane(&mut self, lane: Lane) -> &mut Option<usize> {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Bulk => &mut self.bulk,
        }
    }

    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        [self.control, self.bulk].into_iter().flatten()
    }
}

/// All links of this member.
pub(crate) struct Links {
    roster: Roster,
    telephone: Telephone,
    listener: TcpListener,
    acceptable: bool,
    conns: Slab<Conn>,
    links: BTreeMap<MemberId, Link>,
    diallers: BTreeMap<MemberId, Dialler>,
    events: VecDeque<LinkEvent>,
    /// Refusals already logged, so that a stranger that comes every second does not fill the log.
    said: BTreeMap<MemberId, Refusal>,
    scratch: Vec<u8>,
    last_turn_ms: u64,
}

impl Links {
    /// Without any peer.
    pub(crate) fn new(own: Hello, listener: TcpListener, telephone: Telephone, now_ms: u64) -> Self {
        Self {
            roster: Roster { own, volumes: BTreeMap::new(), next_id: MemberId(0) },
            telephone,
            listener,
            acceptable: true,
            conns: Slab::new(),
            links: BTreeMap::new(),
            diallers: BTreeMap::new(),
            events: VecDeque::new(),
            said: BTreeMap::new(),
            scratch: vec![0; READ_BYTES],
            last_turn_ms: now_ms,
        }
    }

    /// These are the members now, and the feature level in force: those with a lower id are dialled at once. A link to whom it names no more stays until
    /// it breaks, so that it hears what was decided.
    pub(crate) fn meet(
        &mut self,
        members: &[Member],
        next_id: MemberId,
        level: Option<Level>,
    ) -> io::Result<()> {
        let me = self.roster.own.member;
        self.roster.own.level = level;
        self.roster.next_id = next_id;
        self.roster.volumes = members.iter().map(|member| (member.id, Id128(member.volume))).collect();
        self.diallers.retain(|peer, _| self.roster.volumes.contains_key(peer));
        for member in members.iter().filter(|member| member.id < me) {
            let known = self.diallers.get(&member.id);
            if known.is_some_and(|known| (&known.host, known.port) == (&member.host, member.peer_port)) {
                continue;
            }
            let dialler = Dialler::start(member, &self.telephone)?;
            if !self.links.contains_key(&member.id) {
                dialler.dial(LastLink::WasUp);
            }
            self.diallers.insert(member.id, dialler);
        }
        Ok(())
    }

    pub(crate) fn is_up(&self, peer: MemberId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.up)
    }

    pub(crate) fn on_acceptable(&mut self) {
        self.acceptable = true;
    }

    pub(crate) fn on_ready(&mut self, event: &Event) {
        if let Some(conn) = self.conns.get_mut(event.token().0 - FIRST_TOKEN) {
            conn.ended |= event.is_read_closed() || event.is_error();
            conn.readable |= event.is_readable() || conn.ended;
            conn.writable |= event.is_writable();
        }
    }

    pub(crate) fn next_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Whether something can be read without waiting for the sockets.
    pub(crate) fn has_work(&self) -> bool {
        !self.events.is_empty() || self.acceptable || self.conns.iter().any(|(_, conn)| conn.readable)
    }

    pub(crate) fn accept(&mut self, registry: &Registry, now_ms: u64) {
        while self.acceptable {
            match self.listener.accept() {
                Ok((socket, address)) => {
                    let strangers = self.conns.iter().filter(|(_, conn)| matches!(conn.who, Who::Stranger));
                    if strangers.count() >= MAX_STRANGERS {
                        tracing::warn!(%address, "too many connections without a hello, turned away");
                        continue;
                    }
                    if let Err(error) = self.add(registry, socket, address, Who::Stranger, now_ms) {
                        tracing::debug!(%address, %error, "the peer is gone already");
                    }
                }
                Err(error) => {
                    self.acceptable = false;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(%error, "cannot accept peers");
                    }
                }
            }
        }
    }

    fn add(
        &mut self,
        registry: &Registry,
        mut socket: TcpStream,
        address: SocketAddr,
        who: Who,
        now_ms: u64,
    ) -> io::Result<usize> {
        socket.set_nodelay(true)?;
        let token = Token(FIRST_TOKEN + self.conns.next_place());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(self.conns.insert(Conn {
            socket,
            address,
            who,
            incoming: PeerFrames::default(),
            outgoing: Outgoing::default(),
            readable: true,
            ended: false,
            writable: true,
            deadline_ms: now_ms + GREET_WITHIN_MS,
        }))
    }

    /// A dialler has reached a peer: both lanes greet.
    pub(crate) fn dialled(
        &mut self,
        registry: &Registry,
        peer: MemberId,
        id: u64,
        sockets: [std::net::TcpStream; 2],
        now_ms: u64,
    ) {
        self.links.insert(peer, Link::new(id, 0, now_ms));
        for (socket, lane) in sockets.into_iter().zip([Lane::Control, Lane::Bulk]) {
            let who = Who::Dialled { peer };
            let added = socket
                .peer_addr()
                .and_then(|address| self.add(registry, TcpStream::from_std(socket), address, who, now_ms));
            let Ok(place) = added else { return self.break_link(peer, "it hung up at once") };
            if let Some(link) = self.links.get_mut(&peer) {
                *link.lane(lane) = Some(place);
            }
            let greeting = Greeting::Hello(self.roster.hello(lane, id, peer)).encode();
            if let Some(conn) = self.conns.get_mut(place) {
                conn.outgoing.push(greeting);
            }
        }
    }

    /// Queues a frame, or loses it when there is no link.
    pub(crate) fn send(&mut self, to: MemberId, lane: Lane, frame: Bytes, now_ms: u64) {
        let Some(link) = self.links.get_mut(&to).filter(|link| link.up) else { return };
        let (limit, place) = match lane {
            Lane::Control => {
                link.sent_ms = now_ms;
                (CONTROL_LIMIT, link.control)
            }
            Lane::Bulk => (BULK_LIMIT, link.bulk),
        };
        let Some(conn) = place.and_then(|place| self.conns.get_mut(place)) else { return };
        assert!(
            frame.len() <= MAX_PEER_FRAME,
            "a frame of {} bytes is longer than any peer takes",
            frame.len()
        );
        conn.outgoing.push(frame);
        if conn.outgoing.bytes > limit {
            self.break_link(to, "its queue is full");
        }
    }

    /// Reads what has come, control lanes first.
    pub(crate) fn read(&mut self, counters: &mut Counters, now_ms: u64) {
        let readable = |place: usize| self.conns.get(place).is_some_and(|conn| conn.readable);
        let controls = self.links.values().filter_map(|link| link.control);
        let mut places: Vec<usize> = controls.filter(|place| readable(*place)).collect();
        let urgent = places.len();
        for (place, conn) in self.conns.iter() {
            if conn.readable && !places[..urgent].contains(&place) {
                places.push(place);
            }
        }
        for place in places {
            for _ in 0..READS_PER_TURN {
                if !self.read_one(counters, place, now_ms) {
                    break;
                }
            }
        }
    }

    /// Returns whether there may be more.
    fn read_one(&mut self, counters: &mut Counters, place: usize, now_ms: u64) -> bool {
        let Some(conn) = self.conns.get_mut(place) else { return false };
        if !conn.readable {
            return false;
        }
        match conn.socket.read(&mut self.scratch) {
            Ok(0) => self.drop_conn(place, "it closed the connection"),
            Ok(read) => {
                conn.incoming.extend(&self.scratch[..read]);
                conn.readable = read == self.scratch.len() || conn.ended;
                self.extract(counters, place, now_ms);
                return self.conns.get_mut(place).is_some_and(|conn| conn.readable);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => self.drop_conn(place, &error.to_string()),
        }
        false
    }

    /// Hands out the whole frames of a connection; the first one is its hello. Frames that come before
    /// the link is up stay where they are.
    fn extract(&mut self, counters: &mut Counters, place: usize, now_ms: u64) {
        while let Some(conn) = self.conns.get_mut(place) {
            let who = conn.who;
            if let Who::Known { peer } = who
                && !self.links.get(&peer).is_some_and(|link| link.up)
            {
                return;
            }
            let limit = if matches!(who, Who::Known { .. }) { MAX_PEER_FRAME } else { MAX_GREETING };
            let frame = match conn.incoming.next_frame(limit) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.drop_conn(place, &error.to_string()),
            };
            match who {
                Who::Known { peer } => {
                    if let Some(link) = self.links.get_mut(&peer) {
                        link.heard_ms = now_ms;
                    }
                    if !frame.is_empty() {
                        self.events.push_back(LinkEvent::Frame(peer, frame));
                    }
                }
                Who::Stranger | Who::Dialled { .. } => self.greeted(counters, place, &frame, now_ms),
            }
        }
    }

    fn greeted(&mut self, counters: &mut Counters, place: usize, frame: &[u8], now_ms: u64) {
        let Some(conn) = self.conns.get_mut(place) else { return };
        let (who, address) = (conn.who, conn.address);
        let hello = match Greeting::decode(frame) {
            Ok(Greeting::Hello(hello)) => hello,
            Ok(Greeting::Refused(why)) => {
                tracing::warn!(%address, %why, "the peer refuses this member");
                return self.drop_conn(place, "it refuses this member");
            }
            Err(error) => {
                counters.hellos_refused += 1;
                tracing::warn!(%address, %error, "not a peer");
                return self.drop_conn(place, "its greeting is malformed");
            }
        };
        if let Err(refusal) = self.believe(who, &hello) {
            counters.hellos_refused += 1;
            return self.refuse(place, hello.member, refusal);
        }
        self.said.remove(&hello.member);
        match who {
            Who::Stranger => self.welcome(place, &hello, now_ms),
            _ => self.mark_greeted(place, &hello),
        }
        self.up_if_whole(counters, hello.member, now_ms);
    }

    fn believe(&self, who: Who, hello: &Hello) -> Result<(), Refusal> {
        self.roster.check(hello)?;
        match who {
            Who::Dialled { peer, .. } if peer != hello.member => {
                Err(Refusal::NotTheDialled { answered: hello.member, dialled: peer })
            }
            _ => Ok(()),
        }
    }

    fn refuse(&mut self, place: usize, member: MemberId, refusal: Refusal) {
        if self.said.get(&member) != Some(&refusal) {
            tracing::warn!(%refusal, "turned away");
            self.said.insert(member, refusal.clone());
        }
        if let Some(conn) = self.conns.get_mut(place) {
            conn.outgoing.push(Greeting::Refused(refusal.to_string()).encode());
            // One try is enough: the socket is fresh, so there is room.
            let _ = conn.outgoing.write(&mut conn.socket);
        }
        self.drop_conn(place, "its hello is refused");
    }

    /// A peer dialled us: this lane becomes part of the link that the hello names. A newer link replaces
    /// an older one, which its dialler has given up.
    fn welcome(&mut self, place: usize, hello: &Hello, now_ms: u64) {
        let peer = hello.member;
        let current = self.links.get(&peer).map(|link| (link.boot, link.id));
        if current != Some((hello.boot, hello.link)) {
            if current.is_some_and(|(boot, id)| boot == hello.boot && id > hello.link) {
                return self.drop_conn(place, "a newer link exists");
            }
            if current.is_some() {
                self.break_link(peer, "its peer dialled anew");
            }
            self.links.insert(peer, Link::new(hello.link, hello.boot, now_ms));
        }
        let occupied = self.links.get_mut(&peer).and_then(|link| link.lane(hello.lane).replace(place));
        if occupied.is_some() {
            return self.break_link(peer, "it used a lane twice");
        }
        let answer = Greeting::Hello(self.roster.hello(hello.lane, hello.link, peer)).encode();
        if let Some(conn) = self.conns.get_mut(place) {
            conn.outgoing.push(answer);
        }
        self.mark_greeted(place, hello);
    }

    fn mark_greeted(&mut self, place: usize, hello: &Hello) {
        if let Some(link) = self.links.get_mut(&hello.member)
            && *link.lane(hello.lane) == Some(place)
        {
            (link.boot, link.levels) = (hello.boot, hello.levels);
            link.greeted[hello.lane as usize] = true;
        }
        if let Some(conn) = self.conns.get_mut(place) {
            conn.who = Who::Known { peer: hello.member };
        }
    }

    fn up_if_whole(&mut self, counters: &mut Counters, peer: MemberId, now_ms: u64) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.up || link.greeted != [true; 2] {
            return;
        }
        (link.up, link.heard_ms, link.sent_ms) = (true, now_ms, now_ms);
        let (boot, levels, places) = (link.boot, link.levels, link.places());
        tracing::info!(%peer, "link up");
        self.events.push_back(LinkEvent::Up { peer, boot, levels });
        // The other side may have sent frames on one lane before the other lane's hello came.
        for place in places {
            self.extract(counters, place, now_ms);
        }
    }

    /// Ends a connection, and with it the link that it belongs to.
    fn drop_conn(&mut self, place: usize, why: &str) {
        let Some(conn) = self.conns.get_mut(place) else { return };
        match conn.who {
            Who::Known { peer } | Who::Dialled { peer, .. }
                if self.links.get(&peer).is_some_and(|link| link.places().any(|at| at == place)) =>
            {
                self.break_link(peer, why);
            }
            _ => {}
        }
        self.conns.remove(place);
    }

    /// Ends both lanes; this side dials again if it is the one that dials.
    pub(crate) fn break_link(&mut self, peer: MemberId, why: &str) {
        let Some(link) = self.links.remove(&peer) else { return };
        for place in link.places() {
            self.conns.remove(place);
        }
        if link.up {
            tracing::info!(%peer, why, "link broken");
            self.events.push_back(LinkEvent::Down(peer));
        } else {
            tracing::debug!(%peer, why, "no link");
        }
        if let Some(dialler) = self.diallers.get(&peer) {
            dialler.dial(if link.up { LastLink::WasUp } else { LastLink::NeverUp });
        }
    }

    /// Breaks what has fallen silent and keeps the rest alive.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        // A member that was paused has heard nobody for that time; that is not their fault.
        let paused = now_ms.saturating_sub(self.last_turn_ms) > KEEPALIVE_MS;
        self.last_turn_ms = now_ms;
        let mut silent = Vec::new();
        for (peer, link) in self.links.iter_mut().filter(|(_, link)| link.up) {
            if paused {
                link.heard_ms = now_ms;
            }
            if now_ms > link.heard_ms + SILENCE_MS {
                silent.push(*peer);
            }
        }
        for peer in silent {
            self.break_link(peer, "nothing was heard of it for 3 s");
        }
        let quiet = |link: &Link| link.up && now_ms > link.sent_ms + KEEPALIVE_MS;
        let quiet: Vec<MemberId> =
            self.links.iter().filter(|(_, link)| quiet(link)).map(|(peer, _)| *peer).collect();
        for peer in quiet {
            self.send(peer, Lane::Control, Bytes::new(), now_ms);
        }
        self.expire_greetings(now_ms);
    }

    fn expire_greetings(&mut self, now_ms: u64) {
        let late = |conn: &Conn| match conn.who {
            Who::Known { peer } => !self.links.get(&peer).is_some_and(|link| link.up),
            Who::Stranger | Who::Dialled { .. } => true,
        };
        let late: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, conn)| now_ms > conn.deadline_ms && late(conn))
            .map(|(place, _)| place)
            .collect();
        for place in late {
            self.drop_conn(place, "no hello within 3 s");
        }
    }

    /// Writes what is queued, control lanes first.
    pub(crate) fn flush(&mut self) {
        let waits = |place: &usize| {
            self.conns.get(*place).is_some_and(|conn| conn.writable && conn.outgoing.bytes > 0)
        };
        let controls = self.links.values().filter_map(|link| link.control);
        let others = self.conns.iter().map(|(place, _)| place);
        let waiting: Vec<usize> = controls.chain(others).filter(waits).collect();
        for place in waiting {
            self.flush_one(place);
        }
    }

    fn flush_one(&mut self, place: usize) {
        let Some(conn) = self.conns.get_mut(place) else { return };
        while conn.writable && conn.outgoing.bytes > 0 {
            match conn.outgoing.write(&mut conn.socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.drop_conn(place, &error.to_string());
                }
            }
        }
    }
}
