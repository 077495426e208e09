//! A little S3 server in this process that can be made to fail, and what the client makes of its failures.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;

/// An answer that is given in the place of the right one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    /// The connection breaks.
    Silence,
    /// A status and S3's code for the error.
    Status(u16, &'static str),
}

/// What the server holds.
#[derive(Default)]
pub(crate) struct Held {
    /// The objects by key, each with its number of replacements.
    pub(crate) objects: BTreeMap<String, (Vec<u8>, u64)>,
    /// The uploads by id: key and parts.
    pub(crate) uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    /// What the next requests are answered.
    pub(crate) failures: VecDeque<Failure>,
    /// The requests so far.
    pub(crate) requests: Vec<String>,
    begun: u64,
}

/// The server; it ends with the process.
pub(crate) struct Server {
    held: Arc<Mutex<Held>>,
    address: String,
}

struct Request {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let held = Arc::new(Mutex::new(Held::default()));
        let serves = Arc::clone(&held);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                answer(socket.unwrap(), &serves);
            }
        });
        Self { held, address }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.held().put(key, bytes.to_vec());
    }

    pub(crate) fn bucket(&self) -> Bucket {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = AmazonS3Builder::new()
            .with_bucket_name("b")
            .with_region("us-east-1")
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_allow_http(true)
            .with_endpoint(format!("http://{}", self.address));
        Bucket::built("b", builder).unwrap()
    }
}

impl Held {
    fn put(&mut self, key: &str, bytes: Vec<u8>) {
        let number = self.objects.get(key).map_or(0, |(_, number)| number + 1);
        self.objects.insert(key.to_owned(), (bytes, number));
    }

    /// Status, further headers, body.
    fn serve(&mut self, request: &Request) -> (u16, String, Vec<u8>) {
        let Request { method, key, query, headers, body } = request;
        let upload = query.get("uploadId").cloned();
        let missing = (404, String::new(), xml("<Error><Code>NoSuchUpload</Code></Error>"));
        match (method.as_str(), upload) {
            ("GET", _) if query.contains_key("list-type") => {
                let prefix = query.get("prefix").cloned().unwrap_or_default();
                (200, String::new(), self.list(&prefix))
            }
            ("POST", None) => {
                self.begun += 1;
                let id = format!("upload-{}", self.begun);
                self.uploads.insert(id.clone(), (key.clone(), BTreeMap::new()));
                let result = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                (200, String::new(), xml(&result))
            }
            ("POST", Some(id)) => match self.uploads.remove(&id) {
                Some((key, parts)) => {
                    self.put(&key, parts.into_values().flatten().collect());
                    let result =
                        "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
                    (200, String::new(), xml(result))
                }
                None => missing,
            },
            ("PUT", Some(id)) => match self.uploads.get_mut(&id) {
                Some((_, parts)) => {
                    parts.insert(query["partNumber"].parse().unwrap(), body.clone());
                    (200, "ETag: \"part\"\r\n".to_owned(), Vec::new())
                }
                None => missing,
            },
            ("DELETE", Some(id)) => match self.uploads.remove(&id) {
                Some(_) => (204, String::new(), Vec::new()),
                None => missing,
            },
            ("PUT", None) => {
                self.put(key, body.clone());
                (200, "ETag: \"e\"\r\n".to_owned(), Vec::new())
            }
            ("DELETE", None) => {
                self.objects.remove(key);
                (204, String::new(), Vec::new())
            }
            _ => self.get(key, headers),
        }
    }

    fn get(&self, key: &str, headers: &BTreeMap<String, String>) -> (u16, String, Vec<u8>) {
        let Some((bytes, number)) = self.objects.get(key) else {
            return (404, String::new(), xml("<Error><Code>NoSuchKey</Code></Error>"));
        };
        let tag = format!("\"v{number}\"");
        if headers.get("if-match").is_some_and(|wanted| *wanted != tag) {
            return (412, String::new(), xml("<Error><Code>PreconditionFailed</Code></Error>"));
        }
        let head = format!("ETag: {tag}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
        let Some(range) = headers.get("range") else { return (200, head, bytes.clone()) };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last) =
            (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap().min(bytes.len() - 1));
        let head = format!("{head}Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
        (206, head, bytes[first..=last].to_vec())
    }

    fn list(&self, prefix: &str) -> Vec<u8> {
        let mut result = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        for (key, (bytes, _)) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            write!(
                result,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag>\
                 <Size>{}</Size></Contents>",
                bytes.len()
            )
            .unwrap();
        }
        xml(&format!("{result}</ListBucketResult>"))
    }
}

