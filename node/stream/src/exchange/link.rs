//! The connection of two workers.
//!
//! Owns: the greeting, frames with their checksums, the thread that writes and the one that reads,
//! and the silence after which the other end counts as lost.
//! Must not know: what data and control mean.
//! Invariant: what is sent arrives whole and in order, control and credits before data that waits; or
//! the link is lost, which is told once, and nothing more comes of it.
//!
//! One connection serves all channels between two workers. Frames are made by the thread that sends
//! and read by the thread that receives, so writing and reading here is only copying.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::meter::Traffic;

/// What a connection starts with, and the version of greetings and frames.
const MAGIC: &[u8; 4] = b"PHEX";
const VERSION: u16 = 3;

/// The longest frame, and the longest of a greeting; a length above it is no length.
const LONGEST: usize = 1 << 30;
const LONGEST_GREETING: usize = 64 << 10;
/// What stands before the message in a data frame: the channel.
pub(crate) const DATA_HEAD: usize = 4;
/// How much data is taken from the queue at a time, before control that came meanwhile.
const SHARE: usize = 256 << 10;
/// After this long without anything to send, a sign of life is sent.
const ALIVE: Duration = Duration::from_secs(1);
/// After this long without a sign of life the other end is lost.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it may take to connect, and then how long a greeting: both together less than [`SILENCE`], for whoever was
/// greeted hears nothing until all were.
const GREETING: Duration = Duration::from_secs(2);

const DATA: u8 = 1;
const CREDIT: u8 = 2;
const CONTROL: u8 = 3;
const LIFE: u8 = 4;

/// Who connects, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The run, by its znode.
    pub run: String,
    /// The generation of the assignment.
    pub generation: u64,
    /// Who connects, by place in the assignment.
    pub from: u32,
    /// The process that is meant: an address may have been given to another.
    pub to: String,
}

/// What a link has for its worker. Called on the link's own thread.
pub(crate) trait Handler: Send + Sync {
    /// Data of a channel, after [`DATA_HEAD`] bytes; false if there is no such channel.
    fn data(&self, channel: u32, frame: Vec<u8>) -> bool;
    /// The receiver of a channel has taken out so many bytes in so many rounds; false if there is no
    /// such channel.
    fn credit(&self, channel: u32, bytes: usize, rounds: usize) -> bool;
    /// A message of the other worker's control side.
    fn control(&self, bytes: &[u8]);
    /// Nothing comes any more.
    fn lost(&self, why: &str);
}

/// One end of a connection, as those see it who send.
pub(crate) trait Wire: fmt::Debug + Send + Sync {
    /// Sends a frame that [`data_frame`] made.
    fn send_data(&self, frame: Vec<u8>);
    /// Gives the sender of a channel credit for what was taken out.
    fn send_credit(&self, channel: u32, bytes: usize, rounds: usize);
    /// Sends a message to the other worker's control side.
    fn send_control(&self, message: &[u8]);
    /// Ends the connection once what was sent is on its way.
    fn close(&self);
    /// What goes over it.
    fn traffic(&self) -> Arc<Traffic>;
}

/// One end of a connection.
pub(crate) struct Link {
    socket: TcpStream,
    out: Mutex<Out>,
    more: Condvar,
    traffic: Arc<Traffic>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Out {
    first: VecDeque<Vec<u8>>,
    data: VecDeque<Vec<u8>>,
    closed: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Link").field(&self.socket.peer_addr().ok()).finish()
    }
}

