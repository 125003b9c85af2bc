//! The group as clients see it, with a node that tells what the test says.

use coracle_api::kinds;
use coracle_store::MemoryStore;
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::{Config, Plugins, handler::Handlers, testing::TestServer};

struct Fixed;

#[async_trait]
impl Source for Fixed {
    async fn page(&self, _node: &str) -> Result<String, String> {
        let now = Timestamp::now().as_millisecond();
        let started = now / 1000 - 100;
        let container = |name: &str| {
            let labels = format!("{{container={name:?},namespace=\"default\",pod=\"web\"}}");
            format!(
                "container_cpu_usage_seconds_total{labels} 50 {now}\n\
                 container_memory_working_set_bytes{labels} 1048576 {now}\n\
                 container_start_time_seconds{labels} {started}\n"
            )
        };
        let (a, b) = (container("a"), container("b"));
        Ok(format!(
            "node_cpu_usage_seconds_total 1 {now}\nnode_memory_working_set_bytes 1024\n{a}{b}"
        ))
    }
}

async fn server() -> TestServer {
    let kinds: Vec<_> = kinds::builtin()
        .iter()
        .cloned()
        .chain(metrics::kinds())
        .collect();
    let store = Arc::new(MemoryStore::default());
    let server = TestServer::on(store, Config::default(), &kinds, |registry| Plugins {
        handlers: Handlers::new(ResourceMetrics::new(registry.clone(), Arc::new(Fixed)).handlers()),
        ..Plugins::default()
    })
    .await;
    let node = json!({ "metadata": { "name": "n", "labels": { "zone": "a" } } });
    let pod = json!({ "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }] } });
    for (path, object) in [
        ("/api/v1/nodes", node),
        ("/api/v1/namespaces/default/pods", pod),
    ] {
        let made = server.send(http::Method::POST, path, &object).await;
        assert_eq!(made.code, StatusCode::CREATED, "{}", made.message());
    }
    server
}

#[tokio::test]
async fn figures_are_answered_selected_and_shown() {
    let server = server().await;
    let get = async |path: &str| {
        let path = format!("/apis/metrics.k8s.io/v1beta1/{path}");
        server.send(http::Method::GET, &path, &Value::Null).await
    };
    let nodes = get("nodes").await.json();
    assert_eq!(nodes["kind"], "NodeMetricsList");
    assert_eq!(nodes["metadata"], json!({}));
    let node = &nodes["items"][0];
    assert_eq!(node["metadata"]["labels"]["zone"], "a");
    assert_eq!(node["usage"], json!({ "cpu": "0", "memory": "1Ki" }));
    assert_eq!(get("nodes/n").await.json()["kind"], "NodeMetrics");

    let pod = get("namespaces/default/pods/web").await.json();
    assert_eq!(pod["containers"][1]["name"], "b");
    assert_eq!(pod["containers"][1]["usage"]["memory"], "1Mi");
    let count = async |path: &str| get(path).await.json()["items"].as_array().map(Vec::len);
    assert_eq!(count("pods").await, Some(1));
    assert_eq!(count("namespaces/other/pods").await, Some(0));
    let selected = "namespaces/default/pods?labelSelector=app%3Dweb";
    assert_eq!(count(selected).await, Some(1));
    assert_eq!(count("pods?labelSelector=app%3Dx").await, Some(0));
    assert_eq!(count("pods?fieldSelector=metadata.name%3Dx").await, Some(0));

    let missing = get("namespaces/default/pods/x").await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND);
    let message = "podmetrics.metrics.k8s.io \"default/x\" not found";
    assert_eq!(missing.message(), message);
    let created = server
        .send(
            http::Method::POST,
            "/apis/metrics.k8s.io/v1beta1/nodes",
            &json!({}),
        )
        .await;
    assert_eq!(created.code, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_group_is_discovered_and_described() {
    let server = server().await;
    let get = async |path: &str| {
        server
            .send(http::Method::GET, path, &Value::Null)
            .await
            .json()
    };
    let list = get("/apis/metrics.k8s.io/v1beta1").await;
    assert_eq!(
        list["resources"],
        json!([
            { "name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics",
                "verbs": ["get", "list"] },
            { "name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics",
                "verbs": ["get", "list"] },
        ])
    );
    let groups = get("/apis").await;
    let last = groups["groups"].as_array().unwrap().last().unwrap();
    assert_eq!(last["name"], "metrics.k8s.io");
    let described = get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await;
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{name}";
    assert!(described["paths"][path]["get"].is_object(), "{described}");
    let name = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics";
    let schema = &described["components"]["schemas"][name];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{ "group": "metrics.k8s.io", "kind": "PodMetrics", "version": "v1beta1" }])
    );
    assert_eq!(
        schema["required"],
        json!(["timestamp", "window", "containers"])
    );
}
