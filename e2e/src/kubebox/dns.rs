//! CoreDNS, as a process on the node's address behind a Service without a selector.

use crate::kubebox::KubeBox;
use crate::kubebox::network::{DNS_SERVICE, NODE_ADDRESS};

pub(super) fn start(kube_box: &KubeBox) -> anyhow::Result<()> {
    kube_box.apply(&manifests())?;
    let corefile = kube_box.write(
        "Corefile",
        &format!(
            ".:53 {{
  bind {NODE_ADDRESS}
  errors
  ready {NODE_ADDRESS}:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {}
    pods insecure
    ttl 5
  }}
  cache 5
}}
",
            kube_box.kubeconfig("coredns").display()
        ),
    )?;
    kube_box.daemon("coredns", &[format!("-conf={}", corefile.display())])
}

fn manifests() -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: system:coredns}}
rules:
- {{apiGroups: [''], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: system:coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}}
subjects: [{{kind: User, name: coredns, apiGroup: rbac.authorization.k8s.io}}]
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {DNS_SERVICE}
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kube-dns, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
addressType: IPv4
ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
endpoints: [{{addresses: [{NODE_ADDRESS}], conditions: {{ready: true}}}}]
"
    )
}
