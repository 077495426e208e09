//! Steps carried out against a server that is API server and leader at once, and notes what it is asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::*;
use crate::apply::owner_reference;
use crate::ensemble::plan::{RecoveryNote, Restored, SwitchNote};
use crate::ensemble::validate::validate;
use crate::pods::Image;
use pharos_crds::Ensemble;

/// What is asked, and what the leader answers when asked for voters.
#[derive(Clone)]
struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    voters: StatusCode,
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
    let what = path.rsplit_once("/ns/").map_or(path.as_str(), |(_, what)| what).to_owned();
    if method != "GET" {
        let body = String::from_utf8_lossy(&body);
        server.asked.lock().expect("a lock").push(format!("{method} {what} {body}").trim_end().to_owned());
    }
    let (resource, name) = what.split_once('/').unwrap_or((&what, "made"));
    let (version, kind) = match resource {
        "configmaps" => ("v1", "ConfigMap"),
        "persistentvolumeclaims" => ("v1", "PersistentVolumeClaim"),
        "pods" => ("v1", "Pod"),
        _ => ("apps/v1", "StatefulSet"),
    };
    let metadata = json!({"name": name, "uid": format!("{resource}-uid")});
    let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
    let (code, body) = match what.as_str() {
        "pods/main-ensemble-restore" if method == "GET" => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                "reason": "NotFound", "message": "there is none"});
            (StatusCode::NOT_FOUND, status)
        }
        "/v1/voters" => (server.voters, json!({"error": "member 4 is behind"})),
        "/v1/status" => (StatusCode::OK, json!({"role": "leader", "featureLevel": 2})),
        "/v1/identity" => {
            let levels = json!({"min": 1, "max": 2});
            (StatusCode::OK, json!({"state": "blank", "volume": "aa", "featureLevels": levels}))
        }
        _ => (StatusCode::OK, object),
    };
    (code, [("content-type", "application/json")], body.to_string()).into_response()
}

/// Carries a step out, and gives what was asked.
async fn done(voters: StatusCode, permit: Option<PermitFound>, step: Step) -> (Step, Vec<String>) {
    let server = Server { asked: Arc::default(), voters };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    let router = Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("http://{address}").parse().expect("a URL");
    let client = Client::try_from(kube::Config::new(url)).expect("a client");
    let manifest = "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, \
                    metadata: {name: main, namespace: ns, uid: u1}, spec: {}}";
    let ensemble: Ensemble = serde_yaml::from_str(manifest).expect("a manifest");
    let image = Image { reference: "node:1".into(), pull_policy: "Never".into() };
    // The third has no address yet.
    let pod = |ordinal: u32, status: Value| {
        let pod = json!({"metadata": {"name": format!("main-ensemble-{ordinal}")}, "status": status});
        serde_json::from_value(pod).expect("a pod")
    };
    let here = json!({"podIP": "127.0.0.1"});
    let leadership = Leadership::default();
    leadership.assume();
    let hands = Hands {
        client: &client,
        nodes: &AdminClient::new(address.port(), Duration::from_secs(5)),
        applier: &Applier::new(client.clone(), "ns", owner_reference::<Ensemble>("main", "u1")),
        leadership: &leadership,
        ensemble: &validate(&ensemble, None, &image).expect("it is valid"),
        pods: &[pod(0, here.clone()), pod(1, here), pod(2, json!({}))],
        token: Some("t"),
        permit: permit.as_ref(),
    };
    let shown = carry_out(&hands, step).await.expect("it is carried out");
    let asked = server.asked.lock().expect("a lock").clone();
    (shown, asked)
}

fn switch(asked_before: bool) -> Step {
    Step::Switch(Switch {
        leader: "main-ensemble-0".into(),
        voters: vec![1, 4],
        note: SwitchNote { config: 1, epoch: 2, applied: 3, registered: vec![1, 4] },
        asked_before,
        reason: "ScalingUp",
    })
}

