//! Owns the client of a node's admin port: what the calls are, and their timeouts. Must not know what the answers are
//! used for.
//!
//! Invariant: a call never takes longer than its timeout, whatever the node does, and never reads more than 64 KiB.

mod member;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

pub use member::{DiskState, FeatureLevels, Identity, Membership, NodeStatus, PeerStatus, Registered, Role};

/// What a worker says about its pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// What it does.
    pub state: WorkerState,
    /// Last committed checkpoint.
    #[serde(default)]
    pub epoch: Option<i64>,
    /// Event time up to which results are complete.
    #[serde(default)]
    pub watermark: Option<String>,
    /// Rows dropped as late.
    #[serde(default)]
    pub late_dropped: Option<i64>,
    /// Windows closed.
    #[serde(default)]
    pub windows_closed: Option<i64>,
    /// What it says, for people.
    #[serde(default)]
    pub message: Option<String>,
    /// SHA-256 of the document it runs.
    #[serde(default)]
    pub document_hash: Option<String>,
    /// The run.
    #[serde(default)]
    pub run_id: Option<i64>,
    /// Whether it coordinates the run. Workers of one process a run do not say it.
    #[serde(default)]
    pub leads: bool,
    /// How many workers take part in the run now.
    #[serde(default)]
    pub workers: Option<i64>,
    /// When the last checkpoint was committed, if it saw that.
    #[serde(default)]
    pub checkpoint_at: Option<String>,
    /// The transform that holds it up.
    #[serde(default)]
    pub bottleneck: Option<WorkerBottleneck>,
    /// Its splits that are farthest behind.
    #[serde(default)]
    pub splits: Vec<WorkerSplit>,
}

/// What holds a worker up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerBottleneck {
    /// The transform.
    pub transform: String,
    /// Share of time in which it worked.
    pub busy_percent: i64,
    /// Share of time in which those before it were blocked.
    pub blocked_percent: i64,
}

/// What a worker says about a split.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSplit {
    /// Transform that reads it.
    pub transform: String,
    /// Its place among the splits of the transform.
    pub index: i64,
    /// Its file.
    pub file: String,
    /// How many of its bytes are read.
    pub offset: i64,
    /// How many bytes are left.
    #[serde(default)]
    pub bytes_left: Option<i64>,
    /// Highest event time, for people.
    #[serde(default)]
    pub event_time: Option<String>,
    /// The same in microseconds.
    #[serde(default)]
    pub event_time_micros: Option<i64>,
    /// How far that is behind the farthest split on this worker.
    #[serde(default)]
    pub lag_seconds: Option<i64>,
}

impl WorkerStatus {
    /// Whether it speaks of this run of this document.
    #[must_use]
    pub fn is_of(&self, hash: &str, run_id: i64) -> bool {
        self.document_hash.as_deref() == Some(hash) && self.run_id == Some(run_id)
    }
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It connects, compiles or restores.
    Starting,
    /// It reads and writes.
    Running,
    /// It has read its input to the end, and its output is committed.
    Completed,
    /// It cannot go on.
    Failed,
    /// It holds its state and does nothing.
    Suspended,
}

impl WorkerState {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Suspended => "suspended",
        }
    }
}

