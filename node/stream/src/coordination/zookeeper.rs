//! Coordination through an Ensemble, over the public ZooKeeper protocol.
//!
//! Owns: the connection, the transactions, and what to do when an answer is lost.
//! Must not know: whether the Ensemble is embedded or far away.
//! Invariant: every write is one `multi` that checks the generation. A lost answer is settled by
//! connecting again, `sync`, and reading back: either what was to be written is there, or it is
//! written again, or another generation is found.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Runtime;
use zookeeper_client::{Acls, Client, CreateMode, Error, MultiWriteError};

use super::{Coordination, CoordinationError, Paths, Pointer, Tenure};
use lineage::Known;

/// How often a step is tried before the run gives up, with a pause in between.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);
const SESSION: Duration = Duration::from_secs(10);

/// Coordination through an Ensemble.
pub struct ZooKeeperCoordination {
    cluster: String,
    paths: Paths,
    name: String,
    /// Who else may go on in the same znodes.
    lineage: Option<Lineage>,
    runtime: Runtime,
    state: State,
}

#[derive(Clone, Default)]
struct State {
    client: Option<Client>,
    /// The version of the generation znode that is ours.
    generation: Option<i32>,
    /// The version of `latest`.
    latest: i32,
    /// The record of the lineage, if there is one.
    record: Option<Known>,
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

impl ZooKeeperCoordination {
    /// Finds where a document goes on, which another document may have begun, and gives the coordination of
    /// its run there.
    ///
    /// # Errors
    /// If the Ensemble does not answer or holds what cannot be read.
    pub fn of_submission(
        cluster: &str,
        submission: &Submission,
        name: &str,
    ) -> Result<(Self, Lineage), CoordinationError> {
        let mut this = Self::new(cluster, Paths { run: String::new() }, name)?;
        let lineage = this.find(submission)?;
        this.paths = lineage.paths(submission);
        this.lineage = Some(lineage.clone());
        // Only who leads needs a session.
        this.state = State::default();
        Ok((this, lineage))
    }

    fn find(&mut self, submission: &Submission) -> Result<Lineage, CoordinationError> {
        let submission = submission.clone();
        let found = self.persist(move |client, state, _| {
            let submission = submission.clone();
            async move {
                let found = attempt!(@done lineage::find(&client, &submission).await);
                Try::Done((found, state))
            }
        });
        found.map(|(lineage, _)| lineage)
    }

    /// Coordination of the run at `paths` through the Ensemble at `cluster` (`host:port,…`). `name`
    /// says who leads, for people.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(cluster: &str, paths: Paths, name: &str) -> Result<Self, CoordinationError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pharos-coordination")
            .enable_all()
            .build()
            .map_err(|error| CoordinationError::Ensemble(error.to_string()))?;
        Ok(Self {
            cluster: cluster.to_owned(),
            paths,
            name: name.to_owned(),
            lineage: None,
            runtime,
            state: State::default(),
        })
    }

    /// Waits for a step on the runtime's own thread, so that the caller may be on any other.
    fn wait<T: Send + 'static>(&self, step: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more only if the process is about to end.
            let _ = sender.send(step.await);
        });
        answer.recv().expect("a step does not panic")
    }

    /// Tries a step until it is done, on a fresh connection each time one broke.
    fn persist<T, F>(
        &mut self,
        step: impl Fn(Client, State, Paths) -> F,
    ) -> Result<(T, State), CoordinationError>
    where
        T: Send + 'static,
        F: Future<Output = Try<(T, State)>> + Send + 'static,
    {
        let mut last = String::new();
        for turn in 0..TRIES {
            if turn > 0 {
                std::thread::sleep(PAUSE);
            }
            let client = match self.state.client.clone() {
                Some(client) => client,
                None => {
                    let cluster = self.cluster.clone();
                    let connecting = async move {
                        Client::connector().with_session_timeout(SESSION).connect(&cluster).await
                    };
                    match self.wait(connecting) {
                        Ok(client) => client,
                        Err(error) => {
                            last = error.to_string();
                            continue;
                        }
                    }
                }
            };
            self.state.client = Some(client.clone());
            match self.wait(step(client, self.state.clone(), self.paths.clone())) {
                Try::Done((value, state)) => {
                    return Ok((value, State { client: self.state.client.clone(), ..state }));
                }
                Try::Failed(error) => return Err(error),
                Try::Again(error) => {
                    self.state.client = None;
                    last = error;
                }
            }
        }
        Err(CoordinationError::Ensemble(format!("`{}` gave up after {TRIES} tries: {last}", self.cluster)))
    }
}

