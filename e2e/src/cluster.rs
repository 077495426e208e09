//! The cluster that tests run on: a box of their own, or the one that KUBECONFIG names.
//!
//! Owns how a program reaches the cluster. Must not know what is installed on it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::command::{output, output_with_input};
use crate::environment::Environment;
use crate::kubebox::{self, KubeBox, Lifetime};

/// Set, it makes tests use the box that `./x box up` left, if it is up.
pub const REUSE: &str = "PHAROS_REUSE_BOX";
/// For a cluster that KUBECONFIG names: the command that loads an image archive into it, such as
/// `kind load image-archive`.
pub const LOAD_IMAGE: &str = "PHAROS_LOAD_IMAGE";
/// For a cluster that KUBECONFIG names: an S3 endpoint that its pods reach, with a bucket `pharos`.
pub const S3_ENDPOINT: &str = "PHAROS_S3_ENDPOINT";

/// A cluster with a ready node.
pub struct Cluster {
    tools: Environment,
    kind: Kind,
}

enum Kind {
    Box(KubeBox),
    /// The user's own.
    Given,
}

impl Cluster {
    /// The cluster that KUBECONFIG names, else the running box if that is wanted, else a new box.
    ///
    /// # Errors
    /// If the box does not come up.
    pub fn bring_up() -> anyhow::Result<Self> {
        let tools = Environment::read()?;
        if std::env::var_os("KUBECONFIG").is_some() {
            return Ok(Self { tools, kind: Kind::Given });
        }
        if std::env::var_os(REUSE).is_some()
            && let Some(kube_box) = KubeBox::current(tools.clone())?
        {
            return Ok(Self::of_box(kube_box, tools));
        }
        let kube_box = KubeBox::up(tools.clone(), Lifetime::Process)?;
        Ok(Self::of_box(kube_box, tools))
    }

    /// A box as a cluster.
    #[must_use]
    pub fn of_box(kube_box: KubeBox, tools: Environment) -> Self {
        Self { tools, kind: Kind::Box(kube_box) }
    }

    /// The clone, with the chart and the examples.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.tools.root
    }

    /// A program with kubectl configured, that reaches the API server and, in the box, pods and services.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.kind {
            Kind::Box(kube_box) => kube_box.command(program),
            Kind::Given => {
                let mut command = Command::new(program);
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{}:{path}", self.tools.kube_bin.display()));
                command
            }
        }
    }

    /// A Python program that has kazoo.
    #[must_use]
    pub fn python(&self, program: &str) -> Command {
        let mut command = self.command(&self.tools.python);
        command.args(["-c", program]);
        command
    }

    /// Runs kubectl and gives what it prints.
    ///
    /// # Errors
    /// If it does not succeed.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        output(self.command("kubectl").args(args))
    }

    /// Runs kubectl with `input` and gives what it prints.
    ///
    /// # Errors
    /// If it does not succeed.
    pub fn kubectl_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> anyhow::Result<String> {
        output_with_input(self.command("kubectl").args(args), input)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub fn get<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<Value> {
        let text = output(self.command("kubectl").args(["get", "--output=json"]).args(args))?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Loads an image archive, so that pods need no registry.
    ///
    /// # Errors
    /// If the cluster does not take it, or nobody said how to give it to the user's own cluster.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        match &self.kind {
            Kind::Box(kube_box) => kube_box.import(archive),
            Kind::Given => {
                let Ok(command) = std::env::var(LOAD_IMAGE) else {
                    bail!(
                        "KUBECONFIG is set; set {LOAD_IMAGE} to the command that loads an image archive as well"
                    );
                };
                let script = format!("{command} \"$1\"");
                output(Command::new("sh").args(["-c", &script, "load"]).arg(archive)).map(drop)
            }
        }
    }

    /// Makes volumes available again whose claims are gone; a cluster with a provisioner does so by itself.
    ///
    /// # Errors
    /// If that fails.
    pub fn recycle_volumes(&self) -> anyhow::Result<()> {
        match &self.kind {
            Kind::Box(kube_box) => kube_box.recycle_volumes(),
            Kind::Given => Ok(()),
        }
    }

    /// Where pods find an S3 server with the bucket [`kubebox::BUCKET`].
    ///
    /// # Errors
    /// If nobody said which one the user's own cluster has.
    pub fn s3_endpoint(&self) -> anyhow::Result<String> {
        match &self.kind {
            Kind::Box(_) => Ok(kubebox::ENDPOINT.to_owned()),
            Kind::Given => std::env::var(S3_ENDPOINT)
                .with_context(|| format!("KUBECONFIG is set; set {S3_ENDPOINT} as well")),
        }
    }

    /// Whether this program's neighbours, such as [`Cluster::python`], reach pods by their addresses.
    #[must_use]
    pub fn reaches_pods(&self) -> bool {
        matches!(self.kind, Kind::Box(_))
    }
}
