//! As little of a ZooKeeper client as a load needs: many requests at once on one connection, answers in order.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use pharos_jute::{ConnectRequest, ConnectResponse, Reader, ReplyHeader, Request};

const PATIENCE: Duration = Duration::from_secs(20);
const SESSION_TIMEOUT_MS: i32 = 10_000;

/// What a client needs to resume its session on another connection.
#[derive(Clone, Debug, Default)]
pub struct Session {
    id: i64,
    password: Vec<u8>,
    last_zxid: i64,
}

impl Session {
    /// The session's number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The last zxid that the client has seen.
    #[must_use]
    pub fn last_zxid(&self) -> i64 {
        self.last_zxid
    }
}

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The session timeout it asks for.
    pub timeout_ms: i32,
    /// How long it waits for the server before it gives the connection up.
    pub patience: Duration,
}

/// The server says that the session is no more.
#[derive(Clone, Copy, Debug)]
pub struct Expired;

impl std::fmt::Display for Expired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the session has expired")
    }
}

impl std::error::Error for Expired {}

/// A connection with a session. Requests are sent when an answer is waited for, or by [`Wire::flush`].
#[derive(Debug)]
pub struct Wire {
    answers: BufReader<TcpStream>,
    requests: Vec<u8>,
    body: Vec<u8>,
    session: Session,
    timeout_ms: i32,
}

impl Wire {
    /// Opens a session.
    ///
    /// # Errors
    /// If the server does not take it.
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Self::resume(address, &Session::default())
    }

    /// Resumes a session, or opens one if the session is a new one.
    ///
    /// # Errors
    /// If the server does not take it, or the session has expired.
    pub fn resume(address: SocketAddr, session: &Session) -> anyhow::Result<Self> {
        Self::connect(address, session, Terms { timeout_ms: SESSION_TIMEOUT_MS, patience: PATIENCE })
    }

    /// The same on other terms.
    ///
    /// # Errors
    /// If the server does not take it; [`Expired`] if the session has expired.
    pub fn connect(address: SocketAddr, session: &Session, terms: Terms) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, terms.patience).context("cannot connect")?;
        stream.set_nodelay(true).context("cannot set up a socket")?;
        stream.set_read_timeout(Some(terms.patience)).context("cannot set up a socket")?;
        stream.set_write_timeout(Some(terms.patience)).context("cannot set up a socket")?;
        let answers = BufReader::with_capacity(64 << 10, stream);
        let mut wire =
            Self { answers, requests: Vec::new(), body: Vec::new(), session: session.clone(), timeout_ms: 0 };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: session.last_zxid,
            timeout_ms: terms.timeout_ms,
            session_id: session.id,
            password: Some(if session.id == 0 { &[0; 16] } else { &session.password }),
            read_only: Some(false),
        };
        let mut body = Vec::new();
        request.encode(&mut body);
        wire.push(&body);
        wire.receive()?;
        let response = ConnectResponse::decode(&wire.body).context("cannot read the server's greeting")?;
        ensure!(response.timeout_ms > 0, Expired);
        wire.timeout_ms = response.timeout_ms;
        wire.session.id = response.session_id;
        wire.session.password = response.password.unwrap_or_default().to_vec();
        Ok(wire)
    }

    /// What resumes the session of this connection.
    #[must_use]
    pub fn session(&self) -> Session {
        self.session.clone()
    }

    /// The session timeout that the server granted.
    #[must_use]
    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms
    }

    /// Puts a request behind those that wait to be sent.
    pub fn ask(&mut self, xid: i32, request: &Request<'_>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        request.encode_message(xid, &mut body);
        self.push(&body);
        self.body = body;
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.answers.get_mut().write_all(&self.requests).context("cannot send")?;
        self.requests.clear();
        Ok(())
    }

    /// Waits for the answer to a request, which must be a success, and gives its body.
    ///
    /// # Errors
    /// If the connection is lost, or the answer is another's or an error.
    pub fn answered(&mut self, xid: i32) -> anyhow::Result<&[u8]> {
        let header = self.header()?;
        ensure!(header.xid == xid && header.err.is_ok(), "{header:?}, expected {xid}");
        let mut reader = Reader::new(&self.body);
        ReplyHeader::decode(&mut reader).context("cannot read a header")?;
        Ok(reader.rest())
    }

    /// Waits for an answer, whatever it is.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn header(&mut self) -> anyhow::Result<ReplyHeader> {
        self.receive()?;
        let header = ReplyHeader::decode(&mut Reader::new(&self.body)).context("cannot read a header")?;
        self.session.last_zxid = self.session.last_zxid.max(header.zxid);
        Ok(header)
    }

    /// Waits for whatever comes next: an answer or a watch event, with its body.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn message(&mut self) -> anyhow::Result<(ReplyHeader, &[u8])> {
        let header = self.header()?;
        Ok((header, self.body.get(ReplyHeader::LEN..).unwrap_or_default()))
    }

    fn push(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("a request is smaller than 4 GiB");
        self.requests.extend_from_slice(&length.to_be_bytes());
        self.requests.extend_from_slice(body);
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        if !self.requests.is_empty() && self.answers.buffer().is_empty() {
            self.flush()?;
        }
        if self.answers.fill_buf().context("cannot receive")?.is_empty() {
            anyhow::bail!("the server has closed the connection");
        }
        let mut length = [0; 4];
        self.answers.read_exact(&mut length).context("cannot receive")?;
        self.body.resize(u32::from_be_bytes(length) as usize, 0);
        self.answers.read_exact(&mut self.body).context("cannot receive")
    }
}
