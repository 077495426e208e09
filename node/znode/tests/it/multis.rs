//! Multi: all or none, one zxid and time for all.

use pharos_jute::{
    Create, CreateTtl, MultiOp, MultiResult, OpCode, PathVersion, PathWatch, Request, Response,
};
use pharos_znode::{Command, CreateMode, ErrorCode, Level, MultiTranscoder, Op, Reply, SessionId, Stat};

use crate::world::{
    T0, World, check, create, create_acl, create_data, create_mode, delete, open, set, set_acl,
};

#[test]
fn operations_see_those_before_them_and_share_zxid_and_time() {
    let mut world = World::new();
    let ops = vec![
        create("/a"),
        create_data("/a/b", Some(b"1")),
        create_mode("/a/s", CreateMode::PersistentSequential),
        create_mode("/a/s", CreateMode::PersistentSequential),
        set("/a/b", b"22", 0),
        check("/a/b", 1),
        delete("/a/s0000000001"),
    ];
    world.run(Op::Multi(ops)).unwrap();
    let zxid = world.out.zxid.0;
    assert_eq!(world.children("/a"), ["b", "s0000000002"]);
    let b = Stat {
        czxid: zxid,
        mzxid: zxid,
        pzxid: zxid,
        ctime: T0,
        mtime: T0,
        data_length: 1,
        ..Stat::default()
    };
    let expected = Response::Multi(vec![
        MultiResult::Create { path: "/a" },
        MultiResult::Create2 { path: "/a/b", stat: b },
        MultiResult::Create { path: "/a/s0000000001" },
        MultiResult::Create { path: "/a/s0000000002" },
        MultiResult::SetData(Stat { version: 1, data_length: 2, ..b }),
        MultiResult::Check,
        MultiResult::Delete,
    ]);
    assert_eq!(world.out.response(), Ok(expected));
    assert_eq!(world.stat("/a").cversion, 4);
}

#[test]
fn a_failure_takes_everything_back_and_says_which_operation_it_was() {
    let mut world = World::new();
    world.make(&["/a", "/a/b", "/gone"]);
    world
        .run(create_acl("/p", CreateMode::Persistent, vec![pharos_znode::Acl::new(7, "digest", "u:h")]))
        .unwrap();
    let before = world.state.clone();
    let ops = vec![
        create_mode("/e", CreateMode::Ephemeral),
        create_acl("/only", CreateMode::Persistent, vec![pharos_znode::Acl::new(1, "digest", "x:y")]),
        delete("/a/b"),
        create("/a/b"),
        set("/a/b", b"new", 0),
        delete("/gone"),
        set("/a", b"x", -1),
        create("/a/c"),
        delete("/e"),
        create("/e"),
        check("/a", 7),
        delete("/a/c"),
        create("/z"),
    ];
    let fail_at = 10;
    world.run(Op::Multi(ops.clone())).unwrap();
    assert_eq!(world.out.error(), Some(ErrorCode::BAD_VERSION));
    let results: Vec<Result<Reply, ErrorCode>> = (0..ops.len())
        .map(|i| match i {
            _ if i < fail_at => Err(ErrorCode::OK),
            _ if i == fail_at => Err(ErrorCode::BAD_VERSION),
            _ => Err(ErrorCode::RUNTIME_INCONSISTENCY),
        })
        .collect();
    assert_eq!(world.out.result, Ok(Reply::Multi(results)));
    assert_eq!(world.events(), []);
    assert_eq!(world.state.zxid(), before.zxid().next());
    for path in ["/", "/a", "/a/b", "/gone", "/p"] {
        assert_eq!(world.state.stat(path), before.stat(path), "{path}");
        assert_eq!(world.state.acl(path), before.acl(path), "{path}");
    }
    for path in ["/e", "/only", "/a/c", "/z"] {
        assert_eq!(world.state.stat(path), None, "{path}");
    }
    assert_eq!(world.state.ephemeral_count(), 0);
    world.run(create_mode("/a/s", CreateMode::PersistentSequential)).unwrap();
    assert_eq!(world.created_path(), "/a/s0000000001", "the sequence went back too");
}

#[test]
fn an_empty_multi_succeeds_with_no_results() {
    let mut world = World::new();
    assert_eq!(world.run(Op::Multi(vec![])), Ok(Reply::Multi(vec![])));
}

#[test]
fn acl_writes_and_session_commands_are_refused_in_a_multi() {
    let mut world = World::new();
    world.make(&["/a"]);
    for op in [set_acl("/a", open()), Op::CloseSession, Op::Multi(vec![])] {
        world.run(Op::Multi(vec![op])).unwrap();
        assert_eq!(world.out.error(), Some(ErrorCode::UNIMPLEMENTED));
    }
}

