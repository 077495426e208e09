//! Whole servers over a store in memory, spoken to over their sockets.

mod damage;
pub(crate) mod full;
mod greetings;
mod levels;
mod members;
mod repair;
mod values;

use crate::config::{Admission, ServerConfig, ServerError, Tuning};
use crate::permit::{Permit, PermitFounder};
use crate::server::{ServerHandle, start_with};
use crate::state_store::OnStore;
use crate::status::{Life, RoleName};
use crate::{HexId, Id128};
use pharos_store::MemStore;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "token";
/// An election timeout that a busy machine survives.
const QUICK: Duration = Duration::from_millis(300);

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn config(dir: &Path) -> ServerConfig {
    ServerConfig {
        data_dir: dir.to_owned(),
        client_addr: local(),
        peer_addr: local(),
        admin_addr: local(),
        metrics_addr: Some(local()),
        admission: Admission::Alone,
        token_file: None,
        peers_file: None,
        tuning: Tuning {
            segment_bytes: 1 << 20,
            spare_segments: 1,
            heartbeat: Duration::from_millis(20),
            election: QUICK,
            max_frame: 1000,
            ..Tuning::default()
        },
    }
}

fn start(config: ServerConfig) -> Result<ServerHandle, ServerError> {
    start_with(config, |dir| Ok(OnStore::new(MemStore::new(), dir)))
}

/// A member that founded an ensemble of its own and serves.
fn alone(change: impl FnOnce(&mut ServerConfig)) -> (TempDir, ServerHandle) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir.path().join("data"));
    change(&mut config);
    let server = start(config).unwrap();
    assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
    (dir, server)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends bytes and reads to the end.
fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(sent).unwrap();
    read_to_end(&mut stream)
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("{error}"),
    }
}

