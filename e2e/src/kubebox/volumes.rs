//! Volumes: directories on the node as PersistentVolumes of type `local`, and a default StorageClass.
//!
//! Of type `local`, since Kubernetes applies fsGroup to them, as restricted pods need, and not to hostPath. They
//! cannot grow, and one whose claim is gone must be made anew: see `recycle`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::kubebox::KubeBox;
use crate::kubebox::network::NODE;

const VOLUMES: usize = 30;

const STORAGE_CLASS: &str = "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
";

pub(super) fn create(kube_box: &KubeBox) -> anyhow::Result<()> {
    let names: Vec<String> = (1..=VOLUMES).map(|number| format!("local-{number}")).collect();
    make(kube_box, &names, STORAGE_CLASS)
}

/// Empties and offers again the volumes whose claims are gone.
pub(super) fn recycle(kube_box: &KubeBox) -> anyhow::Result<()> {
    let template = r#"jsonpath={range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}"#;
    let released = kube_box.kubectl(&["get", "persistentvolumes", "-o", template])?;
    let names: Vec<String> = released.lines().map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut delete = vec!["delete", "persistentvolumes", "--wait"];
    delete.extend(names.iter().map(String::as_str));
    kube_box.kubectl(&delete)?;
    for name in &names {
        let path = path(kube_box, name);
        fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
    }
    make(kube_box, &names, "")
}

fn make(kube_box: &KubeBox, names: &[String], also: &str) -> anyhow::Result<()> {
    let mut manifests = also.to_owned();
    for name in names {
        let path = path(kube_box, name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        manifests += &format!(
            "---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {{path: {}}}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{NODE}]}}]}}]
",
            path.display()
        );
    }
    kube_box.apply(&manifests)
}

fn path(kube_box: &KubeBox, name: &str) -> PathBuf {
    kube_box.dir.join("volumes").join(name)
}
