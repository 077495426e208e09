//! A history as JSON, so that an accusation can be looked at again.
//!
//! Must not know the rules. Invariant: what is read is what was written.

use anyhow::{Context, bail};
use pharos_history::{
    Answer, Body, Connection, ErrorCode, EventKind, History, Incoming, Micros, Operation, Outcome, Rearm,
    Request, Session, Stat, View, WatchEvent, Write,
};
use serde_json::{Value, json};

pub(super) fn write(history: &History) -> Value {
    json!(history.sessions.iter().map(session).collect::<Vec<_>>())
}

pub(super) fn read(value: &Value) -> anyhow::Result<History> {
    Ok(History { sessions: each(value, read_session)? })
}

fn session(session: &Session) -> Value {
    let Session { id, timeout, connections, told_expired } = session;
    json!({
        "id": id,
        "timeout": timeout.0,
        "connections": connections.iter().map(connection).collect::<Vec<_>>(),
        "expired": told_expired.map(|at| at.0),
    })
}

fn read_session(value: &Value) -> anyhow::Result<Session> {
    Ok(Session {
        id: number(&value["id"])?,
        timeout: micros(&value["timeout"])?,
        connections: each(&value["connections"], read_connection)?,
        told_expired: optional(&value["expired"], micros)?,
    })
}

fn connection(connection: &Connection) -> Value {
    let Connection { asked, opened, operations, incoming } = connection;
    json!({
        "asked": asked.0,
        "opened": opened.0,
        "operations": operations.iter().map(operation).collect::<Vec<_>>(),
        "incoming": incoming.iter().map(one_incoming).collect::<Vec<_>>(),
    })
}

fn read_connection(value: &Value) -> anyhow::Result<Connection> {
    Ok(Connection {
        asked: micros(&value["asked"])?,
        opened: micros(&value["opened"])?,
        operations: each(&value["operations"], read_operation)?,
        incoming: each(&value["incoming"], read_incoming)?,
    })
}

fn one_incoming(incoming: &Incoming) -> Value {
    match incoming {
        Incoming::Reply(index) => json!(index),
        Incoming::Event(WatchEvent { zxid, kind, path }) => json!([zxid, *kind as i32, path]),
    }
}

fn read_incoming(value: &Value) -> anyhow::Result<Incoming> {
    if value.is_u64() {
        return Ok(Incoming::Reply(number(value)?));
    }
    let kind = EventKind::from_i32(number(&value[1])?).context("an event of an unknown kind")?;
    Ok(Incoming::Event(WatchEvent { zxid: number(&value[0])?, kind, path: text(&value[2])? }))
}

fn operation(operation: &Operation) -> Value {
    let Operation { invoked, request, outcome } = operation;
    let answer = match outcome {
        Outcome::Unknown => Value::Null,
        Outcome::Answered(Answer { completed, zxid, result: answered }) => {
            json!([completed.0, zxid, result(answered)])
        }
    };
    json!([invoked.0, asked(request), answer])
}

fn read_operation(value: &Value) -> anyhow::Result<Operation> {
    let answer = |value: &Value| {
        let (completed, zxid) = (micros(&value[0])?, number(&value[1])?);
        anyhow::Ok(Answer { completed, zxid, result: read_result(&value[2])? })
    };
    let outcome = optional(&value[2], answer)?.map_or(Outcome::Unknown, Outcome::Answered);
    Ok(Operation { invoked: micros(&value[0])?, request: read_request(&value[1])?, outcome })
}

fn asked(request: &Request) -> Value {
    match request {
        Request::Write(one) => json!({ "write": one_write(one) }),
        Request::Multi(writes) => json!({ "multi": writes.iter().map(one_write).collect::<Vec<_>>() }),
        Request::Close => json!("close"),
        Request::Sync => json!("sync"),
        Request::Ping => json!("ping"),
        Request::Read { view, path, watch } => json!({ "read": [*view as u8, path, watch] }),
        Request::AddWatch { path, recursive } => json!({ "watch": [path, recursive] }),
        Request::SetWatches(Rearm { since, data, exist, child, persistent, recursive }) => {
            json!({ "rearm": [since, data, exist, child, persistent, recursive] })
        }
    }
}

