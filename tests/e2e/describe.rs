//! `kubectl describe` of every kind with typed behaviour.

use crate::cluster::{Cluster, IMAGE};

#[test]
fn every_kind_is_described() {
    let namespace = Cluster::shared().namespace();
    namespace.kubectl("create configmap settings --from-literal=color=blue");
    namespace.kubectl("create secret generic password --from-literal=word=open");
    namespace.kubectl("create serviceaccount robot");
    namespace.kubectl(&format!(
        "create deployment web --image={IMAGE} -- sleep 3600"
    ));
    namespace.kubectl("rollout status deployment/web --timeout=120s");
    namespace.kubectl("expose deployment web --port=80 --target-port=8080");
    namespace.eventually(
        "get endpointslices -o jsonpath={.items[0].endpoints[0].addresses[0]}",
        |address| !address.is_empty(),
    );
    let describes = |what: &str, expected: &[&str]| {
        let printed = namespace.kubectl(&format!("describe {what}"));
        let squeezed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in expected {
            assert!(
                squeezed.contains(text),
                "describe {what} lacks {text:?}:\n{printed}"
            );
        }
    };
    describes(
        "configmap settings",
        &["Name: settings", "color: ---- blue"],
    );
    describes("secret password", &["Type: Opaque", "word: 4 bytes"]);
    describes(
        "serviceaccount robot",
        &["Name: robot", "Image pull secrets: <none>"],
    );
    describes(
        "deployment web",
        &[
            "Replicas: 1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
            "StrategyType: RollingUpdate",
            "ScalingReplicaSet",
            "Available True MinimumReplicasAvailable",
        ],
    );
    describes(
        "replicaset -l app=web",
        &[
            "Controlled By: Deployment/web",
            "SuccessfulCreate",
            "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
        ],
    );
    describes(
        "pod -l app=web",
        &[
            "Node: node-1/192.0.2.10",
            "Status: Running",
            "Controlled By: ReplicaSet/web-",
            "QoS Class: BestEffort",
            "Ready: True",
            "Started",
        ],
    );
    describes(
        "service web",
        &[
            "Type: ClusterIP",
            "TargetPort: 8080/TCP",
            "Endpoints: 10.42.",
        ],
    );
    describes(
        "endpointslice -l kubernetes.io/service-name=web",
        &["AddressType: IPv4", "Ready: true", "TargetRef: Pod/web-"],
    );
    describes(
        &format!("namespace {}", namespace.name),
        &["Status: Active"],
    );
    describes(
        "node node-1",
        &[
            "Ready True",
            "KubeletReady kubelet is posting ready status",
            "Kubelet Version: v1.36.",
            "Container Runtime Version: containerd://",
            "PodCIDR: 10.42.0.0/24",
            "Lease:",
            "HolderIdentity: node-1",
        ],
    );
    describes(
        "lease node-1 -n kube-node-lease",
        &["Holder Identity: node-1"],
    );
    describes("events", &["Reason: SuccessfulCreate"]);
}
