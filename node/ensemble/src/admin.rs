//! The HTTP side: liveness, readiness, identity, status, metrics, and commands.
//!
//! Owns the routes and the thread they run in. Must not know the reactor's insides: it reads the board and
//! sends commands.
//!
//! Invariant: nothing here is awaited by the reactor; a command needs the token.

use crate::backup::{self, Copies};
use crate::command::{Ask, Command, Commands, Reply};
use crate::metrics;
use crate::permit::HexId;
use crate::state_store::open_rocks;
use crate::status::{Board, LevelRange, Snapshot};
use crate::words::Settings;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures::stream;
use pharos_paxos::{ConfigNo, MemberId};
use pharos_replica::{Change, Levels, Member};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How long a command may take to be answered.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the store may take to flush, and to be copied.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);
/// Parts of a backup that wait to be taken.
const PARTS_AHEAD: usize = 2;
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoints need.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) board: Arc<Board>,
    pub(crate) commands: Commands,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) client_port: u16,
    pub(crate) data_dir: String,
    pub(crate) copies: Copies,
    pub(crate) tick_ms: u32,
    pub(crate) max_per_ip: u32,
    pub(crate) max_descriptors: Option<u64>,
}

impl Context {
    /// The settings that four-letter words and metrics show.
    pub(crate) fn settings(&self) -> Settings<'_> {
        Settings {
            client_port: self.client_port,
            data_dir: &self.data_dir,
            tick_ms: self.tick_ms,
            max_per_ip: self.max_per_ip,
            uptime_ms: u64::try_from(self.board.uptime().as_millis()).unwrap_or(u64::MAX),
            open_descriptors: crate::os::open_descriptors(),
            max_descriptors: self.max_descriptors,
        }
    }
}

/// The admin thread. It ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Serves the endpoints on the first listener, and the metrics alone on the second.
    pub(crate) fn start(
        context: Arc<Context>,
        admin: TcpListener,
        metrics: Option<TcpListener>,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("pharos-admin".to_owned()).spawn(move || {
            let served = runtime.block_on(serve(context, admin, metrics, stopped));
            if let Err(error) = served {
                tracing::error!(%error, "the admin server ended");
            }
            runtime.shutdown_timeout(Duration::from_millis(50));
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

async fn serve(
    context: Arc<Context>,
    admin: TcpListener,
    metrics: Option<TcpListener>,
    mut stopped: watch::Receiver<()>,
) -> io::Result<()> {
    if let Some(metrics) = metrics {
        let metrics = tokio::net::TcpListener::from_std(metrics)?;
        let router = Router::new().route("/metrics", get(show_metrics)).with_state(Arc::clone(&context));
        tokio::spawn(async move { axum::serve(metrics, router).await });
    }
    let admin = tokio::net::TcpListener::from_std(admin)?;
    tokio::select! {
        served = axum::serve(admin, routes(context)).into_future() => served,
        _ = stopped.changed() => Ok(()),
    }
}

fn routes(context: Arc<Context>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .route("/v1/identity", get(identity))
        .route("/v1/status", get(status))
        .route("/v1/transfer", post(transfer))
        .route("/v1/members", post(add_member))
        .route("/v1/members/{id}", delete(remove_member))
        .route("/v1/voters", post(change_voters))
        .route("/v1/backup", get(backup))
        .with_state(context)
}

async fn livez(State(context): State<Arc<Context>>) -> (StatusCode, &'static str) {
    if context.board.is_live() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the reactor has made no turn for 5 s\n")
    }
}

async fn readyz(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    let now = context.board.read();
    if now.status.serving {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why_not_ready(&now)))
    }
}

