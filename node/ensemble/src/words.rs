//! The four-letter words of operators and probes.
//!
//! Owns their texts, in `ZooKeeper` 3.9's format. Must not know sockets. Pure: a snapshot in, text out.

use crate::status::{RoleName, Snapshot, ZOOKEEPER_VERSION};
use std::fmt::Write;
use std::net::SocketAddr;

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// `ZooKeeper`'s other words: known, so that they are not taken for a frame's length, but not offered.
const NOT_OFFERED: [&[u8; 4]; 13] = [
    b"cons", b"crst", b"dirs", b"dump", b"gtmk", b"hash", b"srst", b"stmk", b"wchc", b"wchp", b"wchs",
    b"telc", b"lsnp",
];

/// A word that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Is the process there?
    Ruok,
    /// Server details.
    Srvr,
    /// Server details and clients.
    Stat,
    /// All numbers, one per line.
    Mntr,
    /// Read-only or not.
    Isro,
    /// Version and environment.
    Envi,
    /// Configuration.
    Conf,
    /// One of `ZooKeeper`'s that is not offered.
    Refused([u8; 4]),
}

impl Word {
    /// Reads a connection's first four bytes. None of the words is a length that a frame may have.
    #[must_use]
    pub(crate) fn parse(head: [u8; 4]) -> Option<Self> {
        match &head {
            b"ruok" => Some(Self::Ruok),
            b"srvr" => Some(Self::Srvr),
            b"stat" => Some(Self::Stat),
            b"mntr" => Some(Self::Mntr),
            b"isro" => Some(Self::Isro),
            b"envi" => Some(Self::Envi),
            b"conf" => Some(Self::Conf),
            other => NOT_OFFERED.contains(&other).then_some(Self::Refused(head)),
        }
    }
}

/// One connected client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientLine {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Requests read from it.
    pub received: u64,
    /// Bytes that wait for it to read them.
    pub queued: usize,
}

/// What is beside the snapshot in some answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    /// The clients' port.
    pub client_port: u16,
    /// The data directory.
    pub data_dir: &'a str,
    /// The tick, in ms.
    pub tick_ms: u32,
    /// Connections allowed per address, 0 for no limit.
    pub max_per_ip: u32,
    /// How long the process runs, in ms.
    pub uptime_ms: u64,
    /// Open descriptors, when known.
    pub open_descriptors: Option<usize>,
    /// The limit of open descriptors, when known.
    pub max_descriptors: Option<u64>,
}

/// The whole answer to a word.
#[must_use]
pub(crate) fn answer(word: Word, now: &Snapshot, settings: &Settings<'_>, clients: &[ClientLine]) -> String {
    let serving = now.status.serving;
    match word {
        Word::Ruok => "imok".to_owned(),
        Word::Envi => environment(),
        Word::Conf => configuration(now, settings),
        Word::Refused(word) => {
            format!(
                "{} is not executed because it is not in the whitelist.\n",
                String::from_utf8_lossy(&word)
            )
        }
        Word::Isro => if serving { "rw" } else { "null" }.to_owned(),
        Word::Srvr | Word::Stat | Word::Mntr if !serving => NOT_SERVING.to_owned(),
        Word::Srvr => server(now, None),
        Word::Stat => server(now, Some(clients)),
        Word::Mntr => monitor(now, settings),
    }
}

/// The word in `Mode:` and `zk_server_state`.
#[must_use]
pub(crate) fn mode(now: &Snapshot) -> &'static str {
    match now.status.role {
        RoleName::Learner => "observer",
        RoleName::Leader if now.gauges.voters == 1 => "standalone",
        RoleName::Leader => "leader",
        RoleName::Follower => "follower",
        _ => "looking",
    }
}

fn full_version() -> String {
    format!("{ZOOKEEPER_VERSION}, built on an unknown date")
}

