//! Coordination through an Ensemble, over the public ZooKeeper protocol.
//!
//! Owns: the connection, the transactions, and what to do when an answer is lost.
//! Must not know: whether the Ensemble is embedded or far away.
//! Invariant: every write is one `multi` that checks the generation. A lost answer is settled by
//! connecting again, `sync`, and reading back: either what was to be written is there, or it is
//! written again, or another generation is found.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pharos_beam::plan::{Plan, PlanError};
use tokio::runtime::Runtime;
use zookeeper_client::{Acls, Client, CreateMode, Error, MultiWriteError};

use super::{Coordination, CoordinationError, Paths, Pointer, Tenure};
use crate::plant;
use lineage::Known;

/// How often a step is tried before the run gives up, with a pause in between.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);
const SESSION: Duration = Duration::from_secs(10);
/// A plan of more bytes is not kept: servers refuse requests of more than a mebibyte.
const MOST_PLAN: usize = 512 << 10;

/// Coordination through an Ensemble.
pub struct ZooKeeperCoordination(Persistent<Cluster>);

impl ZooKeeperCoordination {
    /// Coordination of the run at `paths` through the Ensemble at `cluster` (`host:port,…`). `name`
    /// says who leads, for people.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(cluster: &str, paths: Paths, name: &str) -> Result<Self, CoordinationError> {
        Ok(Self(Persistent::new(Cluster::new(cluster)?, paths, name)))
    }

    /// Finds where a document goes on, which another document may have begun, and gives the coordination of
    /// its run there, and its plan if it has had a checkpoint.
    ///
    /// # Errors
    /// If the Ensemble does not answer or holds what cannot be read.
    pub fn of_submission(
        cluster: &str,
        submission: &Submission,
        name: &str,
    ) -> Result<(Self, Lineage, Option<Plan>), CoordinationError> {
        let (found, lineage, plan) = Persistent::of_submission(Cluster::new(cluster)?, submission, name)?;
        Ok((Self(found), lineage, plan))
    }

    /// Has the run's plan kept with its next checkpoint, if none is. From then on every worker of the document
    /// runs this one, whatever it would make of the input now.
    pub fn keep_plan(&mut self, plan: &Plan) {
        self.0.keep_plan(plan);
    }
}

impl Coordination for ZooKeeperCoordination {
    fn take_over(&mut self) -> Result<Tenure, CoordinationError> {
        self.0.take_over()
    }

    fn publish(&mut self, pointer: &Pointer) -> Result<(), CoordinationError> {
        self.0.publish(pointer)
    }

    fn complete(&mut self) -> Result<(), CoordinationError> {
        self.0.complete()
    }
}

/// A write of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// The znode has this version.
    Check(String, i32),
    /// Set a znode of this version.
    Set(String, Vec<u8>, i32),
    /// Create a znode.
    Create(String, Vec<u8>),
}

/// What coordination asks of a client of an Ensemble.
pub(crate) trait Znodes: Clone + Send + Sync + 'static {
    /// Creates an empty znode and its parents; that they are there is no error.
    fn ensure(&self, path: &str) -> impl Future<Output = Result<(), Error>> + Send;
    /// Creates a znode whose parent is there.
    fn create(&self, path: &str, data: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;
    /// Sets a znode of this version, or whatever its version, and says its version now.
    fn set(
        &self,
        path: &str,
        data: &[u8],
        version: Option<i32>,
    ) -> impl Future<Output = Result<i32, Error>> + Send;
    /// Lets what is read after it be as new as what was written before it.
    fn sync(&self, path: &str) -> impl Future<Output = Result<(), Error>> + Send;
    /// The data and the version of a znode.
    fn get(&self, path: &str) -> impl Future<Output = Result<(Vec<u8>, i32), Error>> + Send;
    /// Whether a znode is there.
    fn exists(&self, path: &str) -> impl Future<Output = Result<bool, Error>> + Send;
    /// All of these writes, or none.
    fn multi(&self, writes: Vec<Write>) -> impl Future<Output = Result<(), MultiWriteError>> + Send;
}

