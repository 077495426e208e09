//! Between the record's requests and answers and those of the wire.

use anyhow::Context;
use pharos_history::{Body, Request, View, Write};
use pharos_jute::{
    AclRef, AddWatchMode, Create, ErrorCode, MultiOp, MultiResult, OpCode, PathVersion, PathWatch, Response,
    SetData, SetWatches,
};

/// The request as it goes on the wire.
pub(super) fn request(asked: &Request) -> pharos_jute::Request<'_> {
    match asked {
        Request::Write(write) => match multi_op(write) {
            MultiOp::Create2(create) => pharos_jute::Request::Create2(create),
            MultiOp::Delete(delete) => pharos_jute::Request::Delete(delete),
            MultiOp::SetData(set) => pharos_jute::Request::SetData(set),
            other => pharos_jute::Request::Multi(vec![other]),
        },
        Request::Multi(writes) => pharos_jute::Request::Multi(writes.iter().map(multi_op).collect()),
        Request::Close => pharos_jute::Request::CloseSession,
        Request::Read { view, path, watch } => {
            let read = PathWatch { path: Some(path), watch: *watch };
            match view {
                View::Data => pharos_jute::Request::GetData(read),
                View::Stat => pharos_jute::Request::Exists(read),
                View::Children => pharos_jute::Request::GetChildren2(read),
            }
        }
        Request::AddWatch { path, recursive } => {
            let mode = if *recursive { AddWatchMode::PersistentRecursive } else { AddWatchMode::Persistent };
            pharos_jute::Request::AddWatch(Some(path), mode.as_i32())
        }
        Request::SetWatches(lists) => pharos_jute::Request::SetWatches2(SetWatches {
            relative_zxid: lists.since,
            data: names(&lists.data),
            exist: names(&lists.exist),
            child: names(&lists.child),
            persistent: names(&lists.persistent),
            persistent_recursive: names(&lists.recursive),
        }),
        Request::Sync => pharos_jute::Request::Sync(Some("/")),
        Request::Ping => pharos_jute::Request::Ping,
    }
}

fn names(paths: &[String]) -> Vec<&str> {
    paths.iter().map(String::as_str).collect()
}

fn multi_op(write: &Write) -> MultiOp<'_> {
    match write {
        Write::Create { path, data, ephemeral, sequential } => {
            let acl =
                vec![AclRef { perms: pharos_jute::perms::ALL, scheme: Some("world"), id: Some("anyone") }];
            let flags = i32::from(*ephemeral) + 2 * i32::from(*sequential);
            MultiOp::Create2(Create { path: Some(path), data: Some(data), acl: Some(acl), flags })
        }
        Write::Delete { path, version } => {
            MultiOp::Delete(PathVersion { path: Some(path), version: *version })
        }
        Write::SetData { path, data, version } => {
            MultiOp::SetData(SetData { path: Some(path), data: Some(data), version: *version })
        }
        Write::Check { path, version } => MultiOp::Check(PathVersion { path: Some(path), version: *version }),
    }
}

/// The answer to a request, as the record keeps it.
pub(super) fn answer(
    asked: &Request,
    err: ErrorCode,
    body: &[u8],
) -> anyhow::Result<Result<Body, ErrorCode>> {
    if !err.is_ok() {
        return Ok(Err(err));
    }
    let op: OpCode = request(asked).op();
    let response =
        Response::decode(op, body).with_context(|| format!("cannot read the answer to {asked:?}"))?;
    Ok(Ok(match response {
        Response::Created { path, stat } => Body::Created(path.to_owned(), stat),
        Response::Stat(stat) => Body::Stat(stat),
        Response::Data { data, stat } => Body::Data(data.unwrap_or_default().to_vec(), stat),
        Response::Children { names, stat } => {
            let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            names.sort_unstable();
            Body::Children(names, stat)
        }
        Response::Multi(results) => Body::Multi(results.into_iter().map(result).collect()),
        _ => Body::Empty,
    }))
}

fn result(of_one: MultiResult<'_>) -> Result<Body, ErrorCode> {
    match of_one {
        MultiResult::Create2 { path, stat } => Ok(Body::Created(path.to_owned(), stat)),
        MultiResult::SetData(stat) => Ok(Body::Stat(stat)),
        MultiResult::Error(code) => Err(code),
        _ => Ok(Body::Empty),
    }
}