fn read_request(value: &Value) -> anyhow::Result<Request> {
    if let Some(name) = value.as_str() {
        return Ok(match name {
            "close" => Request::Close,
            "sync" => Request::Sync,
            "ping" => Request::Ping,
            other => bail!("an unknown request {other}"),
        });
    }
    let (name, of) = value.as_object().and_then(|map| map.iter().next()).context("a request has a name")?;
    let texts = |index: usize| each(&of[index], text);
    Ok(match name.as_str() {
        "write" => Request::Write(read_write(of)?),
        "multi" => Request::Multi(each(of, read_write)?),
        "read" => {
            let views = [View::Data, View::Stat, View::Children];
            let view = views.into_iter().find(|view| of[0] == *view as u8).context("an unknown view")?;
            Request::Read { view, path: text(&of[1])?, watch: flag(&of[2])? }
        }
        "watch" => Request::AddWatch { path: text(&of[0])?, recursive: flag(&of[1])? },
        "rearm" => Request::SetWatches(Rearm {
            since: number(&of[0])?,
            data: texts(1)?,
            exist: texts(2)?,
            child: texts(3)?,
            persistent: texts(4)?,
            recursive: texts(5)?,
        }),
        other => bail!("an unknown request {other}"),
    })
}

fn one_write(write: &Write) -> Value {
    match write {
        Write::Create { path, data, ephemeral, sequential } => {
            json!(["create", path, hex::encode(data), ephemeral, sequential])
        }
        Write::Delete { path, version } => json!(["delete", path, version]),
        Write::SetData { path, data, version } => json!(["set", path, hex::encode(data), version]),
        Write::Check { path, version } => json!(["check", path, version]),
    }
}

fn read_write(value: &Value) -> anyhow::Result<Write> {
    let path = text(&value[1])?;
    Ok(match value[0].as_str() {
        Some("create") => Write::Create {
            path,
            data: bytes(&value[2])?,
            ephemeral: flag(&value[3])?,
            sequential: flag(&value[4])?,
        },
        Some("delete") => Write::Delete { path, version: number(&value[2])? },
        Some("set") => Write::SetData { path, data: bytes(&value[2])?, version: number(&value[3])? },
        Some("check") => Write::Check { path, version: number(&value[2])? },
        _ => bail!("an unknown write {value}"),
    })
}

fn result(result: &Result<Body, ErrorCode>) -> Value {
    match result {
        Err(code) => json!(code.0),
        Ok(Body::Empty) => Value::Null,
        Ok(Body::Created(path, of)) => json!({ "created": [path, stat(of)] }),
        Ok(Body::Stat(of)) => json!({ "stat": stat(of) }),
        Ok(Body::Data(data, of)) => json!({ "data": [hex::encode(data), stat(of)] }),
        Ok(Body::Children(names, of)) => json!({ "children": [names, stat(of)] }),
        Ok(Body::Multi(results)) => json!({ "multi": results.iter().map(self::result).collect::<Vec<_>>() }),
    }
}

fn read_result(value: &Value) -> anyhow::Result<Result<Body, ErrorCode>> {
    if value.is_null() {
        return Ok(Ok(Body::Empty));
    }
    if value.is_i64() {
        return Ok(Err(ErrorCode(number(value)?)));
    }
    let (name, of) = value.as_object().and_then(|map| map.iter().next()).context("a result has a name")?;
    Ok(Ok(match name.as_str() {
        "created" => Body::Created(text(&of[0])?, read_stat(&of[1])?),
        "stat" => Body::Stat(read_stat(of)?),
        "data" => Body::Data(bytes(&of[0])?, read_stat(&of[1])?),
        "children" => Body::Children(each(&of[0], text)?, read_stat(&of[1])?),
        "multi" => Body::Multi(each(of, read_result)?),
        other => bail!("an unknown result {other}"),
    }))
}

fn stat(stat: &Stat) -> Value {
    json!([
        stat.czxid,
        stat.mzxid,
        stat.ctime,
        stat.mtime,
        stat.version,
        stat.cversion,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children,
        stat.pzxid
    ])
}

