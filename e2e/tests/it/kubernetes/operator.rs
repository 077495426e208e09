//! The operator and its chart.

use std::time::Duration;

use pharos_e2e::command::{output, wait_until};

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