fn server(now: &Snapshot, clients: Option<&[ClientLine]>) -> String {
    let mut out = format!("Zookeeper version: {}\n", full_version());
    if let Some(clients) = clients {
        out.push_str("Clients:\n");
        for client in clients {
            line(
                &mut out,
                format_args!(
                    " /{}[1](queued={},recved={},sent={})",
                    client.address, client.queued, client.received, client.received
                ),
            );
        }
        out.push('\n');
    }
    let (gauges, latency) = (&now.gauges, &now.gauges.counters.latency);
    let (min, max) = (latency.min_us / 1000, latency.max_us / 1000);
    line(&mut out, format_args!("Latency min/avg/max: {min}/{:.4}/{max}", latency.mean_ms()));
    line(&mut out, format_args!("Received: {}", gauges.counters.packets_received));
    line(&mut out, format_args!("Sent: {}", gauges.counters.packets_sent));
    line(&mut out, format_args!("Connections: {}", gauges.connections));
    line(&mut out, format_args!("Outstanding: {}", gauges.outstanding));
    line(&mut out, format_args!("Zxid: {}", now.status.zxid));
    line(&mut out, format_args!("Mode: {}", mode(now)));
    line(&mut out, format_args!("Node count: {}", gauges.znodes));
    out
}

fn monitor(now: &Snapshot, settings: &Settings<'_>) -> String {
    let mut out = String::new();
    let mut put = |name: &str, value: std::fmt::Arguments<'_>| {
        line(&mut out, format_args!("zk_{name}\t{value}"));
    };
    put("version", format_args!("{}", full_version()));
    put("server_state", format_args!("{}", mode(now)));
    match now.status.role {
        RoleName::Leader if now.gauges.voters == 1 => {}
        RoleName::Learner => put("peer_state", format_args!("observing - broadcast")),
        RoleName::Leader => put("peer_state", format_args!("leading - broadcast")),
        RoleName::Follower => put("peer_state", format_args!("following - broadcast")),
        _ => put("peer_state", format_args!("looking")),
    }
    for (name, value) in numbers(now, settings) {
        put(name, format_args!("{value}"));
    }
    out
}

/// The numbers that have a name in `ZooKeeper`'s `mntr`, without its `zk_`.
#[must_use]
pub(crate) fn numbers(now: &Snapshot, settings: &Settings<'_>) -> Vec<(&'static str, String)> {
    let (gauges, counters, latency) = (&now.gauges, &now.gauges.counters, &now.gauges.counters.latency);
    let mut out = vec![
        ("min_latency", (latency.min_us / 1000).to_string()),
        ("avg_latency", format!("{:.4}", latency.mean_ms())),
        ("max_latency", (latency.max_us / 1000).to_string()),
        ("packets_received", counters.packets_received.to_string()),
        ("packets_sent", counters.packets_sent.to_string()),
        ("num_alive_connections", gauges.connections.to_string()),
        ("outstanding_requests", gauges.outstanding.to_string()),
        ("znode_count", gauges.znodes.to_string()),
        ("watch_count", gauges.watches.to_string()),
        ("ephemerals_count", gauges.ephemerals.to_string()),
        ("approximate_data_size", gauges.data_bytes.to_string()),
        ("global_sessions", now.status.sessions.to_string()),
        ("local_sessions", "0".to_owned()),
        ("connection_rejected", counters.rejected.to_string()),
        ("uptime", settings.uptime_ms.to_string()),
    ];
    if let Some(open) = settings.open_descriptors {
        out.push(("open_file_descriptor_count", open.to_string()));
    }
    if let Some(max) = settings.max_descriptors {
        out.push(("max_file_descriptor_count", max.to_string()));
    }
    if now.status.role == RoleName::Leader && gauges.voters > 1 {
        let votes = |id: u32| {
            let mut members = now.status.membership.iter().flat_map(|all| &all.members);
            members.any(|member| member.member_id == id && member.voter)
        };
        let connected = now.status.peers.iter().filter(|peer| peer.connected);
        let (followers, observers): (Vec<_>, Vec<_>) = connected.partition(|peer| votes(peer.member_id));
        out.push(("quorum_size", gauges.voters.to_string()));
        out.push(("learners", (followers.len() + observers.len()).to_string()));
        out.push(("synced_followers", followers.len().to_string()));
        out.push(("synced_observers", observers.len().to_string()));
    }
    out
}

fn environment() -> String {
    let mut out = String::from("Environment:\n");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    line(&mut out, format_args!("zookeeper.version={}", full_version()));
    line(&mut out, format_args!("host.name={}", host.trim()));
    line(&mut out, format_args!("os.name={}", std::env::consts::OS));
    line(&mut out, format_args!("os.arch={}", std::env::consts::ARCH));
    line(&mut out, format_args!("pharos.version={}", crate::status::VERSION));
    out
}