fn read_stat(value: &Value) -> anyhow::Result<Stat> {
    Ok(Stat {
        czxid: number(&value[0])?,
        mzxid: number(&value[1])?,
        ctime: number(&value[2])?,
        mtime: number(&value[3])?,
        version: number(&value[4])?,
        cversion: number(&value[5])?,
        aversion: number(&value[6])?,
        ephemeral_owner: number(&value[7])?,
        data_length: number(&value[8])?,
        num_children: number(&value[9])?,
        pzxid: number(&value[10])?,
    })
}

fn each<T>(value: &Value, of: impl Fn(&Value) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    value.as_array().context("a list is missing")?.iter().map(of).collect()
}

fn optional<T>(value: &Value, of: impl Fn(&Value) -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    if value.is_null() { Ok(None) } else { of(value).map(Some) }
}

/// Zxids and session ids have all 64 bits.
fn number<T: TryFrom<i64>>(value: &Value) -> anyhow::Result<T> {
    value
        .as_i64()
        .and_then(|number| T::try_from(number).ok())
        .with_context(|| format!("{value} is no such number"))
}

fn micros(value: &Value) -> anyhow::Result<Micros> {
    number(value).map(Micros)
}

fn flag(value: &Value) -> anyhow::Result<bool> {
    value.as_bool().context("a flag is missing")
}

fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).context("a text is missing")
}

fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    hex::decode(text(value)?).context("data are hexadecimal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let stat = Stat {
            czxid: -1,
            mzxid: i64::MAX,
            version: 3,
            ephemeral_owner: 0x1_0000_0001,
            ..Stat::default()
        };
        let create =
            Write::Create { path: "/a".into(), data: vec![0, 255], ephemeral: true, sequential: false };
        let set = Write::SetData { path: "/b".into(), data: Vec::new(), version: -1 };
        let others =
            [Write::Delete { path: "/c".into(), version: 2 }, Write::Check { path: "/d".into(), version: 0 }];
        let multi = Request::Multi(others.into_iter().chain([set]).collect());
        let read = |view| Request::Read { view, path: "/a".into(), watch: true };
        let rearm =
            Rearm { since: 7, data: vec!["/a".into()], recursive: vec!["/".into()], ..Rearm::default() };
        let asked = vec![
            (Request::Write(create), Some(Ok(Body::Created("/a".into(), stat)))),
            (
                multi,
                Some(Ok(Body::Multi(vec![Ok(Body::Empty), Err(ErrorCode::NO_NODE), Ok(Body::Stat(stat))]))),
            ),
            (read(View::Data), Some(Ok(Body::Data(vec![1], stat)))),
            (read(View::Stat), Some(Err(ErrorCode::NO_NODE))),
            (read(View::Children), Some(Ok(Body::Children(vec!["x".into()], stat)))),
            (Request::SetWatches(rearm), Some(Ok(Body::Empty))),
            (Request::AddWatch { path: "/".into(), recursive: true }, None),
            (Request::Sync, None),
            (Request::Ping, None),
            (Request::Close, None),
        ];
        let operation = |(request, result): (Request, Option<Result<Body, ErrorCode>>)| {
            let answer = result.map(|result| Answer { completed: Micros(9), zxid: 5, result });
            let outcome = answer.map_or(Outcome::Unknown, Outcome::Answered);
            Operation { invoked: Micros(8), request, outcome }
        };
        let event = WatchEvent { zxid: -1, kind: EventKind::NodeDeleted, path: "/a".into() };
        let connection = Connection {
            asked: Micros(1),
            opened: Micros(2),
            operations: asked.into_iter().map(operation).collect(),
            incoming: vec![Incoming::Reply(0), Incoming::Event(event)],
        };
        let session = |told_expired| Session {
            id: i64::MIN,
            timeout: Micros(4),
            connections: vec![connection.clone()],
            told_expired,
        };
        let history = History { sessions: vec![session(None), session(Some(Micros(3)))] };
        let text = write(&history).to_string();
        let again = super::read(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(format!("{history:?}"), format!("{again:?}"));
    }
}
