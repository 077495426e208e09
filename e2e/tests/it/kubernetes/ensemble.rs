//! Ensembles, as their users and the people who run the cluster see them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pharos_e2e::sandbox::Sandbox;
use pharos_e2e::watch::{PodWatch, most_down_at_once, order_of_leaving};
use pharos_e2e::zookeeper::{self, Member, Writer};
use serde_json::json;

use super::{installed, operator};

/// How long an Ensemble may take to become ready: seconds on an idle machine.
pub(super) const READY: Duration = Duration::from_secs(180);

pub(super) fn manifest(name: &str, replicas: u32, more: &str) -> String {
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

pub(super) fn ready_ensemble(name: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&installed().cluster, name).unwrap();
    sandbox.apply(&manifest(name, 3, "")).unwrap();
    sandbox.wait_for(&format!("ensemble/{name}"), "condition=Ready", READY).unwrap();
    sandbox
}

fn selector(name: &str) -> String {
    format!("app.kubernetes.io/component=ensemble,app.kubernetes.io/instance={name}")
}

pub(super) fn patch(sandbox: &Sandbox<'_>, name: &str, patch: &serde_json::Value) {
    sandbox.kubectl(["patch", "ensemble", name, "--type=merge", "--patch", &patch.to_string()]).unwrap();
}

