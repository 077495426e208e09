//! The operator and its chart.

use std::time::Duration;

use pharos_e2e::command::{output, wait_until};
use pharos_e2e::install::Release;
use pharos_e2e::sandbox::Sandbox;

use super::{RELEASE, SYSTEM, installed};

const SELECTOR: &str = "app.kubernetes.io/component=operator";

fn pod_uids() -> anyhow::Result<Vec<String>> {
    let pods = installed().cluster.get(["--namespace", SYSTEM, "pods", "--selector", SELECTOR])?;
    let uid = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Ok(pods["items"].as_array().into_iter().flatten().map(uid).collect())
}

/// Kills the operator as a crash does, and waits for its successor.
pub(super) fn kill() {
    let before = pod_uids().unwrap();
    assert!(!before.is_empty(), "the operator does not run");
    let delete =
        ["--namespace", SYSTEM, "delete", "pods", "--selector", SELECTOR, "--grace-period=0", "--force"];
    installed().cluster.kubectl(delete).unwrap();
    wait_until("another operator", Duration::from_secs(120), || {
        Ok(pod_uids()?.iter().any(|uid| !before.contains(uid)).then_some(()))
    })
    .unwrap();
    let wait = [
        "--namespace",
        SYSTEM,
        "wait",
        "pods",
        "--selector",
        SELECTOR,
        "--for=condition=Ready",
        "--timeout=120s",
    ];
    installed().cluster.kubectl(wait).unwrap();
}

#[test]
fn the_charts_own_test_passes() {
    let mut helm = installed().cluster.command("helm");
    output(helm.args(["test", RELEASE, "--namespace", SYSTEM, "--timeout=120s"])).unwrap();
}

/// Installs the shared release again when it is dropped, whatever happened to the other.
struct InPlaceOfTheShared<'a>(Release<'a>);

impl<'a> InPlaceOfTheShared<'a> {
    fn install(release: Release<'a>, values: &[&str]) -> Self {
        installed().release().uninstall().unwrap();
        let this = Self(release);
        this.0.install(&installed().images, values).unwrap();
        this
    }
}

impl Drop for InPlaceOfTheShared<'_> {
    fn drop(&mut self) {
        let _ = self.0.uninstall();
        installed().release().install(&installed().images, &[]).unwrap();
    }
}

#[test]
fn a_release_of_another_name_for_one_namespace_takes_over_without_a_restart_and_needs_no_cluster_role() {
    let sandbox = Sandbox::new(&installed().cluster, "narrow").unwrap();
    let ensemble = |name: &str| {
        format!(
            "{{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {{name: {name}}}, \
             spec: {{replicas: 1, storage: {{size: 1Gi}}}}}}"
        )
    };
    sandbox.apply(&ensemble("old")).unwrap();
    sandbox.wait_for("ensemble/old", "condition=Ready", Duration::from_secs(180)).unwrap();
    let before = sandbox.get("pod/old-ensemble-0").unwrap()["metadata"]["uid"].clone();

    let release = Release { cluster: &installed().cluster, name: "lighthouse", namespace: SYSTEM };
    let other = InPlaceOfTheShared::install(release, &[&format!("watchNamespaces={{{}}}", sandbox.name)]);
    let labelled = ["clusterroles,clusterrolebindings", "--selector=app.kubernetes.io/instance=lighthouse"];
    let wide = installed().cluster.get(labelled).unwrap();
    assert_eq!(wide["items"], serde_json::json!([]));
    sandbox.apply(&ensemble("new")).unwrap();
    sandbox.wait_for("ensemble/new", "condition=Ready", Duration::from_secs(180)).unwrap();
    assert_eq!(sandbox.get("pod/old-ensemble-0").unwrap()["metadata"]["uid"], before);
    drop(other);
}
