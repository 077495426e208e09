//! From the smallest manifest through the real `validate` and `build`; and what tools read in the status.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use pharos_crds::names::{condition, reason};
use pharos_crds::{Ensemble, EnsembleStatus};
use serde_json::{Value, json};

use super::build::{Desired, Sizes};
use super::plan::{Declared, Health, Member, Observed, Predicate, RestoreOrder, Step, Wait};
use super::status::{Blocked, blocked, status};
use super::validate::{Validated, validate};
use crate::conditions::kstatus;
use crate::pods::Image;

const SMALLEST: &str = "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, \
                        metadata: {name: main, namespace: ns, uid: u1, generation: 1}, spec: {}}";

fn ensemble(manifest: &str) -> Ensemble {
    serde_yaml::from_str(manifest).expect("a manifest")
}

fn default_image() -> Image {
    Image { reference: "node:1".into(), pull_policy: "IfNotPresent".into() }
}

fn valid(manifest: &str) -> Validated {
    validate(&ensemble(manifest), None, &default_image()).expect("it is valid")
}

/// As it is built when as many members vote as are wanted.
fn build(ensemble: &Validated) -> Desired {
    let (pods, voters) = (ensemble.replicas, Some(ensemble.replicas));
    super::build::build(ensemble, Sizes { pods, places: pods, voters })
}

fn objects(desired: &Desired) -> Vec<Value> {
    let Desired {
        service_account,
        peers,
        peers_service,
        client_service,
        network_policy,
        budget,
        stateful_set,
    } = desired;
    let mut objects = vec![json!(service_account), json!(peers), json!(peers_service), json!(client_service)];
    objects.push(json!(network_policy));
    objects.extend(budget.iter().map(|budget| json!(budget)));
    objects.push(json!(stateful_set));
    objects
}

#[test]
fn the_objects_of_the_smallest_ensemble() {
    let text: Vec<String> = objects(&build(&valid(SMALLEST)))
        .iter()
        .map(|object| serde_yaml::to_string(object).expect("an object is plain data"))
        .collect();
    insta::assert_snapshot!(text.join("---\n"));
}

#[test]
fn every_object_goes_with_its_ensemble() {
    for object in objects(&build(&valid(SMALLEST))) {
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!(
            (owner["uid"].as_str(), owner["controller"].as_bool()),
            (Some("u1"), Some(true)),
            "{object}"
        );
        assert_eq!(object["metadata"]["namespace"], "ns");
    }
}

#[test]
fn a_single_member_has_no_budget_and_seven_may_lose_three() {
    let with = |replicas: u32| SMALLEST.replace("spec: {}", &format!("spec: {{replicas: {replicas}}}"));
    assert_eq!(build(&valid(&with(1))).budget, None);
    let budget = build(&valid(&with(7))).budget.expect("a budget");
    assert_eq!(json!(budget)["spec"]["maxUnavailable"], 3);
}

#[test]
fn a_new_operator_with_another_default_image_changes_nothing() {
    let first = build(&valid(SMALLEST));
    let other = Image { reference: "node:2".into(), pull_policy: "Always".into() };
    // Whether its status is there or was lost.
    for status in [None, Some(status_of(&first.stateful_set, &Step::Done))] {
        let known = Ensemble { status, ..ensemble(SMALLEST) };
        let again = validate(&known, Some(&first.stateful_set), &other).expect("it is valid");
        assert_eq!(build(&again), first);
    }
}