#[tokio::test]
async fn a_change_of_voters_is_noted_first_and_the_note_stays_unless_it_was_refused_at_once() {
    let (call, accepted) = (r#"POST /v1/voters {"voters":[1, 4],"config":1}"#, StatusCode::ACCEPTED);
    let annotated = |asked: &str| {
        let body: Value = serde_json::from_str(asked.rsplit_once("main-ensemble ")?.1).ok()?;
        Some(body["metadata"]["annotations"][names::ANNOTATION_SWITCH].clone())
    };
    let (shown, asked) = done(accepted, None, switch(false)).await;
    assert_eq!((shown, asked.len()), (switch(false), 2));
    let noted = annotated(&asked[0]).expect("it is noted");
    let noted: SwitchNote = serde_json::from_str(noted.as_str().expect("a text")).expect("a note");
    assert_eq!(noted, SwitchNote { config: 1, epoch: 2, applied: 3, registered: vec![1, 4] });
    assert_eq!(asked[1], call);

    let (shown, asked) = done(StatusCode::CONFLICT, None, switch(false)).await;
    assert!(matches!(shown, Step::Wait(Wait { predicate: Predicate::SwitchCommitted, .. })), "{shown:?}");
    assert_eq!((asked.len(), annotated(&asked[2])), (3, Some(Value::Null)));

    // It may be refused because it is under way.
    let (shown, asked) = done(StatusCode::CONFLICT, None, switch(true)).await;
    assert!(matches!(shown, Step::Wait(Wait { predicate: Predicate::SwitchCommitted, .. })), "{shown:?}");
    assert_eq!(asked, [call]);
}

#[tokio::test]
async fn a_volume_is_deleted_by_uid_before_its_pod_and_only_while_that_pod_is_there() {
    let discard = |uid: &str| Step::Discard { pod: "main-ensemble-1".into(), uid: uid.into(), id: 2 };
    let (_, asked) = done(StatusCode::OK, None, discard("pods-uid")).await;
    let by_uid = |kind: &str, name: &str| {
        format!(r#"DELETE {kind}/{name} {{"preconditions":{{"uid":"{kind}-uid"}}}}"#)
    };
    let claim = by_uid("persistentvolumeclaims", "data-main-ensemble-1");
    assert_eq!(asked, [claim, by_uid("pods", "main-ensemble-1")]);

    let (_, asked) = done(StatusCode::OK, None, discard("of-a-pod-before")).await;
    assert_eq!(asked, [""; 0]);
}

#[tokio::test]
async fn a_volume_that_a_recovery_does_without_goes_as_one_of_a_member_that_was_removed() {
    let (pod, uid) = ("main-ensemble-1".into(), "pods-uid".into());
    let give_up = Step::GiveUp { pod, uid, during: "Recovering" };
    let discard = Step::Discard { pod: "main-ensemble-1".into(), uid: "pods-uid".into(), id: 2 };
    let (_, asked) = done(StatusCode::OK, None, give_up).await;
    assert_eq!(asked, done(StatusCode::OK, None, discard).await.1);
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_recovery_is_noted_and_what_was_committed_before_is_waited_for_no_more() {
    let (generation, survivor, claims) = (2, "main-ensemble-0".to_owned(), vec!["a".to_owned()]);
    let note = RecoveryNote { generation, survivor, claims };
    let (_, asked) = done(StatusCode::OK, None, Step::NoteRecovery(note.clone())).await;
    let annotations = |asked: &str| -> Value {
        let body: Value =
            serde_json::from_str(asked.rsplit_once("main-ensemble ").expect("a body").1).expect("JSON");
        body["metadata"]["annotations"].clone()
    };
    assert_eq!(annotations(&asked[0]), json!({names::ANNOTATION_ROLL: null}));
    let noted = annotations(&asked[1])[names::ANNOTATION_RECOVERY].clone();
    assert_eq!(serde_json::from_str::<RecoveryNote>(noted.as_str().expect("a text")).expect("a note"), note);
}

#[tokio::test]
async fn a_permit_is_amended_only_as_it_was_read() {
    let permit = Permit::new("main", "ns", "c1".into(), &[]);
    let found = PermitFound { permit: permit.clone(), version: Some("7".into()) };
    let (_, asked) = done(StatusCode::OK, Some(found), Step::AmendPermit(permit)).await;
    assert_eq!(asked.len(), 1);
    let (call, body) = asked[0].split_once(" {").expect("a body");
    assert_eq!(call, "PATCH configmaps/main-ensemble-permit");
    assert!(body.contains(r#""metadata":{"resourceVersion":"7"}"#), "{body}");
}

#[tokio::test]
async fn those_who_join_are_registered_by_their_stable_names_with_what_they_can_carry_out() {
    let joiners = vec![(1, "aa".to_owned()), (2, "bb".to_owned())];
    let (_, asked) =
        done(StatusCode::OK, None, Step::Register { leader: "main-ensemble-0".into(), joiners }).await;
    let call = |ordinal: u32, volume: &str, levels: &str| {
        let host = format!("main-ensemble-{ordinal}.main-ensemble-peers.ns.svc");
        format!(
            r#"POST /v1/members {{"volume":"{volume}","host":"{host}","peerPort":2888,"clientPort":2181{levels}}}"#
        )
    };
    assert_eq!(asked, [call(1, "aa", r#","featureLevels":{"min":1,"max":2}"#), call(2, "bb", "")]);
}

fn restore_order() -> RestoreOrder {
    RestoreOrder { from: "s3://b/x".into(), generation: Some(2), credentials: Some("keys".into()) }
}

#[tokio::test]
async fn a_volume_is_claimed_before_the_pod_that_fills_it_is_made() {
    let (_, asked) = done(StatusCode::OK, None, Step::Restore { order: restore_order(), place: 3 }).await;
    assert_eq!(asked.len(), 2);
    assert!(asked[0].starts_with("POST persistentvolumeclaims "), "{}", asked[0]);
    assert!(asked[0].contains(r#""name":"data-main-ensemble-3""#), "{}", asked[0]);
    assert!(asked[1].starts_with("POST pods "), "{}", asked[1]);
    assert!(asked[1].contains(r#""envFrom":[{"secretRef":{"name":"keys"}}]"#), "{}", asked[1]);
}

#[tokio::test]
async fn what_a_restore_made_is_deleted_by_uid() {
    let (pod, claim) = (Some("pods-uid".into()), Some((3, "claim-uid".into())));
    let (_, asked) = done(StatusCode::OK, None, Step::ClearRestore { pod, claim }).await;
    let by_uid = |what: &str, uid: &str| format!(r#"DELETE {what} {{"preconditions":{{"uid":"{uid}"}}}}"#);
    let claim = by_uid("persistentvolumeclaims/data-main-ensemble-3", "claim-uid");
    assert_eq!(asked, [claim, by_uid("pods/main-ensemble-restore", "pods-uid")]);
}

#[tokio::test]
async fn from_the_note_that_a_backup_is_restored_on_nobody_waits_for_what_was_asked_before() {
    let annotations = |asked: &str| -> Value {
        let body: Value =
            serde_json::from_str(asked.rsplit_once("main-ensemble ").expect("a body").1).expect("JSON");
        body["metadata"]["annotations"].clone()
    };
    let mut note = RestoreNote { order: restore_order(), place: 3, restored: None, claims: Vec::new() };
    let (_, asked) = done(StatusCode::OK, None, Step::NoteRestore(Some(note.clone()))).await;
    assert_eq!(asked.len(), 1);
    let member =
        serde_json::json!({"memberId": 9, "volume": "v", "host": "h", "peerPort": 1, "clientPort": 2});
    let restored = serde_json::json!({"clusterId": "c", "generation": 2, "member": member});
    note.restored = Some(serde_json::from_value::<Restored>(restored).expect("an outcome"));
    let (_, asked) = done(StatusCode::OK, None, Step::NoteRestore(Some(note.clone()))).await;
    assert_eq!(annotations(&asked[0]), json!({names::ANNOTATION_ROLL: null}));
    assert_eq!(annotations(&asked[1]), json!({names::ANNOTATION_SWITCH: null}));
    let noted = annotations(&asked[2])[names::ANNOTATION_RESTORE].clone();
    assert_eq!(serde_json::from_str::<RestoreNote>(noted.as_str().expect("a text")).expect("a note"), note);
    let (_, asked) = done(StatusCode::OK, None, Step::NoteRestore(None)).await;
    assert_eq!(annotations(&asked[0]), json!({names::ANNOTATION_RESTORE: null}));
}
