//! A flood of requests of one user leaves room for those that keep the cluster alive.

use std::time::Duration;

use axum::body::Body;
use coracle_api::Identity;
use futures::{StreamExt as _, stream::FuturesUnordered};
use http::{Method, Request, Response, header};
use serde_json::{Value, json};

use super::CONFIG_MAPS;
use crate::{Config, Plugins, testing::TestServer};

const LEVELS: &str = include_str!("../../../manifests/flowcontrol/priority-levels.yaml");
const SCHEMAS: &str = include_str!("../../../manifests/flowcontrol/flow-schemas.yaml");
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Far more than the server handles at once, and than may wait.
const FLOOD: usize = 2000;
const AT_ONCE: usize = 50;
/// When nothing was answered for so long, the rest waits.
const QUIET: Duration = Duration::from_millis(200);

fn request(user: &str, groups: &[&str], method: Method, path: &str, body: &Value) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    request.extensions_mut().insert(Identity {
        user: user.to_owned(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        ..Identity::default()
    });
    request
}

async fn configure(server: &TestServer) {
    for (manifest, plural) in [
        (LEVELS, "prioritylevelconfigurations"),
        (SCHEMAS, "flowschemas"),
    ] {
        for document in serde_yaml_ng::Deserializer::from_str(manifest) {
            let object: Value = serde::Deserialize::deserialize(document).unwrap();
            let path = format!("/apis/flowcontrol.apiserver.k8s.io/v1/{plural}");
            assert_eq!(server.post(&path, &object).await.code, 201, "{object}");
        }
        // From here on the cache, by which requests are classified, has seen them.
        server
            .get(&format!("/apis/flowcontrol.apiserver.k8s.io/v1/{plural}"))
            .await;
    }
}

/// Lists that keep their seats: they wait for a state of the store that does not come. Gives the
/// answers of those that were not let in.
async fn flood(server: &TestServer) -> Vec<Response<Body>> {
    let path = format!("{CONFIG_MAPS}?resourceVersion=1000000");
    let mut lists: FuturesUnordered<_> = (0..FLOOD)
        .map(|_| {
            let list = request("flooder", &[], Method::GET, &path, &Value::Null);
            let server = server.server.clone();
            async move { server.handle(list).await }
        })
        .collect();
    let mut answered = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(QUIET, lists.next()).await {
        answered.push(answer);
    }
    // The rest waits on, and must not be dropped: that would free its place.
    tokio::spawn(lists.collect::<Vec<_>>());
    answered
}

#[tokio::test]
async fn heartbeats_and_leader_election_go_on_in_a_flood_of_lists() {
    let config = Config {
        max_requests: AT_ONCE,
        ..Config::default()
    };
    let server = TestServer::with(config, |_| Plugins::default()).await;
    configure(&server).await;
    let lease = |holder: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": holder},
            "spec": {"holderIdentity": holder},
        })
    };
    let keepers: [(&str, &[&str]); 3] = [
        ("system:node:a", &["system:nodes"]),
        ("system:kube-scheduler", &[]),
        ("system:kube-controller-manager", &[]),
    ];
    let refused = flood(&server).await;
    assert!(refused.len() > FLOOD / 2, "{} refused", refused.len());
    for answer in refused {
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    }

    let metrics = server.get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body);
    let global = r#"{flow_schema="global-default",priority_level="global-default"}"#;
    let waiting = format!("apiserver_flowcontrol_current_inqueue_requests{global} 300\n");
    assert!(metrics.contains(&waiting), "{metrics}");

    for (user, groups) in keepers {
        let name = user.replace(':', "-");
        let create = request(user, groups, Method::POST, LEASES, &lease(&name));
        assert_eq!(server.request(create).await.code, 201, "{user}");
    }
}
