//! An Ensemble that goes on from a backup, as it is seen by the person who declares it.

use std::collections::{BTreeMap, BTreeSet};

use pharos_e2e::kubebox::BUCKET;
use pharos_e2e::objects;
use pharos_e2e::sandbox::Sandbox;
use pharos_e2e::zookeeper;
use serde_json::json;

use super::ensemble::{READY, all, leftovers, manifest, patch, settled, voters};
use super::installed;

/// The Secret with what opens the object store.
const KEYS: &str = "backup-keys";

fn keys(sandbox: &Sandbox<'_>) {
    let variables = objects::variables(sandbox.cluster).unwrap();
    let data: BTreeMap<_, _> = variables.into_iter().collect();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS}, "stringData": data});
    sandbox.apply(&secret.to_string()).unwrap();
}

/// A backup made by a pod, as a CronJob would; its place.
fn backed_up(sandbox: &Sandbox<'_>, name: &str) -> String {
    let image = &installed().images.node;
    let mut command = vec!["pharos-node".to_owned(), "--log=warn".to_owned(), "backup".to_owned()];
    for ordinal in 0..3 {
        command.push(format!("--ensemble=http://{name}-ensemble-{ordinal}.{name}-ensemble-peers:8080"));
    }
    command.push("--admin-token-file=/token/token".into());
    command.push(format!("--to=s3://{BUCKET}/{}", sandbox.name));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "backup"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext":
                {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "backup",
                "image": format!("{}:{}", image.repository, image.tag),
                "imagePullPolicy": "Never",
                "command": command,
                "envFrom": [{"secretRef": {"name": KEYS}}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "token", "mountPath": "/token"}],
            }],
            "volumes": [{"name": "token", "secret": {"secretName": format!("{name}-ensemble-token")}}],
        },
    });
    sandbox.apply(&pod.to_string()).unwrap();
    sandbox.wait_for("pod/backup", "jsonpath={.status.phase}=Succeeded", READY).unwrap();
    let said = sandbox.kubectl(["logs", "backup"]).unwrap();
    said.split(": ").next().unwrap().to_owned()
}

fn stalled(sandbox: &Sandbox<'_>, name: &str, reason: &str, cause: &str) {
    let what = format!("a condition that tells {reason}: {cause}");
    let told = sandbox.wait_until(&what, READY, || {
        let status = sandbox.get(&format!("ensemble/{name}"))?["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let tells = |one: &&serde_json::Value| {
            one["type"] == "Stalled" && one["reason"] == reason && one["message"].to_string().contains(cause)
        };
        Ok(conditions.iter().find(tells).map(|_| ()))
    });
    told.unwrap();
}

fn reads(sandbox: &Sandbox<'_>, name: &str, path: &str) -> Vec<String> {
    let members = zookeeper::members(sandbox, name).unwrap();
    assert_eq!(members.len(), 3);
    members.iter().map(|member| zookeeper::get(sandbox, &[member], path).unwrap()).collect()
}

/// Three members vote, each on the volume of its own place.
fn is_whole(sandbox: &Sandbox<'_>, name: &str, generation: u32) {
    settled(sandbox, name);
    let status = sandbox.get(&format!("ensemble/{name}")).unwrap()["status"].clone();
    assert_eq!((&status["generation"], &status["ready"]), (&json!(generation), &json!("3/3")));
    let pods: BTreeSet<String> = (0..3).map(|ordinal| format!("{name}-ensemble-{ordinal}")).collect();
    assert_eq!(voters(sandbox, name).unwrap().into_keys().collect::<BTreeSet<_>>(), pods);
    sandbox
        .wait_until("the end of the volume that the backup was put on", READY, || {
            let claims = sandbox.list("persistentvolumeclaims", "")?;
            Ok((claims.len() == 3).then_some(()))
        })
        .unwrap();
}

#[test]
fn an_ensemble_goes_on_from_a_backup_and_so_does_a_new_one_when_all_is_gone() {
    let sandbox = Sandbox::new(&installed().cluster, "saved").unwrap();
    let goes =
        manifest("saved", 3, "").replace("{size: 1Gi}", "{size: 1Gi, retention: {whenDeleted: Delete}}");
    sandbox.apply(&goes).unwrap();
    sandbox.wait_for("ensemble/saved", "condition=Ready", READY).unwrap();
    keys(&sandbox);
    let members = zookeeper::members(&sandbox, "saved").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/kept", "light").unwrap();
    let place = backed_up(&sandbox, "saved");
    zookeeper::put(&sandbox, &all(&members), "/kept", "wrong").unwrap();

    // What cannot be restored costs nothing.
    let declare = |from: &str, secret: &str| {
        let acknowledge = "AcceptLostData";
        let credentials = json!({"name": secret});
        let restore =
            json!({"from": from, "generation": 2, "acknowledge": acknowledge, "credentials": credentials});
        patch(&sandbox, "saved", &json!({"spec": {"restore": restore}}));
    };
    declare(&place, "no-such-secret");
    stalled(&sandbox, "saved", "RestoreFailed", "no-such-secret");
    declare(&format!("{place}-not"), KEYS);
    stalled(&sandbox, "saved", "RestoreFailed", "there is no manifest.json");
    assert_eq!(reads(&sandbox, "saved", "/kept"), ["wrong"; 3]);
    declare(&place, KEYS);
    is_whole(&sandbox, "saved", 2);
    assert_eq!(reads(&sandbox, "saved", "/kept"), ["light"; 3]);
    let events = sandbox.list("events", "").unwrap();
    let tells = |event: &&serde_json::Value| event["reason"] == "Restoring" && event["type"] == "Warning";
    assert!(events.iter().any(|event| tells(&event)), "{events:?}");

    sandbox.kubectl(["delete", "ensemble", "saved"]).unwrap();
    assert_eq!(leftovers(&sandbox, "saved"), [""; 0]);
    let restore = format!("  restore: {{from: '{place}', credentials: {{name: {KEYS}}}}}\n");
    sandbox.apply(&format!("{goes}{restore}")).unwrap();
    sandbox.wait_for("ensemble/saved", "condition=Ready", READY).unwrap();
    is_whole(&sandbox, "saved", 2);
    assert_eq!(reads(&sandbox, "saved", "/kept"), ["light"; 3]);
    let members = zookeeper::members(&sandbox, "saved").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/new", "day").unwrap();
    assert_eq!(reads(&sandbox, "saved", "/new"), ["day"; 3]);
}
