//! An ensemble whose members come and go.

use super::{
    QUICK, SOON, TOKEN, config, ensemble, exchange, leader_of, new_session, new_session_soon, ping, start,
};
use crate::HexId;
use crate::config::{Admission, ServerConfig};
use crate::permit::{Permit, PermitFounder};
use crate::server::ServerHandle;
use crate::status::{RegisteredMember, RoleName, Snapshot};
use std::path::Path;
use tempfile::TempDir;

/// Commands a member by its admin endpoint; the whole answer.
pub(super) fn command(server: &ServerHandle, method: &str, path: &str, body: &str) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = exchange(server.addresses().admin, (head + body).as_bytes());
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn leader(members: &[ServerHandle]) -> &ServerHandle {
    &members[leader_of(members)]
}

/// A blank member is registered, permitted and catches up, and is a learner then.
fn join(dir: &TempDir, members: &[ServerHandle]) -> ServerHandle {
    let file = dir.path().join(format!("join-{}.json", members.len()));
    let mut config = config(&dir.path().join(format!("joiner-{}", members.len())));
    config.admission = Admission::PermitFile(file.clone());
    config.token_file = Some(dir.path().join("token"));
    let joiner = start(config).unwrap();
    admit(dir, members, &joiner, &file);
    joiner
}

/// A blank member that runs is registered, gets its permit and catches up.
pub(super) fn admit(dir: &TempDir, members: &[ServerHandle], joiner: &ServerHandle, file: &Path) {
    let volume = joiner.snapshot().identity.volume.0;
    let (peer, client) = (joiner.addresses().peer.port(), joiner.addresses().client.port());
    let new =
        format!(r#"{{"volume":"{volume}","host":"localhost","peerPort":{peer},"clientPort":{client}}}"#);
    let answer = command(leader(members), "POST", "/v1/members", &new);
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let registered = |now: &Snapshot| {
        now.status.membership.iter().flat_map(|all| &all.members).any(|one| one.volume.0 == volume)
    };
    assert!(leader(members).wait_until(SOON, registered));
    let list = leader(members).snapshot().status.membership.clone().unwrap();
    let mut permit: Permit =
        serde_json::from_slice(&std::fs::read(dir.path().join("permit.json")).unwrap()).unwrap();
    let named = |one: &RegisteredMember| PermitFounder {
        member_id: one.member_id,
        volume: HexId(one.volume.0),
        host: one.host.clone(),
        peer_port: one.peer_port,
        client_port: one.client_port,
    };
    permit.members = list.members.iter().map(named).collect();
    permit.joiners = list.members.iter().filter(|one| !one.voter).map(named).collect();
    permit.founding_digest = Some(HexId(list.founding_digest.0));
    std::fs::write(dir.path().join("part"), serde_json::to_vec(&permit).unwrap()).unwrap();
    std::fs::rename(dir.path().join("part"), file).unwrap();
    let learns = |now: &Snapshot| now.status.role == RoleName::Learner && now.status.serving;
    assert!(joiner.wait_until(SOON, learns), "{:?}", joiner.snapshot());
}

/// The voters are these members, and all of them know.
pub(super) fn switch(members: &[ServerHandle], voters: &[u32]) {
    let before = leader(members).snapshot().status.membership.as_ref().unwrap().config;
    let ready = |now: &Snapshot| {
        let up = |id: &u32| now.status.peers.iter().any(|peer| peer.member_id == *id && peer.caught_up);
        voters.iter().all(|id| *id == now.status.member_id || up(id))
    };
    assert!(leader(members).wait_until(SOON, ready));
    let body = format!(r#"{{"voters":{voters:?},"config":{before}}}"#);
    let answer = command(leader(members), "POST", "/v1/voters", &body);
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let switched = |now: &Snapshot| {
        let list = now.status.membership.as_ref().unwrap();
        let votes = list.members.iter().filter(|one| one.voter).map(|one| one.member_id);
        list.config == before + 1 && votes.eq(voters.iter().copied())
    };
    for server in members {
        let id = server.snapshot().status.member_id;
        if voters.contains(&id) {
            assert!(server.wait_until(SOON, |now| switched(now) && now.status.serving), "{id}");
        } else {
            assert!(server.wait_until(SOON, |now| now.status.role == RoleName::Removed), "{id}");
        }
    }
}

#[test]
fn an_ensemble_grows_from_one_member_to_three_and_shrinks_to_another_one() {
    let (dir, mut members) = ensemble(1, QUICK);
    let client = new_session(members[0].addresses().client);
    for _ in 0..2 {
        let joiner = join(&dir, &members);
        members.push(joiner);
    }
    switch(&members, &[1, 2, 3]);
    drop(client);
    // Any two of them go on without the third.
    let founder = members.remove(0);
    let peer_addr = founder.addresses().peer;
    founder.shutdown();
    founder.join().unwrap();
    for server in &members {
        assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
        ping(&mut new_session_soon(server.addresses().client));
    }
    let again = ServerConfig { admission: Admission::MemberOnly, peer_addr, ..config(&dir.path().join("1")) };
    members.insert(0, start(again).unwrap());
    assert!(members[0].wait_until_serving(SOON), "{:?}", members[0].snapshot());
    // A leader that is not of the next configuration hands on.
    let leads = leader(&members).snapshot().status.member_id;
    let stays = if leads == 3 { 2 } else { 3 };
    switch(&members, &[stays]);
    let last = members.iter().find(|server| server.snapshot().status.member_id == stays).unwrap();
    ping(&mut new_session_soon(last.addresses().client));
    assert!(last.wait_until(SOON, |now| now.status.role == RoleName::Leader));
}

#[test]
fn what_the_leader_cannot_do_to_its_members_is_refused_with_the_reason() {
    let (_dir, members) = ensemble(2, QUICK);
    let follower = &members[1 - leader_of(&members)];
    let refusal = |server: &ServerHandle, method: &str, path: &str, body: &str| {
        let answer = command(server, method, path, body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), body.trim().to_owned())
    };
    let conflict = |error: &str| ("409".to_owned(), format!(r#"{{"error":"{error}"}}"#));
    let voters = |voters: &str, config: u32| format!(r#"{{"voters":[{voters}],"config":{config}}}"#);
    let at = leader(&members);
    assert_eq!(
        refusal(follower, "POST", "/v1/voters", &voters("1", 1)),
        conflict("this member does not lead")
    );
    assert_eq!(
        refusal(at, "POST", "/v1/voters", &voters("1", 7)),
        conflict("configuration 7 is over, this is 1")
    );
    assert_eq!(refusal(at, "POST", "/v1/voters", &voters("1,9", 1)), conflict("member 9 is not registered"));
    assert_eq!(
        refusal(at, "POST", "/v1/voters", &voters("1,2", 1)),
        conflict("these are the voters already")
    );
    assert_eq!(
        refusal(at, "DELETE", "/v1/members/2", ""),
        conflict("member 2 votes: change the voters first")
    );
    assert_eq!(refusal(at, "POST", "/v1/members", r#"{"volume":"12"}"#).0, "400");
}
