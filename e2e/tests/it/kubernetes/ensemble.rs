//! Ensembles, as their users and the people who run the cluster see them.

use std::collections::BTreeSet;
use std::time::Duration;

use pharos_e2e::sandbox::Sandbox;
use pharos_e2e::zookeeper::{self, Member, Writer};

use super::installed;

/// How long an Ensemble may take to become ready: seconds on an idle machine.
const READY: Duration = Duration::from_secs(180);

fn manifest(name: &str, replicas: u32, more: &str) -> String {
    format!(
        "apiVersion: pharos.dev/v1alpha1
kind: Ensemble
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  storage: {{size: 1Gi}}
{more}"
    )
}

fn ready_ensemble(name: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&installed().cluster, name).unwrap();
    sandbox.apply(&manifest(name, 3, "")).unwrap();
    sandbox.wait_for(&format!("ensemble/{name}"), "condition=Ready", READY).unwrap();
    sandbox
}

fn all(members: &[Member]) -> Vec<&Member> {
    members.iter().collect()
}

fn leader(sandbox: &Sandbox<'_>, name: &str) -> String {
    sandbox
        .wait_until("a leader in the status", READY, || {
            Ok(sandbox.get(&format!("ensemble/{name}"))?["status"]["leader"].as_str().map(str::to_owned))
        })
        .unwrap()
}

fn uid(sandbox: &Sandbox<'_>, object: &str) -> anyhow::Result<String> {
    Ok(sandbox.get(object)?["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn what_is_written_through_one_member_is_read_through_another() {
    let sandbox = ready_ensemble("write");
    let members = zookeeper::members(&sandbox, "write").unwrap();
    assert_eq!(members.len(), 3);
    for (number, member) in members.iter().enumerate() {
        let other = &members[(number + 1) % members.len()];
        zookeeper::put(&sandbox, &[member], &format!("/from-{number}"), "light").unwrap();
        assert_eq!(zookeeper::get(&sandbox, &[other], &format!("/from-{number}")).unwrap(), "light");
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_the_leader_pod_is_deleted() {
    let sandbox = ready_ensemble("failover");
    let members = zookeeper::members(&sandbox, "failover").unwrap();
    let writer = Writer::start(&sandbox, &all(&members), "/log", 3000).unwrap();
    writer.goes_on(200).unwrap();
    let leader = leader(&sandbox, "failover");
    let before = uid(&sandbox, &format!("pod/{leader}")).unwrap();
    sandbox.kubectl(["delete", "pod", &leader, "--wait=false"]).unwrap();
    writer.goes_on(200).unwrap();
    sandbox
        .wait_until("another pod in the leader's place", READY, || {
            Ok((uid(&sandbox, &format!("pod/{leader}"))? != before).then_some(()))
        })
        .unwrap();
    sandbox.wait_for(&format!("pod/{leader}"), "condition=Ready", READY).unwrap();
    sandbox.wait_for("ensemble/failover", "condition=Ready", READY).unwrap();
    let acknowledged = writer.finish(Duration::from_secs(180)).unwrap();
    // The member that came back has them as well as those that stayed.
    for member in &zookeeper::members(&sandbox, "failover").unwrap() {
        let there: BTreeSet<_> =
            zookeeper::children(&sandbox, &[member], "/log").unwrap().into_iter().collect();
        let lost: Vec<_> = acknowledged.iter().filter(|path| !there.contains(*path)).collect();
        assert!(lost.is_empty(), "{} has lost {lost:?}", member.pod);
    }
}

#[test]
fn the_data_is_back_after_all_pods_were_deleted_at_once() {
    let sandbox = ready_ensemble("blackout");
    let members = zookeeper::members(&sandbox, "blackout").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/kept", "light").unwrap();
    sandbox.kubectl(["delete", "pods", "--all", "--grace-period=0", "--force"]).unwrap();
    sandbox.wait_for("ensemble/blackout", "jsonpath={.status.readyReplicas}=3", READY).unwrap();
    sandbox.wait_for("ensemble/blackout", "condition=Ready", READY).unwrap();
    let members = zookeeper::members(&sandbox, "blackout").unwrap();
    for member in &members {
        assert_eq!(zookeeper::get(&sandbox, &[member], "/kept").unwrap(), "light");
    }
}