fn why_not_ready(now: &Snapshot) -> String {
    use crate::status::RoleName;
    match now.status.role {
        RoleName::Blank => {
            format!("waiting for a permit that names the volume {}", now.identity.volume.0)
        }
        RoleName::Founding => "reading the log".to_owned(),
        RoleName::Joining => "waiting for the state of the ensemble that it joins".to_owned(),
        RoleName::Removed => "this member was removed from the ensemble".to_owned(),
        RoleName::Candidate => "no leader with a quorum".to_owned(),
        RoleName::Learner | RoleName::Follower | RoleName::Leader => "catching up".to_owned(),
    }
}

async fn show_metrics(State(context): State<Arc<Context>>) -> Response {
    let page = metrics::render(&context.board.read(), &context.settings());
    ([(header::CONTENT_TYPE, PROMETHEUS)], page).into_response()
}

async fn identity(State(context): State<Arc<Context>>) -> Response {
    json(StatusCode::OK, &context.board.read().identity)
}

async fn status(State(context): State<Arc<Context>>) -> Response {
    json(StatusCode::OK, &context.board.read().status)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferRequest {
    to: u32,
}

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewMember {
    volume: HexId,
    host: String,
    peer_port: u16,
    client_port: u16,
    /// What its identity says; whoever does not know of levels does not pass it on.
    feature_levels: Option<LevelRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVoters {
    voters: Vec<u32>,
    config: u32,
}

async fn transfer(State(context): State<Arc<Context>>, headers: HeaderMap, body: Bytes) -> Response {
    let ask = |request: TransferRequest| Ask::Transfer(MemberId(request.to));
    carry_out(&context, &headers, parse(&body).map(ask), StatusCode::OK).await
}

async fn add_member(State(context): State<Arc<Context>>, headers: HeaderMap, body: Bytes) -> Response {
    let ask = |NewMember { volume, host, peer_port, client_port, feature_levels }| {
        let id = MemberId(0);
        let change = Change::Add(Member { id, volume: volume.0.0, host, peer_port, client_port });
        Ask::Members { change, levels: feature_levels.map(Levels::from) }
    };
    carry_out(&context, &headers, parse(&body).map(ask), StatusCode::ACCEPTED).await
}

async fn remove_member(
    State(context): State<Arc<Context>>,
    UrlPath(id): UrlPath<u32>,
    headers: HeaderMap,
) -> Response {
    let ask = Ask::Members { change: Change::Remove(MemberId(id)), levels: None };
    carry_out(&context, &headers, Ok(ask), StatusCode::ACCEPTED).await
}

async fn change_voters(State(context): State<Arc<Context>>, headers: HeaderMap, body: Bytes) -> Response {
    let ask = |NewVoters { voters, config }| Ask::Voters {
        config: ConfigNo(config),
        voters: voters.into_iter().map(MemberId).collect(),
    };
    carry_out(&context, &headers, parse(&body).map(ask), StatusCode::ACCEPTED).await
}

/// The state as a stream of rows, with all that was applied here before.
async fn backup(State(context): State<Arc<Context>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorize(context.token_file.as_deref(), &headers) {
        return refused(refusal);
    }
    let now = context.board.read();
    let (true, Some(cluster), Some(generation)) =
        (now.status.serving, now.identity.cluster_id, now.identity.generation)
    else {
        return failed(StatusCode::CONFLICT, "this member does not serve".to_owned());
    };
    let copy = context.copies.next();
    let (reply, answer) = oneshot::channel();
    context.commands.send(Command::Copy { dir: copy.0.clone(), reply });
    let slot = match tokio::time::timeout(COPY_TIMEOUT, answer).await {
        Ok(Ok(Ok(slot))) => slot,
        Ok(Ok(Err(why))) => return failed(StatusCode::INTERNAL_SERVER_ERROR, why),
        Ok(Err(_)) => return failed(StatusCode::CONFLICT, "this member does not run any more".to_owned()),
        Err(_) => return failed(StatusCode::GATEWAY_TIMEOUT, "the store was not flushed in time".to_owned()),
    };
    let (sender, mut receiver) = mpsc::channel(PARTS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let of = (HexId(cluster.0), generation, slot);
        if let Err(error) = backup::stream(open_rocks, &copy, of, &sender) {
            tracing::warn!(%error, "a backup ends early");
        }
    });
    let parts = stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|part| part.map(Ok::<_, Infallible>)));
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(parts)).into_response()
}

