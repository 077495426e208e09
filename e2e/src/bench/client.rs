//! One client for all sides: the same requests, in the protocol of each.
//!
//! Owns what a write, a read and a transaction are in each protocol. Must not know what is measured.

use std::net::SocketAddr;
use std::time::Duration;

use pharos_jute::{AclRef, Create, MultiOp, PathWatch, Request, SetData};

use super::grpc::{self, Grpc};
use crate::wire::{Session, Terms, Wire};

const SESSION_TIMEOUT_MS: i32 = 10_000;

/// How servers are spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// ZooKeeper's, one session for each connection.
    ZooKeeper,
    /// gRPC on HTTP/2, one connection for each of the load's.
    Etcd,
}

/// A connection; answers come in the order of the requests.
pub(super) struct Client {
    speaks: Speaks,
    asked: i32,
    answered: i32,
}

enum Speaks {
    ZooKeeper(Box<Wire>),
    Etcd(Grpc),
}

impl Client {
    /// Connects, with the session of an earlier connection where there are sessions.
    pub(super) fn connect(
        protocol: Protocol,
        address: SocketAddr,
        session: &Session,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let speaks = match protocol {
            Protocol::ZooKeeper => {
                let terms = Terms { timeout_ms: SESSION_TIMEOUT_MS, patience };
                Speaks::ZooKeeper(Box::new(Wire::connect(address, session, terms)?))
            }
            Protocol::Etcd => Speaks::Etcd(Grpc::connect(address, patience)?),
        };
        Ok(Self { speaks, asked: 0, answered: 0 })
    }

    /// What the next connection goes on with.
    pub(super) fn session(&self) -> Session {
        match &self.speaks {
            Speaks::ZooKeeper(wire) => wire.session(),
            Speaks::Etcd(_) => Session::default(),
        }
    }

    /// Makes sure that there is something at `path`, and waits for it.
    pub(super) fn create(&mut self, path: &str, value: &[u8]) -> anyhow::Result<()> {
        self.asked += 1;
        self.answered += 1;
        match &mut self.speaks {
            Speaks::ZooKeeper(wire) => {
                let request = Create { path: Some(path), data: Some(value), acl: Some(open()), flags: 0 };
                wire.ask(self.asked, &Request::Create(request));
                // It may be there already.
                wire.header().map(drop)
            }
            Speaks::Etcd(etcd) => {
                etcd.ask("Put", &grpc::put(path.as_bytes(), value))?;
                etcd.answered().map(drop)
            }
        }
    }

    /// Sets what is at `path`: `setData` of any version, or `Put`.
    pub(super) fn ask_write(&mut self, path: &str, value: &[u8]) -> anyhow::Result<()> {
        self.asked += 1;
        match &mut self.speaks {
            Speaks::ZooKeeper(wire) => {
                let request = SetData { path: Some(path), data: Some(value), version: -1 };
                wire.ask(self.asked, &Request::SetData(request));
                Ok(())
            }
            Speaks::Etcd(etcd) => etcd.ask("Put", &grpc::put(path.as_bytes(), value)),
        }
    }

    /// Reads what is at `path` from the server that is asked.
    pub(super) fn ask_read(&mut self, path: &str) -> anyhow::Result<()> {
        self.asked += 1;
        match &mut self.speaks {
            Speaks::ZooKeeper(wire) => {
                wire.ask(self.asked, &Request::GetData(PathWatch { path: Some(path), watch: false }));
                Ok(())
            }
            Speaks::Etcd(etcd) => etcd.ask("Range", &grpc::get(path.as_bytes())),
        }
    }

    /// Creates all of them in one transaction.
    pub(super) fn ask_all<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> anyhow::Result<()> {
        self.asked += 1;
        match &mut self.speaks {
            Speaks::ZooKeeper(wire) => {
                let create = |(path, data)| {
                    MultiOp::Create(Create {
                        path: Some(path),
                        data: Some(data),
                        acl: Some(open()),
                        flags: 0,
                    })
                };
                wire.ask(self.asked, &Request::Multi(entries.map(create).collect()));
                Ok(())
            }
            Speaks::Etcd(etcd) => {
                etcd.ask("Txn", &grpc::put_all(entries.map(|(path, value)| (path.as_bytes(), value))))
            }
        }
    }

    /// Waits for the answer to the oldest request, whatever it is where there are errors that leave the connection whole.
    pub(super) fn settled(&mut self) -> anyhow::Result<()> {
        self.answered += 1;
        match &mut self.speaks {
            Speaks::ZooKeeper(wire) => wire.header().map(drop),
            Speaks::Etcd(etcd) => etcd.answered().map(drop),
        }
    }

    /// Waits for the answer to the oldest request, which must be a success; gives the length of its body.
    pub(super) fn answered(&mut self) -> anyhow::Result<usize> {
        self.answered += 1;
        match &mut self.speaks {
            Speaks::ZooKeeper(wire) => wire.answered(self.answered).map(<[u8]>::len),
            Speaks::Etcd(etcd) => etcd.answered().map(|message| message.len()),
        }
    }
}

fn open() -> Vec<AclRef<'static>> {
    vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }]
}
