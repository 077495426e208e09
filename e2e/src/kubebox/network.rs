//! Addresses, and the box's own network: loopback, and one bridge that carries the node's address.
//!
//! All from 198.18.0.0/15, the range set aside for benchmarks (RFC 2544): nothing real is hidden by it, and nothing
//! leaves the namespace.

use crate::command::output;
use crate::kubebox::KubeBox;

pub(super) const NODE: &str = "pharos-node-1";
pub(super) const NODE_ADDRESS: &str = "198.18.255.1";
pub(super) const PODS: &str = "198.18.0.0/17";
pub(super) const SERVICES: &str = "198.18.128.0/20";
pub(super) const API_SERVICE: &str = "198.18.128.1";
pub(super) const DNS_SERVICE: &str = "198.18.128.10";

const SCRIPT: &str = r#"
set -e
ip link set lo up
ip link add node0 type bridge
ip addr add "$1/32" dev node0
ip link set node0 up
ip route add default dev node0
sysctl -qw net.ipv4.ip_forward=1
modprobe br_netfilter 2>/dev/null || true
sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
"#;

pub(super) fn configure(kube_box: &KubeBox) -> anyhow::Result<()> {
    output(kube_box.command("sh").args(["-c", SCRIPT, "network", NODE_ADDRESS])).map(drop)
}
