//! The addresses a server listens on.
//!
//! Owns binding. Must not know who connects.
//!
//! Invariant: all ports are taken before the server starts, so that a busy one is an error of the start;
//! clients and peers are let in only once the member has read its log.

use crate::config::{ServerConfig, ServerError};
use crate::server::Addresses;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listener that has been let loose.
pub(crate) type Bound = TcpListener;

/// Ports taken but not open yet.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) addresses: Addresses,
    client: Socket,
    peer: Socket,
}

/// The listeners of the admin thread, open at once.
#[derive(Debug)]
pub(crate) struct AdminSockets {
    pub(crate) admin: TcpListener,
    pub(crate) metrics: Option<TcpListener>,
}

impl Sockets {
    /// Takes all ports.
    pub(crate) fn bind(config: &ServerConfig) -> Result<(Self, AdminSockets), ServerError> {
        let (client, client_addr) = take("clients", config.client_addr)?;
        let (peer, peer_addr) = take("peers", config.peer_addr)?;
        let (admin, admin_addr) = take("the admin endpoints", config.admin_addr)?;
        let metrics = config.metrics_addr.map(|address| take("metrics", address)).transpose()?;
        let addresses = Addresses {
            client: client_addr,
            peer: peer_addr,
            admin: admin_addr,
            metrics: metrics.as_ref().map(|(_, address)| *address),
        };
        let admin = open("the admin endpoints", admin, admin_addr)?;
        let metrics = metrics.map(|(socket, address)| open("metrics", socket, address)).transpose()?;
        Ok((Self { addresses, client, peer }, AdminSockets { admin, metrics }))
    }

    /// Opens the clients' and the peers' port.
    pub(crate) fn listen(self) -> Result<(Bound, Bound), ServerError> {
        let Addresses { client, peer, .. } = self.addresses;
        Ok((open("clients", self.client, client)?, open("peers", self.peer, peer)?))
    }
}

fn take(what: &'static str, address: SocketAddr) -> Result<(Socket, SocketAddr), ServerError> {
    bind(address).map_err(|source| ServerError::Listen { what, address, source })
}

fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted member takes its port although connections of the old process linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let taken = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, taken))
}

fn open(what: &'static str, socket: Socket, address: SocketAddr) -> Result<TcpListener, ServerError> {
    let listening = socket.listen(BACKLOG);
    listening.map_err(|source| ServerError::Listen { what, address, source })?;
    Ok(socket.into())
}