fn parse<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// A command of someone who has the token.
async fn carry_out(
    context: &Context,
    headers: &HeaderMap,
    ask: Result<Ask, serde_json::Error>,
    done: StatusCode,
) -> Response {
    if let Err(refusal) = authorize(context.token_file.as_deref(), headers) {
        return refused(refusal);
    }
    let ask = match ask {
        Ok(ask) => ask,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let (reply, answer) = oneshot::channel();
    context.commands.send(Command::Ask { ask, reply });
    match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
        Ok(Ok(Reply::Started)) => json(done, &Answer { error: None }),
        Ok(Ok(Reply::Refused(why))) => failed(StatusCode::CONFLICT, why),
        Ok(Err(_)) => failed(StatusCode::CONFLICT, "this member does not run yet or not any more".to_owned()),
        Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "the reactor did not answer within 2 s".to_owned()),
    }
}

/// Why a command is not carried out.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    NoToken,
    WrongToken,
    NotConfigured,
}

/// The file is read each time, so that a rotated secret holds at once.
fn authorize(token_file: Option<&Path>, headers: &HeaderMap) -> Result<(), Denied> {
    let token = token_file.and_then(read_token).ok_or(Denied::NotConfigured)?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Denied::NoToken)?;
    if same(given.trim(), &token) { Ok(()) } else { Err(Denied::WrongToken) }
}

/// The token without the white space around it; none if the file is not there or empty.
pub(crate) fn read_token(path: &Path) -> Option<String> {
    let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// Takes the same time wherever the two differ.
fn same(left: &str, right: &str) -> bool {
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0, |differs, (l, r)| differs | (l ^ r)) == 0
}

fn refused(denied: Denied) -> Response {
    let (code, why) = match denied {
        Denied::NoToken => (StatusCode::UNAUTHORIZED, "this needs `Authorization: Bearer <admin token>`"),
        Denied::WrongToken => (StatusCode::FORBIDDEN, "wrong admin token"),
        Denied::NotConfigured => (StatusCode::FORBIDDEN, "this member has no admin token"),
    };
    let mut response = failed(code, why.to_owned());
    if code == StatusCode::UNAUTHORIZED {
        let bearer = header::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

fn failed(code: StatusCode, error: String) -> Response {
    json(code, &Answer { error: Some(error) })
}

fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (code, [(header::CONTENT_TYPE, JSON)], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn headers(authorization: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_command_needs_the_token_that_is_in_the_file_now() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"secret\n").unwrap();
        let path = Some(file.path());
        assert_eq!(authorize(path, &headers(Some("Bearer secret"))), Ok(()));
        assert_eq!(authorize(path, &headers(Some("Bearer secrets"))), Err(Denied::WrongToken));
        assert_eq!(authorize(path, &headers(Some("Bearer "))), Err(Denied::WrongToken));
        assert_eq!(authorize(path, &headers(Some("Basic secret"))), Err(Denied::NoToken));
        assert_eq!(authorize(path, &headers(None)), Err(Denied::NoToken));
        std::fs::write(file.path(), b"rotated").unwrap();
        assert_eq!(authorize(path, &headers(Some("Bearer secret"))), Err(Denied::WrongToken));
    }

    #[test]
    fn without_a_token_file_or_with_an_empty_one_no_command_is_carried_out() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let anyone = headers(Some("Bearer "));
        assert_eq!(authorize(None, &anyone), Err(Denied::NotConfigured));
        assert_eq!(authorize(Some(empty.path()), &anyone), Err(Denied::NotConfigured));
        assert_eq!(authorize(Some(Path::new("/no/such/file")), &anyone), Err(Denied::NotConfigured));
    }
}
