//! Reaching a peer: name resolution, two connections, patience.
//!
//! Owns one thread per peer that this member dials (those with a lower id), since name resolution blocks.
//! Must not know hellos.
//!
//! Invariant: at most one attempt per peer is under way, and a peer that does not answer is tried again
//! after 50 ms to 1 s.

use crate::command::{Command, Commands};
use pharos_paxos::MemberId;
use pharos_replica::Member;
use serde::Deserialize;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What came of the last link, which decides how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastLink {
    /// It worked, or there was none.
    WasUp,
    /// It was refused or broke before it was of use.
    NeverUp,
}

/// Where a peer may be.
#[derive(Clone, Debug)]
pub(crate) struct Whereabouts {
    /// What the list of members says.
    pub(crate) host: String,
    /// What the list of members says.
    pub(crate) port: u16,
    /// The operator's list, which may know a newer name; read at each attempt. A wrong one does no harm,
    /// since the hello says who answers.
    pub(crate) peers_file: Option<PathBuf>,
}

/// The operator's `ensemble.json`, as far as it is of use here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeersFile {
    members: Vec<PeersFileMember>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeersFileMember {
    host: String,
    peer_port: u16,
}

impl Whereabouts {
    /// Names and ports to try, in order.
    fn candidates(&self) -> Vec<(String, u16)> {
        let mut out = vec![(self.host.clone(), self.port)];
        if let Some(listed) = self.listed()
            && !out.contains(&listed)
        {
            out.push(listed);
        }
        out
    }

    fn listed(&self) -> Option<(String, u16)> {
        let text = std::fs::read(self.peers_file.as_ref()?).ok()?;
        let file: PeersFile = serde_json::from_slice(&text).ok()?;
        let mut members = file.members.into_iter();
        let member = members.find(|member| label(&member.host) == label(&self.host))?;
        Some((member.host, member.peer_port))
    }
}

/// The first part of a name: that of the pod, whatever its domain.
fn label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// How diallers are started.
#[derive(Clone, Debug)]
pub(crate) struct Telephone {
    pub(crate) peers_file: Option<PathBuf>,
    pub(crate) commands: Commands,
}

/// The reactor's end. The thread ends when this is dropped, after the attempt under way.
#[derive(Debug)]
pub(crate) struct Dialler {
    requests: Sender<LastLink>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Dialler {
    pub(crate) fn start(member: &Member, telephone: &Telephone) -> io::Result<Self> {
        let (requests, receiver) = channel();
        let (peer, host, port) = (member.id, member.host.clone(), member.peer_port);
        let whereabouts = Whereabouts { host: host.clone(), port, peers_file: telephone.peers_file.clone() };
        let commands = telephone.commands.clone();
        let mut dialling = Dialling { peer, whereabouts, commands, attempts: 0, failures: 0 };
        std::thread::Builder::new()
            .name(format!("pharos-dial-{peer}"))
            .spawn(move || dialling.run(&receiver))?;
        Ok(Self { requests, host, port })
    }

    /// Asks for a new pair of connections, which arrives as [`Command::Dialled`].
    pub(crate) fn dial(&self, last: LastLink) {
        // The thread lives as long as this sender, so a failure means that it panicked, which is logged.
        let _ = self.requests.send(last);
    }
}

struct Dialling {
    peer: MemberId,
    whereabouts: Whereabouts,
    commands: Commands,
    attempts: u64,
    failures: u32,
}

impl Dialling {
    fn run(&mut self, requests: &Receiver<LastLink>) {
        while let Ok(last) = requests.recv() {
            match last {
                LastLink::WasUp => self.failures = 0,
                LastLink::NeverUp => self.failures += 1,
            }
            loop {
                // A request while one is under way cannot come; a disconnect ends the wait.
                let wait = delay(self.failures);
                if !wait.is_zero() && requests.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
                match self.connect() {
                    Ok(()) => break,
                    Err(error) => self.failed(&error),
                }
            }
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let control = connect(&self.whereabouts.candidates())?;
        let bulk = connect_to(control.peer_addr()?)?;
        self.attempts += 1;
        self.commands.send(Command::Dialled { peer: self.peer, link: self.attempts, control, bulk });
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) {
        if self.failures == 0 {
            let (peer, host, port) = (self.peer, &self.whereabouts.host, self.whereabouts.port);
            tracing::info!(%peer, %host, port, %error, "cannot reach the peer, trying again");
        }
        self.failures += 1;
    }
}

fn delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_DELAY.saturating_mul(1 << (n - 1).min(8)).min(LONGEST_DELAY),
    }
}

fn connect(candidates: &[(String, u16)]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (host, port) in candidates {
        let addresses = match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                last = error;
                continue;
            }
        };
        for address in addresses {
            match connect_to(address) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn connect_to(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_from_50_ms_to_1_s() {
        let delays: Vec<_> = (0..8).map(|failures| delay(failures).as_millis()).collect();
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_peer_is_looked_for_where_it_was_registered_and_where_the_operator_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"cluster":"ns/main","members":[{"ordinal":0,"host":"a.new","peerPort":1},
                       {"ordinal":1,"host":"b.new","peerPort":2}]}"#;
        std::fs::write(file.path(), text).unwrap();
        let peers_file = Some(file.path().to_owned());
        let whereabouts = Whereabouts { host: "b.old".to_owned(), port: 9, peers_file };
        assert_eq!(whereabouts.candidates(), [("b.old".to_owned(), 9), ("b.new".to_owned(), 2)]);
        let alone = Whereabouts { peers_file: None, ..whereabouts };
        assert_eq!(alone.candidates(), [("b.old".to_owned(), 9)]);
    }
}
