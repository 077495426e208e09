//! `pharos-node permit`: founds an Ensemble without Kubernetes.
//!
//! Owns asking blank members who they are, and the permit's file. Must not know what a founder does with it.
//!
//! Invariant: a permit is written only when every founder has answered that it is blank.

use crate::cli::PermitArgs;
use crate::failure::Failure;
use anyhow::{Context, Result, anyhow, bail};
use pharos_ensemble::{HexId, Id128, Permit, PermitFounder};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
/// An identity is a few hundred bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// What a member says of itself; see `/v1/identity`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    state: String,
    volume: HexId,
    peer_port: u16,
    client_port: u16,
}

/// Asks the founders and writes the permit.
pub(crate) fn run(args: &PermitArgs) -> Result<(), Failure> {
    write_permit(args).map_err(Failure::users)
}

fn write_permit(args: &PermitArgs) -> Result<()> {
    let mut founders = Vec::new();
    for (url, member_id) in args.founders.iter().zip(1..) {
        let authority = authority(url)?;
        let identity = ask(&authority).with_context(|| format!("founder {url}"))?;
        if identity.state != "blank" {
            bail!("founder {url} is not blank but {}: it belongs to an ensemble already", identity.state);
        }
        founders.push(PermitFounder {
            member_id,
            volume: identity.volume,
            host: host(&authority).to_owned(),
            peer_port: identity.peer_port,
            client_port: identity.client_port,
        });
    }
    let permit = Permit::new(random()?, random()?, founders);
    let text = serde_json::to_vec_pretty(&permit)?;
    // Read back, so that founders named twice are found here and not by the members.
    Permit::parse(&text)?;
    // A member must never read half a permit.
    let half = args.out.with_extension("part");
    let written = std::fs::write(&half, &text).and_then(|()| std::fs::rename(&half, &args.out));
    written.with_context(|| format!("cannot write {}", args.out.display()))?;
    println!("{}: permit for the ensemble {}", args.out.display(), permit.cluster_id.0);
    Ok(())
}

fn random() -> Result<Id128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes))?;
    Ok(Id128(bytes))
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

fn host(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn ask(authority: &str) -> Result<Identity> {
    let address = authority.to_socket_addrs()?.next().ok_or_else(|| anyhow!("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("no connection")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET /v1/identity HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).context("no answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("the answer is not HTTP"))?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("the answer is {status}");
    }
    serde_json::from_str(body).context("the answer is not an identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_founder_is_named_by_its_admin_url() {
        assert_eq!(authority("http://main-0.main:9090/").unwrap(), "main-0.main:9090");
        assert_eq!(authority("http://main-0").unwrap(), "main-0:8080");
        assert_eq!(authority("http://[::1]:9090").unwrap(), "[::1]:9090");
        assert_eq!(host("[::1]:9090"), "::1");
        assert!(authority("main-0:9090").is_err());
        assert!(authority("http://main-0/v1").is_err());
    }
}
