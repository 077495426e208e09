//! A whole server: its threads, its start, its end.
//!
//! Owns the order in which things are opened. Must not know what happens in a turn.
//!
//! Invariant: what the user can put right (addresses, the data directory) is checked before
//! [`Server::start`] returns; a member takes no client before it has read its log.

use crate::admin::{Admin, Context, read_token};
use crate::aside;
use crate::backup::Copies;
use crate::clients::{Clients, Limits};
use crate::command::{Command, Commands};
use crate::config::{Admission, ServerConfig, ServerError};
use crate::datadir::{Reading, Volume};
use crate::dial::Telephone;
use crate::disks;
use crate::hello::{Hello, Id128, VERSIONS};
use crate::links::Links;
use crate::os;
use crate::permit::{Permit, PermitError, founding_digest};
use crate::reactor::{CLIENT_LISTENER, Clock, End, PEER_LISTENER, Reactor, WAKE};
use crate::reserve::Reserve;
use crate::sockets::{Bound, Sockets};
use crate::state_store::{OpenStore, StateStore};
use crate::status::{Board, Identity, Life, RoleName, Snapshot, Status, VERSION};
use crate::view::View;
use mio::{Interest, Poll, Waker};
use pharos_log::WalConfig;
use pharos_log::file::FileDisk;
use pharos_paxos::{MemberId, Millis};
use pharos_replica::{Boot, Damage, Fate, Lane, NewGeneration, Plant, Replica, ReplicaConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A client with more unread output gets no answers to further reads, and is not read from.
const OUTPUT_BYTES: usize = 4 << 20;
/// What one turn applies. As steps of a huge command it takes some 10 ms.
const APPLY_BYTES: usize = 1 << 20;
/// Entries of the log that travel in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// How often a blank member looks for its permit.
const PERMIT_POLL: Duration = Duration::from_millis(200);

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A server that runs. Dropping it ends the server in good order.
#[derive(Debug)]
pub struct ServerHandle {
    addresses: Addresses,
    board: Arc<Board>,
    commands: Commands,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
    _admin: Admin,
}

/// Where the server listens, with the ports that were taken.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For clients.
    pub client: SocketAddr,
    /// For peers.
    pub peer: SocketAddr,
    /// For the operator.
    pub admin: SocketAddr,
    /// For Prometheus.
    pub metrics: Option<SocketAddr>,
}

impl Server {
    /// Starts a member, or one that waits for its permit.
    pub fn start(config: ServerConfig) -> Result<ServerHandle, ServerError> {
        start_with(config, crate::state_store::open_rocks)
    }
}

