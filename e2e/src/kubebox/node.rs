//! The node: containerd with its network plugin, kubelet and kube-proxy.

use crate::command::{output, wait_until};
use crate::kubebox::network::{DNS_SERVICE, NODE, NODE_ADDRESS, PODS};
use crate::kubebox::{KubeBox, PATIENCE};

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "pharos.local/pause:1";

pub(super) fn start_containerd(kube_box: &KubeBox) -> anyhow::Result<()> {
    let dir = kube_box.dir.display();
    kube_box.write(
        "cni/10-pharos.conflist",
        &format!(
            r#"{{"cniVersion":"1.0.0","name":"pharos","plugins":[
{{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{{"type":"host-local","dataDir":"{dir}/cni-ipam","ranges":[[{{"subnet":"{PODS}"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
{{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}
"#
        ),
    )?;
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in many containers and virtual machines, no pod starts
    // otherwise.
    let config = kube_box.write(
        "containerd.toml",
        &format!(
            r#"version = 2
root = "{dir}/containerd/root"
state = "{dir}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
            socket = kube_box.containerd_socket().display()
        ),
    )?;
    kube_box.daemon("containerd", &[format!("--config={}", config.display())])
}

pub(super) fn start_kubelet(kube_box: &KubeBox, cgroup: &str) -> anyhow::Result<()> {
    wait_until("containerd", PATIENCE, || {
        let mut command = kube_box.command("ctr");
        output(command.arg("-a").arg(kube_box.containerd_socket()).arg("version")).map(Some)
    })?;
    let dir = kube_box.dir.display();
    // Pods ask the cluster's DNS, which asks nobody else.
    kube_box.write("resolv.conf", "nameserver 127.0.0.1\n")?;
    let config = kube_box.write(
        "kubelet.yaml",
        &format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
address: {NODE_ADDRESS}
containerRuntimeEndpoint: unix://{socket}
authentication: {{x509: {{clientCAFile: {dir}/pki/client-ca.crt}}, webhook: {{enabled: true}}, anonymous: {{enabled: false}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {dir}/pki/kubelet-server.crt
tlsPrivateKeyFile: {dir}/pki/kubelet-server.key
clusterDNS: [{DNS_SERVICE}]
clusterDomain: cluster.local
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi"}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 60
resolvConf: {dir}/resolv.conf
staticPodPath: ""
podLogsDir: {dir}/pods
"#,
            socket = kube_box.containerd_socket().display()
        ),
    )?;
    kube_box.daemon(
        "kubelet",
        &[
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kube_box.kubeconfig("kubelet").display()),
            format!("--root-dir={dir}/kubelet"),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={NODE_ADDRESS}"),
            "--v=1".into(),
        ],
    )?;
    // What the API server needs for logs, exec and port-forward.
    kube_box.apply(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: apiserver-kubelet}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:kubelet-api-admin}
subjects: [{kind: User, name: kube-apiserver, apiGroup: rbac.authorization.k8s.io}]
",
    )
}

pub(super) fn start_proxy(kube_box: &KubeBox) -> anyhow::Result<()> {
    // The zeros: the machine's connection tracking is not ours to tune.
    let config = kube_box.write(
        "proxy.yaml",
        &format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {}}}
mode: iptables
clusterCIDR: {PODS}
hostnameOverride: {NODE}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
            kube_box.kubeconfig("proxy").display()
        ),
    )?;
    kube_box.daemon("kube-proxy", &[format!("--config={}", config.display())])
}

pub(super) fn wait_ready(kube_box: &KubeBox) -> anyhow::Result<()> {
    wait_until("a ready node", PATIENCE, || {
        kube_box.kubectl(&["wait", "node", NODE, "--for=condition=Ready", "--timeout=5s"]).map(Some)
    })?;
    // Made by the controller manager; no pod is admitted before.
    wait_until("the default service account", PATIENCE, || {
        kube_box.kubectl(&["get", "serviceaccount", "default"]).map(Some)
    })
    .map(drop)
}
