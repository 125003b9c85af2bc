//! Paths that name no resource.

use axum::body::Body;
use coracle_api::Identity;
use http::{Request, Uri};
use serde_json::json;

use crate::{Config, Plugins, Probe, testing::TestServer};

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let server = TestServer::start().await;
    let core = server.get("/api/v1").await.json();
    let names: Vec<_> = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"pods") && names.contains(&"pods/status"));
    let groups = server.get("/apis").await.json();
    assert_eq!(groups["kind"], "APIGroupList");
    assert_eq!(server.get("/apis/apps").await.json()["kind"], "APIGroup");
    assert_eq!(
        server.get("/apis/apps/v1").await.json()["groupVersion"],
        "apps/v1"
    );
    assert_eq!(server.get("/api").await.json()["versions"][0], "v1");
    assert_eq!(server.get("/apis/apps/v9").await.code, 404);
    let aggregated =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = server.get_as("/apis", aggregated).await;
    assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
    assert!(answer.headers.contains_key("etag"));
}

#[tokio::test]
async fn health_and_version() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/version").await.json()["minor"], "36");
    for path in ["/livez", "/readyz", "/healthz", "/readyz/etcd"] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.code.as_u16(), &answer.body[..]),
            (200, &b"ok"[..]),
            "{path}"
        );
    }
    let verbose = server.get("/livez?verbose").await;
    assert_eq!(
        verbose.body,
        "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n"
    );
    server.server.health().add(|| {
        vec![Probe {
            name: "scheduler".to_owned(),
            failure: Some("panicked".to_owned()),
        }]
    });
    let failed = server.get("/readyz").await;
    assert_eq!(failed.code, 500);
    let text = String::from_utf8(failed.body.to_vec()).unwrap();
    assert!(
        text.contains("[-]scheduler failed: reason withheld\n"),
        "{text}"
    );
    assert!(text.ends_with("readyz check failed\n"));
    assert_eq!(server.get("/readyz?exclude=scheduler").await.code, 200);
    assert_eq!(server.get("/livez").await.code, 200);
    assert_eq!(server.get("/readyz/nonsense").await.code, 404);
}

#[tokio::test]
async fn metrics_count_requests() {
    let server = TestServer::start().await;
    server.get("/api/v1/namespaces/default/pods").await;
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains(r#"apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} "#), "{text}");
    assert!(text.contains("process_resident_memory_bytes"));
}

#[tokio::test]
async fn requests_beyond_the_bound_are_turned_away() {
    let config = Config {
        max_requests: 0,
        ..Config::default()
    };
    let server = TestServer::with(config, |_| Plugins::default()).await;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("/api/v1/pods");
    request.extensions_mut().insert(Identity {
        user: "someone".to_owned(),
        ..Identity::default()
    });
    let answer = server.request(request).await;
    assert_eq!(answer.code, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    // Administrators never wait.
    assert_eq!(server.get("/api/v1/pods").await.code, 200);
}

#[tokio::test]
async fn a_request_is_told_how_it_was_classified() {
    const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let server = TestServer::start().await;
    let level = json!({
        "metadata": {"name": "l"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}},
    });
    let level = server
        .post(&format!("{GROUP}/prioritylevelconfigurations"), &level)
        .await;
    assert_eq!(level.code, 201, "{}", level.message());
    let schema = json!({
        "metadata": {"name": "s"},
        "spec": {
            "matchingPrecedence": 2,
            "priorityLevelConfiguration": {"name": "l"},
            "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": "system:masters"}}],
                "resourceRules": [{"verbs": ["list"], "apiGroups": ["*"], "resources": ["pods"], "clusterScope": true, "namespaces": ["*"]}],
            }],
        },
    });
    let schema = server.post(&format!("{GROUP}/flowschemas"), &schema).await;
    assert_eq!(schema.code, 201, "{}", schema.message());
    // From here on the cache, by which requests are classified, has seen it.
    server.get(&format!("{GROUP}/flowschemas/s")).await;
    let pods = server.get("/api/v1/pods").await;
    let uid = schema.json()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(pods.headers["x-kubernetes-pf-flowschema-uid"], uid.as_str());
    let nodes = server.get("/api/v1/nodes").await;
    assert!(!nodes.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
}