impl Link {
    /// An end of a connection that was greeted. What is sent waits, and nothing is heard, until it is
    /// [started](Link::start).
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn new(socket: TcpStream) -> std::io::Result<Arc<Self>> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        Ok(Arc::new(Self {
            socket,
            out: Mutex::default(),
            more: Condvar::new(),
            traffic: Arc::default(),
            threads: Mutex::default(),
        }))
    }

    /// Starts its threads.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn start(self: &Arc<Self>, handler: Arc<dyn Handler>) -> std::io::Result<()> {
        let (reading, writing) = (self.socket.try_clone()?, self.socket.try_clone()?);
        let (reader, writer) = (Arc::clone(self), Arc::clone(self));
        let read = std::thread::Builder::new().name("pharos-link-in".to_owned()).spawn(move || {
            let mut socket = BufReader::with_capacity(64 << 10, reading);
            let why = receive(&mut socket, &*handler, &reader.traffic);
            reader.stop();
            handler.lost(&why);
        })?;
        let write = std::thread::Builder::new().name("pharos-link-out".to_owned()).spawn(move || {
            // The reader tells why: a connection that cannot be written to cannot be read either.
            let _ = writer.write(BufWriter::with_capacity(64 << 10, writing));
            writer.stop();
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).extend([read, write]);
        Ok(())
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, change: impl FnOnce(&mut Out)) {
        let mut out = self.out();
        if !out.closed {
            change(&mut out);
            self.more.notify_one();
        }
    }

    fn stop(&self) {
        self.out().closed = true;
        self.more.notify_all();
        // The other end may have shut it down already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn write(&self, mut socket: BufWriter<TcpStream>) -> std::io::Result<()> {
        loop {
            let mut frames = {
                let out = self.out();
                let idle = |out: &mut Out| out.first.is_empty() && out.data.is_empty() && !out.closed;
                let (mut out, _) =
                    self.more.wait_timeout_while(out, ALIVE, idle).unwrap_or_else(PoisonError::into_inner);
                let mut frames: Vec<Vec<u8>> = out.first.drain(..).collect();
                let mut bytes = 0;
                while bytes < SHARE
                    && let Some(next) = out.data.pop_front()
                {
                    bytes += next.len();
                    frames.push(next);
                }
                if frames.is_empty() && out.closed {
                    drop(out);
                    return socket.flush();
                }
                frames
            };
            if frames.is_empty() {
                frames.push(frame(LIFE, |_| {}));
            }
            self.traffic.sends(frames.iter().map(Vec::len).sum());
            frames.iter().try_for_each(|frame| socket.write_all(frame))?;
            socket.flush()?;
        }
    }
}

impl Wire for Link {
    fn send_data(&self, frame: Vec<u8>) {
        self.push(|out| out.data.push_back(frame));
    }

    fn send_credit(&self, channel: u32, bytes: usize, rounds: usize) {
        let frame = frame(CREDIT, |out| {
            out.extend_from_slice(&channel.to_le_bytes());
            out.extend_from_slice(&(bytes as u64).to_le_bytes());
            out.extend_from_slice(&(rounds as u32).to_le_bytes());
        });
        self.push(|out| out.first.push_back(frame));
    }

    fn send_control(&self, message: &[u8]) {
        self.push(|out| out.first.push_back(frame(CONTROL, |frame| frame.extend_from_slice(message))));
    }

    /// Waits for its threads, too.
    fn close(&self) {
        self.out().closed = true;
        self.more.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The writer ends first, when its queue is empty, and shuts the connection down.
        threads.into_iter().rev().for_each(|thread| thread.join().expect("a link does not panic"));
    }

    fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

/// A frame with data of a channel, and how many bytes count against its credit.
pub(crate) fn data_frame(channel: u32, body: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, usize) {
    let frame = frame(DATA, |out| {
        out.extend_from_slice(&channel.to_le_bytes());
        body(out);
    });
    let bytes = frame.len() - HEADER;
    (frame, bytes)
}

/// Length, checksum and kind.
const HEADER: usize = 9;

fn frame(kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame[8] = kind;
    body(&mut frame);
    let length = u32::try_from(frame.len() - 8).expect("a frame is smaller than 4 GiB");
    let crc = crc32c::crc32c(&frame[8..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// Reads frames until none comes, and says why.
fn receive(socket: &mut impl Read, handler: &dyn Handler, traffic: &Traffic) -> String {
    loop {
        let (kind, body) = match read_frame(socket, LONGEST) {
            Ok(frame) => frame,
            Err(why) => return why,
        };
        let length = body.len();
        traffic.receives(HEADER + length);
        let whole = match (kind, length) {
            (DATA, DATA_HEAD..) => {
                let channel = u32::from_le_bytes(body[..DATA_HEAD].try_into().expect("four bytes"));
                handler.data(channel, body)
            }
            (CREDIT, 16) => {
                let channel = u32::from_le_bytes(body[..4].try_into().expect("four bytes"));
                let bytes = u64::from_le_bytes(body[4..12].try_into().expect("eight bytes"));
                let rounds = u32::from_le_bytes(body[12..].try_into().expect("four bytes"));
                handler.credit(channel, bytes as usize, rounds as usize)
            }
            (CONTROL, _) => {
                handler.control(&body);
                true
            }
            (LIFE, 0) => true,
            _ => false,
        };
        if !whole {
            return format!("a frame of kind {kind} with {length} bytes that nobody waits for");
        }
    }
}

fn read_frame(socket: &mut impl Read, longest: usize) -> Result<(u8, Vec<u8>), String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("it was silent for {SILENCE:?}"),
        _ => error.to_string(),
    };
    let mut header = [0; HEADER];
    socket.read_exact(&mut header).map_err(failed)?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
    if length == 0 || length > longest {
        return Err(format!("a frame with the length {length}"));
    }
    let mut body = Vec::new();
    // Room is made as the bytes come, not as the length says.
    let read = socket.take(length as u64 - 1).read_to_end(&mut body).map_err(failed)?;
    if read < length - 1 {
        return Err("it closed the connection".to_owned());
    }
    if crc32c::crc32c_append(crc32c::crc32c(&header[8..]), &body) != crc {
        return Err("a damaged frame".to_owned());
    }
    Ok((header[8], body))
}

/// Connects to a worker and greets it.
///
/// # Errors
/// Says why, if it cannot be reached or does not want to.
pub(crate) fn dial(address: &str, hello: &Hello) -> Result<TcpStream, String> {
    let socket = connect(address).map_err(|error| format!("{address}: {error}"))?;
    greet(&socket, hello).map_err(|error| format!("{address}: {error}"))?;
    Ok(socket)
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let mut last = std::io::Error::new(ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, GREETING) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn greet(mut socket: &TcpStream, hello: &Hello) -> std::io::Result<()> {
    socket.set_read_timeout(Some(GREETING))?;
    socket.set_write_timeout(Some(GREETING))?;
    let body = serde_json::to_vec(hello).expect("plain data becomes JSON");
    let mut greeting = MAGIC.to_vec();
    greeting.extend_from_slice(&VERSION.to_le_bytes());
    greeting.extend_from_slice(&frame(CONTROL, |out| out.extend_from_slice(&body)));
    socket.write_all(&greeting)?;
    let (_, answer) = read_frame(&mut socket, LONGEST_GREETING).map_err(std::io::Error::other)?;
    if answer.is_empty() {
        Ok(())
    } else {
        Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// Reads a greeting and answers it. `judge` says why not, if it is not for this worker.
///
/// # Errors
/// Says why the connection is not taken.
pub(crate) fn welcome(
    mut socket: &TcpStream,
    judge: impl FnOnce(&Hello) -> Result<(), String>,
) -> Result<Hello, String> {
    let failed = |error: std::io::Error| error.to_string();
    socket.set_read_timeout(Some(GREETING)).map_err(failed)?;
    socket.set_write_timeout(Some(GREETING)).map_err(failed)?;
    let mut start = [0; 6];
    socket.read_exact(&mut start).map_err(failed)?;
    let version = u16::from_le_bytes([start[4], start[5]]);
    let greeting = if start[..4] != MAGIC[..] {
        return Err("it is no worker".to_owned());
    } else if version != VERSION {
        Err(format!("it speaks version {version} of the exchange, this worker {VERSION}"))
    } else {
        let (_, body) = read_frame(&mut socket, LONGEST_GREETING)?;
        let hello = serde_json::from_slice::<Hello>(&body).map_err(|error| error.to_string());
        hello.and_then(|hello| judge(&hello).map(|()| hello))
    };
    let refusal = greeting.as_ref().err().map(String::as_str).unwrap_or_default();
    socket.write_all(&frame(CONTROL, |out| out.extend_from_slice(refusal.as_bytes()))).map_err(failed)?;
    greeting
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Heard {
        Data(u32, Vec<u8>),
        Credit(u32, usize, usize),
        Control(Vec<u8>),
        Lost(String),
    }

    struct Ear(Mutex<Sender<Heard>>);

    impl Ear {
        fn tell(&self, heard: Heard) -> bool {
            self.0.lock().unwrap().send(heard).is_ok()
        }
    }

    impl Handler for Ear {
        fn data(&self, channel: u32, frame: Vec<u8>) -> bool {
            channel < 10 && self.tell(Heard::Data(channel, frame[DATA_HEAD..].to_vec()))
        }
        fn credit(&self, channel: u32, bytes: usize, rounds: usize) -> bool {
            self.tell(Heard::Credit(channel, bytes, rounds))
        }
        fn control(&self, bytes: &[u8]) {
            self.tell(Heard::Control(bytes.to_vec()));
        }
        fn lost(&self, why: &str) {
            self.tell(Heard::Lost(why.to_owned()));
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn link(socket: TcpStream) -> (Arc<Link>, Receiver<Heard>) {
        let (sender, heard) = channel();
        let link = Link::new(socket).unwrap();
        link.start(Arc::new(Ear(Mutex::new(sender)))).unwrap();
        (link, heard)
    }

    #[test]
    fn what_is_sent_arrives_whole_and_then_the_end() {
        let (one, other) = pair();
        let ((sends, _), (hears, heard)) = (link(one), link(other));
        let long = vec![7; 3 << 20];
        let (frame, bytes) = data_frame(3, |out| out.extend_from_slice(&long));
        assert_eq!(bytes, long.len() + DATA_HEAD, "credit counts what arrives");
        sends.send_data(frame);
        sends.send_data(data_frame(4, |_| {}).0);
        sends.send_credit(5, 6, 7);
        sends.send_control(b"\"word\"");
        sends.close();
        let all: Vec<Heard> = heard.iter().take(5).collect();
        let data: Vec<&Heard> = all.iter().filter(|heard| matches!(heard, Heard::Data(..))).collect();
        assert_eq!(data, [&Heard::Data(3, long), &Heard::Data(4, Vec::new())]);
        assert!(all.contains(&Heard::Credit(5, 6, 7)) && all.contains(&Heard::Control(b"\"word\"".to_vec())));
        assert_eq!(all[4], Heard::Lost("it closed the connection".to_owned()));
        hears.close();
    }

    #[test]
    fn a_frame_that_is_damaged_or_for_nobody_ends_the_link() {
        let mut damaged = frame(CONTROL, |out| out.extend_from_slice(b"word"));
        damaged[HEADER] ^= 1;
        let nobody = frame(DATA, |out| out.extend_from_slice(&99_u32.to_le_bytes()));
        let unknown = frame(77, |_| {});
        let endless = vec![0xFF; HEADER];
        for (bytes, why) in [
            (damaged, "a damaged frame"),
            (nobody, "a frame of kind 1 with 4 bytes that nobody waits for"),
            (unknown, "a frame of kind 77 with 0 bytes that nobody waits for"),
            (endless, "a frame with the length 4294967295"),
        ] {
            let (mut one, other) = pair();
            let (hears, heard) = link(other);
            one.write_all(&bytes).unwrap();
            assert_eq!(heard.recv().unwrap(), Heard::Lost(why.to_owned()));
            hears.close();
        }
    }

    #[test]
    fn a_greeting_is_answered_and_one_that_is_refused_hears_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hello = Hello { run: "/r".to_owned(), generation: 3, from: 0, to: "w".to_owned() };
        for refusal in [None, Some("not now")] {
            let (there, greeting) = (address.clone(), hello.clone());
            let dialled = std::thread::spawn(move || dial(&there, &greeting).map(drop));
            let socket = listener.accept().unwrap().0;
            let judge = |_: &Hello| refusal.map_or(Ok(()), |why| Err(why.to_owned()));
            let welcomed = welcome(&socket, judge);
            assert_eq!(welcomed, refusal.map_or_else(|| Ok(hello.clone()), |why| Err(why.to_owned())));
            let answer = dialled.join().unwrap();
            assert_eq!(answer.err(), refusal.map(|why| format!("{address}: {why}")));
        }
        // One that is no worker gets no answer.
        let mut stranger = TcpStream::connect(&address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let socket = listener.accept().unwrap().0;
        assert_eq!(welcome(&socket, |_| Ok(())), Err("it is no worker".to_owned()));
    }
}
