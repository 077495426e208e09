//! Round trips of every record, the bytes seen on the wire of a real ZooKeeper 3.9, and totality of the decoders.

use proptest::prelude::*;

use crate::*;

type AclParts = (i32, Option<String>, Option<String>);

/// Parts from which one record of each kind is made.
#[derive(Debug, Clone)]
struct Parts {
    path: Option<String>,
    data: Option<Vec<u8>>,
    acl: Option<Vec<AclParts>>,
    names: Vec<String>,
    number: i32,
    long: i64,
    flag: bool,
}

fn parts() -> impl Strategy<Value = Parts> {
    let acl = prop::collection::vec((any::<i32>(), any::<Option<String>>(), any::<Option<String>>()), 0..4);
    (
        any::<Option<String>>(),
        any::<Option<Vec<u8>>>(),
        prop::option::of(acl),
        prop::collection::vec(any::<String>(), 0..5),
        any::<i32>(),
        any::<i64>(),
        any::<bool>(),
    )
        .prop_map(|(path, data, acl, names, number, long, flag)| Parts {
            path,
            data,
            acl,
            names,
            number,
            long,
            flag,
        })
}

impl Parts {
    fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    fn acl(&self) -> Option<Vec<AclRef<'_>>> {
        self.acl.as_ref().map(|list| {
            list.iter()
                .map(|(perms, scheme, id)| AclRef {
                    perms: *perms,
                    scheme: scheme.as_deref(),
                    id: id.as_deref(),
                })
                .collect()
        })
    }

    fn stat(&self) -> Stat {
        Stat { czxid: self.long, version: self.number, data_length: 7, pzxid: !self.long, ..Stat::default() }
    }

    fn create(&self) -> Create<'_> {
        Create { path: self.path(), data: self.data(), acl: self.acl(), flags: self.number }
    }

    fn path_version(&self) -> PathVersion<'_> {
        PathVersion { path: self.path(), version: self.number }
    }

    fn path_watch(&self) -> PathWatch<'_> {
        PathWatch { path: self.path(), watch: self.flag }
    }

    fn set_data(&self) -> SetData<'_> {
        SetData { path: self.path(), data: self.data(), version: self.number }
    }

    fn set_watches(&self) -> SetWatches<'_> {
        let (data, exist, child) = (self.names(), Vec::new(), self.names());
        SetWatches { relative_zxid: self.long, data, exist, child, ..SetWatches::default() }
    }

    fn writes(&self) -> Vec<MultiOp<'_>> {
        vec![
            MultiOp::Create(self.create()),
            MultiOp::Create2(self.create()),
            MultiOp::CreateContainer(self.create()),
            MultiOp::CreateTtl(CreateTtl { create: self.create(), ttl_ms: self.long }),
            MultiOp::Delete(self.path_version()),
            MultiOp::SetData(self.set_data()),
            MultiOp::Check(self.path_version()),
        ]
    }

    fn requests(&self) -> Vec<Request<'_>> {
        let watches2 =
            SetWatches { persistent: self.names(), persistent_recursive: self.names(), ..self.set_watches() };
        let strings = (self.path(), Some("leaving"), None);
        vec![
            Request::Create(self.create()),
            Request::Create2(self.create()),
            Request::CreateContainer(self.create()),
            Request::CreateTtl(CreateTtl { create: self.create(), ttl_ms: self.long }),
            Request::Delete(self.path_version()),
            Request::DeleteContainer(self.path()),
            Request::Exists(self.path_watch()),
            Request::GetData(self.path_watch()),
            Request::SetData(self.set_data()),
            Request::GetAcl(self.path()),
            Request::SetAcl(SetAcl { path: self.path(), acl: self.acl(), version: self.number }),
            Request::GetChildren(self.path_watch()),
            Request::GetChildren2(self.path_watch()),
            Request::Sync(self.path()),
            Request::Ping,
            Request::Check(self.path_version()),
            Request::Multi(self.writes()),
            Request::Multi(Vec::new()),
            Request::MultiRead(vec![
                MultiOp::GetChildren(self.path_watch()),
                MultiOp::GetData(self.path_watch()),
            ]),
            Request::Reconfig(Reconfig {
                joining: strings.0,
                leaving: strings.1,
                new_members: strings.2,
                config_id: self.long,
            }),
            Request::CheckWatches(self.path(), self.number),
            Request::RemoveWatches(self.path(), self.number),
            Request::Auth(Auth { kind: self.number, scheme: self.path(), auth: self.data() }),
            Request::SetWatches(self.set_watches()),
            Request::SetWatches2(watches2),
            Request::Sasl(self.data()),
            Request::GetEphemerals(self.path()),
            Request::GetAllChildrenNumber(self.path()),
            Request::AddWatch(self.path(), self.number),
            Request::WhoAmI,
            Request::CloseSession,
        ]
    }

    fn responses(&self) -> Vec<(OpCode, Response<'_>)> {
        let (path, stat) = (self.path().unwrap_or_default(), self.stat());
        let results = vec![
            MultiResult::Create { path },
            MultiResult::Create2 { path, stat },
            MultiResult::Delete,
            MultiResult::SetData(stat),
            MultiResult::Check,
            MultiResult::Children(self.names()),
            MultiResult::Data { data: self.data(), stat },
            MultiResult::Error(ErrorCode(self.number)),
        ];
        let acl = self.acl().unwrap_or_default();
        let infos = vec![ClientInfo { scheme: "ip", user: path }];
        vec![
            (OpCode::Delete, Response::Empty),
            (OpCode::Create, Response::Path(self.path())),
            (OpCode::Create2, Response::Created { path, stat }),
            (OpCode::Exists, Response::Stat(stat)),
            (OpCode::GetData, Response::Data { data: self.data(), stat }),
            (OpCode::GetChildren, Response::Names(self.names())),
            (OpCode::GetChildren2, Response::Children { names: self.names(), stat }),
            (OpCode::GetAcl, Response::Acl { acl, stat }),
            (OpCode::Multi, Response::Multi(results)),
            (OpCode::GetAllChildrenNumber, Response::Number(self.number)),
            (OpCode::AddWatch, Response::Watch(ErrorCode::OK)),
            (OpCode::WhoAmI, Response::WhoAmI(infos)),
            (OpCode::Sasl, Response::Token(self.data())),
        ]
    }
}