impl Znodes for Client {
    async fn ensure(&self, path: &str) -> Result<(), Error> {
        self.mkdir(path, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), Error> {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        Self::create(self, path, data, &options).await.map(drop)
    }

    async fn set(&self, path: &str, data: &[u8], version: Option<i32>) -> Result<i32, Error> {
        Ok(self.set_data(path, data, version).await?.version)
    }

    async fn sync(&self, path: &str) -> Result<(), Error> {
        Self::sync(self, path).await
    }

    async fn get(&self, path: &str) -> Result<(Vec<u8>, i32), Error> {
        self.get_data(path).await.map(|(data, stat)| (data, stat.version))
    }

    async fn exists(&self, path: &str) -> Result<bool, Error> {
        Ok(self.check_stat(path).await?.is_some())
    }

    async fn multi(&self, writes: Vec<Write>) -> Result<(), MultiWriteError> {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let mut multi = self.new_multi_writer();
        for write in &writes {
            match write {
                Write::Check(path, version) => multi.add_check_version(path, *version)?,
                Write::Set(path, data, version) => multi.add_set_data(path, data, Some(*version))?,
                Write::Create(path, data) => multi.add_create(path, data, &options)?,
            }
        }
        multi.commit().await.map(drop)
    }
}

/// How an Ensemble is reached.
pub(crate) trait Reach: Send {
    /// A client with a session.
    type Client: Znodes;
    /// Its address, for messages.
    fn address(&self) -> &str;
    /// A new session.
    ///
    /// # Errors
    /// If the Ensemble does not answer.
    fn connect(&self) -> Result<Self::Client, Error>;
    /// Waits for a step.
    fn wait<T: Send + 'static>(&self, step: impl Future<Output = T> + Send + 'static) -> T;
    /// Waits between two tries.
    fn pause(&self, time: Duration);
}

struct Cluster {
    address: String,
    runtime: Runtime,
}

impl Cluster {
    fn new(address: &str) -> Result<Self, CoordinationError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pharos-coordination")
            .enable_all()
            .build()
            .map_err(|error| CoordinationError::Ensemble(error.to_string()))?;
        Ok(Self { address: address.to_owned(), runtime })
    }
}

impl Reach for Cluster {
    type Client = Client;

    fn address(&self) -> &str {
        &self.address
    }

    fn connect(&self) -> Result<Client, Error> {
        let address = self.address.clone();
        self.wait(async move { Client::connector().with_session_timeout(SESSION).connect(&address).await })
    }

    /// On the runtime's own thread, so that the caller may be on any other.
    fn wait<T: Send + 'static>(&self, step: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more only if the process is about to end.
            let _ = sender.send(step.await);
        });
        answer.recv().expect("a step does not panic")
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Coordination that tries again until it is clear what came of it.
pub(crate) struct Persistent<R: Reach> {
    reach: R,
    paths: Paths,
    name: String,
    /// Who else may go on in the same znodes.
    lineage: Option<Lineage>,
    client: Option<R::Client>,
    /// The plan, if it is to be kept.
    plan: Option<Arc<[u8]>>,
    state: State,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// The version of the generation znode that is ours.
    generation: Option<i32>,
    /// The version of `latest`.
    latest: i32,
    /// The record of the lineage, if there is one.
    record: Option<Known>,
    /// The plan that is to be kept with the next checkpoint, and where.
    plan: Option<(String, Arc<[u8]>)>,
}

impl State {
    /// The state once a checkpoint counts: `latest` has this version.
    fn after_checkpoint(self, latest: i32) -> Self {
        Self { latest, record: self.record.map(Known::after_checkpoint), plan: None, ..self }
    }
}

/// What a try came to.
enum Try<T> {
    Done(T),
    /// The connection broke: whether the step happened is unclear.
    Again(String),
    Failed(CoordinationError),
}

impl<T> From<Error> for Try<T> {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionLoss
            | Error::SessionExpired
            | Error::SessionMoved
            | Error::ClientClosed
            | Error::Timeout
            | Error::NoHosts
            | Error::Throttled
            | Error::Custom(_)
            | Error::UnexpectedError(_) => Self::Again(error.to_string()),
            other => Self::Failed(CoordinationError::Ensemble(other.to_string())),
        }
    }
}

/// The value, or the failure as that of the step.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return error.into(),
        }
    };
    (@done $try:expr) => {
        match $try {
            Try::Done(value) => value,
            Try::Again(error) => return Try::Again(error),
            Try::Failed(error) => return Try::Failed(error),
        }
    };
}

mod lineage;

pub use lineage::{Lineage, Submission};