impl Coordination for ZooKeeperCoordination {
    fn take_over(&mut self) -> Result<Tenure, CoordinationError> {
        let (name, lineage) = (self.name.clone(), self.lineage.clone());
        self.state.generation = None;
        let (tenure, state) = self.persist(move |client, _, paths| {
            let (name, lineage) = (name.clone(), lineage.clone());
            async move { take_over(&client, &paths, &name, lineage.as_ref()).await }
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
    client: &Client,
    paths: &Paths,
    name: &str,
    lineage: Option<&Lineage>,
) -> Try<(Tenure, State)> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    attempt!(client.mkdir(paths.run(), &options).await);
    let record = match lineage {
        None => None,
        Some(lineage) => {
            attempt!(client.sync(paths.run()).await);
            Some(attempt!(@done lineage::known(client, lineage).await))
        }
    };
    for path in [paths.generation(), paths.latest()] {
        match client.create(&path, b"", &options).await {
            Ok(_) | Err(Error::NodeExists) => {}
            Err(error) => return error.into(),
        }
    }
    // The generation is taken first: what is read after it cannot be changed by anyone before us.
    let stat = attempt!(client.set_data(&paths.generation(), name.as_bytes(), None).await);
    attempt!(client.sync(paths.run()).await);
    let (bytes, latest_stat) = attempt!(client.get_data(&paths.latest()).await);
    let latest = if bytes.is_empty() {
        None
    } else {
        match Pointer::parse(&paths.latest(), &bytes) {
            Ok(pointer) => Some(pointer),
            Err(error) => return Try::Failed(error),
        }
    };
    let completed = attempt!(client.check_stat(&paths.completed()).await).is_some();
    let tenure = Tenure { generation: u64::from(stat.version.unsigned_abs()), latest, completed };
    let (generation, latest) = (Some(stat.version), latest_stat.version);
    Try::Done((tenure, State { client: None, generation, latest, record }))
}

fn our_generation<T>(state: &State) -> Result<i32, Try<T>> {
    state.generation.ok_or(Try::Failed(CoordinationError::Fenced))
}

async fn publish(client: &Client, state: State, paths: &Paths, pointer: &Pointer) -> Try<((), State)> {
    let generation = match our_generation(&state) {
        Ok(generation) => generation,
        Err(failed) => return failed,
    };
    // After a lost answer the pointer may be there already; the first time this costs one read.
    attempt!(client.sync(paths.run()).await);
    let (bytes, stat) = attempt!(client.get_data(&paths.latest()).await);
    if Pointer::parse(&paths.latest(), &bytes).as_ref() == Ok(pointer) {
        let record = state.record.map(Known::after_checkpoint);
        return Try::Done(((), State { latest: stat.version, record, ..state }));
    }
    let data = serde_json::to_vec(pointer).expect("plain data becomes JSON");
    let mut multi = client.new_multi_writer();
    attempt!(multi.add_check_version(&paths.generation(), generation));
    attempt!(multi.add_set_data(&paths.latest(), &data, Some(state.latest)));
    match &state.record {
        None => {}
        Some(Known { path, version, succession: None }) => {
            attempt!(multi.add_check_version(path, *version));
        }
        Some(Known { path, version, succession: Some(data) }) => {
            attempt!(multi.add_set_data(path, data, Some(*version)));
        }
    }
    match multi.commit().await {
        Ok(_) => {
            let record = state.record.map(Known::after_checkpoint);
            Try::Done(((), State { latest: state.latest + 1, record, ..state }))
        }
        Err(MultiWriteError::OperationFailed { source: Error::BadVersion | Error::NoNode, .. }) => {
            Try::Failed(CoordinationError::Fenced)
        }
        Err(error) => Error::from(error).into(),
    }
}

async fn complete(client: &Client, state: State, paths: &Paths) -> Try<((), State)> {
    let generation = match our_generation(&state) {
        Ok(generation) => generation,
        Err(failed) => return failed,
    };
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let mut multi = client.new_multi_writer();
    attempt!(multi.add_check_version(&paths.generation(), generation));
    attempt!(multi.add_create(&paths.completed(), b"{\"version\":1}", &options));
    match multi.commit().await {
        Ok(_) | Err(MultiWriteError::OperationFailed { index: 1, source: Error::NodeExists }) => {
            Try::Done(((), state))
        }
        Err(MultiWriteError::OperationFailed { source: Error::BadVersion | Error::NoNode, .. }) => {
            Try::Failed(CoordinationError::Fenced)
        }
        Err(error) => Error::from(error).into(),
    }
}