/// A volume that is to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joiner<'a> {
    /// The volume, as its member reported it.
    pub volume: &'a str,
    /// Its stable name.
    pub host: &'a str,
    /// Its port for peers.
    pub peer_port: u16,
    /// Its port for clients.
    pub client_port: u16,
    /// What it can carry out, for a leader that knows of levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_levels: Option<FeatureLevels>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The node did not answer in time.
    #[error("{url}: no answer within {} ms", timeout.as_millis())]
    Timeout {
        /// What was called.
        url: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The connection failed.
    #[error("{url}: {source}")]
    Connect {
        /// What was called.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// The exchange failed.
    #[error("{url}: {source}")]
    Exchange {
        /// What was called.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node refused.
    #[error("{url}: answered {status}: {body}")]
    Refused {
        /// What was called.
        url: String,
        /// Status code.
        status: u16,
        /// Beginning of the answer.
        body: String,
    },
}

impl AdminError {
    /// What the node said, if it understood the call and cannot do it now.
    #[must_use]
    pub fn conflict(&self) -> Option<&str> {
        match self {
            Self::Refused { status: 409, body, .. } => Some(body.trim_end()),
            _ => None,
        }
    }
}

/// Calls the admin port of nodes.
#[derive(Clone, Debug)]
pub struct AdminClient {
    port: u16,
    timeout: Duration,
}

impl AdminClient {
    /// A client for nodes whose admin port is `port`.
    #[must_use]
    pub fn new(port: u16, timeout: Duration) -> Self {
        Self { port, timeout }
    }

    /// Asks a member about its disk.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn identity(&self, host: &str) -> Result<Identity, AdminError> {
        self.get(host, "/v1/identity").await
    }

    /// Asks a member about itself.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn status(&self, host: &str) -> Result<NodeStatus, AdminError> {
        self.get(host, "/v1/status").await
    }

    /// Asks a worker about its pipeline.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn pipeline(&self, host: &str) -> Result<WorkerStatus, AdminError> {
        self.get(host, "/v1/pipeline").await
    }

    /// Asks the leader to hand over to another member.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn transfer(&self, host: &str, to: i64, token: &str) -> Result<(), AdminError> {
        let body = serde_json::json!({"to": to}).to_string();
        self.call(host, "/v1/transfer", Method::POST, Some(token), body).await.map(|_| ())
    }

    /// Asks the leader to register a volume as a learner. Asking again changes nothing.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn register(&self, host: &str, joiner: &Joiner<'_>, token: &str) -> Result<(), AdminError> {
        let body = serde_json::to_string(joiner).expect("a joiner is plain data");
        self.call(host, "/v1/members", Method::POST, Some(token), body).await.map(|_| ())
    }

    /// Asks the leader to strike a learner off its list.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn deregister(&self, host: &str, id: i64, token: &str) -> Result<(), AdminError> {
        let path = format!("/v1/members/{id}");
        self.call(host, &path, Method::DELETE, Some(token), String::new()).await.map(|_| ())
    }

    /// Asks the leader to end the configuration `config`; the next one has these voters.
    ///
    /// # Errors
    /// When the node does not answer as it should.
    pub async fn switch(
        &self,
        host: &str,
        config: u64,
        voters: &[i64],
        token: &str,
    ) -> Result<(), AdminError> {
        let body = format!(r#"{{"voters":{voters:?},"config":{config}}}"#);
        self.call(host, "/v1/voters", Method::POST, Some(token), body).await.map(|_| ())
    }

    /// Asks any process of ours whether it is ready.
    ///
    /// # Errors
    /// When it is not, or does not answer.
    pub async fn ready(&self, host: &str) -> Result<String, AdminError> {
        let body = self.call(host, "/readyz", Method::GET, None, String::new()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn get<T: DeserializeOwned>(&self, host: &str, path: &str) -> Result<T, AdminError> {
        let body = self.call(host, path, Method::GET, None, String::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|error| AdminError::Exchange { url: self.url(host, path), source: Box::new(error) })
    }

    async fn call(
        &self,
        host: &str,
        path: &str,
        method: Method,
        token: Option<&str>,
        body: String,
    ) -> Result<Bytes, AdminError> {
        let url = self.url(host, path);
        let late = AdminError::Timeout { url: url.clone(), timeout: self.timeout };
        let exchange = exchange(&url, (host, self.port), path, method, token, body);
        let (status, bytes) = tokio::time::timeout(self.timeout, exchange).await.map_err(|_| late)??;
        if (200..300).contains(&status) {
            return Ok(bytes);
        }
        let body = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        Err(AdminError::Refused { url, status, body })
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }
}

async fn exchange(
    url: &str,
    address: (&str, u16),
    path: &str,
    method: Method,
    token: Option<&str>,
    body: String,
) -> Result<(u16, Bytes), AdminError> {
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| AdminError::Exchange { url: url.into(), source };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| AdminError::Connect { url: url.into(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.into()))?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, format!("{}:{}", address.0, address.1))
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| failed(error.into()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(error.into()))?;
    let status = response.status().as_u16();
    let bytes = Limited::new(response.into_body(), 64 * 1024).collect().await.map_err(failed)?.to_bytes();
    driver.abort();
    Ok((status, bytes))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::{get, post};

    use super::*;

    async fn serve(router: Router) -> AdminClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        AdminClient::new(port, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_leader_is_asked_for_other_members_and_says_why_not() {
        let asked = |path: &'static str, expected: &'static str| {
            move |method: Method, body: String| async move {
                assert_eq!(format!("{method} {body}"), expected, "{path}");
                axum::http::StatusCode::ACCEPTED
            }
        };
        let join = concat!(
            r#"POST {"volume":"aa","host":"h","peerPort":2888,"clientPort":2181,"#,
            r#""featureLevels":{"min":1,"max":2}}"#
        );
        let behind = (axum::http::StatusCode::CONFLICT, "{\"error\":\"member 4 is behind\"}\n");
        let router = Router::new()
            .route("/v1/members", post(asked("members", join)))
            .route("/v1/members/4", axum::routing::delete(asked("members/4", "DELETE ")))
            .route("/v1/voters", post(async move || behind));
        let client = serve(router).await;
        let (peer_port, client_port, feature_levels) = (2888, 2181, Some(FeatureLevels { min: 1, max: 2 }));
        let joiner = Joiner { volume: "aa", host: "h", peer_port, client_port, feature_levels };
        client.register("127.0.0.1", &joiner, "t").await.expect("it is registered");
        client.deregister("127.0.0.1", 4, "t").await.expect("it is struck off");
        let refused = client.switch("127.0.0.1", 1, &[1, 4], "t").await.expect_err("not yet");
        assert_eq!(refused.conflict(), Some(r#"{"error":"member 4 is behind"}"#));
    }

    #[tokio::test]
    async fn a_node_is_asked_and_answers_are_typed() {
        let router = Router::new()
            .route(
                "/v1/identity",
                get(|| async {
                    r#"{"state":"blank","volume":"aa","memberId":null,"clusterId":null,"generation":0}"#
                }),
            )
            .route(
                "/v1/transfer",
                post(|headers: axum::http::HeaderMap, body: String| async move {
                    assert_eq!(body, r#"{"to":2}"#);
                    if headers["authorization"] == "Bearer t" {
                        Ok(())
                    } else {
                        Err(axum::http::StatusCode::FORBIDDEN)
                    }
                }),
            );
        let client = serve(router).await;
        let identity = client.identity("127.0.0.1").await.expect("an answer");
        assert_eq!(
            (identity.state, identity.volume.as_str(), identity.member_id),
            (DiskState::Blank, "aa", None)
        );
        client.transfer("127.0.0.1", 2, "t").await.expect("the right token");
        let refused = client.transfer("127.0.0.1", 2, "x").await.expect_err("the wrong token");
        assert!(matches!(refused, AdminError::Refused { status: 403, .. }), "{refused}");
    }
}