#[test]
fn a_feature_level_is_held_back_by_a_flag_and_never_below_the_one_in_force() {
    let capped = SMALLEST.replace("spec: {}", "spec: {maxFeatureLevel: 1}");
    let command = |valid: &Validated| {
        json!(build(valid).stateful_set)["spec"]["template"]["spec"]["containers"][0]["command"].to_string()
    };
    assert!(command(&valid(&capped)).ends_with(r#","--max-feature-level","1"]"#));
    assert!(!command(&valid(SMALLEST)).contains("level"));
    let status = EnsembleStatus { feature_level: Some(2), ..EnsembleStatus::default() };
    let risen = Ensemble { status: Some(status), ..ensemble(&capped) };
    assert_eq!(
        validate(&risen, None, &default_image()).unwrap_err().to_string(),
        "spec.maxFeatureLevel is 1, but feature level 2 is in force, which never falls: raise it to 2 or take it away"
    );
}

#[test]
fn an_image_that_never_ran_whole_goes_when_the_spec_names_it_no_more() {
    let wait = Step::Wait(Wait { predicate: Predicate::MemberServes, detail: String::new() });
    let bad = SMALLEST.replace("spec: {}", "spec: {image: {repository: bad, tag: '1'}}");
    let was_good = status_of(&build(&valid(SMALLEST)).stateful_set, &Step::Done);
    for (before, kept) in [(EnsembleStatus::default(), None), (was_good, Some("node:1"))] {
        let known = Ensemble { status: Some(before), ..ensemble(&bad) };
        let tried = validate(&known, None, &default_image()).expect("it is valid");
        assert_eq!(tried.image.reference, "bad:1");
        let set = build(&tried).stateful_set;
        let three = observed(vec![serving("0"), serving("1"), None]);
        let status = status(&known.status.unwrap(), &tried, &three, &wait, &set, at(100));
        assert_eq!(status.image.as_deref(), kept);
        let reverted = Ensemble { status: Some(status), ..ensemble(SMALLEST) };
        let again = validate(&reverted, Some(&set), &default_image()).expect("it is valid");
        assert_eq!(again.image, default_image());
    }
}

#[test]
fn a_larger_size_leaves_the_claim_template_as_it_is() {
    let first = build(&valid(SMALLEST));
    let larger = ensemble(&SMALLEST.replace("spec: {}", "spec: {storage: {size: 20Gi}}"));
    let again = validate(&larger, Some(&first.stateful_set), &default_image()).expect("it is valid");
    assert_eq!(build(&again), first);
    assert_eq!((again.template_size.as_str(), again.spec.storage.size.as_str()), ("10Gi", "20Gi"));
}

#[test]
fn objects_are_as_large_as_what_runs_and_the_budget_protects_those_who_vote() {
    let five = valid(&SMALLEST.replace("spec: {}", "spec: {replicas: 5}"));
    let of = |pods, voters| super::build::build(&five, Sizes { pods, places: 5, voters });
    let allows = |desired: &Desired| json!(desired.budget)["spec"]["maxUnavailable"].clone();
    let growing = of(5, Some(3));
    assert_eq!(
        (json!(growing.stateful_set)["spec"]["replicas"].clone(), allows(&growing)),
        (json!(5), json!(1))
    );
    // One of several pods may always go, or their nodes could never be drained.
    assert_eq!(allows(&of(3, Some(1))), json!(1));
    // Nobody says who votes: the budget stays as it is.
    assert_eq!(of(5, None).budget, None);
    let peers = &growing.peers.data.expect("a file")[pharos_crds::names::KEY_PEERS];
    assert!(peers.contains("main-ensemble-4."), "{peers}");
}

#[test]
fn volumes_go_with_the_members_that_leave_and_stay_with_a_deleted_ensemble() {
    let policy = |manifest: &str| {
        json!(build(&valid(manifest)).stateful_set)["spec"]["persistentVolumeClaimRetentionPolicy"].clone()
    };
    assert_eq!(policy(SMALLEST), json!({"whenDeleted": "Retain", "whenScaled": "Delete"}));
    let kept = SMALLEST.replace("spec: {}", "spec: {storage: {retention: {whenScaled: Retain}}}");
    assert_eq!(policy(&kept), json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
}

#[test]
fn the_users_settings_reach_the_pods_and_never_the_selector() {
    let manifest = SMALLEST.replace(
        "spec: {}",
        "spec: {pods: {labels: {app.kubernetes.io/name: mine, team: a}, annotations: {mark: new}, \
         env: [{name: A, value: b}], topologySpreadConstraints: []}}",
    );
    let built = json!(build(&valid(&manifest)).stateful_set);
    let template = &built["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    assert_eq!((&labels["app.kubernetes.io/name"], &labels["team"]), (&json!("pharos"), &json!("a")));
    assert_eq!(template["metadata"]["annotations"], json!({"mark": "new"}));
    assert_eq!(template["spec"]["containers"][0]["env"][1], json!({"name": "A", "value": "b"}));
    assert!(template["spec"]["topologySpreadConstraints"].is_null());
}

#[test]
fn the_pod_that_reads_a_backup_has_keys_from_their_secret_and_no_probe_and_serves_nobody() {
    let credentials = Some("keys".to_owned());
    let order = RestoreOrder { from: "s3://b/x".into(), generation: Some(2), credentials };
    let ensemble = valid(SMALLEST);
    let pod = json!(super::build::restore_pod(&ensemble, &order, 3));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["envFrom"], json!([{"secretRef": {"name": "keys"}}]));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe", "ports"] {
        assert!(container[probe].is_null(), "{probe}");
    }
    let command = json!([
        "pharos-node",
        "restore",
        "--from",
        "s3://b/x",
        "--data-dir",
        "/data",
        "--host",
        "main-ensemble-3.main-ensemble-peers.ns.svc",
        "--peer-port",
        "2888",
        "--client-port",
        "2181",
        "--report-file",
        "/dev/termination-log",
        "--unless-restored",
        "--generation",
        "2"
    ]);
    assert_eq!(container["command"], command);
    assert_eq!(pod["spec"]["restartPolicy"], "OnFailure");
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/component"], "restore");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u1");
    // The claim is as the StatefulSet would make it, and stays when the Ensemble is deleted as those do.
    let claim = json!(super::build::restore_claim(&ensemble, &order, 3));
    let template = json!(build(&ensemble).stateful_set)["spec"]["volumeClaimTemplates"][0].clone();
    assert_eq!(
        (&claim["spec"], &claim["metadata"]["labels"]),
        (&template["spec"], &template["metadata"]["labels"])
    );
    assert_eq!(claim["metadata"]["name"], "data-main-ensemble-3");
    assert!(claim["metadata"]["ownerReferences"].is_null());
}

fn serving(pod: &str) -> Option<Member> {
    Some(Member {
        pod: pod.into(),
        uid: pod.into(),
        up_to_date: true,
        terminating: false,
        running: true,
        ready: true,
        serving: true,
        health: Health::WasReady,
        trouble: None,
        identity: None,
        status: None,
    })
}

fn observed(members: Vec<Option<Member>>) -> Observed {
    let wanted = members.len();
    Observed { revision_known: true, members, wanted, cluster_id: Some("c1".into()), ..Observed::default() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn after(old: &EnsembleStatus, observed: &Observed, step: &Step) -> EnsembleStatus {
    status(old, &valid(SMALLEST), observed, step, &StatefulSet::default(), at(100))
}

fn status_of(set: &StatefulSet, step: &Step) -> EnsembleStatus {
    let three = observed(vec![serving("0"), serving("1"), serving("2")]);
    status(&EnsembleStatus::default(), &valid(SMALLEST), &three, step, set, at(100))
}

fn read(status: &EnsembleStatus) -> kstatus::Verdict {
    kstatus::compute(1, status.observed_generation, &status.conditions)
}

fn ready_reason(status: &EnsembleStatus) -> (String, String) {
    let ready = status.conditions.iter().find(|one| one.type_ == condition::READY).expect("a condition");
    (ready.status.clone(), ready.reason.clone())
}

#[test]
fn tools_read_every_stage_of_an_ensemble_right() {
    let all = observed(vec![serving("0"), serving("1"), serving("2")]);
    let two = observed(vec![serving("0"), serving("1"), None]);
    let one = observed(vec![serving("0"), None, None]);
    let wait = Step::Wait(Wait { predicate: Predicate::PodExists, detail: "ordinal 2".into() });

    let starting = after(&EnsembleStatus::default(), &two, &wait);
    assert_eq!(read(&starting), kstatus::Verdict::InProgress);
    assert_eq!(ready_reason(&starting), ("False".into(), reason::MEMBERS_STARTING.into()));

    let ready = after(&starting, &all, &Step::Done);
    assert_eq!(read(&ready), kstatus::Verdict::Current);

    // One member away: clients are served, and the work is visible.
    let rolling = after(&ready, &two, &wait);
    assert_eq!(read(&rolling), kstatus::Verdict::InProgress);
    assert_eq!(ready_reason(&rolling), ("True".into(), reason::SERVING.into()));

    let lost = after(&rolling, &one, &wait);
    assert_eq!(ready_reason(&lost), ("False".into(), reason::NO_QUORUM.into()));

    let conflict = Blocked { reason: reason::NAME_CONFLICT, message: "taken".into(), stalled: true };
    let refused = |seen| blocked(&ready, &conflict, seen, Some(1), at(1));
    assert_eq!(ready_reason(&refused(Some(&all))), ("True".into(), reason::SERVING.into()));
    assert_eq!(ready_reason(&refused(Some(&one))), ("False".into(), reason::NO_QUORUM.into()));
    assert_eq!(ready_reason(&refused(None)), ("Unknown".into(), reason::NAME_CONFLICT.into()));
    assert_eq!(
        read(&blocked(&EnsembleStatus::default(), &conflict, None, Some(1), at(1))),
        kstatus::Verdict::Failed
    );
}

#[test]
fn all_conditions_are_there_on_the_first_visit_with_the_generation() {
    let conflict = Blocked { reason: reason::NAME_CONFLICT, message: "taken".into(), stalled: true };
    let first = after(&EnsembleStatus::default(), &observed(vec![None, None, None]), &Step::Done);
    for status in [first, blocked(&EnsembleStatus::default(), &conflict, None, Some(1), at(1))] {
        let types: BTreeSet<&str> = status.conditions.iter().map(|one| one.type_.as_str()).collect();
        assert_eq!(types, BTreeSet::from(condition::OF_ENSEMBLE));
        assert!(status.conditions.iter().all(|one| one.observed_generation == Some(1)));
    }
}

#[test]
fn a_status_without_news_is_the_same_value() {
    let all = observed(vec![serving("0"), serving("1"), serving("2")]);
    let first = after(&EnsembleStatus::default(), &all, &Step::Done);
    let again = status(&first, &valid(SMALLEST), &all, &Step::Done, &StatefulSet::default(), at(999));
    assert_eq!(again, first);
}

#[test]
fn the_status_tells_who_votes_and_counts_none_but_them() {
    let says = |ordinal: usize, id: i64| {
        let mut member = serving(&format!("main-ensemble-{ordinal}")).expect("a pod");
        let members =
            [(1, 0, true), (2, 1, true), (3, 2, true), (7, 3, false)].map(|(id, ordinal, voter)| {
                json!({"memberId": id, "volume": "v", "host": format!("main-ensemble-{ordinal}.x"),
                   "peerPort": 1, "clientPort": 2, "voter": voter})
            });
        let said = json!({"config": 4, "nextMemberId": 8, "foundingDigest": "d", "members": members});
        let text = json!({"memberId": id, "role": "follower", "membership": said});
        member.status = Some(serde_json::from_value(text).expect("a status"));
        Some(member)
    };
    let mut seen = observed(vec![says(0, 1), says(1, 2), says(2, 3), says(3, 7)]);
    seen.wanted = 5;
    let status = after(&EnsembleStatus::default(), &seen, &Step::Done);
    assert_eq!((status.configuration, status.ready.as_deref()), (Some(4), Some("3/5")));
    let voters: Vec<_> = status.members.iter().map(|member| (member.id, member.voter)).collect();
    let expected = [(1, true), (2, true), (3, true), (7, false)];
    assert_eq!(voters, expected.map(|(id, voter)| (Some(id), Some(voter))));
}

#[test]
fn while_a_quorum_is_missing_the_status_tells_what_each_member_holds_and_which_generation_it_is() {
    let known = |members: [Option<Member>; 3]| {
        let mut seen = observed(members.to_vec());
        for (id, member) in (1..).zip(seen.members.iter_mut()) {
            let Some(member) = member else { continue };
            let text = json!({"memberId": id, "role": "candidate", "accepted": "2.7.1", "durable": 57});
            member.status = Some(serde_json::from_value(text).expect("a status"));
            let text = json!({"state": "member", "volume": "v", "clusterId": "c1", "generation": 4});
            member.identity = Some(serde_json::from_value(text).expect("an identity"));
        }
        after(&EnsembleStatus::default(), &seen, &Step::Done)
    };
    let held = |status: &EnsembleStatus| {
        let member = &status.members[0];
        (member.accepted.clone(), member.durable)
    };
    let lost = known([serving("0"), None, None]);
    assert_eq!((held(&lost), lost.generation), ((Some("2.7.1".into()), Some(57)), Some(4)));
    let ready = lost.conditions.iter().find(|one| one.type_ == condition::READY).expect("a condition");
    assert!(ready.message.contains("spec.recovery goes on from a survivor"), "{}", ready.message);
    // Nobody has to choose: it would only change with each write.
    let whole = known([serving("0"), serving("1"), None]);
    assert_eq!((held(&whole), whole.generation), ((None, None), Some(4)));
}

#[test]
fn a_recovery_that_is_declined_is_remembered_until_another_is_declared() {
    let text = "spec: {recovery: {generation: 2, survivor: main-ensemble-0, acknowledge: AcceptLostWrites}}";
    let with = valid(&SMALLEST.replace("spec: {}", text));
    let mut seen = observed(vec![serving("0"), None, None]);
    seen.known_generation = Some(1);
    let said = |seen: &Observed, ensemble: &Validated| {
        let old = EnsembleStatus::default();
        status(&old, ensemble, seen, &Step::Done, &StatefulSet::default(), at(100)).declined_recovery
    };
    let declared = |generation, declined| {
        let survivor = "main-ensemble-0".into();
        Some(Declared { generation, survivor, declined })
    };
    seen.recovery = declared(2, true);
    assert_eq!(said(&seen, &with), with.spec.recovery);
    seen.recovery = declared(2, false);
    assert_eq!(said(&seen, &with), None);
    seen.recovery = None;
    assert_eq!(said(&seen, &valid(SMALLEST)), None);
}

#[test]
fn a_wait_is_named_in_the_condition() {
    let wait = Step::Wait(Wait { predicate: Predicate::MemberCaughtUp, detail: "main-ensemble-1".into() });
    let status = after(&EnsembleStatus::default(), &observed(vec![serving("0")]), &wait);
    let reconciling =
        status.conditions.iter().find(|one| one.type_ == condition::RECONCILING).expect("a condition");
    assert_eq!(reconciling.message, "waiting for member_caught_up (main-ensemble-1)");
}