/// As [`Server::start`], with another store.
pub(crate) fn start_with<S: StateStore>(
    config: ServerConfig,
    open_store: OpenStore<S>,
) -> Result<ServerHandle, ServerError> {
    let volume = Volume::open(&config.data_dir)?;
    let begins = volume.check_permit(&config.admission)?;
    if volume.home().is_none() && config.admission == Admission::MemberOnly {
        return Err(ServerError::Blank(config.data_dir));
    }
    let (sockets, for_admin) = Sockets::bind(&config)?;
    let addresses = sockets.addresses;
    let max_descriptors = os::raise_descriptor_limit().ok();
    let poll = Poll::new().map_err(system("create a poll"))?;
    let waker = Waker::new(poll.registry(), WAKE).map_err(system("create a waker"))?;
    let (commands, received) = Commands::new(waker);
    let board = Board::new();
    publish_identity(&board, identity(&volume, &addresses, &config));
    let context = Arc::new(Context {
        board: Arc::clone(&board),
        commands: commands.clone(),
        token_file: config.token_file.clone(),
        client_port: addresses.client.port(),
        data_dir: config.data_dir.display().to_string(),
        copies: Copies::beside(&config.data_dir),
        tick_ms: config.tuning.tick_ms,
        max_per_ip: config.tuning.max_per_ip,
        max_descriptors,
    });
    let admin = Admin::start(Arc::clone(&context), for_admin.admin, for_admin.metrics);
    let admin = admin.map_err(system("start the admin thread"))?;
    let life = Living {
        config,
        volume,
        begins,
        sockets,
        poll,
        received,
        commands: commands.clone(),
        board: Arc::clone(&board),
        context,
    };
    let thread = std::thread::Builder::new()
        .name("pharos-reactor".to_owned())
        .spawn(move || life.live(open_store))
        .map_err(system("start the reactor thread"))?;
    Ok(ServerHandle { addresses, board, commands, thread: Some(thread), _admin: admin })
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> ServerError {
    move |source| ServerError::System { what, source }
}

fn identity(volume: &Volume, addresses: &Addresses, config: &ServerConfig) -> Identity {
    let (peer_port, client_port) = (addresses.peer.port(), addresses.client.port());
    let feature_levels = config.tuning.levels().into();
    Identity { peer_port, client_port, feature_levels, ..volume.identity() }
}

/// What is known before the member runs.
fn publish_identity(board: &Board, identity: Identity) {
    let role = match identity.state {
        Life::Blank => RoleName::Blank,
        Life::Joining => RoleName::Joining,
        Life::Founding | Life::Member => RoleName::Founding,
    };
    let status = Status {
        member_id: identity.member_id.unwrap_or(0),
        role,
        version: VERSION,
        zxid: "0x0".to_owned(),
        ..Status::default()
    };
    board.publish(Snapshot { identity, status, ..Snapshot::default() });
}

impl ServerHandle {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What it published last.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.board.read()
    }

    /// Waits until what it publishes is as wanted. False when the time is up or the server has ended.
    #[must_use]
    pub fn wait_until(&self, timeout: Duration, wanted: impl Fn(&Snapshot) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        while !wanted(&self.board.read()) {
            if self.has_ended() || Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until clients are answered.
    #[must_use]
    pub fn wait_until_serving(&self, timeout: Duration) -> bool {
        self.wait_until(timeout, |now| now.status.serving)
    }

    /// Whether the server has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the server to end: leadership is handed over, clients are closed. [`ServerHandle::join`] waits.
    pub fn shutdown(&self) {
        self.commands.send(Command::Shutdown);
    }

    /// Waits for the server's end.
    pub fn join(mut self) -> Result<(), ServerError> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), ServerError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(ServerError::Failed("the reactor panicked".to_owned())))
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.shutdown();
        if let Err(error) = self.wait() {
            tracing::error!(%error, "the server ended");
        }
    }
}

/// The reactor's thread before its loop.
struct Living {
    config: ServerConfig,
    volume: Volume,
    /// What the permit lets the volume begin.
    begins: Option<NewGeneration>,
    sockets: Sockets,
    poll: Poll,
    received: Receiver<Command>,
    commands: Commands,
    board: Arc<Board>,
    context: Arc<Context>,
}

impl Living {
    fn live<S: StateStore>(mut self, open_store: OpenStore<S>) -> Result<(), ServerError> {
        let started = Instant::now();
        let (store, boot, disk) = loop {
            if self.volume.home().is_none() && !self.become_member()? {
                return Ok(());
            }
            // On a full disk neither log nor store can be opened; the reactor takes it again.
            self.reserve().give_up();
            let mut disk = self.volume.log_disk()?;
            let values = self.config.tuning.values();
            match self.volume.read(self.wal_config(), &mut disk, open_store, values)? {
                Reading::Member(store, boot) => break (store, *boot, disk),
                Reading::Damaged(damage) => self.bear(damage, &disk, open_store)?,
            }
        };
        let Some(reactor) = self.into_reactor(store, boot, disk, started)? else { return Ok(()) };
        match reactor.run() {
            End::Shutdown => Ok(()),
            End::Failed(why) => Err(ServerError::Failed(why)),
        }
    }

    /// The volume is damaged: it is an empty one from here on, unless a person has decided that the ensemble goes on from
    /// what is left of it.
    fn bear<S: StateStore>(
        &mut self,
        damage: Damage,
        disk: &FileDisk,
        open_store: OpenStore<S>,
    ) -> Result<(), ServerError> {
        if let Some(begins) = self.begins.take() {
            let (boot, salvage) = self.volume.salvage(&damage, self.wal_config(), disk, open_store)?;
            tracing::warn!(damage = %damage.why, "goes on with what can be read of the log");
            return self.volume.begin_generation_without(&begins, (&boot, &salvage), self.wal_config());
        }
        let can_join = matches!(self.config.admission, Admission::PermitFile(_));
        if damage.fate != Fate::GivesUp || !can_join {
            return Err(self.volume.refuse(damage));
        }
        let home = self.volume.home().expect("it was read as a member's");
        self.volume.give_up(&damage)?;
        tracing::error!(
            damage = %damage.why, member = %home.member, volume = %self.volume.id(),
            kept = %aside::kept(self.volume.path()).display(),
            "what this member promised or acknowledged may be lost, so it votes no more: its volume is as good as an empty \
             one, and waits to be registered as a new member; what it held is kept until that one votes"
        );
        publish_identity(&self.board, self.identity());
        Ok(())
    }

