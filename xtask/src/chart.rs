//! Checks of the Helm chart that need no cluster.

use std::process::Command;

use crate::layout::Layout;
use crate::setup;
use crate::shell::{run_quietly, step};

const CHART: &str = "charts/pharos";

/// Ways to install the chart that must render.
const VARIANTS: &[&[&str]] =
    &[&[], &["--set", "crds.install=false"], &["--set", "watchNamespaces={one,two}"]];

pub(crate) fn check(layout: &Layout) -> anyhow::Result<()> {
    let bin = setup::kubernetes_binaries(layout)?;
    step("chart", || {
        let helm = || {
            let mut command = Command::new(bin.join("helm"));
            command.current_dir(&layout.root).env_remove("KUBECONFIG");
            command
        };
        run_quietly(helm().args(["lint", "--strict", CHART]))?;
        for variant in VARIANTS {
            run_quietly(helm().args(["template", "pharos", CHART]).args(*variant))?;
        }
        Ok(())
    })
}