/// Waits until the operator has seen the latest spec and has nothing left to do.
pub(super) fn settled(sandbox: &Sandbox<'_>, name: &str) {
    sandbox
        .wait_until("a roll-out that ends", Duration::from_secs(300), || {
            let ensemble = sandbox.get(&format!("ensemble/{name}"))?;
            let seen = ensemble["metadata"]["generation"] == ensemble["status"]["observedGeneration"];
            let is = |kind, wanted: &str| {
                let conditions = ensemble["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == wanted)
            };
            Ok((seen && is("Ready", "True") && is("Reconciling", "False") && is("UpToDate", "True"))
                .then_some(()))
        })
        .unwrap();
}

/// The pods' annotation that the roll-out tests change.
fn marks(sandbox: &Sandbox<'_>, name: &str) -> anyhow::Result<Vec<String>> {
    let pods = sandbox.list("pods", &selector(name))?;
    let mark = |pod: &serde_json::Value| {
        pod["metadata"]["annotations"]["mark"].as_str().unwrap_or("none").to_owned()
    };
    Ok(pods.iter().map(mark).collect())
}

pub(super) fn all(members: &[Member]) -> Vec<&Member> {
    members.iter().collect()
}

pub(super) fn leader(sandbox: &Sandbox<'_>, name: &str) -> String {
    sandbox
        .wait_until("a leader in the status", READY, || {
            Ok(sandbox.get(&format!("ensemble/{name}"))?["status"]["leader"].as_str().map(str::to_owned))
        })
        .unwrap()
}

fn uid(sandbox: &Sandbox<'_>, object: &str) -> anyhow::Result<String> {
    Ok(sandbox.get(object)?["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
}

fn uids(sandbox: &Sandbox<'_>, name: &str) -> anyhow::Result<BTreeSet<String>> {
    let pods = sandbox.list("pods", &selector(name))?;
    Ok(pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()).collect())
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
    let before = uids(&sandbox, "blackout").unwrap();
    sandbox.kubectl(["delete", "pods", "--all", "--grace-period=0", "--force"]).unwrap();
    sandbox
        .wait_until("other pods", READY, || {
            let now = uids(&sandbox, "blackout")?;
            Ok((now.len() == 3 && now.is_disjoint(&before)).then_some(()))
        })
        .unwrap();
    sandbox.wait_for("pods", "condition=Ready", READY).unwrap();
    sandbox.wait_for("ensemble/blackout", "condition=Ready", READY).unwrap();
    let members = zookeeper::members(&sandbox, "blackout").unwrap();
    for member in &members {
        assert_eq!(zookeeper::get(&sandbox, &[member], "/kept").unwrap(), "light");
    }
}

#[test]
fn a_roll_out_takes_followers_first_and_the_leader_last_and_never_two_at_once() {
    let sandbox = ready_ensemble("roll");
    let leader = leader(&sandbox, "roll");
    let watch = PodWatch::start(&sandbox, &selector("roll")).unwrap();
    patch(&sandbox, "roll", &json!({"spec": {"pods": {"annotations": {"mark": "new"}}}}));
    settled(&sandbox, "roll");
    assert_eq!(marks(&sandbox, "roll").unwrap(), ["new", "new", "new"]);
    let events = watch.so_far();
    let order = order_of_leaving(&events);
    assert_eq!(order.len(), 3, "{order:?}");
    assert_eq!(order.last(), Some(&leader), "{order:?}");
    assert_eq!(most_down_at_once(&events, 3), 1, "{events:?}");
}

#[test]
fn a_roll_out_waits_while_a_follower_is_held_back() {
    let sandbox = ready_ensemble("held");
    let leader = leader(&sandbox, "held");
    let nodes = || sandbox.cluster.kubectl(["get", "nodes", "--output=name"]).unwrap();
    let each = |verb: &str| {
        for node in nodes().lines() {
            sandbox.cluster.kubectl([verb, node.trim_start_matches("node/")]).unwrap();
        }
    };
    // A replaced pod finds no node to run on.
    each("cordon");
    patch(&sandbox, "held", &json!({"spec": {"pods": {"annotations": {"mark": "new"}}}}));
    let waiting = sandbox.wait_until("one pod replaced and held", READY, || {
        let pods = sandbox.list("pods", &selector("held"))?;
        let pending = pods.iter().filter(|pod| pod["status"]["phase"] == "Pending").count();
        let explained = sandbox.condition("ensemble/held", "Reconciling")?;
        Ok((pending == 1 && explained.is_some_and(|(status, _)| status == "True")).then_some(()))
    });
    // Longer than a roll-out of a healthy member takes: the others are left alone.
    let watch = PodWatch::start(&sandbox, &selector("held")).unwrap();
    let others = sandbox.kubectl(["wait", "ensemble/held", "--for=condition=UpToDate", "--timeout=20s"]);
    let events = watch.so_far();
    each("uncordon");
    waiting.unwrap();
    assert!(others.is_err(), "the roll-out ended with a pod that cannot run");
    assert_eq!(order_of_leaving(&events), Vec::<String>::new(), "{events:?}");
    settled(&sandbox, "held");
    assert_eq!(marks(&sandbox, "held").unwrap(), ["new", "new", "new"]);
    assert!(!leader.is_empty());
}

#[test]
fn a_roll_out_recovers_from_a_bad_image_that_is_reverted() {
    let repository = &installed().images.node.repository;
    let bad = json!({"repository": repository, "tag": "no-such-tag", "pullPolicy": "Never"});
    let sandbox = ready_ensemble("image");
    let members = zookeeper::members(&sandbox, "image").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/kept", "light").unwrap();
    patch(&sandbox, "image", &json!({"spec": {"image": bad}}));
    let stuck = sandbox
        .wait_until("a pod that cannot start", READY, || {
            let pods = sandbox.list("pods", &selector("image"))?;
            Ok(pods.into_iter().find(|pod| {
                pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
            }))
        })
        .unwrap();
    let stuck = stuck["metadata"]["name"].as_str().unwrap();
    // The others serve on.
    let serving: Vec<_> = members.iter().filter(|member| member.pod != stuck).collect();
    assert_eq!(zookeeper::get(&sandbox, &serving, "/kept").unwrap(), "light");
    // As `kubectl apply` of the manifest that was there before does it.
    patch(&sandbox, "image", &json!({"spec": {"image": null}}));
    settled(&sandbox, "image");
    let members = zookeeper::members(&sandbox, "image").unwrap();
    for member in &members {
        assert_eq!(zookeeper::get(&sandbox, &[member], "/kept").unwrap(), "light");
    }
}

#[test]
fn a_roll_out_ends_right_although_the_operator_is_killed_in_the_middle() {
    let sandbox = ready_ensemble("killed");
    let leader = leader(&sandbox, "killed");
    let watch = PodWatch::start(&sandbox, &selector("killed")).unwrap();
    patch(&sandbox, "killed", &json!({"spec": {"pods": {"annotations": {"mark": "new"}}}}));
    sandbox
        .wait_until("the first pod to be replaced", READY, || {
            Ok(marks(&sandbox, "killed")?.contains(&"new".to_owned()).then_some(()))
        })
        .unwrap();
    operator::kill();
    settled(&sandbox, "killed");
    assert_eq!(marks(&sandbox, "killed").unwrap(), ["new", "new", "new"]);
    let events = watch.so_far();
    assert_eq!(order_of_leaving(&events).last(), Some(&leader), "{events:?}");
    assert_eq!(most_down_at_once(&events, 3), 1, "{events:?}");
}

/// The pods of the members that vote, with their identities.
pub(super) fn voters(sandbox: &Sandbox<'_>, name: &str) -> anyhow::Result<BTreeMap<String, i64>> {
    let ensemble = sandbox.get(&format!("ensemble/{name}"))?;
    let members = ensemble["status"]["members"].as_array().cloned().unwrap_or_default();
    let voter = |member: &serde_json::Value| {
        Some((member["pod"].as_str()?.to_owned(), member["id"].as_i64()?))
            .filter(|_| member["voter"] == serde_json::json!(true))
    };
    Ok(members.iter().filter_map(voter).collect())
}

fn lost(sandbox: &Sandbox<'_>, member: &Member, path: &str, acknowledged: &[String]) -> Vec<String> {
    let there: BTreeSet<_> = zookeeper::children(sandbox, &[member], path).unwrap().into_iter().collect();
    acknowledged.iter().filter(|path| !there.contains(*path)).cloned().collect()
}

#[test]
fn an_ensemble_grows_and_shrinks_while_clients_write() {
    let sandbox = Sandbox::new(&installed().cluster, "scale").unwrap();
    sandbox.apply(&manifest("scale", 1, "")).unwrap();
    sandbox.wait_for("ensemble/scale", "condition=Ready", READY).unwrap();
    settled(&sandbox, "scale");
    // The member that never leaves.
    let first = zookeeper::members(&sandbox, "scale").unwrap();
    let writer = Writer::start(&sandbox, &all(&first), "/log", u32::MAX).unwrap();
    writer.goes_on(100).unwrap();
    for (configuration, replicas) in [(2, 3), (3, 5), (4, 3), (5, 1)] {
        patch(&sandbox, "scale", &json!({"spec": {"replicas": replicas}}));
        settled(&sandbox, "scale");
        writer.goes_on(100).unwrap();
        let status = sandbox.get("ensemble/scale").unwrap()["status"].clone();
        assert_eq!(status["ready"], json!(format!("{replicas}/{replicas}")));
        // However many come or go: one change of voters.
        assert_eq!(status["configuration"], json!(configuration));
        let pods: Vec<String> = (0..replicas).map(|ordinal| format!("scale-ensemble-{ordinal}")).collect();
        assert_eq!(voters(&sandbox, "scale").unwrap().into_keys().collect::<Vec<_>>(), pods);
        let before = writer.acknowledged().unwrap();
        for member in
            zookeeper::members(&sandbox, "scale").unwrap().iter().filter(|one| pods.contains(&one.pod))
        {
            assert_eq!(lost(&sandbox, member, "/log", &before), [""; 0], "{} lacks them", member.pod);
        }
    }
    let acknowledged = writer.end(&sandbox, &all(&first), Duration::from_secs(60)).unwrap();
    assert_eq!(lost(&sandbox, &first[0], "/log", &acknowledged), [""; 0]);
    let claims = sandbox.wait_until("the end of the volumes of those that went", READY, || {
        let claims = sandbox.list("persistentvolumeclaims", &selector("scale"))?;
        Ok((claims.len() == 1).then_some(claims))
    });
    assert_eq!(claims.unwrap()[0]["metadata"]["name"], "data-scale-ensemble-0");
}

#[test]
fn a_lost_volume_is_replaced_without_a_human() {
    let sandbox = ready_ensemble("lost");
    settled(&sandbox, "lost");
    let members = zookeeper::members(&sandbox, "lost").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/kept", "light").unwrap();
    let leader = leader(&sandbox, "lost");
    let follower = members.iter().map(|member| member.pod.clone()).find(|pod| *pod != leader).unwrap();
    let before = voters(&sandbox, "lost").unwrap();
    assert_eq!(before.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    sandbox
        .kubectl(["delete", "persistentvolumeclaim", &format!("data-{follower}"), "--wait=false"])
        .unwrap();
    sandbox.kubectl(["delete", "pod", &follower, "--wait=false"]).unwrap();
    let after = sandbox.wait_until("another member in its place", Duration::from_secs(300), || {
        let voters = voters(&sandbox, "lost")?;
        Ok((voters.len() == 3 && voters.get(&follower) != before.get(&follower)).then_some(voters))
    });
    // Identities are never given twice.
    let expected = before.into_iter().map(|(pod, id)| if pod == follower { (pod, 4) } else { (pod, id) });
    assert_eq!(after.unwrap(), expected.collect());
    settled(&sandbox, "lost");
    let members = zookeeper::members(&sandbox, "lost").unwrap();
    let new: Vec<_> = members.iter().filter(|member| member.pod == follower).collect();
    assert_eq!(zookeeper::get(&sandbox, &new, "/kept").unwrap(), "light");
    zookeeper::put(&sandbox, &new, "/kept", "still").unwrap();
    for member in &members {
        assert_eq!(zookeeper::get(&sandbox, &[member], "/kept").unwrap(), "still");
    }
}

#[test]
fn the_same_manifest_applied_again_changes_nothing() {
    let sandbox = ready_ensemble("again");
    settled(&sandbox, "again");
    super::applied_again_changes_nothing(&sandbox, "ensemble/again", &manifest("again", 3, ""));
}

#[test]
fn a_service_of_our_name_that_is_not_ours_is_not_touched() {
    let sandbox = Sandbox::new(&installed().cluster, "conflict").unwrap();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: conflict-ensemble}, \
                   spec: {selector: {app: other}, ports: [{port: 80}]}}";
    sandbox.apply(service).unwrap();
    let before = sandbox.get("service/conflict-ensemble").unwrap();
    sandbox.apply(&manifest("conflict", 3, "")).unwrap();
    sandbox.wait_for("ensemble/conflict", "condition=Stalled", READY).unwrap();
    let (_, reason) = sandbox.condition("ensemble/conflict", "Stalled").unwrap().unwrap();
    assert_eq!(reason, "NameConflict");
    assert_eq!(sandbox.get("service/conflict-ensemble").unwrap(), before);
}

#[test]
fn deletion_leaves_the_volumes_and_the_same_ensemble_applied_again_finds_its_data() {
    let sandbox = ready_ensemble("keep");
    let members = zookeeper::members(&sandbox, "keep").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/kept", "light").unwrap();
    sandbox.kubectl(["delete", "ensemble", "keep"]).unwrap();
    assert_eq!(
        leftovers(&sandbox, "keep"),
        ["PersistentVolumeClaim", "PersistentVolumeClaim", "PersistentVolumeClaim"]
    );
    sandbox.apply(&manifest("keep", 3, "")).unwrap();
    sandbox.wait_for("ensemble/keep", "condition=Ready", READY).unwrap();
    let members = zookeeper::members(&sandbox, "keep").unwrap();
    assert_eq!(zookeeper::get(&sandbox, &all(&members), "/kept").unwrap(), "light");
}

#[test]
fn deletion_leaves_nothing_if_the_volumes_are_to_go_too() {
    let sandbox = Sandbox::new(&installed().cluster, "gone").unwrap();
    let text =
        manifest("gone", 1, "").replace("{size: 1Gi}", "{size: 1Gi, retention: {whenDeleted: Delete}}");
    sandbox.apply(&text).unwrap();
    sandbox.wait_for("ensemble/gone", "condition=Ready", READY).unwrap();
    sandbox.kubectl(["delete", "ensemble", "gone"]).unwrap();
    assert_eq!(leftovers(&sandbox, "gone"), [""; 0]);
}

/// The kinds of what remains of an Ensemble once the garbage collector has had its time.
pub(super) fn leftovers(sandbox: &Sandbox<'_>, name: &str) -> Vec<String> {
    let kinds = "statefulsets,pods,services,endpointslices,configmaps,secrets,serviceaccounts,persistentvolumeclaims,\
                 poddisruptionbudgets.policy,networkpolicies.networking.k8s.io";
    let list = || -> anyhow::Result<Vec<String>> {
        let objects = sandbox.list(kinds, "")?;
        let ours = objects.iter().filter(|object| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let instance = &object["metadata"]["labels"]["app.kubernetes.io/instance"];
            text(instance) == name || text(&object["metadata"]["name"]).contains(&format!("{name}-ensemble"))
        });
        Ok(ours.map(|object| object["kind"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let gone = sandbox.wait_until("the end of what was deleted", READY, || {
        let left = list()?;
        let pending = left.iter().any(|kind| kind != "PersistentVolumeClaim");
        let claims_going = sandbox.list("persistentvolumeclaims", "")?;
        let going = claims_going.iter().any(|claim| claim["metadata"]["deletionTimestamp"].is_string());
        Ok((!pending && !going).then_some(left))
    });
    gone.unwrap()
}