    /// False when the server is to end before it has become one.
    fn become_member(&mut self) -> Result<bool, ServerError> {
        let permit = match &self.config.admission {
            Admission::PermitFile(_) => match self.wait_for_permit() {
                Some(permit) => permit,
                None => return Ok(false),
            },
            Admission::Alone | Admission::MemberOnly => self.permit_alone()?,
        };
        let Some(member) = permit.member_of(self.volume.id()) else { return Ok(false) };
        if permit.recovers {
            return Err(PermitError::RecoversBlank.into());
        }
        if let Some(joining) = permit.joining(self.volume.id()) {
            self.volume.join(member, &joining.founding, self.wal_config())?;
            tracing::info!(%member, cluster = %permit.cluster_id.0, "joins");
            return Ok(true);
        }
        let token = self.config.token_file.as_deref().and_then(read_token);
        let founding = permit.founding(token.as_deref())?;
        let founding_now = Identity { state: Life::Founding, ..self.identity() };
        publish_identity(&self.board, founding_now);
        self.volume.found(member, &founding, self.wal_config())?;
        tracing::info!(%member, cluster = %permit.cluster_id.0, "founded");
        publish_identity(&self.board, self.identity());
        Ok(true)
    }

    fn identity(&self) -> Identity {
        identity(&self.volume, &self.sockets.addresses, &self.config)
    }

    fn permit_alone(&self) -> Result<Permit, ServerError> {
        let random = || os::random().map(Id128).map_err(system("read randomness"));
        let ports = (self.sockets.addresses.peer.port(), self.sockets.addresses.client.port());
        Ok(Permit::alone(random()?, self.volume.id(), random()?, ports.0, ports.1))
    }

