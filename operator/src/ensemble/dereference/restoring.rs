//! Owns what the pod that fills a volume from a backup says: by its end, its message and the kubelet's. Must not know what
//! is concluded.
//!
//! Invariant: what is told is the cause in the words of `pharos-node`, and nothing that an object store answered: that may
//! name the keys.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use pharos_crds::names;
use serde::{Deserialize, Serialize};

use super::{main_container, unscheduled};
use crate::ensemble::plan::{RestoreOrder, RestorePod, RestoreState};

/// What a claim and a pod say of the restore that they were made for.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// UID of the Ensemble: another of the same name makes its own.
    ensemble: String,
    order: RestoreOrder,
}

/// The annotation of a claim or a pod that is made for a restore.
#[must_use]
pub fn mark(ensemble: &str, order: &RestoreOrder) -> String {
    let mark = Mark { ensemble: ensemble.to_owned(), order: order.clone() };
    serde_json::to_string(&mark).expect("a mark is plain data")
}

/// The restore of this Ensemble that an object was made for.
#[must_use]
pub fn order(metadata: &ObjectMeta, ensemble: &str) -> Option<RestoreOrder> {
    let text = metadata.annotations.as_ref()?.get(names::ANNOTATION_RESTORE)?;
    let mark: Mark = serde_json::from_str(text).ok()?;
    (mark.ensemble == ensemble).then_some(mark.order)
}

/// What the pod says.
#[must_use]
pub fn pod(pod: &Pod, ensemble: &str) -> RestorePod {
    RestorePod {
        uid: pod.uid().unwrap_or_default(),
        order: order(&pod.metadata, ensemble),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        state: state(pod),
    }
}

fn state(pod: &Pod) -> RestoreState {
    let Some(status) = main_container(pod) else {
        let what = unscheduled(pod).unwrap_or_else(|| "its pod is about to start".into());
        return RestoreState::Runs(what);
    };
    let (now, last) = (status.state.as_ref(), status.last_state.as_ref());
    let ended = now.and_then(|state| state.terminated.as_ref());
    let ended = ended.or_else(|| last.and_then(|state| state.terminated.as_ref()));
    if let Some(done) = ended.filter(|ended| ended.exit_code == 0) {
        let text = done.message.as_deref().unwrap_or_default();
        return match serde_json::from_str(text) {
            Ok(restored) => RestoreState::Restored(restored),
            Err(error) => RestoreState::Stuck(format!("its image does not say what it restored: {error}")),
        };
    }
    // The kubelet's own reasons: it could not start the container at all.
    let waiting = now.and_then(|state| state.waiting.as_ref());
    let waiting = waiting.map(|waiting| (waiting.reason.as_deref().unwrap_or_default(), &waiting.message));
    match (waiting, ended) {
        (Some(("CreateContainerConfigError" | "InvalidImageName", message)), _) => {
            RestoreState::Stuck(told("its container cannot be made", message.as_deref()))
        }
        (_, Some(failed)) => failure(failed),
        (Some((reason, message)), None)
            if !matches!(reason, "" | "ContainerCreating" | "PodInitializing") =>
        {
            RestoreState::Fails(told(reason, message.as_deref()))
        }
        _ => RestoreState::Runs("it is read".into()),
    }
}

fn told(reason: &str, message: Option<&str>) -> String {
    format!("{reason}: {}", message.unwrap_or_default())
}

/// Exit code 2 is what a person can put right.
fn failure(failed: &ContainerStateTerminated) -> RestoreState {
    let reason = failed.reason.as_deref().unwrap_or("it ended");
    let line =
        failed.message.as_deref().and_then(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
    // What follows is what the object store answered.
    let cause = line
        .and_then(|line| line.split('<').next())
        .map(|line| line.trim_start_matches("pharos-node: ").trim());
    let why = cause.map_or_else(|| format!("{reason}, exit code {}", failed.exit_code), str::to_owned);
    if failed.exit_code == 2 { RestoreState::Stuck(why) } else { RestoreState::Fails(why) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn says(now: &Value, last: &Value) -> RestoreState {
        let status = json!({"containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": now, "lastState": last}]});
        state(&serde_json::from_value(json!({"metadata": {}, "status": status})).expect("a pod"))
    }

    fn ended(code: i32, message: &str) -> Value {
        json!({"terminated": {"exitCode": code, "reason": "Error", "message": message}})
    }

    #[test]
    fn a_failure_is_told_by_its_cause_until_the_next_attempt_succeeds() {
        let none = json!({});
        let log = "2026-11-29T05:00:00Z  INFO it begins\npharos-node: s3://b/x: there is no manifest.json\n";
        let backs_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        let stuck = RestoreState::Stuck("s3://b/x: there is no manifest.json".into());
        assert_eq!(says(&ended(2, log), &none), stuck);
        assert_eq!(says(&backs_off, &ended(2, log)), stuck);
        assert_eq!(says(&json!({"running": {}}), &ended(2, log)), stuck);
        assert_eq!(says(&ended(137, ""), &none), RestoreState::Fails("Error, exit code 137".into()));
        let refused =
            "pharos-node: s3://b/x: 403 Forbidden: <Error><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        assert_eq!(says(&ended(2, refused), &none), RestoreState::Stuck("s3://b/x: 403 Forbidden:".into()));
        let report = r#"{"clusterId":"c1","generation":2,"member":{"memberId":4,"volume":"aa","host":"h",
            "peerPort":2888,"clientPort":2181},"zxid":7,"znodes":3}"#;
        let RestoreState::Restored(restored) = says(&ended(0, report), &ended(2, log)) else {
            panic!("it is restored")
        };
        assert_eq!((restored.cluster_id.as_str(), restored.member.member_id), ("c1", 4));
        assert!(matches!(says(&ended(0, "ok"), &none), RestoreState::Stuck(_)));
    }

    #[test]
    fn a_secret_that_is_missing_is_told_by_the_kubelet() {
        let waits = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
        let none = json!({});
        assert_eq!(
            says(&waits("CreateContainerConfigError", "secret \"keys\" not found"), &none),
            RestoreState::Stuck("its container cannot be made: secret \"keys\" not found".into())
        );
        assert_eq!(says(&waits("ContainerCreating", ""), &none), RestoreState::Runs("it is read".into()));
        assert!(matches!(says(&waits("ImagePullBackOff", "m"), &none), RestoreState::Fails(_)));
        assert!(matches!(state(&Pod::default()), RestoreState::Runs(_)));
    }

    #[test]
    fn what_was_made_for_another_ensemble_of_the_same_name_is_not_ours() {
        let order = RestoreOrder { from: "s3://b/x".into(), generation: Some(2), credentials: None };
        let annotations = Some([(names::ANNOTATION_RESTORE.to_owned(), mark("u1", &order))].into());
        let metadata = ObjectMeta { annotations, ..ObjectMeta::default() };
        assert_eq!(super::order(&metadata, "u1"), Some(order));
        assert_eq!(super::order(&metadata, "u2"), None);
        assert_eq!(super::order(&ObjectMeta::default(), "u1"), None);
    }
}
