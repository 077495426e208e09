//! Objects in the S3 server that pods read from and write to.

use std::path::Path;

use crate::cluster::Cluster;
use crate::command::output;
use crate::kubebox::BUCKET;

const PUT: &str = "
import sys, urllib.request as u
data = open(sys.argv[2], 'rb').read()
u.urlopen(u.Request(sys.argv[1], method='PUT', data=data), timeout=60).read()
";
const GET: &str = "
import sys, urllib.request as u
sys.stdout.write(u.urlopen(sys.argv[1], timeout=60).read().decode())
";

/// Copies a file into the bucket.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub fn put(cluster: &Cluster, key: &str, file: &Path) -> anyhow::Result<()> {
    output(cluster.python(PUT).arg(url(cluster, key)?).arg(file)).map(drop)
}

/// Reads an object.
///
/// # Errors
/// If the server cannot be reached or there is no such object.
pub fn get(cluster: &Cluster, key: &str) -> anyhow::Result<String> {
    output(cluster.python(GET).arg(url(cluster, key)?))
}

/// The environment that makes a pod's S3 client use this server, as entries of `spec.pods.env`.
///
/// # Errors
/// If nobody said where the server is.
pub fn environment(cluster: &Cluster) -> anyhow::Result<String> {
    let endpoint = cluster.s3_endpoint()?;
    let entries = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let entries = entries.map(|(name, value)| format!("{{name: {name}, value: '{value}'}}"));
    Ok(format!("[{}]", entries.join(", ")))
}

fn url(cluster: &Cluster, key: &str) -> anyhow::Result<String> {
    Ok(format!("{}/{BUCKET}/{key}", cluster.s3_endpoint()?))
}