impl<R: Reach> Persistent<R> {
    /// Coordination of the run at `paths`; `name` says who leads, for people.
    #[must_use]
    pub(crate) fn new(reach: R, paths: Paths, name: &str) -> Self {
        let (name, state) = (name.to_owned(), State::default());
        Self { reach, paths, name, lineage: None, client: None, plan: None, state }
    }

    /// See [`ZooKeeperCoordination::of_submission`].
    ///
    /// # Errors
    /// If the Ensemble does not answer or holds what cannot be read.
    pub(crate) fn of_submission(
        reach: R,
        submission: &Submission,
        name: &str,
    ) -> Result<(Self, Lineage, Option<Plan>), CoordinationError> {
        let mut this = Self::new(reach, Paths { run: String::new() }, name);
        let (lineage, plan) = this.find(submission)?;
        this.paths = lineage.paths(submission);
        this.lineage = Some(lineage.clone());
        // Only who leads needs a session.
        this.client = None;
        let plan = match plan.as_deref().map(Plan::from_json).transpose() {
            Ok(plan) => plan,
            // What another build made of the document is made anew.
            Err(PlanError::Version { .. }) => None,
            Err(error) => {
                let path = lineage.plan(&this.paths);
                return Err(CoordinationError::Unreadable { path, what: error.to_string() });
            }
        };
        Ok((this, lineage, plan))
    }

    /// See [`ZooKeeperCoordination::keep_plan`].
    pub(crate) fn keep_plan(&mut self, plan: &Plan) {
        let json = plan.to_json();
        self.plan = (json.len() <= MOST_PLAN).then(|| json.into());
    }

    /// Where a document goes on, and its plan there if one is kept.
    fn find(&mut self, submission: &Submission) -> Result<(Lineage, Option<Vec<u8>>), CoordinationError> {
        let found = self.persist(|client, state, _| {
            let submission = submission.clone();
            async move {
                let lineage = attempt!(@done lineage::find(&client, &submission).await);
                let plan = match client.get(&lineage.plan(&lineage.paths(&submission))).await {
                    Ok((bytes, _)) => Some(bytes),
                    Err(Error::NoNode) => None,
                    Err(error) => return error.into(),
                };
                Try::Done(((lineage, plan), state))
            }
        });
        found.map(|(found, _)| found)
    }

    /// Tries a step until it is done, on a fresh connection each time one broke.
    fn persist<T, F>(
        &mut self,
        step: impl Fn(R::Client, State, Paths) -> F,
    ) -> Result<(T, State), CoordinationError>
    where
        T: Send + 'static,
        F: Future<Output = Try<(T, State)>> + Send + 'static,
    {
        let mut last = String::new();
        for turn in 0..TRIES {
            if turn > 0 {
                self.reach.pause(PAUSE);
            }
            let client = match self.client.clone().map_or_else(|| self.reach.connect(), Ok) {
                Ok(client) => client,
                Err(error) => {
                    last = error.to_string();
                    continue;
                }
            };
            self.client = Some(client.clone());
            match self.reach.wait(step(client, self.state.clone(), self.paths.clone())) {
                Try::Done(done) => return Ok(done),
                Try::Failed(error) => return Err(error),
                Try::Again(error) => {
                    self.client = None;
                    last = error;
                }
            }
        }
        let address = self.reach.address();
        Err(CoordinationError::Ensemble(format!("`{address}` gave up after {TRIES} tries: {last}")))
    }
}

impl<R: Reach> Coordination for Persistent<R> {
    fn take_over(&mut self) -> Result<Tenure, CoordinationError> {
        let (name, lineage, plan) = (self.name.clone(), self.lineage.clone(), self.plan.clone());
        self.state.generation = None;
        let (tenure, state) = self.persist(move |client, _, paths| {
            let (name, lineage, plan) = (name.clone(), lineage.clone(), plan.clone());
            async move { take_over(&client, &paths, &name, lineage.as_ref(), plan).await }
        })?;
        self.state = state;
        Ok(tenure)
    }

    fn publish(&mut self, pointer: &Pointer) -> Result<(), CoordinationError> {
        let pointer = pointer.clone();
        let ((), state) = self.persist(move |client, state, paths| {
            let pointer = pointer.clone();
            async move { publish(&client, state, &paths, &pointer).await }
        })?;
        self.state = state;
        Ok(())
    }