proptest! {
    #[test]
    fn every_request_reads_back_as_written(parts in parts()) {
        for request in parts.requests() {
            let mut bytes = Vec::new();
            request.encode_message(parts.number, &mut bytes);
            let mut r = Reader::new(&bytes);
            let header = RequestHeader::decode(&mut r).unwrap();
            prop_assert_eq!(header, RequestHeader { xid: parts.number, op: request.op().as_i32() });
            prop_assert_eq!(Request::decode(header.op, r.rest()), Ok(request));
        }
    }

    #[test]
    fn every_response_reads_back_as_written(parts in parts()) {
        for (op, response) in parts.responses() {
            let mut bytes = Vec::new();
            response.encode_message(7, parts.long, &mut bytes);
            let mut r = Reader::new(&bytes);
            let header = ReplyHeader::decode(&mut r).unwrap();
            prop_assert_eq!(header, ReplyHeader { xid: 7, zxid: parts.long, err: ErrorCode::OK });
            prop_assert_eq!(Response::decode(op, r.rest()), Ok(response));
        }
    }

    #[test]
    fn the_handshake_reads_back_as_written(parts in parts(), read_only in any::<Option<bool>>()) {
        let request = ConnectRequest {
            protocol_version: PROTOCOL_VERSION,
            last_zxid_seen: parts.long,
            timeout_ms: parts.number,
            session_id: !parts.long,
            password: parts.data(),
            read_only,
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        prop_assert_eq!(ConnectRequest::decode(&bytes), Ok(request));
        let response = ConnectResponse {
            protocol_version: PROTOCOL_VERSION,
            timeout_ms: parts.number,
            session_id: parts.long,
            password: parts.data(),
            read_only,
        };
        bytes.clear();
        response.encode(&mut bytes);
        prop_assert_eq!(ConnectResponse::decode(&bytes), Ok(response));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for op in OpCode::ALL {
            if let Ok(request) = Request::decode(op.as_i32(), &bytes) {
                let mut again = Vec::new();
                request.encode(&mut again);
                prop_assert_eq!(Request::decode(op.as_i32(), &again), Ok(request));
            }
            let _ = Response::decode(*op, &bytes);
        }
        let _ = (ConnectRequest::decode(&bytes), ConnectResponse::decode(&bytes));
        let _ = WatcherEvent::decode(&mut Reader::new(&bytes));
    }

    #[test]
    fn a_damaged_request_decodes_or_is_refused(
        parts in parts(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        for request in parts.requests() {
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Request::decode(request.op().as_i32(), &bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = Request::decode(request.op().as_i32(), &bytes);
        }
    }
}

#[test]
fn a_reply_to_a_client_without_the_read_only_byte_lacks_it_too() {
    let answer = |read_only| {
        let mut bytes = Vec::new();
        framed(&mut bytes, |out| ConnectResponse::expired(read_only).encode(out));
        bytes
    };
    assert_eq!(answer(None).len(), 36 + 4);
    assert_eq!(answer(Some(false)).len(), 37 + 4);
    assert_eq!(answer(None)[..4], 36_i32.to_be_bytes());
}

#[test]
fn null_and_empty_are_distinct() {
    let body = |data: Option<&[u8]>| {
        let mut bytes = Vec::new();
        Response::Data { data, stat: Stat::default() }.encode(&mut bytes);
        bytes
    };
    assert_eq!(body(None)[..4], (-1_i32).to_be_bytes());
    assert_eq!(body(Some(b""))[..4], 0_i32.to_be_bytes());
    assert_eq!(body(None).len(), 4 + Stat::LEN);
}

#[test]
fn a_failed_multi_has_the_bytes_of_zookeeper() {
    let results =
        [ErrorCode::OK, ErrorCode::NODE_EXISTS, ErrorCode::RUNTIME_INCONSISTENCY].map(MultiResult::Error);
    let mut bytes = Vec::new();
    Response::Multi(results.to_vec()).encode(&mut bytes);
    assert_eq!(
        hex(&bytes),
        "ffffffff 00 00000000 00000000 \
         ffffffff 00 ffffff92 ffffff92 \
         ffffffff 00 fffffffe fffffffe \
         ffffffff 01 ffffffff"
            .replace(' ', "")
    );
}

#[test]
fn an_empty_multi_is_the_end_marker_alone() {
    let mut bytes = Vec::new();
    Response::Multi(Vec::new()).encode(&mut bytes);
    assert_eq!(hex(&bytes), "ffffffff01ffffffff");
}

#[test]
fn a_successful_multi_has_a_header_before_each_result() {
    let mut bytes = Vec::new();
    let results = vec![MultiResult::Create { path: "/a" }, MultiResult::Delete, MultiResult::Check];
    Response::Multi(results).encode(&mut bytes);
    assert_eq!(
        hex(&bytes),
        "00000001 00 00000000 000000022f61 \
         00000002 00 00000000 \
         0000000d 00 00000000 \
         ffffffff 01 ffffffff"
            .replace(' ', "")
    );
}

#[test]
fn the_reply_to_add_watch_has_four_zero_bytes() {
    let mut bytes = Vec::new();
    Response::Watch(ErrorCode::OK).encode(&mut bytes);
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn an_event_is_a_reply_with_xid_minus_one() {
    let mut bytes = Vec::new();
    WatcherEvent::new(EventType::NodeChildrenChanged, "/a").encode_message(0x1_0000_0002, &mut bytes);
    assert_eq!(
        hex(&bytes),
        "ffffffff 0000000100000002 00000000 00000004 00000003 000000022f61".replace(' ', "")
    );
}

#[test]
fn a_multi_cannot_mix_reads_and_writes_nor_hold_other_operations() {
    let mut bytes = Vec::new();
    let write = MultiOp::Delete(PathVersion { path: Some("/a"), version: -1 });
    let read = MultiOp::GetData(PathWatch { path: Some("/a"), watch: false });
    encode_multi(&[write, read], &mut bytes);
    assert_eq!(Request::decode(14, &bytes), Err(DecodeError::MixedMulti));
    assert_eq!(Request::decode(14, b"\0\0\0\x07\0\0\0\0\0"), Err(DecodeError::MultiOp(7)));
}

#[test]
fn errors_name_the_field_at_fault() {
    let decode = |op: OpCode, bytes: &[u8]| Request::decode(op.as_i32(), bytes).unwrap_err().to_string();
    assert_eq!(decode(OpCode::Delete, b"\0\0\0\x02/a\0"), "record ends inside `version`");
    assert_eq!(decode(OpCode::Delete, b"\x7f\xff\xff\xff/a"), "length 2147483647 of `path` is not possible");
    assert_eq!(decode(OpCode::Delete, b"\xff\xff\xff\xfe"), "length -2 of `path` is not possible");
    assert_eq!(decode(OpCode::GetAcl, b"\0\0\0\x01\xff"), "`path` is not UTF-8");
    assert_eq!(Request::decode(99, b"").unwrap_err(), DecodeError::UnknownOp(99));
}

#[test]
fn a_count_larger_than_the_frame_is_refused_before_anything_is_allocated() {
    let bytes = [&0_i64.to_be_bytes()[..], &i32::MAX.to_be_bytes()].concat();
    let refused = Request::decode(OpCode::SetWatches.as_i32(), &bytes);
    assert_eq!(refused, Err(DecodeError::Length { field: "dataWatches", len: i32::MAX }));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
