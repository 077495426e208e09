//! Objects in the S3 server that pods read from and write to.

use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;
use crate::command::output;
use crate::kubebox::BUCKET;

/// An unmodified S3 client: `ENDPOINT BUCKET KEY` prints an object, with a file it is put there, and of a KEY that ends
/// with a slash it lists what is below.
const CLIENT: &str = "
import sys, boto3
endpoint, bucket, key, *file = sys.argv[1:]
s3 = boto3.client('s3', endpoint_url=endpoint, region_name='us-east-1',
                  aws_access_key_id='test', aws_secret_access_key='test')
if file:
    s3.upload_file(file[0], bucket, key)
elif key.endswith('/'):
    for found in s3.list_objects_v2(Bucket=bucket, Prefix=key).get('Contents', []):
        print(found['Key'])
else:
    sys.stdout.write(s3.get_object(Bucket=bucket, Key=key)['Body'].read().decode())
";

/// Copies a file into the bucket.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub fn put(cluster: &Cluster, key: &str, file: &Path) -> anyhow::Result<()> {
    output(client(cluster, key)?.arg(file)).map(drop)
}

/// Reads an object.
///
/// # Errors
/// If the server cannot be reached or there is no such object.
pub fn get(cluster: &Cluster, key: &str) -> anyhow::Result<String> {
    output(&mut client(cluster, key)?)
}

/// The keys of the objects below a prefix, at most a thousand.
///
/// # Errors
/// If the server cannot be reached.
pub fn list(cluster: &Cluster, prefix: &str) -> anyhow::Result<Vec<String>> {
    let text = output(&mut client(cluster, &format!("{prefix}/"))?)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The variables that make a pod's S3 client use this server.
///
/// # Errors
/// If nobody said where the server is.
pub fn variables(cluster: &Cluster) -> anyhow::Result<[(&'static str, String); 4]> {
    Ok(variables_at(cluster.s3_endpoint()?))
}

/// Those for the server at `endpoint`; any credentials do.
pub(crate) fn variables_at(endpoint: String) -> [(&'static str, String); 4] {
    [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ]
}

/// The same as entries of `spec.pods.env`.
///
/// # Errors
/// If nobody said where the server is.
pub fn environment(cluster: &Cluster) -> anyhow::Result<String> {
    let entries = variables(cluster)?.map(|(name, value)| format!("{{name: {name}, value: '{value}'}}"));
    Ok(format!("[{}]", entries.join(", ")))
}

fn client(cluster: &Cluster, key: &str) -> anyhow::Result<Command> {
    let mut python = cluster.python(CLIENT);
    python.args([&cluster.s3_endpoint()?, BUCKET, key]);
    Ok(python)
}
