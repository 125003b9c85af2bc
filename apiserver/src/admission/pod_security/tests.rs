//! The plugin in a server.

use serde_json::{Value, json};

use super::PodSecurity;
use crate::{Config, Plugins, admission::Chain, testing::TestServer};

const NAMESPACES: &str = "/api/v1/namespaces";
const PODS: &str = "/api/v1/namespaces/ns/pods";

async fn server(labels: Value) -> TestServer {
    let server = TestServer::with(Config::default(), |registry| Plugins {
        admission: Chain::new(vec![std::sync::Arc::new(PodSecurity::new(
            registry.clone(),
        ))]),
        ..Plugins::default()
    })
    .await;
    let namespace = json!({"metadata": {"name": "ns", "labels": labels}});
    let answer = server.post(NAMESPACES, &namespace).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    server
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]},
    })
}

#[tokio::test]
async fn pods_that_violate_what_is_enforced_are_refused() {
    let server = server(json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let answer = server.post(PODS, &pod("p")).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    assert_eq!(answer.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn workloads_and_milder_pods_are_warned_of() {
    let server = server(json!({
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/warn": "baseline",
        "pod-security.kubernetes.io/warn-version": "v1.20",
    }))
    .await;
    let warning = "299 - \"would violate PodSecurity \\\"baseline:v1.20\\\": host namespaces (hostNetwork=true)\"";
    let answer = server.post(PODS, &pod("p")).await;
    assert_eq!(
        (answer.code.as_u16(), answer.warnings()),
        (201, vec![warning.to_owned()])
    );
    let mut template = pod("t");
    template["metadata"] = json!({"labels": {"a": "b"}});
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    let path = "/apis/apps/v1/namespaces/ns/deployments";
    let answer = server.post(path, &deployment).await;
    assert_eq!(
        (answer.code.as_u16(), answer.warnings()),
        (201, vec![warning.to_owned()])
    );
    // An update that changes nothing that counts says nothing.
    let mut stored = server.get(&format!("{PODS}/p")).await.json();
    stored["metadata"]["labels"] = json!({"x": "y"});
    let answer = server.put(&format!("{PODS}/p"), &stored).await;
    assert_eq!((answer.code.as_u16(), answer.warnings().len()), (200, 0));
    stored = answer.json();
    stored["spec"]["containers"][0]["image"] = json!("other");
    let answer = server.put(&format!("{PODS}/p"), &stored).await;
    assert_eq!((answer.code.as_u16(), answer.warnings().len()), (200, 1));
}

#[tokio::test]
async fn who_asks_for_more_hears_of_pods_that_fall_short() {
    let server = server(json!({})).await;
    for name in ["b", "a", "c"] {
        server.post(PODS, &pod(name)).await;
    }
    let mut privileged = pod("z");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    server.post(PODS, &privileged).await;
    server.server.registry().fresh().await.unwrap();
    let path = format!("{NAMESPACES}/ns");
    let mut namespace = server.get(&path).await.json();
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("baseline");
    let answer = server.put(&path, &namespace).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    assert_eq!(
        answer.warnings(),
        [
            "299 - \"existing pods in namespace \\\"ns\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"a (and 2 other pods): host namespaces\"",
            "299 - \"z: host namespaces, privileged\"",
        ]
    );
    let mut namespace = answer.json();
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("base");
    let answer = server.put(&path, &namespace).await;
    assert_eq!(answer.code, 422);
    assert_eq!(
        answer.message(),
        "Namespace \"ns\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"base\": must be one of privileged, baseline, restricted"
    );
}
