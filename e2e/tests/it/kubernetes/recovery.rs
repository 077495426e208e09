//! An Ensemble whose majority is lost for good, as it is seen by the person who has to choose.

use std::collections::BTreeSet;

use pharos_e2e::zookeeper;
use serde_json::{Value, json};

use super::ensemble::{READY, all, patch, ready_ensemble, settled, voters};

#[test]
fn an_ensemble_goes_on_from_the_declared_survivor_after_two_of_three_volumes_were_lost() {
    let sandbox = ready_ensemble("bereft");
    settled(&sandbox, "bereft");
    let members = zookeeper::members(&sandbox, "bereft").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/kept", "light").unwrap();
    // The last write is on a quorum; that the survivor has it too is seen by a read.
    let (survivor, lost) = ("bereft-ensemble-2", ["bereft-ensemble-0", "bereft-ensemble-1"]);
    let left: Vec<_> = members.iter().filter(|member| member.pod == survivor).collect();
    assert_eq!(zookeeper::get(&sandbox, &left, "/kept").unwrap(), "light");
    let before = voters(&sandbox, "bereft").unwrap();
    let claims = lost.map(|pod| format!("data-{pod}"));
    sandbox.kubectl(["delete", "persistentvolumeclaim", &claims[0], &claims[1], "--wait=false"]).unwrap();
    sandbox.kubectl(["delete", "pod", lost[0], lost[1], "--wait=false"]).unwrap();

    let stalled_by = |wanted: &str| {
        let what = format!("a condition with the reason {wanted}");
        let found = sandbox.wait_until(&what, READY, || {
            let status = sandbox.get("ensemble/bereft")?["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let stalled =
                conditions.into_iter().find(|one| one["type"] == "Stalled" && one["reason"] == wanted);
            Ok(stalled.map(|stalled| (stalled["message"].as_str().unwrap_or_default().to_owned(), status)))
        });
        found.unwrap()
    };
    let (message, status) = stalled_by("LostVolume");
    assert!(message.contains("declare spec.recovery with generation 2"), "{message}");
    assert_eq!(status["generation"], json!(1));
    let known: Vec<Value> = status["members"].as_array().cloned().unwrap_or_default();
    let told = known.iter().find(|member| member["pod"] == survivor).unwrap();
    assert!(told["accepted"].is_string() && told["durable"].is_number(), "{told}");

    let declare = |generation: u32, survivor: &str| {
        let acknowledge = "AcceptLostWrites";
        let recovery = json!({"generation": generation, "survivor": survivor, "acknowledge": acknowledge});
        patch(&sandbox, "bereft", &json!({"spec": {"recovery": recovery}}));
    };
    declare(3, survivor);
    let (message, _) = stalled_by("RecoveryRefused");
    assert!(message.contains("the next is 2"), "{message}");
    declare(2, survivor);
    settled(&sandbox, "bereft");

    let status = sandbox.get("ensemble/bereft").unwrap()["status"].clone();
    assert_eq!((&status["generation"], &status["ready"]), (&json!(2), &json!("3/3")));
    let shown = sandbox.kubectl(["get", "ensemble", "bereft", "--output=wide"]).unwrap();
    let column = |line: &str, word: &str| line.split_whitespace().any(|cell| cell == word);
    let (head, row) = shown.split_once('\n').unwrap();
    assert!(column(head, "GENERATION") && column(row, "2"), "{shown}");
    // The survivor is who it was; the others are new.
    let after = voters(&sandbox, "bereft").unwrap();
    assert_eq!(after.get(survivor), before.get(survivor));
    let ids =
        |voters: &std::collections::BTreeMap<String, i64>| voters.values().copied().collect::<BTreeSet<_>>();
    assert_eq!((after.len(), ids(&after).intersection(&ids(&before)).count()), (3, 1), "{after:?}");
    let members = zookeeper::members(&sandbox, "bereft").unwrap();
    zookeeper::put(&sandbox, &all(&members), "/new", "day").unwrap();
    for member in &members {
        assert_eq!(zookeeper::get(&sandbox, &[member], "/kept").unwrap(), "light", "{}", member.pod);
        assert_eq!(zookeeper::get(&sandbox, &[member], "/new").unwrap(), "day", "{}", member.pod);
    }
    let events = sandbox.list("events", "").unwrap();
    let tells = |event: &&Value| event["reason"] == "Recovering" && event["type"] == "Warning";
    let told: Vec<&str> = events.iter().filter(tells).filter_map(|event| event["message"].as_str()).collect();
    assert!(
        told.iter().any(|message| message.contains("generation 2 begins with bereft-ensemble-2 alone")),
        "{told:?}"
    );
}
