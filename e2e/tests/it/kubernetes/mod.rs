//! Tests on Kubernetes: one cluster and one installation of the chart for all of them.

mod api;
mod ensemble;
mod operator;
mod pipeline;

use std::sync::OnceLock;

use pharos_e2e::cluster::Cluster;
use pharos_e2e::install::{Images, Release};

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
