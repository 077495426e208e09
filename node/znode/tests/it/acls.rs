//! Access control lists: what clients may write, what it becomes, whom it lets in.

use pharos_znode::{
    Acl, CreateMode, ErrorCode, Id, Op, SessionId, Settings, allowed, digest_auth, perms, redacted, user_name,
};

use crate::world::{World, create_acl, set_acl, super_user, world_may};

fn user(name: &str) -> Id {
    digest_auth(format!("{name}:secret").as_bytes())
}

/// What is stored for a list, given the connection's identities.
fn stored(acl: &[(i32, &str, &str)], auth: Vec<Id>) -> Result<Vec<Acl>, ErrorCode> {
    let mut world = World::new();
    world.auth = auth;
    let acl = acl.iter().map(|(perms, scheme, id)| Acl::new(*perms, *scheme, *id)).collect();
    world.run(create_acl("/x", CreateMode::Persistent, acl))?;
    Ok(world.state.get_acl("/x", &super_user()).unwrap().acl)
}

#[test]
fn digest_identities_are_those_of_zookeeper() {
    assert_eq!(digest_auth(b"super:test").id, "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    assert_eq!(digest_auth(b"noc").id.split(':').next(), Some("noc"));
    assert_eq!(user_name(&digest_auth(b"bob:pw")), "bob");
    assert_eq!(user_name(&Id::new("ip", "127.0.0.1")), "127.0.0.1");
}

#[test]
fn malformed_lists_are_refused() {
    let bad: &[&[(i32, &str, &str)]] = &[
        &[],
        &[(31, "world", "someone")],
        &[(31, "nonsense", "x")],
        &[(31, "super", "")],
        &[(31, "digest", "nocolon")],
        &[(31, "digest", "user:")],
        &[(31, "digest", "a:b:c")],
        &[(31, "ip", "localhost")],
        &[(31, "ip", "1.2.3")],
        &[(31, "ip", "1.2.3.256")],
        &[(31, "ip", "1.2.3.4/33")],
        &[(31, "ip", "1.2.3.4/")],
        &[(31, "ip", "::/129")],
        &[(31, "ip", "1::2::3")],
        &[(31, "sasl", "user")],
        &[(31, "x509", "CN=x")],
        &[(31, "world", "anyone"), (31, "digest", "x")],
        &[(31, "auth", "")],
    ];
    for acl in bad {
        assert_eq!(stored(acl, vec![Id::new("ip", "127.0.0.1")]), Err(ErrorCode::INVALID_ACL), "{acl:?}");
    }
}

#[test]
fn well_formed_lists_are_stored_without_duplicates() {
    let acl = [
        (1, "world", "anyone"),
        (2, "digest", "user:hash"),
        (2, "digest", "user:hash"),
        (3, "digest", "a:b:"),
        (4, "ip", "10.0.0.0/8"),
        (5, "ip", "fe80::1/64"),
        (1, "world", "anyone"),
    ];
    let kept: Vec<Acl> = [0, 1, 3, 4, 5].map(|i: usize| Acl::new(acl[i].0, acl[i].1, acl[i].2)).to_vec();
    assert_eq!(stored(&acl, vec![]), Ok(kept));
}

#[test]
fn auth_entries_become_all_authenticated_identities_of_the_connection() {
    let auth = vec![Id::new("ip", "127.0.0.1"), user("a"), user("b"), Id::new("super", "")];
    let expected = [user("a"), user("b")].map(|id| Acl { perms: 7, id }).to_vec();
    assert_eq!(stored(&[(7, "auth", "ignored")], auth), Ok(expected));
}

#[test]
fn schemes_let_in_whom_they_name() {
    let table = [
        ("world", "anyone", "ip", "1.2.3.4", true),
        ("digest", "u:h", "digest", "u:h", true),
        ("digest", "u:h", "digest", "u:H", false),
        ("digest", "u:h", "sasl", "u:h", false),
        ("ip", "10.1.2.3", "ip", "10.1.2.3", true),
        ("ip", "10.1.2.3", "ip", "10.1.2.4", false),
        ("ip", "10.0.0.0/8", "ip", "10.200.0.1", true),
        ("ip", "10.0.0.0/8", "ip", "11.0.0.1", false),
        ("ip", "10.128.0.0/9", "ip", "10.200.0.1", true),
        ("ip", "10.128.0.0/9", "ip", "10.100.0.1", false),
        ("ip", "0.0.0.0/0", "ip", "99.1.1.1", true),
        ("ip", "0.0.0.0/0", "ip", "::1", false),
        ("ip", "fe80::/10", "ip", "fe80:0:0:0:0:0:0:1", true),
        ("ip", "fe80::/10", "ip", "ff80::1", false),
        ("sasl", "alice", "sasl", "alice", true),
        ("sasl", "alice", "sasl", "super", true),
        ("x509", "CN=a", "x509", "CN=a", true),
        ("x509", "CN=a", "x509", "CN=b", false),
        ("digest", "u:h", "super", "", true),
    ];
    for (scheme, id, auth_scheme, auth_id, expected) in table {
        let acl = [Acl::new(perms::READ, scheme, id)];
        let auth = [Id::new(auth_scheme, auth_id)];
        assert_eq!(allowed(&acl, perms::READ, &auth), expected, "{scheme}:{id} for {auth_scheme}:{auth_id}");
        assert!(auth_scheme == "super" || !allowed(&acl, perms::WRITE, &auth));
    }
    assert!(allowed(&[], perms::ADMIN, &[]), "an empty list allows everything");
}

#[test]
fn readers_see_a_list_without_password_digests_and_administrators_see_all() {
    let acl = vec![
        Acl { perms: perms::ADMIN, id: user("boss") },
        Acl::new(perms::READ, "world", "anyone"),
        Acl::new(perms::READ, "ip", "fe80::1"),
    ];
    let mut world = World::new();
    world.run(create_acl("/x", CreateMode::Persistent, acl.clone())).unwrap();
    let as_seen = |auth: &[Id]| world.state.get_acl("/x", auth).unwrap().acl;
    assert_eq!(as_seen(&[user("boss")]), acl);
    let shown = as_seen(&[]);
    assert_eq!(shown[0], Acl::new(perms::ADMIN, "digest", "boss:x"));
    assert_eq!(shown[1..], acl[1..]);
    assert_eq!(redacted(&acl), shown);
}

#[test]
fn reading_a_list_needs_read_or_admin() {
    let mut world = World::new();
    world.run(create_acl("/w", CreateMode::Persistent, world_may(perms::WRITE))).unwrap();
    assert_eq!(world.state.get_acl("/w", &[]), Err(ErrorCode::NO_AUTH));
    assert!(world.state.get_acl("/w", &super_user()).is_ok());
}

#[test]
fn sasl_and_x509_lists_are_accepted_once_a_command_has_said_so() {
    let mut world = World::new();
    world.make(&["/n"]);
    let sasl = |id| set_acl("/n", vec![Acl::new(31, "sasl", id)]);
    assert_eq!(world.run(sasl("alice")), Err(ErrorCode::INVALID_ACL));
    let settings = Op::Configure(Settings { sasl: true, x509: true });
    world.apply(&world.command(SessionId::NONE, 0, settings)).unwrap();
    world.auth = super_user();
    assert!(world.run(sasl("alice")).is_ok());
    assert!(world.run(sasl("zk/host@REALM")).is_ok());
    assert_eq!(world.run(sasl("a/b/c@REALM")), Err(ErrorCode::INVALID_ACL));
    assert!(world.run(set_acl("/n", vec![Acl::new(31, "x509", "CN=a")])).is_ok());
}
