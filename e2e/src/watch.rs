//! Watching pods while something happens to them.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde_json::Value;

use crate::command::Running;
use crate::sandbox::Sandbox;

/// What happened to the pods of a selector since it was started, in order.
pub struct PodWatch {
    _kubectl: Running,
    events: Arc<Mutex<Vec<PodEvent>>>,
}

/// A pod as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Whether it is ready, and neither asked to go nor gone.
    pub ready: bool,
    /// Whether it was asked to go, or is gone.
    pub going: bool,
}

impl PodWatch {
    /// Starts with the pods that are there.
    ///
    /// # Errors
    /// If kubectl cannot be started.
    pub fn start(sandbox: &Sandbox<'_>, selector: &str) -> anyhow::Result<Self> {
        let mut command = sandbox.cluster.command("kubectl");
        command.args(["--namespace", &sandbox.name, "get", "pods", "--selector", selector]);
        command.args(["--watch", "--output-watch-events", "--output=json"]);
        let mut kubectl = Running::start(command.stdout(Stdio::piped()))?;
        let stdout = kubectl.stdout.take().context("kubectl's stdout is a pipe")?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        // Never joined: inside a box the killed program is nsenter, and kubectl itself ends with its next write.
        std::thread::spawn(move || {
            let stream = serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter::<Value>();
            for event in stream.map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(read(&event));
            }
        });
        Ok(Self { _kubectl: kubectl, events })
    }

    /// What happened so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<PodEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(event: &Value) -> PodEvent {
    let pod = &event["object"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let going = event["type"] == "DELETED" || pod["metadata"]["deletionTimestamp"].is_string();
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    PodEvent {
        pod: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        ready: ready && !going,
        going,
    }
}

/// The names of the pods that were asked to go, each once, in that order.
#[must_use]
pub fn order_of_leaving(events: &[PodEvent]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for event in events.iter().filter(|event| event.going) {
        if !order.contains(&event.pod) {
            order.push(event.pod.clone());
        }
    }
    order
}

/// The most pods that were not ready at the same time, once all `expected` had been ready.
#[must_use]
pub fn most_down_at_once(events: &[PodEvent], expected: usize) -> usize {
    let mut ready = BTreeMap::new();
    let mut were_all_ready = false;
    let mut most = 0;
    for event in events {
        ready.insert(&event.pod, event.ready);
        let up = ready.values().filter(|ready| **ready).count();
        were_all_ready |= up == expected;
        if were_all_ready {
            most = most.max(expected.saturating_sub(up));
        }
    }
    most
}
