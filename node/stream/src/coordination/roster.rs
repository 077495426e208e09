//! The roster of a run's workers in an Ensemble, over the public ZooKeeper protocol.
//!
//! Owns: a session of its own, the worker's ephemeral znode, the watch on all of them.
//! Must not know: what workers do.
//! Invariant: the worker is told only what the Ensemble said after the worker's znode was there; when
//! the session is over, it is told that nobody is known until it is on the roster again.
//!
//! A process that died is on the roster until its session ends. The next one of the same name does not
//! wait for that: where it comes in first, it takes the znode of the one before it off.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::{CoordinationError, Member, Paths, Roster, View, Watcher};

/// How long a worker may be silent before the Ensemble drops it.
const SESSION: Duration = Duration::from_secs(6);
/// Between two tries to reach the Ensemble.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether the run is done, besides at every change.
const LOOK: Duration = Duration::from_secs(2);

/// The roster of a run.
pub struct ZooKeeperRoster {
    cluster: String,
    paths: Paths,
    runtime: Option<Runtime>,
    leave: Option<oneshot::Sender<()>>,
}

impl ZooKeeperRoster {
    /// The roster of the run at `paths` in the Ensemble at `cluster` (`host:port,…`).
    #[must_use]
    pub fn new(cluster: &str, paths: Paths) -> Self {
        Self { cluster: cluster.to_owned(), paths, runtime: None, leave: None }
    }
}

impl Roster for ZooKeeperRoster {
    fn join(&mut self, me: &Member, watcher: Watcher) -> Result<(), CoordinationError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pharos-roster")
            .enable_all()
            .build()
            .map_err(|error| CoordinationError::Ensemble(error.to_string()))?;
        let (leave, left) = oneshot::channel();
        let (cluster, paths, me) = (self.cluster.clone(), self.paths.clone(), me.clone());
        runtime.spawn(async move {
            tokio::select! {
                () = stay(&cluster, &paths, &me, &watcher) => {}
                _ = left => {}
            }
        });
        self.runtime = Some(runtime);
        self.leave = Some(leave);
        Ok(())
    }

    fn leave(&mut self) {
        // The session is closed with its client, and the znode goes with it.
        drop(self.leave.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for ZooKeeperRoster {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn stay(cluster: &str, paths: &Paths, me: &Member, watcher: &Watcher) {
    // Two that live under one name must not take each other off for ever.
    let mut came = false;
    loop {
        // What went wrong shows where it harms: at the next checkpoint.
        if let Ok(client) = Client::connector().with_session_timeout(SESSION).connect(cluster).await {
            one_session(&client, paths, me, watcher, &mut came).await;
        }
        watcher(View::default());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Keeps the worker on the roster until the session is over. A connection that breaks is no end of it.
async fn one_session(client: &Client, paths: &Paths, me: &Member, watcher: &Watcher, came: &mut bool) {
    let mut known = BTreeMap::new();
    while !client.state().is_terminated() {
        if watch(client, paths, me, watcher, &mut known, came).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What each znode says; none if this build cannot read it: that worker takes no part.
type Known = BTreeMap<String, Option<Member>>;

async fn watch(
    client: &Client,
    paths: &Paths,
    me: &Member,
    watcher: &Watcher,
    known: &mut Known,
    came: &mut bool,
) -> Result<(), Error> {
    let workers = paths.workers();
    client.mkdir(&workers, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
    loop {
        client.sync(paths.run()).await?;
        let (mut names, changed) = client.list_and_watch_children(&workers).await?;
        names.sort();
        known.retain(|name, _| names.contains(name));
        for name in names.iter().filter(|name| !known.contains_key(*name)).collect::<Vec<_>>() {
            match client.get_data(&format!("{workers}/{name}")).await {
                Ok((data, _)) => known.insert(name.clone(), parse(&data)),
                Err(Error::NoNode) => continue,
                Err(error) => return Err(error),
            };
        }
        let completed = client.check_stat(&paths.completed()).await?.is_some();
        let members: Vec<Member> = known.values().flatten().cloned().collect();
        // It may be there already, if the answer to its making was lost.
        let old = |(name, member): (&String, &Option<Member>)| {
            let old = member.as_ref().is_some_and(|member| member.name == me.name && member.id != me.id);
            old.then(|| format!("{workers}/{name}"))
        };
        if !*came {
            for old in known.iter().filter_map(old) {
                match client.delete(&old, None).await {
                    Ok(()) | Err(Error::NoNode) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if !members.iter().any(|member| member.id == me.id) {
            let data = serde_json::to_vec(me).expect("plain data becomes JSON");
            let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
            client.create(&format!("{workers}/worker-"), &data, &options).await?;
            continue;
        }
        *came = true;
        watcher(View { members: super::seen_by(me, &members), completed });
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn parse(data: &[u8]) -> Option<Member> {
    serde_json::from_slice::<Member>(data).ok().filter(|member| member.version == super::VERSION)
}
