//! A namespace of one test: what it makes is gone when the test ends.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::command::wait_until;
use crate::install::restricted_namespace;

/// A namespace that admits restricted pods only, deleted with all that is in it when this is dropped.
pub struct Sandbox<'a> {
    /// The cluster it is on.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl<'a> Sandbox<'a> {
    /// Makes one; `purpose` is the beginning of its name.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub fn new(cluster: &'a Cluster, purpose: &str) -> anyhow::Result<Self> {
        cluster.recycle_volumes()?;
        let random =
            tempfile::Builder::new().prefix("").rand_bytes(5).tempdir().context("cannot make a name")?;
        let random = random.path().file_name().map(|name| name.to_string_lossy().to_lowercase());
        let name = format!("{purpose}-{}", random.unwrap_or_default());
        restricted_namespace(cluster, &name)?;
        // Made by the controller manager a moment later; pods need it.
        wait_until("the namespace's service account", Duration::from_secs(60), || {
            cluster.kubectl(["--namespace", &name, "get", "serviceaccount", "default"]).map(Some)
        })?;
        Ok(Self { cluster, name })
    }

    /// Runs kubectl in the namespace.
    ///
    /// # Errors
    /// If it does not succeed.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        crate::command::output(self.cluster.command("kubectl").args(["--namespace", &self.name]).args(args))
    }

    /// Applies manifests as a user does.
    ///
    /// # Errors
    /// If the API server refuses one.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.cluster.kubectl_with_input(["--namespace", &self.name, "apply", "-f", "-"], manifests)
    }

    /// Reads an object, `kind/name`.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn get(&self, object: &str) -> anyhow::Result<Value> {
        self.cluster.get(["--namespace", &self.name, object])
    }

    /// The objects of a kind that a selector names, or all for an empty one.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn list(&self, kind: &str, selector: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.cluster.get(["--namespace", &self.name, kind, "--selector", selector])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits for what `kubectl wait --for` takes; the error has what the namespace looks like then.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub fn wait_for(&self, object: &str, what: &str, limit: Duration) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        // A kind alone means all of that kind.
        let all = if object.contains('/') { [].as_slice() } else { &["--all"] };
        self.kubectl([&["wait", object, &format!("--for={what}"), &timeout], all].concat())
            .map(drop)
            .with_context(|| self.describe())
    }

    /// Asks until there is an answer; the error has what the namespace looks like then.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        ask: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        wait_until(what, limit, ask).with_context(|| self.describe())
    }

    /// A condition of an object: its status and its reason.
    ///
    /// # Errors
    /// If the object does not exist.
    pub fn condition(&self, object: &str, kind: &str) -> anyhow::Result<Option<(String, String)>> {
        let object = self.get(object)?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        Ok(found.map(|condition| (text(&condition["status"]), text(&condition["reason"]))))
    }

    /// What a person would look at first.
    #[must_use]
    pub fn describe(&self) -> String {
        let show = |args: &[&str]| self.kubectl(args).unwrap_or_else(|error| format!("{error:#}"));
        let mut text = show(&[
            "get",
            "ensembles,pipelines,statefulsets,pods,services,persistentvolumeclaims",
            "-o",
            "wide",
        ]);
        text += &show(&[
            "get",
            "ensembles,pipelines",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.status}{\"\\n\"}{end}",
        ]);
        text += &show(&["get", "events", "--sort-by=.lastTimestamp"]);
        for pod in self.list("pods", "").unwrap_or_default() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            text += &format!("--- {name}\n{}", show(&["logs", name, "--tail=30"]));
        }
        let operator = ["--all-namespaces", "--selector=app.kubernetes.io/component=operator"];
        for pod in self
            .cluster
            .get(["pods"].iter().chain(&operator))
            .iter()
            .flat_map(|list| list["items"].as_array())
            .flatten()
        {
            let (space, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
            let args = [
                "--namespace",
                space.as_str().unwrap_or_default(),
                "logs",
                name.as_str().unwrap_or_default(),
            ];
            text += &format!(
                "--- operator\n{}",
                self.cluster.kubectl(args.iter().chain(&["--tail=40"])).unwrap_or_default()
            );
        }
        text
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        // What a failed test leaves says more than its error: keep it in a cluster that outlives the test.
        if std::thread::panicking() && std::env::var_os(crate::cluster::REUSE).is_some() {
            return;
        }
        let deleted = self.cluster.kubectl(["delete", "namespace", &self.name, "--timeout=120s"]);
        if let Err(error) = deleted {
            eprintln!("cannot delete namespace {}: {error:#}", self.name);
        }
    }
}