fn configuration(now: &Snapshot, settings: &Settings<'_>) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("clientPort={}", settings.client_port));
    line(&mut out, format_args!("dataDir={}", settings.data_dir));
    line(&mut out, format_args!("tickTime={}", settings.tick_ms));
    line(&mut out, format_args!("maxClientCnxns={}", settings.max_per_ip));
    line(&mut out, format_args!("minSessionTimeout={}", settings.tick_ms * 2));
    line(&mut out, format_args!("maxSessionTimeout={}", settings.tick_ms * 20));
    line(&mut out, format_args!("serverId={}", now.status.member_id));
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::DEFAULT_MAX_CLIENT_FRAME;

    const SETTINGS: Settings<'_> = Settings {
        client_port: 2181,
        data_dir: "/data",
        tick_ms: 2000,
        max_per_ip: 0,
        uptime_ms: 5,
        open_descriptors: Some(12),
        max_descriptors: Some(1024),
    };

    fn serving(role: RoleName, voters: u64) -> Snapshot {
        let mut now = Snapshot::default();
        now.status.serving = true;
        now.status.role = role;
        now.status.zxid = "0x100000002".to_owned();
        now.gauges.voters = voters;
        now.gauges.znodes = 5;
        now
    }

    #[test]
    fn srvr_is_laid_out_as_zookeeper_does_it() {
        let text = answer(Word::Srvr, &serving(RoleName::Leader, 3), &SETTINGS, &[]);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert!(text.starts_with("Zookeeper version: 3.9.4-pharos-"), "{text}");
        assert_eq!(
            lines,
            [
                "Latency min/avg/max: 0/0.0000/0",
                "Received: 0",
                "Sent: 0",
                "Connections: 0",
                "Outstanding: 0",
                "Zxid: 0x100000002",
                "Mode: leader",
                "Node count: 5",
            ]
        );
    }

    #[test]
    fn stat_lists_the_clients() {
        let client = ClientLine { address: "127.0.0.1:5000".parse().unwrap(), received: 3, queued: 0 };
        let text = answer(Word::Stat, &serving(RoleName::Follower, 3), &SETTINGS, &[client]);
        assert!(
            text.contains("Clients:\n /127.0.0.1:5000[1](queued=0,recved=3,sent=3)\n\nLatency"),
            "{text}"
        );
        assert!(text.contains("Mode: follower\n"), "{text}");
    }

    #[test]
    fn mntr_has_one_tab_per_line_and_the_peer_state_that_probes_read() {
        let text = answer(Word::Mntr, &serving(RoleName::Leader, 3), &SETTINGS, &[]);
        for line in text.lines() {
            assert!(line.starts_with("zk_") && line.matches('\t').count() == 1, "{line}");
        }
        assert!(text.contains("zk_peer_state\tleading - broadcast\n"), "{text}");
        assert!(text.contains("zk_quorum_size\t3\n"), "{text}");
        let alone = answer(Word::Mntr, &serving(RoleName::Leader, 1), &SETTINGS, &[]);
        assert!(alone.contains("zk_server_state\tstandalone\n") && !alone.contains("peer_state"), "{alone}");
    }

    #[test]
    fn a_member_that_does_not_serve_says_so_but_is_ok() {
        let silent = Snapshot::default();
        for word in [Word::Srvr, Word::Stat, Word::Mntr] {
            assert_eq!(answer(word, &silent, &SETTINGS, &[]), NOT_SERVING);
        }
        assert_eq!(answer(Word::Ruok, &silent, &SETTINGS, &[]), "imok");
        assert_eq!(answer(Word::Isro, &silent, &SETTINGS, &[]), "null");
    }

    #[test]
    fn the_version_reads_as_numbers_up_to_the_first_dash() {
        let text = answer(Word::Envi, &Snapshot::default(), &SETTINGS, &[]);
        let version = text.lines().find_map(|line| line.strip_prefix("zookeeper.version=")).unwrap();
        assert_eq!(version.split_once('-').unwrap().0, "3.9.4");
    }

    #[test]
    fn words_are_no_lengths_and_those_not_offered_are_named() {
        for word in [b"ruok", b"srvr", b"stat", b"mntr", b"isro", b"envi", b"conf", b"dump"] {
            assert!(u32::from_be_bytes(*word) as usize > DEFAULT_MAX_CLIENT_FRAME);
        }
        let dump = Word::parse(*b"dump").unwrap();
        assert_eq!(
            answer(dump, &Snapshot::default(), &SETTINGS, &[]),
            "dump is not executed because it is not in the whitelist.\n"
        );
        assert_eq!(Word::parse([0, 0, 0, 45]), None);
    }
}
