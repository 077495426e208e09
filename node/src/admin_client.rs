//! Asking members by their admin endpoints.
//!
//! Owns one HTTP exchange and the JSON of what members say. Must not know what it is asked for.

use anyhow::{Context, Result, anyhow, bail};
use pharos_ensemble::{HexId, LevelRange, Permit, PermitFounder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
/// A member gives up sooner.
const STREAM_TIMEOUT: Duration = Duration::from_secs(70);
/// A status with the most members there can be is below this.
const MAX_ANSWER: u64 = 256 << 10;

/// What a member says of itself: `/v1/identity`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) state: String,
    pub(crate) volume: HexId,
    pub(crate) cluster_id: Option<HexId>,
    pub(crate) generation: Option<u32>,
    pub(crate) peer_port: u16,
    pub(crate) client_port: u16,
    /// What it can carry out; a version that knows of no levels can do the first.
    #[serde(default = "first_level")]
    pub(crate) feature_levels: LevelRange,
}

const fn first_level() -> LevelRange {
    LevelRange { min: 1, max: 1 }
}

/// How a member does, as far as it matters here: `/v1/status`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) member_id: u32,
    pub(crate) role: String,
    /// The level in force; nothing if its version knows of none.
    pub(crate) feature_level: Option<u16>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) membership: Option<Membership>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Peer {
    pub(crate) member_id: u32,
    pub(crate) caught_up: bool,
    pub(crate) connected: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    pub(crate) config: u32,
    pub(crate) founding_digest: HexId,
    pub(crate) members: Vec<Registered>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Registered {
    #[serde(flatten)]
    pub(crate) member: PermitFounder,
    pub(crate) voter: bool,
}

impl Membership {
    pub(crate) fn voters(&self) -> Vec<u32> {
        self.members.iter().filter(|one| one.voter).map(|one| one.member.member_id).collect()
    }

    /// The permit for those that are registered and may still be blank. Its founders are the voters: they are the
    /// founders where this is the first configuration, and of no matter later.
    pub(crate) fn permit(&self, of: &Identity) -> Result<Permit> {
        let cluster_id = of.cluster_id.context("the member belongs to no ensemble")?;
        let (voters, joiners): (Vec<_>, Vec<_>) = self.members.iter().partition(|one| one.voter);
        let named = |all: Vec<&Registered>| all.into_iter().map(|one| one.member.clone()).collect();
        Ok(Permit {
            generation: of.generation.unwrap_or(1),
            secret: None,
            joiners: named(joiners),
            members: named(self.members.iter().collect()),
            founding_digest: Some(self.founding_digest),
            ..Permit::new(cluster_id.0, cluster_id.0, named(voters))
        })
    }
}

/// A member's admin address.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    authority: String,
}

impl Admin {
    pub(crate) fn new(url: &str) -> Result<Self> {
        authority(url).map(|authority| Self { authority })
    }

    /// Where it can be dialled, without the port.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn identity(&self) -> Result<Identity> {
        self.get("/v1/identity").context("the answer is not an identity")
    }

    pub(crate) fn status(&self) -> Result<Status> {
        self.get("/v1/status").context("the answer is not a status")
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (status, body) = self.exchange(&format!("GET {path}"), "", "")?;
        if status != 200 {
            bail!("{path} answers {status}: {}", body.trim());
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// A command, which needs the token. Its refusal by the member is an error.
    pub(crate) fn command(&self, line: &str, token: &str, body: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }
        let (status, body) = self.exchange(line, &format!("Authorization: Bearer {token}\r\n"), body)?;
        if (200..300).contains(&status) {
            return Ok(());
        }
        match serde_json::from_str::<Refusal>(&body) {
            Ok(Refusal { error }) => Err(anyhow!(error)),
            Err(_) => Err(anyhow!("{line} answers {status}: {}", body.trim())),
        }
    }

    /// What the path gives, however long it is, as it comes.
    pub(crate) fn stream(&self, path: &str, token: &str) -> Result<impl Read + use<>> {
        let mut stream = self.connect()?;
        // The copy that is made first takes its time; HTTP/1.0 for a body that ends with the connection.
        stream.set_read_timeout(Some(STREAM_TIMEOUT))?;
        let Self { authority } = self;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n\r\n")?;
        let mut body = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = body.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut head).context("no answer")?;
            if read == 0 || head.len() as u64 > MAX_ANSWER {
                bail!("the answer is not HTTP");
            }
        }
        let head = String::from_utf8_lossy(&head);
        if status_of(&head)? != 200 {
            let mut why = String::new();
            body.take(MAX_ANSWER).read_to_string(&mut why)?;
            bail!("{path}: {}", why.trim());
        }
        Ok(body)
    }

    fn connect(&self) -> Result<TcpStream> {
        let mut addresses = self.authority.to_socket_addrs()?;
        let address = addresses.next().ok_or_else(|| anyhow!("the name has no address"))?;
        TcpStream::connect_timeout(&address, TIMEOUT).context("no connection")
    }

    fn exchange(&self, line: &str, headers: &str, body: &str) -> Result<(u16, String)> {
        let Self { authority } = self;
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer).context("no answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("the answer is not HTTP"))?;
        Ok((status_of(head)?, body.to_owned()))
    }
}

fn status_of(head: &str) -> Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| anyhow!("the answer is not HTTP"))
}

/// The token in a file, as the members read it.
pub(crate) fn read_token(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let token = text.trim();
    if token.is_empty() {
        bail!("{} is empty", file.display());
    }
    Ok(token.to_owned())
}

/// Writes a permit so that no member reads half of it.
pub(crate) fn write_permit(permit: &Permit, out: &Path) -> Result<()> {
    let text = serde_json::to_vec_pretty(permit)?;
    // Read back, so that what is wrong with it is found here and not by the members.
    Permit::parse(&text)?;
    let half = out.with_extension("part");
    let written = std::fs::write(&half, &text).and_then(|()| std::fs::rename(&half, out));
    written.with_context(|| format!("cannot write {}", out.display()))
}

/// `host:port` of a URL.
fn authority(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| anyhow!("{url} does not begin with http://"))?;
    let authority = rest.trim_end_matches('/');
    if authority.is_empty() || authority.contains('/') {
        bail!("{url} is not http://HOST:PORT");
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { authority.to_owned() } else { format!("{authority}:8080") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_by_its_admin_url() {
        assert_eq!(authority("http://main-0.main:9090/").unwrap(), "main-0.main:9090");
        assert_eq!(authority("http://main-0").unwrap(), "main-0:8080");
        assert_eq!(authority("http://[::1]:9090").unwrap(), "[::1]:9090");
        assert_eq!(Admin::new("http://[::1]:9090").unwrap().host(), "::1");
        assert!(authority("main-0:9090").is_err());
        assert!(authority("http://main-0/v1").is_err());
    }
}