    fn complete(&mut self) -> Result<(), CoordinationError> {
        let ((), state) =
            self.persist(|client, state, paths| async move { complete(&client, state, &paths).await })?;
        self.state = state;
        Ok(())
    }
}

async fn take_over(
    client: &impl Znodes,
    paths: &Paths,
    name: &str,
    lineage: Option<&Lineage>,
    plan: Option<Arc<[u8]>>,
) -> Try<(Tenure, State)> {
    for path in [paths.generation(), paths.latest()] {
        attempt!(client.ensure(&path).await);
    }
    let before =
        if plant::reads_before_fence() { Some(attempt!(client.get(&paths.latest()).await)) } else { None };
    let record = match lineage {
        None => None,
        Some(lineage) => Some(attempt!(@done lineage::known(client, lineage).await)),
    };
    // The generation is taken first: what is read after it cannot be changed by anyone before us.
    let generation = attempt!(client.set(&paths.generation(), name.as_bytes(), None).await);
    if !plant::reads_without_sync() {
        attempt!(client.sync(paths.run()).await);
    }
    let (bytes, version) = before.unwrap_or(attempt!(client.get(&paths.latest()).await));
    let latest = if bytes.is_empty() {
        None
    } else {
        match Pointer::parse(&paths.latest(), &bytes) {
            Ok(pointer) => Some(pointer),
            Err(error) => return Try::Failed(error),
        }
    };
    let completed = attempt!(client.exists(&paths.completed()).await);
    let plan = match lineage.map(|lineage| lineage.plan(paths)).zip(plan) {
        Some((path, _)) if attempt!(client.exists(&path).await) => None,
        missing => missing,
    };
    let tenure = Tenure { generation: u64::from(generation.unsigned_abs()), latest, completed };
    Try::Done((tenure, State { generation: Some(generation), latest: version, record, plan }))
}

fn our_generation<T>(state: &State) -> Result<i32, Try<T>> {
    state.generation.ok_or(Try::Failed(CoordinationError::Fenced))
}

async fn publish(client: &impl Znodes, state: State, paths: &Paths, pointer: &Pointer) -> Try<((), State)> {
    let generation = match our_generation(&state) {
        Ok(generation) => generation,
        Err(failed) => return failed,
    };
    // After a lost answer the pointer may be there already; the first time this costs one read.
    attempt!(client.sync(paths.run()).await);
    let (bytes, version) = attempt!(client.get(&paths.latest()).await);
    if Pointer::parse(&paths.latest(), &bytes).as_ref() == Ok(pointer) {
        return Try::Done(((), state.after_checkpoint(version)));
    }
    let data = serde_json::to_vec(pointer).expect("plain data becomes JSON");
    let ignored = plant::ignores_generation();
    let fenced = (!ignored).then(|| Write::Check(paths.generation(), generation));
    let latest = Write::Set(paths.latest(), data, if ignored { version } else { state.latest });
    let record = state.record.as_ref().map(Known::write);
    let plan = state.plan.as_ref().map(|(path, plan)| Write::Create(path.clone(), plan.to_vec()));
    let writes = fenced.into_iter().chain([latest]).chain(record).chain(plan).collect();
    let next = state.latest + 1;
    match client.multi(writes).await {
        Ok(()) => Try::Done(((), state.after_checkpoint(next))),
        Err(MultiWriteError::OperationFailed { source: Error::BadVersion | Error::NoNode, .. }) => {
            Try::Failed(CoordinationError::Fenced)
        }
        Err(_) if plant::unclear_is_done() => Try::Done(((), state.after_checkpoint(next))),
        Err(error) => Error::from(error).into(),
    }
}

async fn complete(client: &impl Znodes, state: State, paths: &Paths) -> Try<((), State)> {
    let generation = match our_generation(&state) {
        Ok(generation) => generation,
        Err(failed) => return failed,
    };
    let writes = vec![
        Write::Check(paths.generation(), generation),
        Write::Create(paths.completed(), b"{\"version\":1}".to_vec()),
    ];
    match client.multi(writes).await {
        Ok(()) | Err(MultiWriteError::OperationFailed { index: 1, source: Error::NodeExists }) => {
            Try::Done(((), state))
        }
        Err(MultiWriteError::OperationFailed { source: Error::BadVersion | Error::NoNode, .. }) => {
            Try::Failed(CoordinationError::Fenced)
        }
        Err(error) => Error::from(error).into(),
    }
}
