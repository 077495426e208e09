//! `/metrics` in Prometheus' text format.
//!
//! Owns the names: `ZooKeeper`'s own where its `mntr` has the number, `pharos_*` for the rest. Must not
//! know HTTP. Pure: a snapshot in, text out.

use crate::status::{RoleName, Snapshot};
use crate::words::{self, Settings};
use pharos_replica::CloseReason;
use std::fmt::{Display, Write};

/// Every reason, at the place of its count in [`crate::status::Counters::closed`].
pub(crate) const REASONS: [CloseReason; crate::status::CLOSE_REASONS] = [
    CloseReason::SessionEnded,
    CloseReason::SessionMoved,
    CloseReason::SessionRefused,
    CloseReason::ClientAhead,
    CloseReason::LeaderLost,
    CloseReason::CutOff,
    CloseReason::Malformed,
    CloseReason::Refused,
    CloseReason::NotServing,
    CloseReason::Removed,
];

const ROLES: [RoleName; 8] = [
    RoleName::Blank,
    RoleName::Founding,
    RoleName::Joining,
    RoleName::Candidate,
    RoleName::Learner,
    RoleName::Follower,
    RoleName::Leader,
    RoleName::Removed,
];

/// The whole page.
#[must_use]
pub(crate) fn render(now: &Snapshot, settings: &Settings<'_>) -> String {
    let mut page = Page::default();
    for (name, value) in words::numbers(now, settings) {
        page.family(name, "gauge", "As in ZooKeeper's mntr.");
        page.sample(name, &[], &value);
    }
    page.member(now);
    page.clients(now);
    page.peers(now);
    page.reactor(now);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a string takes all");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: &dyn Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            write!(self.0, "{open}{label}=\"{text}\"").expect("a string takes all");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(self.0, "{close} {value}").expect("a string takes all");
    }

    fn gauge(&mut self, name: &str, help: &str, value: &dyn Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], &value);
    }

    fn member(&mut self, now: &Snapshot) {
        let status = &now.status;
        self.family("pharos_build_info", "gauge", "The build; always 1.");
        self.sample("pharos_build_info", &[("version", &crate::status::VERSION)], &1);
        self.gauge("pharos_serving", "1 while clients are answered.", &u8::from(status.serving));
        let full = "1 while the disk has no room, and no writes are acknowledged.";
        self.gauge("pharos_disk_full", full, &u8::from(status.disk_full));
        if let Some(ahead) = status.leader_clock_ahead_ms {
            let help = "By how much the leader's clock is ahead of the member's.";
            self.gauge("pharos_leader_clock_ahead_seconds", help, &(ahead as f64 / 1_000.0));
        }
        self.family("pharos_role", "gauge", "1 for what the member does.");
        for role in ROLES {
            self.sample("pharos_role", &[("role", &role.as_str())], &u8::from(role == status.role));
        }
        self.gauge("pharos_feature_level", "The feature level in force.", &status.feature_level);
        self.family(
            "pharos_feature_level_max",
            "gauge",
            "The highest feature level that a member can carry out.",
        );
        let peers = status.peers.iter().filter_map(|peer| Some((peer.member_id, peer.feature_levels?)));
        for (member, levels) in std::iter::once((status.member_id, status.feature_levels)).chain(peers) {
            self.sample("pharos_feature_level_max", &[("member", &member)], &levels.max);
        }
        self.gauge("pharos_applied_slot", "The last slot applied.", &status.applied);
        self.gauge("pharos_committed_slot", "The last slot known to be chosen.", &status.committed);
        self.gauge("pharos_durable_slot", "The last slot durable in this member's log.", &status.durable);
        self.gauge("pharos_flushed_slot", "The last slot in the store.", &status.flushed);
    }

    fn clients(&mut self, now: &Snapshot) {
        let counters = &now.gauges.counters;
        self.counter("pharos_client_accepted_total", "Connections accepted.", counters.accepted);
        self.counter(
            "pharos_client_rejected_total",
            "Connections turned away by a limit.",
            counters.rejected,
        );
        self.counter("pharos_client_received_bytes_total", "Bytes read.", counters.bytes_received);
        self.counter("pharos_client_sent_bytes_total", "Bytes written.", counters.bytes_sent);
        let closed = "pharos_client_closed_total";
        self.family(closed, "counter", "Connections closed by this member, by reason.");
        for (reason, count) in REASONS.iter().zip(counters.closed) {
            self.sample(closed, &[("reason", &reason.as_str())], &count);
        }
        for (reason, count) in [
            ("oversized", counters.oversized),
            ("malformed_frame", counters.malformed),
            ("too_slow", counters.too_slow),
        ] {
            self.sample(closed, &[("reason", &reason)], &count);
        }
        let latency = "pharos_request_latency_seconds";
        self.family(latency, "summary", "From request to reply, sampled once at a time per connection.");
        let seconds = counters.latency.sum_us as f64 / 1e6;
        self.sample(&format!("{latency}_sum"), &[], &seconds);
        self.sample(&format!("{latency}_count"), &[], &counters.latency.count);
    }

    fn peers(&mut self, now: &Snapshot) {
        let counters = &now.gauges.counters;
        self.family("pharos_peer_connected", "gauge", "1 while both lanes to the peer are there.");
        for peer in &now.status.peers {
            let connected = u8::from(peer.connected);
            self.sample("pharos_peer_connected", &[("member", &peer.member_id)], &connected);
        }
        self.family(
            "pharos_peer_matched_slot",
            "gauge",
            "How much of the log the peer has, seen by the leader.",
        );
        for peer in &now.status.peers {
            self.sample("pharos_peer_matched_slot", &[("member", &peer.member_id)], &peer.matched);
        }
        self.counter("pharos_peer_links_up_total", "Times a link came up.", counters.links_up);
        self.counter("pharos_peer_links_broken_total", "Times a link broke.", counters.links_broken);
        let refused = "Peers turned away by their hello.";
        self.counter("pharos_peer_hellos_refused_total", refused, counters.hellos_refused);
    }

    fn reactor(&mut self, now: &Snapshot) {
        let counters = &now.gauges.counters;
        self.counter("pharos_reactor_turns_total", "Turns of the reactor.", counters.turns);
        self.counter("pharos_reactor_slow_turns_total", "Turns longer than 50 ms.", counters.slow_turns);
        self.counter("pharos_log_groups_total", "Log requests made durable.", counters.log_syncs);
        self.gauge("pharos_log_bytes", "Bytes of the log that a restart would read.", &now.gauges.log_bytes);
        self.gauge(
            "pharos_replayed_slots",
            "Slots applied from the log at this start because the store did not hold them.",
            &now.gauges.replayed_slots,
        );
        let installed = "States taken over from a leader because the log did not reach back far enough.";
        self.counter("pharos_installed_states_total", installed, now.gauges.installed_states);
        let repaired = "Those among them that were taken since this member's own differed from a majority's.";
        self.counter("pharos_repaired_states_total", repaired, now.gauges.repaired_states);
        self.gauge("pharos_value_bytes", "Bytes of values in memory.", &now.gauges.values_here);
        let cold = "Values read from the store, since they were not in memory.";
        self.counter("pharos_cold_reads_total", cold, now.gauges.cold_reads);
        self.gauge("pharos_log_segments", "Segments of the log.", &now.gauges.log_segments);
        self.counter("pharos_elections_total", "Elections this member has stood in.", now.gauges.elections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{LevelRange, PeerStatus};
    use std::collections::BTreeSet;

    const SETTINGS: Settings<'_> = Settings {
        client_port: 2181,
        data_dir: "/data",
        tick_ms: 2000,
        max_per_ip: 0,
        uptime_ms: 5,
        open_descriptors: None,
        max_descriptors: None,
    };

    #[test]
    fn every_sample_belongs_to_the_family_above_it_and_no_family_comes_twice() {
        let mut now = Snapshot::default();
        now.status.peers = vec![PeerStatus {
            member_id: 2,
            matched: 7,
            caught_up: true,
            connected: true,
            feature_levels: Some(LevelRange { min: 1, max: 9 }),
        }];
        let page = render(&now, &SETTINGS);
        let (mut families, mut family) = (BTreeSet::new(), "");
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} comes twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} under {family}");
                line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            }
        }
        assert!(page.contains("znode_count 0\n"), "{page}");
        assert!(page.contains("pharos_peer_matched_slot{member=\"2\"} 7\n"), "{page}");
        assert!(page.contains("pharos_feature_level_max{member=\"2\"} 9\n"), "{page}");
        assert!(page.contains("pharos_role{role=\"blank\"} 1\n"), "{page}");
    }
}
