//! An S3 server (moto) on the node's address, for the input, output and checkpoints of pipelines in pods.

use std::process::Command;
use std::time::Duration;

use crate::command::{output, wait_until};
use crate::kubebox::KubeBox;
use crate::kubebox::network::NODE_ADDRESS;

/// Where pods reach the server; any credentials do.
pub const ENDPOINT: &str = "http://198.18.255.1:9000";
/// The bucket that is there from the start.
pub const BUCKET: &str = "pharos";

const MAKE_BUCKET: &str =
    "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='PUT'), timeout=5).read()";

pub(super) fn start(kube_box: &KubeBox) -> anyhow::Result<()> {
    let server = kube_box.tools.python.with_file_name("moto_server");
    kube_box.daemon_at("moto", &server, &["-H".into(), NODE_ADDRESS.into(), "-p".into(), "9000".into()])
}

pub(super) fn make_own_bucket(kube_box: &KubeBox) -> anyhow::Result<()> {
    make_bucket(|| kube_box.command(&kube_box.tools.python), &format!("{ENDPOINT}/{BUCKET}"))
}

/// Makes a bucket once its server answers, with a Python interpreter.
///
/// # Errors
/// If it does not answer for two minutes.
pub(crate) fn make_bucket(python: impl Fn() -> Command, url: &str) -> anyhow::Result<()> {
    wait_until("the S3 server", Duration::from_secs(120), || {
        output(python().args(["-c", MAKE_BUCKET, url])).map(Some)
    })
    .map(drop)
}
