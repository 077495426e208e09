//! A run: from a plan to a report.
//!
//! Owns: starting and joining the threads, and who commits what.
//! Must not know: formats, the Ensemble's protocol.
//! Invariant: outputs become visible only after everything before them is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pharos_beam::plan::{NodeId, NodeKind, Plan};

use crate::assemble::{Assembly, Restored};
use crate::error::StreamError;
use crate::event::{Event, Events, Listener, Report};
use crate::exec::fragment::Steps;
use crate::exec::task::{TaskReport, TaskState};
use crate::exec::worker::{self, News, Shared, Task};
use crate::graph::Graph;
use crate::io::Connectors;

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// How many threads; results do not depend on it.
    pub threads: usize,
    /// The name of the run, for files in the making.
    pub run: String,
    /// Who hears of progress.
    pub listener: Listener,
}

/// Runs a plan to its end.
///
/// # Errors
/// If it cannot be run to its end.
pub fn run(
    plan: &Plan,
    connectors: &Arc<dyn Connectors>,
    options: &RunOptions,
) -> Result<Report, StreamError> {
    let graph = Graph::new(plan)?;
    let events = Events::new(Arc::clone(&options.listener));
    let assembly = Assembly {
        graph: &graph,
        connectors: &**connectors,
        threads: options.threads,
        run: &options.run,
        restored: Restored::default(),
    };
    let tasks = assembly.tasks()?;
    let encoders = encoders(&graph, &**connectors)?;
    let steps = Steps { graph, encoders, events: events.clone() };
    let shared = Arc::new(Shared::new(steps));
    let (mut threads, news) = start(&shared, tasks);
    let mut sinks = BTreeMap::new();
    let result = follow(&news, options.threads, |report| {
        if let (None, TaskState::Sink(prepared)) = (report.barrier, report.state) {
            sinks.insert(report.node, prepared);
        }
        Ok(())
    });
    threads.drain(..).for_each(|thread| thread.join().expect("a worker thread does not panic"));
    result?;
    commit(&shared.steps.graph, &**connectors, &events, &sinks)?;
    Ok(events.report())
}

fn encoders(
    graph: &Graph,
    connectors: &dyn Connectors,
) -> Result<BTreeMap<NodeId, Arc<dyn crate::io::Encode>>, StreamError> {
    let mut encoders = BTreeMap::new();
    for node in graph.targets() {
        if let NodeKind::Write(spec) = &node.kind {
            let encoder = connectors
                .encoder(spec, graph.input_schema(node, 0))
                .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
            encoders.insert(node.id, encoder);
        }
    }
    Ok(encoders)
}

fn start(shared: &Arc<Shared>, tasks: Vec<Vec<Task>>) -> (Vec<JoinHandle<()>>, Receiver<News>) {
    let (sender, news) = channel();
    let threads = tasks.len();
    let handles: Vec<JoinHandle<()>> = tasks
        .into_iter()
        .enumerate()
        .map(|(thread, tasks)| {
            let (shared, sender) = (Arc::clone(shared), sender.clone());
            std::thread::Builder::new()
                .name(format!("pharos-worker-{thread}"))
                .spawn(move || worker::run(&shared, thread, threads, tasks, &sender))
                .expect("the system gives a thread")
        })
        .collect();
    shared.introduce(handles.iter().map(|handle| handle.thread().clone()).collect());
    (handles, news)
}

/// Hears the threads until all have ended; the first error that is not an echo is the result.
fn follow(
    news: &Receiver<News>,
    threads: usize,
    mut keep: impl FnMut(TaskReport) -> Result<(), StreamError>,
) -> Result<(), StreamError> {
    let mut result = Ok(());
    let mut running = threads;
    while running > 0 {
        match news.recv_timeout(Duration::from_secs(3600)) {
            Ok(News::Report(report)) => keep(report)?,
            Ok(News::Ended(ended)) => {
                running -= 1;
                if matches!(result, Ok(()) | Err(StreamError::Stopped)) && ended.is_err() {
                    result = ended;
                }
            }
            Err(_) => {}
        }
    }
    result
}

fn commit(
    graph: &Graph,
    connectors: &dyn Connectors,
    events: &Events,
    sinks: &BTreeMap<NodeId, String>,
) -> Result<(), StreamError> {
    for (id, prepared) in sinks {
        let node = graph.node(*id);
        let NodeKind::Write(spec) = &node.kind else { continue };
        let files = connectors
            .commit(spec, prepared)
            .map_err(|source| StreamError::Connect { transform: node.name.clone(), source })?;
        events.send(Event::Written { transform: node.name.clone(), files });
    }
    Ok(())
}
