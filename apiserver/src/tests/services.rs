//! Addresses and ports of Services.

use std::{collections::HashSet, sync::Arc};

use coracle_api::kinds;
use coracle_store::{MemoryStore, Store as _};
use serde_json::{Value, json};

use crate::{Config, Plugins, Registry, testing::TestServer};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: Value) -> Value {
    let mut body = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    if let (Value::Object(into), Value::Object(spec)) = (&mut body["spec"], spec) {
        into.extend(spec);
    }
    body
}

#[tokio::test]
async fn a_service_is_given_an_address_and_lets_it_go() {
    let server = TestServer::start().await;
    let created = server.post(SERVICES, &service("s", json!({}))).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let spec = created.json()["spec"].clone();
    let ip = spec["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.43."));
    assert_eq!(spec["clusterIPs"], json!([ip]));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    let address = server.get(&format!("{ADDRESSES}/{ip}")).await.json();
    assert_eq!(
        address["spec"]["parentRef"],
        json!({"namespace": "default", "name": "s", "resource": "services"})
    );
    let taken = server
        .post(SERVICES, &service("t", json!({"clusterIP": ip})))
        .await;
    assert_eq!(taken.code, 422);
    assert!(
        taken.message().contains("provided IP is already allocated"),
        "{}",
        taken.message()
    );
    server.delete(&format!("{SERVICES}/s"), &Value::Null).await;
    assert_eq!(server.get(&format!("{ADDRESSES}/{ip}")).await.code, 404);
    let again = server
        .post(SERVICES, &service("t", json!({"clusterIP": ip})))
        .await;
    assert_eq!(again.code, 201, "{}", again.message());
}

#[tokio::test]
async fn changes_of_type_give_and_take() {
    let server = TestServer::start().await;
    let path = format!("{SERVICES}/s");
    let created = server
        .post(SERVICES, &service("s", json!({"type": "NodePort"})))
        .await
        .json();
    let port = created["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    // The same manifest again keeps everything.
    let same = server
        .put(&path, &service("s", json!({"type": "NodePort"})))
        .await;
    assert_eq!(same.json()["spec"], created["spec"], "{}", same.message());
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let refused = server.post(SERVICES, &service("t", taken.clone())).await;
    assert!(
        refused
            .message()
            .contains("provided port is already allocated"),
        "{}",
        refused.message()
    );
    let plain = server
        .patch(&path, "merge", &json!({"spec": {"type": "ClusterIP"}}))
        .await;
    assert_eq!(plain.code, 200, "{}", plain.message());
    assert!(plain.json()["spec"]["ports"][0].get("nodePort").is_none());
    let freed = server.post(SERVICES, &service("t", taken)).await;
    assert_eq!(freed.code, 201, "{}", freed.message());
    let ip = created["spec"]["clusterIP"].as_str().unwrap();
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let external = server.patch(&path, "merge", &external).await;
    assert_eq!(external.code, 200, "{}", external.message());
    assert_eq!(server.get(&format!("{ADDRESSES}/{ip}")).await.code, 404);
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let back = server.patch(&path, "merge", &back).await;
    assert!(
        back.json()["spec"]["clusterIP"].is_string(),
        "{}",
        back.message()
    );
}

#[tokio::test]
async fn headless_services_have_no_address() {
    let server = TestServer::start().await;
    let created = server
        .post(SERVICES, &service("s", json!({"clusterIP": "None"})))
        .await;
    assert_eq!(
        created.json()["spec"]["clusterIPs"],
        json!(["None"]),
        "{}",
        created.message()
    );
    let list = server.get(ADDRESSES).await.json();
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn nothing_is_given_twice() {
    let config = Config {
        service_cidr: "10.9.0.0/27".parse().unwrap(),
        node_ports: 30000..=30019,
        ..Config::default()
    };
    let server = TestServer::with(config, |_| Plugins::default()).await;
    let names: Vec<String> = (0..20).map(|index| format!("s{index}")).collect();
    let creations = names.iter().map(|name| {
        let body = service(name, json!({"type": "NodePort"}));
        let server = &server;
        async move { server.post(SERVICES, &body).await }
    });
    let (mut ips, mut ports) = (HashSet::new(), HashSet::new());
    for created in futures::future::join_all(creations).await {
        assert_eq!(created.code, 201, "{}", created.message());
        let spec = created.json()["spec"].clone();
        assert!(ips.insert(spec["clusterIP"].to_string()));
        assert!(ports.insert(spec["ports"][0]["nodePort"].to_string()));
    }
    let full = server
        .post(SERVICES, &service("more", json!({"type": "NodePort"})))
        .await;
    assert_eq!(full.code, 500);
    assert!(full.message().contains("range is full"));
}

#[tokio::test]
async fn the_clusters_own_range_is_an_object() {
    let server = TestServer::start().await;
    let mut events = server
        .watch("/apis/networking.k8s.io/v1/servicecidrs?watch=1")
        .await;
    events.next().await;
    let range = server
        .get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        .await;
    assert_eq!(
        range.json()["spec"]["cidrs"],
        json!(["10.43.0.0/16"]),
        "{}",
        range.message()
    );
}

#[tokio::test]
async fn taken_ports_stand_in_upstreams_place() {
    let store = Arc::new(MemoryStore::default());
    let plugins = |_: &Registry| Plugins::default();
    let server = TestServer::on(store.clone(), Config::default(), kinds::builtin(), plugins).await;
    let ports = json!([{"port": 80, "nodePort": 30009}]);
    let body = service("s", json!({"type": "NodePort", "ports": ports}));
    assert_eq!(server.post(SERVICES, &body).await.code, 201);
    let data = async || {
        let found = store.get("/registry/ranges/servicenodeports").await;
        let value = found.unwrap().expect("a range").value.clone();
        let object: Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(object["range"], "30000-32767");
        object["data"].clone()
    };
    assert_eq!(data().await, "AgA=");
    server.delete(&format!("{SERVICES}/s"), &json!({})).await;
    assert_eq!(data().await, "");
}