fn http(address: SocketAddr, request: &str) -> (String, String) {
    let answer = exchange(address, format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    (status.to_owned(), body.to_owned())
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// A ConnectRequest for a new session of 10 s.
fn hello_server() -> Vec<u8> {
    let mut body = vec![0; 4 + 8];
    body.extend_from_slice(&10_000_i32.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&frame(&[0; 16]));
    body.push(0);
    frame(&body)
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

fn new_session(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    client.write_all(&hello_server()).unwrap();
    let answer = read_frame(&mut client);
    assert_eq!((answer.len(), &answer[4..8]), (37, &10_000_i32.to_be_bytes()[..]));
    client
}

/// A session that may take some tries, as those of clients do: what was under way when leadership moved is cut off.
fn new_session_soon(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + SOON;
    loop {
        let mut client = connect(address);
        let mut head = [0; 4];
        if client.write_all(&hello_server()).is_ok() && client.read_exact(&mut head).is_ok() {
            let mut rest = vec![0; u32::from_be_bytes(head) as usize];
            client.read_exact(&mut rest).unwrap();
            return client;
        }
        assert!(Instant::now() < deadline, "{address} takes no session");
    }
}

fn ping(client: &mut TcpStream) {
    client.write_all(&frame(&[255, 255, 255, 254, 0, 0, 0, 11])).unwrap();
    assert_eq!(read_frame(client)[..4], (-2_i32).to_be_bytes());
}

#[test]
fn a_client_gets_a_session_and_its_pings_are_answered() {
    let (_dir, server) = alone(|_| ());
    let mut client = new_session(server.addresses().client);
    ping(&mut client);
    ping(&mut client);
    drop(client);
    server.shutdown();
    server.join().unwrap();
}

#[test]
fn requests_may_come_in_pieces_or_all_at_once() {
    let (_dir, server) = alone(|_| ());
    let mut client = connect(server.addresses().client);
    let ping_frame = frame(&[255, 255, 255, 254, 0, 0, 0, 11]);
    let all = [hello_server(), ping_frame.repeat(500)].concat();
    let (pieces, rest) = all.split_at(60);
    for byte in pieces {
        client.write_all(&[*byte]).unwrap();
    }
    client.write_all(rest).unwrap();
    assert_eq!(read_frame(&mut client).len(), 37);
    for _ in 0..500 {
        assert_eq!(read_frame(&mut client)[..4], (-2_i32).to_be_bytes());
    }
}

#[test]
fn an_oversized_frame_closes_the_connection_without_a_reply_and_harms_nobody_else() {
    let (_dir, server) = alone(|_| ());
    let address = server.addresses().client;
    let mut other = new_session(address);
    let mut client = new_session(address);
    client.write_all(&1001_u32.to_be_bytes()).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(exchange(address, &1001_u32.to_be_bytes()), b"");
    ping(&mut other);
    assert!(server.wait_until(SOON, |now| now.gauges.counters.oversized == 2));
}

#[test]
fn a_negative_length_and_a_handshake_of_rubbish_close_the_connection() {
    let (_dir, server) = alone(|_| ());
    let address = server.addresses().client;
    assert_eq!(exchange(address, &(-1_i32).to_be_bytes()), b"");
    assert_eq!(exchange(address, &frame(&[9; 7])), b"");
    assert!(server.wait_until(SOON, |now| now.gauges.counters.malformed == 1));
    ping(&mut new_session(address));
}

#[test]
fn a_request_that_cannot_be_read_is_answered_and_one_without_a_header_closes_its_connection_alone() {
    let (_dir, server) = alone(|_| ());
    let address = server.addresses().client;
    let (mut client, mut other) = (new_session(address), new_session(address));
    // A create whose path claims more bytes than there are: a marshalling error, as ZooKeeper says.
    client.write_all(&frame(&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 9, 9, b'/'])).unwrap();
    let reply = read_frame(&mut client);
    assert_eq!((&reply[..4], &reply[12..]), (&7_i32.to_be_bytes()[..], &(-5_i32).to_be_bytes()[..]));
    ping(&mut client);
    client.write_all(&frame(&[0, 0])).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    ping(&mut other);
}

/// A request of one path, by the number of its operation; what follows the path is given.
fn ask(client: &mut TcpStream, op: i32, path: &str, rest: &[u8]) -> i32 {
    let head = [1_i32.to_be_bytes(), op.to_be_bytes()].concat();
    client.write_all(&frame(&[&head[..], &frame(path.as_bytes()), rest].concat())).unwrap();
    i32::from_be_bytes(read_frame(client)[12..16].try_into().unwrap())
}

/// `create` of an empty node that anyone may do anything with.
fn create(client: &mut TcpStream, path: &str, flags: i32) -> i32 {
    let list =
        [&1_i32.to_be_bytes()[..], &31_i32.to_be_bytes(), &frame(b"world"), &frame(b"anyone")].concat();
    ask(client, 1, path, &[&0_i32.to_be_bytes()[..], &list, &flags.to_be_bytes()].concat())
}

#[test]
fn a_container_goes_when_its_last_child_has_gone_and_not_before_it_had_one() {
    let (_dir, server) = alone(|config| config.tuning.container_sweep = Duration::from_millis(20));
    let mut client = new_session(server.addresses().client);
    let container = 4;
    for path in ["/new", "/used", "/in-use"] {
        assert_eq!(create(&mut client, path, container), 0);
    }
    assert_eq!((create(&mut client, "/used/child", 0), create(&mut client, "/in-use/child", 0)), (0, 0));
    let any_version = (-1_i32).to_be_bytes();
    assert_eq!(ask(&mut client, 2, "/used/child", &any_version), 0);
    let (exists, no_node) = (3, -101);
    let deadline = Instant::now() + SOON;
    while ask(&mut client, exists, "/used", &[0]) != no_node {
        assert!(Instant::now() < deadline, "the container is still there");
    }
    assert_eq!((ask(&mut client, exists, "/new", &[0]), ask(&mut client, exists, "/in-use", &[0])), (0, 0));
}

#[test]
fn identities_that_every_command_would_carry_are_few_or_short() {
    let (_dir, server) = alone(|config| config.tuning.max_frame = 10_000);
    let address = server.addresses().client;
    let add = |client: &mut TcpStream, secret: &[u8]| {
        let body = [&[255, 255, 255, 252, 0, 0, 0, 100, 0, 0, 0, 0], &frame(b"digest")[..], &frame(secret)];
        client.write_all(&frame(&body.concat())).unwrap();
        i32::from_be_bytes(read_frame(client)[12..16].try_into().unwrap())
    };
    let mut client = new_session(address);
    for user in 0..50 {
        assert_eq!(add(&mut client, format!("user{user}:secret").as_bytes()), 0);
    }
    assert_eq!(add(&mut client, b"user1:secret"), 0);
    let auth_failed = -115;
    // What is no UTF-8 takes three times its length.
    assert_eq!(add(&mut client, &[255; 2000]), auth_failed);
    assert_eq!(read_to_end(&mut client), b"");
    ping(&mut new_session(address));
}

#[test]
fn any_number_of_reads_of_large_nodes_is_answered_to_a_slow_reader() {
    const LENGTH: usize = 500_000;
    const READS: usize = 1000;
    let (_dir, server) = alone(|config| config.tuning.max_frame = 1 << 20);
    let mut client = new_session(server.addresses().client);
    assert_eq!(create(&mut client, "/large", 0), 0);
    let any_version = (-1_i32).to_be_bytes();
    let data = [&frame(&vec![7; LENGTH])[..], &any_version].concat();
    assert_eq!(ask(&mut client, 5, "/large", &data), 0);
    let number = |xid: usize| i32::try_from(xid).unwrap().to_be_bytes();
    let request = |xid, op: i32, rest: &[u8]| {
        frame(&[&number(xid)[..], &op.to_be_bytes(), &frame(b"/large"), rest].concat())
    };
    // Twice the same: a write, behind it many reads, and a write that no read may see.
    let requests = (0..READS).map(|xid| match xid % (READS / 2) {
        0 | 300 => request(xid, 5, &[&frame(&vec![(xid / 100) as u8; LENGTH])[..], &any_version].concat()),
        _ => request(xid, 4, &[0]),
    });
    let mut answers = client.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        for xid in 0..READS {
            let answer = read_frame(&mut answers);
            assert_eq!(answer[..4], number(xid), "answers come in order");
            let write = xid % (READS / 2) / 300 * 300 + xid / (READS / 2) * (READS / 2);
            if xid != write {
                assert_eq!(answer[20..20 + LENGTH], vec![(write / 100) as u8; LENGTH], "read {xid}");
            }
        }
    });
    for request in requests {
        client.write_all(&request).unwrap();
    }
    reader.join().unwrap();
    // All at once is too much for one answer, and harms nobody.
    let reads = [&4_i32.to_be_bytes()[..], &[0; 5], &frame(b"/large"), &[0]].concat().repeat(300);
    let end = [&(-1_i32).to_be_bytes()[..], &[1], &(-1_i32).to_be_bytes()].concat();
    client.write_all(&frame(&[&number(1)[..], &22_i32.to_be_bytes(), &reads, &end].concat())).unwrap();
    let marshalling_error = -5_i32;
    assert_eq!(read_frame(&mut client)[12..16], marshalling_error.to_be_bytes());
    ping(&mut client);
}

