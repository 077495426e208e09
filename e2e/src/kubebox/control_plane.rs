//! etcd, the API server, the controller manager and the scheduler.

use anyhow::Context;

use crate::command::wait_until;
use crate::kubebox::network::{NODE_ADDRESS, SERVICES};
use crate::kubebox::{KubeBox, PATIENCE};

pub(super) fn start(kube_box: &KubeBox) -> anyhow::Result<()> {
    kube_box.daemon("etcd", &etcd(kube_box))?;
    kube_box.daemon("kube-apiserver", &api_server(kube_box))?;
    wait_until("the API server", PATIENCE, || {
        kube_box.kubectl(&["get", "--raw", "/readyz"]).map(Some).context("the API server is not ready")
    })?;
    kube_box.daemon("kube-controller-manager", &controller_manager(kube_box))?;
    let scheduler = scheduler(kube_box)?;
    kube_box.daemon("kube-scheduler", &scheduler)
}

fn etcd(kube_box: &KubeBox) -> Vec<String> {
    vec![
        format!("--data-dir={}", kube_box.dir.join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        // The cluster does not outlive its machine.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(kube_box: &KubeBox) -> Vec<String> {
    let pki = |flag: &str, file: &str| format!("--{flag}={}", kube_box.dir.join("pki").join(file).display());
    vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--advertise-address={NODE_ADDRESS}"),
        "--bind-address=0.0.0.0".into(),
        "--secure-port=6443".into(),
        pki("client-ca-file", "client-ca.crt"),
        pki("tls-cert-file", "apiserver.crt"),
        pki("tls-private-key-file", "apiserver.key"),
        pki("kubelet-client-certificate", "apiserver-kubelet.crt"),
        pki("kubelet-client-key", "apiserver-kubelet.key"),
        pki("kubelet-certificate-authority", "server-ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        pki("service-account-key-file", "sa.pub"),
        pki("service-account-signing-key-file", "sa.key"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement".into(),
        pki("requestheader-client-ca-file", "front-ca.crt"),
        "--requestheader-allowed-names=system:auth-proxy".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        pki("proxy-client-cert-file", "front.crt"),
        pki("proxy-client-key-file", "front.key"),
    ]
}

fn controller_manager(kube_box: &KubeBox) -> Vec<String> {
    let pki = |flag: &str, file: &str| format!("--{flag}={}", kube_box.dir.join("pki").join(file).display());
    vec![
        pki("kubeconfig", "kcm.kubeconfig"),
        pki("service-account-private-key-file", "sa.key"),
        pki("root-ca-file", "server-ca.crt"),
        pki("cluster-signing-cert-file", "client-ca.crt"),
        pki("cluster-signing-key-file", "client-ca.key"),
        "--use-service-account-credentials".into(),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
    ]
}

fn scheduler(kube_box: &KubeBox) -> anyhow::Result<Vec<String>> {
    let config = kube_box.write(
        "scheduler.yaml",
        &format!(
            "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {{kubeconfig: {}}}
leaderElection: {{leaderElect: false}}
",
            kube_box.kubeconfig("scheduler").display()
        ),
    )?;
    Ok(vec![format!("--config={}", config.display()), "--bind-address=127.0.0.1".into()])
}
