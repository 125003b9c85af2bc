//! Claims of the default class: their volumes are made, kept, grown and removed.

use crate::cluster::{Cluster, IMAGE, Namespace};

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

/// A pod of user 1000 that adds a line to a file in its volume.
fn writer(namespace: &Namespace<'_>, name: &str) {
    namespace.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsUser: 1000}}
  containers:
  - name: main
    image: {IMAGE}
    command: [sh, -c, 'echo {name} >> /data/log; sleep 1000']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"
    ));
}

#[test]
fn a_claim_gets_a_volume_with_its_first_pod_and_keeps_it() {
    let namespace = Cluster::shared().namespace();
    let classes = namespace.kubectl("get storageclass --no-headers");
    assert!(classes.starts_with("local-path (default)"), "{classes}");

    // A pod waits for its claim, the claim for its first pod.
    writer(&namespace, "first");
    let why = "get events -o jsonpath={.items[*].message}";
    namespace.eventually(why, |it| {
        it.contains("0/1 nodes are available: persistentvolumeclaim \"data\" not found.")
    });
    namespace.apply(CLAIM);
    namespace.kubectl("wait pod/first --for=condition=Ready --timeout=120s");
    let reasons = "get events --field-selector involvedObject.kind=PersistentVolumeClaim \
                   -o jsonpath={.items[*].reason}";
    namespace.eventually(reasons, |it| {
        [
            "ExternalProvisioning",
            "Provisioning",
            "ProvisioningSucceeded",
        ]
        .iter()
        .all(|reason| it.split(' ').any(|found| found == *reason))
    });
    let claim = |path: &str| namespace.kubectl(&format!("get pvc data -o jsonpath={path}"));
    assert_eq!(claim("{.status.phase}"), "Bound");
    assert_eq!(
        claim("{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}"),
        "node-1"
    );
    let volume = claim("{.spec.volumeName}");
    let folder = namespace.kubectl(&format!(
        "get pv {volume} -o jsonpath={{.spec.hostPath.path}}"
    ));
    let inside = namespace.cluster.data_dir().join("storage");
    assert!(folder.starts_with(&*inside.to_string_lossy()), "{folder}");

    // What was written is there for the next pod.
    namespace.kubectl("delete pod first");
    writer(&namespace, "second");
    namespace.kubectl("wait pod/second --for=condition=Ready --timeout=120s");
    namespace.eventually("exec second -- cat /data/log", |it| it == "first\nsecond\n");

    namespace.kubectl(
        "patch pvc data -p {\"spec\":{\"resources\":{\"requests\":{\"storage\":\"2Gi\"}}}}",
    );
    namespace.eventually(
        "get pvc data -o jsonpath={.status.capacity.storage}",
        |it| it == "2Gi",
    );

    namespace.kubectl("delete pod second");
    namespace.kubectl("delete pvc data");
    namespace.eventually("get pv -o name", |it| !it.contains(&volume));
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left");
}

#[test]
fn a_pod_does_not_go_where_its_volume_is_not() {
    let namespace = Cluster::shared().namespace();
    let volume = format!("{}-far", namespace.name);
    namespace.apply(&format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {volume}}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: far
  local: {{path: /far}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [
    {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [other]}}]}}]}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: far
  resources: {{requests: {{storage: 1Gi}}}}
"
    ));
    namespace.eventually("get pvc data -o jsonpath={.status.phase}", |it| {
        it == "Bound"
    });
    writer(&namespace, "lost");
    namespace.eventually("get events -o jsonpath={.items[*].message}", |it| {
        it.contains("1 node(s) didn't match PersistentVolume's node affinity")
    });
    namespace.kubectl("delete pod lost --force");
    namespace.kubectl("delete pvc data");
    namespace.cluster.kubectl(&format!("delete pv {volume}"));
}
