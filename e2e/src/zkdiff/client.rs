//! A raw client: one connection, one request at a time, every frame kept.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pharos_jute::{
    ConnectRequest, ConnectResponse, OpCode, PROTOCOL_VERSION, Reader, ReplyHeader, Request, Response,
    WatcherEvent, framed, xid,
};

use super::action::Action;

/// How long a server may take for an answer before the run fails.
const PATIENCE: Duration = Duration::from_secs(20);
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// A watch event as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) zxid: i64,
    pub(crate) kind: i32,
    pub(crate) state: i32,
    pub(crate) path: String,
}

/// Everything a server said to one request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// What came before the reply.
    pub(crate) events: Vec<Event>,
    /// Reply and body; `None` if the server closed the connection without one.
    pub(crate) reply: Option<Reply>,
    /// Whether the server closed the connection after it.
    pub(crate) closed: bool,
}

impl Answer {
    /// The answer in words.
    pub(crate) fn show(&self, op: OpCode) -> String {
        let reply = match &self.reply {
            None => "no reply".to_owned(),
            Some(Reply { header, body }) if header.err.is_ok() => {
                format!("{header:x?} {:?}", Response::decode(op, body))
            }
            Some(Reply { header, body }) => format!("{header:x?} and {} bytes", body.len()),
        };
        let closed = if self.closed { ", closed" } else { "" };
        format!("{:?}, {reply}{closed}", self.events)
    }
}

/// A reply as received.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) header: ReplyHeader,
    pub(crate) body: Vec<u8>,
}

/// A session with its connection.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    pub(crate) session: i64,
    password: Vec<u8>,
    next_xid: i32,
    last_zxid: i64,
}

impl Client {
    /// Opens a session.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let (stream, session, password) = connect(address, 0, &[0; 16])?;
        Ok(Self { address, stream, session, password, next_xid: 1, last_zxid: 0 })
    }

    /// Cuts the connection and resumes the session on a new one.
    pub(crate) fn resume(&mut self) -> Result<()> {
        // The old one stays open until the new one is there: closing it first would race with the server's own clean-up.
        let (stream, session, password) = connect(self.address, self.session, &self.password)?;
        ensure!(session == self.session, "session 0x{:x} was resumed as 0x{session:x}", self.session);
        (self.stream, self.password) = (stream, password);
        Ok(())
    }

    /// Closes the session and opens a new one.
    pub(crate) fn renew(&mut self) -> Result<Answer> {
        let answer = self.close()?;
        *self = Self::open(self.address)?;
        Ok(answer)
    }

    /// Closes the session. One that is only dropped ends by its timeout, with a transaction in the middle of a run.
    pub(crate) fn close(&mut self) -> Result<Answer> {
        let mut bytes = Vec::new();
        let xid = self.take_xid();
        framed(&mut bytes, |out| Request::CloseSession.encode_message(xid, out));
        self.stream.write_all(&bytes)?;
        self.answer(true)
    }

    /// Sends a request and waits for what the server says to it.
    pub(crate) fn ask(&mut self, action: &Action) -> Result<Answer> {
        let xid = match action {
            Action::Ping => xid::PING,
            Action::Auth(..) => xid::AUTH,
            Action::SetWatches(..) => xid::SET_WATCHES,
            _ => self.take_xid(),
        };
        let mut bytes = Vec::new();
        framed(&mut bytes, |out| action.encode(xid, self.last_zxid, out));
        self.stream.write_all(&bytes)?;
        let answer = self.answer(closes(action))?;
        if let Some(reply) = &answer.reply
            && !matches!(action, Action::UnknownOp(_))
        {
            ensure!(reply.header.xid == xid, "request {xid} was answered as {}", reply.header.xid);
        }
        Ok(answer)
    }

    /// Waits until the server has seen all writes so far, and gives the events that came meanwhile.
    pub(crate) fn catch_up(&mut self) -> Result<Vec<Event>> {
        Ok(self.ask(&Action::Named(OpCode::Sync, Some("/".into())))?.events)
    }

    fn take_xid(&mut self) -> i32 {
        self.next_xid += 1;
        self.next_xid
    }

    /// Reads until the reply; then, if the server is to close the connection, until it has.
    fn answer(&mut self, closing: bool) -> Result<Answer> {
        let mut answer = Answer { events: Vec::new(), reply: None, closed: false };
        loop {
            let Some(frame) = read_frame(&mut self.stream)? else {
                answer.closed = true;
                return Ok(answer);
            };
            let mut r = Reader::new(&frame);
            let header = ReplyHeader::decode(&mut r).context("reply header")?;
            if header.xid == xid::NOTIFICATION {
                let event = WatcherEvent::decode(&mut r).context("watch event")?;
                let path = event.path.unwrap_or_default().to_owned();
                answer.events.push(Event { zxid: header.zxid, kind: event.kind, state: event.state, path });
                continue;
            }
            self.last_zxid = self.last_zxid.max(header.zxid);
            answer.reply = Some(Reply { header, body: r.rest().to_vec() });
            if !closing {
                return Ok(answer);
            }
        }
    }
}

/// Requests after whose reply a server closes the connection.
fn closes(action: &Action) -> bool {
    match action {
        Action::UnknownOp(_) | Action::Check(..) => true,
        Action::Auth(scheme, _) => scheme != "digest",
        _ => false,
    }
}

fn connect(address: SocketAddr, session_id: i64, password: &[u8]) -> Result<(TcpStream, i64, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = ConnectRequest {
        protocol_version: PROTOCOL_VERSION,
        last_zxid_seen: 0,
        timeout_ms: SESSION_TIMEOUT_MS,
        session_id,
        password: Some(password),
        read_only: Some(false),
    };
    let mut bytes = Vec::new();
    framed(&mut bytes, |out| request.encode(out));
    stream.write_all(&bytes)?;
    let Some(frame) = read_frame(&mut stream)? else {
        bail!("{address} closed the connection in the handshake")
    };
    let response = ConnectResponse::decode(&frame).context("handshake")?;
    ensure!(response.timeout_ms > 0, "{address} says that session 0x{session_id:x} has expired");
    Ok((stream, response.session_id, response.password.unwrap_or_default().to_vec()))
}

/// One frame, or `None` when the connection is closed.
fn read_frame(stream: &mut TcpStream) -> Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    if let Err(e) = stream.read_exact(&mut len) {
        return match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(None),
            io::ErrorKind::WouldBlock => bail!("no answer within {PATIENCE:?}"),
            _ => Err(e.into()),
        };
    }
    let len = usize::try_from(i32::from_be_bytes(len)).context("negative frame length")?;
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).context("a frame was cut short")?;
    Ok(Some(frame))
}
