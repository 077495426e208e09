//! An ensemble whose members cannot all do the same.

use super::members::{command, leader};
use super::{QUICK, SOON, config, ensemble_with, start};
use crate::config::{Admission, ServerConfig, ServerError, Tuning};
use crate::server::ServerHandle;
use crate::status::{LevelRange, Snapshot};

fn at_level(level: u16) -> impl Fn(&Snapshot) -> bool {
    move |now| now.status.feature_level == level && now.status.serving
}

/// One that knows of the first level alone.
fn held_back(config: ServerConfig) -> Result<ServerHandle, ServerError> {
    let tuning = Tuning { max_feature_level: Some(1), ..config.tuning };
    start(ServerConfig { tuning, ..config })
}

#[test]
fn a_level_rises_when_the_last_member_can_do_it_and_one_that_cannot_is_told_why() {
    let (dir, mut members) = ensemble_with(3, QUICK, held_back);
    let again =
        |id: usize, member: ServerHandle, start: fn(ServerConfig) -> Result<ServerHandle, ServerError>| {
            let peer_addr = member.addresses().peer;
            member.shutdown();
            member.join().unwrap();
            let dir = dir.path().join((id + 1).to_string());
            let token_file = Some(dir.with_file_name("token"));
            start(ServerConfig { admission: Admission::MemberOnly, peer_addr, token_file, ..config(&dir) })
                .unwrap()
        };
    for id in 0..3 {
        assert!(members.iter().all(|server| server.wait_until(SOON, at_level(1))), "before {id} can do more");
        let upgraded = again(id, members.remove(id), start);
        members.insert(id, upgraded);
    }
    for server in &members {
        assert!(server.wait_until(SOON, at_level(2)), "{:?}", server.snapshot());
    }
    let peers_can_all = |now: &Snapshot| {
        now.status.peers.iter().all(|peer| peer.feature_levels == Some(LevelRange { min: 1, max: 2 }))
    };
    assert!(members[0].wait_until(SOON, peers_can_all), "{:?}", members[0].snapshot());

    let new = r#"{"volume":"00112233445566778899aabbccddeeff","host":"x","peerPort":1,"clientPort":2,
                  "featureLevels":{"min":1,"max":1}}"#;
    let answer = command(leader(&members), "POST", "/v1/members", new);
    assert!(answer.contains("the member cannot join: the ensemble is at feature level 2"), "{answer}");

    let late = again(2, members.remove(2), held_back);
    let error = late.join().unwrap_err();
    assert!(error.is_users_fault());
    assert_eq!(
        error.to_string(),
        "the member cannot start: the ensemble is at feature level 2 and this member can do levels 1 to 1: run a \
         version that knows level 2, and without a lower --max-feature-level"
    );
}
