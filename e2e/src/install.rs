//! Installing the chart from this clone with images built from this clone.

use anyhow::Context;

use crate::cluster::Cluster;
use crate::command::output;
use crate::image::{self, Archive};

/// What every namespace is labelled with: the strictest of Kubernetes' Pod Security levels.
pub const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// Our images, loaded into the cluster.
pub struct Images {
    /// The members and workers.
    pub node: Archive,
    /// The operator.
    pub operator: Archive,
}

impl Images {
    /// Builds both and loads them.
    ///
    /// # Errors
    /// If one cannot be built or the cluster does not take it.
    pub fn load(cluster: &Cluster) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let images = image::ours(directory.path())?;
        for image in &images {
            cluster.load_image(&image.path)?;
        }
        let [node, operator] = <[Archive; 2]>::try_from(images).ok().context("there are two images")?;
        Ok(Self { node, operator })
    }
}

/// A release of the chart.
pub struct Release<'a> {
    /// The cluster it is installed on.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: &'a str,
    /// The namespace it is installed in.
    pub namespace: &'a str,
}

impl Release<'_> {
    /// Makes the namespace and installs or upgrades the release; the operator is ready when this returns.
    ///
    /// # Errors
    /// If Helm or the cluster refuses.
    pub fn install(&self, images: &Images, values: &[&str]) -> anyhow::Result<()> {
        restricted_namespace(self.cluster, self.namespace)?;
        let mut command = self.cluster.command("helm");
        command.args([
            "upgrade",
            "--install",
            self.name,
            "--namespace",
            self.namespace,
            "--wait",
            "--timeout=120s",
            // The CRDs stay when a release goes; one of another name takes them over.
            "--take-ownership",
        ]);
        command.arg(self.cluster.root().join("charts/pharos"));
        for (value, image) in [("image", &images.operator), ("node.image", &images.node)] {
            command.args(["--set", &format!("{value}.repository={}", image.repository)]);
            command.args(["--set-string", &format!("{value}.tag={}", image.tag)]);
            command.args(["--set", &format!("{value}.pullPolicy=Never")]);
        }
        for value in values {
            command.args(["--set", value]);
        }
        output(&mut command).map(drop)
    }

    /// Removes the release; the CRDs stay.
    ///
    /// # Errors
    /// If Helm or the cluster refuses.
    pub fn uninstall(&self) -> anyhow::Result<()> {
        let mut command = self.cluster.command("helm");
        output(command.args(["uninstall", self.name, "--namespace", self.namespace, "--wait"])).map(drop)
    }
}

/// Makes a namespace that admits restricted pods only; one that is there stays.
///
/// # Errors
/// If the cluster refuses.
pub fn restricted_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let (key, value) = RESTRICTED.split_once('=').unwrap_or((RESTRICTED, ""));
    let manifest = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{key}: {value}}}}}}}\n"
    );
    cluster.kubectl_with_input(["apply", "--server-side", "-f", "-"], &manifest).map(drop)
}
