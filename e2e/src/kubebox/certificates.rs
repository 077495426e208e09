//! The cluster's certificate authorities, certificates, and a kubeconfig for each of its parts.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::command::output;
use crate::kubebox::network::{API_SERVICE, NODE, NODE_ADDRESS};

const DAYS: &str = "3650";
const CURVE: &str = "ec_paramgen_curve:P-256";

struct Certificate {
    name: &'static str,
    authority: &'static str,
    subject: String,
    /// Names and addresses of a server; a client has none.
    serves: Option<String>,
}

fn certificates() -> Vec<Certificate> {
    let client = |name, subject: &str| Certificate {
        name,
        authority: "client-ca",
        subject: subject.to_owned(),
        serves: None,
    };
    let server = |name, subject: &str, names: &str| Certificate {
        name,
        authority: "server-ca",
        subject: subject.to_owned(),
        serves: Some(format!("{names},DNS:localhost,IP:127.0.0.1,IP:{NODE_ADDRESS}")),
    };
    let api = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local";
    vec![
        server("apiserver", "/CN=kube-apiserver", &format!("{api},IP:{API_SERVICE}")),
        server("kubelet-server", &format!("/CN={NODE}"), &format!("DNS:{NODE}")),
        client("admin", "/O=system:masters/CN=admin"),
        client("kcm", "/CN=system:kube-controller-manager"),
        client("scheduler", "/CN=system:kube-scheduler"),
        client("kubelet", &format!("/O=system:nodes/CN=system:node:{NODE}")),
        client("proxy", "/CN=system:kube-proxy"),
        client("coredns", "/CN=coredns"),
        client("apiserver-kubelet", "/CN=kube-apiserver"),
        Certificate {
            name: "front",
            authority: "front-ca",
            subject: "/CN=system:auth-proxy".to_owned(),
            serves: None,
        },
    ]
}

/// Makes everything in `dir`.
pub(super) fn make(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for name in ["server-ca", "client-ca", "front-ca"] {
        authority(dir, name)?;
    }
    for certificate in certificates() {
        sign(dir, &certificate)?;
    }
    for user in ["admin", "kcm", "scheduler", "kubelet", "proxy", "coredns"] {
        kubeconfig(dir, user)?;
    }
    openssl(dir, &["genrsa", "-out", "sa.key", "2048"])?;
    openssl(dir, &["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])
}

fn authority(dir: &Path, name: &str) -> anyhow::Result<()> {
    let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
    let new_key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes", "-days", DAYS];
    openssl(dir, &[&new_key[..], &["-subj", &subject, "-keyout", &key, "-out", &certificate]].concat())
}

fn sign(dir: &Path, certificate: &Certificate) -> anyhow::Result<()> {
    let file = |extension: &str| format!("{}.{extension}", certificate.name);
    let extensions = match &certificate.serves {
        Some(names) => format!("extendedKeyUsage=serverAuth\nsubjectAltName={names}\n"),
        None => "extendedKeyUsage=clientAuth\n".to_owned(),
    };
    std::fs::write(dir.join(file("ext")), extensions).context("cannot write a certificate's extensions")?;
    let new_key = ["req", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes", "-subj", &certificate.subject];
    openssl(dir, &[&new_key[..], &["-keyout", &file("key"), "-out", &file("csr")]].concat())?;
    let (ca, ca_key) = (format!("{}.crt", certificate.authority), format!("{}.key", certificate.authority));
    let sign = ["x509", "-req", "-in", &file("csr"), "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
    openssl(dir, &[&sign[..], &["-days", DAYS, "-out", &file("crt"), "-extfile", &file("ext")]].concat())
}

fn kubeconfig(dir: &Path, user: &str) -> anyhow::Result<()> {
    let pki = dir.display();
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: box, cluster: {{certificate-authority: {pki}/server-ca.crt, server: 'https://{NODE_ADDRESS}:6443'}}}}]
users: [{{name: {user}, user: {{client-certificate: {pki}/{user}.crt, client-key: {pki}/{user}.key}}}}]
contexts: [{{name: box, context: {{cluster: box, user: {user}}}}}]
current-context: box
"
    );
    let path = dir.join(format!("{user}.kubeconfig"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn openssl(dir: &Path, args: &[&str]) -> anyhow::Result<()> {
    output(Command::new("openssl").current_dir(dir).args(args)).map(drop)
}