    /// Looks for a permit that names the volume, until it appears or the server is to end.
    fn wait_for_permit(&self) -> Option<Permit> {
        let Admission::PermitFile(file) = &self.config.admission else { return None };
        tracing::info!(volume = %self.volume.id(), file = %file.display(), "waiting for a permit");
        let mut last_text = Vec::new();
        loop {
            if let Ok(text) = std::fs::read(file)
                && text != last_text
            {
                match Permit::parse(&text) {
                    Ok(permit) if permit.member_of(self.volume.id()).is_some() => return Some(permit),
                    Ok(_) => {
                        tracing::warn!(
                            volume = %self.volume.id(), file = %file.display(),
                            "the permit does not name this volume and is ignored: no empty volume votes in place of another \
                             that may have voted; `pharos-node members add` makes this one a new member"
                        );
                    }
                    Err(error) => tracing::warn!(%error, file = %file.display(), "the permit is ignored"),
                }
                last_text = text;
            }
            match self.received.recv_timeout(PERMIT_POLL) {
                Ok(Command::Shutdown) | Err(RecvTimeoutError::Disconnected) => return None,
                // Whoever wants a transfer of a blank member hears that from the dropped reply.
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn reserve(&self) -> Reserve {
        Reserve::of(&self.config.data_dir, self.config.tuning.segment_bytes)
    }

    fn wal_config(&self) -> WalConfig {
        self.config.tuning.log(self.volume.id())
    }

    /// None when the server is to end before it runs.
    fn into_reactor<S: StateStore>(
        mut self,
        store: S,
        mut boot: Boot,
        mut disk: FileDisk,
        started: Instant,
    ) -> Result<Option<Reactor>, ServerError> {
        let home = self.volume.home().expect("a member has a home");
        let values = self.config.tuning.values();
        let (replayed, tail, stored) = (boot.log.replayed, boot.log.tail, boot.applied);
        if let Some(begins) = self.begins.take() {
            self.volume.begin_generation(&begins, &mut boot, self.wal_config(), &mut disk)?;
        }
        let clock = Clock::start();
        let boot_nonce = u64::from_le_bytes(os::random().map_err(system("read randomness"))?);
        let mut joining = None;
        if !boot.is_founded() {
            publish_identity(&self.board, Identity { state: Life::Joining, ..self.identity() });
            let Some(permit) = self.wait_for_permit() else { return Ok(None) };
            joining = permit.joining(self.volume.id());
            boot.joins = joining.as_ref().map(|joining| joining.founding.clone());
        }
        let replica =
            Replica::start(self.replica_config(home.member, boot_nonce, values), boot, clock.now())?;
        let founding = replica.founding();
        if founding.cluster != home.cluster {
            return Err(ServerError::Mismatch {
                superblock: home.member,
                cluster: Id128(home.cluster),
                founded: Id128(founding.cluster),
            });
        }
        self.volume.note_generation(founding.generation)?;
        if replica.registry().membership().has(home.member) {
            self.volume.let_go();
        }
        tracing::info!(
            member = %home.member, cluster = %Id128(home.cluster), stored = %stored,
            log_bytes = replayed.bytes, ?tail, elapsed_ms = started.elapsed().as_millis() as u64, "started"
        );
        let mut view = View::new(Arc::clone(&self.context), self.identity());
        let worker = system("start a thread");
        let log = disks::log_worker(disk, self.commands.clone()).map_err(worker)?;
        let spare_disk = self.volume.log_disk()?;
        let spares = disks::spare_worker(spare_disk, self.commands.clone());
        let reader =
            || disks::read_worker(store.rows(), self.commands.clone()).map_err(system("start a thread"));
        let readers = [reader()?, reader()?];
        let persister = disks::persister(store, self.reserve(), self.commands.clone());
        let telephone =
            Telephone { peers_file: self.config.peers_file.clone(), commands: self.commands.clone() };
        let digest = joining.as_ref().map_or_else(|| founding_digest(founding), |joining| joining.digest);
        let hello = hello(&replica, digest, self.volume.id(), boot_nonce);
        let (clients, peers) = self.sockets.listen()?;
        let peers = register(&self.poll, peers, PEER_LISTENER)?;
        let mut links = Links::new(hello, peers, telephone, clock.us() / 1000);
        match &joining {
            Some(joining) => {
                view.joins();
                links.meet(&joining.members, MemberId(0), None)
            }
            None => {
                view.meet(&replica, |_| false);
                links.meet(&replica.peers(), replica.registry().next_id(), Some(replica.level()))
            }
        }
        .map_err(system("start a thread"))?;
        let clients = Clients::new(register(&self.poll, clients, CLIENT_LISTENER)?, limits(&self.config));
        Ok(Some(Reactor {
            clock,
            replica,
            clients,
            links,
            log,
            spares: spares.map_err(system("start a thread"))?,
            persister: persister.map_err(system("start a thread"))?,
            readers,
            view,
            poll: self.poll,
            commands: self.received,
            board: self.board,
            volume: self.volume,
        }))
    }

    fn replica_config(&self, me: MemberId, boot: u64, value_bytes: u64) -> ReplicaConfig {
        let tuning = &self.config.tuning;
        ReplicaConfig {
            me,
            boot,
            tick_ms: tuning.tick_ms,
            heartbeat: millis(tuning.heartbeat),
            election: millis(tuning.election),
            seed: boot ^ u64::from(me.0),
            container_sweep: millis(tuning.container_sweep),
            log_tail_bytes: tuning.log_tail_bytes,
            chunk_bytes: CHUNK_BYTES,
            levels: tuning.levels(),
            output_bytes: OUTPUT_BYTES,
            apply_bytes: APPLY_BYTES,
            transfer_bytes_per_s: tuning.transfer_bytes_per_s,
            value_bytes,
            plant: Plant::None,
        }
    }
}

fn register(poll: &Poll, bound: Bound, token: mio::Token) -> Result<mio::net::TcpListener, ServerError> {
    let mut listener = mio::net::TcpListener::from_std(bound);
    poll.registry().register(&mut listener, token, Interest::READABLE).map_err(system("watch a listener"))?;
    Ok(listener)
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn limits(config: &ServerConfig) -> Limits {
    Limits {
        max_frame: config.tuning.max_frame,
        per_ip: config.tuning.max_per_ip,
        total: config.tuning.max_connections,
        speak_within_ms: millis(config.tuning.handshake).0,
    }
}

/// What the member says of itself on every connection.
fn hello(replica: &Replica, founding: Id128, volume: Id128, boot: u64) -> Hello {
    Hello {
        versions: VERSIONS,
        cluster: Id128(replica.founding().cluster),
        generation: replica.founding().generation,
        founding,
        config: replica.registry().membership().config,
        member: replica.me(),
        volume,
        boot,
        link: 0,
        lane: Lane::Control,
        meant: MemberId(0),
        levels: replica.levels(),
        level: None,
    }
}