#[test]
fn whoever_begins_a_handshake_and_does_not_end_it_is_dropped() {
    let (_dir, server) = alone(|config| config.tuning.handshake = Duration::from_millis(100));
    let mut client = connect(server.addresses().client);
    client.write_all(&hello_server()[..9]).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn four_letter_words_are_answered_and_the_connection_is_closed() {
    let (_dir, server) = alone(|_| ());
    let address = server.addresses().client;
    let text = |word: &str| String::from_utf8(exchange(address, word.as_bytes())).unwrap();
    assert_eq!(text("ruok"), "imok");
    let srvr = text("srvr\n");
    assert!(srvr.starts_with("Zookeeper version: 3.9.4-pharos-"), "{srvr}");
    assert!(srvr.contains("Mode: standalone\nNode count: "), "{srvr}");
    assert!(text("mntr").contains("zk_server_state\tstandalone\n"));
    assert_eq!(text("dump"), "dump is not executed because it is not in the whitelist.\n");
    let mut slow = connect(address);
    for byte in b"isro" {
        slow.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_to_end(&mut slow), b"rw");
}

#[test]
fn more_connections_than_an_address_may_have_are_turned_away() {
    let (_dir, server) = alone(|config| config.tuning.max_per_ip = 2);
    let address = server.addresses().client;
    let first = new_session(address);
    let _second = new_session(address);
    assert_eq!(exchange(address, b""), b"");
    first.shutdown(Shutdown::Both).unwrap();
    assert!(server.wait_until(SOON, |now| now.gauges.connections == 1));
    ping(&mut new_session(address));
    assert_eq!(server.snapshot().gauges.counters.rejected, 1);
}

#[test]
fn the_admin_endpoints_tell_what_the_member_is() {
    let (_dir, server) = alone(|_| ());
    let admin = server.addresses().admin;
    assert_eq!(http(admin, "GET /livez HTTP/1.1").0, "200 OK");
    assert_eq!(http(admin, "GET /readyz HTTP/1.1").0, "200 OK");
    let identity: serde_json::Value =
        serde_json::from_str(&http(admin, "GET /v1/identity HTTP/1.1").1).unwrap();
    assert_eq!((&identity["state"], &identity["memberId"]), (&"member".into(), &1.into()));
    assert_eq!(identity["clientPort"], server.addresses().client.port());
    let status: serde_json::Value = serde_json::from_str(&http(admin, "GET /v1/status HTTP/1.1").1).unwrap();
    assert_eq!((&status["role"], &status["leader"]), (&"leader".into(), &1.into()));
    assert_eq!((&status["serving"], &status["peers"]), (&true.into(), &serde_json::json!([])));
    assert!(status["zxid"].as_str().unwrap().starts_with("0x"), "{status}");
    for address in [admin, server.addresses().metrics.unwrap()] {
        let (code, page) = http(address, "GET /metrics HTTP/1.1");
        assert_eq!(code, "200 OK");
        assert!(page.contains("pharos_serving 1\n") && page.contains("\nznode_count "), "{page}");
    }
    let elsewhere = http(server.addresses().metrics.unwrap(), "GET /v1/status HTTP/1.1");
    assert_eq!(elsewhere.0, "404 Not Found");
}

#[test]
fn a_transfer_needs_the_token_and_another_voter() {
    let (dir, server) = alone(|config| {
        let token = config.data_dir.with_file_name("token");
        std::fs::write(&token, "secret\n").unwrap();
        config.token_file = Some(token);
    });
    let admin = server.addresses().admin;
    let ask = |header: &str, body: &str| {
        let length = body.len();
        let head = format!("POST /v1/transfer HTTP/1.1{header}\r\nContent-Length: {length}");
        let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n{body}");
        String::from_utf8(exchange(admin, request.as_bytes())).unwrap()
    };
    let to_2 = r#"{"to":2}"#;
    assert!(ask("", to_2).starts_with("HTTP/1.1 401 "));
    assert!(ask("\r\nAuthorization: Bearer wrong", to_2).starts_with("HTTP/1.1 403 "));
    let right = "\r\nAuthorization: Bearer secret";
    assert!(ask(right, "{}").starts_with("HTTP/1.1 400 "));
    let refused = ask(right, to_2);
    assert!(refused.starts_with("HTTP/1.1 409 ") && refused.contains("member 2 is not a voter"), "{refused}");
    drop(dir);
}

#[test]
fn a_busy_port_is_named_and_is_the_users_to_put_right() {
    let (dir, server) = alone(|_| ());
    let mut busy = config(&dir.path().join("other"));
    busy.client_addr = server.addresses().client;
    let error = start(busy).unwrap_err();
    let port = server.addresses().client.to_string();
    assert!(error.is_users_fault() && error.to_string().contains(&port), "{error}");
}

#[test]
fn a_data_directory_in_use_or_blank_without_a_permit_is_refused() {
    let (dir, _server) = alone(|_| ());
    let error = start(config(&dir.path().join("data"))).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let mut blank = config(&dir.path().join("blank"));
    blank.admission = Admission::MemberOnly;
    let error = start(blank).unwrap_err();
    assert!(error.is_users_fault() && matches!(error, ServerError::Blank(_)), "{error}");
}

#[test]
fn a_blank_member_waits_for_a_permit_that_names_its_volume() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("permit.json");
    let mut config = config(&dir.path().join("data"));
    config.admission = Admission::PermitFile(file.clone());
    let server = start(config).unwrap();
    let now = server.snapshot();
    assert_eq!((now.identity.state, now.status.role), (Life::Blank, RoleName::Blank));
    let admin = server.addresses().admin;
    assert_eq!(http(admin, "GET /livez HTTP/1.1").0, "200 OK");
    let (code, why) = http(admin, "GET /readyz HTTP/1.1");
    assert!(code.starts_with("503 ") && why.contains("waiting for a permit"), "{code}: {why}");
    assert!(TcpStream::connect(server.addresses().client).is_err(), "a blank member takes no clients");
    let volume = now.identity.volume.0;
    let foreign = Permit::alone(Id128([1; 16]), Id128([9; 16]), Id128([3; 16]), 1, 2);
    std::fs::write(&file, serde_json::to_vec(&foreign).unwrap()).unwrap();
    assert!(!server.wait_until(Duration::from_millis(500), |now| now.identity.state != Life::Blank));
    let ours = Permit::alone(Id128([1; 16]), volume, Id128([3; 16]), 1, 2);
    std::fs::write(&file, serde_json::to_vec(&ours).unwrap()).unwrap();
    assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
    assert_eq!(server.snapshot().identity.cluster_id.unwrap().0, Id128([1; 16]));
}

