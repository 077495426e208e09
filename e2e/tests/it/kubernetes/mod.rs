//! Tests on Kubernetes: one cluster and one installation of the chart for all of them.

mod api;
mod ensemble;
mod operator;
mod pipeline;
mod recovery;
mod restore;
mod upgrade;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use pharos_e2e::cluster::Cluster;
use pharos_e2e::install::{Images, Release};
use pharos_e2e::sandbox::Sandbox;

/// The namespace of the operator.
const SYSTEM: &str = "pharos-system";
/// The name of the release.
const RELEASE: &str = "pharos";

struct Installed {
    cluster: Cluster,
    images: Images,
}

impl Installed {
    fn release(&self) -> Release<'_> {
        Release { cluster: &self.cluster, name: RELEASE, namespace: SYSTEM }
    }
}

/// The cluster with the chart installed: made by the first test that asks, shared by all.
fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Result<Installed, String>> = OnceLock::new();
    // The failure is kept as well, or each test would try again for minutes.
    INSTALLED
        .get_or_init(|| install().map_err(|error| format!("{error:#}")))
        .as_ref()
        .expect("the chart is installed")
}

fn install() -> anyhow::Result<Installed> {
    let cluster = Cluster::bring_up()?;
    let images = Images::load(&cluster)?;
    let installed = Installed { cluster, images };
    installed.release().install(&installed.images, &[])?;
    Ok(installed)
}

/// A manifest that was applied, and has been reconciled, is applied again: only kubectl has written its `spec`.
fn applied_again_changes_nothing(sandbox: &Sandbox<'_>, resource: &str, manifest: &str) {
    let before = sandbox.get(resource).unwrap();
    let diff =
        sandbox.cluster.kubectl_with_input(["--namespace", &sandbox.name, "diff", "-f", "-"], manifest);
    assert_eq!(diff.unwrap(), "");
    assert!(sandbox.apply(manifest).unwrap().contains("unchanged"));
    let after =
        sandbox.cluster.get(["--namespace", &sandbox.name, resource, "--show-managed-fields"]).unwrap();
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(after["spec"], before["spec"]);
    let managers: BTreeSet<_> = after["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["fieldsV1"]["f:spec"].is_object())
        .map(|entry| entry["manager"].as_str().unwrap())
        .collect();
    assert_eq!(managers, BTreeSet::from(["kubectl-client-side-apply"]));
}