#[test]
fn a_multi_that_zookeeper_cannot_even_prepare_fails_as_a_whole() {
    let create_op = |flags| Create { path: Some("/x"), data: None, acl: Some(vec![]), flags };
    let null_list = Create { acl: None, ..create_op(0) };
    let whole = Some(Op::Nop { error: ErrorCode::MARSHALLING_ERROR });
    let multi = |op| Op::from_request(&Request::Multi(vec![op]), Level::NEWEST);
    assert_eq!(multi(MultiOp::GetData(PathWatch { path: Some("/"), watch: false })), whole);
    assert_eq!(multi(MultiOp::Delete(PathVersion { path: None, version: 0 })), whole);
    assert_eq!(multi(MultiOp::Create2(null_list.clone())), whole);
    assert_eq!(multi(MultiOp::CreateContainer(null_list)), whole);
    for flags in [77, 5, 6] {
        assert_eq!(multi(MultiOp::Create(create_op(flags))), whole);
        assert_eq!(multi(MultiOp::CreateContainer(create_op(flags))), whole);
    }
    let failing = Some(Op::Multi(vec![Op::Nop { error: ErrorCode::BAD_ARGUMENTS }]));
    assert_eq!(multi(MultiOp::CreateTtl(CreateTtl { create: create_op(77), ttl_ms: 0 })), failing);
}

#[test]
fn a_create_with_the_container_flag_answers_with_its_stat_in_a_multi_only() {
    let acl = vec![pharos_jute::AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    let create = Create { path: Some("/c"), data: None, acl: Some(acl), flags: 4 };
    let with_stat = |op: Option<Op>| match op {
        Some(Op::Create { with_stat, .. }) => with_stat,
        Some(Op::Multi(ops)) => matches!(ops[..], [Op::Create { with_stat: true, .. }]),
        other => panic!("{other:?}"),
    };
    assert!(!with_stat(Op::from_request(&Request::Create(create.clone()), Level::NEWEST)));
    assert!(with_stat(Op::from_request(&Request::Multi(vec![MultiOp::Create(create)]), Level::NEWEST)));
}

/// The command as it is encoded when the request is decoded at once, and in slices of so many operations.
fn both_ways(body: &[u8], slice: usize) -> (Vec<u8>, Vec<u8>) {
    let op = match Request::decode(OpCode::Multi.as_i32(), body) {
        Ok(request) => Op::from_request(&request, Level::FIRST).unwrap(),
        Err(_) => Op::from_undecodable(OpCode::Multi).unwrap(),
    };
    let (mut whole, mut sliced) = (Vec::new(), Vec::new());
    let command = Command { session: SessionId(7), cxid: 3, ..Command::of_ensemble(op) };
    command.encode(&mut whole);
    let mut multi = MultiTranscoder::new([b"header", body].concat().into(), 6, Level::FIRST);
    let op = loop {
        if let Some(op) = multi.go_on(&mut slice.clone()) {
            break op;
        }
    };
    command.encode_with(&op, &mut sliced);
    (whole, sliced)
}

#[test]
fn one_that_is_made_ready_in_slices_is_the_same_command() {
    let create = |path, flags| Create { path, data: Some(b"data"), acl: Some(Vec::new()), flags };
    let node = PathVersion { path: Some("/a"), version: -1 };
    let writes = vec![
        MultiOp::Create(create(Some("/a"), 0)),
        MultiOp::Create2(create(Some("/b"), 2)),
        MultiOp::CreateContainer(create(Some("/c"), 4)),
        MultiOp::CreateTtl(CreateTtl { create: create(Some("/t"), 5), ttl_ms: 9 }),
        MultiOp::Check(node),
        MultiOp::Delete(node),
    ];
    let reads = vec![MultiOp::GetData(PathWatch { path: Some("/a"), watch: false })];
    let null =
        vec![MultiOp::Delete(node), MultiOp::Create(create(None, 0)), MultiOp::Create(create(None, 99))];
    let mixed = [writes.clone(), reads.clone()].concat();
    for ops in [Vec::new(), writes, reads, null, mixed] {
        let mut body = Vec::new();
        Request::Multi(ops).encode(&mut body);
        for slice in [1, 2, 100] {
            let check = |body: &[u8]| {
                let (whole, sliced) = both_ways(body, slice);
                assert_eq!(whole, sliced, "{body:?} in slices of {slice}");
            };
            (0..=body.len()).for_each(|len| check(&body[..len]));
            for at in 0..body.len() {
                let mut broken = body.clone();
                broken[at] ^= 0x41;
                check(&broken);
            }
        }
    }
}