#[test]
fn a_blank_member_ends_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir.path().join("data"));
    config.admission = Admission::PermitFile(dir.path().join("permit.json"));
    let server = start(config).unwrap();
    server.shutdown();
    server.join().unwrap();
}

/// Members whose permit has been written.
fn ensemble(count: u32, election: Duration) -> (TempDir, Vec<ServerHandle>) {
    ensemble_with(count, election, start)
}

fn ensemble_with(
    count: u32,
    election: Duration,
    start: fn(ServerConfig) -> Result<ServerHandle, ServerError>,
) -> (TempDir, Vec<ServerHandle>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("permit.json");
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    let member = |id: u32| {
        let mut config = config(&dir.path().join(id.to_string()));
        config.admission = Admission::PermitFile(file.clone());
        config.tuning.election = election;
        config.token_file = Some(dir.path().join("token"));
        start(config).unwrap()
    };
    let members: Vec<ServerHandle> = (1..=count).map(member).collect();
    let founders = members.iter().zip(1..).map(|(server, member_id)| PermitFounder {
        member_id,
        volume: HexId(server.snapshot().identity.volume.0),
        host: "localhost".to_owned(),
        peer_port: server.addresses().peer.port(),
        client_port: server.addresses().client.port(),
    });
    let permit = Permit::new(Id128([5; 16]), Id128([6; 16]), founders.collect());
    std::fs::write(dir.path().join("part"), serde_json::to_vec(&permit).unwrap()).unwrap();
    std::fs::rename(dir.path().join("part"), &file).unwrap();
    for server in &members {
        assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
    }
    (dir, members)
}

