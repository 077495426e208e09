//! As little of an etcd client as a load needs: gRPC on one HTTP/2 connection, many requests at once.
//!
//! Owns the frames and the few messages. Must not know the load.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Large enough that no answer waits for room.
const WINDOW: u32 = 16 << 20;

/// A connection. Requests are sent when an answer is waited for.
pub(super) struct Grpc {
    runtime: Runtime,
    /// None only while it is being made ready.
    sender: Option<SendRequest<Bytes>>,
    answers: VecDeque<ResponseFuture>,
    authority: String,
    patience: Duration,
}

impl Grpc {
    pub(super) fn connect(address: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot make a runtime")?;
        let sender = runtime.block_on(async {
            let handshake = async {
                let stream = TcpStream::connect(address).await.context("cannot connect")?;
                stream.set_nodelay(true).context("cannot set up a socket")?;
                let mut builder = Builder::new();
                builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
                builder.handshake(stream).await.context("cannot begin HTTP/2")
            };
            let (sender, connection) =
                timeout(patience, handshake).await.context("no connection in time")??;
            // Its end is noticed by whoever waits for an answer.
            tokio::spawn(async move { drop(connection.await) });
            anyhow::Ok(sender)
        })?;
        let authority = address.to_string();
        Ok(Self { runtime, sender: Some(sender), answers: VecDeque::new(), authority, patience })
    }

    /// Puts a call of `etcdserverpb.KV` behind those that wait for their answers.
    pub(super) fn ask(&mut self, method: &str, message: &[u8]) -> anyhow::Result<()> {
        let request = Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .context("cannot write a request")?;
        let sender = self.sender.take().context("the connection is lost")?;
        let ready = self.runtime.block_on(async { timeout(self.patience, sender.ready()).await });
        let sender = self.sender.insert(ready.context("cannot send in time")?.context("cannot send")?);
        let (answer, mut body) = sender.send_request(request, false).context("cannot send")?;
        body.send_data(frame(message), true).context("cannot send")?;
        self.answers.push_back(answer);
        Ok(())
    }

    /// Waits for the answer to the oldest request, which must be a success, and gives its message.
    pub(super) fn answered(&mut self) -> anyhow::Result<Bytes> {
        let answer = self.answers.pop_front().context("nothing was asked")?;
        let received = self.runtime.block_on(async { timeout(self.patience, receive(answer)).await });
        received.context("no answer in time")?
    }
}

/// A message in gRPC's frame: not compressed, and its length.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a message is smaller than 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

async fn receive(answer: ResponseFuture) -> anyhow::Result<Bytes> {
    let response = answer.await.context("cannot receive")?;
    ensure!(response.status().is_success(), "the server says {}", response.status());
    let (head, mut body) = response.into_parts();
    let mut frame = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.context("cannot receive")?;
        body.flow_control().release_capacity(part.len()).context("cannot receive")?;
        frame.extend_from_slice(&part);
    }
    let trailers = body.trailers().await.context("cannot receive")?.unwrap_or_default();
    // An error may come without a body, and then it is in the head.
    let status = status(&trailers).or_else(|| status(&head.headers)).context("an answer has a status")?;
    ensure!(status == "0", "the server answers with status {status}");
    ensure!(frame.len() >= 5, "an answer is shorter than its frame");
    Ok(frame.freeze().slice(5..))
}

fn status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

/// `PutRequest`.
pub(super) fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(key.len() + value.len() + 8);
    field(1, key, &mut message);
    field(2, value, &mut message);
    message
}

/// `RangeRequest` of one key, answered by the member that is asked from what it has, as ZooKeeper answers reads.
pub(super) fn get(key: &[u8]) -> Vec<u8> {
    const SERIALIZABLE: [u8; 2] = [7 << 3, 1];
    let mut message = Vec::with_capacity(key.len() + 8);
    field(1, key, &mut message);
    message.extend_from_slice(&SERIALIZABLE);
    message
}

/// `TxnRequest` that puts all of them.
pub(super) fn put_all<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut message = Vec::new();
    for (key, value) in pairs {
        let mut operation = Vec::new();
        field(2, &put(key, value), &mut operation);
        field(2, &operation, &mut message);
    }
    message
}

/// A field of bytes in Protocol Buffers' encoding.
fn field(number: u8, bytes: &[u8], message: &mut Vec<u8>) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protocol_buffers_are() {
        assert_eq!(put(b"k", b"vv"), b"\x0a\x01k\x12\x02vv");
        assert_eq!(get(b"k"), b"\x0a\x01k\x38\x01");
        let long = put(b"k", &[b'.'; 300]);
        assert_eq!((&long[..6], long.len()), (&b"\x0a\x01k\x12\xac\x02"[..], 306));
        let both = put_all([(&b"k"[..], &b"v"[..]), (b"l", b"w")].into_iter());
        assert_eq!(both, b"\x12\x08\x12\x06\x0a\x01k\x12\x01v\x12\x08\x12\x06\x0a\x01l\x12\x01w");
    }

    #[test]
    fn a_frame_says_how_long_its_message_is() {
        assert_eq!(&frame(b"abc")[..], b"\x00\x00\x00\x00\x03abc");
    }
}
