//! Pods on a node with a real containerd: what runs, what the API shows of it, and that nothing is
//! left behind.

mod support;

use serde_json::json;
use support::{
    available,
    node::{Node, condition, container, shell},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_goes() {
    if !available() {
        return;
    }
    let node = Node::start().await;
    node.create(
        "web",
        json!({"containers": [shell("c", "echo hello; sleep 1000")]}),
    )
    .await;
    let pod = node.running("web").await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    assert_eq!(condition(&pod, "PodReadyToStartContainers"), "True");
    let status = container(&pod, "c");
    assert_eq!(status["ready"], true);
    assert_eq!(status["started"], true);
    assert_eq!(status["image"], support::BUSYBOX);
    assert!(
        status["containerID"]
            .as_str()
            .unwrap_or_default()
            .starts_with("containerd://")
    );
    assert_eq!(
        pod.status.as_ref().and_then(|it| it.pod_ip.as_deref()),
        Some("127.0.0.1")
    );
    for event in [
        "Normal Pulled Container image \"coracle.test/busybox:1\" already present on machine and \
         can be accessed by the pod",
        "Normal Created Container created",
        "Normal Started Container started",
    ] {
        node.event("web", event).await;
    }
    assert_eq!(node.log(&pod, "c", 0), "hello");
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    node.delete("web").await;
    node.event("web", "Normal Killing Stopping container c")
        .await;
    assert!(!node.config.pod_dir(&uid).exists());
    node.end().await;
}