fn leader_of(members: &[ServerHandle]) -> usize {
    let leads = |server: &ServerHandle| server.snapshot().status.role == RoleName::Leader;
    members.iter().position(leads).expect("one leads")
}

#[test]
fn three_members_found_an_ensemble_and_each_takes_clients() {
    let (_dir, members) = ensemble(3, QUICK);
    for server in &members {
        ping(&mut new_session(server.addresses().client));
        assert!(server.wait_until(SOON, |now| now.status.peers.iter().all(|peer| peer.connected)));
    }
    let sessions = |now: &crate::Snapshot| now.status.sessions == 3;
    assert!(members.iter().all(|server| server.wait_until(SOON, sessions)));
}

#[test]
fn a_leader_that_ends_in_good_order_hands_over_first() {
    let (_dir, mut members) = ensemble(3, Duration::from_secs(3));
    let leader = members.remove(leader_of(&members));
    leader.shutdown();
    leader.join().unwrap();
    let leads = |now: &crate::Snapshot| now.status.role == RoleName::Leader;
    let deadline = Instant::now() + Duration::from_secs(2);
    while !members.iter().any(|server| leads(&server.snapshot())) {
        assert!(Instant::now() < deadline, "the others waited for the election timeout");
        std::thread::yield_now();
    }
    assert!(members.iter().all(|server| server.wait_until_serving(SOON)));
}

#[test]
fn a_member_of_another_ensemble_at_a_peers_address_is_not_let_in() {
    let (_dir, mut members) = ensemble(2, QUICK);
    let gone = members.remove(0);
    let address = gone.addresses().peer;
    gone.shutdown();
    gone.join().unwrap();
    let (_other, stranger) = alone(|config| config.peer_addr = address);
    assert!(stranger.wait_until(SOON, |now| now.gauges.counters.hellos_refused > 0));
    let alone = |now: &crate::Snapshot| !now.status.serving && !now.status.peers[0].connected;
    assert!(members[0].wait_until(SOON, alone), "{:?}", members[0].snapshot());
}

#[test]
fn what_is_not_a_hello_is_turned_away_at_the_peers_port() {
    let (_dir, server) = alone(|_| ());
    let peer = server.addresses().peer;
    let greeting = b"GET / HTTP/1.1";
    let framed = [&crate::frames::peer_header(greeting)[..], greeting].concat();
    assert_eq!(exchange(peer, &framed), b"");
    assert_eq!(exchange(peer, b"GET / HTTP/1.1\r\n\r\n"), b"");
    assert!(server.wait_until(SOON, |now| now.gauges.counters.hellos_refused == 1));
    assert_eq!(server.snapshot().status.role, RoleName::Leader);
}

#[test]
fn a_member_that_ended_goes_on_from_its_log() {
    let (dir, server) = alone(|_| ());
    let client = new_session(server.addresses().client);
    assert!(server.wait_until(SOON, |now| now.status.sessions == 1));
    let before = server.snapshot();
    drop(client);
    server.shutdown();
    server.join().unwrap();
    let again = start(config(&dir.path().join("data"))).unwrap();
    assert!(again.wait_until(SOON, |now| now.status.serving && now.status.sessions == 1));
    let after = again.snapshot();
    assert_eq!(after.identity.cluster_id, before.identity.cluster_id);
    assert!(after.status.applied > before.status.applied);
}
