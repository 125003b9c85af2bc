//! Changes: update, patch, the end of objects with finalizers, collections.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map};
use crate::testing::TestServer;

const A: &str = "/api/v1/namespaces/default/configmaps/a";

async fn with_a() -> (TestServer, Value) {
    let server = TestServer::start().await;
    let created = server
        .post(CONFIG_MAPS, &config_map("a", &json!({"k": "v"})))
        .await;
    (server, created.json())
}

#[tokio::test]
async fn an_update_needs_the_version_it_was_made_from() {
    let (server, mut object) = with_a().await;
    object["data"]["k"] = json!("w");
    let updated = server.put(A, &object).await;
    assert_eq!(updated.code, 200, "{}", updated.message());
    assert_eq!(updated.json()["data"]["k"], "w");
    assert_ne!(
        updated.json()["metadata"]["resourceVersion"],
        object["metadata"]["resourceVersion"]
    );
    let stale = server.put(A, &object).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.message(),
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    let unconditional = server.put(A, &config_map("a", &json!({"k": "x"}))).await;
    assert_eq!(unconditional.code, 200);
    assert_eq!(
        unconditional.json()["metadata"]["uid"],
        object["metadata"]["uid"]
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let (server, object) = with_a().await;
    let same = server.put(A, &object).await.json();
    assert_eq!(same, object);
    let same = server
        .patch(A, "merge", &json!({"data": {"k": "v"}}))
        .await
        .json();
    assert_eq!(same, object);
}

#[tokio::test]
async fn what_an_update_may_not_do() {
    let (server, object) = with_a().await;
    let mut renamed = object.clone();
    renamed["metadata"]["name"] = json!("b");
    assert_eq!(
        server.put(A, &renamed).await.message(),
        "the name of the object (b) does not match the name on the URL (a)"
    );
    let mut other = object.clone();
    other["metadata"]["uid"] = json!("other");
    let conflict = server.put(A, &other).await;
    assert_eq!(conflict.code, 409);
    assert!(conflict.message().contains("UID in precondition: other"));
    let mut recreated = object.clone();
    recreated["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    let kept = server.put(A, &recreated).await.json();
    assert_eq!(kept, object);
    let missing = server
        .put(&format!("{CONFIG_MAPS}/b"), &config_map("b", &Value::Null))
        .await;
    assert_eq!(missing.message(), r#"configmaps "b" not found"#);
}

#[tokio::test]
async fn some_kinds_are_created_by_an_update() {
    let server = TestServer::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a";
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "x"}});
    let created = server.put(path, &lease).await;
    assert_eq!(created.code, 201, "{}", created.message());
    assert_eq!(server.get(path).await.json()["spec"]["holderIdentity"], "x");
    // A Lease has no unconditional update.
    assert_eq!(server.put(path, &lease).await.code, 422);
}

#[tokio::test]
async fn patches_of_two_forms() {
    let (server, object) = with_a().await;
    let merged = server
        .patch(A, "merge", &json!({"data": {"k": null, "l": "1"}}))
        .await;
    assert_eq!(
        merged.json()["data"],
        json!({"l": "1"}),
        "{}",
        merged.message()
    );
    let patch = json!([
        {"op": "test", "path": "/data/l", "value": "1"},
        {"op": "add", "path": "/data/m", "value": "2"},
    ]);
    let patched = server.patch(A, "json", &patch).await;
    assert_eq!(patched.json()["data"], json!({"l": "1", "m": "2"}));
    let failed = json!([{"op": "test", "path": "/data/l", "value": "9"}]);
    assert_eq!(server.patch(A, "json", &failed).await.code, 422);
    let stale = json!({"metadata": {"resourceVersion": object["metadata"]["resourceVersion"]}});
    assert_eq!(server.patch(A, "merge", &stale).await.code, 409);
    assert_eq!(server.patch(A, "unknown", &json!({})).await.code, 415);
}

#[tokio::test]
async fn the_last_finalizer_ends_a_deleted_object() {
    let (server, _) = with_a().await;
    let finalizers = json!({"metadata": {"finalizers": ["example.com/x"]}});
    server.patch(A, "merge", &finalizers).await;
    let mut events = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    events.next().await;
    server.delete(A, &Value::Null).await;
    assert_eq!(events.next().await.unwrap()["type"], "MODIFIED");
    let added = json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}});
    assert_eq!(server.patch(A, "merge", &added).await.code, 422);
    let last = server
        .patch(A, "merge", &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(last.code, 200, "{}", last.message());
    assert_eq!(events.next().await.unwrap()["type"], "DELETED");
    assert_eq!(server.get(A).await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let (server, _) = with_a().await;
    for name in ["b", "c"] {
        server
            .post(CONFIG_MAPS, &config_map(name, &Value::Null))
            .await;
    }
    let target = format!("{CONFIG_MAPS}?labelSelector=app%21%3Db");
    let deleted = server.delete(&target, &Value::Null).await.json();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(CONFIG_MAPS).await.json();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_made() {
    let (server, _) = with_a().await;
    let patches = (0..20).map(|index| {
        let key = format!("k{index}");
        let server = &server;
        async move {
            server
                .patch(A, "merge", &json!({"data": {key: "1"}}))
                .await
                .code
        }
    });
    let codes = futures::future::join_all(patches).await;
    assert!(codes.iter().all(|code| *code == 200));
    let data = server.get(A).await.json()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 21);
}