fn xml(text: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}").into_bytes()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn read_request(socket: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    let key = decoded(path).trim_start_matches("/b").trim_start_matches('/').to_owned();
    Some(Request { method, key, query, headers, body })
}

fn answer(mut socket: TcpStream, held: &Mutex<Held>) {
    let Some(request) = read_request(&socket) else { return };
    let mut held = held.lock().unwrap();
    held.requests.push(format!("{} {}", request.method, request.key));
    let (status, head, body) = match held.failures.pop_front() {
        Some(Failure::Silence) => return,
        Some(Failure::Status(status, code)) => {
            (status, String::new(), xml(&format!("<Error><Code>{code}</Code></Error>")))
        }
        None => held.serve(&request),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    // Who asked may have gone.
    let _ = socket.write_all(head.as_bytes());
    if request.method != "HEAD" {
        let _ = socket.write_all(&body);
    }
}

#[test]
fn a_store_that_breaks_off_or_is_overloaded_is_asked_again() {
    let server = Server::start();
    server.put("k", b"found");
    for failure in [Failure::Silence, Failure::Status(500, "InternalError"), Failure::Status(503, "SlowDown")]
    {
        server.held().failures = VecDeque::from([failure; 2]);
        assert_eq!(server.bucket().get("k").unwrap().as_deref(), Some(&b"found"[..]), "{failure:?}");
        server.held().failures = VecDeque::from([failure; 2]);
        server.bucket().put("other", b"x".to_vec()).unwrap();
    }
    assert_eq!(server.held().requests.len(), 18);
}

#[test]
fn credentials_that_are_refused_are_not_tried_again_at_once_and_the_error_says_what_to_check() {
    let server = Server::start();
    server.put("k", b"found");
    let refusals = [
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (401, "Unauthorized"),
        (400, "ExpiredToken"),
    ];
    for (status, code) in refusals {
        server.held().failures = VecDeque::from([Failure::Status(status, code)]);
        let error = server.bucket().get("k").unwrap_err();
        assert_eq!(error.fault, Fault::Denied, "{error}");
        for part in ["`s3://b/k`: ", "AWS_ACCESS_KEY_ID", "expired", code] {
            assert!(error.message.contains(part), "{part:?} is not in {error}");
        }
    }
    assert_eq!(server.held().requests.len(), refusals.len());
    server.held().failures = VecDeque::from([Failure::Status(403, "AccessDenied")]);
    assert_eq!(server.bucket().list("k").unwrap_err().fault, Fault::Denied);
}

#[test]
fn a_bucket_or_an_object_that_is_not_there_is_named() {
    let server = Server::start();
    let error = server.bucket().read("k", 0..1, None).unwrap_err();
    assert_eq!((error.fault, error.message.as_str()), (Fault::User, "`s3://b/k`: there is no such object"));
    server.held().failures = VecDeque::from([Failure::Status(404, "NoSuchBucket")]);
    let error = server.bucket().put("k", Vec::new()).unwrap_err();
    assert_eq!((error.fault, error.message.as_str()), (Fault::User, "`s3://b/k`: there is no bucket `b`"));
}

#[test]
fn an_upload_that_is_gone_is_told_from_one_that_is_finished() {
    let server = Server::start();
    let bucket = server.bucket();
    let upload = bucket.start_upload("k").unwrap();
    let parts = [bucket.put_part("k", &upload, 0, b"whole".to_vec()).unwrap().unwrap()];
    bucket.finish_upload("k", &upload, &parts, 5).unwrap();
    bucket.finish_upload("k", &upload, &parts, 5).unwrap();
    assert_eq!(bucket.put_part("k", &upload, 1, Vec::new()), Ok(None));
    let error = bucket.finish_upload("k", &upload, &parts, 6).unwrap_err();
    assert_eq!(error.fault, Fault::Environment);
    assert!(error.message.contains("`s3://b/k`: the upload in parts that was under way is gone"), "{error}");
}
